"""Early stopping and the best weights, also of runs that were stopped; checkpoints in use.

The networks are two numbers each, and the metric is a curve that the test gives.
"""

import json

import numpy as np
import pytest

import pose_jax
from pose_jax import cli, methods, trees
from pose_jax.data import readers
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import pictures, poses
from pose_jax.runs import model as model_lib
from pose_jax.runs import states
from pose_jax.training import train
from tests.training.cascade import Cascade

METRIC = "PCK@0.2@gt_boxes"


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("stopping") / "data"
    scenes.write_dataset(root, n=6, val=2, seed=0)
    return str(root)


@pytest.fixture
def config(root, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "cascade", Cascade)
    source = {"name": "coco", "root": root}
    return {
        "method": {"name": "cascade"},
        "data": {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        },
        "input": {"batch_size": 4, "canvas_size": (32, 32), "reader": "numpy"},
        "optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.0, "ema_decay": 0.5},
        "train": {"steps": 8, "eval_every_steps": 1, "best_metric": METRIC},
    }


@pytest.fixture
def curves(monkeypatch):
    """Values of the metric by phase, from step 1 on; the last one repeats. Nothing else is
    measured, and nothing is drawn, which takes longer than all steps."""
    curves, record = {}, states.Checkpoints.record
    measured = dict.fromkeys([METRIC, "pixel_error@gt_boxes"], 0.0)
    monkeypatch.setattr(poses, "measure", lambda *args: dict(measured))
    monkeypatch.setattr(pictures, "draw_run", lambda *args: None)

    def of_curve(self, step, metrics):
        curve = curves[self._directory.name]
        value = curve[min(step, len(curve)) - 1]
        record(self, step, {**metrics, self._best_metric: value})

    monkeypatch.setattr(states.Checkpoints, "record", of_curve)
    return curves


def weights(run):
    return trees.flatten(model_lib.load_model(run / "model")[0])


def assert_same_weights(run, other):
    found, expected = weights(run), weights(other)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg="/".join(path))


def log(run):
    timed = "time", "images_per_second", "input_bound_percent"
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


@pytest.mark.parametrize(
    ("metric", "curve", "patience", "last", "best"),
    [
        (METRIC, [0.1, 0.5, 0.4, 0.3], 2, 4, 2),
        (METRIC, [0.1, 0.5, 0.4, 0.6, 0.5, 0.6], 2, 6, 6),  # Equal is no improvement.
        (METRIC, [0.5, 0.5, 0.5], 2, 3, 3),
        (METRIC, [0.1, 0.5, 0.4], 0, 8, 2),
        (METRIC, [float("nan"), 0.1, float("nan")], 3, 5, 2),
        ("pixel_error@gt_boxes", [3.0, 1.0, 2.0], 1, 3, 2),
    ],
)
def test_a_phase_ends_without_improvement_and_the_best_weights_are_kept(
    config, curves, tmp_path, capsys, metric, curve, patience, last, best
):
    curves |= {"stage_1": curve, "stage_2": [0.1]}
    config["train"] |= {"best_metric": metric, "patience": patience, "keep": "best"}
    run = tmp_path / "run"
    train.train(config, run)
    said = capsys.readouterr().out
    assert (f"ended at step {last} of 8: {patience} evaluations" in said) == (last < 8)
    assert f"phase 'stage_1': the weights of step {best} are kept ({metric} " in said
    with states.Checkpoints(run / "checkpoints" / "stage_1", read_only=True) as store:
        assert store.latest_step() == last and store.best_step() == best
        average = store.arrays(best)["ema"]["params"]["mean"]
    np.testing.assert_array_equal(weights(run)["stage_1", "params", "mean"], average)


def test_a_run_stopped_anywhere_ends_in_the_same_weights(
    config, curves, tmp_path, monkeypatch
):
    curves |= {"stage_1": [0.1, 0.5, 0.4, 0.3], "stage_2": [0.2, 0.3, 0.1]}
    config["train"] |= {"patience": 2, "keep": "best"}
    straight = tmp_path / "straight"
    metrics = train.train(config, straight)
    real, stops = readers.batches, [1, 3, 0, 2]

    def batches(plan, start=0, stop=None):
        for number, batch in enumerate(real(plan, start, stop), start):
            if plan.training and stop == 8 and stops and number >= stops[0]:
                stops.pop(0)
                raise Stop
            yield batch

    monkeypatch.setattr(readers, "batches", batches)
    run, starts = tmp_path / "run", 0
    while not (run / "model").exists():
        starts += 1
        try:
            again = train.train(config, run)
        except Stop:
            continue
    assert starts == 5 and again == metrics
    assert_same_weights(run, straight)
    assert log(run) == log(straight)
    assert train.train(config, run) == metrics  # No further step.
    assert_same_weights(run, straight)


