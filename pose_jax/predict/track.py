"""Ids of people over the frames of a video: greedy matching of poses by OKS.

n people of a frame, m tracks, k keypoints. Points are (x, y) in image pixels. A pure
function of NumPy arrays: `step` takes the tracks so far and returns those after a frame.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pose_jax.keypoints import KeypointSet

SIGMA = 0.1
"""The sigma of every keypoint of a set without measured ones."""


@dataclasses.dataclass(frozen=True)
class Tracks:
    """The people who may appear in the next frame.

    Attributes:
      ids: [m] int, from 1.
      points_xy: [m, k, 2], where each was seen last.
      areas: [m], of its box then, square pixels.
      missed: [m] int, number of frames since then.
      next_id: the id of the next person who matches no track.
    """

    ids: np.ndarray
    points_xy: np.ndarray
    areas: np.ndarray
    missed: np.ndarray
    next_id: int = 1


def start(k: int) -> Tracks:
    """Returns the tracks before the first frame: none."""
    none = np.zeros(0, int)
    return Tracks(none, np.zeros((0, k, 2)), np.zeros(0), none)


def sigmas(keypoint_set: KeypointSet) -> np.ndarray:
    """Returns the sigmas [k] of a set; `SIGMA` for all keypoints if it has none."""
    own = keypoint_set.sigmas
    return np.asarray(own) if own else np.full(len(keypoint_set), SIGMA)


def similarity(
    first_xy: np.ndarray, second_xy: np.ndarray, areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """OKS of all pairs, [n, m], in float64 on the host; see `metrics.oks`.

    Args:
      first_xy: [n, k, 2].
      second_xy: [m, k, 2].
      areas: [n, m], square pixels.
      sigmas: [k].
    """
    squared = ((first_xy[:, None] - second_xy[None]) ** 2).sum(-1)
    spread = 8 * np.asarray(sigmas) ** 2 * np.maximum(areas, 1e-9)[..., None]
    return np.exp(-squared / spread).mean(-1)


def step(
    tracks: Tracks,
    points_xy: np.ndarray,
    areas: np.ndarray,
    sigmas: np.ndarray,
    *,
    gap: int = 10,
    threshold: float = 0.3,
) -> tuple[np.ndarray, Tracks]:
    """Gives the people of the next frame their ids.

    Pairs of a person and a track are taken by decreasing OKS, ties by the lower index of
    the person, then of the track; each person and each track at most once. People without
    a pair are new, in their order. The area of a pair is the mean of both.

    Args:
      tracks: the tracks after the frame before.
      points_xy: [n, k, 2], all finite.
      areas: [n], areas of the boxes, square pixels.
      sigmas: [k], see `sigmas`.
      gap: number of frames that a person may be missing and keep the id.
      threshold: OKS in [0, 1] that a pair must reach.

    Returns:
      ids: [n] int.
      tracks: the tracks after this frame.
    """
    n = len(points_xy)
    mean = (areas[:, None] + tracks.areas[None]) / 2
    oks = similarity(points_xy, tracks.points_xy, mean, sigmas)
    ids = np.zeros(n, int)
    free = np.ones(len(tracks.ids), bool)
    for flat in np.argsort(-oks, axis=None, kind="stable"):
        person, track = np.unravel_index(flat, oks.shape)
        if oks[person, track] < threshold:
            break
        if free[track] and not ids[person]:
            ids[person], free[track] = tracks.ids[track], False
    new = np.flatnonzero(ids == 0)
    ids[new] = tracks.next_id + np.arange(len(new))
    kept = free & (tracks.missed < gap)
    join = lambda old, now: np.concatenate([old[kept], now])
    return ids, Tracks(
        ids=join(tracks.ids, ids),
        points_xy=join(tracks.points_xy, points_xy),
        areas=join(tracks.areas, areas),
        missed=join(tracks.missed + 1, np.zeros(n, int)),
        next_id=tracks.next_id + len(new),
    )
