"""Comparison of two models on the same people, with 95% intervals (eval --compare).

Paired bootstrap over images: both models are measured on the same resampled images; the
interval spans 95% of the differences. Images are resampled, not people, because the people
of one image are not independent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.evaluation import evaluate, lengths, poses
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import LIMBS
from pose_jax.metrics.coco import MatchedImages, match_keypoints
from pose_jax.runs import model as model_lib
from pose_jax.types import Poses

SAMPLES = 2000

PerImage = Callable[[np.ndarray], np.ndarray]
"""Maps the multiplicity of each image, [s, m], to a metric of each sample, [s]."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of two models, and the 95% interval of B - A."""

    name: str
    a: float
    b: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.b - self.a


def compare(
    run_a: str,
    run_b: str,
    *,
    data: str | None = None,
    split: str | None = None,
    boxes: str = "gt",
    annotations: str | None = None,
    format: str | None = None,
    match_keypoints: bool = False,
    samples: int = SAMPLES,
) -> str:
    """Evaluates two runs and returns their differences as text.

    Args:
      run_a, run_b: RUN or RUN:DECODER.
      data, split, boxes, annotations, format: as in `LoadedRun.eval_table`, for the
        evaluation data of run A.
      match_keypoints: compare the keypoints that both runs and the data have by the same
        name, if they have several keypoint sets.
      samples: number of bootstrap samples.

    Raises:
      InputError: a run is a detector, the keypoint sets differ, or there are no labels.
    """
    (path_a, decoder_a), (path_b, decoder_b) = map(_parse, (run_a, run_b))
    first, second = model_lib.load(path_a), model_lib.load(path_b)
    names = []
    for path, loaded in ((path_a, first), (path_b, second)):
        if loaded.keypoints is None:
            raise InputError(
                f"{path} is a detector: --compare only supports pose runs."
            )
        names.append(loaded.keypoints.name)
    if first.keypoints != second.keypoints and not match_keypoints:
        raise InputError(
            f"{path_a} has keypoint set {names[0]!r}, {path_b} has "
            f"{names[1]!r}: give two runs with the same set, or compare the keypoints of "
            "the same name by --match-keypoints."
        )
    table = first.eval_table(
        data=data,
        split=split,
        boxes=boxes,
        annotations=annotations,
        format=format,
        match_keypoints=match_keypoints,
    )
    if second.keypoints is not None and second.keypoints != first.keypoints:
        table = table.matched_to(second.keypoints)
    if table.ground_truth is None:
        raise InputError(f"{table.name} has no labels, so that nothing is measured.")
    mesh = sharding_lib.make_mesh()

    def predict(loaded, decoder) -> Any:
        predictor = Predictor(loaded.method(decoder), mesh)
        return evaluate.evaluate(
            predictor, loaded.variables, table, loaded.input
        ).predictions

    metrics = differences(
        table, predict(first, decoder_a), predict(second, decoder_b), samples=samples
    )
    people = len(table.labelled_rows()) if table.labelled else len(table)
    data_name = f"{table.name}, {table.matched}" if table.matched else table.name
    head = (
        f"A: {run_a}\nB: {run_b}\n{people} people in {len(table.images)} images of "
        f"{data_name}; B - A with 95% intervals from {samples} paired bootstrap samples "
        "of images"
    )
    return f"{head}\n{table_of(metrics)}"


def differences(
    table: Table, a: Poses, b: Poses, *, samples: int = SAMPLES, seed: int = 0
) -> list[Difference]:
    """Computes the differences of all metrics of `per_image` between two predictions."""
    statistics_a, statistics_b = per_image(table, a), per_image(table, b)
    m = len(table.images)
    rng = np.random.default_rng(seed)
    once = np.ones((1, m), np.int64)
    sampled = {name: [] for name in statistics_a}
    for start in range(0, samples, 100):  # In chunks, to limit memory.
        n = min(100, samples - start)
        counts = rng.multinomial(m, np.full(m, 1 / m), size=n)
        for name, values in sampled.items():
            values.append(statistics_b[name](counts) - statistics_a[name](counts))
    result = []
    for name, values in sampled.items():
        low, high = np.nanquantile(np.concatenate(values), (0.025, 0.975))
        result.append(
            Difference(
                name=name,
                a=float(statistics_a[name](once)[0]),
                b=float(statistics_b[name](once)[0]),
                low=float(low),
                high=float(high),
            )
        )
    return result


