"""Gaussian heatmaps: keypoints drawn as blobs of peak 1, and the decoders of such maps.

Points are (x, y) in heatmap pixels with integer pixel centres; sizes are (width,
height); heatmaps are [*b, h, w, k]. Inputs must be floating point (integers are
refused). Scores keep the dtype of the maps; decoded points have at least float32, since
bfloat16 would round a coordinate of 40 to a quarter of a pixel.

A decoder looks first for the peak, the largest value, of ties the first in raster
order; NaN counts as minus infinity. What it adds to the peak is a fraction of a pixel.

Sources: DARK, arXiv:1910.06278 (unbiased encoding, Taylor decoding); HRNet,
arXiv:1902.09212, and Hourglass, arXiv:1603.06937 (the quarter shift).
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_OPENCV_KERNELS = {
    1: (1.0,),
    3: (1.0, 2.0, 1.0),
    5: (1.0, 4.0, 6.0, 4.0, 1.0),
    7: (1.0, 3.5, 7.0, 9.0, 7.0, 3.5, 1.0),
    9: (4.0, 13.0, 30.0, 51.0, 60.0, 51.0, 30.0, 13.0, 4.0),
}

_MAX_STEP = 2.0
"""Pixels per axis: a robust decoder goes no further from the peak."""

_FLAT = 1e-4
"""The least curvature of the log, per pixel^2, in any direction: less is rounding."""

_FIT_FROM = 0.2
"""The first fit reads samples above this fraction of the peak: four standard deviations
of 5% noise, while a blob of sigma 1 still shows three samples per axis."""

_ROUND = 1e-2
"""What the fit believes in a round blob, in units of one full sample: enough to decide
for the three or four samples of a sharp one, nothing beside the dozens of others."""


def encode(
    points_xy: Float[Array, "*b k 2"],
    *,
    size: tuple[int, int],
    sigma: float | int,
    quantize: bool = False,
    cutoff: float | int | None = None,
) -> Float[Array, "*b h w k"]:
    """Renders one Gaussian per keypoint, of peak 1 (not 1 / 2 pi sigma^2) at its place.

    The default is DARK's unbiased encoding: the true centre, over the whole map. HRNet
    and Simple Baselines are `quantize=True, cutoff=3`.

    Args:
      points_xy: heatmap pixels; a point off the map renders what of it is on the map.
      size: (width, height) of the heatmap.
      sigma: standard deviation, heatmap pixels.
      quantize: round the centre to a pixel first, halves up: the biased encoding.
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
    """Whether the square of half-width cutoff * sigma about a point touches the map.

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
    """The peak of each map.

    Args:
      heatmaps: any values; NaN counts as minus infinity.

    Returns:
      Points at pixel centres, always inside the map, and scores, the values there.

    Raises:
      ValueError: integer maps or an empty axis.
    """
    maps, leading = _flatten(heatmaps)
    return _restore(_decode_argmax(maps), leading)


def decode_shift(
    heatmaps: Float[Array, "*b h w k"], *, rule: Literal["sign", "second"] = "sign"
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """The peak moved a quarter of a pixel: the decoder DARK replaces.

    Args:
      heatmaps: any values; NaN counts as minus infinity.
      rule: "sign", HRNet's code: on each axis towards the larger of the two neighbours,
        where 1 < x < w - 1 and 1 < y < h - 1 for the peak. "second", equation (8) as
        printed: towards the second largest value of the map, wherever that is.

    Returns:
      Points, always inside the map, and scores, the values of the peaks.

    Raises:
      ValueError: an unknown rule, integer maps or an empty axis.
    """
    if rule not in ("sign", "second"):
        raise ValueError(f'rule must be "sign" or "second"; got {rule!r}.')
    maps, leading = _flatten(heatmaps)
    return _restore(_decode_shift(maps, rule), leading)


def decode_dark(
    heatmaps: Float[Array, "*b h w k"],
    *,
    sigma: float | int | None = None,
    kernel_size: int | None = None,
    variant: Literal["robust", "paper"] = "robust",
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Sub-pixel peaks: a Newton step on the log of the blurred map, (10) to (15).

    Both variants blur with a Gaussian (the one of training, to remove secondary peaks)
    and read 13 values of the blurred map. They differ at the rim and on bad maps:

    "paper" is the published code: the blur sees zeros outside the map, which pushes
    points within its reach inwards, by half a pixel and more; peaks at 0, 1, size - 2
    and size - 1 are not refined; a peak <= 0 becomes (0, 0); nothing bounds the step,
    so a point may leave the map.

    "robust" is the same wherever the blur sees only the map. Nearer to an edge it fits
    exp(quadratic) to the unblurred values around the peak: least squares on their logs,
    weighted by value^2, which is what additive noise asks for, then one Gauss-Newton
    step on the values themselves, where samples too weak for a log count too. It moves
    only where the peak is positive and finite and the Hessian negative definite, and at
    most 2 pixels per axis.

    Args:
      heatmaps: values of any scale; NaN counts as minus infinity.
      sigma: of the blur, heatmap pixels. Alone: the kernel is the odd number nearest to
        6 * sigma - 1 wide, at least 3.
      kernel_size: of the blur, heatmap pixels, odd; 1 is no blur. Alone: OpenCV's
        kernel of this size, from 11 on a Gaussian of sigma
        0.3 * ((k - 1) / 2 - 1) + 0.8. Neither: 11.
      variant: "robust" or "paper".

    Returns:
      Points ("robust": finite and in [0, w-1] x [0, h-1] for every map whatever) and
      scores, the values of the peaks in the map as it came.

    Raises:
      ValueError: an unknown variant, a sigma that is not positive, an even kernel size,
        integer maps or an empty axis.
    """
    kernel = _kernel(sigma, kernel_size)
    if variant not in ("robust", "paper"):
        raise ValueError(f'variant must be "robust" or "paper"; got {variant!r}.')
    maps, leading = _flatten(heatmaps)
    decode = _decode_robust if variant == "robust" else _decode_paper
    return _restore(decode(maps, kernel), leading)


