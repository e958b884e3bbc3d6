"""The point of highest expected utility, and the width of maps, where they are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax.codecs import gaussian, offsets

W, H = 40, 32


def two_modes(weights, points, sigma=0.3):
    """A probability of narrow modes with these sums."""
    maps = gaussian.encode(jnp.asarray(points)[:, None], size=(W, H), sigma=sigma)
    maps = maps / maps.sum((1, 2), keepdims=True)
    return jnp.einsum("m,mhwk->hwk", jnp.asarray(weights), maps)


NEAR = two_modes((0.4, 0.3, 0.3), [(6.0, 8.0), (28.0, 20.0), (31.0, 20.0)])
"""The highest mode stands alone; two lower ones are 3 pixels apart."""


@pytest.mark.parametrize(
    ("kernel", "scale", "expected"),
    [
        ("delta", None, (6, 8)),
        ("gaussian", 0.5, (6, 8)),
        ("gaussian", 3.0, (29.5, 20)),  # Two of 0.3 are worth more than one of 0.4.
        ("disc", 1.0, (6, 8)),
        ("disc", 2.1, (29.5, 20)),
        ("quadratic", None, (0.4 * 6 + 0.6 * 29.5, 0.4 * 8 + 0.6 * 20)),
        ((0.25,), 2.0, (6, 8)),  # OKS: a Gaussian of 2 * 0.25 * 2 = 1 pixel.
        ((0.25,), 6.0, (29.5, 20)),
    ],
)
def test_the_maximum_of_two_modes_depends_on_the_kernel(kernel, scale, expected):
    points_xy, score = gaussian.decode_expected(NEAR, kernel=kernel, scale=scale)
    tolerance = 0.51 if kernel == "disc" else 0.05
    np.testing.assert_allclose(points_xy[0], expected, atol=tolerance)
    np.testing.assert_allclose(score, NEAR.max((0, 1)))


@pytest.mark.parametrize("negative", [0.0, -0.5])
def test_the_mean_of_a_gaussian_is_its_center(negative):
    """Values below 0 do not count."""
    point = jnp.array([[17.3, 14.6]])
    maps = gaussian.encode(point, size=(W, H), sigma=2)
    maps = jnp.where(maps < 1e-6, negative, maps)
    points_xy, _ = gaussian.decode_expected(maps, kernel="quadratic")
    np.testing.assert_allclose(points_xy, point, atol=1e-3)


def test_a_map_of_gaussian_targets_is_already_blurred():
    """Of width c after sigma, the kernel blurs by the root of the difference: the maximum
    of two modes of the same map, narrow or learned with sigma 2, is the same."""
    modes = [(10.0, 12.0), (15.0, 12.0)]
    narrow = two_modes((0.6, 0.4), modes)
    learned = two_modes((0.6, 0.4), modes, sigma=2.0)
    for c in (2.5, 3.0, 4.0):
        first, _ = gaussian.decode_expected(
            narrow, kernel="gaussian", scale=c, sigma=0.3
        )
        other, _ = gaussian.decode_expected(
            learned, kernel="gaussian", scale=c, sigma=2
        )
        np.testing.assert_allclose(first, other, atol=0.05)
    same, _ = gaussian.decode_expected(learned, kernel="gaussian", scale=1.0, sigma=2)
    peak, _ = gaussian.decode_argmax(learned)
    assert np.abs(same - peak).max() <= 0.5  # c <= sigma: no blur.


@pytest.mark.parametrize("point", [(17.3, 14.6), (8.0, 9.0)])
def test_the_integral_without_its_bias(point):
    """Pixels of logit 0 draw the mean to the center; the correction is exact for them."""
    sharp = jnp.where(
        gaussian.encode(jnp.array([point]), size=(W, H), sigma=1) > 0.3, 8.0, 0.0
    )
    on = np.argwhere(np.asarray(sharp[..., 0]) > 0)[:, ::-1]
    n, share = W * H, len(on) * np.exp(8.0)
    center = np.array([(W - 1) / 2, (H - 1) / 2])
    # C counts every pixel, N those of the background and the 1 within exp(8).
    c = share + n - len(on)
    biased = (on.mean(0) * (share - len(on)) + n * center) / c
    plain, _ = gaussian.decode_integral(sharp, unbiased=False)
    np.testing.assert_allclose(plain[0], biased, atol=1e-3)
    exact, _ = gaussian.decode_integral(sharp)
    np.testing.assert_allclose(exact[0], on.mean(0), atol=1e-3)


def test_maps_without_a_value_are_finite():
    for maps in (
        jnp.zeros((H, W, 1)),
        -jnp.ones((H, W, 1)),
        jnp.full((H, W, 1), jnp.nan),
    ):
        for kernel in ("delta", "gaussian", "disc", "quadratic"):
            scale = 2.0 if kernel in ("gaussian", "disc") else None
            points_xy, _ = gaussian.decode_expected(maps, kernel=kernel, scale=scale)
            assert np.isfinite(points_xy).all()
        assert np.isfinite(gaussian.decode_integral(maps)[0]).all()


@pytest.mark.parametrize("sigma", [0.8, 1.4, 2.0, 3.0, 4.0])
def test_estimate_sigma_within_a_tenth(sigma):
    rng = np.random.default_rng(2)
    points = rng.uniform(0, (W - 1, H - 1), (24, 4, 2)).astype(np.float32)
    maps = gaussian.encode(jnp.asarray(points), size=(W, H), sigma=sigma)
    noise = rng.normal(0, 0.05, maps.shape).astype(np.float32)
    scale = np.array([1, 7, 7, 0.2], np.float32).reshape(
        1, 1, 1, 4
    )  # Of some, weak ones.
    found = gaussian.estimate_sigma((maps + noise) * scale)
    np.testing.assert_allclose(found, sigma, rtol=0.1)


def test_no_peak_has_no_width_and_auto_still_decodes():
    empty = jnp.zeros((2, H, W, 3))
    assert np.isnan(gaussian.estimate_sigma(empty))
    assert np.isfinite(gaussian.decode_dark(empty, sigma="auto")[0]).all()
    points = jnp.array([[17.3, 14.6], [3.2, 20.7], [38.6, 1.2]])
    maps = gaussian.encode(points, size=(W, H), sigma=1.4)
    found, _ = gaussian.decode_dark(maps, sigma="auto")
    np.testing.assert_allclose(found, points, atol=0.05)
    with pytest.raises(ValueError, match='sigma is a number, or "auto"'):
        gaussian.decode_dark(maps, sigma="auto", kernel_size=5)


def votes(seed):
    """A disc whose pixels name places that scatter by 3 pixels around the keypoint."""
    rng = np.random.default_rng(seed)
    size, point = (81, 65), jnp.array([[41.0, 30.0]])
    heatmaps, fields = offsets.encode(point, size=size, radius=18)
    return heatmaps, fields + rng.normal(0, 3, fields.shape).astype(np.float32), point


@pytest.mark.parametrize(
    ("options", "limit"), [({"blur": 0.16}, 1.0), ({"stride": 4}, 2.5)]
)
def test_votes_that_scatter_need_a_density(options, limit):
    error = {"paper": [], "other": []}
    for seed in range(6):
        heatmaps, fields, point = votes(seed)
        for name, some in (("paper", {}), ("other", options)):
            found, _ = offsets.decode(heatmaps, fields, radius=18, **some)
            error[name].append(float(np.linalg.norm(found - point)))
    assert np.mean(error["other"]) < limit
    assert np.mean(error["other"]) < np.mean(error["paper"])


def test_coarse_votes_that_agree_are_exact():
    point = jnp.array([[40.5, 31.25]])
    heatmaps, fields = offsets.encode(point, size=(81, 65), radius=18)
    found, score = offsets.decode(heatmaps, fields, radius=18, stride=4)
    np.testing.assert_allclose(found, point, atol=1e-3)
    assert 0.2 < float(score[0]) <= 1.1


@pytest.mark.parametrize("k", [1, 6, 17])
def test_nan_counts_as_minus_infinity_in_every_map(k):
    """Whatever surrounds the one number of a map: CPUs have lost it."""
    rng = np.random.default_rng(0)
    maps = np.full((3, H, W, k), np.nan, np.float32)
    x, y = rng.integers(0, W, (3, k)), rng.integers(0, H, (3, k))
    n, i = np.mgrid[:3, :k]
    maps[n, y, x, i] = -3.0
    found, score = gaussian.decode_argmax(jnp.asarray(maps))
    np.testing.assert_array_equal(found, np.stack([x, y], -1))
    np.testing.assert_array_equal(score, -3)
