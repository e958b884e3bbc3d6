"""Metrics of poses by full name, a table per keypoint, and pictures.

The full name of a metric is NAME[@threshold][@length]@box source[@PC|OC], e.g.
`AP@detections`, `PCK@0.2@joint_boxes@PC`, `PCK@0.1@box@gt_boxes`. AP with one sigma for
all keypoints, which was not measured, is `AP[sigma=0.05]@gt_boxes`. Where only the
keypoints are compared that the data and the model have by the same name, their number is
in it: `PCK@0.2[12 keypoints]@gt_boxes`. FORMULAS defines each NAME. `boxes` has the same
functions for the boxes of a detector; `evaluation.of` selects the module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from PIL import Image

from pose_jax import metrics as metrics_lib
from pose_jax.data import canvas
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.evaluation import lengths
from pose_jax.evaluation.lengths import PCK_THRESHOLDS
from pose_jax.evaluation.suppress import suppress as suppress
from pose_jax.keypoints import LIMBS, KeypointSet
from pose_jax.metrics.coco import why_no_ap
from pose_jax.types import Poses

_Labeled: TypeAlias = tuple[Any, Any, Any]
"""Predicted points, true points and visibility of people, as `metrics` takes them."""

FORMULAS = {
    "AP": "mean precision over OKS thresholds 0.50:0.05:0.95 and 101 recalls, at most 20 "
    "poses per image (COCO); OKS = mean exp(-d^2 / (2 area (2 sigma)^2))",
    "AP50": "AP at OKS 0.50",
    "AP75": "AP at OKS 0.75",
    "AR": "mean recall over the same thresholds",
    "pixel_error": "mean distance of labeled keypoints to the ground truth, image pixels",
    "box_error": "mean distance of labeled keypoints to the ground truth, divided by the "
    "longer side of the box",
    "PCK": "fraction of keypoints with distance <= t * torso, torso = left shoulder to "
    "right hip (FLIC: right shoulder to left hip); people without both are excluded",
    "PCK_AUC": "area under PCK(t), t = 0:0.01:0.2, over 0.2",
    "PCK@box": "fraction of keypoints with distance <= t * diagonal of the person's box, "
    "for keypoint sets without a torso",
    "PCK_AUC@box": "area under PCK@t@box, t = 0:0.005:0.1, over 0.1",
    "PDJ": "PCK with that torso, under the name used by DeepPose",
    "PCKh": "fraction of keypoints with distance <= t * head, head = 0.6 * diagonal of the "
    "head box; pelvis and thorax excluded; @0.11 is what published code prints as @0.1",
    "PCKh_AUC": "area under PCKh(t), t = 0:0.01:0.5, over 0.5",
    "PCK_people_without_torso": "people excluded: an end of the torso is not labeled",
    "PCK_people_with_torso_of_length_zero": "people excluded: both torso ends coincide",
    "PCK_people_with_tiny_torso": "people whose torso is at most 0.05 of the longer side "
    "of the extent of their labeled keypoints: t * torso is so small that they count "
    "against any prediction (those of length zero are excluded)",
    "PCP": "fraction of sticks with both ends within 0.5 of the stick's length (strict), "
    "over all sticks of all people; sticks of true length 0 count as wrong",
    "PCP_loose": "the same with the mean distance of both ends",
    "PCP_limbs": "mean PCP of upper arms, lower arms, upper legs and lower legs (those in "
    "the keypoint set), without head and torso (the mean in DeepPose's table)",
    "PCP_loose_limbs": "the same mean of PCP_loose",
    "PCP_sticks_of_length_zero": "labeled sticks whose ends coincide: wrong in PCP",
    "flipped_people": "fraction of people whose mean error, over labeled keypoints with a "
    "left and a right, is at least 20% smaller if left and right of the complete "
    "prediction are exchanged; people with fewer than 4 such keypoints are excluded",
    "flipped_people_upper_body": "the same for the pairs of the upper body",
    "flipped_people_lower_body": "the same for the other pairs",
    "flipped_people_left_out": "people with too few labeled keypoints for flipped_people",
    "flipped_people_upper_body_left_out": "the same for the upper body",
    "flipped_people_lower_body_left_out": "the same for the lower body",
    "PDJ_unflipped": "PDJ if left and right of the flipped people were exchanged",
    "PCP_unflipped": "PCP if left and right of the flipped people were exchanged",
}
"""Definitions of the metrics by NAME, including normalizers."""

OPTIONS = (
    "decoder", "flip", "boxes", "nms", "nms-threshold", "match-keypoints",
    "max-detections", "weighting", "sigmas",
)  # fmt: skip
"""Options of `pose-jax eval` that poses support."""
RESULTS, FILES = "predictions.json", {"keypoints.json": "per_keypoint"}
"""Name of the results file in RUN/eval, and further files by attribute of `Evaluation`."""
DRAWN_BY_EVAL = False
MAX_DETECTIONS = 20
"""Number of poses per image that count in COCO's keypoint AP."""
PDJ_THRESHOLDS = tuple(i / 100 for i in range(51))
"""Thresholds of the curves in the literature."""
TINY_TORSO = 0.05
"""Fraction of the longer side of a person's extent; the median in LSP is 0.36."""
_AP = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
_AUC = {
    "PCK": np.arange(21) / 100,
    "PCKh": np.arange(51) / 100,
    "PCK@box": np.arange(21) / 200,
}
"""Thresholds for the area under each curve."""
_TORSO_COUNTS = (
    "PCK_people_without_torso",
    "PCK_people_with_torso_of_length_zero",
    "PCK_people_with_tiny_torso",
)
_flipped = jax.jit(metrics_lib.flipped, static_argnames="flip_pairs")


