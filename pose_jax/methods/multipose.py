"""MultiPose, called G-RMI by its authors: binary heatmaps, offsets and Hough voting.

For every pixel of a person's crop, a network predicts the probability of lying in the disc
of radius R around each keypoint, and the offset to the keypoint. Hough voting (4) fuses the
two; a keypoint is decoded at the maximum Hough score, and a pose's score is the mean of its
keypoints' Hough scores (7). Papandreou et al., CVPR 2017, arXiv:1701.01779.

The crop is as large as the maps, 8n + 1 pixels a side with aligned corners, so the frames
inside are: image -> input. R, delta and offsets are in pixels of the input.

The paper does not specify the loss of unlabeled keypoints; here they do not count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from pose_jax import losses
from pose_jax.codecs import gaussian, offsets
from pose_jax.drawing import votes
from pose_jax.errors import ConfigError
from pose_jax.methods import augment
from pose_jax.methods.heatmaps import HEATMAPS, Heatmaps
from pose_jax.methods.topdown import ModelConfig, PersonExample, evaluated
from pose_jax.types import Decoder, Panel, PersonView


@dataclasses.dataclass(frozen=True)
class Config:
    """The method section of a config.

    Attributes:
      model: a network of heatmaps and offsets.
      input_size: (width, height), each a multiple of 8 plus 1.
      radius: disc radius R, pixels of the input; 25 at 257 x 353.
      delta: threshold of the Huber loss (5), pixels; not given in the paper, usually 1.
      heatmap_weight, offset_weight: factors of (6).
      auxiliary_weight: factor of the intermediate heatmaps' loss relative to the final
        one's, inside heatmap_weight; 0 disables it.
      reduction: "sum", the sums over pixels and keypoints of (5) and (6); "pixel", these
        divided by the number of pixels of a map, which keeps their ratio and makes the
        learning rate independent of the input size; both are means over people. "mean",
        each divided by its count in the batch, which weights offsets h w / (pi R^2) times
        as much.
      others: maps whose loss excludes the discs of other people: "auxiliary", as in the
        paper (the final map has to learn to suppress them); "both"; or "none".
      max_others: number of other people of the image, the nearest, known in training.
      decoder: a key of `MultiPose.decoders`.
      rescoring: score of a pose: "pose", the mean of its keypoint scores (7); "box", the
        box score; "product", both multiplied.
      flip_test: average with the maps of the mirrored crop.
      padding: of the person box at evaluation. Training varies it by `augment.scale`: the
        default 0.2 with `scale_law` "uniform" makes 1.25 the paper's 1.0 to 1.5. A section
        `augment` replaces this default, so it has to repeat it.
      reach: width of the canvas region that training uses, in padded boxes.
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
    decoder: str = evaluated("hough")
    rescoring: Literal["pose", "box", "product"] = evaluated("pose")
    flip_test: Literal["none", "plain"] = evaluated("none")
    padding: float = evaluated(1.25)
    reach: float = 2.0
    augment: augment.AugmentConfig = dataclasses.field(
        default_factory=lambda: augment.AugmentConfig(scale=0.2, scale_law="uniform")
    )


def _decoder(fn, *uses: str) -> Decoder:
    inputs = {"heatmaps": "b h w k", "offsets": "b h w k 2"}
    return Decoder(fn, uses=uses, inputs=inputs)


DECODERS: Mapping[str, Decoder] = {
    "hough": _decoder(offsets.decode, "radius"),
    "hough_subpixel": _decoder(partial(offsets.decode, subpixel=True), "radius"),
    "argmax": Decoder(gaussian.decode_argmax),
    "argmax_offset": _decoder(offsets.decode_peak),
}
"""Decoders of heatmaps [b, h, w, k] and offsets [b, h, w, k, 2] to points [b, k, 2], input
frame, and scores [b, k]. The paper uses "hough"; "argmax" ignores offsets."""

VOTES = Panel(
    file="hough",
    title="Votes",
    caption="Hough voting for the keypoint with the highest score and for the median one: "
    "every pixel votes, weighted by its heatmap, for the position its offset points to. "
    "Arrows are offsets of some pixels above half of the maximum. The ring marks the "
    "keypoint; opacity is the root of the Hough score, so that low scores are visible.",
    draw=votes.votes_panel,
)


