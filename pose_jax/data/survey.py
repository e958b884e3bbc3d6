"""What a data set is like: the numbers from which `pose-jax init` chooses settings."""

from __future__ import annotations

import dataclasses

import numpy as np

from pose_jax.data.table import Table

SHARED = 0.2
"""Fraction of a box from which it overlaps with another."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """A summary of the labeled people (or animals) of a split.

    Attributes:
      images: number of images.
      people: number of people to train on.
      keypoints: number of keypoints.
      labeled: fraction of their keypoints that are labeled.
      most: largest number of people in an image.
      several: fraction of the images with people that have more than one.
      box: median (width, height) of their boxes, image pixels.
      aspect: median of width over height.
      extent: median of the longer side of a box over the longer side of its image.
      overlapping: fraction of people whose box shares more than `SHARED` with another's.
      any_direction: whether they are seen in all orientations, as animals from above are.
      has_sides: whether keypoints are known to be left and right.
      image: the largest (width, height) of an image.
      megabytes: of all images, decoded.
    """

    images: int
    people: int
    keypoints: int
    labeled: float
    most: int
    several: float
    box: tuple[int, int]
    aspect: float
    extent: float
    overlapping: float
    any_direction: bool
    has_sides: bool
    image: tuple[int, int]
    megabytes: int


def survey(table: Table) -> Survey:
    """Summarizes a table with at least one person to train on."""
    rows = table.labelled_rows()
    boxes = table.boxes_xyxy[rows]
    sizes = boxes[:, 2:] - boxes[:, :2]
    counts = np.bincount(table.image[rows], minlength=len(table.images))
    used = counts[counts > 0]
    longer = table.image_sizes[table.image[rows]].max(-1)
    width, height = np.median(sizes, axis=0)
    longest = table.image_sizes.max(0)
    return Survey(
        images=len(table.images),
        people=len(rows),
        keypoints=len(table.keypoints),
        labeled=float((table.visibility[rows] > 0).mean()),
        most=int(counts.max()),
        several=float((used > 1).mean()),
        box=(round(width), round(height)),
        aspect=float(np.median(sizes[:, 0] / sizes[:, 1])),
        extent=float(np.median(sizes.max(-1) / longer)),
        overlapping=float(_shared(table, rows).mean()),
        any_direction=_any_direction(table.points_xy[rows], table.visibility[rows] > 0),
        has_sides=bool(len(table.keypoints.flip_pairs)),
        image=(int(longest[0]), int(longest[1])),
        megabytes=round(float(3 * table.image_sizes.prod(-1, dtype=float).sum() / 1e6)),
    )


def _shared(table: Table, rows: np.ndarray) -> np.ndarray:
    """Returns [r] bool: whether the box of a person overlaps with another's."""
    found = np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        others = table.people_of_image(int(table.image[row]))
        others = others[(others != row) & ~table.crowd[others]]
        box, other = table.boxes_xyxy[row], table.boxes_xyxy[others]
        low = np.maximum(box[:2], other[:, :2])
        shared = np.maximum(np.minimum(box[2:], other[:, 2:]) - low, 0).prod(-1)
        found[i] = (shared > SHARED * (box[2:] - box[:2]).prod()).any()
    return found


def _any_direction(points_xy: np.ndarray, labeled: np.ndarray) -> bool:
    """Returns whether people have all orientations.

    The direction is that between the two keypoints that are farthest apart on average, with
    left and right counted as one. The mean of such unit vectors has the length 2 / pi =
    0.64 if all directions are equally frequent, and 1 if there is only one.
    """
    n, k = labeled.shape
    both = labeled[:, :, None] & labeled[:, None]
    enough = both.sum(0) >= max(_ENOUGH, n // 2)
    points_xy = np.where(labeled[..., None], points_xy, 0)
    length = np.zeros((k, k))
    for person, known in zip(points_xy, both, strict=True):
        step = np.linalg.norm(person[:, None] - person[None], axis=-1)
        length += np.where(known, step / max(step.max(initial=0, where=known), 1e-9), 0)
    mean = np.where(enough, length / np.maximum(both.sum(0), 1), 0)
    if k < 2 or not mean.any():
        return False
    a, b = np.unravel_index(mean.argmax(), mean.shape)
    vectors = (points_xy[:, b] - points_xy[:, a])[both[:, a, b]]
    vectors[:, 0] = np.abs(vectors[:, 0])
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units = (vectors / np.maximum(norms, 1e-9))[norms[:, 0] > 0]
    return len(units) >= _ENOUGH and bool(np.linalg.norm(units.mean(0)) < _ANY)


_ENOUGH, _ANY = 8, 0.78
