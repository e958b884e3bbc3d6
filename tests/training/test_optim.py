"""Schedules against their formulas, optimisers against NumPy, masks, averaging."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax.config import build
from pose_jax.errors import ConfigError
from pose_jax.training import optim
from pose_jax.training.optim import OptimizerConfig

PARAMS = {
    "backbone": {
        "conv": {"kernel": np.full((2, 3), 0.5, np.float32), "bias": np.ones(3, "f4")},
        "norm": {"scale": np.ones(3, "f4"), "bias": np.zeros(3, "f4")},
    },
    "head": {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)},
}


def gradients(seed, like=PARAMS):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), like)


def run(config, grads, params=PARAMS, total=10):
    """Parameters after each of the gradients."""
    tx, _ = optim.make_optimizer(config, total, params)
    params = jax.tree.map(jnp.asarray, params)
    state = jax.jit(tx.init)(params)
    step = jax.jit(lambda g, s, p: optim.apply(tx, g, s, p))
    history = []
    for grad in grads:
        params, state = step(grad, state, params)
        history.append(jax.device_get(params))
    return history


def assert_trees_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "steps"])
def test_schedules_follow_their_formulas(schedule, warmup):
    total, lr, end, drops, factor = 40, 0.3, 0.1, (12, 30), 0.2
    config = OptimizerConfig(
        lr=lr,
        schedule=schedule,
        warmup_steps=warmup,
        end_factor=end,
        drop_steps=drops if schedule == "steps" else (),
        drop_factor=factor,
    )
    _, computed = optim.make_optimizer(config, total, PARAMS)
    rates = np.asarray(jax.vmap(computed)(jnp.arange(total + 3)))
    for step in range(total + 3):
        t = min(max(step - warmup, 0) / (total - warmup), 1.0)
        expected = (
            lr
            * {
                "constant": 1.0,
                "cosine": end + (1 - end) * 0.5 * (1 + math.cos(math.pi * t)),
                "linear": 1 - (1 - end) * t,
                "steps": factor ** sum(step >= drop for drop in drops),
            }[schedule]
        )
        if step < warmup:
            expected *= (step + 1) / warmup
        np.testing.assert_allclose(rates[step], expected, rtol=1e-5, atol=1e-7)


def test_a_warm_up_longer_than_the_run_is_finite():
    for schedule in ("cosine", "linear"):
        config = OptimizerConfig(lr=1.0, schedule=schedule, warmup_steps=50)
        values = jax.vmap(optim.make_schedule(config, 10))(jnp.arange(11))
        np.testing.assert_allclose(values, (np.arange(11) + 1) / 50, rtol=1e-6)


def reference(config, grads, w, lr, decay):
    """One kernel's course in float64; `decay` False for biases."""
    w, m, v = w.astype(np.float64), 0.0, 0.0
    wd = config.weight_decay if decay else 0.0
    momentum = 0.9 if config.name == "sgd" else 0.0
    momentum = config.momentum if config.momentum is not None else momentum
    for t, g in enumerate(grads):
        g = g.astype(np.float64)
        if config.name != "adamw":
            g = g + wd * w
        if config.name in ("adam", "adamw"):
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            mean, var = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
            update = mean / (np.sqrt(var) + config.eps)
            if config.name == "adamw":
                update = update + wd * w
        elif config.name == "sgd":
            m = momentum * m + g
            update = m
        elif config.name == "rmsprop":
            v = 0.99 * v + 0.01 * g**2
            m = momentum * m + g / (np.sqrt(v) + config.eps)
            update = m
        else:
            v = v + g**2
            update = g / np.sqrt(v + config.eps)
        w = w - lr(t) * update
    return w


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "momentum"),
    [
        ("adam", None),
        ("adamw", None),
        ("sgd", None),
        ("sgd", 0.0),
        ("rmsprop", None),
        ("rmsprop", 0.5),
        ("adagrad", None),
    ],
)
def test_optimisers_follow_their_definitions(name, momentum, weight_decay):
    config = OptimizerConfig(
        name=name,
        lr=0.01,
        schedule="linear",
        momentum=momentum,
        weight_decay=weight_decay,
    )
    grads = [gradients(seed) for seed in range(6)]
    found = run(config, grads)[-1]

    def expected(path, w):
        course = [jax.tree_util.tree_leaves_with_path(g) for g in grads]
        values = [dict(leaves)[path] for leaves in course]
        is_kernel = path[-1].key == "kernel"
        return reference(config, values, w, lambda t: 0.01 * (1 - t / 10), is_kernel)

    wanted = jax.tree_util.tree_map_with_path(expected, PARAMS)
    assert_trees_close(found, wanted, rtol=2e-5, atol=2e-6)


