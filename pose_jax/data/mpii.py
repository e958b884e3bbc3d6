"""MPII Human Pose, in the three formats in which its annotations are distributed.

  mpii_human_pose_v1_u12_1.mat   the official file: all people with joints, all images
  train.json, valid.json, ...    rows of {image, center, scale, joints, joints_vis}; the
                                 common 22246 and 2958 people
  mpii_annotations.json(.gz)     rows with joint_self, objpos, scale_provided and
                                 isValidation; the same people

All three are 1-based: every coordinate here is one less. Visibility: the official file
and `joint_self` distinguish hidden joints (1); `joints_vis` is 1 for every labeled joint,
which becomes 2.

A person's box is the square of side 200 * scale about (center_x, center_y + 15 * scale).
With the usual padding of 1.25, this is the crop used for published MPII results. `center`
and `scale` must be raw: files in which both are already moved and widened (the .h5 of the
hourglass code) are not supported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging

from pose_jax.data import _files, _matlab
from pose_jax.data.dataset import DataSet
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.keypoints import MPII

_OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
_BOTH = ("mpii_annotations.json", "mpii_annotations.json.gz")
_FILES = {
    "train": ("train.json", *_BOTH, _OFFICIAL),
    "valid": ("valid.json", *_BOTH, _OFFICIAL),
    "all": ("trainval.json", *_BOTH, _OFFICIAL),
    "test": ("test.json", _OFFICIAL),
}
"""Files to search for a split, in this order."""

HEAD_SHARE = 0.6
"""PCKh's head size is this fraction of the diagonal of the head box."""


def load(
    root: str | Path,
    split: Literal["train", "valid", "all", "test"] = "train",
    *,
    annotations: str | Path | None = None,
    missing: Literal["error", "skip"] = "error",
) -> Table:
    """Reads one split; people in the file's order.

    Args:
      root: the folder that holds `images/`, and the annotations in it or in `annot/`.
      split: "train", "valid" (the validation split of the literature), "all" (both) or
        "test" (positions without joints). The official file only has training and test
        images: "train" and "valid" need the image names of the validation split, one per
        line, in `valid_images.txt` beside it; all people with joints in those images are
        then valid, which is more than the common 2958.
      annotations: the file, if it is not found; all rows of a JSON file are used.
      missing: what to do about missing images: "error" raises; "skip" leaves them and
        their people out and logs their number.

    Returns:
      A Table whose ids count the rows of the split from 1 (official file: all people of
      the file), so that id n is row n - 1 of `gt_valid.mat`; the id of an image is that
      of the first row that shows it. `head_sizes` come from the official file's head
      boxes, or for "valid" from a `gt_valid.mat` beside the JSON file with the same rows,
      whose joints replace those of the JSON file for the few people for whom they differ;
      otherwise they are None, and PCKh cannot be computed. People without position and
      scale have the box (0, 0, 0, 0): they are rows, but not used for training.

    Raises:
      ConfigError: an option has no such value.
      InputError: a file is absent or broken, or does not have the split.
    """
    _files.one_of("split", split, tuple(_FILES))
    root = Path(root)
    path = _find(root, split) if annotations is None else Path(annotations)
    official = path.suffix == ".mat"
    people = (_official if official else _json)(path, split)
    logging.info("mpii %s: %d people of %s", split, len(people), path)

    raw_xy = np.array([p["points"] for p in people], np.float64).reshape(-1, 16, 2)
    visibility = np.array([p["visibility"] for p in people], np.int32).reshape(-1, 16)
    if official:
        head_sizes = np.array([p["head"] for p in people], np.float64)
    else:
        gt_valid = path.parent / "gt_valid.mat"
        raw_xy, head_sizes = _gt_valid(gt_valid, split, raw_xy, visibility)
    sizes = [p["size"] for p in people if "size" in p]  # All rows have them, or none.
    return _matlab.people_table(
        name=f"mpii {split}",
        keypoints=MPII,
        folder=root / "images",
        files=[p["file"] for p in people],
        ids=np.array([p["id"] for p in people], np.int64),
        points_xy=raw_xy - 1,
        visibility=visibility,
        boxes_xyxy=np.array([_box(p) for p in people], np.float64).reshape(-1, 4),
        box_source="gt_boxes",
        image_sizes=np.array(sizes) if sizes else None,
        missing=missing,
        head_sizes=head_sizes if split != "test" else None,
        labelled=split != "test",
    )


def _folders(root: Path) -> tuple[Path, ...]:
    """Where annotations may lie, in this order."""
    return root / "annot", root, root / "mpii_human_pose_v1_u12_2"


def _find(root: Path, split: str) -> Path:
    for name in _FILES[split]:
        for folder in _folders(root):
            if (folder / name).is_file():
                return folder / name
    raise InputError(
        f"No annotations of mpii {split} in {root} or {root / 'annot'}: none of "
        f"{', '.join(_FILES[split])}. `annotations=` names another file."
    )


