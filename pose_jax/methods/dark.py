"""Heatmap regression top-down: the standard codecs and DARK, on any heatmap network.

One network gives k heatmaps of a person's crop. Encoding: a Gaussian round the true point
("unbiased", DARK) or round the nearest heatmap pixel ("biased", Simple Baselines and
HRNet). Decoding: argmax, quarter shift (8), or DARK's Taylor step (14).

Frames inside: image -> input (of the network) -> heatmap; see `geometry`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pose_jax import geometry, keypoints, losses, models
from pose_jax.codecs import gaussian
from pose_jax.errors import ConfigError
from pose_jax.methods import augment, topdown
from pose_jax.methods.topdown import ModelConfig
from pose_jax.types import Mean, Method, PersonView, Phase, Poses


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      input_size: (width, height) of the network input.
      sigma: of the target Gaussian, heatmap pixels.
      encoding: "unbiased": whole-map Gaussian at the true point; "biased": at the rounded
        point, zero beyond 3 sigma.
      loss: "mse", the papers'; "cross_entropy": the maps are sigmoids, with a logistic loss
        per pixel against the same targets.
      decoder: a key of DECODERS.
      kernel_size: of DARK's modulation; None derives it from sigma.
      alignment: of crops and heatmaps, see `geometry.crop_transform`.
      padding: of the person box at evaluation; training varies it by `augment.scale`.
      reach: how many padded boxes wide training may look.
      flip_test: average with the mirrored image's maps; "shift" also moves these by one
        pixel, which makes up for alignment "stride".
      joint_weights: weigh the loss by the squares of the keypoint set's joint weights: the
        published losses multiply output and target by them.
      ohkm: only so many keypoints of each person count in the loss, those of the largest
        loss (online hard keypoint mining; 8 where it is published); 0: all.
      rescore_threshold: a pose's score is its box score times the mean of the keypoint
        scores above this.
    """

    name: Literal["dark"]
    model: ModelConfig
    input_size: tuple[int, int]
    sigma: float = 2.0
    encoding: Literal["unbiased", "biased"] = "unbiased"
    loss: Literal["mse", "cross_entropy"] = "mse"
    decoder: str = "dark"
    kernel_size: int | None = None
    alignment: Literal["stride", "aligned"] = "stride"
    padding: float = 1.25
    reach: float = 2.0
    flip_test: Literal["none", "plain", "shift"] = "none"
    joint_weights: bool = False
    ohkm: int = 0
    rescore_threshold: float = 0.2
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=augment.AugmentConfig
    )


def _dark(variant: str) -> Callable:
    return lambda maps, config: gaussian.decode_dark(
        maps, sigma=config.sigma, kernel_size=config.kernel_size, variant=variant
    )


def _unmodulated(maps, config):
    del config  # A kernel of one pixel is no blur.
    return gaussian.decode_dark(maps, kernel_size=1, variant="paper")