def orthogonal(m):
    """The polynomial of Muon's paper, five times: singular values go to about 1."""
    m = m / np.linalg.norm(m)
    for _ in range(5):
        gram = m @ m.T if m.shape[0] <= m.shape[1] else None
        if gram is None:
            return orthogonal(m.T).T
        m = 3.4445 * m + (-4.7750 * gram + 2.0315 * gram @ gram) @ m
    return m


def test_muon_follows_its_definition():
    config = OptimizerConfig(
        name="muon", lr=0.01, weight_decay=0.1, adam_kernels=("head",)
    )
    params = {
        "conv": {"kernel": np.full((3, 3, 2, 24), 0.5, "f4")},
        "head": PARAMS["head"],
    }
    grads = [gradients(seed, params) for seed in range(4)]
    history = run(config, grads, params)
    w, m = params["conv"]["kernel"].astype(float).reshape(18, 24), 0.0
    for t, grad in enumerate(grads):
        g = grad["conv"]["kernel"].astype(float).reshape(18, 24)
        m = 0.95 * m + 0.05 * g
        step, after = 0.95 ** (t + 1), 0.95 ** (t + 2)
        nesterov = 0.95 * m / (1 - after) + 0.05 * g / (1 - step)
        w = w - 0.01 * ((24 / 18) ** 0.5 * orthogonal(nesterov) + 0.1 * w)
        found = history[t]["conv"]["kernel"].reshape(18, 24)
        np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-5)
    # The head goes by Adam, a quarter as fast. Its first step is the size of the rate,
    # and Nesterov's look ahead.
    moved = history[0]["head"]["kernel"] - params["head"]["kernel"] * (1 - 0.01 * 0.1)
    expected = 0.0025 * (1 + 0.9 / 1.9)
    np.testing.assert_allclose(np.abs(moved), expected, rtol=1e-3)


def test_what_muon_alone_reads_is_refused_elsewhere():
    with pytest.raises(ValueError, match="'muon'"):
        OptimizerConfig(name="adam", adam_lr_factor=0.5)
    config = OptimizerConfig(name="muon", adam_kernels=("haed",))
    with pytest.raises(ConfigError, match="adam_kernels: 'haed"):
        optim.make_optimizer(config, 10, PARAMS)


def test_decay_is_for_kernels_only():
    config = OptimizerConfig(name="sgd", lr=1.0, momentum=0.0, weight_decay=0.1)
    (after,) = run(config, [jax.tree.map(np.zeros_like, PARAMS)])
    np.testing.assert_allclose(after["head"]["kernel"], 0.9 * PARAMS["head"]["kernel"])
    kernel = after["backbone"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel, np.full((2, 3), 0.45))
    np.testing.assert_array_equal(after["backbone"]["conv"]["bias"], np.ones(3))
    np.testing.assert_array_equal(after["backbone"]["norm"]["scale"], np.ones(3))


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clipping_bounds_the_global_norm_and_nothing_else(scale):
    config = OptimizerConfig(name="sgd", lr=1.0, momentum=0.0, clip_norm=2.0)
    grad = jax.tree.map(lambda g: scale * g, gradients(0))
    (after,) = run(config, [grad])
    norm = math.sqrt(sum((g.astype(float) ** 2).sum() for g in jax.tree.leaves(grad)))
    factor = min(1.0, 2.0 / norm)
    expected = jax.tree.map(lambda p, g: p - factor * g, PARAMS, grad)
    assert_trees_close(after, expected, rtol=1e-5, atol=1e-6)


