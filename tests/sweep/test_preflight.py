"""Spaces are checked on their configs before anything is made; also those shipped."""

import re

import pytest

from pose_jax import data, methods
from pose_jax.errors import ConfigError
from pose_jax.evaluation import poses as measure
from pose_jax.sweep import Sweep, grid, preflight, readout, space
from tests.sweep.studies import DEMO, LR, ROOT, SHIPPED


@pytest.fixture(scope="module", autouse=True)
def names(folder):
    """All metrics of these people, looked up once."""
    source = data.SourceConfig(name="coco", root=str(folder / "data"), split="val2017")
    found = measure.names(data.load(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "names", lambda table: found)
        yield


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        ({"space": {"optimizer.lrr": grid(1.0)}}, "config.optimizer.lrr: no such key. Did"
         " you mean 'lr'"),
        ({"space": {"optimzer.lr": grid(1.0)}}, "Did you mean 'optimizer'"),
        ({"space": {"train.steps": grid(6, 7.5)}}, "must be an int"),
        ({"space": {"method.encoding": grid("unbiased", "biassed")}}, "'biased'"),
        ({"space": {"method.decoder": grid("dark", "shif")}}, "'shift'"),
        ({"space": {"method.kernel_size": grid("7")}}, "'7' would be parsed as 7"),
        ({"space": LR, "metric": "APP"}, "Did you mean 'AP"),
        ({"space": LR, "metric": "PCK"}, "PCK@0.05@gt_boxes, PCK@0.1@gt_boxes"),
        ({"space": {"train.eval_every_steps": grid(0)}, "pruner": "median"}, ""),
    ],
)  # fmt: skip
def test_a_space_is_checked_on_the_config(made, meant, overrides):
    made = Sweep(**{"metric": "AP", **made})
    if not meant:
        overrides = [*overrides, "--config.train.eval_every_steps=0"]
        meant = "requires evaluations during training"
    with pytest.raises(ConfigError, match=re.escape(meant)) as raised:
        preflight.check("s.py", made, DEMO, overrides)
    assert str(raised.value).startswith("s.py: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_each_shipped_sweep_can_be_applied_to_its_config(file, folder):
    """To the config that its docstring names, all ends and choices, metric included."""
    text = file.read_text()
    named = re.findall(r"--config (\S+\.py)", text)
    assert named and f"configs/sweeps/{file.name}" in text and "sweep report" in text
    roots = [f"--config.data.{use}.root={folder / 'data'}" for use in ("train", "eval")]
    made = space.load(file)
    for name in named:
        spec = preflight.check(str(file), made, f"{ROOT / name}:smoke", roots)
        assert spec["metric"].startswith(made.metric)
    if "--eval-only" in text:
        name = spec["base"]["method"]["name"]
        fields = methods.without_retraining(methods.find(name))
        known = {f"method.{key}" for key in fields}
        assert set(made.space) <= known | set(readout.EVALUATION)
