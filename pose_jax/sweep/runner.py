"""Hyperparameter sweeps: many trainings of one config, each with its own overrides.

A sweep is a Python file with `get_sweep() -> Sweep`. Optuna samples and stores the trials;
a worker takes one trial at a time and trains it in a separate process and run directory,
OUT/trials/0007. Any number of workers, on one or several machines, can share a study. No
trial is lost or run twice, regardless of how a worker ends.

`run` runs a study. It uses:

  space      contents of a sweep file
  preflight  checks before the start
  study      storage, samplers, ownership of trials
  worker     trains one trial at a time
  readout    evaluates a trained network instead of training
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pose_jax import writing
from pose_jax.errors import ConfigError, InputError, Stopped
from pose_jax.runs.log import Progress
from pose_jax.sweep.preflight import check
from pose_jax.sweep.readout import check_evaluated, measured
from pose_jax.sweep.space import load
from pose_jax.sweep.study import (
    Place,
    Times,
    load_optuna,
    open_study,
    place,
)
from pose_jax.sweep.worker import Task, bound, work
from pose_jax.training.interrupts import StopRequest


def run(
    sweep_file: str,
    study: str,
    *,
    config: str | None = None,
    overrides: Sequence[str] = (),
    eval_only: str | None = None,
    boxes: str = "gt",
    trials: int | None = None,
    workers: int = 1,
    name: str | None = None,
    out: Path | str | None = None,
    command: Sequence[str] | None = None,
    times: Times | None = None,
) -> dict[str, int]:
    """Runs or resumes a study.

    Args:
      sweep_file: the Python file of the sweep.
      study: a folder, or the URL of an Optuna storage.
      config: the config file of the trainings.
      overrides: config overrides of all trials.
      eval_only: a trained run to evaluate instead of training a config.
      boxes: boxes for `eval_only`: "gt", or a COCO detections JSON file.
      trials: number of trials of the study; None for all points of a grid.
      workers: number of parallel trainings.
      name, out: name and folder of a study in a storage; see `place`.
      command: replaces `pose-jax train`.
      times: see Times.

    Returns:
      The numbers of trials that are "complete", "pruned", "fail" and "running".

    Raises:
      ConfigError: the sweep, the config or the options are invalid; nothing was started.
      InputError: data or storage cannot be used, or workers died and left trials.
      Stopped: stopped by a signal; trainings have saved their state.
    """
    sweep = load(sweep_file)
    where = place(study, name, out)
    if (config is None) == (eval_only is None):
        raise ConfigError("give either --config or --eval-only RUN.")
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1; got {workers}.")
    size = sweep.size()
    if trials is None and size is None:
        raise ConfigError("--trials is required: the search space is not a grid.")
    trials = min(n for n in (trials, size) if n is not None)
    if trials < 1:
        raise ConfigError(f"--trials must be at least 1; got {trials}.")
    load_optuna()
    writing.check(
        where.out, "give another --study" if not where.storage else "give another --out"
    )
    times = times or Times()
    if eval_only is not None:
        if overrides or workers > 1:
            raise ConfigError("--eval-only supports neither overrides nor --workers.")
        spec, readouts = check_evaluated(sweep_file, sweep, eval_only, boxes)
        shares = [((), "")]
    else:
        assert config is not None
        shares = _shares(workers)
        spec, readouts = check(sweep_file, sweep, config, overrides), None
    opened, _ = open_study(where, spec)
    more = {} if command is None else {"command": tuple(command)}
    tasks = [
        Task(where, trials, config or "", cores, device, times=times, **more)
        for cores, device in shares
    ]
    with (
        writing.naming(where.out),
        StopRequest() as stop,
        _Watch(opened, where, trials) as watch,
    ):
        if readouts is None:
            _workers(tasks, stop, watch)
        else:
            work(tasks[0], stop, measured(sweep, readouts, watch.look))
        counts = watch.look()
    at = where.storage or where.out
    if stop.requested:
        raise Stopped(
            f"stopped by {stop.name}: {counts['running']} trials are unfinished, their "
            "state is saved; the same command resumes the study.",
            stop.exit_code,
        )
    if watch.died and counts["running"]:
        raise InputError(
            f"{at}: {counts['running']} trials are unfinished: {watch.died}; the same "
            "command resumes the study."
        )
    if not counts["complete"] and not counts["running"]:
        raise InputError(f"{at}: no trial was completed ({watch.last_reason}).")
    return counts


def _shares(workers: int) -> list[tuple[tuple[int, ...], str]]:
    """Assigns cores and a GPU to each worker: cores are split, GPUs are not shared."""
    devices = _devices()
    if devices and workers > len(devices):
        raise ConfigError(
            f"{workers} workers need {workers} GPUs, but there are {len(devices)}: reduce "
            "--workers, or set JAX_PLATFORMS=cpu to train on the CPU."
        )
    shares: list[tuple[int, ...]] = [()] * workers
    if workers > 1 and hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        n = max(len(cores), workers)
        cores = (cores * workers)[:n]
        cuts = [n * i // workers for i in range(workers + 1)]
        shares = [tuple(cores[a:b]) for a, b in itertools.pairwise(cuts)]
    return [(cores, devices[i] if devices else "") for i, cores in enumerate(shares)]


def _devices() -> list[str]:
    """Lists the GPUs for CUDA_VISIBLE_DEVICES without JAX, which would allocate them."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    try:
        answer = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = [line for line in answer.splitlines() if line.startswith("GPU ")]
    return [str(i) for i in range(len(gpus))]


