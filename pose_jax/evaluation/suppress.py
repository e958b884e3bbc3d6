"""OKS-NMS over a table: poses of one image that are one person's."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import numpy as np

from pose_jax import nms
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import Poses


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What happens between prediction and AP; of poses alone.

    Attributes:
      nms: of poses of one image that overlap: "oks" drops those whose OKS with a better
        one is above the threshold, "soft_oks" lowers their scores, "none" keeps them. Only
        where boxes come from a detector: of ground-truth boxes all are kept.
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
