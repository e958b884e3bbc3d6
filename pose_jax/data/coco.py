"""Keypoints in COCO's format, of people or of any other category, as a Table.

The layouts of `annotation_files` and `image_folder` are read in place: COCO's own, CVAT's,
Roboflow's, one JSON file and one folder. The keypoint set is that of the file's category,
or of option `keypoints`, see `keypoint_sets`.

Points keep the files' 0-based pixel coordinates; boxes become (x, y, x + w, y + h).
Nothing is filtered: people without keypoints and crowd regions are rows too
(`Table.labelled_rows` selects those for training). Coordinates of visibility 0 may be
anything, NaN or null too. `Table.notes` says what the file does not: areas (the boxes' are
used), names of keypoints (those of the set), integer ids of images (numbers).

A file without annotations is a test set: images without labels.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging

from pose_jax.data import keypoint_sets
from pose_jax.data._files import broken, is_in, parse_json, present, read_json
from pose_jax.data.dataset import DataSet
from pose_jax.data.ids import ImageIds
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.keypoints import COCO, SETS, KeypointSet


def load(
    root: str | Path,
    split: str = "train2017",
    *,
    annotations: str | Path | None = None,
    detections: str | Path | None = None,
    keypoints: keypoint_sets.Option | None = None,
    category: int | str | None = None,
    missing: Literal["error", "skip"] = "error",
    assumed: KeypointSet = COCO,
) -> Table:
    """Reads one split.

    A file without annotations, as of a test set, gives the images and no people.

    Args:
      root: the folder that holds the images' folder and `annotations/`.
      split: name of the images' folder, "train2017" or "val2017".
      annotations: the JSON file, or a .gz of it, if it is none of `annotation_files`.
      detections: a COCO results file of boxes (`image_id`, `category_id`, `bbox`,
        `score`). Its person boxes replace the people of the annotation file, without
        keypoints; `box_source` is then "detections", `truth` the annotated people. Images
        may be named by the stems of their files, too.
      keypoints: what the keypoint set has that the file's category does not say, see
        `keypoint_sets`; None: that of the file.
      category: name or id of the category of people; None: "person" among those with
        keypoints, or the only one.
      missing: what to do about missing images: "error" raises; "skip" leaves them and
        their people out and logs their number.
      assumed: the keypoint set of a file that names no keypoints, or the same names.

    Raises:
      InputError: a file is missing or broken, or does not match `keypoints`.
      ConfigError: `keypoints` is not valid.
    """
    root = Path(root)
    path = annotation_file(root, split) if annotations is None else Path(annotations)
    data = read_json(path, dict)
    labelled, category_id = bool(data.get("annotations")), 1
    if labelled or "categories" in data or category is not None:
        chosen = find_category(data, path, category)
        category_id = chosen.id
        keypoint_set, notes = set_of(chosen, data, path, keypoints, assumed)
    else:
        keypoint_set, notes = set_of(None, data, path, keypoints, assumed)
    images, ids = _images(data, path)
    if ids.are_text:
        notes.append(TEXT_IDS)
    names = [image["file_name"] for image in images]
    folder = image_folder(root, split, path, names)
    if folder is None:
        raise InputError(
            f"No images of {split}: none of "
            f"{', '.join(map(str, image_folders(root, split)))} is a folder. "
            "Unpack the images there, or give the folder that holds them as root."
        )
    there = present(path, folder, names, missing)
    lost = {n for n, kept in zip(ids.numbers, there, strict=True) if not kept}
    images = [image for image, kept in zip(images, there, strict=True) if kept]
    numbers = [n for n in ids.numbers if n not in lost]
    people, without_area = _people(
        data, path, category_id, ids, numbers, lost, keypoint_set
    )
    if without_area:
        notes.append(no_area(without_area, path))
    sizes = [(image["width"], image["height"]) for image in images]
    table = Table(
        name=f"coco {split}",
        keypoints=keypoint_set,
        images=tuple(folder / image["file_name"] for image in images),
        image_ids=np.array(numbers, np.int64),
        image_sizes=np.array(sizes, np.int32).reshape(-1, 2),
        box_scores=np.ones(len(people)),
        box_source=box_source(data),
        labelled=labelled,
        category_id=category_id,
        notes=tuple(notes),
        **_columns(people, len(keypoint_set)),
    )
    if detections is not None:
        table = with_detections(table, Path(detections), ids, lost)
    return table


def box_source(data: Mapping[str, Any]) -> str:
    """Returns the source of a file's boxes: "joint_boxes" if it says so, else "gt_boxes".

    Files that `data convert` has made of labels without boxes say it in "info".
    """
    info = data.get("info")
    said = info.get("box_source") if isinstance(info, Mapping) else None
    return "joint_boxes" if said == "joint_boxes" else "gt_boxes"


def no_area(count: int, path: Path) -> str:
    """Returns a note for `Table.notes` about people without an area."""
    return (
        f"{count} people have no area in {path.name}: that of the box is used, about twice "
        "the segment's, so that OKS is higher"
    )


TEXT_IDS = (
    "ids of images are text: in results, images have the number that it spells, or, if "
    "some do not, 1, 2, ... in the file's order"
)


def set_of(
    chosen: Category | None,
    data: Mapping[str, Any],
    path: Path,
    option: keypoint_sets.Option | None,
    assumed: KeypointSet = COCO,
) -> tuple[KeypointSet, list[str]]:
    """Returns the keypoint set of a file, and what should be said of it.

    Args:
      chosen: the category of people; None for a file without categories.
      data: the content of the file.
      path: the file.
      option, assumed: as `keypoints` and `assumed` of `load`.
    """
    names = chosen and chosen.names
    of_file = None
    if chosen is not None and names is not None:
        try:
            of_file = keypoint_sets.of_category(chosen.name, names, chosen.skeleton)
        except InputError as error:
            raise broken(f"{path}: category {chosen}: {error}") from None
    known = (assumed, *SETS.values())
    keypoint_set = of_file or assumed
    if option is not None:
        keypoint_set = keypoint_sets.resolve(option, of_file)
    elif of_file is not None and of_file.names == assumed.names:
        keypoint_set = assumed
    if chosen is not None and of_file is not None:
        _check_names(chosen, keypoint_set, path)
        about = keypoint_set, chosen.skeleton
        said = keypoint_sets.described(*about, with_sigmas=False)
        return keypoint_set, [said] * (keypoint_set not in known)
    k = keypoint_sets.number_in(data.get("annotations"))
    if k is None:
        return keypoint_set, []
    if k != len(keypoint_set):
        raise InputError(
            f"{path}: category {chosen} names no keypoints, and its annotations have {k}; "
            f"keypoint set {keypoint_set.name} has {len(keypoint_set)}. Name them in the "
            "category, or by data.train.options.keypoints = {'names': [...]}."
        )
    return keypoint_set, [
        f"category {chosen} names no keypoints: those of set {keypoint_set.name} are "
        "assumed, in its order"
    ]


def _columns(people: list[dict[str, Any]], k: int) -> dict[str, Any]:
    """Returns the columns of the Table that come from single annotations."""
    triples = np.array([p["keypoints"] for p in people], np.float64).reshape(-1, k, 3)
    xywh = np.array([p["bbox"] for p in people], np.float64).reshape(-1, 4)
    return {
        "image": np.array([p["image"] for p in people], np.int32),
        "ids": np.array([p["id"] for p in people], np.int64),
        "boxes_xyxy": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], -1),
        "points_xy": triples[..., :2].copy(),
        "visibility": triples[..., 2].astype(np.int32),
        "areas": np.array([p["area"] for p in people], np.float64),
        "crowd": np.array([p["crowd"] for p in people], bool),
    }


def _people(
    data: Mapping[str, Any],
    path: Path,
    category: int,
    ids: ImageIds,
    numbers: Sequence[int],
    lost: Container[int],
    keypoints: KeypointSet,
) -> tuple[list[dict[str, Any]], int]:
    """Returns the checked annotations of a category, and how many have no area.

    Args:
      numbers: the numbers of the images of the table.
      lost: those of listed images that are left out.
    """
    place = {number: i for i, number in enumerate(numbers)}
    people, no_area = [], 0
    rows = _field(data, "annotations", list, path) if "annotations" in data else ()
    for i, person in enumerate(rows):
        where = f"{path}: annotation {_name(person, i)}"
        if _field(person, "category_id", int, where) != category:
            continue
        number = ids(_image_id(person, "image_id", where))
        if number in place:
            people.append(_person(person, place[number], len(keypoints), where))
            no_area += person.get("area") is None
        elif number is None or number not in lost:
            raise broken(
                f"{where}: image_id {_short(person['image_id'])} is not among the images"
            )
    return people, no_area


def _person(
    person: Mapping[str, Any], image: int, k: int, where: str
) -> dict[str, Any]:
    """Checks an annotation. People without keypoints get k unlabeled ones."""
    given = person.get("keypoints")
    triples = [0] * (3 * k) if given in (None, []) else without_holes(given)
    if not _finite(triples, 3 * k):
        raise broken(
            f"{where}: keypoints must be {3 * k} finite numbers (x, y, visibility for "
            f"each of {k}; where visibility is 0, x and y may be NaN or null); got "
            f"{_short(given)}"
        )
    if not set(triples[2::3]) <= {0, 1, 2}:
        raise broken(f"{where}: keypoints: visibility must be 0, 1 or 2")
    crowd = person.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise broken(f"{where}: iscrowd must be 0 or 1; got {_short(crowd)}")
    box = _box(person, where)
    has_area = person.get("area") is not None
    return {
        "image": image,
        "id": _field(person, "id", int, where),
        "bbox": box,
        "keypoints": triples,
        "area": _number(person, "area", where) if has_area else max(box[2] * box[3], 0),
        "crowd": bool(crowd),
    }


def without_holes(triples: Any) -> Any:
    """Returns keypoints with 0 for unusable coordinates where visibility is 0.

    Values of any other kind are returned as they are.
    """
    if not isinstance(triples, list) or len(triples) % 3:
        return triples
    if _finite(triples, len(triples)):
        return triples
    filled = list(triples)
    for i in range(0, len(filled), 3):
        v = filled[i + 2]
        if isinstance(v, int | float) and v == 0:
            pair = filled[i : i + 2]
            filled[i : i + 2] = [value if _finite([value], 1) else 0 for value in pair]
    return filled


def with_detections(
    table: Table,
    path: Path,
    ids: ImageIds | None = None,
    lost: Container[int] = (),
) -> Table:
    """Replaces the people of a Table by detected boxes, see `load`.

    Args:
      table: the annotated people, or images without any.
      path: the COCO results file; the people in it have `table.category_id`.
      ids: the images of the annotation file; None: those of the table, by its ids.
      lost: numbers of images that are left out of the table.
    """
    ids = ids or ImageIds(table.image_ids.tolist(), _file_names(table))
    place = {number: i for i, number in enumerate(table.image_ids.tolist())}
    people, scores, unlisted, empty, others = [], [], 0, 0, set()
    k = len(table.keypoints)
    for i, row in enumerate(read_json(path, list, "name another")):
        where = f"{path}: detection {i}"
        category = _field(row, "category_id", int, where)
        if category != table.category_id:
            others.add(category)
            continue
        image_id = ids(_image_id(row, "image_id", where))
        if image_id not in place:
            unlisted += image_id is None or image_id not in lost
            continue
        box = _box(row, where)
        score = _number(row, "score", where)
        if min(box[2:]) <= 0:
            empty += 1
            continue
        person = {"image": place[image_id], "id": 0, "bbox": box, "crowd": False}
        people.append(person | {"keypoints": [0] * 3 * k, "area": box[2] * box[3]})
        scores.append(score)
    if unlisted or empty:
        logging.warning(
            "%s: left out %d boxes of images that %s does not list, %d empty boxes.",
            path, unlisted, table.name, empty,
        )  # fmt: skip
    if not people:
        why = f", but of {', '.join(map(str, sorted(others)[:5]))}" if others else ""
        logging.warning(
            "%s: no boxes of people (category_id %d%s) in the images of %s.",
            path, table.category_id, why, table.name,
        )  # fmt: skip
    return dataclasses.replace(
        table,
        box_scores=np.array(scores, np.float64),
        box_source="detections",
        labelled=False,
        head_sizes=None,
        truth=table.ground_truth,
        **_columns(people, k),
    )


def _file_names(table: Table) -> list[str]:
    """Returns the names of the images' files; of images in a store they are unknown."""
    files = [image.name for image in table.images if isinstance(image, Path)]
    return files if len(files) == len(table.images) else []


