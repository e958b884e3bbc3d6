"""The contents of a sweep file: search space, metric, sampler and pruner.

A sweep is a Python file with `get_sweep() -> Sweep`. Everything here is plain values;
`pose_jax.sweep` exports the names that such a file imports.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pose_jax import config as config_lib
from pose_jax.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Choice:
    """A list of values. With `every`, each sampled point is run with all of them."""

    values: tuple[Any, ...]
    every: bool = False


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; integers if both are integers."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Space = Mapping[str, Choice | Range]
"""Values by the dotted key of a config: {"optimizer.lr": log_range(1e-4, 1e-2)}."""


def choice(*values: Any) -> Choice:
    """One of these values, chosen by the sampler."""
    return Choice(values)


def grid(*values: Any) -> Choice:
    """All of these values, combined with each sampled point, e.g. for seeds."""
    return Choice(values, every=True)


def linear_range(low: float, high: float, step: float | None = None) -> Range:
    """A range from `low` to `high`, both included; of integers if both are integers."""
    return Range(low, high, step=step)


def log_range(low: float, high: float) -> Range:
    """A range from `low` to `high`, sampled uniformly in the logarithm."""
    return Range(low, high, log=True)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep: search space, metric, sampler and pruner.

    Attributes:
      space: values by the key of the config.
      metric: metric of the evaluation: a full name or an unambiguous prefix, such as "AP"
        for "AP@gt_boxes".
      direction: "maximize" or "minimize".
      sampler: "tpe" models the previous trials; "random"; "grid" runs all combinations
        of choices in the order of the file, the last key changing fastest.
      pruner: "none"; "median" stops a trial that is worse than the median of the other
        trials at the same batch; "hyperband" stops most trials early.
      startup_trials: number of trials that are sampled randomly, and must finish before
        "median" prunes any.
      warmup_steps: "median" prunes no trial before this batch.
      seed: random seed of the sampler; a study with one worker is a function of it, even
        if it is interrupted.
      seeds: the key over which the leaderboard computes means and intervals.
    """

    space: Space
    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "none"
    startup_trials: int = 5
    warmup_steps: int = 0
    seed: int = 0
    seeds: str = "seed"

    def __post_init__(self) -> None:
        hints = {
            "direction": ("maximize", "minimize"),
            "sampler": ("tpe", "random", "grid"),
            "pruner": ("none", "median", "hyperband"),
        }
        for name, known in hints.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    f"{name} must be one of {', '.join(known)}; got {value!r}."
                    f"{did_you_mean(value, known, cutoff=0.4)}"
                )
        if not self.space:
            raise ConfigError("the search space is empty: give it at least one key.")
        for key, values in self.space.items():
            _check_values(key, values, self.sampler)

    def grids(self) -> dict[str, Choice]:
        """Returns the keys whose values are all run."""
        return {
            key: values
            for key, values in self.space.items()
            if isinstance(values, Choice) and (values.every or self.sampler == "grid")
        }

    def combinations(self) -> int:
        """Returns the number of trials per sampled point, one per combination of grids."""
        return math.prod(len(values.values) for values in self.grids().values())

    def size(self) -> int | None:
        """Returns the number of trials; None if ranges or choices are sampled."""
        is_finite = len(self.grids()) == len(self.space)
        return self.combinations() if is_finite else None


def _check_values(key: str, values: Choice | Range, sampler: str) -> None:
    if isinstance(values, Choice):
        if not values.values:
            raise ConfigError(f"space {key!r} is empty: give it at least one value.")
        texts = [as_override(value) for value in values.values]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ConfigError(f"space {key!r} has {twice[0]} twice: remove one.")
        return
    if not isinstance(values, Range):
        raise ConfigError(
            f"space {key!r} must be a choice, a grid or a range; got {values!r}."
        )
    ends = values.low, values.high
    for end in ends:
        if not isinstance(end, int | float) or isinstance(end, bool):
            raise ConfigError(f"space {key!r}: a range needs numbers; got {end!r}.")
    if not -math.inf < values.low < values.high < math.inf:
        raise ConfigError(
            f"space {key!r} is empty: a range needs finite low < high; got {values.low} to "
            f"{values.high}."
        )
    if values.log and values.low <= 0:
        raise ConfigError(
            f"space {key!r}: a log range needs positive numbers; got {values.low}."
        )
    if values.step is not None and not 0 < values.step <= values.high - values.low:
        raise ConfigError(
            f"space {key!r}: step must be positive and at most high - low; got "
            f"{values.step}."
        )
    if sampler == "grid":
        raise ConfigError(
            f"space {key!r} is a range, which sampler 'grid' does not support: use a grid "
            "of values, or sampler 'tpe' or 'random'."
        )


def load(file: str | Path) -> Sweep:
    """Reads a sweep file.

    Raises:
      ConfigError: one line, for every kind of failure.
    """
    sweep = config_lib.run_file(Path(file), "get_sweep")
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"{file}: get_sweep must return a pose_jax.sweep.Sweep.")
    return sweep


def as_override(value: Any) -> str:
    """Formats a value for a config override."""
    return value if isinstance(value, str) else repr(as_tuples(value))


def as_tuples(value: Any) -> Any:
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


def _ends(values: Choice | Range) -> list[Any]:
    """Returns the values whose validity implies that of all others."""
    if isinstance(values, Choice):
        return list(values.values)
    return [values.low, values.high]


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Yields points that contain each bound and each choice once, changing one key."""
    first = {key: _ends(values)[0] for key, values in space.items()}
    yield first
    for key, values in space.items():
        for value in _ends(values)[1:]:
            yield {**first, key: value}


def words(point: Mapping[str, Any]) -> list[str]:
    """Converts a point to config overrides for the command line."""
    return [f"--config.{key}={as_override(value)}" for key, value in point.items()]
