"""Canvases: the image window of each row, decoding, and cropping.

A canvas is a uint8 RGB window of an image, reduced by an integer r where necessary:
canvas pixel p is the mean of r x r image pixels centered on r*p + offset + (r-1)/2.
A window is x, y, r, canvas width, canvas height; int32 [n, 5]. NumPy and Pillow only.
"""

from __future__ import annotations

import numpy as np

from pose_jax.data import pixels as pixels_lib
from pose_jax.data.table import Table, encoded
from pose_jax.errors import InputError
from pose_jax.types import ImageView, PersonView


def person_windows(
    table: Table, view: PersonView, canvas_size: tuple[int, int], training: bool
) -> np.ndarray:
    """Returns the window of each person, [n, 5].

    The whole image where it fits; else a window around the padded box (times `reach` in
    training), reduced by the smallest integer that makes it fit, unless the canvas would
    have a lower resolution than the network's input.
    """
    canvas = np.array(canvas_size, np.int64)
    image = table.image_sizes[table.image].astype(np.int64)
    boxes = table.boxes_xyxy
    center, padded = person_box(boxes, aspect=view.aspect, padding=view.padding)
    half = padded * ((view.reach if training else 1.0) / 2)
    coarsest = np.floor((padded / np.array(view.size)).min(-1)).astype(np.int64)
    coarsest = np.maximum(coarsest, 1)

    def needed(r):  # [n, 1] -> first and one past the last image pixel, [n, 2] each
        # One more canvas pixel on either side, for bilinear taps and float rounding.
        first = np.clip(np.floor(center - half) - r, 0, image)
        last = np.clip(np.floor(center + half) + 2 + r, 0, image)
        return first.astype(np.int64), last.astype(np.int64)

    r = np.ones(len(table), np.int64)
    whole = (image <= canvas).all(-1)
    while True:
        first, last = needed(r[:, None])
        fits = last - first <= r[:, None] * canvas  # [n, 2]
        grow = ~whole & ~fits.all(-1) & (r < coarsest)
        if not grow.any():
            break
        r += grow
    # Where an axis fits, center the whole window; else crop it to the canvas.
    covered = r[:, None] * canvas
    inside = (first + last - covered) // 2
    cut = np.floor(np.clip(center, 0, image) - covered / 2 + 0.5).astype(np.int64)
    corner = np.where(fits, inside, cut)
    corner = np.clip(corner, 0, np.maximum(image - covered, 0))
    sizes = np.broadcast_to(canvas, corner.shape)
    return np.concatenate([corner, r[:, None], sizes], -1).astype(np.int32)


def image_windows(table: Table, view: ImageView) -> np.ndarray:
    """Returns the window of each image, [m, 5]: always the whole image.

    It uses the smallest bucket that holds it; if none does, it is reduced until one does.
    """
    buckets = np.array(sorted(view.buckets, key=lambda b: (b[0] * b[1], b)), np.int64)
    sizes = table.image_sizes.astype(np.int64)
    r = np.ones(len(sizes), np.int64)
    while True:
        cells = -(-sizes // r[:, None])
        fits = (cells[:, None] <= buckets).all(-1)  # [m, buckets]
        if fits.any(-1).all():
            break
        r += ~fits.any(-1)
    bucket = buckets[fits.argmax(-1)]
    windows = np.concatenate([np.zeros_like(sizes), r[:, None], bucket], -1)
    return windows.astype(np.int32)


def person_box(
    boxes_xyxy: np.ndarray, *, aspect: float | None, padding: float
) -> tuple[np.ndarray, np.ndarray]:
    """`geometry.person_box` on the host, in float64, for a whole table at once."""
    center = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    size = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1)
    if aspect is not None:
        size = np.maximum(size, size[:, ::-1] * (aspect, 1 / aspect))
    return center, size * padding


def decode(table: Table, image: int, undecided: set[int] | None = None) -> np.ndarray:
    """Decodes an image to uint8 [h, w, 3], in the frame of the annotations.

    Args:
      table: the images.
      image: index of the image.
      undecided: as in `framed`.

    Raises:
      InputError: it cannot be read, or its size differs from the table.
    """
    source = table.images[image]
    if isinstance(source, np.ndarray):
        return framed(table, image, source)
    picture = pixels_lib.read(encoded(source), _where(table, image))
    return framed(table, image, picture.pixels, picture.orientation, undecided)


def shown(table: Table, image: int) -> np.ndarray:
    """Returns `decode`, for drawing; gray if images that cannot be read are skipped."""
    try:
        return decode(table, image)
    except InputError:
        if table.on_error != "skip":
            raise
        return np.full((*table.image_sizes[image][::-1], 3), 128, np.uint8)


def framed(
    table: Table,
    image: int,
    pixels: np.ndarray,
    orientation: int = 1,
    undecided: set[int] | None = None,
) -> np.ndarray:
    """Turns stored pixels into the frame of the annotations, see `pixels.turns`.

    Args:
      table: the images.
      image: index of the image.
      pixels: [h, w, 3], as stored.
      orientation: EXIF's.
      undecided: the image is added if its annotated size does not decide the frame.

    Raises:
      InputError: the size differs from the annotations.
    """
    height, width = pixels.shape[:2]
    listed = tuple(table.image_sizes[image].tolist())
    try:
        turn, open_ = pixels_lib.turns((width, height), orientation, listed, table.exif)
    except ValueError as found:
        raise InputError(
            f"{_where(table, image)} is {found}, the annotations say "
            f"{listed[0]}x{listed[1]}. Is it the original file?"
        ) from None
    if open_ and undecided is not None:
        undecided.add(int(image))
    return pixels_lib.turned(pixels, orientation) if turn else pixels


def _where(table: Table, image: int) -> str:
    source = table.images[image]
    name = "pixels" if isinstance(source, np.ndarray) else source
    return f"{name} (image id {table.image_ids[image]})"


def cut(pixels: np.ndarray, window: np.ndarray, out: np.ndarray) -> None:
    """Fills a canvas [h, w, 3] with a window (x, y, r, ...) of an image, zero outside.

    The image is padded with zeros, so cells across the border are darkened, exactly as a
    bilinear warp does.
    """
    x, y, r = (int(v) for v in window[:3])
    height, width = out.shape[:2]
    seen = pixels[y : y + r * height, x : x + r * width]
    if r > 1:
        seen = _reduce(seen, r)
    h, w = seen.shape[:2]
    out[:h, :w] = seen
    out[h:] = 0
    out[:h, w:] = 0


def _reduce(pixels: np.ndarray, r: int) -> np.ndarray:
    """Returns means of r x r pixels, halves rounded up, int32; zero beyond the border."""
    h, w = (-(-side // r) for side in pixels.shape[:2])
    lacking = (h * r - pixels.shape[0], w * r - pixels.shape[1])
    if any(lacking):
        pixels = np.pad(pixels, ((0, lacking[0]), (0, lacking[1]), (0, 0)))
    # Rows first: contiguous, and in 16 bits while r <= 257.
    rows = pixels.reshape(h, r, w * r * 3)
    columns = np.zeros((h, w * r * 3), np.uint16 if r <= 257 else np.uint32)
    for i in range(r):
        columns += rows[:, i]
    columns = columns.reshape(h, w, r, 3)
    total = np.zeros((h, w, 3), np.int32)
    for i in range(r):
        total += columns[:, :, i]
    return (2 * total + r * r) // (2 * r * r)
