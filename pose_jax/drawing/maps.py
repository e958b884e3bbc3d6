"""Heatmaps overlaid on their images."""

from __future__ import annotations

import colorsys

import numpy as np

from pose_jax.drawing._pixels import as_uint8
from pose_jax.drawing.people import draw_pose
from pose_jax.geometry import ALIGNMENTS, Alignment
from pose_jax.keypoints import KeypointSet


def heatmap_overlay(
    image: np.ndarray,
    heatmaps: np.ndarray,
    *,
    alignment: Alignment = "stride",
    strength: float = 0.65,
) -> np.ndarray:
    """Overlays heatmaps on their image, with one hue per keypoint.

    Args:
      image: [h, w, 3], the network input.
      heatmaps: [h', w', k]; 0 and below is transparent, 1 and above is full color.
      alignment: of heatmap and input pixels, see `geometry.heatmap_to_input`.
      strength: opacity of a value of 1.

    Returns:
      uint8 [h, w, 3].
    """
    image = as_uint8(image)
    maps = np.clip(np.nan_to_num(np.asarray(heatmaps, np.float32)), 0, 1)
    if maps.ndim != 3:
        raise ValueError(f"heatmaps must be [h, w, k]; got {maps.shape}.")
    rows, columns = (
        _interpolation(maps.shape[axis], image.shape[axis], alignment)
        for axis in (0, 1)
    )
    alpha = maps
    if maps.shape[:2] != image.shape[:2]:
        alpha = np.einsum("Hh,hwk,Ww->HWk", rows, maps, columns, optimize=True)
    count = alpha.shape[-1]
    hues = np.array([colorsys.hsv_to_rgb(i / count, 1, 1) for i in range(count)])
    total = alpha.sum(-1, keepdims=True)
    color = 255 * (alpha @ hues.reshape(count, 3)) / np.maximum(total, 1e-6)
    cover = strength * alpha.max(-1, keepdims=True, initial=0.0)
    return np.round((1 - cover) * image + cover * color).astype(np.uint8)


def heatmap_panel(inspected, keypoint_set: KeypointSet, alignment):
    """Input, heatmaps over it, and the decoded keypoints; see `types.Panel`.

    Colors are full at the largest value of all n rows.
    """
    images, maps = inspected["input"], inspected["heatmaps"]
    peak = float(np.nanmax(maps, initial=0.0))
    nowhere = np.full((len(keypoint_set), 2), np.nan)

    def row(i: int):
        image, scale = images[i], 240 / max(images.shape[1:3])
        draw = lambda image, points, **marks: draw_pose(
            image, points, keypoint_set, scale=scale, **marks
        )
        over = heatmap_overlay(image, maps[i] / max(peak, 1e-6), alignment=alignment)
        scores = inspected["keypoint_scores"][i]
        return [
            ("input", draw(image, nowhere)),
            (f"heatmaps, max {peak:.2g}", draw(over, nowhere)),
            ("prediction", draw(image, inspected["points_xy"][i], scores=scores)),
        ]

    return [row(i) for i in range(len(images))]


def _interpolation(source: int, target: int, alignment: Alignment) -> np.ndarray:
    """Returns [target, source] weights of linear interpolation, clamped at the border."""
    at = np.arange(target, dtype=np.float64)
    if alignment == "stride":
        at = at * (source / target)
    elif alignment == "aligned":
        at = at * ((source - 1) / max(target - 1, 1))
    elif alignment == "half_pixel":
        at = (at + 0.5) * (source / target) - 0.5
    else:
        known = ", ".join(map(repr, ALIGNMENTS))
        raise ValueError(f"alignment must be one of {known}; got {alignment!r}.")
    at = np.clip(at, 0, source - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source)))
