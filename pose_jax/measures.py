"""Predictions and labels to metrics by full name, to a table per keypoint, and why AP is 0.

A metric's full name: NAME[@threshold][@source of boxes][@PC|OC], for example
`AP@detections`, `PCK@0.2@joint_boxes@PC`. FORMULAS says what each NAME is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pose_jax import metrics as metrics_lib
from pose_jax.datasets.table import Table
from pose_jax.method import Poses
from pose_jax.metrics.coco import why_no_ap

FORMULAS = {
    "AP": "mean precision over OKS thresholds 0.50:0.05:0.95 and 101 recalls, at most 20 "
    "poses an image (COCO); OKS = mean exp(-d^2 / (2 area (2 sigma)^2))",
    "AP50": "AP at OKS 0.50 alone",
    "AP75": "AP at OKS 0.75 alone",
    "AR": "mean recall over the same thresholds",
    "pixel_error": "mean distance of labelled keypoints to the truth, image pixels",
    "PCK": "share of keypoints with distance <= t * torso, torso = left shoulder to right "
    "hip (FLIC: right shoulder to left hip); people without both are left out",
    "PCK_AUC": "area under PCK(t), t = 0:0.01:0.2, over 0.2",
    "PDJ": "DeepPose's name of PCK with that torso: the same number",
    "PCKh": "share of keypoints with distance <= t * head, head = 0.6 * diagonal of the "
    "head box; pelvis and thorax left out; @0.11 is what published code prints as @0.1",
    "PCKh_AUC": "area under PCKh(t), t = 0:0.01:0.5, over 0.5",
    "PCP": "share of sticks with both ends within 0.5 of the stick's length (strict), over "
    "all sticks of all people",
    "PCP_loose": "the same with the mean of both ends' distances",
}
"""What the NAMEs mean, normalisers included."""

PCK_THRESHOLDS = (0.05, 0.1, 0.2)
PCKH_THRESHOLDS = (0.5, 0.1, 0.11)
_NOT_IN_PCKH = ("pelvis", "thorax")


def full_name(name: str, table: Table, threshold: float | None = None) -> str:
    """NAME[@threshold]@source of boxes[@PC|OC] of a metric on a table."""
    parts = [name] if threshold is None else [name, f"{threshold:g}"]
    return "@".join([*parts, table.box_source, *filter(None, [table.centric])])


def formula(full: str) -> str:
    """What a metric is; "" for counts and parts of others."""
    return FORMULAS.get(full.split("@")[0], "")


def measure(table: Table, poses: Poses) -> dict[str, float]:
    """All metrics that the labels and the keypoint set allow.

    Where the table has labels, a prediction belongs to its row's. AP, and AP alone where
    boxes come from a detector, matches poses to the people of `table.truth` by OKS.

    Args:
      table: the boxes that were predicted on.
      poses: the predictions, NumPy leaves.

    Returns:
      Values by full name. AP is left out where the keypoint set has no sigmas.
    """
    found: dict[str, float] = {}

    def add(name, value, threshold=None):
        found[full_name(name, table, threshold)] = float(value)

    keypoints = table.keypoints
    if keypoints.sigmas is not None:
        ap = metrics_lib.coco_keypoint_ap(
            ground_truth(table), coco_results(table, poses), sigmas=keypoints.sigmas
        )
        for name, value in ap.items():
            add(name, value)
    if not table.labelled:
        return found
    true_xy, visibility = table.points_xy[poses.row], table.visibility[poses.row]
    distance = np.linalg.norm(poses.points_xy - true_xy, axis=-1)
    add("pixel_error", _mean(distance[visibility > 0]))
    data = poses.points_xy.astype(np.float32), true_xy.astype(np.float32), visibility
    if keypoints.torso is not None:
        grid = np.arange(21) / 100
        thresholds = (*PCK_THRESHOLDS, *grid)
        correct, counted = metrics_lib.pdj(
            *data, keypoints.torso, thresholds=thresholds
        )
        share = np.asarray(correct).sum(1) / max(int(np.sum(counted)), 1)
        for threshold, value in zip(PCK_THRESHOLDS, share, strict=False):
            add("PCK", value, threshold)
        add("PDJ", share[PCK_THRESHOLDS.index(0.2)], 0.2)
        add("PCK_AUC", np.trapezoid(share[-len(grid) :], grid) / grid[-1])
        i, j = keypoints.torso
        lost = (visibility[:, i] == 0) | (visibility[:, j] == 0)
        add("PCK_people_without_torso", lost.sum())
    if table.head_sizes is not None:
        grid = np.arange(51) / 100
        thresholds = (*PCKH_THRESHOLDS, *grid)
        heads = table.head_sizes[poses.row].astype(np.float32)
        correct, counted = metrics_lib.pckh(*data, heads, thresholds=thresholds)
        kept = [name not in _NOT_IN_PCKH for name in keypoints.names]
        share = np.asarray(correct)[:, kept].sum(1) / max(
            int(np.asarray(counted)[kept].sum()), 1
        )
        for threshold, value in zip(PCKH_THRESHOLDS, share, strict=False):
            add("PCKh", value, threshold)
        add("PCKh_AUC", np.trapezoid(share[-len(grid) :], grid) / grid[-1])
        add("PCKh_people_without_head_box", (heads <= 0).sum())
    if keypoints.sticks:
        kinds = [name for name, _, _ in keypoints.sticks]
        for strict, name in ((True, "PCP"), (False, "PCP_loose")):
            correct, counted = map(
                np.asarray, metrics_lib.pcp(*data, keypoints.sticks, strict=strict)
            )
            add(name, correct.sum() / max(int(counted.sum()), 1), 0.5)
            for kind in dict.fromkeys(kinds):
                its = [k == kind for k in kinds]
                add(
                    f"{name}_{kind}",
                    correct[its].sum() / max(int(counted[its].sum()), 1),
                    0.5,
                )
    return found


def per_keypoint(table: Table, poses: Poses) -> list[dict[str, Any]]:
    """One row a keypoint: how many, how far, how often right, how sure.

    Returns:
      name; labelled and hidden (counts); median_error, mean_error (image pixels);
      PCK@t or PCKh@t by the normaliser that the data set has; score (the mean).
      Empty for a table without labels.
    """
    if not table.labelled:
        return []
    true_xy, visibility = table.points_xy[poses.row], table.visibility[poses.row]
    labelled = visibility > 0
    distance = np.linalg.norm(poses.points_xy - true_xy, axis=-1)
    data = poses.points_xy.astype(np.float32), true_xy.astype(np.float32), visibility
    shares: dict[str, np.ndarray] = {}
    if table.head_sizes is not None:
        name, thresholds = "PCKh", PCKH_THRESHOLDS
        heads = table.head_sizes[poses.row].astype(np.float32)
        counts = metrics_lib.pckh(*data, heads, thresholds=thresholds)
    elif table.keypoints.torso is not None:
        name, thresholds = "PCK", PCK_THRESHOLDS
        counts = metrics_lib.pdj(*data, table.keypoints.torso, thresholds=thresholds)
    else:
        name, thresholds, counts = "", (), None
    if counts is not None:
        correct, counted = map(np.asarray, counts)
        for t, row in zip(thresholds, correct, strict=True):
            shares[f"{name}@{t:g}"] = row / np.maximum(counted, 1)
    rows = []
    for k, keypoint in enumerate(table.keypoints.names):
        errors = distance[labelled[:, k], k]
        rows.append(
            {
                "name": keypoint,
                "labelled": int(labelled[:, k].sum()),
                "hidden": int((visibility[:, k] == 1).sum()),
                "median_error": float(np.median(errors)) if len(errors) else None,
                "mean_error": float(errors.mean()) if len(errors) else None,
                **{share: float(values[k]) for share, values in shares.items()},
                "score": float(poses.keypoint_scores[:, k].mean()),
            }
        )
    return rows


def notes(table: Table, poses: Poses, metrics: Mapping[str, float]) -> list[str]:
    """What a reader must know beside the numbers: why AP is missing, -1 or 0."""
    ap = full_name("AP", table)
    if ap not in metrics:
        return [
            f"no AP: keypoint set {table.keypoints.name!r} has no sigmas, so OKS is not "
            "defined for it"
        ]
    if metrics[ap] > 0:
        return []
    reasons = why_no_ap(ground_truth(table), coco_results(table, poses))
    return [f"{ap} is {metrics[ap]:g}: {reason}" for reason in reasons]


def ground_truth(table: Table) -> dict[str, Any]:
    """The people that AP is counted against, in COCO's form."""
    return (table.truth or table).coco_ground_truth()


