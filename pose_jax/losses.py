"""Losses per keypoint, and `masked_mean`, which reduces them to a scalar.

Maps are [*b, h, w, k], points (x, y) [*b, k, 2]; each loss returns [*b, k]. A weight of
exactly 0 removes its element: not even a NaN in the target reaches the value or the
gradient. bfloat16 inputs are computed in float32. Shapes must be equal; nothing is
broadcast.

b rows, h w rows and columns of a map, k keypoints.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


def heatmap_mse(
    pred: Float[Array, "*b h w k"],
    target: Float[Array, "*b h w k"],
    *,
    weight: Shaped[Array, "*b k"],
) -> Float[Array, "*b k"]:
    """Mean of (pred - target)^2 over the pixels of each map, times its weight.

    HRNet (arXiv:1902.09212) and DARK (arXiv:1910.06278) train with half of its mean
    over rows and keypoints. Their code multiplies the maps by the weight, so that a
    weight other than 0 and 1 acts squared there.

    Args:
      pred: heatmaps.
      target: heatmaps.
      weight: per map.

    Returns:
      >= 0 where the weight is.

    Raises:
      ValueError: shapes do not match.
    """
    pred, target = _pair("pred", pred, "target", target, 3)
    _check_shape("weight [*b, k]", weight, pred.shape[:-3] + pred.shape[-1:])
    weight = jnp.asarray(weight, pred.dtype)
    counted = (weight != 0)[..., None, None, :]
    return weight * jnp.mean(jnp.square(_where(counted, pred - target)), axis=(-3, -2))


def heatmap_sigmoid_cross_entropy(
    logits: Float[Array, "*b h w k"],
    target: Float[Array, "*b h w k"],
    *,
    weight: Shaped[Array, ...],
) -> Float[Array, "*b k"]:
    """Sum of the logistic loss over the pixels of each map, times the weight.

    The L_h of MultiPose (arXiv:1701.01779). A sum, as in the paper and in `offset_huber`:
    the factors of eq. (6) assume that both are sums over pixels. Logits of 0 give
    h * w * ln 2; infinite logits are certain: 0 where the target agrees, else inf.

    Args:
      logits: before the sigmoid.
      target: probabilities in [0, 1].
      weight: per map, [*b, k], or per pixel, [*b, h, w, k] (MultiPose excludes the discs
        of other people from the loss of its auxiliary map).

    Returns:
      >= 0 where the weights are.

    Raises:
      ValueError: shapes do not match.
    """
    logits, target = _pair("logits", logits, "target", target, 3)
    weight = jnp.asarray(weight, logits.dtype)
    if weight.ndim == logits.ndim:
        _check_shape("weight [*b, h, w, k]", weight, logits.shape)
    else:
        _check_shape("weight [*b, k]", weight, logits.shape[:-3] + logits.shape[-1:])
        weight = weight[..., None, None, :]
    counted = weight != 0
    logits, target = _where(counted, logits), _where(counted, target)
    infinite = jnp.isinf(logits)
    finite = jnp.where(infinite, 0, logits)
    # log(1 + exp(x)) - x t; with abs and maximum its gradient would be wrong at 0
    positive = finite >= 0
    loss = jnp.where(positive, finite, 0) - finite * target
    loss += jnp.log1p(jnp.exp(jnp.where(positive, -finite, finite)))
    # The limit, in which inf * 0, where the target agrees, is 0.
    slope = jnp.where(logits > 0, 1 - target, -target)
    limit = jnp.where(infinite & (slope != 0), logits, 0) * slope
    loss = jnp.where(infinite, limit, loss)
    return jnp.sum(weight * loss, axis=(-3, -2))


def offset_huber(
    pred: Float[Array, "*b h w k 2"],
    target: Float[Array, "*b h w k 2"],
    *,
    mask: Shaped[Array, "*b h w k"],
    delta: float,
) -> Float[Array, "*b k"]:
    """Huber loss of the length of the offset error, summed over a mask: MultiPose, eq. (5).

    H(u) = u^2 / 2 up to delta and delta (u - delta / 2) beyond, with u the norm of the
    2-vector, not each coordinate by itself (MultiPose, arXiv:1701.01779).

    Args:
      pred: offsets (x, y), pixels.
      target: offsets (x, y), pixels; unused outside the mask.
      mask: bool, or 0 and 1: the disc of each keypoint.
      delta: length at which the loss turns from quadratic to linear, pixels.

    Returns:
      >= 0; 0 for an empty mask.

    Raises:
      ValueError: shapes do not match or delta is not positive.
    """
    if delta <= 0:
        raise ValueError(f"delta must be positive, in pixels; got {delta}.")
    pred, target = _pair("pred", pred, "target", target, 4, xy=True)
    _check_shape("mask [*b, h, w, k]", mask, pred.shape[:-1])
    counted = jnp.asarray(mask, bool)
    # Coordinate by coordinate: with a last axis of two, XLA's code for CPUs takes over ten
    # times as long.
    x, y = (_where(counted, pred[..., i] - target[..., i]) for i in (0, 1))
    return jnp.sum(_huber(jnp.square(x) + jnp.square(y), delta), axis=(-3, -2))


def keypoint_squared_error(
    pred_xy: Float[Array, "*b k 2"],
    true_xy: Float[Array, "*b k 2"],
    *,
    weight: Shaped[Array, "*b k"],
) -> Float[Array, "*b k"]:
    """Squared distance of each keypoint, times its weight: DeepPose, eqs. (2), (3).

    DeepPose (Toshev & Szegedy, CVPR 2014) sums it over the labeled keypoints, in
    coordinates normalized by the box.

    Args:
      pred_xy: any frame.
      true_xy: the same frame; unused where the weight is 0.
      weight: per keypoint; 0 where it is not labeled.

    Returns:
      >= 0 where the weight is, in the frame's unit squared.

    Raises:
      ValueError: shapes do not match.
    """
    pred_xy, true_xy = _pair("pred_xy", pred_xy, "true_xy", true_xy, 2, xy=True)
    _check_shape("weight [*b, k]", weight, pred_xy.shape[:-1])
    weight = jnp.asarray(weight, pred_xy.dtype)
    error = _where((weight != 0)[..., None], pred_xy - true_xy)
    return weight * jnp.sum(jnp.square(error), axis=-1)


def keypoint_smooth_l1(
    pred_xy: Float[Array, "*b k 2"],
    true_xy: Float[Array, "*b k 2"],
    *,
    weight: Shaped[Array, "*b k"],
    beta: float = 1.0,
) -> Float[Array, "*b k"]:
    """Sum of the smooth L1 losses of x and y, times the weight of the keypoint.

    u^2 / (2 beta) up to beta and |u| - beta / 2 beyond: the loss of the regression
    baselines that came after DeepPose (Fast R-CNN, arXiv:1504.08083, eq. 3).

    Args:
      pred_xy: any frame.
      true_xy: the same frame; unused where the weight is 0.
      weight: per keypoint; 0 where it is not labeled.
      beta: error at which the loss turns from quadratic to linear, in the frame's unit.

    Returns:
      >= 0 where the weight is, in the frame's unit.

    Raises:
      ValueError: shapes do not match or beta is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, in the frame's unit; got {beta}.")
    pred_xy, true_xy = _pair("pred_xy", pred_xy, "true_xy", true_xy, 2, xy=True)
    _check_shape("weight [*b, k]", weight, pred_xy.shape[:-1])
    weight = jnp.asarray(weight, pred_xy.dtype)
    error = _where((weight != 0)[..., None], pred_xy - true_xy)
    return weight * jnp.sum(_huber(jnp.square(error), beta), axis=-1) / beta


