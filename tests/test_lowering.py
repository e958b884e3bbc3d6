"""Programs for GPUs and TPUs, as they are lowered on a machine that has neither.

Every phase's train step, `predict`, and detector and pose as one function: no fast form of
the CPU, no float64, no call to the host, no large constant, and every leaf of the train
state donated. Nothing is computed: the shapes alone are traced.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods
from pose_jax.data import readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.methods import system
from pose_jax.models import ops
from pose_jax.training import keys, optim, train
from tests.golden import harness

_FAST = {("dark_pocket", "float32")}
CASES = [
    pytest.param(name, dtype, marks=() if (name, dtype) in _FAST else pytest.mark.slow)
    for name in harness.CASES
    for dtype in ("float32", "bfloat16")
]
SYSTEMS = [
    pytest.param(
        name,
        dtype,
        marks=() if (name, dtype) == ("dark_pocket", "float32") else pytest.mark.slow,
    )
    for name in ("dark_pocket", "deeppose_cascade", "multipose_pocket")
    for dtype in ("float32", "bfloat16")
]
LARGE = 4 * 2**20
"""Bytes that no constant has."""


def _shapes(tree):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree
    )


def _method(name, dtype):
    section = harness.CASES[name]
    section = {**section, "model": {**section["model"], "dtype": dtype}}
    return methods.build(section, keypoints.MPII)


@functools.cache
def _batch(view):
    """Shapes of a training batch and of the inputs of a prediction."""
    table = harness._table()
    config = InputConfig(3, canvas_size=(144, 120), reader="numpy")
    plan = Plan(table, view, config, training=True, seed=1)
    batch = next(readers.numpy_batches(plan, 0, 1))
    inputs = next(readers.numpy_batches(Plan(table, view, config))).inputs
    return _shapes(batch), _shapes(inputs)


def _variables(method, batch):
    """Shapes of the variables of all phases."""
    variables = {}
    for phase in method.phases:
        constants = {}
        if phase.statistics is not None:
            sums = jax.eval_shape(phase.statistics.measure, variables, batch)
            ones = jax.tree.map(lambda sum: np.ones(sum.shape, sum.dtype), sums)
            constants = _shapes(phase.statistics.finish(ones))
        shapes = jax.eval_shape(phase.init, jax.random.key(0))
        variables[phase.name] = {**shapes, "constants": constants}
    return variables


def _check(traced, state=None):
    """What must hold of a traced function, for every platform; `state` is donated."""
    texts = {}
    for platform in ("cpu", "cuda", "tpu"):
        lowered = traced.lower(lowering_platforms=(platform,))
        text = lowered.as_text(debug_info=True)
        assert (ops.FAST_SCOPE in text) == (platform == "cpu"), platform
        texts[platform] = lowered.as_text()
    for platform in ("cuda", "tpu"):
        text = texts[platform]
        assert "f64>" not in text, platform
        assert not re.search("callback|SendToHost|stablehlo.send", text), platform
        # A constant that is not one value is written as two characters a byte, or more.
        longest = max(map(len, text.splitlines()))
        assert longest < 2 * LARGE, f"{platform}: a line of {longest} characters"
        if state is not None:
            donated = len(re.findall("tf.aliasing_output|jax.buffer_donor", text))
            assert donated == len(jax.tree.leaves(state)), platform


@pytest.mark.parametrize("name, dtype", CASES)
def test_a_train_step_and_predict_are_programs_of_their_platform(name, dtype):
    method = _method(name, dtype)
    batch, inputs = _batch(method.view)
    variables = _variables(method, batch)
    optimizer = optim.OptimizerConfig(ema_decay=0.9, ema_warmup=True)
    for number, phase in enumerate(method.phases):
        _, step_key = keys.phase_keys(7, number)
        tx, _ = optim.make_optimizer(optimizer, 10, variables[phase.name]["params"])
        state = jax.eval_shape(
            functools.partial(train.create_state, tx=tx, averaging=True),
            variables[phase.name],
        )
        earlier = {p.name: variables[p.name] for p in method.phases[:number]}
        step = jax.jit(train.make_train_step(phase, tx, optimizer), donate_argnums=0)
        _check(step.trace(state, earlier, batch, step_key), state)
    _check(jax.jit(method.predict).trace(variables, inputs))


@pytest.mark.parametrize("pose, dtype", SYSTEMS)
def test_the_whole_system_is_a_program_of_its_platform(pose, dtype):
    detector, pose = _method("detector_pocket", dtype), _method(pose, dtype)
    batch, inputs = _batch(detector.view)
    people = system.find_people(detector, pose, slots=4, oks_nms=None)
    _check(
        people.trace(
            _variables(detector, batch), _variables(pose, _batch(pose.view)[0]), inputs
        )
    )


@pytest.mark.filterwarnings("ignore:Some donated buffers")
def test_a_fault_is_found():
    """The checks themselves: a fast form, a call to the host, a constant, a copy."""
    x = jax.ShapeDtypeStruct((1024, 1024 + 1), jnp.float32)
    large = np.arange(x.size, dtype=np.float32).reshape(x.shape)

    def fast(x):
        with jax.named_scope(ops.FAST_SCOPE):
            return x + 1

    def told(x):
        jax.debug.callback(print, x[0, 0])
        return ops.by_platform(fast, lambda x: x, x)

    def faultless(x):
        return ops.by_platform(fast, lambda x: x, x)

    _check(jax.jit(faultless).trace(x))
    _check(jax.jit(faultless, donate_argnums=0).trace(x), x)
    for wrong, state in (
        (jax.jit(fast), None),
        (jax.jit(lambda x: x + 1), None),
        (jax.jit(told), None),
        (jax.jit(lambda x: faultless(x) + large), None),
        (jax.jit(faultless), x),
        (jax.jit(lambda x: faultless(x)[0], donate_argnums=0), x),
    ):
        # JAX itself refuses to lower a call to the host for another platform.
        with pytest.raises((AssertionError, ValueError)):
            _check(wrong.trace(x), state)
