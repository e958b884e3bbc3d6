"""The input of a network that takes whole images, as the detector's.

`network_inputs` warps a canvas to the input of its bucket; `move` and `clip` are for boxes
in its frame. Coordinates of boxes are those of edges, see `detector`.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from pose_jax import geometry


def network_inputs(config, divisor, inputs, draw):
    """Converts canvases to network inputs.

    Args:
      config: config of the method.
      divisor: divisor of the input's sides.
      inputs: canvases.
      draw: random numbers of the augmentation; None: no augmentation.

    Returns:
      images in [0, 1], [b, h, w, 3]; the transform of edges image -> input, [b, 2, 3]; and
      the region of the input that the image covers, x0, y0, x1, y1 [b, 4].
    """
    torchvision = config.conventions == "torchvision"
    canvas_h, canvas_w = inputs.images.shape[1:3]
    width, height = input_size(
        config.size, (canvas_w, canvas_h), divisor, whole=torchvision
    )
    room = jnp.array([[width, height]], jnp.float32)
    image_size = jnp.maximum(inputs.box_xyxy[:, 2:] - inputs.box_xyxy[:, :2], 1)
    short, long = config.size
    factor = jnp.minimum(short / image_size.min(1), long / image_size.max(1))
    factor = jnp.minimum(factor, jnp.min(room / image_size, axis=1))
    corner = jnp.zeros_like(image_size)
    mirrored = jnp.zeros(factor.shape, bool)
    if draw is not None:
        factor, mirrored = factor / draw.scale, draw.flip
        corner = jnp.abs(draw.translation) * (room - factor[:, None] * image_size)
    factor_xy = jnp.stack([factor, factor], axis=1)
    if torchvision:  # The addition is for sides that are whole but for rounding.
        factor_xy = jnp.floor(factor_xy * image_size + 1e-3) / image_size
    shown = factor_xy * image_size
    sign = jnp.where(mirrored, -factor_xy[:, 0], factor_xy[:, 0])
    start = jnp.where(mirrored, corner[:, 0] + shown[:, 0], corner[:, 0])
    zero = jnp.zeros_like(factor)
    to_input = jnp.stack(
        [
            jnp.stack([sign, zero, start], axis=1),
            jnp.stack([zero, factor_xy[:, 1], corner[:, 1]], axis=1),
        ],
        axis=1,
    )
    # For pixel centers, which are half a pixel from the edges in both frames.
    half = jnp.stack([(sign - 1) / 2, (factor_xy[:, 1] - 1) / 2], axis=1)
    of_pixels = to_input.at[..., 2].add(half)
    canvas_to_input = geometry.compose(of_pixels, inputs.canvas_to_image)
    images = geometry.warp(inputs.images, canvas_to_input, size=(width, height)) / 255
    if torchvision:
        extent = geometry.transform_points(
            image_size[:, None] - 0.5, geometry.invert(inputs.canvas_to_image)
        )[:, 0]
        mean = jnp.array(config.model.pixels.mean, images.dtype)
        images = _bordered(images, canvas_to_input, extent + 0.5, mean)
    region_xyxy = jnp.concatenate([corner, corner + shown], axis=1)
    everything = jnp.concatenate([jnp.zeros_like(room), room], axis=1)
    everything = jnp.broadcast_to(everything, region_xyxy.shape)
    return images, to_input, clip(region_xyxy[:, None], everything)[:, 0]


def _bordered(images, canvas_to_input, canvas_size, color):
    """Repeats the border of images [b, h, w, 3] and fills what is beyond with a color.

    `geometry.warp` mixes the last half pixel with black: dividing by the fraction that is
    not black gives what interpolation with a repeated border gives.

    Args:
      images: as warped from canvases, which may be mirrored but not rotated.
      canvas_to_input: [b, 2, 3], of pixel centers.
      canvas_size: [b, 2] (width, height) of the image in its canvas.
      color: [3].
    """
    input_to_canvas = geometry.invert(canvas_to_input)

    def known(axis, count):
        """Returns [b, count]: the fraction inside the image, and which pixels are."""
        scale, shift = input_to_canvas[:, axis, axis], input_to_canvas[:, axis, 2]
        pixels = jnp.arange(count, dtype=scale.dtype)[None]
        place = scale[:, None] * pixels + shift[:, None]
        size = canvas_size[:, axis, None]
        fraction = jnp.clip(jnp.minimum(place + 1, size - place), 0.5, 1)
        return fraction, (place > -0.5) & (place < size - 0.5)

    height, width = images.shape[1:3]
    (across, in_x), (down, in_y) = known(0, width), known(1, height)
    images = images / (down[:, :, None, None] * across[:, None, :, None])
    inside = in_y[:, :, None, None] & in_x[:, None, :, None]
    return jnp.where(inside, images, color.reshape(1, 1, 1, 3))


def input_size(
    size: tuple[int, int],
    canvas: tuple[int, int],
    divisor: int,
    *,
    whole: bool = False,
) -> tuple[int, int]:
    """Returns (width, height) of the network's input for a bucket of canvases.

    Args:
      size: (short, long) side to fit in.
      canvas: (width, height) of the bucket.
      divisor: divisor of both sides.
      whole: the input has room for an image of any aspect that is not higher than wide in
        a canvas that is wider than high, and the reverse; for any image in a square one.
        False: for images of the canvas' aspect.
    """
    factor = min(size[0] / min(canvas), size[1] / max(canvas))
    sides = [side * factor for side in canvas]
    if whole:
        sides = [size[1] if side == max(canvas) else size[0] for side in canvas]
    # Less than a thousandth of a pixel is rounding.
    width, height = (math.ceil((side - 1e-3) / divisor) * divisor for side in sides)
    return width, height


def move(boxes_xyxy, transform):
    """Maps boxes [b, n, 4] to another frame, which may be mirrored but not rotated."""
    corners = boxes_xyxy.reshape(*boxes_xyxy.shape[:2], 2, 2)
    corners = geometry.transform_points(corners, transform)
    return jnp.concatenate([corners.min(2), corners.max(2)], axis=-1)


def clip(boxes_xyxy, region_xyxy):
    """Clips boxes [b, n, 4] to regions [b, 4]."""
    low, high = region_xyxy[:, None, :2], region_xyxy[:, None, 2:]
    corners = jnp.clip(
        boxes_xyxy.reshape(*boxes_xyxy.shape[:2], 2, 2),
        low[:, :, None],
        high[:, :, None],
    )
    return corners.reshape(boxes_xyxy.shape)
