"""Checks of people as columns, independent of the file format.

Annotations in COCO JSON files and Tables of readers are both converted to `People`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pose_jax.data.check.findings import EXAMPLES, File
from pose_jax.keypoints import KeypointSet, mirrored, pairs_by_name

_MIN_PEOPLE = 20
"""Minimum number of people with both joints of a pair for checks of left and right."""


@dataclasses.dataclass(frozen=True, eq=False)
class People:
    """n people with k keypoints, from a JSON file or a Table; NaN for unusable values.

    Attributes:
      names: [n] description of each person.
      keypoints: the keypoint set.
      images: [n] image id of each person.
      sizes: [n, 2] (width, height) of the image.
      points_xy, visibility, boxes_xyxy, areas, crowd: as in a Table.
      annotated_boxes: whether the boxes are annotations; else they are derived from the
        joints or the image, and not checked.
    """

    names: list[str]
    keypoints: KeypointSet
    images: np.ndarray
    sizes: np.ndarray
    points_xy: np.ndarray
    visibility: np.ndarray
    boxes_xyxy: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    annotated_boxes: bool

    @property
    def labelled(self) -> np.ndarray:
        """[n, k] bool: visible or hidden, and finite."""
        return (self.visibility > 0) & np.isfinite(self.points_xy).all(-1)

    def add(self, file: File, kind: str, which: npt.ArrayLike, **options: Any) -> None:
        """Adds a finding of the people [n], or keypoints [n, k], selected by `which`."""
        cases = np.argwhere(which)
        for case in cases[:EXAMPLES]:
            where = self.names[case[0]]
            if len(case) > 1:
                x, y = self.points_xy[tuple(case)]
                where += f": {self.keypoints.names[case[1]]} ({x:g}, {y:g})"
            file.add(kind, where, **options)
        if len(cases) > EXAMPLES:
            file.add(kind, "", count=len(cases) - EXAMPLES, **options)


def check_people(people: People, file: File) -> None:
    """Checks scale, extent, boxes, left and right."""
    if not people.names:
        return
    labelled = people.labelled
    people.add(file, "visibility-value", ~np.isin(people.visibility, (0, 1, 2)).all(1))
    broken = (people.visibility > 0) & ~labelled
    people.add(file, "keypoints-not-finite", broken.any(1))
    if not labelled.any():
        file.add("no-labels", f"{len(people.names)} people")
    elif (people.visibility != 2).all():
        file.add("visibility-binary", f"{labelled.sum()} keypoints with v = 1")
    if people.annotated_boxes:
        _check_boxes(people, file)
    else:
        empty = ~(_extent(people.boxes_xyxy) > 0).all(1) | ~(people.areas > 0)
        people.add(file, "person-unusable", labelled.any(1) & empty)
    _check_points(people, file)
    _check_torsos(people, file)
    _check_sides(people, file)


def _extent(boxes_xyxy: np.ndarray) -> np.ndarray:
    return boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]


def _check_boxes(people: People, file: File) -> None:
    boxes, sizes = people.boxes_xyxy, people.sizes
    labelled = people.labelled.any(1) & ~people.crowd
    extent = _extent(boxes)  # NaN compares False: unknown is not an error.
    empty = (extent <= 0).any(1)
    people.add(file, "bbox-empty", empty & labelled)
    people.add(file, "bbox-empty-unlabelled", empty & ~labelled)
    area = people.areas
    people.add(file, "area-not-positive", (area <= 0) & labelled)
    tiny = (area > 0) & (area < 0.01 * np.prod(extent, -1)) & labelled
    most = tiny.sum() > labelled.sum() / 2
    people.add(file, "area-tiny", tiny, severity="error" if most else "warning")

    known = np.isfinite(boxes).all(1) & np.isfinite(sizes).all(1)
    if _normalized(boxes[known & ~empty], sizes[known & ~empty]):
        people.add(file, "bbox-normalized", known & ~empty)
        return
    xywh = np.concatenate([boxes[:, :2], extent], -1)
    sure = known & labelled & ~empty
    points, has_label = people.points_xy[sure], people.labelled[sure]
    if looks_xyxy(xywh[sure], sizes[sure], points, has_label):
        people.add(file, "bbox-xyxy", sure)
        return
    too_large = area > 1.5 * np.prod(extent, -1)
    people.add(file, "area-exceeds-box", too_large & labelled & ~empty)
    low, high = boxes[:, :2], boxes[:, 2:]
    outside = ((high <= 0) | (low >= sizes)).any(1) & ~empty
    people.add(file, "bbox-outside", outside)
    # Annotation tools round, so a pixel or two are not an error.
    beyond = ((low < -2) | (high > sizes + 2)).any(1)
    people.add(file, "bbox-beyond", beyond & ~outside & ~empty)


def _normalized(values: np.ndarray, sizes: np.ndarray) -> bool:
    """Returns whether coordinates [n, ...] are fractions of image sizes [n, 2]."""
    telling = values.size >= 4 and sizes.min() > 4
    return bool(telling and values.min() >= -0.5 and values.max() <= 1.5)


def looks_xyxy(
    xywh: np.ndarray,
    sizes: np.ndarray,
    points_xy: np.ndarray | None = None,
    labelled: np.ndarray | None = None,
) -> bool:
    """Returns whether boxes [n, 4], given as (x, y, w, h), look like (x1, y1, x2, y2).

    As corners they must be valid and contain their keypoints (if any), and as (x, y, w, h)
    many must extend beyond the image. Boxes at the origin are not used, since both formats
    agree there.
    """
    telling = (xywh[:, :2] > 2).any(1) & np.isfinite(sizes).all(1)
    if telling.sum() < 3:
        return False
    corners = xywh[telling]
    fits = (corners[:, 2:] > corners[:, :2]).all(1)
    if points_xy is not None and labelled is not None:
        inside = _inside(points_xy[telling], corners) | ~labelled[telling]
        fits &= inside.mean(1) > 0.9
    leaves = (corners[:, :2] + corners[:, 2:] > sizes[telling] + 2).any(1)
    return bool(fits.mean() > 0.9 and leaves.mean() > 0.3)


def _inside(points_xy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Returns [n, k] bool: points [n, k, 2] in boxes [n, 4], with 10% + 2 px tolerance."""
    slack = 2 + 0.1 * np.maximum(_extent(boxes_xyxy), 0)
    low, high = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    slack = slack[:, None]
    return np.all((points_xy >= low - slack) & (points_xy <= high + slack), axis=-1)


