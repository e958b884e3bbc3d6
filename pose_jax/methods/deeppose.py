"""DeepPose (Toshev & Szegedy, CVPR 2014): coordinates regressed, then refined by a cascade.

Stage 1 sees the person's box and predicts all joints at once, in units of the box (1). Each
later stage sees a square crop around every joint predicted by the previous stage, with side
sigma * diam(pose), and predicts its displacement: one network per stage for all joints, of
whose outputs only that of the crop's own joint is used. It is trained on crops around true
joints, displaced at random like the errors of the previous stage on the training set.

A pose's score is its box score: coordinates come without one, so keypoint scores are 1.

Frames: image -> input (of the network); diam and sides are in the image frame.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from pose_jax import geometry, keypoints, losses
from pose_jax.codecs import regression
from pose_jax.drawing import cascade
from pose_jax.errors import ConfigError
from pose_jax.methods import augment
from pose_jax.methods.topdown import (
    ModelConfig,
    TopDown,
    crop,
    evaluated,
    labelled_points,
    mirror_names,
)
from pose_jax.types import (
    Batch,
    Decoder,
    Inputs,
    Key,
    Panel,
    PersonLabels,
    PersonView,
    Phase,
    Poses,
    Statistics,
    Variables,
)

HELD_OUT = 5
"""With statistics on "held_out", one row in this many is excluded from training."""


@dataclasses.dataclass(frozen=True)
class StatisticsConfig:
    """Data on which the errors of a stage are measured.

    Attributes:
      on: "train": the training set, as in the paper; "held_out": a fifth of it that no
        stage is trained on, since training errors are smaller.
    """

    on: Literal["train", "held_out"] = "train"


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      model: a network of coordinates; each stage has its own weights.
      input_size: (width, height) of its input.
      stages: number of stages.
      sigma: side of a joint's crop, in diameters of the pose: 1.0 on FLIC, 2.0 on LSP.
      padding: factor by which the person box is enlarged.
      keep_aspect: widen the box to the input's aspect; False stretches it, as in N(x; b).
      alignment: alignment of crops, see `geometry.crop_transform`.
      reach: width of the canvas region that training uses, in padded boxes.
      loss: "squared", (2) and (3); "smooth_l1", of each coordinate.
      inside: loss weight, in later stages, of the other joints inside a crop; the crop's
        own joint has weight 1. 0, as in the paper: its own joint only. The others add many
        labels where data are few, but at a weight of 1 they dominate the crop's own joint,
        because they lie all over the crop.
      start: initial weights of a later stage: "scratch", or "before", the previous stage's.
      min_diameter: minimum diameter of a pose, as a fraction of its box's longer side: the
        diameter of torsos seen from the side vanishes.
      decoder: the stage whose pose is the result, "stage_1" and so on; "" for the last.
      flip_test: "plain": every stage averages with its prediction for the mirrored crop;
        not in the paper.
      statistics: see StatisticsConfig.
      augment: augmentation of stage 1; flips and colors apply to all stages.
    """

    name: Literal["deeppose"]
    model: ModelConfig
    input_size: tuple[int, int] = (220, 220)
    stages: int = 3
    sigma: float = 2.0
    padding: float = 1.0
    keep_aspect: bool = False
    alignment: geometry.Alignment = "stride"
    reach: float = 1.5
    loss: Literal["squared", "smooth_l1"] = "squared"
    inside: float = 0.0
    start: Literal["scratch", "before"] = "scratch"
    min_diameter: float = 0.1
    decoder: str = evaluated("")
    flip_test: Literal["none", "plain"] = evaluated("none")
    statistics: StatisticsConfig = dataclasses.field(default_factory=StatisticsConfig)
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=augment.AugmentConfig
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CropExample:
    """Training example of a stage: crops and their joints.

    Attributes:
      images: normalized crops.
      points_xy, visibility: the joints, in the frame of the input.
      labels: `points_xy` in units of the crop, 0 at its center, eq. (1).
      weight: loss weight of each joint.
      valid: False for rows that do not count in the loss.
    """

    images: Float[Array, "b h w 3"]
    points_xy: Float[Array, "b k 2"]
    visibility: Int32[Array, "b k"]
    labels: Float[Array, "b k 2"]
    weight: Array
    valid: Bool[Array, " b"]


