"""Keypoint metrics against plain loops over people, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_jax import keypoints
from pose_jax.metrics import oks, pck, pckh, pcp, pdj
from pose_jax.metrics.keypoint import flipped

B, K = 6, 7
SIGMAS = (0.026, 0.035, 0.079, 0.072, 0.062, 0.107, 0.089)
STICKS = (
    ("arm", 0, 1),
    ("arm", 2, 3),
    ("torso", (0, 2), (4, 5)),
    ("head", 6, (0, 2)),
    ("same", 4, 4),
)
TORSO = (2, 5)
PAIRS = ((0, 1), (2, 3), (5, 4))
# Powers of two: t * scale is then exact in float32, ties included.
THRESHOLDS = (0.0, 0.125, 0.25, 0.5, 1.0)

jit_oks = jax.jit(lambda *a: oks(*a, SIGMAS))
jit_pck = jax.jit(lambda *a: pck(*a, thresholds=THRESHOLDS))
jit_pdj = jax.jit(lambda *a: pdj(*a, TORSO, thresholds=THRESHOLDS))
jit_strict = jax.jit(lambda *a: pcp(*a, STICKS))
jit_loose = jax.jit(lambda *a: pcp(*a, STICKS, threshold=0.7, strict=False))
jit_flipped = jax.jit(lambda *a: flipped(*a, PAIRS))


def people(seed, *, grid=True, nan=True):
    """Points of B people. On the grid, distances often are exactly at a threshold."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 24, (B, K, 2)).astype(float)
    pred = true + rng.integers(-4, 5, (B, K, 2)) * rng.integers(0, 3, (B, K, 1))
    if not grid:
        true = true + rng.normal(size=true.shape)
        pred = true + rng.normal(size=true.shape) * rng.choice([0.1, 3, 9], (B, K, 1))
    visibility = rng.choice([0, 1, 2], (B, K), p=[0.2, 0.3, 0.5])
    visibility[0] = 0  # A person without any label.
    visibility[1] = 2  # A degenerate one: every stick and the torso have length zero.
    true[1] = true[1, 0]
    if nan:
        true[visibility == 0] = np.nan
        pred[(visibility == 0) & rng.choice([False, True], (B, K))] = np.nan
    return pred, true, visibility, rng


def f32(*arrays):
    return tuple(
        jnp.asarray(a, jnp.int32 if a.dtype.kind == "i" else jnp.float32)
        for a in map(np.asarray, arrays)
    )


def loop_oks(pred, true, visibility, area):
    """One person."""
    values = [
        math.exp(-(math.dist(p, q) ** 2) / (2 * (area + 1e-30) * (2 * s) ** 2))
        for p, q, v, s in zip(pred, true, visibility, SIGMAS, strict=True)
        if v > 0
    ]
    return sum(values) / len(values) if values else 0.0


def loop_pck(pred, true, visibility, squared_scale):
    """In squares: exact on the grid, so ties are decided right."""
    correct, counted = np.zeros((len(THRESHOLDS), K), int), np.zeros(K, int)
    for b in range(B):
        if not (math.isfinite(squared_scale[b]) and squared_scale[b] > 0):
            continue
        for k in range(K):
            if visibility[b, k] == 0:
                continue
            counted[k] += 1
            for t, threshold in enumerate(THRESHOLDS):
                squared = ((pred[b, k] - true[b, k]) ** 2).sum()
                correct[t, k] += squared <= threshold**2 * squared_scale[b]
    return correct, counted


def loop_pcp(pred, true, visibility, *, threshold, strict):
    """Returns the counts, and how far the closest call was from the threshold."""
    correct, counted = np.zeros(len(STICKS), int), np.zeros(len(STICKS), int)
    margin = math.inf
    for b in range(B):
        for s, (_, *ends) in enumerate(STICKS):
            ends = [list(np.atleast_1d(end)) for end in ends]
            if any(visibility[b, i] == 0 for end in ends for i in end):
                continue
            counted[s] += 1
            a, c = (true[b, end].mean(0) for end in ends)
            length = math.dist(a, c)
            errors = [
                math.dist(pred[b, end].mean(0), point)
                for end, point in zip(ends, (a, c), strict=True)
            ]
            error = max(errors) if strict else sum(errors) / 2
            correct[s] += length > 0 and error <= threshold * length
            if length > 0:
                margin = min(margin, abs(error - threshold * length))
    return correct, counted, margin


