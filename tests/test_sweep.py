"""Sweeps: checked first, nothing lost, nothing twice; the leaderboard says what happened.

Most trainings here are a script that logs like one: steps with pauses, killed and resumed
in seconds. The storage, the locks and the processes are real.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest

import pose_jax
from pose_jax import (
    cli,
    config,
    datasets,
    experiment,
    measures,
    methods,
    runs,
    sweep,
    sweep_report,
)
from pose_jax.datasets import synthetic
from pose_jax.errors import ConfigError, InputError, Stopped
from pose_jax.sweep import Sweep, choice, grid, linear_range, log_range

ROOT = Path(__file__).parents[1]
DEMO = str(ROOT / "configs" / "demo.py")
SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.py"))
QUICK = sweep.Times(poll=0.05, beat=0.2, lost=1.0, settle=0.2)
STEPS = 6

# A training that can be watched: a line of the log a step, which is its checkpoint too.
FAKE = """
import fcntl, json, os, pathlib, sys, time
words = sys.argv[1:]
run = pathlib.Path(words[words.index("--run") + 1])
given = dict(w.removeprefix("--config.").split("=", 1) for w in words if "=" in w)
lr, seed = float(given["optimizer.lr"]), int(given.get("seed", 0))
lock = open(run / "lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("pose-jax: error: two trainings in one directory")
with open(run / "starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
if lr > 1:
    print("compiling", flush=True)
    sys.exit("pose-jax: error: the loss of step 3 is nan")
if lr > 0.9:
    os.kill(os.getpid(), 9)
log = run / "metrics.jsonl"
done = len(log.read_text().splitlines()) if log.exists() else 0
for step in range(done + 1, STEPS + 1):
    while step > 3 and lr < WAITS and not (run.parent / "gate").exists():
        time.sleep(0.02)
    value = lr * step / STEPS + seed / 100
    line = {"phase": "pose", "step": step, "AP@gt_boxes": value}
    with open(log, "a") as file:
        file.write(json.dumps(line) + "\\n")
(run / "new").mkdir(exist_ok=True)
scores = {"AP@gt_boxes": lr + seed / 100}
(run / "new" / "manifest.json").write_text(json.dumps({"scores": scores}))
(run / "new").rename(run / "model")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """People, and trainings that are none: of no time; and of which all, or those of a low
    rate, wait after their third step until there is a file "gate" beside them."""
    folder = tmp_path_factory.mktemp("sweep")
    synthetic.write_dataset(folder / "data", n=2, val=1, seed=0)
    for name, waits in (("quick", 0), ("gated", 10), ("gated_low", 0.05)):
        text = FAKE.replace("STEPS", str(STEPS)).replace("WAITS", str(waits))
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module", autouse=True)
def names(folder):
    """The metrics of these people, looked up once."""
    source = datasets.SourceConfig(
        name="coco", root=str(folder / "data"), split="val2017"
    )
    found = measures.names(datasets.load(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "names", lambda table, boxes=False: found)
        yield found


@pytest.fixture(scope="module")
def overrides(folder):
    roots = [f"--config.data.{use}.root={folder / 'data'}" for use in ("train", "eval")]
    return [*roots, "--config.train.steps=6", "--config.train.eval_every_steps=1"]


@pytest.fixture
def start(folder, overrides, tmp_path):
    """start(sweep) runs a study of it in tmp_path/study, with a fake training."""

    def run(made, *, pace="quick", study=None, **options):
        file = write(tmp_path, made)
        options.setdefault("times", QUICK)
        return sweep.run(
            str(file),
            str(study or tmp_path / "study"),
            config=DEMO,
            overrides=overrides,
            command=[sys.executable, str(folder / f"{pace}.py")],
            **options,
        )

    return run


def write(to, made):
    """A sweep file of a Sweep; its repr is Python."""
    file = to / "made.py"
    names = "from pose_jax.sweep import Choice, Range, Sweep"
    file.write_text(f"{names}\n\ndef get_sweep():\n    return {made!r}\n")
    return file


def study_of(path):
    return sweep.open_study(sweep.place(str(path)))[0]


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
        time.sleep(0.02)


LR = {"optimizer.lr": log_range(1e-3, 0.1)}
TWO_BY_TWO = Sweep(
    space={"optimizer.lr": grid(0.1, 0.2), "seed": grid(0, 1)},
    metric="AP",
    sampler="grid",
)

# ------------------------------------------------------------------------- what it may say


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        (lambda: Sweep(space={}, metric="AP"), "the space is empty"),
        (lambda: Sweep(space={"seed": choice()}, metric="AP"), "'seed' is empty"),
        (lambda: Sweep(space={"seed": grid(1, 1)}, metric="AP"), "has 1 twice"),
        (
            lambda: Sweep(space={"seed": (0, 1)}, metric="AP"),
            "a choice, a grid or a ra",
        ),
        (lambda: Sweep(space={"a": log_range(1, 0.1)}, metric="AP"), "goes up"),
        (lambda: Sweep(space={"a": linear_range(1, 1)}, metric="AP"), "'a' is empty"),
        (lambda: Sweep(space={"a": log_range(0, 1)}, metric="AP"), "positive numbers"),
        (lambda: Sweep(space={"a": linear_range(0, "1")}, metric="AP"), "got '1'"),
        (lambda: Sweep(space={"a": linear_range(0, 1, 2)}, metric="AP"), "a step is"),
        (lambda: Sweep(space=LR, metric="AP", sampler="grid"), "cannot go through"),
        (lambda: Sweep(space=LR, metric="AP", sampler="tpo"), "Did you mean 'tpe'"),
        (lambda: Sweep(space=LR, metric="AP", pruner="hyper"), "one of none, median"),
        (lambda: Sweep(space=LR, metric="AP", direction="max"), "'maximize'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(made, meant):
    with pytest.raises(ConfigError, match=re.escape(meant)):
        made()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("x = 1", "it defines no function get_sweep"),
        ("def get_sweep():\n    return {}", "must return a sweep.Sweep"),
        ("def get_sweep():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_sweep(:", "line 1: SyntaxError"),
        ("def get_sweep():\n    from pose_jax.sweep import Sweep\n"
         "    return Sweep(space={}, metric='AP')", "the space is empty"),
    ],
)  # fmt: skip
def test_a_sweep_file_that_cannot_be_read_is_one_line(text, meant, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        sweep.load(file)
    assert meant in str(raised.value) and str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"no such sweep file.*Did you mean 'bad'"):
        sweep.load(tmp_path / "bat.py")


def test_corners_have_each_end_and_each_choice_once():
    space = {"a": grid(1, 2, 3), "b": log_range(0.1, 1.0), "c": choice("x")}
    found = list(sweep.corners(space))
    assert found[0] == {"a": 1, "b": 0.1, "c": "x"}
    assert [(p["a"], p["b"]) for p in found] == [(1, 0.1), (2, 0.1), (3, 0.1), (1, 1.0)]


def test_sizes_count_what_is_run():
    assert TWO_BY_TWO.size() == TWO_BY_TWO.combinations() == 4
    drawn = Sweep(space={**LR, "seed": grid(0, 1, 2)}, metric="AP")
    assert drawn.size() is None and drawn.combinations() == 3
    chosen = {"a": choice(1, 2), "seed": grid(0, 1, 2)}
    assert Sweep(space=chosen, metric="AP").size() is None
    assert Sweep(space=chosen, metric="AP", sampler="grid").size() == 6


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        ({"space": {"optimizer.lrr": grid(1.0)}}, "config.optimizer.lrr: no such key. Did"
         " you mean 'lr'"),
        ({"space": {"optimzer.lr": grid(1.0)}}, "Did you mean 'optimizer'"),
        ({"space": {"train.steps": grid(6, 7.5)}}, "must be an int"),
        ({"space": {"method.encoding": grid("unbiased", "biassed")}}, "'biased'"),
        ({"space": {"method.decoder": grid("dark", "shif")}}, "'shift'"),
        ({"space": {"method.kernel_size": grid("7")}}, "'7' would be read as 7"),
        ({"space": LR, "metric": "APP"}, "Did you mean 'AP"),
        ({"space": LR, "metric": "PCK"}, "PCK@0.05@gt_boxes, PCK@0.1@gt_boxes"),
        ({"space": {"train.eval_every_steps": grid(0)}, "pruner": "median"}, ""),
    ],
)  # fmt: skip
def test_a_space_is_checked_on_the_config(made, meant, overrides):
    made = Sweep(**{"metric": "AP", **made})
    if not meant:
        overrides = [*overrides, "--config.train.eval_every_steps=0"]
        meant = "needs evaluations on the way"
    with pytest.raises(ConfigError, match=re.escape(meant)) as raised:
        sweep.check("s.py", made, DEMO, overrides)
    assert str(raised.value).startswith("s.py: ") and "\n" not in str(raised.value)


