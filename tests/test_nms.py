"""Suppression against the textbook loop over a sorted list, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_jax import nms
from pose_jax.codecs import boxes as boxes_lib

N, K = 9, 5
SIGMAS = (0.026, 0.035, 0.079, 0.107, 0.089)
THRESHOLD = 0.4
seeds = st.integers(0, 2**32 - 1)

box_nms = jax.jit(lambda b, s, v: nms.box_nms(b, s, threshold=THRESHOLD, valid=v))
oks_nms = jax.jit(
    lambda p, s, a, v: nms.oks_nms(p, s, a, SIGMAS, threshold=THRESHOLD, valid=v)
)
soft_oks_nms = jax.jit(
    lambda p, s, a, v: nms.soft_oks_nms(p, s, a, SIGMAS, threshold=THRESHOLD, valid=v)
)
# With the threshold traced and all slots in use.
box_nms_at = jax.jit(nms.box_nms)
oks_nms_at = jax.jit(nms.oks_nms)


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = lambda c: max(0, c[2] - c[0]) * max(0, c[3] - c[1])
    union = area(a) + area(b) - width * height
    return width * height / union if union else 0.0


def oks(p, q, area_p, area_q):
    area = (area_p + area_q) / 2
    total = 0.0
    for (x, y), (u, v), sigma in zip(p, q, SIGMAS, strict=True):
        total += math.exp(-((x - u) ** 2 + (y - v) ** 2) / (8 * area * sigma**2))
    return total / len(SIGMAS)


def greedy(overlap, scores, valid):
    left = sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i))
    keep = np.zeros(len(scores), bool)
    while left:
        best, *left = left
        keep[best] = True
        left = [i for i in left if not overlap[best][i] > THRESHOLD]
    return keep


def soft(overlap, scores, valid):
    scores = [s if v else 0.0 for s, v in zip(scores, valid, strict=True)]
    left = list(np.flatnonzero(valid))
    while left:
        best = min(left, key=lambda i: (-scores[i], i))
        left.remove(best)
        for i in left:
            scores[i] *= math.exp(-(overlap[best][i] ** 2) / THRESHOLD)
    return scores


def crowd(seed):
    """Some people, each found a few times; scores with ties; some slots unused."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, 4, N)
    people = rng.uniform(0, 60, (4, K, 2))
    points = people[who] + rng.normal(0, rng.choice([1e-6, 1.0, 4.0]), (N, K, 2))
    corners = rng.integers(0, 5, (4, 2))[who] + rng.integers(0, 2, (N, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 6, (N, 2))], 1)
    scores = rng.integers(1, 6, N) / 8
    areas, valid = rng.uniform(500, 3000, N), rng.random(N) < 0.8
    return (
        points.astype(np.float32),
        boxes.astype(np.float32),
        scores.astype(np.float32),
        areas.astype(np.float32),
        valid,
    )


def matrix(overlap, *columns):
    """[n, n]: the overlap of every two rows of the columns."""
    rows = list(zip(*columns, strict=True))
    return np.array([[overlap(a, b) for b in rows] for a in rows])


def undecided(overlaps):
    """Whether float32 may round some overlap to the other side of the threshold."""
    close = np.abs(overlaps - THRESHOLD)
    return ((0 < close) & (close < 1e-5)).any()


@settings(deadline=None, max_examples=150)
@given(seeds)
def test_box_nms_is_the_greedy_loop(seed):
    _, boxes, scores, _, valid = crowd(seed)
    overlap = matrix(lambda a, b: iou(a[0], b[0]), boxes.astype(float))
    if undecided(overlap):
        return
    expected = greedy(overlap, scores, valid)
    np.testing.assert_array_equal(box_nms(boxes, scores, valid), expected)


@settings(deadline=None, max_examples=100)
@given(seeds)
def test_oks_nms_is_the_greedy_loop(seed):
    points, _, scores, areas, valid = crowd(seed)
    overlap = matrix(
        lambda a, b: oks(a[0], b[0], a[1], b[1]),
        points.astype(float),
        areas.astype(float),
    )
    if undecided(overlap):
        return
    keep = oks_nms(points, scores, areas, valid)
    np.testing.assert_array_equal(keep, greedy(overlap, scores, valid))