def loop_flipped(pred, true, visibility, *, margin, at_least):
    """One person; also how far the closest call was from the margin, in pixels."""
    errors, exchanged = [], []
    for i, j in (*PAIRS, *(pair[::-1] for pair in PAIRS)):
        if visibility[i] > 0:
            errors.append(math.dist(pred[i], true[i]))
            exchanged.append(math.dist(pred[j], true[i]))
    if len(errors) < at_least:
        return False, False, math.inf
    error, other = (sum(part) / len(part) for part in (errors, exchanged))
    call = other - (1 - margin) * error
    return error > 0 and call <= 0, True, abs(call)


seeds = st.integers(0, 2**32 - 1)
many = settings(max_examples=60, deadline=None)


@many
@given(seeds)
def test_oks_is_the_loop(seed):
    pred, true, visibility, rng = people(seed, grid=False)
    area = rng.choice([0.0, 1e-3, 1.0, 300.0, 1e4], B)
    area[2:] = np.maximum(area[2:], 1.0)
    got = jit_oks(*f32(pred, true, visibility, area))
    want = [loop_oks(*(a[b] for a in (pred, true, visibility, area))) for b in range(B)]
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert got[0] == 0  # Nothing labelled.


@pytest.mark.parametrize(("ratio", "value"), [(1, 0.8825), (2, 0.6065), (3, 0.3247)])
def test_oks_at_multiples_of_sigma(ratio, value):
    coco = keypoints.COCO
    area = 50.0 * 80.0
    true = np.full((17, 2), 100.0)
    pred = true.copy()
    pred[:, 1] += ratio * np.array(coco.sigmas) * math.sqrt(area)
    got = jax.jit(oks)(*f32(pred, true, np.full(17, 2), area, coco.sigmas))
    assert got.shape == ()
    np.testing.assert_allclose(got, value, atol=5e-5)


def test_oks_of_exact_points_is_one_at_any_area():
    points = np.zeros((3, K, 2))
    area = np.array([0.0, 1e-6, 1e9])
    got = jit_oks(*f32(points, points, np.ones((3, K), int), area))
    np.testing.assert_array_equal(got, np.ones(3))


@many
@given(seeds)
def test_oks_does_not_see_the_unit_of_length(seed):
    pred, true, visibility, _ = people(seed, grid=False)
    area = np.full(B, 500.0)
    once = jit_oks(*f32(pred, true, visibility, area))
    twice = jit_oks(*f32(2 * pred, 2 * true, visibility, 4 * area))
    np.testing.assert_allclose(once, twice, atol=1e-6)
    assert ((once >= 0) & (once <= 1)).all()


def test_oks_compares_all_pairs():
    pred, true, visibility, rng = people(3, grid=False)
    area = rng.uniform(10, 1000, B)
    args = f32(pred, true, visibility, area)
    wide = jit_oks(args[0][:, None], *(a[None] for a in args[1:]))
    of_one = jax.vmap(jit_oks, (None, 0, 0, 0))
    nested = jax.vmap(of_one, (0, None, None, None))(*args)
    assert wide.shape == (B, B)
    np.testing.assert_allclose(wide, nested, atol=1e-6)
    np.testing.assert_allclose(np.diag(wide), jit_oks(*args), atol=1e-6)