CASCADE = Panel(
    file="refinement",
    title="Cascade",
    caption="The pose after each stage and, between two stages, the crop of the keypoint "
    "that moved the furthest: a ring where it was, a dot where it went.",
    draw=cascade.cascade_panel,
)


class DeepPose(TopDown):
    """A cascade of coordinate regressions."""

    name = "deeppose"
    Config = Config
    outputs = "coordinates"
    panels: ClassVar = (CASCADE,)

    def __post_init__(self) -> None:
        config = self.config
        for name in ("stages", "sigma", "padding", "min_diameter"):
            if getattr(config, name) <= 0:
                raise ConfigError(
                    f"config.method.{name} must be positive; got "
                    f"{getattr(config, name)}."
                )
        if config.inside < 0:
            raise ConfigError(
                f"config.method.inside is a weight, 0 or more; got {config.inside}."
            )
        super().__post_init__()
        if config.stages > 1 and self.keypoints.torso is None:
            raise ConfigError(
                f"config.method.stages: keypoint set {self.keypoints.name!r} has no "
                "torso, so poses have no diameter; set it to 1 or give the set one."
            )

    @functools.cached_property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, which are also those of the phases."""
        return tuple(f"stage_{s}" for s in range(1, self.config.stages + 1))

    @functools.cached_property
    def decoders(self) -> Mapping[str, Decoder]:
        """Decoders that return the pose after each stage."""
        read = Decoder(lambda points_xy: (points_xy, _ones(points_xy)), inputs=_POINTS)
        return dict.fromkeys(self.stages, read)

    @functools.cached_property
    def view(self) -> PersonView:
        config = self.config
        return PersonView(
            size=config.input_size,
            padding=config.padding,
            keep_aspect=config.keep_aspect,
            alignment=config.alignment,
            reach=config.reach,
        )

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        first, *later = self.stages
        heads = self.config.model.heads
        return (
            Phase(first, self.init, self.prepare, self.loss, self.preview, heads=heads),
            *(self._later_phase(stage) for stage in later),
        )

    def _later_phase(self, stage: str) -> Phase:
        before = self._before(stage)
        return Phase(
            stage,
            self.init,
            functools.partial(self.prepare_later, stage),
            self.loss,
            self.preview,
            statistics=Statistics(functools.partial(self.measure, stage), _finish),
            starts_from=before if self.config.start == "before" else None,
            heads=self.config.model.heads,
        )

    def _before(self, stage: str) -> str:
        return self.stages[self.stages.index(stage) - 1]

    # ---------------------------------------------------------------- coordinates

    @property
    def _whole(self) -> np.ndarray:
        """The crop as a box (x0, y0, x1, y1) in input pixels, see `crop_transform`."""
        w, h = self.view.size
        box = {
            "stride": (0, 0, w, h),
            "aligned": (0, 0, w - 1, h - 1),
            "half_pixel": (-0.5, -0.5, w - 0.5, h - 0.5),
        }
        return np.array(box[self.view.alignment], np.float32)

    def _unit(self, points_xy: Float[Array, "b k 2"]) -> Float[Array, "b k 2"]:
        """Converts input pixels to units of the crop, 0 at its center: eq. (1)."""
        whole = jnp.tile(jnp.array([self._whole]), (len(points_xy), 1))
        return regression.normalize(points_xy, whole)

    def mirror(self, output, mirrored):
        # Pixel x goes to w - 1 - x; with "stride", 0 is at w / 2, off by one pixel.
        left, _, right, _ = self._whole
        moved = (self.view.size[0] - 1 - left - right) / (right - left)
        mirrored = mirrored * jnp.array([[[-1, 1]]]) + jnp.array([[[moved, 0]]])
        return 0.5 * (output + keypoints.swap(mirrored, self.keypoints, axis=-2))

    def decode(self, output):
        return self.decoder(self.config, output)

    # ---------------------------------------------------------------- the cascade

    @property
    def _torso(self) -> tuple[int, int]:
        assert self.keypoints.torso is not None  # `__post_init__` requires it.
        return self.keypoints.torso

    def _diameter(self, points_xy, box_xyxy) -> Float[Array, " b"]:
        """Returns diam of poses, image pixels; at least `min_diameter`."""
        torso = regression.diameter(points_xy, self._torso)
        extent = (box_xyxy[:, 2:] - box_xyxy[:, :2]).max(-1)
        return jnp.maximum(torso, self.config.min_diameter * jnp.maximum(extent, 1))

    def _first(self, variables: Variables, inputs: Inputs) -> Float[Array, "b k 2"]:
        center_xy, box_size = geometry.person_box(
            inputs.box_xyxy, aspect=self.view.aspect, padding=self.view.padding
        )
        images, _ = crop(self.view, inputs, center_xy, box_size)
        output = self.network(variables["stage_1"], self.pixels.normalize(images))
        box = jnp.concatenate([center_xy - box_size / 2, center_xy + box_size / 2], -1)
        return regression.denormalize(output, box)

    def _refine(self, variables, stage: str, inputs: Inputs, points_xy):
        """Runs one more stage, each joint on its own crop; returns points and sides."""
        b, k = points_xy.shape[:2]
        size = self.view.size
        side = self.config.sigma * self._diameter(points_xy, inputs.box_xyxy)
        square = jnp.broadcast_to(side[:, None, None], (b, k, 2))
        to_input = geometry.crop_transform(
            points_xy, square, output_size=size, alignment=self.view.alignment
        )
        from_canvas = jnp.broadcast_to(inputs.canvas_to_image[:, None], (b, k, 2, 3))
        to_input = geometry.compose(to_input, from_canvas)

        def crops(image, transforms):  # One canvas, k crops of it.
            return jax.vmap(lambda t: geometry.warp(image, t, size=size))(transforms)

        images = jax.vmap(crops)(inputs.images, to_input) / 255
        images = self.pixels.normalize(images.reshape(b * k, *images.shape[2:]))
        output = self.network(variables[stage], images)
        own = jnp.arange(k)
        output = output.reshape(b, k, k, 2)[:, own, own]
        return regression.refine(points_xy, output, side[:, None]), side

    def cascade(self, variables: Variables, inputs: Inputs, last: str):
        """Returns poses [b, k, 2] after each trained stage up to `last`, image frame, and
        the sides [b] of the crops between them."""
        poses, sides = [self._first(variables, inputs)], []
        for stage in self.stages[1 : self.stages.index(last) + 1]:
            if stage not in variables:  # Not trained yet.
                break
            points_xy, side = self._refine(variables, stage, inputs, poses[-1])
            poses.append(points_xy)
            sides.append(side)
        return poses, sides

    # ------------------------------------------------------------------- training

    def _used(self, inputs: Inputs) -> Bool[Array, " b"]:
        """Returns a mask of the rows to train on."""
        if self.config.statistics.on == "train":
            return inputs.valid
        return inputs.valid & (inputs.row % HELD_OUT != HELD_OUT - 1)

    def prepare(
        self, variables: Variables, batch: Batch[PersonLabels], key: Key | None
    ) -> CropExample:
        """Prepares examples of the first stage: crops of the whole person."""
        del variables  # No earlier phase, no constants.
        example = self.example(batch, key)
        weight = example.visibility > 0
        valid = example.valid if key is None else self._used(batch.inputs)
        return CropExample(
            images=example.images,
            points_xy=example.points_xy,
            visibility=example.visibility,
            labels=self._unit(example.points_xy),
            weight=weight,
            valid=valid & weight.any(-1),
        )

    def _true_diameter(self, labels: PersonLabels, box_xyxy):
        """Returns diam of the labeled poses, and where it is known."""
        i, j = self._torso
        known = (labels.visibility[:, i] > 0) & (labels.visibility[:, j] > 0)
        return self._diameter(labelled_points(labels), box_xyxy), known

    def prepare_later(
        self,
        stage: str,
        variables: Variables,
        batch: Batch[PersonLabels],
        key: Key | None,
    ) -> CropExample:
        """Crops around one joint per row, displaced like errors of the previous stage."""
        inputs, labels = batch.inputs, batch.labels
        labelled = labels.visibility > 0
        diam, known = self._true_diameter(labels, inputs.box_xyxy)
        joint, delta, draw = self._moved(
            variables[stage]["constants"], batch, labelled, key
        )
        flip = jnp.zeros(len(joint), bool) if draw is None else draw.flip
        known_xy = labelled_points(labels)
        true_xy = jnp.take_along_axis(known_xy, joint[:, None, None], axis=1)[:, 0]
        side = jnp.broadcast_to((self.config.sigma * diam)[:, None], (len(joint), 2))
        images, image_to_input = crop(
            self.view, inputs, true_xy + delta * diam[:, None], side, flip=flip
        )
        if draw is not None:
            images = augment.colour(images, draw.colour)
        points_xy, visibility = mirror_names(
            geometry.transform_points(known_xy, image_to_input),
            labels.visibility,
            flip,
            self.keypoints,
        )
        unit_xy = self._unit(points_xy)
        weight = self._weight(joint, flip, unit_xy, visibility)
        valid = inputs.valid if key is None else self._used(inputs)
        return CropExample(
            images=self.pixels.normalize(images),
            points_xy=points_xy,
            visibility=jnp.where(weight > 0, visibility, 0),
            labels=unit_xy,
            weight=weight,
            valid=valid & known & labelled.any(-1),
        )

    def _moved(self, constants, batch: Batch[PersonLabels], labelled, key: Key | None):
        """Returns the joint of each crop [b], its displacement [b, 2] in diameters, and the
        augmentation; without a key, a labeled joint displaced by the mean error."""
        if key is None:
            joint = jnp.argmax(labelled, axis=1)
            return joint, constants["mean"][joint], None
        view_key, joint_key = jax.random.split(key)
        row = batch.inputs.row
        draw = augment.draw(view_key, batch.epoch, row, self.config.augment)
        joint, normal = _sample(joint_key, batch.epoch, row, labelled)
        spread = constants["root"][joint]  # [b, 2, 2]
        delta = constants["mean"][joint]
        return joint, delta + jnp.einsum("bij,bj->bi", spread, normal), draw

    def _weight(self, joint, flip, unit_xy, visibility) -> Float[Array, "b k"]:
        """Returns 1 for the joint of the crop, `inside` for others inside the crop."""
        k = len(self.keypoints)
        # In a mirrored crop the joint has its partner's name.
        partner = keypoints.swap(jnp.arange(k), self.keypoints, axis=0)
        joint = jnp.where(flip, partner[joint], joint)
        own = jax.nn.one_hot(joint, k, dtype=bool)
        inside = (jnp.abs(unit_xy) < 0.5).all(-1)
        weight = jnp.where(own, 1.0, jnp.where(inside, self.config.inside, 0.0))
        return jnp.where(visibility > 0, weight, 0.0)

    def loss_of(self, outputs, example: CropExample):
        """Returns the mean over rows of sums over joints, as in (2) and (3)."""
        error = {
            "squared": losses.keypoint_squared_error,
            "smooth_l1": losses.keypoint_smooth_l1,
        }[self.config.loss]
        rows = sum(
            error(output, example.labels, weight=example.weight).sum(-1)
            for output in outputs
        )
        return losses.masked_mean(
            jnp.asarray(rows), example.valid, normalize_by="mask"
        ), {}

    def measure(
        self, stage: str, variables: Variables, batch: Batch[PersonLabels]
    ) -> dict[str, Array]:
        """Returns sums over rows for each joint of the previous stage: counts, errors in
        diameters, and their outer products."""
        inputs, labels = batch.inputs, batch.labels
        points_xy = self.cascade(variables, inputs, self._before(stage))[0][-1]
        diam, known = self._true_diameter(labels, inputs.box_xyxy)
        counted = inputs.valid & known
        if self.config.statistics.on == "held_out":
            counted = counted & ~self._used(inputs)
        counted = counted[:, None] & (labels.visibility > 0)
        error = (points_xy - labelled_points(labels)) / diam[:, None, None]
        error = jnp.where(counted[..., None], error, 0)
        return {
            "count": counted.sum(0).astype(jnp.float32),
            "sum": error.sum(0),
            "outer": jnp.einsum("bki,bkj->kij", error, error),
        }

    # ----------------------------------------------------------------- prediction

    def of_crops(self, variables: Variables, images):
        """Raises ConfigError: later stages crop the photograph again."""
        raise ConfigError(
            "method 'deeppose' has no form that takes crops: its stages crop the "
            "photograph again. Give a detector: --detector."
        )

    @property
    def decoder_name(self) -> str:
        return self.config.decoder or self.stages[-1]

    def predict(self, variables: Variables, inputs: Inputs) -> Poses:
        points_xy = self.cascade(variables, inputs, self.decoder_name)[0][-1]
        points_xy, scores = self.decode(points_xy)
        return Poses(
            points_xy=points_xy,
            keypoint_scores=scores,
            score=inputs.box_score,
            valid=inputs.valid,
            row=inputs.row,
        )

    def inspect(self, variables: Variables, inputs: Inputs) -> dict[str, Any]:
        """Returns poses after each stage [b, s, k, 2], and width and height of the crops
        between them [b, s - 1, 2], in the frame of the first input."""
        center_xy, box_size = geometry.person_box(
            inputs.box_xyxy, aspect=self.view.aspect, padding=self.view.padding
        )
        images, image_to_input = crop(self.view, inputs, center_xy, box_size)
        poses, sides = self.cascade(variables, inputs, self.decoder_name)
        stages_xy = jnp.stack(
            [geometry.transform_points(pose, image_to_input) for pose in poses], axis=1
        )
        size = np.array([self.view.size], np.float32)
        squares = [side[:, None] * (size / box_size) for side in sides]
        return {
            "input": images,
            "points_xy": stages_xy[:, -1],
            "keypoint_scores": _ones(stages_xy[:, -1]),
            "stages_xy": stages_xy,
            "squares": jnp.array(squares).reshape(-1, len(images), 2).swapaxes(0, 1),
        }


_POINTS = {"points_xy": "b k 2"}


def _ones(points_xy):
    """Returns keypoint scores of 1: the network predicts none."""
    return jnp.ones(points_xy.shape[:-1])


def _sample(key, epoch, row, labelled):
    """Samples a labeled joint of each row [b], and two normal numbers [b, 2]."""
    epoch_key = jax.random.fold_in(key, epoch)

    def one(row, labelled):
        joint_key, normal_key = jax.random.split(jax.random.fold_in(epoch_key, row))
        logits = jnp.where(labelled | ~labelled.any(), 0.0, -jnp.inf)
        joint = jax.random.categorical(joint_key, logits)
        return joint, jax.random.normal(normal_key, (2,))

    return jax.vmap(one)(row, labelled)


def _finish(sums):
    """Returns mean [k, 2] and a root of the covariance [k, 2, 2] of each joint's errors."""
    count = jnp.maximum(sums["count"], 1)[:, None]
    mean = sums["sum"] / count
    covariance = sums["outer"] / count[..., None] - mean[:, :, None] * mean[:, None, :]
    # Regularized: errors of a joint may lie on a line.
    covariance = covariance + 1e-6 * jnp.eye(2)[None]
    return {
        "mean": mean,
        "covariance": covariance,
        "root": jnp.linalg.cholesky(covariance),
        "count": sums["count"],
    }