def _images(
    data: Mapping[str, Any], path: Path
) -> tuple[list[Mapping[str, Any]], ImageIds]:
    """Returns the listed images, checked, and their ids."""
    images, seen = _field(data, "images", list, path), set()
    for i, image in enumerate(images):
        where = f"{path}: image {_name(image, i)}"
        image_id = _image_id(image, "id", where)
        _field(image, "file_name", str, where)
        for side in ("width", "height"):
            if _field(image, side, int, where) < 1:
                raise broken(f"{where}: {side} must be positive")
        if image_id in seen:
            raise broken(f"{where}: two images have this id")
        seen.add(image_id)
    names = [image["file_name"] for image in images]
    return images, ImageIds([image["id"] for image in images], names)


ROBOFLOW = "_annotations.coco.json"
"""Roboflow's annotations of a split, beside its images."""


def annotation_files(root: Path, split: str) -> list[Path]:
    """Returns the possible files of the annotations of a split; the usual one is first.

    These are COCO's and CVAT's `annotations/person_keypoints_SPLIT.json`, COCO's
    `annotations/image_info_SPLIT.json`, Roboflow's `SPLIT/_annotations.coco.json`, and
    `SPLIT.json` in either folder.
    """
    folder = root / "annotations"
    files = [
        folder / f"person_keypoints_{split}.json",
        folder / f"image_info_{split}.json",
        root / split / ROBOFLOW,
        folder / f"{split}.json",
        root / f"{split}.json",
    ]
    return [file.with_name(file.name + end) for file in files for end in ("", ".gz")]


