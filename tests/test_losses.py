"""Losses against loops in float64: value, gradient, masks, and what may not leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_jax import losses

B, H, W, K = 2, 5, 7, 3
DELTA, BETA = 1.5, 0.5
seeds = st.integers(0, 2**32 - 1)


def huber(u, delta):
    return u**2 / 2 if u <= delta else delta * (u - delta / 2)


def cross_entropy(logit, target):
    p = 1 / (1 + np.exp(-logit))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


# name: (loss, its definition for one map or point)
MAPS = {
    "mse": (
        losses.heatmap_mse,
        lambda p, t, w: np.mean([(p[i] - t[i]) ** 2 for i in np.ndindex(H, W)]) * w,
    ),
    "cross_entropy": (
        losses.heatmap_sigmoid_cross_entropy,
        lambda p, t, w: sum(cross_entropy(p[i], t[i]) for i in np.ndindex(H, W)) * w,
    ),
}
POINTS = {
    "squared": (
        losses.keypoint_squared_error,
        lambda p, t, w: ((p - t) ** 2).sum() * w,
    ),
    "smooth_l1": (
        lambda p, t, *, weight: losses.keypoint_smooth_l1(
            p, t, weight=weight, beta=BETA
        ),
        lambda p, t, w: sum(huber(abs(u), BETA) / BETA for u in p - t) * w,
    ),
}


def both(loss):
    """One compilation for value and gradient of the first argument."""

    def total(pred, target, weight):
        value = loss(pred, target, weight=weight)
        return value.sum(), value

    return jax.jit(jax.value_and_grad(total, has_aux=True))


WITH_GRADIENT = {name: both(loss) for name, (loss, _) in (MAPS | POINTS).items()}
huber_with_gradient = both(
    lambda p, t, *, weight: losses.offset_huber(p, t, mask=weight, delta=DELTA)
)

bins_with_gradient = both(losses.bins_divergence)


def arrays(seed, name):
    rng = np.random.default_rng(seed)
    shape = (B, H, W, K) if name in MAPS else (B, K, 2)
    pred, target = rng.normal(0, 1, shape), rng.random(shape)
    target[:, 0] = pred[:, 0]  # no residual at all
    weight = rng.choice([0, 0.5, 1, 2], (B, K))
    if name == "cross_entropy":
        target = np.clip(target, 0, 1)
        pred[:, 1] = 0
    return [np.asarray(a, np.float32) for a in (pred, target, weight)]


def one(array, b, k, name):
    return array[b, ..., k].astype(float) if name in MAPS else array[b, k].astype(float)


@pytest.mark.parametrize("name", WITH_GRADIENT)
@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_losses_by_definition(name, seed):
    pred, target, weight = arrays(seed, name)
    (_, value), gradient = WITH_GRADIENT[name](pred, target, weight)
    value, gradient = np.asarray(value), np.asarray(gradient)
    definition = (MAPS | POINTS)[name][1]
    assert value.shape == (B, K)
    for b, k in np.ndindex(B, K):
        args = (one(target, b, k, name), float(weight[b, k]))
        at = one(pred, b, k, name)
        np.testing.assert_allclose(value[b, k], definition(at, *args), rtol=1e-4)
        # along one random direction
        step = 1e-6 * np.random.default_rng(seed).normal(size=at.shape)
        slope = definition(at + step, *args) - definition(at - step, *args)
        along = (2 * step * one(gradient, b, k, name)).sum()
        np.testing.assert_allclose(along, slope, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_nothing_under_a_zero_weight_matters(name):
    pred, target, weight = arrays(1, name)
    weight[:] = [0, 1, 0]
    (_, clean), _ = WITH_GRADIENT[name](pred, target, weight)
    spoilt = target.copy()
    if name in MAPS:
        spoilt[..., [0, 2]] = np.nan, np.inf
    else:
        spoilt[:, [0, 2]] = np.nan
    (_, value), gradient = WITH_GRADIENT[name](pred, spoilt, weight)
    np.testing.assert_array_equal(value, clean)
    assert (np.asarray(value)[:, [0, 2]] == 0).all()
    unused = gradient[..., [0, 2]] if name in MAPS else gradient[:, [0, 2]]
    np.testing.assert_array_equal(unused, 0)
    assert np.isfinite(gradient).all() and np.any(gradient != 0)


def test_cross_entropy_is_a_sum_over_pixels():
    """Logits of 0: each of the h * w pixels costs ln 2, whatever the target is."""
    target = np.random.default_rng(0).integers(0, 2, (B, H, W, K)).astype(np.float32)
    (_, value), _ = WITH_GRADIENT["cross_entropy"](
        np.zeros_like(target), target, np.ones((B, K), np.float32)
    )
    np.testing.assert_allclose(value, H * W * np.log(2), rtol=1e-6)


def test_cross_entropy_of_certain_logits_is_exact_and_finite():
    logits = np.zeros((B, H, W, K), np.float32)
    logits[0, 0, 0, 0], logits[0, 0, 1, 0], logits[0, 0, 2, 0] = 1e4, -1e4, 20
    target = np.zeros_like(logits)
    target[0, 0, [0, 2], 0] = 1
    keep = np.zeros((B, H, W, K), np.float32)
    keep[0, 0, :3, 0] = 1
    value = losses.heatmap_sigmoid_cross_entropy(
        jnp.asarray(logits), jnp.asarray(target), weight=jnp.asarray(keep)
    )
    np.testing.assert_allclose(value[0, 0], np.log1p(np.exp(-20.0)), rtol=1e-5)
    (_, worst), gradient = WITH_GRADIENT["cross_entropy"](
        logits, 1 - target, np.ones((B, K), np.float32)
    )
    assert worst[0, 0] > 2e4 and np.isfinite(gradient).all()


def test_infinite_logits_cost_nothing_if_right_and_everything_if_wrong():
    """As the limits of finite ones; the gradient is sigmoid(logit) - target."""
    inf = np.inf
    logits = jnp.array([-inf, -inf, -inf, inf, inf, inf, 0, -200])
    target = jnp.array([0, 1, 0.5, 1, 0, 0.5, 0.25, 0])

    def loss(logit, target):
        maps = logit.reshape(1, 1, 1), target.reshape(1, 1, 1)
        return losses.heatmap_sigmoid_cross_entropy(*maps, weight=jnp.ones(1))[0]

    value, gradient = jax.vmap(jax.value_and_grad(loss))(logits, target)
    np.testing.assert_allclose(value, [0, inf, inf, 0, inf, inf, np.log(2), 0])
    np.testing.assert_allclose(gradient, [0, -1, -0.5, 0, 1, 0.5, 0.25, 0])
    bins = jnp.array([-inf, 0.0, 1.0]), jnp.array([0.0, 0.5, 0.5])
    divergence = lambda logits, target: losses.bins_divergence(
        logits[None], target[None], weight=jnp.ones(1)
    )[0]
    value, gradient = jax.value_and_grad(divergence)(*bins)
    assert np.isfinite(value) and np.isfinite(gradient).all() and gradient[0] == 0


def test_cross_entropy_weights_of_pixels():
    rng = np.random.default_rng(2)
    logits, target = rng.normal(size=(2, B, H, W, K)).astype(np.float32)
    target = (target > 0).astype(np.float32)
    weight = rng.choice([0.0, 1.0, 3.0], (B, H, W, K)).astype(np.float32)
    target[weight == 0] = np.nan
    run = jax.jit(jax.value_and_grad(lambda p, t, w: (
        losses.heatmap_sigmoid_cross_entropy(p, t, weight=w).sum())))  # fmt: skip
    value, gradient = run(logits, target, weight)
    counted = weight > 0
    expected = (weight * cross_entropy(logits, target))[counted].sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(gradient[~counted], 0)
    assert np.isfinite(gradient).all()


@settings(deadline=None, max_examples=40)
@given(seed=seeds)
def test_offset_huber_by_definition(seed):
    rng = np.random.default_rng(seed)
    pred = rng.normal(0, 2, (B, H, W, K, 2)).astype(np.float32)
    target = rng.normal(0, 2, pred.shape).astype(np.float32)
    target[:, 0] = pred[:, 0]  # norm 0: its gradient must be 0, not NaN
    mask = rng.random((B, H, W, K)) < 0.4
    mask[1, :, :, 2] = False
    spoilt = np.where(mask[..., None], target, np.nan)
    (_, value), gradient = huber_with_gradient(pred, spoilt, mask)
    expected, slope = np.zeros((B, K)), np.zeros(pred.shape)
    for b, y, x, k in np.argwhere(mask):
        error = pred[b, y, x, k].astype(float) - target[b, y, x, k]
        length = np.sqrt(error @ error)
        expected[b, k] += huber(length, DELTA)
        slope[b, y, x, k] = error * min(1, DELTA / max(length, 1e-9))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-5)
    assert value[1, 2] == 0


def test_offset_huber_takes_the_norm_of_the_vector():
    """(3, 4) is 5 long: 1 * (5 - 1/2), not what x and y give one by one."""
    pred = jnp.zeros((1, 1, 1, 2)).at[0, 0, 0].set(jnp.array([3.0, 4.0]))
    mask = jnp.ones((1, 1, 1), bool)
    value = losses.offset_huber(pred, jnp.zeros_like(pred), mask=mask, delta=1.0)
    np.testing.assert_allclose(value, [4.5])


@settings(deadline=None, max_examples=60)
@given(seed=seeds, share=st.sampled_from((0.0, 0.5, 1.0)))
def test_masked_mean_by_definition(seed, share):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, K)).astype(np.float32)
    mask = rng.random((4, K)) < share
    spoilt = np.where(mask, values, np.nan).astype(np.float32)
    kept = [float(v) for v, m in zip(values.ravel(), mask.ravel(), strict=True) if m]
    for normalize_by, count in (("mask", len(kept)), ("all", 4 * K)):
        mean, gradient = mean_with_gradient[normalize_by](spoilt, mask)
        np.testing.assert_allclose(mean, sum(kept) / max(count, 1), atol=1e-6)
        np.testing.assert_allclose(gradient, mask / max(count, 1), rtol=1e-6)
        as_float, _ = mean_with_gradient[normalize_by](spoilt, mask.astype(np.float32))
        np.testing.assert_allclose(as_float, mean, atol=1e-7)


mean_with_gradient = {
    by: jax.jit(
        jax.value_and_grad(
            lambda v, m, by=by: losses.masked_mean(v, m, normalize_by=by)
        )
    )
    for by in ("mask", "all")
}


def test_bins_divergence_by_definition():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 3, (B, K, W)), rng.random((B, K, W))
    target[0, 0, :3] = 0
    weight = np.float32([[1, 0, 2], [0, 1, 0.5]])
    expected = np.zeros((B, K))
    for b, k in np.ndindex(B, K):
        log_prob = logits[b, k] - np.log(np.exp(logits[b, k]).sum())
        for i in range(W):
            t = target[b, k, i]
            expected[b, k] += weight[b, k] * (
                t * (np.log(t) - log_prob[i]) / W if t > 0 else 0
            )
    target[weight == 0] = np.nan
    logits[0, 1] = np.inf
    (_, value), gradient = bins_with_gradient(
        np.float32(logits), np.float32(target), weight
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()
    # d/d logits of -sum(t log softmax) / n
    prob = np.exp(logits[1, 1]) / np.exp(logits[1, 1]).sum()
    slope = (target[1, 1].sum() * prob - target[1, 1]) / W
    np.testing.assert_allclose(gradient[1, 1], slope, rtol=1e-4, atol=1e-6)


def test_bins_divergence_is_zero_at_the_target_alone():
    target = np.random.default_rng(4).random((B, K, W)).astype(np.float32)
    target /= target.sum(-1, keepdims=True)
    weight = np.ones((B, K), np.float32)
    (_, value), _ = bins_with_gradient(np.log(target), target, weight)
    np.testing.assert_allclose(value, 0, atol=1e-7)
    (_, other), _ = bins_with_gradient(-target, target, weight)
    assert (other > 1e-3).all()
