"""MultiPose, by its authors' name G-RMI: discs, offsets, and votes.

One network says of every pixel of a person's crop how likely it is to lie in the disc of
radius R round each keypoint, and where from there the keypoint is. The pixels vote by Hough
voting (4); the keypoint is where most votes meet, and a pose's score is the mean of its
keypoints' votes (7). Papandreou et al., CVPR 2017, arXiv:1701.01779.

The crop is as large as the maps, 8n + 1 pixels a side with aligned corners, so the frames
inside are: image -> input. R, delta and offsets are in pixels of the input.

The paper does not say what becomes of a keypoint that nobody labelled; here it is in no
loss.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from pose_jax import geometry, keypoints, losses, models
from pose_jax.codecs import gaussian, offsets
from pose_jax.errors import ConfigError
from pose_jax.methods import augment, topdown
from pose_jax.methods.topdown import ModelConfig
from pose_jax.types import Mean, Method, PersonView, Phase, Poses


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      model: a network of heatmaps and offsets.
      input_size: (width, height), each a multiple of 8 plus 1.
      radius: R of the discs, pixels of the input; 25 at 257 x 353.
      delta: of the Huber loss (5), pixels; the paper does not say, others take 1.
      heatmap_weight, offset_weight: of (6).
      auxiliary_weight: of the intermediate heatmaps' loss beside the final one's, inside
        of heatmap_weight; 0 does without.
      reduction: "sum", the sums over pixels and keypoints of (5) and (6); "pixel", these
        over the number of pixels of a map, which keeps their ratio and makes a learning
        rate independent of the input's size; both are means over people. "mean", each
        over what it counts in the batch, which weighs offsets h w / (pi R^2) times as much.
      others: in which maps the discs of other people are left out of the loss:
        "auxiliary", as in the paper, where the final map has to learn that they are not
        asked for; "both"; or "none".
      max_others: so many other people of the image, the nearest, are known in training.
      decoder: a key of DECODERS.
      rescoring: a pose's score: the mean of its keypoint scores (7), "pose"; its box's,
        "box"; or both multiplied, "product".
      flip_test: average with the mirrored image's maps.
      padding: of the person box at evaluation. Training varies it by `augment.scale`: 0.2
        with `scale_law` "uniform" makes 1.25 the paper's 1.0 to 1.5: the default, which
        a section `augment` has to repeat, whatever else it wants.
      reach: how many padded boxes wide training may look.
    """

    name: Literal["multipose"]
    model: ModelConfig
    input_size: tuple[int, int] = (257, 353)
    radius: float = 25.0
    delta: float = 1.0
    heatmap_weight: float = 4.0
    offset_weight: float = 1.0
    auxiliary_weight: float = 1.0
    reduction: Literal["sum", "pixel", "mean"] = "sum"
    others: Literal["auxiliary", "both", "none"] = "auxiliary"
    max_others: int = 8
    decoder: str = "hough"
    rescoring: Literal["pose", "box", "product"] = "pose"
    flip_test: Literal["none", "plain"] = "none"
    padding: float = 1.25
    reach: float = 2.0
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=lambda: augment.AugmentConfig(scale=0.2, scale_law="uniform")
    )


def _argmax_offset(maps, fields, config):
    """The pixel that is likeliest in the disc, moved by what it says."""
    del config
    points_xy, scores = gaussian.decode_argmax(maps)
    x, y = points_xy[..., 0].astype(jnp.int32), points_xy[..., 1].astype(jnp.int32)
    b, k = scores.shape
    person, keypoint = jnp.arange(b)[:, None], jnp.arange(k)[None]
    return points_xy + fields[person, y, x, keypoint], scores


DECODERS: Mapping[str, Callable] = {
    "hough": lambda maps, fields, config: offsets.decode(
        maps, fields, radius=config.radius
    ),
    "hough_subpixel": lambda maps, fields, config: offsets.decode(
        maps, fields, radius=config.radius, subpixel=True
    ),
    "argmax": lambda maps, fields, config: gaussian.decode_argmax(maps),
    "argmax_offset": _argmax_offset,
}
"""Heatmaps [b,h,w,k], offsets [b,h,w,k,2] and the Config to points_xy [b,k,2], in the input
frame, and scores [b,k]. The paper's is "hough"; "argmax" does without offsets."""