def full_name(name: str, table: Table, threshold: float | None = None) -> str:
    """Returns the full name of a metric on a table: NAME[@threshold][@length]@box
    source[@PC|OC], with the number of keypoints before the source if only some are
    compared, and with the sigma in AP if all keypoints have the same.

    Args:
      name: NAME, or NAME@length.
      table: the table.
      threshold: that of the metric, if it has one.
    """
    name, *length = name.split("@")
    kind, bracket, more = name.partition("[")
    if kind in _AP and table.keypoints.one_sigma is not None:
        name = f"{kind}[sigma={table.keypoints.one_sigma:g}]{bracket}{more}"
    parts = [name] if threshold is None else [name, f"{threshold:g}"]
    parts += length
    if table.matched:
        parts[-1] += f"[{len(table.keypoints)} keypoints]"
    return "@".join([*parts, table.box_source, *filter(None, [table.centric])])


def why_absent(table: Table, name: str) -> str:
    """Returns why `measure` has no metric of a name, and what to do; "" if unknown."""
    if name.split("@")[0].split("[")[0] in _AP and table.keypoints.sigmas is None:
        return no_ap(table.keypoints)
    return ""


def no_ap(keypoints: KeypointSet) -> str:
    """Returns why a set has no AP, and the lines that change it."""
    return (
        f"keypoint set {keypoints.name!r} has no sigmas, which OKS requires: add "
        "--config.data.train.options.keypoints.sigmas=0.05 to `pose-jax train`, or "
        "--sigmas 0.05 to `pose-jax eval` (one number for all, or one per keypoint)"
    )


def matched(table: Table, poses: Poses, keypoints: KeypointSet) -> Poses:
    """Returns poses with the keypoints of a table only, see `Table.matched_to`.

    The score of a pose is that of all its keypoints.

    Args:
      table: the table that is evaluated.
      poses: the predictions, NumPy leaves.
      keypoints: the keypoint set of the predictions.
    """
    if table.keypoints == keypoints:
        return poses
    which = [keypoints.names.index(name) for name in table.keypoints.names]
    return dataclasses.replace(
        poses,
        points_xy=poses.points_xy[:, which],
        keypoint_scores=poses.keypoint_scores[:, which],
    )