def coco_results(table: Table, poses: Poses) -> list[dict[str, Any]]:
    """Predictions in COCO's result form; the third number is the keypoint's score."""
    keypoints = np.concatenate([poses.points_xy, poses.keypoint_scores[..., None]], -1)
    image_ids = table.image_ids[table.image[poses.row]]
    return [
        {
            "image_id": int(image_id),
            "category_id": 1,
            "keypoints": [round(float(v), 3) for v in points.reshape(-1)],
            "score": float(score),
        }
        for image_id, points, score in zip(
            image_ids, keypoints, poses.score, strict=True
        )
    ]


# ------------------------------------------------------------------------------ as text

_SHOWN = ("AP", "AP50", "AP75", "AR", "PCK", "PCKh", "PCP", "pixel_error")


def shown(metrics: Mapping[str, float]) -> list[str]:
    """The metrics worth a line of a table, in their order."""
    return [name for name in metrics if name.split("@")[0] in _SHOWN]


def one_line(step: int, metrics: Mapping[str, float]) -> str:
    """An evaluation as one line of a log."""
    values = [f"{name} {metrics[name]:.4g}" for name in shown(metrics)]
    return f"evaluation at step {step}: " + "  ".join(values)


def table_of(found: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics side by side: a row a metric, a column a decoder; then their formulas."""
    names = shown(next(iter(found.values())))
    rows = [["metric", *found]]
    rows += [[name, *(f"{m[name]:.3f}" for m in found.values())] for name in names]
    bases = dict.fromkeys(name.split("@")[0] for name in names)
    lines = [*_aligned(rows), *(f"  {base}: {FORMULAS[base]}" for base in bases)]
    return "\n".join(lines)


def keypoint_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`per_keypoint` as text."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3f}"
        return "-" if value is None else str(value)

    heads = [name.replace("_", " ") for name in rows[0]]
    heads[0] = "keypoint"
    return "\n".join(_aligned([heads, *([*map(cell, row.values())] for row in rows)]))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
