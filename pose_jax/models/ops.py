"""Operations of the networks: functions of maps and kernels, without parameters.

Maps are [b, h, w, c], convolution kernels [h, w, in, out]. Padding is explicit and
symmetric as in PyTorch, so that its published weights fit without a shift; the networks of
TensorFlow pad with `pad_same`.

Some operations have two forms with the same values and gradients: the *stock* form, one
XLA operation, and a *fast* form for the CPU, where XLA's gradients of that operation are
slow. Only `by_platform` selects between them, when a program is lowered: a program for a
GPU has the stock forms, whatever machine lowers it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Form: TypeAlias = Literal["fast", "stock"]

FAST_SCOPE = "cpu_form"
"""The name scope of every operation of a fast form, also in compiled programs."""

_forced: Form | None = None


@contextlib.contextmanager
def use_forms(form: Form) -> Iterator[None]:
    """Traces one form of all operations inside a `with`, for tests and benchmarks.

    Takes effect while tracing: a function that is already jitted keeps its forms.
    """
    global _forced
    if form not in get_args(Form):
        raise ValueError(f'form must be "fast" or "stock"; got {form!r}.')
    before, _forced = _forced, form
    try:
        yield
    finally:
        _forced = before


def by_platform(fast: Callable, stock: Callable, *args: Array) -> Array:
    """fast(*args) in a program for the CPU, stock(*args) in one for anything else.

    Both are traced, but only one is lowered. Works under jit, grad, vmap and remat.
    """

    def named_fast(*args):
        with jax.named_scope(FAST_SCOPE):
            return fast(*args)

    if _forced is not None:
        return (named_fast if _forced == "fast" else stock)(*args)
    return lax.platform_dependent(*args, cpu=named_fast, default=stock)


def _stock_conv(x, kernel, stride, padding, dilation):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _tap_conv(x, kernel, stride, padding, dilation):
    """The stock convolution; its kernel gradient is one matrix product for each tap."""
    return _stock_conv(x, kernel, stride, padding, dilation)


def _tap_conv_forward(x, kernel, stride, padding, dilation):
    return _stock_conv(x, kernel, stride, padding, dilation), (x, kernel)


def _tap_conv_backward(stride, padding, dilation, saved, grad):
    x, kernel = saved
    to_x = jax.linear_transpose(
        lambda x: _stock_conv(x, kernel, stride, padding, dilation), x
    )
    h, w = ((n - 1) * stride + 1 for n in grad.shape[1:3])
    padded = _pad_maps(x, padding, 0)
    flat = grad.reshape(-1, grad.shape[-1])

    def tap(i, j):  # -> [in, out]
        window = padded[:, i : i + h : stride, j : j + w : stride]
        return window.reshape(-1, x.shape[-1]).T @ flat

    rows, columns = (range(0, n * dilation, dilation) for n in kernel.shape[:2])
    to_kernel = jnp.stack([tap(i, j) for i in rows for j in columns])
    return *to_x(grad), to_kernel.reshape(kernel.shape)


_tap_conv.defvjp(_tap_conv_forward, _tap_conv_backward)


def _pointwise_conv(x, kernel, stride, padding, dilation):
    """A 1x1 convolution as a matrix product."""
    return x[:, ::stride, ::stride] @ kernel[0, 0]


def _column_conv(x, kernel, stride, padding, dilation):
    """A convolution as one matrix product of the window of each output (im2col)."""
    padded = _pad_maps(x, padding, 0)
    rows, columns = kernel.shape[:2]
    h = (padded.shape[1] - dilation * (rows - 1) - 1) // stride + 1
    w = (padded.shape[2] - dilation * (columns - 1) - 1) // stride + 1

    def tap(i, j):
        i, j = i * dilation, j * dilation
        return padded[
            :,
            i : i + (h - 1) * stride + 1 : stride,
            j : j + (w - 1) * stride + 1 : stride,
        ]

    windows = [tap(i, j) for i in range(rows) for j in range(columns)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


# With fewer input or output channels, or on smaller maps, XLA's own kernel gradient is as
# fast.
_MIN_TAP_CHANNELS = 96
_MIN_TAP_PIXELS = 48


def _conv_form(x, kernel, stride, padding) -> Callable[..., Any]:
    """Returns the fastest form of a convolution on the CPU for the given shapes."""
    if kernel.shape[:2] == (1, 1) and padding == 0:
        return _pointwise_conv
    if kernel.shape[:2] == (3, 3) and min(x.shape[1:3]) < 3 * stride:
        return _column_conv
    wide = min(kernel.shape[2:]) >= _MIN_TAP_CHANNELS
    if wide and x.shape[1] * x.shape[2] >= _MIN_TAP_PIXELS * stride**2:
        return _tap_conv
    return _stock_conv


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Float[Array, "b H W d"]:
    """A convolution (correlation, as everywhere in deep learning) with zero padding.

    Fast forms: a 1x1 kernel is a matrix product; for wide 3x3 kernels the kernel gradient
    is computed tap by tap; on maps no larger than a 3x3 kernel the whole convolution is one
    matrix product.

    Args:
      x: maps.
      kernel: [height, width, in, out].
      stride: pixels of `x` from one output to the next.
      padding: zeros on each of the four sides, in pixels of `x`.
      dilation: pixels of `x` from one tap of the kernel to the next.
    """

    def run(form, x, kernel):
        return form(x, kernel, stride, padding, dilation)

    fast = _conv_form(x, kernel, stride, padding)
    if fast is _stock_conv:
        return run(_stock_conv, x, kernel)
    return by_platform(partial(run, fast), partial(run, _stock_conv), x, kernel)


def pad_same(
    x: Float[Array, "b h w c"], *, kernel: int, stride: int = 1, dilation: int = 1
) -> Float[Array, "b H W c"]:
    """Pads with zeros as TensorFlow's "SAME" does: n pixels give ceil(n / stride).

    Where the sum of both sides is odd, the right and the lower side get one more: a 3x3
    convolution of stride 2 pads an even size by (0, 1), an odd one by (1, 1).

    Args:
      x: maps.
      kernel: side of the kernel that follows, pixels.
      stride: of the convolution that follows.
      dilation: of the convolution that follows.
    """
    widths = []
    for n in x.shape[1:3]:
        reach = (-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1
        both = max(reach - n, 0)
        widths.append((both // 2, both - both // 2))
    if not any(map(any, widths)):
        return x
    return jnp.pad(x, ((0, 0), *widths, (0, 0)))


def _stock_depthwise(x, kernel, stride, dilation):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _shifted_depthwise(x, kernel, stride, dilation):
    """A sum of shifted maps, each multiplied by its tap of the kernel."""
    rows, columns = kernel.shape[:2]
    h, w = (
        (n - dilation * (taps - 1) - 1) // stride + 1
        for n, taps in zip(x.shape[1:3], (rows, columns), strict=True)
    )

    def tap(i, j):
        top, left = i * dilation, j * dilation
        window = x[
            :,
            top : top + (h - 1) * stride + 1 : stride,
            left : left + (w - 1) * stride + 1 : stride,
        ]
        return window * kernel[i, j, 0].reshape(1, 1, 1, -1)

    first, *rest = (tap(i, j) for i in range(rows) for j in range(columns))
    return sum(rest, first)


def depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "b H W c"]:
    """A convolution of each channel with its own kernel, without padding.

    Fast form: multiply-adds of shifted maps; XLA's convolution of one channel per group is
    six to eight times slower on the CPU.

    Args:
      x: maps.
      kernel: [height, width, 1, channels].
      stride: pixels of `x` from one output to the next.
      dilation: pixels of `x` from one tap of the kernel to the next.
    """
    fast, stock = (
        partial(form, stride=stride, dilation=dilation)
        for form in (_shifted_depthwise, _stock_depthwise)
    )
    return by_platform(fast, stock, x, kernel)


def _stock_conv_transpose(x, kernel):
    return lax.conv_transpose(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _phase_conv_transpose(x, kernel):
    """One 2x2 convolution that computes all four phases (even and odd rows and columns) as
    channels: output rows 2m and 2m+1 each depend on two rows of `x`."""
    b, h, w, c = x.shape
    d = kernel.shape[-1]
    phases = kernel.reshape(2, 2, 2, 2, c, d)  # [tap, phase, tap, phase, in, out]
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, c, 4 * d)
    y = _conv_form(x, phases, 1, 1)(x, phases, 1, 1, 1)
    y = y.reshape(b, h + 1, w + 1, 2, 2, d)
    rows = jnp.stack([y[:, :h, :, 0], y[:, 1:, :, 1]], axis=2)  # [b, h, 2, w+1, 2, d]
    both = jnp.stack([rows[:, :, :, :w, 0], rows[:, :, :, 1:, 1]], axis=4)
    return both.reshape(b, 2 * h, 2 * w, d)


def conv_transpose(
    x: Float[Array, "b h w c"], kernel: Float[Array, "4 4 c d"]
) -> Float[Array, "b 2*h 2*w d"]:
    """A 4x4 transposed convolution with stride 2 that doubles height and width.

    Equal to `flax.linen.ConvTranspose(d, (4, 4), (2, 2))`, and to PyTorch's
    `ConvTranspose2d(c, d, 4, stride=2, padding=1)` with the kernel [c, d, 4, 4] moved to
    [4, 4, c, d] and then *flipped* in both of its spatial axes.

    Args:
      x: maps.
      kernel: [4, 4, in, out].
    """
    if kernel.shape[:2] != (4, 4):
        raise ValueError(f"kernel must be [4, 4, in, out]; got {kernel.shape}.")
    return by_platform(_phase_conv_transpose, _stock_conv_transpose, x, kernel)


def _pad_maps(x, padding, value):
    if padding == 0:
        return x
    widths = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jnp.pad(x, widths, constant_values=value)


def _first_max(a, b):
    """Returns the maximum; at a tie all of the gradient goes to `a`; NaN stays NaN."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def _stock_max_pool(x, window, stride):
    return nn.max_pool(x, (window, window), (stride, stride))


