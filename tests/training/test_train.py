"""The trainer: resume, devices, traces, phases, errors, on a dozen synthetic images."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pose_jax import methods, trees
from pose_jax.data import coco, readers
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import evaluate
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import LSP
from pose_jax.methods.dark import Dark
from pose_jax.runs import log as log_lib
from pose_jax.runs import model as model_lib
from pose_jax.training import config as training_config
from pose_jax.training import train
from tests.made_up import MadeUpDetector, make_table
from tests.training.cascade import Cascade


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    scenes.write_dataset(root / "data", n=8, val=5, seed=0)
    return str(root / "data")


def make_config(root, **changes):
    config = {
        "seed": 3,
        "method": {
            "name": "dark",
            "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
            "input_size": (64, 64),
            "sigma": 1.5,
            "augment": {"flip": 0.5, "rotation": 20.0, "brightness": 0.2},
        },
        "data": {
            "train": {"name": "coco", "root": root, "split": "train2017"},
            "eval": {"name": "coco", "root": root, "split": "val2017"},
        },
        "input": {"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"},
        "optimizer": {"name": "adam", "lr": 1e-3, "ema_decay": 0.9},
        "train": {"steps": 6, "checkpoint_every_steps": 2, "log_every_steps": 1},
    }
    for path, value in changes.items():
        node = config
        *parents, leaf = path.split("__")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return config


def weights_of(run):
    return trees.flatten(model_lib.load_model(run / "model")[0])


class Stop(Exception):
    pass


def stop_before(monkeypatch, step):
    """Lets training read no batch from `step` on."""
    real = readers.batches

    def batches(plan, start=0, stop=None):
        for number, batch in enumerate(real(plan, start, stop), start):
            if plan.training and stop != 1 and number == step:
                raise Stop
            yield batch

    monkeypatch.setattr(readers, "batches", batches)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures, which take longer than the steps, are those of `straight` only."""
    monkeypatch.setattr(train.pictures, "draw_run", lambda *_: None)
    monkeypatch.setattr(train.Trainer, "_draw_inputs", lambda *_: None)


def record_states(monkeypatch):
    """Returns a list that the states before and after each phase are added to."""
    found, real = [], train.Trainer.loop

    def loop(trainer, phase, state, *args):
        found.append(jax.device_get(state))
        state, evaluation = real(trainer, phase, state, *args)
        found.append(jax.device_get(state))
        return state, evaluation

    monkeypatch.setattr(train.Trainer, "loop", loop)
    return found


@pytest.fixture(scope="module")
def straight(people, tmp_path_factory, real_curves):
    """A run, its metrics, and its first and last state."""
    run = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as m:
        found = record_states(m)
        metrics = train.train(make_config(people), run)
    return run, metrics, found


