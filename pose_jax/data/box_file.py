"""Person boxes of images from a JSON file in COCO's format, for prediction.

The images are files that the user names; how a file's boxes refer to them:

* A file with an `images` list: by its `file_name`, in full or as far as it is unique.
* A list of boxes: by their `file_name`; without it, by an `image_id` that is the name of
  the image without suffix, or its number ("000000000785.jpg" is 785).

What could refer to two images, or two entries of the list to one image, is refused.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax.data._files import read_json
from pose_jax.errors import ConfigError, InputError, one_line

PERSON = 1
"""COCO's category id of people."""


@dataclasses.dataclass(frozen=True)
class Category:
    """The category of people: its id and its name in the file."""

    id: int
    name: str = "person"


@dataclasses.dataclass(frozen=True, eq=False)
class BoxFile:
    """The boxes of m images.

    Attributes:
      boxes_xyxy: m arrays [n, 4], (x, y, x + w, y + h).
      scores: m arrays [n]; 1 where the file has none.
      sizes: m (width, height) that the file gives for the images, or None.
      ids: m ids of the images in the file's list, or None.
      category: the category of the boxes; None if they have none.
      notes: what was left out, one sentence each.
    """

    boxes_xyxy: list[np.ndarray]
    scores: list[np.ndarray]
    sizes: list[tuple[int, int] | None]
    ids: list[int | str | None]
    category: Category | None
    notes: tuple[str, ...]


def read(
    path: Path,
    images: Sequence[Path],
    *,
    category: str | None = None,
    min_score: float | None = None,
) -> BoxFile:
    """Reads the boxes of images from annotations or detections in COCO's format.

    Crowd regions, empty boxes, and boxes or scores that are not finite are left out.

    Args:
      path: the JSON file: an object with `annotations`, or a list of boxes.
      images: the image files.
      category: name or id of the category of people; None: "person" or the only one.
      min_score: boxes of lower score are left out.

    Raises:
      InputError: the file is unreadable, an entry is invalid or ambiguous, or no image has
        a box.
      ConfigError: the file has several categories and none is chosen, or no such category.
    """
    content = read_json(path, object, "name another")
    listed, rows, categories = _sections(content, path)
    chosen = _category(path, rows, categories, category)
    matcher = _Listed(path, images, listed) if listed is not None else None
    number_of = matcher or _Bare(path, images, rows)
    boxes: list[list[list[float]]] = [[] for _ in images]
    out: collections.Counter[str] = collections.Counter()
    for i, row in enumerate(rows):
        box, score = _box(row, f"{path}: entry {i}")
        image = number_of(row, f"{path}: entry {i}")
        why = _left_out(row, box, score, chosen, min_score)
        if why or image is None:
            out[why or "of images that are not given"] += 1
        else:
            x, y, w, h = box
            boxes[image].append([x, y, x + w, y + h, score])
    if not any(boxes):
        raise InputError(
            f"{path}: none of its {len(rows)} boxes can be used for the given images "
            f"(first image: {images[0].name}){_counts(out)}. Boxes refer to images by "
            "'file_name', or by an 'image_id' that is in the list of images or in the "
            "file's name."
        )
    arrays = [np.array(own, np.float64).reshape(-1, 5) for own in boxes]
    notes = [f"{path}: {out.total()} boxes are left out{_counts(out)}."] if out else []
    bare = [image for image, own in zip(images, boxes, strict=True) if not own]
    if bare:
        more = ", ..." if len(bare) > 3 else ""
        notes.append(
            f"{len(bare)} of {len(images)} images have no box in {path}: "
            f"{', '.join(map(str, bare[:3]))}{more}."
        )
    none = [None] * len(images)
    return BoxFile(
        boxes_xyxy=[own[:, :4] for own in arrays],
        scores=[own[:, 4] for own in arrays],
        sizes=matcher.sizes if matcher else list(none),
        ids=matcher.ids if matcher else list(none),
        category=chosen,
        notes=tuple(notes),
    )


def _counts(out: Mapping[str, int]) -> str:
    text = ", ".join(f"{count} {why}" for why, count in sorted(out.items()))
    return f" ({text})" if text else ""


