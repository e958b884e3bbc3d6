"""OKS-NMS over a table: suppresses duplicate poses of a person."""

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
    """Postprocessing of poses between prediction and AP.

    Attributes:
      nms: NMS of the poses of an image: "oks" drops poses whose OKS with a better pose is
        above the threshold, "soft_oks" lowers their scores, "none" keeps them. Only applied
        to detected boxes; for ground-truth boxes all poses are kept.
      nms_threshold: OKS threshold; 0.9 for the published top-down networks, 0.5 in
        MultiPose.
    """

    nms: Literal["none", "oks", "soft_oks"] = "oks"
    nms_threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.nms_threshold <= 1:
            raise ConfigError(
                f"nms_threshold must be in (0, 1]; got {self.nms_threshold}."
            )


def suppress(table: Table, poses: Poses, config: EvaluationConfig) -> Poses:
    """Applies OKS-NMS within each image; the order of the poses is kept.

    The area of a pose is that of its unpadded box.

    Raises:
      InputError: the keypoint set has no sigmas.
    """
    if config.nms == "none" or table.labelled or not len(poses.row):
        return poses
    if table.keypoints.sigmas is None:
        raise InputError(
            f"OKS-NMS requires sigmas, but keypoint set {table.keypoints.name!r} has none: "
            "set nms to 'none'."
        )
    rows_of_image = _by_image(table.image[poses.row])
    size = table.boxes_xyxy[poses.row, 2:] - table.boxes_xyxy[poses.row, :2]
    areas = size.prod(-1).astype(np.float32)
    scores = poses.score.astype(np.float32).copy()
    keep = np.ones(len(scores), bool)
    # Images with similar numbers of poses are grouped: few shapes, few compilations.
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
    """Maps poses [i, n, k, 2] of i images to a mask of kept poses and scores [i, n]."""

    def one(points_xy, scores, areas, valid):
        rest = {"threshold": threshold, "valid": valid}
        args = points_xy, scores, areas, sigmas
        if how == "oks":
            return nms.oks_nms(*args, **rest), scores
        return valid, nms.soft_oks_nms(*args, **rest)

    return jax.vmap(one)(points_xy, scores, areas, valid)


def _by_image(image: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of the poses of each image."""
    order = np.argsort(image, kind="stable")
    cuts = np.flatnonzero(np.diff(image[order])) + 1
    return np.split(order, cuts)
