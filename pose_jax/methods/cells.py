"""Coarse heatmaps with an offset in each cell: MoveNet and PoseNet.

A network divides a person's crop into cells of a few pixels. For each cell it predicts
the probability of being a keypoint's cell, and the offset to the keypoint. A keypoint is
decoded from the heatmap alone, as in `dark`, or from both: the best cell and its offset
(as published), or the maximum of the votes of all cells, as in `multipose`.

MoveNet also predicts where people's centers are, and where the keypoints of the person
around each cell roughly lie. With these, `weighting` chooses the peaks of the person in the
middle of the crop; all decoders refine the chosen peaks.

Not MultiPose: its maps are as large as the crop, its targets are discs of 25 pixels and its
offsets are in pixels of the crop; here, maps, targets and offsets are in cells, whose
alignment with the crop is that of the network.

Training follows CenterNet (Zhou et al., arXiv:1904.07850), with a cross-entropy instead of
its focal loss. Frames inside: image -> input (of the network) -> cells; see `geometry`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pose_jax import geometry, losses, models
from pose_jax.codecs import centers as centers_lib
from pose_jax.codecs import gaussian, offsets
from pose_jax.errors import ConfigError
from pose_jax.methods import augment
from pose_jax.methods.heatmaps import Heatmaps
from pose_jax.methods.topdown import ModelConfig, PersonExample, evaluated
from pose_jax.types import Decoder


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      model: a network of cells.
      input_size: (width, height) of the network input.
      sigma: standard deviation of the target Gaussians, cells.
      radius: the offset loss counts cells whose center is this close to the keypoint.
      offset_weight, center_weight, regression_weight: factors of the losses of offsets,
        centers and regression relative to the heatmaps'. The latter two have no effect on
        networks without these outputs.
      decoder: a key of `Cells.decoders`.
      weighting: "regression": the peaks of the person in the middle of the crop, chosen by
        the network's regression, if it has one; "none": the highest peak of each heatmap,
        for images of one person.
      window: cells to each side of a chosen peak that decoders use.
      kernel_size: of the blur of DARK's decoders, cells; published peaks have a standard
        deviation of 1.4 to 1.5 cells.
      vote_sigma: standard deviation of the Gaussian of decoder "density", cells.
      rescoring: score of a pose: "pose", the mean of its keypoint scores; "box", the box
        score; "product", both multiplied.
      alignment: of crops and cells, see `geometry`; None: that of the network.
      flip_test: average with the maps of the mirrored crop.
      padding: of the person box at evaluation; training varies it by `augment.scale`.
      reach: width of the canvas region that training uses, in padded boxes.
    """

    name: Literal["cells"]
    model: ModelConfig
    input_size: tuple[int, int]
    sigma: float = 1.5
    radius: float = 2.0
    offset_weight: float = 1.0
    center_weight: float = 1.0
    regression_weight: float = 0.1
    decoder: str = evaluated("argmax_offset")
    weighting: Literal["regression", "none"] = evaluated("regression")
    window: int = evaluated(6)
    kernel_size: int = evaluated(5)
    vote_sigma: float = evaluated(0.5)
    rescoring: Literal["pose", "box", "product"] = evaluated("pose")
    alignment: geometry.Alignment | None = None
    flip_test: Literal["none", "plain"] = evaluated("none")
    padding: float = evaluated(1.25)
    reach: float = 2.0
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=augment.AugmentConfig
    )


def _density(heatmaps, fields, *, vote_sigma):
    return offsets.decode_density(heatmaps, fields, sigma=vote_sigma)


_BOTH = {"heatmaps": "b h w k", "offsets": "b h w k 2"}

DECODERS: Mapping[str, Decoder] = {
    "argmax_offset": Decoder(offsets.decode_peak, inputs=_BOTH),
    "argmax": Decoder(gaussian.decode_argmax),
    "shift": Decoder(gaussian.decode_shift),
    "dark": Decoder(
        partial(gaussian.decode_dark, variant="robust"), uses=("kernel_size",)
    ),
    "dark_paper": Decoder(
        partial(gaussian.decode_dark, variant="paper"), uses=("kernel_size",)
    ),
    "hough": Decoder(partial(offsets.decode, radius=1.0, subpixel=True), inputs=_BOTH),
    "density": Decoder(_density, uses=("vote_sigma",), inputs=_BOTH),
}
"""Decoders of heatmaps [b, h, w, k] and offsets [b, h, w, k, 2] to points [b, k, 2] in
cells and scores [b, k]. Published networks are decoded by "argmax_offset"; "argmax",
"shift" and "dark" ignore offsets."""


