"""The time and memory of a training step on this machine."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import numpy as np

from pose_jax import sharding as sharding_lib
from pose_jax.data import readers
from pose_jax.training import keys as keys_lib
from pose_jax.training import optim
from pose_jax.training.config import Setup
from pose_jax.training.train import create_state, make_train_step


class StepCost(NamedTuple):
    """The cost of a step.

    Attributes:
      seconds: of a step, after compilation; reading is not included.
      megabytes: memory of the compiled step on each device: weights, optimizer, batch and
        intermediate values.
      device: the devices, in words.
    """

    seconds: float
    megabytes: int
    device: str


def step_cost(s: Setup, steps: int = 3) -> StepCost:
    """Measures the steps of the first phase of a config; nothing is written.

    Args:
      s: the resolved config, of a phase without statistics.
      steps: number of steps, of which the fastest counts: other processes only slow down.
    """
    mesh = sharding_lib.make_mesh()
    phase = s.method.phases[0]
    optimizer, train = s.sections[phase.name]
    init_key, step_key = keys_lib.phase_keys(s.config.seed, 0)
    shapes = jax.eval_shape(phase.init, init_key)
    tx, _ = optim.make_optimizer(optimizer, train.steps, shapes["params"])
    replicated = sharding_lib.replicated(mesh)
    averaging = optimizer.ema_decay > 0

    def start(key):
        return create_state(phase.init(key), tx, averaging=averaging)

    state = jax.jit(start, out_shardings=replicated)(init_key)
    batch = sharding_lib.put_batch(next(readers.batches(s.plan, 0, 1)), mesh)
    step = jax.jit(
        make_train_step(phase, tx, optimizer),
        donate_argnums=0,
        out_shardings=(replicated, replicated),
    )
    compiled = step.lower(state, {}, batch, step_key).compile()
    seconds = []
    for _ in range(steps + 1):  # The first one allocates.
        begin = time.perf_counter()
        state, sums = compiled(state, {}, batch, step_key)
        jax.block_until_ready((state, sums))
        seconds.append(time.perf_counter() - begin)
    memory = compiled.memory_analysis()
    names = "argument_size", "output_size", "temp_size"
    used = [getattr(memory, f"{name}_in_bytes", 0) for name in names]
    used.append(-getattr(memory, "alias_size_in_bytes", 0))
    device = sharding_lib.device_summary(mesh)
    return StepCost(float(np.min(seconds[1:])), round(sum(used) / 1e6), device)
