"""A model over a table: predictions, metrics, files, pictures.

Training, `pose-jax eval` and `predict` all go through `Predictor`: one preprocessing, one
decoding. Every row counts exactly once; the last batch is padded and masked.

`measure` says what is measured, and the metrics' full names.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from PIL import Image

from pose_jax import config as config_lib
from pose_jax import nms
from pose_jax import sharding as sharding_lib
from pose_jax.data import canvas, readers
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import measure, pictures
from pose_jax.runs import directory
from pose_jax.types import Boxes, Method, Poses, Variables


class Predictor:
    """A method's jitted `predict`, kept so that it is traced once for all its uses."""

    def __init__(self, method: Method, mesh) -> None:
        self.method = method
        self.mesh = mesh

        def predict(variables, inputs):
            return method.predict(variables, inputs), inputs.valid

        # Replicated, so that every process holds all rows of a batch.
        self._predict = jax.jit(predict, out_shardings=sharding_lib.replicated(mesh))

    @property
    def traces(self) -> int:
        """How often `predict` has been traced."""
        return self._predict._cache_size()

    def __call__(
        self,
        variables: Variables,
        table: Table,
        config: readers.InputConfig,
        rows: np.ndarray | None = None,
        between_batches: Callable[[], None] | None = None,
    ) -> Poses | Boxes:
        """Predicts rows of a table.

        Args:
          variables: the weights.
          table: the rows' data.
          config: batch and canvas size.
          rows: table rows, for a detector image numbers; None for those that evaluation
            counts.
          between_batches: called there; what it raises comes through.

        Returns:
          NumPy leaves, one entry per row, in the order of `rows`.
        """
        plan = readers.Plan(
            table=table,
            view=self.method.view,
            config=config,
            rows=rows,
            training=False,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        parts = []
        for batch in readers.batches(plan):
            if between_batches is not None:
                between_batches()
            inputs = sharding_lib.put_batch(batch.inputs, self.mesh)
            # The batch before is fetched while this one is computed.
            parts.append(self._predict(variables, inputs))
            if len(parts) > 1:
                parts[-2] = jax.device_get(parts[-2])
        parts = jax.device_get(parts)
        merged, valid = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        merged = jax.tree.map(lambda leaf: leaf[valid], merged)
        # Batches may come in another order than the rows (canvases of several sizes).
        place = np.empty(len(table) + len(table.images), np.int64)
        place[merged.row] = np.arange(len(merged.row))
        return jax.tree.map(lambda leaf: leaf[place[plan.rows]], merged)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What happens between prediction and AP.

    Attributes:
      nms: what to do about poses of one image that overlap, by OKS: "oks" drops those
        above the threshold to a better one, "soft_oks" lowers their scores, "none". Only
        where boxes come from a detector: of annotated people all are kept.
      nms_threshold: OKS; 0.9 with the published top-down networks, 0.5 in MultiPose.
    """

    nms: Literal["none", "oks", "soft_oks"] = "oks"
    nms_threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.nms_threshold <= 1:
            raise ConfigError(
                f"nms_threshold is an OKS in (0, 1]; got {self.nms_threshold}."
            )


def suppress(table: Table, poses: Poses, config: EvaluationConfig) -> Poses:
    """Poses after OKS-NMS within each image, in the same order.

    A pose's area is that of its unpadded box.

    Raises:
      InputError: the keypoint set has no sigmas.
    """
    if config.nms == "none" or table.labelled or not len(poses.row):
        return poses
    if table.keypoints.sigmas is None:
        raise InputError(
            f"OKS-NMS needs sigmas; keypoint set {table.keypoints.name!r} has none. "
            "Evaluate without: nms none."
        )
    rows_of_image = _by_image(table.image[poses.row])
    size = table.boxes_xyxy[poses.row, 2:] - table.boxes_xyxy[poses.row, :2]
    areas = size.prod(-1).astype(np.float32)
    scores = poses.score.astype(np.float32).copy()
    keep = np.ones(len(scores), bool)
    # Images with about as many poses go together: few shapes, few compilations.
    slots = 2 ** np.ceil(np.log2([max(len(r), 2) for r in rows_of_image])).astype(int)
    for n in np.unique(slots):
        group = [r for r, s in zip(rows_of_image, slots, strict=True) if s == n]
        step = max(1, 4096 // int(n))
        for start in range(0, len(group), step):
            index = np.full((step, n), -1)
            for i, rows in enumerate(group[start : start + step]):
                index[i, : len(rows)] = rows
            kept, new = _nms(
                poses.points_xy[index],
                scores[index],
                areas[index],
                index >= 0,
                sigmas=table.keypoints.sigmas,
                how=config.nms,
                threshold=config.nms_threshold,
            )
            used = index >= 0
            keep[index[used]] = np.asarray(kept)[used]
            scores[index[used]] = np.asarray(new)[used]
    poses = dataclasses.replace(poses, score=scores)
    return jax.tree.map(lambda leaf: leaf[keep], poses)


@functools.partial(jax.jit, static_argnames=("sigmas", "how", "threshold"))
def _nms(points_xy, scores, areas, valid, *, sigmas, how, threshold):
    """Images of n slots: [i, n, k, 2] -> which stay [i, n], their scores [i, n]."""

    def one(points_xy, scores, areas, valid):
        rest = {"threshold": threshold, "valid": valid}
        args = points_xy, scores, areas, sigmas
        if how == "oks":
            return nms.oks_nms(*args, **rest), scores
        return valid, nms.soft_oks_nms(*args, **rest)

    return jax.vmap(one)(points_xy, scores, areas, valid)


def _by_image(image: np.ndarray) -> list[np.ndarray]:
    """Places of each image that occurs, in order."""
    order = np.argsort(image, kind="stable")
    cuts = np.flatnonzero(np.diff(image[order])) + 1
    return np.split(order, cuts)


def evaluate(
    predictor: Predictor,
    variables: Variables,
    table: Table,
    config: readers.InputConfig,
    evaluation: EvaluationConfig | None = None,
    *,
    between_batches: Callable[[], None] | None = None,
) -> tuple[dict[str, float], Poses | Boxes]:
    """Predicts and measures; returns metrics by full name, and the predictions that gave
    them. A detector's boxes count as they are: all images, and `evaluation` is of poses."""
    found = predictor(variables, table, config, between_batches=between_batches)
    if isinstance(found, Poses):
        found = suppress(table, found, evaluation or EvaluationConfig())
    return measure.measure(table, found), found


# ------------------------------------------------------------------------- RUN/eval


def evaluate_run(
    run: Path | str,
    *,
    decoders: Sequence[str] = (),
    flips: Sequence[str] = (),
    data: str | None = None,
    split: str | None = None,
    boxes: str = "gt",
    nms: str | None = None,
    nms_threshold: float | None = None,
) -> dict[str, dict[str, float]]:
    """Evaluates RUN/model and writes RUN/eval/<source of boxes>/<decoder>/.

    Of a detector it writes RUN/eval/images/: metrics, pictures, and detections.json, which
    `boxes` of a pose model's evaluation reads.

    Args:
      run: the run directory.
      decoders: read-outs of the network; empty for the run's own.
      flips: flip tests "none", "plain", "shift"; empty for the run's own. What is not its
        own is named: "dark_flip_shift".
      data, split: another root or split of the evaluation data; None for the config's.
      boxes: "gt", or a COCO detections json.
      nms, nms_threshold: as in EvaluationConfig; None for the run's own.

    Returns:
      Metrics by decoder.

    Raises:
      ConfigError: an option that the run's method does not have.
    """
    run = Path(run)
    loaded = directory.load(run)
    if loaded.keypoints is None:
        given = {
            "decoder": decoders, "flip": flips, "boxes": boxes != "gt", "nms": nms,
            "nms-threshold": nms_threshold is not None,
        }  # fmt: skip
        for option in (name for name, said in given.items() if said):
            raise ConfigError(
                f"--{option}: {run} is a detector, which makes its boxes itself and has no "
                f"keypoints; leave --{option} out."
            )
        return _evaluate_detector(
            run, loaded, loaded.eval_table(data=data, split=split)
        )
    table = loaded.eval_table(data=data, split=split, boxes=boxes)
    section = dict(loaded.manifest.get("evaluation") or {})
    given = {"nms": nms, "nms_threshold": nms_threshold}
    section |= {name: value for name, value in given.items() if value is not None}
    evaluation = config_lib.build(EvaluationConfig, section, "evaluation")
    mesh = sharding_lib.make_mesh()
    found, last = {}, None
    for name, method in _variants(loaded, decoders, flips).items():
        metrics, poses = evaluate(
            Predictor(method, mesh), loaded.variables, table, loaded.input, evaluation
        )
        found[name] = metrics
        last = poses
        out = run / "eval" / table.box_source / name
        out.mkdir(parents=True, exist_ok=True)
        per_keypoint = measure.per_keypoint(table, poses)
        for file, content in (
            ("metrics.json", metrics),
            ("keypoints.json", per_keypoint),
            ("predictions.json", measure.coco_results(table, poses)),
        ):
            directory.write_json(out / file, content)
    print(measure.table_of(found))
    if per_keypoint:
        print(f"\nby keypoint, {name}:\n{measure.keypoint_table(per_keypoint)}")
    for note in measure.notes(table, last, metrics):
        print(f"note: {note}")
    print(f"metrics and predictions: {run / 'eval' / table.box_source}")
    return found


def _evaluate_detector(
    run: Path, loaded: directory.LoadedRun, table: Table
) -> dict[str, dict[str, float]]:
    predictor = Predictor(loaded.method(), sharding_lib.make_mesh())
    metrics, boxes = evaluate(predictor, loaded.variables, table, loaded.input)
    out = run / "eval" / "images"
    out.mkdir(parents=True, exist_ok=True)
    directory.write_json(out / "metrics.json", metrics)
    results = measure.coco_results(table, boxes)
    directory.write_json(out / "detections.json", results)
    _draw_pictures(out, table, boxes)
    found = {loaded.decoder: metrics}
    print(measure.table_of(found))
    for note in measure.notes(table, boxes, metrics):
        print(f"note: {note}")
    print(
        f"{len(results)} boxes of {len(table.images)} images, metrics and pictures: {out}\n"
        f"people in them: pose-jax eval --run RUN --boxes {out / 'detections.json'}"
    )
    return found


def _variants(
    loaded: directory.LoadedRun, decoders: Sequence[str], flips: Sequence[str]
) -> dict[str, Method]:
    """Methods over the same weights, by what they are called in RUN/eval."""
    own_flip = loaded.manifest["method"].get("flip_test", "none")
    return {
        (decoder or loaded.decoder)
        + (f"_flip_{flip}" if flip not in (None, own_flip) else ""): loaded.method(
            decoder, flip
        )
        for decoder in decoders or (None,)
        for flip in flips or (None,)
    }


# --------------------------------------------------------------------------- pictures


def draw_run(
    run: Path,
    predictor: Predictor,
    table: Table,
    found: Poses | Boxes,
    variables: Variables,
    config: readers.InputConfig,
) -> Path:
    """Draws RUN/pictures: what was predicted, the worst of it, the panels of the method for
    a few people, curves."""
    out = Path(run) / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    _draw_pictures(out, table, found)
    method = predictor.method
    if method.panels:
        count = min(12, len(found.row))
        pick = np.linspace(0, len(found.row) - 1, count).astype(int)
        inspected = pictures.inspect(method, variables, table, config, found.row[pick])
        for panel, rows in pictures.drawn(method, inspected):
            drawing.save_png(out / f"{panel.file}.png", pictures.sheet(rows))
    drawing.curves(Path(run) / "metrics.jsonl", out / "curves.png")
    return out


def _draw_pictures(out: Path, table: Table, found: Poses | Boxes) -> None:
    """predictions.png of 24 images evenly spaced, and worst.png."""
    images = found.row
    if isinstance(found, Poses):
        images = np.unique(table.image[found.row])
    chosen = images[np.linspace(0, len(images) - 1, min(24, len(images))).astype(int)]
    drawing.save_png(
        out / "predictions.png",
        drawing.sheet(
            [draw_image(table, found, i, side=320) for i in chosen], columns=6
        ),
    )
    if isinstance(found, Boxes):
        if measure.has_truth(table):
            drawing.save_png(out / "worst.png", _worst_images(table, found))
    elif table.labelled:
        drawing.save_png(out / "worst.png", _worst(table, found))


def draw_image(
    table: Table, found: Poses | Boxes, image: int, *, side: int | None = None
) -> np.ndarray:
    """One image of a table with everybody predicted in it, uint8 [h, w, 3].

    Args:
      table: the images.
      found: the predictions. Of boxes those scored 0.5 and above are drawn, and thinly the
        best few of the others and the annotated ones.
      image: number of the image.
      side: the picture's longer side; None: that of the image.
    """
    pixels = canvas.decode(table, image)
    if isinstance(found, Boxes):
        (place,) = np.flatnonzero(found.row == image)
        # Lines and scores are drawn after scaling, to be seen in a small picture.
        scale = 1.0 if side is None else side / max(pixels.shape[:2])
        return _with_boxes(table, found, place, pixels, scale)
    mine = table.image[found.row] == image
    drawn = drawing.draw_people(
        pixels,
        found.points_xy[mine],
        table.keypoints,
        scores=found.keypoint_scores[mine],
    )
    return drawn if side is None else _scaled(drawn, side)


def _with_boxes(
    table: Table, boxes: Boxes, place: int, pixels: np.ndarray, scale: float
) -> np.ndarray:
    scores = np.where(boxes.valid[place], boxes.scores[place], -np.inf)
    order = np.argsort(-scores, kind="stable")
    drawn = order[
        np.isfinite(scores[order])
        & ((scores[order] >= measure.SURE) | (np.arange(len(order)) < _UNSURE))
    ]
    marks = {}
    if measure.has_truth(table):
        truth = table.truth or table
        people = truth.people_of_image(int(boxes.row[place]))
        marks = {"truth_xyxy": truth.boxes_xyxy[people], "crowd": truth.crowd[people]}
    return drawing.draw_boxes(
        pixels,
        boxes.boxes_xyxy[place, drawn],
        scores=scores[drawn],
        threshold=measure.SURE,
        scale=scale,
        **marks,
    )


_UNSURE = 3
"""So many boxes of an image are drawn at least, however unsure."""


def _worst_images(table: Table, boxes: Boxes, count: int = 12) -> np.ndarray:
    """The images with the most people missed or boxes that are nobody's, at IoU 0.5."""
    missed, false = measure.box_errors(table, boxes)
    cells, titles = [], []
    for place in np.argsort(-(missed + false), kind="stable")[:count]:
        image = boxes.row[place]
        cells.append(draw_image(table, boxes, image, side=320))
        titles.append(
            f"image {table.image_ids[image]}: {missed[place]} missed, {false[place]} false"
        )
    return drawing.sheet(cells, columns=6, titles=titles)


def _worst(table: Table, poses: Poses, count: int = 12) -> np.ndarray:
    """The people with the largest error over their box size: truth, then prediction."""
    true_xy, visibility = table.points_xy[poses.row], table.visibility[poses.row]
    labelled = visibility > 0
    distance = np.linalg.norm(poses.points_xy - true_xy, axis=-1)
    mean = np.where(labelled, distance, 0).sum(1) / np.maximum(labelled.sum(1), 1)
    boxes = table.boxes_xyxy[poses.row]
    relative = mean / np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    cells, titles = [], []
    for i in np.argsort(-relative)[:count]:
        row = poses.row[i]
        image = canvas.decode(table, table.image[row])
        for points, marks in (
            (true_xy[i], {"visibility": visibility[i]}),
            (poses.points_xy[i], {"scores": poses.keypoint_scores[i]}),
        ):
            drawn = drawing.draw_pose(image, points, table.keypoints, **marks)
            cells.append(_around(drawn, boxes[i]))
        titles += [f"id {table.ids[row]}: truth", f"error {mean[i]:.1f} px"]
    return drawing.sheet(cells, columns=8, titles=titles)


def _around(image: np.ndarray, box_xyxy: np.ndarray, side: int = 160) -> np.ndarray:
    """The padded box, cut from an image and scaled to `side` on its longer side."""
    center = (box_xyxy[:2] + box_xyxy[2:]) / 2
    half = 0.625 * np.maximum(box_xyxy[2:] - box_xyxy[:2], 8)
    h, w = image.shape[:2]
    low = np.clip(np.floor(center - half).astype(int), 0, [w - 1, h - 1])
    high = np.clip(np.ceil(center + half).astype(int), low + 1, [w, h])
    return _scaled(image[low[1] : high[1], low[0] : high[0]], side)


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """An image whose longer side is `side`: in a sheet all are to be seen equally well."""
    cell = Image.fromarray(image)
    scale = side / max(cell.size)
    size = [max(1, round(length * scale)) for length in cell.size]
    return np.asarray(cell.resize(size, Image.Resampling.BICUBIC))
