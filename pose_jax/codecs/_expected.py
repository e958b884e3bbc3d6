"""Implementation of the expected-utility decoders on maps [n, h, w, k]; see `gaussian`.

The functions are private to the package; their callers check the arguments.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pose_jax.codecs import _peaks


def _probability(maps):
    """Returns max(maps, 0) / sum, float32 or better; 0 where nothing is above 0."""
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    positive = jnp.where(maps > 0, maps, 0)  # NaN too becomes 0.
    top = jnp.max(positive, axis=(1, 2), keepdims=True)
    positive = positive / jnp.where(top > 0, top, 1)  # A sum could overflow.
    total = jnp.sum(positive, axis=(1, 2), keepdims=True)
    return positive / jnp.where(total > 0, total, 1)


def _mean_xy(probability):
    """[n, h, w, k] -> [n, k, 2]."""
    _, h, w, _ = probability.shape
    y = jnp.arange(h, dtype=probability.dtype).reshape(1, h, 1)
    x = jnp.arange(w, dtype=probability.dtype).reshape(1, w, 1)
    mean_x = jnp.sum(probability.sum(1) * x, axis=1)
    return jnp.stack([mean_x, jnp.sum(probability.sum(2) * y, axis=1)], axis=-1)


@jax.jit
def mean(maps):
    probability = _probability(maps)
    points, score = _peaks.decode_argmax(maps)
    known = jnp.max(probability, axis=(1, 2)) > 0
    return jnp.where(known[..., None], _mean_xy(probability), points), score


@functools.partial(jax.jit, static_argnames=("unbiased",))
def integral(maps, beta, unbiased: bool):
    _, h, w, _ = maps.shape
    points, score = _peaks.decode_argmax(maps)
    z = beta * maps.astype(points.dtype)
    z = jnp.where(jnp.isnan(z), -jnp.inf, z)
    top = jnp.max(z, axis=(1, 2), keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, 0)
    weights = jnp.exp(z - top)
    total = weights.sum((1, 2))  # C exp(-top)
    xy = _mean_xy(weights / jnp.where(total > 0, total, 1)[:, None, None])
    if unbiased:
        background = h * w * jnp.exp(-top[:, 0, 0])  # N exp(-top)
        peaked = total > background
        center = jnp.array([(w - 1) / 2, (h - 1) / 2], xy.dtype).reshape(1, 1, 2)
        share = (background / jnp.where(peaked, total - background, 1))[..., None]
        corrected = xy + share * (xy - center)
        xy = jnp.where(peaked[..., None], corrected, xy)
        xy = jnp.clip(xy, 0, jnp.array([w - 1, h - 1], xy.dtype).reshape(1, 1, 2))
    return jnp.where((total > 0)[..., None], xy, points), score


@jax.jit
def decode_gaussian(maps, widths):
    """widths [n, k]: standard deviations of the kernels; 0: none."""
    probability = _probability(maps)
    _, h, w, _ = maps.shape

    def blur_of(size):  # [n, k, size, size]
        i = jnp.arange(size, dtype=probability.dtype)
        d = (i[:, None] - i[None])[None, None]
        width = jnp.maximum(widths, 1e-3)[..., None, None]  # Below 0.1: the identity.
        return jnp.exp(-0.5 * (d / width) ** 2)

    expected = jnp.einsum(
        "nkyj,njik,nkxi->nyxk", blur_of(h), probability, blur_of(w),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    return _refined(maps, expected)


@jax.jit
def decode_disc(maps, widths):
    """widths [n, k]: radii of the discs, at least half a pixel."""
    probability = _probability(maps)
    n, h, w, k = maps.shape
    y = jnp.arange(-h, h, dtype=probability.dtype).reshape(1, -1, 1, 1)
    x = jnp.arange(-w, w, dtype=probability.dtype).reshape(1, 1, -1, 1)
    radius = jnp.maximum(widths, 0.5).reshape(n, 1, 1, k)
    disc = (y**2 + x**2 <= radius**2).astype(probability.dtype)
    disc = jnp.roll(disc, (h, w), (1, 2))  # The distance 0 first.
    size, axes = (2 * h, 2 * w), (1, 2)
    spectrum = jnp.fft.rfft2(probability, size, axes) * jnp.fft.rfft2(disc, axes=axes)
    expected = jnp.fft.irfft2(spectrum, size, axes)[:, :h, :w]
    # Rounding, so that equal sums stay equal; then of ties the one with more around it.
    expected = jnp.round(expected * 2**18) / 2**18
    y, x, _ = _peaks._peaks(expected + 1e-7 * probability)
    _, score = _peaks.decode_argmax(maps)
    return _peaks._points(x, y, maps.dtype), score


def _refined(maps, expected):
    """Returns the maximum of a smooth map by a step on its log of half a pixel at most."""
    _, h, w, _ = maps.shape
    _, score = _peaks.decode_argmax(maps)
    y, x, top = _peaks._peaks(expected)
    points = _peaks._points(x, y, maps.dtype)
    near, known = _peaks._patches(expected, y, x, 1)
    near = jnp.log(
        jnp.maximum(near / jnp.where(top > 0, top, 1)[..., None, None], 1e-10)
    )

    def step(before, after, both):  # The top of a parabola through three values.
        bend = before + after - 2 * near[..., 1, 1]
        ok = both & (bend < -1e-6)
        return jnp.where(ok, 0.5 * (before - after) / jnp.where(ok, bend, 1), 0)

    dx = step(near[..., 1, 0], near[..., 1, 2], known[..., 1, 0] & known[..., 1, 2])
    dy = step(near[..., 0, 1], near[..., 2, 1], known[..., 0, 1] & known[..., 2, 1])
    shift = jnp.clip(jnp.stack([dx, dy], axis=-1), -0.5, 0.5)
    limit = jnp.array([w - 1, h - 1], points.dtype).reshape(1, 1, 2)
    return jnp.clip(points + jnp.where((top > 0)[..., None], shift, 0), 0, limit), score
