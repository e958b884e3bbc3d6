"""Label Studio: its JSON export, and pre-annotations.

Coordinates are percentages of `original_width` and `original_height`. A keypoint belongs to
the rectangle that its `parentID` names, or that a relation connects it with, in any
direction. The export does not say the order of the keypoints, which comes from
`model_index` in the labelling configuration, from its order, or from --names.

Names of uploaded files have a prefix of eight hexadecimal digits and a dash, which is
removed only if there is no image of the full name. Label Studio does not document whether
(0, 0) is the center or the corner of a pixel.
"""

from __future__ import annotations

import collections
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from pose_jax import writing
from pose_jax.data.convert import files
from pose_jax.data.convert.form import (
    Box,
    Category,
    Counts,
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
from pose_jax.errors import ConfigError, InputError

_KEYPOINT, _RECTANGLE = "keypointlabels", "rectanglelabels"


def read(path: Path, options: Options) -> Labels:
    """Reads an export, see `form.Tool`.

    Raises:
      InputError: it is broken or another file, has no keypoints, or their order is
        unknown.
    """
    file = files.one_file(path, "*.json", recognize)
    tasks = files.parse_json(file, list)
    if any(_is_short(task) for task in tasks):
        raise InputError(
            f"{file} is a JSON-MIN export, which does not say which keypoints belong "
            "together: export JSON."
        )
    labels = Labels()
    found = [
        chosen_result
        for i, task in enumerate(tasks)
        if (chosen_result := _chosen_result(file, i, task, options, labels)) is not None
    ]
    _notes(labels)
    kinds = collections.Counter(r["type"] for _, result in found for r in result)
    if not kinds[_KEYPOINT]:
        there = ", ".join(sorted(kinds)) or "none"
        hint = ""
        if labels.left_out[_PREDICTED]:
            hint = " --predicted takes predictions."
        raise InputError(
            f"{file}: no keypoints in its annotations (regions: {there}).{hint}"
        )
    seen = dict.fromkeys(
        label
        for _, result in found
        for region in result
        if region["type"] == _KEYPOINT
        for label in region["value"].get(_KEYPOINT, ())
    )
    names = _order(file, seen, options)
    find = files.Finder([options.images or file.parent])
    labels.sought = find.folders
    single = not kinds[_RECTANGLE]
    if single:
        labels.notes.append(
            "no rectangles: the keypoints of an image are those of one animal"
        )
    for task, result in found:
        with reading(f"{file}: task {task.get('id')}", TOOL.title):
            people, size = _people(result, names, single, labels.left_out)
            _add_image(labels, task, people, size, find, options)
    _categories(labels, names)
    return labels


_UNLABELLED = "task[s] without annotations"
_SEVERAL = "further annotation[s] of tasks that have several"
_PREDICTED = "prediction[s] of tasks without annotations (--predicted takes them)"


def _notes(labels: Labels) -> None:
    if labels.left_out[_SEVERAL]:
        labels.notes.append(
            "of several annotations of a task, the one marked as ground truth is taken, "
            "or the one updated last"
        )


def _chosen_result(
    file: Path, i: int, task: Any, options: Options, labels: Labels
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Returns a task and the regions of the annotation to take; None if there is none."""
    where = f"{file}: task {i}"
    with reading(where, TOOL.title):
        annotations = [
            a for a in task.get("annotations", ()) if not a.get("was_cancelled")
        ]
        annotations.sort(
            key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or ""))
        )
        predictions = task.get("predictions") or []
        if not annotations and predictions:
            if options.predicted and isinstance(predictions[-1], dict):
                annotations = [predictions[-1]]
            else:
                labels.left_out.add(_PREDICTED)
                return None
        if not annotations:
            labels.left_out.add(_UNLABELLED)
            return None
        labels.left_out.add(_SEVERAL, len(annotations) - 1)
        return task, [region for region in annotations[-1]["result"] if region["type"]]


def _order(file: Path, seen: Mapping[str, None], options: Options) -> list[str]:
    """Returns the names of the keypoints in their order."""
    if options.names:
        return chosen(seen, options.names, file)
    if options.label_config is None:
        raise InputError(
            f"{file} does not say the order of its keypoints ({', '.join(sorted(seen))}): "
            "give it by --names A,B,..., or the labelling configuration by --label-config "
            "FILE."
        )
    path = options.label_config
    labels = [
        label
        for tag in files.parse_xml(path).iter("KeyPointLabels")
        for label in tag.iter("Label")
    ]
    values = [label.get("value", "") for label in labels]
    indices = [label.get("model_index") for label in labels]
    if any(index is not None for index in indices):
        if not all((index or "").isdigit() for index in indices):
            raise InputError(
                f"{path}: model_index is missing at some keypoints: give the order by "
                "--names A,B,..."
            )
        pairs = zip(indices, values, strict=True)
        values = [value for _, value in sorted(pairs, key=lambda p: int(p[0] or 0))]
    if not values:
        raise InputError(f"{path} has no KeyPointLabels: give the order by --names.")
    return chosen(seen, values, path)


# ------------------------------------------------------------------ people of a task


def _people(
    result: list[dict[str, Any]], names: list[str], single: bool, left_out: Counts
) -> tuple[list[Person], tuple[int, int] | None]:
    """Returns the people of an annotation, and the size of the image."""
    rectangles = {r["id"]: r for r in result if r["type"] == _RECTANGLE}
    parents = dict(_parents(result, rectangles))
    members: dict[str, list[tuple[str, Point]]] = {own: [] for own in rectangles}
    loose: list[tuple[str, Point]] = []
    size = None
    for region in result:
        if region["type"] == "relation":
            continue
        if region.get("image_rotation"):
            left_out.add("region[s] of images that were turned in Label Studio")
            continue
        if region["type"] not in (_KEYPOINT, _RECTANGLE):
            left_out.add("region[s] of type {kind}", kind=region["type"])
            continue
        size = _size(region)
        if region["type"] == _RECTANGLE:
            continue
        value = region["value"]
        labels = value.get(_KEYPOINT) or [""]
        x, y = value["x"] * size[0] / 100, value["y"] * size[1] / 100
        target = members.get(parents.get(region["id"], ""), loose)
        target.append((str(labels[0]), (x, y, 2)))
    people = []
    for own, rectangle in rectangles.items():
        if rectangle.get("image_rotation"):
            continue
        points = assemble(members[own], names, left_out)
        label = (rectangle["value"].get(_RECTANGLE) or [""])[0]
        people.append(Person(label, points, _box(rectangle)))
    labels = [label for label, _ in loose]
    if single and loose and len(set(labels)) == len(labels):
        people.append(Person("", assemble(loose, names, left_out)))
    elif loose:
        left_out.add("keypoint[s] that belong to no rectangle", len(loose))
    return people, size


def _parents(
    result: list[dict[str, Any]], rectangles: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yields the ids of regions and of the rectangles they belong to."""
    for region in result:
        if region["type"] == "relation":
            for a, b in (("from_id", "to_id"), ("to_id", "from_id")):
                if region[a] in rectangles and region[b] not in rectangles:
                    yield region[b], region[a]
    for region in result:  # These win.
        if region.get("parentID") in rectangles:
            yield region["id"], region["parentID"]


def _size(region: Mapping[str, Any]) -> tuple[int, int]:
    return int(region["original_width"]), int(region["original_height"])


def _box(region: Mapping[str, Any]) -> Box:
    """Returns the extent of a rectangle, which may be rotated about its first corner."""
    value, (width, height) = region["value"], _size(region)
    x, y = value["x"] * width / 100, value["y"] * height / 100
    w, h = value["width"] * width / 100, value["height"] * height / 100
    angle = math.radians(value.get("rotation") or 0)
    cos, sin = math.cos(angle), math.sin(angle)
    return extent(
        [
            (x + dx * cos - dy * sin, y + dx * sin + dy * cos)
            for dx, dy in ((0, 0), (w, 0), (0, h), (w, h))
        ]
    )


def _categories(labels: Labels, names: list[str]) -> None:
    """Makes a category of each label of rectangles that have keypoints.

    Rectangles of other labels are left out.
    """
    people = [person for image in labels.images for person in image.people]
    kinds = dict.fromkeys(p.category for p in people if p.points)
    for image in labels.images:
        for person in image.people:
            if person.category not in kinds:
                labels.left_out.add(
                    "rectangle[s] {label!r} without keypoints", label=person.category
                )
        image.people = [p for p in image.people if p.category in kinds]
        for person in image.people:
            person.category = person.category or "animal"
    for kind in kinds:
        labels.categories[kind or "animal"] = Category(kind or "animal", tuple(names))


# ------------------------------------------------------------------------- images


def _add_image(
    labels: Labels,
    task: Mapping[str, Any],
    people: list[Person],
    size: tuple[int, int] | None,
    find: files.Finder,
    options: Options,
) -> None:
    reference = _reference(task["data"])
    name = _name(reference)
    file = find(name)
    prefixed = re.fullmatch(r"[0-9a-f]{8}-(.+)", Path(name).name)
    if file is None and prefixed and "/data/local-files" not in reference:
        file = find(str(Path(name).with_name(prefixed[1])))
    if file is None:
        labels.missing.append(name)
        return
    shown = find.name_of(file)
    labels.images.append(Image(shown, people, file, size=size))


def _reference(data: Mapping[str, Any]) -> str:
    """Returns the value of a task's data that refers to its image."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    images = [value for value in texts.values() if files.is_image(_name(value))]
    if "image" in texts:
        return texts["image"]
    if len(images) != 1:
        raise ValueError(f"its data name {len(images)} images")
    return images[0]


def _name(reference: str) -> str:
    """Returns the name of an image from a URL or a path."""
    if "?d=" in reference:
        return parse_qs(urlsplit(reference).query).get("d", [""])[0]
    if re.match(r"\w+://", reference) or reference.startswith("/data/"):
        return unquote(urlsplit(reference).path)
    return files.posix(reference)


def _is_short(task: Any) -> bool:
    """Returns whether a task is one of a JSON-MIN export."""
    return isinstance(task, dict) and "data" not in task and "annotation_id" in task


def recognize(path: Path) -> bool:
    """Returns whether a file is a JSON export, or a folder holds one."""
    if path.is_dir():
        return any(recognize(file) for file in sorted(path.glob("*.json"))[:20])
    if path.suffix.lower() != ".json":
        return False
    start = files.starts(path, 1 << 16).lstrip()
    return start.startswith(b"[") and any(
        word in start for word in (b'"annotations"', b'"predictions"', b'"lead_time"')
    )


# ------------------------------------------------------------------- the way back

CONFIG, TASKS = "labeling.xml", "tasks.json"


def write(labels: Labels, out: Path, options: Options) -> list[str]:
    """Writes pre-annotations and a labelling configuration, see `form.Tool`.

    A point outside of an image would make the whole prediction invalid, and is left out;
    rectangles are cut at the border of the image. Images are served by Label Studio from
    the folder `options.images`, which must be above all of them.
    """
    paths = [image.file for image in labels.images if image.file is not None]
    if len(paths) != len(labels.images):
        raise InputError("pre-annotations need images that are files of their own.")
    shared = files.common_names(paths)
    above = paths[0].parents[len(Path(shared[0]).parts) - 1] if paths else Path("/")
    root = options.images.absolute() if options.images is not None else above
    said, tasks = Counts(), []
    for image, file in zip(labels.images, paths, strict=True):
        if not file.is_relative_to(root):
            raise ConfigError(f"--images {root} does not hold {file}.")
        name = quote(file.relative_to(root).as_posix())
        prediction: dict[str, Any] = {
            "model_version": "pose_jax",
            "result": _regions(image, said),
        }
        scores = [p.score for p in image.people if p.score is not None]
        if scores:
            prediction["score"] = min(max(sum(scores) / len(scores), 0), 1)
        tasks.append(
            {
                "data": {"image": f"/data/local-files/?d={name}"},
                "predictions": [prediction],
            }
        )
    writing.write(out / TASKS, json.dumps(tasks, allow_nan=False, indent=1) + "\n")
    writing.write(out / CONFIG, _configuration(labels))
    return [
        *said.lines(),
        f"labelling configuration: {out / CONFIG} (names of its tags: kp, box)",
        f"images are served from LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}, with "
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true",
    ]


def _regions(image: Image, said: Counts) -> list[dict[str, Any]]:
    """Returns the rectangle of each person and its keypoints."""
    assert image.size is not None
    width, height = image.size
    common = {
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "to_name": "image",
        "origin": "prediction",
    }
    regions: list[dict[str, Any]] = []
    for i, person in enumerate(image.people):
        own = _id(image, i, "")
        x0, y0, w, h = person.box or (0.0, 0.0, float(width), float(height))
        x1, y1 = min(max(x0 + w, 0), width), min(max(y0 + h, 0), height)
        x0, y0 = min(max(x0, 0), width), min(max(y0, 0), height)
        if person.box and (x1 - x0, y1 - y0) != tuple(person.box[2:]):
            said.add("box[es] cut at the border of the image")
        value = {
            "x": 100 * x0 / width,
            "y": 100 * y0 / height,
            "width": 100 * (x1 - x0) / width,
            "height": 100 * (y1 - y0) / height,
            "rotation": 0,
            _RECTANGLE: [person.category],
        }
        rectangle = {"id": own, "type": _RECTANGLE, "from_name": "box", "value": value}
        regions.append({**common, **rectangle})
        for name, (x, y, v) in person.points.items():
            if v and not (0 <= x < width and 0 <= y < height):
                said.add("point[s] outside of the image left out")
            elif v:
                value = {"x": 100 * x / width, "y": 100 * y / height, "width": 0.5}
                point = {
                    "id": _id(image, i, name),
                    "type": _KEYPOINT,
                    "from_name": "kp",
                    "value": {**value, _KEYPOINT: [name]},
                    "parentID": own,
                }
                regions.append({**common, **point})
    return regions


def _id(image: Image, person: int, name: str) -> str:
    """Returns an id of a region, the same each time."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{image.name}#{person}#{name}").hex[:12]


def _configuration(labels: Labels) -> str:
    names = dict.fromkeys(n for c in labels.categories.values() for n in c.names)
    points = "\n".join(
        f"    <Label value={quoteattr(name)} model_index={quoteattr(str(i))}/>"
        for i, name in enumerate(names)
    )
    boxes = "\n".join(
        f"    <Label value={quoteattr(name)}/>" for name in labels.categories
    )
    return f"""<View>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="box" toName="image">
{boxes}
  </RectangleLabels>
  <KeyPointLabels name="kp" toName="image">
{points}
  </KeyPointLabels>
</View>
"""


TOOL = Tool(
    title="Label Studio",
    read=read,
    recognize=recognize,
    options=frozenset({"names", "images", "label_config", "predicted"}),
    write=write,
    write_options=frozenset({"images"}),
)
