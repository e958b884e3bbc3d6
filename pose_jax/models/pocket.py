"""Pocket: a small heatmap network for CPUs, demos and tests.

Images [b, h, w, 3], normalised, height and width divisible by 16 -> heatmaps
[b, h/4, w/4, k]. Not from a paper; the parts are bottleneck blocks (He et al.,
arXiv:1512.03385) and lateral additions (Lin et al., arXiv:1612.03144), arranged by what
two CPU cores do fast: 4x4 patches instead of a stem at full resolution, no 3x3 convolution
above stride 8, 1x1 convolutions (matrix products) for most channels. The deepest features,
at stride 32, see all of a 128x96 image, which telling left from right needs. The heatmaps
leave from stride 8, four pixels to a cell.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import (
    Conv,
    DType,
    Norm,
    NormKind,
    check_input,
    depth_to_space,
    space_to_depth,
)


class Block(nn.Module):
    """A bottleneck of half the width; starts as the identity."""

    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        features = x.shape[-1]
        y = nn.relu(self.norm()(self.conv(features // 2, 1)(x)))
        y = nn.relu(self.norm()(self.conv(features // 2, 3)(y)))
        y = self.norm(scale_init=nn.initializers.zeros)(self.conv(features, 1)(y))
        return nn.relu(x + y)


class Pocket(nn.Module):
    """Down to stride 32, and up again to stride 8 with lateral additions.

    Attributes:
      num_keypoints: channels of the output.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters and output are float32.
      width: channels of the 4x4 patches; 3, 4 and 6 times as many at strides 8, 16, 32.
      blocks: blocks at strides 8, 16 and 32 on the way down.
    """

    num_keypoints: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    width: int = 32
    blocks: tuple[int, int, int] = (1, 2, 2)

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=16)
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)

        x = space_to_depth(images, 4)
        x = nn.relu(norm(name="stem_norm")(conv(self.width, 1, name="stem")(x)))
        features = []
        for times, blocks in zip((3, 4, 6), self.blocks, strict=True):
            stage = f"down_{8 * 2 ** len(features)}"
            x = conv(times * self.width, 3, stride=2, name=f"{stage}_conv")(x)
            x = nn.relu(norm(name=f"{stage}_norm")(x))
            for i in range(blocks):
                x = Block(conv, norm, name=f"{stage}_block_{i}")(x)
            features.append(x)

        for stride, lateral in zip((16, 8), features[-2::-1], strict=True):
            above = conv(lateral.shape[-1], 1, name=f"up_{stride}_conv")(x)
            x = conv(lateral.shape[-1], 1, name=f"up_{stride}_lateral")(lateral)
            h, w = lateral.shape[1:3]  # Odd where 32 does not divide the image.
            x = x + above.repeat(2, axis=1).repeat(2, axis=2)[:, :h, :w]
            x = nn.relu(norm(name=f"up_{stride}_norm")(x))
            x = Block(conv, norm, name=f"up_{stride}_block")(x)

        # Near zero at first, as maps mostly are: otherwise the first hundreds of steps
        # are spent on unlearning noise.
        head = partial(conv, use_bias=True, kernel_init=nn.initializers.normal(0.001))
        x = head(4 * self.num_keypoints, 1, name="head")(x)
        heatmaps = depth_to_space(x, 2).astype(jnp.float32)
        return (heatmaps,) if train else heatmaps
