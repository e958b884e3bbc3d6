"""MultiPose's Hough voting: heatmaps, offsets and fused maps."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from pose_jax.drawing._pixels import SUPERSAMPLE, WHITE, as_uint8, part
from pose_jax.drawing.maps import heatmap_overlay
from pose_jax.keypoints import KeypointSet


def hough(
    image: np.ndarray,
    heatmaps: np.ndarray,
    offsets: np.ndarray,
    fused: np.ndarray,
    points_xy: np.ndarray,
    keypoint_set: KeypointSet,
    *,
    joints: Sequence[int] | None = None,
    across: int = 13,
    side: int = 300,
) -> tuple[list[np.ndarray], list[str]]:
    """Draws Hough voting for some keypoints of one person: heatmap, offsets, fused map.

    Args:
      image: [h, w, 3], the network input.
      heatmaps: [h, w, k], probabilities; as large as the image, like the other maps.
      offsets: [h, w, k, 2], pixels.
      fused: [h, w, k], Hough scores.
      points_xy: [k, 2], the decoded keypoints.
      keypoint_set: keypoint set of the k keypoints.
      joints: which of them; None for those with the highest and the median score.
      across: approximate number of arrows across a disc.
      side: height of the images, pixels.

    Returns:
      Three images of one size for each of the joints, and their titles: (1) the heatmap
      over the image, its maximum in full color, and a frame; (2) the window in the frame,
      with an arrow from every few pixels of the disc (heatmap above half of its maximum,
      which may be low) to the position that it votes for, broad at its start, its hue that
      of its direction; (3) the window with the fused map, its opacity the root of the score
      relative to the maximum, so that low scores are visible, and a ring at the keypoint.

    Raises:
      ValueError: shapes do not match.
    """
    image = as_uint8(image)
    (h, w), k = image.shape[:2], len(keypoint_set)
    maps = _of_shape(heatmaps, "heatmaps", (h, w, k))
    ways = _of_shape(offsets, "offsets", (h, w, k, 2))
    votes = _of_shape(fused, "fused", (h, w, k))
    points_xy = _of_shape(points_xy, "points_xy", (k, 2))
    peaks, most = (np.nan_to_num(values).max(axis=(0, 1)) for values in (maps, votes))
    if joints is None:
        order = np.argsort(-most, kind="stable").tolist()
        joints = list(dict.fromkeys((order[0], order[k // 2])))
    # Gray and dim, so that only arrows and votes have color.
    ground = np.round(0.7 * image.mean(-1, keepdims=True)).astype(np.uint8)
    ground = np.repeat(ground, 3, axis=-1)
    pictures, titles = [], []
    for joint in joints:
        point_xy = points_xy[joint]
        disc = maps[..., joint] > peaks[joint] / 2
        near = _nearest_part(disc, point_xy)
        window = _window(near, point_xy)
        # Spacing by which `across` arrows fit into a circle of the disc's area.
        step = max(1, round(2 * np.sqrt(near.sum() / np.pi) / across))
        heat = maps[..., [joint]] / max(peaks[joint], 1e-9)
        share = np.maximum(votes[..., [joint]], 0) / max(most[joint], 1e-9)
        over = heatmap_overlay(ground, np.sqrt(share), strength=1)
        pictures += [
            _framed(heatmap_overlay(image, heat), window, side),
            _arrows(ground, disc, ways[..., joint, :], step, window, side),
            _ringed(over, point_xy, window, side),
        ]
        titles += [
            f"{keypoint_set.names[joint]}: heatmap, max {peaks[joint]:.2g}",
            "offsets",
            f"votes, max {most[joint]:.2g}",
        ]
    return pictures, titles


def votes_panel(inspected, keypoint_set: KeypointSet, alignment):
    """`hough` of each row; see `types.Panel`."""
    del alignment  # Maps are as large as the input.
    keys = ("input", "heatmaps", "offsets", "fused", "points_xy")
    values = (inspected[key] for key in keys)
    drawn = (
        hough(*row, keypoint_set=keypoint_set) for row in zip(*values, strict=True)
    )
    return [list(zip(titles, pictures, strict=True)) for pictures, titles in drawn]


def _of_shape(value, name: str, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value)
    if value.shape != shape:
        raise ValueError(
            f"{name} must be {list(shape)}, with maps as large as the image; got "
            f"{list(value.shape)}."
        )
    return value.astype(np.float64)


def _nearest_part(mask: np.ndarray, point_xy: np.ndarray) -> np.ndarray:
    """Returns the connected component of a mask [h, w] that is nearest to a point."""
    from scipy import ndimage

    y, x = np.nonzero(mask)
    if not len(x):
        return mask
    parts = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=parts)
    nearest = np.argmin(np.nan_to_num(np.hypot(x - point_xy[0], y - point_xy[1])))
    return parts == parts[y[nearest], x[nearest]]


def _window(disc: np.ndarray, point_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns start and size of a window around a disc and a point, with a margin. It has
    the aspect of the image and lies inside it."""
    image_size = np.array(disc.shape[::-1], float)
    y, x = np.nonzero(disc)
    points = np.concatenate([np.stack([x, y], axis=-1), point_xy[None]])
    points = np.clip(points[np.isfinite(points).all(-1)], 0, image_size - 1)
    if not len(points):
        points = (image_size[None] - 1) / 2
    low, high = points.min(0) - 0.5, points.max(0) + 0.5
    size = image_size * np.clip(1.7 * np.max((high - low) / image_size), 0.25, 1)
    return np.clip((low + high - size) / 2, -0.5, image_size - size - 0.5), size