def test_oks_gradient_is_the_derivative_and_finite():
    pred, true, visibility, _ = people(5, grid=False)
    area = np.array([100.0, 0.0, 1e-5, 400.0, 9e3, 1e6])
    pred[3] = true[3]
    args = f32(pred, true, visibility, area)
    total = jax.jit(jax.grad(lambda p, t, v, a: oks(p, t, v, a, SIGMAS).sum(), (0, 3)))
    by_points, by_area = total(*args)
    assert np.isfinite(by_points).all() and np.isfinite(by_area).all()
    for b in (4, 5):
        spread = 8 * np.array(SIGMAS)[:, None] ** 2 * area[b]
        labelled = visibility[b][:, None] > 0
        difference = np.where(labelled, pred[b] - true[b], 0)
        kernel = np.exp(-(difference**2).sum(-1, keepdims=True) / spread)
        want = -2 * difference / spread * kernel / labelled.sum()
        np.testing.assert_allclose(by_points[b], want, rtol=1e-3, atol=1e-6)


@many
@given(seeds)
def test_pck_is_the_loop(seed):
    pred, true, visibility, rng = people(seed)
    scale = rng.choice([0.0, -8.0, np.nan, np.inf, 4.0, 8.0, 12.0, 40.0], B)
    correct, counted = jit_pck(*f32(pred, true, visibility, scale))
    want_correct, want_counted = loop_pck(
        pred, true, visibility, np.where(scale > 0, scale, 0) ** 2
    )
    np.testing.assert_array_equal(correct, want_correct)
    np.testing.assert_array_equal(counted, want_counted)


@many
@given(seeds)
def test_pdj_is_the_loop_over_torso_diameters(seed):
    pred, true, visibility, _ = people(seed)
    i, j = TORSO
    labelled = (visibility[:, i] > 0) & (visibility[:, j] > 0)
    squared = ((true[:, i] - true[:, j]) ** 2).sum(-1)
    correct, counted = jit_pdj(*f32(pred, true, visibility))
    want_correct, want_counted = loop_pck(
        pred, true, visibility, np.where(labelled, squared, 0.0)
    )
    np.testing.assert_array_equal(counted, want_counted)
    np.testing.assert_array_equal(correct, want_correct)


@many
@given(seeds)
def test_strict_pcp_is_the_loop(seed):
    pred, true, visibility, _ = people(seed)
    correct, counted = jit_strict(*f32(pred, true, visibility))
    want = loop_pcp(pred, true, visibility, threshold=0.5, strict=True)
    np.testing.assert_array_equal(correct, want[0])
    np.testing.assert_array_equal(counted, want[1])
    assert correct[-1] == 0  # "same": its ends are one point.


@many
@given(seeds)
def test_loose_pcp_is_the_loop(seed):
    pred, true, visibility, _ = people(seed, grid=False)
    *want, margin = loop_pcp(pred, true, visibility, threshold=0.7, strict=False)
    if margin < 1e-4:  # Too close a call for float32.
        return
    correct, counted = jit_loose(*f32(pred, true, visibility))
    np.testing.assert_array_equal(correct, want[0])
    np.testing.assert_array_equal(counted, want[1])


@many
@given(seeds)
def test_flipped_is_the_loop(seed):
    pred, true, visibility, rng = people(seed, grid=False)
    order = np.arange(K)
    for i, j in PAIRS:
        order[[i, j]] = j, i
    pred = np.where(rng.choice([False, True], (B, 1, 1)), pred[:, order], pred)
    pred = np.nan_to_num(pred, nan=-50.0)
    found, judged = jit_flipped(*f32(pred, true, visibility))
    assert not judged[0] and not found[0]  # Nothing labelled.
    for b in range(B):
        person = pred[b], true[b], visibility[b]
        *want, call = loop_flipped(*person, margin=0.2, at_least=4)
        assert bool(judged[b]) == want[1]
        if call > 1e-3:  # Not too close a call for float32.
            assert bool(found[b]) == want[0]


