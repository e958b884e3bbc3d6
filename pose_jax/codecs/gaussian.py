"""Gaussian heatmaps: keypoints rendered with peak 1, and decoders of such maps.

Points are (x, y) in heatmap pixels with integer pixel centers; sizes are (width,
height); heatmaps are [*b, h, w, k]. Inputs must be floating point (integers raise an
error). Scores keep the dtype of the maps; decoded points have at least float32, since
bfloat16 would round a coordinate of 40 to a quarter of a pixel.

A decoder first finds the peak, the largest value (of ties the first in raster order; NaN
counts as minus infinity), and then adds a sub-pixel offset.

Sources: DARK, arXiv:1910.06278 (unbiased encoding, Taylor decoding); HRNet,
arXiv:1902.09212, and Hourglass, arXiv:1603.06937 (the quarter shift).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pose_jax.codecs import _expected, _peaks

_OPENCV_KERNELS = {
    1: (1.0,),
    3: (1.0, 2.0, 1.0),
    5: (1.0, 4.0, 6.0, 4.0, 1.0),
    7: (1.0, 3.5, 7.0, 9.0, 7.0, 3.5, 1.0),
    9: (4.0, 13.0, 30.0, 51.0, 60.0, 51.0, 30.0, 13.0, 4.0),
}


def encode(
    points_xy: Float[Array, "*b k 2"],
    *,
    size: tuple[int, int],
    sigma: float | int,
    quantize: bool = False,
    cutoff: float | int | None = None,
) -> Float[Array, "*b h w k"]:
    """Renders one Gaussian per keypoint, with peak 1 (not 1 / 2 pi sigma^2).

    The default is DARK's unbiased encoding: the true center, over the whole map. HRNet
    and Simple Baselines use `quantize=True, cutoff=3`.

    Args:
      points_xy: heatmap pixels; of a point off the map, the part on the map is rendered.
      size: (width, height) of the heatmap.
      sigma: standard deviation, heatmap pixels.
      quantize: round the center to a pixel first, halves up: the biased encoding.
      cutoff: zero outside the square |dx|, |dy| <= cutoff * sigma. None: no cut.

    Returns:
      Values in [0, 1].

    Raises:
      ValueError: a size, sigma or cutoff that is not positive, or integer points.
    """
    _check_points(points_xy)
    _check_positive(sigma=sigma, cutoff=cutoff)
    if min(size) < 1:
        raise ValueError(f"size must be (width, height) in pixels, >= 1; got {size}.")
    points_xy = jnp.asarray(points_xy)
    if quantize:
        points_xy = jnp.floor(points_xy + 0.5)

    def profile(center, n):  # [*b, k] -> [*b, n, k]
        pixels = jnp.arange(n, dtype=center.dtype)[:, None]
        shape = (*center.shape[:-1], n, center.shape[-1])
        d = jnp.broadcast_to(pixels, shape) - center[..., None, :]
        values = jnp.exp(-0.5 * (d / sigma) ** 2)
        if cutoff is None:
            return values
        return jnp.where(jnp.abs(d) <= cutoff * sigma, values, 0)

    # The Gaussian is separable: h + w exponentials instead of h * w.
    across = profile(points_xy[..., 0], size[0])
    down = profile(points_xy[..., 1], size[1])
    return down[..., :, None, :] * across[..., None, :, :]


def reaches(
    points_xy: Float[Array, "*b k 2"],
    *,
    size: tuple[int, int],
    sigma: float | int,
    cutoff: float | int = 3,
) -> Bool[Array, "*b k"]:
    """Returns whether the square |dx|, |dy| <= cutoff * sigma about a point meets the map.

    The target weight: a keypoint that does not reach its map should not be trained on.

    Args:
      points_xy: heatmap pixels.
      size: (width, height) of the heatmap.
      sigma: standard deviation, heatmap pixels.
      cutoff: in units of sigma.

    Returns:
      True where the square meets [0, w-1] x [0, h-1]; False for NaN.

    Raises:
      ValueError: a sigma or cutoff that is not positive, or integer points.
    """
    _check_points(points_xy)
    _check_positive(sigma=sigma, cutoff=cutoff)
    x, y = jnp.asarray(points_xy)[..., 0], jnp.asarray(points_xy)[..., 1]
    reach = cutoff * sigma
    inside_x = (x >= -reach) & (x <= size[0] - 1 + reach)
    return inside_x & (y >= -reach) & (y <= size[1] - 1 + reach)


def decode_argmax(
    heatmaps: Float[Array, "*b h w k"],
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes the peak of each map.

    Args:
      heatmaps: any values; NaN counts as minus infinity.

    Returns:
      Points at pixel centers, always inside the map, and scores, the values there.

    Raises:
      ValueError: integer maps or an empty axis.
    """
    maps, leading = _flatten(heatmaps)
    return _restore(_peaks.decode_argmax(maps), leading)


