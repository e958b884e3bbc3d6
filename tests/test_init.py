"""`pose-jax init`: the configs that it writes, which can be built and trained as they are.

Steps are not measured but in the slow test.
"""

import ast
import json
import shutil

import numpy as np
import pytest

from pose_jax import cli, config, init, methods
from pose_jax.data.synthetic import scenes
from pose_jax.training import config as training_config
from pose_jax.training import measure


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("init") / "frames"
    scenes.write_dataset(root, n=12, val=3, seed=0, difficulty="easy")
    return root


def edited(root, to, edit, splits=("train2017", "val2017")):
    """A copy of a data set whose files are edited, with some of its splits."""
    shutil.copytree(root, to)
    for file in to.glob("annotations/*.json"):
        data = json.loads(file.read_text())
        edit(data)
        file.unlink()
        if any(split in file.name for split in splits):
            file.write_text(json.dumps(data))
    return to


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs init; a step takes as long as the test says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSE_JAX_WEIGHTS", raising=False)

    def run(root, *options, seconds=0.5, start="scratch"):
        cost = measure.StepCost(seconds, 100, "a device")
        monkeypatch.setattr(measure, "step_cost", lambda s: cost)
        words = ["init", str(root), "--out", "mine.py", "--start", start, *options]
        code = cli.main(words)
        return code, *capsys.readouterr()

    return run


def built(file):
    return config.build(training_config.Config, config.load(str(file)))


def test_one_in_each_image_gets_a_config_that_can_be_built(run, root, tmp_path):
    code, out, err = run(root)
    assert code == 0, err
    assert not (tmp_path / "mine_detector.py").exists()
    c = built("mine.py")
    assert c.data.train.split == "train2017" and c.data.eval.split == "val2017"
    assert c.method["name"] == "dark" and c.train.init_from == ""
    assert c.train.best_metric == "PCK@0.2@gt_boxes"
    assert c.train.keep == "best" and c.train.patience == 5
    assert c.input.batch_size <= 8 and c.train.steps == 300
    text = (tmp_path / "mine.py").read_text()
    doc = ast.get_docstring(ast.parse(text))
    for command in (
        "pose-jax train --config mine.py --run runs/mine",
        "pose-jax predict --run runs/mine --passes 2 IMAGES",
    ):
        assert command in doc and command in out
    assert "A step takes 0.5 s and 100 MB on a device" in doc
    assert max(map(len, text.splitlines())) <= 92
    comments = [line for line in text.splitlines() if line.strip().startswith("#")]
    assert len(comments) > 15


@pytest.mark.parametrize(
    ("seconds", "options", "steps"),
    [(0.1, (), 300), (10.0, (), 110), (10.0, ("--minutes", "10"), 50)],
)
def test_training_takes_no_longer_than_it_may(run, root, seconds, options, steps):
    assert run(root, *options, seconds=seconds)[0] == 0
    c = built("mine.py")
    with open("mine.py") as file:
        words = " ".join(["--start scratch", *options])
        assert f" --out mine.py {words}`" in " ".join(file.read().split())
    assert c.train.steps == steps
    assert c.train.eval_every_steps == steps // 10


def test_several_in_an_image_also_get_a_detector(run, root, tmp_path):
    def crowd(data):
        for row in data["annotations"]:
            row["image_id"] = data["images"][row["id"] % 2]["id"]

    code, out, err = run(edited(root, tmp_path / "crowd", crowd))
    assert code == 0, err
    detector = built("mine_detector.py")
    method = methods.build(detector.method, None)
    assert detector.train.best_metric == "box_AP50"
    assert detector.data == built("mine.py").data
    scales, aspects = method.config.anchor_scales[0], method.config.anchor_aspects
    assert list(scales) == sorted(scales) and len(aspects) == 3
    assert 1.2 < aspects[1] < 4  # People stand.
    assert method.config.buckets == ((320, 256),)
    assert "predict --run runs/mine --detector runs/mine_detector IMAGES" in out


def test_small_ones_get_a_detector_even_if_alone(run, root, tmp_path):
    def far(data):
        for row in data["images"]:
            row["width"], row["height"] = 4 * row["width"], 4 * row["height"]

    code, _, err = run(edited(root, tmp_path / "far", far))
    assert code == 0, err
    assert (tmp_path / "mine_detector.py").exists()