def to_results(table: Table, poses: Poses) -> list[dict[str, Any]]:
    """Converts poses to COCO result format; a keypoint's third number is its score."""
    poses = jax.tree.map(lambda leaf: leaf[poses.valid], poses)
    keypoints = np.concatenate([poses.points_xy, poses.keypoint_scores[..., None]], -1)
    keypoints = keypoints.reshape(len(keypoints), 3 * len(table.keypoints))
    keypoints = keypoints.astype(np.float64)
    columns = (
        table.image_ids[table.image[poses.row]].tolist(),
        # A float32 times 1000 is exact in float64, so the digits are those of `round`.
        np.round(keypoints, 3).tolist(),
        poses.score.astype(np.float64).tolist(),
    )
    category = {"category_id": table.category_id}
    return [
        {"image_id": image_id, **category, "keypoints": points, "score": score}
        for image_id, points, score in zip(*columns, strict=True)
    ]


def measure(
    table: Table, poses: Poses, results: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, float]:
    """Computes all metrics that the labels and the keypoint set allow.

    If the table has labels, each pose is compared with the label of its row. AP matches
    poses to the people of `table.ground_truth` by OKS; it is the only metric for the boxes
    of a detector.

    Args:
      table: the boxes that poses were predicted in.
      poses: the predictions, NumPy leaves.
      results: the result of `to_results`, if it is already computed.

    Returns:
      Values by full name. AP is omitted if the keypoint set has no sigmas. Empty without
      ground truth.
    """
    values, truth = {}, table.ground_truth
    if truth is not None and table.keypoints.sigmas is not None:
        values = metrics_lib.coco_keypoint_ap(
            truth.coco_ground_truth(),
            to_results(table, poses) if results is None else results,
            sigmas=table.keypoints.sigmas,
        )
    found = {full_name(name, table): float(value) for name, value in values.items()}
    if table.labelled:
        for name, threshold, value in _measured(table, poses):
            found[full_name(name, table, threshold)] = float(value)
    return found


def ap_of_more(
    table: Table, results: Sequence[Mapping[str, Any]], max_detections: int
) -> dict[str, float]:
    """Computes AP and AR with more than COCO's 20 poses per image, NAME[max=N]@....

    Args:
      table: the boxes that poses were predicted in.
      results: the result of `to_results`.
      max_detections: number of poses per image that count, the best.
    """
    if table.keypoints.sigmas is None:
        return {}
    values = metrics_lib.coco_keypoint_ap(
        (table.ground_truth or table).coco_ground_truth(),
        results,
        sigmas=table.keypoints.sigmas,
        max_detections=max_detections,
    )
    return {
        full_name(f"{name}[max={max_detections}]", table): float(value)
        for name, value in values.items()
    }


def _crowded(table: Table, poses: Poses, ap: str) -> list[str]:
    """Says so if images have more people or poses than AP counts."""
    truth, m = table.ground_truth or table, len(table.images)
    people = np.bincount(truth.image[truth.labelled_rows()], minlength=m)
    predicted = np.bincount(table.image[poses.row], minlength=m)
    for what, counts in (("labeled people", people), ("poses", predicted)):
        more = (counts > MAX_DETECTIONS).sum()
        if more:
            return [
                f"{ap} counts the best {MAX_DETECTIONS} poses of an image, as COCO does: "
                f"{more} images have more {what}, up to {counts.max()}; --max-detections N "
                "also computes AP with N"
            ]
    return []


