"""The tables of experiments/dark: paired differences, layouts, what has not been run."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.dark import ablation, decoders, tables
from pose_jax import config
from pose_jax.evaluation import compare
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
def predicted(people):
    """A decoder further down the list is better, by a lot."""
    return {name: moved(people, 12 - 2 * i) for i, name in enumerate(decoders.DECODERS)}


def test_samples_are_those_of_eval_compare_and_the_first_is_the_whole(people):
    a, b = moved(people, 9), moved(people, 3, seed=1)
    values = [decoders.resample(people, [poses], samples=200) for poses in (a, b)]
    known = {d.name: d for d in compare.differences(people, a, b, samples=200)}
    assert set(known) == set(values[0])
    for name, difference in known.items():
        assert values[0][name][0] == pytest.approx(difference.a, abs=1e-12)
        found = decoders.interval(values[1][name] - values[0][name])
        assert found[0] == pytest.approx(difference.difference, abs=1e-12)
        # Other samples of the same people: about the same interval.
        width = difference.high - difference.low
        assert np.allclose(found[1:], (difference.low, difference.high), atol=width / 3)


def test_networks_are_averaged_sample_by_sample(people):
    both = [moved(people, 4, seed) for seed in (0, 1)]
    mean = decoders.resample(people, both, samples=5)
    single = [decoders.resample(people, [poses], samples=5) for poses in both]
    for name, values in mean.items():
        expected = (single[0][name] + single[1][name]) / 2
        np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize(
    "samples, text",
    [
        ((0.2, 0.1, 0.3), "**+0.200 [+0.105, +0.295]**"),
        ((0.2, -0.1, 0.3), "+0.200 [-0.090, +0.290]"),
        ((-0.2, -0.3, -0.1), "**-0.200 [-0.295, -0.105]**"),
    ],
)
def test_a_difference_is_bold_where_its_interval_leaves_zero_out(samples, text):
    assert decoders.with_interval(np.array(samples)) == text


def test_the_report_has_every_decoder_and_the_metrics_by_full_name(people, predicted):
    text = decoders.report(people, predicted)
    head, _, *rows = text.split("\n\n")[0].splitlines()
    assert "AP@gt_boxes" in head and "PCK@0.05@gt_boxes" in head
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [
        *decoders.DECODERS.values()
    ]
    assert "40 people in 20 images" in text


def test_the_ablation_s_tables_follow_the_values(people):
    """Unbiased better than biased, small maps worse, later decoders better."""
    means, single = {}, {}
    for i, encoding in enumerate(ablation.ENCODINGS):
        for j, size in enumerate(ablation.SIZES):
            for n, decoder in enumerate(decoders.DECODERS):
                by = 14 - 3 * i + 3 * j - n
                means[encoding, size, decoder] = decoders.resample(
                    people, [moved(people, by)], samples=30
                )
                single[encoding, size, decoder] = [0.25, 0.5]
    rows = ablation.scores(means, single).splitlines()[2:]
    assert len(rows) == 12 and all("(0.250, 0.500)" in row for row in rows)
    assert "| biased | argmax" in next(row for row in rows if "61.2" in row)
    errors = [float(row.split(" | ")[5]) for row in rows]
    for one in (errors[:6], errors[6:]):
        assert one == sorted(one, reverse=True)
    text = ablation.differences(means)
    gain = next(row for row in text.splitlines() if "all of DARK" in row)
    assert gain.count("**+") == 4
    assert text.splitlines()[-1].startswith("Gain of all of DARK at 64x48 minus gain")


def test_every_variant_of_the_ablation_is_one_of_its_config(monkeypatch, tmp_path):
    """Without training: which configs would be run."""
    said = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation.scenes, "write_dataset", lambda *a, **k: "made")
    monkeypatch.setattr(
        ablation.subprocess, "run", lambda words, check: said.append(words)
    )
    found = ablation.train(Path("runs"), [0, 1], smoke=False)
    assert len(said) == 8 and all(len(runs) == 2 for runs in found.values())
    for words, (_, size, encoding) in zip(
        said, itertools.product((0, 1), ("64x48", "128x96"), ("biased", "unbiased"))
    , strict=True):  # fmt: skip
        name = words[words.index("--config") + 1]
        loaded = config.load(ROOT / name, words[-1:])
        h, w = map(int, size.split("x"))
        assert loaded.method.encoding == encoding
        assert loaded.method.input_size == (w, h)
        assert words[words.index("--run") + 1].startswith(
            f"runs/{encoding}_{size}_seed"
        )


@pytest.mark.slow
def test_the_ablation_runs_from_the_data_to_the_tables(tmp_path):
    out = tmp_path / "ablation.md"
    subprocess.run(
        [
            *(sys.executable, "-m", "experiments.dark.ablation", "--smoke"),
            *("--seeds", "0", "--runs", str(tmp_path / "runs"), "--out", str(out)),
        ],
        check=True,
        cwd=ROOT,
    )
    assert "all of DARK" in out.read_text()


# ---------------------------------------------------------------------- tables of papers


def test_what_has_not_been_run_says_so_and_the_paper_s_numbers_stand_alone(tmp_path):
    text = tables.coco(tmp_path)
    rows = text.splitlines()[2:]
    assert len(rows) == 20 and all(tables.NOT_RUN in row for row in rows)
    assert "| HRNet-W32 | 128x96 | 28.5M | 1.8 | + DARK | 70.7 |" in text
    assert tables.ablation(tmp_path).count(tables.NOT_RUN) == len(tables.ABLATION)
    assert tables.mpii(tmp_path).count(tables.NOT_RUN) == 4


def test_the_paper_s_rows_are_those_of_the_configs():
    lines = tables.COCO.read_text().splitlines()[1:]
    configs = {path.stem for path in (ROOT / "configs/dark").glob("coco_*.py")}
    assert {f"coco_{line.split(',')[0]}" for line in lines} == configs


def write(run, source, name, metrics, joints=()):
    folder = run / "eval" / source / name
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "keypoints.json").write_text(json.dumps(joints))


@pytest.mark.parametrize("name", ["dark", "dark_paper_flip_plain"])
def test_evaluations_fill_their_row_alone(tmp_path, name):
    metrics = {
        f"{m}@detections": 0.5 + i / 10 for i, m in enumerate(tables.COCO_METRICS)
    }
    write(tmp_path / "coco_hrnet_w32_128x96", "detections", name, metrics)
    rows = [
        r for r in tables.coco(tmp_path).splitlines()[2:] if tables.NOT_RUN not in r
    ]
    assert len(rows) == 1 and "+ DARK" in rows[0]
    assert rows[0].endswith("| 50.0 | 60.0 | 70.0 | 80.0 | 90.0 | 100.0 |")


def test_mpii_averages_left_and_right_and_reads_a_tenth_at_0_11(tmp_path):
    names = [joint for members in tables.MPII_JOINTS.values() for joint in members]
    joints = [
        {"name": joint, "PCKh@0.5": i / 20, "PCKh@0.11": i / 40}
        for i, joint in enumerate(names)
    ]
    whole = {"PCKh@0.5@gt_boxes": 0.9, "PCKh@0.11@gt_boxes": 0.4}
    write(
        tmp_path / "mpii_hrnet_w32_256x256_biased", "gt_boxes", "shift", whole, joints
    )
    rows = tables.mpii(tmp_path).splitlines()[2:]
    assert rows[0].endswith("| 0.0 | 7.5 | 17.5 | 27.5 | 37.5 | 47.5 | 57.5 | 90.0 |")
    assert rows[2].endswith("| 28.7 | 40.0 |") and tables.NOT_RUN in rows[1]


def test_a_damaged_evaluation_is_one_line(tmp_path, monkeypatch):
    run = tmp_path / "coco_hrnet_w32_128x96"
    write(run, "detections", "dark", {})
    (run / "eval/detections/dark/metrics.json").write_text("{")
    with pytest.raises(SystemExit, match=r"metrics\.json is not JSON"):
        tables.main(["coco", "--runs", str(tmp_path)])
