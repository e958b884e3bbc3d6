"""HRNet (Sun et al., arXiv:1902.09212): high-resolution maps throughout the network.

Images [b, h, w, 3], normalized, height and width divisible by 32 -> heatmaps
[b, h/4, w/4, k]. Branches at strides 4, 8, 16 and 32, with C, 2C, 4C and 8C channels, run
side by side; each module ends with every branch added to every other one.

Parameters are named as in the published checkpoints, with a tree level for every dot:
`stage3.1.fuse_layers.0.2.1.running_var` is stage3/1/fuse_layers/0/2/1/var. The one
exception: `final_layer` is called head here, as in every network of this package.
"""

from __future__ import annotations

import functools
import operator
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Conv, ConvNorm, DType, Norm, NormKind, check_input
from pose_jax.models.ops import upsample_nearest
from pose_jax.models.resnet import BasicBlock, Bottleneck, Stage


class Down(nn.Module):
    """3x3 convolutions that each halve the map, with ReLU between them."""

    features: tuple[int, ...]
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        for i, features in enumerate(self.features):
            x = x if i == 0 else nn.relu(x)
            x = ConvNorm(features, 3, 2, self.conv, self.norm, name=str(i))(x)
        return x


class Transition(nn.Module):
    """Converts branches to their widths; a new one is made by halving the last."""

    widths: tuple[int, ...]
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, maps):
        conv, norm = self.conv, self.norm
        branches = []
        for i, width in enumerate(self.widths):
            if i >= len(maps):
                x = nn.relu(Down((width,), conv, norm, name=str(i))(maps[-1]))
            elif maps[i].shape[-1] != width:
                x = nn.relu(ConvNorm(width, 3, 1, conv, norm, name=str(i))(maps[i]))
            else:
                x = maps[i]
            branches.append(x)
        return tuple(branches)


class Branches(nn.Module):
    """Basic blocks in every branch."""

    blocks: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, maps):
        conv, norm = self.conv, self.norm
        return tuple(
            Stage(BasicBlock, x.shape[-1], self.blocks, 1, conv, norm, name=str(i))(x)
            for i, x in enumerate(maps)
        )


class Fuse(nn.Module):
    """The sum of all branches, resampled to the shape of branch `to`."""

    to: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, maps):
        conv, norm = self.conv, self.norm
        h, w, features = maps[self.to].shape[1:]
        terms = []
        for i, x in enumerate(maps):
            if i < self.to:
                widths = (x.shape[-1],) * (self.to - i - 1) + (features,)
                x = Down(widths, conv, norm, name=str(i))(x)
            elif i > self.to:
                x = ConvNorm(features, 1, 1, conv, norm, name=str(i))(x)
                x = upsample_nearest(x, size=(w, h))
            terms.append(x)
        return nn.relu(functools.reduce(operator.add, terms))


class FuseLayers(nn.Module):
    """The sums for the first `outputs` branches."""

    outputs: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, maps):
        return tuple(
            Fuse(i, self.conv, self.norm, name=str(i))(maps)
            for i in range(self.outputs)
        )


class Module(nn.Module):
    """Parallel branches, then the exchange between them."""

    blocks: int
    outputs: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, maps):
        conv, norm = self.conv, self.norm
        maps = Branches(self.blocks, conv, norm, name="branches")(maps)
        return FuseLayers(self.outputs, conv, norm, name="fuse_layers")(maps)


class Modules(nn.Module):
    """A sequence of modules; all keep all branches, but the last outputs `outputs`."""

    module: type[nn.Module]
    modules: int
    blocks: int
    outputs: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, maps):
        for i in range(self.modules):
            outputs = self.outputs if i == self.modules - 1 else len(maps)
            maps = self.module(self.blocks, outputs, self.conv, self.norm, name=str(i))(
                maps
            )
        return maps


class HRNet(nn.Module):
    """Heatmaps from the branch of highest resolution.

    Attributes:
      num_keypoints: channels of the output.
      width: channels C of that branch; each lower branch has twice as many.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters and output are float32.
      remat: recompute modules in the backward pass: less memory, a third more time.
      stem_width: channels of the two convolutions before the first stage.
      modules: number of modules in stages 2, 3 and 4, which have 2, 3 and 4 branches.
      blocks: number of blocks of a branch in a module, and of the one-branch first stage.
    """

    num_keypoints: int
    width: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    stem_width: int = 64
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=32)
        if min(self.modules) < 1 or len(self.modules) != 3:
            raise ValueError(
                "modules must be three numbers, each at least 1, for stages 2, 3 and 4; "
                f"got {self.modules}."
            )
        maybe_remat = nn.remat if self.remat else lambda module: module
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(Norm, self.norm, train, dtype=self.dtype)

        x = images
        for i in (1, 2):
            x = conv(self.stem_width, 3, stride=2, name=f"conv{i}")(x)
            x = nn.relu(norm(name=f"bn{i}")(x))
        x = Stage(
            maybe_remat(Bottleneck),
            self.stem_width,
            self.blocks,
            1,
            conv,
            norm,
            name="layer1",
        )(x)
        maps = (x,)
        for stage, modules in zip((2, 3, 4), self.modules, strict=True):
            widths = tuple(self.width * 2**i for i in range(stage))
            maps = Transition(widths, conv, norm, name=f"transition{stage - 1}")(maps)
            maps = Modules(
                maybe_remat(Module),
                modules,
                self.blocks,
                1 if stage == 4 else stage,
                conv,
                norm,
                name=f"stage{stage}",
            )(maps)
        heatmaps = conv(
            self.num_keypoints,
            1,
            use_bias=True,
            kernel_init=nn.initializers.normal(0.001),
            name="head",
        )(maps[0]).astype(jnp.float32)
        return (heatmaps,) if train else heatmaps