def test_accumulating_two_batches_is_one_of_twice_the_size():
    """And the rate is the one of the batches, not of the updates."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 8, 3)).astype(np.float32)  # four batches of 8
    y = rng.normal(size=(4, 8)).astype(np.float32)
    w = {"kernel": np.zeros(3, np.float32)}
    grad = jax.grad(lambda p, x, y: jnp.mean((x @ p["kernel"] - y) ** 2))
    common = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "steps"}
    halves = OptimizerConfig(**common, drop_steps=(2,), accumulate_steps=2)
    doubled = OptimizerConfig(**common, drop_steps=(1,))

    def course(config, x, y):
        tx, schedule = optim.make_optimizer(config, len(x), w)

        @jax.jit
        def step(params, state, x, y):
            return optim.apply(tx, grad(params, x, y), state, params)

        params = jax.tree.map(jnp.asarray, w)
        state, history = jax.jit(tx.init)(params), []
        for one_x, one_y in zip(x, y, strict=True):
            params, state = step(params, state, one_x, one_y)
            history.append(np.asarray(params["kernel"]))
        return history, schedule

    twice, schedule = course(halves, x, y)
    once, _ = course(doubled, x.reshape(2, 16, 3), y.reshape(2, 16))
    np.testing.assert_array_equal(twice[0], w["kernel"])
    np.testing.assert_array_equal(twice[1], twice[2])
    np.testing.assert_allclose(twice[1], once[0], rtol=1e-5)
    np.testing.assert_allclose(twice[3], once[1], rtol=1e-5)
    rates = [float(schedule(s)) for s in range(4)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01], rtol=1e-6)


@pytest.mark.parametrize(("accumulate", "pattern"), [(1, "back*/*"), (2, "backbone")])
def test_frozen_parameters_stay_and_do_not_count(accumulate, pattern):
    config = OptimizerConfig(
        lr=0.1,
        freeze=(pattern,),
        weight_decay=0.1,
        clip_norm=1e-3,
        accumulate_steps=accumulate,
    )
    grads = [gradients(seed) for seed in range(4)]
    after = run(config, grads)[-1]
    assert_trees_close(after["backbone"], PARAMS["backbone"], rtol=0)
    # The same course as if the backbone did not exist: the clipped norm too.
    alone = {"head": PARAMS["head"]}
    without = OptimizerConfig(
        lr=0.1, weight_decay=0.1, clip_norm=1e-3, accumulate_steps=accumulate
    )
    expected = run(without, [{"head": g["head"]} for g in grads], alone)[-1]
    assert_trees_close(after["head"], expected["head"], rtol=1e-6)
    assert not np.allclose(after["head"]["kernel"], PARAMS["head"]["kernel"])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_factor_of_the_learning_rate_is_of_what_its_pattern_matches_first(name):
    grads = [gradients(i) for i in range(2)]
    options = {"name": name, "lr": 0.1, "weight_decay": 0.01}
    pairs = (("norm/scale", 0.0), ("backbone", 0.25))
    layered = run(OptimizerConfig(**options, lr_factors=pairs), grads[:1])[-1]
    plain = run(OptimizerConfig(**options), grads[:1])[-1]
    moved, usual = (
        jax.tree.map(lambda new, old: new - old, tree, PARAMS)
        for tree in (layered, plain)
    )
    assert not moved["backbone"]["norm"]["scale"].any()
    kernel = moved["backbone"]["conv"]["kernel"]
    expected = 0.25 * usual["backbone"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(moved["head"]["kernel"], usual["head"]["kernel"])
    with pytest.raises(ConfigError, match="lr_factors: 'bakbone' matches no parameter"):
        run(OptimizerConfig(**options, lr_factors=(("bakbone", 1.0),)), grads)
    with pytest.raises(ValueError, match="lr_factors must not be negative"):
        OptimizerConfig(lr_factors=(("head", -1.0),))


def test_patterns_must_mean_something():
    with pytest.raises(ConfigError, match=r"'bakbone' matches no .* 'backbone'"):
        optim.make_optimizer(OptimizerConfig(freeze=("bakbone",)), 10, PARAMS)
    with pytest.raises(ConfigError, match="matches all parameters"):
        optim.make_optimizer(OptimizerConfig(freeze=("*",)), 10, PARAMS)


def test_shapes_are_enough_to_make_an_optimiser():
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, PARAMS))
    config = OptimizerConfig(freeze=("norm",), weight_decay=0.1, accumulate_steps=2)
    tx, _ = optim.make_optimizer(config, 10, shapes)
    jax.eval_shape(tx.init, shapes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"momentum": 0.9}, "momentum is not used by 'adam'"),
        ({"name": "sgd", "b1": 0.9}, "b1 is not used by 'sgd'"),
        ({"name": "sgd", "b2": 0.9}, "b2 is not used by 'sgd'"),
        ({"b2": 1.0}, r"b2 must be in \[0, 1\)"),
        ({"lr": -1.0}, "lr must not be negative"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"schedule": "steps"}, "drop_steps must be set"),
        ({"drop_steps": (3,)}, "drop_steps must be set"),
        ({"schedule": "steps", "drop_steps": (5, 3)}, "must be increasing"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"accumulate_steps": 0}, "at least 1"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"name": "adm"}, "Did you mean 'adam'"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build(OptimizerConfig, values, "config.optimizer")
    assert str(caught.value).startswith("config.optimizer")


def test_the_average_starts_as_a_copy_in_its_own_buffers():
    tree = {"params": jnp.arange(3.0), "batch_stats": jnp.ones(2)}
    ema = optim.ema_start(tree)
    assert_trees_close(ema, tree, rtol=0)
    # Donating the one must leave the other.
    jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(tree)
    np.testing.assert_array_equal(ema["params"], np.arange(3.0))


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_follows_its_definition(warmup):
    config = OptimizerConfig(ema_decay=0.9, ema_warmup=warmup)
    rng = np.random.default_rng(2)
    trees = [
        {"w": rng.normal(size=(3, 2)).astype(np.float32), "n": np.int32(i)}
        for i in range(30)
    ]
    ema = optim.ema_start(jax.tree.map(jnp.asarray, trees[0]))
    update = jax.jit(lambda e, t, n: optim.ema_update(e, t, optim.ema_decay(config, n)))
    expected = trees[0]["w"].astype(np.float64)
    for n, tree in enumerate(trees[1:]):
        ema = update(ema, tree, n)
        decay = min(0.9, (1 + n) / (10 + n)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * tree["w"]
    np.testing.assert_allclose(ema["w"], expected, rtol=1e-5, atol=1e-6)
    assert ema["n"] == 29 and ema["n"].dtype == jnp.int32


def test_the_average_of_a_constant_is_that_constant():
    config = OptimizerConfig(ema_decay=0.999)
    tree = {"w": jnp.asarray(np.random.default_rng(3).normal(size=50), jnp.float32)}
    ema = optim.ema_start(tree)
    update = jax.jit(lambda e, t: optim.ema_update(e, t, config.ema_decay))
    for _ in range(20):
        ema = update(ema, tree)
    np.testing.assert_array_equal(ema["w"], tree["w"])


def test_no_gradient_goes_through_frozen_layers():
    params = {name: {"kernel": jnp.full((2, 2), 0.5)} for name in ("a", "b", "c")}

    def loss(params, patterns):
        params = optim.without_gradient(params, patterns)
        x = jnp.ones((3, 2))
        for name in params:
            x = jnp.sin(x @ params[name]["kernel"])
        return x.sum()

    whole, part = (jax.grad(loss)(params, p) for p in ((), ("a", "b")))
    assert not part["a"]["kernel"].any() and not part["b"]["kernel"].any()
    np.testing.assert_array_equal(part["c"]["kernel"], whole["c"]["kernel"])
    for patterns, products in (((), 8), (("a", "b"), 4), (("b",), 7)):
        # For each layer one forward, one for its weights and one for its input.
        text = str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, patterns))
        assert text.count("dot_general") == products, patterns