def test_a_mistake_is_one_line_and_exit_code_2_before_anything_is_made(
    overrides, tmp_path, capsys
):
    file = write(tmp_path, Sweep(space={"optimizer.lrr": grid(1.0)}, metric="AP"))
    words = ["sweep", "run", "--config", DEMO, *overrides, "--sweep", str(file)]
    assert cli.main([*words, "--study", str(tmp_path / "study")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "'lr'" in err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({}, "say by --trials how many"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"trials": -1}, "--trials must be at least 1"),
        ({"trials": 2, "workers": 0}, "--workers must be at least 1"),
        ({"trials": 2, "name": "x"}, "--name and --out go with"),
        ({"trials": 2, "study": "sqlite:///x"}, "say by --name which"),
        ({"trials": 2, "eval_only": "x"}, "give either --config or --eval-only"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, meant, start):
    with pytest.raises(ConfigError, match=re.escape(meant)):
        start(Sweep(space=LR, metric="AP"), **options)


def test_the_command_line_passes_on_what_is_said(monkeypatch):
    calls = []
    stub = types.SimpleNamespace(run=lambda *a, **k: calls.append((a, k)))
    monkeypatch.setitem(sys.modules, "pose_jax.sweep", stub)
    monkeypatch.setattr(pose_jax, "sweep", stub)
    line = "sweep run --config c.py --config.seed=1 --sweep s.py --study d --trials 8"
    assert cli.main([*line.split(), "--workers", "2"]) == 0
    (((file, study), said),) = calls
    assert (file, study) == ("s.py", "d")
    assert said["config"] == "c.py" and said["overrides"] == ["--config.seed=1"]
    assert (said["trials"], said["workers"], said["eval_only"]) == (8, 2, None)


def test_without_optuna_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'pose_jax\[sweep\]'"):
        sweep.open_study(sweep.place(str(tmp_path)), {})


# ------------------------------------------------------------- which trials, and their ends


class Never:
    """A stop that nobody asks for, or after some questions."""

    name = "SIGTERM"

    def __init__(self, after=10**9):
        self.left = after

    @property
    def requested(self):
        self.left -= 1
        return self.left < 0


def spec_of(made, overrides):
    return sweep.check("s.py", made, DEMO, overrides)


def drawn(made, overrides, out, trials, value=lambda p: p["optimizer.lr"], **options):
    """Goes on with a study whose trials cost nothing."""
    where = sweep.place(str(out))
    sweep.open_study(where, spec_of(made, overrides))

    def finish(claims, claim):
        claims.tell(claim.trial, "complete", value(claim.trial.params))

    task = sweep.Task(where, trials, DEMO, times=QUICK)
    sweep.work(task, options.get("stop", Never()), finish)
    return points(out)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_of_one_worker_is_a_function_of_its_seed(sampler, overrides, tmp_path):
    space = {**LR, "method.sigma": linear_range(1.0, 3.0), "train.steps": choice(4, 6)}
    made = Sweep(space=space, metric="AP", sampler=sampler, startup_trials=3)
    whole = drawn(made, overrides, tmp_path / "whole", 8)
    for trials in (2, 5, 8):  # Stopped and started again.
        parts = drawn(made, overrides, tmp_path / "parts", trials)
        assert parts == whole[:trials]
    other = Sweep(**{**made.__dict__, "seed": 1})
    assert drawn(other, overrides, tmp_path / "other", 8) != whole
    for key in ("optimizer.lr", "method.sigma"):
        assert len({point[key] for point in whole}) == 8
    assert all(1e-3 <= point["optimizer.lr"] <= 0.1 for point in whole)


def test_what_is_drawn_for_one_key_says_nothing_of_another(overrides, tmp_path):
    space = {**LR, "optimizer.weight_decay": log_range(1e-3, 0.1)}
    made = Sweep(space=space, metric="AP", sampler="random")
    found = drawn(made, overrides, tmp_path, 40)
    logs = np.log([[point[key] for key in space] for point in found])
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.4


def test_tpe_learns_from_what_was_there(overrides, tmp_path):
    """The second half of the trials lies nearer to the optimum than the first."""
    made = Sweep(space={"optimizer.lr": log_range(1e-4, 1.0)}, metric="AP")
    found = drawn(
        made, overrides, tmp_path, 30, lambda p: -abs(np.log10(p["optimizer.lr"]) + 2)
    )
    off = [abs(np.log10(point["optimizer.lr"]) + 2) for point in found]
    assert np.mean(off[15:]) < np.mean(off[:15])


def test_each_point_is_run_with_every_seed(overrides, tmp_path):
    made = Sweep(space={**LR, "seed": grid(0, 1, 2)}, metric="AP", startup_trials=1)
    found = drawn(made, overrides, tmp_path, 8)
    assert [point["seed"] for point in found] == [*"012012", "0", "1"]
    rates = [point["optimizer.lr"] for point in found]
    assert rates[0] == rates[1] == rates[2] and rates[3] == rates[4] == rates[5]
    assert len(set(rates)) == 3


def test_a_grid_is_gone_through_in_order_and_can_be_gone_on_with(overrides, tmp_path):
    for trials in (1, 3, 4):
        found = drawn(TWO_BY_TWO, overrides, tmp_path, trials, lambda p: 1.0)
        whole = [("0.1", "0"), ("0.1", "1"), ("0.2", "0"), ("0.2", "1")]
        assert [tuple(point.values()) for point in found] == whole[:trials]


def test_a_grid_of_trainings_is_trained_and_told_of(start, tmp_path, capsys):
    counts = start(TWO_BY_TWO, trials=100)  # There are four.
    assert counts == {"complete": 4, "pruned": 0, "fail": 0, "running": 0}
    out = capsys.readouterr().out
    assert "0 of 4 trials are done" in out
    lines = [line for line in out.splitlines() if line.startswith("trial ")]
    assert len(lines) == 4
    assert "(4/4)  AP@gt_boxes 0.21  optimizer.lr=0.2 seed=1" in lines[-1]
    for number in range(4):
        run = tmp_path / "study" / "trials" / f"{number:04d}"
        assert steps(run) == [1, 2, 3, 4, 5, 6] and starts(run) == 1
    values = [trial.value for trial in study_of(tmp_path / "study").get_trials()]
    assert values == pytest.approx([0.1, 0.11, 0.2, 0.21])
    # Started again, there is nothing to do.
    start(TWO_BY_TWO)
    assert "4 of 4 trials are done" in capsys.readouterr().out
    assert starts(tmp_path / "study" / "trials" / "0003") == 1


def test_a_failed_trial_says_why_and_the_others_go_on(start, tmp_path, capsys):
    space = {"optimizer.lr": grid(0.1, 2.0, 0.95, 0.2)}
    counts = start(Sweep(space=space, metric="AP", sampler="grid"))
    assert counts == {"complete": 2, "pruned": 0, "fail": 2, "running": 0}
    reasons = [t.user_attrs.get("reason") for t in study_of(tmp_path / "study").trials]
    assert reasons == [
        None, "exit code 1: the loss of step 3 is nan", "killed by SIGKILL 3 times", None,
    ]  # fmt: skip
    assert "failed: exit code 1: the loss of step 3" in capsys.readouterr().out
    assert starts(tmp_path / "study" / "trials" / "0001") == 1


def test_a_study_of_failures_is_an_error(start):
    space = {"optimizer.lr": grid(2.0, 3.0)}
    with pytest.raises(InputError, match=r"no trial was completed; trial 1: exit code"):
        start(Sweep(space=space, metric="AP", sampler="grid"))


def test_what_is_behind_the_median_is_stopped(start, tmp_path, capsys):
    space = {"optimizer.lr": grid(0.3, 0.4, 0.5, 0.01)}
    made = Sweep(
        space=space, metric="AP", sampler="grid", pruner="median", startup_trials=3,
        warmup_steps=2,
    )  # fmt: skip
    counts = start(made, pace="gated_low")
    assert counts == {"complete": 3, "pruned": 1, "fail": 0, "running": 0}
    pruned = study_of(tmp_path / "study").get_trials()[3]
    run = tmp_path / "study" / "trials" / "0003"
    # From the first evaluation that counts, give or take a poll.
    assert 2 <= pruned.last_step <= len(steps(run)) <= 3
    assert not (run / "model").exists() and starts(run) == 1
    assert f"pruned at batch {pruned.last_step}" in capsys.readouterr().out


def test_hyperband_gives_few_trials_all(overrides, tmp_path):
    space = {"optimizer.lr": grid(*(i / 20 for i in range(12, 0, -1)))}
    made = Sweep(space=space, metric="AP", sampler="grid", pruner="hyperband")
    where = sweep.place(str(tmp_path))
    study, spec = sweep.open_study(where, spec_of(made, overrides))
    assert spec["resource"] == [1, STEPS]

    def finish(claims, claim):
        for step in range(1, STEPS + 1):
            claim.trial.report(float(claim.trial.params["optimizer.lr"]) * step, step)
            if claim.trial.should_prune():
                return claims.tell(claim.trial, "pruned")
        claims.tell(claim.trial, "complete", 1.0)

    sweep.work(sweep.Task(where, 12, DEMO, times=QUICK), Never(), finish)
    found = [trial.state.name for trial in study.get_trials()]
    assert {"COMPLETE", "PRUNED"} == set(found) and found.count("COMPLETE") < 6


def test_another_sweep_or_config_in_the_same_study_is_refused(
    overrides, tmp_path, folder
):
    where = sweep.place(str(tmp_path))
    sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    other = Sweep(**{**TWO_BY_TWO.__dict__, "seed": 3})
    with pytest.raises(ConfigError, match=r"another sweep \(it differs in seed\)"):
        sweep.open_study(where, spec_of(other, overrides))
    changed = spec_of(TWO_BY_TWO, [*overrides, "--config.method.sigma=2.5"])
    with pytest.raises(ConfigError, match="differs in overrides"):
        sweep.open_study(where, changed)
    changed["overrides"] = overrides  # As if the file had been edited.
    with pytest.raises(ConfigError, match=r"differs in config\.method\.sigma"):
        sweep.open_study(where, changed)


# --------------------------------------------------------------------- killed and resumed


def workers_of(where, count, trials, folder, pace):
    """Worker processes, as `run` starts them; killed at the end of a test that fails."""
    task = sweep.Task(
        where, trials, DEMO, times=QUICK,
        command=(sys.executable, str(folder / f"{pace}.py")),
    )  # fmt: skip
    words = [sys.executable, "-m", "pose_jax.sweep", task.to_json()]
    return [subprocess.Popen(words, cwd=ROOT) for _ in range(count)]


def test_two_workers_killed_lose_nothing_and_nothing_runs_twice(
    start, overrides, folder, tmp_path
):
    where = sweep.place(str(tmp_path / "study"))
    sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    runs_of = [tmp_path / "study" / "trials" / f"{i:04d}" for i in range(4)]
    processes = workers_of(where, 2, 4, folder, "gated")
    try:  # Both are in the middle of a trial.
        wait_for_third(*runs_of[:2])
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    states = [t.state.name for t in study_of(where.out).get_trials()]
    assert states == ["RUNNING", "RUNNING"]
    open_gate(where.out)
    counts = start(TWO_BY_TWO, pace="gated", workers=2)
    assert counts == {"complete": 4, "pruned": 0, "fail": 0, "running": 0}
    assert [steps(run) for run in runs_of] == [list(range(1, STEPS + 1))] * 4
    assert [starts(run) for run in runs_of] == [2, 2, 1, 1]
    assert len(study_of(where.out).get_trials()) == 4


def test_a_worker_that_dies_leaves_its_trial_to_the_others(start, tmp_path, capsys):
    """And the study says so."""
    study = tmp_path / "study"

    def kill_the_first():
        wait_for_third(study / "trials" / "0000", study / "trials" / "0001")
        (trial,) = study_of(study).get_trials()[:1]
        os.kill(trial.user_attrs["worker"]["pid"], signal.SIGKILL)
        open_gate(study)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    counts = start(TWO_BY_TWO, pace="gated", workers=2)
    killer.join()
    assert counts["complete"] == 4
    assert re.search(
        r"worker \d died \(SIGKILL; .*worker_\d\.log\)", capsys.readouterr().out
    )
    assert steps(study / "trials" / "0000") == list(range(1, STEPS + 1))


def test_all_workers_dead_is_an_error_and_the_study_goes_on(start, tmp_path):
    study = tmp_path / "study"

    def kill():
        wait_for_third(study / "trials" / "0000")
        (trial,) = study_of(study).get_trials()[:1]
        os.kill(trial.user_attrs["worker"]["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match=r"1 trials are unfinished, worker 0 died"):
        start(TWO_BY_TWO, pace="gated")
    killer.join()
    assert start(TWO_BY_TWO)["complete"] == 4


def test_asked_to_stop_a_worker_stops_its_training_and_leaves_the_trial(
    overrides, folder, tmp_path
):
    where = sweep.place(str(tmp_path))
    study, _ = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    command = (sys.executable, str(folder / "gated.py"))
    task = sweep.Task(where, 4, DEMO, command=command, times=QUICK)
    run = tmp_path / "trials" / "0000"

    class Stop:
        @property
        def requested(self):
            return (run / "metrics.jsonl").exists() and len(steps(run)) == 3

    sweep.work(task, Stop())
    (trial,) = study.get_trials()
    assert trial.state.name == "RUNNING" and len(steps(run)) < STEPS
    # The lock is free: the training has ended too.
    with sweep._lock(run / "lock") as held:
        assert held is not None


def test_the_parent_hands_a_signal_on_and_says_how_to_go_on(start, tmp_path):
    study = tmp_path / "study"

    def ask():
        wait_for_third(study / "trials" / "0000")
        os.kill(os.getpid(), signal.SIGTERM)

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(Stopped, match=r"1 trials are unfinished.*the same command"):
        start(TWO_BY_TWO, pace="gated")
    asker.join()
    counts = start(TWO_BY_TWO)
    assert counts["complete"] == 4
    assert steps(study / "trials" / "0000") == list(range(1, STEPS + 1))


def test_a_trial_trained_to_its_end_is_only_told(start, overrides, tmp_path):
    """Its worker died between the training's end and telling."""
    where = sweep.place(str(tmp_path / "study"))
    study, spec = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    claim = sweep.Claims(study, spec, where, 4, QUICK).next()
    claim.file.close()
    model = where.out / "trials" / "0000" / "model"
    model.mkdir()
    (model / "manifest.json").write_text('{"scores": {"AP@gt_boxes": 0.5}}')
    assert start(TWO_BY_TWO)["complete"] == 4
    assert study.get_trials()[0].value == 0.5
    assert not (model.parent / "starts").exists()


def test_a_trial_that_was_to_be_pruned_is_not_trained_on(start, overrides, tmp_path):
    where = sweep.place(str(tmp_path / "study"))
    study, spec = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    claim = sweep.Claims(study, spec, where, 4, QUICK).next()
    claim.trial.report(0.1, 1)
    claim.trial.set_user_attr("pruned", True)
    claim.file.close()
    counts = start(TWO_BY_TWO)
    assert (counts["complete"], counts["pruned"]) == (3, 1)
    assert not (where.out / "trials" / "0000" / "starts").exists()


def test_a_trial_without_values_gets_them_from_whoever_takes_it(overrides, tmp_path):
    """Its worker died as soon as it had asked."""
    made = Sweep(space={**LR, "seed": grid(0, 1)}, metric="AP")
    where = sweep.place(str(tmp_path / "dead"))
    study, spec = sweep.open_study(where, spec_of(made, overrides))
    claims = sweep.Claims(study, spec, where, 4, QUICK)
    claims._sign(study.ask())
    whole = drawn(made, overrides, tmp_path / "whole", 4)
    assert drawn(made, overrides, where.out, 4) == whole
    # The second of a point does not wait for ever for the first.
    where = sweep.place(str(tmp_path / "second"))
    study, spec = sweep.open_study(where, spec_of(made, overrides))
    claims = sweep.Claims(study, spec, where, 4, QUICK)
    claims._sign(study.ask())
    with claims._hold(0):
        claim = sweep.Claims(study, spec, where, 4, QUICK).next()
        claim.file.close()
        assert claim.trial.number == 1 and claim.trial.params["seed"] == "1"
        assert claim.trial.params["optimizer.lr"] == whole[0]["optimizer.lr"]


def test_what_was_asked_beyond_the_number_waits_until_more_are_wanted(
    overrides, tmp_path
):
    where = sweep.place(str(tmp_path))
    study, _ = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    drawn(TWO_BY_TWO, overrides, tmp_path, 2, lambda p: 1.0)
    study.ask()  # Another machine's, at the same moment.
    drawn(TWO_BY_TWO, overrides, tmp_path, 2, lambda p: 1.0)
    assert [t.state.name for t in study.get_trials()][2:] == ["RUNNING"]
    found = drawn(TWO_BY_TWO, overrides, tmp_path, 4, lambda p: 1.0)
    assert [tuple(point.values()) for point in found][2:] == [
        ("0.2", "0"),
        ("0.2", "1"),
    ]
    assert all(t.state.name == "COMPLETE" for t in study.get_trials())


# -------------------------------------------------------------------------- other machines


@pytest.fixture
def machines(overrides, tmp_path, monkeypatch):
    """machine("a") makes the Claims of a worker there; no folder is shared."""
    where = sweep.place(f"sqlite:///{tmp_path / 'study.db'}", "s", tmp_path / "out")
    sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))

    def machine(name):
        monkeypatch.setattr(sweep, "_machine", lambda: name)
        mine = sweep.Place(where.storage, where.name, tmp_path / name)
        study, spec = sweep.open_study(mine)
        return sweep.Claims(study, spec, mine, 1, QUICK)

    return machine


def test_a_trial_of_another_machine_is_taken_when_its_beat_stands_still(machines):
    a, b = machines("a"), machines("b")
    first = a.next()
    assert first.trial.number == 0 and a.beat(first.trial)
    begun = time.monotonic()
    while (taken := b.next()) == "wait":
        time.sleep(0.05)
    assert time.monotonic() - begun >= QUICK.lost
    assert taken.trial.number == 0 and taken.trial.params == first.trial.params
    # The one that was lost comes back, and lets go.
    assert not a.beat(first.trial) and b.beat(taken.trial)
    with pytest.raises(sweep._Left):
        a.tell(first.trial, "complete", 1.0)
    b.tell(taken.trial, "complete", 2.0)
    assert b.study.get_trials()[0].value == 2.0
    first.file.close()
    taken.file.close()


def test_a_trial_of_another_machine_that_beats_is_its_own(machines):
    a, b = machines("a"), machines("b")
    first = a.next()
    begun = time.monotonic()
    found = "wait"
    while found == "wait":
        a.beat(first.trial)
        found = b.next()
    assert found == "done" and time.monotonic() - begun < QUICK.lost
    assert a.mine(first.trial)
    first.file.close()


def test_of_two_machines_that_take_a_lost_trial_one_has_it(machines):
    a, b, c = machines("a"), machines("b"), machines("c")
    first = a.next()
    first.file.close()
    taken = []

    def take(claims):
        while (found := claims.next()) == "wait":
            time.sleep(0.01)
        if found != "done":
            taken.append(claims)

    threads = [threading.Thread(target=take, args=(claims,)) for claims in (b, c)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 1 and taken[0].mine(first.trial)


def test_a_training_of_a_lost_owner_stops_when_it_was_succeeded(
    overrides, folder, tmp_path
):
    where = sweep.place(str(tmp_path))
    study, _ = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    command = (sys.executable, str(folder / "gated.py"))
    task = sweep.Task(where, 1, DEMO, command=command, times=QUICK)
    run = tmp_path / "trials" / "0000"

    def succeed():
        wait_for_third(run)
        (frozen,) = study.get_trials()
        trial = sweep._optuna().trial.Trial(study, frozen._trial_id)
        trial.set_user_attr("worker", {"token": "other", "place": "other"})

    succession = threading.Thread(target=succeed)
    succession.start()
    stop = types.SimpleNamespace()

    class AfterThat:
        @property
        def requested(self):
            return not succession.is_alive() and hasattr(stop, "left")

    def once(claims, claim):
        try:
            sweep._Training(claims, claim, task, Never()).finish()
        finally:
            stop.left = True

    sweep.work(task, AfterThat(), once)
    succession.join()
    assert study.get_trials()[0].state.name == "RUNNING" and len(steps(run)) < STEPS


def test_several_processes_work_on_one_storage(overrides, folder, tmp_path):
    """As the tasks of a Slurm array, each of which is one `sweep run`."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    where = sweep.place(url, "s", tmp_path / "out")
    space = {"optimizer.lr": grid(*(i / 20 for i in range(1, 7)))}
    made = Sweep(space=space, metric="AP", sampler="grid")
    study, _ = sweep.open_study(where, spec_of(made, overrides))
    where.out.mkdir()
    runs_of = [where.out / "trials" / f"{number:04d}" for number in range(6)]
    processes = workers_of(where, 3, 6, folder, "gated")
    try:
        wait_for_third(*runs_of[:3])
        open_gate(where.out)
        assert [process.wait(120) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
    trials = study.get_trials()
    assert [t.value for t in trials] == pytest.approx([i / 20 for i in range(1, 7)])
    assert len({t.user_attrs["worker"]["pid"] for t in trials}) == 3
    for run in runs_of:
        assert starts(run) == 1 and steps(run) == list(range(1, STEPS + 1))


def test_a_storage_behind_a_grpc_proxy_is_one_too(overrides, tmp_path):
    optuna = sweep._optuna()
    from optuna.storages._grpc.server import make_server

    server = make_server(optuna.storages.InMemoryStorage(), "localhost", 0)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        where = sweep.place(f"grpc://localhost:{port}", "s", tmp_path)
        study, _ = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))

        def finish(claims, claim):
            claims.tell(claim.trial, "complete", 1.0)

        sweep.work(sweep.Task(where, 4, DEMO, times=QUICK), Never(), finish)
        assert [t.state.name for t in study.get_trials()] == ["COMPLETE"] * 4
    finally:
        server.stop(None)


def test_a_storage_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no study here"):
        sweep_report.report(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(InputError, match="no study 's' here"):
        sweep_report.report(url, name="s", out=tmp_path)


def test_a_line_that_was_torn_does_not_end_the_journal(overrides, tmp_path):
    drawn(TWO_BY_TWO, overrides, tmp_path, 2, lambda p: 1.0)
    with open(tmp_path / "journal.log", "a") as journal:
        journal.write('{"op_code": 5, "worker')
    drawn(TWO_BY_TWO, overrides, tmp_path, 3, lambda p: 1.0)
    assert len(study_of(tmp_path).get_trials()) == 3
    assert '"worker{' not in (tmp_path / "journal.log").read_text()


# ------------------------------------------------------------------------- cores and GPUs


def test_cores_are_parted_and_each_worker_has_some(monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity of processes")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 5, 6, 9})
    assert sweep._shares(1) == [((), "")]
    assert sweep._shares(2) == [((3, 4), ""), ((5, 6, 9), "")]
    shares = [cores for cores, _ in sweep._shares(7)]
    assert shares == [(3,), (4,), (5,), (6,), (9,), (3,), (4,)]


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert [device for _, device in sweep._shares(2)] == ["2", "5"]
    with pytest.raises(ConfigError, match="4 workers and 3 GPUs"):
        sweep._shares(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert {device for _, device in sweep._shares(4)} == {""}


def test_a_training_sees_its_cores_and_its_gpu(overrides, tmp_path):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity of processes")
    script = tmp_path / "tell.py"
    script.write_text(
        'import os, sys\nsys.exit(f"saw {sorted(os.sched_getaffinity(0))} '
        "{os.environ['CUDA_VISIBLE_DEVICES']}\")"
    )
    where = sweep.place(str(tmp_path))
    study, _ = sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    core = min(os.sched_getaffinity(0))
    task = sweep.Task(
        where, 1, DEMO, cores=(core,), device="5",
        command=(sys.executable, str(script)), times=QUICK,
    )  # fmt: skip
    before = os.sched_getaffinity(0)
    try:
        sweep.work(task, Never())
    finally:
        os.sched_setaffinity(0, before)
    assert study.get_trials()[0].user_attrs["reason"] == f"exit code 1: saw [{core}] 5"


# ------------------------------------------------------------------------------ evaluation


@pytest.fixture(scope="module")
def network(folder, overrides, tmp_path_factory):
    """A run whose model has numbers for weights."""
    run = tmp_path_factory.mktemp("network")
    words = ["--config.method.input_size=64,64", "--config.input.reader=numpy"]
    loaded = config.load(DEMO, [*overrides, *words])
    with loaded.unlocked():
        loaded.method.model.options = {"width": 8, "blocks": (0, 0, 0)}
    setup = experiment.setup(loaded)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(setup.method.phases[0].init, jax.random.key(0))
    weights = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes
    )
    runs.write_model(
        run, config=loaded, method=setup.method, train_table=setup.train_table,
        variables={"pose": weights}, scores={},
    )  # fmt: skip
    return run


def test_decoders_are_read_out_of_one_network(network, tmp_path, capsys):
    space = {
        "method.decoder": grid("argmax", "shift"),
        "evaluation.nms_threshold": grid(0.5, 0.9),
    }
    made = Sweep(
        space=space, metric="pixel_error", direction="minimize", sampler="grid"
    )
    study = str(tmp_path / "study")
    file = str(write(tmp_path, made))
    counts = sweep.run(file, study, eval_only=str(network), times=QUICK)
    assert counts["complete"] == 4
    trials = study_of(study).get_trials()
    assert trials[0].value == trials[1].value != trials[2].value
    # The same number as `eval` prints.
    assert cli.main(["eval", "--run", str(network), "--decoder", "shift"]) == 0
    metrics = network / "eval" / "gt_boxes" / "shift" / "metrics.json"
    name = "pixel_error@gt_boxes"
    assert trials[2].value == pytest.approx(json.loads(metrics.read_text())[name])
    best = min(range(4), key=lambda i: trials[i].value)
    path = sweep_report.report(study)
    decoder = trials[best].params["method.decoder"]
    assert f"eval --run {network} --decoder {decoder}" in Page(path).text
    assert not (tmp_path / "study" / "trials" / "0000" / "starts").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("space", "meant"),
    [
        ({"method.kernel": grid(3)}, "Did you mean 'method.kernel_size'"),
        ({"optimizer.lr": grid(0.1)}, "has to be trained for it"),
        ({"method.decoder": grid("shif")}, "Did you mean 'shift'"),
        ({"evaluation.nms_threshold": grid(1.5)}, "an OKS in (0, 1]"),
    ],
)
def test_only_what_needs_no_training_is_read_out(space, meant, network, tmp_path):
    file = str(write(tmp_path, Sweep(space=space, metric="AP", sampler="grid")))
    with pytest.raises(ConfigError, match=re.escape(meant)):
        sweep.run(file, str(tmp_path / "study"), eval_only=str(network))
    assert not (tmp_path / "study").exists()


def test_every_key_that_is_read_out_is_one_of_its_method():
    for name, keys in sweep.EVALUATED.items():
        fields = methods.METHODS[name].Config.__dataclass_fields__
        assert set(keys) <= fields.keys()


# ----------------------------------------------------------------------------- leaderboard


class Page(HTMLParser):
    """Text, elements and sections of a page; refuses what is not balanced."""

    def __init__(self, path):
        super().__init__()
        self.stack, self.tags, self.sections, self.text = [], [], {}, ""
        self.feed(Path(path).read_text(encoding="utf-8"))
        self.close()
        assert self.stack == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "wbr"):
            self.stack.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag == "wbr" else " "

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop()[0] == tag, self.getpos()
        self.text += " "

    def handle_data(self, data):
        if "style" not in [tag for tag, _ in self.stack]:
            self.text += data
            for tag, name in self.stack:
                if tag == "section":
                    self.sections[name] = self.sections.get(name, "") + data + " "


SECTIONS = {
    "winner", "leaderboard", "curves", "importances", "coordinates", "trials", "study",
}  # fmt: skip
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def finished(overrides, tmp_path):
    """A study of six points and two seeds: one pruned, one failed, one unfinished."""
    space = {
        "optimizer.lr": grid(0.1, 0.2, 0.4),
        "method.encoding": grid("unbiased", "biased"),
        "seed": grid(0, 1),
    }
    made = Sweep(space=space, metric="AP", sampler="grid")
    where = sweep.place(str(tmp_path / "study"))
    study, spec = sweep.open_study(where, spec_of(made, overrides))
    claims = sweep.Claims(study, spec, where, 12, QUICK)
    for number in range(12):
        claim = claims.next()
        lr, seed = (float(claim.trial.params[k]) for k in ("optimizer.lr", "seed"))
        value = (
            lr + seed / 100 + (claim.trial.params["method.encoding"] == "biased") / 20
        )
        for step in (2, 4):
            claim.trial.report(value * step / 6, step)
        if number == 8:
            claims.tell(claim.trial, "pruned")
        elif number == 5:
            claims.tell(claim.trial, "fail", reason=EVIL)
        elif number != 11:
            claims.tell(claim.trial, "complete", value)
        if number != 11:
            claim.file.close()
    yield where.out
    claim.file.close()


def test_rows_are_means_over_seeds_with_their_interval(finished):
    study = study_of(finished)
    spec = study.user_attrs["sweep"]
    rows = sweep_report.leaderboard(study.get_trials(), spec)
    # Whole rows first: 0.4's have lost a seed each, to pruning and to what is not done.
    found = [(r.point["optimizer.lr"], r.point["method.encoding"]) for r in rows]
    assert found[:3] == [("0.2", "biased"), ("0.1", "biased"), ("0.1", "unbiased")]
    assert set(found[3:]) == {
        ("0.4", "biased"),
        ("0.4", "unbiased"),
        ("0.2", "unbiased"),
    }
    assert rows[0].mean == pytest.approx(0.255)
    # Student's t of one degree of freedom at 97.5% is 12.706.
    half = 12.706 * (0.01 / np.sqrt(2)) / np.sqrt(2)
    assert rows[0].half_width == pytest.approx(half, rel=1e-3)
    assert all(np.isnan(row.half_width) for row in rows[3:])
    down = sweep_report.leaderboard(
        study.get_trials(), {**spec, "direction": "minimize"}
    )
    assert down[0].point["optimizer.lr"] == "0.1"


def test_the_page_has_all_of_it_and_needs_nothing_else(finished, capsys):
    path = sweep_report.report(str(finished))
    page = Page(path)
    assert path == finished / "report.html"
    assert {attrs["id"] for tag, attrs in page.tags if tag == "section"} == SECTIONS
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset"):
            assert attrs.get(name, "#").startswith("#")
    assert [tag for tag, _ in page.tags].count("svg") == 3
    assert EVIL in page.sections["trials"]
    assert "1 pruned" in page.sections["leaderboard"]
    assert "1 failed" in page.sections["leaderboard"]
    assert "1 unfinished" in page.sections["leaderboard"]
    command = page.sections["winner"]
    assert "pose-jax train --config" in command
    assert "--config.optimizer.lr=0.2 --config.method.encoding=biased" in command
    assert "--config.seed" not in command
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["rank", "AP@gt_boxes", "95%", "seeds", "lr", "encoding"]
    assert out[1].split() == ["1", "0.255", "±0.064", "2", "0.2", "biased"]


def test_importances_find_what_matters(finished, overrides, tmp_path):
    space = {
        "optimizer.lr": log_range(1e-3, 0.1),
        "method.sigma": linear_range(1.0, 3.0),
    }
    made = Sweep(space=space, metric="AP", sampler="random")
    drawn(made, overrides, tmp_path / "other", 40)  # Its value is the rate.
    study = study_of(tmp_path / "other")
    found = sweep_report.importances(
        study, study.get_trials(), study.user_attrs["sweep"]
    )
    assert sum(found.values()) == pytest.approx(1)
    assert found["optimizer.lr"] > 0.7


def test_a_page_of_a_study_that_has_just_begun_says_so(overrides, tmp_path, capsys):
    where = sweep.place(str(tmp_path))
    sweep.open_study(where, spec_of(TWO_BY_TWO, overrides))
    page = Page(sweep_report.report(str(tmp_path)))
    assert "No trial is complete yet" in page.text
    assert "no trial is complete yet" in capsys.readouterr().out
    drawn(TWO_BY_TWO, overrides, tmp_path, 1, lambda p: 0.5)
    page = Page(sweep_report.report(str(tmp_path)))
    assert "--config.optimizer.lr=0.1" in page.sections["winner"]


@pytest.mark.parametrize(
    ("values", "at", "places"),
    [
        (["0.1", "0.4", "0.2"], {"texts": ["0.1", "0.2", "0.4"]}, [0, 1, 1 / 3]),
        (["b", "a"], {"texts": ["a", "b", "c"]}, [0.5, 0]),
        (["7", "None"], {"texts": ["None", "7"]}, [1, 0]),
        ([1e-3, 0.01, 0.1], {"low": 1e-3, "high": 0.1, "log": True}, [0, 0.5, 1]),
        ([2, 3], {"low": 1, "high": 5, "log": False}, [0.25, 0.5]),
        (["1", "10"], {"texts": ["1", "10", "100"]}, [0, 0.5]),
    ],
)
def test_values_stand_on_their_axes_in_proportion(values, at, places):
    found, marks = sweep_report.heights(values, at)
    assert found == pytest.approx(places)
    assert min(marks) == 0 and max(marks) == pytest.approx(1)


# --------------------------------------------------------------------------------- shipped


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_each_shipped_sweep_can_be_applied_to_its_config(file, folder):
    """To the config that its docstring names, all ends and choices, metric included."""
    text = file.read_text()
    named = re.findall(r"--config (\S+\.py)", text)
    assert named and f"configs/sweeps/{file.name}" in text and "sweep report" in text
    roots = [f"--config.data.{use}.root={folder / 'data'}" for use in ("train", "eval")]
    made = sweep.load(file)
    for name in named:
        spec = sweep.check(str(file), made, f"{ROOT / name}:smoke", roots)
        assert spec["metric"].startswith(made.metric)
    if "--eval-only" in text:
        name = spec["base"]["method"]["name"]
        known = {f"method.{key}" for key in sweep.EVALUATED[name]}
        assert set(made.space) <= known | set(sweep._EVALUATION)


@pytest.mark.slow
def test_a_real_study_from_end_to_end(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "data" / "smoke").symlink_to(folder / "data")
    space = {"optimizer.lr": log_range(3e-3, 0.1), "seed": grid(0, 1)}
    file = write(tmp_path, Sweep(space=space, metric="PCK@0.2"))
    study = str(tmp_path / "study")
    words = ["sweep", "run", "--config", f"{DEMO}:smoke", "--sweep", str(file)]
    words += ["--study", study, "--trials", "2", "--workers", "2"]
    assert cli.main([*words, "--config.input.reader=numpy"]) == 0
    assert cli.main(["sweep", "report", "--study", study]) == 0
    assert (tmp_path / "study" / "trials" / "0001" / "model").exists()
    trials = study_of(study).get_trials()
    assert all(sorted(t.intermediate_values) == [1, 2] for t in trials)
    capsys.readouterr()