DECODERS: Mapping[str, Callable] = {
    "argmax": lambda maps, config: gaussian.decode_argmax(maps),
    "shift": lambda maps, config: gaussian.decode_shift(maps),
    "shift_second": lambda maps, config: gaussian.decode_shift(maps, rule="second"),
    "dark": _dark("robust"),
    "dark_paper": _dark("paper"),
    "dark_unmodulated": _unmodulated,
}
"""Heatmaps [b,h,w,k] and the Config to points_xy [b,k,2] (heatmap frame), scores [b,k]."""


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
      ConfigError: an option that does not exist, or joint weights that the set lacks.
    """
    config = with_decoder(config, config.decoder)  # Checks the name.
    if config.joint_weights and keypoint_set.joint_weights is None:
        raise ConfigError(
            f"config.method.joint_weights: keypoint set {keypoint_set.name!r} has none; "
            "set it to False or give the set weights."
        )
    if not 0 <= config.ohkm <= len(keypoint_set):
        raise ConfigError(
            f"config.method.ohkm must be 0 to {len(keypoint_set)}, the number of "
            f"keypoints; got {config.ohkm}."
        )
    for kinds, gives, method in (
        (models.COORDINATES, "coordinates", "deeppose"),
        (models.HEATMAPS_AND_OFFSETS, "offsets too", "multipose"),
        (models.DETECTORS, "boxes", "detector"),
    ):
        if config.model.name.startswith(kinds):
            raise ConfigError(
                f"config.method.model.name: {config.model.name!r} gives {gives}, method "
                f"'dark' needs heatmaps; take another network, or method {method!r}."
            )
    view = PersonView(
        size=config.input_size,
        padding=config.padding,
        alignment=config.alignment,
        reach=config.reach,
    )
    model, init = topdown.network(config.model, len(keypoint_set), config.input_size)
    joint_weights = np.ones((1, len(keypoint_set)), np.float32)
    if config.joint_weights:
        # The published losses multiply output and target by it: it acts squared.
        joint_weights = np.square([keypoint_set.joint_weights]).astype(np.float32)

    def prepare(variables, batch, key):
        del variables  # No earlier phase, no constants.
        return topdown.example(view, batch, key, keypoint_set, config.augment)

    def targets(example, heatmap_size):
        """Heatmaps of an example, and which of them count in the loss."""
        points_xy = geometry.input_to_heatmap(
            example["points_xy"],
            heatmap_size=heatmap_size,
            input_size=view.size,
            alignment=view.alignment,
        )
        biased = config.encoding == "biased"
        maps = gaussian.encode(
            points_xy,
            size=heatmap_size,
            sigma=config.sigma,
            quantize=biased,
            cutoff=3 if biased else None,
        )
        reached = gaussian.reaches(points_xy, size=heatmap_size, sigma=config.sigma)
        return maps, reached & (example["visibility"] > 0)

    def distance(output, maps, weight):
        """[b, k]; with 1/2 as in the published losses, or per pixel."""
        if config.loss == "mse":
            return 0.5 * losses.heatmap_mse(output, maps, weight=weight)
        summed = losses.heatmap_sigmoid_cross_entropy(output, maps, weight=weight)
        return summed / (maps.shape[1] * maps.shape[2])

    def loss(params, model_state, example, key):
        del key  # No dropout.
        outputs, updates = model.apply(
            {"params": params, "batch_stats": model_state["batch_stats"]},
            example["images"],
            train=True,
            mutable=["batch_stats"],
        )
        h, w = outputs[-1].shape[1:3]
        maps, counted = targets(example, (w, h))
        weight = counted * joint_weights

        def of(output):
            values = distance(output, maps, weight)
            if config.ohkm:
                values = jax.lax.top_k(values, config.ohkm)[0]
            # Every valid row weighs the same, however many of its keypoints count.
            rows = jnp.broadcast_to(example["valid"][:, None], values.shape)
            return losses.masked_mean(values, rows, normalize_by="mask")

        total = sum(map(of, outputs))
        count = jnp.sum(example["valid"]).astype(jnp.float32)
        new_state = {**model_state, "batch_stats": updates.get("batch_stats", {})}
        return total, (new_state, {"loss": Mean(total * count, count)})

    def preview(example):
        w, h = view.size
        outputs = jax.eval_shape(
            lambda: model.init_with_output(
                jax.random.key(0), jnp.zeros((1, h, w, 3)), train=True
            )
        )[0]
        h, w = outputs[-1].shape[1:3]
        maps, counted = targets(example, (w, h))
        return {
            "input": topdown.denormalise(example["images"]),
            "points_xy": example["points_xy"],
            "visibility": example["visibility"],
            "targets": maps * counted[:, None, None, :],
        }

    def apply(variables, images):
        phase = variables["pose"]
        maps = model.apply(
            {"params": phase["params"], "batch_stats": phase["batch_stats"]},
            images,
            train=False,
        )
        return jax.nn.sigmoid(maps) if config.loss == "cross_entropy" else maps

    def heatmaps(variables, images):
        maps = apply(variables, images)
        if config.flip_test == "none":
            return maps
        mirrored = apply(variables, images[:, :, ::-1])[:, :, ::-1]
        mirrored = keypoints.swap(mirrored, keypoint_set, axis=-1)
        if config.flip_test == "shift":
            mirrored = jnp.concatenate([mirrored[:, :, :1], mirrored[:, :, :-1]], 2)
        return 0.5 * (maps + mirrored)

    def run(variables, inputs):
        center_xy, size = geometry.person_box(
            inputs.box_xyxy, aspect=view.aspect, padding=view.padding
        )
        images, image_to_input = topdown.crop(view, inputs, center_xy, size)
        maps = heatmaps(variables, topdown.normalise(images))
        points_xy, scores = DECODERS[config.decoder](maps, config)
        h, w = maps.shape[1:3]
        points_xy = geometry.heatmap_to_input(
            points_xy,
            heatmap_size=(w, h),
            input_size=view.size,
            alignment=view.alignment,
        )
        return images, maps, points_xy, scores, image_to_input

    def predict(variables, inputs):
        _, _, points_xy, scores, image_to_input = run(variables, inputs)
        counted = scores > config.rescore_threshold
        mean = jnp.sum(jnp.where(counted, scores, 0), 1) / jnp.maximum(
            counted.sum(1), 1
        )
        return Poses(
            points_xy=geometry.transform_points(
                points_xy, geometry.invert(image_to_input)
            ),
            keypoint_scores=scores,
            score=inputs.box_score * mean,
            valid=inputs.valid,
            row=inputs.row,
        )

    def inspect(variables, inputs):
        images, maps, points_xy, scores, _ = run(variables, inputs)
        return {
            "input": images,
            "heatmaps": maps,
            "points_xy": points_xy,
            "keypoint_scores": scores,
        }

    return Method(
        name="dark",
        view=view,
        keypoints=keypoint_set,
        phases=(Phase("pose", init, prepare, loss, preview),),
        predict=predict,
        inspect=inspect,
    )
