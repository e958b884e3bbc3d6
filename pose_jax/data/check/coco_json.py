"""Checks of COCO JSON files: annotations, detections, names of images.

Rows are read one by one: unusable values are reported and become NaN or are left out, so
that everything else can be checked.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pose_jax.data import _files
from pose_jax.data.check import people as people_lib
from pose_jax.data.check.findings import File, short
from pose_jax.data.check.images import ImageFile
from pose_jax.data.check.people import People
from pose_jax.keypoints import KeypointSet

Row = Mapping[str, Any]


class Listed(NamedTuple):
    """The usable fields of an image in an annotation file."""

    id: int
    name: str
    size: tuple[int, int] | None


class JsonFile(File):
    """The findings of a JSON file, and validated access to its rows."""

    def read(self, kind: type) -> Any:
        """Reads the file; returns None, and adds a finding, if it is unusable."""
        try:
            data = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            self.add("json-missing", "not found")
        except OSError as error:
            self.add("json-unreadable", str(error.strerror))
        except RecursionError:
            self.add("json-broken", "nested too deeply")
        except ValueError as error:
            self.add("json-broken", str(error))
        else:
            if isinstance(data, kind):
                return data
            self.add("json-kind", f"it holds a JSON {type(data).__name__}")
        return None

    def rows(self, data: Row, section: str, what: str) -> Iterable[tuple[Row, str]]:
        """Yields each row of a section that is an object, and a description of it."""
        rows = data.get(section)
        if not isinstance(rows, list):
            got = "absent" if section not in data else f"is {short(rows)}"
            self.add("section-missing", f"{section}: {got}")
            return
        for i, row in enumerate(rows):
            if isinstance(row, Mapping):
                where = f"id {row['id']}" if "id" in row else f"number {i}"
                yield row, f"{what} {where}"
            else:
                self.add("field-type", f"{what} number {i} is {short(row)}")

    def field(
        self, row: Row, name: str, kinds: Any, where: str, wrong: str = "field-type"
    ) -> Any:
        """Returns a required field of type `kinds`; else None, and adds a finding."""
        value = row.get(name)
        if value is None:
            self.add("field-missing", f"{where}: {name}")
        elif not isinstance(value, kinds) or isinstance(value, bool):
            self.add(wrong, f"{where}: {name} is {short(value)}")
        else:
            return value
        return None

    def id(self, row: Row, name: str, where: str) -> int | None:
        """Returns a required integer of 64 bits."""
        value = self.field(row, name, int, where, "id-not-integer")
        if value is None or -(2**63) <= value < 2**63:
            return value
        self.add("id-not-integer", f"{where}: {name} is {short(value)}")
        return None

    def number(self, row: Row, name: str, where: str) -> float | None:
        """Returns a required finite number; integers may be too large for a float."""
        value = self.field(row, name, (int, float), where)
        if value is None or abs(value) <= sys.float_info.max:
            return value
        self.add(f"{name}-not-finite", f"{where}: {name} is {short(value)}")
        return None

    def numbers(
        self, values: Any, name: str, where: str, count: int | None = None
    ) -> np.ndarray | None:
        """Returns `count` numbers as float64; else None, and adds a finding."""
        numeric = isinstance(values, list) and {*map(type, values)} <= {int, float}
        if not numeric or (count is not None and len(values) != count):
            self.add("field-type", f"{where}: {name} is {short(values)}")
            return None
        try:
            array = np.array(values, np.float64)
        except OverflowError:  # An integer of hundreds of digits.
            array = np.full(1, np.inf)
        if np.isfinite(array).all():
            return array
        self.add(f"{name}-not-finite", f"{where}: {name} is {short(values)}")
        return None

    def box(self, row: Row, where: str) -> np.ndarray:
        """Returns [4] x, y, width, height; NaN if unusable."""
        box = self.field(row, "bbox", list, where)
        if box is not None:
            box = self.numbers(box, "bbox", where, 4)
        return np.full(4, np.nan) if box is None else box


def images(file: JsonFile, data: Row) -> tuple[list[Listed], set[int]]:
    """Returns the images with usable names, and all ids."""
    listed, ids, names, lowered = [], set(), {}, {}
    for row, where in file.rows(data, "images", "image"):
        image_id = file.id(row, "id", where)
        name = file.field(row, "file_name", str, where)
        sides = [file.field(row, side, int, where) for side in ("width", "height")]
        if any(side is not None and not 1 <= side < 2**31 for side in sides):
            file.add("size-not-positive", f"{where}: {short(sides)}")
            sides = [None, None]
        if image_id is None:
            continue
        if image_id in ids:
            file.add("duplicate-image-id", f"{where}: {name}")
            continue
        ids.add(image_id)
        if name is None:
            continue
        if name in names:
            file.add("duplicate-file-name", f"{where} and {names[name]}: {name}")
        elif name.lower() in lowered:
            other = lowered[name.lower()]
            file.add("image-names-collide", f"{where} and {other}: {name}")
        names[name] = lowered[name.lower()] = where
        width, height = sides
        size = None if width is None or height is None else (width, height)
        listed.append(Listed(image_id, name, size))
    return listed, ids


def files_of_images(
    listed: Sequence[Listed], file: File, missing: str
) -> list[ImageFile]:
    """Returns the listed images that are in the folder `file`; reports the others."""
    try:
        present = set(os.listdir(file.path))
    except OSError as error:
        file.add("no-image-folder", str(error.strerror))
        return []
    by_lower = {name.lower(): name for name in present}
    files = []
    for image in listed:
        where = f"image id {image.id}"
        if image.name in present or _files.is_file(file.path / image.name):
            files.append((file.path / image.name, where, image.size))
            continue
        base = re.split(r"[\\/]", image.name)[-1]
        kind, there = "image-missing", None
        if image.name.lower() in by_lower:
            kind, there = "image-name-case", by_lower[image.name.lower()]
        elif base != image.name and base in present:
            kind, there = "image-name-folder", base
        more = f"; {there} is there" if there else ""
        severity = "warning" if missing == "skip" else None
        file.add(kind, f"{short(image.name)} ({where}){more}", severity=severity)
    return files


def category(
    file: JsonFile, data: Row, wanted: KeypointSet
) -> tuple[int | None, set[int], KeypointSet]:
    """Returns the category of people, all ids, and the keypoint set of the file."""
    ids, candidates = set(), []
    for row, where in file.rows(data, "categories", "category"):
        own_id = file.id(row, "id", where)
        names = row.get("keypoints")
        if names and not isinstance(names, list):
            file.add("field-type", f"{where}: keypoints is {short(names)}")
            names = list(wanted.names)  # So that everything else can be checked.
        if own_id is not None:
            ids.add(own_id)
            if names:
                is_person = row.get("name") == "person"
                candidates.append((own_id, [str(n) for n in names], is_person, where))
    people = [c for c in candidates if c[2]] or candidates
    if len(people) > 1:
        file.add("several-categories", ", ".join(where for *_, where in people))
    elif not people and isinstance(data.get("categories"), list):
        file.add("category-without-keypoints", f"{len(ids)} categories")
    if not people:
        return None, ids, wanted
    found, names, _, where = people[0]
    people_lib.check_set(file, wanted)
    if names == list(wanted.names):
        return found, ids, wanted
    _check_names(file, names, wanted, where)
    if len(set(names)) < len(names):  # A KeypointSet does not allow that.
        names = [f"{i} {name}" for i, name in enumerate(names)]
    pairs = people_lib.pairs_by_name(names)
    return found, ids, KeypointSet("of the file", tuple(names), pairs, ())


def _check_names(file: File, names: list[str], wanted: KeypointSet, where: str) -> None:
    """Reports how the names in the file differ from those of the set."""
    if len(names) != len(wanted):
        shown = f"{where}: {len(names)}; set {wanted.name} has {len(wanted)}"
        file.add("keypoint-count", shown)
        return
    wrong = [i for i, name in enumerate(names) if name != wanted.names[i]]
    first = f"{where}: keypoint {wrong[0]} is {names[wrong[0]]!r}, "
    first += f"set {wanted.name} has {wanted.names[wrong[0]]!r}"
    if set(names) != set(wanted.names):
        kind = "keypoint-names"
    elif all(names[i] == wanted.names[wanted.permutation[i]] for i in wrong):
        kind = "keypoint-sides"
    else:
        kind = "keypoint-order"
    file.add(kind, first, count=len(wrong))


def people(
    file: JsonFile,
    data: Row,
    listed: Sequence[Listed],
    known_ids: set[int],
    wanted: KeypointSet,
) -> tuple[People, int | None]:
    """Returns the annotations of people as columns, and their category.

    Args:
      file: the annotation file.
      data: its content.
      listed: its images.
      known_ids: the ids of all its images.
      wanted: the keypoint set that it should use.
    """
    of_people, categories, keypoint_set = category(file, data, wanted)
    sizes = {image.id: image.size for image in listed if image.size}
    found, seen, others = [], set(), 0
    k = len(keypoint_set)
    for row, where in file.rows(data, "annotations", "annotation"):
        own_id = file.id(row, "id", where)
        if own_id is not None and own_id in seen:
            file.add("duplicate-annotation-id", where)
        seen.add(own_id)
        row_category = file.id(row, "category_id", where)
        if row_category is None or of_people is None:
            continue
        if row_category != of_people:
            others += 1
            if row_category not in categories:
                file.add("unknown-category", f"{where}: category_id {row_category}")
            continue
        image_id = file.id(row, "image_id", where)
        # If no image is usable, that has been reported already.
        lost = image_id is not None and image_id not in known_ids
        if lost and (known_ids or data.get("images") == []):
            file.add("unknown-image", f"{where}: image_id {image_id}")
        box, area = file.box(row, where), file.number(row, "area", where)
        flags = _crowd(file, row, where), _keypoints(file, row, where, k)
        found.append((where, image_id, box, np.nan if area is None else area, *flags))
    if seen and of_people is not None and not found:
        file.add("no-people", f"{others} annotations of other categories")
    columns = zip(*found, strict=True) if found else ((),) * 6
    names, image_ids, boxes, areas, crowd, triples = columns
    n = len(names)
    points = np.array(triples, np.float64).reshape(n, k, 3)
    xywh = np.array(boxes, np.float64).reshape(n, 4)
    unknown = (np.nan, np.nan)
    result = People(
        names=list(names),
        keypoints=keypoint_set,
        images=np.array([-1 if i is None else i for i in image_ids], np.int64),
        sizes=np.array([sizes.get(i, unknown) for i in image_ids], float).reshape(n, 2),
        points_xy=points[..., :2],
        visibility=points[..., 2].astype(np.int64),
        boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], -1),
        areas=np.array(areas, np.float64),
        crowd=np.array(crowd, bool),
        annotated_boxes=True,
    )
    stray = (result.visibility == 0) & (result.points_xy != 0).any(-1)
    result.add(file, "unlabelled-coordinates", stray.any(1))
    return result, of_people


def _crowd(file: File, row: Row, where: str) -> bool:
    crowd = row.get("iscrowd", 0)
    if isinstance(crowd, int | float) and crowd in (0, 1):
        return bool(crowd)
    file.add("iscrowd-value", f"{where}: iscrowd is {short(crowd)}")
    return False


def _keypoints(file: JsonFile, row: Row, where: str, k: int) -> np.ndarray:
    """Returns [3 k]; zeros if they are missing or unusable."""
    triples, none = row.get("keypoints"), np.zeros(3 * k)
    if triples is None:
        return none
    if isinstance(triples, list) and len(triples) != 3 * k:
        file.add("keypoints-length", f"{where}: {len(triples)} numbers, not {3 * k}")
        return none
    values = file.numbers(triples, "keypoints", where)
    if values is None:
        return none
    if wrong := set(triples[2::3]) - {0, 1, 2}:
        file.add("visibility-value", f"{where}: v is {min(wrong):g}")
        return none
    said, count = row.get("num_keypoints"), int(np.count_nonzero(values[2::3]))
    if said is not None and said != count:
        shown = f"num_keypoints is {short(said)}, not {count}"
        file.add("num-keypoints", f"{where}: {shown}")
    return values


def detections(
    file: JsonFile, listed: Sequence[Listed], known_ids: set[int], of_people: int | None
) -> int:
    """Checks a results file; returns the number of usable boxes."""
    rows = file.read(list)
    if not rows:
        if rows is not None:
            file.add("detections-no-people", "the list is empty")
        return 0
    sizes: dict[int | None, Any] = {image.id: image.size for image in listed}
    boxes, image_sizes, names, unknown, others = [], [], [], [], []
    for i, row in enumerate(rows):
        where = f"detection {i}"
        if not isinstance(row, Mapping):
            file.add("field-type", f"{where} is {short(row)}")
            continue
        image_id = file.id(row, "image_id", where)
        own_category = file.id(row, "category_id", where)
        box = file.box(row, where)
        score = file.number(row, "score", where)
        if score is not None and not 0 <= score <= 1:
            file.add("score-range", f"{where}: score is {short(score)}")
        where += f" (image id {image_id})"
        if None not in (own_category, of_people) and own_category != of_people:
            others.append(f"{where}: category_id {own_category}")
        elif known_ids and image_id is not None and image_id not in known_ids:
            unknown.append(where)
        elif np.isfinite(box).all():
            if box[2:].min() <= 0:
                file.add("bbox-empty-unlabelled", f"{where}: bbox {box.tolist()}")
                continue
            names.append(where)
            boxes.append(box)
            image_sizes.append(sizes.get(image_id) or (np.nan, np.nan))
    for examples, total, of_all, of_some in (
        (others, len(rows), "detections-no-people", "detection-category"),
        (unknown, len(rows) - len(others), "detections-all-unknown",
         "detection-unknown-image"),
    ):  # fmt: skip
        for example in examples:
            file.add(of_all if len(examples) == total else of_some, example)
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    if people_lib.looks_xyxy(xywh, np.array(image_sizes, float).reshape(-1, 2)):
        file.add("bbox-xyxy", names[0], count=len(names))
    return len(names)
