"""Metrics and pictures of a detector's boxes; the same functions as in `poses`.

The boxes are the detector's own, so that metric names have no box source: `box_AP`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import metrics as metrics_lib
from pose_jax.data import canvas
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.metrics.coco import why_no_box_ap
from pose_jax.types import Boxes

FORMULAS = {
    "box_AP": "mean precision of boxes over IoU thresholds 0.50:0.05:0.95 and 101 recalls, "
    "at most 100 boxes per image, over all images, including those without people (COCO); "
    "the boxes are the detector's own, so the name has no box source",
    "box_AP50": "box_AP at IoU 0.50",
    "box_AP75": "box_AP at IoU 0.75",
    "box_APs": "box_AP of people with an area below 32^2 pixels",
    "box_APm": "box_AP of people with an area from 32^2 to 96^2 pixels",
    "box_APl": "box_AP of people with an area above 96^2 pixels",
    "box_AR": "mean recall of boxes over the same thresholds, at most 100 boxes per image",
}
"""Definitions of the metrics by name."""

OPTIONS = ()
RESULTS, FILES = "detections.json", {}
DRAWN_BY_EVAL = True
SURE = 0.5
"""Minimum score of the boxes that count, in pictures and in `box_errors`."""
_DRAWN = 3
"""Minimum number of boxes drawn per image, regardless of their scores."""
_AP = {
    "box_AP": "AP", "box_AP50": "AP50", "box_AP75": "AP75", "box_APs": "APs",
    "box_APm": "APm", "box_APl": "APl", "box_AR": "AR100",
}  # fmt: skip
"""The metrics and their names in `coco_box_ap`."""


def matched(table: Table, boxes: Boxes, keypoints: None) -> Boxes:
    """Returns the boxes: they have no keypoints."""
    del table, keypoints
    return boxes


def to_results(table: Table, boxes: Boxes) -> list[dict[str, Any]]:
    """Converts boxes to COCO result format."""
    row, slot = np.nonzero(boxes.valid)
    xyxy = boxes.boxes_xyxy[row, slot].astype(np.float64)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], -1)
    columns = (
        table.image_ids[boxes.row[row]].tolist(),
        np.round(xywh, 3).tolist(),
        boxes.scores[row, slot].astype(np.float64).tolist(),
    )
    category = {"category_id": table.category_id}
    return [
        {"image_id": image_id, **category, "bbox": bbox, "score": score}
        for image_id, bbox, score in zip(*columns, strict=True)
    ]


def measure(
    table: Table, boxes: Boxes, results: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, float]:
    """Computes box AP for all people of the images.

    Args:
      table: the images.
      boxes: the predictions, NumPy leaves.
      results: the result of `to_results`, if it is already computed.

    Returns:
      Values by name; empty without ground truth.
    """
    if table.ground_truth is None:
        return {}
    results = to_results(table, boxes) if results is None else results
    values = metrics_lib.coco_box_ap(table.ground_truth.coco_ground_truth(), results)
    return {name: values[coco_name] for name, coco_name in _AP.items()}


def why_absent(table: Table, name: str) -> str:
    """As of `poses`."""
    del table, name
    return ""


def names(table: Table) -> list[str]:
    """Returns the names of the metrics that `measure` computes on a table."""
    return list(_AP) if table.ground_truth is not None else []


def suppress(table: Table, boxes: Boxes, config: Any) -> Boxes:
    """Returns the boxes unchanged: a detector applies NMS itself."""
    del table, config
    return boxes


def per_keypoint(table: Table, boxes: Boxes) -> list[dict[str, Any]]:
    """Returns []: boxes have no keypoints."""
    del table, boxes
    return []


def notes(
    table: Table,
    boxes: Boxes,
    metrics: Mapping[str, float],
    results: Sequence[Mapping[str, Any]] | None = None,
) -> list[str]:
    """Explains special values: why AP is missing, -1 or 0."""
    if table.ground_truth is None:
        return ["box AP not computed: the images have no annotations"]
    if metrics["box_AP"] > 0:
        return []
    truth = table.ground_truth.coco_ground_truth()
    if results is None:
        results = to_results(table, boxes)
    reasons = why_no_box_ap(truth, results)
    return [f"box_AP is {metrics['box_AP']:g}: {reason}" for reason in reasons]


def folder(table: Table, decoder: str) -> str:
    """Returns the folder of an evaluation, relative to RUN/eval or --out."""
    del table, decoder
    return "images"


def written(out: Path, table: Table, results: Sequence[Mapping[str, Any]]) -> str:
    """Describes the output of `pose-jax eval` in `out`, and a possible next command."""
    out = out / folder(table, "")
    return (
        f"{len(results)} boxes of {len(table.images)} images, metrics and pictures: {out}\n"
        f"poses in these boxes: pose-jax eval --run RUN --boxes {out / RESULTS}"
    )


def draw(
    table: Table, boxes: Boxes, image: int, *, side: int | None = None
) -> np.ndarray:
    """Draws an image of a table with its boxes, uint8 [h, w, 3].

    Boxes with scores of at least 0.5 are drawn, and with thin lines the best of the others
    and the ground truth.

    Args:
      table: the images.
      boxes: the predictions.
      image: index of the image.
      side: longer side of the picture; None: that of the image.
    """
    pixels = canvas.shown(table, image)
    (place,) = np.flatnonzero(boxes.row == image)
    scores = np.where(boxes.valid[place], boxes.scores[place], -np.inf)
    order = np.argsort(-scores, kind="stable")
    drawn = order[
        np.isfinite(scores[order])
        & ((scores[order] >= SURE) | (np.arange(len(order)) < _DRAWN))
    ]
    marks = {}
    if (truth := table.ground_truth) is not None:
        people = truth.people_of_image(int(image))
        marks = {"truth_xyxy": truth.boxes_xyxy[people], "crowd": truth.crowd[people]}
    return drawing.draw_boxes(
        pixels,
        boxes.boxes_xyxy[place, drawn],
        scores=scores[drawn],
        threshold=SURE,
        # Lines and scores are drawn after scaling, to stay legible in small pictures.
        scale=1.0 if side is None else side / max(pixels.shape[:2]),
        **marks,
    )


def images(table: Table, boxes: Boxes) -> np.ndarray:
    """Returns the indices of the images that were predicted."""
    del table
    return boxes.row


def worst(table: Table, boxes: Boxes, count: int = 12) -> np.ndarray | None:
    """Draws the images with the most false negatives and false positives at IoU 0.5."""
    if table.ground_truth is None:
        return None
    missed, false = box_errors(table, boxes)
    cells, titles = [], []
    for place in np.argsort(-(missed + false), kind="stable")[:count]:
        image = boxes.row[place]
        cells.append(draw(table, boxes, image, side=320))
        titles.append(
            f"image {table.image_ids[image]}: {missed[place]} FN, {false[place]} FP"
        )
    return sheet_lib.sheet(cells, columns=6, titles=titles)


def box_errors(
    table: Table, boxes: Boxes, *, score: float = SURE, iou: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Counts false negatives and false positives per image, for boxes above a score.

    In the order of decreasing score, a box is matched to the unmatched person with the
    highest IoU. An unmatched box is not a false positive if it lies in a crowd region.

    Args:
      table: the predicted images, with their people.
      boxes: the predictions, NumPy leaves.
      score: minimum score of a box.
      iou: minimum IoU of a match; for crowd regions, minimum fraction of the box area.

    Returns:
      Counts [b] of false negatives and of false positives, in the order of `boxes`.
    """
    truth = table.ground_truth
    assert truth is not None
    missed, false = (np.zeros(len(boxes.row), int) for _ in range(2))
    for i, image in enumerate(boxes.row):
        people = truth.people_of_image(int(image))
        crowd = truth.crowd[people]
        regions = truth.boxes_xyxy[people][crowd]
        left = truth.boxes_xyxy[people][~crowd]
        counted = boxes.valid[i] & (boxes.scores[i] >= score)
        for place in np.argsort(-boxes.scores[i], kind="stable"):
            if not counted[place]:
                continue
            box = boxes.boxes_xyxy[i, place].astype(np.float64)
            shared, own, areas = _overlaps(box, left)
            ious = shared / np.maximum(own + areas - shared, 1e-9)
            if len(left) and ious.max() >= iou:
                left = np.delete(left, int(np.argmax(ious)), axis=0)
                continue
            shared, own, _ = _overlaps(box, regions)
            false[i] += not (shared >= iou * max(own, 1e-9)).any()
        missed[i] = len(left)
    return missed, false


def _overlaps(box: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float, Any]:
    """Returns [n] intersection areas of a box with others, its area, and [n] their area."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    return (
        shared,
        float((box[2:] - box[:2]).prod()),
        (others[:, 2:] - others[:, :2]).prod(-1),
    )
