"""Poses and boxes drawn on images. NumPy in, NumPy out.

Images are [h, w, 3], uint8 or float in [0, 1]; results are uint8. Points are (x, y) in
pixels of the input image, with integer pixel centers; boxes are (x, y, x + w, y + h).
Inputs are not modified. Points may be outside the image, unlabeled or not finite: only
their visible parts are drawn.

k keypoints, n people, b images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pose_jax.drawing._pixels import SUPERSAMPLE, WHITE, as_uint8
from pose_jax.keypoints import KeypointSet, side_of

LEFT = (255, 145, 20)
RIGHT = (30, 150, 255)
CENTRE = (60, 210, 90)
_CROWD = (170, 170, 170)
_FAR = 1e5  # Image pixels: points beyond this, and their limbs, are not drawn.


def _sides(keypoint_set: KeypointSet) -> list[str]:
    """Returns the side of each keypoint: "left", "right" or "center".

    The name decides; without a side in it, the first of a flip pair counts as left.
    """
    sides = ["center"] * len(keypoint_set)
    for i, j in keypoint_set.flip_pairs:
        swapped = side_of(keypoint_set.names[i]) == "right"
        sides[i], sides[j] = ("right", "left") if swapped else ("left", "right")
    return sides


_COLORS = {"left": LEFT, "right": RIGHT, "center": CENTRE}


def _levels(visibility, scores, threshold: float, shape) -> np.ndarray:
    """Returns how to draw keypoints: 0 not at all, 1 hollow (hidden, unsure), 2 filled."""
    if visibility is not None and scores is not None:
        raise ValueError(
            "pass visibility (of labels) or scores (of predictions), not both."
        )
    if visibility is not None:
        levels = np.clip(visibility, 0, 2).astype(int)
    elif scores is not None:
        levels = np.where(np.asarray(scores) >= threshold, 2, 1)
    else:
        levels = np.full(shape, 2)
    if levels.shape != shape:
        raise ValueError(f"got {levels.shape} values for {shape} points.")
    return levels


def draw_people(
    image: np.ndarray,
    points_xy: np.ndarray,
    keypoint_set: KeypointSet,
    *,
    visibility: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    boxes_xyxy: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    threshold: float = 0.2,
    scale: float = 1.0,
    supersample: int = SUPERSAMPLE,
) -> np.ndarray:
    """Draws skeletons: left orange, right blue, center green; anti-aliased.

    Args:
      image: [h, w, 3].
      points_xy: [n, k, 2], pixels of `image`.
      keypoint_set: keypoint set of the k points.
      visibility: [n, k], of labels: 0 is not drawn, 1 (hidden) hollow with thin limbs.
      scores: [n, k], of predictions: below `threshold` drawn like hidden ones.
      boxes_xyxy: [n, 4], also drawn.
      titles: n texts, written at the top left of the boxes.
      threshold: of `scores`.
      scale: factor by which the image is enlarged before drawing.
      supersample: factor of the anti-aliasing; 1 takes a fifth of the time.

    Returns:
      uint8 [round(h * scale), round(w * scale), 3].

    Raises:
      ValueError: shapes do not match, or both visibility and scores are given.
    """
    image = as_uint8(image)
    points_xy = np.asarray(points_xy, np.float64)
    if points_xy.ndim != 3 or points_xy.shape[1:] != (len(keypoint_set), 2):
        raise ValueError(
            f"points_xy must be [n, {len(keypoint_set)}, 2] for keypoint set "
            f"{keypoint_set.name!r}; got {points_xy.shape}."
        )
    levels = _levels(visibility, scores, threshold, points_xy.shape[:2])
    near = np.isfinite(points_xy).all(-1) & (np.abs(points_xy) < _FAR).all(-1)
    levels = np.where(near, levels, 0)

    base, zoom = _enlarged(image, scale)
    size = base.size
    # No anti-aliasing of very large images: it is not visible and takes a gigabyte.
    fine = supersample if size[0] * size[1] < 4_000_000 else 1
    layer = Image.new("RGBA", (size[0] * fine, size[1] * fine))
    draw = ImageDraw.Draw(layer)
    place = lambda xy: (np.asarray(xy) + 0.5) * (zoom * fine) - 0.5

    for person in range(len(points_xy)):
        if boxes_xyxy is not None:
            box = place(np.reshape(boxes_xyxy[person], (2, 2)))
            corner = _outline(draw, box, 2 * fine, WHITE, fine)
            if titles is not None and corner is not None:
                _draw_title(draw, titles[person], corner, 10 * fine)
        drawn = points_xy[person][levels[person] > 0]
        if len(drawn):
            extent = np.hypot(*np.ptp(drawn, axis=0))
            width = float(np.clip(0.015 * extent * scale, 1.5, 5.0)) * fine
            points = place(points_xy[person])
            _draw_skeleton(draw, points, levels[person], keypoint_set, width)
    both = Image.alpha_composite(base.convert("RGBA"), layer.reduce(fine))
    return np.asarray(both)[..., :3].copy()


def _enlarged(image: np.ndarray, scale: float) -> tuple[Image.Image, np.ndarray]:
    """Returns the enlarged image, and its (width, height) relative to the original."""
    h, w = image.shape[:2]
    size = max(1, round(w * scale)), max(1, round(h * scale))
    picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return picture, np.array(size) / (w, h)


def _outline(draw, box, margin: int, color, width: int) -> np.ndarray | None:
    """Draws a box [2, 2], if valid, and returns its upper left corner."""
    if not np.isfinite(box).all() or (box[0] > box[1]).any():
        return None
    # Edges outside stay outside; Pillow is slow with distant ones.
    box = np.clip(box, -margin, np.array(draw.im.size) + margin)
    draw.rectangle([*box.ravel()], outline=color, width=width)
    return box[0]


def draw_boxes(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    truth_xyxy: np.ndarray | None = None,
    crowd: np.ndarray | None = None,
    threshold: float = 0.5,
    scale: float = 1.0,
) -> np.ndarray:
    """Draws boxes in orange, the best on top; ground-truth boxes thinly in green.

    Args:
      image: [h, w, 3].
      boxes_xyxy: [n, 4], pixels of `image`.
      scores: [n], written at the boxes; below `threshold` boxes are thin.
      truth_xyxy: [m, 4], ground-truth boxes.
      crowd: [m] bool, which of them are crowd regions: in gray.
      threshold: of `scores`.
      scale: factor by which the image is enlarged before drawing.

    Returns:
      uint8 [round(h * scale), round(w * scale), 3].

    Raises:
      ValueError: shapes do not match.
    """
    image = as_uint8(image)
    boxes_xyxy = _of_boxes(boxes_xyxy, "boxes_xyxy")
    truth_xyxy = np.zeros((0, 4)) if truth_xyxy is None else truth_xyxy
    truth_xyxy = _of_boxes(truth_xyxy, "truth_xyxy")
    crowd = np.zeros(len(truth_xyxy), bool) if crowd is None else np.asarray(crowd)
    pairs = (("scores", scores, boxes_xyxy), ("crowd", crowd, truth_xyxy))
    for name, values, boxes in pairs:
        if values is not None and np.shape(values) != (len(boxes),):
            raise ValueError(f"got {np.shape(values)} {name} for {len(boxes)} boxes.")
    picture, zoom = _enlarged(image, scale)
    draw = ImageDraw.Draw(picture, "RGBA")

    def outline(box, color, width):
        return _outline(draw, (box.reshape(2, 2) + 0.5) * zoom - 0.5, 4, color, width)

    for box, many in zip(truth_xyxy, crowd, strict=True):
        outline(box, _CROWD if many else CENTRE, 1)
    order = range(len(boxes_xyxy)) if scores is None else np.argsort(scores)
    for i in order:
        sure = scores is None or scores[i] >= threshold
        corner = outline(boxes_xyxy[i], LEFT, 2 if sure else 1)
        if scores is not None and corner is not None:
            _draw_title(draw, f"{scores[i]:.2f}", corner, 10)
    return np.array(picture)


def _of_boxes(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != 4:
        raise ValueError(f"{name} must be [n, 4]; got {list(values.shape)}.")
    return values


def _draw_title(draw, text: str, corner, height: float) -> None:
    """Draws text on a dark background, inside a box's corner."""
    font = ImageFont.load_default(height)
    x, y = np.maximum(corner, 0)
    around = draw.textbbox((x, y), text, font=font)
    draw.rectangle(around, fill=(0, 0, 0, 160))
    draw.text((x, y), text, fill=WHITE, font=font)