def test_who_is_flipped_and_who_is_not():
    lsp = keypoints.LSP
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 100, (len(lsp), 2))
    symmetric = true[list(lsp.permutation)] * 0.5 + true * 0.5
    nan = np.full_like(true, np.nan)
    mirrored = true[list(lsp.permutation)]
    judge = jax.jit(lambda *a: flipped(*a, lsp.flip_pairs))
    for name, pred, truth, expected in (
        ("exact", true, true, False),
        ("near", true + rng.normal(size=true.shape), true, False),
        ("flipped", mirrored, true, True),
        ("flipped and off", mirrored + rng.normal(size=true.shape), true, True),
        ("in profile, off", symmetric + 3.0, symmetric, False),
        ("in profile, exact", symmetric, symmetric, False),
        ("collapsed", np.full_like(true, 50.0), true, False),
        ("nan", nan, true, False),
    ):
        found, judged = judge(*f32(pred, truth, np.full(len(lsp), 2)))
        assert bool(judged) and bool(found) == expected, name


def test_a_flip_takes_away_the_margin_or_more_and_middle_keypoints_have_no_part():
    # Left at 0 and right at 14, found at 8 and 6: distances of 8, exchanged of 6.
    true = np.array([[0.0, 0], [14, 0], [0, 5], [14, 5], [7, 9]])
    pairs = ((0, 1), (2, 3))
    visibility = np.full(5, 2)
    for by, margin, expected in ((0.0, 0.25, True), (-0.01, 0.25, False)):
        pred = np.array([[8 + by, 0], [6, 0], [8, 5], [6, 5], [900, 9]])
        found, _ = flipped(*f32(pred, true, visibility), pairs, margin=margin)
        assert bool(found) == expected
    three = np.array([2, 1, 0, 2, 2])
    for least, expected in ((3, True), (4, False)):
        found, judged = flipped(
            *f32(pred, true, three), pairs, margin=0.2, at_least=least
        )
        assert bool(found) == bool(judged) == expected


def test_flips_of_lsp_are_the_people_whose_left_is_the_observers(real_data):
    """LSP is labelled twice; each part of the body agrees, or is exchanged, as a whole."""
    lsp = keypoints.LSP
    person, observer = (
        scipy.io.loadmat(real_data / "lsp_dataset" / file)["joints"]
        .transpose(2, 1, 0)[1000:, :, :2]
        .astype(np.float32)
        for file in ("joints.mat", "joints-OC.mat")
    )
    shown = np.full(person.shape[:2], 2, np.int32)
    differ = (person != observer).any(-1)
    upper = set(lsp.upper_body)
    for is_part in (upper.issuperset, upper.isdisjoint):
        pairs = tuple(pair for pair in lsp.flip_pairs if is_part(pair))
        found, judged = flipped(observer, person, shown, pairs)
        expected = differ[:, np.array(pairs).reshape(-1)].any(1)
        assert bool(judged.all()) and 0.3 < expected.mean() < 0.36
        np.testing.assert_array_equal(found, expected)
    # Noise is not taken for flips, and does not hide them while it is small.
    rng = np.random.default_rng(0)
    extent = (person.max(1) - person.min(1)).max(1)
    noise = rng.normal(size=person.shape) * extent[:, None, None]

    def share(points_xy, size, margin=0.2):
        points_xy = (points_xy + size * noise).astype(np.float32)
        found, _ = flipped(points_xy, person, shown, lsp.flip_pairs, margin=margin)
        return float(found.mean())

    assert max(share(person, size) for size in (0.05, 0.1, 0.2)) <= 0.002
    assert 0.04 < share(person, 0.2, margin=0.0) < 0.08
    assert share(observer, 0.05) == pytest.approx(share(observer, 0), abs=0.03)


def test_exactly_at_the_threshold_counts():
    @jax.jit
    def metrics(*args):
        stick, ten = (("limb", 0, 1),), jnp.array([10.0])
        return (
            pck(*args, ten, thresholds=[0.5]),
            pckh(*args, ten, thresholds=[0.5]),
            pdj(*args, (0, 1), thresholds=[0.5]),
            pcp(*args, stick),
            pcp(*args, stick, strict=False),
        )

    true = np.array([[[0.0, 0.0], [10.0, 0.0]]])
    visibility = np.full((1, 2), 1)
    for distance, right in ((5.0, 1), (5.001, 0)):
        pred = true + distance * np.array([[0.0, 1.0], [0.6, 0.8]])
        for correct, counted in metrics(*f32(pred, true, visibility)):
            np.testing.assert_array_equal(correct, np.full(correct.shape, right))
            np.testing.assert_array_equal(counted, np.ones(counted.shape))