def decode_shift(
    heatmaps: Float[Array, "*b h w k"], *, rule: Literal["sign", "second"] = "sign"
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes the peak, shifted by a quarter of a pixel: the decoder that DARK replaces.

    Args:
      heatmaps: any values; NaN counts as minus infinity.
      rule: "sign", HRNet's code: on each axis toward the larger of the two neighbors,
        where 1 < x < w - 1 and 1 < y < h - 1 for the peak. "second", eq. (8) of DARK
        as printed: toward the second largest value of the map, wherever that is.

    Returns:
      Points, always inside the map, and scores, the values of the peaks.

    Raises:
      ValueError: an unknown rule, integer maps or an empty axis.
    """
    if rule not in ("sign", "second"):
        raise ValueError(f'rule must be "sign" or "second"; got {rule!r}.')
    maps, leading = _flatten(heatmaps)
    return _restore(_peaks.decode_shift(maps, rule), leading)


def decode_dark(
    heatmaps: Float[Array, "*b h w k"],
    *,
    sigma: float | int | Literal["auto"] | None = None,
    kernel_size: int | None = None,
    variant: Literal["robust", "paper"] = "robust",
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes sub-pixel peaks by DARK (arXiv:1910.06278), eqs. (10) to (15).

    The map is blurred with a Gaussian as wide as that of training, which removes
    secondary peaks; from its highest pixel one Newton step is taken on the log of the
    blurred map. The variants differ near the border and on maps without a proper peak:

    "paper" is the published code: the blur sees zeros outside the map, which pushes
    points within its reach inwards, by half a pixel and more; peaks at 0, 1, size - 2
    and size - 1 are not refined; a peak <= 0 becomes (0, 0); nothing bounds the step,
    so a point may leave the map.

    "robust" is the same wherever the blur stays inside the map. Nearer to an edge it fits
    exp(quadratic) to the unblurred values around the peak: least squares on their logs,
    weighted by value^2 as suits additive noise, then one Gauss-Newton step on the values
    themselves, which also uses samples too weak for a log. It refines only peaks that are
    positive and finite with a negative definite Hessian, by at most 2 pixels per axis.

    Args:
      heatmaps: values of any scale; NaN counts as minus infinity.
      sigma: standard deviation of the blur, heatmap pixels. Given alone, the kernel size
        is the odd number nearest to 6 * sigma - 1, at least 3. "auto" takes a share of
        `estimate_sigma`, so that a result depends on the other maps of the call.
      kernel_size: size of the blur, heatmap pixels, odd; 1 is no blur. Given alone, the
        kernel is OpenCV's of this size: from 11 on, a Gaussian of sigma
        0.3 * ((k - 1) / 2 - 1) + 0.8. If neither is given: 11.
      variant: "robust" or "paper".

    Returns:
      Points ("robust": finite and in [0, w-1] x [0, h-1] for any map) and scores, the
      values of the peaks before the blur.

    Raises:
      ValueError: an unknown variant, a sigma that is not positive, an even kernel size,
        "auto" with a kernel size or the paper's variant, integer maps or an empty axis.
    """
    if variant not in ("robust", "paper"):
        raise ValueError(f'variant must be "robust" or "paper"; got {variant!r}.')
    if isinstance(sigma, str):
        if sigma != "auto" or kernel_size is not None or variant == "paper":
            raise ValueError(
                'sigma is a number, or "auto" with variant "robust" and no kernel_size; '
                f"got {sigma!r}, variant {variant!r}, kernel_size {kernel_size}."
            )
        maps, leading = _flatten(heatmaps)
        return _restore(_peaks.decode_auto(maps, AUTO_SHARE), leading)
    kernel = _kernel(sigma, kernel_size)
    maps, leading = _flatten(heatmaps)
    decode = _peaks.decode_robust if variant == "robust" else _peaks.decode_paper
    return _restore(decode(maps, kernel), leading)


def kernel_sigma(*, kernel_size: int) -> float:
    """Returns the standard deviation of OpenCV's Gaussian kernel of a size, in pixels.

    Args:
      kernel_size: heatmap pixels, odd.

    Returns:
      0.3 * ((kernel_size - 1) / 2 - 1) + 0.8, pixels; for 1, which does not blur, 0.

    Raises:
      ValueError: an even kernel size.
    """
    _check_kernel_size(kernel_size)
    return 0.3 * ((kernel_size - 1) / 2 - 1) + 0.8 if kernel_size > 1 else 0.0


AUTO_SHARE = 0.75
"""Width of the blur of `decode_dark(sigma="auto")`, in widths of the maps' peaks."""


def estimate_sigma(heatmaps: Float[Array, "*b h w k"]) -> Float[Array, ""]:
    """Estimates the standard deviation of the peaks of maps, in pixels.

    A Gaussian is fitted to the 9x9 pixels around each peak (the geometric mean of its two
    widths counts), and the mean of the middle half of the confident ones is taken: peaks of
    at least half the 90th percentile, whose 9x9 pixels lie on the map. Networks may learn
    peaks of another width than that of their targets; `decode_dark` should follow the map.

    Args:
      heatmaps: values of any scale; the more maps, the surer the estimate.

    Returns:
      Pixels, without gradient; NaN if no peak is usable. From 0.8 to 4 pixels, with noise
      of 5%, the error of a batch is below 10%.

    Raises:
      ValueError: integer maps or an empty axis.
    """
    maps, _ = _flatten(heatmaps)
    return _peaks.estimate_sigma(maps)


def decode_expected(
    heatmaps: Float[Array, "*b h w k"],
    *,
    kernel: Literal["delta", "gaussian", "disc", "quadratic"] | Sequence[float],
    scale: Float[Array, "*b"] | float | None = None,
    sigma: float | int = 0.0,
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes the point of highest expected utility, a map taken as a probability.

    A kernel says what a point at a distance from the truth is worth; the expected worth of
    a point is the map, max(h, 0) / sum, convolved with the kernel.

    "delta": worth 1 at the pixel of the truth: `decode_argmax`. "gaussian": a Gaussian of
    standard deviation `scale`. "disc": worth 1 within `scale` of the truth, as in PCK.
    "quadratic": minus the squared distance: the mean of the map, the integral of integral
    regression and DSNT. Numbers, one per keypoint: the sigmas of OKS with `scale` its s;
    the kernels are Gaussians of 2 * sigma_k * s.

    A map that a network has learned from Gaussian targets is the probability already
    blurred with their sigma: a Gaussian kernel of width c then blurs by sqrt(c^2 - sigma^2)
    (not at all if c <= sigma). Other kernels ignore `sigma`.

    Args:
      heatmaps: values of any scale, such as those learned by a squared error; negative
        values and NaN count as 0. Not logits, see `decode_integral`.
      kernel: a name, or k sigmas of OKS.
      scale: pixels of the map, for each leading index or for all; not for "delta" and
        "quadratic". For OKS s = sqrt(0.53 w h) of the person's box without padding.
      sigma: of the training targets, pixels of the map.

    Returns:
      Points on the map, refined to a fraction of a pixel except for "delta" and "disc", and
      scores, the values of the map at its peak.

    Raises:
      ValueError: an unknown kernel, a missing scale, integer maps or an empty axis.
    """
    maps, leading = _flatten(heatmaps)
    n, k = maps.shape[0], maps.shape[-1]
    names = ("delta", "gaussian", "disc", "quadratic")
    if isinstance(kernel, str):
        if kernel not in names:
            raise ValueError(
                f"kernel is one of {names} or k sigmas of OKS; got {kernel!r}."
            )
        name, factors = kernel, np.ones(k, np.float32)
    else:
        name, factors = "gaussian", 2 * np.asarray(kernel, np.float32)
        if factors.shape != (k,):
            raise ValueError(f"{k} maps need {k} sigmas; got {factors.shape}.")
    if name == "delta":
        return _restore(_peaks.decode_argmax(maps), leading)
    if name == "quadratic":
        return _restore(_expected.mean(maps), leading)
    if scale is None:
        raise ValueError(f"kernel {kernel!r} needs a scale, in pixels of the map.")
    if not isinstance(scale, (int, float)):
        if not jnp.issubdtype(scale.dtype, jnp.floating):
            raise ValueError(f"scale must be floating point; got {scale.dtype}.")
    scale = jnp.asarray(scale, jnp.promote_types(maps.dtype, jnp.float32))
    if scale.shape not in ((), leading):
        raise ValueError(f"scale must be a number or {leading}; got {scale.shape}.")
    widths = jnp.broadcast_to(scale.reshape(-1, 1), (n, k)) * factors.reshape(1, k)
    if name == "disc":
        return _restore(_expected.decode_disc(maps, widths), leading)
    widths = jnp.sqrt(jnp.maximum(widths**2 - sigma**2, 0))
    return _restore(_expected.decode_gaussian(maps, widths), leading)


def decode_integral(
    logits: Float[Array, "*b h w k"], *, beta: float | int = 1.0, unbiased: bool = True
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes the mean position under a softmax: integral regression.

    Every pixel away from the peak adds exp(0) = 1 to the softmax, which draws the mean x
    towards the center of the map. With C the sum of exp(beta * logits) and N the number of
    pixels, C / (C - N) * x - N / (C - N) * center is free of that (arXiv:1711.08229;
    arXiv:2105.10879, "Removing the Bias of Integral Pose Regression").

    Args:
      logits: about 0 away from the peak.
      beta: inverse temperature.
      unbiased: remove the bias; where C <= N there is no peak, and the mean is returned.

    Returns:
      Points on the map, and scores, the largest logits.

    Raises:
      ValueError: integer maps or an empty axis.
    """
    maps, leading = _flatten(logits, "logits")
    return _restore(_expected.integral(maps, beta, unbiased), leading)


def modulate(
    heatmaps: Float[Array, "*b h w k"], *, kernel_size: int
) -> Float[Array, "*b h w k"]:
    """Blurs each map and rescales it to [0, its former maximum]: DARK, eqs. (15), (16).

    The published code, and so `decode_dark`, does not subtract the minimum.

    Args:
      heatmaps: any finite values; zero outside the map.
      kernel_size: heatmap pixels, odd; as in `decode_dark`.

    Returns:
      Values from 0 to the maximum of the input; zeros where the blur is constant.

    Raises:
      ValueError: an even kernel size, integer maps or an empty axis.
    """
    kernel = _kernel(None, kernel_size)
    maps, leading = _flatten(heatmaps)
    axes = (1, 2)
    blurred = _peaks.blur(maps, kernel)
    low = jnp.min(blurred, axis=axes, keepdims=True)
    spread = jnp.max(blurred, axis=axes, keepdims=True) - low
    scale = jnp.max(maps, axis=axes, keepdims=True) / jnp.where(spread > 0, spread, 1)
    return ((blurred - low) * scale).reshape(leading + maps.shape[1:])


def _check_points(points_xy) -> None:
    if points_xy.ndim < 2 or points_xy.shape[-1] != 2:
        raise ValueError(f"points_xy must be [*b, k, 2]; got {points_xy.shape}.")
    if not jnp.issubdtype(points_xy.dtype, jnp.floating):
        raise ValueError(f"points_xy must be floating point; got {points_xy.dtype}.")


def _check_positive(**values: float | int | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive; got {value}.")


def _check_kernel_size(kernel_size: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, in pixels; got {kernel_size}.")


def _flatten(heatmaps, name: str = "heatmaps") -> tuple[Array, tuple[int, ...]]:
    """[*b, h, w, k] -> [n, h, w, k] and the shape of *b."""
    if heatmaps.ndim < 3 or 0 in heatmaps.shape[-3:]:
        raise ValueError(
            f"{name} must be [*b, h, w, k], no axis empty; got {heatmaps.shape}."
        )
    if not jnp.issubdtype(heatmaps.dtype, jnp.floating):
        raise ValueError(f"{name} must be floating point; got {heatmaps.dtype}.")
    leading = heatmaps.shape[:-3]
    return jnp.reshape(heatmaps, (math.prod(leading), *heatmaps.shape[-3:])), leading


def _restore(decoded, leading):
    points, scores = decoded
    return points.reshape(leading + points.shape[1:]), scores.reshape(
        leading + scores.shape[1:]
    )


def _kernel(sigma: float | int | None, kernel_size: int | None) -> tuple[float, ...]:
    """Returns the weights of the blur, which sum to 1."""
    _check_positive(sigma=sigma)
    if kernel_size is None:
        kernel_size = (
            11 if sigma is None else max(3, 2 * math.floor(3 * sigma - 0.5) + 1)
        )
    _check_kernel_size(kernel_size)
    reach = (kernel_size - 1) / 2
    if sigma is None and kernel_size in _OPENCV_KERNELS:
        weights = np.array(_OPENCV_KERNELS[kernel_size])
    else:
        if sigma is None:
            sigma = kernel_sigma(kernel_size=kernel_size)
        weights = np.exp(-0.5 * ((np.arange(kernel_size) - reach) / sigma) ** 2)
    return tuple((weights / weights.sum()).tolist())
