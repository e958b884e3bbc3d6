"""A run directory: one owner at a time, one config, files whole or not at all."""

import json

import pytest
from ml_collections import ConfigDict

from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO, LSP
from pose_jax.runs import directory, states
from pose_jax.runs import model as model_lib
from tests.made_up import make_table

CONFIG = ConfigDict({"seed": 1, "train": {"steps": 5, "log_every_steps": 2}})


def test_a_claim_writes_the_config_and_takes_it_again(tmp_path):
    run = tmp_path / "a" / "run"
    for _ in range(2):
        with directory.claim(run, CONFIG):
            written = json.loads((run / "config.json").read_text())
            assert written == {"seed": 1, "train": {"steps": 5, "log_every_steps": 2}}
    assert not list(run.glob("*.new"))


def test_what_weights_depend_on_may_not_change_and_the_rest_may(tmp_path):
    with directory.claim(tmp_path, CONFIG):
        pass
    for key, value, says in (
        ("seed", 2, "another config, which differs in seed:"),
        ("train.steps", 4, r"another config, which differs in train\.steps:"),
        ("train.steps", 6, rf"of 5 steps .*--config\.train\.resume_from={tmp_path}$"),
    ):
        with pytest.raises(ConfigError, match=says):
            with directory.claim(tmp_path, changed(key, value)):
                pass
    other = CONFIG.copy_and_resolve_references()
    other.train.log_every_steps = 100
    with directory.claim(tmp_path, other):
        pass
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 5


def changed(key, value):
    plain = CONFIG.to_dict()
    *parents, leaf = key.split(".")
    section = plain.setdefault(parents[0], {}) if parents else plain
    section[leaf] = value
    return ConfigDict(plain)


def test_after_divergence_only_a_lower_learning_rate_is_accepted(tmp_path):
    lower = changed("optimizer.lr", 0.05)
    for before, config, accepted in (
        (None, changed("optimizer.lr", 0.1), True),
        (None, lower, False),
        (0.1, changed("optimizer.lr", 0.2), False),
        (0.1, changed("seed", 2), False),
        (0.1, lower, True),
        (None, changed("optimizer.lr", 0.01), False),  # It has not diverged again.
    ):
        if before is not None:
            directory.mark_diverged(tmp_path, before)
        if accepted:
            with directory.claim(tmp_path, config):
                pass
        else:
            with pytest.raises(ConfigError, match="another config"):
                with directory.claim(tmp_path, config):
                    pass
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["lr"] == 0.05


def test_a_directory_has_one_owner(tmp_path):
    with directory.claim(tmp_path, CONFIG):
        with pytest.raises(InputError, match=r"in use by process \d+ on .* since 20"):
            with directory.claim(tmp_path, CONFIG):
                pass
    with directory.claim(tmp_path, CONFIG):
        pass


def test_an_owner_that_failed_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with directory.claim(tmp_path, CONFIG):
            _ = 1 / 0
    with directory.claim(tmp_path, CONFIG):
        pass


def test_a_config_that_was_cut_off_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        with directory.claim(tmp_path, CONFIG):
            pass


def loaded(root, **manifest) -> model_lib.LoadedRun:
    data = {"name": "coco", "root": str(root), "split": "val2017"}
    return model_lib.LoadedRun({}, {"data": data, **manifest}, COCO, None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=2, val=1, seed=0)
    return root


def test_the_evaluation_data_can_lie_elsewhere_or_be_another_split(root):
    assert len(loaded(root).eval_table().images) == 1
    moved = loaded("nowhere").eval_table(data=str(root), split="train2017")
    assert len(moved.images) == 2
    with pytest.raises(InputError, match="nowhere"):
        loaded("nowhere").eval_table()


def test_boxes_of_a_detector_stand_beside_the_truth(root, tmp_path):
    truth = loaded(root).eval_table()
    box = {"image_id": int(truth.image_ids[0]), "category_id": 1, "score": 0.5}
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{**box, "bbox": [1, 2, 30, 40]}]))
    table = loaded(root).eval_table(boxes=str(path))
    assert table.box_source == "detections" and not table.labelled
    assert table.truth.fingerprint() == truth.fingerprint()
    other = loaded(root, data={"name": "lsp", "root": "x", "split": "test"})
    with pytest.raises(
        ConfigError, match=r"data sets 'coco', 'prepared'; this run's is 'lsp'"
    ):
        other.eval_table(boxes=str(path))


def test_data_of_another_keypoint_set_are_refused(root):
    run = model_lib.LoadedRun({}, loaded(root).manifest, LSP, None)
    with pytest.raises(InputError, match=r"has keypoint set 'lsp', .* has 'coco'"):
        run.eval_table()


def test_a_run_without_a_model_says_so(tmp_path):
    with pytest.raises(InputError, match="no model found"):
        model_lib.load(tmp_path)
    assert not states.whole_steps(tmp_path / "checkpoints" / "pose")


def test_a_run_without_keypoints_is_a_detector_s(tmp_path):
    manifest = {
        "method": {"name": "detector"},
        "keypoints": None,
        "input": {"batch_size": 2},
        "data": {"name": "coco", "root": "", "split": "val2017"},
    }
    model_lib.save_model(tmp_path / "model", {"detector": {"params": {}}}, manifest)
    run = model_lib.load(tmp_path)
    assert run.keypoints is None and run.input.batch_size == 2


@pytest.mark.parametrize("keypoint_set", [COCO, LSP])
def test_a_detector_takes_data_of_any_keypoints(keypoint_set, root, monkeypatch):
    table = make_table(keypoint_set=keypoint_set)
    monkeypatch.setattr(model_lib.data_lib, "load", lambda source, *_: table)
    run = model_lib.LoadedRun({}, loaded(root).manifest, None, None)
    assert run.eval_table() is table