def test_a_stopped_and_resumed_run_ends_in_the_same_weights(
    people, straight, tmp_path, monkeypatch, undrawn
):
    with monkeypatch.context() as m:
        stop_before(m, 5)
        with pytest.raises(Stop):
            train.train(make_config(people), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    train.train(make_config(people), tmp_path / "run")
    once, twice = weights_of(straight[0]), weights_of(tmp_path / "run")
    assert once.keys() == twice.keys()
    for path, value in once.items():
        np.testing.assert_array_equal(value, twice[path], err_msg="/".join(path))

    def losses(run):
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    assert losses(tmp_path / "run") == losses(straight[0])
    assert [step for step, _ in losses(straight[0])] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_started_again_trains_no_step(
    people, straight, monkeypatch, undrawn
):
    run, metrics, _ = straight
    before = weights_of(run)
    stop_before(monkeypatch, 0)
    again = train.train(make_config(people), run)
    assert again == pytest.approx(metrics, nan_ok=True)
    for path, value in weights_of(run).items():
        np.testing.assert_array_equal(value, before[path])


def test_the_run_directory_holds_what_the_design_promises(straight):
    run, metrics, _ = straight
    for name in (
        "config.json",
        "metrics.jsonl",
        "model/manifest.json",
        "checkpoints/pose/6",
        "pictures/inputs_pose.png",
        "pictures/predictions.png",
        "pictures/worst.png",
        "pictures/heatmaps.png",
        "pictures/curves.png",
    ):
        assert (run / name).exists(), name
    manifest = model_lib.load_manifest(run / "model")
    assert manifest["scores"]["AP@gt_boxes"] == metrics["AP@gt_boxes"]
    assert manifest["method"]["name"] == "dark"
    assert len(manifest["train_data"]["fingerprint"]) == 16


def test_the_model_is_the_average_where_one_is_kept(straight):
    """Six steps of decay 0.9 leave most of the start in the average."""
    run, _, (_, state) = straight
    averaged = weights_of(run)
    for averages in (True, False):
        kept = state if averages else dataclasses.replace(state, ema={})
        weights = trees.flatten({"pose": kept.weights()})
        different = [
            path
            for path in weights
            if not np.array_equal(weights[path], averaged[path])
        ]
        assert any("batch_stats" in path for path in different) is not averages
        assert any("params" in path for path in different) is not averages


def test_evaluations_change_nothing_and_trace_once(
    people, straight, tmp_path, monkeypatch, undrawn
):
    """Over ragged inputs: 5 validation images, a last batch that is not full."""
    traced = []

    def count(name, function):
        def call(*args):
            traced.append(name)
            return function(*args)

        monkeypatch.setattr(Dark, name, call)

    count("loss", Dark.loss)
    count("predict", Dark.predict)
    train.train(make_config(people, train__eval_every_steps=1), tmp_path / "run")
    assert traced.count("loss") == 1
    assert traced.count("predict") == 1
    for path, value in weights_of(tmp_path / "run").items():
        np.testing.assert_array_equal(value, weights_of(straight[0])[path])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum("AP@gt_boxes" in line for line in lines) == 6


@pytest.mark.slow
def test_four_devices_take_the_same_steps_as_one(
    people, straight, tmp_path, monkeypatch, undrawn
):
    """SGD, since Adam turns rounding noise of small gradients into whole steps."""
    scored = SimpleNamespace(metrics={"AP@gt_boxes": 0.0})  # Of the steps alone.
    monkeypatch.setattr(train, "evaluate", lambda *_, **__: scored)
    config = make_config(
        people,
        optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.0},
        train={"steps": 20},
        input__batch_size=8,
    )
    ends = {}
    for count in (1, 4):
        run = tmp_path / str(count)
        train.train(config, run, devices=jax.devices()[:count])
        ends[count] = {p: v for p, v in weights_of(run).items() if "params" in p}
    # The seed is the same.
    start = trees.flatten({"pose": {"params": straight[2][0].params}})

    def distance(a, b):
        return np.sqrt(sum(np.sum((a[p] - b[p]) ** 2.0) for p in a))

    moved = distance(ends[1], start)
    apart = distance(ends[1], ends[4])
    size = distance(ends[1], {p: 0 * v for p, v in start.items()})
    assert apart < 1e-5 * size
    assert apart < 1e-2 * moved  # What was learnt is the same, not only the start.


def test_a_loss_that_is_not_finite_stops_and_names_the_rows(people, tmp_path, undrawn):
    config = make_config(people, optimizer={"name": "sgd", "lr": 1e30})
    with pytest.raises(InputError, match=r"loss of step \d is (nan|inf)") as error:
        train.train(config, tmp_path / "run")
    table = json.loads(
        (
            tmp_path.__class__(people) / "annotations/person_keypoints_train2017.json"
        ).read_text()
    )
    ids = {annotation["id"] for annotation in table["annotations"]}
    named = json.loads(str(error.value).split("by id: ")[1].split("]")[0] + "]")
    assert named and set(named) <= ids


