"""Shared by the readers of the older data sets: .mat files, and Tables of their people.

MATLAB has no missing values and no scalars: everything is a matrix, and unset values are
empty ones. `structs`, `field`, `number` and `text` handle that. The rest builds a Table of
people whose annotations have no image sizes and boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax.data import _files
from pose_jax.data.table import Table, image_size
from pose_jax.errors import InputError, one_line
from pose_jax.keypoints import KeypointSet

MIN_SIDE = 8.0
"""Minimum side of a box of joints, pixels; no box of the released sets is smaller."""


def variable(path: Path, name: str) -> np.ndarray:
    """Reads a variable of a .mat file: a matrix, or a structured array of structs.

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
    except Exception as error:  # scipy raises many types for damaged files.
        raise InputError(
            f"{path} cannot be read as a MATLAB file ({one_line(error)}). Fetch it again."
        ) from None
    raise InputError(
        f"{path} holds no variable {name!r} (it has: {', '.join(held) or 'none'}); "
        f"{remedy}."
    )


def records(path: Path, name: str) -> list[np.void]:
    """Reads the elements of a variable that is a struct array.

    Raises:
      InputError: as of `variable`, or it is empty or no struct at all.
    """
    found = structs(variable(path, name))
    if not found:
        raise InputError(f"{path}: `{name}` is no struct array. Fetch the file again.")
    return found


def structs(value: Any) -> list[np.void]:
    """Returns the elements of a struct array; none, if it is empty or not a struct."""
    if not isinstance(value, np.ndarray) or value.dtype.names is None:
        return []
    return list(value.ravel(order="F"))


def field(struct: np.void, name: str) -> Any:
    """Returns a field as a matrix, or None if the struct array does not have it."""
    return struct[name] if name in (struct.dtype.names or ()) else None


def number(struct: np.void, name: str) -> float | None:
    """Returns a number, logical or text as float; None if empty or not finite."""
    value = field(struct, name)
    while isinstance(value, np.ndarray):  # Twice, if it is in a cell.
        if value.size == 0:
            return None
        value = value.reshape(-1)[0]
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def numbers(struct: np.void, *names: str) -> list[float] | None:
    """Returns several fields by `number`; None if one of them is None."""
    found = [v for name in names if (v := number(struct, name)) is not None]
    return found if len(found) == len(names) else None


def matrix(value: Any) -> np.ndarray:
    """A matrix of real numbers as float64; an empty one if it is absent or none of them."""
    value = np.asarray([] if value is None else value)
    return value.astype(np.float64) if value.dtype.kind in "biuf" else np.zeros((0, 0))


def text(value: Any, where: str) -> str:
    """Returns a row of characters, possibly in a cell, as text.

    Raises:
      InputError: it is empty or no text.
    """
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if not isinstance(value, str) or not value:
        raise _files.broken(f"{where} is missing")
    return str(value)


def joint_boxes(points_xy: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Returns the extent of each person's labeled joints.

    A side shorter than MIN_SIDE is widened about its center, so that people in profile
    or with few labels remain usable. With fewer than two labeled joints the box is
    (0, 0, 0, 0), which `Table.labelled_rows` leaves out.

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
    notes: tuple[str, ...] = (),
) -> Table:
    """Builds a Table of the people whose images exist; the others are reported.

    Args:
      folder: folder of the images.
      files: [n] names in `folder`: the image of each person. An image's id is that of
        its first person.
      missing: "error" or "skip", for missing images.
      boxes_xyxy: [n, 4]; None: from the joints or the whole image, as `box_source` says.
      image_sizes: [n, 2] (width, height) of each person's image; None: from the headers.

    The other arguments are columns of the Table, for all people.

    Raises:
      InputError: images are missing or invalid.
    """
    number: dict[str, int] = {}  # In order of first appearance.
    image = np.array([number.setdefault(f, len(number)) for f in files], np.int64)
    first = np.unique(image, return_index=True)[1]  # The first person of each file.
    there = _files.present(name, folder, list(number), missing)
    paths = tuple(folder / f for f, kept in zip(number, there, strict=True) if kept)
    first, rows = first[there], there[image]
    image = (np.cumsum(there) - 1)[image[rows]]
    if image_sizes is None:
        with ThreadPoolExecutor(8) as pool:  # Threads: a disk may be far.
            image_sizes = np.array(list(pool.map(image_size, paths, chunksize=64)))
    else:
        image_sizes = image_sizes[first]
    image_sizes = image_sizes.astype(np.int32).reshape(-1, 2)
    points_xy, visibility = points_xy[rows], visibility[rows]
    if boxes_xyxy is not None:
        boxes_xyxy = boxes_xyxy[rows]
    elif box_source == "image":
        boxes_xyxy = np.concatenate([np.zeros((len(image), 2)), image_sizes[image]], -1)
    else:
        boxes_xyxy = joint_boxes(points_xy, visibility)
    return Table(
        name=name,
        keypoints=keypoints,
        images=paths,
        image_ids=ids[first],
        image_sizes=image_sizes,
        image=image.astype(np.int32),
        ids=ids[rows],
        boxes_xyxy=boxes_xyxy,
        box_scores=np.ones(len(image)),
        points_xy=np.where((visibility > 0)[..., None], points_xy, 0.0),
        visibility=visibility.astype(np.int32),
        areas=(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(-1),
        crowd=np.zeros(len(image), bool),
        box_source=box_source,
        labelled=labelled,
        centric=centric,
        notes=notes,
        head_sizes=None if head_sizes is None else head_sizes[rows],
    )
