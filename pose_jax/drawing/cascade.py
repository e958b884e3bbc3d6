"""DeepPose's cascade: the pose of each stage, and the crops of the next one."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from pose_jax.drawing._pixels import part
from pose_jax.drawing.people import draw_pose
from pose_jax.keypoints import KeypointSet


def refinement(
    image: np.ndarray,
    stages_xy: np.ndarray,
    squares: np.ndarray,
    keypoint_set: KeypointSet,
    *,
    side: int = 200,
) -> tuple[list[np.ndarray], list[str]]:
    """Draws the cascade for one person: each stage's pose, and between two stages the crop
    of the keypoint that moved the furthest.

    Args:
      image: [h, w, 3], the input of the first stage.
      stages_xy: [s, k, 2] in its frame.
      squares: [s - 1, 2], width and height of a keypoint's crop in that frame.
      keypoint_set: keypoint set of the k points.
      side: height of the images, pixels.

    Returns:
      2 s - 1 images of equal height, and their titles. In a crop the previous stage's point
      is a ring, the next one's a dot.
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


def cascade_panel(inspected, keypoint_set: KeypointSet, alignment):
    """`refinement` of each row; see `types.Panel`."""
    del alignment  # There are no maps.

    values = (inspected[key] for key in ("input", "stages_xy", "squares"))
    drawn = (
        refinement(*row, keypoint_set=keypoint_set) for row in zip(*values, strict=True)
    )
    return [list(zip(titles, pictures, strict=True)) for pictures, titles in drawn]


def _square(image, before_xy, after_xy, size, side: int) -> np.ndarray:
    """Draws the crop around `before_xy`, black beyond the image's border."""
    low = before_xy - np.asarray(size) / 2
    picture = part(image, low, size, (side, side))
    draw = ImageDraw.Draw(picture)
    at = lambda point: ((np.asarray(point) - low) * side / size).tolist()
    (x, y), (x2, y2), r = at(before_xy), at(after_xy), side / 25
    draw.line((x, y, x2, y2), fill="white", width=2)
    draw.ellipse((x - r, y - r, x + r, y + r), outline="white", width=2)
    r *= 0.6
    draw.ellipse((x2 - r, y2 - r, x2 + r, y2 + r), fill="lime", outline="black")
    return np.array(picture)
