"""Implementation of the Gaussian heatmap decoders on maps [n, h, w, k]; see `gaussian`.

The functions are private to the package; their callers check the arguments.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

_MAX_STEP = 2.0
"""Largest step of the robust decoder from the peak, in pixels per axis."""

_FLAT = 1e-4
"""Minimum curvature of the log heatmap per pixel^2, in any direction; less is rounding."""

_FIT_FROM = 0.2
"""The first fit uses samples above this fraction of the peak: four standard deviations
of 5% noise, and a Gaussian of sigma 1 still has three such samples per axis."""

_ROUND = 1e-2
"""Weight of the prior for a round Gaussian, in units of one full sample: it decides for
the three or four samples of a sharp peak and is negligible for dozens of samples."""


def _matmul(a, b):
    # Accelerators round the factors of a plain product to 10 bits or fewer.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _peaks(maps):
    """Returns row, column and value [n, k] of each map's maximum; NaN counts as -inf.

    The three passes (row maxima, row, column) are separated by barriers: fused by XLA
    into one argmax over h * w, they take several times as long.
    """
    fixed = lax.stop_gradient(maps)
    barrier = lax.optimization_barrier
    rows = barrier(_maximum(fixed, 2))  # [n, h, k]
    y = barrier(jnp.argmax(rows, axis=1))  # [n, k]
    row = jnp.take_along_axis(fixed, y[:, None, None, :], axis=1)[:, 0]  # [n, w, k]
    x = barrier(jnp.argmax(barrier(_without_nan(row)), axis=1))
    value = _without_nan(_take(maps, y[..., None], x[..., None])[..., 0, 0])
    return y, x, value


def _maximum(values, axis: int):
    """Returns the maximum over an axis; NaN counts as -inf.

    NaN is replaced first: `jnp.max` of values with NaN is undefined on some CPUs. Another
    reduction would do without the copy, but TFLite only knows the stock ones.
    """
    return jnp.max(_without_nan(values), axis=axis)


def _without_nan(values):
    return jnp.where(jnp.isnan(values), -jnp.inf, values)


def _take(maps, rows: Int[Array, "n k p"], columns: Int[Array, "n k q"]):
    """[n, h, w, k] -> [n, k, p, q]: each map at its own rows and columns."""

    def one(one_map, rows, columns):  # [h, w], [p], [q]
        return one_map[rows[:, None], columns[None, :]]

    return jax.vmap(jax.vmap(one, in_axes=(2, 0, 0)))(maps, rows, columns)


def _patches(maps, y, x, radius: int):
    """Returns the patch around each peak [n, k, p, p], float32 or better, and its mask.

    Values off the map or not finite are 0, and masked.
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
def decode_argmax(maps):
    y, x, score = _peaks(maps)
    return _points(x, y, maps.dtype), score


@functools.partial(jax.jit, static_argnames="rule")
def decode_shift(maps, rule):
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


def _correlate(values, kernel: tuple[Any, ...], axis: int):
    """Correlates one axis with the kernel, only where all of it fits."""
    n = values.shape[axis] - len(kernel) + 1
    return sum(
        weight * lax.slice_in_dim(values, i, i + n, axis=axis)
        for i, weight in enumerate(kernel)
    )


def blur(maps, kernel):
    """Blurs [n, h, w, k] with zeros outside."""
    reach = len(kernel) // 2
    pad = [(0, 0), (reach, reach), (reach, reach), (0, 0)]
    down = lax.optimization_barrier(_correlate(jnp.pad(maps, pad), kernel, 1))
    return _correlate(down, kernel, 2)


def _blur_patches(values, kernel):
    """Returns the 5x5 center of blurred patches [n, k, 2r+5, 2r+5] for a kernel of 2r+1."""
    blurred = _correlate(_correlate(values, kernel, 2), kernel, 3)
    return lax.optimization_barrier(blurred)