def per_image(table: Table, predictions: Poses) -> dict[str, PerImage]:
    """Returns metrics by full name, as functions of the multiplicity of each image."""
    found: dict[str, PerImage] = {}
    keypoints = table.keypoints
    if table.ground_truth is not None and keypoints.sigmas is not None:
        matched = match_keypoints(
            table.ground_truth.coco_ground_truth(),
            poses.to_results(table, predictions),
            sigmas=keypoints.sigmas,
        )
        for name, threshold in (("AP", None), ("AP50", 0), ("AP75", 5)):
            found[poses.full_name(name, table)] = _ap(matched, threshold)
    if not table.labelled:
        return found
    image = table.image[predictions.row]
    true_xy = table.points_xy[predictions.row].astype(np.float32)
    visibility = table.visibility[predictions.row]
    labeled = visibility > 0
    distance = np.linalg.norm(predictions.points_xy - true_xy, axis=-1)

    def add(name, numerator, denominator, threshold=None):  # [people] each
        sums = [
            np.bincount(image, values, minlength=len(table.images))
            for values in (numerator, denominator)
        ]
        ratio = lambda counts: (counts @ sums[0]) / np.maximum(counts @ sums[1], 1e-9)
        found[poses.full_name(name, table, threshold)] = ratio
        return ratio

    add("pixel_error", np.where(labeled, distance, 0).sum(1), labeled.sum(1))
    length = lengths.length(table, predictions.row)
    pixels = length.usable[:, None]
    counted = labeled & np.isfinite(pixels) & length.counts
    for threshold in length.thresholds:
        correct = counted & (distance <= np.float32(threshold) * pixels)
        add(length.metric, correct.sum(1), counted.sum(1), threshold)
    if keypoints.sticks:
        each = jax.jit(
            jax.vmap(lambda p, t, v: metrics_lib.pcp(p, t, v, keypoints.sticks))
        )
        points_xy = predictions.points_xy.astype(np.float32)
        correct, counted = map(np.asarray, each(points_xy, true_xy, visibility))
        add("PCP", correct.sum(1), counted.sum(1), 0.5)
        limbs = []
        for kind in LIMBS:
            of_kind = [name == kind for name, _, _ in keypoints.sticks]
            if counted[:, of_kind].any():
                sums = correct[:, of_kind].sum(1), counted[:, of_kind].sum(1)
                limbs.append(add(f"PCP_{kind}", *sums, 0.5))
        if limbs:
            found[poses.full_name("PCP_limbs", table, 0.5)] = lambda counts: np.mean(
                [limb(counts) for limb in limbs], axis=0
            )
    return found


def _ap(matched: MatchedImages, threshold: int | None) -> PerImage:
    which = slice(None) if threshold is None else slice(threshold, threshold + 1)
    return lambda counts: np.array([matched.ap(row)[which].mean() for row in counts])


def table_of(found: list[Difference]) -> str:
    """Formats differences as text; * marks those whose interval excludes 0."""
    width = max(len(d.name) for d in found)
    lines = [f"{'metric'.ljust(width)}  {'A':>8}  {'B':>8}  {'B - A':>8}  95% interval"]
    for d in found:
        mark = " *" if d.low > 0 or d.high < 0 else ""
        lines.append(
            f"{d.name.ljust(width)}  {d.a:8.4f}  {d.b:8.4f}  {d.difference:+8.4f}  "
            f"[{d.low:+.4f}, {d.high:+.4f}]{mark}"
        )
    return "\n".join(lines)


def _parse(text: str) -> tuple[Path, str | None]:
    """Parses RUN or RUN:DECODER; an existing folder with a colon in its name is a RUN."""
    if not Path(text).exists() and ":" in text:
        path, decoder = text.rsplit(":", 1)
        return Path(path), decoder
    return Path(text), None