def _sections(content: Any, path: Path):
    """Returns the images (None without such a list), boxes and categories of a file."""
    if isinstance(content, list):
        return None, content, []
    parts = content if isinstance(content, dict) else {}
    sections = [parts.get(name) for name in ("images", "annotations", "categories")]
    images, rows, categories = sections
    known = all(part is None or isinstance(part, list) for part in sections)
    if rows is None or not known:
        raise InputError(
            f"{path} must be a COCO detections file (a list of boxes) or a COCO annotation "
            "file, with the lists 'images', 'annotations' and 'categories'."
        )
    return images, rows, categories or []


def _left_out(
    row: Mapping[str, Any],
    box: Sequence[float],
    score: float,
    category: Category | None,
    min_score: float | None,
) -> str | None:
    """Returns why a box is not used, or None."""
    if category is not None and row.get("category_id", category.id) != category.id:
        return f"of other categories than {category.id} ({category.name})"
    if row.get("iscrowd"):
        return "crowd regions"
    if not all(map(math.isfinite, (*box, score))):
        return "not finite"
    if min(box[2:]) <= 0:
        return "empty"
    if min_score is not None and score < min_score:
        return f"with a score below {min_score:g}"
    return None


def _box(row: Any, where: str) -> tuple[list[float], float]:
    """Returns the box (x, y, w, h) and the score of an entry."""
    try:
        box = [float(value) for value in row["bbox"]]
        score = row.get("score")
        if len(box) == 4:
            return box, 1.0 if score is None else float(score)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        pass
    raise _invalid(row, where)


def _category(
    path: Path, rows: Sequence[Any], listed: Sequence[Any], wanted: str | None
) -> Category | None:
    """Returns the category of people; None if the boxes have no category."""
    used = {
        row["category_id"]: None
        for row in rows
        if isinstance(row, Mapping) and isinstance(row.get("category_id"), int)
    }
    names = {
        row["id"]: str(row.get("name", ""))
        for row in listed
        if isinstance(row, Mapping) and isinstance(row.get("id"), int)
    }
    known = [Category(i, names.get(i, "person")) for i in {**names, **used}]
    shown = ", ".join(f"{c.id} ({c.name})" if names else str(c.id) for c in known)
    if wanted is not None:
        chosen = [c for c in known if wanted in (str(c.id), c.name if names else None)]
        if len(chosen) != 1:
            raise ConfigError(
                f"{path}: no category {wanted!r}; it has {shown or 'none'}: choose another "
                "by --category."
            )
        return chosen[0]
    of_boxes = [c for c in known if c.id in used]
    people = [c for c in known if c.name == "person"] if names else []
    if not names and PERSON in used:
        people = [Category(PERSON)]
    for candidates in (people, of_boxes):
        if len(candidates) == 1:
            return candidates[0]
    if not of_boxes:
        return None
    raise ConfigError(
        f"{path}: boxes of several categories ({shown}): choose that of people by "
        "--category."
    )


