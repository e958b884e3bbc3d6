"""Workers: killed, asked to stop or succeeded, they lose nothing and do nothing twice."""

import os
import signal
import sys
import threading
import types

import pytest

from pose_jax.sweep import Sweep, grid, runner, worker
from pose_jax.sweep import study as study_lib
from tests.sweep.studies import (
    DEMO,
    QUICK,
    STEPS,
    TWO_BY_TWO,
    Never,
    open_gate,
    spec_of,
    starts,
    steps,
    study_of,
    trained,
    wait_for_third,
    workers_of,
)


def test_a_failed_trial_says_why_and_the_others_go_on(overrides, folder, tmp_path):
    space = {"optimizer.lr": grid(0.1, 2.0, 0.95, 0.2)}
    made = Sweep(space=space, metric="AP", sampler="grid")
    where = study_lib.place(str(tmp_path))
    study, _ = study_lib.open_study(where, spec_of(made, overrides))
    trained(where, folder, 4)
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    reasons = [trial.user_attrs.get("reason") for trial in study.get_trials()]
    assert reasons == [
        None, "exit code 1: the loss of step 3 is nan", "killed by SIGKILL 3 times", None,
    ]  # fmt: skip
    assert [starts(tmp_path / "trials" / f"{i:04d}") for i in range(4)] == [1, 1, 3, 1]


def test_what_is_behind_the_median_is_stopped(overrides, folder, tmp_path, capsys):
    space = {"optimizer.lr": grid(0.3, 0.4, 0.5, 0.01)}
    made = Sweep(
        space=space, metric="AP", sampler="grid", pruner="median", startup_trials=3,
        warmup_steps=2,
    )  # fmt: skip
    where = study_lib.place(str(tmp_path))
    study, _ = study_lib.open_study(where, spec_of(made, overrides))
    with runner._Watch(study, where, 4) as watch:
        trained(where, folder, 4, pace="gated_low")
        counts = watch.look()
    assert counts == {"complete": 3, "pruned": 1, "fail": 0, "running": 0}
    pruned = study.get_trials()[3]
    run = tmp_path / "trials" / "0003"
    # From the first evaluation that counts, give or take a poll.
    assert 2 <= pruned.last_step <= len(steps(run)) <= 3
    assert not (run / "model").exists() and starts(run) == 1
    assert f"pruned at batch {pruned.last_step}" in capsys.readouterr().out


def test_two_workers_killed_lose_nothing_and_nothing_runs_twice(
    overrides, folder, tmp_path
):
    where = study_lib.place(str(tmp_path))
    study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    runs_of = [tmp_path / "trials" / f"{i:04d}" for i in range(4)]
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
    trained(where, folder, 4, pace="gated")
    states = [t.state.name for t in study_of(where.out).get_trials()]
    assert states == ["COMPLETE"] * 4
    assert [steps(run) for run in runs_of] == [list(range(1, STEPS + 1))] * 4
    assert [starts(run) for run in runs_of] == [2, 2, 1, 1]


def test_asked_to_stop_a_worker_stops_its_training_and_leaves_the_trial(
    overrides, folder, tmp_path
):
    where = study_lib.place(str(tmp_path))
    study, _ = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    command = (sys.executable, str(folder / "gated.py"))
    task = worker.Task(where, 4, DEMO, command=command, times=QUICK)
    run = tmp_path / "trials" / "0000"

    class Stop:
        @property
        def requested(self):
            return (run / "metrics.jsonl").exists() and len(steps(run)) == 3

    worker.work(task, Stop())
    (trial,) = study.get_trials()
    assert trial.state.name == "RUNNING" and len(steps(run)) < STEPS
    # The lock is free: the training has ended too.
    with study_lib.lock(run / "lock") as held:
        assert held is not None


