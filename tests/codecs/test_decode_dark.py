"""DARK's decoder: the published procedure in float64, and what the robust one adds."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from pose_jax.codecs import gaussian

TABLES = {
    3: [1, 2, 1],
    5: [1, 4, 6, 4, 1],
    7: [1, 3.5, 7, 9, 7, 3.5, 1],
    9: [4, 13, 30, 51, 60, 51, 30, 13, 4],
}


def kernel_of(kernel_size, sigma=None):
    if sigma is None and kernel_size in TABLES:
        kernel = np.array(TABLES[kernel_size], np.float64)
    else:
        r = (kernel_size - 1) / 2
        sigma = sigma or 0.3 * (r - 1) + 0.8
        kernel = np.exp(-((np.arange(kernel_size) - r) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def published(one_map, kernel):
    """The published procedure for an [h, w] map: the point, and the determinant.

    The determinant is the step's Hessian's, None where no step is taken.
    """
    one_map = one_map.astype(np.float64)
    h, w = one_map.shape
    y, x = divmod(int(one_map.argmax()), w)
    if one_map[y, x] <= 0:
        return np.zeros(2), None
    r = len(kernel) // 2
    padded = np.pad(one_map, r)
    down = sum(c * padded[i : i + h] for i, c in enumerate(kernel))
    blurred = sum(c * down[:, i : i + w] for i, c in enumerate(kernel))
    log = np.log(np.maximum(blurred * (one_map.max() / blurred.max()), 1e-10))
    point = np.array([x, y], np.float64)
    if not (1 < x < w - 2 and 1 < y < h - 2):
        return point, None
    dx = (log[y, x + 1] - log[y, x - 1]) / 2
    dy = (log[y + 1, x] - log[y - 1, x]) / 2
    dxx = (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2]) / 4
    dyy = (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x]) / 4
    dxy = log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1]
    hessian = np.array([[dxx, dxy / 4], [dxy / 4, dyy]])
    det = np.linalg.det(hessian)
    if det == 0:
        return point, None
    return point - np.linalg.solve(hessian, [dx, dy]), det


def blobs(rng, n, size, sigma, noise=0.0, margin=0.0):
    """n true points anywhere on the map and [n, h, w, 1] noisy maps of them."""
    w, h = size
    low, high = np.array([margin, margin]), np.array([w - 1 - margin, h - 1 - margin])
    points = low + rng.uniform(0, 1, (n, 2)) * (high - low)
    return points, draw(points, size, sigma) + noise_like(rng, n, size, noise)


def noise_like(rng, n, size, noise):
    return (noise * rng.standard_normal((n, size[1], size[0], 1))).astype(np.float32)


def draw(points, size, sigma):
    across = np.exp(-((np.arange(size[0]) - points[:, :1]) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(size[1]) - points[:, 1:]) ** 2) / (2 * sigma**2))
    return (down[:, :, None] * across[:, None, :])[..., None].astype(np.float32)


def decode(maps, **options):
    """[n, h, w, 1] -> [n, 2], in batches of one size, so that few shapes are compiled."""
    n, size = len(maps), 100
    padded = np.pad(maps, ((0, -n % size), (0, 0), (0, 0), (0, 0)))
    points, scores = [], []
    for i in range(0, n, size):
        got = gaussian.decode_dark(jnp.asarray(padded[i : i + size]), **options)
        points.append(got[0][:, 0])
        scores.append(got[1])
    np.testing.assert_array_equal(np.concatenate(scores)[:n], maps.max(axis=(1, 2)))
    return np.concatenate(points)[:n]


@pytest.mark.parametrize(
    "options, kernel",
    [
        ({"kernel_size": 3}, kernel_of(3)),
        ({"kernel_size": 5}, kernel_of(5)),
        ({"kernel_size": 7}, kernel_of(7)),
        ({"kernel_size": 9}, kernel_of(9)),
        ({}, kernel_of(11, 2.0)),
        ({"sigma": 0.5}, kernel_of(3, 0.5)),
        ({"sigma": 1}, kernel_of(5, 1.0)),
        ({"sigma": 1.5, "kernel_size": 7}, kernel_of(7, 1.5)),
    ],
)
def test_paper_is_the_published_procedure(options, kernel):
    rng = np.random.default_rng(0)
    size = (24, 32)
    groups = [blobs(rng, 60, size, s, n)[1] for s in (1, 2) for n in (0, 0.05)]
    # Mostly negative, so that blurred values fall below the floor of the logarithm.
    groups += [noise_like(rng, 60, size, 1.0), np.float32(0.3) * groups[0] - 0.1]
    maps = np.concatenate(groups)
    got = decode(maps, variant="paper", **options)
    compared = 0
    for one_map, point in zip(maps[..., 0], got, strict=True):
        expected, det = published(one_map, kernel)
        if det is not None and abs(det) < 1e-3:
            continue  # float32 cannot tell where a singular step ends.
        moved = np.abs(expected - np.round(expected)).max() > 0
        compared += det is not None and moved
        np.testing.assert_allclose(point, expected, atol=1e-4, rtol=1e-4)
    assert compared > 150


def test_paper_of_a_peak_not_positive_is_the_origin():
    maps = np.stack([np.zeros((9, 8, 1)), np.full((9, 8, 1), -2.0)]).astype(np.float32)
    maps[1, 4, 5] = -1
    np.testing.assert_array_equal(decode(maps, variant="paper"), 0)
    np.testing.assert_array_equal(decode(maps), [[0, 0], [5, 4]])


def test_paper_is_biased_near_the_rim_as_published():
    points = np.array([[2.3, 30.0], [3.3, 30.0], [4.3, 30.0], [6.3, 30.0]])
    got = decode(draw(points, (48, 64), 2), variant="paper")[:, 0]
    np.testing.assert_allclose(got[:3], [2.44, 3.33, 4.303], atol=5e-3)
    np.testing.assert_allclose(got[3], 6.3, atol=2e-4)


@pytest.mark.parametrize("kernel_size", [3, 11, 17])
def test_robust_is_paper_where_the_blur_sees_only_the_map(kernel_size):
    rng = np.random.default_rng(1)
    size, reach = (48, 64), (kernel_size - 1) // 2 + 2
    maps = np.concatenate(
        [blobs(rng, 80, size, s, n, reach)[1] for s in (1, 2, 3) for n in (0, 0.05)]
    )
    robust = decode(maps, kernel_size=kernel_size)
    paper = decode(maps, kernel_size=kernel_size, variant="paper")
    peaks = np.asarray(gaussian.decode_argmax(jnp.asarray(maps))[0])[:, 0]
    inside = (peaks >= reach) & (peaks <= np.array(size) - 1 - reach)
    # Without a blur worth the name 5% noise makes wild Hessians, which robust refuses.
    sane = np.abs(paper - peaks).max(axis=1) < 1.5
    compared = inside.all(axis=1) & sane
    assert compared.sum() > 400
    np.testing.assert_allclose(robust[compared], paper[compared], atol=1e-4)


@pytest.mark.parametrize(
    "size, sigma, kernel_size",
    [((48, 64), 2, 11), ((48, 64), 3, 17), ((24, 32), 1, 11)],
)
def test_decode_inverts_encode(size, sigma, kernel_size):
    rng = np.random.default_rng(2)
    points = 2 + rng.uniform(0, 1, (400, 2)) * (np.array(size) - 5)
    maps = gaussian.encode(
        jnp.asarray(points[:, None], jnp.float32), size=size, sigma=sigma
    )
    got = decode(np.asarray(maps), kernel_size=kernel_size)
    assert np.abs(got - points).max() < 0.01


def rim_points(rng, n, size, distance, corner):
    """Points about a distance from one edge, or from both of a corner, on any side."""
    w, h = size
    distance = np.maximum(distance + rng.uniform(-0.2, 0.2, (n, 1)), 0.5)
    inner = np.stack([rng.uniform(14, w - 15, n), rng.uniform(14, h - 15, n)], axis=1)
    near = np.repeat(distance, 2, axis=1)
    if not corner:
        keep = rng.integers(0, 2, n)  # The axis that is not near an edge.
        near[np.arange(n), keep] = inner[np.arange(n), keep]
    far = np.array([w - 1, h - 1]) - near
    return np.where(rng.integers(0, 2, (n, 2)) == 0, near, far)


DISTANCES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


@pytest.mark.parametrize(
    "sigma, kernel_size",
    [(1, 5), (1, 11), (2, 3), (2, 11), (3, 11), (3, 17)],
)
def test_robust_is_accurate_up_to_the_rim(sigma, kernel_size):
    rng = np.random.default_rng(3)
    size = (48, 64)
    clean, noisy = {}, {name: [] for name in ("robust", "paper", "shift")}
    for distance in DISTANCES:
        for corner in (False, True):
            points = rim_points(rng, 100, size, distance, corner)
            maps = draw(points, size, sigma)
            got = decode(maps, kernel_size=kernel_size)
            error = np.linalg.norm(got - points, axis=1)
            clean[distance, corner] = np.median(error)
            maps = maps + noise_like(rng, 100, size, 0.05)
            shift = np.asarray(gaussian.decode_shift(jnp.asarray(maps))[0])[:, 0]
            decoded = {
                "robust": decode(maps, kernel_size=kernel_size),
                "paper": decode(maps, kernel_size=kernel_size, variant="paper"),
                "shift": shift,
            }
            for name, got in decoded.items():
                noisy[name].append(np.median(np.linalg.norm(got - points, axis=1)))
    assert max(clean.values()) < 0.02, clean
    robust, paper, shift = (np.array(v) for v in noisy.values())
    assert (robust < shift).all(), noisy
    # Where paper's blur sees the whole blob the two are level, within the sampling.
    assert (robust < np.maximum(1.25 * paper, paper + 0.01)).all(), noisy
    assert robust.mean() < 0.8 * paper.mean(), noisy
    assert robust[2:].max() < 0.2, noisy  # From 1 pixel on, corners included.


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5}])
def test_robust_is_flip_equivariant(options):
    rng = np.random.default_rng(4)
    size = (24, 32)
    maps = np.concatenate(
        [blobs(rng, 300, size, s, n)[1] for s in (1, 2) for n in (0, 0.05)]
    )
    points = decode(maps, **options)
    flipped_x, flipped_y = maps[:, :, ::-1], maps[:, ::-1]
    got_x, got_y = decode(flipped_x, **options), decode(flipped_y, **options)
    turned = decode(np.swapaxes(maps, 1, 2), **options)
    np.testing.assert_allclose(got_x, [23, 0] + points * [-1, 1], atol=1e-3)
    np.testing.assert_allclose(got_y, [0, 31] + points * [1, -1], atol=1e-3)
    np.testing.assert_allclose(turned, points[:, ::-1], atol=1e-3)


def test_robust_is_translation_equivariant():
    rng = np.random.default_rng(5)
    small = blobs(rng, 50, (16, 16), 1, 0.05, margin=5)[1]
    at = lambda x, y: np.pad(small, ((0, 0), (y, 20 - y), (x, 14 - x), (0, 0)))
    start = decode(at(0, 0), kernel_size=5)
    for x, y in ((3, 0), (0, 11), (14, 20)):
        moved = decode(at(x, y), kernel_size=5)
        np.testing.assert_allclose(moved, start + [x, y], atol=1e-4)


def test_robust_does_not_depend_on_the_scale():
    rng = np.random.default_rng(6)
    maps = blobs(rng, 300, (24, 32), 2, 0.05)[1]
    points = decode(maps)
    for scale in (1e-12, 255.0, 1e20):
        np.testing.assert_allclose(decode(np.float32(scale) * maps), points, atol=1e-3)


extreme = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, 1.0, -1.0, 1e-10, np.inf, -np.inf, np.nan, 3e38, 1e-45]),
)


@pytest.mark.parametrize(
    "shape, kernel_size", [((3, 3), 11), ((1, 9), 11), ((9, 1), 3), ((17, 12), 3)]
)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_robust_is_finite_inside_and_near_the_peak_on_any_map(shape, kernel_size, data):
    h, w = shape
    one_map = data.draw(hnp.arrays(np.float32, (h, w), elements=extreme, fill=extreme))
    points, score = gaussian.decode_dark(
        jnp.asarray(one_map)[..., None], kernel_size=kernel_size
    )
    least = np.where(np.isnan(one_map), -np.inf, one_map)
    # XLA rounds numbers below the smallest normal one to 0, products of larger ones too:
    # pixels that differ from the maximum by less may each be taken for the peak.
    flushed = 2 * float(np.finfo(np.float32).tiny)
    peaks = np.argwhere(least.astype(np.float64) >= float(least.max()) - flushed)
    point = np.asarray(points)[0]
    assert np.isfinite(point).all()
    assert (point >= 0).all() and (point <= [w - 1, h - 1]).all()
    assert np.abs(point - peaks[:, ::-1]).max(1).min() <= 2
    assert abs(score[0]) <= flushed or score[0] == least.max()


def test_robust_takes_the_smallest_normal_number_for_a_peak():
    """Found by chance: a map of zeros but for this number."""
    one_map = np.zeros((17, 12), np.float32)
    one_map[13, 9] = np.finfo(np.float32).tiny
    points, score = gaussian.decode_dark(jnp.asarray(one_map)[..., None], kernel_size=3)
    assert np.abs(np.asarray(points)[0] - [9, 13]).max() <= 2 or score[0] == 0


def test_robust_stays_at_the_peak_where_there_is_no_top():
    h, w = 24, 20
    y, x = np.mgrid[:h, :w].astype(np.float32)
    spike = np.zeros((h, w), np.float32)
    spike[12, 19] = 1  # At the rim: one strong sample is not a blob.
    maps = {
        "constant": np.full((h, w), 0.7),
        "ramp": np.exp(0.1 * (x - w)),
        "ridge": np.exp(-0.5 * (y - 12) ** 2),
        "saddle": np.exp(-0.1 * (x - 10) ** 2 + 0.01 * (y - 12) ** 2),
        "spike": spike,
        "infinite": np.where(spike > 0, np.inf, 1.0),
    }
    maps = np.stack(list(maps.values())).astype(np.float32)[..., None]
    peaks = np.asarray(gaussian.decode_argmax(jnp.asarray(maps))[0])[:, 0]
    for options in ({}, {"kernel_size": 3}):
        np.testing.assert_array_equal(decode(maps, **options), peaks)


@pytest.mark.parametrize("variant", ["robust", "paper"])
def test_gradients_are_finite_and_follow_the_point(variant):
    points = jnp.array([[12.3, 15.6], [9.8, 14.1], [0.6, 15.2], [22.2, 30.1]])

    def encode(points):
        return gaussian.encode(points, size=(24, 32), sigma=2)

    rng = np.random.default_rng(7)
    bad = np.zeros((32, 24, 6), np.float32)
    bad[..., 1] = 0.5
    bad[..., 2] = rng.standard_normal((32, 24))
    bad[16, 12, 3] = 1
    bad[0, 0, 4] = 1
    bad[..., 5] = -1
    maps = jnp.concatenate([encode(points), bad], axis=-1)
    total = lambda m: jnp.sum(gaussian.decode_dark(m, variant=variant)[0])
    slope = jax.jit(jax.grad(total))(maps)
    assert np.isfinite(slope).all()
    # Moving a point moves what is decoded as far, except where paper does not look.
    followed = jax.vjp(encode, points)[1](slope[..., :4])[0]
    n = 4 if variant == "robust" else 2
    np.testing.assert_allclose(followed[:n], 1, atol=0.03)
