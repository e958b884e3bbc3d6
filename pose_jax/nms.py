"""Greedy non-maximum suppression of people in an image: boxes by IoU, poses by OKS.

Every function takes the n candidates of ONE image (`jax.vmap` it for more) and has
fixed shapes: `valid` marks the slots in use. Candidates are processed by descending
score, ties by the lower index; one that overlaps a better one *by more than* the
threshold is dropped.

Hard suppression is computed as a fixed point instead of one candidate at a time: starting
with all, keep each candidate that no better kept one overlaps, until nothing changes. The
fixed point is unique, and what a chain of m suppressions decides is final after m trips:
for the candidates of a detector a few trips instead of thousands of dependent steps.

n candidates, of which there may be none; k keypoints. Boxes are (x0, y0, x1, y1), points
(x, y), in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from pose_jax import metrics


def box_nms(
    boxes_xyxy: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    *,
    threshold: int | float | Float[Array, ""],
    valid: Bool[Array, " n"] | None = None,
) -> Bool[Array, " n"]:
    """Suppresses boxes by intersection over union of their areas.

    MultiPose (arXiv:1701.01779) uses a threshold of 0.6.

    Args:
      boxes_xyxy: pixels; a box without extent overlaps nothing.
      scores: any range.
      threshold: IoU in [0, 1] above which the box of lower score is dropped.
      valid: which slots hold a box; None: all.

    Returns:
      True for the boxes to keep, in input order; False for invalid slots.

    Raises:
      ValueError: shapes do not match or the threshold is outside [0, 1].
    """
    boxes_xyxy = jnp.asarray(boxes_xyxy)
    scores, valid = _candidates(scores, valid, threshold)
    _check("boxes_xyxy", boxes_xyxy, (*scores.shape, 4))
    if not scores.size:
        return valid
    order = _by_score(scores, valid)
    too_close = _box_iou(boxes_xyxy[order]) > threshold
    keep, _ = _greedy(too_close, valid[order])
    return jnp.zeros_like(valid).at[order].set(keep)


def oks_nms(
    points_xy: Float[Array, "n k 2"],
    scores: Float[Array, " n"],
    areas: Float[Array, " n"],
    sigmas: Float[Array, " k"] | Sequence[float],
    *,
    threshold: int | float | Float[Array, ""],
    valid: Bool[Array, " n"] | None = None,
) -> Bool[Array, " n"]:
    """Suppresses poses by object keypoint similarity (MultiPose, arXiv:1701.01779).

    The overlap of poses p and q is mean_k exp(-d_k^2 / (2 s^2 (2 sigma_k)^2)) with d_k
    the distance of their keypoints k and s^2 the mean of both areas, as in HRNet's
    code; the paper does not give the scale. It uses 0.5, after `box_nms`.

    Args:
      points_xy: pixels.
      scores: per pose, any range.
      areas: per person, e.g. of the unpadded box, square pixels.
      sigmas: `KeypointSet.sigmas`.
      threshold: OKS in [0, 1] above which the pose of lower score is dropped.
      valid: which slots hold a pose; None: all.

    Returns:
      True for the poses to keep, in input order; False for invalid slots.

    Raises:
      ValueError: shapes do not match or the threshold is outside [0, 1].
    """
    scores, valid = _candidates(scores, valid, threshold)
    overlap = _pairwise_oks(points_xy, scores, areas, sigmas)
    if not scores.size:
        return valid
    order = _by_score(scores, valid)
    keep, _ = _greedy((overlap > threshold)[order][:, order], valid[order])
    return jnp.zeros_like(valid).at[order].set(keep)


def soft_oks_nms(
    points_xy: Float[Array, "n k 2"],
    scores: Float[Array, " n"],
    areas: Float[Array, " n"],
    sigmas: Float[Array, " k"] | Sequence[float],
    *,
    threshold: int | float | Float[Array, ""],
    valid: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """Lowers the scores of overlapping poses instead of dropping them (HRNet's code).

    The best remaining pose is selected, and the score of every other remaining pose becomes
    score * exp(-OKS^2 / threshold); then the best of these is selected, and so on
    (Soft-NMS with a Gaussian, arXiv:1704.04503). OKS as in `oks_nms`.

    Args:
      points_xy: pixels.
      scores: per pose, not negative.
      areas: per person, square pixels.
      sigmas: `KeypointSet.sigmas`.
      threshold: divisor in the exponent, in (0, 1]; smaller values suppress more.
      valid: which slots hold a pose; None: all.

    Returns:
      New scores, none above the old one, in input order; 0 for invalid slots.

    Raises:
      ValueError: shapes do not match or the threshold is outside (0, 1].
    """
    scores, valid = _candidates(scores, valid, threshold)
    if isinstance(threshold, (int, float)) and threshold == 0:
        raise ValueError(
            "threshold must be positive, since it divides the squared OKS; got 0."
        )
    overlap = _pairwise_oks(points_xy, scores, areas, sigmas)
    if not scores.size:
        return scores
    decay = jnp.exp(-jnp.square(overlap) / threshold)

    def take_best(_, state):
        scores, left = state
        best = jnp.argmax(jnp.where(left, scores, -jnp.inf))
        left = left.at[best].set(False)
        return jnp.where(left, scores * decay[best], scores), left

    scores = jnp.where(valid, scores, 0)
    return lax.fori_loop(0, scores.size, take_best, (scores, valid))[0]


def _by_score(scores, valid):
    """Returns the order by descending score: ties by the lower index, invalid last."""
    return jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)


_TRIPS = 16
"""Maximum number of trips over all pairs; candidates of detectors need about 5 to 10."""

_BLOCK = 128
"""Candidates of a block where `_TRIPS` are not enough: a chain of all n candidates needs n
trips in any case, so that a trip must be cheap."""


def _greedy(too_close, valid):
    """Returns which candidates to keep [n], in order of rank, and the number of trips.

    Args:
      too_close: [n, n], symmetric, ranked from the best candidate to the worst.
      valid: [n], ranked.
    """
    n = valid.size
    rank = jnp.arange(n)
    drops = too_close & (rank[:, None] < rank[None])  # [i, j]: i drops j.
    if n <= _BLOCK:
        keep, trips, _ = _fixed_point(drops, valid, n)
        return keep, trips
    keep, trips, done = _fixed_point(drops, valid, _TRIPS)

    def of_block(state):
        # The last block starts earlier if it would not fit: what is decided stays so.
        start, left, trips = state
        rows = lax.dynamic_slice_in_dim(drops, start, _BLOCK)
        own = lax.dynamic_slice_in_dim(rows, start, _BLOCK, axis=1)
        candidates = lax.dynamic_slice_in_dim(left, start, _BLOCK)
        kept, more, _ = _fixed_point(own, candidates, _BLOCK)
        return start + _BLOCK, left & ~_dropped(rows, kept), trips + more + 1

    # Without trips if the fixed point is known: a cond would run both under vmap.
    _, by_blocks, trips = lax.while_loop(
        lambda state: state[0] < n, of_block, (jnp.where(done, n, 0), valid, trips)
    )
    return jnp.where(done, keep, by_blocks), trips


def _dropped(drops, keep):
    """[m, n] and [m] -> [n]: what the kept ones drop."""
    return jnp.any(drops & keep[:, None], axis=0)


def _fixed_point(drops, valid, trips: int):
    """Returns which to keep, the number of trips, and whether this is the fixed point."""

    def trip(state):
        keep, _, count = state
        new = valid & ~_dropped(drops, keep)
        return new, jnp.any(new != keep), count + 1

    keep, changed, count = lax.while_loop(
        lambda state: state[1] & (state[2] < trips + 1), trip, (valid, True, 0)
    )
    return keep, count, ~changed


def _box_iou(boxes_xyxy):
    """[n, 4] -> [n, n] in [0, 1]."""
    # Coordinates apart: XLA makes one pass of [n, n] of it, without arrays of [n, n, 2].
    x0, y0, x1, y1 = (boxes_xyxy[:, i] for i in range(4))

    def shared(low, high):
        ends = jnp.minimum(high[:, None], high[None])
        return jnp.maximum(ends - jnp.maximum(low[:, None], low[None]), 0)

    intersection = shared(x0, x1) * shared(y0, y1)
    area = jnp.maximum(x1 - x0, 0) * jnp.maximum(y1 - y0, 0)
    union = area[:, None] + area[None] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def _pairwise_oks(points_xy, scores, areas, sigmas):
    """[n, k, 2] -> [n, n] in [0, 1]: both poses of a pair are predictions."""
    points_xy, areas, sigmas = map(jnp.asarray, (points_xy, areas, sigmas))
    _check("areas", areas, scores.shape)
    _check("points_xy", points_xy, (*scores.shape, *sigmas.shape, 2))
    area = (areas[:, None] + areas[None]) / 2
    counted = jnp.ones((1, 1, *sigmas.shape), bool)
    return metrics.oks(points_xy[:, None], points_xy[None], counted, area, sigmas)


def _candidates(scores, valid, threshold):
    if isinstance(threshold, (int, float)) and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is an overlap in [0, 1]; got {threshold}.")
    scores = jnp.asarray(scores)
    if scores.ndim != 1:
        raise ValueError(
            f"scores are those of one image, [n]; got {scores.shape}. vmap over images."
        )
    valid = jnp.ones(scores.shape, bool) if valid is None else jnp.asarray(valid, bool)
    _check("valid", valid, scores.shape)
    return scores, valid


def _check(what, array, shape):
    if array.shape != shape:
        raise ValueError(f"{what} must have shape {shape}; got {array.shape}.")
