"""Images in, people out: `pose-jax predict`, and `pose_jax.load` for other programs.

The same Predictor, canvas and decoding as evaluation. EXIF rotation is applied, so that
points lie on the picture as a viewer shows it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pose_jax import evaluate, runs, visualize
from pose_jax import sharding as sharding_lib
from pose_jax.datasets import table as table_lib
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet

_EXIF_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class Person:
    """One person found.

    Attributes:
      points_xy: [k, 2] image pixels, integer centres.
      keypoint_scores: [k].
      score: of the pose.
      box_xyxy: the box it was found in.
    """

    points_xy: np.ndarray
    keypoint_scores: np.ndarray
    score: float
    box_xyxy: np.ndarray


def read_image(path: Path) -> np.ndarray:
    """Reads an image as a viewer shows it: EXIF rotation applied, uint8 RGB [h, w, 3].

    Raises:
      InputError: missing, or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error}).") from None


def _source(image: Path | str | np.ndarray) -> table_lib.ImageRef:
    """A file where its pixels are upright already, pixels otherwise."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                "images must be paths or uint8 arrays [h, w, 3]; got "
                f"{image.dtype} {image.shape}."
            )
        return image
    path = Path(image)
    try:
        with Image.open(path) as opened:
            turned = opened.getexif().get(_EXIF_ORIENTATION, 1) != 1
    except (OSError, UnidentifiedImageError):
        turned = True  # read_image says what is wrong.
    return read_image(path) if turned else path


def load(run: Path | str) -> Callable[..., list[list[Person]]]:
    """Loads RUN/model for use from Python.

    Args:
      run: a run directory.

    Returns:
      `people(images, boxes=None)`: images are paths or uint8 arrays [h, w, 3]; boxes, if
      given, one array [n, 4] (x, y, x + w, y + h) per image; without, each image is taken
      as one person. It returns one list of Person per image.
    """
    loaded = runs.load(run)
    predictor = evaluate.Predictor(loaded.method(), sharding_lib.make_mesh())

    def people(
        images: Sequence[Path | str | np.ndarray],
        boxes: Sequence[np.ndarray] | None = None,
        scores: Sequence[np.ndarray] | None = None,
    ) -> list[list[Person]]:
        if not len(images):
            return []
        table = table_lib.from_boxes(
            [_source(image) for image in images],
            boxes,
            scores,
            keypoints=loaded.keypoints,
        )
        found: list[list[Person]] = [[] for _ in images]
        rows = np.arange(len(table), dtype=np.int32)
        if len(rows) == 0:
            return found
        poses = predictor(loaded.variables, table, loaded.input, rows)
        for i, row in enumerate(poses.row):
            found[table.image[row]].append(
                Person(
                    points_xy=poses.points_xy[i],
                    keypoint_scores=poses.keypoint_scores[i],
                    score=float(poses.score[i]),
                    box_xyxy=table.boxes_xyxy[row],
                )
            )
        return found

    people.keypoints = loaded.keypoints
    people.predictor = predictor
    return people


def read_boxes(
    path: Path, images: Sequence[Path]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reads boxes of some images from a COCO-style json: results, or annotations.

    Each entry (of the list, or of "annotations"; crowd regions are left out) has `bbox`
    [x, y, w, h], optionally `score` and `category_id` (1 = person), and says its image by
    `file_name`, or by `image_id` equal to the number in the file's name
    ("000000000785.jpg" is 785).

    Returns:
      Boxes [n, 4] (x, y, x + w, y + h) and scores [n], a pair of lists over images.

    Raises:
      InputError: unreadable, a broken entry, or no box for any image.
    """
    try:
        entries = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as json ({error}).") from None
    if isinstance(entries, dict) and "annotations" in entries:
        entries = [e for e in entries["annotations"] if not e.get("iscrowd")]
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: must be a list of boxes, as COCO detections are, or an annotation "
            "file."
        )
    by_key: dict[Any, list] = {}
    for number, entry in enumerate(entries):
        try:
            x, y, w, h = (float(v) for v in entry["bbox"])
            key = entry["file_name"] if "file_name" in entry else int(entry["image_id"])
            score = float(entry.get("score", 1.0))
            if int(entry.get("category_id", 1)) == 1:
                by_key.setdefault(key, []).append((x, y, x + w, y + h, score))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{path}: entry {number} needs 'bbox' [x, y, w, h] and 'image_id' or "
                f"'file_name'; got {str(entry)[:80]}."
            ) from None
    boxes, scores = [], []
    for image in images:
        mine = list(by_key.get(image.name, []))
        if image.stem.isdigit():
            mine += by_key.get(int(image.stem), [])
        rows = np.array(mine, np.float64).reshape(-1, 5)
        boxes.append(rows[:, :4])
        scores.append(rows[:, 4])
    if not any(len(b) for b in boxes):
        raise InputError(
            f"{path}: none of its {len(entries)} boxes belongs to the images given "
            f"(first image: {images[0].name}). Entries name images by 'file_name' or by "
            "'image_id', the number in the file's name."
        )
    return boxes, scores


def predict_run(
    run: Path | str, images: Sequence[Path], *, boxes: Path | None, out: Path
) -> int:
    """Writes predictions.json (COCO's result form) and an overlay per image to `out`.

    Images that cannot be read are named on stderr, the others are still done.

    Returns:
      An exit code: 0, or 1 if an image could not be read.
    """
    people = load(run)
    keypoints: KeypointSet = people.keypoints
    readable, pixels, failed = [], [], 0
    for path in map(Path, images):
        try:
            pixels.append(read_image(path))
            readable.append(path)
        except InputError as error:
            print(f"pose-jax: error: {error}", file=sys.stderr)
            failed += 1
    if not readable:
        return 1
    box_lists = score_lists = None
    if boxes is None:
        print("no --boxes: each image is taken as one person")
    else:
        box_lists, score_lists = read_boxes(boxes, readable)
    found = people(readable, box_lists, score_lists)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for path, image, persons in zip(readable, pixels, found, strict=True):
        points = np.array([p.points_xy for p in persons]).reshape(-1, len(keypoints), 2)
        scores = np.array([p.keypoint_scores for p in persons])
        drawn = visualize.draw_people(
            image,
            points,
            keypoints,
            scores=scores.reshape(-1, len(keypoints)),
            boxes_xyxy=None
            if boxes is None
            else np.array([p.box_xyxy for p in persons]),
        )
        visualize.save_png(out / f"{path.stem}.png", drawn)
        for person in persons:
            xys = np.concatenate(
                [person.points_xy, person.keypoint_scores[:, None]], axis=1
            )
            x0, y0, x1, y1 = person.box_xyxy
            results.append(
                {
                    "file_name": path.name,
                    "image_id": int(path.stem) if path.stem.isdigit() else path.stem,
                    "category_id": 1,
                    "keypoints": [round(float(v), 3) for v in xys.reshape(-1)],
                    "score": person.score,
                    "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
                }
            )
    (out / "predictions.json").write_text(json.dumps(results))
    print(f"{len(results)} people in {len(readable)} images: {out}")
    return 1 if failed else 0
