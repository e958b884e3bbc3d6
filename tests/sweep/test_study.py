"""What a study draws, where it is kept, and who has which of its trials."""

import sys
import threading
import time

import numpy as np
import pytest

from pose_jax.errors import ConfigError, InputError
from pose_jax.sweep import Sweep, choice, grid, linear_range, log_range, summary, worker
from pose_jax.sweep import study as study_lib
from tests.sweep.studies import (
    DEMO,
    LR,
    QUICK,
    STEPS,
    TWO_BY_TWO,
    Never,
    drawn,
    spec_of,
    study_of,
)


def test_without_optuna_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'pose_jax\[sweep\]'"):
        study_lib.open_study(study_lib.place(str(tmp_path)), {})


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


def test_hyperband_gives_few_trials_all(overrides, tmp_path):
    space = {"optimizer.lr": grid(*(i / 20 for i in range(12, 0, -1)))}
    made = Sweep(space=space, metric="AP", sampler="grid", pruner="hyperband")
    where = study_lib.place(str(tmp_path))
    study, spec = study_lib.open_study(where, spec_of(made, overrides))
    assert spec["resource"] == [1, STEPS]

    def finish(claims, claim):
        for step in range(1, STEPS + 1):
            claim.trial.report(float(claim.trial.params["optimizer.lr"]) * step, step)
            if claim.trial.should_prune():
                return claims.tell(claim.trial, "pruned")
        claims.tell(claim.trial, "complete", 1.0)

    worker.work(worker.Task(where, 12, DEMO, times=QUICK), Never(), finish)
    found = [trial.state.name for trial in study.get_trials()]
    assert {"COMPLETE", "PRUNED"} == set(found) and found.count("COMPLETE") < 6


def test_another_sweep_or_config_in_the_same_study_is_refused(
    overrides, tmp_path, folder
):
    where = study_lib.place(str(tmp_path))
    study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
    other = Sweep(**{**TWO_BY_TWO.__dict__, "seed": 3})
    with pytest.raises(ConfigError, match=r"another sweep, which differs in seed"):
        study_lib.open_study(where, spec_of(other, overrides))
    changed = spec_of(TWO_BY_TWO, [*overrides, "--config.method.sigma=2.5"])
    with pytest.raises(ConfigError, match="differs in overrides"):
        study_lib.open_study(where, changed)
    changed["overrides"] = overrides  # As if the file had been edited.
    with pytest.raises(ConfigError, match=r"differs in config\.method\.sigma"):
        study_lib.open_study(where, changed)


def test_a_trial_without_values_gets_them_from_whoever_takes_it(overrides, tmp_path):
    """Its worker died as soon as it had asked."""
    made = Sweep(space={**LR, "seed": grid(0, 1)}, metric="AP")
    where = study_lib.place(str(tmp_path / "dead"))
    study, spec = study_lib.open_study(where, spec_of(made, overrides))
    claims = study_lib.Claims(study, spec, where, 4, QUICK)
    claims._sign(study.ask())
    whole = drawn(made, overrides, tmp_path / "whole", 4)
    assert drawn(made, overrides, where.out, 4) == whole
    # The second of a point does not wait for ever for the first.
    where = study_lib.place(str(tmp_path / "second"))
    study, spec = study_lib.open_study(where, spec_of(made, overrides))
    claims = study_lib.Claims(study, spec, where, 4, QUICK)
    claims._sign(study.ask())
    with claims._hold(0):
        claim = study_lib.Claims(study, spec, where, 4, QUICK).next()
        claim.file.close()
        assert claim.trial.number == 1 and claim.trial.params["seed"] == "1"
        assert claim.trial.params["optimizer.lr"] == whole[0]["optimizer.lr"]


def test_what_was_asked_beyond_the_number_waits_until_more_are_wanted(
    overrides, tmp_path
):
    where = study_lib.place(str(tmp_path))
    study, _ = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))
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


@pytest.fixture
def machines(overrides, tmp_path, monkeypatch):
    """machine("a") makes the Claims of a worker there; no folder is shared."""
    where = study_lib.place(f"sqlite:///{tmp_path / 'study.db'}", "s", tmp_path / "out")
    study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))

    def machine(name):
        monkeypatch.setattr(study_lib, "_machine", lambda: name)
        mine = study_lib.Place(where.storage, where.name, tmp_path / name)
        study, spec = study_lib.open_study(mine)
        return study_lib.Claims(study, spec, mine, 1, QUICK)

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
    with pytest.raises(study_lib.Left):
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
            time.sleep(0.05)
        if found != "done":
            taken.append(claims)

    threads = [threading.Thread(target=take, args=(claims,)) for claims in (b, c)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 1 and taken[0].mine(first.trial)


def test_a_storage_behind_a_grpc_proxy_is_one_too(overrides, tmp_path):
    optuna = study_lib.load_optuna()
    from optuna.storages._grpc.server import make_server

    server = make_server(optuna.storages.InMemoryStorage(), "localhost", 0)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        where = study_lib.place(f"grpc://localhost:{port}", "s", tmp_path)
        study, _ = study_lib.open_study(where, spec_of(TWO_BY_TWO, overrides))

        def finish(claims, claim):
            claims.tell(claim.trial, "complete", 1.0)

        worker.work(worker.Task(where, 4, DEMO, times=QUICK), Never(), finish)
        assert [t.state.name for t in study.get_trials()] == ["COMPLETE"] * 4
    finally:
        server.stop(None)


def test_a_storage_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no study found"):
        summary.report(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(InputError, match="no study 's' found"):
        summary.report(url, name="s", out=tmp_path)


def test_a_line_that_was_torn_does_not_end_the_journal(overrides, tmp_path):
    drawn(TWO_BY_TWO, overrides, tmp_path, 2, lambda p: 1.0)
    with open(tmp_path / "journal.log", "a") as journal:
        journal.write('{"op_code": 5, "worker')
    drawn(TWO_BY_TWO, overrides, tmp_path, 3, lambda p: 1.0)
    assert len(study_of(tmp_path).get_trials()) == 3
    assert '"worker{' not in (tmp_path / "journal.log").read_text()
