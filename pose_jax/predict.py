"""Prediction for images: `pose-jax predict`, and `pose_jax.load` for use from Python.

Uses the same Predictor, canvas and decoding as evaluation. EXIF rotation is applied, so
that points refer to the image as displayed by a viewer.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pose_jax import sharding as sharding_lib
from pose_jax import writing
from pose_jax.data import table as table_lib
from pose_jax.drawing import people as drawing
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation.predictor import Predictor, System
from pose_jax.keypoints import KeypointSet
from pose_jax.runs import model as model_lib

_EXIF_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class Person:
    """A predicted person.

    Attributes:
      points_xy: [k, 2] image pixels, integer centers.
      keypoint_scores: [k].
      score: score of the pose.
      box_xyxy: the person box that the pose was predicted in.
    """

    points_xy: np.ndarray
    keypoint_scores: np.ndarray
    score: float
    box_xyxy: np.ndarray


class People(list[Person]):
    """The people of one image.

    Attributes:
      dropped: number of detected boxes beyond the maximum number of detections (slots).
    """

    dropped: int = 0


def read_image(path: Path) -> tuple[np.ndarray, int]:
    """Reads an image and applies its EXIF rotation.

    Returns:
      uint8 RGB [h, w, 3], the first frame of an animated image, and the number of frames.

    Raises:
      InputError: the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            return pixels, getattr(image, "n_frames", 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (
        OSError, ValueError, SyntaxError, UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise InputError(f"{path} is not a readable image ({error}).") from None


def _source(image: Path | str | np.ndarray) -> table_lib.ImageRef:
    """Returns the file if it needs no EXIF rotation, otherwise its pixels."""
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
            rotated = opened.getexif().get(_EXIF_ORIENTATION, 1) != 1
    except (OSError, UnidentifiedImageError):
        rotated = True  # read_image reports the problem.
    return read_image(path)[0] if rotated else path


class Estimator:
    """Predicts the people of images; returned by `load`. Traced once for all calls.

    Attributes:
      keypoints: the keypoint set.
      predictor: predicts the poses in boxes.
      system: detects people and predicts their poses; None without a detector.
    """

    def __init__(
        self,
        loaded: model_lib.LoadedRun,
        detector: model_lib.LoadedRun | None = None,
        **options: Any,
    ) -> None:
        mesh = sharding_lib.make_mesh()
        self._loaded = loaded
        self.predictor = Predictor(loaded.method(), mesh)
        self.keypoints: KeypointSet = self.predictor.method.keypoints
        self.system = None
        if detector is not None:
            self.system = System(
                detector.method(), detector.variables, loaded.method(),
                loaded.variables, mesh=mesh, config=detector.input, **options,
            )  # fmt: skip

    def __call__(
        self,
        images: Sequence[Path | str | np.ndarray],
        boxes: Sequence[np.ndarray] | None = None,
        scores: Sequence[np.ndarray] | None = None,
    ) -> list[People]:
        """Predicts poses.

        Args:
          images: paths, or uint8 arrays [h, w, 3].
          boxes: for each image [n, 4] (x, y, x + w, y + h). None: boxes of the detector;
            without a detector, each image is one person.
          scores: scores of the boxes, [n] for each image; None: 1.

        Returns:
          A list of people per image; with a detector, sorted by decreasing score, and
          `dropped` is the number of detections beyond the maximum.
        """
        if not len(images):
            return []
        table = table_lib.from_boxes(
            [_source(image) for image in images],
            boxes,
            scores,
            keypoints=self.keypoints,
        )
        if self.system is not None and boxes is None:
            return self._people_of(self.system, table)
        people = [People() for _ in images]
        rows = np.arange(len(table), dtype=np.int32)
        if len(rows) == 0:
            return people
        poses = self.predictor(self._loaded.variables, table, self._loaded.input, rows)
        for i, row in enumerate(poses.row):
            people[table.image[row]].append(
                Person(
                    points_xy=poses.points_xy[i],
                    keypoint_scores=poses.keypoint_scores[i],
                    score=float(poses.score[i]),
                    box_xyxy=table.boxes_xyxy[row],
                )
            )
        return people

    def _people_of(self, system: System, table: table_lib.Table) -> list[People]:
        people, found = system(table), []
        for i in range(len(table.images)):
            found.append(
                People(
                    Person(
                        points_xy=people.points_xy[i, slot],
                        keypoint_scores=people.keypoint_scores[i, slot],
                        score=float(people.score[i, slot]),
                        box_xyxy=people.boxes_xyxy[i, slot],
                    )
                    for slot in np.flatnonzero(people.valid[i])
                )
            )
            found[-1].dropped = int(people.overflow[i])
        return found


def load(
    run: Path | str, detector: Path | str | None = None, **options: Any
) -> Estimator:
    """Loads RUN/model for use from Python.

    Args:
      run: the run directory of a pose method.
      detector: the run directory of a detector; None: boxes are given, or one person each.
      **options: for `methods.system.find_people`: slots, box_nms, oks_nms, rescoring.

    Returns:
      An `Estimator`: people(images, boxes=None) returns one list of Person per image.

    Raises:
      InputError: a run has no finished model, `run` is a detector, or `detector` is not.
      ConfigError: an invalid option.
    """
    loaded = model_lib.load(run)
    if loaded.keypoints is None:
        raise InputError(
            f"{run} is a detector and predicts no poses: pass it as the detector of a pose "
            "run (pose-jax predict --detector)."
        )
    if detector is None:
        if options:
            raise ConfigError(f"{', '.join(sorted(options))}: requires a detector.")
        return Estimator(loaded)
    loaded_detector = model_lib.load(detector)
    if loaded_detector.keypoints is not None:
        method = loaded_detector.manifest["method"]["name"]
        raise InputError(
            f"{detector} is a run of method {method!r}: give a run of method 'detector'."
        )
    return Estimator(loaded, loaded_detector, **options)


def read_boxes(
    path: Path, images: Sequence[Path]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reads the boxes of images from a COCO-style JSON file: results or annotations.

    Each entry (of the list, or of "annotations"; crowd regions are ignored) has `bbox`
    [x, y, w, h], optionally `score` and `category_id` (1 = person), and refers to its image
    by `file_name`, or by an `image_id` equal to the number in the file name
    ("000000000785.jpg" is 785).

    Returns:
      Boxes [n, 4] (x, y, x + w, y + h) and scores [n], as two lists over images.

    Raises:
      InputError: the file is unreadable, an entry is invalid, or no image has a box.
    """
    try:
        entries = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable JSON file ({error}).") from None
    if isinstance(entries, dict) and "annotations" in entries:
        entries = [e for e in entries["annotations"] if not e.get("iscrowd")]
    if not isinstance(entries, list):
        raise InputError(
            f"{path} must be a COCO detections file (a list of boxes) or a COCO annotation "
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
                f"{path}: entry {number} must have 'bbox' [x, y, w, h] and 'image_id' or "
                f"'file_name'; got {str(entry)[:80]}."
            ) from None
    boxes, scores = [], []
    for image in images:
        entries_of_image = list(by_key.get(image.name, []))
        if image.stem.isdigit():
            entries_of_image += by_key.get(int(image.stem), [])
        rows = np.array(entries_of_image, np.float64).reshape(-1, 5)
        boxes.append(rows[:, :4])
        scores.append(rows[:, 4])
    if not any(len(b) for b in boxes):
        raise InputError(
            f"{path}: none of its {len(entries)} boxes refers to the given images (first "
            f"image: {images[0].name}). Entries refer to images by 'file_name', or by "
            "'image_id', the number in the file name."
        )
    return boxes, scores


_AT_ONCE = 16
"""Number of images whose pixels are kept in memory at a time, for drawing."""


def predict_run(
    run: Path | str,
    images: Sequence[Path],
    *,
    boxes: Path | None,
    out: Path,
    detector: Path | None = None,
    **options: Any,
) -> int:
    """Writes predictions.json (COCO result format) and an overlay per image to `out`.

    Unreadable images are reported on stderr and skipped.

    Args:
      run: a run directory.
      images: image files.
      boxes: JSON file of person boxes, see `read_boxes`.
      out: output folder.
      detector: the run directory of a detector, instead of `boxes`.
      **options: for `methods.system.find_people`.

    Returns:
      An exit code: 0, or 1 if an image could not be read.
    """
    if boxes is not None and detector is not None:
        raise ConfigError("give either --boxes or --detector, not both.")
    writing.check(out)
    people = load(run, detector, **options)
    # Pillow warns about large images, and rejects those twice as large.
    large = {"action": "ignore", "category": Image.DecompressionBombWarning}
    with warnings.catch_warnings(**large):
        return _predict_files(
            people, [Path(image) for image in images], boxes, Path(out)
        )


def _predict_files(
    people: Estimator, images: Sequence[Path], boxes: Path | None, out: Path
) -> int:
    detected = people.system is not None
    if boxes is None and not detected:
        print("no --boxes and no --detector: each image is treated as one person")
    given = None
    if boxes is not None:
        given = dict(
            zip(images, zip(*read_boxes(boxes, images), strict=True), strict=True)
        )
    results, done, failed = [], 0, 0
    for start in range(0, len(images), _AT_ONCE):
        readable, pixels = [], []
        for path in images[start : start + _AT_ONCE]:
            try:
                image, frames = read_image(path)
            except InputError as error:
                print(f"pose-jax: error: {error}", file=sys.stderr)
                failed += 1
                continue
            pixels.append(image)
            readable.append(path)
            if frames > 1:
                _note(
                    f"{path}: animated image ({frames} frames): using the first frame."
                )
        if not readable:
            continue
        if given is not None:
            found = people(pixels, *zip(*map(given.get, readable), strict=True))
        else:
            found = people(pixels)
        out.mkdir(parents=True, exist_ok=True)
        for path, image, persons in zip(readable, pixels, found, strict=True):
            if persons.dropped:
                _note(
                    f"{path}: {persons.dropped} detections were dropped; increase --slots."
                )
            boxed = given is not None or detected
            drawn = _drawn(image, persons, people.keypoints, boxed, detected)
            sheet_lib.save_png(out / f"{path.stem}.png", drawn)
            results += [_result(path, person) for person in persons]
        done += len(readable)
    if not done:
        return 1
    (out / "predictions.json").write_text(json.dumps(results))
    print(f"{len(results)} people in {done} images: {out}")
    return 1 if failed else 0


def _note(text: str) -> None:
    print(f"pose-jax: note: {text}", file=sys.stderr)


def _drawn(
    image: np.ndarray,
    persons: Sequence[Person],
    keypoint_set: KeypointSet,
    boxed: bool,
    scored: bool,
) -> np.ndarray:
    k = len(keypoint_set)
    return drawing.draw_people(
        image,
        np.array([p.points_xy for p in persons]).reshape(-1, k, 2),
        keypoint_set,
        scores=np.array([p.keypoint_scores for p in persons]).reshape(-1, k),
        boxes_xyxy=np.array([p.box_xyxy for p in persons]).reshape(-1, 4)
        if boxed
        else None,
        titles=[f"{p.score:.2f}" for p in persons] if scored else None,
    )


def _result(path: Path, person: Person) -> dict[str, Any]:
    """Returns a person in COCO result format."""
    xys = np.concatenate([person.points_xy, person.keypoint_scores[:, None]], axis=1)
    x0, y0, x1, y1 = person.box_xyxy
    return {
        "file_name": path.name,
        "image_id": int(path.stem) if path.stem.isdigit() else path.stem,
        "category_id": 1,
        "keypoints": [round(float(v), 3) for v in xys.reshape(-1)],
        "score": person.score,
        "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
    }