@settings(deadline=None, max_examples=100)
@given(seeds)
def test_soft_oks_nms_is_the_loop(seed):
    points, _, scores, areas, valid = crowd(seed)
    rng = np.random.default_rng(seed)
    scores = rng.permutation(np.linspace(0.1, 1, N)).astype(np.float32)
    overlap = matrix(
        lambda a, b: oks(a[0], b[0], a[1], b[1]),
        points.astype(float),
        areas.astype(float),
    )
    decayed = np.asarray(soft_oks_nms(points, scores, areas, valid))
    expected = soft(overlap, scores.astype(float), valid)
    np.testing.assert_allclose(decayed, expected, rtol=1e-4)
    assert (decayed <= scores).all() and (decayed[~valid] == 0).all()


def test_overlap_at_the_threshold_stays():
    boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 4], [0, 0, 4, 3]])
    scores = jnp.array([0.9, 0.8, 0.7, 0.6])
    keep = box_nms_at(boxes, scores, threshold=0.5)  # with the first: .5, .5, .75
    np.testing.assert_array_equal(keep, [True, True, True, False])


def test_what_a_suppressed_box_overlaps_may_stay():
    """Of a > b > c in a row, b goes because of a, and cannot suppress c any more."""
    boxes = jnp.array([[0.0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]])
    keep = box_nms_at(boxes, jnp.array([0.9, 0.8, 0.7]), threshold=0.4)
    np.testing.assert_array_equal(keep, [True, False, True])


def test_ties_go_to_the_lower_index_and_order_does_not_matter():
    same = jnp.broadcast_to(jnp.array([1.0, 1, 5, 5]), (4, 4))
    keep = box_nms_at(same, jnp.full(4, 0.5), threshold=0.5)
    np.testing.assert_array_equal(keep, [True, False, False, False])
    _, boxes, _, _, valid = crowd(7)
    scores = np.linspace(0.1, 1, N).astype(np.float32)
    order = np.random.default_rng(0).permutation(N)
    keep = np.asarray(box_nms(boxes, scores, valid))
    np.testing.assert_array_equal(
        box_nms(boxes[order], scores[order], valid[order]), keep[order]
    )


def test_unused_slots_may_hold_anything():
    points, boxes, scores, areas, _ = crowd(11)
    valid = np.arange(N) < 6
    keep = np.asarray(box_nms(boxes, scores, valid))
    poses = np.asarray(oks_nms(points, scores, areas, valid))
    softer = np.asarray(soft_oks_nms(points, scores, areas, valid))
    for junk in (np.nan, np.inf, -1.0, 1e30):
        for array in (points, boxes, scores, areas):
            array[6:] = junk
        np.testing.assert_array_equal(box_nms(boxes, scores, valid), keep)
        np.testing.assert_array_equal(oks_nms(points, scores, areas, valid), poses)
        np.testing.assert_array_equal(
            soft_oks_nms(points, scores, areas, valid), softer
        )
    nobody = np.zeros(N, bool)
    assert not np.any(box_nms(boxes, scores, nobody))
    assert not np.any(oks_nms(points, scores, areas, nobody))
    assert not np.any(soft_oks_nms(points, scores, areas, nobody))


def test_nobody_is_left_of_nobody():
    none, points = jnp.zeros(0), jnp.zeros((0, K, 2))
    boxes = jnp.zeros((0, 4))
    assert nms.box_nms(boxes, none, threshold=0.5).shape == (0,)
    for function in (nms.oks_nms, nms.soft_oks_nms):
        assert function(points, none, none, SIGMAS, threshold=0.5).shape == (0,)
    of_images = jax.vmap(lambda b, s: nms.box_nms(b, s, threshold=0.5))
    assert of_images(boxes[None], none[None]).shape == (1, 0)


def test_degenerate_boxes_and_areas_make_no_nan():
    boxes = jnp.array([[2.0, 2, 2, 2], [2, 2, 2, 2], [5, 5, 1, 1], [0, 0, 4, 4]])
    scores = jnp.array([0.4, 0.3, 0.2, 0.1])
    assert np.all(box_nms_at(boxes, scores, threshold=0.5))
    points = jnp.zeros((2, K, 2)).at[1].set(9)
    none = jnp.zeros(2)
    keep = oks_nms_at(points, scores[:2], none, jnp.asarray(SIGMAS), threshold=0.5)
    np.testing.assert_array_equal(keep, [True, True])
    same = jnp.zeros((2, K, 2))
    keep = oks_nms_at(same, scores[:2], none, jnp.asarray(SIGMAS), threshold=0.5)
    np.testing.assert_array_equal(keep, [True, False])


