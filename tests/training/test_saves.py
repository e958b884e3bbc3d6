"""No step is lost: errors, images that cannot be read, divergence. Without a network."""

import dataclasses
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from pose_jax import methods, trees
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import evaluate
from pose_jax.runs import log as log_lib
from pose_jax.runs import model as model_lib
from pose_jax.training import config as training_config
from pose_jax.training import saves, train
from tests.training.cascade import Cascade


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=8, val=5, seed=0)
    return root


@pytest.fixture(autouse=True)
def cascade(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "cascade", Cascade)
    monkeypatch.setattr(train.pictures, "draw_run", lambda *_: None)


def make_config(root, train=None, optimizer=None):
    source = {"name": "coco", "root": str(root)}
    return {
        "method": {"name": "cascade"},
        "data": {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        },
        "input": {"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"},
        "optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.0, **(optimizer or {})},
        "train": {"steps": 6, "log_every_steps": 1, **(train or {})},
        "phases": {
            "stage_2": {
                "train": {"steps": 1},
                "optimizer": {"schedule": "constant", "drop_steps": ()},
            }
        },
    }


def weights_of(run):
    return trees.flatten(model_lib.load_model(run / "model")[0])


def kept(run, phase="stage_1"):
    return {path.name for path in (run / "checkpoints" / phase).iterdir()}


@pytest.mark.parametrize(
    ("factor", "says", "left"),
    [
        (1e39, "the weights after step 3 are not finite", {"1", "2"}),
        (1e27, "the loss of step 4 is inf", {"2", "3.diverged"}),
    ],
)
def test_after_divergence_a_lower_rate_continues_from_the_last_good_state(
    people, tmp_path, factor, says, left
):
    run, lasting = tmp_path / "run", {"checkpoint_every_steps": 1}
    drops = {"schedule": "steps", "drop_steps": (2,), "drop_factor": factor}
    with pytest.raises(InputError, match=rf"{says}: .* learning rate 0\.2") as error:
        train.train(make_config(people, lasting, drops), run)
    assert "the same command with a lower one continues from step 2" in str(error.value)
    assert kept(run) == left
    with pytest.raises(ConfigError, match=r"differs in optimizer\.lr"):
        train.train(make_config(people, lasting, {"lr": 0.3, **drops}), run)
    if factor == 1e27:
        lower = {"lr": 0.1 / factor, **drops}
        assert train.train(make_config(people, lasting, lower), run)
        entries = [e for e in log_lib.read_metrics(run) if e["phase"] == "stage_1"]
        assert [e["step"] for e in entries if "loss" in e] == [1, 2, 3, 4, 5, 6]
        assert all(np.isfinite(value).all() for value in weights_of(run).values())


def test_predictions_that_are_not_finite_are_a_divergence(
    people, tmp_path, monkeypatch
):
    class Evaluation:
        predictions = {"points_xy": np.array([np.inf])}  # noqa: RUF012

        @property
        def metrics(self):
            raise InputError("result 0: keypoints is not finite.")

    monkeypatch.setattr(train, "evaluate", lambda *_, **__: Evaluation())
    says = r"predictions after step 6 are not finite: .*learning rate 0\.2.*lr: "
    with pytest.raises(InputError, match=says):
        train.train(make_config(people), tmp_path / "run")
    assert kept(tmp_path / "run") == {"6.diverged"}


def damage(people, tmp_path, *names):
    """A copy of the data with images that are cut off."""
    root = Path(shutil.copytree(people, tmp_path / "data"))
    for name in names:
        (root / name).write_bytes((root / name).read_bytes()[:700])
    return root


