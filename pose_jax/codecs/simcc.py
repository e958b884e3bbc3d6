"""Coordinate classification: a keypoint as two distributions over bins (SimCC).

Each axis of the network's input is cut into `split` bins a pixel; pixel x is bin split * x.
A keypoint is encoded as a Gaussian over the bins of each axis, and decoded from the two
distributions that a network gives. Points are (x, y) in pixels of the input with integer
centers. *b leading axes, k keypoints, n and m bins along x and y.

Source: Li et al., ECCV 2022, arXiv:2107.03332.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def encode(
    points_xy: Float[Array, "*b k 2"],
    *,
    size: tuple[int, int],
    split: int = 2,
    sigma: int | float = 6.0,
) -> tuple[Float[Array, "*b k n"], Float[Array, "*b k m"]]:
    """The density of a Gaussian about split * x at every bin, for both axes.

    exp(-d^2 / (2 sigma^2)) / (sigma sqrt(2 pi)), d in bins; the center is not rounded. The
    values sum to 1 only for a center far enough (3 sigma) inside.

    Args:
      points_xy: pixels of the input; anywhere, finite.
      size: (width, height) of the input; n = split * width, m = split * height.
      split: bins per pixel.
      sigma: standard deviation, bins; 6 for a 192x256 input with two bins per pixel.

    Returns:
      x and y densities, in [0, 1 / (sigma sqrt(2 pi))].

    Raises:
      ValueError: points_xy is not [*b, k, 2] or not floating point; sigma or split is not
        positive.
    """
    points_xy = jnp.asarray(points_xy)
    if points_xy.ndim < 2 or points_xy.shape[-1] != 2:
        raise ValueError(f"points_xy must be [*b, k, 2]; got {points_xy.shape}.")
    if not jnp.issubdtype(points_xy.dtype, jnp.floating):
        raise ValueError(f"points_xy must be floating point; got {points_xy.dtype}.")
    if not sigma > 0 or split < 1:
        raise ValueError(
            f"sigma must be positive and split at least 1; got {sigma} and {split}."
        )
    points_xy = points_xy.astype(jnp.promote_types(points_xy.dtype, jnp.float32))

    def density(center, count):
        bins = jnp.arange(count, dtype=points_xy.dtype)
        bins = bins.reshape((1,) * center.ndim + (count,))
        distance = bins - split * center[..., None]
        peak = 1 / (sigma * math.sqrt(2 * math.pi))
        return peak * jnp.exp(-jnp.square(distance) / (2 * sigma**2))

    w, h = size
    return density(points_xy[..., 0], split * w), density(points_xy[..., 1], split * h)


def decode(
    x: Float[Array, "*b k n"], y: Float[Array, "*b k m"], *, split: int = 2
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """The most probable bin of each axis; the first of equal ones.

    Args:
      x, y: probabilities of the bins.
      split: bins per pixel.

    Returns:
      points_xy: argmax / split, pixels of the input.
      scores: the smaller of the two maxima.

    Raises:
      ValueError: the leading axes of x and y differ.
    """
    x, y = _pair(x, y)
    points = jnp.stack([x.argmax(-1), y.argmax(-1)], axis=-1).astype(x.dtype) / split
    return points, jnp.minimum(x.max(-1), y.max(-1))


def decode_expectation(
    x: Float[Array, "*b k n"], y: Float[Array, "*b k m"], *, split: int = 2
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """The mean of the bins of each axis; differentiable, but biased towards the middle of
    the crop by probability far from the peak.

    Arguments, returned values and errors are those of `decode`. What is not positive
    and finite counts as 0; where all probabilities of an axis do, the point is 0 there.
    """
    x, y = _pair(x, y)

    def mean(values):
        bins = jnp.arange(values.shape[-1], dtype=values.dtype)
        bins = bins.reshape((1,) * (values.ndim - 1) + bins.shape)
        values = jnp.where((values > 0) & jnp.isfinite(values), values, 0)
        total = values.sum(-1)
        return jnp.sum(values * bins, -1) / jnp.where(total > 0, total, 1)

    points = jnp.stack([mean(x), mean(y)], axis=-1) / split
    return points, jnp.minimum(x.max(-1), y.max(-1))


def _pair(x, y):
    x, y = jnp.asarray(x), jnp.asarray(y)
    if x.ndim < 2 or x.shape[:-1] != y.shape[:-1]:
        raise ValueError(
            f"x must be [*b, k, n], y [*b, k, m]; got {x.shape}, {y.shape}."
        )
    dtype = jnp.promote_types(jnp.promote_types(x.dtype, y.dtype), jnp.float32)
    return x.astype(dtype), y.astype(dtype)
