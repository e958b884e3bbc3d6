"""A worker: takes one trial at a time and trains it in a separate process and run.

The training is `pose-jax train` in OUT/trials/0007. The worker reads its log, reports its
evaluations to Optuna, and stops it if it is pruned or the worker is stopped.

  python -m pose_jax.sweep.worker TASK      as `runner.run` starts it; TASK is json
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pose_jax.runs import digests
from pose_jax.sweep.space import words
from pose_jax.sweep.study import (
    Claim,
    Claims,
    Left,
    Place,
    Times,
    lock,
    open_study,
    suggest,
)
from pose_jax.training.interrupts import StopRequest


@dataclasses.dataclass(frozen=True)
class Task:
    """The arguments of a worker."""

    place: Place
    trials: int
    config: str
    cores: tuple[int, ...] = ()
    device: str = ""
    command: tuple[str, ...] = (sys.executable, "-m", "pose_jax", "train")
    times: Times = dataclasses.field(default_factory=Times)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        fields = json.loads(text)
        storage, name, out = fields["place"].values()
        fields["place"] = Place(storage, name, Path(out))
        return cls(**fields | {"times": Times(**fields["times"])})


RESTARTS = 2
"""Number of restarts of a training that was killed or stopped externally."""

_TO_STOP = 600.0
"""Timeout in seconds for a training to save its state."""


def work(
    task: Task,
    stop: StopRequest,
    finish: Callable[[Claims, Claim], None] | None = None,
) -> None:
    """Runs trials until all are done or a stop is requested.

    Args:
      task: the task of the worker.
      stop: stop request, polled between trials and during training.
      finish: finishes a trial, or raises Left; None: trains it.
    """
    study, spec = open_study(task.place)
    if task.cores:
        # JAX uses as many threads as there are cores in the affinity mask.
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setaffinity(0, task.cores)
    claims = Claims(study, spec, task.place, task.trials, task.times)
    while not stop.requested:
        claim = claims.next()
        if claim == "done":
            return
        if claim == "wait":
            time.sleep(task.times.poll)
            continue
        with claim.file, contextlib.suppress(Left):
            if finish is not None:
                finish(claims, claim)
            else:
                _Training(claims, claim, task, stop).finish()


class _Training:
    """Starts or resumes the training of one trial and finishes it."""

    def __init__(self, claims: Claims, claim: Claim, task: Task, stop: StopRequest):
        self.claims, self.claim, self.task, self.stop = claims, claim, task, stop
        self.trial = trial = claim.trial
        self.spec = claims.spec
        self.run = claims.run(trial.number)
        self.reported = set(claims.state(trial).intermediate_values)
        self.log_size = -1
        self.last_beat = time.monotonic()

    def finish(self) -> None:
        """Trains the trial and reports the result.

        Raises:
          Left: the trial is not finished by this worker.
        """
        tell, restarts = self.claims.tell, 0
        while True:
            if self.trial.user_attrs.get("pruned"):
                return tell(self.trial, "pruned")
            scores = _model_scores(self.run)
            if scores is not None:
                self._report()
                value = scores.get(self.spec["metric"])
                if isinstance(value, int | float):
                    return tell(self.trial, "complete", value)
                reason = f"the model has no score {self.spec['metric']!r}"
                return tell(self.trial, "fail", reason=reason)
            self._wait_for_others()
            code = self._train()
            if code is None or _model_scores(self.run) is not None:
                continue
            if code > 0:
                return tell(self.trial, "fail", reason=self._reason(code))
            restarts += 1
            if restarts > RESTARTS:
                killed = code and f"killed by {signal.Signals(-code).name}"
                reason = f"{killed or 'stopped without a model'} {restarts} times"
                return tell(self.trial, "fail", reason=reason)

    def _wait_for_others(self) -> None:
        """Waits for the end of a training that another worker has left."""
        while (held := lock(self.run / "lock")) is None:
            self._go_on()
            time.sleep(self.task.times.poll)
        held.close()

    def _go_on(self) -> None:
        """Raises Left if this worker was stopped or has lost the trial."""
        if self.stop.requested:
            raise Left
        if time.monotonic() - self.last_beat >= self.task.times.beat:
            self.last_beat = time.monotonic()
            if not self.claims.beat(self.trial):
                raise Left

    def _train(self) -> int | None:
        """Starts or resumes the training and waits for it; returns its exit code, None if
        it was pruned."""
        overrides = words(suggest(self.trial, self.spec["space"]))
        command = [
            *self.task.command, "--config", self.task.config,
            "--run", str(self.run), *self.spec["overrides"], *overrides,
        ]  # fmt: skip
        env = dict(os.environ)
        if self.task.device:
            env["CUDA_VISIBLE_DEVICES"] = self.task.device
        with open(self.run / "output.txt", "ab") as output:
            # The training inherits the lock: other workers wait for both to end. It has its
            # own process group, so that only the parent receives Ctrl-C; not its own
            # session, which Linux schedules as a separate group.
            process = subprocess.Popen(
                bound(command), stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env=env, process_group=0,
                pass_fds=[self.claim.file.fileno()],
            )  # fmt: skip
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.task.times.poll)
                done = process.poll() is not None
                news = self._report()
                if done:
                    return process.returncode
                self._go_on()
                if news and self.spec["pruner"] != "none" and self.trial.should_prune():
                    self.trial.set_user_attr("pruned", True)
                    return None
        finally:
            _end(process)

    def _report(self) -> bool:
        """Reports new evaluations in the log to Optuna; returns whether there are any."""
        log = self.run / "metrics.jsonl"
        size = log.stat().st_size if log.exists() else -1
        if size == self.log_size:
            return False
        self.log_size, before = size, len(self.reported)
        for step, value in curve(self.run, self.spec["metric"]):
            if step not in self.reported:
                self.reported.add(step)
                self.trial.report(value, step)
        return len(self.reported) > before

    def _reason(self, code: int) -> str:
        """Returns the last message of the training in one line."""
        text = (self.run / "output.txt").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("pose-jax: error: ")]
        last = (errors or lines or ["no output"])[-1]
        return f"exit code {code}: {last.removeprefix('pose-jax: error: ')}"


def curve(run: Path, metric: str) -> list[tuple[int, float]]:
    """Returns a metric of a run's evaluations by batch, counted over all phases."""
    from pose_jax.runs import log as log_lib

    values: dict[int, float] = {}
    before, phase, last = 0, None, 0
    for entry in log_lib.read_metrics(run):
        if entry["phase"] != phase:
            before, phase, last = before + last, entry["phase"], 0
        last = max(last, entry["step"])
        value = entry.get(metric)
        if isinstance(value, int | float):
            values[before + entry["step"]] = float(value)
    return sorted(values.items())


def _model_scores(run: Path) -> dict[str, Any] | None:
    """Returns the scores of a finished training; None if there is no model."""
    try:
        text = (run / "model" / "manifest.json").read_text(encoding="utf-8")
        manifest = json.loads(text)
        if digests.is_sealed(manifest):
            manifest = digests.opened(manifest)
        return manifest.get("scores") or {}
    except (OSError, ValueError):
        return None


def _end(process: subprocess.Popen) -> None:
    """Stops a training after it has saved its state."""
    process.terminate()
    try:
        process.wait(_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def bound(command: Sequence[str]) -> list[str]:
    """Wraps a command so that it receives SIGTERM when this process dies (Linux only)."""
    if not sys.platform.startswith("linux"):
        return list(command)
    # Not by preexec_fn, which forks: JAX's threads do not survive a fork.
    return [sys.executable, "-c", _LAUNCH, str(os.getpid()), *command]


if __name__ == "__main__":  # Started by `runner.run`.
    with StopRequest() as stop:
        work(Task.from_json(sys.argv[1]), stop)
