"""Plots: every line is in the picture, and odd input is refused or drawn."""

import numpy as np
import pytest
from PIL import Image

from pose_jax.drawing import curves as curves_lib

THRESHOLDS = np.arange(51) / 100


def curves(*joints, height=0.8):
    return {joint: height * THRESHOLDS / 0.5 for joint in joints}


def colours(path):
    """The saturated colours of a picture, roughly, and how many pixels they have."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    pixels = pixels[np.ptp(pixels, axis=1) > 100]
    found, count = np.unique(pixels // 64, axis=0, return_counts=True)
    return {tuple(colour.tolist()): n for colour, n in zip(found, count, strict=True)}


def test_a_panel_a_joint_and_a_line_a_stage(tmp_path):
    out = tmp_path / "folder" / "pdj.png"
    joints = ("ankle", "knee", "head_top", "mean")
    found = {f"stage {s}": curves(*joints, height=0.3 * s) for s in (1, 2, 3)}
    curves_lib.pdj_curves(found, out, thresholds=THRESHOLDS, title="PDJ")
    width, height = Image.open(out).size
    assert width > 600 and height > 250
    lines = sorted(colours(out).values())[-3:]
    assert min(lines) > 300  # Blue, orange and green, in four panels.
    one = tmp_path / "one.png"
    curves_lib.pdj_curves({"run": curves("mean")}, one, thresholds=THRESHOLDS)
    assert Image.open(one).size[0] < width


def test_a_joint_that_one_lacks_is_drawn_for_the_others_and_names_may_be_long(tmp_path):
    found = {f"a run with a long name, number {i}": curves("mean") for i in range(12)}
    found["with arms"] = curves("wrist", "elbow", "mean")
    out = tmp_path / "pdj.png"
    curves_lib.pdj_curves(found, out, thresholds=THRESHOLDS)
    assert Image.open(out).size[1] > 400  # The legend has room of its own.


def test_curves_of_other_thresholds_are_drawn_over_them(tmp_path):
    out = tmp_path / "pdj.png"
    curves_lib.pdj_curves({"a": {"mean": [0.0, 0.1]}}, out, thresholds=(0.0, 0.1))
    assert colours(out)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    out = tmp_path / "pdj.png"
    for found, says in (
        ({}, "no PDJ curve"),
        ({"a": {}}, "no PDJ curve"),
        ({"a": {"wrist": np.zeros(50)}}, r"a, wrist: got \(50,\) values for \(51,\)"),
    ):
        with pytest.raises(ValueError, match=says):
            curves_lib.pdj_curves(found, out, thresholds=THRESHOLDS)
    assert not out.exists()