def annotation_file(root: Path, split: str) -> Path:
    """Returns the first of `annotation_files` that exists, or the usual one."""
    files = annotation_files(root, split)
    return next(filter(Path.exists, files), files[0])


def split_of(path: Path) -> str | None:
    """Returns the split that the name of an annotation file says, if any."""
    if path.name.startswith(ROBOFLOW):
        return path.absolute().parent.name
    match = re.fullmatch(r"person_keypoints_(.+)\.json(\.gz)?", path.name)
    return match and match[1]


def image_folders(root: Path, split: str) -> list[Path]:
    """Returns the usual folders of the images of a split."""
    splits = [split]
    if split.startswith("test-dev"):  # A part of the images of the test.
        splits.append(split.replace("-dev", ""))
    return [folder / name for name in splits for folder in (root, root / "images")]


def image_folder(
    root: Path, split: str, path: Path, names: Sequence[str]
) -> Path | None:
    """Returns the folder of the images of a split, or None.

    It is the first of the usual ones, `images`, the folder of the annotation file and the
    root that has one of the first images, or else the first that exists of the usual ones
    and `images`.

    Args:
      root: the folder of the data set.
      split: the split.
      path: its annotation file.
      names: the names of its images.
    """
    usual = [*image_folders(root, split), root / "images"]
    usual = [folder for folder in usual if folder.is_dir()]
    for folder in (*usual, path.parent, root):
        if any(is_in(folder, name) for name in names[:20]):
            return folder
    return next(iter(usual), None)


