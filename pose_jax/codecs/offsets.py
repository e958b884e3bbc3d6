"""Binary heatmaps with offset fields, and the Hough voting that fuses the two.

Each pixel has a probability of lying near a keypoint and an offset to that keypoint. It
casts a vote, weighted by the probability, for the position its offset points to; the
keypoint is decoded at the maximum of the accumulated votes.

Points and offsets are (x, y) in pixels of the map, with integer pixel centers; sizes are
(width, height); heatmaps are [*b, h, w, k], offsets [*b, h, w, k, 2]. In MultiPose the
map is as large as the network's input. Inputs must be floating point (integers raise an
error); results have at least float32.

Source: MultiPose (G-RMI), Papandreou et al., CVPR 2017, arXiv:1701.01779.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pose_jax.codecs import _peaks

_REACH = 3
"""Radius of the window of the sub-pixel estimate, pixels. With votes of standard deviation
1.5 px per axis, radius 1 has an error of 0.31 px, 2 of 0.17, 3 of 0.07, 4 of 0.04; a wider
window would include the same joint of a neighboring person."""


def encode(
    points_xy: Float[Array, "*b k 2"],
    *,
    size: tuple[int, int],
    radius: float | int,
) -> tuple[Float[Array, "*b h w k"], Float[Array, "*b h w k 2"]]:
    """Encodes keypoints as binary heatmaps and offset fields, the targets of MultiPose.

    Offsets are defined at every pixel. The loss restricts them to the disc around each
    keypoint: `losses.offset_huber` takes the heatmaps as its mask.

    Args:
      points_xy: l_k, pixels of the map; of a point off the map, the part of its disc on
        the map is set. NaN gives an empty heatmap and offsets of NaN.
      size: (width, height) of the map.
      radius: disc radius R, pixels; 25 for maps of 353 x 257 in the paper.

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
    """Hough voting: f(x_i) = sum_j h(x_j) G(x_j + F(x_j) - x_i) / (pi R^2).

    MultiPose, eq. (4). G is the bilinear kernel: a vote is split among its four
    neighboring pixels, and parts that fall off the map are lost. Votes a pixel or more
    outside the map, or with an offset that is not finite, are ignored, whatever their
    heatmap value.

    Differentiable in both: piecewise in an offset (from the right at whole pixels), and 0
    for ignored votes. A heatmap value that is not finite makes the four pixels it votes
    for so too. On a GPU the order of the additions, and so the last bits, may vary.

    Args:
      heatmaps: h, probabilities in [0, 1] (not logits).
      offsets: F, pixels of the map.
      radius: disc radius R in training, pixels of the map; only a scale factor here.

    Returns:
      Hough scores. Their sum is at most sum(heatmaps) / (pi R^2), with equality if no
      vote leaves the map. A keypoint on which its whole disc agrees scores about 1.

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
    blur: float | int = 0.0,
    stride: int = 1,
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes each keypoint at the maximum of its fused map f_k, and scores it by eq. (7).

    The equations are those of MultiPose. The peak is the largest value of `fuse`, of
    ties the first in raster order; NaN counts as minus infinity.

    Args:
      heatmaps: probabilities in [0, 1] (not logits).
      offsets: pixels of the map.
      radius: disc radius in training, pixels of the map.
      subpixel: return the centroid of the positive votes in the 7x7 pixels around the
        peak, which is exact where all votes agree on one position. The paper stops at the
        pixel.
      blur: standard deviation of a Gaussian that smooths the fused map before its maximum
        is sought, in units of the radius: a density estimate of the votes, whose places
        scatter by several pixels. 0, the paper: no blur; 0.16 was best for PoseNet.
      stride: only every stride-th pixel votes, on a grid as coarse, and the point is the
        centroid of the 3x3 cells around the peak: the cheap form, for maps that a network
        has upsampled by this factor.

    Returns:
      Points, always inside the map, at pixel centers unless `subpixel` or `stride`; and
      scores, the values of the fused (and blurred) maps at the peak pixels.

    Raises:
      ValueError: a radius or stride that is not positive, a negative blur, shapes that do
        not match, or integers.
    """
    if stride < 1 or not 0 <= blur < math.inf:
        raise ValueError(
            f"stride must be at least 1 and blur at least 0; got {stride} and {blur}."
        )
    heatmaps, offsets = _maps(heatmaps, offsets, radius)
    if stride > 1:
        heatmaps = heatmaps[..., ::stride, ::stride, :]
        offsets = offsets[..., ::stride, ::stride, :, :] / stride
    fused = fuse(heatmaps, offsets, radius=radius / stride)
    leading = fused.shape[:-3]
    maps = jnp.reshape(fused, (math.prod(leading), *fused.shape[-3:]))
    if blur:
        maps = _peaks.blur(maps, _gaussian(blur * radius / stride))
    points, scores = _peaks.decode_argmax(maps)
    if stride > 1:
        points = _centroid(maps, points, 1) * stride
    elif subpixel:
        points = _centroid(maps, points, _REACH)
    k = fused.shape[-1]
    return points.reshape(*leading, k, 2), scores.reshape(*leading, k)


