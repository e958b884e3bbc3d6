"""The complete system on crowds: detector, pose method, rescoring, and pose NMS.

    python -m experiments.multipose.system [--detector RUN] [--pose RUN] [--slots 16]
        [--out experiments/multipose/system.md]

Both runs must exist (`make demo-multipose` trains them); the images are the evaluation
images of the pose run. Boxes are predicted once, with IoU-NMS at 0.6, and poses in them.
The rows differ in scores and pose NMS, computed by the functions of `pose-jax eval`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.dark.ablation import write
from experiments.dark.decoders import (
    SAMPLES,
    Values,
    markdown,
    resample,
    with_interval,
)
from experiments.multipose.ablation import PAPER
from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.evaluation import poses as measure
from pose_jax.evaluation import predictor
from pose_jax.evaluation.predictor import Predictor
from pose_jax.evaluation.suppress import EvaluationConfig, suppress
from pose_jax.methods import system
from pose_jax.runs import model as model_lib
from pose_jax.types import Poses

BOX_NMS = 0.6
"""IoU threshold of MultiPose, which then applies OKS-NMS at 0.5."""
OKS_NMS = (0.3, 0.5, 0.7, 0.9)
RESCORINGS = {
    "box": "box score",
    "pose": "mean keypoint score, eq. (7), as in the paper",
    "product": "product of both",
}
SHOWN = ("AP", "AP50", "AP75")


def find(
    detector: model_lib.LoadedRun, pose: model_lib.LoadedRun, table: Table, slots: int
) -> system.People:
    """Predicts all people, without OKS-NMS."""
    complete = predictor.System(
        detector.method(),
        detector.variables,
        pose.method(),
        pose.variables,
        mesh=sharding_lib.make_mesh(),
        config=detector.input,
        slots=slots,
        box_nms=BOX_NMS,
        oks_nms=None,
    )
    return complete(table)


def as_detections(table: Table, people: system.People) -> tuple[Table, Poses]:
    """Converts people to a table of detected boxes, and a pose for each."""
    image, slot = np.nonzero(people.valid)
    boxes_xyxy = people.boxes_xyxy[image, slot].astype(np.float64)
    n, k = len(image), len(table.keypoints)
    detections = dataclasses.replace(
        table,
        image=image.astype(np.int32),
        ids=np.zeros(n, np.int64),
        boxes_xyxy=boxes_xyxy,
        box_scores=people.box_scores[image, slot].astype(np.float64),
        points_xy=np.zeros((n, k, 2)),
        visibility=np.zeros((n, k), np.int32),
        areas=(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(-1),
        crowd=np.zeros(n, bool),
        head_sizes=None,
        box_source="detections",
        labelled=False,
        truth=table,
    )
    poses = Poses(
        points_xy=people.points_xy[image, slot],
        keypoint_scores=people.keypoint_scores[image, slot],
        score=people.score[image, slot],
        valid=np.ones(n, bool),
        row=np.arange(n, dtype=np.int32),
    )
    return detections, poses


def rescored(table: Table, poses: Poses, how: str) -> Poses:
    """Replaces the scores of poses by one of RESCORINGS."""
    means = poses.keypoint_scores.mean(-1)
    boxes = table.box_scores[poses.row].astype(np.float32)
    score = {"box": boxes, "pose": means, "product": boxes * means}[how]
    return dataclasses.replace(poses, score=score)


def suppressed(table: Table, poses: Poses, threshold: float | None) -> Poses:
    """Applies OKS-NMS; None: returns all poses."""
    if threshold is None:
        return poses
    how = EvaluationConfig(nms="oks", nms_threshold=threshold)
    return suppress(table, poses, how)


def box_metrics(table: Table, people: system.People) -> dict[str, float]:
    """Computes COCO metrics of the boxes."""
    image, slot = np.nonzero(people.valid)
    results = [
        {
            "image_id": int(table.image_ids[i]),
            "category_id": table.category_id,
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "score": float(score),
        }
        for i, (x0, y0, x1, y1), score in zip(
            image,
            people.boxes_xyxy[image, slot],
            people.box_scores[image, slot],
            strict=True,
        )
    ]
    return metrics_lib.coco_box_ap(table.ground_truth.coco_ground_truth(), results)


def _values(table: Table, poses: Poses) -> Values:
    """Resamples the metrics; returns values by NAME."""
    samples = resample(table, [poses])
    return {name.split("@")[0]: values for name, values in samples.items()}


def _rows(values: Mapping[str, Values], base: str, words: Mapping[str, str]) -> str:
    """Makes a table with the difference of AP from the base."""
    rows = []
    for name, one in values.items():
        cells = [f"{one[metric][0]:.3f}" for metric in SHOWN]
        change = "" if name == base else with_interval(one["AP"] - values[base]["AP"])
        rows.append([words[name], *cells, change])
    return markdown(["", *SHOWN, f"difference of AP from: {words[base]}"], rows)


def report(
    detector: model_lib.LoadedRun, pose: model_lib.LoadedRun, *, slots: int
) -> tuple[str, dict[str, float]]:
    """Returns all tables in Markdown, and the numbers by name."""
    table = pose.eval_table()
    if not table.labelled or table.keypoints.sigmas is None:
        raise InputError(
            f"{table.name}: AP requires labels and a keypoint set with sigmas."
        )
    predictor = Predictor(pose.method(), sharding_lib.make_mesh())
    in_gt_boxes = predictor(pose.variables, table, pose.input)
    people = find(detector, pose, table, slots)
    detections, poses = as_detections(table, people)
    on_gt_boxes = measure.measure(table, in_gt_boxes)
    boxes = box_metrics(table, people)

    kept = {
        how: suppressed(detections, rescored(detections, poses, how), 0.5)
        for how in RESCORINGS
    }
    by_score = {how: _values(detections, one) for how, one in kept.items()}
    ranked = rescored(detections, poses, "pose")
    by_nms = {
        str(t): _values(detections, suppressed(detections, ranked, t))
        for t in (None, *OKS_NMS)
    }
    names = ("AP", "AP50", "AP75", "AR")
    on_detections = measure.measure(detections, kept["pose"])
    of_boxes = [
        ["ground-truth boxes", *(f"{on_gt_boxes[f'{n}@gt_boxes']:.3f}" for n in names)],
        ["detected boxes", *(f"{on_detections[f'{n}@detections']:.3f}" for n in names)],
    ]
    words = {"None": f"IoU-NMS {BOX_NMS} only"}
    words |= {str(t): f"with OKS-NMS {t}" for t in OKS_NMS}
    text = "\n\n".join(
        [
            "Boxes (all images, IoU-NMS 0.6):",
            markdown(
                ["box AP", "AP50", "AP75"],
                [[f"{boxes[name]:.3f}" for name in SHOWN]],
            ),
            "Poses, scored by eq. (7), OKS-NMS 0.5:",
            markdown(["", *names], of_boxes),
            "Score used to rank people (detected boxes, OKS-NMS 0.5):",
            _rows(by_score, "box", RESCORINGS),
            "Pose NMS (detected boxes, scored by eq. (7)):",
            _rows(by_nms, "None", words),
            f"{len(table.labelled_rows())} people in {len(table.images)} images; "
            f"{len(detections)} detected boxes, {int(people.overflow.sum())} more dropped "
            f"by the maximum. In brackets: 95% intervals from {SAMPLES} paired bootstrap "
            "samples of images, without the variation between seeds; bold: intervals that "
            "exclude 0.",
            _paper(),
        ]
    )
    figures = {f"box_{name}": boxes[name] for name in SHOWN}
    figures |= {f"{name}@gt_boxes": on_gt_boxes[f"{name}@gt_boxes"] for name in names}
    for name in names:
        figures[f"{name}@detections"] = on_detections[f"{name}@detections"]
    return text, figures


def _paper() -> str:
    rows = [
        [data, *(f"{value:.1f}" for value in values)] for data, values in PAPER.items()
    ]
    table = markdown(["paper, trained on", *"AP AP50 AP75 APm APl AR".split()], rows)
    return (
        f"{table}\n\nThe numbers of the paper are for COCO test-dev: a ResNet-101 detector "
        "at 800x1200, ResNet-101 at 353x257, scored by eq. (7), OKS-NMS 0.5. They cannot "
        "be compared with the rows above."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    runs_of = Path("runs/demo-multipose")
    parser.add_argument("--detector", type=Path, default=runs_of / "detector")
    parser.add_argument("--pose", type=Path, default=runs_of / "pose")
    parser.add_argument(
        "--slots", type=int, default=16, help="maximum number of detections per image"
    )
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args(arguments)
    out = args.out or Path(__file__).with_suffix(".md")
    try:
        detector, pose = model_lib.load(args.detector), model_lib.load(args.pose)
        content, _ = report(detector, pose, slots=args.slots)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print(content)
    write(out, content)


if __name__ == "__main__":
    main()
