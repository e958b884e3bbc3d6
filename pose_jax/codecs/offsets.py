"""Heatmaps of discs with offset fields, and the Hough voting that fuses the two.

Every pixel says how likely it is to lie near a keypoint and where from there the keypoint
is. It votes, as much as it is likely, for the place its offset points at; the keypoint is
where most votes meet.

Points and offsets are (x, y) in pixels of the map, with integer pixel centres; sizes are
(width, height); heatmaps are [*b, h, w, k], offsets [*b, h, w, k, 2]. In MultiPose the
map is as large as the network's input. Inputs must be floating point (integers are
refused); results have at least float32.

Source: MultiPose (G-RMI), Papandreou et al., CVPR 2017, arXiv:1701.01779.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pose_jax.codecs import _peaks

_REACH = 3
"""Pixels to each side of the peak that the sub-pixel estimate reads. Votes that miss by
1.5 px (standard deviation, per axis): 1 reads to 0.31 px, 2 to 0.17, 3 to 0.07, 4 to 0.04;
wider, it would read the same joint of the next person."""


def encode(
    points_xy: Float[Array, "*b k 2"],
    *,
    size: tuple[int, int],
    radius: float | int,
) -> tuple[Float[Array, "*b h w k"], Float[Array, "*b h w k 2"]]:
    """What MultiPose learns: a disc round each keypoint, and the way there.

    The offsets are those of every pixel of the map. That only the ones in the disc are
    learnt is up to the loss: `losses.offset_huber` with the heatmaps as its mask.

    Args:
      points_xy: l_k, pixels of the map; a point off the map gives what of its disc is on
        the map. NaN gives an empty disc and offsets of NaN.
      size: (width, height) of the map.
      radius: R of the disc, pixels; 25 for maps of 353 x 257 in the paper.

    Returns:
      Heatmaps, 1 where ||x - l_k|| <= R, 0 elsewhere, and offsets l_k - x, pixels.

    Raises:
      ValueError: a size or radius that is not positive, or integer points.
    """
    _check_radius(radius)
    if min(size) < 1:
        raise ValueError(f"size must be (width, height) in pixels, >= 1; got {size}.")
    if points_xy.ndim < 2 or points_xy.shape[-1] != 2:
        raise ValueError(f"points_xy must be [*b, k, 2]; got {points_xy.shape}.")
    (points_xy,) = _floats(points_xy=points_xy)
    shape = (*points_xy.shape[:-2], size[1], size[0], points_xy.shape[-2])
    center_xy = points_xy[..., None, None, :, :]  # [*b, 1, 1, k, 2]
    pixel_x, pixel_y = _pixels(shape, points_xy.dtype)
    dx = jnp.broadcast_to(center_xy[..., 0], shape) - pixel_x
    dy = jnp.broadcast_to(center_xy[..., 1], shape) - pixel_y
    heatmaps = (jnp.square(dx) + jnp.square(dy) <= radius**2).astype(points_xy.dtype)
    return heatmaps, jnp.stack([dx, dy], axis=-1)


def fuse(
    heatmaps: Float[Array, "*b h w k"],
    offsets: Float[Array, "*b h w k 2"],
    *,
    radius: float | int,
) -> Float[Array, "*b h w k"]:
    """Hough voting: f(x_i) = sum_j h(x_j) G(x_j + F(x_j) - x_i) / (pi R^2), eq. (4).

    G is the bilinear kernel: a vote between pixels is shared by its four neighbours, and
    what falls on neighbours off the map is lost. A vote that is nowhere near the map, or
    whose offset is not finite, counts for nothing, whatever its heatmap says.

    Differentiable in both: in an offset piecewise, at whole pixels from the right, and 0
    for votes that do not count. A heatmap that is not finite spoils the four pixels it
    votes for. On a GPU the order of the additions, and so the last bits, may vary.

    Args:
      heatmaps: h, probabilities in [0, 1] (not logits).
      offsets: F, pixels of the map.
      radius: R of the discs that were learnt, pixels of the map; it only scales.

    Returns:
      The votes: their sum is at most that of the heatmaps / (pi R^2), and equal where
      none leave. A keypoint that all of its disc agrees on gets about 1.

    Raises:
      ValueError: a radius that is not positive, shapes that do not match, or integers.
    """
    heatmaps, offsets = _maps(heatmaps, offsets, radius)
    leading, one = heatmaps.shape[:-3], heatmaps.shape[-3:]
    people = math.prod(leading)
    fused = _fuse(
        jnp.reshape(heatmaps, (people, *one)),
        jnp.reshape(offsets, (people, *one, 2)),
        1 / (math.pi * radius**2),
    )
    return jnp.reshape(fused, heatmaps.shape)


def decode(
    heatmaps: Float[Array, "*b h w k"],
    offsets: Float[Array, "*b h w k 2"],
    *,
    radius: float | int,
    subpixel: bool = False,
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """The place most votes go to, and how many they are: the max of f_k in eq. (7).

    The peak of `fuse` is the largest value, of ties the first in raster order; NaN counts
    as minus infinity.

    Args:
      heatmaps: probabilities in [0, 1] (not logits).
      offsets: pixels of the map.
      radius: of the discs that were learnt, pixels of the map.
      subpixel: beyond the paper, which stops at the pixel: the centre of gravity of the
        positive votes in the 7x7 pixels about the peak. It is exact where all votes name
        one place on the map, which four pixels then share.

    Returns:
      Points, always inside the map, at pixel centres unless `subpixel`; and scores, the
      values of the fused maps there, at the pixel in any case.

    Raises:
      ValueError: a radius that is not positive, shapes that do not match, or integers.
    """
    fused = fuse(heatmaps, offsets, radius=radius)
    leading = fused.shape[:-3]
    maps = jnp.reshape(fused, (math.prod(leading), *fused.shape[-3:]))
    points, scores = _peaks.decode_argmax(maps)
    if subpixel:
        points = _centroid(maps, points)
    k = fused.shape[-1]
    return points.reshape(*leading, k, 2), scores.reshape(*leading, k)


@jax.jit
def _fuse(heatmaps, offsets, scale):
    """[n, h, w, k], [n, h, w, k, 2] -> [n, h, w, k].

    On a CPU one person after another: the same 70 MB of temporaries (353 x 257 pixels, 17
    keypoints) serve them all, and it takes 0.6 to 0.7 of the time that all at once take.
    An accelerator is better used by one large step, and a loop over people who lie on
    several devices would bring all of them to each first.
    """
    return lax.platform_dependent(
        heatmaps, offsets, scale, cpu=_fuse_in_turn, default=_fuse_at_once
    )


def _fuse_in_turn(heatmaps, offsets, scale):
    return lax.map(lambda maps: _fuse_one(maps[0], maps[1], scale), (heatmaps, offsets))


def _fuse_at_once(heatmaps, offsets, scale):
    return jax.vmap(_fuse_one, in_axes=(0, 0, None))(heatmaps, offsets, scale)


def _fuse_one(heatmaps, offsets, scale):
    """[h, w, k], [h, w, k, 2] -> [h, w, k].

    One scatter of the four shares of a vote as a row, then three shifted adds: on a CPU
    half the time of four scatters. Scattering one keypoint after another, which keeps the
    map in the cache, gains nothing: the maps have to be transposed for it.
    """
    h, w, k = heatmaps.shape
    pixel_x, pixel_y = _pixels(heatmaps.shape, heatmaps.dtype)
    x, y = pixel_x + offsets[..., 0], pixel_y + offsets[..., 1]
    # False for NaN too. What remains is safe to convert to integers.
    counts = (x > -1) & (x < w) & (y > -1) & (y < h)
    # A vote that does not count stays in its place, weighing nothing: all at one pixel
    # they would wait for one another.
    x, y = jnp.where(counts, x, pixel_x), jnp.where(counts, y, pixel_y)
    votes = jnp.where(counts, heatmaps, 0)

    left, top = jnp.floor(x), jnp.floor(y)
    right, below = (x - left)[..., None], (y - top)[..., None]  # [h, w, k, 1]
    is_right = np.array([False, True, False, True]).reshape(1, 1, 1, 4)
    is_below = np.array([False, False, True, True]).reshape(1, 1, 1, 4)
    shares = jnp.where(is_right, right, 1 - right)
    shares = shares * jnp.where(is_below, below, 1 - below)
    # Row and column 0 are those before the first of the map.
    corners = jnp.zeros((h + 1, w + 1, k, 4), heatmaps.dtype)
    row, column = top.astype(jnp.int32) + 1, left.astype(jnp.int32) + 1
    keypoint = jnp.arange(k, dtype=jnp.int32).reshape(1, 1, k)
    corners = corners.at[row, column, keypoint].add(
        votes[..., None] * shares, mode="promise_in_bounds"
    )
    fused = corners[1:, 1:, :, 0] + corners[1:, :-1, :, 1]
    fused = fused + corners[:-1, 1:, :, 2] + corners[:-1, :-1, :, 3]
    return scale * fused  # Last: sums of whole votes are exact.


@jax.jit
def _centroid(maps, points):
    """Of what is positive about the peaks of maps [n, h, w, k]; points [n, k, 2]."""
    x, y = points[..., 0], points[..., 1]
    values, _ = _peaks._patches(
        maps, y.astype(jnp.int32), x.astype(jnp.int32), _REACH
    )  # [n, k, p, p], 0 off the map
    weights = jnp.where(values > 0, values, 0)
    peak = jnp.max(weights, axis=(-2, -1), keepdims=True)
    weights = weights / jnp.where(peak > 0, peak, 1)  # Their sum could overflow.
    total = jnp.sum(weights, axis=(-2, -1))
    around = jnp.arange(-_REACH, _REACH + 1, dtype=maps.dtype).reshape(1, 1, -1)
    dx = jnp.sum(jnp.sum(weights, axis=-2) * around, axis=-1)
    dy = jnp.sum(jnp.sum(weights, axis=-1) * around, axis=-1)
    total = jnp.where(total > 0, total, 1)
    return points + jnp.stack([dx / total, dy / total], axis=-1)


def _pixels(shape, dtype):
    """x and y of the pixels of maps [*b, h, w, k], of the same rank."""
    ones = (1,) * (len(shape) - 3)
    h, w = shape[-3:-1]
    x = jnp.arange(w, dtype=dtype).reshape(*ones, 1, w, 1)
    return x, jnp.arange(h, dtype=dtype).reshape(*ones, h, 1, 1)


def _floats(**arrays):
    """All in one dtype, float32 or better."""
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point; got {array.dtype}.")
    dtype = jnp.result_type(jnp.float32, *arrays.values())
    return [jnp.asarray(array, dtype) for array in arrays.values()]


def _maps(heatmaps, offsets, radius):
    _check_radius(radius)
    if heatmaps.ndim < 3 or 0 in heatmaps.shape[-3:]:
        raise ValueError(
            f"heatmaps must be [*b, h, w, k], no axis empty; got {heatmaps.shape}."
        )
    if offsets.shape != (*heatmaps.shape, 2):
        raise ValueError(
            "offsets must be [*b, h, w, k, 2], one (x, y) a value of the heatmaps; got "
            f"{offsets.shape} for heatmaps {heatmaps.shape}."
        )
    return _floats(heatmaps=heatmaps, offsets=offsets)


def _check_radius(radius):
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be positive, in pixels; got {radius}.")