def test_loose_forgives_one_bad_end_and_strict_does_not():
    true = np.array([[0.0, 0.0], [10.0, 0.0]])
    pred = np.array([[0.0, 7.0], [10.0, 3.0]])
    args = (*f32(pred, true, np.array([1, 2])), (("limb", 0, 1),))
    assert [int(c[0]) for c in pcp(*args)] == [0, 1]
    assert [int(c[0]) for c in pcp(*args, strict=False)] == [1, 1]
    assert [int(c[0]) for c in pcp(*args, threshold=0.7)] == [1, 1]


@pytest.mark.parametrize("strict", [True, False])
def test_a_stick_of_length_zero_is_wrong_and_one_without_an_end_is_not_there(strict):
    true = np.array([[[3.0, 4.0], [3.0, 4.0]], [[3.0, 4.0], [8.0, 4.0]]])
    stick = (("limb", 0, 1),)
    run = jax.jit(lambda *a: pcp(*a, stick, strict=strict))
    for visibility, right, counted in (
        ([[1, 2], [2, 1]], 1, 2),
        ([[1, 2], [2, 0]], 0, 1),
        ([[0, 2], [2, 1]], 1, 1),
    ):
        got = run(*f32(true, true, np.array(visibility)))
        assert [int(c[0]) for c in got] == [right, counted]
    # At a threshold of 0 the truth is right about all but those.
    assert (
        int(pcp(*f32(true, true, np.ones((2, 2), int)), stick, threshold=0.0)[0][0])
        == 1
    )


def test_the_three_pcks_share_one_definition():
    pred, true, visibility, _ = people(11)
    args = f32(pred, true, visibility)
    i, j = TORSO
    seen = (visibility[:, i] > 0) & (visibility[:, j] > 0)
    squared = ((true[:, i] - true[:, j]) ** 2).sum(-1)
    (diameter,) = f32(np.sqrt(np.where(seen, squared, 0)))
    by_pck = jit_pck(*args, diameter)
    by_pckh = jax.jit(lambda *a: pckh(*a, thresholds=THRESHOLDS))(*args, diameter)
    by_pdj = jit_pdj(*args)
    for n in range(2):
        np.testing.assert_array_equal(by_pck[n], by_pckh[n])
        np.testing.assert_array_equal(by_pck[n], by_pdj[n])


def test_a_nan_prediction_is_wrong():
    pred, true, visibility, _ = people(2, nan=False)
    args = f32(np.full_like(pred, np.nan), true, visibility)
    for metric in (jit_strict, jit_loose, jit_pdj):
        correct, counted = metric(*args)
        assert int(correct.sum()) == 0 and int(counted.sum()) > 0


@pytest.mark.parametrize(
    "keypoint_set", keypoints.SETS.values(), ids=list(keypoints.SETS)
)
def test_every_set_has_what_its_metrics_need(keypoint_set):
    k = len(keypoint_set)
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 100, (4, k, 2))
    args = f32(true, true, np.full((4, k), 2))
    correct, counted = jax.jit(lambda *a: pcp(*a, keypoint_set.sticks))(*args)
    np.testing.assert_array_equal(correct, np.full(len(keypoint_set.sticks), 4))
    np.testing.assert_array_equal(counted, correct)
    jit_pdj = jax.jit(lambda *a: pdj(*a, keypoint_set.torso, thresholds=[0.0, 0.2]))
    correct, counted = jit_pdj(*args)
    np.testing.assert_array_equal(correct, np.full((2, k), 4))
    np.testing.assert_array_equal(counted, np.full(k, 4))


def test_sigmas_may_be_traced():
    pred, true, visibility, _ = people(1)
    args = f32(pred, true, visibility, np.full(B, 100.0))
    got = jax.jit(oks)(*args, jnp.array(SIGMAS))
    np.testing.assert_allclose(got, jit_oks(*args), atol=1e-6)
