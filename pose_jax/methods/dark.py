"""Top-down heatmap regression: the standard codecs and DARK, on any heatmap network.

A network predicts k heatmaps of a person's crop. Encoding: a Gaussian around the true point
("unbiased", DARK) or around the nearest heatmap pixel ("biased", Simple Baselines and
HRNet). Decoding: argmax, quarter shift (8), or DARK's Taylor step (14).

Frames inside: image -> input (of the network) -> heatmap; see `geometry`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose_jax import geometry, losses, models
from pose_jax.codecs import gaussian
from pose_jax.errors import ConfigError
from pose_jax.methods import augment
from pose_jax.methods.heatmaps import Heatmaps, shifted
from pose_jax.methods.topdown import ModelConfig, PersonExample, evaluated, mean_above
from pose_jax.types import Decoder


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      input_size: (width, height) of the network input.
      sigma: standard deviation of the target Gaussian, heatmap pixels.
      encoding: "unbiased": whole-map Gaussian at the true point; "biased": at the rounded
        point, zero beyond 3 sigma.
      loss: "mse", as in the papers; "cross_entropy": sigmoid outputs, with a logistic loss
        per pixel against the same targets.
      decoder: a key of `Dark.decoders`.
      kernel_size: size of DARK's blur; None derives it from sigma.
      alignment: alignment of crops and heatmaps, see `geometry.crop_transform`.
      padding: of the person box at evaluation; training varies it by `augment.scale`.
      reach: width of the canvas region that training uses, in padded boxes.
      flip_test: average with the maps of the mirrored crop; "shift" also moves these by one
        pixel, which compensates for alignment "stride".
      joint_weights: weight the loss by the squares of the keypoint set's joint weights: the
        published losses multiply output and target by them.
      ohkm: number of keypoints of each person that count in the loss, those of the largest
        loss (online hard keypoint mining; 8 in publications); 0: all.
      rescore_threshold: a pose's score is its box score times the mean of the keypoint
        scores above this.
    """

    name: Literal["dark"]
    model: ModelConfig
    input_size: tuple[int, int]
    sigma: float = 2.0
    encoding: Literal["unbiased", "biased"] = "unbiased"
    loss: Literal["mse", "cross_entropy"] = "mse"
    decoder: str = evaluated("dark")
    kernel_size: int | None = evaluated(None)
    alignment: geometry.Alignment = "stride"
    padding: float = evaluated(1.25)
    reach: float = 2.0
    flip_test: Literal["none", "plain", "shift"] = evaluated("none")
    joint_weights: bool = False
    ohkm: int = 0
    rescore_threshold: float = evaluated(0.2)
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=augment.AugmentConfig
    )


_BLUR = ("sigma", "kernel_size")

DECODERS: Mapping[str, Decoder] = {
    "argmax": Decoder(gaussian.decode_argmax),
    "shift": Decoder(gaussian.decode_shift),
    "shift_second": Decoder(partial(gaussian.decode_shift, rule="second")),
    "dark": Decoder(partial(gaussian.decode_dark, variant="robust"), uses=_BLUR),
    "dark_paper": Decoder(partial(gaussian.decode_dark, variant="paper"), uses=_BLUR),
    # A kernel of one pixel does not blur.
    "dark_unmodulated": Decoder(
        partial(gaussian.decode_dark, kernel_size=1, variant="paper")
    ),
}
"""Decoders of heatmaps [b, h, w, k] to heatmap points [b, k, 2] and scores [b, k]."""


class Dark(Heatmaps):
    """Gaussian heatmaps: targets, loss and decoding."""

    name = "dark"
    Config = Config
    outputs = "heatmaps"
    decoders: ClassVar = DECODERS

    def __post_init__(self) -> None:
        super().__post_init__()
        keypoint_set, k = self.keypoints, len(self.keypoints)
        if self.config.joint_weights and keypoint_set.joint_weights is None:
            raise ConfigError(
                f"config.method.joint_weights: keypoint set {keypoint_set.name!r} has "
                "none; set it to False or give the set weights."
            )
        if not 0 <= self.config.ohkm <= k:
            raise ConfigError(
                f"config.method.ohkm must be 0 to {k}, the number of keypoints; got "
                f"{self.config.ohkm}."
            )

    @property
    def input_words(self) -> str:
        sigmoid = "the sigmoid of " if self.config.loss == "cross_entropy" else ""
        return f"{sigmoid}the network's output"

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(width, height) of the network's maps."""
        model = self.config.model
        stride = models.stride(model.name, model.options)
        w, h = self.view.size
        assert stride is not None  # Networks of heatmaps have one.
        return w // stride, h // stride

    def targets(self, example: PersonExample):
        points_xy = geometry.input_to_heatmap(
            example.points_xy,
            heatmap_size=self.heatmap_size,
            input_size=self.view.size,
            alignment=self.view.alignment,
        )
        size, sigma = self.heatmap_size, self.config.sigma
        biased = self.config.encoding == "biased"
        maps = gaussian.encode(
            points_xy,
            size=size,
            sigma=sigma,
            quantize=biased,
            cutoff=3 if biased else None,
        )
        reached = gaussian.reaches(points_xy, size=size, sigma=sigma)
        return maps, reached & (example.visibility > 0)

    def loss_of(self, outputs, example: PersonExample):
        """Returns the mean over valid rows, which all have the same weight, however many of
        their keypoints count; summed over the network's outputs."""
        maps, counted = self.targets(example)
        weight = counted * self._joint_weights()

        def of_output(output):
            values = self._distance(output, maps, weight)
            if self.config.ohkm:
                values = jax.lax.top_k(values, self.config.ohkm)[0]
            rows = jnp.broadcast_to(example.valid[:, None], values.shape)
            return losses.masked_mean(values, rows, normalize_by="mask")

        return sum(map(of_output, outputs)), {}

    def _joint_weights(self) -> np.ndarray:
        """Returns [1, k]; squared, as published losses multiply output and target by it."""
        weights = self.keypoints.joint_weights
        if not self.config.joint_weights or weights is None:
            return np.ones((1, len(self.keypoints)), np.float32)
        return np.square([weights]).astype(np.float32)

    def _distance(self, output, maps, weight) -> Float[Array, "b k"]:
        """Returns half of the MSE, as in publications, or cross entropy per pixel."""
        if self.config.loss == "mse":
            return 0.5 * losses.heatmap_mse(output, maps, weight=weight)
        summed = losses.heatmap_sigmoid_cross_entropy(output, maps, weight=weight)
        return summed / (maps.shape[1] * maps.shape[2])

    def activate(self, output: Any) -> Any:
        return jax.nn.sigmoid(output) if self.config.loss == "cross_entropy" else output

    def mirror(self, output, mirrored):
        mirrored = self.unmirrored(mirrored)
        if self.config.flip_test == "shift":
            mirrored = shifted(mirrored)
        return 0.5 * (output + mirrored)

    def decode(self, output):
        points_xy, scores = self.decoder(self.config, output)
        h, w = output.shape[1:3]
        points_xy = geometry.heatmap_to_input(
            points_xy,
            heatmap_size=(w, h),
            input_size=self.view.size,
            alignment=self.view.alignment,
        )
        return points_xy, scores

    def score(self, box_score, keypoint_scores):
        return box_score * mean_above(keypoint_scores, self.config.rescore_threshold)
