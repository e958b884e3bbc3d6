"""What the readers of the older data sets share: .mat files, and people as a Table.

MATLAB knows no absent value and no scalar: all is a matrix, and what was never set is an
empty one. `structs`, `field`, `number` and `text` read that without surprises. The rest
makes a Table of people whose image sizes and boxes the annotations do not give.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from pose_jax.data.table import Table, image_size
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.keypoints import KeypointSet

MIN_SIDE = 8.0
"""Pixels: no side of a box of joints is shorter; in the released sets none would be."""


def one_of(option: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuses a word that an option does not have."""
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed)
        raise ConfigError(f"{option} must be one of {words}; got {value!r}.")


# ---------------------------------------------------------------------------- .mat files


def variable(path: Path, name: str) -> np.ndarray:
    """One variable of a .mat file: a matrix, or a structured array of structs.

    Raises:
      InputError: the file is absent, broken, or has no such variable.
    """
    import scipy.io

    remedy = "`annotations=` names another"
    try:
        values = scipy.io.loadmat(str(path), appendmat=False, variable_names=[name])
        if name in values:
            return values[name]
        held = [held for held, *_ in scipy.io.whosmat(str(path), appendmat=False)]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {remedy}.") from None
    except NotImplementedError:  # Version 7.3 is HDF5, which scipy does not read.
        raise InputError(
            f"{path} is a MATLAB file of version 7.3; save it with -v7."
        ) from None
    except Exception as error:  # A damaged file can end anywhere in scipy.
        raise InputError(
            f"{path} cannot be read as a MATLAB file ({one_line(error)}). Fetch it again."
        ) from None
    raise InputError(
        f"{path} holds no variable {name!r} (it has: {', '.join(held) or 'none'}); "
        f"{remedy}."
    )


def structs(value: Any) -> list[np.void]:
    """The elements of a struct array; none, if it is empty or no struct at all."""
    if not isinstance(value, np.ndarray) or value.dtype.names is None:
        return []
    return list(value.ravel(order="F"))


def field(struct: np.void, name: str) -> Any:
    """A field as a matrix, or None where this struct array does not have it."""
    return struct[name] if name in (struct.dtype.names or ()) else None


def number(value: Any) -> float | None:
    """A scalar that may be a number, a logical or text; None if empty or none of it."""
    while isinstance(value, np.ndarray):  # Twice, if it stands in a cell.
        if value.size == 0:
            return None
        value = value.reshape(-1)[0]
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def text(value: Any) -> str | None:
    """A row of characters, or the one in a cell; None if empty or no text."""
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return str(value) if isinstance(value, str) and value else None


# ------------------------------------------------------------------------ people as rows


def distinct(names: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Of a file name per person: the files, who first shows each, and each one's file.

    Returns:
      [m] files in order of first appearance, [m] int64 the first row of each, [n] int32
      the file of each row.
    """
    number_of: dict[str, int] = {}
    first = []
    image = np.empty(len(names), np.int32)
    for row, name in enumerate(names):
        if name not in number_of:
            number_of[name] = len(number_of)
            first.append(row)
        image[row] = number_of[name]
    return list(number_of), np.array(first, np.int64), image


def joint_boxes(points_xy: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """The extent of each person's labelled joints.

    A side shorter than MIN_SIDE is widened about its middle, so that people in profile
    or with few labels remain usable. Fewer than two labelled joints say nothing about an
    extent: their box is (0, 0, 0, 0), which `Table.labelled_rows` leaves out.

    Args:
      points_xy: [n, k, 2].
      visibility: [n, k].

    Returns:
      [n, 4] (x, y, x + w, y + h).
    """
    labelled = (visibility > 0)[..., None]
    low = np.where(labelled, points_xy, np.inf).min(1)
    high = np.where(labelled, points_xy, -np.inf).max(1)
    known = labelled.sum(1) >= 2  # [n, 1]
    low, high = np.where(known, low, 0), np.where(known, high, 0)
    grow = np.where(known, np.maximum(MIN_SIDE - (high - low), 0) / 2, 0)
    return np.concatenate([low - grow, high + grow], -1)


def people_table(
    *,
    name: str,
    keypoints: KeypointSet,
    folder: Path,
    files: Sequence[str],
    image_ids: np.ndarray,
    image: np.ndarray,
    ids: np.ndarray,
    points_xy: np.ndarray,
    visibility: np.ndarray,
    box_source: str,
    missing: str,
    boxes_xyxy: np.ndarray | None = None,
    image_sizes: np.ndarray | None = None,
    head_sizes: np.ndarray | None = None,
    labelled: bool = True,
    centric: str = "",
) -> Table:
    """A Table of those people whose images are there; the others are told.

    Args:
      folder: that holds the images.
      files: [m] names in `folder`.
      missing: "error" or "skip", about images that are not there.
      boxes_xyxy: [n, 4]; None: from the joints or the whole image, as `box_source` says.
      image_sizes: [m, 2] (width, height); None: from the images' headers.

    The other arguments are columns of the Table, for all files and people.

    Raises:
      InputError: images are not there, or are no images.
    """
    there = _present(name, folder, files, missing)
    paths = tuple(folder / f for f, kept in zip(files, there, strict=True) if kept)
    rows = there[image]
    image = (np.cumsum(there) - 1)[image[rows]]
    if image_sizes is None:
        sizes = _sizes(paths)
    else:
        sizes = image_sizes[there]
    points_xy, visibility = points_xy[rows], visibility[rows]
    if boxes_xyxy is not None:
        boxes_xyxy = boxes_xyxy[rows]
    elif box_source == "image":
        boxes_xyxy = np.concatenate([np.zeros((len(image), 2)), sizes[image]], -1)
    else:
        boxes_xyxy = joint_boxes(points_xy, visibility)
    return Table(
        name=name,
        keypoints=keypoints,
        images=paths,
        image_ids=np.asarray(image_ids, np.int64)[there],
        image_sizes=np.asarray(sizes, np.int32).reshape(-1, 2),
        image=image.astype(np.int32),
        ids=np.asarray(ids, np.int64)[rows],
        boxes_xyxy=boxes_xyxy,
        box_scores=np.ones(len(image)),
        points_xy=np.where((visibility > 0)[..., None], points_xy, 0.0),
        visibility=visibility.astype(np.int32),
        areas=(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(-1),
        crowd=np.zeros(len(image), bool),
        box_source=box_source,
        labelled=labelled,
        centric=centric,
        head_sizes=None if head_sizes is None else head_sizes[rows],
    )


def _present(name: str, folder: Path, files: Sequence[str], missing: str) -> np.ndarray:
    """[m] bool: which files are in the folder."""
    one_of("missing", missing, ("error", "skip"))
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder. Unpack the images of {name} there, or give the "
            "folder that holds it as root."
        )
    listed = set(os.listdir(folder))
    there = np.array([f in listed or (folder / f).is_file() for f in files], bool)
    lost = [f for f, kept in zip(files, there, strict=True) if not kept]
    if lost:
        found = f"{len(lost)} of {len(files)} images of {name} are not in {folder}"
        if missing == "error":
            raise InputError(
                f"{found}: {', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}. "
                'Complete the folder, or pass missing="skip" to go without them.'
            )
        logging.warning("%s; they are left out with their people.", found)
    return there


def _sizes(paths: Sequence[Path]) -> np.ndarray:
    """[m, 2] int32 (width, height), from the headers. Threads: a disk may be far."""
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(image_size, paths, chunksize=64))
    return np.array(sizes, np.int32).reshape(-1, 2)
