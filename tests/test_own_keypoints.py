"""Data of keypoints of their own, from files to a report, from the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FIVE = ["snout", "left_ear", "right_ear", "back", "tail"]
FORTY = [f"{side}_leg{i}" for i in range(18) for side in "lr"] + ["a", "b", "c", "end"]

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    c = ConfigDict()
    c.method = ConfigDict({{
        "name": "dark", "model": {{"name": "pocket"}}, "input_size": (64, 64),
        "sigma": 1.0, "augment": {{"flip": 0.5}},
    }})
    source = {{"name": "coco", "root": {root!r}}}
    c.data = ConfigDict({{
        "train": {{**source, "split": "train"}}, "eval": {{**source, "split": "valid"}},
    }})
    c.input = ConfigDict({{"batch_size": 4, "canvas_size": (96, 80)}})
    c.optimizer = ConfigDict({{"name": "adam", "lr": 1e-3}})
    c.train = ConfigDict({{"steps": 3, "eval_every_steps": 2}})
    return c
"""


def write(root: Path, split: str, names: list[str], *, roboflow: bool, seed: int):
    """Six images of one animal each, ids from 0."""
    rng = np.random.default_rng(seed)
    folder = root / split if roboflow else root / "images" / split
    folder.mkdir(parents=True)
    images, people = [], []
    for i in range(6):
        picture = rng.integers(0, 255, (80, 96, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 80})
        points = np.round(rng.uniform(0, 1, (len(names), 2)) * (60, 56) + (10, 8), 1)
        visibility = rng.choice([0, 1, 2], len(names), p=[0.1, 0.2, 0.7])
        visibility[:2] = 2
        points = np.where(visibility[:, None] > 0, points, 0)
        triples = np.concatenate([points, visibility[:, None]], -1).reshape(-1)
        people.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "bbox": [10, 8, 60, 56],
                "area": 3360,
                "iscrowd": 0,
                "keypoints": triples.tolist(),
            }
        )
    own = {"id": 1, "name": "animal", "keypoints": names, "skeleton": [[1, 2], [4, 5]]}
    categories = [{"id": 0, "name": "project", "supercategory": "none"}, own]
    content = {"categories": categories, "images": images, "annotations": people}
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path = folder / "_annotations.coco.json" if roboflow else path
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize("names", [FIVE, FORTY], ids=len)
def test_from_files_to_a_report_without_code(names, tmp_path):
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "out"
    for seed, split in enumerate(("train", "valid")):
        write(data, split, names, roboflow=names is FIVE, seed=seed)
    config = tmp_path / "mine.py"
    config.write_text(CONFIG.format(root=str(data)))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    def shell(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "pose_jax", *map(str, words)],
            capture_output=True, text=True, timeout=600, env=environment,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    check = shell("data", "check", data)
    assert f"keypoint set 'animal', {len(names)} keypoints" in check
    shell("data", "show", "--config", config, "--out", tmp_path / "inputs.png")
    shell("train", "--config", config, "--run", run)
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    assert manifest["keypoints"]["names"] == names
    assert "PCK@0.1@box@gt_boxes" in manifest["scores"]
    said = shell("eval", "--run", run)
    assert "AP not computed" in said and "--sigmas 0.05" in said
    assert "AP[sigma=0.05]@gt_boxes" in shell("eval", "--run", run, "--sigmas", "0.05")
    picture = next(data.rglob("valid/0.png"))
    shell("predict", "--run", run, "--out", out, picture)
    (person,) = json.loads((out / "predictions.json").read_text())
    assert len(person["keypoints"]) == 3 * len(names) and person["category_id"] == 1
    info = json.loads((out / "predictions_info.json").read_text())
    assert info["category"]["name"] == "animal"
    shell("report", run)
    page = (run / "report.html").read_text()
    assert all(name in page for name in names) and "PCK@0.1@box" in page
    shell("export", "--run", run, "--out", tmp_path / "decoder.bin")
    assert "animal" in shell("info", run)
    assert "resumed at step 3" in shell("train", "--config", config, "--run", run)
    bad = "--config.data.train.options.keypoints.sigmas=0.1,0.2"
    line = shell("train", "--config", config, "--run", tmp_path / "bad", bad, code=2)
    assert "sigmas needs" in line.splitlines()[-1]