def modulate(
    heatmaps: Float[Array, "*b h w k"], *, kernel_size: int
) -> Float[Array, "*b h w k"]:
    """Blurs each map and rescales it to [0, its former maximum], (15) and (16).

    The published code, and so `decode_dark`, leaves the minimum where it is.

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
    blurred = _blur(maps, kernel)
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


def _flatten(heatmaps) -> tuple[Array, tuple[int, ...]]:
    """[*b, h, w, k] -> [n, h, w, k] and the shape of *b."""
    if heatmaps.ndim < 3 or 0 in heatmaps.shape[-3:]:
        raise ValueError(
            f"heatmaps must be [*b, h, w, k], no axis empty; got {heatmaps.shape}."
        )
    if not jnp.issubdtype(heatmaps.dtype, jnp.floating):
        raise ValueError(f"heatmaps must be floating point; got {heatmaps.dtype}.")
    leading = heatmaps.shape[:-3]
    return jnp.reshape(heatmaps, (math.prod(leading), *heatmaps.shape[-3:])), leading


def _restore(decoded, leading):
    points, scores = decoded
    return points.reshape(leading + points.shape[1:]), scores.reshape(
        leading + scores.shape[1:]
    )


def _kernel(sigma: float | int | None, kernel_size: int | None) -> tuple[float, ...]:
    """The blur's weights, of sum 1."""
    _check_positive(sigma=sigma)
    if kernel_size is None:
        kernel_size = (
            11 if sigma is None else max(3, 2 * math.floor(3 * sigma - 0.5) + 1)
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, in pixels; got {kernel_size}.")
    reach = (kernel_size - 1) / 2
    if sigma is None and kernel_size in _OPENCV_KERNELS:
        weights = np.array(_OPENCV_KERNELS[kernel_size])
    else:
        if sigma is None:
            sigma = 0.3 * (reach - 1) + 0.8
        weights = np.exp(-0.5 * ((np.arange(kernel_size) - reach) / sigma) ** 2)
    return tuple((weights / weights.sum()).tolist())


def _matmul(a, b):
    # Accelerators round the factors of a plain product to 10 bits or fewer.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _peaks(maps):
    """Row, column [n, k] and value [n, k] of the largest value, NaN being the least.

    In three passes, rows' maxima, row, column, kept apart by barriers: XLA would fuse
    them, and as one argmax over h * w it takes several times as long.
    """
    fixed = lax.stop_gradient(maps)
    barrier = lax.optimization_barrier
    rows = barrier(jnp.max(fixed, axis=2))  # [n, h, k]
    # A NaN spoils its row's maximum; only then are the rows searched a second time.
    rows = lax.cond(
        jnp.any(jnp.isnan(rows)),
        lambda: jnp.max(_without_nan(fixed), axis=2),
        lambda: rows,
    )
    y = barrier(jnp.argmax(rows, axis=1))  # [n, k]
    row = jnp.take_along_axis(fixed, y[:, None, None, :], axis=1)[:, 0]  # [n, w, k]
    x = barrier(jnp.argmax(barrier(_without_nan(row)), axis=1))
    value = _without_nan(_take(maps, y[..., None], x[..., None])[..., 0, 0])
    return y, x, value


def _without_nan(values):
    return jnp.where(jnp.isnan(values), -jnp.inf, values)


def _take(maps, rows: Int[Array, "n k p"], columns: Int[Array, "n k q"]):
    """[n, h, w, k] -> [n, k, p, q]: each map at its own rows and columns."""

    def one(one_map, rows, columns):  # [h, w], [p], [q]
        return one_map[rows[:, None], columns[None, :]]

    return jax.vmap(jax.vmap(one, in_axes=(2, 0, 0)))(maps, rows, columns)


def _patches(maps, y, x, radius: int):
    """The square about each peak [n, k, p, p], at least float32, and what of it counts.

    What does not, off the map or not finite, is 0.
    """
    h, w = maps.shape[1:3]
    around = jnp.arange(-radius, radius + 1).reshape(1, 1, -1)
    rows, columns = y[..., None] + around, x[..., None] + around
    values = _take(maps, jnp.clip(rows, 0, h - 1), jnp.clip(columns, 0, w - 1))
    values = lax.optimization_barrier(values)
    on_y, on_x = (rows >= 0) & (rows < h), (columns >= 0) & (columns < w)
    known = on_y[..., :, None] & on_x[..., None, :] & jnp.isfinite(values)
    dtype = jnp.promote_types(maps.dtype, jnp.float32)
    return jnp.where(known, values, 0).astype(dtype), known


def _points(x, y, dtype):
    dtype = jnp.promote_types(dtype, jnp.float32)
    return jnp.stack([x, y], axis=-1).astype(dtype)


@jax.jit
def _decode_argmax(maps):
    y, x, score = _peaks(maps)
    return _points(x, y, maps.dtype), score


@functools.partial(jax.jit, static_argnames="rule")
def _decode_shift(maps, rule):
    n, h, w, k = maps.shape
    y, x, score = _peaks(maps)
    points = _points(x, y, maps.dtype)
    if rule == "sign":
        near, _ = _patches(maps, y, x, 1)

        def towards(after, before):
            return 0.25 * ((after > before).astype(points.dtype) - (after < before))

        dx = towards(near[..., 1, 2], near[..., 1, 0])
        dy = towards(near[..., 2, 1], near[..., 0, 1])
        inner = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)
        shift = jnp.where(inner[..., None], jnp.stack([dx, dy], axis=-1), 0)
    else:
        batch, channel = jnp.arange(n)[:, None], jnp.arange(k)[None, :]
        rest = maps.at[batch, y, x, channel].set(-jnp.inf)
        second_y, second_x, _ = _peaks(rest)
        d = _points(second_x, second_y, maps.dtype) - points
        length = jnp.sqrt(jnp.sum(d**2, axis=-1, keepdims=True))
        shift = 0.25 * d / jnp.maximum(length, 1)
    return points + shift, score


