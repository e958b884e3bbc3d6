"""What a sweep file may say, and what is refused in one line."""

import re

import pytest

from pose_jax.errors import ConfigError
from pose_jax.sweep import Sweep, choice, grid, linear_range, log_range
from pose_jax.sweep import space as space_lib
from tests.sweep.studies import LR, TWO_BY_TWO


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        (lambda: Sweep(space={}, metric="AP"), "the search space is empty"),
        (lambda: Sweep(space={"seed": choice()}, metric="AP"), "'seed' is empty"),
        (lambda: Sweep(space={"seed": grid(1, 1)}, metric="AP"), "has 1 twice"),
        (
            lambda: Sweep(space={"seed": (0, 1)}, metric="AP"),
            "a choice, a grid or a ra",
        ),
        (lambda: Sweep(space={"a": log_range(1, 0.1)}, metric="AP"), "low < high"),
        (lambda: Sweep(space={"a": linear_range(1, 1)}, metric="AP"), "'a' is empty"),
        (lambda: Sweep(space={"a": log_range(0, 1)}, metric="AP"), "positive numbers"),
        (lambda: Sweep(space={"a": linear_range(0, "1")}, metric="AP"), "got '1'"),
        (
            lambda: Sweep(space={"a": linear_range(0, 1, 2)}, metric="AP"),
            "step must be",
        ),
        (lambda: Sweep(space=LR, metric="AP", sampler="grid"), "does not support"),
        (lambda: Sweep(space=LR, metric="AP", sampler="tpo"), "Did you mean 'tpe'"),
        (lambda: Sweep(space=LR, metric="AP", pruner="hyper"), "one of none, median"),
        (lambda: Sweep(space=LR, metric="AP", direction="max"), "'maximize'"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(made, meant):
    with pytest.raises(ConfigError, match=re.escape(meant)):
        made()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("x = 1", "the file defines no function get_sweep"),
        ("def get_sweep():\n    return {}", "must return a pose_jax.sweep.Sweep"),
        ("def get_sweep():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_sweep(:", "line 1: SyntaxError"),
        ("def get_sweep():\n    from pose_jax.sweep import Sweep\n"
         "    return Sweep(space={}, metric='AP')", "the search space is empty"),
    ],
)  # fmt: skip
def test_a_sweep_file_that_cannot_be_read_is_one_line(text, meant, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        space_lib.load(file)
    assert meant in str(raised.value) and str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"no such sweep file.*Did you mean 'bad'"):
        space_lib.load(tmp_path / "bat.py")


def test_corners_have_each_end_and_each_choice_once():
    space = {"a": grid(1, 2, 3), "b": log_range(0.1, 1.0), "c": choice("x")}
    found = list(space_lib.corners(space))
    assert found[0] == {"a": 1, "b": 0.1, "c": "x"}
    assert [(p["a"], p["b"]) for p in found] == [(1, 0.1), (2, 0.1), (3, 0.1), (1, 1.0)]


def test_sizes_count_what_is_run():
    assert TWO_BY_TWO.size() == TWO_BY_TWO.combinations() == 4
    drawn = Sweep(space={**LR, "seed": grid(0, 1, 2)}, metric="AP")
    assert drawn.size() is None and drawn.combinations() == 3
    chosen = {"a": choice(1, 2), "seed": grid(0, 1, 2)}
    assert Sweep(space=chosen, metric="AP").size() is None
    assert Sweep(space=chosen, metric="AP", sampler="grid").size() == 6
