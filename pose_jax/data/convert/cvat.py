"""CVAT: the XML files of "CVAT for images 1.1" and "CVAT for video 1.1".

Points of a skeleton are identified by the names of their sublabels: their order in the file
means nothing. The edges of a skeleton are in the SVG of its label, between ids of nodes,
which are no positions.

A skeleton and each of its points have keyframes of their own in a track, and a frame is a
keyframe if one of them is (as in CVAT's editor). Points that are absent from a skeleton
are outside of the image or hidden from the annotator: not labelled. `outside` wins over
`occluded`.

CVAT does not document whether (0, 0) is the center or the corner of a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pose_jax.data.convert import files, frames
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

_SIZES = {"skeleton", "points"}


def read(path: Path, options: Options) -> Labels:
    """Reads an export, see `form.Tool`.

    Raises:
      InputError: it is broken or another file, or has no keypoints.
    """
    file = files.one_file(path, "*.xml", recognize)
    root = files.parse_xml(file)
    if root.tag != "annotations" or root.find("meta") is None:
        raise InputError(
            f"{file} is another XML file (its root is <{root.tag}>): export the task as "
            "CVAT for images 1.1 or CVAT for video 1.1."
        )
    with reading(file, TOOL.title):
        return _Reader(file, root, options).read()


class _Reader:
    def __init__(self, file: Path, root: Element, options: Options) -> None:
        self.file, self.root, self.options = file, root, options
        self.labels = Labels()
        meta = root.find("meta")
        self.meta = root if meta is None else meta
        self.named = set(options.names)
        folder = file.parent
        self.find = files.Finder(
            [options.images] if options.images else [folder / "images", folder]
        )
        self.labels.sought = self.find.folders
        self.tasks = {
            task.findtext("id", ""): task for task in self.meta.iter("task")
        } or {"": self.meta}
        self.others: dict[str, None] = {}

    def read(self) -> Labels:
        self._categories()
        for image in self.root.findall("image"):
            self._image(image)
        self._tracks()
        if not self.labels.categories:
            there = ", ".join(self.others) or "no shapes at all"
            raise InputError(
                f"{self.file} has no skeletons and no points, only {there}. Label "
                "keypoints as skeletons, or export the task that has them."
            )
        return self.labels

    def _categories(self) -> None:
        """Reads the labels that are skeletons, and gives them the order of --names."""
        children: dict[str, list[str]] = {}
        drawings: dict[str, str] = {}
        for label in self.meta.iter("label"):
            name, parent = label.findtext("name", ""), label.findtext("parent")
            if parent:
                found = children.setdefault(parent, [])
                found += [name] if name not in found else []
            elif label.findtext("type") == "skeleton":
                drawings[name] = label.findtext("svg") or ""
        for name, svg in drawings.items():
            names = children.get(name, [])
            if self.options.names and not self._has_plain_points():
                names = chosen(names, self.options.names, self.file)
            skeleton = tuple(
                (a, b) for a, b in _edges(svg) if a in names and b in names
            )
            self.labels.categories[name] = Category(name, tuple(names), skeleton)
        if self._has_plain_points() and not self.options.names:
            raise InputError(
                f"{self.file}: its points have no names (they are no skeletons): give "
                "them in their order, --names A,B,..."
            )

    def _has_plain_points(self) -> bool:
        return any(
            shape.tag == "points"
            for parent in (*self.root.findall("image"), *self.root.findall("track"))
            for shape in parent
        )

    def _skeleton(self, element: Element, label: str) -> Person:
        """Reads a skeleton; the points outside are not labelled."""
        found = []
        for point in element.findall("points"):
            if point.get("outside") == "1":
                continue
            ((x, y),) = _coordinates(point)
            found.append((point.attrib["label"], (x, y, _visible(point))))
        category = self.labels.categories.get(label)
        if category is None:  # A file without the definitions of its labels.
            names = tuple(p.attrib["label"] for p in element.findall("points"))
            category = self.labels.categories[label] = Category(label, names)
        points = assemble(found, category.names, self.labels.left_out)
        return Person(label, points)

    def _plain(self, element: Element, label: str) -> Person | None:
        """Reads points without names; None if there are more or fewer than names."""
        xy, names = _coordinates(element), self.options.names
        if len(xy) != len(names):
            self.labels.left_out.add(
                "shape[s] of points {label!r}, with another number of points than --names",
                label=label,
            )
            return None
        self.labels.categories.setdefault(label, Category(label, tuple(names)))
        v = _visible(element)
        points: dict[str, Point] = {
            n: (x, y, v) for n, (x, y) in zip(names, xy, strict=True)
        }
        return Person(label, points)

    def _image(self, element: Element) -> None:
        name = element.attrib["name"]
        size = int(element.attrib["width"]), int(element.attrib["height"])
        people, boxes = [], []
        for shape in element:
            label = shape.get("label", "")
            if shape.tag == "skeleton":
                person = self._skeleton(shape, label)
            elif shape.tag == "points":
                person = self._plain(shape, label)
            else:
                if shape.tag == "box":
                    boxes.append(shape)
                else:
                    self._other(shape.tag, label)
                continue
            if person is not None and not person.labelled:
                self.labels.left_out.add(
                    "skeleton[s] {label!r} with every point outside", label=label
                )
            elif person is not None:
                people.append((shape.get("group_id"), person))
        for box in boxes:
            self._box(box, people)
        split = element.get("subset") or self._subset(element.get("task_id"))
        where = [split, self._folder_of(element.get("task_id"))]
        file = self._file(name, [part for part in where if part])
        if file is None:
            self.labels.missing.append(name)
            return
        persons = [person for _, person in people]
        shown = name if files.is_image(name) else name + file.suffix
        self.labels.images.append(
            Image(
                self._unique(files.posix(shown), split),
                persons,
                file,
                size=size,
                split=split,
            )
        )

    def _box(self, shape: Element, people: list[tuple[str | None, Person]]) -> None:
        """Gives a box to the skeleton that is grouped with it."""
        group = shape.get("group_id", "0")
        for own, person in people:
            if own == group != "0" and person.box is None:
                person.box = _box_of(shape)
                return
        self._other(shape.tag, shape.get("label", ""))

    def _other(self, tag: str, label: str) -> None:
        self.others.setdefault(f"{tag} {label!r}")
        self.labels.left_out.add(
            "shape[s] {tag} {label!r}, not a skeleton", tag=tag, label=label
        )

    def _unique(self, name: str, split: str) -> str:
        """Numbers the names of frames that repeat, as those of several videos do."""
        taken = {image.name for image in self.labels.images if image.split == split}
        stem, dot, ending = name.rpartition(".")
        number = 1
        shown = name
        while shown in taken:
            shown, number = f"{stem}_{number}{dot}{ending}", number + 1
        return shown

    def _file(self, name: str, folders: list[str]) -> Path | None:
        """Returns the file of an image, first of its own task's folder."""
        ending = files.is_image(name)
        for count in range(len(folders), 0, -1):
            prefix = "/".join(folders[:count])
            found = self.find(f"{prefix}/{name}", ending=ending)
            if found is not None:
                return found
        return self.find(name, ending=ending)

    def _subset(self, task_id: str | None) -> str:
        task = self.tasks.get(task_id or "") or next(iter(self.tasks.values()))
        subset = files.split_name(task.findtext("subset") or "")
        return "" if subset == "default" else subset

    def _folder_of(self, task_id: str | None) -> str:
        task = self.tasks.get(task_id or "") if len(self.tasks) > 1 else None
        return "" if task is None else task.findtext("name", "")

    # --------------------------------------------------------------------- tracks

    def _tracks(self) -> None:
        frames_of: dict[tuple[str, int], list[Person]] = {}
        for i, track in enumerate(self.root.findall("track")):
            label, task = track.attrib["label"], track.get("task_id") or ""
            others = {shape.tag for shape in track} - _SIZES
            for tag in sorted(others):
                self._other(f"track of {tag}", label)
            for frame, person in self._poses(track, label):
                person.track = track.get("id") or str(i)
                frames_of.setdefault((task, frame), []).append(person)
        videos = {task: self._video(task) for task in {key[0] for key in frames_of}}
        for (task, frame), people in sorted(frames_of.items()):
            video, name = videos[task], f"frame_{frame:06d}"
            split = self._subset(task)
            where = [part for part in (split, self._folder_of(task)) if part]
            file = self._file(name, where)
            image = Image(name, people, file, size=self._size(task), split=split)
            if file is not None:
                image.name = file.name
            elif video is not None:
                image.name, image.content = f"{name}.png", video.frame(frame)
            else:
                self.labels.missing.append(name)
                continue
            image.name = self._unique(image.name, split)
            self.labels.images.append(image)

    def _poses(self, track: Element, label: str) -> Iterator[tuple[int, Person]]:
        """Yields the poses of a track with their frames: keyframes, or all."""
        for shape in track:
            if shape.tag not in _SIZES or shape.get("outside") == "1":
                continue
            points = shape.findall("points") if shape.tag == "skeleton" else []
            key = any(e.get("keyframe", "1") == "1" for e in (shape, *points))
            skeleton = shape.tag == "skeleton"
            if key or self.options.interpolated:
                person = (self._skeleton if skeleton else self._plain)(shape, label)
                if person is not None and person.labelled:
                    yield int(shape.attrib["frame"]), person
            elif not skeleton or any(p.get("outside") != "1" for p in points):
                self.labels.left_out.add(
                    "interpolated pose[s] between keyframes (--interpolated takes them)"
                )

    def _video(self, task_id: str) -> frames.Video | None:
        """Returns the video of a task, if its file is beside the export."""
        task = self.tasks.get(task_id)
        if task is None:
            task = next(iter(self.tasks.values()))
        source = task.findtext("source")
        found = source and self.find(source)
        return frames.Video(found) if found else None

    def _size(self, task_id: str) -> tuple[int, int] | None:
        task = self.tasks.get(task_id) or next(iter(self.tasks.values()))
        size = task.find("original_size")
        if size is None:
            return None
        return int(size.findtext("width", "")), int(size.findtext("height", ""))


