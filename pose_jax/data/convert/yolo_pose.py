"""YOLO-pose: `data.yaml` and a text file of labels per image, as Ultralytics reads them.

A line is a class, a box (center and size) and the keypoints, all as fractions of the width
and height of the image. `kpt_shape` is [k, 3] with a visibility (0, 1, 2), or [k, 2]
without one, where (0, 0) is not labelled. A split is a folder, a text file of paths, or a
list of these; the labels of an image lie where the last folder `images` of its path is
`labels`.

Ultralytics does not document whether (0, 0) is the center or the corner of a pixel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pose_jax import writing
from pose_jax.data import pixels
from pose_jax.data.convert import files, images
from pose_jax.data.convert.form import (
    Category,
    Counts,
    Image,
    Labels,
    Options,
    Person,
    Tool,
    reading,
)
from pose_jax.errors import InputError

_SPLITS = ("train", "val", "test")
_OVER = 0.01
"""How far a fraction may be beyond 0 and 1; Ultralytics leaves out what is farther."""


def read(path: Path, options: Options) -> Labels:
    """Reads a data set, see `form.Tool`.

    Raises:
      InputError: it is broken or of another kind, or its keypoints have no names.
    """
    file = files.one_file(path, "*.yaml", recognize)
    about = files.parse_yaml(file)
    shape = about.get("kpt_shape")
    if shape is None:
        raise InputError(
            f"{file} has no kpt_shape: it is a data set of boxes, without keypoints."
        )
    with reading(file, TOOL.title):
        k, size = (int(value) for value in shape)
        if size not in (2, 3):
            raise ValueError(f"kpt_shape {shape}")
        classes = _by_number(about["names"])
        names = _names(file, about, classes, k, options)
        flips = _flips(about.get("flip_idx"), k)
    labels = Labels()
    for number, name in classes.items():
        own = names[number]
        pairs = None if flips is None else tuple((own[i], own[j]) for i, j in flips)
        labels.categories[name] = Category(name, tuple(own), flip_pairs=pairs)
    seen: set[Path] = set()
    for split in _SPLITS:
        for image in _images(file, about, split, labels):
            if image in seen:
                continue
            seen.add(image)
            size_of = _upright_size(image, labels.left_out)
            if size_of is None:
                continue
            people = _people(image, size_of, classes, names, size, labels.left_out)
            name = _name(image, split)
            labels.images.append(Image(name, people, image, split=split, size=size_of))
    if not any(person.points for image in labels.images for person in image.people):
        raise InputError(f"{file}: no keypoints in the labels of its images.")
    return labels


def _by_number(names: Any) -> dict[int, Any]:
    """Returns a list, or a mapping from numbers, as a mapping from numbers."""
    if isinstance(names, Mapping):
        return {int(number): value for number, value in names.items()}
    return dict(enumerate(names))


def _names(
    file: Path,
    about: Mapping[str, Any],
    classes: Mapping[int, str],
    k: int,
    options: Options,
) -> dict[int, Sequence[str]]:
    """Returns the names of the keypoints of each class."""
    given = about.get("kpt_names")
    if options.names:
        if len(options.names) != k:
            raise InputError(
                f"{file}: kpt_shape says {k} keypoints, --names has {len(options.names)}."
            )
        return dict.fromkeys(classes, options.names)
    if not given:
        raise InputError(
            f"{file} names no keypoints (kpt_names): give the names of the {k} in their "
            "order, --names A,B,..."
        )
    found = {number: [str(n) for n in own] for number, own in _by_number(given).items()}
    for number, name in classes.items():
        if len(found.get(number, ())) != k or len(set(found[number])) != k:
            raise InputError(f"{file}: kpt_names of class {name} are not {k} names.")
    return {number: found[number] for number in classes}


def _flips(indices: Any, k: int) -> list[tuple[int, int]] | None:
    """Returns the pairs that flip_idx exchanges."""
    if not indices:
        return None
    flips = [int(i) for i in indices]
    if sorted(flips) != list(range(k)) or any(
        flips[j] != i for i, j in enumerate(flips)
    ):
        raise ValueError(f"flip_idx {indices} exchanges no pairs")
    return [(i, j) for i, j in enumerate(flips) if i < j]


# ------------------------------------------------------------------------- images


def _images(
    file: Path, about: Mapping[str, Any], split: str, labels: Labels
) -> list[Path]:
    """Returns the images of a split, and notes those that are not there."""
    given = about.get(split)
    root = file.parent.absolute()
    base = root / str(about.get("path") or "")
    if not base.is_dir():  # A path of another computer.
        base = root
    found: list[Path] = []
    for entry in given if isinstance(given, list) else [given] if given else []:
        at = next((b / entry for b in (base, root) if (b / entry).exists()), None)
        if at is None:
            raise InputError(f"{file}: {split} is {entry}, which is not in {base}.")
        if at.is_dir():
            found += files.images_below(at)
            continue
        for line in files.read_text(at).splitlines():
            if not line.strip():
                continue
            name = files.posix(line.strip())
            image = _listed(name, at.parent, base)
            if image is None:
                labels.missing.append(name)
                labels.sought = (at.parent, base)
            else:
                found.append(image)
    return found


def _listed(name: str, beside: Path, base: Path) -> Path | None:
    """Returns the image of a line of a list: relative to the list or the data set."""
    for folder in (beside, base):
        if (folder / name).is_file():
            return (folder / name).resolve().parent / Path(name).name
    return files.Finder([base])(name)


def _name(image: Path, split: str) -> str:
    """Returns the name of an image below `images`, without the folder of its split."""
    parts = image.parts
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if not places:
        return image.name
    parts = parts[places[-1] + 1 :]
    if len(parts) > 1 and parts[0].startswith(split):
        parts = parts[1:]
    return "/".join(parts)


def _label_file(image: Path) -> Path:
    parts = list(image.with_suffix(".txt").parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts)


def _upright_size(image: Path, left_out: Counts) -> tuple[int, int] | None:
    try:
        size, orientation = pixels.sizes(image, image)
    except InputError:
        left_out.add("image[s] that cannot be read as images")
        return None
    return pixels.upright_size(size, orientation)


# ------------------------------------------------------------------------- people


def _people(
    image: Path,
    size: tuple[int, int],
    classes: Mapping[int, str],
    names: Mapping[int, Sequence[str]],
    dimensions: int,
    left_out: Counts,
) -> list[Person]:
    """Reads the labels of an image; without a file of labels there are none."""
    path = _label_file(image)
    if not path.is_file():
        left_out.add(
            "file[s] of labels that do not exist, so that their images are empty"
        )
        return []
    people = []
    for i, line in enumerate(files.read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {i}"
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise InputError(f"{where} is no row of numbers.") from None
        number = int(values[0])
        if number not in classes:
            raise InputError(f"{where}: class {words[0]} is not among names.")
        columns = 5 + dimensions * len(names[number])
        if len(values) != columns:
            raise InputError(
                f"{where} has {len(values)} numbers; kpt_shape "
                f"[{len(names[number])}, {dimensions}] needs {columns}. Are these labels "
                "of boxes?"
            )
        people.append(
            _person(values, size, classes[number], names[number], dimensions, where)
        )
    return people


def _person(
    values: Sequence[float],
    size: tuple[int, int],
    category: str,
    names: Sequence[str],
    dimensions: int,
    where: str,
) -> Person:
    width, height = size
    points = {}
    for i, name in enumerate(names):
        x, y, *rest = values[5 + dimensions * i : 5 + dimensions * (i + 1)]
        v = rest[0] if rest else 2.0 * bool(x or y)
        if v not in (0, 1, 2):
            raise InputError(
                f"{where}: visibility {v:g} is none of 0, 1, 2: are these predictions?"
            )
        if v and not all(-_OVER <= value <= 1 + _OVER for value in (x, y)):
            raise InputError(
                f"{where}: keypoint {name} ({x:g}, {y:g}) is no fraction of the image."
            )
        if v:
            points[name] = (x * width, y * height, int(v))
    x, y, w, h = values[1:5]
    if not all(-_OVER <= value <= 1 + _OVER for value in (x, y, w, h)):
        raise InputError(f"{where}: the box is no fraction of the image.")
    box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
    return Person(category, points, box)


def recognize(path: Path) -> bool:
    """Returns whether a file is a data.yaml, or a folder holds one."""
    if path.is_dir():
        return any(recognize(file) for file in sorted(path.glob("*.yaml"))[:20])
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    lines = files.starts(path, 1 << 16).splitlines()
    keys = {line.split(b":")[0] for line in lines if line[:1].isalpha()}
    return b"names" in keys and bool(keys & {b"train", b"val", b"kpt_shape"})


# ------------------------------------------------------------------- the way back


def write(labels: Labels, out: Path, options: Options) -> list[str]:
    """Writes a data set, see `form.Tool`; points outside of an image are not labelled.

    Splits are train, val and test: "train2017" is train, and so is one of another name.

    Raises:
      InputError: categories have different numbers of keypoints.
    """
    categories = list(labels.categories.values())
    k = len(categories[0].names)
    if any(len(category.names) != k for category in categories):
        raise InputError("YOLO-pose has one number of keypoints for all categories.")
    said, splits = Counts(), {}
    for image in labels.images:
        split = next((s for s in _SPLITS if image.split.startswith(s)), "train")
        splits[split] = f"images/{split}"
        images.place(image, out / "images" / split / image.name, options.copy)
        rows = [_row(p, image, categories, said) for p in image.people]
        path = (out / "labels" / split / image.name).with_suffix(".txt")
        writing.write(path, "".join(f"{row}\n" for row in rows))
    if "val" not in splits:
        splits["val"] = next(iter(splits.values()))
        said.add("split[s] for training and validation: divide the images")
    about: dict[str, Any] = {
        "path": ".",
        **splits,
        "kpt_shape": [k, 3],
        "names": {i: category.name for i, category in enumerate(categories)},
        "kpt_names": {i: list(c.names) for i, c in enumerate(categories)},
    }
    flips = list(range(k))
    names = categories[0].names
    for a, b in categories[0].flips:
        i, j = names.index(a), names.index(b)
        flips[i], flips[j] = j, i
    about["flip_idx"] = flips
    # JSON is YAML too, except for the numbers that are keys.
    lines = [f"{key}: {_yaml(value)}\n" for key, value in about.items()]
    writing.write(out / "data.yaml", "".join(lines))
    return said.lines()


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"\n  {key}: {_yaml(own)}" for key, own in value.items())
    return json.dumps(value)


def _row(person: Person, image: Image, categories: list[Category], said: Counts) -> str:
    assert image.size is not None
    width, height = image.size
    number = next(i for i, c in enumerate(categories) if c.name == person.category)
    x0, y0, w, h = person.box or (0.0, 0.0, float(width), float(height))
    x1, y1 = min(max(x0 + w, 0), width), min(max(y0 + h, 0), height)
    x0, y0 = min(max(x0, 0), width), min(max(y0, 0), height)
    values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height]
    values += [(x1 - x0) / width, (y1 - y0) / height]
    for name in categories[number].names:
        x, y, v = person.points.get(name, (0.0, 0.0, 0))
        if v and not (0 <= x <= width and 0 <= y <= height):
            said.add("point[s] outside of the image left out")
            v = 0
        values += [x / width, y / height, v] if v else [0, 0, 0]
    return " ".join(
        [str(number), *(f"{value:.6f}".rstrip("0").rstrip(".") for value in values)]
    )


TOOL = Tool(
    title="YOLO-pose",
    read=read,
    recognize=recognize,
    options=frozenset({"names"}),
    write=write,
    write_options=frozenset({"copy"}),
)
