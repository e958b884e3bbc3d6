"""experiments/multipose/ablation.py: which networks, whose people, what they differ by."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.multipose import ablation
from pose_jax import config, keypoints, methods
from pose_jax.methods import multipose
from tests.made_up import make_poses, make_table

ROOT = Path(__file__).parents[2]


def moved(table, by, seed=0):
    """Predictions that are off by about `by` pixels."""
    rng = np.random.default_rng(seed)
    poses = make_poses(table)
    off = rng.normal(0, by, poses.points_xy.shape).astype(np.float32)
    return dataclasses.replace(poses, points_xy=poses.points_xy + off)


@pytest.fixture(scope="module")
def people():
    return make_table(40)


@pytest.fixture(scope="module")
def means(people):
    """A row further down the list is better, by a lot."""
    return {
        row: ablation.metrics_of(people, [moved(people, 14 - i)], samples=30)
        for i, row in enumerate(ablation.WORDS)
    }


def cells(text):
    return [row.strip("| ").split(" | ") for row in text.splitlines()[2:]]


# ------------------------------------------------------------------------------ training


@pytest.fixture
def said(monkeypatch, tmp_path):
    """The commands that would train; the configs are found, data and runs are not."""
    words = []
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation.scenes, "write_dataset", lambda *a, **k: "made")
    monkeypatch.setattr(
        ablation.subprocess, "run", lambda command, check: words.append(command)
    )
    return words


def load(command):
    overrides = command[command.index("--run") + 2 :]
    return config.load(command[command.index("--config") + 1], overrides)


def test_every_network_differs_from_the_base_in_one_value(said):
    found = ablation.train(Path("runs"), [0, 1])
    assert len(said) == 16 and all(len(paths) == 2 for paths in found.values())
    base, *others = map(load, said[:8])
    own = config.load(str(ROOT / ablation.CONFIG))
    assert config.to_json(base) == config.to_json(own)
    names = [Path(command[command.index("--run") + 1]).name for command in said]
    assert names[0] == "base_seed0" and names[8] == "base_seed1"
    for name, loaded in zip(names[1:8], others, strict=True):
        methods.build(loaded.method, keypoints.COCO)
        (changed,) = config.differences(loaded, base)
        variants = {
            k: v for part in ablation.VARIANTS.values() for k, v in part.items()
        }
        assert variants[name.removesuffix("_seed0")].startswith(f"{changed}=")
    assert [load(command).seed for command in said[7:9]] == [0, 1]


def test_radii_and_decoders_are_what_the_tables_say(said):
    ablation.train(Path("runs"), [0], parts=["radius"])
    radii = [load(command).method.radius for command in said]
    np.testing.assert_allclose(np.array(radii) / radii[0], [1, 0.6, 1.5], rtol=0.01)
    assert f"R {radii[0]:g} px" in ablation.WORDS["base"]
    assert load(said[0]).method.decoder == "hough"
    assert {*ablation.DECODERS, "hough"} == set(multipose.DECODERS)


@pytest.mark.parametrize(
    "parts, networks",
    [
        (["decoders"], ["base"]),
        (["delta", "others"], ["base", "others_none", "others_both"]),
    ],
)
def test_a_part_trains_the_base_and_its_own(parts, networks):
    trained = list(ablation.trained(parts))
    assert trained[: len(networks)] == networks
    assert all(name.startswith("delta_") for name in trained[len(networks) :])


def test_only_a_model_of_the_same_config_is_kept(said, monkeypatch, capsys):
    ablation.train(Path("runs"), [0], parts=["auxiliary"], steps=7)
    assert [load(command).train.steps for command in said] == [7, 7]
    for command in said:  # As if they had been trained, the second not to its end.
        run = Path(command[command.index("--run") + 1])
        (run / "model").mkdir(parents=True)
        (run / "config.json").write_text(config.to_json(load(command)))
    (Path("runs") / "base_seed0/model/manifest.json").write_text(json.dumps({}))
    said.clear()
    ablation.train(Path("runs"), [0], parts=["auxiliary"], steps=7)
    assert ["no_auxiliary_seed0" in " ".join(command) for command in said] == [True]
    said.clear()
    ablation.train(Path("runs"), [0], parts=["auxiliary"], steps=8)
    assert len(said) == 2


# -------------------------------------------------------------------------------- people


def test_crowded_people_have_somebody_else_s_keypoint_in_their_box():
    table = make_table(6)  # Two an image.
    low = np.array([[0, 0], [50, 0], [0, 0], [300, 0], [0, 0], [50, 0]], float)
    points_xy = low[:, None] + np.linspace(10, 90, 17).reshape(1, 17, 1)
    visibility = table.visibility.copy()
    visibility[5] = 0  # Nobody knows where the joints of the last one are.
    table = dataclasses.replace(
        table,
        points_xy=points_xy,
        boxes_xyxy=np.concatenate([low, low + 100], axis=1),
        visibility=visibility,
    )
    assert ablation.crowded(table).tolist() == [0, 1]
    visibility[5, 0] = 1
    assert ablation.crowded(table).tolist() == [0, 1, 4, 5]


def test_metrics_of_some_people_are_those_of_a_table_of_them_alone(people):
    rows = np.array([3, 4, 11, 30])
    poses = moved(people, 6)
    table, (mine,) = ablation.of_people(people, [poses], rows)
    assert mine.row.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(mine.points_xy, poses.points_xy[rows])
    np.testing.assert_array_equal(table.points_xy, people.points_xy[rows])
    assert table.images == people.images
    values = ablation.resample(table, [mine], samples=2)
    distance = np.linalg.norm(poses.points_xy - people.points_xy, axis=-1)
    assert values["pixel_error@gt_boxes"][0] == pytest.approx(distance[rows].mean())


def test_a_table_without_crowds_has_no_columns_of_them(people):
    alone = dataclasses.replace(
        people, image=np.arange(len(people), dtype=np.int32) % len(people.images)
    )
    both = ablation.metrics_of(people, [moved(people, 6)], samples=2)
    assert set(both) == set(ablation.METRICS)
    apart = alone.boxes_xyxy[:, [0, 1, 0, 1]] + np.array([-2, -2, -1, -1])
    alone = dataclasses.replace(alone, boxes_xyxy=apart)
    found = ablation.metrics_of(alone, [moved(alone, 6)], samples=2)
    assert found and not any(name.startswith(ablation.CROWDED) for name in found)
    text = ablation.scores({"base": found}, {"base": [0.5]})
    assert ablation.CROWDED not in text


# -------------------------------------------------------------------------------- tables


def test_scores_have_a_row_for_each_network_and_decoder(means):
    rows = cells(ablation.scores(means, {row: [0.25, 0.5] for row in means}))
    assert [row[0] for row in rows] == list(ablation.WORDS.values())
    assert all(row[1].endswith("(0.250, 0.500)") for row in rows)
    for column in (1, 5, 6, 7):
        values = [float(row[column].split()[0]) for row in rows]
        assert values == sorted(values) and values[0] < values[-1]


def test_differences_are_to_the_base_with_intervals(means):
    rows = cells(ablation.differences(means))
    assert [row[0] for row in rows] == [
        f"{words} - base" for words in list(ablation.WORDS.values())[1:]
    ]
    own = means["delta_3"]["AP@gt_boxes"] - means["base"]["AP@gt_boxes"]
    assert rows[-1][1] == ablation.with_interval(own) and rows[-1][1].startswith("**+")


def test_parts_that_were_not_measured_are_left_out(means):
    some = {row: means[row] for row in ("base", "argmax")}
    text = ablation.report(some, {row: [0.5] for row in some}, "7 people", [0])
    assert "R 4.3" not in text and "heatmap argmax, without" in text
    alone = ablation.report({"base": means["base"]}, {"base": [0.5]}, "7 people", [0])
    assert "difference |" not in alone


def test_the_paper_s_numbers_are_those_of_the_config_and_named_as_the_paper_s():
    text = " ".join((ROOT / "configs/multipose/coco_101.py").read_text().split())
    names = ("AP", "AP50", "AP75", "APm", "APl", "AR")
    for values in ablation.PAPER.values():
        said = ", ".join(f"{n} {v:.1f}" for n, v in zip(names, values, strict=True))
        assert said in text
    assert all("paper's" in line for line in ablation.paper().split("\n\n"))


def test_an_unknown_part_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        ablation.main(["--only", "decoders,raduis"])
    assert "no part 'raduis'" in (said := capsys.readouterr().err)
    assert "Did you mean 'radius'?" in said


@pytest.mark.slow
def test_the_ablation_runs_from_the_data_to_the_tables(tmp_path):
    out = tmp_path / "ablation.md"
    subprocess.run(
        [
            *(sys.executable, "-m", "experiments.multipose.ablation", "--smoke"),
            *("--runs", str(tmp_path / "runs"), "--out", str(out)),
        ],
        check=True,
        cwd=ROOT,
    )
    rows = out.read_text()
    assert all(words in rows for words in ablation.WORDS.values())
