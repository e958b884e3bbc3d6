"""A detector's boxes against plain definitions, one pair at a time, in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_jax.codecs import boxes

THRESHOLDS = dict(positive=0.5, negative=0.3)
seeds = st.integers(0, 2**32 - 1)

# Compiled once per shape: eager, every small operation is compiled by itself.
iou, coverage = jax.jit(boxes.iou), jax.jit(boxes.coverage)
encode, decode = jax.jit(boxes.encode), jax.jit(boxes.decode)
match = jax.jit(boxes.match, static_argnames=("positive", "negative", "force", "crowd"))
match_forced = functools.partial(match, force=True, **THRESHOLDS)
match_plain = functools.partial(match, force=False, **THRESHOLDS)
sample = jax.jit(boxes.sample, static_argnames=("count", "share"))
take = jax.jit(boxes.take, static_argnames="count")


def area(a):
    return max(0, a[2] - a[0]) * max(0, a[3] - a[1])


def shared_area(a, b):
    corners = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return area(corners)


def iou_reference(a, b):
    union = area(a) + area(b) - shared_area(a, b)
    return shared_area(a, b) / union if union else 0.0


def coverage_reference(a, b):
    return shared_area(a, b) / area(a) if area(a) else 0.0


def table(overlap, some, others):
    """[n, m] in float64; the boxes keep their float32 values."""
    some, others = np.asarray(some, float), np.asarray(others, float)
    return np.array([[overlap(a, b) for b in others] for a in some]).reshape(
        len(some), len(others)
    )


def match_reference(candidates, people, people_kind, *, force, crowd=0.5):
    overlap = table(iou_reference, candidates, people)
    inside = table(coverage_reference, candidates, people)
    persons = [j for j, kind in enumerate(people_kind) if kind == 1]
    regions = [j for j, kind in enumerate(people_kind) if kind == 2]
    highest = {j: max(overlap[:, j]) for j in persons}
    results = []
    for i in range(len(candidates)):
        person, best = 0, 0.0
        for j in persons:
            if overlap[i, j] > best:
                person, best = j, overlap[i, j]
        if best >= THRESHOLDS["positive"]:
            kind = 1
        elif any(inside[i, j] > crowd for j in regions):
            kind = -1
        else:
            kind = 0 if best < THRESHOLDS["negative"] else -1
        claims = [j for j in persons if overlap[i, j] == highest[j] > 0]
        if force and claims:
            person, kind = max(claims, key=lambda j: (overlap[i, j], -j)), 1
        results.append((person, kind))
    return np.array(results).T


def some_boxes(rng, *shape):
    """Of whole pixels, so that overlaps tie exactly; some are empty, some inverted."""
    low = rng.integers(-4, 14, (*shape, 2))
    side = rng.integers(-1, 12, (*shape, 2)) * rng.integers(0, 8, (*shape, 1)).clip(
        0, 1
    )
    return np.concatenate([low, low + side], axis=-1).astype(np.float32)


# ------------------------------------------------------------------------------- anchors


def test_anchors_one_by_one():
    size, stride, offset = (3, 2), 16, 1.5
    scales, aspects = (32.0, 20.0), (2.0, 0.5, 1.0)
    expected = []
    for row in range(size[1]):
        for column in range(size[0]):
            for scale in scales:
                for aspect in aspects:
                    x, y = stride * column + offset, stride * row + offset
                    w = scale / math.sqrt(aspect)
                    h = w * aspect
                    expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    found = boxes.anchors(
        size=size, stride=stride, scales=scales, aspects=aspects, offset=offset
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_aligned_anchors_are_centred_on_the_pixels_of_the_features():
    found = boxes.anchors(size=(4, 1), stride=8, scales=[10], aspects=[1.0])
    np.testing.assert_array_equal(
        found, [[8 * i - 5, -5, 8 * i + 5, 5] for i in range(4)]
    )


# ------------------------------------------------------------------------------ overlaps


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_overlaps_by_definition(seed):
    rng = np.random.default_rng(seed)
    some, others = some_boxes(rng, 7), some_boxes(rng, 5)
    some[2] = others[3]
    np.testing.assert_allclose(
        iou(some, others), table(iou_reference, some, others), rtol=1e-6
    )
    np.testing.assert_allclose(
        coverage(some, others), table(coverage_reference, some, others), rtol=1e-6
    )


def test_overlaps_by_hand():
    person, region = jnp.array([[0.0, 0, 4, 2]]), jnp.array([[2.0, -10, 40, 40]])
    assert coverage(person, region)[0, 0] == 0.5
    assert coverage(region, person)[0, 0] == 4 / (38 * 50)
    assert iou(person, jnp.array([[2.0, 0, 6, 2]]))[0, 0] == 4 / 12
    for kernel in (iou, coverage):
        assert kernel(person, region[:0]).shape == (1, 0)


# ---------------------------------------------------------------------- encode and decode


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_encode_is_equation_2_and_decode_leads_back(seed):
    rng = np.random.default_rng(seed)
    low, side = rng.uniform(-50, 500, (2, 6, 2)), rng.uniform(1, 300, (2, 6, 2))
    people, anchor = np.concatenate([low, low + side], -1).astype(np.float32)
    expected = []
    for b, a in zip(people.astype(float), anchor.astype(float), strict=True):
        w, h, wa, ha = b[2] - b[0], b[3] - b[1], a[2] - a[0], a[3] - a[1]
        expected.append(
            [
                10 * ((b[0] + b[2]) / 2 - (a[0] + a[2]) / 2) / wa,
                10 * ((b[1] + b[3]) / 2 - (a[1] + a[3]) / 2) / ha,
                5 * math.log(w / wa),
                5 * math.log(h / ha),
            ]
        )
    deltas = encode(people, anchor)
    np.testing.assert_allclose(deltas, expected, rtol=1e-3, atol=1e-3)
    growth = np.array(expected)[:, 2:] / 5
    fits = (growth < math.log(1000 / 16)).all(axis=1)
    np.testing.assert_allclose(
        decode(deltas, anchor)[fits], people[fits], rtol=1e-4, atol=5e-3
    )


def test_scale_multiplies():
    anchor, person = jnp.array([[0.0, 0, 10, 20]]), jnp.array([[5.0, 0, 25, 20]])
    expected = np.array([[1.0, 0, math.log(2), 0]])
    for scale in ((1.0, 1.0, 1.0, 1.0), (2.0, 3.0, 4.0, 5.0)):
        deltas = boxes.encode(person, anchor, scale=scale)
        np.testing.assert_allclose(deltas, expected * scale, rtol=1e-6)
        back = boxes.decode(deltas, anchor, scale=scale)
        np.testing.assert_allclose(back, person, rtol=1e-6)
    np.testing.assert_array_equal(encode(anchor, anchor), np.zeros((1, 4)))


def test_decoded_sides_are_bounded():
    anchor = jnp.array([[0.0, 0, 16, 32]])
    deltas = jnp.array([[0.0, 0, 1e6, 1e6]])
    np.testing.assert_allclose(
        decode(deltas, anchor), [[-492, -984, 508, 1016]], rtol=1e-5
    )
    np.testing.assert_allclose(decode(-deltas, anchor), [[8, 16, 8, 16]])


def test_padding_is_a_pixel():
    padding, box = jnp.zeros((1, 4)), jnp.array([[3.0, 4, 13, 24]])
    np.testing.assert_allclose(
        encode(padding, box), [[-8, -7, 5 * math.log(1 / 10), 5 * math.log(1 / 20)]]
    )
    np.testing.assert_allclose(
        encode(box, padding), [[80, 140, 5 * math.log(10), 5 * math.log(20)]]
    )
    np.testing.assert_array_equal(decode(padding, padding), [[-0.5, -0.5, 0.5, 0.5]])


# --------------------------------------------------------------------------------- match


@settings(deadline=None, max_examples=150)
@given(seeds)
def test_match_by_definition(seed):
    rng = np.random.default_rng(seed)
    people = some_boxes(rng, 5)
    people_kind = rng.integers(0, 3, 5).astype(np.int32)
    candidates = some_boxes(rng, 12)
    candidates[:5] = people + rng.integers(-1, 2, (5, 1))
    for kernel, force in ((match_forced, True), (match_plain, False)):
        person, kind = kernel(candidates, people, people_kind)
        assert person.dtype == kind.dtype == jnp.int32
        expected = match_reference(candidates, people, people_kind, force=force)
        np.testing.assert_array_equal(kind, expected[1])
        positive = expected[1] == 1
        np.testing.assert_array_equal(person[positive], expected[0][positive])


def test_force_leaves_nobody_out_and_takes_all_ties():
    """Candidates 8 px to each side of a person are equally good, and bad."""
    people = jnp.array([[100.0, 100, 110, 120], [0, 0, 10, 10]])
    candidates = jnp.array(
        [
            [108.0, 100, 118, 120],
            [92, 100, 102, 120],
            [109, 100, 119, 120],
            [0, 0, 10, 10],
            [0, 0, 10, 9],
            [300, 300, 310, 310],
        ]
    )
    here = jnp.ones(2, jnp.int32)
    person, kind = match_forced(candidates, people, here)
    np.testing.assert_array_equal(kind, [1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(person[kind == 1], [0, 0, 1, 1])
    _, kind = match_plain(candidates, people, here)
    np.testing.assert_array_equal(kind, [0, 0, 0, 1, 1, 0])


def test_ties_may_differ_by_rounding():
    """Sides of 32 sqrt(1/2) px, mirrored: in float32 their overlaps are not equal."""
    person = jnp.array([[50.0, 50, 98, 123]])
    anchors = boxes.anchors(size=(20, 20), stride=8, scales=[32.0], aspects=[2.0])
    center = (anchors[:, :2] + anchors[:, 2:]) / 2
    mirrored = person[:, :2] + person[:, 2:] - center
    both = jnp.concatenate([anchors, anchors + jnp.tile(mirrored - center, 2)])
    overlap = np.asarray(iou(both, person))[:, 0]
    assert (overlap[:400] != overlap[400:]).any()
    # The interior all ties; whoever is forced, its mirror image is too.
    here = jnp.ones(1, jnp.int32)
    _, kind = match(both, person, here, positive=0.9, negative=0.8, force=True)
    assert kind.max() == 1
    np.testing.assert_array_equal(kind[:400], kind[400:])


def test_a_forced_candidate_belongs_to_who_needs_it():
    """It overlaps the second person more, but that one has a better candidate."""
    people = jnp.array([[0.0, 0, 10, 10], [10, 0, 30, 10]])
    candidates = jnp.array([[8.0, 0, 30, 10], [10, 0, 30, 10]])
    person, kind = match_forced(candidates, people, jnp.ones(2, jnp.int32))
    np.testing.assert_array_equal(kind, [1, 1])
    np.testing.assert_array_equal(person, [0, 1])
    person, _ = match_plain(candidates, people, jnp.ones(2, jnp.int32))
    np.testing.assert_array_equal(person, [1, 1])
    # Both people claim the only one there is: it goes to the one it overlaps most.
    person, _ = match_forced(candidates[:1], people, jnp.ones(2, jnp.int32))
    np.testing.assert_array_equal(person, [1])


def test_thresholds_are_met_at_equality():
    person = jnp.array([[0.0, 0, 4, 4]])
    candidates = jnp.array(
        [[0.0, 0, 4, 2], [0, 0, 2, 2], [0, 0, 2, 1.5], [0, 0, 4, 1.5]]
    )
    matched = lambda **thresholds: match(
        candidates, person, jnp.ones(1, jnp.int32), force=False, **thresholds
    )[1]  # overlaps of 1/2, 1/4, 3/16 and 3/8
    np.testing.assert_array_equal(matched(positive=0.5, negative=0.25), [1, -1, 0, -1])
    np.testing.assert_array_equal(matched(positive=0.25, negative=0.25), [1, 1, 0, 1])


def test_crowds_take_background_out_but_no_positives():
    people = jnp.array(
        [[0.0, 0, 10, 10], [0, 0, 40, 40], [40, 0, 80, 40], [200, 0, 300, 90]]
    )
    people_kind = jnp.array([1, 2, 2, 0], jnp.int32)
    candidates = jnp.array(
        [
            [0.0, 0, 10, 10],  # the person, in the crowd
            [20, 20, 30, 30],
            [20, 35, 30, 45],  # half of it
            [35, 10, 45, 20],  # half in each of two
            [35, 10, 44, 20],
            [200, 0, 300, 90],  # padding is no crowd
        ]
    )
    _, kind = match_forced(candidates, people, people_kind)
    np.testing.assert_array_equal(kind, [1, -1, 0, 0, -1, 0])
    _, kind = match(
        candidates, people, people_kind, force=False, crowd=0.4, **THRESHOLDS
    )
    np.testing.assert_array_equal(kind, [1, -1, -1, -1, -1, 0])


def test_nobody_there():
    candidates = jnp.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 0, 0]])
    for people in (jnp.zeros((0, 4)), jnp.zeros((3, 4)), candidates):
        unused = jnp.zeros(len(people), jnp.int32)
        person, kind = match_forced(candidates, people, unused)
        np.testing.assert_array_equal(kind, [0, 0, 0])
        np.testing.assert_array_equal(person, [0, 0, 0])
    crowd = jnp.array([2], jnp.int32)
    _, kind = match_forced(candidates, candidates[1:2], crowd)
    np.testing.assert_array_equal(kind, [0, -1, 0])


# ------------------------------------------------------------------------ sample and take

KIND = np.array([1, 0, -1, 0, 0, 1, 0, 1, -1, 0, 1, 0, 0, 1, 0, 0], np.int32)  # 5, 9, 2


@pytest.mark.parametrize(
    ("count", "share", "positives", "background"),
    [
        (8, 0.5, 4, 4),
        (8, 0.25, 2, 6),
        (8, 1.0, 5, 3),  # not enough positives: background instead
        (8, 0.0, 0, 8),
        (13, 0.3, 4, 9),
        (16, 0.25, 4, 9),  # not enough background: no more positives for it
        (40, 0.5, 5, 9),
    ],
)
def test_sample_counts(count, share, positives, background):
    for seed in range(4):
        picked = np.asarray(
            sample(KIND, jax.random.key(seed), count=count, share=share)
        )
        assert (picked & (KIND == 1)).sum() == positives
        assert (picked & (KIND == 0)).sum() == background
        assert not picked[KIND == -1].any()


def test_sample_of_one_kind_only():
    for kind, expected in ((0, 6), (1, 3), (-1, 0)):
        only = jnp.full(10, kind, jnp.int32)
        picked = sample(only, jax.random.key(0), count=6, share=0.5)
        assert picked.sum() == expected


def test_sample_is_uniform():
    """Of 4000 draws each candidate has its share, and so has each pair of positives."""
    draws = 4000
    keys = jax.random.split(jax.random.key(1), draws)
    kinds = jnp.asarray(KIND)
    draw = jax.jit(jax.vmap(lambda key: boxes.sample(kinds, key, count=8, share=0.25)))
    picked = np.asarray(draw(keys), float)
    for kind, wanted in ((1, 2), (0, 6)):
        mine = picked[:, KIND == kind]
        n = mine.shape[1]
        p = wanted / n
        # The counts are those of sampling without replacement: this is chi-square with
        # n - 1 degrees of freedom, of which 30 is beyond the 0.9995 quantile for n = 9.
        spread = ((mine.sum(0) - draws * p) ** 2).sum() / (draws * p * (1 - p))
        assert 0.1 < spread * (n - 1) / n < 30
    together = picked[:, KIND == 1].T @ picked[:, KIND == 1]
    pairs = together[np.triu_indices(5, 1)]
    assert pairs.sum() == draws  # two each time
    np.testing.assert_allclose(pairs, draws / 10, rtol=0.2)  # 4 standard deviations


def test_take_lists_what_is_picked():
    picked = jnp.array([False, True, True, False, True, False])
    index, valid = take(picked, count=5)
    np.testing.assert_array_equal(index, [1, 2, 4, 0, 0])
    np.testing.assert_array_equal(valid, [True, True, True, False, False])
    index, valid = take(picked, count=2)
    np.testing.assert_array_equal(index, [1, 2])
    np.testing.assert_array_equal(valid, [True, True])
    index, valid = take(picked, count=9)
    np.testing.assert_array_equal(index, [1, 2, 4] + [0] * 6)
    index, valid = take(jnp.zeros(6, bool), count=3)
    np.testing.assert_array_equal(index, [0, 0, 0])
    assert not valid.any()
