"""What the methods that look at one person share: cutting the view, moving the labels.

Frames: boxes, canvases and labels come in the image frame; what goes out is in the frame of
the network's input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose_jax import geometry, keypoints, models
from pose_jax.errors import ConfigError
from pose_jax.methods import augment
from pose_jax.types import Batch, Inputs, Key, PersonView

# ImageNet's, of values in [0, 1]; [b, h, w, 3].
_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 1, 3)
_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 1, 3)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A network: `models.build(name, k, norm=..., dtype=..., **options)`."""

    name: str
    norm: Literal["batch", "frozen", "group"] = "batch"
    dtype: Literal["float32", "bfloat16"] = "float32"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def network(config: ModelConfig, num_keypoints: int, size: tuple[int, int]):
    """A network, and a phase's `init`: a key to its {"params", "batch_stats"}.

    Args:
      config: which one.
      num_keypoints: of its output.
      size: (width, height) of its input.
    """
    model = models.build(
        config.name,
        num_keypoints,
        norm=config.norm,
        dtype=jnp.dtype(config.dtype),
        **config.options,
    )

    def init(key: Key) -> dict[str, Any]:
        w, h = size
        try:
            variables = model.init(key, jnp.zeros((1, h, w, 3)), train=True)
        except ValueError as error:  # A size, or an option, that the network refuses.
            raise ConfigError(
                f"config.method: {config.name!r} with input_size ({w}, {h}): {error}"
            ) from error
        return {"batch_stats": {}, **variables}

    return model, init


def normalise(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Values in [0, 1] to what the networks take: ImageNet's mean 0, deviation 1."""
    return (images - _MEAN) / _STD


def denormalise(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """The inverse of `normalise`, for pictures: values in [0, 1]."""
    return jnp.clip(images * _STD + _MEAN, 0, 1)


def crop(
    view: PersonView, inputs: Inputs, center_xy, size, rotation_deg=0.0, flip=False
):
    """The network's view of boxes in the image frame.

    Returns:
      images in [0, 1], [b, h, w, 3], and the transform image -> input, [b, 2, 3].
    """
    image_to_input = geometry.crop_transform(
        center_xy,
        size,
        rotation_deg,
        output_size=view.size,
        alignment=view.alignment,
        flip=flip,
    )
    canvas_to_input = geometry.compose(image_to_input, inputs.canvas_to_image)
    images = geometry.warp(inputs.images, canvas_to_input, size=view.size)
    return images / 255, image_to_input


def labelled_points(labels) -> Float[Array, "b k 2"]:
    """Points in the image frame; what is not labelled may be anything, NaN included."""
    return jnp.where(labels.visibility[..., None] > 0, labels.points_xy, 0)


def mirror_names(points_xy, visibility, flip, keypoint_set: keypoints.KeypointSet):
    """Exchanges left and right in the rows that are mirrored.

    Args:
      points_xy: [b, k, 2], or of several people a row, [b, m, k, 2].
      visibility: [b, k], or [b, m, k].
      flip: [b], which rows.
    """

    def exchange(values, axis):
        rows = flip.reshape(-1, *(1 for _ in values.shape[1:]))
        return jnp.where(rows, keypoints.swap(values, keypoint_set, axis=axis), values)

    return exchange(points_xy, -2), exchange(visibility, -1)


def example(
    view: PersonView,
    batch: Batch,
    key: Key | None,
    keypoint_set: keypoints.KeypointSet,
    config: augment.AugmentConfig,
) -> dict[str, Array]:
    """The whole person, augmented if there is a key, and the labels in the input frame.

    Returns:
      images (normalised), points_xy [b, k, 2], visibility [b, k], valid [b]; others_xy
      [b, m, k, 2] and others_visibility [b, m, k] if the view has `max_others`.
    """
    inputs, labels = batch.inputs, batch.labels
    center_xy, size = geometry.person_box(
        inputs.box_xyxy, aspect=view.aspect, padding=view.padding
    )
    if key is None:
        images, image_to_input = crop(view, inputs, center_xy, size)
    else:
        draw = augment.draw(key, batch.epoch, inputs.row, config)
        center_xy, size = augment.view(
            center_xy,
            size,
            labels.points_xy,
            labels.visibility,
            draw,
            keypoint_set,
            config,
        )
        images, image_to_input = crop(
            view, inputs, center_xy, size, draw.rotation_deg, draw.flip
        )
        images = augment.colour(images, draw.colour)

    def seen(points_xy, visibility, transform):
        """In the frame of the input, under the names that they have there."""
        labelled = (visibility > 0)[..., None]
        points_xy = jnp.where(labelled, points_xy, 0)
        points_xy = geometry.transform_points(points_xy, transform)
        if key is not None:
            return mirror_names(points_xy, visibility, draw.flip, keypoint_set)
        return points_xy, visibility

    points_xy, visibility = seen(labels.points_xy, labels.visibility, image_to_input)
    found = {
        "images": normalise(images),
        "points_xy": points_xy,
        "visibility": visibility,
        "valid": inputs.valid,
    }
    if view.max_others:
        b, m = labels.others_visibility.shape[:2]
        each = jnp.broadcast_to(image_to_input[:, None], (b, m, 2, 3))
        found["others_xy"], found["others_visibility"] = seen(
            labels.others_xy, labels.others_visibility, each
        )
    return found
