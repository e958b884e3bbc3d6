"""The commands of docs/video.md, as they stand there, on a video that is made here."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pose_jax import cli
from pose_jax.data import video

pytest.importorskip("av", reason="PyAV is not installed")
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/video.md").read_text()
COMMANDS = re.findall(r"^pose-jax .*$", TEXT, re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """People that drift over 60 frames; a tiny pose network, and a detector."""
    folder = tmp_path_factory.mktemp("film")
    make = f"data synth --n 8 --val 4 --seed 0 --difficulty easy --out {folder}/people"
    assert cli.main([*make.split(), "--size", "96x80"]) == 0
    for run, config in (
        ("RUN", "configs/demo.py:smoke"),
        ("DETECTOR_RUN", "configs/detector/synthetic.py:smoke"),
    ):
        words = f"train --config {ROOT / config} --run {folder / run}"
        data = [f"--config.data.{of}.root={folder}/people" for of in ("train", "eval")]
        assert cli.main([*words.split(), *data, "--config.train.steps=2"]) == 0
    from PIL import Image

    images = sorted((folder / "people/val2017").iterdir())
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in images]
    h, w = min(image.shape[:2] for image in pixels)
    with video.writer(folder / "film.mp4", 25) as add:
        for i in range(60):
            add(np.roll(pixels[i // 15], i % 15, 1)[:h, :w])
    return folder


@pytest.mark.slow
def test_every_command_of_the_page(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert len(COMMANDS) == 3
    for i, command in enumerate(COMMANDS):
        words = shlex.split(command)[1:]
        words[words.index("poses")] = f"poses{i}"
        assert cli.main(words) == 0, capsys.readouterr().err
        out = folder / f"poses{i}"
        assert (out / "film_poses.mp4").is_file() and (out / "film_poses.csv").is_file()
    found = json.loads(
        (folder / "poses2/suggestions/predictions_info.json").read_text()
    )
    assert len(found["images"]) == 50


@pytest.mark.slow
def test_a_killed_process_continues_with_equal_results(folder):
    def command(out):
        words = ["predict", "--run", "RUN", "--out", out, "film.mp4"]
        return [sys.executable, "-m", "pose_jax", *words]

    environment = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    subprocess.run(command("whole"), check=True, **environment)
    process = subprocess.Popen(command("killed"), **environment)
    lines = folder / "killed/predictions.jsonl"
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command("killed"), check=True, **environment)
    for name in ("predictions.json", "film_poses.csv"):
        whole, killed = folder / "whole" / name, folder / "killed" / name
        assert whole.read_bytes() == killed.read_bytes()