class Category(NamedTuple):
    """A category of an annotation file.

    Attributes:
      id: the category_id of its annotations.
      name: its name.
      names: the names of its keypoints; None if there are none.
      skeleton: as in the file.
    """

    id: int
    name: str
    names: list[str] | None
    skeleton: Any = None

    def __str__(self) -> str:
        return f"{_short(self.name)} (id {self.id})"


def find_category(
    data: Mapping[str, Any], path: Path, wanted: int | str | None
) -> Category:
    """Returns the category of people, see `load`.

    Raises:
      InputError: there is no such category, or none or several have keypoints.
    """
    categories = []
    for i, row in enumerate(_field(data, "categories", list, path)):
        own_id = _field(row, "id", int, f"{path}: category {_name(row, i)}")
        names = None
        if row.get("keypoints"):
            names = _field(row, "keypoints", list, f"{path}: category {own_id}")
            names = [" ".join(str(name).split()) for name in names]
        name, skeleton = str(row.get("name", "")), row.get("skeleton")
        categories.append(Category(own_id, name, names, skeleton))
    found = candidates(categories, data, wanted)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, found or categories)) or "none"
    if found:
        what = f"several categories have keypoints: {listed}. Choose one by option category"
    elif wanted is not None:
        what = f"there is no category {wanted!r}; there are: {listed}"
    else:
        what = (
            "no category names keypoints, and no annotation has any. Use the "
            "person_keypoints_*.json, not the instances_*.json"
        )
    raise InputError(f"{path}: {what}.")


