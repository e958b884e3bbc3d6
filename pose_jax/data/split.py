"""Division of a COCO file into training, validation and test: `pose-jax data split`.

Frames of one video look alike: if some are in training and others in validation, the scores
are too high. Images are therefore divided by groups.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from pose_jax import writing
from pose_jax.data import coco
from pose_jax.data._files import broken, one_of, read_json
from pose_jax.errors import ConfigError, InputError

By: TypeAlias = Literal["image", "video", "folder"]
"""What stays together."""
PARTS = "train", "val", "test"
_EXPORTED = re.compile(r"_(?:jpe?g|png|bmp|webp)\.rf\.\w+$", re.IGNORECASE)
"""What Roboflow adds to a file's stem."""
_NUMBER = re.compile(r"[ ._-]*(?:frame|img|image)?[ ._-]*\d+$", re.IGNORECASE)
"""What a frame's number adds to the name of its video."""


def split(
    root: Path | str,
    out: Path | str,
    *,
    by: By = "video",
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    name: str | None = None,
    annotations: Path | str | None = None,
) -> str:
    """Writes OUT/train.json, OUT/val.json and, if `test` is positive, OUT/test.json.

    The files are the annotation file with some of its images each; names of images remain
    as they are, and images are not copied.

    Args:
      root: the folder of the data set, as in `coco.load`.
      out: the folder to write; existing files are not replaced.
      by: what stays together, see `groups`.
      val, test: fractions of the images, of which whole groups come closest.
      seed: of the choice, which depends on nothing else but the names of the groups.
      name: the split to divide; None: the only one.
      annotations: the annotation file, if it has another name.

    Returns:
      The number of images, groups and annotations of each file, and the lines of a config
      that use them, as text.

    Raises:
      ConfigError: an invalid option, or a file exists.
      InputError: the data are not usable, there are too few groups, or `out` cannot be
        written.
    """
    root, out = Path(root), Path(out)
    one_of("by", by, get_args(By))
    if val <= 0 or test < 0 or val + test >= 1:
        raise ConfigError(
            "val must be positive, test not negative, and their sum below 1; got "
            f"{val:g} and {test:g}."
        )
    writing.check(out)
    name, path = source(root, name, annotations)
    data = read_json(path, dict)
    images = _images(data, path)
    grouped = groups(images, by)
    fractions = {"val": val, "test": test} if test else {"val": val}
    parts = divide({group: len(of) for group, of in grouped.items()}, fractions, seed)
    files = {part: out / f"{part}.json" for part in PARTS if part in parts}
    there = [str(file) for file in files.values() if file.exists()]
    if there:
        raise ConfigError(f"{there[0]} exists: give another --out, or delete it.")
    lines = []
    for part, file in files.items():
        chosen = [images[i] for group in parts[part] for i in grouped[group]]
        content = _subset(data, images, {image["id"] for image in chosen})
        writing.write(file, json.dumps(content))
        words = [f"{len(chosen)} images", f"{len(content['annotations'])} annotations"]
        if by != "image":
            words.insert(1, f"{len(parts[part])} {by}s ({_some(parts[part])})")
        lines.append(f"{file}: {', '.join(words)}")
    lines.append("in a config:")
    for use, part in (("train", "train"), ("eval", "val")):
        section = config_section(root, name, files[part])
        lines.append(f"  data.{use}: {json.dumps(section)}")
    return "\n".join(lines)


def config_section(root: Path, name: str, file: Path) -> dict[str, Any]:
    """Returns `config.data.*` of one file of a division."""
    options = {"annotations": str(file)}
    return {"name": "coco", "root": str(root), "split": name, "options": options}


