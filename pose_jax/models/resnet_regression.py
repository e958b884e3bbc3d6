"""Coordinates regressed by a ResNet: DeepPose's approach with a later network.

Images [b, h, w, 3], normalized, height and width divisible by 32 -> coordinates [b, k, 2],
(x, y) in units of the image: 0 at its center, +-0.5 at its edges. Global average pooling
and one linear layer, as in ResNet's ImageNet classifier (He et al., arXiv:1512.03385). It
can be trained alone or as a stage of a cascade.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Coordinates, DType, NormKind, check_input
from pose_jax.models.resnet import ResNet


class ResNetRegression(nn.Module):
    """Coordinates from a ResNet.

    Attributes:
      num_keypoints: how many points.
      depth: depth of the ResNet: 18, 50, 101 or 152.
      norm: "batch", "frozen" or "group".
      dtype: of the ResNet's computation; parameters, mean, last layer and output are
        float32.
      remat: recompute the ResNet's blocks in the backward pass, to save memory.
      width: channels of the ResNet's first stage.
      pool: "mean", over the last maps; "none": the linear layer sees all positions, as in
        DeepPose's first fully connected layer, and requires one input size.
    """

    num_keypoints: int
    depth: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64
    pool: Literal["mean", "none"] = "mean"

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=32)
        if self.pool not in ("mean", "none"):
            raise ValueError(f'pool is "mean" or "none"; got {self.pool!r}.')
        x = ResNet(
            self.depth, self.norm, self.dtype, self.remat, self.width, name="backbone"
        )(images, train)
        x = x.astype(jnp.float32)
        x = jnp.mean(x, axis=(1, 2)) if self.pool == "mean" else x.reshape(len(x), -1)
        points_xy = Coordinates(self.num_keypoints, name="head")(x)
        return (points_xy,) if train else points_xy