@jax.jit
def of_nobody(points_xy, scores):
    poses = points_xy, scores, scores, SIGMAS
    return (
        nms.box_nms(points_xy[:, :2].reshape(-1, 4), scores, threshold=0.5),
        nms.oks_nms(*poses, threshold=0.5),
        nms.soft_oks_nms(*poses, threshold=0.5),
    )


def test_nobody_is_suppressed_where_there_is_nobody():
    found = of_nobody(jnp.zeros((0, K, 2)), jnp.zeros(0))
    assert [(each.shape, each.dtype) for each in found] == [
        ((0,), bool), ((0,), bool), ((0,), np.float32)
    ]  # fmt: skip


def candidates(trained):
    """Boxes and scores as a proposal network has them for 3 maps of one image: untrained,
    the anchors a little moved, in random order; trained, most of them at 12 people."""
    rng = np.random.default_rng(5)
    anchors = np.concatenate([
        boxes_lib.anchors(
            size=(480 // s, 320 // s), stride=s, scales=(6.0 * s,), aspects=(1.0, 2.0)
        )
        for s in (8, 16, 32)
    ])  # fmt: skip
    scores = rng.normal(size=len(anchors))
    boxes = anchors + rng.normal(0, 2, anchors.shape)
    if trained:
        people = rng.uniform(20, 300, (12, 2))
        people = np.concatenate([people, people + rng.uniform(40, 160, (12, 2))], 1)
        overlap = np.array([[iou(a, p) for p in people] for a in anchors])
        near = people[overlap.argmax(1)]
        scores += 20 * overlap.max(1)
        share = np.clip(overlap.max(1, keepdims=True) * 2, 0, 0.9)
        boxes = share * near + (1 - share) * boxes
    best = np.argsort(-scores)[:2000]
    return boxes[best].astype(np.float32), scores[best].astype(np.float32)


def clustered(n, rng):
    who = rng.integers(0, 30, n)
    middle, size = rng.uniform(0, 300, (30, 2))[who], rng.uniform(20, 60, (30, 2))[who]
    middle += rng.normal(0, 3, (n, 2))
    return np.concatenate([middle - size, middle + size], 1).astype(np.float32)


def many(kind, n=300):
    """More boxes than a block has, and their scores."""
    rng = np.random.default_rng(3)
    boxes, scores = clustered(n, rng), rng.random(n).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores, 1)
    elif kind == "identical":
        boxes = np.repeat(boxes[::50], 50, 0)
    elif kind == "NaN scores":
        scores[::7] = np.nan
    elif kind == "chain":  # Every box overlaps the next one alone.
        left = np.arange(n, dtype=np.float32) * 4
        boxes = np.stack([left, 0 * left, left + 10, 0 * left + 1], 1)
        scores = -left
    return boxes, scores


@jax.jit
def ranked_trips(boxes, scores):
    too_close = nms._box_iou(boxes[jnp.argsort(-scores)]) > THRESHOLD
    return nms._greedy(too_close, jnp.ones(len(scores), bool))[1]


@pytest.mark.parametrize(
    "kind", ["clusters", "ties", "identical", "NaN scores", "chain"]
)
def test_more_candidates_than_a_block(kind):
    boxes, scores = many(kind)
    overlap = np.asarray(jax.jit(nms._box_iou)(boxes))
    ranked = np.where(np.isnan(scores), -np.inf, scores)  # NaN: the worst.
    expected = greedy(overlap, ranked, np.ones(len(scores), bool))
    keep = box_nms(boxes, scores, np.ones(len(scores), bool))
    np.testing.assert_array_equal(keep, expected)
    if kind == "chain":
        assert ranked_trips(boxes, scores) > len(scores)
        assert expected.sum() == len(scores) / 2


def test_images_with_and_without_a_chain_in_one_batch():
    pairs = [many(kind) for kind in ("chain", "clusters")]
    boxes, scores = (np.stack(each) for each in zip(*pairs, strict=True))
    valid = np.ones(scores.shape, bool)
    np.testing.assert_array_equal(
        jax.vmap(box_nms)(boxes, scores, valid),
        [box_nms(*each) for each in zip(boxes, scores, valid, strict=True)],
    )


@pytest.mark.parametrize("trained", [False, True])
def test_candidates_of_a_detector_need_few_trips(trained):
    assert ranked_trips(*candidates(trained)) <= 32
