"""Frames Labeled In Cinema: `examples.mat` and `images/`, upper bodies in film stills.

An example is one person; examples of the same frame become one image with several people.
Of the 29 columns of `coords`, the 11 of `keypoints.FLIC` are filled; NaN means unlabeled.
There is no occlusion flag: labeled joints count as visible.

Coordinates are used as stored. Their origin is undocumented and unverified; since the
authors used MATLAB, they may be 1-based and off by one pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from pose_jax.data import _files, _matlab
from pose_jax.data.dataset import DataSet
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.keypoints import FLIC

_COLUMNS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16)
"""Columns of `coords`, in the order of `keypoints.FLIC`."""


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
      boxes: "joint_boxes", the extent of the labeled joints (no side under 8 pixels);
        "torso_boxes", the file's `torsobox`, without arms; "image", the whole image.
      centric: left and right as the person's ("PC", `examples.mat`) or the observer's
        ("OC", `flic-joints-oc.mat`: shoulders, elbows, wrists and hips of people seen
        from behind are exchanged, their eyes are not). Published scores are usually OC.
      annotations: the .mat, if it has another name.
      missing: what to do about missing frames: "error" raises; "skip" leaves them and
        their people out and logs their number.

    Returns:
      A Table whose ids are the examples' numbers in the file, from 1; the id of an image
      is that of the first example that shows it.

    Raises:
      ConfigError: an option has no such value.
      InputError: a file is absent or broken.
    """
    _files.one_of("split", split, ("train", "test", "all"))
    _files.one_of("boxes", boxes, ("joint_boxes", "torso_boxes", "image"))
    _files.one_of("centric", centric, ("PC", "OC"))
    file, name = {
        "PC": ("examples.mat", "examples"),
        "OC": ("flic-joints-oc.mat", "flic_anno"),
    }[centric]
    path = Path(root) / file if annotations is None else Path(annotations)
    files, coords, torsos, ids = [], [], [], []
    for i, example in enumerate(_matlab.records(path, name), 1):
        where = f"{path}: example {i}"
        wanted = 1 if split == "all" else _matlab.number(example, f"is{split}")
        if wanted is None:
            raise _files.broken(f'{where}: is{split} is missing ("all" needs none)')
        if wanted:
            file = _matlab.field(example, "filepath")
            files.append(_matlab.text(file, f"{where}: filepath"))
            coords.append(_coords(example, where))
            if boxes == "torso_boxes":
                torsos.append(_torso(example, where))
            ids.append(i)
    points_xy = np.array(coords).reshape(-1, len(FLIC), 2)
    return _matlab.people_table(
        name=f"flic {split}",
        keypoints=FLIC,
        folder=Path(root) / "images",
        files=files,
        ids=np.array(ids, np.int64),
        points_xy=points_xy,
        visibility=np.where(np.isfinite(points_xy).all(-1), 2, 0),
        boxes_xyxy=np.array(torsos).reshape(-1, 4) if boxes == "torso_boxes" else None,
        box_source=boxes,
        missing=missing,
        centric=centric,
    )


def _coords(example: np.void, where: str) -> np.ndarray:
    """Returns [11, 2], NaN where not labeled."""
    coords = _matlab.matrix(_matlab.field(example, "coords"))
    if coords.shape != (2, 29):
        shape = " x ".join(map(str, coords.shape))
        raise _files.broken(f"{where}: coords must be 2 x 29 numbers; got {shape}")
    return coords[:, _COLUMNS].T


def _torso(example: np.void, where: str) -> np.ndarray:
    box = _matlab.matrix(_matlab.field(example, "torsobox")).reshape(-1)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise InputError(
            f"{where}: torsobox must be (x1, y1, x2, y2) with x2 > x1 and y2 > y1. Fix "
            'the annotation file, or take boxes="joint_boxes".'
        )
    return box


DATA_SET = DataSet(
    load=load,
    files="examples.mat (FLIC)",
    recognize=lambda root: (root / "examples.mat").is_file(),
    splits=lambda root: ["train", "test"],
    keypoints=FLIC,
    file_options={"annotations": "root"},
    about={
        "description": "Frames Labeled In Cinema: 5003 frames of films, 11 keypoints of "
        "the upper body of one person each.",
        "homepage": "https://bensapp.github.io/flic-dataset.html",
        "license": "None is stated; the frames are of commercial films.",
        "citation": """@inproceedings{sapp2013modec,
  title = {{MODEC}: Multimodal Decomposable Models for Human Pose Estimation},
  author = {Sapp, Ben and Taskar, Ben},
  booktitle = {CVPR}, year = {2013}}""",
    },
)
