"""Data sets in COCO's format: what `data convert` writes, and what it takes back.

OUT/SPLIT/                                  links to the images, or copies
OUT/annotations/person_keypoints_SPLIT.json
OUT/keypoints.json                          the keypoint set, if the tool says flip pairs
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pose_jax import writing
from pose_jax.data import coco
from pose_jax.data.convert import files, images
from pose_jax.data.convert.form import (
    Category,
    Counts,
    Image,
    Labels,
    Options,
    Person,
    Tool,
    extent,
    plural,
    reading,
)
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet

KEYPOINTS = "keypoints.json"
FEW = "pose[s] without a box and with fewer than two labelled points"


def add_joint_boxes(labels: Labels) -> int:
    """Gives people without a box the extent of their labelled points.

    People with fewer than two labelled points have no extent, and are left out and counted.
    A side shorter than one pixel is widened to it about its center.

    Returns:
      The number of these boxes.
    """
    made = 0
    for image in labels.images:
        kept = []
        for person in image.people:
            if person.box is None:
                at = [(x, y) for x, y, v in person.points.values() if v]
                if len(at) < 2:
                    labels.left_out.add(FEW)
                    continue
                x, y, w, h = extent(at)
                grow_x, grow_y = max(1 - w, 0), max(1 - h, 0)
                person.box = (x - grow_x / 2, y - grow_y / 2, w + grow_x, h + grow_y)
                person.joint_box = True
            made += person.joint_box
            kept.append(person)
        image.people = kept
    return made


def write_splits(labels: Labels, out: Path, copy: bool, folder: str = "") -> list[str]:
    """Writes images and annotation files, and returns a line about each split.

    Args:
      labels: what to write; all people have boxes, all images a size and a split.
      out: the folder.
      copy: copy images instead of linking to them.
      folder: the folder in `out` that holds those of the splits.
    """
    used = {person.category for image in labels.images for person in image.people}
    categories = [c for c in labels.categories.values() if c.name in used]
    splits: dict[str, list[Image]] = {}
    for image in labels.images:
        splits.setdefault(image.split, []).append(image)
    lines, image_id, own_id = [], 1, 1
    for split, own in splits.items():
        for image in own:
            images.place(image, out / folder / split / image.name, copy)
        data = _annotations(own, categories, image_id, own_id)
        path = out / "annotations" / f"person_keypoints_{split}.json"
        writing.write(path, json.dumps(data, allow_nan=False) + "\n")
        lines.append(_summary(split, data))
        image_id, own_id = image_id + len(own), own_id + len(data["annotations"])
    if len(categories) == 1 and categories[0].flip_pairs is not None:
        writing.write(out / KEYPOINTS, _keypoint_set(categories[0]))
        lines.append(
            "flip pairs are in keypoints.json; in training: "
            f"--config.data.train.options.keypoints={out / KEYPOINTS}"
        )
    return lines


def _annotations(
    own: Sequence[Image], categories: Sequence[Category], image_id: int, own_id: int
) -> dict[str, Any]:
    """Returns the content of an annotation file; ids count from those given."""
    rows, people, joint_boxes = [], [], False
    numbers = {category.name: i for i, category in enumerate(categories, 1)}
    for number, image in enumerate(own, image_id):
        assert image.size is not None
        width, height = image.size
        rows.append(
            {"id": number, "file_name": image.name, "width": width, "height": height}
        )
        for person in image.people:
            assert person.box is not None
            joint_boxes |= person.joint_box
            category = categories[numbers[person.category] - 1]
            triples = []
            for name in category.names:
                x, y, v = person.points.get(name, (0, 0, 0))
                triples += (
                    [round(float(x), 4), round(float(y), 4), v] if v else [0, 0, 0]
                )
            x, y, w, h = (round(float(value), 4) for value in person.box)
            row: dict[str, Any] = {
                "id": own_id + len(people),
                "image_id": number,
                "category_id": numbers[person.category],
                "bbox": [x, y, w, h],
                "area": round(w * h, 4),
                "iscrowd": 0,
                "segmentation": [],
                "keypoints": triples,
                "num_keypoints": person.labelled,
            }
            if person.track is not None:
                row["track_id"] = person.track
            people.append(row)
    return {
        "info": {"box_source": "joint_boxes" if joint_boxes else "gt_boxes"},
        "licenses": [],
        "categories": [
            {
                "id": i,
                "name": category.name,
                "supercategory": category.name,
                "keypoints": list(category.names),
                "skeleton": [
                    [category.names.index(a) + 1, category.names.index(b) + 1]
                    for a, b in category.skeleton
                ],
            }
            for i, category in enumerate(categories, 1)
        ],
        "images": rows,
        "annotations": people,
    }


def _summary(split: str, data: dict[str, Any]) -> str:
    visibility = [
        v for person in data["annotations"] for v in person["keypoints"][2::3]
    ]
    parts = [
        f"{visibility.count(2)} visible",
        f"{visibility.count(1)} hidden",
        f"{visibility.count(0)} not labelled",
    ]
    rows, people = len(data["images"]), len(data["annotations"])
    shown = plural(f"{rows} image[s]", rows)
    return f"{split}: {shown}, {people} people or animals ({', '.join(parts)})"


def _keypoint_set(category: Category) -> str:
    at = category.names.index
    found = KeypointSet(
        name=category.name,
        names=category.names,
        flip_pairs=tuple((at(a), at(b)) for a, b in category.flips),
        skeleton=tuple((at(a), at(b)) for a, b in category.skeleton),
    )
    return json.dumps(found.to_json(), indent=1) + "\n"


# ------------------------------------------------------------------- the way back


def read(path: Path, options: Options) -> Labels:
    """Reads all splits of a data set, to write them for a tool.

    Raises:
      InputError: an annotation file is broken, or there is none.
    """
    labels = Labels()
    with reading(path, TOOL.title):
        for split in coco.splits(path):
            file = coco.annotation_file(path, split)
            folder = next(filter(Path.is_dir, coco.image_folders(path, split)), None)
            if folder is None:
                raise InputError(f"{path} has no folder of the images of {split}.")
            labels.sought = (*labels.sought, folder)
            _read_split(files.parse_json(file, dict), split, folder, labels)
    return labels


def _read_split(data: dict[str, Any], split: str, folder: Path, labels: Labels) -> None:
    categories = {}
    for row in data["categories"]:
        names = tuple(row.get("keypoints") or ())
        if not names:
            continue
        pairs = tuple(
            (names[a - 1], names[b - 1]) for a, b in row.get("skeleton") or ()
        )
        categories[row["id"]] = Category(row["name"], names, pairs)
        labels.categories[row["name"]] = categories[row["id"]]
    people: dict[Any, list[Person]] = {}
    joint = (data.get("info") or {}).get("box_source") == "joint_boxes"
    for row in data["annotations"]:
        category = categories.get(row["category_id"])
        if category is None or row.get("iscrowd"):
            labels.left_out.add("annotation[s] of crowds, or without keypoints")
            continue
        triples = row.get("keypoints") or [0, 0, 0] * len(category.names)
        at = zip(triples[0::3], triples[1::3], triples[2::3], strict=True)
        points = {
            name: (float(x), float(y), int(v))
            for name, (x, y, v) in zip(category.names, at, strict=True)
            if v
        }
        x, y, w, h = (float(value) for value in row["bbox"])
        person = Person(category.name, points, (x, y, w, h), joint, row.get("track_id"))
        people.setdefault(row["image_id"], []).append(person)
    for row in data["images"]:
        name = row["file_name"]
        if not (folder / name).is_file():
            labels.missing.append(name)
            continue
        file = (folder / name).resolve()
        size = int(row["width"]), int(row["height"])
        labels.images.append(
            Image(name, people.get(row["id"], []), file, size=size, split=split)
        )


def write(labels: Labels, out: Path, options: Options) -> list[str]:
    """Writes a data set that CVAT ("COCO Keypoints 1.0") and Roboflow import.

    A point outside of its image is not labelled.
    """
    said = Counts()
    for image in labels.images:
        assert image.size is not None
        width, height = image.size
        image.split = image.split or "default"
        for person in image.people:
            for name, (x, y, v) in list(person.points.items()):
                if v and not (0 <= x < width and 0 <= y < height):
                    said.add("point[s] outside of the image left out")
                    del person.points[name]
    return write_splits(labels, out, options.copy, "images") + said.lines()


TOOL = Tool(title="COCO", write=write, write_options=frozenset({"copy"}))