class Cells(Heatmaps):
    """Heatmaps and offsets of cells: targets, losses and decoding."""

    name = "cells"
    Config = Config
    outputs = "cells"
    decoders: ClassVar = DECODERS
    input_words: ClassVar = "the sigmoid of the network's heatmaps"

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.config
        for name in ("sigma", "radius", "vote_sigma", "padding"):
            if not 0 < getattr(config, name) < math.inf:
                raise ConfigError(
                    f"config.method.{name} must be a positive number; got "
                    f"{getattr(config, name)}."
                )
        for name in ("offset_weight", "center_weight", "regression_weight", "window"):
            if not 0 <= getattr(config, name) < math.inf:
                raise ConfigError(
                    f"config.method.{name} must be 0 or a positive number; got "
                    f"{getattr(config, name)}."
                )
        if config.kernel_size < 1 or config.kernel_size % 2 == 0:
            raise ConfigError(
                "config.method.kernel_size must be an odd number of cells; got "
                f"{config.kernel_size}."
            )

    @property
    def alignment(self) -> geometry.Alignment:
        network = models.entry(self.config.model.name)
        return self.config.alignment or network.alignment

    # ------------------------------------------------------------------- training

    @property
    def map_size(self) -> tuple[int, int]:
        """(width, height) of the network's maps."""
        model = self.config.model
        stride = models.stride(model.name, model.options)
        assert stride is not None  # Networks of cells have one.
        # 16n + 1 pixels have n + 1 cells, 16n have n.
        w, h = (-(-n // stride) for n in self.view.size)
        return w, h

    def _in_cells(self, points_xy: Float[Array, "b k 2"]) -> Float[Array, "b k 2"]:
        return geometry.input_to_heatmap(
            points_xy,
            heatmap_size=self.map_size,
            input_size=self.view.size,
            alignment=self.view.alignment,
        )

    def targets(self, example: PersonExample):
        points_xy = self._in_cells(example.points_xy)
        size, sigma = self.map_size, self.config.sigma
        maps = gaussian.encode(points_xy, size=size, sigma=sigma)
        reached = gaussian.reaches(points_xy, size=size, sigma=sigma)
        return maps, reached & (example.visibility > 0)

    def loss_of(self, outputs, example: PersonExample):
        """Returns the sum of the losses; each is a mean over people."""
        config = self.config
        logits, fields, *of_people = self._from_centers(outputs[-1])
        maps, counted = self.targets(example)
        points_xy = self._in_cells(example.points_xy)
        near, true_fields = offsets.encode(
            points_xy, size=self.map_size, radius=config.radius
        )
        near *= counted[:, None, None]
        distance = losses.offset_huber(fields, true_fields, mask=near, delta=1.0)
        cells = jnp.maximum(near.sum((1, 2)), 1)
        parts = {
            "heatmap": self._cross_entropy(logits, maps, counted),
            "offset": (distance / cells).mean(-1),
        }
        if of_people:
            centers, regression = of_people
            parts |= self._losses_of_people(centers, regression, points_xy, counted)
        means = {
            name: losses.masked_mean(value, example.valid, normalize_by="mask")
            for name, value in parts.items()
        }
        total = means["heatmap"] + sum(
            getattr(config, f"{name}_weight") * means[name]
            for name in means
            if name != "heatmap"
        )
        return total, means

    def _cross_entropy(self, logits, maps, counted) -> Float[Array, " b"]:
        """The sum over cells, as in CenterNet: a mean would be a hundredth of the losses of
        offsets, which count few cells."""
        values = losses.heatmap_sigmoid_cross_entropy(logits, maps, weight=counted)
        return values.mean(-1)

    def _losses_of_people(self, centers, regression, points_xy, counted):
        """The center is the mean of the keypoints that count; the regression is trained at
        its cell."""
        number = jnp.maximum(counted.sum(1), 1)[:, None]
        center_xy = jnp.where(counted[..., None], points_xy, 0).sum(1) / number
        maps = gaussian.encode(
            center_xy[:, None], size=self.map_size, sigma=self.config.sigma
        )
        known = counted.any(1, keepdims=True)
        w, h = self.map_size
        x = jnp.clip(jnp.round(center_xy[:, 0]), 0, w - 1).astype(jnp.int32)
        y = jnp.clip(jnp.round(center_xy[:, 1]), 0, h - 1).astype(jnp.int32)
        cell_xy = jnp.stack([x, y], axis=-1)[:, None].astype(points_xy.dtype)
        distance = losses.keypoint_smooth_l1(
            regression[jnp.arange(len(x)), y, x],
            points_xy - cell_xy,
            weight=counted.astype(points_xy.dtype),
        )
        return {
            "center": self._cross_entropy(centers, maps, known),
            "regression": distance.mean(-1),
        }

    # ----------------------------------------------------------------- prediction

    def activate(self, output):
        """Returns probabilities, offsets from the centers of cells, and the outputs about
        people as they are."""
        logits, *others = self._from_centers(output)
        return jax.nn.sigmoid(logits), *others

    def _from_centers(self, output):
        """Returns the output with offsets that start at the centers of cells."""
        logits, fields, *of_people = output
        origin = models.entry(self.config.model.name).offset_origin
        return logits, fields + jnp.array(origin).reshape(1, 1, 1, 1, 2), *of_people

    def mirror(self, output, mirrored):
        both = self.both_views(*output[:2], *mirrored[:2])
        if len(output) == 2:
            return both
        (centers, regression), (mirrored_centers, mirrored_regression) = (
            output[2:],
            mirrored[2:],
        )
        centers = 0.5 * (centers + mirrored_centers[:, :, ::-1])
        regression = 0.5 * (regression + self.unmirrored_fields(mirrored_regression))
        return *both, centers, regression

    def chosen(self, output) -> Float[Array, "b h w k"]:
        """Returns the heatmaps around the peaks that `weighting` chooses."""
        heatmaps, _, *of_people = output
        if self.config.weighting == "none" or not of_people:
            return heatmaps
        weights = centers_lib.weights(*of_people)
        return centers_lib.around(heatmaps, weights, radius=self.config.window)

    def decode(self, output):
        arrays = self.chosen(output), output[1]
        points_xy, scores = self.decoder(
            self.config, *arrays[: len(self.decoder.inputs)]
        )
        h, w = output[0].shape[1:3]
        points_xy = geometry.heatmap_to_input(
            points_xy,
            heatmap_size=(w, h),
            input_size=self.view.size,
            alignment=self.view.alignment,
        )
        return points_xy, scores

    def score(self, box_score, keypoint_scores):
        mean = keypoint_scores.mean(-1)
        return {"pose": mean, "box": box_score, "product": box_score * mean}[
            self.config.rescoring
        ]

    def shown(self, output):
        return {"heatmaps": self.chosen(output)}
