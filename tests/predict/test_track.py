"""Ids of people over frames: the best pairs first, a gap, new people."""

import dataclasses

import numpy as np
import pytest

from pose_jax import metrics
from pose_jax.keypoints import COCO, LSP
from pose_jax.predict import track

FIGURE = np.random.default_rng(0).uniform(0, 60, (17, 2))
SIGMAS = np.asarray(COCO.sigmas)


def ids_of(frames, **options):
    """Frames as lists of (x, y), where each person of 60 x 60 pixels stands."""
    tracks, found = track.start(17), []
    for places in frames:
        points_xy = np.array([FIGURE + place for place in places]).reshape(-1, 17, 2)
        areas = np.full(len(places), 3600.0)
        ids, tracks = track.step(tracks, points_xy, areas, SIGMAS, **options)
        found.append(ids.tolist())
    return found


A, B, C = (0, 0), (100, 0), (200, 0)


@pytest.mark.parametrize(
    ("frames", "ids"),
    [
        ([[A, B], [B, A]], [[1, 2], [2, 1]]),  # The order does not matter.
        ([[A], [A, C], [C]], [[1], [1, 2], [2]]),
        ([[], [A], []], [[], [1], []]),
        ([[A], [C], [A]], [[1], [2], [1]]),
        ([[A], [], [], [A]], [[1], [], [], [1]]),  # Missing for two frames.
        ([[A], [], [], [], [A]], [[1], [], [], [], [2]]),  # For three.
        # The nearest person keeps the id; the other, within reach too, is new.
        ([[A], [(8, 0), (3, 0)]], [[1], [2, 1]]),
        # Greedy: the best pair of all, though the sum would be better otherwise.
        ([[(0, 0), (6, 0)], [(5, 0), (11, 0)]], [[1, 2], [2, 1]]),
        ([[A], [A, A]], [[1], [1, 2]]),  # A tie: the first one.
    ],
)
def test_ids(frames, ids):
    assert ids_of(frames, gap=2, threshold=0.1) == ids


def test_a_pair_must_reach_the_threshold():
    (oks,) = track.similarity(
        (FIGURE + (5, 0))[None], FIGURE[None], np.array([[3600.0]]), SIGMAS
    )[0]
    frames = [[A], [(5, 0)]]
    assert ids_of(frames, threshold=oks - 1e-9) == [[1], [1]]
    assert ids_of(frames, threshold=oks + 1e-9) == [[1], [2]]


def test_similarity_is_the_oks_of_the_metrics():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 9, (2, 17, 2)), rng.uniform(0, 9, (3, 17, 2))
    areas = rng.uniform(50, 99, (2, 3))
    seen = np.ones((1, 3, 17), int)
    np.testing.assert_allclose(
        track.similarity(a, b, areas, SIGMAS),
        metrics.oks(a[:, None], b[None], seen, areas, COCO.sigmas),
        rtol=1e-5,
    )


def test_sets_without_sigmas_have_one_for_all():
    np.testing.assert_array_equal(track.sigmas(COCO), COCO.sigmas)
    np.testing.assert_array_equal(track.sigmas(LSP), np.full(14, 0.1))


def test_nothing_given_is_changed():
    tracks = track.start(17)
    _, tracks = track.step(tracks, FIGURE[None], np.array([3600.0]), SIGMAS)
    before = {k: np.copy(v) for k, v in dataclasses.asdict(tracks).items()}
    track.step(tracks, FIGURE[None] + 3, np.array([3600.0]), SIGMAS)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(tracks, name), value)
