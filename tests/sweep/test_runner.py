"""A study from the command line to its counts; cores and GPUs of its workers."""

import os
import re
import signal
import sys
import threading
import types

import pytest

import pose_jax.sweep
from pose_jax import cli
from pose_jax.errors import ConfigError, InputError, Stopped
from pose_jax.sweep import Sweep, grid, log_range, runner
from pose_jax.sweep import study as study_lib
from tests.sweep.studies import (
    DEMO,
    LR,
    STEPS,
    TWO_BY_TWO,
    open_gate,
    starts,
    steps,
    study_of,
    trained,
    wait_for_third,
    write,
)


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
        ({}, "--trials is required"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"trials": -1}, "--trials must be at least 1"),
        ({"trials": 2, "workers": 0}, "--workers must be at least 1"),
        ({"trials": 2, "name": "x"}, "--name and --out are only used with"),
        ({"trials": 2, "study": "sqlite:///x"}, "--name is required"),
        ({"trials": 2, "eval_only": "x"}, "give either --config or --eval-only"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, meant, start):
    with pytest.raises(ConfigError, match=re.escape(meant)):
        start(Sweep(space=LR, metric="AP"), **options)


def test_the_command_line_passes_on_what_is_said(monkeypatch):
    calls = []
    stub = types.SimpleNamespace(run=lambda *a, **k: calls.append((a, k)))
    monkeypatch.setitem(sys.modules, "pose_jax.sweep.runner", stub)
    monkeypatch.setattr(pose_jax.sweep, "runner", stub)
    line = "sweep run --config c.py --config.seed=1 --sweep s.py --study d --trials 8"
    assert cli.main([*line.split(), "--workers", "2"]) == 0
    (((file, study), said),) = calls
    assert (file, study) == ("s.py", "d")
    assert said["config"] == "c.py" and said["overrides"] == ["--config.seed=1"]
    assert (said["trials"], said["workers"], said["eval_only"]) == (8, 2, None)


def test_a_grid_of_trainings_is_trained_and_told_of(start, tmp_path, capsys):
    counts = start(TWO_BY_TWO, trials=100, here=True)  # There are four.
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


def test_a_study_of_failures_is_an_error_and_says_why(start, capsys):
    space = {"optimizer.lr": grid(2.0, 3.0)}
    with pytest.raises(
        InputError, match=r"no trial was completed \(trial 1: exit code"
    ):
        start(Sweep(space=space, metric="AP", sampler="grid"), here=True)
    assert "failed: exit code 1: the loss of step 3 is nan" in capsys.readouterr().out


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
    runs_of = [study / "trials" / f"{i:04d}" for i in range(4)]
    assert [steps(run) for run in runs_of] == [list(range(1, STEPS + 1))] * 4
    # The first's training may have come to its end before it heard of its worker's.
    assert [starts(run) for run in runs_of[1:]] == [1, 1, 1]


def test_all_workers_dead_is_an_error_and_the_study_goes_on(start, folder, tmp_path):
    study = tmp_path / "study"

    def kill():
        wait_for_third(study / "trials" / "0000")
        (trial,) = study_of(study).get_trials()[:1]
        os.kill(trial.user_attrs["worker"]["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match=r"1 trials are unfinished: worker 0 died"):
        start(TWO_BY_TWO, pace="gated")
    killer.join()
    trained(study_lib.place(str(study)), folder, 4)
    states = [trial.state.name for trial in study_of(study).get_trials()]
    assert states == ["COMPLETE"] * 4


def test_the_parent_hands_a_signal_on_and_says_how_to_go_on(start, tmp_path, capsys):
    study = tmp_path / "study"

    def ask():
        wait_for_third(study / "trials" / "0000")
        os.kill(os.getpid(), signal.SIGTERM)

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(Stopped, match=r"1 trials are unfinished.*the same command"):
        start(TWO_BY_TWO, pace="gated")
    asker.join()
    counts = start(TWO_BY_TWO, here=True)
    assert counts["complete"] == 4
    assert steps(study / "trials" / "0000") == list(range(1, STEPS + 1))
    # Started once more, there is nothing to do.
    capsys.readouterr()
    assert start(TWO_BY_TWO, here=True) == counts
    assert "4 of 4 trials are done" in capsys.readouterr().out
    assert [starts(study / "trials" / f"{i:04d}") for i in range(4)] == [2, 1, 1, 1]


def test_cores_are_parted_and_each_worker_has_some(monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity of processes")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 5, 6, 9})
    assert runner._shares(1) == [((), "")]
    assert runner._shares(2) == [((3, 4), ""), ((5, 6, 9), "")]
    shares = [cores for cores, _ in runner._shares(7)]
    assert shares == [(3,), (4,), (5,), (6,), (9,), (3,), (4,)]


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert [device for _, device in runner._shares(2)] == ["2", "5"]
    with pytest.raises(ConfigError, match="4 workers need 4 GPUs, but there are 3"):
        runner._shares(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert {device for _, device in runner._shares(4)} == {""}


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
