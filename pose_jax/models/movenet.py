"""MoveNet: Google's single-person network, Lightning (width 1) and Thunder (1.75).

Images [b, h, w, 3] in [-1, 1], height and width divisible by 32 -> maps of cells, a quarter
of the input: heatmap logits [b, h/4, w/4, k], offsets [b, h/4, w/4, k, 2] from each cell to
the keypoint, center logits [b, h/4, w/4, 1] of a person's center, and the regression
[b, h/4, w/4, k, 2] from the center to each keypoint. Offsets and regression are (x, y) in
cells, from the upper left corner of a cell. The center of cell i lies at pixel 4i + 1.5
(alignment "half_pixel").

MobileNetV2 (Sandler et al., arXiv:1801.04381) with three lateral additions to stride 4 (Lin
et al., arXiv:1612.03144) and the four heads of CenterNet (Zhou et al., arXiv:1904.07850).
BatchNorm is folded into the published weights: there is no norm. Padding is TensorFlow's
"SAME". Layers are called in the order in which `weights.from_tfjs` finds them.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import ConvSame, Depthwise, DType, check_input
from pose_jax.models.ops import upsample_half_pixel

_GROUPS = (  # Blocks, channels at width 1, stride of the first block.
    (1, 16, 1), (2, 24, 2), (3, 32, 2), (4, 64, 2), (3, 96, 1), (3, 160, 2), (1, 320, 1),
)  # fmt: skip
_LATERALS = (3, 6, 10)
"""Numbers of blocks below the laterals of stride 4, 8 and 16."""
_NECK = (64, 32, 24, 24)
"""Channels at strides 32, 16, 8 and 4, before the addition of the next lateral."""
_EXPANSION = 6
_HEAD_FEATURES = 96


def _channels(features: int, width: float) -> int:
    """Multiples of 8, as of MobileNet: never less than 90% of features * width."""
    scaled = features * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class Block(nn.Module):
    """An inverted residual block."""

    features: int
    stride: int
    expansion: int
    dtype: DType

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        y = x
        if self.expansion > 1:
            wide = self.expansion * channels
            y = nn.relu6(ConvSame(wide, dtype=self.dtype, name="expand")(y))
        y = Depthwise(stride=self.stride, dtype=self.dtype, name="depthwise")(y)
        y = ConvSame(self.features, dtype=self.dtype, name="project")(nn.relu6(y))
        return x + y if self.stride == 1 and channels == self.features else y


class Separable(nn.Module):
    """A depthwise and a 1x1 convolution, and ReLU."""

    features: int
    dtype: DType

    @nn.compact
    def __call__(self, x):
        x = Depthwise(use_bias=False, dtype=self.dtype, name="depthwise")(x)
        return nn.relu(ConvSame(self.features, dtype=self.dtype, name="pointwise")(x))


class Head(nn.Module):
    """One of the four outputs, float32."""

    features: int
    dtype: DType

    @nn.compact
    def __call__(self, x):
        x = Separable(_HEAD_FEATURES, self.dtype, name="hidden")(x)
        x = ConvSame(self.features, dtype=self.dtype, name="output")(x)
        return x.astype(jnp.float32)


class MoveNet(nn.Module):
    """Heatmaps, offsets, centers and regression of cells.

    Attributes:
      num_keypoints: k of the outputs.
      norm: "none": the network has no norms.
      dtype: of the computation; parameters and outputs are float32.
      width: factor of the channels of MobileNetV2.
    """

    num_keypoints: int
    norm: Literal["none"] = "none"
    dtype: DType = jnp.float32
    width: float = 1.0

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=32)
        conv = partial(ConvSame, dtype=self.dtype)
        x = conv(_channels(32, self.width), 3, 2, name="stem")(images)
        x, laterals, number = nn.relu6(x), [], 0
        for blocks, features, stride in _GROUPS:
            for i in range(blocks):
                x = Block(
                    _channels(features, self.width),
                    stride if i == 0 else 1,
                    _EXPANSION if number else 1,
                    self.dtype,
                    name=f"block_{number}",
                )(x)
                number += 1
                if number in _LATERALS:
                    laterals.append(x)
        x = nn.relu6(conv(1280, name="last")(x))

        x = conv(_NECK[0], name="neck_32")(x)
        for i, lateral in enumerate(reversed(laterals)):
            stride = 16 >> i
            side = conv(x.shape[-1], name=f"lateral_{stride}")(lateral)
            x = upsample_half_pixel(x) + side
            x = Separable(_NECK[i + 1], self.dtype, name=f"neck_{stride}")(x)

        k = self.num_keypoints
        head = partial(Head, dtype=self.dtype)
        center = head(1, name="center")(x)
        heatmaps = head(k, name="heatmap")(x)
        regression = head(2 * k, name="regression")(x).reshape(*heatmaps.shape, 2)
        offsets = head(2 * k, name="offset")(x).reshape(*heatmaps.shape, 2)
        final = heatmaps, offsets, center, regression
        return (final,) if train else final
