"""Pictures: skeletons, heatmaps, votes, contact sheets, curves. NumPy in, NumPy out.

Images are [h, w, 3], uint8 or float in [0, 1]; pictures made are uint8. Points are
(x, y) in pixels of the image given, with integer pixel centres; boxes are
(x, y, x + w, y + h). Nothing given is changed. Points outside the image, unlabelled, or
not finite are no error: what can be seen of them is drawn.

k keypoints, n people, b pictures.
"""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pose_jax.keypoints import KeypointSet

LEFT = (255, 145, 20)
RIGHT = (30, 150, 255)
CENTRE = (60, 210, 90)
_BOX = (255, 255, 255)
_CROWD = (170, 170, 170)
_PAPER = (24, 24, 28)
_INK = (230, 230, 230)
_SUPERSAMPLE = 3
_FAR = 1e5  # Image pixels: beyond this a point is not drawn, its limbs neither.


def _sides(keypoint_set: KeypointSet) -> list[str]:
    """Which side each keypoint is of: "left", "right" or "centre".

    The name decides; where it does not say, the first of a flip pair counts as left.
    """
    sides = ["centre"] * len(keypoint_set)
    for i, j in keypoint_set.flip_pairs:
        swapped = "right" in keypoint_set.names[i].lower()
        sides[i], sides[j] = ("right", "left") if swapped else ("left", "right")
    return sides


_COLOURS = {"left": LEFT, "right": RIGHT, "centre": CENTRE}


def _limb_side(a: str, b: str) -> str:
    """The side of its ends; the centre gives way; from left to right is centre."""
    ends = {a, b} - {"centre"}
    return ends.pop() if len(ends) == 1 else "centre"


