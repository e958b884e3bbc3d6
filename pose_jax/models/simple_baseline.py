"""SimpleBaseline (Xiao et al., arXiv:1804.06208): ResNet and three deconvolutions.

Images [b, h, w, 3], normalized, height and width divisible by 32 -> heatmaps
[b, h/4, w/4, k]. `final_layer` of the published checkpoints is called head here, as in
every network of this package; the parameters below backbone are at their root.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import (
    Conv,
    ConvTranspose,
    DType,
    Norm,
    NormKind,
    check_input,
)
from pose_jax.models.resnet import ResNet


class Deconvolutions(nn.Module):
    """Transposed convolution, norm and ReLU, `count` times; numbered as in PyTorch."""

    features: int
    dtype: DType
    norm: partial
    count: int = 3

    @nn.compact
    def __call__(self, x):
        for i in range(0, 3 * self.count, 3):
            x = ConvTranspose(self.features, dtype=self.dtype, name=str(i))(x)
            x = nn.relu(self.norm(name=str(i + 1))(x))
        return x


class SimpleBaseline(nn.Module):
    """Heatmaps from a ResNet.

    Attributes:
      num_keypoints: channels of the output.
      depth: depth of the ResNet: 18, 50, 101 or 152.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters and output are float32.
      remat: recompute the ResNet's blocks in the backward pass, to save memory.
      width: channels of the ResNet's first stage.
      deconv_features: channels of each deconvolution.
    """

    num_keypoints: int
    depth: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64
    deconv_features: int = 256

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=32)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)
        x = ResNet(
            self.depth, self.norm, self.dtype, self.remat, self.width, name="backbone"
        )(images, train)
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
