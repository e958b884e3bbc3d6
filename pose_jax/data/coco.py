"""COCO person keypoints, in the files' own format, as a Table.

Both common layouts are read: `ROOT/train2017/*.jpg` and `ROOT/images/train2017/*.jpg`,
each with `ROOT/annotations/person_keypoints_<split>.json`. Your own data in this format
are read the same way: pass the keypoint set, and the JSON file if it has another name.

Points keep the files' 0-based pixel coordinates; boxes become (x, y, x + w, y + h).
Nothing is filtered: people without keypoints and crowd regions are rows too
(`Table.labelled_rows` selects those for training).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging

from pose_jax.data._files import broken, present, read_json
from pose_jax.data.dataset import DataSet
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO, SETS, KeypointSet


def load(
    root: str | Path,
    split: str = "train2017",
    *,
    annotations: str | Path | None = None,
    detections: str | Path | None = None,
    keypoints: KeypointSet | str = COCO,
    missing: Literal["error", "skip"] = "error",
) -> Table:
    """Reads one split.

    A file without annotations, as of a test set, gives the images and no people.

    Args:
      root: the folder that holds the images' folder and `annotations/`.
      split: name of the images' folder, "train2017" or "val2017".
      annotations: the JSON file, if not `annotations/person_keypoints_<split>.json`.
      detections: a COCO results file of boxes (`image_id`, `category_id`, `bbox`,
        `score`). Its person boxes replace the people of the annotation file, without
        keypoints; `box_source` is then "detections", `truth` the annotated people.
      keypoints: the keypoint set of the file, or the name of one in `keypoints.SETS`.
      missing: what to do about missing images: "error" raises; "skip" leaves them and
        their people out and logs their number.

    Raises:
      InputError: a file is missing or broken, or does not match `keypoints`.
    """
    keypoints = keypoint_set(keypoints)
    root = Path(root)
    path = annotation_file(root, split) if annotations is None else Path(annotations)
    data = read_json(path, dict)
    folders = image_folders(root, split)
    folder = next(filter(Path.is_dir, folders), None)
    if folder is None:
        raise InputError(
            f"No images of {split}: neither {folders[0]} nor {folders[1]} is a folder. "
            "Unpack the images there, or give the folder that holds them as root."
        )

    # Test sets name images only, and the keypoints of their category neither.
    labelled = bool(data.get("annotations"))
    category, names = _person_category(data, path, required=labelled)
    if names and tuple(names) != keypoints.names:
        raise InputError(
            f"{path}: category {category} has {len(names)} keypoints "
            f"({', '.join(names)}); keypoint set {keypoints.name} has {len(keypoints)} "
            f"({', '.join(keypoints.names)}). Pass the set that the file follows."
        )

    images = _images(data, path)
    there = present(path, folder, [i["file_name"] for i in images], missing)
    lost = {image["id"] for image, kept in zip(images, there, strict=True) if not kept}
    images = [image for image in images if image["id"] not in lost]
    number = {image["id"]: i for i, image in enumerate(images)}
    people = []
    annotated = _field(data, "annotations", list, path) if labelled else []
    for i, person in enumerate(annotated):
        where = f"{path}: annotation {_name(person, i)}"
        if _field(person, "category_id", int, where) != category:
            continue
        image_id = _field(person, "image_id", int, where)
        if image_id in number:
            people.append(_person(person, number[image_id], len(keypoints), where))
        elif image_id not in lost:
            raise broken(f"{where}: image_id {image_id} is not among the images")

    sizes = [(image["width"], image["height"]) for image in images]
    table = Table(
        name=f"coco {split}",
        keypoints=keypoints,
        images=tuple(folder / image["file_name"] for image in images),
        image_ids=np.array([image["id"] for image in images], np.int64),
        image_sizes=np.array(sizes, np.int32).reshape(-1, 2),
        box_scores=np.ones(len(people)),
        labelled=labelled,
        category_id=category,
        **_columns(people, len(keypoints)),
    )
    if detections is not None:
        table = with_detections(table, Path(detections), lost)
    return table


def keypoint_set(keypoints: KeypointSet | str) -> KeypointSet:
    """Returns the keypoint set, looked up if it is a name.

    Raises:
      ConfigError: there is no such set.
    """
    if isinstance(keypoints, KeypointSet):
        return keypoints
    if keypoints not in SETS:
        raise ConfigError(
            f"no keypoint set {keypoints!r}; there are {', '.join(map(repr, SETS))}."
        )
    return SETS[keypoints]


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


def _person(
    person: Mapping[str, Any], image: int, k: int, where: str
) -> dict[str, Any]:
    """Checks an annotation. People without keypoints get k unlabeled ones."""
    triples = person.get("keypoints")
    if triples is None:
        triples = [0] * (3 * k)
    elif not _finite(triples, 3 * k):
        raise broken(
            f"{where}: keypoints must be {3 * k} finite numbers (x, y, visibility for "
            f"each of {k}); got {_short(triples)}"
        )
    elif not set(triples[2::3]) <= {0, 1, 2}:
        raise broken(f"{where}: keypoints: visibility must be 0, 1 or 2")
    crowd = person.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise broken(f"{where}: iscrowd must be 0 or 1; got {_short(crowd)}")
    return {
        "image": image,
        "id": _field(person, "id", int, where),
        "bbox": _box(person, where),
        "keypoints": triples,
        "area": _number(person, "area", where),
        "crowd": bool(crowd),
    }


def with_detections(table: Table, path: Path, lost: Container[int] = ()) -> Table:
    """Replaces the people of a Table by detected boxes, see `load`.

    Args:
      table: the annotated people; or none, with the images only.
      path: the COCO results file; the people in it have `table.category_id`.
      lost: ids of images that are left out of the table.
    """
    number = {image_id: i for i, image_id in enumerate(table.image_ids.tolist())}
    people, scores, unlisted, empty, others = [], [], 0, 0, set()
    k = len(table.keypoints)
    for i, row in enumerate(read_json(path, list, "name another")):
        where = f"{path}: detection {i}"
        category = _field(row, "category_id", int, where)
        if category != table.category_id:
            others.add(category)
            continue
        image_id = _field(row, "image_id", int, where)
        if image_id not in number:
            unlisted += image_id not in lost
            continue
        box = _box(row, where)
        score = _number(row, "score", where)
        if min(box[2:]) <= 0:
            empty += 1
            continue
        person = {"image": number[image_id], "id": 0, "bbox": box, "crowd": False}
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


def _images(data: Mapping[str, Any], path: Path) -> list[Mapping[str, Any]]:
    """Returns the listed images, checked."""
    images, seen = _field(data, "images", list, path), set()
    for i, image in enumerate(images):
        where = f"{path}: image {_name(image, i)}"
        image_id = _field(image, "id", int, where)
        _field(image, "file_name", str, where)
        for side in ("width", "height"):
            if _field(image, side, int, where) < 1:
                raise broken(f"{where}: {side} must be positive")
        if image_id in seen:
            raise broken(f"{where}: two images have this id")
        seen.add(image_id)
    return images


def annotation_file(root: Path, split: str) -> Path:
    """Returns the default path of the annotations of a split."""
    return root / "annotations" / f"person_keypoints_{split}.json"


def image_folders(root: Path, split: str) -> tuple[Path, Path]:
    """Returns the possible folders of the images of a split."""
    return root / split, root / "images" / split


def _person_category(
    data: Mapping[str, Any], path: Path, required: bool = True
) -> tuple[int, list[str]]:
    """Returns id and keypoint names of "person", or of the only category with any.

    Unless `required`, the names may be missing, and then the id is that of "person".
    """
    categories, people = [], []
    for i, category in enumerate(_field(data, "categories", list, path)):
        _field(category, "id", int, f"{path}: category {_name(category, i)}")
        if category.get("name") == "person":
            people.append(category["id"])
        if category.get("keypoints"):
            _field(category, "keypoints", list, f"{path}: category {category['id']}")
            categories.append(category)
    named = [c for c in categories if c.get("name") == "person"] or categories
    if not named and len(people) == 1 and not required:
        return people[0], []
    if len(named) != 1:
        raise InputError(
            f"{path}: {len(named)} categories have keypoints; one is needed. Use the "
            "person_keypoints_*.json, not the instances_*.json."
        )
    return named[0]["id"], [" ".join(str(n).split()) for n in named[0]["keypoints"]]


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
    found = [p.stem.split("_", 2)[2] for p in folder.glob("person_keypoints_*.json")]
    if not found:
        there = ", ".join(sorted(p.name for p in folder.glob("*.json"))[:5])
        raise InputError(
            f"{folder} holds no person_keypoints_*.json (it has: {there or 'no json'}). "
            "Name a file with --annotations and its folder of images with --split."
        )
    return sorted(found)


DATA_SET = DataSet(
    load=load,
    files="annotations/ (COCO)",
    recognize=lambda root: (root / "annotations").is_dir(),
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
