"""Keypoint similarity (OKS), counting metrics (PCP, PCK, PDJ, PCKh), flipped people.

Points are (x, y) in pixels of one frame, the image's by custom. A keypoint of
visibility 0 is not labeled and never counts, whatever its coordinates, NaN included. The
counting metrics return `correct` and `counted`, integers summed over all leading axes:
added over batches and devices and divided at the end, they give a result that does not
depend on the batching.

*b leading axes, k keypoints, s sticks, t thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from pose_jax.keypoints import End

_Array = Array | np.ndarray


def oks(
    pred_xy: Float[_Array, "*#b k 2"],
    true_xy: Float[_Array, "*#b k 2"],
    visibility: Shaped[_Array, "*#b k"],
    area: Float[_Array, "*#b"],
    sigmas: Float[_Array, " k"] | Sequence[float],
) -> Float[Array, "*#b"]:
    """Object keypoint similarity: the mean of exp(-d^2 / (2 area (2 sigma)^2)).

    The mean is over labeled keypoints; a person without any has similarity 0. COCO's
    evaluator (and so `coco_keypoint_ap`) instead measures how far the prediction is
    outside that person's doubled box, to decide which detections to ignore.

    Leading axes must have the same rank and be equal or 1, so [n, 1, ...] against
    [1, m, ...] compares all pairs.

    Args:
      pred_xy: predicted points.
      true_xy: annotated points.
      visibility: 0 not labeled, else labeled.
      area: area of the person, square pixels of the points' frame; COCO's is that of the
        segment. An area of 0 (or less) leaves 1 for exact keypoints and 0 for others.
      sigmas: fall-off per keypoint, relative to the root of the area: at d = sigma *
        sqrt(area) a keypoint counts 0.8825.

    Returns:
      Similarity in [0, 1]. Its gradient is finite.

    Raises:
      ValueError: ranks or axes differ, or sigmas are not one per keypoint.

    Source: COCO keypoint evaluation, cocodataset.org/#keypoints-eval.
    """
    sigmas = jnp.asarray(sigmas, jnp.float32)
    if sigmas.shape != (pred_xy.shape[-2],):
        raise ValueError(
            f"sigmas must be one per keypoint, {pred_xy.shape[-2]}; got {sigmas.shape}."
        )
    _check_points(pred_xy, true_xy, visibility)
    _check_leading(
        broadcast=True,
        pred_xy=pred_xy.shape[:-2],
        true_xy=true_xy.shape[:-2],
        visibility=visibility.shape[:-1],
        area=area.shape,
    )
    labelled = jnp.asarray(visibility)[..., None] > 0
    # Masked before squaring: a NaN under the mask would propagate through the gradient.
    difference = jnp.where(labelled, jnp.asarray(pred_xy) - jnp.asarray(true_xy), 0.0)
    area = jnp.maximum(jnp.asarray(area), jnp.finfo(jnp.float32).eps)
    squared = jnp.sum(difference**2, -1)
    spread = jnp.broadcast_to(8.0 * sigmas**2, squared.shape)
    similarity = jnp.exp(-squared / spread / area[..., None])
    count = jnp.sum(labelled[..., 0], -1)
    total = jnp.sum(jnp.where(labelled[..., 0], similarity, 0.0), -1)
    return total / jnp.maximum(count, 1)


def pcp(
    pred_xy: Float[_Array, "*b k 2"],
    true_xy: Float[_Array, "*b k 2"],
    visibility: Shaped[_Array, "*b k"],
    sticks: Sequence[tuple[str, End, End]],
    *,
    threshold: float = 0.5,
    strict: bool = True,
) -> tuple[Int[Array, " s"], Int[Array, " s"]]:
    """Percentage of correct parts: sticks within a fraction of their true length.

    Strict: both ends are within threshold * length. Loose: the mean of the two ends'
    distances is. They differ by 4 to 5 points on LSP; name the one reported. A distance
    exactly at the threshold is correct. A stick with an unlabeled end is not counted;
    one of true length zero is counted as wrong, however exact the prediction.

    Args:
      pred_xy: predicted points.
      true_xy: annotated points.
      visibility: 0 not labeled, else labeled.
      sticks: `KeypointSet.sticks`: (name, end, end); an end is a keypoint, or the mean of
        several (which must all be labeled).
      threshold: fraction of the stick's true length.
      strict: which of the two definitions.

    Returns:
      correct, counted: per stick, summed over *b.

    Raises:
      ValueError: shapes differ, there are no sticks, or one names a keypoint that does
        not exist.

    Source: strict as in the evaluation code of Yang and Ramanan; loose as in the Buffy
    toolkit of Ferrari et al.
    """
    _check_points(pred_xy, true_xy, visibility)
    _check_leading(
        pred_xy=pred_xy.shape[:-2],
        true_xy=true_xy.shape[:-2],
        visibility=visibility.shape[:-1],
    )
    if not sticks:
        raise ValueError("PCP needs sticks; none were given.")
    k = pred_xy.shape[-2]
    ends = (
        [_indices(end, k, name) for name, end, _ in sticks],
        [_indices(end, k, name) for name, _, end in sticks],
    )
    pred_xy, true_xy = jnp.asarray(pred_xy), jnp.asarray(true_xy)
    labelled = jnp.asarray(visibility) > 0

    # Ends of several keypoints as rows of one length, so that one gather serves all.
    m = math.lcm(*map(len, ends[0] + ends[1]))
    rows = [np.array([end * (m // len(end)) for end in which]) for which in ends]

    def mean(points_xy, which):  # -> [*b, s, 2]
        return jnp.mean(points_xy[..., which, :], -2)

    true_a, true_b = (mean(true_xy, which) for which in rows)
    length = _distance(true_a, true_b)
    error_a = _distance(mean(pred_xy, rows[0]), true_a)
    error_b = _distance(mean(pred_xy, rows[1]), true_b)
    allowed = threshold * length
    if strict:
        near = (error_a <= allowed) & (error_b <= allowed)
    else:
        near = (error_a + error_b) / 2 <= allowed
    counted = jnp.all(labelled[..., np.concatenate(rows, -1)], -1)
    correct = counted & near & (length > 0)
    return _count(correct), _count(counted)


def pck(
    pred_xy: Float[_Array, "*b k 2"],
    true_xy: Float[_Array, "*b k 2"],
    visibility: Shaped[_Array, "*b k"],
    scale: Float[_Array, "*b"],
    *,
    thresholds: Float[_Array, " t"] | Sequence[float],
) -> tuple[Int[Array, "t k"], Int[Array, " k"]]:
    """Percentage of correct keypoints: those within threshold * scale of the truth.

    A distance exactly at the threshold is correct (some evaluators use <). A person
    whose scale is not positive and finite is not counted. The literature
    uses several scales under this name; state the scale with every result.

    Args:
      pred_xy: predicted points.
      true_xy: annotated points.
      visibility: 0 not labeled, else labeled.
      scale: length per person, in the points' pixels.
      thresholds: fractions of the scale.

    Returns:
      correct, counted: per keypoint, summed over *b.

    Raises:
      ValueError: shapes differ, or thresholds is not a list.

    Source: Sapp and Taskar, MODEC (CVPR 2013), with the scale left to the caller.
    """
    _check_points(pred_xy, true_xy, visibility)
    _check_leading(
        pred_xy=pred_xy.shape[:-2],
        true_xy=true_xy.shape[:-2],
        visibility=visibility.shape[:-1],
        scale=scale.shape,
    )
    thresholds = jnp.asarray(thresholds, jnp.float32)
    if thresholds.ndim != 1:
        raise ValueError(f"thresholds must be a list; got shape {thresholds.shape}.")
    scale = jnp.asarray(scale)
    usable = jnp.isfinite(scale) & (scale > 0)
    counted = (jnp.asarray(visibility) > 0) & usable[..., None]
    error = _distance(jnp.asarray(pred_xy), jnp.asarray(true_xy))
    axes = tuple(range(1, 1 + error.ndim))
    allowed = jnp.expand_dims(thresholds, axes) * scale[None, ..., None]  # [t, *b, 1]
    correct = (error[None] <= allowed) & counted[None]
    correct = jnp.sum(correct, axis=axes[:-1], dtype=jnp.int32)
    return correct, _count(counted)


def pdj(
    pred_xy: Float[_Array, "*b k 2"],
    true_xy: Float[_Array, "*b k 2"],
    visibility: Shaped[_Array, "*b k"],
    torso: tuple[int, int] | None,
    *,
    thresholds: Float[_Array, " t"] | Sequence[float],
) -> tuple[Int[Array, "t k"], Int[Array, " k"]]:
    """Percentage of detected joints: `pck` with the true torso diameter as scale.

    Args:
      pred_xy: predicted points.
      true_xy: annotated points.
      visibility: 0 not labeled, else labeled.
      torso: `KeypointSet.torso`, the opposing shoulder and hip that define the diameter.
        A person without both, or with both at one point, is not counted.
      thresholds: fractions of the diameter; the literature's curve is 0 to 0.5.

    Returns:
      correct, counted: per keypoint, summed over *b.

    Raises:
      ValueError: shapes differ, or there is no pair, or it names a keypoint that does
        not exist.

    Source: Sapp and Taskar, MODEC (CVPR 2013); Toshev and Szegedy, DeepPose (2014).
    """
    _check_points(pred_xy, true_xy, visibility)
    if torso is None:
        raise ValueError("PDJ needs a torso pair; the keypoint set has none.")
    i, j = _indices(torso, pred_xy.shape[-2], "torso")
    labelled = jnp.asarray(visibility) > 0
    diameter = _distance(
        jnp.asarray(true_xy)[..., i, :], jnp.asarray(true_xy)[..., j, :]
    )
    scale = jnp.where(labelled[..., i] & labelled[..., j], diameter, 0.0)
    return pck(pred_xy, true_xy, visibility, scale, thresholds=thresholds)


def pckh(
    pred_xy: Float[_Array, "*b k 2"],
    true_xy: Float[_Array, "*b k 2"],
    visibility: Shaped[_Array, "*b k"],
    head_size: Float[_Array, "*b"],
    *,
    thresholds: Float[_Array, " t"] | Sequence[float],
) -> tuple[Int[Array, "t k"], Int[Array, " k"]]:
    """PCK of MPII: `pck` with the head size as scale.

    The benchmark's mean leaves out pelvis and thorax and weights joints by `counted`;
    that is for the caller, who knows the keypoint set.

    Args:
      pred_xy: predicted points.
      true_xy: annotated points.
      visibility: 0 not labeled, else labeled.
      head_size: 0.6 times the diagonal of the annotated head box, pixels; 0 where
        there is no head box: that person is not counted.
      thresholds: fractions of it; the headline is 0.5.

    Returns:
      correct, counted: per keypoint, summed over *b.

    Raises:
      ValueError: shapes differ, or thresholds is not a list.

    Source: Andriluka et al., 2D Human Pose Estimation (CVPR 2014).
    """
    return pck(pred_xy, true_xy, visibility, head_size, thresholds=thresholds)


def flipped(
    pred_xy: Float[_Array, "*b k 2"],
    true_xy: Float[_Array, "*b k 2"],
    visibility: Shaped[_Array, "*b k"],
    flip_pairs: Sequence[tuple[int, int]],
    *,
    margin: float = 0.2,
    at_least: int = 4,
) -> tuple[Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Finds people whose prediction would be better with left and right exchanged.

    The shape is right but the sides are not, as often for people seen from behind. Better
    means that the mean distance of the labeled keypoints of the pairs is smaller by a
    fraction of `margin` or more; other keypoints are not used. Without a margin, noise
    alone looks like flips: of predictions that are 0.2 of the person's size off at random,
    6% at a margin of 0 and 0.1% at 0.2 (LSP's labels, all six pairs).

    Args:
      pred_xy: predicted points.
      true_xy: annotated points.
      visibility: 0 not labeled, else labeled.
      flip_pairs: `KeypointSet.flip_pairs`, all or those of a part of the body; they are
        exchanged together.
      margin: fraction by which the exchange must reduce the error, 0 to 1.
      at_least: a person with fewer labeled keypoints in the pairs is not judged.

    Returns:
      flipped, judged: per person. People who are not judged, and predictions that are
      exact or NaN, are not flipped.

    Raises:
      ValueError: shapes differ, there are no pairs, or one names a keypoint that does
        not exist.

    Source: ours, for the failure that Toshev and Szegedy describe (DeepPose, 2014).
    """
    _check_points(pred_xy, true_xy, visibility)
    _check_leading(
        pred_xy=pred_xy.shape[:-2],
        true_xy=true_xy.shape[:-2],
        visibility=visibility.shape[:-1],
    )
    if not flip_pairs:
        raise ValueError("Flips need pairs of left and right; none were given.")
    pairs = [_indices(p, pred_xy.shape[-2], "flip_pairs") for p in flip_pairs]
    own = np.array(pairs).reshape(-1)
    other = np.array(pairs)[:, ::-1].reshape(-1)
    pred_xy, true_xy = jnp.asarray(pred_xy), jnp.asarray(true_xy)
    labelled = (jnp.asarray(visibility) > 0)[..., own]

    def total(which):  # Sums suffice: both are over the same keypoints.
        error = _distance(pred_xy[..., which, :], true_xy[..., own, :])
        return jnp.sum(jnp.where(labelled, error, 0.0), -1)

    judged = jnp.sum(labelled, -1) >= at_least
    error = total(own)
    return judged & (error > 0) & (total(other) <= (1 - margin) * error), judged


