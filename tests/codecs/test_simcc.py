"""Coordinate classification against its definition in float64, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax.codecs import simcc

SIZE = W, H = 12, 20  # Not square.

# Compiled once per shape: eager, every small operation is compiled by itself.
encode = jax.jit(simcc.encode, static_argnames=("size", "split", "sigma"))
decode = jax.jit(simcc.decode, static_argnames="split")
decode_expectation = jax.jit(simcc.decode_expectation, static_argnames="split")


def encoded(points, split, sigma):
    """The definition, bin by bin."""
    x = np.zeros((*points.shape[:-1], split * W))
    y = np.zeros((*points.shape[:-1], split * H))
    for index in np.ndindex(points.shape[:-1]):
        for axis, values in ((0, x), (1, y)):
            for i in range(values.shape[-1]):
                d = i - split * float(points[index][axis])
                values[(*index, i)] = np.exp(-(d**2) / (2 * sigma**2))
    return x / (sigma * np.sqrt(2 * np.pi)), y / (sigma * np.sqrt(2 * np.pi))


def random_points(*shape, low=-3, high=25):
    points = np.random.default_rng(0).uniform(low, high, (*shape, 2))
    return jnp.asarray(points, jnp.float32)


@pytest.mark.parametrize(("split", "sigma"), [(1, 0.8), (2, 3.0), (3, 6)])
def test_encode_is_its_definition(split, sigma):
    points = random_points(2, 5)
    found = encode(points, size=SIZE, split=split, sigma=sigma)
    for values, expected in zip(
        found, encoded(np.asarray(points), split, sigma), strict=True
    ):
        assert values.shape == expected.shape and values.dtype == jnp.float32
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-7)


def test_a_density_sums_to_one_inside():
    x, y = encode(jnp.array([[5.3, 9.8]]), size=SIZE, sigma=1.5)
    np.testing.assert_allclose([x.sum(), y.sum()], 1, rtol=1e-4)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_points_come_back(split):
    points = random_points(3, 4, low=4, high=7.5)
    x, y = encode(points, size=SIZE, split=split, sigma=split)
    decoded, scores = decode(x, y, split=split)
    # To half a bin; and what is not rounded, to the part of the tails that is cut off.
    np.testing.assert_allclose(decoded, points, atol=0.5 / split + 1e-6)
    least = np.minimum(*(np.asarray(values).max(-1) for values in (x, y)))
    np.testing.assert_array_equal(scores, least)
    mean, same = decode_expectation(x, y, split=split)
    np.testing.assert_allclose(mean, points, atol=5e-3)
    np.testing.assert_array_equal(same, scores)


def test_the_expectation_is_the_mean_bin_and_has_its_gradient():
    x = jax.nn.softmax(jnp.asarray(np.random.default_rng(1).normal(size=(2, 7))), -1)
    y = x[:, ::-1]
    points, _ = decode_expectation(x, y, split=2)
    expected = [
        [np.float64(v) @ np.arange(7) / np.float64(v).sum() / 2 for v in pair]
        for pair in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(points, expected, rtol=1e-5)

    def total(x):
        return decode_expectation(x, y, split=2)[0][..., 0].sum()

    gradient = jax.jit(jax.grad(total))(x)
    sums = np.asarray(x).sum(-1, keepdims=True)
    slopes = (np.arange(7)[None] - 2 * np.asarray(points)[:, :1]) / sums / 2
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-5)


def test_ties_zeros_constants_and_borders():
    zeros = jnp.zeros((1, 6))
    for kernel in (decode, decode_expectation):
        points, scores = kernel(zeros, zeros)
        np.testing.assert_array_equal(points, np.zeros((1, 2)))
        np.testing.assert_array_equal(scores, [0])
    tie = jnp.array([[0, 0.5, 0, 0.5, 0, 0]])
    points, scores = decode(tie, jnp.full((1, 6), 0.25))
    np.testing.assert_array_equal(points, [[0.5, 0]])
    np.testing.assert_array_equal(scores, [0.25])
    np.testing.assert_array_equal(decode_expectation(tie, tie)[0], [[1, 1]])
    corner = encode(jnp.array([[0.0, H - 0.5]]), size=SIZE, sigma=2.0)
    np.testing.assert_array_equal(decode(*corner)[0], [[0, H - 0.5]])
