"""Predictions and labels to metrics by full name, to a table per keypoint, and why AP is 0.

A metric's full name: NAME[@threshold][@source of boxes][@PC|OC], for example
`AP@detections`, `PCK@0.2@joint_boxes@PC`. FORMULAS says what each NAME is. Of a detector,
which makes its boxes itself, the NAME is all: `box_AP`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pose_jax import metrics as metrics_lib
from pose_jax.data.table import Table
from pose_jax.keypoints import LIMBS
from pose_jax.metrics.coco import why_no_ap, why_no_box_ap
from pose_jax.types import Boxes, Poses

FORMULAS = {
    "AP": "mean precision over OKS thresholds 0.50:0.05:0.95 and 101 recalls, at most 20 "
    "poses an image (COCO); OKS = mean exp(-d^2 / (2 area (2 sigma)^2))",
    "AP50": "AP at OKS 0.50 alone",
    "AP75": "AP at OKS 0.75 alone",
    "AR": "mean recall over the same thresholds",
    "box_AP": "mean precision of boxes over IoU thresholds 0.50:0.05:0.95 and 101 recalls, "
    "at most 100 boxes an image, over all images, also those without people (COCO); the "
    "boxes are the detector's own, so its name has no source of them",
    "box_AP50": "box_AP at IoU 0.50 alone",
    "box_AP75": "box_AP at IoU 0.75 alone",
    "box_APs": "box_AP of people of an area below 32^2 pixels",
    "box_APm": "box_AP of people of an area from 32^2 to 96^2 pixels",
    "box_APl": "box_AP of people of an area above 96^2 pixels",
    "box_AR": "mean recall of boxes over the same thresholds, at most 100 boxes an image",
    "pixel_error": "mean distance of labelled keypoints to the truth, image pixels",
    "box_error": "mean distance of labelled keypoints to the truth, in longer sides of the "
    "person's box",
    "PCK": "share of keypoints with distance <= t * torso, torso = left shoulder to right "
    "hip (FLIC: right shoulder to left hip); people without both are left out",
    "PCK_AUC": "area under PCK(t), t = 0:0.01:0.2, over 0.2",
    "PDJ": "DeepPose's name of PCK with that torso: the same number",
    "PCKh": "share of keypoints with distance <= t * head, head = 0.6 * diagonal of the "
    "head box; pelvis and thorax left out; @0.11 is what published code prints as @0.1",
    "PCKh_AUC": "area under PCKh(t), t = 0:0.01:0.5, over 0.5",
    "PCK_people_without_torso": "people left out: an end of the torso is not labelled",
    "PCK_people_with_torso_of_length_zero": "people left out: both ends at one point",
    "PCK_people_with_tiny_torso": "people whose torso is at most 0.05 of the longer side "
    "of their labelled keypoints' extent: so little is within t * torso that they count "
    "against any prediction (those of length zero are left out)",
    "PCP": "share of sticks with both ends within 0.5 of the stick's length (strict), over "
    "all sticks of all people; one of true length 0 counts as wrong",
    "PCP_loose": "the same with the mean of both ends' distances",
    "PCP_limbs": "mean of PCP of upper arms, lower arms, upper legs and lower legs, those "
    "that the set has; no head, no torso (the mean of DeepPose's table)",
    "PCP_loose_limbs": "the same mean of PCP_loose",
    "PCP_sticks_of_length_zero": "labelled sticks whose ends are one point: wrong in PCP",
    "flipped_people": "share of people whose mean error, over the labelled keypoints that "
    "have a left and a right, is at least 20% smaller with left and right of the whole "
    "prediction exchanged; people with fewer than 4 such keypoints are left out",
    "flipped_people_upper_body": "the same of the upper body's pairs alone",
    "flipped_people_lower_body": "the same of the other pairs alone",
    "flipped_people_left_out": "people with too few labelled keypoints for flipped_people",
    "flipped_people_upper_body_left_out": "the same of the upper body",
    "flipped_people_lower_body_left_out": "the same of the lower body",
    "PDJ_unflipped": "PDJ if the flipped people had their left and right exchanged",
    "PCP_unflipped": "PCP if the flipped people had their left and right exchanged",
}
"""What the NAMEs mean, normalisers included."""

PCK_THRESHOLDS = (0.05, 0.1, 0.2)
PCKH_THRESHOLDS = (0.5, 0.1, 0.11)
PDJ_THRESHOLDS = tuple(i / 100 for i in range(51))
"""Of the curves in the literature."""
TINY_TORSO = 0.05
"""Of the longer side of a person's extent; the median of LSP's people is 0.36."""
_AUC_GRID = np.arange(21) / 100
_TORSO_THRESHOLDS = (*PCK_THRESHOLDS, *_AUC_GRID)
_OF_BOXES = {
    "box_AP": "AP", "box_AP50": "AP50", "box_AP75": "AP75", "box_APs": "APs",
    "box_APm": "APm", "box_APl": "APl", "box_AR": "AR100",
}  # fmt: skip
"""A detector's metrics, and what `coco_box_ap` calls them."""
SURE = 0.5
"""The score from which on a box is counted as said, in pictures and in `box_errors`."""
_flipped = jax.jit(metrics_lib.flipped, static_argnames="flip_pairs")
_NOT_IN_PCKH = ("pelvis", "thorax")


