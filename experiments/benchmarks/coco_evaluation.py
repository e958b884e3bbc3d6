"""Time and memory of COCO evaluation: AP of many poses and of many boxes.

    python -m experiments.benchmarks.coco_evaluation [--images 5000] [--detections 100000]

Generates images with two people on average, and detections: all people of an image with
noise, and random boxes. The timed code is what `pose-jax eval` runs after the network:
OKS-NMS of poses (with compilation, then without), and for poses and boxes the conversion to
COCO results and AP. Prints the time of each part, the peak memory of the process, and the
machine.

CPU time on two x86-64 cores: OKS-NMS 1.1 s, AP of poses 5.0 s, AP of boxes 5.6 s; peak
memory 0.8 GiB.
"""

import argparse
import os
import platform
import resource
import time

import jax
import numpy as np

from pose_jax.data.table import Table
from pose_jax.evaluation import boxes as of_boxes
from pose_jax.evaluation import poses as measure
from pose_jax.evaluation.suppress import EvaluationConfig, suppress
from pose_jax.keypoints import COCO
from pose_jax.types import Boxes, Poses

WIDTH, HEIGHT = 640, 480


def people(images: int, rng: np.random.Generator) -> Table:
    """Generates people, 2 per image on average, in boxes of 20 to 300 pixels; 1 in 30 is a
    crowd region."""
    counts = rng.poisson(2, images)
    n, k = counts.sum(), len(COCO)
    size = np.exp(rng.uniform(np.log(20), np.log(300), (n, 1))) * (0.5, 1)
    corner = rng.uniform(0, 1, (n, 2)) * ((WIDTH, HEIGHT) - size)
    crowd = rng.uniform(size=n) < 1 / 30
    visible = rng.choice(3, size=(n, k), p=(0.4, 0.1, 0.5)).astype(np.int32)
    return Table(
        name="generated",
        keypoints=COCO,
        images=(np.zeros((1, 1, 3), np.uint8),) * images,
        image_ids=np.arange(images) + 1,
        image_sizes=np.tile(np.int32([WIDTH, HEIGHT]), (images, 1)),
        image=np.repeat(np.arange(images, dtype=np.int32), counts),
        ids=np.arange(n) + 1,
        boxes_xyxy=np.concatenate([corner, corner + size], -1),
        box_scores=np.ones(n),
        points_xy=corner[:, None] + rng.uniform(0, 1, (n, k, 2)) * size[:, None],
        visibility=visible * ~crowd[:, None],
        areas=0.6 * size.prod(-1),
        crowd=crowd,
    )


def detect(
    truth: Table, detections: int, rng: np.random.Generator
) -> tuple[Table, Poses]:
    """Generates detections, equally many per image, with a pose for each."""
    images = len(truth.images)
    per_image = detections // images
    image = np.repeat(np.arange(images, dtype=np.int32), per_image)
    n, k = len(image), len(COCO)
    size = np.exp(rng.uniform(np.log(20), np.log(300), (n, 1))) * (0.5, 1)
    corner = rng.uniform(0, 1, (n, 2)) * ((WIDTH, HEIGHT) - size)
    boxes = np.concatenate([corner, corner + size], -1)
    points = corner[:, None] + rng.uniform(0, 1, (n, k, 2)) * size[:, None]
    scores = rng.uniform(0, 0.7, n)
    for i in range(images):
        rows = truth.people_of_image(i)
        # Each person twice, as input for NMS.
        rows = np.repeat(rows, 2)[:per_image]
        slots = i * per_image + np.arange(len(rows))
        off = 0.03 * (truth.boxes_xyxy[rows, 2:] - truth.boxes_xyxy[rows, :2])
        boxes[slots] = truth.boxes_xyxy[rows]
        boxes[slots] += np.tile(off, 2) * rng.normal(size=(len(rows), 4))
        points[slots] = truth.points_xy[rows]
        points[slots] += off[:, None] * rng.normal(size=(len(rows), k, 2))
        scores[slots] = rng.uniform(0.3, 1, len(rows))
    table = Table(
        name="generated detections",
        keypoints=COCO,
        images=truth.images,
        image_ids=truth.image_ids,
        image_sizes=truth.image_sizes,
        image=image,
        ids=np.zeros(n, np.int64),
        boxes_xyxy=boxes,
        box_scores=scores,
        points_xy=np.zeros((n, k, 2)),
        visibility=np.zeros((n, k), np.int32),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(-1),
        crowd=np.zeros(n, bool),
        box_source="detections",
        labelled=False,
        truth=truth,
    )
    poses = Poses(
        points_xy=points.astype(np.float32),
        keypoint_scores=rng.uniform(0, 1, (n, k)).astype(np.float32),
        score=scores.astype(np.float32),
        valid=np.ones(n, bool),
        row=np.arange(n, dtype=np.int32),
    )
    return table, poses


def as_boxes(table: Table) -> Boxes:
    """Converts the boxes of a table, equally many per image, to a detector's output."""
    images = len(table.images)
    boxes = table.boxes_xyxy.reshape(images, -1, 4).astype(np.float32)
    return Boxes(
        boxes_xyxy=boxes,
        scores=table.box_scores.reshape(images, -1).astype(np.float32),
        valid=np.ones(boxes.shape[:2], bool),
        row=np.arange(images, dtype=np.int32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = people(args.images, rng)
    table, poses = detect(truth, args.detections, rng)
    boxes = as_boxes(table)
    print(
        f"{platform.machine()}, {os.cpu_count()} CPU cores, {jax.default_backend()}: "
        f"{args.images} images, {len(truth)} people, {len(table)} detections"
    )
    config = EvaluationConfig()

    def timed(what, function):
        start, used = time.perf_counter(), time.process_time()
        result = function()
        seconds = time.perf_counter() - start
        used = time.process_time() - used
        print(f"  {what:24} {seconds:7.2f} s, CPU {used:7.2f} s", flush=True)
        return result, seconds

    print("poses")
    kept, first = timed("OKS-NMS", lambda: suppress(table, poses, config))
    timed("OKS-NMS, compiled", lambda: suppress(table, poses, config))
    metrics, second = timed("AP", lambda: measure.measure(table, kept))
    print(f"  {'together':24} {first + second:7.2f} s")
    print(f"  {len(kept.row)} poses kept; {metrics}")
    print("boxes")
    metrics, _ = timed("AP", lambda: of_boxes.measure(truth, boxes))
    print(f"  {metrics}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kibibytes.
    peak /= 2**30 if platform.system() == "Darwin" else 2**20
    print(f"peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
