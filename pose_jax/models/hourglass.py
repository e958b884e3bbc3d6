"""Stacked hourglasses (Newell et al., arXiv:1603.06937) as in DARK's tables.

Images [b, h, w, 3], normalized, height and width divisible by 32 and at least 64 ->
heatmaps [b, h/4, w/4, k], of every stack when training. The network of the published code
only works at 128x96: its smallest maps, 2x1, are enlarged to 4x3. Here they are enlarged
to the size they were pooled from, which is the same at 128x96.

Parameters are named as in that code, with a level of the tree for every dot. However, its
lists per kind are grouped by stack here, and parameters that depend on the keypoints are
below head:

    hg.0.hg.3.1.0.conv2.weight   stack_0/hg/3/1/0/conv2/kernel
    res.0.*, fc.0.*, fc_.0.*     stack_0/res/*, stack_0/fc/*, stack_0/fc_/*
    score.0.*, score_.0.*        stack_0/head/score/*, stack_0/head/score_/*
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Conv, ConvNorm, DType, Norm, NormKind, check_input
from pose_jax.models.ops import max_pool, upsample_nearest
from pose_jax.models.resnet import Stage


class Projection(nn.Module):
    """A 1x1 convolution, "0"."""

    features: int
    stride: int
    conv: partial

    @nn.compact
    def __call__(self, x):
        return self.conv(self.features, 1, stride=self.stride, name="0")(x)


class Residual(nn.Module):
    """A bottleneck to twice its width; norm and ReLU come before each convolution."""

    width: int
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        conv, norm = self.conv, self.norm
        features = 2 * self.width
        y = conv(self.width, 1, name="conv1")(nn.relu(norm(name="bn1")(x)))
        y = nn.relu(norm(name="bn2")(y))
        y = conv(self.width, 3, stride=self.stride, name="conv2")(y)
        y = conv(features, 1, name="conv3")(nn.relu(norm(name="bn3")(y)))
        if x.shape != y.shape:
            x = Projection(features, self.stride, conv, name="downsample")(x)
        return x + y


class Level(nn.Module):
    """One resolution of an hourglass: the skip branch plus the down-and-up branch.

    `inner` is the next lower resolution, None at the lowest.
    """

    residual: partial

    @nn.compact
    def __call__(self, x, inner):
        stays = self.residual(name="0")(x)
        x = self.residual(name="1")(max_pool(x, window=2, stride=2))
        x = self.residual(name="3")(x) if inner is None else inner(x)
        x = self.residual(name="2")(x)
        h, w = stays.shape[1:3]
        return stays + upsample_nearest(x, size=(w, h))


class Levels(nn.Module):
    """An hourglass; "0" is the level of lowest resolution."""

    depth: int
    residual: partial

    @nn.compact
    def __call__(self, x):
        inner = None
        for i in range(self.depth):
            inner = partial(Level(self.residual, name=str(i)), inner=inner)
        assert inner is not None  # `depth` is at least 1.
        return inner(x)


class Head(nn.Module):
    """Heatmaps, and features of them for the next stack, if there is one."""

    num_keypoints: int
    last: bool
    conv: partial

    @nn.compact
    def __call__(self, x):
        heatmaps = self.conv(
            self.num_keypoints,
            1,
            kernel_init=nn.initializers.normal(0.001),
            name="score",
        )(x)
        if self.last:
            return heatmaps, None
        return heatmaps, self.conv(x.shape[-1], 1, name="score_")(heatmaps)


class Stack(nn.Module):
    """An hourglass and its heatmaps; returns them and the input of the next stack."""

    num_keypoints: int
    depth: int
    last: bool
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        conv, norm, features = self.conv, self.norm, x.shape[-1]
        residual = partial(Stage, Residual, features // 2, 1, 1, conv, norm)
        y = Levels(self.depth, residual, name="hg")(x)
        y = residual(name="res")(y)
        y = nn.relu(ConvNorm(features, 1, 1, conv, norm, name="fc")(y))
        heatmaps, back = Head(self.num_keypoints, self.last, conv, name="head")(y)
        if not self.last:
            x = x + conv(features, 1, name="fc_")(y) + back
        return heatmaps.astype(jnp.float32), x


class Hourglass(nn.Module):
    """Heatmaps from a sequence of hourglasses, each with its own loss.

    Attributes:
      num_keypoints: channels of each output.
      stacks: number of hourglasses.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters and outputs are float32.
      remat: recompute stacks in the backward pass: less memory, a third more time.
      width: channels inside a stack, divisible by 4.
      depth: number of times an hourglass halves its maps; images must be divisible by
        2 * 2^depth and at least twice that.
    """

    num_keypoints: int
    stacks: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 256
    depth: int = 4

    @nn.compact
    def __call__(self, images, train: bool = False):
        for name, low in (("stacks", 1), ("depth", 1), ("width", 4)):
            if (value := getattr(self, name)) < low:
                raise ValueError(f"{name} must be at least {low}; got {value}.")
        if self.width % 4:
            raise ValueError(f"width must be divisible by 4; got {self.width}.")
        divisor = 2 * 2**self.depth
        check_input(images, divisor=divisor)
        if min(images.shape[1:3]) < 2 * divisor:
            raise ValueError(
                f"height and width must be at least {2 * divisor}, pixels, for "
                f"hourglasses of depth {self.depth}; got "
                f"{images.shape[1]} x {images.shape[2]}."
            )
        maybe_remat = nn.remat if self.remat else lambda module: module
        conv = partial(Conv, use_bias=True, dtype=self.dtype)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)

        def residual(features, name):
            block = maybe_remat(Residual)
            return Stage(block, features // 2, 1, 1, conv, norm, name=name)

        x = conv(self.width // 4, 7, stride=2, name="conv1")(images)
        x = nn.relu(norm(name="bn1")(x))
        x = residual(self.width // 2, "layer1")(x)
        x = max_pool(x, window=2, stride=2)
        x = residual(self.width, "layer2")(x)
        x = residual(self.width, "layer3")(x)

        outputs = []
        stack = maybe_remat(Stack)
        for i in range(self.stacks):
            last = i == self.stacks - 1
            heatmaps, x = stack(
                self.num_keypoints, self.depth, last, conv, norm, name=f"stack_{i}"
            )(x)
            outputs.append(heatmaps)
        return tuple(outputs) if train else outputs[-1]