def _levels(visibility, scores, threshold: float, shape) -> np.ndarray:
    """How to draw each keypoint: 0 not at all, 1 faintly (hidden, unsure), 2 fully."""
    if visibility is not None and scores is not None:
        raise ValueError(
            "visibility (of labels) and scores (of predictions) both came."
        )
    if visibility is not None:
        levels = np.clip(visibility, 0, 2).astype(int)
    elif scores is not None:
        levels = np.where(np.asarray(scores) >= threshold, 2, 1)
    else:
        levels = np.full(shape, 2)
    if levels.shape != shape:
        raise ValueError(f"{levels.shape} values came for {shape} points.")
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
) -> np.ndarray:
    """Draws skeletons: left orange, right blue, middle green; anti-aliased.

    Args:
      image: [h, w, 3].
      points_xy: [n, k, 2], pixels of `image`.
      keypoint_set: what the k channels mean.
      visibility: [n, k], of labels: 0 is not drawn, 1 (hidden) hollow with thin limbs.
      scores: [n, k], of predictions: below `threshold` drawn as hidden ones are.
      boxes_xyxy: [n, 4] to draw as well.
      titles: n, to write at the top left of the boxes.
      threshold: of `scores`.
      scale: the picture is enlarged by this before drawing.

    Returns:
      uint8 [round(h * scale), round(w * scale), 3].

    Raises:
      ValueError: shapes that do not fit each other, or visibility and scores at once.
    """
    image = _as_uint8(image)
    points_xy = np.asarray(points_xy, np.float64)
    if points_xy.ndim != 3 or points_xy.shape[1:] != (len(keypoint_set), 2):
        raise ValueError(
            f"points_xy must be [n, {len(keypoint_set)}, 2] for keypoint set "
            f"{keypoint_set.name!r}; got {points_xy.shape}."
        )
    levels = _levels(visibility, scores, threshold, points_xy.shape[:2])
    near = np.isfinite(points_xy).all(-1) & (np.abs(points_xy) < _FAR).all(-1)
    levels = np.where(near, levels, 0)

    h, w = image.shape[:2]
    size = max(1, round(w * scale)), max(1, round(h * scale))
    base = Image.fromarray(image)
    if size != (w, h):
        base = base.resize(size, Image.Resampling.BICUBIC)
    # Drawn large on a layer and reduced, because Pillow does not smooth lines itself;
    # except on photographs so large that smoothing would not show and cost a gigabyte.
    fine = _SUPERSAMPLE if size[0] * size[1] < 4_000_000 else 1
    layer = Image.new("RGBA", (size[0] * fine, size[1] * fine))
    draw = ImageDraw.Draw(layer)
    zoom = np.array(size) / (w, h) * fine

    def place(xy):
        return (np.asarray(xy) + 0.5) * zoom - 0.5

    def width_of(extent: float) -> float:
        """Line width in layer pixels, from the size of a person in image pixels."""
        return float(np.clip(0.015 * extent * scale, 1.5, 5.0)) * fine

    for person in range(len(points_xy)):
        if boxes_xyxy is not None:
            box = place(np.reshape(boxes_xyxy[person], (2, 2)))
            if np.isfinite(box).all() and (box[0] <= box[1]).all():
                # Edges outside stay outside; Pillow is slow with far ones.
                box = np.clip(box, -2 * fine, np.array(layer.size) + 2 * fine)
                draw.rectangle([*box.ravel()], outline=_BOX, width=fine)
                if titles is not None:
                    _draw_title(draw, titles[person], box[0], 10 * fine)
        drawn = points_xy[person][levels[person] > 0]
        if len(drawn):
            width = width_of(np.hypot(*np.ptp(drawn, axis=0)))
            _draw_skeleton(
                draw, place(points_xy[person]), levels[person], keypoint_set, width
            )
    layer = layer.reduce(fine)
    return np.asarray(Image.alpha_composite(base.convert("RGBA"), layer))[
        ..., :3
    ].copy()


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
    """Draws boxes in orange, the best on top; annotated ones thinly in green.

    Args:
      image: [h, w, 3].
      boxes_xyxy: [n, 4], pixels of `image`.
      scores: [n], written at the boxes; below `threshold` boxes are thin.
      truth_xyxy: [m, 4], annotated boxes.
      crowd: [m] bool, which of them are crowd regions: in grey.
      threshold: of `scores`.
      scale: the picture is enlarged by this before drawing.

    Returns:
      uint8 [round(h * scale), round(w * scale), 3].

    Raises:
      ValueError: shapes that do not fit each other.
    """
    image = _as_uint8(image)
    boxes_xyxy = _of_boxes(boxes_xyxy, "boxes_xyxy")
    truth_xyxy = _of_boxes(
        np.zeros((0, 4)) if truth_xyxy is None else truth_xyxy, "truth_xyxy"
    )
    crowd = np.zeros(len(truth_xyxy), bool) if crowd is None else np.asarray(crowd)
    for name, values, boxes in (
        ("scores", scores, boxes_xyxy),
        ("crowd", crowd, truth_xyxy),
    ):
        if values is not None and np.shape(values) != (len(boxes),):
            raise ValueError(f"{np.shape(values)} {name} came for {len(boxes)} boxes.")
    h, w = image.shape[:2]
    size = max(1, round(w * scale)), max(1, round(h * scale))
    picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture, "RGBA")
    zoom = np.array(size) / (w, h)

    def outline(box, colour, width):
        box = (box.reshape(2, 2) + 0.5) * zoom - 0.5
        if np.isfinite(box).all() and (box[0] <= box[1]).all():
            # Edges outside stay outside; Pillow is slow with far ones.
            box = np.clip(box, -4, np.array(size) + 4)
            draw.rectangle([*box.ravel()], outline=colour, width=width)
            return box[0]
        return None

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
    """Words on a dark ground, inside of a box's corner."""
    font = ImageFont.load_default(height)
    x, y = np.maximum(corner, 0)
    around = draw.textbbox((x, y), text, font=font)
    draw.rectangle(around, fill=(0, 0, 0, 160))
    draw.text((x, y), text, fill=_BOX, font=font)


def _draw_skeleton(draw, points, levels, keypoint_set, width: float) -> None:
    """One person; `points` and `width` in pixels of the layer."""
    sides = _sides(keypoint_set)
    for i, j in keypoint_set.skeleton:
        level = min(levels[i], levels[j])
        if level:
            colour = _COLOURS[_limb_side(sides[i], sides[j])]
            thick = width if level == 2 else 0.4 * width
            draw.line([*points[i], *points[j]], fill=colour, width=max(1, round(thick)))
    radius, edge = 1.1 * width, max(1, round(width / 6))
    for (x, y), level, side in zip(points, levels, sides, strict=True):
        circle = [x - radius, y - radius, x + radius, y + radius]
        if level == 2:
            draw.ellipse(circle, fill=_COLOURS[side], outline=(0, 0, 0), width=edge)
        elif level == 1:
            draw.ellipse(circle, outline=_COLOURS[side], width=max(2, round(width / 3)))


