"""Optimizers, learning rate schedules and weight averaging, from one config section.

All durations count *batches*, even if several batches are accumulated into one update.
Patterns are matched by `trees.path_matches`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from pose_jax.errors import ConfigError
from pose_jax.trees import TreePath, flatten, nearest, path_matches

Schedule = Callable[[Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, learning rate schedule and weight averaging of a phase.

    Attributes:
      name: "adam", "adamw", "sgd", "rmsprop", "adagrad" or "muon". Muon (Jordan et al.,
        2024) orthogonalizes the momentum of each kernel, as a matrix [all other axes, out],
        and scales it by sqrt(max(1, out / others)); all other parameters use Adam with
        Nesterov momentum.
      lr: peak learning rate.
      schedule: "constant"; "cosine" or "linear", from `lr` to `end_factor * lr` at the
        last batch; "steps", multiplied by `drop_factor` at each of `drop_steps`.
      warmup_steps: number of batches of linear warmup to `lr`; cosine and linear schedules
        start after the warmup.
      end_factor: final value of cosine and linear schedules, as a fraction of `lr`.
      drop_steps: batches at which the learning rate drops, counted from 0.
      drop_factor: factor of each drop.
      weight_decay: applied to kernels only, not to biases and normalization parameters. For
        "adamw" and "muon" it is decoupled: -lr * weight_decay * w is added to the update.
        For all others it is an L2 penalty: weight_decay * w is added to the gradient
        before the optimizer.
      momentum: for "sgd" (None: 0.9), "rmsprop" (None: 0) and "muon" (None: 0.95).
      b1: decay of the first moment for "adam" and "adamw" (None: 0.9).
      b2: decay of the second moment for "adam" and "adamw" (None: 0.999) and for
        "rmsprop" (None: 0.99).
      eps: added to the root of the second moment.
      clip_norm: maximum global norm of the gradients; None: no clipping.
      accumulate_steps: number of batches whose gradients are averaged for one update.
      adam_kernels: for "muon": patterns of kernels that use Adam, recommended for the last
        layer.
      adam_lr_factor: for "muon": the learning rate of Adam is `lr` times this (None: 0.25).
      freeze: patterns of parameters that are not trained. The backward pass ends where all
        parameters below are frozen.
      lr_factors: pairs of a pattern and a factor of the learning rate, for layer-wise
        rates. The first pattern that matches a parameter counts; 1 if none does. Decoupled
        weight decay is multiplied too.
      ema_decay: decay of the averaged weights, per batch; 0: no averaging.
      ema_warmup: use a smaller decay in the first batches: at batch n, counted from 0, the
        decay is min(ema_decay, (1 + n) / (10 + n)).
    """

    name: Literal["adam", "adamw", "sgd", "rmsprop", "adagrad", "muon"] = "adam"
    lr: float = 1e-3
    schedule: Literal["constant", "cosine", "linear", "steps"] = "constant"
    warmup_steps: int = 0
    end_factor: float = 0.0
    drop_steps: tuple[int, ...] = ()
    drop_factor: float = 0.1
    weight_decay: float = 0.0
    momentum: float | None = None
    b1: float | None = None
    b2: float | None = None
    eps: float = 1e-8
    clip_norm: float | None = None
    accumulate_steps: int = 1
    adam_kernels: tuple[str, ...] = ()
    adam_lr_factor: float | None = None
    freeze: tuple[str, ...] = ()
    lr_factors: tuple[tuple[str, float], ...] = ()
    ema_decay: float = 0.0
    ema_warmup: bool = False

    def __post_init__(self):
        for field, users in (
            ("momentum", ("sgd", "rmsprop", "muon")),
            ("b1", ("adam", "adamw")),
            ("b2", ("adam", "adamw", "rmsprop")),
        ):
            value = getattr(self, field)
            if value is not None and self.name not in users:
                raise ValueError(
                    f"{field} is not used by {self.name!r}, only by {', '.join(users)}: "
                    "remove it."
                )
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{field} must be in [0, 1); got {value}.")
        for field in (
            "lr",
            "warmup_steps",
            "weight_decay",
            "end_factor",
            "drop_factor",
            "adam_lr_factor",
        ):
            if (getattr(self, field) or 0) < 0:
                raise ValueError(
                    f"{field} must not be negative; got {getattr(self, field)}."
                )
        if (self.schedule == "steps") != bool(self.drop_steps):
            raise ValueError(
                "drop_steps must be set if and only if schedule is 'steps'; got "
                f"{self.drop_steps} and {self.schedule!r}."
            )
        if list(self.drop_steps) != sorted(set(self.drop_steps)):
            raise ValueError(f"drop_steps must be increasing; got {self.drop_steps}.")
        if self.name != "muon" and (
            self.adam_kernels or self.adam_lr_factor is not None
        ):
            raise ValueError(
                "adam_kernels and adam_lr_factor are only used by 'muon'; name is "
                f"{self.name!r}."
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(
                f"clip_norm must be positive, or None; got {self.clip_norm}."
            )
        for pattern, factor in self.lr_factors:
            if not 0 <= factor < float("inf"):
                raise ValueError(
                    f"lr_factors must not be negative; got {factor} for {pattern!r}."
                )
        if self.accumulate_steps < 1:
            raise ValueError(
                f"accumulate_steps must be at least 1; got {self.accumulate_steps}."
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1); got {self.ema_decay}.")


def make_schedule(config: OptimizerConfig, total_steps: int) -> Schedule:
    """Returns the learning rate as a function of the batch, counted from 0."""

    def schedule(step):
        step = jnp.asarray(step)
        lr = jnp.float32(config.lr)
        if config.warmup_steps:
            lr = lr * jnp.minimum(1.0, (step + 1) / config.warmup_steps)
        if config.schedule == "steps":
            for drop in config.drop_steps:
                lr = jnp.where(step >= drop, lr * config.drop_factor, lr)
        elif config.schedule != "constant":
            decaying = max(total_steps - config.warmup_steps, 1)
            t = jnp.clip((step - config.warmup_steps) / decaying, 0.0, 1.0)
            left = (
                1 - t if config.schedule == "linear" else (1 + jnp.cos(jnp.pi * t)) / 2
            )
            lr = lr * (config.end_factor + (1 - config.end_factor) * left)
        return lr

    return schedule


def make_optimizer(
    config: OptimizerConfig, total_steps: int, params: Any
) -> tuple[optax.GradientTransformation, Schedule]:
    """Builds the optimizer of a phase.

    Args:
      config: the config section.
      total_steps: number of batches of the complete phase.
      params: the parameters or their shapes; only names are used.

    Returns:
      The gradient transformation, to be applied once per batch, and the learning rate as a
      function of the batch, counted from 0.

    Raises:
      ConfigError: a pattern of `freeze` or `lr_factors` matches nothing, or all parameters
        are frozen.
    """
    schedule = make_schedule(config, total_steps)
    k = config.accumulate_steps
    # The optimizer counts updates, the config counts batches.
    per_update = schedule if k == 1 else lambda update: schedule(update * k)
    matched(config.adam_kernels, params, "adam_kernels")
    tx = _transformation(config, per_update)
    if config.lr_factors:
        matched([pattern for pattern, _ in config.lr_factors], params, "lr_factors")
        tx = optax.chain(tx, _scale_by_pattern(config.lr_factors))
    if config.clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), tx)
    if config.freeze:
        # Frozen parameters have no optimizer state and do not count for the clipped norm.
        tx = optax.partition(
            {"trained": tx, "frozen": optax.set_to_zero()},
            freeze_labels(params, config.freeze),
        )
    if k > 1:
        tx = optax.MultiSteps(tx, every_k_schedule=k).gradient_transformation()
    return tx, schedule


