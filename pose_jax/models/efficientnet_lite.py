"""EfficientNet-Lite0 with the deconvolutions of SimpleBaseline.

Images [b, h, w, 3] in [-1, 1], height and width divisible by 32 -> heatmaps
[b, h/4, w/4, k]. EfficientNet-Lite (R. Liu, 2020) is EfficientNet (Tan and Le,
arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, as of MobileNetV2
(arXiv:1801.04381). Padding is TensorFlow's "SAME", the epsilon of norms 1e-3. The last 1x1
convolution, to 1280 channels, belongs to the classifier and is left out.

Parameters below backbone are named as in the published checkpoint, without its underscores
in front: `_blocks.3._bn1.weight` is blocks/3/bn1/scale.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import (
    Conv,
    ConvSame,
    Depthwise,
    DType,
    Norm,
    NormKind,
    check_input,
)
from pose_jax.models.simple_baseline import Deconvolutions

_GROUPS = (  # Blocks, kernel, stride of the first block, expansion, channels.
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
_STEM = 32


class Block(nn.Module):
    """An inverted residual block with norms."""

    features: int
    kernel: int
    stride: int
    expansion: int
    dtype: DType
    norm: partial

    @nn.compact
    def __call__(self, x):
        conv = partial(ConvSame, use_bias=False, dtype=self.dtype)
        channels, y = x.shape[-1], x
        if self.expansion > 1:
            y = conv(self.expansion * channels, name="expand_conv")(y)
            y = nn.relu6(self.norm(name="bn0")(y))
        y = Depthwise(
            self.kernel, self.stride, use_bias=False, dtype=self.dtype,
            name="depthwise_conv",
        )(y)  # fmt: skip
        y = nn.relu6(self.norm(name="bn1")(y))
        y = self.norm(name="bn2")(conv(self.features, name="project_conv")(y))
        return x + y if self.stride == 1 and channels == self.features else y


class Blocks(nn.Module):
    """All blocks, numbered."""

    width: float
    dtype: DType
    norm: partial

    @nn.compact
    def __call__(self, x):
        number = 0
        for blocks, kernel, stride, expansion, features in _GROUPS:
            for i in range(blocks):
                x = Block(
                    scaled(features, self.width),
                    kernel,
                    stride if i == 0 else 1,
                    expansion,
                    self.dtype,
                    self.norm,
                    name=str(number),
                )(x)
                number += 1
        return x


def scaled(features: int, width: float) -> int:
    """Returns the channels at a width, at least 1."""
    return max(1, round(features * width))


class Backbone(nn.Module):
    """Images -> features of stride 32."""

    width: float
    dtype: DType
    norm: partial

    @nn.compact
    def __call__(self, images):
        stem = scaled(_STEM, self.width)
        x = ConvSame(
            stem, 3, 2, use_bias=False, dtype=self.dtype, name="conv_stem"
        )(images)  # fmt: skip
        x = nn.relu6(self.norm(name="bn0")(x))
        return Blocks(self.width, self.dtype, self.norm, name="blocks")(x)


class EfficientNetLite(nn.Module):
    """Heatmaps from EfficientNet-Lite0.

    Attributes:
      num_keypoints: channels of the output.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters and output are float32.
      width: factor of the backbone's channels; 1 is the published network.
      deconv_features: channels of each deconvolution.
    """

    num_keypoints: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    width: float = 1.0
    deconv_features: int = 256

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=32)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)
        x = Backbone(
            self.width, self.dtype, partial(norm, epsilon=1e-3), name="backbone"
        )(images)
        x = Deconvolutions(
            self.deconv_features, self.dtype, norm, name="deconv_layers"
        )(x)
        heatmaps = Conv(
            self.num_keypoints,
            1,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.001),
            name="head",
        )(x).astype(jnp.float32)
        return (heatmaps,) if train else heatmaps