def _visible(element: Element) -> int:
    return 1 if element.get("occluded") == "1" else 2


def _coordinates(element: Element) -> list[tuple[float, float]]:
    pairs = element.attrib["points"].split(";")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


def _box_of(element: Element) -> Box:
    at = [float(element.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr")]
    return extent([(at[0], at[1]), (at[2], at[3])])


def _edges(svg: str) -> list[tuple[str, str]]:
    """Returns the edges in the drawing of a skeleton, as pairs of names."""
    try:
        root = ElementTree.fromstring(f"<svg>{svg}</svg>")
    except ElementTree.ParseError:
        return []
    names = {
        node.get("data-node-id"): node.get("data-label-name", "")
        for node in root.iter("circle")
    }
    pairs = [
        (names.get(line.get("data-node-from")), names.get(line.get("data-node-to")))
        for line in root.iter("line")
    ]
    return [(a, b) for a, b in pairs if a and b]


def recognize(path: Path) -> bool:
    """Returns whether a file is CVAT's XML, or a folder holds one."""
    if path.is_dir():
        return any(recognize(file) for file in sorted(path.glob("*.xml"))[:20])
    start = files.starts(path)
    return b"<annotations" in start and b"<meta" in start


TOOL = Tool(
    title="CVAT",
    read=read,
    recognize=recognize,
    options=frozenset({"names", "images", "interpolated"}),
)