def _box(person: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Computes a box from the raw, 1-based center and the scale."""
    if person["center"] is None or person["scale"] is None:
        return (0.0, 0.0, 0.0, 0.0)
    (x, y), scale = person["center"], person["scale"]
    x, y, half = x - 1, y + 15 * scale - 1, 100 * scale
    return (x - half, y - half, x + half, y + half)


def _official(path: Path, split: str) -> list[dict[str, Any]]:
    release = _matlab.records(path, "RELEASE")[0]
    images = _matlab.structs(_matlab.field(release, "annolist"))
    trains = np.ravel(_matlab.field(release, "img_train"))
    if not images or len(images) != len(trains):
        raise InputError(
            f"{path}: annolist has {len(images)} images and img_train {len(trains)}; "
            "they must be equally many. Fetch the file again."
        )
    valid = _valid_names(path, split)
    people, number, bare = [], 0, 0
    for i, (image, train) in enumerate(zip(images, trains, strict=True), 1):
        where = f"{path}: annolist({i})"
        inner = _matlab.structs(_matlab.field(image, "image"))
        name = _matlab.field(inner[0], "name") if inner else None
        name = _matlab.text(name, f"{where}.image.name")
        part = "test" if train != 1 else "valid" if name in valid else "train"
        wanted = split == part or (split == "all" and part != "test")
        for j, rect in enumerate(_matlab.structs(_matlab.field(image, "annorect")), 1):
            number += 1
            if not wanted:
                continue
            person = _official_person(rect, f"{where}.annorect({j})")
            if any(person["visibility"]) or (person["center"] and person["scale"]):
                people.append(person | {"file": name, "id": number})
            else:
                bare += 1
    if bare:
        logging.warning(
            "%s: %d people of %s have neither joints nor a position; they are left out.",
            path, bare, split,
        )  # fmt: skip
    return people


def _valid_names(path: Path, split: str) -> set[str]:
    """Reads the image names of the validation split, if the split needs them."""
    if split in ("all", "test"):
        return set()
    names = path.parent / "valid_images.txt"
    try:
        return set(names.read_text().split())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not say which images are for validation, and {names} does not "
            'exist. Put the names there, one a line, or read split "all".'
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{names} cannot be read as text: {error}.") from None


def _official_person(rect: np.void, where: str) -> dict[str, Any]:
    """Reads an annorect. Every field may be empty, or missing in its struct array."""
    points, visibility = np.zeros((16, 2)), [0] * 16
    for annopoints in _matlab.structs(_matlab.field(rect, "annopoints"))[:1]:
        for point in _matlab.structs(_matlab.field(annopoints, "point")):
            place = _matlab.numbers(point, "x", "y", "id")
            if place is None:
                continue
            x, y, joint = place
            if joint not in range(16):
                raise InputError(
                    f"{where}: a point has the id {joint:g}; there are joints 0 to 15. "
                    "Fetch the file again."
                )
            points[int(joint)] = x, y
            visible = _matlab.number(point, "is_visible") == 1
            visibility[int(joint)] = 2 if visible else 1
    position = _matlab.structs(_matlab.field(rect, "objpos"))
    scale = _matlab.number(rect, "scale")
    x1, y1, x2, y2 = _matlab.numbers(rect, "x1", "y1", "x2", "y2") or (0, 0, 0, 0)
    return {
        "points": points,
        "visibility": visibility,
        "center": _matlab.numbers(position[0], "x", "y") if position else None,
        "scale": scale if scale is not None and scale > 0 else None,
        "head": HEAD_SHARE * math.hypot(x2 - x1, y2 - y1),
    }


def _json(path: Path, split: str) -> list[dict[str, Any]]:
    rows = _files.read_json(path, list)
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is no list of people: is it another kind of file?")
    if not any("isValidation" in row for row in rows):
        return [
            _common_person(row, f"{path}: row {i}", split) | {"id": i + 1}
            for i, row in enumerate(rows)
        ]
    if split == "test":
        raise InputError(f"{path} has people of training and validation, none of test.")
    people = []
    for i, row in enumerate(rows):
        where = f"{path}: row {i}"
        part = "valid" if _numbers(row, "isValidation", (), where) else "train"
        if split in (part, "all"):
            people.append(_both_person(row, where) | {"id": len(people) + 1})
    return people


def _common_person(row: Mapping[str, Any], where: str, split: str) -> dict[str, Any]:
    """Reads a row of train.json and similar files; test rows have no joints."""
    points, visibility = np.zeros((16, 2)), np.zeros(16, np.int32)
    place = _place(row, "center", "scale", where)
    if split != "test":
        points = _numbers(row, "joints", (16, 2), where)
        flags = _numbers(row, "joints_vis", (16,), where)
        visibility = np.where((flags != 0) & (points > 0).any(-1), 2, 0)
    elif None in place.values():  # A row without labels needs a box.
        raise InputError(f"{where}: center and scale are unknown. Leave the row out.")
    return {
        "file": _text(row, "image", where),
        "points": points,
        "visibility": visibility,
        **place,
    }


def _both_person(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Reads a row of mpii_annotations.json. (0, 0) is an unlabeled joint."""
    triples = _numbers(row, "joint_self", (16, 3), where)
    labelled = (triples[:, :2] > 0).any(-1)
    size = []
    for name in ("img_width", "img_height"):
        size.append(int(_numbers(row, name, (), where)))
        if not 1 <= size[-1] < 2**31:
            raise _files.broken(f"{where}: {name} must be positive, in 31 bits")
    return {
        "file": _text(row, "img_paths", where),
        "points": triples[:, :2],
        "visibility": np.where(labelled, np.where(triples[:, 2] == 1, 2, 1), 0),
        "size": size,
        **_place(row, "objpos", "scale_provided", where),
    }


def _place(
    row: Mapping[str, Any], center: str, scale: str, where: str
) -> dict[str, Any]:
    """Returns raw center and scale; None where the file has -1 for "unknown"."""
    xy = _numbers(row, center, (2,), where)
    value = float(_numbers(row, scale, (), where))
    return {
        "center": None if (xy == -1).all() else (float(xy[0]), float(xy[1])),
        "scale": value if value > 0 else None,
    }


def _gt_valid(
    path: Path, split: str, raw_xy: np.ndarray, visibility: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns joints and head sizes [n] from gt_valid.mat, if its rows are these people.

    Up to 1% of the rows may differ (10 of 2958 in the published files); these get the
    joints of gt_valid.mat, against which PCKh is computed. Otherwise returns the joints
    unchanged, and None.
    """
    if split != "valid" or not path.is_file():
        return raw_xy, None
    read = lambda name: np.atleast_3d(_matlab.matrix(_matlab.variable(path, name)))
    boxes, truth = read("headboxes_src"), read("pos_gt_src")  # MATLAB drops a last 1.
    n = len(raw_xy)
    if boxes.shape != (2, 2, n) or truth.shape != (16, 2, n):
        logging.warning(
            "%s does not hold the %d people of the split: no head sizes, no PCKh.",
            path, n,
        )  # fmt: skip
        return raw_xy, None
    truth = truth.transpose(2, 0, 1)
    away = np.abs(truth - raw_xy).max(-1)
    differs = ((visibility > 0) & ~(away <= 1.5)).any(-1)
    if differs.sum() > n // 100:
        logging.warning(
            "%s: the joints of %d of %d rows are not those of the split: no head sizes, "
            "no PCKh.", path, differs.sum(), n,
        )  # fmt: skip
        return raw_xy, None
    scored = differs[:, None] & (visibility > 0) & np.isfinite(truth).all(-1)
    raw_xy = np.where(scored[..., None], truth, raw_xy)
    return raw_xy, HEAD_SHARE * np.hypot(*(boxes[1] - boxes[0]))


def _numbers(
    row: Mapping[str, Any], name: str, shape: Sequence[int], where: str
) -> np.ndarray:
    """Returns a required field of finite numbers."""
    if name not in row:
        raise _files.broken(f"{where}: {name} is missing")
    try:
        value = np.array(row[name], np.float64)
    except (TypeError, ValueError, OverflowError):
        value = np.array(np.nan)
    if value.shape != tuple(shape) or not np.isfinite(value).all():
        what = " x ".join(map(str, shape)) + " finite numbers" if shape else "a number"
        raise _files.broken(f"{where}: {name} must be {what}")
    return value


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise _files.broken(f"{where}: {name} must be a file name")
    return value


def _splits(root: Path) -> list[str]:
    """Returns the splits whose annotations are in a folder."""
    held = {name for folder in _folders(root) for name in _names(folder)}
    splits = ["train", "valid"]
    if held & set(_BOTH):
        return splits
    return [split for split in splits if f"{split}.json" in held] or ["all"]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _is_mpii(root: Path) -> bool:
    if (root / "annot").is_dir() or any(root.glob("mpii_human_pose*.mat")):
        return True
    return any({*_BOTH, _OFFICIAL} & _names(folder) for folder in _folders(root))


DATA_SET = DataSet(
    load=load,
    files="annot/ or mpii_human_pose*.mat (MPII)",
    recognize=_is_mpii,
    splits=_splits,
    keypoints=MPII,
    file_options={"annotations": "split"},
    about={
        "description": "MPII Human Pose: frames of videos of everyday activities, 16 "
        "joints of each person, and head boxes.",
        "homepage": "http://human-pose.mpi-inf.mpg.de",
        "license": "Simplified BSD.",
        "citation": """@inproceedings{andriluka2014mpii,
  title = {{2D} Human Pose Estimation: New Benchmark and State of the Art Analysis},
  author = {Andriluka, Mykhaylo and Pishchulin, Leonid and Gehler, Peter and
    Schiele, Bernt},
  booktitle = {CVPR}, year = {2014}}""",
    },
)
