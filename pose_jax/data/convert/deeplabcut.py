"""DeepLabCut: projects and their CSV files of labels; also those of lightning-pose.

A file has three header rows (scorer, bodyparts, coords), or four for several animals
(individuals in addition). The path of an image is one column, or three; paths that were
written on Windows have backslashes. A point without numbers is not labelled. The individual
"single" holds points of the scene, which belong to no animal.

Keypoints are in the order of the header. DeepLabCut does not document whether (0, 0) is the
center or the corner of a pixel.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pose_jax import writing
from pose_jax.data.convert import files, images
from pose_jax.data.convert.form import (
    Category,
    Counts,
    Image,
    Labels,
    Options,
    Person,
    Point,
    Tool,
    chosen,
    reading,
)
from pose_jax.errors import InputError

_NAME = "animal"
_SCENE = "single"
_CSV = "CollectedData*.csv"


def read(path: Path, options: Options) -> Labels:
    """Reads a project, a folder with `labeled-data`, or one CSV file, see `form.Tool`.

    Raises:
      InputError: a file is broken or of another kind, or there are none.
    """
    paths, config = _files(path)
    labels = Labels()
    tables = []
    for file in paths:
        with reading(file, TOOL.title):
            tables.append((file, _Columns(file)))
    names = _names(tables, config)
    if options.names:
        names = chosen(names, options.names, path)
    skeleton = []
    for chain in config.get("skeleton") or ():
        if isinstance(chain, list):
            skeleton += itertools.pairwise(map(str, chain))
    labels.categories[_NAME] = Category(
        _NAME,
        tuple(names),
        tuple((a, b) for a, b in skeleton if a in names and b in names),
    )
    for file, columns in tables:
        find = files.Finder([options.images] if options.images else _folders(file))
        labels.sought = tuple(dict.fromkeys([*labels.sought, *find.folders]))
        for i, row in enumerate(columns.rows):
            with reading(f"{file}: row {i + 1} of the labels", TOOL.title):
                _image(labels, columns, row, names, find)
    scene = dict.fromkeys(n for _, columns in tables for n in columns.scene)
    if scene:
        labels.notes.append(
            f"left out: the points of the scene (individual 'single': {', '.join(scene)}), "
            "which belong to no animal"
        )
    own = [image.file for image in labels.images if image.file is not None]
    for image, name in zip(labels.images, files.common_names(own), strict=True):
        image.name = name
    return labels


def _files(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """Returns the CSV files of a project, and its config.yaml, {} if there is none."""
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.suffix == ".yaml":
        path = path.parent
    if not path.is_dir():
        return [path], {}
    file = path / "config.yaml"
    config = files.parse_yaml(file) if file.is_file() else {}
    found = sorted([*path.glob(_CSV), *path.glob(f"labeled-data/*/{_CSV}")])
    scorer = config.get("scorer")
    own = [file for file in found if file.stem == f"CollectedData_{scorer}"]
    if not found:
        raise InputError(
            f"{path} holds no labeled-data/*/{_CSV}: label frames, or name the file."
        )
    return own or found, config


def _folders(file: Path) -> list[Path]:
    """Returns the folders that paths in a file may be relative to."""
    near = [file.parent]
    if len(file.parents) > 2:
        near.append(file.parents[2])  # The project, of labeled-data/VIDEO/FILE.
    return near


class _Columns:
    """The columns of a CSV file.

    Attributes:
      rows: the rows of labels.
      width: number of all columns.
      index: number of columns of the path.
      at: (individual, body part) to the columns of x and y; individual "" if there is
        only one.
      scene: body parts that belong to no animal.
    """

    def __init__(self, file: Path) -> None:
        text = files.read_text(file)
        rows = [row for row in csv.reader(io.StringIO(text)) if any(row)]
        head: dict[str, list[str]] = {}
        while rows and rows[0][0] in ("scorer", "individuals", "bodyparts", "coords"):
            row = rows.pop(0)
            head[row[0]] = row
        if not {"bodyparts", "coords"} <= head.keys():
            raise InputError(
                f"{file} is no CSV file of DeepLabCut: it has no header rows scorer, "
                "bodyparts and coords."
            )
        parts, coords = head["bodyparts"], head["coords"]
        if "likelihood" in coords:
            raise InputError(
                f"{file} holds predictions (likelihood), not labels: give the file "
                f"{_CSV} of the labels."
            )
        width = self.width = len(coords)
        self.index = next((i for i in range(1, width) if coords[i]), width)
        people = head.get("individuals", [""] * width)
        self.at: dict[tuple[str, str], dict[str, int]] = {}
        self.scene: dict[str, None] = {}
        for i in range(self.index, width):
            person = people[i]
            if person == _SCENE:
                self.scene[parts[i]] = None
            else:
                self.at.setdefault((person, parts[i]), {})[coords[i]] = i
        self.rows = rows

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for _, name in self.at))

    def path(self, row: Sequence[str]) -> str:
        """Returns the path of a row's image."""
        return files.posix("/".join(row[: self.index]))

    def people(self, row: Sequence[str]) -> dict[str, dict[str, Point]]:
        """Returns the labelled points of a row by individual and name."""
        if len(row) != self.width:
            raise ValueError(f"{len(row)} columns, the header has {self.width}")
        people: dict[str, dict[str, Point]] = {}
        for (person, name), at in self.at.items():
            x, y = (float(row[at[axis]] or "nan") for axis in ("x", "y"))
            if math.isfinite(x) and math.isfinite(y):
                people.setdefault(person, {})[name] = (x, y, 2)
        return people