def test_a_trial_trained_to_its_end_is_only_told(overrides, folder, tmp_path):
    """Its worker died between the training's end and telling."""
    where = study_lib.place(str(tmp_path))
    study, spec = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    claim = study_lib.Claims(study, spec, where, 4, QUICK).next()
    claim.file.close()
    model = where.out / "trials" / "0000" / "model"
    model.mkdir()
    (model / "manifest.json").write_text('{"scores": {"AP@gt_boxes": 0.5}}')
    trained(where, folder, 2)
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE"] * 2
    assert study.get_trials()[0].value == 0.5
    assert not (model.parent / "starts").exists()


def test_a_trial_that_was_to_be_pruned_is_not_trained_on(overrides, folder, tmp_path):
    where = study_lib.place(str(tmp_path))
    study, spec = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    claim = study_lib.Claims(study, spec, where, 4, QUICK).next()
    claim.trial.report(0.1, 1)
    claim.trial.set_user_attr("pruned", True)
    claim.file.close()
    trained(where, folder, 2)
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["PRUNED", "COMPLETE"]
    assert not (where.out / "trials" / "0000" / "starts").exists()


def test_a_training_of_a_lost_owner_stops_when_it_was_succeeded(
    overrides, folder, tmp_path
):
    where = study_lib.place(str(tmp_path))
    study, _ = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    command = (sys.executable, str(folder / "gated.py"))
    task = worker.Task(where, 1, DEMO, command=command, times=QUICK)
    run = tmp_path / "trials" / "0000"

    def succeed():
        wait_for_third(run)
        (frozen,) = study.get_trials()
        trial = study_lib.load_optuna().trial.Trial(study, frozen._trial_id)
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
            worker._Training(claims, claim, task, Never()).finish()
        finally:
            stop.left = True

    worker.work(task, AfterThat(), once)
    succession.join()
    assert study.get_trials()[0].state.name == "RUNNING" and len(steps(run)) < STEPS


@pytest.mark.slow
def test_several_processes_work_on_one_storage(overrides, folder, tmp_path):
    """As the tasks of a Slurm array, each of which is one `sweep run`."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    where = study_lib.place(url, "s", tmp_path / "out")
    space = {"optimizer.lr": grid(*(i / 20 for i in range(1, 5)))}
    made = Sweep(space=space, metric="AP", sampler="grid")
    study, _ = study_lib.open_study(where, spec_of(made, overrides))
    where.out.mkdir()
    runs_of = [where.out / "trials" / f"{number:04d}" for number in range(4)]
    # A database is slow to answer: it is not asked all the time.
    times = study_lib.Times(poll=0.2, beat=2.0, lost=20.0, settle=0.2)
    processes = workers_of(where, 2, 4, folder, "gated", times)
    try:
        wait_for_third(*runs_of[:2])
        open_gate(where.out)
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    trials = study.get_trials()
    assert [t.value for t in trials] == pytest.approx([i / 20 for i in range(1, 5)])
    assert len({t.user_attrs["worker"]["pid"] for t in trials}) == 2
    for run in runs_of:
        assert starts(run) == 1 and steps(run) == list(range(1, STEPS + 1))


def test_a_training_sees_its_cores_and_its_gpu(overrides, tmp_path):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity of processes")
    script = tmp_path / "tell.py"
    script.write_text(
        'import os, sys\nsys.exit(f"saw {sorted(os.sched_getaffinity(0))} '
        "{os.environ['CUDA_VISIBLE_DEVICES']}\")"
    )
    where = study_lib.place(str(tmp_path))
    study, _ = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    core = min(os.sched_getaffinity(0))
    task = worker.Task(
        where, 1, DEMO, cores=(core,), device="5",
        command=(sys.executable, str(script)), times=QUICK,
    )  # fmt: skip
    before = os.sched_getaffinity(0)
    try:
        worker.work(task, Never())
    finally:
        os.sched_setaffinity(0, before)
    assert study.get_trials()[0].user_attrs["reason"] == f"exit code 1: saw [{core}] 5"