def names(table: Table) -> list[str]:
    """Returns the full names of the metrics of `measure` on a table, in its order."""
    has_ap = table.ground_truth is not None and table.keypoints.sigmas is not None
    found = [full_name(name, table) for name in _AP if has_ap]
    if not table.labelled:
        return found
    keypoints, parts = table.keypoints, []
    parts += [("pixel_error", None), ("box_error", None)]
    for metric, thresholds in reversed(lengths.metrics(table).items()):
        parts += [(metric, threshold) for threshold in thresholds]
        parts += [("PDJ", 0.2)] * (metric == "PCK") + [(_auc(metric), None)]
        counts = {"PCK": _TORSO_COUNTS, "PCKh": ("PCKh_people_without_head_box",)}
        parts += [(name, None) for name in counts.get(metric, ())]
    if keypoints.sticks:
        kinds = list(dict.fromkeys(name for name, _, _ in keypoints.sticks))
        limbs = [] if set(LIMBS).isdisjoint(kinds) else ["limbs"]
        for name in ("PCP", "PCP_loose"):
            parts += [
                (name, 0.5),
                *((f"{name}_{kind}", 0.5) for kind in (*limbs, *kinds)),
            ]
        parts.append(("PCP_sticks_of_length_zero", None))
    flips = _flip_pairs(table)
    parts += [(name, None) for name in flips]
    parts += [(f"{name}_left_out", None) for name in flips]
    if flips and keypoints.torso is not None:
        parts.append(("PDJ_unflipped", 0.2))
    if flips and keypoints.sticks:
        parts.append(("PCP_unflipped", 0.5))
    return found + [full_name(name, table, threshold) for name, threshold in parts]


def _measured(
    table: Table, poses: Poses
) -> Iterator[tuple[str, float | None, float | np.ndarray]]:
    """Yields names, thresholds and values of the metrics that compare row by row."""
    true_xy, visibility = table.points_xy[poses.row], table.visibility[poses.row]
    labeled = (visibility > 0) & poses.valid[:, None]
    distance = _distance(table, poses)
    yield "pixel_error", None, _mean(distance[labeled])
    boxes = table.boxes_xyxy[poses.row]
    side = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(-1, keepdims=True), 1)
    yield "box_error", None, _mean((distance / side)[labeled])
    data = _points(poses), true_xy.astype(np.float32), visibility
    for metric in reversed(lengths.metrics(table)):
        yield from _by_length(table, poses, data, metric)
    if table.keypoints.sticks:
        yield from _by_stick(data, table.keypoints.sticks)
    yield from _flips(table, *data)


def _by_length(table: Table, poses: Poses, data: _Labeled, metric: str):
    """Yields PCK or PCKh, the area under its curve, and the counts of excluded people."""
    length, grid = lengths.length(table, poses.row, metric), _AUC[metric]
    correct, counted = map(
        np.asarray,
        metrics_lib.pck(*data, length.pixels, thresholds=(*length.thresholds, *grid)),
    )
    counted = counted[length.counts].sum()
    fraction = correct[:, length.counts].sum(1) / max(int(counted), 1)
    for threshold, value in zip(length.thresholds, fraction, strict=False):
        yield metric, threshold, value
    if metric == "PCK":
        yield "PDJ", 0.2, fraction[PCK_THRESHOLDS.index(0.2)]
    yield _auc(metric), None, np.trapezoid(fraction[-len(grid) :], grid) / grid[-1]
    pixels = length.pixels
    if metric == "PCKh":
        yield "PCKh_people_without_head_box", None, (pixels <= 0).sum()
    if metric != "PCK":
        return
    labeled = (data[2] > 0)[..., None]
    low = np.where(labeled, data[1], np.inf).min(1)
    extent = (np.where(labeled, data[1], -np.inf).max(1) - low).max(-1)
    counts = np.isnan(pixels), pixels == 0, pixels <= TINY_TORSO * extent
    for name, people in zip(_TORSO_COUNTS, counts, strict=True):
        yield name, None, people.sum()


def _auc(metric: str) -> str:
    """Returns the name of the area under the curve of a metric."""
    name, at, length = metric.partition("@")
    return f"{name}_AUC{at}{length}"


