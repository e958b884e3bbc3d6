"""Pocket: a small heatmap network for CPUs, demos and tests.

Images [b, h, w, 3], normalized, height and width divisible by 16 -> heatmaps
[b, h/4, w/4, k]. Not from a paper; the parts are bottleneck blocks (He et al.,
arXiv:1512.03385) and lateral additions (Lin et al., arXiv:1612.03144), chosen for speed on
two CPU cores: 4x4 patches instead of a stem at full resolution, no 3x3 convolution at
strides below 8, 1x1 convolutions (matrix products) for most channels. The deepest features,
at stride 32, see all of a 128x96 image, which is needed to distinguish left from right. The
heatmaps are computed at stride 8, four pixels per feature.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Conv, DType, Norm, NormKind, check_input
from pose_jax.models.ops import depth_to_space, space_to_depth, upsample_aligned


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


class Encoder(nn.Module):
    """Encoder down to stride 32 and up to stride 8, with lateral additions.

    Used by all small networks. Images [b, h, w, 3] -> features [b, h/8, w/8, 3 * width],
    after and before the last block.

    Attributes:
      norm: "batch", "frozen" or "group".
      dtype: of the computation.
      width: channels of the 4x4 patches; 3, 4 and 6 times as many at strides 8, 16, 32.
      blocks: blocks at strides 8, 16 and 32 on the way down.
      aligned: if True, images have 8n + 1 pixels, and feature i is at pixel stride * i
        (n + 1 at stride 8); else 16n pixels, and feature i of stride 8 is at 8i + 1.5.
    """

    norm: NormKind
    dtype: DType
    width: int
    blocks: tuple[int, int, int]
    aligned: bool = False

    @nn.compact
    def __call__(self, images, train: bool):
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)

        if self.aligned:
            # Patch i begins at pixel 4i - 2: 8n + 1 pixels are 2n + 1 patches, and the
            # next convolution reaches as far to the right of its center as to the left.
            images = jnp.pad(images, ((0, 0), (2, 1), (2, 1), (0, 0)))
        x = space_to_depth(images, 4)
        x = nn.relu(norm(name="stem_norm")(conv(self.width, 1, name="stem")(x)))
        down = []
        for times, blocks in zip((3, 4, 6), self.blocks, strict=True):
            stage = f"down_{8 * 2 ** len(down)}"
            x = conv(times * self.width, 3, stride=2, name=f"{stage}_conv")(x)
            x = nn.relu(norm(name=f"{stage}_norm")(x))
            for i in range(blocks):
                x = Block(conv, norm, name=f"{stage}_block_{i}")(x)
            down.append(x)

        for stride, lateral in zip((16, 8), down[-2::-1], strict=True):
            stage, channels = f"up_{stride}", lateral.shape[-1]
            above = conv(channels, 1, name=f"{stage}_conv")(x)
            x = conv(channels, 1, name=f"{stage}_lateral")(lateral)
            x = x + self._doubled(above, x.shape[1:3])
            before = nn.relu(norm(name=f"{stage}_norm")(x))
            x = Block(conv, norm, name=f"{stage}_block")(before)
        return x, before

    def _doubled(self, x, size: tuple[int, ...]):
        """Upsamples features by two, cropped or padded to `size` [h, w]."""
        h, w = size
        if not self.aligned:  # The size is odd where 32 does not divide the image.
            return x.repeat(2, axis=1).repeat(2, axis=2)[:, :h, :w]
        x = upsample_aligned(x, factor=2)
        missing = ((0, 0), (0, h - x.shape[1]), (0, w - x.shape[2]), (0, 0))
        return jnp.pad(x, missing, mode="edge")


class Pocket(nn.Module):
    """Heatmaps from the encoder's features.

    Attributes:
      num_keypoints: channels of the output.
      norm, dtype, width, blocks: as of `Encoder`; parameters and output are float32.
    """

    num_keypoints: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    width: int = 32
    blocks: tuple[int, int, int] = (1, 2, 2)

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=16)
        encoder = Encoder(self.norm, self.dtype, self.width, self.blocks)
        nn.share_scope(self, encoder)  # No level of its own in the tree of variables.
        x, _ = encoder(images, train)

        # Outputs start near zero, like most of a target: otherwise the first hundreds of
        # steps only remove noise.
        x = Conv(
            4 * self.num_keypoints,
            1,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.001),
            name="head",
        )(x)
        heatmaps = depth_to_space(x, 2).astype(jnp.float32)
        return (heatmaps,) if train else heatmaps