def test_another_config_in_the_same_directory_is_refused(people, straight):
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        train.train(make_config(people, optimizer__lr=2e-3), straight[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer__lrr": 1.0}, r"config\.optimizer\.lrr.*lr"),
        ({"modell": {}}, r"config\.modell"),
        ({"phases": {"stage_1": {}}}, r"stage_1.*pose"),
        ({"phases": {"pose": {"trian": {}}}}, r"trian"),
        ({"data__train__root": "nowhere"}, r"nowhere"),
        ({"data__train__name": "cocoo"}, r"coco"),
        ({"input__batch_size": 6}, r"6 .*4 devices"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(people, tmp_path, changes, says):
    with pytest.raises(InputError, match=says) as error:
        train.train(make_config(people, **changes), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_phase_can_have_its_own_optimizer_and_length(people, tmp_path):
    config = make_config(
        people,
        phases={"pose": {"train": {"steps": 1}, "optimizer": {"lr": 0.0}}},
        optimizer__ema_decay=0.0,
    )
    s = train.setup(config)
    assert s.sections["pose"].train.steps == 1
    assert s.sections["pose"].optimizer.lr == 0.0
    assert s.sections["pose"].train.checkpoint_every_steps == 2


def test_init_from_takes_the_weights_of_another_run(
    people, straight, tmp_path, monkeypatch, undrawn
):
    starts = []

    def loop(trainer, phase, state, *_):
        starts.append(state)
        raise Stop

    monkeypatch.setattr(train.Trainer, "loop", loop)
    config = make_config(people, train__init_from=str(straight[0]))
    with pytest.raises(Stop):
        train.train(config, tmp_path / "run")
    assert int(starts[0].step) == 0
    given = weights_of(straight[0])
    start = trees.flatten({"pose": starts[0].weights()})
    assert start.keys() == given.keys()
    for path, value in start.items():
        np.testing.assert_array_equal(value, given[path])


def test_a_cascade_with_statistics_needs_nothing_of_the_trainer(
    people, tmp_path, monkeypatch, undrawn
):
    monkeypatch.setitem(methods.METHODS, "cascade", Cascade)
    config = make_config(
        people,
        method={"name": "cascade"},
        optimizer={"name": "sgd", "lr": 0.2, "momentum": 0.0},
        train={"steps": 30, "checkpoint_every_steps": 10},
        phases={"stage_2": {"train": {"steps": 10}}},
    )
    with monkeypatch.context() as m:  # Stopped in stage 2, before its first checkpoint.
        real = train.Trainer.loop

        def loop(trainer, phase, *args):
            if phase.name == "stage_2":
                raise Stop
            return real(trainer, phase, *args)

        m.setattr(train.Trainer, "loop", loop)
        with pytest.raises(Stop):
            train.train(config, tmp_path / "run")
    metrics = train.train(config, tmp_path / "run")
    variables, _ = model_lib.load_model(tmp_path / "run" / "model")
    assert set(variables) == {"stage_1", "stage_2"}
    spread = variables["stage_2"]["constants"]["spread"]
    assert spread.shape == (1, 17, 1) and (spread > 0).all()
    # The mean pose is better than the middle of the box.
    s = train.setup(config)
    start = {"stage_1": {"params": {"mean": np.zeros((1, 17, 2), np.float32)}}}
    predictor = Predictor(s.method, train.sharding_lib.make_mesh())
    before = evaluate.evaluate(predictor, start, s.eval_table, s.config.input)
    assert metrics["pixel_error@gt_boxes"] < before.metrics["pixel_error@gt_boxes"]


def cascade_config(people, monkeypatch, starts_from=None, **changes):
    """A config of `Cascade`, whose stage 2 learns nothing."""
    monkeypatch.setitem(methods.METHODS, "cascade", Cascade)
    return make_config(
        people,
        method={"name": "cascade", "starts_from": starts_from},
        optimizer={"name": "sgd", "lr": 0.2, "momentum": 0.0},
        train={"steps": 5, "log_every_steps": 5, **changes},
        phases={"stage_2": {"optimizer": {"lr": 0.0}}},
    )


def test_a_phase_may_start_from_the_weights_of_an_earlier_one(
    people, tmp_path, monkeypatch, undrawn
):
    config = cascade_config(people, monkeypatch, starts_from="stage_1")
    train.train(config, tmp_path / "run")
    variables, _ = model_lib.load_model(tmp_path / "run" / "model")
    one, two = (variables[f"stage_{s}"]["params"]["mean"] for s in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one).max() > 0.01


def test_a_phase_that_adds_nothing_ends_the_training(
    people, tmp_path, monkeypatch, capsys, undrawn
):
    # Stage 2 adds zeros: no better than without.
    config = cascade_config(people, monkeypatch, stop_metric="PCK@0.2@gt_boxes")
    config["train"]["steps"] = 30
    config["phases"]["stage_2"]["train"] = {"steps": 2}
    metrics = train.train(config, tmp_path / "run")
    said = "Stopping: phase 'stage_2' did not improve"
    assert said in capsys.readouterr().out
    variables, manifest = model_lib.load_model(tmp_path / "run" / "model")
    assert set(variables) == {"stage_1"} and manifest["scores"] == metrics
    # Started again when all is done: the same, from the log.
    assert train.train(config, tmp_path / "run") == metrics
    assert said in capsys.readouterr().out
    assert set(model_lib.load_model(tmp_path / "run" / "model")[0]) == {"stage_1"}


@pytest.mark.parametrize("field", ["best_metric", "stop_metric"])
def test_a_metric_that_there_is_not_is_named_before_anything_is_trained(
    people, tmp_path, field
):
    config = make_config(people)
    config["train"][field] = "PCK@0.2@gt_box"
    with pytest.raises(ConfigError, match=rf"train\.{field}.*'PCK@0\.2@gt_boxes'"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_network_learns_a_few_people_by_heart(people, tmp_path):
    """Reading, cropping, targets, decoding and the way back fit together."""
    config = make_config(
        people,
        method={
            "name": "dark",
            "model": {"name": "pocket"},
            "input_size": (96, 128),
            "sigma": 1.5,
        },
        input__batch_size=16,
        optimizer={"name": "adam", "lr": 3e-3, "schedule": "cosine"},
        train={"steps": 400},
    )
    config["data"]["eval"] = config["data"]["train"]
    assert train.train(config, tmp_path / "run")["AP@gt_boxes"] > 0.9


@pytest.mark.slow
def test_a_cascade_learns_a_few_people_by_heart(people, tmp_path):
    """Stage 1 of all it is shown, so that stage 2 has no errors to learn from: it may not
    be better, and must not be bad. (What `statistics.on="held_out"` is for.)"""
    config = make_config(
        people,
        method={
            "name": "deeppose",
            "model": {"name": "resnet_regression_18", "options": {"width": 16}},
            "input_size": (64, 64),
            "stages": 2,
            "sigma": 1.5,
            "inside": 0.1,
            "start": "before",
        },
        input__batch_size=16,
        optimizer={"name": "adam", "lr": 2e-3, "schedule": "cosine"},
        train={"steps": 400},
    )
    config["data"]["eval"] = config["data"]["train"]
    train.train(config, tmp_path / "run")
    log = log_lib.read_metrics(tmp_path / "run")
    first, second = (e["box_error@gt_boxes"] for e in log if "box_error@gt_boxes" in e)
    assert first < 0.001 and second < 0.02


# A detector: rows are images, what it finds are boxes.


def detector_config(root, monkeypatch, **changes):
    monkeypatch.setitem(methods.METHODS, "made_up_detector", MadeUpDetector)
    config = make_config(
        root,
        optimizer={"name": "sgd", "lr": 0.4, "momentum": 0.0},
        train={
            "steps": 60,
            "eval_every_steps": 30,
            "log_every_steps": 10,
            "best_metric": "box_AP",
        },
    )
    # Evaluated on what it has learnt by heart.
    config["data"]["eval"]["split"] = "train2017"
    config["method"] = {"name": "made_up_detector", "images": 8}
    config.update(changes)
    return config


def test_a_detector_is_trained_evaluated_and_drawn(
    people, tmp_path, monkeypatch, capsys
):
    config, run = detector_config(people, monkeypatch), tmp_path / "run"
    metrics = train.train(config, run)
    table = coco.load(people, "train2017")
    printed = capsys.readouterr().out
    assert f": {len(table.images)} images of coco train2017, " in printed
    assert "box_AP" in printed
    assert metrics["box_AP"] == 1
    manifest = model_lib.load_manifest(run / "model")
    assert manifest["keypoints"] is None
    assert manifest["scores"]["box_AP"] == metrics["box_AP"]
    pictures = {path.name for path in (run / "pictures").glob("*.png")}
    assert pictures == {
        "inputs_detector.png", "predictions.png", "worst.png", "curves.png"
    }  # fmt: skip
    lines = log_lib.read_metrics(run)
    assert [line["step"] for line in lines if "box_AP" in line] == [30, 60]
    # Started again it trains no step, and what is evaluated already is not again.
    written = (run / "metrics.jsonl").read_text()
    stop_before(monkeypatch, 0)
    assert train.train(config, run) == metrics
    assert written == (run / "metrics.jsonl").read_text()


def test_a_detector_s_loss_that_is_not_finite_names_the_images(
    people, tmp_path, monkeypatch
):
    config = detector_config(
        people, monkeypatch, optimizer={"name": "sgd", "lr": 1e30, "momentum": 0.0}
    )
    with pytest.raises(InputError, match=r"check these images of the batch") as error:
        train.train(config, tmp_path / "run")
    named = json.loads(str(error.value).split("by id: ")[1].split("]")[0] + "]")
    ids = set(coco.load(people, "train2017").image_ids.tolist())
    assert len(named) == 4 and set(named) <= ids


def test_a_detector_s_best_metric_is_one_of_boxes(people, monkeypatch):
    config = detector_config(people, monkeypatch)
    config["train"]["best_metric"] = "AP@gt_boxes"
    with pytest.raises(ConfigError, match=r"no metric 'AP@gt_boxes'.* mean 'box_AP"):
        train._check_metric_names(train.setup(config))


def test_a_detector_may_be_evaluated_on_people_of_other_keypoints(people, monkeypatch):
    config = detector_config(people, monkeypatch)
    load = training_config.data_lib.load
    monkeypatch.setattr(
        training_config.data_lib,
        "load",
        lambda source, *_: (
            make_table(keypoint_set=LSP) if source.split == "val2017" else load(source)
        ),
    )
    config["data"]["eval"]["split"] = "val2017"
    assert train.setup(config).eval_table.keypoints == LSP
    config["method"] = make_config(people)["method"]
    with pytest.raises(ConfigError, match="must have the same keypoint set"):
        train.setup(config)


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
def test_a_batch_that_devices_cannot_share_is_refused_before_there_is_a_run(
    people, tmp_path
):
    config = make_config(people, input__batch_size=6)
    with pytest.raises(ConfigError, match="set batch_size to 4 or 8, or use fewer"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
