"""Checks of a sweep before it starts: each bound and each choice is applied to the config.

A misspelled key that would fail only in the last trial is reported here in one line, before
anything is created.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from collections.abc import Sequence
from typing import Any, cast

from pose_jax import config as config_lib
from pose_jax.errors import ConfigError, did_you_mean
from pose_jax.sweep.space import Choice, Sweep, as_override, as_tuples, corners, words


def check(file: str, sweep: Sweep, config: str, overrides: Sequence[str]) -> dict:
    """Applies each bound and each choice to the config: checks keys, types and method.

    Args:
      file: the sweep file, for messages.
      sweep: the sweep.
      config: the config file.
      overrides: overrides of all trials.

    Returns:
      The specification that the study stores, as plain values.

    Raises:
      ConfigError: one line that names the key, with the closest known key.
      InputError: the evaluation data cannot be read.
    """
    from pose_jax import data, evaluation, methods
    from pose_jax.training import config as training_config

    base = config_lib.load(config, overrides)
    built = config_lib.build(training_config.Config, base)
    methods.parse(built.method)
    table = None
    for point in corners(sweep.space):
        try:
            loaded = config_lib.load(config, [*overrides, *words(point)])
            for key, value in point.items():
                got = functools.reduce(
                    operator.getitem, key.split("."), cast(Any, loaded)
                )
                if as_tuples(got) != as_tuples(value):
                    raise ConfigError(
                        f"config.{key}: {value!r} would be parsed as {got!r}."
                    )
            trial = config_lib.build(training_config.Config, loaded)
            methods.parse(trial.method)
            if table is None:  # After the keys are checked: reading may take a while.
                table = data.load(built.data.eval)
            method = methods.build(trial.method, table.keypoints)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    steps = sum(_steps(trial, phase.name) for phase in method.phases)
    if sweep.pruner != "none" and not 0 < built.train.eval_every_steps < steps:
        raise ConfigError(
            f"{file}: pruner {sweep.pruner!r} requires evaluations during training: set "
            f"config.train.eval_every_steps (now {built.train.eval_every_steps}) to less "
            f"than the {steps} steps."
        )
    return {
        **described(sweep),
        "metric": full_metric(file, sweep.metric, evaluation.of(method).names(table)),
        "config": config,
        "overrides": list(overrides),
        "base": json.loads(config_lib.to_json(base)),
        "resource": [max(built.train.eval_every_steps, 1), steps],
        "eval_only": "",
    }


def full_metric(file: str, given: str, names: Sequence[str]) -> str:
    """Returns the full name of the metric of a sweep."""
    if given in names:
        return given
    matches = [n for n in names if n.startswith((f"{given}@", f"{given}[sigma="))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(
            f"{file}: metric {given!r} is ambiguous: give one of {', '.join(matches)}."
        )
    meant = did_you_mean(given, names)
    raise ConfigError(f"{file}: the evaluation has no metric {given!r}.{meant}")


def _steps(config: Any, phase: str) -> int:
    own = config.phases.get(phase, {}).get("train", {})
    return own.get("steps", config.train.steps)


def described(sweep: Sweep) -> dict[str, Any]:
    """Converts a sweep to plain values for the storage."""
    grids = sweep.grids()
    space = {
        key: {
            "texts": [as_override(value) for value in values.values],
            "every": key in grids,
        }
        if isinstance(values, Choice)
        else dataclasses.asdict(values)
        for key, values in sweep.space.items()
    }
    return {**dataclasses.asdict(sweep), "space": space}