def _workers(tasks: Sequence[Task], stop: StopRequest, watch: _Watch) -> None:
    """Starts one process per task and waits for all of them."""
    processes: dict[int, subprocess.Popen] = {}
    out = tasks[0].place.out
    try:
        for number, task in enumerate(tasks):
            with open(out / f"worker_{number}.log", "ab") as log:
                processes[number] = subprocess.Popen(
                    bound([sys.executable, "-m", "pose_jax.sweep.worker", task.to_json()]),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    process_group=0,
                )  # fmt: skip
        while processes and not stop.requested:
            time.sleep(tasks[0].times.poll)
            watch.look()
            for number, process in list(processes.items()):
                if process.poll() is not None:
                    del processes[number]
                    if process.returncode:
                        watch.worker_died(number, process.returncode, out)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


class _Watch:
    """Progress of a study: one line per trial, and a bar on a terminal."""

    def __init__(self, study: Any, where: Place, trials: int):
        self.study = study
        self.trials = trials
        self.died = ""
        self.last_reason = "no trial was started"
        self._told = {t.number for t in self._all() if t.state.is_finished()}
        self._progress = Progress(
            trials, len(self._told), True, label="trials", unit=""
        )
        done = f"{len(self._told)} of {trials} trials are done"
        self._progress.say(f"study {where.storage or where.out}: {done}")

    def _all(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)[: self.trials]

    def look(self) -> dict[str, int]:
        """Reports newly finished trials; returns the number of trials by state."""
        trials = self._all()
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                self._progress.say(self._line(trial))
        counts: dict[str, int] = dict.fromkeys(
            ("complete", "pruned", "fail", "running"), 0
        )
        for trial in trials:
            counts[trial.state.name.lower()] += 1
        failed = [t for t in trials if "reason" in t.user_attrs]
        if failed:
            last = failed[-1]
            self.last_reason = f"trial {last.number}: {last.user_attrs['reason']}"
        if sys.stdout.isatty():  # Otherwise one line per trial is enough.
            self._progress(len(self._told), {"running": counts["running"]})
        return counts

    def _line(self, trial: Any) -> str:
        spec = self.study.user_attrs["sweep"]
        how = trial.state.name.lower()
        if how == "complete":
            how = f"{spec['metric']} {trial.value:.4g}"
        elif how == "pruned" and trial.last_step is not None:
            at = trial.intermediate_values[trial.last_step]
            how = f"pruned at batch {trial.last_step}, {spec['metric']} {at:.4g}"
        elif how == "fail":
            how = f"failed: {trial.user_attrs.get('reason', 'unknown reason')}"
        point = " ".join(f"{key}={_shown(v)}" for key, v in trial.params.items())
        minutes, seconds = divmod(round(trial.duration.total_seconds()), 60)
        done = f"{len(self._told)}/{self.trials}"
        return f"trial {trial.number} ({done})  {how}  {point}  {minutes}:{seconds:02}"

    def worker_died(self, number: int, code: int, out: Path) -> None:
        """Reports that a worker has died."""
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
        self.died = f"worker {number} died ({how}; {out / f'worker_{number}.log'})"
        self._progress.say(self.died)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