def full_name(name: str, table: Table, threshold: float | None = None) -> str:
    """NAME[@threshold]@source of boxes[@PC|OC] of a metric on a table."""
    parts = [name] if threshold is None else [name, f"{threshold:g}"]
    return "@".join([*parts, table.box_source, *filter(None, [table.centric])])


def formula(full: str) -> str:
    """What a metric is; "" for parts of others."""
    return FORMULAS.get(full.split("@")[0], "")


def is_metric(name: str) -> bool:
    """Whether a number of this name in a log is an evaluation's, not the training's."""
    return "@" in name or name in _OF_BOXES


def measure(table: Table, poses: Poses | Boxes) -> dict[str, float]:
    """All metrics that the labels and the keypoint set allow.

    Where the table has labels, a pose belongs to its row's. AP, and AP alone where boxes
    come from a detector, matches poses to the people of `table.truth` by OKS. Boxes are
    matched to all people of the images, whichever were predicted.

    Args:
      table: the boxes, or the images, that were predicted on.
      poses: the predictions, NumPy leaves.

    Returns:
      Values by full name. AP is left out where the keypoint set has no sigmas; of boxes
      there is nothing where people are not annotated.
    """
    if isinstance(poses, Boxes):
        if not has_truth(table):
            return {}
        ap = metrics_lib.coco_box_ap(ground_truth(table), coco_results(table, poses))
        return {name: ap[theirs] for name, theirs in _OF_BOXES.items()}
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
    boxes = table.boxes_xyxy[poses.row]
    side = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(-1, keepdims=True), 1)
    add("box_error", _mean((distance / side)[visibility > 0]))
    data = poses.points_xy.astype(np.float32), true_xy.astype(np.float32), visibility
    if keypoints.torso is not None:
        grid = _AUC_GRID
        correct, counted = metrics_lib.pdj(
            *data, keypoints.torso, thresholds=_TORSO_THRESHOLDS
        )
        share = np.asarray(correct).sum(1) / max(int(np.sum(counted)), 1)
        for threshold, value in zip(PCK_THRESHOLDS, share, strict=False):
            add("PCK", value, threshold)
        add("PDJ", share[PCK_THRESHOLDS.index(0.2)], 0.2)
        add("PCK_AUC", np.trapezoid(share[-len(grid) :], grid) / grid[-1])
        torso, extent = _torso_and_extent(*data[1:], keypoints.torso)
        add("PCK_people_without_torso", np.isnan(torso).sum())
        add("PCK_people_with_torso_of_length_zero", (torso == 0).sum())
        add("PCK_people_with_tiny_torso", (torso <= TINY_TORSO * extent).sum())
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
            add(name, _share(correct, counted), 0.5)
            of_kind, limbs = {}, []
            for kind in dict.fromkeys(kinds):
                its = [k == kind for k in kinds]
                of_kind[kind] = _share(correct[its], counted[its])
                if kind in LIMBS and counted[its].any():
                    limbs.append(of_kind[kind])
            if not set(LIMBS).isdisjoint(kinds):
                add(f"{name}_limbs", sum(limbs) / max(len(limbs), 1), 0.5)
            for kind, value in of_kind.items():
                add(f"{name}_{kind}", value, 0.5)
        # The truth itself is right about all sticks but those.
        correct, counted = metrics_lib.pcp(
            data[1], *data[1:], keypoints.sticks, threshold=0.0
        )
        add("PCP_sticks_of_length_zero", np.sum(counted) - np.sum(correct))
    for name, value, threshold in _flips(table, *data):
        add(name, value, threshold)
    return found


def names(table: Table, *, boxes: bool = False) -> list[str]:
    """Full names of what `measure` finds on a table, without a prediction.

    Args:
      table: that is evaluated on.
      boxes: of a detector's boxes; False: of poses.
    """
    if boxes:
        return list(_OF_BOXES) if has_truth(table) else []
    row = np.arange(1, dtype=np.int32)
    k = len(table.keypoints)
    someone = Poses(
        points_xy=np.zeros((1, k, 2), np.float32),
        keypoint_scores=np.ones((1, k), np.float32),
        score=np.ones(1, np.float32),
        valid=np.ones(1, bool),
        row=row,
    )
    return list(measure(table, someone))


