"""Faster R-CNN for people.

The network predicts for every anchor whether it shows a person, and the deltas of that
person's box. The best of these boxes after non-maximum suppression are proposals; for
each, the second half of the network predicts a person score and deltas from the features in
it. Ren et al., NeurIPS 2015, arXiv:1506.01497; the detector of MultiPose (arXiv:1701.01779)
is one for people only.

Frames: boxes are in the image frame outside, and inside in pixels of the input, which shows
the whole image in its upper left corner, as large as `size` and the input size allow. Each
bucket of canvases has its own input size, scaled likewise and rounded up to a size that the
network accepts: one trace per bucket. The warp has no low-pass filter: an image that is
reduced by more than 2 is sampled, not averaged.

Box coordinates are those of edges, as in COCO: (0, 0, w, h) is all of an image w x h, and
edges are half a pixel from pixel centers. Scaling and mirroring follow this convention.

With `conventions="torchvision"` an image is prepared and anchors are placed as by
torchvision's detectors: sides are rounded down to whole pixels; pixels of the border are
repeated beyond it, not mixed with black; beyond the image the input is the mean color; half
the sides of anchors are whole pixels, and the coarsest map has the stride that divides the
input, rounded down. An input of a bucket then has room for every image of its orientation
at its full `size`.

A crowd region is not a person to detect, and boxes inside it are not background.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from pose_jax import geometry, losses, nms
from pose_jax.codecs import boxes
from pose_jax.errors import ConfigError
from pose_jax.keypoints import KeypointSet
from pose_jax.methods import augment
from pose_jax.methods.image_input import clip, move, network_inputs
from pose_jax.methods.topdown import ModelConfig, evaluated
from pose_jax.types import (
    Batch,
    Boxes,
    Decoder,
    ImageLabels,
    ImageView,
    Inputs,
    Key,
    Mean,
    ModelState,
    Panel,
    Params,
    Phase,
    Variables,
)

_RPN_SCALE = (1.0, 1.0, 1.0, 1.0)
_BOX_SCALE = (10.0, 10.0, 5.0, 5.0)
_VISIBLE = 0.3
"""People of whom an augmented view shows less than this fraction are ignored."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Pixels are those of the input.

    Attributes:
      model: a network of boxes.
      size: (short, long) side that the image is resized to fit in; MultiPose's detector
        uses (600, 900) and (800, 1200).
      buckets: canvas sizes (width, height); an image goes to the smallest it fits in.
        Each compiles a step of its own.
      conventions: "own" or "torchvision", see the module.
      max_people: maximum number of people and crowd regions per image in training.
      anchor_scales: for each map of the network, the finest first, square roots of the
        anchors' areas, pixels.
      anchor_aspects: height over width of the anchors, for every scale.
      rpn_positive, rpn_negative: IoU from which an anchor is positive, and below which
        it is background.
      rpn_samples, rpn_share: anchors per image in the loss, and the maximum fraction of
        positives among them.
      pre_nms, post_nms: proposals per map before suppression, and per image after it, in
        training.
      test_pre_nms, test_post_nms: the same at evaluation.
      rpn_nms: IoU above which the proposal of lower score is dropped.
      box_positive: IoU from which a proposal is positive; below it is background.
      box_samples, box_share: proposals per image in the loss, and the maximum fraction of
        positives among them. Ground-truth boxes are added to the proposals.
      rpn_beta, box_beta: delta error at which the loss turns from quadratic to linear; the
        box head's deltas are ten and five times as large.
      score_threshold: minimum score of the boxes returned.
      box_nms: IoU above which the box of lower score is dropped; MultiPose uses 0.6.
      slots: maximum number of boxes per image.
      augment: flip; scale: the image is reduced by a factor of 1 +- scale; translation: an
        image smaller than the input is moved inside it, a larger one is cropped at random,
        by up to this fraction of the difference in size; and colors. Other fields have no
        effect.
    """

    name: Literal["detector"]
    model: ModelConfig
    size: tuple[int, int] = (800, 1200)
    buckets: tuple[tuple[int, int], ...] = ((640, 480), (480, 640), (640, 640))
    conventions: Literal["own", "torchvision"] = "own"
    max_people: int = 32
    anchor_scales: tuple[tuple[float, ...], ...] = ((64.0, 128.0, 256.0, 512.0),)
    anchor_aspects: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_positive: float = 0.7
    rpn_negative: float = 0.3
    rpn_samples: int = 256
    rpn_share: float = 0.5
    pre_nms: int = 2000
    post_nms: int = 1000
    test_pre_nms: int = evaluated(1000)
    test_post_nms: int = evaluated(300)
    rpn_nms: float = 0.7
    box_positive: float = 0.5
    box_samples: int = 256
    box_share: float = 0.25
    rpn_beta: float = 1 / 9
    box_beta: float = 1.0
    score_threshold: float = evaluated(0.05)
    box_nms: float = evaluated(0.6)
    slots: int = evaluated(100)
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=lambda: augment.AugmentConfig(flip=0.5)
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageExample:
    """Training example: images, and people in the frame of the input.

    Attributes:
      images: normalized.
      people_xyxy: boxes, clipped to the visible part of the image.
      people_kind: 0 none, 1 person, 2 ignored.
      region_xyxy: region of the input that the image covers.
      valid: False for padding rows.
      row: number of the image.
    """

    images: Float[Array, "b h w 3"]
    people_xyxy: Float[Array, "b n 4"]
    people_kind: Int32[Array, "b n"]
    region_xyxy: Float[Array, "b 4"]
    valid: Bool[Array, " b"]
    row: Int32[Array, " b"]


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Faster R-CNN for people; it ignores the keypoint set."""

    config: Config
    keypoints: KeypointSet | None = None

    name: ClassVar = "detector"
    Config: ClassVar = Config
    outputs: ClassVar = "boxes"
    decoders: ClassVar[Mapping[str, Decoder]] = {}
    panels: ClassVar[tuple[Panel, ...]] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError for invalid options."""
        object.__setattr__(self, "keypoints", None)
        _check(self.config)
        _ = self.model

    @functools.cached_property
    def view(self) -> ImageView:
        config = self.config
        return ImageView(config.size, config.buckets, config.max_people)

    @functools.cached_property
    def model(self) -> nn.Module:
        return _network(self.config)

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("detector", self.init, self.prepare, self.loss, self.preview),)

    def init(self, key: Key) -> dict[str, Any]:
        """Returns the phase's {"params", "batch_stats"}."""
        variables = self.model.init(key, jnp.zeros((1, 64, 64, 3)), train=True)
        return {"batch_stats": {}, **variables}

    # ------------------------------------------------------------------- training

    def prepare(
        self, variables: Variables, batch: Batch[ImageLabels], key: Key | None
    ) -> ImageExample:
        """Returns images, augmented if there is a key, and people in their frame."""
        del variables  # No earlier phase, no constants.
        inputs, labels = batch.inputs, batch.labels
        draw = None
        if key is not None:
            draw = augment.draw(key, batch.epoch, inputs.row, self.config.augment)
        images, to_input, region_xyxy = network_inputs(
            self.config, self.model.divisor, inputs, draw
        )
        if draw is not None:
            images = augment.colour(images, draw.colour)
        people_xyxy = move(labels.people_xyxy, to_input)
        visible_xyxy = clip(people_xyxy, region_xyxy)
        shown = boxes.area(visible_xyxy) / jnp.maximum(boxes.area(people_xyxy), 1e-6)
        kind = jnp.where(shown < _VISIBLE, 2, labels.people_kind)
        kind = jnp.where((shown > 0) & (labels.people_kind > 0), kind, 0)
        return ImageExample(
            images=self.config.model.pixels.normalize(images),
            people_xyxy=visible_xyxy,
            people_kind=kind,
            region_xyxy=region_xyxy,
            valid=inputs.valid,
            row=inputs.row,
        )

    def preview(self, example: ImageExample) -> dict[str, Array]:
        """Returns images of an example; see `types.Phase`."""
        return {
            "input": self.config.model.pixels.denormalize(example.images),
            "boxes_xyxy": example.people_xyxy,
            "kind": example.people_kind,
        }

    def loss(
        self, params: Params, model_state: ModelState, example: ImageExample, key: Key
    ) -> tuple[Array, tuple[ModelState, dict[str, Mean]]]:
        """Returns the four losses of eq. (1) of Faster R-CNN, of proposals and of boxes."""
        variables = {"params": params, "batch_stats": model_state["batch_stats"]}
        rows = jax.vmap(lambda row: jax.random.split(jax.random.fold_in(key, row)))
        keys = rows(example.row)
        features, anchors_xyxy, objectness, deltas, updates = self._first_half(
            variables, example.images, True
        )
        rpn = self._proposal_losses(
            anchors_xyxy, objectness, deltas, example, keys[:, 0]
        )
        proposals_xyxy, _, usable = self._propose(
            example.images, anchors_xyxy, objectness, deltas, example.region_xyxy, True
        )
        head = self._box_losses(
            variables, features, proposals_xyxy, usable, example, keys[:, 1]
        )
        means = {
            "objectness": rpn[0],
            "proposal": rpn[1],
            "person": head[0],
            "box": head[1],
        }
        means = {
            name: Mean(total, jnp.asarray(weight, jnp.float32))
            for name, (total, weight) in means.items()
        }
        parts = [mean.total / jnp.maximum(mean.weight, 1) for mean in means.values()]
        total = jnp.asarray(sum(parts))
        count = jnp.sum(example.valid).astype(jnp.float32)
        batch_stats = updates.get("batch_stats", model_state["batch_stats"])
        sums = {"loss": Mean(total * count, count), **means}
        return total, ({"batch_stats": batch_stats}, sums)

    def _proposal_losses(self, anchors_xyxy, objectness, deltas, example, keys):
        of_images = jax.vmap(self._rpn_targets, in_axes=(None, 0, 0, 0, 0, 0))
        targets_xyxy, kind, counted = of_images(
            anchors_xyxy, example.people_xyxy, example.people_kind,
            example.region_xyxy, example.valid, keys,
        )  # fmt: skip
        anchors_of_all = jnp.broadcast_to(anchors_xyxy, deltas.shape)
        return _losses(
            objectness, deltas, anchors_of_all, targets_xyxy, kind, counted,
            scale=_RPN_SCALE, beta=self.config.rpn_beta,
        )  # fmt: skip

    def _box_losses(self, variables, features, proposals_xyxy, usable, example, keys):
        sampled_xyxy, targets_xyxy, kind, counted = jax.vmap(self._head_targets)(
            proposals_xyxy, usable, example.people_xyxy, example.people_kind,
            example.valid, keys,
        )  # fmt: skip
        sampled_xyxy = jax.lax.stop_gradient(sampled_xyxy)
        person, deltas = self._second_half(variables, features, sampled_xyxy, True)
        return _losses(
            person, deltas, sampled_xyxy, targets_xyxy, kind, counted,
            scale=_BOX_SCALE, beta=self.config.box_beta,
        )  # fmt: skip

    def _rpn_targets(
        self, anchors_xyxy, people_xyxy, people_kind, region_xyxy, valid, key
    ):
        """Returns each anchor's person and kind in one image, and which are sampled."""
        config = self.config
        person, kind = boxes.match(
            anchors_xyxy,
            people_xyxy,
            people_kind,
            positive=config.rpn_positive,
            negative=config.rpn_negative,
            force=True,
        )
        middle = (anchors_xyxy[:, :2] + anchors_xyxy[:, 2:]) / 2
        inside = (middle >= region_xyxy[None, :2]) & (middle <= region_xyxy[None, 2:])
        # Anchors centered outside the image are ignored, unless they are positive.
        kind = jnp.where(jnp.all(inside, axis=1) | (kind == 1), kind, -1)
        kind = jnp.where(valid, kind, -1)
        picked = boxes.sample(
            kind, key, count=config.rpn_samples, share=config.rpn_share
        )
        return people_xyxy[person], kind, picked

    def _head_targets(
        self, proposals_xyxy, usable, people_xyxy, people_kind, valid, key
    ):
        """Returns boxes of one image, the person and kind of each, and which count."""
        config = self.config
        is_person = people_kind == 1
        candidates = jnp.concatenate([proposals_xyxy, people_xyxy])
        usable = jnp.concatenate([usable, is_person]) & valid
        person, kind = boxes.match(
            candidates,
            people_xyxy,
            people_kind,
            positive=config.box_positive,
            negative=config.box_positive,
            force=False,
        )
        kind = jnp.where(usable, kind, -1)
        picked = boxes.sample(
            kind, key, count=config.box_samples, share=config.box_share
        )
        index, counted = boxes.take(picked, count=config.box_samples)
        return candidates[index], people_xyxy[person[index]], kind[index], counted

    # -------------------------------------------------------- both halves of the network

    def _first_half(self, variables, images, train: bool):
        """Returns features, anchors, logits, deltas; in training new statistics."""
        outputs: Any = self.model.apply(
            variables,
            images,
            train=train,
            method="features_and_proposals",
            mutable=["batch_stats"] if train else False,
        )
        (features, objectness, deltas), updates = outputs if train else (outputs, {})
        anchors_xyxy = jnp.concatenate(self._anchors(images))
        if len(anchors_xyxy) != objectness.shape[1]:
            raise ConfigError(
                f"config.method: {len(anchors_xyxy)} anchors, and the network gives "
                f"{objectness.shape[1]}."
            )
        return features, anchors_xyxy, objectness, deltas, updates

    def _second_half(self, variables, features, proposals_xyxy, train: bool) -> Any:
        return self.model.apply(
            variables, features, proposals_xyxy, train=train, method="classify"
        )

    def _anchors(self, images) -> list[Array]:
        """Returns the anchors of every map, [n, 4] each."""
        height, width = images.shape[1:3]
        torchvision = self.config.conventions == "torchvision"

        def of_map(stride, scales):
            size = (-(-width // stride), -(-height // stride))
            return boxes.anchors(
                size=size,
                stride=(width // size[0], height // size[1]) if torchvision else stride,
                scales=scales,
                aspects=self.config.anchor_aspects,
                offset=self.model.offset + 0.5,  # From pixel center to edge.
                rounded=torchvision,
            )

        return [
            of_map(stride, scales)
            for stride, scales in zip(
                self.model.strides, self.config.anchor_scales, strict=True
            )
        ]

    def _propose(
        self, images, anchors_xyxy, objectness, deltas, region_xyxy, train: bool
    ):
        """Returns the best boxes [b, p, 4], scores [b, p], and which are proposals."""
        config = self.config
        before = config.pre_nms if train else config.test_pre_nms
        after = config.post_nms if train else config.test_post_nms
        ends = [0, *itertools.accumulate(map(len, self._anchors(images)))]

        def of_map(start, end, objectness, deltas, region_xyxy):
            scores, best = jax.lax.top_k(
                objectness[start:end], min(before, end - start)
            )
            box = boxes.decode(
                deltas[start:end][best],
                anchors_xyxy[start:end][best],
                scale=_RPN_SCALE,
            )
            box = clip(box[None], region_xyxy[None])[0]
            least = 1e-3 if config.conventions == "torchvision" else 1
            inside = jnp.all(box[:, 2:] - box[:, :2] >= least, axis=1)
            keep = nms.box_nms(box, scores, threshold=config.rpn_nms, valid=inside)
            return box, scores, keep

        def of_image(*values):
            maps = [of_map(*span, *values) for span in itertools.pairwise(ends)]
            box, scores, keep = map(jnp.concatenate, zip(*maps, strict=True))
            scores = jnp.where(keep, scores, -jnp.inf)
            scores, best = jax.lax.top_k(scores, min(after, len(scores)))
            return box[best], scores, keep[best]

        return jax.vmap(of_image)(
            *jax.lax.stop_gradient((objectness, deltas, region_xyxy))
        )

    # ----------------------------------------------------------------- prediction

    def _best(self, box, scores, usable):
        """Returns boxes, scores and a mask of one image, in `slots` slots."""
        config = self.config
        usable &= (scores >= config.score_threshold) & (boxes.area(box) > 0)
        keep = nms.box_nms(box, scores, threshold=config.box_nms, valid=usable)
        lacking = max(config.slots - len(scores), 0)
        box = jnp.pad(box, ((0, lacking), (0, 0)))
        scores = jnp.pad(jnp.where(keep, scores, -1), (0, lacking))
        scores = jnp.where(jnp.arange(len(scores)) < len(keep), scores, -1)
        scores, index = jax.lax.top_k(scores, config.slots)
        used = scores >= 0
        return jnp.where(used[:, None], box[index], 0), scores * used, used

    def inspect(self, variables: Variables, inputs: Inputs) -> dict[str, Array]:
        """Returns the input, and boxes and proposals in the image frame."""
        weights = {
            name: variables["detector"][name] for name in ("params", "batch_stats")
        }
        images, to_input, region_xyxy = network_inputs(
            self.config, self.model.divisor, inputs, None
        )
        features, anchors_xyxy, objectness, deltas, _ = self._first_half(
            weights, self.config.model.pixels.normalize(images), False
        )
        proposals_xyxy, scores, usable = self._propose(
            images, anchors_xyxy, objectness, deltas, region_xyxy, False
        )
        person, deltas = self._second_half(weights, features, proposals_xyxy, False)
        refined = boxes.decode(deltas, proposals_xyxy, scale=_BOX_SCALE)
        refined = clip(refined, region_xyxy)
        usable &= inputs.valid[:, None]
        refined, person, valid = jax.vmap(self._best)(
            refined, jax.nn.sigmoid(person), usable
        )
        to_image = geometry.invert(to_input)
        size = inputs.box_xyxy[:, 2:] - inputs.box_xyxy[:, :2]
        whole = jnp.concatenate([jnp.zeros_like(size), size], axis=1)
        refined = jnp.where(valid[..., None], move(refined, to_image), 0)
        return {
            "input": images,
            "boxes_xyxy": clip(refined, whole),
            "scores": person,
            "valid": valid,
            "proposals_xyxy": clip(move(proposals_xyxy, to_image), whole),
            "proposal_scores": jax.nn.sigmoid(scores),
            "proposal_valid": usable,
        }

    def predict(self, variables: Variables, inputs: Inputs) -> Boxes:
        """Predicts boxes in the image frame, the best first."""
        answer = self.inspect(variables, inputs)
        return Boxes(
            boxes_xyxy=answer["boxes_xyxy"],
            scores=answer["scores"],
            valid=answer["valid"],
            row=inputs.row,
        )


# Losses.


def _losses(logits, deltas, base_xyxy, targets_xyxy, kind, counted, *, scale, beta):
    """Returns (sum, count) of the logistic loss, and of the smooth L1 loss of positives.

    Both counts are the number of samples, positive or not, as in eq. (1) of Faster R-CNN.
    """
    positive = counted & (kind == 1)
    # Not softplus(logits) - logits * positive: NaN at infinite logits.
    logistic = jax.nn.softplus(jnp.where(positive, -logits, logits))
    target = boxes.encode(targets_xyxy, base_xyxy, scale=scale)
    corners = (*deltas.shape[:2], 2, 2)
    distance = losses.keypoint_smooth_l1(
        deltas.reshape(corners),
        target.reshape(corners),
        weight=jnp.repeat(positive[..., None], 2, axis=-1),
        beta=beta,
    )
    count = jnp.sum(counted)
    return (
        (jnp.sum(jnp.where(counted, logistic, 0)), count),
        (jnp.sum(distance), count),
    )


# Checks of the config.


def _network(config: Config) -> nn.Module:
    name = config.model.name
    if "num_anchors" in config.model.options:
        raise ConfigError(
            "config.method.model.options.num_anchors follows from anchor_scales and "
            "anchor_aspects; leave it out."
        )
    model: Any = config.model.build(
        num_anchors=len(config.anchor_scales[0]) * len(config.anchor_aspects)
    )
    if len(config.anchor_scales) != len(model.strides):
        raise ConfigError(
            f"config.method.anchor_scales must have {len(model.strides)} tuples, one for "
            f"each map of {name!r}, of strides {', '.join(map(str, model.strides))}; got "
            f"{len(config.anchor_scales)}."
        )
    return model


def _check(config: Config) -> None:
    def refuse(name, wanted):
        raise ConfigError(
            f"config.method.{name} must be {wanted}; got {getattr(config, name)}."
        )

    counts = (
        *("max_people", "rpn_samples", "pre_nms", "post_nms"),
        *("test_pre_nms", "test_post_nms", "box_samples", "slots"),
    )
    for name in counts:
        if getattr(config, name) < 1:
            refuse(name, "at least 1")
    for name in ("rpn_beta", "box_beta"):
        if not 0 < getattr(config, name) < math.inf:
            refuse(name, "a positive number")
    for name in ("rpn_share", "rpn_nms", "box_share", "box_nms", "score_threshold"):
        if not 0 <= getattr(config, name) <= 1:
            refuse(name, "in [0, 1]")
    for name in ("rpn_positive", "rpn_negative", "box_positive"):
        if not 0 < getattr(config, name) <= 1:
            refuse(name, "in (0, 1]")
    if config.rpn_negative > config.rpn_positive:
        refuse("rpn_negative", f"at most rpn_positive, {config.rpn_positive}")
    if not 1 <= config.size[0] <= config.size[1]:
        refuse("size", "(short, long), pixels")
    if not config.buckets or min(map(min, config.buckets)) < 1:
        refuse("buckets", "one or more (width, height), pixels")
    scales = [scale for scales in config.anchor_scales for scale in scales]
    of_maps = {len(scales) for scales in config.anchor_scales}
    if len(of_maps) != 1 or not scales or not 0 < min(scales) <= max(scales) < math.inf:
        refuse("anchor_scales", "tuples of positive numbers, as many for each map")
    aspects = config.anchor_aspects
    if not aspects or not 0 < min(aspects) <= max(aspects) < math.inf:
        refuse("anchor_aspects", "one or more positive numbers, height over width")
    for name in ("rotation", "half_body"):
        if getattr(config.augment, name):
            raise ConfigError(
                f"config.method.augment.{name} is not supported for detectors; set it to 0."
            )
    if not 0 <= config.augment.scale < 1:
        raise ConfigError(
            "config.method.augment.scale must be in [0, 1); got "
            f"{config.augment.scale}."
        )
