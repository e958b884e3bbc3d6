"""Average precision of keypoints and boxes by pycocotools. Host code: no jit.

Ground truth and results are in COCO's JSON forms: points are (x, y) image pixels with
integer centers, boxes (x, y, width, height). The evaluator itself is pycocotools. Added
here: checks of what it accepts silently (a NaN prediction matches any person; a person
with annotation id 0 is never matched), other numbers of keypoints, and empty results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax.errors import InputError

GroundTruth = str | Path | Mapping[str, Any]
"""A file, or its content: a mapping with "images", "categories" and "annotations"."""
Results = str | Path | Sequence[Mapping[str, Any]]
"""A file, or its content: one mapping per detection."""


def coco_keypoint_ap(
    ground_truth: GroundTruth,
    results: Results,
    *,
    sigmas: Sequence[float] | np.ndarray | None = None,
    max_detections: int = 20,
) -> dict[str, float]:
    """Keypoint AP and AR: precision over OKS thresholds 0.50:0.05:0.95.

    The area of a detection, which decides whether an unmatched one counts as medium or
    large, is that of its keypoints' extent, even if it has a box.

    Args:
      ground_truth: file or dictionary in the form of COCO's person_keypoints files. An
        annotation has image_id, category_id, keypoints (3k numbers: x, y, visibility),
        bbox and area (square pixels, the normalizer of OKS). Where missing, iscrowd is
        0 and num_keypoints is counted from visibility. Annotation ids are not read.
      results: file or list of {"image_id", "category_id", "keypoints" (3k numbers; each
        third is ignored), "score"}; other fields are ignored. May be empty.
      sigmas: OKS fall-off of each keypoint. Without them k must be 17, taken as COCO's.
      max_detections: number of detections per image that count, by descending score.

    Returns:
      AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl in this order: in [0, 1], or -1 where
      there is no ground truth.

    Raises:
      ValueError: AP is not defined (no sigmas for k != 17), an image_id of the results
        is unknown to the ground truth, or a field is missing, too long or short, or not
        finite.

    Source: COCO keypoint evaluation, cocodataset.org/#keypoints-eval.
    """
    evaluator = _match(ground_truth, results, sigmas, max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
    # [threshold, recall, category, area]; recall without the second axis.
    tables = {name: evaluator.eval[name][..., 0] for name in ("precision", "recall")}
    every = slice(None)
    parts = {
        "": (every, 0),
        "50": (0, 0),
        "75": (5, 0),
        "m": (every, 1),
        "l": (every, 2),
    }
    return {
        f"{name}{key}": _mean(tables[table][threshold, ..., area])
        for name, table in (("AP", "precision"), ("AR", "recall"))
        for key, (threshold, area) in parts.items()
    }


def _match(ground_truth, results, sigmas, max_detections):
    """Checks both files and matches people to detections; returns the evaluator."""
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1; got {max_detections}.")
    truth, people = _load_ground_truth(ground_truth)
    detections = _load_results(results, truth, "keypoints")
    k = _number_of_keypoints(truth, people, detections, sigmas)
    for person in people:
        xyv = _numbers(person, "keypoints", 3 * k, "annotation")
        person.setdefault("num_keypoints", int(np.count_nonzero(xyv[2::3] > 0)))
        _numbers(person, "bbox", 4, "annotation")
    values = _all_numbers(detections, "keypoints", 3 * k)
    areas = np.ptp(values[:, 0::3], axis=1) * np.ptp(values[:, 1::3], axis=1)
    # Arrays from here on: pycocotools would otherwise convert lists for every pair.
    for person, area, points in zip(detections, areas.tolist(), values, strict=True):
        person["area"], person["keypoints"] = area, points
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = _evaluator(truth, people, detections, "keypoints")
        evaluator.computeOks = functools.partial(_oks_of_image, evaluator)
        evaluator.params.maxDets = [max_detections]
        if sigmas is not None:
            evaluator.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluator.evaluate()
    return evaluator


def _oks_of_image(evaluator, image_id, category_id):
    """`COCOeval.computeOks` for all detections at once; equal to the bit."""
    params = evaluator.params
    people = evaluator._gts[image_id, category_id]
    detections = evaluator._dts[image_id, category_id]
    order = np.argsort([-item["score"] for item in detections], kind="mergesort")
    order = order[: params.maxDets[-1]]
    if not len(people) or not len(order):
        return []
    xyv = np.stack([detections[i]["keypoints"] for i in order])
    x, y = xyv[:, 0::3], xyv[:, 1::3]
    variances = (params.kpt_oks_sigmas * 2) ** 2
    oks = np.zeros((len(order), len(people)))
    for j, person in enumerate(people):
        truth = np.array(person["keypoints"])
        labelled = truth[2::3] > 0
        if labelled.any():
            dx, dy = x - truth[0::3], y - truth[1::3]
        else:  # Distance from the box, enlarged by its own size on each side.
            x0, y0, w, h = person["bbox"]
            dx = np.maximum(0, x0 - w - x) + np.maximum(0, x - (x0 + w * 2))
            dy = np.maximum(0, y0 - h - y) + np.maximum(0, y - (y0 + h * 2))
            labelled = np.ones_like(labelled)
        area = person["area"] + np.spacing(1)
        squared = (dx**2 + dy**2) / variances / area / 2
        # Contiguous rows give the summation order of pycocotools.
        squared = np.ascontiguousarray(squared[:, labelled])
        oks[:, j] = np.sum(np.exp(-squared), axis=1) / squared.shape[1]
    return oks


@dataclasses.dataclass(frozen=True)
class MatchedImages:
    """Matches of detections and people, for fast AP of resampled images.

    Attributes:
      image: [d] index of each detection's image, by descending score.
      right: [10, d] bool, whether it is a true positive, by OKS threshold.
      counts: [10, d] bool, False where it is ignored.
      people: [m] number of ground-truth people in each image.
    """

    image: np.ndarray
    right: np.ndarray
    counts: np.ndarray
    people: np.ndarray

    def ap(self, times: np.ndarray) -> np.ndarray:
        """Returns AP by OKS threshold [10] of images repeated `times` [m] times each.

        NaN if there are no ground-truth people.
        """
        total = float(times @ self.people)
        if total == 0:
            return np.full(len(self.right), np.nan)
        weight = times[self.image]
        hits = np.cumsum(weight * (self.right & self.counts), axis=1)
        wrong = np.cumsum(weight * (~self.right & self.counts), axis=1)
        precision = hits / np.maximum(hits + wrong, np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recalls = np.linspace(0, 1, 101)
        ap = np.zeros(len(self.right))
        for t, recall in enumerate(hits / total):
            at = np.searchsorted(recall, recalls, side="left")
            at = at[at < len(recall)]
            ap[t] = precision[t, at].sum() / len(recalls)
        return ap


def match_keypoints(
    ground_truth: GroundTruth,
    results: Results,
    *,
    sigmas: Sequence[float] | np.ndarray | None = None,
    max_detections: int = 20,
) -> MatchedImages:
    """Returns the matches that `coco_keypoint_ap` counts, for all areas, by image.

    Args and errors: as of `coco_keypoint_ap`; the ground truth has one category.
    """
    evaluator = _match(ground_truth, results, sigmas, max_detections)
    truth = _load(ground_truth, "the annotations")
    place = {image["id"]: i for i, image in enumerate(truth["images"])}
    thresholds = len(evaluator.params.iouThrs)
    image, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
    right, ignored = ([np.zeros((thresholds, 0), bool)] for _ in range(2))
    people = np.zeros(len(place), np.int64)
    whole = evaluator.params.areaRng[0]
    for matched in evaluator.evalImgs:
        if matched is None or matched["aRng"] != whole:
            continue
        i = place[matched["image_id"]]
        people[i] += int((np.asarray(matched["gtIgnore"]) == 0).sum())
        n = min(len(matched["dtScores"]), max_detections)
        image.append(np.full(n, i))
        scores.append(np.asarray(matched["dtScores"], np.float64)[:n])
        right.append(np.asarray(matched["dtMatches"])[:, :n] > 0)
        ignored.append(np.asarray(matched["dtIgnore"], bool)[:, :n])
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    return MatchedImages(
        image=np.concatenate(image)[order],
        right=np.concatenate(right, 1)[:, order],
        counts=~np.concatenate(ignored, 1)[:, order],
        people=people,
    )


def coco_box_ap(ground_truth: GroundTruth, results: Results) -> dict[str, float]:
    """Box AP and AR: precision over IoU thresholds 0.50:0.05:0.95.

    The mean is over all categories that have ground truth, as in COCO's tables: to
    evaluate a person detector, pass annotations of people only.

    Args:
      ground_truth: file or dictionary in the form of COCO's instances or
        person_keypoints files. An annotation has image_id, category_id, bbox and area;
        iscrowd is 0 where missing. Annotation ids are not read.
      results: file or list of {"image_id", "category_id", "bbox", "score"}; other
        fields are ignored. May be empty.

    Returns:
      AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl in this order: in [0, 1], or
      -1 where there is no ground truth.

    Raises:
      ValueError: an image_id of the results is unknown to the ground truth, or a field
        is missing, too long or short, or not finite.

    Source: COCO detection evaluation, cocodataset.org/#detection-eval.
    """
    truth, objects = _load_ground_truth(ground_truth)
    detections = _load_results(results, truth, "bbox")
    for item in objects:
        _numbers(item, "bbox", 4, "annotation")
    values = _all_numbers(detections, "bbox", 4)
    for item, area in zip(
        detections, (values[:, 2] * values[:, 3]).tolist(), strict=True
    ):
        item["area"] = area
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = _evaluator(truth, objects, detections, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    # [threshold, recall, category, area, detections]; recall without the second axis.
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    return {
        "AP": _mean(precision[..., 0, 2]),
        "AP50": _mean(precision[0, ..., 0, 2]),
        "AP75": _mean(precision[5, ..., 0, 2]),
        "APs": _mean(precision[..., 1, 2]),
        "APm": _mean(precision[..., 2, 2]),
        "APl": _mean(precision[..., 3, 2]),
        "AR1": _mean(recall[..., 0, 0]),
        "AR10": _mean(recall[..., 0, 1]),
        "AR100": _mean(recall[..., 0, 2]),
        "ARs": _mean(recall[..., 1, 2]),
        "ARm": _mean(recall[..., 2, 2]),
        "ARl": _mean(recall[..., 3, 2]),
    }


def _evaluator(truth, annotations, detections, kind) -> Any:
    """Builds a COCOeval over copies, since pycocotools modifies its inputs."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("AP needs pycocotools: pip install pycocotools") from error

    fixed = {field: truth[field] for field in ("images", "categories")}

    def index(items):
        # Ids from 1: pycocotools reads a match with id 0 as no match.
        items = [{**item, "id": i} for i, item in enumerate(items, 1)]
        coco: Any = COCO()
        coco.dataset = {**fixed, "annotations": items}
        coco.createIndex()
        return coco

    return COCOeval(index(annotations), index(detections), kind)