def test_another_run_is_resumed_with_its_evaluations_and_best_weights(
    config, curves, tmp_path, monkeypatch
):
    curves |= {"stage_1": [0.1, 0.5, 0.4, 0.3, 0.2], "stage_2": [0.2]}
    config["train"] |= {"patience": 3, "keep": "best"}
    straight, other = tmp_path / "straight", tmp_path / "other"
    train.train(config, straight)
    real = readers.batches

    def batches(plan, start=0, stop=None):
        for number, batch in enumerate(real(plan, start, stop), start):
            if plan.training and stop == 8 and number == 4:
                raise Stop
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(readers, "batches", batches)
        with pytest.raises(Stop):
            train.train(config, other)
    config["train"]["resume_from"] = str(other)
    train.train(config, tmp_path / "run")
    assert_same_weights(tmp_path / "run", straight)


def test_how_often_a_run_is_evaluated_may_not_change_if_it_chooses_the_weights(
    config, curves, tmp_path
):
    curves |= {"stage_1": [0.1], "stage_2": [0.1]}
    train.train(config, tmp_path / "a")
    config["train"]["patience"] = 2
    train.train(config, tmp_path / "b")
    config["train"]["eval_every_steps"] = 2
    with pytest.raises(ConfigError, match=r"differs in train\.eval_every_steps"):
        train.train(config, tmp_path / "b")
    config["train"].pop("patience")
    train.train(config, tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": 2, "best_metric": ""}, "patience requires best_metric"),
        ({"keep": "best", "eval_every_steps": 0}, "keep='best' requires eval_every"),
        ({"patience": -1}, "patience must not be negative"),
        ({"keep": "first"}, "'last'"),
    ],
)
def test_settings_without_effect_are_refused(config, tmp_path, changes, message):
    config["train"] |= changes
    with pytest.raises(ConfigError, match=message):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def unfinished(config, curves, tmp_path, monkeypatch):
    """A run that was stopped in stage 2; its checkpoints are stage_1/2, 3, 4 and
    stage_2/1, 2."""
    curves |= {"stage_1": [0.1, 0.5, 0.4, 0.3], "stage_2": [0.7, 0.6]}
    config["train"] |= {"patience": 2, "keep": "best"}
    real = readers.batches

    def batches(plan, start=0, stop=None):
        for number, batch in enumerate(real(plan, start, stop), start):
            if plan.training and stop == 8 and number == 2:
                if (tmp_path / "run/checkpoints/stage_2").exists():
                    raise Stop
            yield batch

    monkeypatch.setattr(readers, "batches", batches)
    with pytest.raises(Stop):
        train.train(config, tmp_path / "run")
    return tmp_path / "run"


def test_checkpoints_of_an_unfinished_run_can_be_used(unfinished, capsys):
    run = unfinished
    with pytest.raises(InputError, match="no model found"):
        model_lib.load(run)
    for name, found in (
        ("best", "stage_2/1"),
        ("last", "stage_2/2"),
        ("2", "stage_2/2"),
        ("stage_1/best", "stage_1/2"),
        ("stage_1/4", "stage_1/4"),
    ):
        loaded = model_lib.load(run, name)
        assert loaded.checkpoint == found
        phase, step = found.split("/")
        assert list(loaded.variables) == ["stage_1", "stage_2"][: int(phase[-1])]
        folder = run / "checkpoints" / phase
        with states.Checkpoints(folder, read_only=True) as store:
            expected = store.arrays(int(step))
            scores = store.metrics(int(step))
        np.testing.assert_array_equal(
            loaded.variables[phase]["params"]["mean"], expected["ema"]["params"]["mean"]
        )
        assert loaded.manifest["scores"] == scores
    # Stage 2 was trained after the best of stage 1, not after its last.
    best = model_lib.load(run, "stage_1/best").variables["stage_1"]
    of_stage_1 = model_lib.load(run, "last").variables["stage_1"]
    np.testing.assert_array_equal(of_stage_1["params"]["mean"], best["params"]["mean"])
    estimator = pose_jax.load(run, checkpoint="best")
    (people,) = estimator([np.zeros((20, 20, 3), np.uint8)])
    assert people[0].points_xy.shape == (17, 2)

    assert cli.main(["eval", "--run", str(run), "--checkpoint", "best"]) == 0
    assert "checkpoint stage_2/1" in capsys.readouterr().out
    (file,) = run.glob("eval_stage_2_1/gt_boxes/*/metrics.json")
    assert METRIC in json.loads(file.read_text()) and not (run / "eval").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "7",
            r"phase 'stage_2' has no checkpoint '7'; it has 1, 2; step 1 is the best",
        ),
        ("stage_3/1", "the run has no phase 'stage_3', only stage_1, stage_2"),
        ("bets", "no checkpoint is named 'bets': use best, last, STEP"),
    ],
)
def test_a_checkpoint_that_there_is_not_is_one_line(unfinished, name, message):
    with pytest.raises(InputError, match=message):
        model_lib.load(unfinished, name)


def test_a_damaged_checkpoint_is_one_line(unfinished):
    for file in (unfinished / "checkpoints/stage_2/1").rglob("*"):
        if file.is_file() and file.name == "_CHECKPOINT_METADATA":
            file.write_text("{")
    with pytest.raises(InputError, match=r"is damaged .*use another checkpoint"):
        model_lib.load(unfinished, "best")