class MultiPose(Heatmaps):
    """Binary heatmaps and offset fields, fused by Hough voting."""

    name = "multipose"
    Config = Config
    outputs = "heatmaps and offsets"
    decoders: ClassVar = DECODERS
    panels: ClassVar = (HEATMAPS, VOTES)
    input_words: ClassVar = "the sigmoid of the network's heatmaps"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("radius", "delta", "padding"):
            value = getattr(self.config, name)
            if not 0 < value < math.inf:
                raise ConfigError(
                    f"config.method.{name} must be a positive number; got {value}."
                )
        for name in (
            *("heatmap_weight", "offset_weight", "auxiliary_weight"),
            "max_others",
        ):
            value = getattr(self.config, name)
            if not 0 <= value < math.inf:
                raise ConfigError(
                    f"config.method.{name} must be 0 or a positive number; got {value}."
                )

    @property
    def view(self) -> PersonView:
        config = self.config
        return PersonView(
            size=config.input_size,
            padding=config.padding,
            alignment="aligned",
            reach=config.reach,
            max_others=0 if config.others == "none" else config.max_others,
        )

    # ------------------------------------------------------------------- training

    def targets(self, example: PersonExample):
        maps, _ = self._encode(example)
        return maps, example.visibility > 0

    def _encode(self, example: PersonExample):
        return offsets.encode(
            example.points_xy, size=self.view.size, radius=self.config.radius
        )

    def _near_others(self, example: PersonExample) -> Bool[Array, "b h w k"]:
        """Returns a mask of pixels within the radius of another person's keypoints."""
        w, h = self.view.size
        points_xy = example.others_xy[:, :, None, None]  # [b, m, 1, 1, k, 2]
        x = jnp.arange(w, dtype=points_xy.dtype).reshape(1, 1, 1, w, 1)
        y = jnp.arange(h, dtype=points_xy.dtype).reshape(1, 1, h, 1, 1)
        distance = jnp.square(points_xy[..., 0] - x) + jnp.square(points_xy[..., 1] - y)
        labelled = (example.others_visibility > 0)[:, :, None, None]
        return jnp.any(labelled & (distance <= self.config.radius**2), axis=1)

    def loss_of(self, outputs, example: PersonExample):
        """Returns the loss (6), including the intermediate heatmaps' loss."""
        config = self.config
        auxiliary, (logits, offset_maps) = outputs
        maps, true_offsets = self._encode(example)
        labelled = example.visibility > 0
        everywhere = jnp.broadcast_to(labelled[:, None, None], maps.shape)
        apart = everywhere
        if self.view.max_others:
            apart = everywhere & ~self._near_others(example)
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
                offset_maps, true_offsets, mask=counted["offset"], delta=config.delta
            ),
        }
        means = {
            name: self._mean(values[name], counted[name], example.valid)
            for name in values
        }
        total = config.heatmap_weight * (
            means["heatmap"] + config.auxiliary_weight * means["auxiliary"]
        )
        return total + config.offset_weight * means["offset"], means

    def _mean(self, values, counted, valid) -> Array:
        """Reduces values [b, k], which are sums over the pixels `counted` [b, h, w, k]."""
        people = values.sum(-1)
        if self.config.reduction == "mean":
            pixels = jnp.sum(counted & valid[:, None, None, None])
            return jnp.sum(jnp.where(valid, people, 0)) / jnp.maximum(pixels, 1)
        if self.config.reduction == "pixel":
            w, h = self.view.size
            people = people / (h * w)
        return losses.masked_mean(people, valid, normalize_by="mask")

    # ----------------------------------------------------------------- prediction

    def activate(self, output):
        """Returns probabilities and offsets."""
        logits, offset_maps = output
        return jax.nn.sigmoid(logits), offset_maps

    def mirror(self, output, mirrored):
        """Averages both views; offsets are weighted by their heatmaps."""
        return self.both_views(*output, *mirrored)

    def decode(self, output):
        arrays = output[: len(self.decoder.inputs)]
        return self.decoder(self.config, *arrays)

    def score(self, box_score, keypoint_scores):
        """Equation (7), unless `rescoring` says otherwise."""
        mean = keypoint_scores.mean(-1)
        return {"pose": mean, "box": box_score, "product": box_score * mean}[
            self.config.rescoring
        ]

    def shown(self, output):
        maps, offset_maps = output
        return {
            "heatmaps": maps,
            "offsets": offset_maps,
            "fused": offsets.fuse(maps, offset_maps, radius=self.config.radius),
        }