def with_decoder(config: Config, decoder: str) -> Config:
    """The same network, read out another way.

    Raises:
      ConfigError: no such decoder.
    """
    if decoder not in DECODERS:
        near = difflib.get_close_matches(decoder, DECODERS, n=1, cutoff=0.0)
        raise ConfigError(
            f"no decoder {decoder!r}; there are {list(DECODERS)}. "
            f"Did you mean {near[0]!r}?"
        )
    return dataclasses.replace(config, decoder=decoder)


def build(config: Config, keypoint_set: keypoints.KeypointSet) -> Method:
    """Builds the method; see the module docstring.

    Raises:
      ConfigError: an option that cannot be, or a network of other outputs.
    """
    config = with_decoder(config, config.decoder)  # Checks the name.
    for name in ("radius", "delta", "padding"):
        if not 0 < getattr(config, name) < math.inf:
            raise ConfigError(
                f"config.method.{name} must be a positive number; "
                f"got {getattr(config, name)}."
            )
    for name in ("heatmap_weight", "offset_weight", "auxiliary_weight", "max_others"):
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(
                f"config.method.{name} must be 0 or a positive number; "
                f"got {getattr(config, name)}."
            )
    if config.model.name.startswith(models.DETECTORS):
        raise ConfigError(
            f"config.method.model.name: {config.model.name!r} gives boxes, method "
            "'multipose' needs offsets; take another network, or method 'detector'."
        )
    if config.model.name.startswith(models.HEATMAPS + models.COORDINATES):
        raise ConfigError(
            f"config.method.model.name: {config.model.name!r} gives no offsets, which "
            "method 'multipose' needs; take a network called "
            f"{' or '.join(f'{kind}...' for kind in models.HEATMAPS_AND_OFFSETS)}."
        )
    view = PersonView(
        size=config.input_size,
        padding=config.padding,
        alignment="aligned",
        reach=config.reach,
        max_others=0 if config.others == "none" else config.max_others,
    )
    w, h = config.input_size
    model, init = topdown.network(config.model, len(keypoint_set), config.input_size)

    def prepare(variables, batch, key):
        del variables  # No earlier phase, no constants.
        return topdown.example(view, batch, key, keypoint_set, config.augment)

    def of_others(example):
        """Pixels in a disc of another person, [b, h, w, k]."""
        points_xy = example["others_xy"][:, :, None, None]  # [b, m, 1, 1, k, 2]
        x = jnp.arange(w, dtype=points_xy.dtype).reshape(1, 1, 1, w, 1)
        y = jnp.arange(h, dtype=points_xy.dtype).reshape(1, 1, h, 1, 1)
        distance = jnp.square(points_xy[..., 0] - x) + jnp.square(points_xy[..., 1] - y)
        labelled = (example["others_visibility"] > 0)[:, :, None, None]
        return jnp.any(labelled & (distance <= config.radius**2), axis=1)

    def loss(params, model_state, example, key):
        del key  # No dropout.
        (auxiliary, (logits, fields)), updates = model.apply(
            {"params": params, "batch_stats": model_state["batch_stats"]},
            example["images"],
            train=True,
            mutable=["batch_stats"],
        )
        labelled = example["visibility"] > 0
        maps, ways = offsets.encode(
            example["points_xy"], size=view.size, radius=config.radius
        )
        everywhere = jnp.broadcast_to(labelled[:, None, None], maps.shape)
        apart = everywhere
        if view.max_others:
            apart = everywhere & ~of_others(example)
        counted = {
            "heatmap": apart if config.others == "both" else everywhere,
            "auxiliary": apart,
            "offset": everywhere & (maps > 0),
        }
        values = {
            "heatmap": losses.heatmap_sigmoid_cross_entropy(
                logits, maps, weight=counted["heatmap"]
            ),
            "auxiliary": losses.heatmap_sigmoid_cross_entropy(
                auxiliary, maps, weight=counted["auxiliary"]
            ),
            "offset": losses.offset_huber(
                fields, ways, mask=counted["offset"], delta=config.delta
            ),
        }

        def of_batch(name):
            people = values[name].sum(-1)
            valid = example["valid"]
            if config.reduction == "mean":
                pixels = jnp.sum(counted[name] & valid[:, None, None, None])
                summed = jnp.sum(jnp.where(valid, people, 0))
                return summed / jnp.maximum(pixels, 1)
            if config.reduction == "pixel":
                people = people / (h * w)
            return losses.masked_mean(people, valid, normalize_by="mask")

        means = {name: of_batch(name) for name in values}
        total = config.heatmap_weight * (
            means["heatmap"] + config.auxiliary_weight * means["auxiliary"]
        )
        total = total + config.offset_weight * means["offset"]
        count = jnp.sum(example["valid"]).astype(jnp.float32)
        new_state = {**model_state, "batch_stats": updates.get("batch_stats", {})}
        logged = {"loss": total, **means}
        return total, (
            new_state,
            {name: Mean(mean * count, count) for name, mean in logged.items()},
        )

    def preview(example):
        maps, _ = offsets.encode(
            example["points_xy"], size=view.size, radius=config.radius
        )
        labelled = example["visibility"] > 0
        return {
            "input": topdown.denormalise(example["images"]),
            "points_xy": example["points_xy"],
            "visibility": example["visibility"],
            "targets": maps * labelled[:, None, None],
        }

    def apply(variables, images):
        """Probabilities and offsets."""
        phase = variables["pose"]
        logits, fields = model.apply(
            {"params": phase["params"], "batch_stats": phase["batch_stats"]},
            images,
            train=False,
        )
        return jax.nn.sigmoid(logits), fields

    def maps_of(variables, images):
        maps, fields = apply(variables, images)
        if config.flip_test == "none":
            return maps, fields
        mirrored, ways = apply(variables, images[:, :, ::-1])
        mirrored = keypoints.swap(mirrored[:, :, ::-1], keypoint_set, axis=-1)
        ways = keypoints.swap(ways[:, :, ::-1], keypoint_set, axis=-2)
        ways = ways * jnp.array([-1.0, 1.0]).reshape(1, 1, 1, 1, 2)
        # Where the one sees a disc and the other none, the offsets of the one count.
        weight = jnp.stack([maps, mirrored])[..., None]
        both = weight * jnp.stack([fields, ways])
        weights = jnp.maximum(weight.sum(0), jnp.finfo(maps.dtype).tiny)
        return 0.5 * (maps + mirrored), both.sum(0) / weights

    def run(variables, inputs):
        center_xy, size = geometry.person_box(
            inputs.box_xyxy, aspect=view.aspect, padding=view.padding
        )
        images, image_to_input = topdown.crop(view, inputs, center_xy, size)
        maps, fields = maps_of(variables, topdown.normalise(images))
        points_xy, scores = DECODERS[config.decoder](maps, fields, config)
        return images, maps, fields, points_xy, scores, image_to_input

    def predict(variables, inputs):
        *_, points_xy, scores, image_to_input = run(variables, inputs)
        score = {
            "pose": scores.mean(-1),
            "box": inputs.box_score,
            "product": inputs.box_score * scores.mean(-1),
        }[config.rescoring]
        return Poses(
            points_xy=geometry.transform_points(
                points_xy, geometry.invert(image_to_input)
            ),
            keypoint_scores=scores,
            score=score,
            valid=inputs.valid,
            row=inputs.row,
        )

    def inspect(variables, inputs):
        images, maps, fields, points_xy, scores, _ = run(variables, inputs)
        return {
            "input": images,
            "heatmaps": maps,
            "offsets": fields,
            "fused": offsets.fuse(maps, fields, radius=config.radius),
            "points_xy": points_xy,
            "keypoint_scores": scores,
        }

    return Method(
        name="multipose",
        view=view,
        keypoints=keypoint_set,
        phases=(Phase("pose", init, prepare, loss, preview),),
        predict=predict,
        inspect=inspect,
    )