def _load(content: Any, what: str) -> Any:
    if not isinstance(content, str | Path):
        return content
    try:
        return json.loads(Path(content).read_text())
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError as error:
        reason = f"are not JSON: {error}"
    raise InputError(f"{content}: {what} {reason}.")


def _load_ground_truth(ground_truth: GroundTruth) -> tuple[Any, list[dict[str, Any]]]:
    """Returns the dictionary, and checked copies of its annotations."""
    truth = _load(ground_truth, "the annotations")
    for field in ("images", "categories", "annotations"):
        if not isinstance(truth, Mapping) or field not in truth:
            raise InputError(f'the ground truth has no "{field}"; is it a COCO file?')
    annotations = [{"iscrowd": 0, **item} for item in truth["annotations"]]
    for item in annotations:
        for field in ("image_id", "category_id", "area"):
            _require(item, field, "annotation")
        _finite(item, "area", "annotation")
    return truth, annotations


def _load_results(results: Results, truth: Any, field: str) -> list[dict[str, Any]]:
    """Returns checked copies of the results with the required fields only."""
    items = _load(results, "the results")
    if not isinstance(items, Sequence):
        raise InputError("the results must be a list with one mapping per detection.")
    known = {image["id"] for image in truth["images"]}
    names, detections = ("image_id", "category_id", "score", field), []
    for index, item in enumerate(items):
        for name in names:
            _require(item, name, f"result {index}")
        if item["image_id"] not in known:
            raise InputError(
                f"result {index}: image_id {item['image_id']!r} is none of the ground "
                f"truth's {len(known)} images; are both from the same split?"
            )
        _finite(item, "score", f"result {index}")
        detections.append({name: item[name] for name in names})
    return detections


