"""A method, a network and a data set that are not of this repository, by every command.

They are in a folder of their own, which is the current one, and named in a config. What is
tried is the way from the name to what the commands write; the method learns little.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import cli, export, keypoints, methods, models
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError
from pose_jax.methods import dark
from pose_jax.runs import model as model_lib

MODULE = '''
"""Points as the expectation of a map: what is learnt is where a keypoint is."""

import dataclasses
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pose_jax import geometry, keypoints, losses, models
from pose_jax.codecs import gaussian
from pose_jax.data import coco
from pose_jax.methods import dark
from pose_jax.methods.augment import AugmentConfig
from pose_jax.methods.topdown import ModelConfig, TopDown, evaluated
from pose_jax.types import Decoder, Panel


class Tiny(nn.Module):
    num_keypoints: int
    norm: str = "batch"
    dtype: str = "float32"
    spread: float = 0.1

    @nn.compact
    def __call__(self, images, train=False):
        init = nn.initializers.normal(self.spread)
        maps = nn.Conv(self.num_keypoints, (8, 8), strides=4, kernel_init=init)(images)
        return (maps,) if train else maps


network = models.Network(outputs="heatmaps", stride=4, make=Tiny)
words = models.Network(outputs="words", stride=None, make=Tiny)


def load(root, split, *, at_most=100):
    """COCO's people, of so many images."""
    table = coco.load(root, split)
    keep = table.image < at_most
    columns = ("image", "ids", "boxes_xyxy", "box_scores", "points_xy", "visibility")
    columns = {name: getattr(table, name)[keep] for name in (*columns, "areas", "crowd")}
    return dataclasses.replace(
        table,
        name="somebody's people",
        images=table.images[:at_most],
        image_ids=table.image_ids[:at_most],
        image_sizes=table.image_sizes[:at_most],
        **columns,
    )


def expectation(heatmaps, *, sharpness):
    """Where a keypoint is on average, if a map is the logarithm of how likely."""
    h, w = heatmaps.shape[1:3]
    likely = jax.nn.softmax(sharpness * heatmaps, axis=(1, 2))
    x = jnp.einsum("bhwk,w->bk", likely, jnp.arange(w, dtype=likely.dtype))
    y = jnp.einsum("bhwk,h->bk", likely, jnp.arange(h, dtype=likely.dtype))
    return jnp.stack([x, y], axis=-1), likely.max((1, 2))


def draw(inspected, keypoint_set, alignment):
    return [
        [
            ("input", np.uint8(255 * image)),
            ("brightest map", np.uint8(255 * (maps.max(-1) > 0))[..., None].repeat(3, 2)),
        ]
        for image, maps in zip(inspected["input"], inspected["maps"])
    ]


@dataclasses.dataclass(frozen=True)
class Config:
    name: str
    model: ModelConfig
    input_size: tuple[int, int]
    sharpness: float = 1.0
    padding: float = evaluated(1.25)
    reach: float = 2.0
    flip_test: Literal["none", "plain"] = evaluated("none")
    decoder: str = evaluated("expectation")
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)


class Mine(TopDown):
    name = "mine"
    Config = Config
    outputs = "heatmaps"
    decoders: ClassVar = {
        "expectation": Decoder(expectation, uses=("sharpness",)),
        "peak": Decoder(gaussian.decode_argmax),
    }
    panels: ClassVar = (Panel("signs", "Signs", "Where a map is positive.", draw),)

    def loss_of(self, outputs, example):
        points_xy, _ = expectation(outputs[-1], sharpness=self.config.sharpness)
        points_xy = self.to_input(points_xy, outputs[-1])
        weight = (example.visibility > 0) & example.valid[:, None]
        error = losses.keypoint_smooth_l1(points_xy, example.points_xy, weight=weight)
        total = losses.masked_mean(error, weight, normalize_by="mask")
        return total, {"pixels": jnp.sqrt(total)}

    def mirror(self, output, mirrored):
        mirrored = keypoints.swap(mirrored[:, :, ::-1], self.keypoints, axis=-1)
        return 0.5 * (output + mirrored)

    def decode(self, output):
        points_xy, scores = self.decoder(self.config, output)
        return self.to_input(points_xy, output), scores

    def to_input(self, points_xy, maps):
        h, w = maps.shape[1:3]
        return geometry.heatmap_to_input(
            points_xy, heatmap_size=(w, h), input_size=self.view.size, alignment="stride"
        )

    def shown(self, output):
        return {"maps": output}