def _correlate(values, kernel: tuple[float, ...], axis: int):
    """Correlates one axis with the kernel, only where all of it fits."""
    n = values.shape[axis] - len(kernel) + 1
    return sum(
        weight * lax.slice_in_dim(values, i, i + n, axis=axis)
        for i, weight in enumerate(kernel)
    )


def _blur(maps, kernel):
    """Blurs [n, h, w, k] with zeros outside."""
    reach = len(kernel) // 2
    pad = [(0, 0), (reach, reach), (reach, reach), (0, 0)]
    down = lax.optimization_barrier(_correlate(jnp.pad(maps, pad), kernel, 1))
    return _correlate(down, kernel, 2)


def _blur_patches(values, kernel):
    """The 5x5 middle of blurred patches [n, k, 2r+5, 2r+5] for a kernel of 2r+1."""
    blurred = _correlate(_correlate(values, kernel, 2), kernel, 3)
    return lax.optimization_barrier(blurred)


def _slopes(log_values):
    """(dx, dy, dxx, dxy, dyy) of [..., 5, 5] values at their middle.

    Second differences have stride 2, as in the published code.
    """

    def at(dy, dx):
        return log_values[..., 2 + dy, 2 + dx]

    dx = (at(0, 1) - at(0, -1)) / 2
    dy = (at(1, 0) - at(-1, 0)) / 2
    dxx = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    dyy = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    dxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    return dx, dy, dxx, dxy, dyy


