"""One preprocessing for training, evaluation and prediction; every row exactly once."""

import dataclasses
import json
import re
import types

import jax
import numpy as np
import pytest
from PIL import Image

import pose_jax
from pose_jax import cli, methods, trees
from pose_jax import sharding as sharding_lib
from pose_jax.data import box_file, coco
from pose_jax.data.plan import InputConfig
from pose_jax.data.synthetic import scenes
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import boxes as of_boxes
from pose_jax.evaluation import evaluate
from pose_jax.evaluation.predictor import Predictor, holding
from pose_jax.keypoints import COCO, LSP
from pose_jax.runs import model as model_lib
from pose_jax.types import Boxes
from tests.made_up import (
    DetectorConfig,
    MadeUpDetector,
    make_table,
    right_answers,
)

METHOD = {
    "name": "dark",
    "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
    "input_size": (64, 64),
    "sigma": 1.5,
}
VOTES = {"name": "multipose", "model": {"name": "multipose_50"}}
CASCADE = {"name": "deeppose", "model": {"name": "deeppose"}}
INPUT = {"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=1, val=6, seed=1)
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A run of an untrained network, whose last layer is random so that maps differ."""
    run = tmp_path_factory.mktemp("run")
    method = methods.build(METHOD, COCO)
    key = jax.random.key(0)
    variables = jax.device_get(jax.jit(method.phases[0].init)(key))
    rng = np.random.default_rng(0)
    head = max(
        (p for p in trees.flatten(variables["params"]) if p[-1] == "kernel"),
        key=lambda p: trees.flatten(variables["params"])[p].shape[-1] == 17,
    )
    node = variables["params"]
    for name in head[:-1]:
        node = node[name]
    node["kernel"] = rng.normal(size=node["kernel"].shape).astype(np.float32)
    manifest = {
        "method": METHOD,
        "keypoints": COCO.to_json(),
        "input": INPUT,
        "data": {"name": "coco", "root": str(root), "split": "val2017"},
        "scores": {},
    }
    model_lib.save_model(run / "model", {"pose": variables}, manifest)
    return run


@pytest.fixture(scope="module")
def evaluated(run):
    found = evaluate.evaluate_run(run, decoders=("argmax", "dark"))
    found = {name: each.metrics for name, each in found.items()}
    results = json.loads(
        (run / "eval" / "gt_boxes" / "dark" / "predictions.json").read_text()
    )
    return found, results


def test_eval_writes_metrics_with_the_box_source_in_their_names(run, evaluated):
    found, _ = evaluated
    assert list(found) == ["argmax", "dark"]
    for name in ("AP@gt_boxes", "AP50@gt_boxes", "pixel_error@gt_boxes"):
        assert np.isfinite(found["dark"][name])
    assert "PDJ@0.2@gt_boxes" in found["dark"]
    written = json.loads((run / "eval/gt_boxes/dark/metrics.json").read_text())
    assert written == found["dark"]


def test_predict_on_a_validation_image_equals_eval(root, run, evaluated, tmp_path):
    """The same boxes of the same images through `predict`: the same numbers."""
    table = coco.load(root, "val2017")
    rows = table.labelled_rows()
    boxes = [
        {
            "image_id": int(table.image_ids[table.image[r]]),
            "bbox": [
                *table.boxes_xyxy[r, :2].tolist(),
                *(table.boxes_xyxy[r, 2:] - table.boxes_xyxy[r, :2]).tolist(),
            ],
        }
        for r in rows
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    out = tmp_path / "out"
    argv = ["predict", *map(str, table.images), "--run", str(run)]
    argv += ["--boxes", str(tmp_path / "boxes.json"), "--out", str(out)]
    assert cli.main(argv) == 0
    predicted = json.loads((out / "predictions.json").read_text())
    assert len(predicted) == len(evaluated[1]) == len(rows)
    for ours, theirs in zip(predicted, evaluated[1], strict=True):
        assert ours["image_id"] == theirs["image_id"]
        np.testing.assert_array_equal(ours["keypoints"], theirs["keypoints"])
        assert ours["score"] == theirs["score"]
    for image in table.images:
        assert (out / f"{image.stem}.png").exists()


def test_load_takes_paths_and_arrays_alike(root, run):
    people = pose_jax.load(run)
    paths = sorted((root / "val2017").glob("*.jpg"))[:3]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    a, b = people(paths), people(arrays)
    assert [len(found) for found in a] == [1, 1, 1]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one[0].points_xy, other[0].points_xy)
    assert people([]) == []
    opencv = people([array[..., ::-1] for array in arrays], channels="bgr")
    for one, other in zip(b, opencv, strict=True):
        np.testing.assert_array_equal(one[0].points_xy, other[0].points_xy)
    with pytest.raises(ConfigError, match="channels is one of rgb, bgr; got 'RGB'"):
        people(arrays, channels="RGB")
    with pytest.raises(InputError, match=r"uint8 arrays \[h, w, 3\] \(RGB\)"):
        people([arrays[0][..., 0]])
    nobody = people(paths, boxes=[np.zeros((0, 4))] * 3)
    assert nobody == [[], [], []]


@pytest.mark.parametrize(
    ("rows", "largest", "size"),
    [(0, 8, 1), (1, 32, 1), (2, 32, 2), (3, 32, 4), (16, 32, 16), (17, 32, 32),
     (33, 32, 32), (9, 12, 12), (5, 12, 8), (1, 1, 1)],
)  # fmt: skip
def test_a_batch_is_no_larger_than_its_rows_need(rows, largest, size):
    assert holding(rows, largest) == size


def test_predict_traces_once_over_images_and_crowds_of_all_sizes(run):
    people = pose_jax.load(run)
    rng = np.random.default_rng(0)
    for w, h, n in ((30, 40, 1), (640, 480, 3), (200, 900, 7), (1, 1, 1)):
        image = rng.integers(0, 255, (h, w, 3), np.uint8)
        boxes = np.array([[0, 0, w, h]] * n, float)
        (found,) = people([image], boxes=[boxes])
        assert len(found) == n
        assert all(np.isfinite(p.points_xy).all() for p in found)
    assert people.predictor.traces == 1


def test_exif_rotation_is_applied(run, tmp_path):
    """A stored image with a rotation tag equals the same image stored upright."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (12, 9, 3), np.uint8))
    upright = small.resize((90, 120), Image.Resampling.BICUBIC)
    upright.save(tmp_path / "upright.png")
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be shown turned by 90 degrees clockwise.
    turned.save(tmp_path / "turned.png", exif=exif)
    people = pose_jax.load(run)
    a, b = people([tmp_path / "upright.png", tmp_path / "turned.png"])
    np.testing.assert_array_equal(a[0].points_xy, b[0].points_xy)


def test_every_row_counts_once_and_keeps_its_place(root, run):
    """Batches of any size, also one that leaves a remainder, give the same poses."""
    loaded = model_lib.load(run)
    table = coco.load(root, "val2017")
    predictor = Predictor(loaded.method(), sharding_lib.make_mesh())
    rows = table.labelled_rows()
    found = {}
    for size in (4, 8):
        config = InputConfig(size, (320, 256), "numpy")
        found[size] = predictor(loaded.variables, table, config)
    np.testing.assert_array_equal(found[4].row, rows)
    np.testing.assert_array_equal(found[8].row, rows)
    np.testing.assert_allclose(found[4].points_xy, found[8].points_xy, atol=1e-2)
    shuffled = np.random.default_rng(0).permutation(rows)
    config = InputConfig(4, (320, 256), "numpy")
    again = predictor(loaded.variables, table, config, shuffled)
    np.testing.assert_array_equal(again.row, shuffled)


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["eval", "--run", "nowhere"], 1, "nowhere"),
        (["eval", "--run", "RUN", "--decoder", "drak"], 2, "'dark'"),
        (["eval", "--run", "RUN", "--data", "nowhere"], 1, "nowhere"),
        (["eval"], 2, "--run RUN or --compare"),
        (["eval", "--run", "RUN", "--compare", "RUN", "RUN"], 2, "--compare"),
        (["eval", "--run", "RUN", "--flip", "both"], 2, "flip_test"),
        (["eval", "--run", "RUN", "--nms-threshold", "2"], 2, "nms_threshold"),
        (["eval", "--run", "RUN", "--max-detections", "0"], 2, "max_detections"),
        (["eval", "--run", "RUN", "--boxes", "nowhere.json"], 1, "nowhere.json"),
        (["predict", "nothing.jpg", "--run", "RUN"], 1, "nothing.jpg: no such file"),
        (["predict", "IMAGE", "--run", "RUN", "--boxes", "no.json"], 1, "no.json"),
    ],
)
def test_bad_input_is_one_line(argv, code, says, root, run, tmp_path, capsys):
    image = str(next((root / "val2017").glob("*.jpg")))
    argv = [{"RUN": str(run), "IMAGE": image}.get(word, word) for word in argv]
    assert cli.main(argv) == code
    err = capsys.readouterr().err
    assert says in err and len(err.strip().splitlines()) == 1


