"""What a run's model predicts for its evaluation data, and how far off it is.

n people or images, k keypoints. Points, boxes and errors are in the image frame, in pixels.
All that a report needs of `pose_jax.evaluation` to predict and to measure is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
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
from pose_jax.runs import directory
from pose_jax.types import Boxes, Panel, Poses

OF_A_KIND = 8
"""So many of the best, of the median and of the worst are shown."""

INSPECTED = 2
"""So many of them inside the network."""


@dataclasses.dataclass(frozen=True)
class People:
    """Predictions for some people of the evaluation data.

    Attributes:
      table: the data.
      poses: n predictions.
      total: of how many people these are a part.
      decoder: that was used.
      error: [n, k] pixels; NaN where there is no label.
      length: that errors are divided by; None without labels.
      relative: [n] mean error over the root of the box's area; 0 without labels.
      keypoints: of `poses.per_keypoint`.
      oks: [n], or None where the set has no sigmas or the data no labels.
      order: [n] places, the best first; without labels as they came.
      panels: of the method, each with the titles and pictures of the people of `shown`.
      shown: their places.
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
        """Of the labelled keypoints of one person, in pixels."""
        error = self.error[place]
        return float(error[np.isfinite(error)].mean())


@dataclasses.dataclass(frozen=True)
class Images:
    """Boxes that a detector predicts for some images of the evaluation data.

    Attributes:
      table: the data.
      boxes: n predictions.
      total: of how many images these are a part.
      false_negatives: [n] people without a box, see `boxes.box_errors`.
      false_positives: [n] boxes without a person.
      order: [n] places, the fewest errors first; without labels as they came.
    """

    table: Table
    boxes: Boxes
    total: int
    false_negatives: np.ndarray
    false_positives: np.ndarray
    order: np.ndarray


def look(
    run: Path, manifest: Mapping[str, Any], count: int, data: str | None
) -> People | Images:
    """Predicts at most `count` people, or images, and measures each.

    Raises:
      InputError: the data are not there or do not fit.
    """
    if not manifest.get("data"):
        raise InputError(f"{run}: this model names no evaluation data.")
    loaded = directory.load(run)
    method = loaded.method()
    table = loaded.eval_table(data=data)
    rows = rows_lib.of(method.view).default(table, training=False)
    picked = rows[pictures.evenly(len(rows), count)]
    # One device takes batches of any size; the readers give the same pixels.
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
    """The fields of `Images` that compare with labels."""
    missed = false = np.zeros(len(boxes.row), int)
    if table.ground_truth is not None:
        missed, false = of_boxes.box_errors(table, boxes)
    order = np.argsort(missed + false, kind="stable")
    return {"false_negatives": missed, "false_positives": false, "order": order}


def measured_poses(table: Table, poses: Poses) -> dict[str, Any]:
    """The fields of `People` that compare with labels."""
    labelled = (table.visibility[poses.row] > 0) & table.labelled
    true_xy = np.where(labelled[..., None], table.points_xy[poses.row], 0)
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
                labelled,
                table.areas[poses.row].astype(np.float32),
                table.keypoints.sigmas,
            )
        )
    return {
        "error": np.where(labelled, error, np.nan),
        "length": lengths.length(table, poses.row) if table.labelled else None,
        "relative": relative,
        "keypoints": of_poses.per_keypoint(table, poses),
        "oks": oks,
        "order": np.argsort(relative, kind="stable"),
    }


def kinds(
    order: np.ndarray, ranked: bool = True, *, count: int = OF_A_KIND
) -> dict[str, np.ndarray]:
    """Up to `count` places of the best, the median and the worst, none of them twice if
    there are three; three times as many, evenly spaced, where the order is no ranking."""
    if not ranked:
        return {"Predictions": pictures.evenly(len(order), 3 * count)}
    count = min(count, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return {
        "Best": order[:count],
        "Median": order[middle : middle + count],
        "Worst": order[::-1][:count],
    }