def _check_points(people: People, file: File) -> None:
    labelled, points = people.labelled, people.points_xy
    sizes = np.broadcast_to(people.sizes[:, None], points.shape)
    known = labelled & np.isfinite(sizes).all(-1)
    if not known.any():
        return
    if _normalized(points[known], sizes[known]):
        people.add(file, "points-normalized", known.any(1))
        return
    outside = known & _outside(points, sizes)
    swapped = points[..., ::-1]
    exchanged = known & _outside(swapped, sizes)
    share = outside.sum() / known.sum()
    if share > 0.05 and exchanged.sum() < 0.1 * outside.sum():
        people.add(file, "points-swapped", known.any(1))
        return
    if share > 0.5:
        people.add(file, "points-mostly-outside", outside)
        return
    people.add(file, "points-outside", outside)
    if not people.annotated_boxes or file.found.has("bbox-xyxy", "bbox-normalized"):
        return
    real = (_extent(people.boxes_xyxy) > 0).all(1) & ~people.crowd
    # Boxes contain the visible parts: hidden joints may be outside.
    seen = people.visibility == 2
    in_box = labelled & (seen if seen.any() else labelled) & real[:, None]
    total = in_box.sum(1)
    hits = (_inside(points, people.boxes_xyxy) & in_box).sum(1)
    turned = (_inside(swapped, people.boxes_xyxy) & in_box).sum(1)
    if turned.sum() > 0.9 * total.sum() and hits.sum() < 0.5 * total.sum():
        people.add(file, "points-swapped", known.any(1))
    else:
        people.add(file, "points-outside-box", hits < 0.5 * total)