def _torso_and_extent(true_xy, visibility, torso) -> tuple[np.ndarray, np.ndarray]:
    """[n] lengths of the torso, NaN where not labelled, and [n] longer sides of people."""
    labelled = visibility > 0
    i, j = torso
    length = np.linalg.norm(true_xy[:, i] - true_xy[:, j], axis=-1)
    length = np.where(labelled[:, i] & labelled[:, j], length, np.nan)
    low = np.where(labelled[..., None], true_xy, np.inf).min(1)
    high = np.where(labelled[..., None], true_xy, -np.inf).max(1)
    return length, (high - low).max(-1)


def _flips(table: Table, pred_xy, true_xy, visibility):
    """Names, values and thresholds of what is said about left and right."""
    keypoints, people = table.keypoints, (pred_xy, true_xy, visibility)
    pairs = tuple(map(tuple, keypoints.flip_pairs))
    if len(pairs) < 2:  # Nobody could have four keypoints of them.
        return
    upper = set(keypoints.upper_body)
    whole = {"flipped_people": pairs}
    parts = {
        "flipped_people_upper_body": tuple(p for p in pairs if upper.issuperset(p)),
        "flipped_people_lower_body": tuple(p for p in pairs if upper.isdisjoint(p)),
    }
    whole |= {name: p for name, p in parts.items() if 2 <= len(p) < len(pairs)}
    found = {
        name: tuple(map(np.asarray, _flipped(*people, flip_pairs=its)))
        for name, its in whole.items()
    }
    for name, counts in found.items():
        yield name, _share(*counts), None
    for name, (_, judged) in found.items():
        yield f"{name}_left_out", (~judged).sum(), None
    who, _ = found["flipped_people"]
    exchanged = pred_xy[:, keypoints.permutation]
    people = (np.where(who[:, None, None], exchanged, pred_xy), true_xy, visibility)
    if keypoints.torso is not None:
        correct, counted = metrics_lib.pdj(
            *people, keypoints.torso, thresholds=_TORSO_THRESHOLDS
        )
        at = PCK_THRESHOLDS.index(0.2)
        yield "PDJ_unflipped", _share(correct[at], counted), 0.2
    if keypoints.sticks:
        counts = metrics_lib.pcp(*people, keypoints.sticks)
        yield "PCP_unflipped", _share(*counts), 0.5


def pdj_curve(
    table: Table, poses: Poses, thresholds: Sequence[float] = PDJ_THRESHOLDS
) -> dict[str, np.ndarray]:
    """Percentage of detected joints over the threshold, left and right together.

    Args:
      table: the boxes that were predicted on.
      poses: the predictions, NumPy leaves.
      thresholds: fractions of the torso's diameter, t of them.

    Returns:
      Shares [t] in [0, 1] by joint ("wrist"), in the order of the keypoint set, then
      "mean", over all labelled keypoints: PDJ@t. Joints that nobody has labelled are not
      in it. Empty for a table without labels, and for a set without a torso.
    """
    keypoints = table.keypoints
    if not table.labelled or keypoints.torso is None:
        return {}
    correct, counted = metrics_lib.pdj(
        poses.points_xy.astype(np.float32),
        table.points_xy[poses.row].astype(np.float32),
        table.visibility[poses.row],
        keypoints.torso,
        thresholds=thresholds,
    )
    correct, counted = np.asarray(correct), np.asarray(counted)
    groups = {**keypoints.groups, "mean": range(len(keypoints))}
    indices = {group: np.array(its) for group, its in groups.items()}
    return {
        group: correct[:, its].sum(1) / counted[its].sum()
        for group, its in indices.items()
        if counted[its].any()
    }


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


