"""DeepPose (Toshev & Szegedy, CVPR 2014): coordinates regressed, then refined by a cascade.

Stage 1 sees the person's box and gives all joints at once, in units of the box (1). Each
later stage sees a square about every joint that the stage before has found, of side
sigma * diam(pose), and says how far off it is: one network a stage for all joints, of whose
answers the one counts that the square belongs to. It learns from squares about the true
joint moved at random as the stage before errs, which is measured on the training set first.

A pose's score is its box score: coordinates come without one, so keypoint scores are 1.

Frames: image -> input (of the network); diam and sides are in the image frame.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pose_jax import geometry, keypoints, losses, models
from pose_jax.codecs import regression
from pose_jax.errors import ConfigError
from pose_jax.methods import augment, topdown
from pose_jax.methods.topdown import ModelConfig
from pose_jax.types import Mean, Method, PersonView, Phase, Poses, Statistics

HELD_OUT = 5
"""With statistics on "held_out", every so many-th row is not learnt from."""


@dataclasses.dataclass(frozen=True)
class StatisticsConfig:
    """Where the errors of a stage are measured.

    Attributes:
      on: "train": the training set, as in the paper; "held_out": a fifth of it that no
        stage learns from, since a stage errs less on what it has learnt.
    """

    on: Literal["train", "held_out"] = "train"


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      model: a network of coordinates; one of its kind for each stage.
      input_size: (width, height) of its input.
      stages: how many.
      sigma: side of a joint's square, in diameters of the pose: 1.0 on FLIC, 2.0 on LSP.
      padding: of the person box.
      keep_aspect: widen the box to the input's aspect; False squeezes it, which is N(x; b).
      alignment: of crops, see `geometry.crop_transform`.
      reach: how many padded boxes wide training may look.
      loss: "squared", (2) and (3); "smooth_l1", of each coordinate.
      inside: a later stage also learns the other joints inside of a square, with this
        weight beside the 1 of the square's own. 0, as in the paper: its own alone. They
        are many times as many labels where squares are few; at a weight of 1 they drown
        the one that is asked for, because they lie all over the square.
      start: of a later stage: "scratch", or "before": with the weights of the stage before.
      min_diameter: a pose's diameter is at least this share of its box's longer side:
        torsos seen from the side have none.
      decoder: "stage_1" and so on: what is read out; "" for the last.
      flip_test: "plain": every stage averages with what it says of the mirrored image;
        not in the paper.
      statistics: see StatisticsConfig.
      augment: of stage 1; flips and colours of all stages.
    """

    name: Literal["deeppose"]
    model: ModelConfig
    input_size: tuple[int, int] = (220, 220)
    stages: int = 3
    sigma: float = 2.0
    padding: float = 1.0
    keep_aspect: bool = False
    alignment: Literal["stride", "aligned"] = "stride"
    reach: float = 1.5
    loss: Literal["squared", "smooth_l1"] = "squared"
    inside: float = 0.0
    start: Literal["scratch", "before"] = "scratch"
    min_diameter: float = 0.1
    decoder: str = ""
    flip_test: Literal["none", "plain"] = "none"
    statistics: StatisticsConfig = dataclasses.field(default_factory=StatisticsConfig)
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=augment.AugmentConfig
    )


def _names(stages: int) -> list[str]:
    return [f"stage_{s}" for s in range(1, stages + 1)]


def with_decoder(config: Config, decoder: str) -> Config:
    """The same networks, read out after another stage.

    Raises:
      ConfigError: no such stage.
    """
    names = _names(config.stages)
    if decoder and decoder not in names:
        near = difflib.get_close_matches(decoder, names, n=1, cutoff=0.0)
        raise ConfigError(
            f"no decoder {decoder!r}; of {config.stages} stages there are {names}. Did you "
            f"mean {near[0]!r}?"
        )
    return dataclasses.replace(config, decoder=decoder)


