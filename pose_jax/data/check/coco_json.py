"""Checks of COCO JSON files: annotations, detections, names of images.

Rows are read one by one: unusable values are reported and become NaN or are left out, so
that everything else can be checked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pose_jax.data import _files, coco, keypoint_sets
from pose_jax.data.check import people as people_lib
from pose_jax.data.check.findings import File, short
from pose_jax.data.check.images import ImageFile
from pose_jax.data.check.kinds import Severity
from pose_jax.data.check.people import People
from pose_jax.data.ids import ImageIds
from pose_jax.errors import InputError
from pose_jax.keypoints import COCO, SETS, KeypointSet, pairs_by_name

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
            data = _files.parse_json(self.path)
        except FileNotFoundError:
            self.add("json-missing", "not found")
        except OSError as error:
            self.add("json-unreadable", str(error.strerror))
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

    def image_id(self, row: Row, name: str, where: str) -> int | str | None:
        """Returns a required integer of 64 bits, or a text."""
        value = row.get(name)
        return value if isinstance(value, str) else self.id(row, name, where)

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


def images(file: JsonFile, data: Row) -> tuple[list[Listed], ImageIds]:
    """Returns the images with usable names, and the ids of all."""
    rows, ids, names, lowered = [], {}, {}, {}
    if data.get("images") == []:
        file.add("images-empty", "images is []")
    for row, where in file.rows(data, "images", "image"):
        image_id = file.image_id(row, "id", where)
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
        ids[image_id] = name or ""
        if isinstance(image_id, str):
            file.add("image-ids-text", where)
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
        rows.append((image_id, name, size))
    known = ImageIds(list(ids), list(ids.values()))
    return [Listed(known(own) or 0, name, size) for own, name, size in rows], known


def files_of_images(
    listed: Sequence[Listed], file: File, missing: str
) -> list[ImageFile]:
    """Returns the listed images that are in the folder `file`; reports the others."""
    try:
        folder = _files.ImageFolder(file.path)
    except OSError as error:
        file.add("no-image-folder", str(error.strerror))
        return []
    files = []
    for image in listed:
        where = f"image id {image.id}"
        if image.name in folder:
            files.append((file.path / image.name, where, image.size))
            continue
        kind, there = folder.why_absent(image.name)
        more = f"; {there} is there" if there else ""
        severity = "warning" if missing == "skip" else None
        file.add(kind, f"{short(image.name)} ({where}){more}", severity=severity)
    return files


def category(
    file: JsonFile,
    data: Row,
    option: keypoint_sets.Option | None,
    name: int | str | None,
) -> tuple[int | None, set[int], KeypointSet]:
    """Returns the category of people, all ids, and the keypoint set of the file.

    Args:
      file: the annotation file.
      data: its content.
      option: the keypoint set that it should use, as in `coco.load`.
      name: name or id of the category, as in `coco.load`.

    Raises:
      ConfigError: the option is not valid.
    """
    asked = option if isinstance(option, KeypointSet) else SETS.get(str(option), COCO)
    if "annotations" not in data and "categories" not in data:
        return None, set(), asked
    known, where_of = [], {}
    for row, where in file.rows(data, "categories", "category"):
        own_id = file.id(row, "id", where)
        names = row.get("keypoints")
        if names and not isinstance(names, list):
            file.add("field-type", f"{where}: keypoints is {short(names)}")
            names = list(asked.names)  # So that everything else can be checked.
        if own_id is not None:
            names = [str(n) for n in names] if names else None
            about = str(row.get("name", "")), names, row.get("skeleton")
            known.append(coco.Category(own_id, *about))
            where_of[own_id] = where
    ids = set(where_of)
    people = coco.candidates(known, data, name)
    if len(people) > 1:
        file.add("several-categories", ", ".join(where_of[c.id] for c in people))
    elif not people and name is not None:
        file.add("category-unknown", short(name))
    elif not people and isinstance(data.get("categories"), list):
        file.add("category-without-keypoints", f"{len(ids)} categories")
    if not people:
        return None, ids, asked
    return people[0].id, ids, _set_of(file, data, people[0], option, where_of)


def _set_of(
    file: JsonFile,
    data: Row,
    people: coco.Category,
    option: keypoint_sets.Option | None,
    where_of: Mapping[int, str],
) -> KeypointSet:
    """Returns the keypoint set of the chosen category, and checks it."""
    where, names = where_of[people.id], people.names
    if names is None:
        wanted = COCO if option is None else keypoint_sets.resolve(option, None)
        people_lib.check_set(file, wanted)
        k = keypoint_sets.number_in(data.get("annotations"))
        if option is None and k not in (None, len(wanted)):
            file.add("keypoints-number", f"{where}: annotations have {k}")
            return KeypointSet("unnamed", tuple(map(str, range(k))), (), ())
        if data.get("annotations"):
            file.add("keypoints-not-named", f"{where}: set {wanted.name}")
        return wanted
    try:
        of_file = keypoint_sets.of_category(people.name, names, people.skeleton)
    except InputError as error:
        file.add("keypoint-set", f"{where}: {error}")
        if len(set(names)) < len(names):  # A KeypointSet does not allow that.
            names = [f"{i} {name}" for i, name in enumerate(names)]
        of_file = KeypointSet("of the file", tuple(names), pairs_by_name(names), ())
    if option is None:
        for known in SETS.values():  # Probably meant, but right as it is.
            if of_file != known and {*of_file.names} == {*known.names}:
                _check_names(file, list(of_file.names), known, where, "warning")
        return of_file
    wanted = keypoint_sets.resolve(option, of_file)
    people_lib.check_set(file, wanted)
    if of_file.names == wanted.names:
        return wanted
    _check_names(file, list(of_file.names), wanted, where)
    return of_file


def _check_names(
    file: File,
    names: list[str],
    wanted: KeypointSet,
    where: str,
    severity: Severity | None = None,
) -> None:
    """Reports how the names in the file differ from those of the set."""
    if len(names) != len(wanted):
        shown = f"{where}: {len(names)}; set {wanted.name} has {len(wanted)}"
        file.add("keypoint-count", shown, severity=severity)
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
    file.add(kind, first, count=len(wrong), severity=severity)


def people(
    file: JsonFile,
    data: Row,
    listed: Sequence[Listed],
    images: ImageIds,
    option: keypoint_sets.Option | None = None,
    name: int | str | None = None,
) -> tuple[People, int | None]:
    """Returns the annotations of people as columns, and their category.

    Args:
      file: the annotation file.
      data: its content.
      listed: its images.
      images: the ids of all its images.
      option: the keypoint set that it should use, as in `coco.load`.
      name: name or id of the category of people, as in `coco.load`.
    """
    of_people, categories, keypoint_set = category(file, data, option, name)
    sizes = {image.id: image.size for image in listed if image.size}
    found, seen, others = [], set(), 0
    k = len(keypoint_set)
    if "annotations" not in data:
        file.add("annotations-absent", f"{len(images.numbers)} images")
        data = {**data, "annotations": []}
    elif data["annotations"] == []:
        file.add("annotations-empty", "annotations is []")
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
        image_id = file.image_id(row, "image_id", where)
        number = None if image_id is None else images(image_id)
        # If no image is usable, that has been reported already.
        lost = image_id is not None and number is None
        if lost and (images.numbers or data.get("images") == []):
            file.add("unknown-image", f"{where}: image_id {short(image_id)}")
        box = file.box(row, where)
        area = max(box[2] * box[3], 0) if row.get("area") is None else None
        if area is not None:
            file.add("area-absent", where)
        elif (area := file.number(row, "area", where)) is None:
            area = np.nan
        flags = _crowd(file, row, where), _keypoints(file, row, where, k)
        found.append((where, number, box, area, *flags))
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
    if triples in (None, []):
        return none
    triples = coco.without_holes(triples)
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
    file: JsonFile, listed: Sequence[Listed], images: ImageIds, of_people: int | None
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
        image_id = file.image_id(row, "image_id", where)
        number = None if image_id is None else images(image_id)
        own_category = file.id(row, "category_id", where)
        box = file.box(row, where)
        score = file.number(row, "score", where)
        if score is not None and not 0 <= score <= 1:
            file.add("score-range", f"{where}: score is {short(score)}")
        where += f" (image id {image_id})"
        if None not in (own_category, of_people) and own_category != of_people:
            others.append(f"{where}: category_id {own_category}")
        elif images.numbers and image_id is not None and number is None:
            unknown.append(where)
        elif np.isfinite(box).all():
            if box[2:].min() <= 0:
                file.add("bbox-empty-unlabelled", f"{where}: bbox {box.tolist()}")
                continue
            names.append(where)
            boxes.append(box)
            image_sizes.append(sizes.get(number) or (np.nan, np.nan))
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
