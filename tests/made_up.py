"""People and predictions that tests make up: no images to read, no network."""

import dataclasses

import numpy as np

from pose_jax import keypoints
from pose_jax.datasets.table import Table
from pose_jax.method import Poses


def make_table(n=6, keypoint_set=keypoints.COCO, seed=0, **changes) -> Table:
    """People of 100 x 200 pixels, two an image, all keypoints labelled."""
    rng = np.random.default_rng(seed)
    k, images = len(keypoint_set), (n + 1) // 2
    corner = rng.uniform(0, 200, (n, 2))
    points = corner[:, None] + rng.uniform(0, 1, (n, k, 2)) * (100, 200)
    columns = {
        "name": "made up",
        "keypoints": keypoint_set,
        "images": tuple(np.zeros((400, 400, 3), np.uint8) for _ in range(images)),
        "image_ids": np.arange(images) + 10,
        "image_sizes": np.full((images, 2), 400, np.int32),
        "image": (np.arange(n) // 2).astype(np.int32),
        "ids": np.arange(n) + 1,
        "boxes_xyxy": np.concatenate([corner, corner + (100, 200)], -1),
        "box_scores": np.ones(n),
        "points_xy": points,
        "visibility": np.full((n, k), 2, np.int32),
        "areas": np.full(n, 10_000.0),
        "crowd": np.zeros(n, bool),
    }
    return Table(**{**columns, **changes})


def make_poses(table: Table, moved=0.0, rows=None) -> Poses:
    rows = np.arange(len(table), dtype=np.int32) if rows is None else rows
    k = len(table.keypoints)
    return Poses(
        points_xy=(table.points_xy[rows] + moved).astype(np.float32),
        keypoint_scores=np.full((len(rows), k), 0.5, np.float32),
        score=np.linspace(1, 0.5, len(rows), dtype=np.float32),
        valid=np.ones(len(rows), bool),
        row=rows,
    )


def detections(table: Table, rows, scores) -> Table:
    """The same boxes as from a detector, `rows` of them, some twice."""
    return dataclasses.replace(
        table,
        image=table.image[rows],
        ids=np.zeros(len(rows), np.int64),
        boxes_xyxy=table.boxes_xyxy[rows],
        box_scores=np.asarray(scores, float),
        points_xy=table.points_xy[rows],
        visibility=np.zeros((len(rows), 17), np.int32),
        areas=table.areas[rows],
        crowd=np.zeros(len(rows), bool),
        box_source="detections",
        labelled=False,
        truth=table,
    )
