"""What the verb says and draws of the people of an image or a frame."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pose_jax.drawing import people as drawing
from pose_jax.keypoints import KeypointSet
from pose_jax.predict.estimator import Person


def note(text: str) -> None:
    """Prints a note on stderr."""
    print(f"pose-jax: note: {text}", file=sys.stderr)


def is_finite(person: Person) -> bool:
    """Returns whether all points, scores and the box are finite."""
    values = (person.points_xy, person.keypoint_scores, person.score, person.box_xyxy)
    return all(np.isfinite(value).all() for value in values)


NOT_FINITE = (
    "{} people are left out: their points or scores are not finite. The training has "
    "diverged, or the model is damaged."
)


def drawn(
    image: np.ndarray,
    persons: Sequence[Person],
    keypoint_set: KeypointSet,
    boxed: bool,
    titles: Sequence[str] | None,
    **options: Any,
) -> np.ndarray:
    """Draws people on an image [h, w, 3].

    Args:
      image: uint8.
      persons: the people to draw.
      keypoint_set: their keypoints.
      boxed: whether their boxes are drawn.
      titles: a text for each box.
      **options: for `draw_people`.
    """
    k = len(keypoint_set)
    boxes = np.array([p.box_xyxy for p in persons]).reshape(-1, 4)
    return drawing.draw_people(
        image,
        np.array([p.points_xy for p in persons]).reshape(-1, k, 2),
        keypoint_set,
        scores=np.array([p.keypoint_scores for p in persons]).reshape(-1, k),
        boxes_xyxy=boxes if boxed else None,
        titles=titles,
        **options,
    )