def _slopes(log_values):
    """Returns (dx, dy, dxx, dxy, dyy) of [..., 5, 5] values at their center.

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
    """Returns [..., 2]: minus the inverse Hessian times the gradient, equation (14).

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
def decode_paper(maps, kernel):
    _, h, w, _ = maps.shape
    y, x, score = _peaks(maps)
    points = _points(x, y, maps.dtype)
    refined = (x > 1) & (x < w - 2) & (y > 1) & (y < h - 2) & (score > 0)
    values, _ = _patches(maps, y, x, len(kernel) // 2 + 2)
    blurred = _blur_patches(values, kernel)

    # The published code scales the blurred map to its former maximum before it raises
    # all values to 1e-10. In the log the scale, which is at least 1, is a constant: it,
    # and so the maximum of the whole blurred map, matters only if a value is raised.
    def former_maximum():
        top = jnp.max(blur(maps.astype(points.dtype), kernel), axis=(1, 2))
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
def decode_robust(maps, kernel):
    return _robust(maps, kernel, len(kernel) // 2 + 2)


AUTO_REACH = 6
"""Reach of the blur of "auto", pixels."""


@functools.partial(jax.jit, static_argnames="share")
def decode_auto(maps, share: float):
    """`decode_robust`, blurred with a share of the width that the maps have."""
    sigma = share * jnp.nan_to_num(estimate_sigma(maps), nan=2.0)
    around = jnp.abs(jnp.arange(-AUTO_REACH, AUTO_REACH + 1, dtype=sigma.dtype))
    used = jnp.clip(jnp.ceil(2.5 * sigma), 1, AUTO_REACH)
    weights = jnp.where(around <= used, jnp.exp(-0.5 * (around / sigma) ** 2), 0)
    kernel = tuple(weights / weights.sum())
    return _robust(maps, kernel, used.astype(jnp.int32) + 2)


def _robust(maps, kernel, clear):
    """Decodes by a kernel, numbers or scalars; `clear`: its reach from the rim, with 2
    pixels for the derivatives."""
    _, h, w, _ = maps.shape
    y, x, score = _peaks(maps)
    points = _points(x, y, maps.dtype)
    usable = (score > 1e-30) & jnp.isfinite(score)

    # The step does not depend on the scale, so neither does its gradient.
    peak = lax.stop_gradient(jnp.where(usable, score, 1).astype(points.dtype))
    peak = peak[..., None, None]
    reach = len(kernel) // 2 + 2

    near = max(4, reach // 2)
    values, known = _patches(maps, y, x, max(reach, near))
    wide, narrow = (
        slice(max(reach, near) - radius, max(reach, near) + radius + 1)
        for radius in (reach, near)
    )
    blurred = _blur_patches(values[..., wide, wide], kernel) / peak
    inner = _newton_step(_slopes(jnp.log(jnp.maximum(blurred, 1e-10))), bounded=True)
    rim = _fit_step(
        jnp.clip(values[..., narrow, narrow] / peak, -1, 1), known[..., narrow, narrow]
    )

    whole = (x >= clear) & (x < w - clear) & (y >= clear) & (y < h - clear)
    step = jnp.where(whole[..., None], inner, rim)
    points = points + jnp.where(usable[..., None], step, 0)
    return jnp.clip(
        points, 0, jnp.array([w - 1, h - 1], points.dtype)[None, None]
    ), score


@jax.jit
def estimate_sigma(maps):
    """Returns the scalar of `gaussian.estimate_sigma`."""
    maps = lax.stop_gradient(maps)
    y, x, score = _peaks(maps)
    radius = 4
    usable = (score > 1e-30) & jnp.isfinite(score)
    values, known = _patches(maps, y, x, radius)
    peak = jnp.where(usable, score, 1).astype(values.dtype)
    _, _, dxx, dxy, dyy = _fit(jnp.clip(values / peak[..., None, None], -1, 1), known)
    det = dxx * dyy - dxy**2
    usable &= (dxx < 0) & (det > 0) & jnp.all(known, axis=(-2, -1))
    sigma = jnp.where(det > 0, det, 1) ** -0.25  # Geometric mean of both axes.

    def quantile(values, counted, q):
        return jnp.nanquantile(jnp.where(counted, values, jnp.nan), q)

    high = quantile(score.astype(values.dtype), usable, 0.9)
    usable &= score >= 0.5 * high
    # The mean of the middle half: of a map with two people the width is no width.
    low, high = (quantile(sigma, usable, q) for q in (0.25, 0.75))
    usable &= (sigma >= low) & (sigma <= high)
    return jnp.sum(jnp.where(usable, sigma, 0)) / jnp.sum(usable)  # 0/0: NaN.


def _fit_step(values, known):
    """Returns the step [..., 2] from the center of patches to a fitted Gaussian's top."""
    return _newton_step(_fit(values, known), bounded=True)


def _fit(values, known):
    """Fits a Gaussian to patches [..., p, p]; returns what `_slopes` returns, of its log.

    Values have their peak, 1, at the center; unknown ones have no weight.
    """
    radius = values.shape[-1] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1) / radius
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # [p*p, 6]
    products = (basis[:, :, None] * basis[:, None, :]).reshape(-1, 36)
    basis, products = (
        jnp.asarray(basis, values.dtype),
        jnp.asarray(products, values.dtype),
    )
    # Two additional equations: equal curvature in x and y, and none in xy.
    prior = np.zeros((6, 6))
    prior[3:, 3:] = [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
    prior = jnp.asarray((prior * _ROUND / radius**4).reshape(1, 1, 36), values.dtype)

    n, k = values.shape[:2]
    pixels = (n, k, basis.shape[0])
    values, known = values.reshape(pixels), known.reshape(pixels)
    strong = known & (values > _FIT_FROM)
    logs = jnp.log(jnp.where(strong, values, 1))

    def least_squares(residual, weight):  # -> change, and whether regular
        normal = _matmul(weight**2, products) + prior
        return _solve(normal, _matmul(weight * residual, basis))

    # First on logs: weights v^2 for residuals log v. Then one step on values v with a
    # model exp(q): weights exp(q)^2 for residuals (v - exp(q)) / exp(q).
    weight = jnp.where(strong, values, 0)
    fit, regular = least_squares(weight * logs, weight)
    model = jnp.exp(jnp.minimum(_matmul(fit, basis.T), math.log(2)))
    model = jnp.where(known, model, 0)
    change, solved = least_squares(values - model, model)
    fit, regular = fit + change, regular & solved
    fit = jnp.where(regular[..., None], fit, 0)
    _, bx, by, cxx, cxy, cyy = jnp.moveaxis(fit / radius, -1, 0)
    cxx, cxy, cyy = cxx / radius, cxy / radius, cyy / radius
    return bx, by, 2 * cxx, cxy, 2 * cyy


def _solve(normal, right):
    """Solves normal equations [n, k, 36], [n, k, 6] -> [n, k, 6], whether regular [n, k].

    Gauss-Jordan elimination: batched library calls for 6x6 matrices are slower.
    """
    normal = normal.reshape(*normal.shape[:2], 6, 6)
    diagonal = jnp.diagonal(normal, axis1=-2, axis2=-1)
    unit = jnp.eye(6, dtype=normal.dtype)

    rows = jnp.concatenate([normal, right[..., None]], axis=-1)
    regular = jnp.ones(right.shape[:2], bool)
    for i in range(6):
        row, column = rows[..., i, :], rows[..., :, i] - unit[i].reshape(1, 1, 6)
        # Relative to its initial value, a pivot is the part of its column that is
        # independent of the columns before it.
        regular = regular & (row[..., i] > 1e-5 * diagonal[..., i])
        row = row / jnp.where(regular, row[..., i], 1)[..., None]
        rows = rows - column[..., :, None] * row[..., None, :]
    return rows[..., 6], regular
