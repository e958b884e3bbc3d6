"""Encoding and the plain decoders, against definitions written in loops."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from pose_jax.codecs import gaussian

SIZE = (7, 10)  # Width, height: not square, so that swapped axes fail.
MAPS = (2, 10, 7, 3)

DECODERS = {
    "argmax": gaussian.decode_argmax,
    "sign": gaussian.decode_shift,
    "second": lambda maps: gaussian.decode_shift(maps, rule="second"),
    "paper": lambda maps: gaussian.decode_dark(maps, kernel_size=5, variant="paper"),
    "robust": lambda maps: gaussian.decode_dark(maps, kernel_size=5),
}
JITTED = {name: jax.jit(decode) for name, decode in DECODERS.items()}

# Few distinct values, so that ties, plateaus and bad numbers are common.
any_maps = hnp.arrays(
    np.float32,
    MAPS,
    elements=st.sampled_from(
        [0.0, -1.0, 0.5, 1.0, 3.0, 1e-30, -1e30, 3e38, np.inf, -np.inf, np.nan]
    ),
)
plain_maps = hnp.arrays(
    np.float32, MAPS, elements=st.sampled_from([0.0, -1.0, 0.25, 0.5, 0.75, 1.0, 3.0])
)


def numpy_of(decoded):
    return np.asarray(decoded[0]), np.asarray(decoded[1])


def encode_loops(points, *, size, sigma, quantize=False, cutoff=None):
    w, h = size
    maps = np.zeros((h, w, len(points)))
    for k, (px, py) in enumerate(points):
        if quantize:
            px, py = math.floor(px + 0.5), math.floor(py + 0.5)
        for y in range(h):
            for x in range(w):
                if (
                    cutoff is not None
                    and max(abs(x - px), abs(y - py)) > cutoff * sigma
                ):
                    continue
                d2 = (x - px) ** 2 + (y - py) ** 2
                maps[y, x, k] = math.exp(-d2 / (2 * sigma**2))
    return maps


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("cutoff", [None, 1.5, 3])
@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_encode_is_its_definition(quantize, cutoff, sigma):
    rng = np.random.default_rng(0)
    points = rng.uniform(-4, 13, (6, 2)).astype(np.float32)
    points[0] = 2.5, 3.5  # Halves go up.
    options = dict(size=SIZE, sigma=sigma, quantize=quantize, cutoff=cutoff)
    maps = gaussian.encode(jnp.asarray(points), **options)
    expected = encode_loops(points.astype(np.float64), **options)
    assert maps.dtype == jnp.float32
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_encode_has_peak_one_at_the_true_centre():
    maps = gaussian.encode(jnp.array([[3.0, 8.0]]), size=SIZE, sigma=2)
    assert np.argwhere(np.asarray(maps) == 1).tolist() == [[8, 3, 0]]


def test_encode_gradient_is_the_derivative_and_finite():
    def value(points):
        return jnp.sum(gaussian.encode(points, size=SIZE, sigma=2.0)[4, 3])

    points = jnp.array([[3.0, 4.0], [1.0, 4.0], [1e4, -1e6], [1e25, 0.0]])
    slope = jax.jit(jax.grad(value))(points)
    expected = math.exp(-(2.0**2) / 8) * 2.0 / 4
    np.testing.assert_allclose(slope[1], [expected, 0], atol=1e-6)
    np.testing.assert_array_equal(slope[jnp.array([0, 2, 3])], 0)


@given(
    hnp.arrays(np.float32, (5, 2), elements=st.floats(-20, 30, width=16)),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([1, 3]),
)
@settings(max_examples=60, deadline=None)
def test_reaches_is_when_the_cutoff_square_touches_the_map(points, sigma, cutoff):
    reached = gaussian.reaches(
        jnp.asarray(points), size=SIZE, sigma=sigma, cutoff=cutoff
    )
    reach = sigma * cutoff
    for (x, y), got in zip(points, np.asarray(reached), strict=True):
        on_x = max(x - reach, 0) <= min(x + reach, SIZE[0] - 1)
        on_y = max(y - reach, 0) <= min(y + reach, SIZE[1] - 1)
        assert got == (on_x and on_y)


def test_what_is_rendered_reaches_the_map():
    points = jnp.asarray(
        np.random.default_rng(1).uniform(-9, 19, (200, 2)), jnp.float32
    )
    maps = jax.jit(lambda p: gaussian.encode(p, size=SIZE, sigma=1, cutoff=3))(points)
    seen = (np.asarray(maps) > 0).any(axis=(0, 1))
    reached = np.asarray(gaussian.reaches(points, size=SIZE, sigma=1))
    assert 20 < reached.sum() < 180
    np.testing.assert_array_equal(seen, reached)


@given(any_maps)
@settings(max_examples=100, deadline=None)
def test_argmax_is_numpys_with_nan_the_least(maps):
    points, scores = numpy_of(JITTED["argmax"](maps))
    least = np.where(np.isnan(maps), -np.inf, maps)
    for b, k in np.ndindex(MAPS[0], MAPS[3]):
        y, x = divmod(least[b, :, :, k].argmax(), MAPS[2])
        assert tuple(points[b, k]) == (x, y)
        assert scores[b, k] == least[b, y, x, k]


def shift_loops(one_map, rule):
    h, w = one_map.shape
    y, x = divmod(int(one_map.argmax()), w)
    point = np.array([x, y], np.float64)
    if rule == "sign":
        if 1 < x < w - 1 and 1 < y < h - 1:
            point[0] += 0.25 * np.sign(one_map[y, x + 1] - one_map[y, x - 1])
            point[1] += 0.25 * np.sign(one_map[y + 1, x] - one_map[y - 1, x])
        return point
    rest = one_map.copy()
    rest[y, x] = -np.inf
    second = np.array(divmod(int(rest.argmax()), w)[::-1])
    return point + 0.25 * (second - point) / np.linalg.norm(second - point)


@pytest.mark.parametrize("rule", ["sign", "second"])
@given(maps=plain_maps)
@settings(max_examples=100, deadline=None)
def test_shift_is_its_definition(rule, maps):
    points, scores = numpy_of(JITTED[rule](maps))
    for b, k in np.ndindex(MAPS[0], MAPS[3]):
        one_map = maps[b, :, :, k].astype(np.float64)
        np.testing.assert_allclose(points[b, k], shift_loops(one_map, rule), atol=1e-6)
        assert scores[b, k] == one_map.max()


@pytest.mark.parametrize("name", ["argmax", "sign", "second", "robust"])
@given(maps=any_maps)
@settings(max_examples=60, deadline=None)
def test_decoders_stay_finite_and_inside_on_any_map(name, maps):
    points, scores = numpy_of(JITTED[name](maps))
    assert np.isfinite(points).all()
    assert (points >= 0).all() and (points <= [MAPS[2] - 1, MAPS[1] - 1]).all()
    least = np.where(np.isnan(maps), -np.inf, maps)
    np.testing.assert_array_equal(scores, least.max(axis=(1, 2)))


@pytest.mark.parametrize("kernel_size", [3, 11])
def test_modulate_is_blur_then_rescaling(kernel_size):
    maps = np.random.default_rng(3).standard_normal((2, 12, 9, 3)).astype(np.float32)
    got = jax.jit(lambda m: gaussian.modulate(m, kernel_size=kernel_size))(maps)
    if kernel_size == 3:
        kernel = np.array([1, 2, 1]) / 4
    else:
        kernel = np.exp(-(np.arange(-5, 6) ** 2) / 8)
        kernel /= kernel.sum()
    r = kernel_size // 2
    for b, k in np.ndindex(2, 3):
        one = maps[b, :, :, k].astype(np.float64)
        padded = np.pad(one, r)
        blurred = np.zeros_like(one)
        for y, x in np.ndindex(*one.shape):
            window = padded[y : y + kernel_size, x : x + kernel_size]
            blurred[y, x] = kernel @ window @ kernel
        expected = (blurred - blurred.min()) / np.ptp(blurred) * one.max()
        np.testing.assert_allclose(got[b, :, :, k], expected, atol=1e-5)


def test_modulate_of_nothing_is_nothing():
    modulate = jax.jit(lambda maps: gaussian.modulate(maps, kernel_size=5))
    np.testing.assert_array_equal(modulate(jnp.zeros((10, 7, 1))), 0)
