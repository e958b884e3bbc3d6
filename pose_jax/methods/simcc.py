"""SimCC: coordinate classification, a distribution over the bins of each axis of the crop.

Li et al., ECCV 2022, arXiv:2107.03332. Frames inside: image -> input (of the network).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from pose_jax import keypoints, losses
from pose_jax.codecs import simcc
from pose_jax.errors import ConfigError
from pose_jax.methods import augment
from pose_jax.methods.heatmaps import HEATMAPS
from pose_jax.methods.topdown import ModelConfig, PersonExample, TopDown, evaluated
from pose_jax.types import Decoder


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      model: a network of coordinate bins; its option `split` must equal the one here.
      input_size: (width, height) of the network input.
      split: bins per pixel of the input.
      sigma: standard deviation of the target, bins: 6 where the paper's input is 192x256
        with two bins per pixel; scale it with the input.
      decoder: "argmax", the paper's, or "expectation", the mean of the bins.
      padding: of the person box at evaluation; training varies it by `augment.scale`.
      reach: how many padded boxes wide training may look.
      flip_test: average with the distributions of the mirrored crop.
    """

    name: Literal["simcc"]
    model: ModelConfig
    input_size: tuple[int, int]
    split: int = dataclasses.field(default=2, metadata={"retrain": True})
    sigma: float = 6.0
    decoder: str = evaluated("argmax")
    padding: float = evaluated(1.25)
    reach: float = 2.0
    flip_test: Literal["none", "plain"] = evaluated("none")
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=augment.AugmentConfig
    )


_BINS = {"x": "b k n", "y": "b k m"}

DECODERS: Mapping[str, Decoder] = {
    "argmax": Decoder(simcc.decode, uses=("split",), inputs=_BINS),
    "expectation": Decoder(simcc.decode_expectation, uses=("split",), inputs=_BINS),
}


class SimCC(TopDown):
    """Coordinate classification."""

    name = "simcc"
    Config = Config
    outputs = "coordinate bins"
    decoders: ClassVar = DECODERS
    panels: ClassVar = (HEATMAPS,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config.split < 1 or not self.config.sigma > 0:
            raise ConfigError(
                "config.method: split must be at least 1 and sigma positive; got "
                f"{self.config.split} and {self.config.sigma}."
            )
        if self.model.split != self.config.split:
            raise ConfigError(
                f"config.method.model.options.split is {self.model.split} and "
                f"config.method.split {self.config.split}; both must be the same."
            )

    def loss_of(self, outputs, example: PersonExample):
        """The Kullback-Leibler divergences of x and y, summed; their mean over the labelled
        keypoints that lie inside the input."""
        size = w, h = self.view.size
        target = simcc.encode(
            example.points_xy,
            size=size,
            split=self.config.split,
            sigma=self.config.sigma,
        )
        last = jnp.array([w - 1, h - 1], jnp.float32).reshape(1, 1, 2)
        inside = ((example.points_xy >= 0) & (example.points_xy <= last)).all(-1)
        counted = inside & (example.visibility > 0) & example.valid[:, None]
        values = sum(
            losses.bins_divergence(logits, bins, weight=counted)
            for logits, bins in zip(outputs[-1], target, strict=True)
        )
        return losses.masked_mean(jnp.asarray(values), counted, normalize_by="mask"), {}

    def activate(self, output):
        """Probabilities."""
        return tuple(jax.nn.softmax(logits, axis=-1) for logits in output)

    def mirror(self, output, mirrored):
        # Pixel x of the crop is pixel w - 1 - x of its mirror image: bin i is bin
        # split * (w - 1) - i, and the last split - 1 bins have no counterpart.
        x, y = (keypoints.swap(bins, self.keypoints, axis=-2) for bins in mirrored)
        last = self.config.split - 1
        x = jnp.pad(x[..., ::-1][..., last:], ((0, 0), (0, 0), (0, last)))
        return 0.5 * (output[0] + x), 0.5 * (output[1] + y)

    def decode(self, output):
        return self.decoder(self.config, *output)

    def shown(self, output):
        """The product of both distributions at every pixel, as a map [b, h, w, k]."""
        x, y = (bins[..., :: self.config.split] for bins in output)
        return {"heatmaps": jnp.einsum("bkx,bky->byxk", x, y)}
