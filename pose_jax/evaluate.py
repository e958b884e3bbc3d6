"""A model over a table: predictions, metrics, files, pictures.

Training, `pose-jax eval` and `predict` all go through `Predictor`: one preprocessing, one
decoding. Every row counts exactly once; the last batch is padded and masked.

A metric's full name: NAME[@threshold][@source of boxes], for example `AP@gt_boxes`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from pose_jax import canvases, datasets, input_pipeline, runs, visualize
from pose_jax import config as config_lib
from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax.datasets.table import Table
from pose_jax.errors import InputError
from pose_jax.method import Method, PersonView, Poses, Variables


class Predictor:
    """A method's jitted `predict`, kept so that it is traced once for all its uses."""

    def __init__(self, method: Method, mesh) -> None:
        self.method = method
        self.mesh = mesh
        # Replicated, so that every process holds all rows of a batch.
        self._predict = jax.jit(
            method.predict, out_shardings=sharding_lib.replicated(mesh)
        )

    @property
    def traces(self) -> int:
        """How often `predict` has been traced."""
        return self._predict._cache_size()

    def __call__(
        self,
        variables: Variables,
        table: Table,
        config: input_pipeline.InputConfig,
        rows: np.ndarray | None = None,
    ) -> Poses:
        """Predicts rows of a table.

        Args:
          variables: the weights.
          table: the rows' data.
          config: batch and canvas size.
          rows: table rows; None for those that evaluation counts.

        Returns:
          NumPy leaves, one entry per row, in the order of `rows`.
        """
        plan = input_pipeline.Plan(
            table=table,
            view=self.method.view,
            config=config,
            rows=rows,
            training=False,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        parts = []
        for batch in input_pipeline.batches(plan):
            inputs = sharding_lib.put_batch(batch.inputs, self.mesh)
            # The batch before is fetched while this one is computed.
            parts.append(self._predict(variables, inputs))
            if len(parts) > 1:
                parts[-2] = jax.device_get(parts[-2])
        parts = jax.device_get(parts)
        merged = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        merged = jax.tree.map(lambda leaf: leaf[merged.valid], merged)
        # Batches may come in another order than the rows (canvases of several sizes).
        place = np.empty(len(table) + len(table.images), np.int64)
        place[merged.row] = np.arange(len(merged.row))
        return jax.tree.map(lambda leaf: leaf[place[plan.rows]], merged)


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


def measure(table: Table, poses: Poses, truth: Table | None = None) -> dict[str, float]:
    """All metrics that the labels and the keypoint set allow.

    Args:
      table: the boxes that were predicted on.
      poses: the predictions.
      truth: the labels, where `table` has none (boxes from a detector).

    With ground-truth boxes a prediction belongs to its row's label, which gives the mean
    pixel error and PDJ; AP matches by OKS whatever the boxes' source.

    Returns:
      Values by full name; AP is left out where the keypoint set has no sigmas.
    """
    source = table.box_source
    found: dict[str, float] = {}
    if table.keypoints.sigmas is not None:
        ap = metrics_lib.coco_keypoint_ap(
            (truth or table).coco_ground_truth(),
            coco_results(table, poses),
            sigmas=table.keypoints.sigmas,
        )
        found |= {f"{name}@{source}": value for name, value in ap.items()}
    if source == "gt_boxes":
        true_xy = table.points_xy[poses.row]
        visibility = table.visibility[poses.row]
        distance = np.linalg.norm(poses.points_xy - true_xy, axis=-1)
        found[f"pixel_error@{source}"] = float(distance[visibility > 0].mean())
        if table.keypoints.torso is not None:
            correct, counted = metrics_lib.pdj(
                jnp.asarray(poses.points_xy, jnp.float32),
                jnp.asarray(true_xy, jnp.float32),
                jnp.asarray(visibility),
                table.keypoints.torso,
                thresholds=(0.2,),
            )
            i, j = table.keypoints.torso
            lost = int(((visibility[:, i] == 0) | (visibility[:, j] == 0)).sum())
            total = float(np.sum(counted))
            share = float(np.sum(correct)) / total if total else float("nan")
            found[f"PDJ@0.2@{source}"] = share
            found[f"PDJ_people_without_torso@{source}"] = lost
    return found


def evaluate(
    predictor: Predictor,
    variables: Variables,
    table: Table,
    config: input_pipeline.InputConfig,
    truth: Table | None = None,
) -> tuple[dict[str, float], Poses]:
    """Predicts and measures; returns metrics by full name, and the predictions."""
    poses = predictor(variables, table, config)
    return measure(table, poses, truth), poses


def one_line(step: int, metrics: Mapping[str, float]) -> str:
    """An evaluation as one line of a log."""
    shown = [
        f"{name} {value:.4g}"
        for name, value in metrics.items()
        if name.split("@")[0] in ("AP", "AP50", "AP75", "PDJ", "pixel_error")
    ]
    return f"evaluation at step {step}: " + "  ".join(shown)


# ------------------------------------------------------------------------- RUN/eval


def evaluate_run(
    run: Path | str,
    *,
    decoders: Sequence[str] = (),
    data: str | None = None,
    boxes: str = "gt",
) -> dict[str, dict[str, float]]:
    """Evaluates RUN/model and writes RUN/eval/<source of boxes>/<decoder>/.

    Args:
      run: the run directory.
      decoders: read-outs of the network; empty for the run's own.
      data: another root of the evaluation data set; None for the config's.
      boxes: "gt", or a COCO detections json.

    Returns:
      Metrics by decoder.
    """
    run = Path(run)
    loaded = runs.load(run)
    section = dict(loaded.manifest["data"])
    if data is not None:
        section["root"] = data
    truth = table = _load_data(section)
    if boxes != "gt":
        options = {**section.get("options", {}), "detections": boxes}
        table = _load_data({**section, "options": options})
    if table.keypoints != loaded.keypoints:
        raise InputError(
            f"{run}: the model has keypoints {loaded.keypoints.name!r}, {table.name} has "
            f"{table.keypoints.name!r}; evaluate on data of the model's set."
        )
    mesh = sharding_lib.make_mesh()
    own = loaded.manifest["method"].get("decoder", loaded.manifest["method"]["name"])
    found = {}
    for decoder in decoders or (None,):
        predictor = Predictor(loaded.method(decoder), mesh)
        metrics, poses = evaluate(
            predictor, loaded.variables, table, loaded.input, truth
        )
        name = decoder or own
        found[name] = metrics
        out = run / "eval" / table.box_source / name
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
        (out / "predictions.json").write_text(json.dumps(coco_results(table, poses)))
    print(table_of(found))
    print(f"metrics and predictions: {run / 'eval' / table.box_source}")
    return found


def _load_data(section: Mapping[str, Any]) -> Table:
    return datasets.load(
        config_lib.build(datasets.SourceConfig, section, "manifest.data")
    )


def table_of(found: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics side by side: a row a decoder, a column a metric."""
    names = [
        name
        for name in next(iter(found.values()))
        if name.split("@")[0] in ("AP", "AP50", "AP75", "AR", "PDJ", "pixel_error")
    ]
    widths = [max(len(name), 8) for name in names]
    first = max(len("decoder"), *(len(key) for key in found))
    head = "  ".join(name.rjust(w) for name, w in zip(names, widths, strict=True))
    lines = [f"{'decoder'.ljust(first)}  {head}"]
    for key, metrics in found.items():
        row = "  ".join(
            f"{metrics[name]:.3f}".rjust(w)
            for name, w in zip(names, widths, strict=True)
        )
        lines.append(f"{key.ljust(first)}  {row}")
    return "\n".join(lines)


# --------------------------------------------------------------------------- pictures


def draw_run(
    run: Path,
    predictor: Predictor,
    table: Table,
    poses: Poses,
    variables: Variables,
    config: input_pipeline.InputConfig,
) -> Path:
    """Draws RUN/pictures: predicted people, the worst of them, heatmaps, curves."""
    out = Path(run) / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    images = np.unique(table.image[poses.row])
    chosen = images[np.linspace(0, len(images) - 1, min(24, len(images))).astype(int)]
    visualize.save_png(
        out / "predictions.png",
        visualize.sheet([draw_image(table, poses, i) for i in chosen], columns=6),
    )
    if table.box_source == "gt_boxes":
        visualize.save_png(out / "worst.png", _worst(table, poses))
    if isinstance(predictor.method.view, PersonView):
        visualize.save_png(
            out / "heatmaps.png", _heatmaps(predictor, table, poses, variables, config)
        )
    visualize.curves(Path(run) / "metrics.jsonl", out / "curves.png")
    return out


def draw_image(table: Table, poses: Poses, image: int) -> np.ndarray:
    """One image of a table with everybody predicted in it, uint8 [h, w, 3]."""
    mine = table.image[poses.row] == image
    return visualize.draw_people(
        canvases.decode(table, image),
        poses.points_xy[mine],
        table.keypoints,
        scores=poses.keypoint_scores[mine],
    )


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
        image = canvases.decode(table, table.image[row])
        for points, marks in (
            (true_xy[i], {"visibility": visibility[i]}),
            (poses.points_xy[i], {"scores": poses.keypoint_scores[i]}),
        ):
            drawn = visualize.draw_pose(image, points, table.keypoints, **marks)
            cells.append(_around(drawn, boxes[i]))
        titles += [f"id {table.ids[row]}: truth", f"error {mean[i]:.1f} px"]
    return visualize.sheet(cells, columns=8, titles=titles)


def _around(image: np.ndarray, box_xyxy: np.ndarray, side: int = 160) -> np.ndarray:
    """The padded box, cut from an image and scaled to `side` on its longer side."""
    center = (box_xyxy[:2] + box_xyxy[2:]) / 2
    half = 0.625 * np.maximum(box_xyxy[2:] - box_xyxy[:2], 8)
    h, w = image.shape[:2]
    low = np.clip(np.floor(center - half).astype(int), 0, [w - 1, h - 1])
    high = np.clip(np.ceil(center + half).astype(int), low + 1, [w, h])
    cell = Image.fromarray(image[low[1] : high[1], low[0] : high[0]])
    scale = side / max(cell.size)
    size = [max(1, round(length * scale)) for length in cell.size]
    return np.asarray(cell.resize(size, Image.Resampling.BICUBIC))


def _heatmaps(predictor, table, poses, variables, config, count: int = 12):
    """Input crops of a few rows with the predicted heatmaps over them."""
    pick = np.linspace(0, len(poses.row) - 1, min(count, len(poses.row))).astype(int)
    plan = input_pipeline.Plan(
        table=table,
        view=predictor.method.view,
        config=dataclasses.replace(config, batch_size=len(pick)),
        rows=poses.row[pick],
        training=False,
    )
    inputs = next(iter(input_pipeline.batches(plan))).inputs
    # Once only: compiling it well would take longer than it runs.
    inspect = jax.jit(
        predictor.method.inspect,
        compiler_options={"xla_backend_optimization_level": 0},
    )
    seen = jax.device_get(inspect(variables, inputs))
    cells = [
        visualize.heatmap_overlay(
            np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), maps
        )
        for image, maps in zip(seen["input"], seen["heatmaps"], strict=True)
    ]
    return visualize.sheet(cells, columns=6)