def bins_divergence(
    logits: Float[Array, "*b k n"],
    target: Float[Array, "*b k n"],
    *,
    weight: Shaped[Array, "*b k"],
) -> Float[Array, "*b k"]:
    """Mean over bins of target * (log target - log softmax(logits)), times the weight.

    The loss of SimCC (arXiv:2107.03332) for one axis: the Kullback-Leibler divergence
    KL(target || softmax(logits)) over the number of bins.

    Args:
      logits: per bin, before the softmax.
      target: density at each bin, >= 0; a bin of density 0 adds nothing.
      weight: per keypoint.

    Returns:
      >= 0 where each target sums to 1 and the weight is >= 0.

    Raises:
      ValueError: shapes do not match.
    """
    logits, target = _pair("logits", logits, "target", target, 2)
    _check_shape("weight [*b, k]", weight, logits.shape[:-1])
    weight = jnp.asarray(weight, logits.dtype)
    counted = (weight != 0)[..., None]
    logits, target = _where(counted, logits), _where(counted, target)
    log_prob = jax.nn.log_softmax(logits, axis=-1)
    used = target > 0
    log_target = jnp.log(jnp.where(used, target, 1))
    each = jnp.where(used, target * (log_target - log_prob), 0)
    return weight * jnp.mean(each, axis=-1)


def masked_mean(
    values: Float[Array, ...],
    mask: Bool[Array, ...] | Float[Array, ...],
    *,
    normalize_by: Literal["mask", "all"],
) -> Float[Array, ""]:
    """Reduces a loss to its mean over all axes.

    Args:
      values: e.g. the loss of each keypoint.
      mask: bool, or 0 and 1: which values count. Weights belong in the loss, not here.
      normalize_by: "mask": divide by the number that count; "all": by the total number, as
        HRNet's code does, so that a row with few labels contributes less.

    Returns:
      The mean; 0 if nothing counts.

    Raises:
      ValueError: shapes differ or normalize_by is unknown.
    """
    if normalize_by not in ("mask", "all"):
        raise ValueError(f'normalize_by is "mask" or "all"; got {normalize_by!r}.')
    values, mask = _as_float(values), jnp.asarray(mask, bool)
    _check_shape("mask", mask, values.shape)
    count = jnp.sum(mask) if normalize_by == "mask" else values.size
    return jnp.sum(_where(mask, values)) / jnp.maximum(count, 1)


def _huber(square, delta):
    """Huber loss of u >= 0 given u^2; its gradient is 0 at 0, where sqrt has none."""
    far = square > delta**2
    length = jnp.sqrt(jnp.where(far, square, delta**2))
    return jnp.where(far, delta * (length - delta / 2), square / 2)


def _where(counted, values):
    """Sets values and their gradients to zero where not counted."""
    return jnp.where(counted, values, 0)


def _as_float(values):
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _pair(name, pred, target_name, target, axes, *, xy=False):
    """Checks for one shape of at least `axes` axes; casts to float32 or better."""
    if jnp.shape(pred) != jnp.shape(target):
        raise ValueError(
            f"{name} and {target_name} need one shape; got {jnp.shape(pred)} and "
            f"{jnp.shape(target)}."
        )
    if jnp.ndim(pred) < axes or (xy and jnp.shape(pred)[-1] != 2):
        layout = "[*b, h, w, k]" if not xy else f"[*b, {'h, w, ' * (axes == 4)}k, 2]"
        raise ValueError(f"{name} is {layout}; got {jnp.shape(pred)}.")
    return _as_float(pred), _as_float(target)


def _check_shape(what, array, shape):
    if jnp.shape(array) != shape:
        raise ValueError(f"{what} must have shape {shape}; got {jnp.shape(array)}.")