def _draw_skeleton(draw, points, levels, keypoint_set, width: float) -> None:
    """Draws one person; `points` and `width` in pixels of the layer."""
    sides = _sides(keypoint_set)
    for i, j in keypoint_set.skeleton:
        level = min(levels[i], levels[j])
        if level:
            # A limb has the side of its ends; center if they are left and right.
            ends = {sides[i], sides[j]} - {"center"}
            color = _COLORS[ends.pop() if len(ends) == 1 else "center"]
            thick = width if level == 2 else 0.4 * width
            draw.line([*points[i], *points[j]], fill=color, width=max(1, round(thick)))
    radius, edge = 1.1 * width, max(1, round(width / 6))
    for (x, y), level, side in zip(points, levels, sides, strict=True):
        circle = [x - radius, y - radius, x + radius, y + radius]
        if level == 2:
            draw.ellipse(circle, fill=_COLORS[side], outline=(0, 0, 0), width=edge)
        elif level == 1:
            draw.ellipse(circle, outline=_COLORS[side], width=max(2, round(width / 3)))


def draw_pose(
    image: np.ndarray,
    points_xy: np.ndarray,
    keypoint_set: KeypointSet,
    *,
    visibility: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Draws one person: `draw_people` without the leading axis n."""
    given = {"visibility": visibility, "scores": scores}
    marks: dict[str, Any] = {
        name: np.asarray(v)[None] for name, v in given.items() if v is not None
    }
    points_xy = np.asarray(points_xy)[None]
    return draw_people(image, points_xy, keypoint_set, scale=scale, **marks)
