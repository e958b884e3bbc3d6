"""Metrics of keypoint sets without sigmas, without a torso, or with one sigma for all."""

import dataclasses

import numpy as np
import pytest

from pose_jax.evaluation import compare, poses, text
from pose_jax.keypoints import KeypointSet
from tests.made_up import make_poses, make_table

MOUSE = KeypointSet("mouse", ("snout", "left_ear", "right_ear", "tail"), ((1, 2),), ())


def test_the_box_diagonal_is_the_length_where_there_is_no_torso():
    table = make_table(4, MOUSE)
    table.boxes_xyxy[:] = [0, 0, 30, 40]  # diagonal 50
    found = poses.measure(table, make_poses(table, moved=(0, 4.9)))
    assert found["PCK@0.1@box@gt_boxes"] == 1 and found["PCK@0.05@box@gt_boxes"] == 0
    # 4.9 px are 0.098 of the diagonal: the curve is 1 at its last point alone.
    assert found["PCK_AUC@box@gt_boxes"] == pytest.approx(0.025)
    assert list(found) == poses.names(table)
    assert not any(name.startswith("AP") for name in found)
    rows = poses.per_keypoint(table, make_poses(table, moved=(0, 5.1)))
    assert rows[0]["PCK@0.1@box"] == 0
    (only,) = poses.notes(table, make_poses(table), found)
    assert "has no sigmas" in only and "options.keypoints.sigmas=0.05" in only
    assert "sigmas=0.05" in poses.why_absent(table, "AP@gt_boxes")
    assert poses.why_absent(table, "PCK@0.1@box@gt_boxes") == ""


def test_a_torso_is_the_length_where_there_is_one():
    table = make_table(4, dataclasses.replace(MOUSE, torso=(0, 3)))
    names = poses.names(table)
    assert "PCK@0.1@gt_boxes" in names and not any("@box" in name for name in names)


def test_one_sigma_for_all_is_in_the_name_of_ap():
    table = make_table(4, dataclasses.replace(MOUSE, sigmas=(0.05,) * 4))
    predicted = make_poses(table)
    found = poses.measure(table, predicted)
    assert found["AP[sigma=0.05]@gt_boxes"] == 1 and "AP@gt_boxes" not in found
    assert list(found) == poses.names(table)
    results = poses.to_results(table, predicted)
    assert "AP[sigma=0.05][max=30]@gt_boxes" in poses.ap_of_more(table, results, 30)
    assert text.base("AP50[sigma=0.05]@gt_boxes") == "AP50"
    assert text.formula("PCK@0.1@box@gt_boxes").endswith("without a torso")
    names = [
        d.name for d in compare.differences(table, predicted, predicted, samples=2)
    ]
    assert {"AP[sigma=0.05]@gt_boxes", "PCK@0.1@box@gt_boxes"} <= {*names}
    measured = dataclasses.replace(MOUSE, sigmas=(0.05, 0.06, 0.06, 0.07))
    assert "AP@gt_boxes" in poses.names(make_table(4, measured))


def test_one_keypoint_is_enough():
    table = make_table(4, KeypointSet("tip", ("tip",), (), ()))
    found = poses.measure(table, make_poses(table))
    assert found["PCK@0.1@box@gt_boxes"] == 1 and np.isfinite([*found.values()]).all()
