"""The weights of one checkpoint of a run, finished or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pose_jax.errors import ConfigError, InputError
from pose_jax.runs import states
from pose_jax.types import Variables

NAMES = "best, last, STEP, PHASE/best, PHASE/last or PHASE/STEP"
"""The forms of a checkpoint's name, for messages and help."""


class Checkpoint(NamedTuple):
    """A checkpoint.

    Attributes:
      name: "PHASE/STEP".
      variables: weights of the phase, averaged if the run averages, and of those before it.
      metrics: those of its evaluation; {} if it was not evaluated.
    """

    name: str
    variables: Variables
    metrics: dict[str, float]


def read(run: Path | str, name: str, phases: Sequence[str]) -> Checkpoint:
    """Reads the weights of a checkpoint.

    Phases before that of the checkpoint have the weights that the run goes on with; those
    after it are left out.

    Args:
      run: the run directory.
      name: as NAMES: "best" is the evaluation with the best `train.best_metric`; without
        PHASE, it is of the last phase that has a checkpoint.
      phases: all phases of the run's method, in order.

    Raises:
      ConfigError: it is none of NAMES, or the run has no such phase.
      InputError: the run has no such checkpoint, or it is damaged.
    """
    run = Path(run)
    *given, which = name.rsplit("/", 1)
    if which not in ("best", "last") and not which.isdecimal():
        raise ConfigError(f"no checkpoint is named {name!r}: use {NAMES}.")
    if given and given[0] not in phases:
        raise ConfigError(
            f"checkpoint {name!r}: the run has no phase {given[0]!r}, only "
            f"{', '.join(phases)}."
        )
    begun = [p for p in phases if states.whole_steps(run / "checkpoints" / p)]
    if not begun or (given and given[0] not in begun):
        raise InputError(
            f"{run}: no checkpoints{f' of phase {given[0]!r}' if given else ''} found in "
            f"{run / 'checkpoints'}. A run that was converted from published weights has "
            "none."
        )
    phase = given[0] if given else begun[-1]
    variables: dict[str, Any] = {}
    for earlier in phases[: phases.index(phase)]:
        variables[earlier], _, _ = _read(run, earlier, _kept(run, earlier))
    variables[phase], step, metrics = _read(run, phase, which)
    return Checkpoint(f"{phase}/{step}", variables, metrics)


def _read(
    run: Path, phase: str, which: str
) -> tuple[dict[str, Any], int, dict[str, float]]:
    """Returns the weights, step and metrics of "best", "last" or a step."""
    with states.Checkpoints(run / "checkpoints" / phase, read_only=True) as store:
        steps, best = store.steps(), store.best_step()
        step = {"best": best, "last": max(steps, default=None)}.get(which)
        if which.isdecimal():
            step = int(which) if int(which) in steps else None
        if step is None:
            why = f"; step {best} is the best" if best is not None else ""
            if which == "best":
                why = "; set config.train.best_metric before training to keep the best"
            raise InputError(
                f"{run}: phase {phase!r} has no checkpoint {which!r}; it has "
                f"{', '.join(map(str, steps)) or 'none'}{why}."
            )
        state = store.arrays(step)
        names = "params", "batch_stats", "constants"
        weights = {name: state.get(name, {}) for name in names} | state.get("ema", {})
        return weights, step, store.metrics(step, {})


def _kept(run: Path, phase: str) -> str:
    """Returns which weights of a finished phase the run has gone on with."""
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "last"
    sections = config, (config.get("phases") or {}).get(phase) or {}
    train = {k: v for of in sections for k, v in (of.get("train") or {}).items()}
    return train.get("keep", "last")