def _framed(image, window, side: int) -> np.ndarray:
    """Draws the whole image with the frame of a window."""
    h, w = image.shape[:2]
    low, size = window
    whole = np.full(2, -0.5), np.array([w, h], float)

    def frame(draw, at, width):
        corners = [*at(low), *(at(low + size) - width)]
        draw.rectangle(corners, outline=WHITE, width=round(width))

    return _on_part(image, whole, side, frame)


def _arrows(image, mask, offsets, step: int, window, side: int) -> np.ndarray:
    """Draws a window with the offsets of every `step`-th pixel of a mask."""
    h, w = mask.shape
    first = np.round(window[0] + window[1] / 2).astype(int) % step
    y, x = (axis.ravel() for axis in np.mgrid[first[1] : h : step, first[0] : w : step])
    drawn = mask[y, x] & np.isfinite(offsets[y, x]).all(-1)
    starts, ways = np.stack([x, y], axis=-1)[drawn], offsets[y, x][drawn]
    length = np.linalg.norm(ways, axis=-1, keepdims=True)
    unit = ways / np.maximum(length, 1e-9)
    # Arrows are cut beyond the border, where their length is not visible.
    ends = starts + unit * np.minimum(length, np.hypot(h, w))
    hues = np.arctan2(unit[:, 1], unit[:, 0]) / (2 * np.pi) % 1
    across = np.stack([-unit[:, 1], unit[:, 0]], axis=-1)

    def darts(draw, at, width):
        pitch = np.linalg.norm(at((step, 0)) - at((0, 0)))
        broad = min(1.1 * width, 0.15 * pitch)
        # Short arrows last, since long ones would hide them.
        for i in np.argsort(-length[:, 0], kind="stable"):
            start, end = at(starts[i]), at(ends[i])
            aside = broad * across[i]
            r, g, b = colorsys.hsv_to_rgb(hues[i], 0.75, 1)
            color = round(255 * r), round(255 * g), round(255 * b)
            draw.polygon([*(start + aside), *end, *(start - aside)], fill=color)

    return _on_part(image, window, side, darts)


def _ringed(image, point_xy, window, side: int) -> np.ndarray:
    """Draws a window with a ring around a point."""

    def ring(draw, at, width):
        if np.isfinite(point_xy).all():
            radius = 10 * width
            corners = [*(at(point_xy) - radius), *(at(point_xy) + radius)]
            draw.ellipse(corners, outline=WHITE, width=round(1.2 * width))

    return _on_part(image, window, side, ring)


def _on_part(image, window, side: int, draw: Callable) -> np.ndarray:
    """Draws a window, `side` pixels high, with anti-aliased lines over it.

    `draw` is called with an ImageDraw, a function from points to its pixels, a line width.
    """
    low, size = window
    shape = max(1, round(size[0] * side / size[1])), side
    picture = part(image, low, size, shape)
    layer = Image.new("RGBA", (shape[0] * SUPERSAMPLE, side * SUPERSAMPLE))
    zoom = np.array(layer.size) / size
    at = lambda xy: (np.asarray(xy) - low) * zoom - 0.5
    draw(ImageDraw.Draw(layer), at, SUPERSAMPLE * max(1.0, side / 230))
    layer = layer.reduce(SUPERSAMPLE)
    both = Image.alpha_composite(picture.convert("RGBA"), layer)
    return np.asarray(both)[..., :3].copy()
