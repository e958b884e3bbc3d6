"""The norms: what they measure, keep and learn."""

import jax
import numpy as np

from pose_jax.models import layers


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_frozen_norm_is_batch_norm_in_evaluation_without_gradients():
    x = _normal(2, 4, 3, 5)
    params = {"scale": _normal(5, seed=1), "bias": _normal(5, seed=2)}
    stats = {"mean": _normal(5, seed=3), "var": np.exp(_normal(5, seed=4))}
    variables = {"params": params, "batch_stats": stats}

    def apply(kind, train, params, x):
        out, changed = layers.Norm(kind, train).apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return out, changed.get("batch_stats", {})

    expected, _ = apply("batch", False, params, x)
    for train in (False, True):
        out, changed = apply("frozen", train, params, x)
        np.testing.assert_allclose(out, expected, atol=1e-5)
        for name in changed:
            np.testing.assert_array_equal(changed[name], stats[name])
    to_params, to_x = jax.grad(
        lambda params, x: apply("frozen", True, params, x)[0].sum(), argnums=(0, 1)
    )(params, x)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_params))
    assert np.all(np.asarray(to_x) != 0)


def test_batch_norm_keeps_a_tenth_of_the_batch():
    x = 3 + 2 * _normal(4, 8, 8, 2)
    norm = layers.Norm("batch", train=True)
    variables = norm.init(jax.random.key(0), x)
    out, changed = norm.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    mean, var = (np.asarray(changed["batch_stats"][name]) for name in ("mean", "var"))
    np.testing.assert_allclose(mean, 0.1 * x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-4)


def test_group_norm_has_no_state_and_treats_examples_alone():
    x = _normal(3, 4, 4, 24)
    norm = layers.Norm("group", train=True)
    variables = norm.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    np.testing.assert_allclose(
        norm.apply(variables, x)[1], norm.apply(variables, x[1:2])[0], atol=1e-5
    )