def box_errors(
    table: Table, boxes: Boxes, *, score: float = SURE, iou: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """What a detector that says its boxes from a score on gets wrong, by image.

    A box finds the person, not found by a better one, that it overlaps the most. One that
    finds nobody is no mistake where it lies in a crowd region, by its own area.

    Args:
      table: the images that were predicted on, with their people.
      boxes: the predictions, NumPy leaves.
      score: below it a box is not said.
      iou: from which on a box finds a person.

    Returns:
      Counts [b] of people who are missed, and of false boxes, in the order of `boxes`.
    """
    truth = table.truth or table
    missed, false = (np.zeros(len(boxes.row), int) for _ in range(2))
    for i, image in enumerate(boxes.row):
        people = truth.people_of_image(int(image))
        crowd = truth.crowd[people]
        regions = truth.boxes_xyxy[people][crowd]
        left = truth.boxes_xyxy[people][~crowd]
        said = boxes.valid[i] & (boxes.scores[i] >= score)
        for place in np.argsort(-boxes.scores[i], kind="stable"):
            if not said[place]:
                continue
            box = boxes.boxes_xyxy[i, place].astype(np.float64)
            shared, own, theirs = _overlaps(box, left)
            ious = shared / np.maximum(own + theirs - shared, 1e-9)
            if len(left) and ious.max() >= iou:
                left = np.delete(left, int(np.argmax(ious)), axis=0)
                continue
            shared, own, _ = _overlaps(box, regions)
            false[i] += not (shared >= iou * max(own, 1e-9)).any()
        missed[i] = len(left)
    return missed, false


def _overlaps(box: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float, Any]:
    """[n] areas that a box shares with others, its own area, and [n] theirs."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    return (
        shared,
        float((box[2:] - box[:2]).prod()),
        (others[:, 2:] - others[:, :2]).prod(-1),
    )


def notes(
    table: Table, poses: Poses | Boxes, metrics: Mapping[str, float]
) -> list[str]:
    """What a reader must know beside the numbers: why AP is missing, -1 or 0."""
    found = []
    if isinstance(poses, Boxes):
        if not metrics:
            return ["no box AP: nobody is annotated in these images"]
        if metrics["box_AP"] <= 0:
            reasons = why_no_box_ap(ground_truth(table), coco_results(table, poses))
            found = [f"box_AP is {metrics['box_AP']:g}: {reason}" for reason in reasons]
        return found
    ap = full_name("AP", table)
    if ap not in metrics:
        found.append(
            f"no AP: keypoint set {table.keypoints.name!r} has no sigmas, so OKS is not "
            "defined for it"
        )
    elif metrics[ap] <= 0:
        reasons = why_no_ap(ground_truth(table), coco_results(table, poses))
        found += [f"{ap} is {metrics[ap]:g}: {reason}" for reason in reasons]
    for name in (
        "PCK_people_with_torso_of_length_zero",
        "PCK_people_with_tiny_torso",
        "PCP_sticks_of_length_zero",
    ):
        full = full_name(name, table)
        if metrics.get(full, 0) > 0:
            found.append(f"{full} is {metrics[full]:g}: {FORMULAS[name]}")
    return found


def has_truth(table: Table) -> bool:
    """Whether there are annotated people to count predictions against."""
    return table.labelled or table.truth is not None


def ground_truth(table: Table) -> dict[str, Any]:
    """The people that AP is counted against, in COCO's form."""
    return (table.truth or table).coco_ground_truth()


def coco_results(table: Table, poses: Poses | Boxes) -> list[dict[str, Any]]:
    """Predictions in COCO's result form; a keypoint's third number is its score."""
    if isinstance(poses, Boxes):
        return _coco_boxes(table, poses)
    keypoints = np.concatenate([poses.points_xy, poses.keypoint_scores[..., None]], -1)
    keypoints = keypoints.reshape(len(keypoints), -1).astype(np.float64)
    columns = (
        table.image_ids[table.image[poses.row]].tolist(),
        # A float32 times 1000 is exact in float64: these are the digits of `round`.
        np.round(keypoints, 3).tolist(),
        poses.score.astype(np.float64).tolist(),
    )
    return [
        {"image_id": image_id, "category_id": 1, "keypoints": points, "score": score}
        for image_id, points, score in zip(*columns, strict=True)
    ]


def _coco_boxes(table: Table, boxes: Boxes) -> list[dict[str, Any]]:
    row, slot = np.nonzero(boxes.valid)
    xyxy = boxes.boxes_xyxy[row, slot].astype(np.float64)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], -1)
    columns = (
        table.image_ids[boxes.row[row]].tolist(),
        np.round(xywh, 3).tolist(),
        boxes.scores[row, slot].astype(np.float64).tolist(),
    )
    return [
        {"image_id": image_id, "category_id": 1, "bbox": bbox, "score": score}
        for image_id, bbox, score in zip(*columns, strict=True)
    ]


# ------------------------------------------------------------------------------ as text

_LOGGED = (
    "AP", "AP50", "AP75", "AR", "PCK", "PCKh", "PCP", "pixel_error",
    "box_AP", "box_AP50", "box_AP75", "box_AR",
)  # fmt: skip
_SHOWN = (*_LOGGED, "PCP_limbs", "flipped_people", "box_APs", "box_APm", "box_APl")


def shown(metrics: Mapping[str, float], names: Sequence[str] = _SHOWN) -> list[str]:
    """The metrics worth a line of a table, in their order."""
    return [name for name in metrics if name.split("@")[0] in names]


def one_line(step: int, metrics: Mapping[str, float]) -> str:
    """An evaluation as one line of a log."""
    values = [f"{name} {metrics[name]:.4g}" for name in shown(metrics, _LOGGED)]
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


def _share(correct, counted) -> float:
    """Of all that was counted; 0 where nothing was."""
    return float(np.sum(correct)) / max(int(np.sum(counted)), 1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
