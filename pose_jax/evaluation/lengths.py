"""Reference lengths that normalize errors, for all metrics, tables and charts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pose_jax.data.table import Table

PCK_THRESHOLDS = (0.05, 0.1, 0.2)
PCKH_THRESHOLDS = (0.5, 0.1, 0.11)
BOX_THRESHOLDS = (0.05, 0.1)
_NOT_IN_PCKH = ("pelvis", "thorax")


class Length(NamedTuple):
    """A reference length per person.

    Attributes:
      metric: name of the metric, a key of `metrics`: fraction of keypoints within a
        threshold times the length.
      words: description of the length.
      pixels: [n] float32, image pixels; NaN, or at most 0, if a person has no length.
      thresholds: reported thresholds of the metric.
      counts: [k] bool, the keypoints that the metric includes.
    """

    metric: str
    words: str
    pixels: np.ndarray
    thresholds: tuple[float, ...]
    counts: np.ndarray

    def name(self, threshold: float) -> str:
        """Returns NAME@threshold[@length] of the metric."""
        name, at, of = self.metric.partition("@")
        return f"{name}@{threshold:g}{at}{of}"

    @property
    def usable(self) -> np.ndarray:
        """`pixels`, with NaN for all people without a length."""
        return np.where(self.pixels > 0, self.pixels, np.nan)


def metrics(table: Table) -> dict[str, tuple[float, ...]]:
    """Returns the metrics of a table that use a length, and their thresholds; the usual
    metric of the data set is first. PCK@box is that of data without another length."""
    has = {
        "PCKh": (table.head_sizes is not None, PCKH_THRESHOLDS),
        "PCK": (table.keypoints.torso is not None, PCK_THRESHOLDS),
    }
    found = {name: thresholds for name, (there, thresholds) in has.items() if there}
    return found or {"PCK@box": BOX_THRESHOLDS}


def length(table: Table, rows: np.ndarray, metric: str = "") -> Length:
    """Returns the length of a metric for some people.

    Args:
      table: a table with labels.
      rows: [n] rows of the table.
      metric: a key of `metrics(table)`; "": the first one.
    """
    metric = metric or next(iter(metrics(table)))
    names, counts = table.keypoints.names, np.ones(len(table.keypoints), bool)
    if metric == "PCKh":
        assert table.head_sizes is not None
        pixels, words = table.head_sizes[rows], "0.6 of the head box's diagonal"
        counts = np.array([name not in _NOT_IN_PCKH for name in names])
        thresholds = PCKH_THRESHOLDS
    elif metric == "PCK":
        assert table.keypoints.torso is not None
        i, j = table.keypoints.torso
        words = f"the torso, from {names[i]} to {names[j]}"
        ends = table.points_xy[rows][:, [i, j]].astype(np.float32)
        pixels = np.sqrt(np.sum((ends[:, 0] - ends[:, 1]) ** 2, -1))
        labeled = (table.visibility[rows][:, [i, j]] > 0).all(1)
        pixels, thresholds = np.where(labeled, pixels, np.nan), PCK_THRESHOLDS
    else:
        corners = table.boxes_xyxy[rows].reshape(-1, 2, 2)
        pixels = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1)
        words, thresholds = "the diagonal of the box", BOX_THRESHOLDS
    return Length(metric, words, pixels.astype(np.float32), thresholds, counts)
