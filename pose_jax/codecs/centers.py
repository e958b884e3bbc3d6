"""The person in the middle: centers of people, and keypoints regressed from them.

A map of centers says where people are, and a field of regression where the keypoints of
the person around a pixel roughly lie. MoveNet uses them to choose, among the peaks of a
heatmap, that of the person in the middle of the image: the heatmap is divided by the
distance to the rough position. No number in this depends on the training.

Points are (x, y) in pixels of the map with integer pixel centers; maps are [*b, h, w, k].

Sources: CenterNet, arXiv:1904.07850; MoveNet, version 4, whose graph has these formulas.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pose_jax.codecs import _peaks

_NEAR = 1.8
"""Distance at which a weight is half of that at distance 0, pixels of the map."""


def weights(
    centers: Float[Array, "*b h w 1"], regression: Float[Array, "*b h w k 2"]
) -> Float[Array, "*b h w k"]:
    """Returns the weights of a heatmap's pixels that choose the person in the middle.

    The center is the pixel with the largest product of center probability and closeness to
    (w/2, h/2); the rough keypoints are the center plus the regression there. Closeness is
    1 / (distance + 1.8). Weights have no gradient.

    Args:
      centers: logits of being the center of a person.
      regression: from each pixel to the keypoints of its person, (x, y).

    Returns:
      1 / (distance to the rough keypoint + 1.8): positive, at most 1/1.8.

    Raises:
      ValueError: shapes that do not match, or integers.
    """
    if centers.ndim < 3 or centers.shape[-1] != 1:
        raise ValueError(f"centers must be [*b, h, w, 1]; got {centers.shape}.")
    if regression.ndim < 4 or regression.shape[:-2] != centers.shape[:-1]:
        raise ValueError(
            f"regression must be [*b, h, w, k, 2] with the axes of centers, "
            f"{centers.shape}; got {regression.shape}."
        )
    if regression.shape[-1] != 2:
        raise ValueError(f"regression must end in (x, y); got {regression.shape}.")
    _check_floating(centers=centers, regression=regression)
    dtype = jnp.result_type(jnp.float32, centers.dtype, regression.dtype)
    leading, (h, w, k) = centers.shape[:-3], regression.shape[-4:-1]
    n = math.prod(leading)
    found = _weights(
        jnp.reshape(centers, (n, h, w, 1)).astype(dtype),
        jnp.reshape(regression, (n, h, w, k, 2)).astype(dtype),
    )
    return lax.stop_gradient(found.reshape(*leading, h, w, k))


@jax.jit
def _weights(centers, regression):
    n, h, w, k = regression.shape[:4]
    middle = jnp.array([w / 2, h / 2], centers.dtype).reshape(1, 1, 1, 1, 2)
    likely = jax.nn.sigmoid(centers) * _closeness(middle, h, w)
    y, x, _ = _peaks._peaks(likely)  # [n, 1]
    center = jnp.concatenate([x, y], axis=-1).astype(regression.dtype)
    rough_xy = center[:, None] + regression[jnp.arange(n), y[:, 0], x[:, 0]]
    return _closeness(rough_xy.reshape(n, 1, 1, k, 2), h, w)


def _closeness(points_xy, h: int, w: int):
    """[n, 1, 1, k, 2] -> [n, h, w, k]."""
    x = jnp.arange(w, dtype=points_xy.dtype).reshape(1, 1, w, 1)
    y = jnp.arange(h, dtype=points_xy.dtype).reshape(1, h, 1, 1)
    distance = jnp.hypot(points_xy[..., 0] - x, points_xy[..., 1] - y)
    return 1 / (distance + _NEAR)


def around(
    heatmaps: Float[Array, "*b h w k"],
    weights: Float[Array, "*b h w k"],
    *,
    radius: int,
) -> Float[Array, "*b h w k"]:
    """Keeps of each heatmap the pixels around the peak that the weights choose.

    Decoders of the result refine that peak, whatever other people the heatmap shows.

    Args:
      heatmaps: values >= 0.
      weights: of the heatmaps; the peak is the largest product.
      radius: pixels kept to each side of the peak.

    Returns:
      The heatmaps, 0 outside of a square of 2 * radius + 1 pixels.

    Raises:
      ValueError: shapes differ, or a negative radius.
    """
    if heatmaps.shape != weights.shape or heatmaps.ndim < 3:
        raise ValueError(
            "heatmaps and weights are both [*b, h, w, k]; got "
            f"{heatmaps.shape} and {weights.shape}."
        )
    _check_floating(heatmaps=heatmaps, weights=weights)
    if radius < 0:
        raise ValueError(f"radius must be at least 0, pixels; got {radius}.")
    leading, (h, w, k) = heatmaps.shape[:-3], heatmaps.shape[-3:]
    maps = jnp.reshape(heatmaps, (math.prod(leading), h, w, k))
    y, x, _ = _peaks._peaks(maps * jnp.reshape(weights, maps.shape))
    rows = jnp.arange(h).reshape(1, h, 1, 1) - y[:, None, None, :]
    columns = jnp.arange(w).reshape(1, 1, w, 1) - x[:, None, None, :]
    near = (jnp.abs(rows) <= radius) & (jnp.abs(columns) <= radius)
    return jnp.where(near, maps, 0).reshape(heatmaps.shape)


def _check_floating(**arrays):
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point; got {array.dtype}.")
