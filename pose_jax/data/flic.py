"""Frames Labeled In Cinema: `examples.mat` and `images/`, upper bodies of film stills.

An example is one person; several share a frame, which is then one image with several
people. Of the 29 columns of `coords` the 11 of `keypoints.FLIC` are filled; NaN among
them is a joint that nobody labelled. There is no flag of occlusion: what is labelled
counts as visible.

Coordinates are taken as they are. Their origin is documented nowhere and unverified; the
makers worked in MATLAB, so they may be 1-based and off by one pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from pose_jax.data import _matlab
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.keypoints import FLIC

_COLUMNS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16)
"""Of `coords`, in the order of `keypoints.FLIC`."""


def load(
    root: str | Path,
    split: Literal["train", "test", "all"] = "train",
    *,
    boxes: Literal["joint_boxes", "torso_boxes", "image"] = "joint_boxes",
    centric: Literal["PC", "OC"] = "PC",
    annotations: str | Path | None = None,
    missing: Literal["error", "skip"] = "error",
) -> Table:
    """Reads one split.

    Args:
      root: the folder that holds `examples.mat` and `images/`.
      split: "train" (3987 examples), "test" (1016), "all" (5003).
      boxes: "joint_boxes", the extent of the labelled joints (no side under 8 pixels);
        "torso_boxes", the file's `torsobox`, which holds no arms; "image", all of it.
      centric: left and right as the person's ("PC", `examples.mat`) or the observer's
        ("OC", `flic-joints-oc.mat`: shoulders, elbows, wrists and hips of people seen
        from behind are exchanged, their eyes are not). Published scores are usually OC.
      annotations: the .mat, if it has another name.
      missing: what to do about frames that are not there: "error" refuses, "skip" leaves
        them and their people out and logs how many.

    Returns:
      A Table whose ids are the examples' numbers in the file, from 1; the id of an image
      is that of the first example that shows it.

    Raises:
      ConfigError: an option has no such value.
      InputError: a file is absent or broken.
    """
    _matlab.one_of("split", split, ("train", "test", "all"))
    _matlab.one_of("boxes", boxes, ("joint_boxes", "torso_boxes", "image"))
    _matlab.one_of("centric", centric, ("PC", "OC"))
    file, name = {
        "PC": ("examples.mat", "examples"),
        "OC": ("flic-joints-oc.mat", "flic_anno"),
    }[centric]
    path = Path(root) / file if annotations is None else Path(annotations)
    examples = _matlab.structs(_matlab.variable(path, name))
    if not examples:
        raise InputError(f"{path}: `{name}` is no struct array. Fetch the file again.")

    names, coords, torsos, numbers = [], [], [], []
    for i, example in enumerate(examples, 1):
        where = f"{path}: example {i}"
        if split == "all" or _flag(example, f"is{split}", where):
            names.append(_file(example, where))
            coords.append(_coords(example, where))
            if boxes == "torso_boxes":
                torsos.append(_torso(example, where))
            numbers.append(i)
    files, first, image = _matlab.distinct(names)
    points_xy = np.array(coords).reshape(-1, len(FLIC), 2)
    ids = np.array(numbers, np.int64)
    return _matlab.people_table(
        name=f"flic {split}",
        keypoints=FLIC,
        folder=Path(root) / "images",
        files=files,
        image_ids=ids[first],
        image=image,
        ids=ids,
        points_xy=points_xy,
        visibility=np.where(np.isfinite(points_xy).all(-1), 2, 0),
        boxes_xyxy=np.array(torsos).reshape(-1, 4) if boxes == "torso_boxes" else None,
        box_source=boxes,
        missing=missing,
        centric=centric,
    )


def _flag(example: np.void, name: str, where: str) -> bool:
    value = _matlab.number(_matlab.field(example, name))
    if value is None:
        raise InputError(f'{where}: {name} is missing. Mend the file, or read "all".')
    return value != 0


def _file(example: np.void, where: str) -> str:
    name = _matlab.text(_matlab.field(example, "filepath"))
    if name is None:
        raise InputError(f"{where}: filepath is missing. Mend the file.")
    return name


def _coords(example: np.void, where: str) -> np.ndarray:
    """[11, 2], NaN where not labelled."""
    coords = _matlab.field(example, "coords")
    if np.shape(coords) != (2, 29):
        raise InputError(
            f"{where}: coords must be 2 x 29; got {' x '.join(map(str, np.shape(coords)))}"
            ". Mend the file."
        )
    return np.asarray(coords, np.float64)[:, _COLUMNS].T


def _torso(example: np.void, where: str) -> np.ndarray:
    box = _matlab.field(example, "torsobox")
    box = np.asarray([] if box is None else box, np.float64).reshape(-1)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise InputError(
            f"{where}: torsobox must be (x1, y1, x2, y2) with x2 > x1 and y2 > y1. Mend "
            'the file, or take boxes="joint_boxes".'
        )
    return box