def _sliced_max_pool(x, window, stride):
    """Computes maxima of strided slices, columns first, then rows."""
    last_row, last_column = (n - window + 1 for n in x.shape[1:3])
    columns = x[:, :, 0:last_column:stride]
    for i in range(1, window):
        columns = _first_max(columns, x[:, :, i : i + last_column : stride])
    best = columns[:, 0:last_row:stride]
    for i in range(1, window):
        best = _first_max(best, columns[:, i : i + last_row : stride])
    return best


def max_pool(
    x: Float[Array, "b h w c"], *, window: int, stride: int, padding: int = 0
) -> Float[Array, "b H W c"]:
    """The maximum over square windows; windows that do not fit are left out.

    The gradient goes to the first maximum of a window in raster order.

    Args:
      x: maps.
      window: side of the window, pixels.
      stride: pixels from one window to the next.
      padding: pixels of minus infinity on each side, less than `window`.
    """
    if not 0 <= padding < window:
        raise ValueError(f"padding must be in [0, window); got {padding}, {window}.")
    fast = partial(_sliced_max_pool, window=window, stride=stride)
    stock = partial(_stock_max_pool, window=window, stride=stride)
    return by_platform(fast, stock, _pad_maps(x, padding, -jnp.inf))


def local_response_norm(
    x: Float[Array, "*b c"],
    *,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    alpha_per: Literal["element", "window"] = "element",
) -> Float[Array, "*b c"]:
    """Normalizes by the activity of adjacent channels: x / (k + alpha * sum x^2)^beta.

    The sum is over the channel and its (n - 1) / 2 neighbors on either side, with zeros
    beyond the first and the last channel. The defaults are AlexNet's (Krizhevsky et al.,
    NeurIPS 2012). bfloat16 is computed in float32, where k + alpha * sum exceeds k.

    One form for all backends. A power of -3/4 is computed by two roots, which is faster on
    the CPU than exp and log. Shifted slices or a running sum have slower gradients.

    Args:
      x: maps, channels last.
      n: channels of a window, odd.
      k: additive constant of the denominator; positive.
      alpha: factor of the sum.
      beta: exponent.
      alpha_per: "element": alpha times the sum, as AlexNet's paper writes it; "window":
        alpha / n times it, as Caffe and PyTorch do.

    Raises:
      ValueError: n is not odd, k not positive, or alpha_per is unknown.
    """
    if n < 1 or n % 2 == 0:
        raise ValueError(f"n must be odd, in channels; got {n}.")
    if k <= 0:
        raise ValueError(f"k must be positive; got {k}.")
    if alpha_per not in ("element", "window"):
        raise ValueError(f'alpha_per must be "element" or "window"; got {alpha_per!r}.')
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    ones = (1,) * (x.ndim - 1)
    zero = np.zeros((), wide.dtype)
    total = lax.reduce_window(
        jnp.square(wide), zero, lax.add, (*ones, n), (*ones, 1), "SAME"
    )
    scale = k + (alpha if alpha_per == "element" else alpha / n) * total
    if beta == 0.75:
        root = lax.rsqrt(scale)
        factor = root * jnp.sqrt(root)
    else:
        factor = scale**-beta
    return (wide * factor).astype(x.dtype)


