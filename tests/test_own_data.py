"""Every command of docs/own_data.md, in its order, on horses that the test draws."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pose_jax import cli, init

DOCUMENT = Path(__file__).parents[1] / "docs" / "own_data.md"
NAMES = ["nose", "l_hoof", "r_hoof", "tail", "back"]


def commands():
    """The commands of its first part."""
    text = DOCUMENT.read_text()
    text = text[text.index("## From twenty") : text.index("## What a data set")]
    blocks = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def draw_horses(folder, count=20):
    """Images with a horse of dots each, and their COCO file."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "annotations").mkdir(parents=True)
    (folder / "all").mkdir()
    shape = np.array([[0, 0], [15, 60], [75, 60], [100, 10], [50, 0]])
    for i in range(count):
        points = shape * rng.uniform(0.9, 1.3) + rng.uniform(20, 60, 2)
        points += rng.normal(0, 3, points.shape)
        picture = Image.new("RGB", (256, 192), tuple(rng.integers(60, 200, 3).tolist()))
        pen = ImageDraw.Draw(picture)
        pen.line([tuple(p) for p in points[[0, 4, 3]]], "brown", 8)
        for (x, y), color in zip(
            points, ("red", "green", "blue", "black", "white"), strict=True
        ):
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), color)
        name = f"horse{i}x.png"
        picture.save(folder / "all" / name)
        images.append({"id": i, "file_name": name, "width": 256, "height": 192})
        low, high = points.min(0) - 8, points.max(0) + 8
        w, h = high - low
        annotations.append(
            {
                "id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0,
                "bbox": [*low.tolist(), float(w), float(h)], "area": float(w * h / 2),
                "keypoints": np.insert(points, 2, 2, axis=1).reshape(-1).tolist(),
                "num_keypoints": len(NAMES),
            }
        )  # fmt: skip
    category = {"id": 1, "name": "horse", "keypoints": NAMES, "skeleton": [[1, 5]]}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    file = folder / "annotations" / "person_keypoints_all.json"
    file.write_text(json.dumps(content))


def test_the_document_has_all_verbs_of_a_run():
    verbs = {words[1] for words in commands()}
    assert {"init", "data", "train", "eval", "report", "predict", "export"} <= verbs
    assert all(words[0] == "pose-jax" for words in commands())


@pytest.mark.slow
def test_every_command_works_from_twenty_images_on(tmp_path, monkeypatch, capsys):
    def no_network(*args, **options):
        raise init.InputError("there is no network")

    monkeypatch.setattr(init.fetch, "fetch", no_network)
    monkeypatch.chdir(tmp_path)
    draw_horses(tmp_path / "horses")
    for words in commands():
        if words[1] == "init":
            words += ["--minutes", "0.5"]  # The default is 20.
        code = cli.main(words[1:])
        printed, err = capsys.readouterr()
        assert code == 0, (shlex.join(words), printed[-2000:], err[-2000:])
    assert (tmp_path / "runs/horses/report.html").exists()
    metrics = json.loads((tmp_path / "runs/horses/model/manifest.json").read_text())
    (score,) = (v for n, v in metrics["scores"].items() if n.startswith("PCK@0.1@"))
    assert 0 <= score <= 1
    again = ["train", "--config", "horses.py", "--run", "runs/horses"]
    assert cli.main(again) == 0
