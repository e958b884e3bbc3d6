"""Every value that a run goes by, beside its default."""

import pytest

from pose_jax.training.config import Absent, settings


def make_config(**method):
    source = {"name": "coco", "root": "somewhere"}
    return {
        "method": {
            "name": "dark",
            "model": {"name": "pocket", "options": {"width": 8}},
            "sigma": 1.5,
            "alignment": "stride",
            **method,
        },
        "data": {"eval": {**source, "split": "val2017"}},
        "optimizer": {"lr": 1, "schedule": "constant"},
        "phases": {"pose": {"optimizer": {"lr": 1.0}}},
    }


@pytest.mark.parametrize("name", ["dark", "pose_jax.methods.dark:Dark"])
def test_settings_are_all_values_beside_their_defaults(name):
    found = {s.key: s for s in settings(make_config(name=name, input_size=[64, 64]))}
    assert found["method.sigma"].changed and found["method.sigma"].default == 2.0
    assert not found["method.alignment"].changed
    assert not found["method.padding"].changed and found["method.padding"].value == 1.25
    assert found["optimizer.lr"].changed and found["optimizer.lr"].default == 1e-3
    assert not found["optimizer.schedule"].changed
    assert found["method.augment.rotation"].value == 0
    assert found["method.model.options.width"].value == 8
    assert found["data.eval.split"].value == "val2017"
    assert found["method.input_size"].changed
    assert found["phases.pose.optimizer.lr"].value == 1.0


def test_a_config_of_another_version_is_shown_all_the_same():
    found = {s.key: s for s in settings(make_config(unheard_of=1))}
    assert found["method.unheard_of"].default is Absent.UNKNOWN
    assert found["method.input_size"][1:] == (Absent.NONE, Absent.REQUIRED)
    config = {"method": {"name": "of tomorrow", "size": 3}}
    assert {s.key: s for s in settings(config)}["method.size"].value == 3
    config = {"method": {"name": "no.such.module:Method", "size": 3}}
    assert {s.key: s for s in settings(config)}["method.size"].value == 3
