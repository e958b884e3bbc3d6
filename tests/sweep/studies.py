"""Sweeps, studies and workers that the tests of sweeps make."""

import json
import subprocess
import sys
import time
from pathlib import Path

from pose_jax.sweep import Sweep, grid, log_range, preflight, worker
from pose_jax.sweep import study as study_lib

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.py")
SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.py"))
QUICK = study_lib.Times(poll=0.05, beat=0.2, lost=1.0, settle=0.2)
STEPS = 6
LR = {"optimizer.lr": log_range(1e-3, 0.1)}
TWO_BY_TWO = Sweep(
    space={"optimizer.lr": grid(0.1, 0.2), "seed": grid(0, 1)},
    metric="AP",
    sampler="grid",
)


class Never:
    """A stop that nobody asks for, or after some questions."""

    name = "SIGTERM"

    def __init__(self, after=10**9):
        self.left = after

    @property
    def requested(self):
        self.left -= 1
        return self.left < 0


def write(to, made):
    """A sweep file of a Sweep; its repr is Python."""
    file = to / "made.py"
    names = "from pose_jax.sweep import Choice, Range, Sweep"
    file.write_text(f"{names}\n\ndef get_sweep():\n    return {made!r}\n")
    return file


def study_of(path):
    return study_lib.open_study(study_lib.place(str(path)))[0]


def points(path):
    return [trial.params for trial in study_of(path).get_trials()]


def starts(run):
    return len((run / "starts").read_text().split())


def steps(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def open_gate(study):
    (study / "trials").mkdir(parents=True, exist_ok=True)
    (study / "trials" / "gate").touch()


def wait_for_third(*of):
    """Until runs have come to their third step, where they wait."""
    wait_until(
        lambda: all((r / "metrics.jsonl").exists() and len(steps(r)) == 3 for r in of)
    )


def wait_until(true, seconds=60):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to that in a minute"
        time.sleep(0.05)


def spec_of(made, overrides):
    return preflight.check("s.py", made, DEMO, overrides)


def drawn(made, overrides, out, trials, value=lambda p: p["optimizer.lr"], **options):
    """Goes on with a study whose trials cost nothing."""
    where = study_lib.place(str(out))
    study_lib.open_study(where, spec_of(made, overrides))

    def finish(claims, claim):
        claims.tell(claim.trial, "complete", value(claim.trial.params))

    task = worker.Task(where, trials, DEMO, times=QUICK)
    worker.work(task, options.get("stop", Never()), finish)
    return points(out)


def workers_of(where, count, trials, folder, pace, times=QUICK):
    """Worker processes, as `run` starts them; killed at the end of a test that fails."""
    task = worker.Task(
        where, trials, DEMO, times=times,
        command=(sys.executable, str(folder / f"{pace}.py")),
    )  # fmt: skip
    words = [sys.executable, "-m", "pose_jax.sweep.worker", task.to_json()]
    return [subprocess.Popen(words, cwd=ROOT) for _ in range(count)]


def trained(where, folder, trials, *, pace="quick"):
    """What a worker does, here: goes on with a study by a fake training."""
    command = (sys.executable, str(folder / f"{pace}.py"))
    task = worker.Task(where, trials, DEMO, command=command, times=QUICK)
    worker.work(task, Never())
