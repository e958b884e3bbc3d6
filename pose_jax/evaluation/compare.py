"""Two models on the same people: is the difference more than chance? (eval --compare)

Paired bootstrap over images: both models' predictions of the same resampled images, many
times; the interval is what 95% of the differences span. Images, not people: people of one
image are not independent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.evaluation import evaluate, lengths, poses
from pose_jax.keypoints import LIMBS
from pose_jax.metrics.coco import MatchedImages, match_keypoints
from pose_jax.runs import directory
from pose_jax.types import Poses

SAMPLES = 2000

PerImage = Callable[[np.ndarray], np.ndarray]
"""How often each image counts, [s, m], to a metric of each sample, [s]."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One metric of two models, and the 95% interval of B - A."""

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
    samples: int = SAMPLES,
) -> str:
    """Predicts with both and says how they differ, as text.

    Args:
      run_a, run_b: RUN or RUN:DECODER.
      data, split, boxes: as of `evaluate.evaluate_run`; the people are those of run A.
      samples: of the bootstrap.

    Raises:
      InputError: the models have different keypoint sets.
    """
    (path_a, decoder_a), (path_b, decoder_b) = map(_parse, (run_a, run_b))
    first, second = directory.load(path_a), directory.load(path_b)
    for path, loaded in ((path_a, first), (path_b, second)):
        if loaded.keypoints is None:
            raise InputError(f"{path} is a detector: poses are compared, not boxes.")
    if first.keypoints != second.keypoints:
        raise InputError(
            f"{path_a} has keypoints {first.keypoints.name!r}, {path_b} "
            f"{second.keypoints.name!r}: they cannot be compared."
        )
    table = first.eval_table(data=data, split=split, boxes=boxes)
    mesh = sharding_lib.make_mesh()

    def predict(loaded, decoder):
        predictor = evaluate.Predictor(loaded.method(decoder), mesh)
        return evaluate.evaluate(
            predictor, loaded.variables, table, loaded.input
        ).predictions

    found = differences(
        table, predict(first, decoder_a), predict(second, decoder_b), samples=samples
    )
    people = len(table.labelled_rows()) if table.labelled else len(table)
    head = (
        f"A: {run_a}\nB: {run_b}\n{people} people of {len(table.images)} images of "
        f"{table.name}; B - A with its 95% interval, {samples} paired bootstrap samples "
        "of images"
    )
    return f"{head}\n{table_of(found)}"


def differences(
    table: Table, a: Poses, b: Poses, *, samples: int = SAMPLES, seed: int = 0
) -> list[Difference]:
    """Every metric that is a mean over images' people, of two sets of predictions."""
    statistics_a, statistics_b = per_image(table, a), per_image(table, b)
    m = len(table.images)
    rng = np.random.default_rng(seed)
    whole = np.ones((1, m), np.int64)
    found = {name: [] for name in statistics_a}
    for start in range(0, samples, 100):  # In parts, for memory.
        n = min(100, samples - start)
        counts = rng.multinomial(m, np.full(m, 1 / m), size=n)
        for name, values in found.items():
            values.append(statistics_b[name](counts) - statistics_a[name](counts))
    result = []
    for name, values in found.items():
        low, high = np.nanquantile(np.concatenate(values), (0.025, 0.975))
        result.append(
            Difference(
                name=name,
                a=float(statistics_a[name](whole)[0]),
                b=float(statistics_b[name](whole)[0]),
                low=float(low),
                high=float(high),
            )
        )
    return result


def per_image(table: Table, predictions: Poses) -> dict[str, PerImage]:
    """Metrics by full name, as functions of how often each image counts."""
    found: dict[str, PerImage] = {}
    keypoints = table.keypoints
    if keypoints.sigmas is not None:
        matched = match_keypoints(
            (table.ground_truth or table).coco_ground_truth(),
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
    labelled = visibility > 0
    distance = np.linalg.norm(predictions.points_xy - true_xy, axis=-1)

    def add(name, numerator, denominator, threshold=None):  # [people] each
        sums = [
            np.bincount(image, values, minlength=len(table.images))
            for values in (numerator, denominator)
        ]
        ratio = lambda counts: (counts @ sums[0]) / np.maximum(counts @ sums[1], 1e-9)
        found[poses.full_name(name, table, threshold)] = ratio
        return ratio

    add("pixel_error", np.where(labelled, distance, 0).sum(1), labelled.sum(1))
    if lengths.metrics(table):
        length = lengths.length(table, predictions.row)
        pixels = length.usable[:, None]
        counted = labelled & np.isfinite(pixels) & length.counts
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
            its = [name == kind for name, _, _ in keypoints.sticks]
            if counted[:, its].any():
                sums = correct[:, its].sum(1), counted[:, its].sum(1)
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
    """Differences as text; * marks those whose interval has no 0 in it."""
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
    """RUN or RUN:DECODER; a folder whose own name has a colon is taken whole."""
    if not Path(text).exists() and ":" in text:
        path, decoder = text.rsplit(":", 1)
        return Path(path), decoder
    return Path(text), None