def build(config: Config, keypoint_set: keypoints.KeypointSet) -> Method:
    """Builds the method; see the module docstring.

    Raises:
      ConfigError: an option that cannot be, or a keypoint set without a torso.
    """
    for name in ("stages", "sigma", "padding", "min_diameter"):
        if getattr(config, name) <= 0:
            raise ConfigError(
                f"config.method.{name} must be positive; got {getattr(config, name)}."
            )
    if config.inside < 0:
        raise ConfigError(
            f"config.method.inside is a weight, 0 or more; got {config.inside}."
        )
    with_decoder(config, config.decoder)  # Checks the name.
    for kinds, gives, method in (
        (models.HEATMAPS, "heatmaps", "dark"),
        (models.HEATMAPS_AND_OFFSETS, "heatmaps", "multipose"),
        (models.DETECTORS, "boxes", "detector"),
    ):
        if config.model.name.startswith(kinds):
            raise ConfigError(
                f"config.method.model.name: {config.model.name!r} gives {gives}, method "
                f"'deeppose' needs coordinates; take another network, or method {method!r}."
            )
    if config.stages > 1 and keypoint_set.torso is None:
        raise ConfigError(
            f"config.method.stages: keypoint set {keypoint_set.name!r} has no torso, so "
            "poses have no diameter; set it to 1 or give the set one."
        )
    k = len(keypoint_set)
    names = _names(config.stages)
    view = PersonView(
        size=config.input_size,
        padding=config.padding,
        keep_aspect=config.keep_aspect,
        alignment=config.alignment,
        reach=config.reach,
    )
    model, init = topdown.network(config.model, k, config.input_size)
    size = np.array(config.input_size, np.float32)

    # What a crop's width is in input pixels, see `geometry.crop_transform`.
    span = size if config.alignment == "stride" else size - 1

    def unit(points_xy):
        """Input pixels [b, k, 2] to units of the crop, 0 at its centre: (1)."""
        whole = jnp.tile(jnp.array([[0, 0, *span]]), (len(points_xy), 1))
        return regression.normalize(points_xy, whole)

    def apply(variables, stage, images):
        """Coordinates in units of the crop, [b, k, 2]."""
        phase = variables[stage]
        weights = {"params": phase["params"], "batch_stats": phase["batch_stats"]}
        images = topdown.normalise(images)
        output = model.apply(weights, images, train=False)
        if config.flip_test == "none":
            return output
        mirrored = model.apply(weights, images[:, :, ::-1], train=False)
        # Pixel x lies at w - 1 - x; by "stride", 0 is at w / 2, one pixel off from that.
        moved = (size[0] - span[0] - 1) / span[0]
        mirrored = mirrored * jnp.array([[[-1, 1]]]) + jnp.array([[[moved, 0]]])
        return 0.5 * (output + keypoints.swap(mirrored, keypoint_set, axis=-2))

    # -------------------------------------------------------------------- the cascade

    def diameter(points_xy, box_xyxy):
        """diam of poses, image pixels, [b]; never next to nothing."""
        torso = regression.diameter(points_xy, keypoint_set.torso)
        extent = (box_xyxy[:, 2:] - box_xyxy[:, :2]).max(-1)
        return jnp.maximum(torso, config.min_diameter * jnp.maximum(extent, 1))

    def first(variables, inputs):
        center_xy, box_size = geometry.person_box(
            inputs.box_xyxy, aspect=view.aspect, padding=view.padding
        )
        images, _ = topdown.crop(view, inputs, center_xy, box_size)
        output = apply(variables, "stage_1", images)
        box = jnp.concatenate([center_xy - box_size / 2, center_xy + box_size / 2], -1)
        return regression.denormalize(output, box)

    def refine(variables, stage, inputs, points_xy):
        """One more stage: each joint by its own square; and the side of the squares."""
        b = len(points_xy)
        side = config.sigma * diameter(points_xy, inputs.box_xyxy)
        square = jnp.broadcast_to(side[:, None, None], (b, k, 2))
        to_input = geometry.crop_transform(
            points_xy, square, output_size=view.size, alignment=view.alignment
        )
        from_canvas = jnp.broadcast_to(inputs.canvas_to_image[:, None], (b, k, 2, 3))
        to_input = geometry.compose(to_input, from_canvas)

        def crops(image, transforms):  # One canvas, k squares of it.
            return jax.vmap(lambda t: geometry.warp(image, t, size=view.size))(
                transforms
            )

        images = jax.vmap(crops)(inputs.images, to_input) / 255
        output = apply(variables, stage, images.reshape(b * k, *images.shape[2:]))
        own = jnp.arange(k)
        output = output.reshape(b, k, k, 2)[:, own, own]
        return regression.refine(points_xy, output, side[:, None]), side

    def cascade(variables, inputs, last):
        """Poses after each stage up to `last` that has weights, and their squares."""
        poses, sides = [first(variables, inputs)], []
        for stage in names[1 : names.index(last) + 1]:
            if stage not in variables:  # Not trained yet.
                break
            points_xy, side = refine(variables, stage, inputs, poses[-1])
            poses.append(points_xy)
            sides.append(side)
        return poses, sides

    # -------------------------------------------------------------------- the training

    def learnt(inputs):
        if config.statistics.on == "train":
            return inputs.valid
        return inputs.valid & (inputs.row % HELD_OUT != HELD_OUT - 1)

    def prepare_first(variables, batch, key):
        del variables  # No earlier phase, no constants.
        example = topdown.example(view, batch, key, keypoint_set, config.augment)
        weight = example["visibility"] > 0
        valid = example["valid"] if key is None else learnt(batch.inputs)
        return {
            "images": example["images"],
            "points_xy": example["points_xy"],
            "visibility": example["visibility"],
            "labels": unit(example["points_xy"]),
            "weight": weight,
            "valid": valid & weight.any(-1),
        }

    def true_diameter(labels, box_xyxy):
        """diam of the labelled poses, and where it is known."""
        i, j = keypoint_set.torso
        known = (labels.visibility[:, i] > 0) & (labels.visibility[:, j] > 0)
        return diameter(topdown.labelled_points(labels), box_xyxy), known

    def prepare_later(stage):
        def prepare(variables, batch, key):
            """A square about one joint of each row, moved as the stage before errs."""
            inputs, labels = batch.inputs, batch.labels
            constants = variables[stage]["constants"]
            labelled = labels.visibility > 0
            diam, known = true_diameter(labels, inputs.box_xyxy)
            b = len(inputs.row)
            if key is None:  # As it is, about a joint that is labelled if there is one.
                joint = jnp.argmax(labelled, axis=1)
                delta = constants["mean"][joint]
                flip = jnp.zeros(b, bool)
            else:
                view_key, joint_key = jax.random.split(key)
                draw = augment.draw(view_key, batch.epoch, inputs.row, config.augment)
                flip = draw.flip
                joint, normal = _sample(joint_key, batch.epoch, inputs.row, labelled)
                spread = constants["root"][joint]  # [b, 2, 2]
                delta = constants["mean"][joint]
                delta = delta + jnp.einsum("bij,bj->bi", spread, normal)
            known_xy = topdown.labelled_points(labels)
            true_xy = jnp.take_along_axis(known_xy, joint[:, None, None], axis=1)[:, 0]
            side = jnp.broadcast_to((config.sigma * diam)[:, None], (b, 2))
            images, image_to_input = topdown.crop(
                view, inputs, true_xy + delta * diam[:, None], side, flip=flip
            )
            if key is not None:
                images = augment.colour(images, draw.colour)
            points_xy, visibility = topdown.mirror_names(
                geometry.transform_points(known_xy, image_to_input),
                labels.visibility,
                flip,
                keypoint_set,
            )
            # In a mirrored square the joint is its partner.
            partner = keypoints.swap(jnp.arange(k), keypoint_set, axis=0)
            joint = jnp.where(flip, partner[joint], joint)
            unit_xy = unit(points_xy)
            own = jax.nn.one_hot(joint, k, dtype=bool)
            inside = (jnp.abs(unit_xy) < 0.5).all(-1)
            weight = jnp.where(own, 1.0, jnp.where(inside, config.inside, 0.0))
            weight = jnp.where(visibility > 0, weight, 0.0)
            valid = inputs.valid if key is None else learnt(inputs)
            return {
                "images": topdown.normalise(images),
                "points_xy": points_xy,
                "visibility": jnp.where(weight > 0, visibility, 0),
                "labels": unit_xy,
                "weight": weight,
                "valid": valid & known & labelled.any(-1),
            }

        return prepare

    def loss(params, model_state, example, key):
        outputs, updates = model.apply(
            {"params": params, "batch_stats": model_state["batch_stats"]},
            example["images"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        error = {
            "squared": losses.keypoint_squared_error,
            "smooth_l1": losses.keypoint_smooth_l1,
        }[config.loss]
        # A sum over the joints of a row, as in (2) and (3); a mean over the rows.
        rows = sum(
            error(output, example["labels"], weight=example["weight"]).sum(-1)
            for output in outputs
        )
        total = losses.masked_mean(rows, example["valid"], normalize_by="mask")
        count = jnp.sum(example["valid"]).astype(jnp.float32)
        new_state = {**model_state, "batch_stats": updates.get("batch_stats", {})}
        return total, (new_state, {"loss": Mean(total * count, count)})

    def before(stage):
        return names[names.index(stage) - 1]

    def measure_for(stage):
        def measure(variables, batch):
            """Sums over joints: how many, errors in diameters, their outer products."""
            inputs, labels = batch.inputs, batch.labels
            points_xy = cascade(variables, inputs, before(stage))[0][-1]
            diam, known = true_diameter(labels, inputs.box_xyxy)
            counted = inputs.valid & known
            if config.statistics.on == "held_out":
                counted = counted & ~learnt(inputs)
            counted = counted[:, None] & (labels.visibility > 0)
            error = (points_xy - topdown.labelled_points(labels)) / diam[:, None, None]
            error = jnp.where(counted[..., None], error, 0)
            return {
                "count": counted.sum(0).astype(jnp.float32),
                "sum": error.sum(0),
                "outer": jnp.einsum("bki,bkj->kij", error, error),
            }

        return measure

    def phase(stage):
        if stage == "stage_1":
            return Phase(stage, init, prepare_first, loss, preview)
        return Phase(
            stage,
            init,
            prepare_later(stage),
            loss,
            preview,
            statistics=Statistics(measure_for(stage), _finish),
            starts_from=before(stage) if config.start == "before" else None,
        )

    def preview(example):
        return {
            "input": topdown.denormalise(example["images"]),
            "points_xy": example["points_xy"],
            "visibility": example["visibility"],
        }

    # ------------------------------------------------------------------- its predictions

    last = config.decoder or names[-1]

    def predict(variables, inputs):
        points_xy = cascade(variables, inputs, last)[0][-1]
        return Poses(
            points_xy=points_xy,
            keypoint_scores=jnp.ones(points_xy.shape[:-1]),
            score=inputs.box_score,
            valid=inputs.valid,
            row=inputs.row,
        )

    def inspect(variables, inputs):
        center_xy, box_size = geometry.person_box(
            inputs.box_xyxy, aspect=view.aspect, padding=view.padding
        )
        images, image_to_input = topdown.crop(view, inputs, center_xy, box_size)
        poses, sides = cascade(variables, inputs, last)
        stages_xy = jnp.stack(
            [geometry.transform_points(pose, image_to_input) for pose in poses], axis=1
        )
        # Sides of the squares in input pixels, by axis: [b, s - 1, 2].
        squares = [side[:, None] * (size[None] / box_size) for side in sides]
        return {
            "input": images,
            "points_xy": stages_xy[:, -1],
            "keypoint_scores": jnp.ones((len(images), k)),
            "stages_xy": stages_xy,
            "squares": jnp.array(squares).reshape(-1, len(images), 2).swapaxes(0, 1),
        }

    return Method(
        name="deeppose",
        view=view,
        keypoints=keypoint_set,
        phases=tuple(phase(stage) for stage in names),
        predict=predict,
        inspect=inspect,
    )


def _sample(key, epoch, row, labelled):
    """A labelled joint of each row [b], uniformly, and two normal numbers [b, 2]."""
    epoch_key = jax.random.fold_in(key, epoch)

    def one(row, labelled):
        joint_key, normal_key = jax.random.split(jax.random.fold_in(epoch_key, row))
        logits = jnp.where(labelled | ~labelled.any(), 0.0, -jnp.inf)
        joint = jax.random.categorical(joint_key, logits)
        return joint, jax.random.normal(normal_key, (2,))

    return jax.vmap(one)(row, labelled)


def _finish(sums):
    """Mean [k, 2] and a root of the covariance [k, 2, 2] of each joint's errors."""
    count = jnp.maximum(sums["count"], 1)[:, None]
    mean = sums["sum"] / count
    covariance = sums["outer"] / count[..., None] - mean[:, :, None] * mean[:, None, :]
    # Never quite singular: two joints may err by the same always.
    covariance = covariance + 1e-6 * jnp.eye(2)[None]
    return {
        "mean": mean,
        "covariance": covariance,
        "root": jnp.linalg.cholesky(covariance),
        "count": sums["count"],
    }
