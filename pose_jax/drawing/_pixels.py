"""Shared helpers for images."""

from __future__ import annotations

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)
SUPERSAMPLE = 3
"""Factor by which lines are drawn larger, for anti-aliasing, which Pillow lacks."""


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Converts an image of floats in [0, 1] to uint8; returns uint8 unchanged."""
    image = np.asarray(image)
    floating = np.issubdtype(image.dtype, np.floating)
    known = floating or image.dtype == np.uint8
    if not known or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            "an image must be [h, w, 3], uint8 or float in [0, 1]; got "
            f"{image.dtype} {image.shape}."
        )
    if floating:
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return image


def part(image, low, size, shape: tuple[int, int]) -> Image.Image:
    """Crops `size` pixels of an image from the point `low` on, resized to (width, height)
    `shape`; black beyond the border."""
    edges = np.asarray(low) + 0.5  # Points are relative to pixel centers.
    box = (*edges, *(edges + size))
    return Image.fromarray(as_uint8(image)).transform(
        shape, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
