"""Greedy non-maximum suppression of people in an image: boxes by IoU, poses by OKS.

Every function takes the n candidates of ONE image (`jax.vmap` it for more) and has
fixed shapes: `valid` marks the slots in use. Candidates are processed by descending
score, ties by the lower index; one that overlaps a better one *by more than* the
threshold is dropped.

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
    ranked_xyxy = boxes_xyxy[order]
    rank = jnp.arange(scores.size)

    def drop_overlapping(i, keep):
        # One row of overlaps at a time: for thousands of candidates, the whole matrix
        # takes over ten times as long.
        too_close = _box_iou(ranked_xyxy[i], ranked_xyxy) > threshold
        return keep & ~(keep[i] & too_close & (rank > i))

    keep = lax.fori_loop(0, scores.size, drop_overlapping, valid[order])
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
    return _greedy(overlap, scores, valid, threshold)


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


def _greedy(overlap, scores, valid, threshold):
    n = scores.size
    if not n:
        return valid
    order = _by_score(scores, valid)
    too_close = (overlap > threshold)[order][:, order]  # ranked by score
    rank = jnp.arange(n)

    def drop_overlapping(i, keep):
        return keep & ~(keep[i] & too_close[i] & (rank > i))

    keep = lax.fori_loop(0, n, drop_overlapping, valid[order])
    return jnp.zeros_like(valid).at[order].set(keep)


def _box_iou(box_xyxy, boxes_xyxy):
    """[4] and [n, 4] -> [n] in [0, 1]."""
    shared = jnp.minimum(box_xyxy[None, 2:], boxes_xyxy[:, 2:]) - jnp.maximum(
        box_xyxy[None, :2], boxes_xyxy[:, :2]
    )
    intersection = jnp.prod(jnp.maximum(shared, 0), axis=-1)
    area = jnp.prod(jnp.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0), axis=-1)
    own = jnp.prod(jnp.maximum(box_xyxy[2:] - box_xyxy[:2], 0))
    union = own + area - intersection
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
