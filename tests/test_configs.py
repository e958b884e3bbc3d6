"""Every file in configs/ trains, evaluates and predicts for two steps as `:smoke`."""

from pathlib import Path

import pytest

from pose_jax import cli, config
from pose_jax.datasets import synthetic

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.rglob("*.py"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """data/smoke, as the configs' docstrings have it."""
    root = tmp_path_factory.mktemp("smoke")
    synthetic.write_dataset(root / "data" / "smoke", n=4, val=3, seed=0)
    return root


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(FOLDER)))
def test_smoke(file, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    run = str(tmp_path / "run")
    assert cli.main(["train", "--config", f"{file}:smoke", "--run", run]) == 0
    assert cli.main(["eval", "--run", run]) == 0
    split = config.load(f"{file}:smoke").data.eval.split
    images = map(str, sorted((root / "data/smoke" / split).iterdir())[:2])
    assert cli.main(["predict", *images, "--run", run]) == 0
    assert "AP@gt_boxes" in capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(FOLDER)))
def test_the_docstring_says_how_to_run_it(file):
    text = file.read_text()
    name = str(file.relative_to(FOLDER.parent))
    assert f"pose-jax train --config {name}" in text
    assert f"{name}:smoke" in text
