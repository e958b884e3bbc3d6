"""Predictions of a run's model on its evaluation data, and their errors.

n people or images, k keypoints. Points, boxes and errors are in image pixels. This module
contains all uses of `pose_jax.evaluation` for prediction and measurement in a report.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from pose_jax import evaluation
from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data import rows as rows_lib
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.evaluation import boxes as of_boxes
from pose_jax.evaluation import lengths, pictures
from pose_jax.evaluation import poses as of_poses
from pose_jax.evaluation.predictor import Predictor
from pose_jax.runs.model import LoadedRun
from pose_jax.types import Boxes, Panel, Poses

OF_A_KIND = 8
"""Number of best, median and worst examples to show."""

INSPECTED = 2
"""Number of them to show in the section "Inside the network"."""


@dataclasses.dataclass(frozen=True)
class People:
    """Predictions for some people of the evaluation data.

    Attributes:
      table: the data.
      poses: n predictions.
      total: number of people in the evaluation data.
      decoder: the decoder that was used.
      error: [n, k] pixels; NaN without label.
      length: reference length of the errors; None without labels.
      relative: [n] mean error over the square root of the box area; 0 without labels.
      keypoints: the result of `poses.per_keypoint`.
      oks: [n], or None if the set has no sigmas or the data no labels.
      order: [n] indices of the predictions, best first; unsorted without labels.
      panels: panels of the method, each with titles and pictures of the people in `shown`.
      shown: indices of the people in `panels`.
    """

    table: Table
    poses: Poses
    total: int
    decoder: str
    error: np.ndarray
    length: lengths.Length | None
    relative: np.ndarray
    keypoints: list[dict[str, Any]]
    oks: np.ndarray | None
    order: np.ndarray
    panels: list[tuple[Panel, pictures.Rows]]
    shown: list[int]

    def name(self, place: int) -> str:
        row = self.poses.row[place]
        image = self.table.image_ids[self.table.image[row]]
        return f"image {image}, annotation {self.table.ids[row]}"

    def mean_error(self, place: int) -> float:
        """Returns the mean error of the labeled keypoints of a person, in pixels."""
        error = self.error[place]
        return float(error[np.isfinite(error)].mean())


@dataclasses.dataclass(frozen=True)
class Images:
    """Boxes that a detector predicts for some images of the evaluation data.

    Attributes:
      table: the data.
      boxes: n predictions.
      total: number of images in the evaluation data.
      false_negatives: [n] people without a box, see `boxes.box_errors`.
      false_positives: [n] boxes without a person.
      order: [n] indices of the images, fewest errors first; unsorted without labels.
    """

    table: Table
    boxes: Boxes
    total: int
    false_negatives: np.ndarray
    false_positives: np.ndarray
    order: np.ndarray


def look(loaded: LoadedRun, count: int, data: str | None) -> People | Images:
    """Predicts and measures at most `count` people or images.

    Raises:
      InputError: the data are missing or do not match the model.
    """
    if not loaded.manifest.get("data"):
        raise InputError("the manifest of the model has no evaluation data.")
    method = loaded.method()
    table = loaded.eval_table(data=data)
    rows = rows_lib.of(method.view).default(table, training=False)
    if not len(rows):
        raise InputError(f"{table.name} has no people to predict.")
    picked = rows[pictures.evenly(len(rows), count)]
    # One device supports batches of any size; all readers return the same pixels.
    mesh = sharding_lib.make_mesh(jax.devices()[:1])
    config = dataclasses.replace(loaded.input, reader="numpy")
    poses = Predictor(method, mesh)(loaded.variables, table, config, picked)
    if evaluation.of(method) is of_boxes:
        return Images(table, poses, len(rows), **measured_boxes(table, poses))
    measured = measured_poses(table, poses)
    chosen = np.concatenate(list(kinds(measured["order"], count=INSPECTED).values()))
    shown = list(dict.fromkeys(chosen.tolist()))
    panels = []
    if method.panels:
        inspected = pictures.inspect(
            method, loaded.variables, table, config, np.asarray(poses.row[shown])
        )
        panels = list(pictures.drawn(method, inspected))
    return People(
        table, poses, len(rows), loaded.decoder, panels=panels, shown=shown, **measured
    )


def measured_boxes(table: Table, boxes: Boxes) -> dict[str, np.ndarray]:
    """Computes the fields of `Images` that depend on labels."""
    missed = false = np.zeros(len(boxes.row), int)
    if table.ground_truth is not None:
        missed, false = of_boxes.box_errors(table, boxes)
    order = np.argsort(missed + false, kind="stable")
    return {"false_negatives": missed, "false_positives": false, "order": order}


def measured_poses(table: Table, poses: Poses) -> dict[str, Any]:
    """Computes the fields of `People` that depend on labels."""
    labeled = (table.visibility[poses.row] > 0) & table.labelled
    true_xy = np.where(labeled[..., None], table.points_xy[poses.row], 0)
    error = np.linalg.norm(poses.points_xy - true_xy, axis=-1)
    relative = np.zeros(len(poses.row))
    if table.labelled:
        relative = of_poses.relative_errors(table, poses)
    oks = None
    if table.labelled and table.keypoints.sigmas is not None:
        oks = np.asarray(
            metrics_lib.oks(
                np.asarray(poses.points_xy, np.float32),
                true_xy.astype(np.float32),
                labeled,
                table.areas[poses.row].astype(np.float32),
                table.keypoints.sigmas,
            )
        )
    return {
        "error": np.where(labeled, error, np.nan),
        "length": lengths.length(table, poses.row) if table.labelled else None,
        "relative": relative,
        "keypoints": of_poses.per_keypoint(table, poses),
        "oks": oks,
        "order": np.argsort(relative, kind="stable"),
    }


def kinds(
    order: np.ndarray, ranked: bool = True, *, count: int = OF_A_KIND
) -> dict[str, np.ndarray]:
    """Selects up to `count` best, median and worst examples, without overlap if there are
    at least three; 3 * `count` evenly spaced examples if the order is not a ranking."""
    if not ranked:
        return {"Predictions": pictures.evenly(len(order), 3 * count)}
    count = min(count, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return {
        "Best": order[:count],
        "Median": order[middle : middle + count],
        "Worst": order[::-1][:count],
    }