def _transformation(
    config: OptimizerConfig, schedule: Schedule
) -> optax.GradientTransformation:
    """Returns the transformation from gradients to updates, including weight decay."""
    b1 = 0.9 if config.b1 is None else config.b1
    b2 = config.b2
    if b2 is None:
        b2 = 0.99 if config.name == "rmsprop" else 0.999
    momentum = config.momentum
    if momentum is None:
        momentum = {"sgd": 0.9, "muon": 0.95}.get(config.name, 0.0)
    trace = [optax.trace(momentum)] if momentum else []
    decay = []
    if config.weight_decay:
        decay = [optax.add_decayed_weights(config.weight_decay, is_kernel)]
    steps = {
        "adam": [*decay, optax.scale_by_adam(b1, b2, config.eps)],
        "adamw": [optax.scale_by_adam(b1, b2, config.eps), *decay],
        "sgd": [*decay, *trace],
        "rmsprop": [
            *decay,
            optax.scale_by_rms(b2, config.eps, eps_in_sqrt=False),
            *trace,
        ],
        # The sum starts at 0, as in Duchi et al.: optax's 0.1 would dominate small
        # gradients.
        "adagrad": [*decay, optax.scale_by_rss(0.0, config.eps)],
        "muon": [_muon(config, momentum), *decay],
    }[config.name]
    return optax.chain(*steps, optax.scale_by_learning_rate(schedule))


