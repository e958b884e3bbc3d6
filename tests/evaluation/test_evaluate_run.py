"""`eval` of other data than the run's: another split, categories, no labels, no boxes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from pose_jax import cli, methods
from pose_jax import data as data_lib
from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data import coco, store
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import boxes as of_boxes
from pose_jax.evaluation import compare, evaluate, poses
from pose_jax.evaluation.predictor import Predictor
from pose_jax.keypoints import COCO
from pose_jax.runs import model as model_lib
from pose_jax.types import Boxes
from tests.made_up import make_poses, make_table

METHOD = {
    "name": "dark",
    "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
    "input_size": (64, 64),
    "sigma": 1.5,
}
INPUT = {"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"}
PERSON = 2
"""The category of people in the data of these tests."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Synthetic people of category 2, a test set of the same images, and detections."""
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=1, val=3, seed=1)
    path = coco.annotation_file(root, "val2017")
    content = json.loads(path.read_text())
    for rows, name in (("annotations", "category_id"), ("categories", "id")):
        for row in content[rows]:
            row[name] = PERSON
    path.write_text(json.dumps(content))
    boxes = [
        {name: row[name] for name in ("image_id", "category_id", "bbox")}
        | {"score": 0.9}
        for row in content["annotations"]
    ]
    (root / "boxes.json").write_text(json.dumps(boxes))
    (root / "none.json").write_text("[]")
    (root / "cars.json").write_text(json.dumps([{**boxes[0], "category_id": 3}]))
    # As COCO's image_info_test-dev2017.json: other categories too, without keypoints.
    categories = [{"id": 1, "name": "car"}, {"id": PERSON, "name": "person"}]
    images = {"images": content["images"], "categories": categories}
    coco.annotation_file(root, "test").write_text(json.dumps(images))
    (root / "test").symlink_to(root / "val2017")
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A run of an untrained network."""
    run = tmp_path_factory.mktemp("run")
    phase = methods.build(METHOD, COCO).phases[0]
    variables = jax.device_get(jax.jit(phase.init)(jax.random.key(0)))
    manifest = {
        "method": METHOD,
        "keypoints": COCO.to_json(),
        "input": INPUT,
        "data": {"name": "coco", "root": str(root), "split": "val2017"},
        "scores": {},
    }
    model_lib.save_model(run / "model", {"pose": variables}, manifest)
    return run


@pytest.mark.slow
def test_results_have_the_category_of_the_data(root, run, tmp_path):
    """So that they have the same AP against the original file."""
    (found,) = evaluate.evaluate_run(run, out=tmp_path).values()
    results = json.loads((tmp_path / "gt_boxes/dark/predictions.json").read_text())
    assert {r["category_id"] for r in results} == {PERSON}
    perfect = poses.to_results(found.table, make_poses(found.table))
    file = coco.annotation_file(root, "val2017")
    values = metrics_lib.coco_keypoint_ap(file, perfect, sigmas=COCO.sigmas)
    assert values["AP"] == 1
    assert not (run / "eval").exists()  # Written to --out only.


def test_every_table_and_its_files_keep_the_category(root, tmp_path):
    table = coco.load(root, "val2017")
    boxes = coco.load(root, "val2017", detections=root / "boxes.json")
    store.prepare(table, tmp_path, dataset="ours", split="val2017")
    packed = store.load(tmp_path, "val2017", detections=root / "boxes.json")
    parts = {"a": {"name": "coco", "root": ""}, "b": {"name": "coco", "root": ""}}
    source = data_lib.SourceConfig("joined", str(root), "val2017", {"sources": parts})
    for each in (table, boxes, packed, packed.truth, data_lib.load(source)):
        assert each.category_id == PERSON
        truth = each.coco_ground_truth()
        assert truth["categories"][0]["id"] == PERSON
        assert {a["category_id"] for a in truth["annotations"]} == {PERSON}
    ones = np.ones((1, 1))
    boxes = Boxes(table.boxes_xyxy[None, :1], ones, ones > 0, table.image[:1])
    found = of_boxes.to_results(table, boxes)
    assert found and {r["category_id"] for r in found} == {PERSON}
    assert coco.load(root, "train2017").category_id == 1


def test_a_run_knows_the_category_of_its_training_data(run, tmp_path):
    assert model_lib.load(run).category_id == 1  # Of a run that does not say.
    config = {"method": METHOD, "input": INPUT, "data": {"eval": {}}}
    model_lib.write_model(
        tmp_path, config=config, method=methods.build(METHOD, COCO),
        train_table=make_table(category_id=PERSON), variables={}, scores={},
    )  # fmt: skip
    assert model_lib.load(tmp_path).category_id == PERSON


@pytest.mark.parametrize("boxes", ["none.json", "cars.json"])
def test_no_detections_at_all_are_an_ap_of_0_with_a_reason(
    boxes, root, run, tmp_path, capsys
):
    words = ["eval", "--run", run, "--boxes", root / boxes, "--out", tmp_path]
    assert cli.main([*map(str, words)]) == 0
    out = capsys.readouterr().out
    assert "note: AP@detections is 0: there are no predicted poses: no person" in out
    folder = tmp_path / "detections/dark"
    assert json.loads((folder / "metrics.json").read_text())["AP@detections"] == 0
    assert json.loads((folder / "predictions.json").read_text()) == []
    text = compare.compare(str(run), str(run), boxes=str(root / boxes), samples=2)
    assert "0 people in 3 images" in text and "AP@detections" in text


def test_a_test_set_gives_a_file_for_the_server(root, run, tmp_path, capsys):
    words = ["eval", "--run", run, "--split", "test", "--out", tmp_path]
    words = [*map(str, words)]
    assert cli.main([*words, "--boxes", str(root / "boxes.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("note: no metrics: coco test has no labels. predictions.json")
    folder = tmp_path / "detections/dark"
    results = json.loads((folder / "predictions.json").read_text())
    boxes = json.loads((root / "boxes.json").read_text())
    assert len(results) == len(boxes) and {r["category_id"] for r in results} == {
        PERSON
    }
    assert json.loads((folder / "metrics.json").read_text()) == {}
    assert cli.main(words) == 1
    assert "coco test has no annotations, hence no boxes" in capsys.readouterr().err
    with pytest.raises(InputError, match="coco test has no labels"):
        boxes = str(root / "boxes.json")
        compare.compare(str(run), str(run), split="test", boxes=boxes)
    table = coco.load(root, "test")  # A detector has its own boxes.
    assert table.ground_truth is None and len(table.images) == 3
    assert of_boxes.names(table) == []


def test_prepared_data_take_detections(root, run, tmp_path):
    table = coco.load(root, "val2017")
    store.prepare(table, tmp_path / "store", dataset="ours", split="val2017")
    loaded = model_lib.load(run)
    data = {"name": "prepared", "root": str(tmp_path / "store"), "split": "val2017"}
    loaded = dataclasses.replace(loaded, manifest={**loaded.manifest, "data": data})
    found = loaded.eval_table(boxes=str(root / "boxes.json"))
    assert found.box_source == "detections" and len(found) == len(table)
    assert found.truth.fingerprint() == table.fingerprint()


LSP_OPTIONS = {"annotations": "a.mat", "boxes": "image"}
JOINED_OPTIONS = {"sources": {"coco": {"options": {"annotations": "a", "x": 1}},
                              "lsp": {"split": "test", "options": LSP_OPTIONS},
                              "far": {"name": "lsp", "root": "/x", "split": "test",
                                      "options": LSP_OPTIONS}}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "root", "split", "dropped"),
    [
        ("coco", {"annotations": "a", "detections": "d"}, None, "test", "both"),
        ("coco", {"annotations": "a", "missing": "skip"}, "other", None, "annotations"),
        ("coco", {"annotations": "a"}, "here", "val", ""),
        ("coco", {"annotations": "a"}, None, None, ""),
        ("mpii", {"annotations": "a"}, None, "test", "annotations"),
        ("prepared", {"detections": "d"}, None, "test", "detections"),
        ("lsp", LSP_OPTIONS, None, "test", ""),
        ("lsp", LSP_OPTIONS, "other", None, "annotations"),
        ("joined", JOINED_OPTIONS, None, "test", "sources.coco.annotations"),
        (
            "joined", JOINED_OPTIONS, "other", None,
            "sources.coco.annotations sources.lsp.annotations",
        ),
    ],
)  # fmt: skip
def test_files_of_another_split_are_not_used(name, options, root, split, dropped):
    source = data_lib.SourceConfig(name, "here", "val", options)
    moved, found = data_lib.moved(source, root, split)
    dropped = {"both": "annotations detections"}.get(dropped, dropped).split()
    assert list(found) == dropped
    assert (moved.root, moved.split) == (root or "here", split or "val")
    if name != "joined":
        kept = {key: options[key] for key in options.keys() - set(dropped)}
        assert moved.options == kept
    assert source.options == options


def test_another_annotation_file_can_be_given(root, run, monkeypatch, capsys):
    """The one in the config is of its own split."""
    seen = []
    monkeypatch.setattr(data_lib, "load", lambda s, *_: seen.append(s) or make_table())
    data = {
        "name": "coco",
        "root": "r",
        "split": "val",
        "options": {"annotations": "a"},
    }
    loaded = model_lib.load(run)
    loaded = dataclasses.replace(loaded, manifest={**loaded.manifest, "data": data})
    loaded.eval_table()
    loaded.eval_table(split="test")
    loaded.eval_table(split="test", annotations="b", boxes="d")
    options = [source.options for source in seen]
    given = {"annotations": "b", "detections": "d"}
    assert options == [{"annotations": "a"}, {}, given]
    loaded.manifest["data"] = {**data, "name": "tfds", "options": {}}
    with pytest.raises(ConfigError, match="--annotations is only supported for"):
        loaded.eval_table(annotations="b")


@pytest.mark.skipif(jax.device_count() < 3, reason="needs three devices")
def test_batches_are_padded_to_the_devices(root, run):
    """Three devices share a batch of 4."""
    loaded, table = model_lib.load(run), coco.load(root, "val2017")
    one, three = (
        Predictor(loaded.method(), sharding_lib.make_mesh(jax.devices()[:n]))(
            loaded.variables, table, loaded.input
        )
        for n in (1, 3)
    )
    assert three.row.tolist() == one.row.tolist()
    np.testing.assert_allclose(three.points_xy, one.points_xy, atol=1e-3)