def test_boxes_may_come_from_an_annotation_file(root):
    """Everybody's box but the crowds'."""
    table = coco.load(root, "val2017")
    path = root / "annotations" / "person_keypoints_val2017.json"
    given = box_file.read(path, table.images)
    assert given.ids == table.image_ids.tolist()
    for image, found in enumerate(given.boxes_xyxy):
        rows = table.people_of_image(image)
        rows = rows[~table.crowd[rows]]
        np.testing.assert_allclose(found, table.boxes_xyxy[rows])
    assert all((s == 1).all() for s in given.scores)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "json"),
        ("{}", "list"),
        ('[{"image_id": 1}]', "entry 0 must have 'bbox'"),
        ('[{"bbox": [1, 2, 3], "image_id": 1}]', "entry 0"),
        ('[{"bbox": [1, 2, 3, 4], "image_id": 77}]', "none of its 1 boxes"),
    ],
)
def test_bad_boxes_are_one_line(text, says, tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        box_file.read(path, [tmp_path / "000000000001.jpg"])


def test_unreadable_images_are_named_and_the_others_done(root, run, tmp_path, capsys):
    good = next((root / "val2017").glob("*.jpg"))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    argv = ["predict", str(tmp_path / "bad.jpg"), str(good)]
    assert cli.main([*argv, "--run", str(run), "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert "bad.jpg" in err and len(err.strip().splitlines()) == 1
    assert len(json.loads((out / "predictions.json").read_text())) == 1


def test_an_unknown_decoder_is_a_config_error(run):
    with pytest.raises(ConfigError):
        model_lib.load(run).method("drak")


# A detector: one row is one image, predictions are boxes.


def mixed_table() -> Table:
    """Seven images in turns wide and high, two people in each, in the last nobody."""
    table = make_table(12)
    sizes = [(320, 256) if i % 2 else (256, 320) for i in range(7)]
    low = np.random.default_rng(0).uniform(0, 100, (12, 2))
    return dataclasses.replace(
        table,
        images=tuple(
            np.full((h, w, 3), 9 * i, np.uint8) for i, (w, h) in enumerate(sizes)
        ),
        image_ids=np.arange(7) + 100,
        image_sizes=np.array(sizes, np.int32),
        boxes_xyxy=np.concatenate([low, low + (100, 150)], -1),
    )


@pytest.mark.parametrize("batch_size", [4, 8])
def test_every_image_counts_once_over_canvases_of_several_sizes(batch_size):
    """Images of two buckets fill no batch of 4: all are found, and no padding is."""
    table = mixed_table()
    variables = {"detector": right_answers(table)}
    method = MadeUpDetector(DetectorConfig("made_up_detector", images=7))
    predictor = Predictor(method, sharding_lib.make_mesh())
    config = InputConfig(batch_size, reader="numpy")
    evaluation = evaluate.evaluate(predictor, variables, table, config)
    metrics, boxes = evaluation.metrics, evaluation.predictions
    np.testing.assert_array_equal(boxes.row, np.arange(7))
    assert predictor.traces == 2
    np.testing.assert_array_equal(boxes.valid.sum(1), [2] * 6 + [0])
    np.testing.assert_allclose(
        boxes.boxes_xyxy[:6, :2].reshape(-1, 4), table.boxes_xyxy
    )
    assert metrics["box_AP"] == metrics["box_AR"] == 1
    assert list(metrics) == of_boxes.names(table)
    some = predictor(variables, table, config, np.array([6, 1, 4]))
    np.testing.assert_array_equal(some.row, [6, 1, 4])
    np.testing.assert_array_equal(some.boxes_xyxy, boxes.boxes_xyxy[[6, 1, 4]])


@pytest.fixture
def detector_run(root, tmp_path, monkeypatch):
    """A run of a detector that finds everybody of the validation images."""
    monkeypatch.setitem(methods.METHODS, "made_up_detector", MadeUpDetector)
    run = tmp_path / "detector"
    variables = {"detector": right_answers(coco.load(root, "val2017"))}
    manifest = {
        "method": {"name": "made_up_detector", "images": 6},
        "keypoints": None,
        "input": INPUT,
        "data": {"name": "coco", "root": str(root), "split": "val2017"},
        "evaluation": {"nms": "oks"},
        "scores": {},
    }
    model_lib.save_model(run / "model", variables, manifest)
    return run


def test_a_detector_s_boxes_are_what_a_pose_model_is_evaluated_on(
    detector_run, run, root, capsys
):
    assert cli.main(["eval", "--run", str(detector_run)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^box_AP +1\.000$", printed, re.MULTILINE)
    out = detector_run / "eval" / "images"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["box_AP"] == metrics["box_AP50"] == 1
    assert {p.name for p in out.glob("*.png")} == {"predictions.png", "worst.png"}
    detections = out / "detections.json"
    table = coco.load(root, "val2017", detections=detections)
    assert len(table) == len(table.truth.labelled_rows())
    np.testing.assert_array_equal(table.image, table.truth.image)
    np.testing.assert_allclose(
        table.boxes_xyxy, table.truth.boxes_xyxy, rtol=0, atol=2e-3
    )
    poses = evaluate.evaluate_run(run, boxes=str(detections), nms="none")
    (found,) = poses.values()
    # The same boxes but for their rounding: as good as on those annotated.
    (annotated,) = evaluate.evaluate_run(run).values()
    expected = pytest.approx(annotated.metrics["AP@gt_boxes"], abs=1e-3)
    assert found.metrics["AP@detections"] == expected
    assert (run / "eval" / "detections" / "dark" / "predictions.json").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--decoder", "dark"),
        ("--flip", "none"),
        ("--boxes", "some.json"),
        ("--nms", "oks"),
        ("--nms-threshold", "0.5"),
        ("--max-detections", "30"),
    ],
)
def test_options_of_poses_are_refused_to_a_detector(option, detector_run, capsys):
    assert cli.main(["eval", "--run", str(detector_run), *option]) == 2
    err = capsys.readouterr().err
    assert f"{option[0]} is not supported" in err and "is a detector" in err
    assert len(err.strip().splitlines()) == 1


def test_a_detector_is_measured_on_data_of_any_keypoints(detector_run, monkeypatch):
    loaded = model_lib.load(detector_run)
    assert loaded.keypoints is None and loaded.method().keypoints is None
    other = make_table(keypoint_set=LSP)
    monkeypatch.setattr(model_lib.data_lib, "load", lambda source, *_: other)
    assert loaded.eval_table() is other


def test_a_picture_of_boxes_shows_the_sure_ones_and_a_few_others(root):
    table = coco.load(root, "val2017")
    n = 9
    boxes = Boxes(
        boxes_xyxy=np.tile(np.float32([[30, 40, 60, 90]]), (1, n, 1))
        + np.arange(n)[:, None],
        scores=np.linspace(0.8, 0.1, n, dtype=np.float32)[None],
        valid=np.arange(n)[None] != 1,
        row=np.array([2], np.int32),
    )
    drawn = []

    def draw(pixels, boxes_xyxy, *, scores, **_):
        drawn.append(scores)
        return pixels

    with pytest.MonkeyPatch.context() as m:
        m.setattr(drawing, "draw_boxes", draw)
        of_boxes.draw(table, boxes, 2)
        few = dataclasses.replace(boxes, scores=boxes.scores / 10)
        of_boxes.draw(table, few, 2)
    kept = boxes.scores[0][boxes.valid[0]]
    np.testing.assert_allclose(drawn[0], kept[kept >= 0.5])
    np.testing.assert_allclose(drawn[1], kept[:3] / 10)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (VOTES, "hough"),
        ({**VOTES, "decoder": "argmax"}, "argmax"),
        (METHOD, "dark"),
        (CASCADE, "deeppose"),
        ({**CASCADE, "decoder": ""}, "deeppose"),
    ],
)
def test_a_read_out_that_no_config_names_is_called_what_it_is(
    section, name, monkeypatch
):
    loaded = model_lib.LoadedRun({}, {"method": section}, COCO, None)
    monkeypatch.setattr(
        model_lib.LoadedRun,
        "method",
        lambda self, decoder=None, flip=None, weighting=None: types.SimpleNamespace(
            config=None
        ),
    )
    assert list(evaluate._variants(loaded, (), ())) == [name]
    assert list(evaluate._variants(loaded, ("shift",), ())) == ["shift"]


def test_predict_with_a_detector_equals_eval_on_its_boxes(
    detector_run, run, root, tmp_path, capsys
):
    assert cli.main(["eval", "--run", str(detector_run)]) == 0
    boxes = str(detector_run / "eval/images/detections.json")
    argv = ["eval", "--run", str(run), "--boxes", boxes, "--nms-threshold", "0.5"]
    assert cli.main(argv) == 0
    evaluated = json.loads((run / "eval/detections/dark/predictions.json").read_text())
    out = tmp_path / "out"
    images = sorted((root / "val2017").glob("*.jpg"))
    argv = ["predict", *map(str, images), "--run", str(run), "--slots", "3"]
    argv += ["--detector", str(detector_run), "--out", str(out)]
    assert cli.main(argv) == 0
    predicted = json.loads((out / "predictions.json").read_text())
    assert len(predicted) == len(evaluated) > 6

    def by_score(results):
        return sorted(results, key=lambda r: (r["image_id"], -r["score"]))

    for ours, theirs in zip(by_score(predicted), by_score(evaluated), strict=True):
        assert ours["image_id"] == theirs["image_id"]
        np.testing.assert_allclose(ours["score"], theirs["score"], rtol=1e-3)
        np.testing.assert_allclose(ours["keypoints"], theirs["keypoints"], atol=0.05)
    for path in images:
        assert (out / f"{path.stem}.png").exists()


def make_strange_images(folder):
    """Files that are odd, and files that are wrong."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (60, 80, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(folder / "good.png")
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("L", (4000, 3000), 90).save(folder / "large.png")
    image.convert("L").save(folder / "gray.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    others = [image.rotate(90), image.rotate(180)]
    image.save(folder / "moving.gif", save_all=True, append_images=others)
    (folder / "text.jpg").write_text("no image")
    good = ["good.png", "tiny.png", "large.png", "gray.png", "cmyk.jpg", "moving.gif"]
    return good, ["truncated.jpg", "text.jpg", "absent.png"]


def test_strange_images_are_looked_at_and_wrong_ones_named(
    detector_run, run, tmp_path, capsys
):
    good, bad = make_strange_images(tmp_path)
    out = tmp_path / "out"
    names = [bad[0], *good[:3], bad[1], *good[3:], bad[2]]
    argv = ["predict", *(str(tmp_path / name) for name in names), "--run", str(run)]
    argv += ["--detector", str(detector_run), "--out", str(out), "--oks-nms", "1"]
    assert cli.main(argv) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == len(bad) + 1
    for name, line in zip([bad[0], bad[1], "moving.gif", bad[2]], lines, strict=True):
        assert name in line
    assert "animated image (3 frames)" in lines[2]
    found = json.loads((out / "predictions.json").read_text())
    assert {person["file_name"] for person in found} == set(good)
    assert all(np.isfinite(person["keypoints"]).all() for person in found)
    assert sorted(path.stem for path in out.glob("*.png")) == sorted(
        name.split(".")[0] for name in good
    )


@pytest.mark.slow
def test_an_image_of_a_hundred_megapixels(detector_run, run, tmp_path, capsys):
    Image.new("L", (12_000, 9_000), 90).save(tmp_path / "huge.png")
    argv = ["predict", str(tmp_path / "huge.png"), "--run", str(run)]
    argv += ["--detector", str(detector_run), "--out", str(tmp_path / "out")]
    assert cli.main(argv) == 0
    assert not capsys.readouterr().err


def test_an_image_of_nobody_gives_an_empty_list(detector_run, run, root):
    people = pose_jax.load(run, detector=detector_run, slots=3)
    variables = people.system._variables[0]["detector"]["params"]
    assert variables["scores"].shape == (6, 3)
    pixels = np.zeros((50, 60, 3), np.uint8)
    found = people([pixels] * 6)
    assert [bool(persons) for persons in found] == [
        bool((variables["scores"][i] > 0).any()) for i in range(6)
    ]
    assert people([]) == []
    # Boxes that are given are those that are looked at.
    (persons,) = people([pixels], boxes=[np.array([[1.0, 2, 30, 40]])])
    np.testing.assert_array_equal(persons[0].box_xyxy, [1, 2, 30, 40])


def test_boxes_without_a_slot_are_said(detector_run, run, root, tmp_path, capsys):
    images = sorted(map(str, (root / "val2017").glob("*.jpg")))
    argv = ["predict", *images, "--run", str(run), "--detector", str(detector_run)]
    assert cli.main([*argv, "--slots", "1", "--out", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    table = coco.load(root, "val2017")
    more = [len(table.people_of_image(i)) - 1 for i in range(6)]
    assert any(more)
    assert len(err.strip().splitlines()) == sum(n > 0 for n in more)
    assert "1 detections were dropped" in err


def test_runs_in_each_others_place_are_one_line(detector_run, run, capsys):
    for argv, code, word in (
        (
            ["--run", str(run), "--detector", str(run)],
            1,
            "method 'dark': give a run of method 'detector'",
        ),
        (["--run", str(detector_run)], 1, "is a detector and predicts no poses"),
        (["--run", str(run), "--slots", "3"], 2, "slots: requires a detector"),
        (
            ["--run", str(run), "--detector", str(detector_run), "--boxes", "b.json"],
            2,
            "not both",
        ),
        (
            ["--run", str(run), "--detector", str(detector_run), "--slots", "0"],
            2,
            "slots must be at least 1",
        ),
    ):
        assert cli.main(["predict", "a.jpg", *argv]) == code
        err = capsys.readouterr().err
        assert word in err and len(err.strip().splitlines()) == 1