def upsample_nearest(
    x: Float[Array, "b h w c"], *, size: tuple[int, int]
) -> Float[Array, "b H W c"]:
    """Repeats pixels: row i of H is row floor(i * h / H) of h, columns likewise.

    Equal to PyTorch's `interpolate(mode="nearest")`, also where H / h is not an integer.

    Args:
      x: maps.
      size: (width, height) of the output, pixels.
    """
    width, height = size
    for axis, n in ((1, height), (2, width)):
        old = x.shape[axis]
        if n % old == 0:
            x = jnp.repeat(x, n // old, axis=axis)
        else:
            x = jnp.take(x, np.arange(n) * old // n, axis=axis)
    return x


def upsample_aligned(
    x: Float[Array, "b h w c"], *, factor: int
) -> Float[Array, "b H W c"]:
    """Bilinear interpolation with aligned corners: n pixels become factor * (n - 1) + 1.

    Pixel i of `x` is exactly pixel factor * i of the output, on both axes: there are
    factor - 1 new pixels between two neighbors, and none beyond the first and the last.
    Equal to PyTorch's `interpolate(mode="bilinear", align_corners=True)` at these sizes;
    `jax.image.resize` aligns the edges of pixels instead.

    One form for all backends: a sum of two neighbors for each phase, computed in the type
    of `x`. Matrix products are slower on the CPU, and GPUs round their factors.

    Args:
      x: maps.
      factor: pixels of the output from one pixel of `x` to the next, at least 1.

    Raises:
      ValueError: factor is less than 1.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1; got {factor}.")
    for axis in (1, 2):
        last = x.shape[axis] - 1
        before = lax.slice_in_dim(x, 0, last, axis=axis)
        step = lax.slice_in_dim(x, 1, last + 1, axis=axis) - before
        phases = [before] + [before + (i / factor) * step for i in range(1, factor)]
        between = jnp.stack(phases, axis=axis + 1).reshape(
            *x.shape[:axis], factor * last, *x.shape[axis + 1 :]
        )
        end = lax.slice_in_dim(x, last, last + 1, axis=axis)
        x = jnp.concatenate([between, end], axis=axis)
    return x


def upsample_half_pixel(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Bilinear interpolation to twice the size, with the edges of the maps aligned.

    Pixel i of `x` lies at 2i + 0.5 of the output, so that new pixels are 3/4 of the nearer
    neighbor and 1/4 of the other; beyond the border there is the pixel at the border.
    Equal to TensorFlow's `ResizeBilinear` with half_pixel_centers, and to PyTorch's
    `interpolate(mode="bilinear", align_corners=False)`.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        cut = partial(lax.slice_in_dim, x, axis=axis)
        before = jnp.concatenate([cut(0, 1), cut(0, n - 1)], axis=axis)
        after = jnp.concatenate([cut(1, n), cut(n - 1, n)], axis=axis)
        phases = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
        shape = (*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
        x = jnp.stack(phases, axis=axis + 1).reshape(shape)
    return x


def space_to_depth(x: Float[Array, "b h w c"], block: int) -> Float[Array, "b H W d"]:
    """Splits maps into block x block patches; d runs over (row, column, channel)."""
    b, h, w, c = x.shape
    if h % block or w % block:
        raise ValueError(
            f"height and width must be divisible by {block}, pixels; got {h} x {w}."
        )
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        b, h // block, w // block, block * block * c
    )


def depth_to_space(x: Float[Array, "b h w d"], block: int) -> Float[Array, "b H W c"]:
    """The inverse of `space_to_depth`."""
    b, h, w, d = x.shape
    x = x.reshape(b, h, w, block, block, d // block**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * block, w * block, d // block**2)