def _number_of_keypoints(truth, people, detections, sigmas) -> int:
    """Returns k from sigmas, else from the data; raises where AP is undefined."""
    if sigmas is not None:
        values = np.asarray(sigmas, np.float64)
        if values.ndim != 1 or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(
                f"sigmas must be a list of positive numbers; got {sigmas}."
            )
        return len(values)
    named = [c["keypoints"] for c in truth["categories"] if c.get("keypoints")]
    labelled = [p["keypoints"] for p in (*people, *detections) if "keypoints" in p]
    k = len(named[0]) if named else len(labelled[0]) // 3 if labelled else 17
    if k != 17:
        raise InputError(
            f"AP of {k} keypoints needs sigmas, one per keypoint: without them OKS is "
            "undefined, and COCO's 17 were measured for its own keypoints. Pass sigmas, or "
            "use PCK or PDJ, which need none."
        )
    return k


def _numbers(item, field, length, what) -> np.ndarray:
    """Returns a field as [length] float64."""
    _require(item, field, what)
    values = np.asarray(item[field], np.float64)
    if values.shape != (length,):
        raise InputError(
            f"{_name(item, what)}: {field} must be {length} numbers; got {values.size}."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{_name(item, what)}: {field} is not finite.")
    return values


def _all_numbers(results, field, length) -> np.ndarray:
    """Returns a field of all results as [n, length] float64; raises for invalid ones."""
    rows = [_numbers(r, field, length, f"result {i}") for i, r in enumerate(results)]
    return np.array(rows).reshape(len(rows), length)


def _require(item, field, what) -> None:
    if field not in item:
        raise InputError(f'{_name(item, what)}: there is no "{field}".')


def _finite(item, field, what) -> None:
    if not math.isfinite(item[field]):
        raise InputError(f"{_name(item, what)}: {field} is {item[field]}, not finite.")


def _name(item, what) -> str:
    if what != "annotation":
        return f"{what} (image_id {item.get('image_id')!r})"
    return f"annotation {item.get('id')} (image_id {item.get('image_id')!r})"


def _mean(values: np.ndarray) -> float:
    """Returns the mean without -1, which in pycocotools means no ground truth."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0


def why_no_ap(ground_truth: GroundTruth, results: Results) -> list[str]:
    """Explains a keypoint AP of 0 or -1.

    Args:
      ground_truth, results: as of `coco_keypoint_ap`, which accepted them.

    Returns:
      One or more lines, each with a reason, its counts and what to do.
    """
    truth, people = _load_ground_truth(ground_truth)
    detections = _load_results(results, truth, "keypoints")
    if not people:
        return ["the ground truth has no annotations: is it the right file?"]
    points = [np.asarray(p.get("keypoints", []), np.float64) for p in people]
    labelled = [int((xyv[2::3] > 0).sum()) for xyv in points]
    counted = [i for i, p in enumerate(people) if labelled[i] and not p["iscrowd"]]
    if not counted:
        return [
            f"none of the {len(people)} annotated people is counted: "
            f"{sum(bool(p['iscrowd']) for p in people)} are crowd regions, "
            f"{labelled.count(0)} have no keypoint of visibility 1 or 2."
        ]
    ignored = [i for i in counted if people[i].get("num_keypoints") == 0]
    if len(ignored) == len(counted):
        return [
            f"all {len(counted)} labeled people have num_keypoints 0 and are ignored: set "
            "it to the number of labeled keypoints, or leave the field out."
        ]
    if not detections:
        return ["there are no predicted poses: no person boxes were given or detected."]
    reasons = []
    flat = [i for i in counted if people[i]["area"] <= 0]
    if flat:
        example = people[flat[0]].get("id")
        reasons.append(
            f"{len(flat)} of {len(counted)} labeled people have an area of 0 (first: "
            f"annotation {example}), for which OKS is 0 unless points are exact: set the "
            "segment's area, or about half of the box's."
        )
    met, none = _met(
        detections, [people[i] for i in counted], "results", "labeled people"
    )
    if not met:
        return [*reasons, none]
    inside, swapped = _inside_boxes([people[i] for i in counted])
    if swapped > 2 * inside:
        reasons.append(
            f"labeled keypoints lie in their boxes in {inside:.0%} of cases if bbox is "
            f"(x, y, width, height), in {swapped:.0%} if it is (x0, y0, x1, y1): the "
            "boxes, and so the crops, are in the wrong format."
        )
    true_extent = np.median([_extent(points[i]) for i in counted])
    predicted_extent = np.median([_extent(np.asarray(d["keypoints"])) for d in met])
    if not 0.25 < (predicted_extent + 1e-9) / (true_extent + 1e-9) < 4:
        reasons.append(
            f"predicted people span {predicted_extent:.3g} pixels in the median, labeled "
            f"ones {true_extent:.3g}: are predictions in pixels of the original image?"
        )
    if not reasons:
        reasons.append(
            f"{len(met)} results are in images with labeled people and in the right range, "
            "but none reaches OKS 0.5: the network is probably untrained, or the keypoints "
            "are in another order."
        )
    return reasons


def why_no_box_ap(ground_truth: GroundTruth, results: Results) -> list[str]:
    """Explains a box AP of 0 or -1.

    Args:
      ground_truth, results: as of `coco_box_ap`, which accepted them.

    Returns:
      One or more lines, each with a reason, its counts and what to do.
    """
    truth, objects = _load_ground_truth(ground_truth)
    detections = _load_results(results, truth, "bbox")
    counted = [item for item in objects if not item["iscrowd"]]
    if not counted:
        return [
            f"none of the {len(objects)} annotations is counted: there are no people, or "
            "only crowd regions. Is it the right file?"
        ]
    if not detections:
        return ["the detector produced no boxes; it is probably untrained."]
    met, none = _met(detections, counted, "boxes", "ground-truth boxes")
    if not met:
        return [none]
    side, true_side = (
        np.median([np.max(item["bbox"][2:]) for item in items])
        for items in (met, counted)
    )
    if not 0.25 < (side + 1e-9) / (true_side + 1e-9) < 4:
        return [
            f"the median longer side of boxes is {side:.3g} pixels, of ground-truth boxes "
            f"{true_side:.3g}: are they (x, y, width, height) in pixels of the original "
            "image? Boxes of an untrained network can be as far off."
        ]
    return [
        f"{len(met)} boxes are in images with ground-truth boxes and in the right range, "
        "but none reaches IoU 0.5: the detector is probably untrained."
    ]


def _met(detections, counted, results: str, labels: str) -> tuple[list[Any], str]:
    """Returns the results in images with labels, and the message if there are none."""
    images = {item["image_id"] for item in counted}
    return [item for item in detections if item["image_id"] in images], (
        f"none of the {len(detections)} {results} is in one of the {len(images)} images "
        f"with {labels} (results: image_id {detections[0]['image_id']!r}, labels: "
        f"{next(iter(images))!r}): do both use the same image ids?"
    )


def _extent(xyv: np.ndarray) -> float:
    """Returns the longer side of the extent of labeled (x, y, v), or of all if none is."""
    points = xyv.reshape(-1, 3)
    used = points[points[:, 2] > 0] if (points[:, 2] > 0).any() else points
    return float(np.ptp(used[:, :2], axis=0).max())


def _inside_boxes(people) -> tuple[float, float]:
    """Returns the fractions of labeled keypoints in boxes read as xywh and as xyxy."""
    inside, swapped = [], []
    for person in people:
        points = np.asarray(person["keypoints"], np.float64).reshape(-1, 3)
        points = points[points[:, 2] > 0][:, :2]
        low, size = np.asarray(person["bbox"], np.float64).reshape(2, 2)
        for hits, high in ((inside, low + size), (swapped, size)):
            slack = 0.1 * np.abs(high - low) + 1
            within = (points >= low - slack) & (points <= high + slack)
            hits += np.all(within, axis=-1).tolist()
    return float(np.mean(inside)), float(np.mean(swapped))
