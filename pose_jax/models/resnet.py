"""ResNet (He et al., arXiv:1512.03385) as in torchvision, without the classifier.

Images [b, h, w, 3], normalized -> features [b, h/32, w/32, c], c = 512 (18) or 2048. The
stride of a bottleneck is on its 3x3. Parameters are named as in PyTorch's checkpoints, with
a tree level for every dot: `layer1.0.conv1.weight` is layer1/0/conv1/kernel,
`layer1.0.downsample.1.running_var` is layer1/0/downsample/1/var.

At a smaller output stride the last stages are *atrous* (DeepLab: Chen et al.,
arXiv:1606.00915): their strides are removed, and later convolutions are dilated to keep
their receptive field. Parameters are unchanged, and so are the features, with additional
ones between them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Conv, DType, Norm, NormKind
from pose_jax.models.ops import max_pool


class Downsample(nn.Module):
    """The projection of a block's input to the shape of its output."""

    features: int
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        x = self.conv(self.features, 1, stride=self.stride, name="0")(x)
        return self.norm(name="1")(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with the given `dilations`."""

    width: int
    stride: int
    conv: partial
    norm: partial
    dilations: tuple[int, int] = (1, 1)

    expansion = 1

    @nn.compact
    def __call__(self, x):
        conv, norm = self.conv, self.norm
        first, second = self.dilations
        y = conv(self.width, 3, stride=self.stride, dilation=first, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = conv(self.width, 3, dilation=second, name="conv2")(y)
        y = norm(name="bn2")(y)
        if x.shape != y.shape:
            x = Downsample(self.width, self.stride, conv, norm, name="downsample")(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (with the stride), 1x1 up to four times the width.

    The 3x3 has the first of the `dilations`.
    """

    width: int
    stride: int
    conv: partial
    norm: partial
    dilations: tuple[int, int] = (1, 1)

    expansion = 4

    @nn.compact
    def __call__(self, x):
        conv, norm = self.conv, self.norm
        features = self.expansion * self.width
        y = nn.relu(norm(name="bn1")(conv(self.width, 1, name="conv1")(x)))
        dilation, _ = self.dilations
        y = conv(self.width, 3, stride=self.stride, dilation=dilation, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y))
        y = norm(name="bn3")(conv(features, 1, name="conv3")(y))
        if x.shape != y.shape:
            x = Downsample(features, self.stride, conv, norm, name="downsample")(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width; the first one has the stride.

    Attributes:
      block: BasicBlock, Bottleneck, or a module with their first four attributes.
      width: width of the blocks.
      blocks: number of blocks.
      stride: stride of the first block.
      conv: constructor of convolutions.
      norm: constructor of norms.
      dilations: dilation of the convolution that has (or had) the stride, and of all 3x3
        convolutions after it.
    """

    block: type[nn.Module]
    width: int
    blocks: int
    stride: int
    conv: partial
    norm: partial
    dilations: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x, keep: int | None = None) -> Any:
        """Returns the features; with `keep` also those after this number of blocks."""
        kept = None
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            block = self.block
            if self.dilations != (1, 1):
                first, rest = self.dilations
                block = partial(block, dilations=(first if i == 0 else rest, rest))
            x = block(self.width, stride, self.conv, self.norm, name=str(i))(x)
            if keep == i + 1:
                kept = x
        return x if keep is None else (x, kept)


# Block type and blocks per stage, by depth.
DEPTHS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """The four stages.

    Attributes:
      depth: a key of `DEPTHS`.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters are float32.
      remat: recompute blocks in the backward pass: less memory, a third more time.
      width: channels of the first stage, before expansion; each stage doubles them.
      output_stride: pixels of the image from one feature to the next: 32; or 16 or 8, with
        the last one or two stages atrous.
    """

    depth: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64
    output_stride: int = 32

    @nn.compact
    def __call__(
        self,
        images,
        train: bool = False,
        *,
        keep: tuple[int, int] | None = None,
        all_stages: bool = False,
    ) -> Any:
        """Returns the features.

        With `keep` = (stage, n) also those of the n-th block of layerSTAGE; with
        `all_stages` a list of the features of each stage instead.
        """
        if self.output_stride not in (8, 16, 32):
            raise ValueError(
                f"output_stride must be 8, 16 or 32, pixels; got {self.output_stride}."
            )
        block, counts = DEPTHS[self.depth]
        if self.remat:
            block = nn.remat(block)
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)

        x = conv(self.width, 7, stride=2, name="conv1")(images)
        x = nn.relu(norm(name="bn1")(x))
        x = max_pool(x, window=3, stride=2, padding=1)
        total, dilation, kept, maps = 4, 1, None, []
        for i, blocks in enumerate(counts):
            width, stride = self.width * 2**i, 1 if i == 0 else 2
            before = dilation
            if total * stride > self.output_stride:
                # The convolution that loses its stride still reads the finer maps, so it
                # keeps the dilation of the previous stage; only later ones are dilated
                # further. torchvision and DeepLab's slim code do the same.
                dilation, stride = dilation * stride, 1
            total *= stride
            stage = Stage(
                block,
                width,
                blocks,
                stride,
                conv,
                norm,
                (before, dilation),
                name=f"layer{i + 1}",
            )
            if keep is not None and keep[0] == i + 1:
                x, kept = stage(x, keep[1])
            else:
                x = stage(x)
            maps.append(x)
        if all_stages:
            return maps
        return x if keep is None else (x, kept)