def draw_pose(
    image: np.ndarray,
    points_xy: np.ndarray,
    keypoint_set: KeypointSet,
    *,
    visibility: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    box_xyxy: np.ndarray | None = None,
    threshold: float = 0.2,
    scale: float = 1.0,
) -> np.ndarray:
    """One person: `draw_people` without the leading axis n."""

    def one(values):
        return None if values is None else np.asarray(values)[None]

    return draw_people(
        image,
        np.asarray(points_xy)[None],
        keypoint_set,
        visibility=one(visibility),
        scores=one(scores),
        boxes_xyxy=one(box_xyxy),
        threshold=threshold,
        scale=scale,
    )


def heatmap_overlay(
    image: np.ndarray,
    heatmaps: np.ndarray,
    *,
    alignment: Literal["stride", "aligned"] = "stride",
    strength: float = 0.65,
) -> np.ndarray:
    """Lays heatmaps over the picture that they belong to, a hue for each keypoint.

    Args:
      image: [h, w, 3], the network input.
      heatmaps: [h', w', k]; below 0 nothing shows, 1 and above is full colour.
      alignment: how map pixels lie in the input, see `geometry.heatmap_to_input`.
      strength: opacity of a value of 1.

    Returns:
      uint8 [h, w, 3].
    """
    image = _as_uint8(image)
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
    hues = np.array(
        [colorsys.hsv_to_rgb(i / max(count, 1), 1, 1) for i in range(count)]
    )
    total = alpha.sum(-1, keepdims=True)
    colour = 255 * (alpha @ hues.reshape(count, 3)) / np.maximum(total, 1e-6)
    cover = strength * alpha.max(-1, keepdims=True, initial=0.0)
    return np.round((1 - cover) * image + cover * colour).astype(np.uint8)


def refinement(
    image: np.ndarray,
    stages_xy: np.ndarray,
    squares: np.ndarray,
    keypoint_set: KeypointSet,
    *,
    side: int = 200,
) -> tuple[list[np.ndarray], list[str]]:
    """A cascade at work on one person: each stage's pose, and between two of them the
    square of the keypoint that moved the furthest.

    Args:
      image: [h, w, 3], the input of the first stage.
      stages_xy: [s, k, 2] in its frame.
      squares: [s - 1, 2], width and height of a keypoint's square there.
      keypoint_set: what the k points are.
      side: height of the pictures, pixels.

    Returns:
      2 s - 1 pictures of equal height, and their titles. In a square the first stage's
      point is a ring, the next one's a dot.
    """
    h = image.shape[0]
    scale = side / h
    pictures, titles = [], []
    for stage, points_xy in enumerate(stages_xy):
        if stage:
            moved = np.linalg.norm(points_xy - stages_xy[stage - 1], axis=-1)
            joint = int(np.argmax(np.nan_to_num(moved, nan=-1.0)))
            before, after = stages_xy[stage - 1][joint], points_xy[joint]
            pictures.append(_square(image, before, after, squares[stage - 1], side))
            titles.append(f"{keypoint_set.names[joint]}: {moved[joint]:.1f} px")
        pictures.append(draw_pose(image, points_xy, keypoint_set, scale=scale))
        titles.append(f"stage {stage + 1}")
    return pictures, titles


def _square(image, before_xy, after_xy, size, side: int) -> np.ndarray:
    """What of the image the square about `before_xy` shows, black beyond its border."""
    low = before_xy - np.asarray(size) / 2
    picture = _part(image, low, size, (side, side))
    draw = ImageDraw.Draw(picture)
    at = lambda point: ((np.asarray(point) - low) * side / size).tolist()
    (x, y), (x2, y2), r = at(before_xy), at(after_xy), side / 25
    draw.line((x, y, x2, y2), fill="white", width=2)
    draw.ellipse((x - r, y - r, x + r, y + r), outline="white", width=2)
    r *= 0.6
    draw.ellipse((x2 - r, y2 - r, x2 + r, y2 + r), fill="lime", outline="black")
    return np.array(picture)