@dataclasses.dataclass(frozen=True)
class DarkConfig(dark.Config):
    name: str
    sharpness: float = 2.0


class Averaged(dark.Dark):
    """DARK with one more decoder."""

    name = "averaged"
    Config = DarkConfig
    decoders: ClassVar = dark.DECODERS | {
        "expectation": Decoder(expectation, uses=("sharpness",))
    }
'''
METHOD = {
    "name": "my_method:Mine",
    "model": {"name": "my_method:network", "options": {"spread": 0.2}},
    "input_size": (48, 64),
}
CONFIG = f"""
from ml_collections import ConfigDict


def get_config():
    source = {{"name": "my_method:load", "root": "people"}}
    train = {{**source, "split": "train2017", "options": {{"at_most": 3}}}}
    return ConfigDict({{
        "method": {METHOD!r},
        "data": {{"train": train, "eval": {{**source, "split": "val2017"}}}},
        "input": {{"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"}},
        "optimizer": {{"name": "sgd", "lr": 1e-3}},
        "train": {{"steps": 2, "log_every_steps": 1}},
    }})
"""
SWEEP = """
from pose_jax.sweep import Sweep, grid


def get_sweep():
    return Sweep(
        space={
            "method.decoder": grid("peak", "expectation"),
            "method.sharpness": grid(1.0, 3.0),
        },
        metric="pixel_error",
        direction="minimize",
        sampler="grid",
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the module, a config and people; the current one of these tests."""
    folder = tmp_path_factory.mktemp("somebodys")
    (folder / "my_method.py").write_text(MODULE)
    (folder / "my_config.py").write_text(CONFIG)
    (folder / "my_sweep.py").write_text(SWEEP)
    scenes.write_dataset(folder / "people", n=4, val=3, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [entry for entry in sys.path if entry])
        patch.chdir(folder)
        yield folder
    sys.modules.pop("my_method", None)


@pytest.fixture(scope="module")
def run(folder):
    """Trained by the command line for two steps."""
    assert cli.main(["train", "--config", "my_config.py", "--run", "run"]) == 0
    return folder / "run"


def metrics_of(run, decoder):
    return json.loads((run / f"eval/gt_boxes/{decoder}/metrics.json").read_text())


def test_it_trains(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        assert line["pixels"] == pytest.approx(line["loss"] ** 0.5, rel=1e-3)
    manifest = model_lib.load_manifest(run / "model")
    assert manifest["method"]["name"] == "my_method:Mine"
    assert manifest["method"]["model"]["name"] == "my_method:network"
    assert "pixel_error@gt_boxes" in manifest["scores"]
    pictures = {path.name for path in (run / "pictures").glob("*.png")}
    assert {"inputs_pose.png", "signs.png", "predictions.png"} <= pictures
    assert "heatmaps.png" not in pictures


def test_it_is_evaluated_with_its_decoders_and_flip_tests(run):
    words = ["eval", "--run", "run", "--decoder", "expectation,peak"]
    assert cli.main(words) == 0
    scores = model_lib.load_manifest(run / "model")["scores"]
    found = {name: metrics_of(run, name) for name in ("expectation", "peak")}
    name = "pixel_error@gt_boxes"
    assert found["expectation"][name] == pytest.approx(scores[name])
    assert found["peak"][name] != pytest.approx(scores[name])
    assert cli.main([*words, "--flip", "none,plain"]) == 0


def test_a_decoder_that_it_has_not_is_one_line(run, capsys):
    assert cli.main(["eval", "--run", "run", "--decoder", "expectations"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean 'expectation'?" in err and err.count("\n") == 1


def test_it_predicts(run, capsys):
    image = next((run.parent / "people" / "val2017").glob("*.jpg"))
    words = ["predict", str(image), "--run", "run", "--out", "found"]
    assert cli.main(words) == 0
    (found,) = json.loads((run.parent / "found" / "predictions.json").read_text())
    assert len(found["keypoints"]) == 3 * 17 and np.isfinite(found["keypoints"]).all()


def test_it_is_read_out_by_a_sweep_that_trains_nothing(run, capsys):
    words = ["sweep", "run", "--sweep", "my_sweep.py", "--study", "study"]
    assert cli.main([*words, "--eval-only", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all("pixel_error@gt_boxes" in line for line in lines[1:])
    assert cli.main(["sweep", "report", "--study", "study"]) == 0
    page = (run.parent / "study" / "report.html").read_text()
    assert "method.sharpness" in page and "expectation" in page
    (run.parent / "other.py").write_text(
        SWEEP.replace("method.sharpness", "method.reach")
    )
    words = ["sweep", "run", "--sweep", "other.py", "--study", "other"]
    assert cli.main([*words, "--eval-only", "run"]) == 2
    assert "'method.reach' cannot be varied without training" in capsys.readouterr().err


def test_it_is_reported_and_described(run, capsys):
    assert cli.main(["report", "run"]) == 0
    page = (run / "report.html").read_text()
    assert "Where a map is positive." in page and "brightest map" in page
    capsys.readouterr()
    assert cli.main(["info", "run"]) == 0
    said = capsys.readouterr().out
    assert "my_method:network" in said and f"{8 * 8 * 3 * 17 + 17:,}" in said


def test_its_decoder_is_exported(run):
    """By a process of its own, whose path has not the current folder."""
    code = "import sys; from pose_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    words = ["export", "--run", "run", "--part", "decoder", "--out", "exported"]
    root = str(Path(methods.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        env={**os.environ, "PYTHONPATH": root},
        cwd=run.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = run.parent / "exported"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["decoder"] == "expectation" and manifest["sharpness"] == 1.0
    assert manifest["blur"] is None  # That is something else.
    maps = np.random.default_rng(0).normal(size=(2, 16, 12, 17)).astype(np.float32)
    import my_method

    expected = my_method.expectation(jnp.asarray(maps), sharpness=1.0)
    found = export.load(out)(maps)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_is_registered_may_be_extended(folder):
    """DARK with a decoder more: the old ones are the same."""
    section = {**METHOD, "name": "my_method:Averaged", "sigma": 1.5}
    built = methods.build(section, keypoints.COCO, decoder="expectation")
    assert isinstance(built, dark.Dark) and built.decoder.uses == ("sharpness",)
    assert set(built.decoders) == {*dark.DECODERS, "expectation"}
    maps = jax.random.normal(jax.random.key(0), (2, 16, 12, 17))
    own = methods.build({**METHOD, "name": "dark", "sigma": 1.5}, keypoints.COCO)
    again = methods.build(section, keypoints.COCO)
    for one, other in zip(own.decode(maps), again.decode(maps), strict=True):
        np.testing.assert_array_equal(one, other)
    cls = methods.find("my_method:Averaged")
    expected = {*methods.without_retraining(methods.find("dark")), "sharpness"}
    assert set(methods.without_retraining(cls)) == expected


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({"name": "my_method:Yours"}, "module 'my_method' has no 'Yours'"),
        ({"name": "my_metod:Mine"}, "No module named 'my_metod'"),
        ({"shapness": 2.0}, "'sharpness'"),
        (
            {"model": {"name": "my_method:words"}},
            "'my_method:words' gives words, method 'mine' needs heatmaps; take another "
            "network.",
        ),
        (
            {"name": "multipose"},
            "'my_method:network' gives heatmaps, method 'multipose' needs heatmaps and "
            "offsets; take another network, or method 'dark'.",
        ),
        (
            {"model": {"name": "my_method:load"}},
            "is a function; it must be a pose_jax.",
        ),
        ({"decoder": "pek"}, "Did you mean 'peak'?"),
        (
            {"model": {"name": "my_method:network", "options": {"spraed": 1}}},
            "Did you mean 'spread'?",
        ),
    ],
)
def test_a_mistake_is_one_line(changes, meant, folder):
    with pytest.raises(ConfigError) as error:
        methods.build({**METHOD, **changes}, keypoints.COCO)
    assert meant in str(error.value) and "\n" not in str(error.value)


def test_a_network_of_somebody_s_is_one_for_registered_methods_too(folder):
    assert models.entry("my_method:network").stride == 4
    method = methods.build({**METHOD, "name": "dark"}, keypoints.COCO)
    shapes = jax.eval_shape(method.phases[0].init, jax.random.key(0))
    assert shapes["params"]["Conv_0"]["kernel"].shape == (8, 8, 3, 17)
    assert methods.for_network("my_method:network") == "dark"