def _scale_by_pattern(
    factors: Sequence[tuple[str, float]],
) -> optax.GradientTransformation:
    """Returns a multiplication of each update by the factor of its parameter."""

    def scaled(path, update):
        names = tuple(entry.key for entry in path)
        factor = next(
            (f for pattern, f in factors if path_matches(pattern, names)), 1.0
        )
        return update * jnp.asarray(factor, update.dtype)

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates)
    )


def _muon(config: OptimizerConfig, momentum: float) -> optax.GradientTransformation:
    """Returns Muon without learning rate; its output is subtracted, like a gradient."""
    factor = 0.25 if config.adam_lr_factor is None else config.adam_lr_factor

    def matrices(params):  # Matrix axes of each parameter; None: use Adam.
        def matrix(path, x):
            names = tuple(entry.key for entry in path)
            by_adam = any(path_matches(p, names) for p in config.adam_kernels)
            if names[-1] != "kernel" or x.ndim < 2 or by_adam:
                return None
            return optax.contrib.MuonDimensionNumbers(
                tuple(range(x.ndim - 1)), (x.ndim - 1,)
            )

        return jax.tree_util.tree_map_with_path(matrix, params)

    muon = optax.contrib.muon(
        1.0,
        beta=momentum,
        eps=config.eps,
        adam_learning_rate=factor,
        muon_weight_dimension_numbers=matrices,
    )
    return optax.chain(muon, optax.scale(-1.0))


def is_kernel(params: Any) -> Any:
    """Returns a tree of bools, True where weight decay applies."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )


def freeze_labels(params: Any, patterns: Sequence[str]) -> Any:
    """Returns a tree of "frozen" (a pattern matches the path) and "trained"."""
    paths = matched(patterns, params, "freeze")
    labels = [
        "frozen" if any(path_matches(p, path) for p in patterns) else "trained"
        for path in paths
    ]
    if "trained" not in labels:
        raise ConfigError(f"freeze: {tuple(patterns)} matches all parameters.")
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def without_gradient(params: Any, patterns: Sequence[str]) -> Any:
    """Returns `params`; those that a pattern matches have no gradient."""
    if not patterns:
        return params
    return jax.tree.map(
        lambda label, x: jax.lax.stop_gradient(x) if label == "frozen" else x,
        freeze_labels(params, patterns),
        params,
    )


def matched(patterns: Sequence[str], params: Any, field: str) -> list[TreePath]:
    """Returns all paths; raises ConfigError if a pattern matches none of them."""
    paths = list(flatten(params))
    for pattern in patterns:
        if not any(path_matches(pattern, path) for path in paths):
            raise ConfigError(
                f"{field}: {pattern!r} matches no parameter. {nearest(pattern, paths)}"
            )
    return paths


def apply(
    tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """Applies one step of `tx`; returns the new parameters and optimizer state."""
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def ema_start(tree: Any) -> Any:
    """Returns the initial average: a copy in separate buffers."""
    return jax.tree.map(jnp.copy, tree)


def ema_decay(config: OptimizerConfig, step: Any) -> jax.Array:
    """Returns the decay at batch `step`, counted from 0."""
    decay = jnp.float32(config.ema_decay)
    if config.ema_warmup:
        decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return decay


def ema_update(ema: Any, new: Any, decay: Any) -> Any:
    """Returns decay * ema + (1 - decay) * new, for parameters and BatchNorm statistics.

    Leaves that are not floating point (counters) are copied from `new`.
    """

    def update(old, value):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        return (old + (1 - decay) * (value - old)).astype(old.dtype)

    return jax.tree.map(update, ema, new)
