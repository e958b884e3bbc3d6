"""What a sweep file says: the values that are tried, and what is wanted of them.

A sweep is a python file with `get_sweep() -> Sweep`. Everything here is plain values;
`pose_jax.sweep` passes on the names that such a file imports.
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
    """Some values. With `every`, each trial is run with all of them."""

    values: tuple[Any, ...]
    every: bool = False


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`; ints if both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Space = Mapping[str, Choice | Range]
"""By the dotted key of a config: {"optimizer.lr": log_range(1e-4, 1e-2)}."""


def choice(*values: Any) -> Choice:
    """One of these, as the sampler likes."""
    return Choice(values)


def grid(*values: Any) -> Choice:
    """Every one of these, with all else that is drawn: seeds, for example."""
    return Choice(values, every=True)


def linear_range(low: float, high: float, step: float | None = None) -> Range:
    """From `low` to `high`, both included; of ints if both are."""
    return Range(low, high, step=step)


def log_range(low: float, high: float) -> Range:
    """From `low` to `high`, each factor as likely as another."""
    return Range(low, high, log=True)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is tried and what is wanted.

    Attributes:
      space: values by the key of the config.
      metric: of the evaluation: a full name, or as much of its beginning as leaves one:
        "AP" for "AP@gt_boxes".
      direction: "maximize" or "minimize" it.
      sampler: "tpe" learns from the trials before; "random"; "grid" tries all combinations
        of choices in the order of the file, the last key changing first.
      pruner: "none"; "median" ends a trial that is worse than the median of the others had
        been at the same batch; "hyperband" gives most trials little, and few all.
      startup_trials: so many are drawn at random, and end before any is pruned by the
        median.
      warmup_steps: the median prunes none before this batch.
      seed: of the sampler: a study of one worker is a function of it, stopped or not.
      seeds: the key over which the leaderboard takes means and intervals.
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
            raise ConfigError("the space is empty: nothing would be tried.")
        for key, values in self.space.items():
            _check_values(key, values, self.sampler)

    def grids(self) -> dict[str, Choice]:
        """The keys of which every value is run."""
        return {
            key: values
            for key, values in self.space.items()
            if isinstance(values, Choice) and (values.every or self.sampler == "grid")
        }

    def combinations(self) -> int:
        """How many trials a drawn point has: one for each combination of the grids."""
        return math.prod(len(values.values) for values in self.grids().values())

    def size(self) -> int | None:
        """How many trials there are; None where ranges or choices are drawn."""
        whole = len(self.grids()) == len(self.space)
        return self.combinations() if whole else None


def _check_values(key: str, values: Choice | Range, sampler: str) -> None:
    if isinstance(values, Choice):
        if not values.values:
            raise ConfigError(f"space {key!r} is empty: give it a value.")
        texts = [as_override(value) for value in values.values]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ConfigError(f"space {key!r} has {twice[0]} twice.")
        return
    if not isinstance(values, Range):
        raise ConfigError(
            f"space {key!r} must be a choice, a grid or a range; got {values!r}."
        )
    ends = values.low, values.high
    for end in ends:
        if not isinstance(end, int | float) or isinstance(end, bool):
            raise ConfigError(f"space {key!r}: a range is of numbers; got {end!r}.")
    if not -math.inf < values.low < values.high < math.inf:
        raise ConfigError(
            f"space {key!r} is empty: a range goes up from its first number; got "
            f"{values.low} to {values.high}."
        )
    if values.log and values.low <= 0:
        raise ConfigError(
            f"space {key!r}: a log range is of positive numbers; got {values.low}."
        )
    if values.step is not None and not 0 < values.step <= values.high - values.low:
        raise ConfigError(
            f"space {key!r}: a step is positive and within the range; got {values.step}."
        )
    if sampler == "grid":
        raise ConfigError(
            f"space {key!r} is a range, which sampler 'grid' cannot go through: give it "
            "a grid of values, or take sampler 'tpe' or 'random'."
        )


def load(file: str | Path) -> Sweep:
    """Reads a sweep file.

    Raises:
      ConfigError: always one line, whatever goes wrong.
    """
    sweep = config_lib.run_file(Path(file), "get_sweep")
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"{file}: get_sweep must return a sweep.Sweep.")
    return sweep


def as_override(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) else repr(as_tuples(value))


def as_tuples(value: Any) -> Any:
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


def _ends(values: Choice | Range) -> list[Any]:
    """The values that have to be possible for all to be."""
    if isinstance(values, Choice):
        return list(values.values)
    return [values.low, values.high]


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Points of a space in which each end and each choice is once, one key changing."""
    first = {key: _ends(values)[0] for key, values in space.items()}
    yield first
    for key, values in space.items():
        for value in _ends(values)[1:]:
            yield {**first, key: value}


def words(point: Mapping[str, Any]) -> list[str]:
    """A point as overrides of the command line."""
    return [f"--config.{key}={as_override(value)}" for key, value in point.items()]