def test_without_a_validation_split_videos_are_set_aside(run, root, tmp_path):
    renamed = {}

    def frames(data):
        for i, row in enumerate(data["images"]):
            name = f"clip{i % 6}x_{i:04}.jpg"
            renamed[row["file_name"]], row["file_name"] = name, name

    folder = edited(root, tmp_path / "clips", frames, splits=("train2017",))
    for old, new in renamed.items():
        if (folder / "train2017" / old).exists():
            (folder / "train2017" / old).rename(folder / "train2017" / new)
    code, out, err = run(folder)
    assert code == 0, err
    assert "a fifth of train2017 is set aside, in whole videos (of 6)." in out
    s = training_config.setup(config.load("mine.py"))
    videos = [
        {path.name.split("_")[0] for path in table.images}
        for table in (s.train_table, s.eval_table)
    ]
    assert [len(v) for v in videos] == [5, 1] and not videos[0] & videos[1]


def test_numbered_images_are_set_aside_by_image_and_this_is_said(run, root, tmp_path):
    folder = edited(root, tmp_path / "one", lambda data: None, splits=("train2017",))
    code, out, _ = run(folder)
    assert code == 0
    assert "by image, since names of files show only 1 videos" in out
    assert "label another video" in (tmp_path / "mine.py").read_text()


def test_weights_that_cannot_be_had_are_said_and_not_needed(
    run, root, monkeypatch, tmp_path
):
    def no_network(*args, **options):
        raise init.InputError("no address answers")

    monkeypatch.setattr(init.fetch, "fetch", no_network)
    code, out, _ = run(root, start="auto")
    assert code == 0 and "could not be downloaded (no address answers)" in out
    assert built("mine.py").method["model"]["name"] == "pocket"
    (tmp_path / "mine.py").unlink()
    code, _, err = run(root, start="movenet_lightning")
    assert code == 1 and "no address answers" in err


def test_published_weights_are_a_run_beside_the_config(
    run, root, monkeypatch, tmp_path
):
    made = []

    def fetch(name, out):
        made.append((name, str(out)))
        (tmp_path / out / "model").mkdir(parents=True)

    monkeypatch.setattr(init.fetch, "fetch", fetch)
    assert run(root, start="movenet_lightning")[0] == 0
    c = built("mine.py")
    assert c.method["name"] == "cells" and c.train.init_from == "mine_movenet_lightning"
    w, h = c.method["input_size"]
    assert w % 32 == h % 32 == 0 and w < h == 192
    (tmp_path / "mine.py").unlink()
    assert run(root, start="movenet_lightning")[0] == 0
    assert made == [
        ("movenet_lightning", "mine_movenet_lightning")
    ]  # It is there already.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "mine.txt"], "a config is a Python file"),
        (["--minutes", "0"], "minutes must be positive"),
        (["--split", "nothing"], "person_keypoints_nothing.json does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, root, tmp_path, options, message):
    code, out, err = run(root, *options)
    assert code != 0 and out == ""
    assert message in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_config_is_not_replaced(run, root, tmp_path):
    (tmp_path / "mine.py").write_text("mine")
    code, _, err = run(root)
    assert code == 2 and "mine.py exists: give another --out" in err


@pytest.mark.parametrize(
    ("box", "aspect", "any_direction", "expected"),
    [
        ((80, 160), 0.5, False, (96, 128)),
        ((80, 160), 0.5, True, (128, 128)),
        ((300, 280), 1.07, False, (128, 128)),
        ((300, 100), 3.0, False, (128, 96)),
        ((40, 50), 0.8, False, (96, 96)),
    ],
)
def test_the_input_has_the_shape_of_boxes(box, aspect, any_direction, expected):
    found = init.Survey(
        images=10, people=10, keypoints=5, labeled=1.0, most=1, several=0.0, box=box,
        aspect=aspect, extent=0.5, overlapping=0.0, any_direction=any_direction,
        has_sides=True, image=(640, 480), megabytes=9,
    )  # fmt: skip
    pose = init._Pose(found, init.Sources({}, {}, ""), "pocket", "", "", "box_error@x")
    assert pose.input_size == expected
    assert all(side % 32 == 0 for side in pose.input_size)
    assert pose.augment()["rotation"] == (45.0 if any_direction else 25.0)
    assert np.prod(pose.canvas) >= np.prod(pose.input_size)