def _part(image, low, size, shape: tuple[int, int]) -> Image.Image:
    """Of an image the part from the point `low` on, `size` pixels, as (width, height)
    `shape`; black beyond the border."""
    edges = np.asarray(low) + 0.5  # Points count from pixels' centres.
    box = (*edges, *(edges + size))
    return Image.fromarray(_as_uint8(image)).transform(
        shape, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )


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
    """Hough voting for some keypoints of one person: heatmap, offsets, and where the
    votes meet.

    Args:
      image: [h, w, 3], the network input.
      heatmaps: [h, w, k], probabilities; as large as the image, like the other maps.
      offsets: [h, w, k, 2], pixels.
      fused: [h, w, k], the votes.
      points_xy: [k, 2], the keypoints that were read from them.
      keypoint_set: what the k keypoints are.
      joints: which of them; None for the one of the most votes and the one in the middle.
      across: about so many arrows lie side by side in a disc.
      side: height of the pictures, pixels.

    Returns:
      Three pictures of one size for each of the joints, and their titles. The heatmap over
      the image, its maximum in full colour, and a frame. What the frame holds, with an
      arrow from every few pixels of the disc (heatmap above half of its maximum: also an
      unsure network votes) to the place that it votes for: broad where it begins, its hue
      that of its direction. The same with the votes, their opacity the root of their share
      in the maximum, for stray ones to be seen, and a ring round the keypoint.

    Raises:
      ValueError: shapes that do not fit each other.
    """
    image = _as_uint8(image)
    (h, w), k = image.shape[:2], len(keypoint_set)
    maps, ways, votes, points_xy = (
        _of_shape(value, name, shape)
        for value, name, shape in (
            (heatmaps, "heatmaps", (h, w, k)),
            (offsets, "offsets", (h, w, k, 2)),
            (fused, "fused", (h, w, k)),
            (points_xy, "points_xy", (k, 2)),
        )
    )
    likeliest, most = (np.nan_to_num(of).max(axis=(0, 1)) for of in (maps, votes))
    if joints is None:
        order = np.argsort(-most, kind="stable").tolist()
        joints = list(dict.fromkeys((order[0], order[k // 2])))
    # Grey and dim, for colour to mean an arrow or a vote.
    ground = np.round(0.7 * image.mean(-1, keepdims=True)).astype(np.uint8)
    ground = np.repeat(ground, 3, axis=-1)
    pictures, titles = [], []
    for joint in joints:
        point_xy = points_xy[joint]
        disc = maps[..., joint] > likeliest[joint] / 2
        near = _nearest_part(disc, point_xy)
        window = _window(near, point_xy)
        # So far apart that `across` of them fit into a circle of the disc's area.
        step = max(1, round(2 * np.sqrt(near.sum() / np.pi) / across))
        heat = maps[..., [joint]] / max(likeliest[joint], 1e-9)
        share = np.maximum(votes[..., [joint]], 0) / max(most[joint], 1e-9)
        over = heatmap_overlay(ground, np.sqrt(share), strength=1)
        pictures += [
            _framed(heatmap_overlay(image, heat), window, side),
            _arrows(ground, disc, ways[..., joint, :], step, window, side),
            _ringed(over, point_xy, window, side),
        ]
        titles += [
            f"{keypoint_set.names[joint]}: heatmap, max {likeliest[joint]:.2g}",
            "offsets",
            f"votes, max {most[joint]:.2g}",
        ]
    return pictures, titles


def _of_shape(value, name: str, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value)
    if value.shape != shape:
        raise ValueError(
            f"{name} must be {list(shape)}, with maps as large as the image; got "
            f"{list(value.shape)}."
        )
    return value.astype(np.float64)


def _nearest_part(mask: np.ndarray, point_xy: np.ndarray) -> np.ndarray:
    """[h, w]: of the connected parts of a mask the one that is nearest to a point."""
    from scipy import ndimage

    y, x = np.nonzero(mask)
    if not len(x):
        return mask
    parts = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=parts)
    nearest = np.argmin(np.nan_to_num(np.hypot(x - point_xy[0], y - point_xy[1])))
    return parts == parts[y[nearest], x[nearest]]


def _window(disc: np.ndarray, point_xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A part of the image that holds a disc and a point, with a margin: where it begins,
    and its size. It has the image's shape and does not reach beyond it."""
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
    """The whole image with the frame of a window."""
    h, w = image.shape[:2]
    low, size = window
    whole = np.full(2, -0.5), np.array([w, h], float)

    def frame(draw, at, width):
        corners = [*at(low), *(at(low + size) - width)]
        draw.rectangle(corners, outline=_BOX, width=round(width))

    return _on_part(image, whole, side, frame)


def _arrows(image, mask, offsets, step: int, window, side: int) -> np.ndarray:
    """What a window shows, with the offsets of every `step`-th pixel of a mask."""
    h, w = mask.shape
    first = np.round(window[0] + window[1] / 2).astype(int) % step
    y, x = (axis.ravel() for axis in np.mgrid[first[1] : h : step, first[0] : w : step])
    drawn = mask[y, x] & np.isfinite(offsets[y, x]).all(-1)
    starts, ways = np.stack([x, y], axis=-1)[drawn], offsets[y, x][drawn]
    length = np.linalg.norm(ways, axis=-1, keepdims=True)
    unit = ways / np.maximum(length, 1e-9)
    # Beyond the border it is the same where they end.
    ends = starts + unit * np.minimum(length, np.hypot(h, w))
    hues = np.arctan2(unit[:, 1], unit[:, 0]) / (2 * np.pi) % 1
    across = np.stack([-unit[:, 1], unit[:, 0]], axis=-1)

    def darts(draw, at, width):
        pitch = np.linalg.norm(at((step, 0)) - at((0, 0)))
        broad = min(1.1 * width, 0.15 * pitch)
        # The short ones last: the long ones would hide them.
        for i in np.argsort(-length[:, 0], kind="stable"):
            start, end = at(starts[i]), at(ends[i])
            aside = broad * across[i]
            r, g, b = colorsys.hsv_to_rgb(hues[i], 0.75, 1)
            colour = round(255 * r), round(255 * g), round(255 * b)
            draw.polygon([*(start + aside), *end, *(start - aside)], fill=colour)

    return _on_part(image, window, side, darts)


def _ringed(image, point_xy, window, side: int) -> np.ndarray:
    """What a window shows, with a ring round a point."""

    def ring(draw, at, width):
        if np.isfinite(point_xy).all():
            radius = 10 * width
            corners = [*(at(point_xy) - radius), *(at(point_xy) + radius)]
            draw.ellipse(corners, outline=_BOX, width=round(1.2 * width))

    return _on_part(image, window, side, ring)


def _on_part(image, window, side: int, draw: Callable) -> np.ndarray:
    """What a window shows, `side` pixels high, with lines drawn over it, anti-aliased.

    `draw` gets what draws, the way of points to its pixels, and the width of a line.
    """
    low, size = window
    shape = max(1, round(size[0] * side / size[1])), side
    picture = _part(image, low, size, shape)
    layer = Image.new("RGBA", (shape[0] * _SUPERSAMPLE, side * _SUPERSAMPLE))
    zoom = np.array(layer.size) / size
    at = lambda xy: (np.asarray(xy) - low) * zoom - 0.5
    draw(ImageDraw.Draw(layer), at, _SUPERSAMPLE * max(1.0, side / 230))
    layer = layer.reduce(_SUPERSAMPLE)
    both = Image.alpha_composite(picture.convert("RGBA"), layer)
    return np.asarray(both)[..., :3].copy()


# What a method shows of itself: `Method.inspect` (NumPy, leading axis n), the keypoint set
# and the alignment, to n lists of (title, picture).


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


def votes_panel(inspected, keypoint_set: KeypointSet, alignment):
    """`hough` of each row; see `types.Panel`."""
    del alignment  # Maps are as large as the input.
    keys = ("heatmaps", "offsets", "fused", "points_xy")

    def row(i: int):
        values = {key: inspected[key][i] for key in keys}
        pictures, titles = hough(
            inspected["input"][i], keypoint_set=keypoint_set, **values
        )
        return list(zip(titles, pictures, strict=True))

    return [row(i) for i in range(len(inspected["input"]))]


def cascade_panel(inspected, keypoint_set: KeypointSet, alignment):
    """`refinement` of each row; see `types.Panel`."""
    del alignment  # There are no maps.

    def row(i: int):
        pictures, titles = refinement(
            inspected["input"][i],
            inspected["stages_xy"][i],
            inspected["squares"][i],
            keypoint_set,
        )
        return list(zip(titles, pictures, strict=True))

    return [row(i) for i in range(len(inspected["input"]))]


def _interpolation(source: int, target: int, alignment: str) -> np.ndarray:
    """[target, source] weights of linear interpolation; the border value goes on."""
    if alignment == "stride":
        factor = source / target
    elif alignment == "aligned":
        factor = (source - 1) / max(target - 1, 1)
    else:
        raise ValueError(f'alignment must be "stride" or "aligned"; got {alignment!r}.')
    at = np.clip(np.arange(target) * factor, 0, source - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source)))


def sheet(
    images: Sequence[np.ndarray],
    columns: int,
    titles: Sequence[str] | None = None,
    *,
    gap: int = 6,
) -> np.ndarray:
    """Lays pictures out in rows of `columns`, each with a line of text under it.

    Cells are as large as the largest picture; smaller ones stand in their middle.
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1; got {columns}.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles came for {len(images)} images.")
    if not len(images):
        return np.full((gap, gap, 3), _PAPER, np.uint8)
    images = [_as_uint8(image) for image in images]
    columns = min(columns, len(images))
    line = 16 if titles is not None else 0
    cell_w = max(image.shape[1] for image in images)
    cell_h = max(image.shape[0] for image in images)
    rows = -(-len(images) // columns)
    width = columns * (cell_w + gap) + gap
    height = rows * (cell_h + line + gap) + gap
    paper = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=12)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        x = gap + column * (cell_w + gap)
        y = gap + row * (cell_h + line + gap)
        h, w = image.shape[:2]
        paper.paste(
            Image.fromarray(image), (x + (cell_w - w) // 2, y + (cell_h - h) // 2)
        )
        if titles is not None:
            text = titles[i]
            while text and draw.textlength(text, font) > cell_w:
                text = text[:-1]
            draw.text((x, y + cell_h + 1), text, fill=_INK, font=font)
    return np.array(paper)


def preview_sheet(
    preview: Mapping[str, np.ndarray],
    keypoint_set: KeypointSet | None,
    *,
    columns: int = 4,
    alignment: Literal["stride", "aligned"] = "stride",
) -> np.ndarray:
    """What a network is about to learn from: inputs with labels, and their targets.

    Args:
      preview: of `Phase.preview`: "input" [b, h, w, 3] in [0, 1], "points_xy" [b, k, 2]
        and "visibility" [b, k] in its frame, "targets" [b, h', w', k] where there are
        maps. Of a detector: "boxes_xyxy" [b, n, 4] in its frame and "kind" [b, n], 0
        none, 1 person, 2 crowd region.
      keypoint_set: what the k channels mean; None of a detector.
      columns: pictures in a row of the sheet.
      alignment: of targets and input.

    Returns:
      uint8 [H, W, 3]: each cell is an input with its skeleton, and beside it the
      targets, laid over the input; or an input with its boxes, at most 480 pixels long.
    """
    cells = []
    for i, image in enumerate(preview["input"]):
        if keypoint_set is None:
            kind = preview["kind"][i]
            picture = draw_boxes(
                image,
                np.zeros((0, 4)),
                truth_xyxy=preview["boxes_xyxy"][i][kind > 0],
                crowd=kind[kind > 0] == 2,
                scale=min(1.0, 480 / max(image.shape[:2])),
            )
            cells.append(picture)
            continue
        points_xy, visibility = preview["points_xy"][i], preview["visibility"][i]
        pair = [draw_pose(image, points_xy, keypoint_set, visibility=visibility)]
        if "targets" in preview:
            targets = preview["targets"][i]
            pair.append(heatmap_overlay(image, targets, alignment=alignment))
        cells.append(np.concatenate(pair, axis=1))
    return sheet(cells, columns)


def curves(metrics_path: Path | str, out: Path | str) -> None:
    """Draws every number of a run's metrics.jsonl over its steps.

    A line per phase; kinds of AP share a panel, and so do kinds of AR, and of box_AP.

    Args:
      metrics_path: one JSON object a line, with "step", "phase" and numbers.
      out: the PNG to write; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for text in Path(metrics_path).read_text().splitlines():
        line = json.loads(text)
        for name, value in line.items():
            if name in ("step", "phase", "time") or not _is_number(value):
                continue
            kind, at, source = name.partition("@")
            panel, label = name, []
            family = re.match("(box_)?A[PR]", kind)
            if family:
                panel, label = family[0] + at + source, [kind]
            label = " ".join([*label, line.get("phase", "")]).strip()
            lines = panels.setdefault(panel, {})
            lines.setdefault(label, []).append((line["step"], value))
    columns = min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # No display, no global state of pyplot.
    for i, (name, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for label, points in lines.items():
            marker = "." if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=7)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def save_png(path: Path | str, image: np.ndarray) -> None:
    """Writes [h, w, 3] as PNG; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_as_uint8(image)).save(path, format="PNG")


def _as_uint8(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    floating = np.issubdtype(image.dtype, np.floating)
    if (
        image.ndim != 3
        or image.shape[-1] != 3
        or not (floating or image.dtype == np.uint8)
    ):
        raise ValueError(
            "an image must be [h, w, 3], uint8 or float in [0, 1]; got "
            f"{image.dtype} {image.shape}."
        )
    if floating:
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return image
