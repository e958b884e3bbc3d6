"""Every file in configs/ trains, evaluates and predicts for two steps as `:smoke`, in the
slow tests; all of its variants can be built, and its docstring says how to run it."""

import re
from pathlib import Path

import pytest

from pose_jax import cli, config, keypoints, methods
from pose_jax.data.synthetic import scenes
from pose_jax.training import config as training_config

FOLDER = Path(__file__).parents[1] / "configs"
# Those that begin with "_" are for others to import; sweeps are no configs.
FILES = sorted(
    f
    for f in FOLDER.rglob("*.py")
    if not f.name.startswith("_") and f.parent.name != "sweeps"
)
each_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda f: str(f.relative_to(FOLDER))
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """data/smoke, as the configs' docstrings have it."""
    root = tmp_path_factory.mktemp("smoke")
    scenes.write_dataset(root / "data" / "smoke", n=4, val=3, seed=0)
    return root


@pytest.fixture(scope="module")
def passed():
    """Configs that have run, as text."""
    return set()


@pytest.mark.slow
@each_file
def test_smoke(file, root, passed, tmp_path, monkeypatch, capsys):
    smoke = config.load(f"{file}:smoke")
    if config.to_json(smoke) in passed:
        return  # The same run as of another file.
    monkeypatch.chdir(root)
    run = str(tmp_path / "run")
    assert cli.main(["train", "--config", f"{file}:smoke", "--run", run]) == 0
    assert cli.main(["eval", "--run", run]) == 0
    if smoke.method.name == "detector":
        assert "box_AP " in capsys.readouterr().out
    else:
        images = sorted((root / "data/smoke" / smoke.data.eval.split).iterdir())
        assert cli.main(["predict", *map(str, images[:2]), "--run", run]) == 0
        assert "AP@gt_boxes" in capsys.readouterr().out
    passed.add(config.to_json(smoke))


@pytest.mark.slow
def test_a_detector_and_a_pose_network_together(root, tmp_path, monkeypatch, capsys):
    """What `make demo-multipose` does, for two steps."""
    monkeypatch.chdir(root)
    detector, pose = str(tmp_path / "detector"), str(tmp_path / "pose")
    for run, kind in ((detector, "detector"), (pose, "multipose")):
        config_of = str(FOLDER / kind / "synthetic.py")
        assert cli.main(["train", "--config", f"{config_of}:smoke", "--run", run]) == 0
    images = sorted((root / "data/smoke/val2017").iterdir())
    words = ["predict", *map(str, images), "--run", pose, "--detector", detector]
    assert cli.main([*words, "--slots", "2"]) == 0
    assert "people in 3 images" in capsys.readouterr().out
    assert len(list((tmp_path / "pose/predictions").glob("*.png"))) == 3


def variants(file):
    """The file as it is, and as each variant that its docstring names."""
    named = re.findall(rf"{re.escape(file.name)}:([\w,]+)", file.read_text())
    return [str(file), *(f"{file}:{variant}" for variant in dict.fromkeys(named))]


@each_file
def test_every_variant_can_be_built(file):
    """Keys, types, names of networks and their options; for which no data are needed."""
    configs = [config.load(variant) for variant in variants(file)]
    for loaded in configs:
        built = config.build(training_config.Config, loaded)
        methods.build(built.method, keypoints.COCO)
        assert max(built.optimizer.drop_steps, default=0) < built.train.steps
    assert len({config.to_json(loaded) for loaded in configs}) == len(configs)
    with pytest.raises(config.ConfigError, match="no variant 'unheard_of'"):
        config.load(f"{file}:unheard_of")


@each_file
def test_the_docstring_says_how_to_run_it(file):
    text = file.read_text()
    name = str(file.relative_to(FOLDER.parent))
    assert f"pose-jax train --config {name}" in text
    assert f"{name}:smoke" in text