def candidates(
    categories: Sequence[Category], data: Mapping[str, Any], wanted: int | str | None
) -> list[Category]:
    """Returns the categories that may be that of people; there should be one.

    Args:
      categories: all of a file.
      data: the file. If no category names its keypoints, those are candidates whose
        annotations have some.
      wanted: name or id of the category; None: "person", if it is a candidate.
    """
    if wanted is not None:
        return [c for c in categories if wanted == c.name or str(wanted) == str(c.id)]
    found = [c for c in categories if c.names]
    rows = data.get("annotations")
    if not found and isinstance(rows, list) and rows:
        rows = [row for row in rows if isinstance(row, Mapping)]
        ids = [row.get("category_id") for row in rows if row.get("keypoints")]
        ids = {own for own in ids if isinstance(own, int)}
        found = [c for c in categories if c.id in ids]
    elif not found:
        found = list(categories)
    return [c for c in found if c.name == "person"] or found


def _check_names(people: Category, keypoints: KeypointSet, path: Path) -> None:
    if people.names is not None and tuple(people.names) != keypoints.names:
        names = people.names
        raise InputError(
            f"{path}: category {people.id} has {len(names)} keypoints "
            f"({', '.join(names)}); keypoint set {keypoints.name} has {len(keypoints)} "
            f"({', '.join(keypoints.names)}). Pass the set that the file follows, or none."
        )


def _field(row: Any, name: str, kind: Any, where: Any) -> Any:
    """Returns a required field of a JSON row, which must have the given type.

    Integers must fit into 64 bits, sides of images into 31.
    """
    value = row.get(name) if isinstance(row, Mapping) else None
    right = isinstance(value, kind) and not isinstance(value, bool)
    if right and kind is int and isinstance(value, int):
        right = abs(value) < (2**31 if name in ("width", "height") else 2**63)
    if not right:
        got = "is missing" if value is None else f"cannot be {_short(value)}"
        raise broken(f"{where}: {name} {got}")
    return value


def _image_id(row: Any, name: str, where: str) -> int | str:
    value = _field(row, name, (int, str), where)
    return value if isinstance(value, str) else _field(row, name, int, where)


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    value = _field(row, name, (int, float), where)
    if not _is_finite(value):
        raise broken(f"{where}: {name} must be finite; got {_short(value)}")
    return value


