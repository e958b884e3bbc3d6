"""Random augmentation of people: flip, scale, rotation, translation, half body, color.

All random numbers of a row are a function of (key, epoch, row): independent of threads,
batch size, device count and restarts. `draw` samples them, `view` turns them into a crop
box, `colour` changes pixels. Nothing here resamples.

Frames: boxes and points in the image frame. b rows, k keypoints.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from pose_jax.keypoints import KeypointSet


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Strength of the augmentation. All zero: no augmentation.

    Attributes:
      flip: probability of a mirror image.
      scale: the box is enlarged by a factor from N(1, scale), cut at 1 +- scale, or, by
        `scale_law` "uniform", from U(1 - scale, 1 + scale).
      rotation: degrees; angles from N(0, rotation), cut at +- twice that.
      rotation_probability: fraction of rows that are rotated.
      translation: the box moves by up to this fraction of its size, along x and y each.
      half_body: probability of cropping to the upper or the lower half, for people with
        more than `half_body_keypoints` labeled keypoints.
      brightness, contrast, saturation: factors from U(1 - v, 1 + v).
    """

    flip: float = 0.0
    scale: float = 0.0
    scale_law: Literal["normal", "uniform"] = "normal"
    rotation: float = 0.0
    rotation_probability: float = 0.6
    translation: float = 0.0
    half_body: float = 0.0
    half_body_keypoints: int = 8
    half_body_padding: float = 1.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draw:
    """Random numbers of a batch, one of each per row."""

    flip: Bool[Array, " b"]
    scale: Float[Array, " b"]
    rotation_deg: Float[Array, " b"]
    translation: Float[Array, "b 2"]
    half_body: Bool[Array, " b"]
    upper: Bool[Array, " b"]
    colour: Float[Array, "b 3"]


def draw(
    key: Array, epoch: Int32[Array, ""], row: Int32[Array, " b"], config: AugmentConfig
) -> Draw:
    """Samples each row with its own key, fold_in(fold_in(key, epoch), row)."""
    c = config
    limits = np.array([c.brightness, c.contrast, c.saturation], np.float32)

    def one(row_key):
        keys = jax.random.split(row_key, 8)
        if c.scale_law == "normal":
            scale = 1 + c.scale * jnp.clip(jax.random.normal(keys[1]), -1, 1)
        else:
            scale = 1 + c.scale * jax.random.uniform(keys[1], minval=-1)
        angle = c.rotation * jnp.clip(jax.random.normal(keys[2]), -2, 2)
        turned = jax.random.bernoulli(keys[3], c.rotation_probability)
        return Draw(
            flip=jax.random.bernoulli(keys[0], c.flip),
            scale=scale,
            rotation_deg=jnp.where(turned, angle, 0.0),
            translation=c.translation * jax.random.uniform(keys[4], (2,), minval=-1),
            half_body=jax.random.bernoulli(keys[5], c.half_body),
            upper=jax.random.bernoulli(keys[6], 0.5),
            colour=1 + jax.random.uniform(keys[7], (3,), minval=-1) * limits,
        )

    epoch_key = jax.random.fold_in(key, epoch)
    return jax.vmap(lambda r: one(jax.random.fold_in(epoch_key, r)))(row)


def view(
    center_xy: Float[Array, "b 2"],
    size: Float[Array, "b 2"],
    points_xy: Float[Array, "b k 2"],
    visibility: Int32[Array, "b k"],
    draw: Draw,
    keypoint_set: KeypointSet,
    config: AugmentConfig,
) -> tuple[Float[Array, "b 2"], Float[Array, "b 2"]]:
    """Moves, scales and halves padded person boxes; `size` keeps its aspect.

    Returns:
      center_xy and size of the crop boxes. `crop_transform` applies rotation and flip.
    """
    if config.half_body and keypoint_set.upper_body:
        upper = np.isin(np.arange(len(keypoint_set)), keypoint_set.upper_body)
        half_center, half_size, enough = _half_body(
            points_xy, visibility, draw.upper, upper, config.half_body_padding
        )
        # Widened to the aspect of the boxes, as the whole body was.
        aspect = size[:, :1] / size[:, 1:]
        height = jnp.maximum(half_size[:, 1:], half_size[:, :1] / aspect)
        half_size = jnp.concatenate([height * aspect, height], axis=1)
        labelled = jnp.sum(visibility > 0, axis=1)
        take = draw.half_body & enough & (labelled > config.half_body_keypoints)
        center_xy = jnp.where(take[:, None], half_center, center_xy)
        size = jnp.where(take[:, None], half_size, size)
    return center_xy + draw.translation * size, size * draw.scale[:, None]


def _half_body(points_xy, visibility, want_upper, upper, padding):
    """Returns center and padded extent of a half of each person, and if it has 3 points."""
    labelled = visibility > 0
    members = labelled & jnp.where(want_upper[:, None], upper[None], ~upper[None])
    other = labelled & ~members
    # If the sampled half has too few points, use the other one.
    members = jnp.where(members.sum(1, keepdims=True) > 2, members, other)
    count = members.sum(1)
    inside = members[..., None]
    mean = jnp.where(inside, points_xy, 0).sum(1) / jnp.maximum(count, 1)[:, None]
    low = jnp.where(inside, points_xy, jnp.inf).min(1)
    high = jnp.where(inside, points_xy, -jnp.inf).max(1)
    extent = jnp.where((count > 0)[:, None], high - low, 1.0)
    return mean, jnp.maximum(extent, 1.0) * padding, count > 2


def colour(
    images: Float[Array, "b h w 3"], factors: Float[Array, "b 3"]
) -> Float[Array, "b h w 3"]:
    """Scales saturation, brightness and contrast (about 0.5), in this order.

    Args:
      images: values in [0, 1].
      factors: (brightness, contrast, saturation) per row; 1 changes nothing.

    Returns:
      Values in [0, 1].
    """
    brightness, contrast, saturation = (
        factors[:, i, None, None, None] for i in range(3)
    )
    # Image and channel mean from one 1x1 convolution: with a second use of `images`, XLA's
    # CPU compiler splits the fused warp before it, which is ten times slower.
    kernel = jnp.concatenate([jnp.eye(3), jnp.full((3, 3), 1 / 3)], axis=1)
    both = jax.lax.conv_general_dilated(
        images,
        kernel[None, None],
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    images, gray = both[..., :3], both[..., 3:]
    images = brightness * ((images - gray) * saturation + gray)
    return jnp.clip((images - 0.5) * contrast + 0.5, 0, 1)