def _distance(a_xy, b_xy):
    return jnp.sqrt(jnp.sum((a_xy - b_xy) ** 2, -1))


def _count(mask):
    """Sums a mask over all axes but the last."""
    return jnp.sum(mask, axis=tuple(range(mask.ndim - 1)), dtype=jnp.int32)


def _indices(end: End, k: int, name: str) -> list[int]:
    indices = [int(i) for i in np.atleast_1d(end)]
    for i in indices:
        if not 0 <= i < k:  # JAX would clamp it to another keypoint.
            raise ValueError(f"{name} names keypoint {i}; there are {k}.")
    return indices


def _check_points(pred_xy, true_xy, visibility) -> None:
    k = pred_xy.shape[-2:-1]
    if (
        pred_xy.shape[-1:] != (2,)
        or true_xy.shape[-2:] != pred_xy.shape[-2:]
        or visibility.shape[-1:] != k
    ):
        raise ValueError(
            "pred_xy and true_xy must end in [k, 2], visibility in [k]; got "
            f"{pred_xy.shape}, {true_xy.shape} and {visibility.shape}."
        )


def _check_leading(*, broadcast: bool = False, **shapes: tuple[int, ...]) -> None:
    """Raises for leading axes that differ, which broadcasting would hide."""
    same_rank = len({len(shape) for shape in shapes.values()}) == 1
    every_axis = zip(*shapes.values(), strict=False)
    axes = [set(axis) - ({1} if broadcast else set()) for axis in every_axis]
    if not same_rank or any(len(axis) > 1 for axis in axes):
        rule = "of one rank, and equal or 1" if broadcast else "equal"
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"leading axes must be {rule}; got {got}.")