def test_an_image_that_cannot_be_read_costs_no_step(people, tmp_path):
    """The steps before it are saved, and a run that goes on ends in the same weights."""
    plan = train.setup(make_config(people)).plan
    images = [plan.table.image[plan.batch_rows(step)[1]] for step in range(4)]
    late = next(image for image in images[3] if image not in images[0])
    first = next(step for step, batch in enumerate(images) if late in batch)
    trained = plan.table.images[late].relative_to(people)
    evaluated = sorted((people / "val2017").iterdir())[0].relative_to(people)
    for name, last in ((trained, first), (evaluated, 6)):
        root, run = damage(people, tmp_path, name), tmp_path / name.parent
        with pytest.raises(InputError, match=r"cannot be read"):
            train.train(make_config(root), run)
        assert [e["step"] for e in log_lib.read_metrics(run)] == [*range(1, last + 1)]
        assert kept(run) == {str(last)}
        shutil.rmtree(root)
    shutil.copytree(people, root)
    train.train(make_config(root), run)
    train.train(make_config(root), tmp_path / "straight")
    for path, value in weights_of(tmp_path / "straight").items():
        np.testing.assert_array_equal(value, weights_of(run)[path])


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), MemoryError()])
def test_the_state_is_saved_before_an_error_of_an_evaluation(
    people, tmp_path, monkeypatch, error, capsys
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(train, "evaluate", fail)
    with pytest.raises(type(error)):
        train.train(make_config(people, {"steps": 3}), tmp_path / "run")
    assert kept(tmp_path / "run") == {"3"}
    assert "stopped by an error after step 3; the state is" in capsys.readouterr().out


def test_what_an_evaluation_cannot_do_is_said_before_the_first_step(people, tmp_path):
    root = Path(shutil.copytree(people, tmp_path / "data"))
    file = root / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    for person in content["annotations"]:
        person["keypoints"], person["num_keypoints"] = [0] * 51, 0
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no rows to read|no labeled people"):
        train.train(make_config(root), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    s = train.setup(make_config(people))
    gone = (tmp_path / "gone.jpg", *s.eval_table.images[1:])
    table = dataclasses.replace(s.eval_table, images=gone)
    with pytest.raises(InputError, match=r"data\.eval: 1 of 5 images .*gone\.jpg"):
        train._check_data(dataclasses.replace(s, eval_table=table))
    table = dataclasses.replace(table, on_error="skip")
    train._check_data(dataclasses.replace(s, eval_table=table))


def test_unreadable_images_are_skipped_in_training_and_missed_in_evaluation(
    people, tmp_path, caplog
):
    names = [sorted((people / split).iterdir()) for split in ("train2017", "val2017")]
    bad = [path.relative_to(people) for path in (names[0][0], *names[1][:2])]
    root = damage(people, tmp_path, *bad)
    config = make_config(root)
    for section in config["data"].values():
        section["on_error"] = "skip"
    metrics = train.train(config, tmp_path / "run")
    assert "1 of at most 1 images" in caplog.text and "count as missed" in caplog.text
    assert 0 <= metrics["PCK@0.2@gt_boxes"] < 1
    assert 0 < metrics["pixel_error@gt_boxes"] < 1e4
    (found,) = evaluate.evaluate_run(tmp_path / "run").values()
    table, poses = found.table, found.predictions
    assert poses.row.tolist() == table.labelled_rows().tolist()
    missed = np.isin(table.image[poses.row], [0, 1])
    np.testing.assert_array_equal(poses.valid, ~missed)
    assert len(found.results) == (~missed).sum()
    assert f"{missed.sum()} people are in images that could not be" in found.notes[0]


def test_a_state_is_saved_every_ten_minutes_of_time(monkeypatch):
    """Or every so many steps; each one starts the minutes again."""
    clock = types.SimpleNamespace(now=0.0, perf_counter=lambda: 0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(saves, "time", clock)
    saved = []
    store = types.SimpleNamespace(save=lambda step, state: saved.append(step))
    log = types.SimpleNamespace(
        settle=lambda: None, window=types.SimpleNamespace(away=0.0)
    )
    state = types.SimpleNamespace(weights=lambda: {"w": np.ones(2)})

    def steps(**options):
        saved.clear()
        section = training_config.TrainConfig(steps=100, **options)
        sections = training_config.Sections(None, section)
        all_saves = saves.Saves(Path("run"), "pose", sections, store, log, 0)
        for step in range(1, 21):
            clock.now += 240
            if all_saves.due(step):
                all_saves.save(step, state)
        return saved

    assert steps() == [3, 6, 9, 12, 15, 18]
    assert steps(checkpoint_every_minutes=0) == []
    assert steps(checkpoint_every_minutes=0, checkpoint_every_steps=8) == [8, 16]
    assert steps(checkpoint_every_steps=8) == [3, 6, 8, 11, 14, 16, 19]
    monkeypatch.setattr(saves.sharding_lib, "decided_by_first", lambda mine: not mine)
    assert steps()[:2] == [1, 2]  # The first process decides.
    broken = types.SimpleNamespace(weights=lambda: {"w": np.array([1, np.nan])})
    with pytest.raises(saves.DivergedError, match="weights after step 7"):
        saves.Saves(Path("run"), "pose", None, store, log, 0).save(7, broken)