def _by_stick(data: _Labeled, sticks):
    """Yields PCP in both definitions: for all sticks, for the limbs, for each kind."""
    kinds = [name for name, _, _ in sticks]
    for strict, name in ((True, "PCP"), (False, "PCP_loose")):
        correct, counted = map(
            np.asarray, metrics_lib.pcp(*data, sticks, strict=strict)
        )
        yield name, 0.5, _fraction(correct, counted)
        of_kind, limbs = {}, []
        for kind in dict.fromkeys(kinds):
            which = [k == kind for k in kinds]
            of_kind[kind] = _fraction(correct[which], counted[which])
            if kind in LIMBS and counted[which].any():
                limbs.append(of_kind[kind])
        if not set(LIMBS).isdisjoint(kinds):
            yield f"{name}_limbs", 0.5, sum(limbs) / max(len(limbs), 1)
        for kind, value in of_kind.items():
            yield f"{name}_{kind}", 0.5, value
    # With the labels as prediction, only the sticks of length zero are wrong.
    correct, counted = metrics_lib.pcp(data[1], *data[1:], sticks, threshold=0.0)
    yield "PCP_sticks_of_length_zero", None, np.sum(counted) - np.sum(correct)


def _flip_pairs(table: Table) -> dict[str, tuple[tuple[int, int], ...]]:
    """Returns the keypoint pairs of each metric of flipped people."""
    pairs = tuple((i, j) for i, j in table.keypoints.flip_pairs)
    if len(pairs) < 2:  # The metrics require at least four keypoints.
        return {}
    upper = set(table.keypoints.upper_body)
    parts = {
        "flipped_people_upper_body": tuple(p for p in pairs if upper.issuperset(p)),
        "flipped_people_lower_body": tuple(p for p in pairs if upper.isdisjoint(p)),
    }
    parts = {name: p for name, p in parts.items() if 2 <= len(p) < len(pairs)}
    return {"flipped_people": pairs, **parts}


def _flips(table: Table, pred_xy, true_xy, visibility):
    """Yields the metrics of left-right confusion."""
    keypoints, people = table.keypoints, (pred_xy, true_xy, visibility)
    found = {
        name: tuple(map(np.asarray, _flipped(*people, flip_pairs=pairs)))
        for name, pairs in _flip_pairs(table).items()
    }
    if not found:
        return
    for name, counts in found.items():
        yield name, None, _fraction(*counts)
    for name, (_, judged) in found.items():
        yield f"{name}_left_out", None, (~judged).sum()
    is_flipped, _ = found["flipped_people"]
    exchanged = pred_xy[:, keypoints.permutation]
    unflipped = np.where(is_flipped[:, None, None], exchanged, pred_xy)
    people = unflipped, true_xy, visibility
    if keypoints.torso is not None:
        counts = metrics_lib.pdj(*people, keypoints.torso, thresholds=(0.2,))
        yield "PDJ_unflipped", 0.2, _fraction(*counts)
    if keypoints.sticks:
        counts = metrics_lib.pcp(*people, keypoints.sticks)
        yield "PCP_unflipped", 0.5, _fraction(*counts)


def pdj_curve(
    table: Table, poses: Poses, thresholds: Sequence[float] = PDJ_THRESHOLDS
) -> dict[str, np.ndarray]:
    """Computes the percentage of detected joints (PDJ), left and right joints combined.

    Args:
      table: the boxes that poses were predicted in.
      poses: the predictions, NumPy leaves.
      thresholds: t fractions of the torso diameter.

    Returns:
      Fractions [t] in [0, 1] by joint ("wrist"), in the order of the keypoint set, then
      "mean", over all labeled keypoints: PDJ@t. Joints without labels are omitted.
      Empty for a table without labels, and for a set without a torso.
    """
    keypoints = table.keypoints
    if not table.labelled or keypoints.torso is None:
        return {}
    correct, counted = metrics_lib.pdj(
        _points(poses),
        table.points_xy[poses.row].astype(np.float32),
        table.visibility[poses.row],
        keypoints.torso,
        thresholds=thresholds,
    )
    correct, counted = np.asarray(correct), np.asarray(counted)
    groups = {**keypoints.groups, "mean": range(len(keypoints))}
    indices = {group: np.array(members) for group, members in groups.items()}
    return {
        group: correct[:, members].sum(1) / counted[members].sum()
        for group, members in indices.items()
        if counted[members].any()
    }


