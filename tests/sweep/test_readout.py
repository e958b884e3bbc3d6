"""A trained network evaluated under different settings."""

import json
import re

import jax
import numpy as np
import pytest

from pose_jax import cli, config, methods
from pose_jax.errors import ConfigError
from pose_jax.evaluation import poses as of_poses
from pose_jax.evaluation import predictor
from pose_jax.runs import model as model_lib
from pose_jax.sweep import Sweep, grid, runner, summary
from pose_jax.training import config as training_config
from tests.made_up import make_poses
from tests.sweep.page import Page
from tests.sweep.studies import DEMO, QUICK, study_of, write


@pytest.fixture(scope="module")
def network(folder, overrides, tmp_path_factory):
    """A run whose model has numbers for weights."""
    run = tmp_path_factory.mktemp("network")
    words = ["--config.method.input_size=64,64", "--config.input.reader=numpy"]
    loaded = config.load(DEMO, [*overrides, *words])
    with loaded.unlocked():
        loaded.method.model.options = {"width": 8, "blocks": (0, 0, 0)}
    setup = training_config.setup(loaded)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(setup.method.phases[0].init, jax.random.key(0))
    weights = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes
    )
    model_lib.write_model(
        run, config=loaded, method=setup.method, train_table=setup.train_table,
        variables={"pose": weights}, scores={},
    )  # fmt: skip
    return run


DECODERS = Sweep(
    space={
        "method.decoder": grid("argmax", "shift"),
        "evaluation.nms_threshold": grid(0.5, 0.9),
    },
    metric="pixel_error",
    direction="minimize",
    sampler="grid",
)


def test_a_method_is_predicted_once_and_each_trial_is_evaluated(
    network, tmp_path, monkeypatch, capsys
):
    """With poses that are made up, each method's further off than those before."""
    built, predicted, thresholds = [], [], []
    build, suppress = methods.build, of_poses.suppress

    def noted_build(section, keypoints):
        method = build(section, keypoints)
        built.append((method, section["decoder"]))
        return method

    class Predictor:
        def __init__(self, method, mesh):
            (self.decoder,) = [decoder for made, decoder in built if made is method]

        def __call__(self, variables, table, config):
            predicted.append(self.decoder)
            return make_poses(table, moved=(3 * len(predicted), 4 * len(predicted)))

    def noted_suppress(table, poses, config):
        thresholds.append(config.nms_threshold)
        return suppress(table, poses, config)

    def measure(table, poses):
        off = np.linalg.norm(poses.points_xy - table.points_xy[poses.row], axis=-1)
        return {"pixel_error@gt_boxes": float(off.mean())}

    monkeypatch.setattr(methods, "build", noted_build)
    monkeypatch.setattr(predictor, "Predictor", Predictor)
    monkeypatch.setattr(of_poses, "suppress", noted_suppress)
    monkeypatch.setattr(of_poses, "measure", measure)
    study = str(tmp_path / "study")
    file = str(write(tmp_path, DECODERS))
    counts = runner.run(file, study, eval_only=str(network), times=QUICK)
    assert counts["complete"] == 4
    assert predicted == ["argmax", "shift"] and thresholds == [0.5, 0.9, 0.5, 0.9]
    values = [trial.value for trial in study_of(study).get_trials()]
    assert values == pytest.approx([5, 5, 10, 10], rel=1e-4)
    page = Page(summary.report(study))
    assert f"eval --run {network} --decoder argmax" in page.text
    assert not (tmp_path / "study" / "trials" / "0000" / "starts").exists()
    capsys.readouterr()


@pytest.mark.slow
def test_decoders_are_read_out_of_one_network(network, tmp_path, capsys):
    study = str(tmp_path / "study")
    file = str(write(tmp_path, DECODERS))
    counts = runner.run(file, study, eval_only=str(network), times=QUICK)
    assert counts["complete"] == 4
    trials = study_of(study).get_trials()
    assert trials[0].value == trials[1].value != trials[2].value
    # The same number as `eval` prints.
    assert cli.main(["eval", "--run", str(network), "--decoder", "shift"]) == 0
    metrics = network / "eval" / "gt_boxes" / "shift" / "metrics.json"
    name = "pixel_error@gt_boxes"
    assert trials[2].value == pytest.approx(json.loads(metrics.read_text())[name])
    best = min(range(4), key=lambda i: trials[i].value)
    path = summary.report(study)
    decoder = trials[best].params["method.decoder"]
    assert f"eval --run {network} --decoder {decoder}" in Page(path).text
    assert not (tmp_path / "study" / "trials" / "0000" / "starts").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("space", "meant"),
    [
        ({"method.kernel": grid(3)}, "Did you mean 'method.kernel_size'"),
        ({"optimizer.lr": grid(0.1)}, "cannot be varied without training"),
        ({"method.decoder": grid("shif")}, "Did you mean 'shift'"),
        ({"evaluation.nms_threshold": grid(1.5)}, "must be in (0, 1]"),
    ],
)
def test_only_what_needs_no_training_is_read_out(space, meant, network, tmp_path):
    file = str(write(tmp_path, Sweep(space=space, metric="AP", sampler="grid")))
    with pytest.raises(ConfigError, match=re.escape(meant)):
        runner.run(file, str(tmp_path / "study"), eval_only=str(network))
    assert not (tmp_path / "study").exists()