def decode_peak(
    heatmaps: Float[Array, "*b h w k"], offsets: Float[Array, "*b h w k 2"]
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes the highest pixel of each heatmap, moved by its offset if that is finite.

    How MoveNet and PoseNet are decoded by their authors.

    Args:
      heatmaps: any values; NaN counts as minus infinity.
      offsets: pixels of the map.

    Returns:
      Points, and scores, the heatmaps' values at the peak pixels.

    Raises:
      ValueError: shapes that do not match, or integers.
    """
    heatmaps, offsets = _maps(heatmaps, offsets, 1)
    maps, fields = _one_axis(heatmaps, offsets)
    points_xy, scores = _peaks.decode_argmax(maps)
    moved = points_xy + _offsets_at(fields, points_xy)
    return _as_before(heatmaps, moved, scores)


def decode_density(
    heatmaps: Float[Array, "*b h w k"],
    offsets: Float[Array, "*b h w k 2"],
    *,
    sigma: float | int,
    steps: int = 10,
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Decodes the maximum of the votes' density, for coarse maps.

    The votes of `fuse` are smoothed by a Gaussian instead of a pixel, and the maximum is
    found by mean shift (a fixed number of steps) from the pixel of `fuse` with most votes.
    Votes of a few pixels scatter by a fraction of one, so that `decode` is limited by its
    pixel, and its highest pixel is one of many similar ones.

    Args:
      heatmaps: probabilities in [0, 1] (not logits).
      offsets: pixels of the map.
      sigma: standard deviation of the Gaussian, pixels of the map.
      steps: of mean shift.

    Returns:
      Points, and scores: the mean probability of the votes under the Gaussian.

    Raises:
      ValueError: sigma not positive, shapes that do not match, or integers.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be positive, in pixels; got {sigma}.")
    heatmaps, offsets = _maps(heatmaps, offsets, 1)
    maps, fields = _one_axis(heatmaps, offsets)
    fused = _fuse(maps, fields, 1.0)
    start, _ = _peaks.decode_argmax(fused)
    return _as_before(heatmaps, *_mean_shift(maps, fields, start, sigma, steps))


@functools.partial(jax.jit, static_argnames="steps")
def _mean_shift(maps, offsets, start, sigma, steps: int):
    """[n, h, w, k], [n, h, w, k, 2], [n, k, 2] -> points [n, k, 2], scores [n, k]."""
    pixel_x, pixel_y = _pixels(maps.shape, maps.dtype)
    x, y = pixel_x + offsets[..., 0], pixel_y + offsets[..., 1]
    finite = jnp.isfinite(x) & jnp.isfinite(y) & jnp.isfinite(maps)
    votes = jnp.where(finite, maps, 0)
    x, y = jnp.where(finite, x, 0), jnp.where(finite, y, 0)

    def weights(points_xy):
        at = points_xy[:, None, None]
        distance = jnp.square(x - at[..., 0]) + jnp.square(y - at[..., 1])
        return votes * jnp.exp(-0.5 * distance / sigma**2)

    def mean(weight, values, otherwise):
        total = weight.sum((1, 2))
        return jnp.where(
            total > 0,
            (weight * values).sum((1, 2)) / jnp.where(total > 0, total, 1),
            otherwise,
        )

    points_xy = start
    for _ in range(steps):
        weight = weights(points_xy)
        moved = [mean(weight, v, points_xy[..., i]) for i, v in enumerate((x, y))]
        points_xy = jnp.stack(moved, axis=-1)
    return points_xy, mean(weights(points_xy), votes, 0)


def _offsets_at(fields, points_xy):
    """Returns [n, k, 2] of [n, h, w, k, 2] at whole points [n, k, 2]; 0 if not finite."""
    n, k = points_xy.shape[:2]
    x, y = points_xy[..., 0].astype(jnp.int32), points_xy[..., 1].astype(jnp.int32)
    found = fields[jnp.arange(n)[:, None], y, x, jnp.arange(k)[None]]
    return jnp.where(jnp.isfinite(found).all(-1, keepdims=True), found, 0)


def _one_axis(heatmaps, offsets):
    n, one = math.prod(heatmaps.shape[:-3]), heatmaps.shape[-3:]
    return jnp.reshape(heatmaps, (n, *one)), jnp.reshape(offsets, (n, *one, 2))


def _as_before(heatmaps, points_xy, scores):
    leading, k = heatmaps.shape[:-3], heatmaps.shape[-1]
    return points_xy.reshape(*leading, k, 2), scores.reshape(*leading, k)


@jax.jit
def _fuse(heatmaps, offsets, scale):
    """[n, h, w, k], [n, h, w, k, 2] -> [n, h, w, k].

    On a CPU, one person at a time is faster, since the temporaries are reused. On
    accelerators, one large step is faster, and a loop over people who are sharded over
    several devices would first copy all of them to each.
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

    One scatter of the four bilinear weights of a vote as a row, then three shifted adds:
    on a CPU this takes half the time of four scatters.
    """
    h, w, k = heatmaps.shape
    pixel_x, pixel_y = _pixels(heatmaps.shape, heatmaps.dtype)
    x, y = pixel_x + offsets[..., 0], pixel_y + offsets[..., 1]
    # False for NaN too. What remains is safe to convert to integers.
    counts = (x > -1) & (x < w) & (y > -1) & (y < h)
    # Ignored votes stay at their own pixels with weight 0: sent to one pixel, they would
    # serialize the scatter.
    x, y = jnp.where(counts, x, pixel_x), jnp.where(counts, y, pixel_y)
    votes = jnp.where(counts, heatmaps, 0)

    left, top = jnp.floor(x), jnp.floor(y)
    right, below = (x - left)[..., None], (y - top)[..., None]  # [h, w, k, 1]
    is_right = np.array([False, True, False, True]).reshape(1, 1, 1, 4)
    is_below = np.array([False, False, True, True]).reshape(1, 1, 1, 4)
    shares = jnp.where(is_right, right, 1 - right)
    shares = shares * jnp.where(is_below, below, 1 - below)
    # Row and column 0 lie just before the map.
    corners = jnp.zeros((h + 1, w + 1, k, 4), heatmaps.dtype)
    row, column = top.astype(jnp.int32) + 1, left.astype(jnp.int32) + 1
    keypoint = jnp.arange(k, dtype=jnp.int32).reshape(1, 1, k)
    corners = corners.at[row, column, keypoint].add(
        votes[..., None] * shares, mode="promise_in_bounds"
    )
    fused = corners[1:, 1:, :, 0] + corners[1:, :-1, :, 1]
    fused = fused + corners[:-1, 1:, :, 2] + corners[:-1, :-1, :, 3]
    return scale * fused  # Last: sums of whole votes are exact.


def _gaussian(sigma: float) -> tuple[float, ...]:
    """Returns the weights of a blur of 3 sigma to each side, which sum to 1."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return tuple((weights / weights.sum()).tolist())


@functools.partial(jax.jit, static_argnames="reach")
def _centroid(maps, points, reach: int):
    """Centroids [n, k, 2] of the positive values of maps [n, h, w, k] around peaks."""
    x, y = points[..., 0], points[..., 1]
    values, _ = _peaks._patches(
        maps, y.astype(jnp.int32), x.astype(jnp.int32), reach
    )  # [n, k, p, p], 0 off the map
    weights = jnp.where(values > 0, values, 0)
    peak = jnp.max(weights, axis=(-2, -1), keepdims=True)
    weights = weights / jnp.where(peak > 0, peak, 1)  # Their sum could overflow.
    total = jnp.sum(weights, axis=(-2, -1))
    around = jnp.arange(-reach, reach + 1, dtype=maps.dtype).reshape(1, 1, -1)
    dx = jnp.sum(jnp.sum(weights, axis=-2) * around, axis=-1)
    dy = jnp.sum(jnp.sum(weights, axis=-1) * around, axis=-1)
    total = jnp.where(total > 0, total, 1)
    return points + jnp.stack([dx / total, dy / total], axis=-1)


def _pixels(shape, dtype):
    """Returns x and y of the pixels of maps [*b, h, w, k], with the same rank."""
    ones = (1,) * (len(shape) - 3)
    h, w = shape[-3:-1]
    x = jnp.arange(w, dtype=dtype).reshape(*ones, 1, w, 1)
    return x, jnp.arange(h, dtype=dtype).reshape(*ones, h, 1, 1)


def _floats(**arrays):
    """Converts all to one dtype, float32 or better."""
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
            "offsets must be [*b, h, w, k, 2], one (x, y) per heatmap value; got "
            f"{offsets.shape} for heatmaps {heatmaps.shape}."
        )
    return _floats(heatmaps=heatmaps, offsets=offsets)


def _check_radius(radius):
    if not 0 < radius < math.inf:
        raise ValueError(f"radius must be positive, in pixels; got {radius}.")