def _outside(points_xy: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns which points are outside the image, with a tolerance of a pixel."""
    return np.any((points_xy < -1) | (points_xy > sizes), axis=-1)


def _check_torsos(people: People, file: File) -> None:
    if people.keypoints.torso is None:
        return
    labelled, points = people.labelled, people.points_xy
    a, b = people.keypoints.torso
    length = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    low = np.where(labelled[..., None], points, np.inf).min(1)
    high = np.where(labelled[..., None], points, -np.inf).max(1)
    extent = np.linalg.norm(high - low, axis=-1)
    known = labelled[:, a] & labelled[:, b] & ~people.crowd
    people.add(file, "torso-degenerate", known & (length < 0.02 * extent))


def _check_sides(people: People, file: File) -> None:
    """Compares left and right of each pair with the majority of the other pairs.

    People seen from behind swap all pairs; people with crossed arms swap one. A pair that
    contradicts the others in most people is exchanged in the file.
    """
    labelled, all_names = people.labelled, people.keypoints.names
    pairs = [
        (b, a) if "right" in all_names[a] or "left" in all_names[b] else (a, b)
        for a, b in people.keypoints.flip_pairs
    ]  # (left, right), where the names say so.
    if not pairs:
        return
    left, right = np.array(pairs).T
    both = labelled[:, left] & labelled[:, right] & ~people.crowd[:, None]
    side = np.sign(people.points_xy[:, left, 0] - people.points_xy[:, right, 0])
    side = np.where(both, side, 0)  # [n, pairs]: 1 where left is at larger x.
    for i, (a, b) in enumerate(pairs):
        others = np.sign(side.sum(1) - side[:, i])
        telling = (side[:, i] != 0) & (others != 0)
        n, agree = telling.sum(), (telling & (side[:, i] == others)).sum()
        names = f"{all_names[a]} and {all_names[b]}"
        if n >= _MIN_PEOPLE and agree / n < 0.5 - 1.5 / np.sqrt(n):
            first = people.names[int(np.argmax(telling & (side[:, i] != others)))]
            file.add("pair-swapped", f"{names}: in {n - agree} of {n}, as {first}")
        if all_names[a] == "left_eye":
            wrong, n = int((side[:, i] < 0).sum()), (side[:, i] != 0).sum()
            if n >= _MIN_PEOPLE and wrong > 0.7 * n:
                first = people.names[int(np.argmax(side[:, i] < 0))]
                file.add("sides-mirrored", f"{wrong} of {n}, as {first}", count=wrong)


def counts(
    image_ids: Sequence[int] | np.ndarray, people: People, sources: Mapping[str, int]
) -> dict[str, int]:
    labelled = people.labelled.any(1)
    v = people.visibility[labelled]
    return {
        "images": len(image_ids),
        "of them with people": int(np.isin(image_ids, people.images).sum()),
        "people": len(people.names),
        "crowd regions among them": int(people.crowd.sum()),
        "with labelled keypoints": int(labelled.sum()),
        "keypoints visible": int((v == 2).sum()),
        "hidden": int((v == 1).sum()),
        "not labelled": int((v == 0).sum()),
        **{f"boxes from {name}": count for name, count in sources.items()},
    }


def check_set(file: File, keypoint_set: KeypointSet) -> None:
    """Checks that the flip pairs are exactly the pairs of left_x and right_x."""
    names = keypoint_set.names
    by_name = pairs_by_name(names)
    stated = [frozenset(pair) for pair in keypoint_set.flip_pairs]
    for i, j in keypoint_set.flip_pairs:
        sided = mirrored(names[i]) or mirrored(names[j])
        if sided and not {(i, j), (j, i)} & {*by_name}:
            file.add("flip-pairs", f"{names[i]} with {names[j]}")
    for pair in by_name:
        if not frozenset().union(*stated) & {*pair}:
            file.add("flip-pairs", f"{names[pair[0]]} and {names[pair[1]]} are no pair")
