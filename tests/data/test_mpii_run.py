"""MPII from the files to PCKh: a run trained on made people, measured from the shell."""

import json
import re
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pose_jax import cli, keypoints
from pose_jax.evaluation import pictures
from pose_jax.training import train
from tests.data import writers

# Head boxes from small to as large as a person: some of an untrained network's guesses
# are near enough, some are not.
DIAGONALS = (50, 130, 220, 300, 450)
THRESHOLDS = {"0.5": 0.5, "0.1": 0.1, "0.11": 0.11}


def person(rng, image):
    """A row of the common json, 1-based; the last joint is not labelled."""
    joints = rng.uniform((30, 15), (90, 110), (16, 2)).round(2)
    joints[15] = -1
    row = {"image": image, "center": [60.0, 55.0], "scale": 0.5}
    return row | {"joints": joints.tolist(), "joints_vis": [1] * 15 + [0]}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("mpii"), np.random.default_rng(0)
    (root / "annot").mkdir()
    (root / "images").mkdir()
    for name in "ab":
        pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
        image = Image.fromarray(pixels).resize((120, 120))
        image.save(root / "images" / f"{name}.png")
    rows = [person(rng, f"{'ab'[i % 2]}.png") for i in range(len(DIAGONALS))]
    for split in ("train", "valid"):
        (root / "annot" / f"{split}.json").write_text(json.dumps(rows))
    truth = writers.gt_valid(rows, DIAGONALS)
    scipy.io.savemat(root / "annot" / "gt_valid.mat", truth)
    return root


@pytest.fixture(scope="module")
def run(people, tmp_path_factory):
    """Two steps of the small network."""
    run = tmp_path_factory.mktemp("run") / "run"
    source = {"name": "mpii", "root": str(people)}
    config = {
        "method": {
            "name": "dark",
            "model": {"name": "pocket", "options": {"width": 8, "blocks": (0, 0, 0)}},
            "input_size": (64, 64),
            "joint_weights": True,
            "ohkm": 8,
            "augment": {"flip": 0.5, "half_body": 0.5},
        },
        "data": {
            "train": {**source, "split": "train"},
            "eval": {**source, "split": "valid"},
        },
        "input": {"batch_size": 4, "canvas_size": (160, 160), "reader": "numpy"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"steps": 2, "best_metric": "PCKh@0.5@gt_boxes"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw_run", lambda *args: None)  # Seconds of pictures.
        train.train(config, run)
    return run


def published_pckh(predictions, mat, thresholds):
    """By threshold: PCKh of each keypoint, and their mean weighted by how many count.

    Of all but pelvis and thorax; predictions become 1-based, as the truth is.
    """
    truth, boxes = mat["pos_gt_src"], mat["headboxes_src"]
    counts = 1.0 - mat["jnt_missing"]
    distance = np.linalg.norm(predictions.transpose(1, 2, 0) + 1 - truth, axis=1)
    head = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    kept = np.delete(np.arange(16), [6, 7])
    found = []
    for threshold in thresholds:
        near = (distance / head <= threshold) * counts
        share = near.sum(1) / np.maximum(counts.sum(1), 1)
        weight = counts[kept].sum(1) / counts[kept].sum()
        found.append((share, (share[kept] * weight).sum()))
    return found


def check(root, run, printed):
    """What `eval` wrote and printed, against the definition."""
    out = run / "eval" / "gt_boxes" / "dark"
    predictions = json.loads((out / "predictions.json").read_text())
    points = np.array([p["keypoints"] for p in predictions]).reshape(-1, 16, 3)
    mat = scipy.io.loadmat(root / "annot" / "gt_valid.mat")
    assert len(points) == mat["pos_gt_src"].shape[-1]
    metrics = json.loads((out / "metrics.json").read_text())
    by_keypoint = json.loads((out / "keypoints.json").read_text())
    expected = published_pckh(points[..., :2], mat, THRESHOLDS.values())
    for name, (share, mean) in zip(THRESHOLDS, expected, strict=True):
        assert metrics[f"PCKh@{name}@gt_boxes"] == pytest.approx(mean, abs=1e-6)
        assert re.search(rf"^PCKh@{name}@gt_boxes +{mean:.3f}$", printed, re.M)
        found = [row[f"PCKh@{name}"] for row in by_keypoint]
        np.testing.assert_allclose(found, share, atol=1e-6)
    grid = np.arange(51) / 100
    curve = [mean for _, mean in published_pckh(points[..., :2], mat, grid)]
    area = np.trapezoid(curve, grid) / 0.5
    assert metrics["PCKh_AUC@gt_boxes"] == pytest.approx(area, abs=1e-4)

    assert (
        "PCKh: fraction of keypoints with distance <= t * head, head = 0.6 *" in printed
    )
    assert "pelvis and thorax excluded" in printed
    table = printed.split("by keypoint, dark:\n")[1].splitlines()
    assert table[0].split()[-4:] == ["PCKh@0.5", "PCKh@0.1", "PCKh@0.11", "score"]
    names = [line.split()[0] for line in table[1:17]]
    assert names == list(keypoints.MPII.names)
    shares = [line.split()[-4] for line in table[1:17]]
    assert shares == [f"{value:.3f}" for value in expected[0][0]]
    return [mean for _, mean in expected]


@pytest.mark.slow
def test_eval_prints_pckh_with_formula_and_keypoints(people, run, capsys):
    assert cli.main(["eval", "--run", str(run)]) == 0
    half, tenth, eleven = check(people, run, capsys.readouterr().out)
    assert 0 < tenth <= eleven < half < 1
    scores = json.loads((run / "model" / "manifest.json").read_text())["scores"]
    assert scores["PCKh@0.5@gt_boxes"] == pytest.approx(half, abs=0.03)


def test_a_run_is_measured_on_real_people(real_data, run, tmp_path, capsys):
    root = real_data / "mpii"
    if not (root / "annot" / "gt_valid.mat").is_file():
        pytest.skip(f"no MPII in {real_data}")
    own = tmp_path / "run"
    shutil.copytree(run / "model", own / "model")
    assert cli.main(["eval", "--run", str(own), "--data", str(root)]) == 0
    check(root, own, capsys.readouterr().out)