def per_keypoint(table: Table, poses: Poses) -> list[dict[str, Any]]:
    """Computes one row per keypoint: counts, errors, fractions within thresholds, score.

    Returns:
      name; labelled and hidden (counts); median_error, mean_error (image pixels);
      PCK@t, PCKh@t or PCK@t@box, depending on the data set; score (the mean).
      Empty for a table without labels.
    """
    if not table.labelled:
        return []
    true_xy, visibility = table.points_xy[poses.row], table.visibility[poses.row]
    labeled, distance = visibility > 0, _distance(table, poses)
    data = _points(poses), true_xy.astype(np.float32), visibility
    fractions: dict[str, np.ndarray] = {}
    length = lengths.length(table, poses.row)
    counts = metrics_lib.pck(*data, length.pixels, thresholds=length.thresholds)
    correct, counted = map(np.asarray, counts)
    for t, row in zip(length.thresholds, correct, strict=True):
        fractions[length.name(t)] = row / np.maximum(counted, 1)
    rows = []
    for k, keypoint in enumerate(table.keypoints.names):
        errors = distance[labeled[:, k] & poses.valid, k]
        rows.append(
            {
                "name": keypoint,
                "labelled": int(labeled[:, k].sum()),
                "hidden": int((visibility[:, k] == 1).sum()),
                "median_error": float(np.median(errors)) if len(errors) else None,
                "mean_error": float(errors.mean()) if len(errors) else None,
                **{name: float(values[k]) for name, values in fractions.items()},
                "score": float(poses.keypoint_scores[:, k].mean()),
            }
        )
    return rows


def notes(
    table: Table,
    poses: Poses,
    metrics: Mapping[str, float],
    results: Sequence[Mapping[str, Any]] | None = None,
) -> list[str]:
    """Explains special values: why AP is missing, -1 or 0; unusual torsos and sticks."""
    if table.ground_truth is None:
        return [
            f"no metrics: {table.name} has no labels. {RESULTS} has the format of COCO's "
            "evaluation server",
            *table.notes,
        ]
    found, ap = [], full_name("AP", table)
    if table.matched:
        found.append(f"compared: {table.matched}")
    if not poses.valid.all():
        found.append(
            f"{(~poses.valid).sum()} people are in images that could not be read: they "
            "count as missed, and have no pixel_error and box_error"
        )
    if ap not in metrics:
        found.append(f"AP not computed: {no_ap(table.keypoints)}")
    elif metrics[ap] <= 0:
        if results is None:
            results = to_results(table, poses)
        reasons = why_no_ap(table.ground_truth.coco_ground_truth(), results)
        found += [f"{ap} is {metrics[ap]:g}: {reason}" for reason in reasons]
    if ap in metrics:
        found += _crowded(table, poses, ap)
    for name in (*_TORSO_COUNTS[1:], "PCP_sticks_of_length_zero"):
        full = full_name(name, table)
        if metrics.get(full, 0) > 0:
            found.append(f"{full} is {metrics[full]:g}: {FORMULAS[name]}")
    return table.remarks() + found


def folder(table: Table, decoder: str) -> str:
    """Returns the folder of an evaluation, relative to RUN/eval or --out."""
    return f"{table.box_source}/{decoder}"


def written(out: Path, table: Table, results: Sequence[Mapping[str, Any]]) -> str:
    """Describes the output of `pose-jax eval` in `out`."""
    del results
    return f"metrics and predictions: {out / table.box_source}"


def relative_errors(table: Table, poses: Poses) -> np.ndarray:
    """Returns [n] mean error of each person over the square root of the box area, by which
    people are ranked."""
    labeled = (table.visibility[poses.row] > 0) & poses.valid[:, None]
    mean = np.where(labeled, _distance(table, poses), 0).sum(1) / np.maximum(
        labeled.sum(1), 1
    )
    boxes = table.boxes_xyxy[poses.row]
    return mean / np.maximum(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)), 1)