def source(
    root: Path, name: str | None = None, annotations: Path | str | None = None
) -> tuple[str, Path]:
    """Returns the split to divide, and its annotation file.

    Raises:
      ConfigError: there are several.
      InputError: there are none.
    """
    if annotations is not None:
        path = Path(annotations)
        name = name or coco.split_of(path)
        if name is None:
            raise ConfigError(f"--annotations {path}: also give --split, its images.")
        return name, path
    names = [name] if name else coco.splits(root)
    if len(names) > 1:
        raise ConfigError(f"{root} has several splits: give --split {_or(names)}.")
    return names[0], coco.annotation_file(root, names[0])


def read_images(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of images of a COCO file."""
    return _images(read_json(path, dict), path)


def groups(images: Sequence[Mapping[str, Any]], by: By) -> dict[str, list[int]]:
    """Groups images, by position in the file.

    Args:
      images: rows of a COCO file.
      by: "image": each alone. "folder": those of one folder. "video": those of one
        `video_id`, if all images have one; else those of one folder whose names differ in a
        number at the end, `cat_0001.jpg` and `cat_0002.jpg`.

    Returns:
      Indices of images by the name of their group, in the order of the names.
    """
    key: Callable[[Mapping[str, Any]], str] = {
        "image": lambda image: image["file_name"],
        "folder": lambda image: _folder(image["file_name"]),
        "video": lambda image: video_of(image["file_name"]),
    }[by]
    if by == "video" and all(image.get("video_id") is not None for image in images):
        key = lambda image: str(image["video_id"])
    found: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        found.setdefault(key(image), []).append(i)
    return dict(sorted(found.items()))


def _folder(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")).parent)


def video_of(name: str) -> str:
    """Returns the video that a frame's file name says: its folder, and its stem without the
    number at the end and without what exporting tools add."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = _NUMBER.sub("", _EXPORTED.sub("", path.stem))
    return str(path.parent / stem) if stem else str(path.parent)


def divide(
    sizes: Mapping[str, int], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Divides groups at random, so that each part has about its fraction of the images.

    Args:
      sizes: number of images of each group.
      fractions: those of all parts but "train", which has the rest.
      seed: of the order in which groups are taken.

    Returns:
      Groups of each part, sorted; none is empty.

    Raises:
      InputError: there are fewer groups than parts.
    """
    if len(sizes) <= len(fractions):
        raise InputError(
            f"{len(sizes)} groups of images ({_some(list(sizes))}) cannot be divided into "
            f"{len(fractions) + 1} parts: divide --by image, by folder or by video."
        )
    rng, total = np.random.default_rng(seed), sum(sizes.values())
    left = [sorted(sizes)[i] for i in rng.permutation(len(sizes))]
    parts: dict[str, list[str]] = {}
    for number, (part, fraction) in enumerate(fractions.items()):
        target, count, chosen = fraction * total, 0, []
        keep = len(fractions) - number  # One group for each of the other parts.
        for group in list(left):
            closer = abs(count + sizes[group] - target) < abs(count - target)
            if len(left) > keep and closer:
                left.remove(group)
                chosen.append(group)
                count += sizes[group]
        if not chosen:  # All groups are large.
            chosen = [min(left, key=sizes.__getitem__)]
            left.remove(chosen[0])
        parts[part] = sorted(chosen)
    return {**parts, "train": sorted(left)}


def _images(data: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    images = data.get("images")
    if not isinstance(images, list) or not images:
        raise broken(f"{path}: images is missing or empty")
    for i, image in enumerate(images):
        fields = image if isinstance(image, Mapping) else {}
        if not isinstance(fields.get("file_name"), str) or "id" not in fields:
            raise broken(f"{path}: image number {i} has no id or no file_name")
    return images


def _subset(
    data: Mapping[str, Any], images: Sequence[Mapping[str, Any]], ids: set[Any]
) -> dict[str, Any]:
    """Returns a COCO file with some of its images, in its order."""
    rows = data.get("annotations") or []
    return {
        **data,
        "images": [image for image in images if image["id"] in ids],
        "annotations": [row for row in rows if row.get("image_id") in ids],
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
