"""Leeds Sports Pose and its extension: `joints.mat` and `images/`, one person per image.

The two formats are similar, but the meaning of the flag is opposite:

               axes of `joints`                    the flag          images
  LSP          (x, y, flag), joint, image          1 = occluded      im0001.jpg
  LSP-extended joint, (x, y, flag), image          1 = labeled      im00001.jpg

LSP also labels hidden joints (visibility 1), and benchmarks count them. In LSP-extended
flag 0 is an unlabeled joint, whose coordinates are undefined. Each reader raises an error
for a file of the other.

Coordinates are used as stored: compared with the labels of LSP's original-size images,
they are 0-based, to within one pixel. Image ids and annotation ids are the image numbers,
from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from pose_jax.data import _files, _matlab
from pose_jax.data.dataset import DataSet
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import LSP

BoxSource = Literal["joint_boxes", "image"]

_LSP_AXES = (3, len(LSP))
_EXTENDED_AXES = (len(LSP), 3)
_READER = {
    _LSP_AXES: 'LSP, where flag 1 is an occluded joint (data set "lsp", lsp.load)',
    _EXTENDED_AXES: "LSP-extended, where flag 1 is a labeled joint (data set "
    '"lsp_extended", lsp.load_extended)',
}


def load(
    root: str | Path,
    split: str = "train",
    *,
    boxes: BoxSource = "joint_boxes",
    centric: Literal["PC", "OC"] = "PC",
    annotations: str | Path | None = None,
    missing: Literal["error", "skip"] = "error",
) -> Table:
    """Reads LSP, or its edition of original-size images.

    Args:
      root: the folder that holds `joints.mat` and `images/`.
      split: "train" (images 1 to 1000), "test" (1001 to 2000), "all", or numbers of
        images, both ends included: "1001-1500".
      boxes: person boxes, which LSP does not have: "joint_boxes", the extent of the joints
        (no side under 8 pixels); "image", the whole image, as in DeepPose.
      centric: left and right as the person's ("PC", `joints.mat`, as released) or the
        observer's ("OC", `joints-OC.mat`). Scores of the two are not comparable.
      annotations: the .mat, if it has another name.
      missing: what to do about missing images: "error" raises; "skip" leaves them out and
        logs their number.

    Raises:
      ConfigError: an option has no such value.
      InputError: a file is absent or broken, or is LSP-extended's.
    """
    _files.one_of("centric", centric, ("PC", "OC"))
    file = {"PC": "joints.mat", "OC": "joints-OC.mat"}[centric]
    path = Path(root) / file if annotations is None else Path(annotations)
    named = {"train": (1, 1000), "test": (1001, 2000)}
    return _table("lsp", root, split, named, path, boxes, missing, centric)


def load_extended(
    root: str | Path,
    split: str = "train",
    *,
    boxes: BoxSource = "joint_boxes",
    annotations: str | Path | None = None,
    missing: Literal["error", "skip"] = "error",
) -> Table:
    """Reads LSP-extended. Its labels are person-centric, and some are wrong.

    Args:
      root: the folder that holds `joints.mat` and `images/`.
      split: "train" or "all" (everything: the set has no test half), or numbers of
        images, both ends included: "5501-6000".
      boxes: as of `load`. People with fewer than two labeled joints have no box of
        joints: they are rows, but excluded from training and evaluation.
      annotations: the .mat, if it is not `joints.mat`.
      missing: as of `load`.

    Raises:
      ConfigError: an option has no such value.
      InputError: a file is absent or broken, or is LSP's.
    """
    path = Path(root) / "joints.mat" if annotations is None else Path(annotations)
    return _table("lsp_extended", root, split, {}, path, boxes, missing, "PC")


def _table(
    name: str,
    root: str | Path,
    split: str,
    named: dict[str, tuple[int, int]],
    path: Path,
    boxes: str,
    missing: str,
    centric: str,
) -> Table:
    extended = name == "lsp_extended"
    joints = _read(path, _EXTENDED_AXES if extended else _LSP_AXES)
    whole = (1, len(joints))
    named = ({"train": whole} | named) | {"all": whole}
    numbers = _numbers(split, named, len(joints), path)
    _files.one_of("boxes", boxes, ("joint_boxes", "image"))
    joints = joints[numbers - 1]
    flagged, other = (2, 0) if extended else (1, 2)
    visibility = np.where(joints[..., 2] == 1, flagged, other)
    broken = (visibility > 0) & ~np.isfinite(joints[..., :2]).all(-1)
    if broken.any():
        row, joint = np.argwhere(broken)[0]
        where = f"{path}: image {numbers[row]}: {LSP.names[joint]}"
        raise _files.broken(f"{where} is labeled but not finite")
    return _matlab.people_table(
        name=f"{name} {split}",
        keypoints=LSP,
        folder=Path(root) / "images",
        files=[f"im{n:0{5 if extended else 4}d}.jpg" for n in numbers],
        ids=numbers,
        points_xy=joints[..., :2],
        visibility=visibility,
        box_source=boxes,
        missing=missing,
        centric=centric,
    )


def _read(path: Path, axes: tuple[int, int]) -> np.ndarray:
    """Returns `joints` as [n, 14, 3]; in the file, the image axis comes last."""
    # MATLAB drops the last axis of a single image.
    joints = np.atleast_3d(_matlab.variable(path, "joints"))
    shape = " x ".join(map(str, joints.shape))
    if joints.ndim != 3 or joints.shape[:2] not in _READER:
        raise InputError(
            f"{path}: `joints` is {shape}; {axes[0]} x {axes[1]} x images is needed. "
            "Is it another data set?"
        )
    if joints.shape[:2] != axes:
        raise InputError(
            f"{path}: `joints` is {shape}: these are the axes of "
            f"{_READER[joints.shape[:2]]}. Read it as that."
        )
    joints = _matlab.matrix(joints)
    if not joints.size:
        raise InputError(f"{path}: `joints` holds no numbers. Fetch the file again.")
    flags = np.take(joints, 2, axis=axes.index(3))
    if not np.isin(flags, (0, 1)).all():
        raise _files.broken(f"{path}: the flags of `joints` must be 0 or 1")
    return joints.transpose(2, axes.index(len(LSP)), axes.index(3))


def _numbers(
    split: str, named: Mapping[str, tuple[int, int]], count: int, path: Path
) -> np.ndarray:
    """Returns the image numbers of a split, from 1."""
    span = re.fullmatch(r"(\d+)-(\d+)", split)
    if split in named:
        first, last = named[split]
    elif span:
        first, last = int(span[1]), int(span[2])
    else:
        words = ", ".join(f'"{word}"' for word in named)
        raise ConfigError(
            f'split must be {words} or numbers of images, such as "1-100"; '
            f"got {split!r}."
        )
    if not 1 <= first <= last <= count:
        raise ConfigError(
            f'split "{split}" means images {first} to {last}; {path} has 1 to {count}.'
        )
    return np.arange(first, last + 1)


def _is_lsp(root: Path, *, extended: bool) -> bool:
    names = ("joints.mat", "joints-OC.mat")
    five_digits = any(root.glob("images/im[0-9][0-9][0-9][0-9][0-9].*"))
    return five_digits == extended and any((root / name).is_file() for name in names)


DATA_SET = DataSet(
    load=load,
    files="joints.mat (LSP)",
    recognize=lambda root: _is_lsp(root, extended=False),
    splits=lambda root: ["all"],
    keypoints=LSP,
    file_options={"annotations": "root"},
    about={
        "description": "Leeds Sports Pose: 2000 photographs of people at sports, scaled "
        "to about 150 pixels of height, 14 joints of one person each.",
        "homepage": "http://sam.johnson.io/research/lsp.html",
        "license": "None is stated; its makers ask to be cited.",
        "citation": """@inproceedings{johnson2010lsp,
  title = {Clustered Pose and Nonlinear Appearance Models for Human Pose Estimation},
  author = {Johnson, Sam and Everingham, Mark},
  booktitle = {BMVC}, year = {2010}}""",
    },
)

EXTENDED = DataSet(
    load=load_extended,
    recognize=lambda root: _is_lsp(root, extended=True),
    splits=lambda root: ["all"],
    keypoints=LSP,
    file_options={"annotations": "root"},
    about={
        "description": "Leeds Sports Pose Extended: 10000 photographs of people at "
        "sports, 14 joints of one person each, annotated by the crowd.",
        "homepage": "http://sam.johnson.io/research/lspet.html",
        "license": "None is stated; its makers ask to be cited.",
        "citation": """@inproceedings{johnson2011lspet,
  title = {Learning Effective Human Pose Estimation from Inaccurate Annotation},
  author = {Johnson, Sam and Everingham, Mark},
  booktitle = {CVPR}, year = {2011}}""",
    },
)