def _newton_step(slopes, *, bounded: bool):
    """[..., 2]: minus the inverse Hessian times the gradient, equation (14).

    Bounded: 0 where the Hessian is not negative definite, at most 2 pixels per axis.
    """
    dx, dy, dxx, dxy, dyy = slopes
    det = dxx * dyy - dxy**2
    ok = (dxx < 0) & (det > -_FLAT * (dxx + dyy)) if bounded else det != 0
    det = jnp.where(ok, det, 1)
    step = jnp.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=-1)
    step = jnp.where(ok[..., None], step / det[..., None], 0)
    if not bounded:
        return step
    step = jnp.where(jnp.isfinite(step), step, 0)
    return jnp.clip(step, -_MAX_STEP, _MAX_STEP)


@functools.partial(jax.jit, static_argnames="kernel")
def _decode_paper(maps, kernel):
    _, h, w, _ = maps.shape
    y, x, score = _peaks(maps)
    points = _points(x, y, maps.dtype)
    refined = (x > 1) & (x < w - 2) & (y > 1) & (y < h - 2) & (score > 0)
    values, _ = _patches(maps, y, x, len(kernel) // 2 + 2)
    blurred = _blur_patches(values, kernel)

    # The published code scales the blurred map to its former maximum before it raises
    # all values to 1e-10. In the log the scale, which is at least 1, is a constant: it
    # matters, and the maximum of the whole blurred map with it, if a value is raised.
    def former_maximum():
        top = jnp.max(_blur(maps.astype(points.dtype), kernel), axis=(1, 2))
        return score.astype(points.dtype) / jnp.where(top == 0, 1, top)

    raised = jnp.min(blurred, axis=(-2, -1)) <= 1e-10
    scale = lax.cond(
        jnp.any(raised & refined),
        former_maximum,
        lambda: jnp.ones(y.shape, points.dtype),
    )
    blurred = jnp.maximum(blurred * scale[..., None, None], 1e-10)
    step = _newton_step(_slopes(jnp.log(blurred)), bounded=False)
    points = points + jnp.where(refined[..., None], step, 0)
    return jnp.where((score > 0)[..., None], points, 0), score


@functools.partial(jax.jit, static_argnames="kernel")
def _decode_robust(maps, kernel):
    _, h, w, _ = maps.shape
    y, x, score = _peaks(maps)
    points = _points(x, y, maps.dtype)
    usable = (score > 1e-30) & jnp.isfinite(score)

    # The step does not depend on the scale, so neither does its gradient.
    peak = lax.stop_gradient(jnp.where(usable, score, 1).astype(points.dtype))
    peak = peak[..., None, None]
    reach = len(kernel) // 2 + 2

    values, _ = _patches(maps, y, x, reach)
    blurred = jnp.maximum(_blur_patches(values, kernel) / peak, 1e-10)
    inner = _newton_step(_slopes(jnp.log(blurred)), bounded=True)

    values, known = _patches(maps, y, x, max(4, reach // 2))
    rim = _fit_step(jnp.clip(values / peak, -1, 1), known)

    whole = (x >= reach) & (x < w - reach) & (y >= reach) & (y < h - reach)
    step = jnp.where(whole[..., None], inner, rim)
    points = points + jnp.where(usable[..., None], step, 0)
    return jnp.clip(
        points, 0, jnp.array([w - 1, h - 1], points.dtype)[None, None]
    ), score


def _fit_step(values, known):
    """[..., 2]: from the middle of [..., p, p] to the top of the Gaussian fitted to it.

    Values have their peak, 1, in the middle; those not known count nothing.
    """
    radius = values.shape[-1] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1) / radius
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # [p*p, 6]
    products = (basis[:, :, None] * basis[:, None, :]).reshape(-1, 36)
    basis, products = (
        jnp.asarray(basis, values.dtype),
        jnp.asarray(products, values.dtype),
    )
    # Two equations more: as much curvature in x as in y, and none in xy.
    prior = np.zeros((6, 6))
    prior[3:, 3:] = [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
    prior = jnp.asarray((prior * _ROUND / radius**4).reshape(1, 1, 36), values.dtype)

    n, k = values.shape[:2]
    pixels = (n, k, basis.shape[0])
    values, known = values.reshape(pixels), known.reshape(pixels)
    strong = known & (values > _FIT_FROM)
    logs = jnp.log(jnp.where(strong, values, 1))

    def improve(state, first):
        fit, regular = state
        # On values v and a model exp(q): weights exp(q)^2, residuals (v - exp(q)) / exp(q);
        # at first, of logs: weights v^2, residuals log v.
        model = jnp.exp(jnp.minimum(_matmul(fit, basis.T), math.log(2)))
        model = jnp.where(
            first, jnp.where(strong, values, 0), jnp.where(known, model, 0)
        )
        residual = jnp.where(first, model * logs, values - model)
        normal = _matmul(model**2, products) + prior
        change, solved = _solve(normal, _matmul(model * residual, basis))
        return (fit + change, regular & solved), None

    start = jnp.zeros((n, k, 6), values.dtype), jnp.ones((n, k), bool)
    (fit, regular), _ = lax.scan(improve, start, jnp.array([True, False]))
    fit = jnp.where(regular[..., None], fit, 0)
    _, bx, by, cxx, cxy, cyy = jnp.moveaxis(fit / radius, -1, 0)
    cxx, cxy, cyy = cxx / radius, cxy / radius, cyy / radius
    return _newton_step((bx, by, 2 * cxx, cxy, 2 * cyy), bounded=True)


def _solve(normal, right):
    """Solves normal equations [n, k, 36], [n, k, 6] -> [n, k, 6], and if regular [n, k].

    Elimination by hand: a batch of library calls for 6x6 matrices is slower.
    """
    normal = normal.reshape(*normal.shape[:2], 6, 6)
    diagonal = jnp.diagonal(normal, axis1=-2, axis2=-1)
    unit = jnp.eye(6, dtype=normal.dtype)

    def eliminate(i, state):
        rows, regular = state
        row, column = rows[..., i, :], rows[..., :, i]
        # Relative to what it was, a pivot is the part that its column does not share
        # with the columns before it.
        regular = regular & (row[..., i] > 1e-5 * diagonal[..., i])
        row = row / jnp.where(regular, row[..., i], 1)[..., None]
        column = column - jnp.broadcast_to(unit[i], column.shape)
        return rows - column[..., :, None] * row[..., None, :], regular

    rows = jnp.concatenate([normal, right[..., None]], axis=-1)
    regular = jnp.ones(right.shape[:2], bool)
    rows, regular = lax.fori_loop(0, 6, eliminate, (rows, regular))
    return rows[..., 6], regular
