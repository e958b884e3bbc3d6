"""Coordinates normalized by a box, and the cascade of DeepPose.

Points are (x, y), boxes (x, y, x + w, y + h), both in pixels of one frame. Normalized
coordinates are 0 at the center of the box and +-0.5 at its sides. Inputs must be
floating point (integers raise an error); results have at least float32: bfloat16
would round a coordinate of 300 to two pixels.

A side below 1 px, or negative, counts as 1 px in all functions, as in `geometry`: a box
of size zero gives finite numbers, and `denormalize` remains the inverse of `normalize`.

A later stage of the cascade sees a square crop around each joint, with a side proportional
to the person's `diameter`. `refine` applies its output.

*b leading axes, k keypoints; a side has the leading axes of its points, or 1 instead.

Source: DeepPose, Toshev and Szegedy, CVPR 2014, arXiv:1312.4659.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def normalize(
    points_xy: Float[Array, "*b k 2"], box_xyxy: Float[Array, "*b 4"]
) -> Float[Array, "*b k 2"]:
    """N(y; b) of DeepPose, eq. (1): (y - center) / (width, height) of the box.

    Each axis has its own length, so the matching crop N(x; b) does not keep the aspect.

    Args:
      points_xy: pixels.
      box_xyxy: one for all points of a row, pixels; a side below 1 px counts as 1 px.

    Returns:
      Units of the box: in [-0.5, 0.5] inside it.

    Raises:
      ValueError: the leading axes differ, or integers.
    """
    points_xy, center_xy, size = _points_and_box(points_xy, box_xyxy)
    return (points_xy - center_xy) / size


def denormalize(
    points_xy: Float[Array, "*b k 2"], box_xyxy: Float[Array, "*b 4"]
) -> Float[Array, "*b k 2"]:
    """The inverse of `normalize`: center + (width, height) * y.

    Args:
      points_xy: units of the box, as a network predicts them.
      box_xyxy: one for all points of a row, pixels; a side below 1 px counts as 1 px.

    Returns:
      Pixels.

    Raises:
      ValueError: the leading axes differ, or integers.
    """
    points_xy, center_xy, size = _points_and_box(points_xy, box_xyxy)
    return center_xy + size * points_xy


def diameter(
    points_xy: Float[Array, "*b k 2"],
    torso: tuple[int, int],
    *,
    visibility: Shaped[Array, "*b k"] | None = None,
) -> Float[Array, "*b"]:
    """diam(y): the distance between the opposing joints of the torso.

    Args:
      points_xy: pixels.
      torso: `KeypointSet.torso`: a shoulder and the hip of the other side.
      visibility: 0 not labeled, else labeled; None: all are known.

    Returns:
      Pixels; 0 where one of the two is not labeled, whatever its coordinates. The
      gradient is finite, and 0 where both coincide.

    Raises:
      ValueError: torso names a keypoint that does not exist, shapes differ, or integers.
    """
    (points_xy,) = _floats(points_xy=points_xy)
    _check_points(points_xy)
    for i in torso:
        if not 0 <= i < points_xy.shape[-2]:  # JAX would clamp it to another keypoint.
            raise ValueError(
                f"torso names keypoint {i}; there are {points_xy.shape[-2]}."
            )
    i, j = torso
    difference = points_xy[..., i, :] - points_xy[..., j, :]
    if visibility is not None:
        visibility = jnp.asarray(visibility)
        if visibility.shape != points_xy.shape[:-1]:
            raise ValueError(
                "visibility must be [*b, k], one value per point; got "
                f"{visibility.shape} and {points_xy.shape}."
            )
        known = (visibility[..., i] > 0) & (visibility[..., j] > 0)
        difference = jnp.where(known[..., None], difference, 0)
    square = jnp.sum(jnp.square(difference), axis=-1)
    apart = square != 0  # The gradient of the root is not finite at 0.
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def refine(
    points_xy: Float[Array, "*b 2"],
    output_xy: Float[Array, "*b 2"],
    side: Float[Array, "*#b"],
) -> Float[Array, "*b 2"]:
    """Updates the joints by one more stage: y + side * psi.

    The paper's update y + N^-1(psi; b), read literally, adds the center of the box twice:
    b is centered at y, and N^-1 already adds that center. This function is N^-1 alone.

    Args:
      points_xy: joints of the previous stage, at the centers of the crops, pixels.
      output_xy: for each joint, its own component of the network's output for its crop,
        in units of the crop.
      side: side of the crops, pixels; below 1 px counts as 1 px.

    Returns:
      Pixels.

    Raises:
      ValueError: shapes do not match, or integers.
    """
    points_xy, output_xy, side = _floats(
        points_xy=points_xy, output_xy=output_xy, side=side
    )
    batch = points_xy.shape[:-1]
    if points_xy.shape != (*batch, 2) or output_xy.shape != points_xy.shape:
        raise ValueError(
            "points_xy and output_xy must be [*b, 2]; got "
            f"{points_xy.shape} and {output_xy.shape}."
        )
    if side.ndim != len(batch) or any(
        n not in (1, m) for n, m in zip(side.shape, batch, strict=True)
    ):
        raise ValueError(
            f"side needs the leading axes of the points, {batch}, or 1 instead; got "
            f"{side.shape}."
        )
    return points_xy + jnp.maximum(side, 1)[..., None] * output_xy


def _floats(**arrays):
    """Converts all to float32 or better."""
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point; got {array.dtype}.")
    return [
        array.astype(jnp.promote_types(array.dtype, jnp.float32))
        for array in arrays.values()
    ]


def _check_points(points_xy):
    if points_xy.ndim < 2 or points_xy.shape[-1] != 2:
        raise ValueError(f"points_xy must be [*b, k, 2]; got {points_xy.shape}.")


def _points_and_box(points_xy, box_xyxy):
    """Returns points, and the center and size of each row's box, [*b, 1, 2]."""
    points_xy, box_xyxy = _floats(points_xy=points_xy, box_xyxy=box_xyxy)
    _check_points(points_xy)
    if box_xyxy.shape != (*points_xy.shape[:-2], 4):
        raise ValueError(
            "points_xy is [*b, k, 2] and box_xyxy [*b, 4], with the same *b; got "
            f"{points_xy.shape} and {box_xyxy.shape}."
        )
    low, high = box_xyxy[..., None, :2], box_xyxy[..., None, 2:]
    return points_xy, 0.5 * (low + high), jnp.maximum(high - low, 1)
