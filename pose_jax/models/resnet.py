"""ResNet (He et al., arXiv:1512.03385) as torchvision builds it, without the classifier.

Images [b, h, w, 3], normalised -> features [b, h/32, w/32, c], c = 512 (18) or 2048. The
stride of a bottleneck is on its 3x3. Parameters are named as in PyTorch's checkpoints, a
level of the tree for every dot: `layer1.0.conv1.weight` is layer1/0/conv1/kernel,
`layer1.0.downsample.1.running_var` is layer1/0/downsample/1/var.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Conv, DType, Norm, NormKind, max_pool


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
    """Two 3x3 convolutions."""

    width: int
    stride: int
    conv: partial
    norm: partial

    expansion = 1

    @nn.compact
    def __call__(self, x):
        conv, norm = self.conv, self.norm
        y = conv(self.width, 3, stride=self.stride, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = conv(self.width, 3, name="conv2")(y)
        y = norm(name="bn2")(y)
        if x.shape != y.shape:
            x = Downsample(self.width, self.stride, conv, norm, name="downsample")(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (with the stride), 1x1 up to four times the width."""

    width: int
    stride: int
    conv: partial
    norm: partial

    expansion = 4

    @nn.compact
    def __call__(self, x):
        conv, norm = self.conv, self.norm
        features = self.expansion * self.width
        y = nn.relu(norm(name="bn1")(conv(self.width, 1, name="conv1")(x)))
        y = conv(self.width, 3, stride=self.stride, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y))
        y = norm(name="bn3")(conv(features, 1, name="conv3")(y))
        if x.shape != y.shape:
            x = Downsample(features, self.stride, conv, norm, name="downsample")(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width; the first one has the stride."""

    block: type[nn.Module]
    width: int
    blocks: int
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = self.block(self.width, stride, self.conv, self.norm, name=str(i))(x)
        return x


# Block and blocks a stage, by depth.
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
    """

    depth: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64

    @nn.compact
    def __call__(self, images, train: bool = False):
        block, counts = DEPTHS[self.depth]
        if self.remat:
            block = nn.remat(block)
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)

        x = conv(self.width, 7, stride=2, name="conv1")(images)
        x = nn.relu(norm(name="bn1")(x))
        x = max_pool(x, window=3, stride=2, padding=1)
        for i, blocks in enumerate(counts):
            width, stride = self.width * 2**i, 1 if i == 0 else 2
            x = Stage(block, width, blocks, stride, conv, norm, name=f"layer{i + 1}")(x)
        return x
