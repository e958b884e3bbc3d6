"""Frames of a video to label next: those of low score, spread in time.

OUT/suggestions/                  is read by `pose-jax data convert --to`
  predictions.json                the poses in COCO's result format
  predictions_info.json           keypoint set, category, the images with ids and sizes
  suggestions/NAME_000123.png     the frames
  annotations/person_keypoints_suggestions.json   the poses as a COCO data set
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing
from pose_jax.drawing import sheet
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.predict.frames import Frames, Result, read_info
from pose_jax.predict.results import INFO, RESULTS
from pose_jax.runs import directory

FOLDER = "suggestions"


def choose(scores: Sequence[float] | np.ndarray, count: int) -> np.ndarray:
    """Returns the frames of lowest score that are not close to each other.

    Frames are taken by increasing score, ties by time, unless one within less than
    d frames of it is taken already. d is the largest distance at which `count` frames can
    always be found: (n / count + 1) / 2, rounded down.

    Args:
      scores: [t], of each frame; NaN: not to be suggested. n are not NaN.
      count: number of frames.

    Returns:
      [min(count, n)] int, in order of time.
    """
    scores = np.asarray(scores, float)
    usable = np.flatnonzero(~np.isnan(scores))
    apart = max(1, (len(usable) // max(count, 1) + 1) // 2)
    taken: list[int] = []
    for frame in usable[np.argsort(scores[usable], kind="stable")]:
        if len(taken) == count:
            break
        if all(abs(frame - other) >= apart for other in taken):
            taken.append(int(frame))
    return np.array(sorted(taken), int)


def check(out: Path, count: int) -> None:
    """Refuses to replace other suggestions, which may have been corrected.

    Raises:
      InputError: the folder exists, and is not of this number of suggestions.
    """
    folder = out / FOLDER
    if os.path.lexists(folder) and read_info(folder).get("asked") != count:
        raise InputError(
            f"{folder} exists, with other suggestions or files: move or delete it, or "
            "choose another --out."
        )


def write(frames: Frames, count: int) -> int:
    """Writes OUT/suggestions, complete or not at all, and returns the number of frames.

    The score of a frame is the lowest of its people; frames without people are left out.

    Raises:
      InputError: it cannot be written.
    """
    folder = frames.out / FOLDER
    if folder.exists():
        return len(read_info(folder)["images"])
    lowest = [min((p["score"] for p in people), default=np.nan) for people in frames]
    chosen = set(choose(lowest, count).tolist())
    new = frames.out / f".{FOLDER}.new"
    shutil.rmtree(new, ignore_errors=True)
    images, results = [], []
    try:
        with contextlib.closing(frames.video.read()) as pixels:
            both = zip(frames, pixels, strict=False)
            for number, (people, image) in enumerate(both if chosen else ()):
                if number not in chosen:
                    continue
                name = f"{frames.video.path.stem}_{number:06d}.png"
                sheet.save_png(new / FOLDER / name, image)
                path = os.path.abspath(folder / FOLDER / name)
                images.append(_image(number, name, path, image))
                results += [{**person, "file_name": name} for person in people]
                if len(images) == len(chosen):
                    break
        _describe(new, frames, images, results, count)
        new.rename(folder)
    except OSError as error:
        raise writing.failure(folder, error) from None
    return len(images)


def _image(number: int, name: str, path: str, image: np.ndarray) -> dict[str, Any]:
    height, width = image.shape[:2]
    return {
        "id": number, "file_name": name, "path": path, "width": width, "height": height,
    }  # fmt: skip


def _describe(
    folder: Path,
    frames: Frames,
    images: Sequence[dict[str, Any]],
    results: Sequence[Result],
    count: int,
) -> None:
    """Writes the poses in COCO's result format, and as a data set."""
    writing.write(folder / RESULTS, json.dumps(results))
    own = read_info(frames.out)
    info = {name: own[name] for name in ("keypoints", "category", "skipped")}
    directory.write_json(
        folder / INFO, {**info, "images": images, "video": own["video"], "asked": count}
    )
    data = data_set(images, results, frames.keypoints, info["category"])
    path = folder / "annotations" / f"person_keypoints_{FOLDER}.json"
    writing.write(path, json.dumps(data))


def data_set(
    images: Sequence[dict[str, Any]],
    results: Sequence[Result],
    keypoint_set: KeypointSet,
    category: dict[str, Any],
) -> dict[str, Any]:
    """Returns poses as a COCO data set that labeling tools import.

    Tools want 0, 1 or 2 where results have the score of a keypoint: it is 2 within the
    image, and 0 outside of it.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    annotations = []
    for number, person in enumerate(results, 1):
        xy = np.reshape(person["keypoints"], (-1, 3))[:, :2]
        limit = np.array(sizes[person["image_id"]]) - 1
        inside = np.all((xy >= 0) & (xy <= limit), axis=-1)
        points = np.where(inside[:, None], np.c_[xy, 2 * inside], 0)
        _, _, w, h = person["bbox"]
        annotations.append(
            {
                "id": number,
                "image_id": person["image_id"],
                "category_id": max(1, category["id"]),  # Tools ignore category 0.
                "bbox": person["bbox"],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [],
                "keypoints": points.ravel().tolist(),
                "num_keypoints": int(inside.sum()),
                "score": person["score"],
            }
        )
    named = ("id", "file_name", "width", "height")
    return {
        "images": [{name: image[name] for name in named} for image in images],
        "annotations": annotations,
        "categories": [
            {
                **category,
                "id": max(1, category["id"]),
                "skeleton": [[i + 1, j + 1] for i, j in keypoint_set.skeleton],
            }
        ],
    }
