"""labelme and X-AnyLabeling: a JSON file per image.

The points and the rectangle of one animal share a `group_id` (0 is one, null is none). A
rectangle has two corners in any order, or all four (X-AnyLabeling). Neither tool documents
whether (0, 0) is the center or the corner of a pixel. A point that X-AnyLabeling marks as
"difficult" is labelled and hidden (v = 1); labelme has no such mark.
"""

from __future__ import annotations

import base64
import collections
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from pose_jax.data.convert import files
from pose_jax.data.convert.form import (
    Box,
    Category,
    Image,
    Labels,
    Options,
    Person,
    Point,
    Tool,
    assemble,
    chosen,
    extent,
    reading,
)
from pose_jax.errors import InputError


def read(path: Path, options: Options) -> Labels:
    """Reads a file, or all files below a folder, see `form.Tool`.

    Raises:
      InputError: a file is broken, there are no points, or their order is unknown.
    """
    paths = _files(path)
    parsed = {file: files.parse_json(file, dict) for file in paths}
    shapes = {}
    for file, data in parsed.items():
        with reading(file, TOOL.title):
            shapes[file] = [(shape["shape_type"], shape) for shape in data["shapes"]]
    everything = [pair for own in shapes.values() for pair in own]
    seen = dict.fromkeys(s["label"] for kind, s in everything if kind == "point")
    if not seen:
        kinds = sorted({kind for kind, _ in everything}) or ["none"]
        raise InputError(
            f"{path}: no points in its files (shapes: {', '.join(kinds)})."
        )
    if not options.names:
        raise InputError(
            f"{path}: the order of its keypoints is unknown ({', '.join(sorted(seen))}): "
            "give it by --names A,B,..."
        )
    names = chosen(seen, options.names, path)
    # Without groups, each image shows one animal.
    single = all(shape.get("group_id") is None for _, shape in everything)
    labels = Labels()
    if single:
        labels.notes.append(
            "no group_id: the points of an image are those of one animal"
        )
    found = []
    for file, data in parsed.items():
        with reading(file, TOOL.title):
            people = _people(shapes[file], names, single, labels)
            image = _image(file, data, people, options, labels)
        if image is not None:
            found.append(image)
    _name_images(found)
    labels.images = found
    _categories(labels, names)
    return labels


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    found = [path]
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*.json")) if recognize(file)]
    if not found:
        raise InputError(f"{path} holds no JSON files of labelme.")
    return found


def _people(
    shapes: Sequence[tuple[str, Any]],
    names: Sequence[str],
    single: bool,
    labels: Labels,
) -> list[Person]:
    """Returns the people of an image; category "" if a group has no rectangle."""
    left_out = labels.left_out
    points: dict[Any, list[tuple[str, Point]]] = collections.defaultdict(list)
    boxes: dict[Any, tuple[str, Box]] = {}
    for kind, shape in shapes:
        group = shape.get("group_id")
        if kind == "point" and (group is not None or single):
            ((x, y),) = shape["points"]
            v = 1 if shape.get("difficult") is True else 2
            points[group].append((shape["label"], (float(x), float(y), v)))
        elif kind == "point":
            left_out.add("point[s] without a group_id")
        elif kind == "rectangle" and (group is not None or single):
            if group in boxes:
                left_out.add("second rectangle[s] of one group")
            else:
                boxes[group] = shape["label"], extent(shape["points"])
        else:
            left_out.add(
                "shape[s] of type {kind} {label!r}, without keypoints",
                kind=kind,
                label=shape["label"],
            )
    people = []
    for group in dict.fromkeys([*points, *boxes]):
        label, box = boxes.get(group, ("", None))
        own = points.get(group, [])
        texts = [name for name, _ in own]
        if single and len(set(texts)) != len(texts):
            left_out.add("point[s] without a group_id", len(own))
            continue
        people.append(Person(label, assemble(own, names, left_out), box))
    return people


def _categories(labels: Labels, names: Sequence[str]) -> None:
    """Makes a category of each label of rectangles that have keypoints."""
    people = [person for image in labels.images for person in image.people]
    kinds = dict.fromkeys(p.category for p in people if p.points and p.category)
    default = next(iter(kinds), "animal")
    if len(kinds) > 1 and any(p.points and not p.category for p in people):
        default = "animal"
    for image in labels.images:
        kept = []
        for person in image.people:
            person.category = person.category or default
            if person.points or person.category in kinds:
                kept.append(person)
            else:
                labels.left_out.add(
                    "rectangle[s] {label!r} without keypoints", label=person.category
                )
        image.people = kept
    for kind in dict.fromkeys([*kinds, default]):
        labels.categories[kind] = Category(kind, tuple(names))


def _image(
    file: Path,
    data: dict[str, Any],
    people: list[Person],
    options: Options,
    labels: Labels,
) -> Image | None:
    """Returns the image of a file: on disk, or in the file itself."""
    # Paths of Windows have backslashes, which split no path elsewhere.
    name = PureWindowsPath(data["imagePath"]).as_posix()
    size = int(data["imageWidth"]), int(data["imageHeight"])
    folders = [options.images] if options.images else [file.parent]
    beside = Path(file.parent, name)
    if not options.images and beside.is_file():
        found = beside.resolve().parent / beside.name
    else:
        found = files.Finder(folders)(name)
    if found is not None:
        return Image("", people, found, size=size)
    if data.get("imageData"):
        content = base64.b64decode(data["imageData"])
        own = f"{file.stem}{Path(name).suffix}"
        return Image(own, people, content=lambda: content, size=size)
    labels.missing.append(name)
    labels.sought = tuple(dict.fromkeys([*labels.sought, *folders]))
    return None


def _name_images(images: list[Image]) -> None:
    """Names the images by their paths below the folder that all of them share."""
    own = [image for image in images if image.file is not None]
    paths = [image.file for image in own if image.file is not None]
    for image, name in zip(own, files.common_names(paths), strict=True):
        image.name = name


def recognize(path: Path) -> bool:
    """Returns whether a file is one of labelme, or a folder holds some."""
    if path.is_dir():
        found = (file for file in sorted(path.rglob("*.json"))[:50])
        return any(recognize(file) for file in found)
    if path.suffix.lower() != ".json":
        return False
    start = files.starts(path, 1 << 16)
    if start.lstrip()[:1] != b"{":
        return False
    # The file may begin with hundreds of shapes, and end with the image.
    return b'"shapes"' in start and (
        b'"shape_type"' in start or b'"imagePath"' in start
    )


TOOL = Tool(
    title="labelme",
    read=read,
    recognize=recognize,
    options=frozenset({"names", "images"}),
)