def _box(row: Mapping[str, Any], where: str) -> list[float]:
    box = _field(row, "bbox", list, where)
    if not _finite(box, 4):
        raise broken(
            f"{where}: bbox must be 4 finite numbers (x, y, width, height); got "
            f"{_short(box)}"
        )
    return box


def _finite(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(v) in (int, float) and _is_finite(v) for v in values)
    )


def _is_finite(value: float) -> bool:
    """For a number of any size; NaN compares as False."""
    return abs(value) <= sys.float_info.max


def _name(row: Any, i: int) -> str:
    """Describes a row of a JSON file: by its id, else by its index."""
    has_id = isinstance(row, Mapping) and "id" in row
    return f"id {_short(row['id'])}" if has_id else f"number {i}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def splits(root: Path) -> list[str]:
    """Returns the splits whose annotations are in a folder.

    Raises:
      InputError: there are none.
    """
    folder = root / "annotations"
    found = _usual_splits(root)
    if found:
        return found
    files = _json_files(root)
    contents = {path: data for path in files if (data := _as_coco(path)) is not None}
    named = [path.stem for path, data in contents.items() if _has_keypoints(data)]
    if named:
        return sorted(named)
    there = ", ".join(sorted(p.name for p in files)[:5])
    if contents:
        raise InputError(
            f"{root}: {', '.join(sorted(path.name for path in contents))} has no keypoints "
            "(boxes only?). Export keypoints, as person_keypoints_*.json."
        )
    raise InputError(
        f"{folder} holds no person_keypoints_*.json (it has: {there or 'no json'}). "
        "Name a file with --annotations and its folder of images with --split."
    )


def recognize(root: Path) -> bool:
    """Returns whether a folder has one of the layouts."""
    if (root / "annotations").is_dir() or _usual_splits(root):
        return True
    return any(_as_coco(path) is not None for path in _json_files(root))


def _usual_splits(root: Path) -> list[str]:
    """Returns the splits of COCO's, CVAT's and Roboflow's layouts."""
    files = [*(root / "annotations").glob("*"), *root.glob(f"*/{ROBOFLOW}*")]
    return sorted({split for path in files if (split := split_of(path))})


def _json_files(root: Path) -> list[Path]:
    """Returns the JSON files of a folder with one or a few; tools that write one file per
    image have other formats."""
    files = [*(root / "annotations").glob("*.json"), *root.glob("*.json")]
    return sorted(files) if len(files) <= 20 else []


def _as_coco(path: Path) -> dict[str, Any] | None:
    """Returns the content of a file with the sections of COCO's annotations, or None."""
    try:
        data = parse_json(path)
    except (OSError, ValueError):
        return None
    sections = "images", "annotations", "categories"
    is_coco = isinstance(data, dict) and all(
        isinstance(data.get(name), list) for name in sections
    )
    return data if is_coco else None


def _has_keypoints(data: Mapping[str, Any]) -> bool:
    rows = [*data["categories"], *data["annotations"]]
    return any(isinstance(row, Mapping) and row.get("keypoints") for row in rows)


DATA_SET = DataSet(
    load=load,
    files="annotations/, SPLIT/_annotations.coco.json or one .json file (COCO)",
    recognize=recognize,
    splits=splits,
    keypoints=COCO,
    json=True,
    file_options={"annotations": "split", "detections": "split"},
    about={
        "description": "Common Objects in Context, person keypoints: photographs from "
        "Flickr, and of the people in them boxes, 17 keypoints, areas and crowd regions.",
        "homepage": "https://cocodataset.org",
        "license": "Annotations: CC BY 4.0, COCO Consortium. Each image: the Flickr "
        "license that the annotation file names for it.",
        "citation": """@inproceedings{lin2014coco,
  title = {Microsoft {COCO}: Common Objects in Context},
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and
    Perona, Pietro and Ramanan, Deva and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {ECCV}, year = {2014}}""",
    },
)