def _parts(name: str) -> tuple[str, ...]:
    """Returns the folders and the name of a path as written by any system."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _match(
    path: Path, images: Sequence[Path], names: Sequence[str]
) -> list[int | None]:
    """Returns, for each image, the index of the name that refers to it, or None.

    A name refers to an image whose path ends with it; the longest such name counts. Other
    names refer to an image by their last part if no other name and no other image has it.
    """
    parts = [_parts(name) for name in names]
    paths = [_parts(os.path.abspath(image)) for image in images]
    by_last: dict[str, list[int]] = {}
    for i, own in enumerate(parts):
        by_last.setdefault(own[-1] if own else "", []).append(i)
    images_of = collections.Counter(own[-1] for own in paths)
    found: list[int | None] = []
    for own in paths:
        ends = [
            i for i in by_last.get(own[-1], ()) if own[-len(parts[i]) :] == parts[i]
        ]
        longest = max((len(parts[i]) for i in ends), default=0)
        ends = [i for i in ends if len(parts[i]) == longest]
        if len(ends) > 1:
            raise InputError(
                f"{path}: {names[ends[0]]!r} is listed twice, so that its boxes are "
                "ambiguous. Remove one entry."
            )
        found.append(ends[0] if ends else None)
    taken = collections.Counter(i for i in found if i is not None)
    for n, own in enumerate(paths):
        i = found[n]
        if i is not None and taken[i] > 1:
            others = [str(images[m]) for m, j in enumerate(found) if i == j]
            raise InputError(
                f"{path}: {names[i]!r} could be {others[0]} or {others[1]}. Write the "
                "folder into its file_name, or predict them separately."
            )
        left = [j for j in by_last.get(own[-1], ()) if j not in taken]
        if i is not None or not left:
            continue
        if len(by_last[own[-1]]) > 1 or images_of[own[-1]] > 1:
            raise InputError(
                f"{path}: {names[left[0]]!r} could be {images[n]}, but there are several "
                "files of this name. Give the images in the folders that it names."
            )
        found[n] = left[0]
    return found


class _Listed:
    """Assigns boxes to images by the file's list of images."""

    def __init__(
        self, path: Path, images: Sequence[Path], listed: Sequence[Any]
    ) -> None:
        for i, row in enumerate(listed):
            valid = isinstance(row, Mapping) and isinstance(row.get("file_name"), str)
            if not valid or not isinstance(row.get("id"), int | str):
                raise InputError(
                    f"{path}: image number {i} must have an 'id' and a 'file_name'; got "
                    f"{one_line(row, 80)}. Fix the file."
                )
        number = {row["id"]: None for row in listed}
        if len(number) < len(listed):
            twice = collections.Counter(row["id"] for row in listed).most_common(1)
            raise InputError(
                f"{path}: two images have id {twice[0][0]!r}. Renumber them."
            )
        names = [row["file_name"] for row in listed]
        found = _match(path, images, names)
        self.ids = [None if i is None else listed[i]["id"] for i in found]
        self.sizes = [None if i is None else _size(listed[i]) for i in found]
        self._number = {own: n for n, own in enumerate(self.ids) if own is not None}

    def __call__(self, row: Mapping[str, Any], where: str) -> int | None:
        """Returns the index of a box's image, None if it is not given."""
        image_id = row.get("image_id")
        if not isinstance(image_id, int | str):
            raise _invalid(row, where)
        return self._number.get(image_id)


class _Bare:
    """Assigns boxes to images by what they say of their image."""

    def __init__(self, path: Path, images: Sequence[Path], rows: Sequence[Any]) -> None:
        names = list(
            dict.fromkeys(
                row["file_name"]
                for row in rows
                if isinstance(row, Mapping) and isinstance(row.get("file_name"), str)
            )
        )
        found = _match(path, images, names) if names else []
        self._by_name = {names[i]: n for n, i in enumerate(found) if i is not None}
        self._path, self._images = path, images
        self._by_stem = _groups(images, lambda image: _parts(image.stem)[-1:])
        self._by_number = _groups(images, lambda image: number(image.stem))

    def __call__(self, row: Mapping[str, Any], where: str) -> int | None:
        """Returns the index of a box's image, None if it is not given."""
        if isinstance(row.get("file_name"), str):
            return self._by_name.get(row["file_name"])
        image_id = row.get("image_id")
        if isinstance(image_id, float) and image_id.is_integer():
            image_id = int(image_id)
        if not isinstance(image_id, int | str):
            raise _invalid(row, where)
        groups = [self._by_number.get(image_id, [])]
        if isinstance(image_id, str):
            by_number = self._by_number.get(number(image_id), [])
            groups = [self._by_stem.get(_parts(image_id), []), by_number]
        found = next(filter(None, groups), [])
        if len(found) > 1:
            first, second = (self._images[n] for n in found[:2])
            raise InputError(
                f"{self._path}: image_id {image_id!r} could be {first} or {second}. Add a "
                "'file_name' to the boxes, or predict them separately."
            )
        return found[0] if found else None


def _groups(images: Sequence[Path], key: Callable[[Path], Any]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(key(image), []).append(i)
    groups.pop(None, None)
    return groups


def number(stem: str) -> int | None:
    """Returns the number that a name consists of, below 2^53; None if it is no number."""
    digits = stem.lstrip("0") or stem[-1:]
    # Python refuses to convert thousands of digits.
    if stem.isascii() and stem.isdigit() and len(digits) <= 16 and int(digits) < 2**53:
        return int(digits)
    return None


def _invalid(row: Any, where: str) -> InputError:
    return InputError(
        f"{where} must have 'bbox' [x, y, w, h] and 'image_id' or 'file_name'; got "
        f"{one_line(row, 80)}. Fix the file."
    )


def _size(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns (width, height) of a listed image; None if they are not given."""
    size = row.get("width"), row.get("height")
    given = all(isinstance(side, int) and side > 0 for side in size)
    return size if given else None  # pyright: ignore
