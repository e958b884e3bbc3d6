"""People of images and arrays: what `pose_jax.load` returns."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from absl import logging

from pose_jax import sharding as sharding_lib
from pose_jax.data import table as table_lib
from pose_jax.data.pixels import EXIF, Exif
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation.predictor import Predictor, System
from pose_jax.keypoints import KeypointSet
from pose_jax.runs import digests
from pose_jax.runs import model as model_lib


@dataclasses.dataclass(frozen=True)
class Person:
    """A predicted person.

    Attributes:
      points_xy: [k, 2] image pixels, integer centers.
      keypoint_scores: [k].
      score: score of the pose.
      box_xyxy: the person box that the pose was predicted in.
      box_score: score of the box; 1 if it has none.
    """

    points_xy: np.ndarray
    keypoint_scores: np.ndarray
    score: float
    box_xyxy: np.ndarray
    box_score: float = 1.0


class People(list[Person]):
    """The people of one image.

    Attributes:
      dropped: number of detected boxes beyond the maximum number of detections (slots).
    """

    dropped: int = 0


class Estimator:
    """Predicts the people of images; returned by `load`. Traced once per
    batch size, a power of two up to that of the run.

    Attributes:
      keypoints: the keypoint set.
      category_id: id of people in the data that the network was trained on.
      predictor: predicts the poses in boxes.
      system: detects people and predicts their poses; None without a detector.
    """

    def __init__(
        self,
        loaded: model_lib.LoadedRun,
        detector: model_lib.LoadedRun | None = None,
        weighting: str | None = None,
        **options: Any,
    ) -> None:
        mesh = sharding_lib.make_mesh()
        method = loaded.method(weighting=weighting)
        self._loaded, self._detector = loaded, detector
        self.category_id = loaded.category_id
        self.predictor = Predictor(method, mesh)
        self.keypoints: KeypointSet = self.predictor.method.keypoints
        self.system = None
        if detector is not None:
            if self.keypoints.sigmas is None and "oks_nms" not in options:
                options["oks_nms"] = None
                logging.warning(
                    "keypoint set %s has no sigmas: people are told apart by their boxes "
                    "only, without OKS-NMS.", self.keypoints.name,
                )  # fmt: skip
            self.system = System(
                detector.method(), detector.variables, method, loaded.variables,
                mesh=mesh, config=detector.input, **options,
            )  # fmt: skip

    @functools.cached_property
    def digest(self) -> str:
        """Digest of all weights, of the detector too."""
        runs = [self._loaded] + ([self._detector] if self._detector else [])
        leaves = jax.tree.leaves([run.variables for run in runs])
        each = "".join(map(digests.of_array, leaves))
        return hashlib.sha256(each.encode()).hexdigest()[:16]

    def __call__(
        self,
        images: Sequence[Path | str | np.ndarray],
        boxes: Sequence[np.ndarray] | None = None,
        scores: Sequence[np.ndarray] | None = None,
        *,
        channels: Literal["rgb", "bgr"] = "rgb",
        exif: Exif = "auto",
        passes: int = 1,
    ) -> list[People]:
        """Predicts poses.

        Args:
          images: paths, or uint8 arrays [h, w, 3]. The channels of arrays are red, green,
            blue, as Pillow, imageio and matplotlib give them; those of OpenCV
            (`cv2.imread`, `VideoCapture`) are blue, green, red: pass channels="bgr".
          boxes: for each image [n, 4] (x, y, x + w, y + h). None: boxes of the detector;
            without a detector, each image is one person.
          scores: scores of the boxes, [n] for each image; None: 1.
          channels: order of the channels of arrays; files are always read correctly.
          exif: which pixels boxes and points refer to, for files with an EXIF orientation:
            "apply": to the image as a viewer shows it; "ignore": to the pixels as stored;
            "auto": as shown without boxes, as stored with boxes (with a warning).
          passes: 2: without boxes and detector, the person of each image is predicted a
            second time, in the box of the keypoints of the first pass, see `second_box`.

        Returns:
          A list of people per image; with a detector, sorted by decreasing score, and
          `dropped` is the number of detections beyond the maximum.

        Raises:
          InputError: an image cannot be read, or images, boxes and scores do not match.
          ConfigError: an invalid option.
        """
        for name, value, known in (
            ("channels", channels, ("rgb", "bgr")),
            ("exif", exif, EXIF),
        ):
            if value not in known:
                raise ConfigError(
                    f"{name} is one of {', '.join(known)}; got {value!r}."
                )
        check_passes(passes, boxes is not None or self.system is not None)
        if not len(images):
            return []
        if channels == "bgr":
            images = [_reversed(image) for image in images]
        if exif == "auto" and boxes is None:
            exif = "apply"
        table = table_lib.from_boxes(
            images, boxes, scores, keypoints=self.keypoints, exif=exif
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
                    box_score=float(table.box_scores[row]),
                )
            )
        if passes == 1:
            return people
        again = [second_box(person)[None] for (person,) in people]
        return self(images, again, exif=exif)

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
                        box_score=float(people.box_scores[i, slot]),
                    )
                    for slot in np.flatnonzero(people.valid[i])
                )
            )
            found[-1].dropped = int(people.overflow[i])
        return found


def check_passes(passes: int, boxed: bool) -> None:
    """Raises ConfigError for an invalid number of passes; `boxed`: people have boxes."""
    if passes not in (1, 2):
        raise ConfigError(f"passes must be 1 or 2; got {passes}.")
    if passes == 2 and boxed:
        raise ConfigError(
            "2 passes are for images without boxes and without a detector; omit --passes."
        )


def second_box(person: Person) -> np.ndarray:
    """Returns the box of the second pass: that of the keypoints which the first has found.

    These are the keypoints with a score of at least 0.2; if there are fewer than three, it
    is the box of the first pass. The method pads the box.
    """
    found = person.points_xy[person.keypoint_scores >= _FOUND]
    if len(found) < _ENOUGH or not np.isfinite(found).all():
        return person.box_xyxy
    low = found.min(0)
    return np.concatenate([low, np.maximum(found.max(0), low + 1)])


_FOUND, _ENOUGH = 0.2, 3


def _reversed(image: Path | str | np.ndarray) -> Path | str | np.ndarray:
    """Returns an array with its channels in reverse order; a path as it is."""
    return image[..., ::-1] if isinstance(image, np.ndarray) else image


def load(
    run: Path | str,
    detector: Path | str | None = None,
    *,
    weighting: str | None = None,
    checkpoint: str | None = None,
    **options: Any,
) -> Estimator:
    """Loads RUN/model for use from Python.

    Args:
      run: the run directory of a pose method.
      detector: the run directory of a detector; None: boxes are given, or one person each.
      weighting: of a run of method "cells", "regression" or "none"; None: that of the run.
      checkpoint: a checkpoint of the pose run instead of RUN/model: "best", "last", a step,
        or "PHASE/STEP"; the run need not be finished.
      **options: for `methods.system.find_people`: slots, box_nms, oks_nms, rescoring.

    Returns:
      An `Estimator`: people(images, boxes=None) returns one list of Person per image.
      Images are paths, or uint8 arrays [h, w, 3] in RGB; pass channels="bgr" for OpenCV's.

    Raises:
      InputError: a run has no finished model, `run` is a detector, or `detector` is not.
      ConfigError: an invalid option.
    """
    loaded = model_lib.load(run, checkpoint)
    if loaded.keypoints is None:
        raise InputError(
            f"{run} is a detector and predicts no poses: pass it as the detector of a pose "
            "run (pose-jax predict --detector)."
        )
    if detector is None:
        if options:
            raise ConfigError(f"{', '.join(sorted(options))}: requires a detector.")
        return Estimator(loaded, weighting=weighting)
    loaded_detector = model_lib.load(detector)
    if loaded_detector.keypoints is not None:
        method = loaded_detector.manifest["method"]["name"]
        raise InputError(
            f"{detector} is a run of method {method!r}: give a run of method 'detector'."
        )
    return Estimator(loaded, loaded_detector, weighting, **options)
