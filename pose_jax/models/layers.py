"""Layers of all networks: `ops` with parameters, and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from pose_jax.models.ops import conv, conv_transpose, depthwise, pad_same

NormKind: TypeAlias = Literal["batch", "frozen", "group"]
DType: TypeAlias = str | jnp.dtype | type


class Conv(nn.Module):
    """`conv` with parameters "kernel" [k, k, in, out] and optionally "bias" [out].

    Pads by half of the kernel unless `padding` is given.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    dilation: int = 1
    use_bias: bool = False
    dtype: DType = jnp.float32
    kernel_init: Callable = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    @nn.compact
    def __call__(self, x):
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        padding = self.padding
        if padding is None:
            padding = self.dilation * (self.kernel // 2)
        y = conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)[None, None, None]
        return y


class ConvSame(nn.Module):
    """`Conv` with a bias unless told otherwise, padded as TensorFlow's "SAME"."""

    features: int
    kernel: int = 1
    stride: int = 1
    use_bias: bool = True
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = pad_same(x, kernel=self.kernel, stride=self.stride)
        conv = Conv(
            self.features,
            self.kernel,
            self.stride,
            padding=0,
            use_bias=self.use_bias,
            dtype=self.dtype,
        )
        nn.share_scope(self, conv)
        return conv(x)


class Depthwise(nn.Module):
    """`depthwise` with "kernel" [k, k, 1, c] and optionally "bias" [c], padded as
    TensorFlow's "SAME"."""

    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    use_bias: bool = True
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x):
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", init, shape)
        x = pad_same(
            x, kernel=self.kernel, stride=self.stride, dilation=self.dilation
        ).astype(self.dtype)
        y = depthwise(
            x, kernel.astype(self.dtype), stride=self.stride, dilation=self.dilation
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape[3:])
            y = y + bias.astype(self.dtype)[None, None, None]
        return y


class ConvTranspose(nn.Module):
    """`conv_transpose` with the parameter "kernel" [4, 4, in, out]."""

    features: int
    dtype: DType = jnp.float32
    kernel_init: Callable = nn.initializers.normal(0.001)

    @nn.compact
    def __call__(self, x):
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        return conv_transpose(x.astype(self.dtype), kernel.astype(self.dtype))


class Coordinates(nn.Module):
    """The last layer of a regression network: features [b, c] -> points [b, k, 2].

    Linear, with parameters "kernel" [c, 2k] and "bias" [2k]. Its initial scale is 1/100:
    all points start near 0, the center, and noise does not drive the layers below. Always
    computed in float32: bfloat16 would round a coordinate of half a box to 1/512 of the
    box.
    """

    num_keypoints: int
    kernel_init: Callable = nn.initializers.variance_scaling(1e-4, "fan_in", "normal")

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1], 2 * self.num_keypoints)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[1:])
        points_xy = x.astype(jnp.float32) @ kernel + bias[None]
        return points_xy.reshape(-1, self.num_keypoints, 2)


class FrozenBatchNorm(nn.Module):
    """BatchNorm with fixed statistics, scale and bias.

    Same names and shapes as `flax.linen.BatchNorm`. Its parameters get no gradient; weight
    decay is up to the optimizer.
    """

    epsilon: float = 1e-5
    dtype: DType = jnp.float32
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        var = self.variable("batch_stats", "var", jnp.ones, shape).value
        factor = scale * lax.rsqrt(var + self.epsilon)
        factor, shift = lax.stop_gradient((factor, bias - mean * factor))
        factor, shift = factor.astype(self.dtype), shift.astype(self.dtype)
        return x * factor[None, None, None] + shift[None, None, None]


class Norm(nn.Module):
    """The normalization after a convolution, by `kind`.

    "batch": PyTorch's BatchNorm2d(eps=epsilon, momentum=0.1); under data parallelism the
    statistics are those of the global batch. "frozen": see `FrozenBatchNorm`. "group": 32
    groups, or the greatest common divisor of 32 and the channels; no state.
    """

    kind: NormKind
    train: bool
    dtype: DType = jnp.float32
    scale_init: Callable = nn.initializers.ones
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        options = {
            "epsilon": self.epsilon,
            "dtype": self.dtype,
            "scale_init": self.scale_init,
        }
        norm = {
            "batch": partial(
                nn.BatchNorm, use_running_average=not self.train, momentum=0.9
            ),
            "frozen": FrozenBatchNorm,
            "group": partial(nn.GroupNorm, num_groups=math.gcd(32, x.shape[-1])),
        }[self.kind]
        nn.share_scope(self, module := norm(**options))
        return module(x)


class ConvNorm(nn.Module):
    """A convolution "0" and its norm "1", named as in a PyTorch Sequential."""

    features: int
    kernel: int
    stride: int
    conv: partial
    norm: partial

    @nn.compact
    def __call__(self, x):
        x = self.conv(self.features, self.kernel, stride=self.stride, name="0")(x)
        return self.norm(name="1")(x)


def check_input(images: Array, *, divisor: int, remainder: int = 0) -> None:
    """Raises ValueError unless images are [b, h, w, 3] floats of a size that fits.

    Args:
      images: input of the network.
      divisor: divisor of height and width, pixels.
      remainder: remainder of that division; if it is not 0, sizes are at least one divisor.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be [b, h, w, 3]; got {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be normalized floats; got {images.dtype}.")
    h, w = images.shape[1:3]
    if remainder == 0:
        if h % divisor or w % divisor:
            raise ValueError(
                f"height and width must be divisible by {divisor}, pixels; got {h} x {w}."
            )
        return

    def nearest(n):
        below = max((n - remainder) // divisor, 1) * divisor + remainder
        return f"{below} or {below + divisor} for {n}"

    wrong = [n for n in (h, w) if n % divisor != remainder or n < divisor]
    if wrong:
        raise ValueError(
            f"height and width must be a multiple of {divisor} plus {remainder}, pixels; "
            f"got {h} x {w}. Nearest are {', '.join(map(nearest, dict.fromkeys(wrong)))}."
        )