def _names(
    tables: Sequence[tuple[Path, _Columns]], config: Mapping[str, Any]
) -> list[str]:
    """Returns the keypoints of all files: in config.yaml's order, or that of the header."""
    found = dict.fromkeys(name for _, columns in tables for name in columns.names)
    parts = config.get("multianimalbodyparts") or config.get("bodyparts")
    usual = [str(part) for part in parts] if isinstance(parts, list) else []
    known = [name for name in usual if name in found]
    return known + [name for name in found if name not in known]


def _image(
    labels: Labels,
    columns: _Columns,
    row: Sequence[str],
    names: Sequence[str],
    find: files.Finder,
) -> None:
    people = columns.people(row)
    name = columns.path(row)
    if not people:
        labels.left_out.add("image[s] without a labelled point")
        return
    file = find(name)
    if file is None:
        labels.missing.append(name)
        return
    kept = []
    for individual, points in people.items():
        own = {n: point for n, point in points.items() if n in names}
        kept.append(Person(_NAME, own, track=individual or None))
    labels.images.append(Image(name, kept, file))


def recognize(path: Path) -> bool:
    """Returns whether this is a CSV file of labels, or a folder that holds some."""
    if path.is_dir():
        found = [*path.glob(_CSV), *path.glob(f"labeled-data/*/{_CSV}")]
        return any(map(recognize, found[:20]))
    if path.name == "config.yaml":
        return b"bodyparts" in files.starts(path, 1 << 16)
    lines = files.starts(path).removeprefix(b"\xef\xbb\xbf").splitlines()[:4]
    return {line.split(b",")[0] for line in lines} >= {
        b"scorer",
        b"bodyparts",
        b"coords",
    }


# ------------------------------------------------------------------- the way back

SCORER = "pose_jax"


def write(labels: Labels, out: Path, options: Options) -> list[str]:
    """Writes `labeled-data` of a project, see `form.Tool`: a CSV file per folder of images.

    Raises:
      InputError: there are several categories, or two images would have one name.
    """
    if len(labels.categories) != 1:
        raise InputError("DeepLabCut has one set of body parts: choose one category.")
    (category,) = labels.categories.values()
    people = max((len(image.people) for image in labels.images), default=1)
    said = Counts()
    folders: dict[str, dict[str, Image]] = {}
    for image in labels.images:
        path = PurePosixPath(image.name)
        folder = "_".join(path.parts[:-1]) or image.split or "images"
        if folders.setdefault(folder, {}).setdefault(path.name, image) is not image:
            raise InputError(f"two images would be labeled-data/{folder}/{path.name}.")
    for folder, own in folders.items():
        rows = _header(category.names, people)
        for name, image in sorted(own.items()):
            images.place(image, out / "labeled-data" / folder / name, options.copy)
            rows.append(
                ["labeled-data", folder, name, *_values(image, category, people, said)]
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        path = out / "labeled-data" / folder / f"CollectedData_{SCORER}.csv"
        writing.write(path, text.getvalue())
    return [
        *said.lines(),
        f"in the project: copy labeled-data, set scorer: {SCORER} in config.yaml, and run "
        "deeplabcut.convertcsv2h5",
    ]


def _header(names: Sequence[str], people: int) -> list[list[str]]:
    rows = {"scorer": [], "individuals": [], "bodyparts": [], "coords": []}
    for i in range(people):
        for name in names:
            for axis in ("x", "y"):
                values = SCORER, f"animal{i + 1}", name, axis
                for row, value in zip(rows.values(), values, strict=True):
                    row.append(value)
    if people == 1:
        del rows["individuals"]
    return [[word, "", "", *row] for word, row in rows.items()]


def _values(image: Image, category: Category, people: int, said: Counts) -> list[str]:
    """Returns the numbers of a row; "" where nothing is labelled."""
    values = []
    for i in range(people):
        points = image.people[i].points if i < len(image.people) else {}
        for name in category.names:
            x, y, v = points.get(name, (0.0, 0.0, 0))
            if v == 1:
                said.add("hidden point[s], which DeepLabCut does not mark")
            values += [str(round(x, 4)), str(round(y, 4))] if v else ["", ""]
    return values


TOOL = Tool(
    title="DeepLabCut or lightning-pose",
    read=read,
    recognize=recognize,
    options=frozenset({"names", "images"}),
    write=write,
    write_options=frozenset({"copy"}),
)