def draw(
    table: Table, poses: Poses, image: int, *, side: int | None = None
) -> np.ndarray:
    """Draws an image of a table with all predicted people, uint8 [h, w, 3].

    Args:
      table: the images.
      poses: the predictions.
      image: index of the image.
      side: longer side of the picture; None: that of the image.
    """
    which = (table.image[poses.row] == image) & poses.valid
    drawn = drawing.draw_people(
        canvas.shown(table, image),
        poses.points_xy[which],
        table.keypoints,
        scores=poses.keypoint_scores[which],
    )
    if side is None:
        return drawn
    scale = side / max(drawn.shape[:2])
    size = [max(1, round(length * scale)) for length in drawn.shape[1::-1]]
    resized = Image.fromarray(drawn).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized)


def images(table: Table, poses: Poses) -> np.ndarray:
    """Returns the indices of the images that have predictions."""
    return np.unique(table.image[poses.row])


def worst(table: Table, poses: Poses, count: int = 12) -> np.ndarray | None:
    """Draws the people with the largest `relative_errors`, ground truth and prediction."""
    if not table.labelled:
        return None
    distance, cells, titles = _distance(table, poses), [], []
    for i in np.argsort(-relative_errors(table, poses))[:count]:
        row = poses.row[i]
        labeled = table.visibility[row] > 0
        cells += person(table, poses, i, side=160)
        error = distance[i][labeled].mean() if labeled.any() else np.nan
        titles += [f"id {table.ids[row]}: labels", f"error {error:.1f} px"]
    return sheet_lib.sheet(cells, columns=8, titles=titles)


def person(table: Table, poses: Poses, i: int, side: int) -> list[np.ndarray]:
    """Draws one person enlarged: the ground truth, if there is one, and the prediction.

    Args:
      table: the people.
      poses: the predictions.
      i: index of the prediction.
      side: longer side of each picture.
    """
    row = poses.row[i]
    visibility, points = table.visibility[row], table.points_xy[row]
    image = canvas.shown(table, int(table.image[row]))
    window, low = crop(image, table.boxes_xyxy[row], points[visibility > 0])
    scale = side / max(window.shape[:2])
    shown = [(poses.points_xy[i], {"scores": poses.keypoint_scores[i]})]
    if table.labelled:
        shown.insert(0, (points, {"visibility": visibility}))
    return [
        drawing.draw_pose(window, xy - low, table.keypoints, scale=scale, **marks)
        for xy, marks in shown
    ]


def crop(
    image: np.ndarray, box_xyxy: np.ndarray, points_xy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the part of an image around a box and points, and its first corner [2]."""
    corners = np.concatenate([box_xyxy.reshape(2, 2), points_xy])
    low, high = corners.min(0), corners.max(0)
    margin = 4 + 0.1 * (high - low).max()
    h, w = image.shape[:2]
    low = np.clip(np.floor(low - margin).astype(int), 0, [w - 1, h - 1])
    high = np.clip(np.ceil(high + margin).astype(int), low + 1, [w, h])
    return image[low[1] : high[1], low[0] : high[0]], low


def _points(poses: Poses) -> np.ndarray:
    """Returns the points as float32; infinitely far away if the image was not read."""
    valid = poses.valid[:, None, None]
    return np.where(valid, poses.points_xy, np.inf).astype(np.float32)


def _distance(table: Table, poses: Poses) -> np.ndarray:
    """Returns [n, k] distances to the labels in pixels; arbitrary without label."""
    return np.linalg.norm(poses.points_xy - table.points_xy[poses.row], axis=-1)


def _fraction(correct, counted) -> float:
    """Returns the fraction of counted items that are correct; 0 if none is counted."""
    return float(np.sum(correct)) / max(int(np.sum(counted)), 1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
