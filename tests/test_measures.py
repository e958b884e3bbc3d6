"""Names, normalisers and reasons: what evaluation says beside predictions."""

import dataclasses
import re

import numpy as np
import pytest

from pose_jax import evaluate, keypoints, measures
from tests.made_up import detections, make_poses, make_table


def test_perfect_predictions_measure_perfect():
    table = make_table()
    found = measures.measure(table, make_poses(table))
    for name in ("AP", "AP50", "AR", "PCK@0.05", "PDJ@0.2", "PCP@0.5", "PCP_loose@0.5"):
        assert found[f"{name}@gt_boxes"] == pytest.approx(1), name
    assert found["PCK_AUC@gt_boxes"] == pytest.approx(1)
    assert found["pixel_error@gt_boxes"] < 1e-4
    moved = measures.measure(table, make_poses(table, moved=np.array([3, 4])))
    assert moved["pixel_error@gt_boxes"] == pytest.approx(5, abs=1e-4)


def test_a_name_says_boxes_and_whose_left_it_is():
    table = make_table(
        keypoint_set=keypoints.LSP, box_source="joint_boxes", centric="OC"
    )
    found = measures.measure(table, make_poses(table))
    assert "PCK@0.2@joint_boxes@OC" in found and "PCP@0.5@joint_boxes@OC" in found
    assert not any(name.startswith("AP") for name in found)
    (note,) = measures.notes(table, make_poses(table), found)
    assert "no sigmas" in note


def test_pck_is_by_the_torso_and_counts_who_has_none():
    table = make_table(4, keypoints.LSP)
    i, j = table.keypoints.torso
    torso = np.linalg.norm(table.points_xy[:, i] - table.points_xy[:, j], axis=-1)
    visibility = table.visibility.copy()
    visibility[3, i] = 0
    table = dataclasses.replace(table, visibility=visibility)
    poses = make_poses(table)
    for person, share in enumerate((0.045, 0.085, 0.155, 0.0)):
        poses.points_xy[person, :, 0] += share * torso[person]
    found = measures.measure(table, poses)
    assert found["PCK@0.05@gt_boxes"] == pytest.approx(1 / 3)
    assert found["PCK@0.1@gt_boxes"] == pytest.approx(2 / 3)
    assert found["PCK@0.2@gt_boxes"] == pytest.approx(1)
    assert found["PCK_people_without_torso@gt_boxes"] == 1
    # The curve steps to 1/3, 2/3 and 1 there.
    grid = np.arange(21) / 100
    steps = ((grid >= 0.045).astype(float) + (grid >= 0.085) + (grid >= 0.155)) / 3
    area = np.trapezoid(steps, grid) / 0.2
    assert found["PCK_AUC@gt_boxes"] == pytest.approx(area, abs=1e-6)


def test_pckh_leaves_out_pelvis_and_thorax_and_has_both_readings_of_a_tenth():
    table = make_table(2, keypoints.MPII, head_sizes=np.array([40.0, 0.0]))
    poses = make_poses(table)
    poses.points_xy[0, :, 0] += 0.105 * 40
    for name in ("pelvis", "thorax"):
        poses.points_xy[0, table.keypoints.names.index(name)] += 1000
    found = measures.measure(table, poses)
    assert found["PCKh@0.5@gt_boxes"] == 1
    assert found["PCKh@0.11@gt_boxes"] == 1 and found["PCKh@0.1@gt_boxes"] == 0
    assert found["PCKh_people_without_head_box@gt_boxes"] == 1


def test_every_metric_shown_has_a_formula_and_it_is_printed():
    table = make_table(4, keypoints.MPII, head_sizes=np.full(4, 40.0))
    for made in (table, make_table(4)):
        found = measures.measure(made, make_poses(made, moved=1.0))
        text = measures.table_of({"dark": found, "argmax": found})
        for name in measures.shown(found):
            assert measures.formula(name)
            assert re.search(rf"^{re.escape(name)} +[\d.]+ +[\d.]+$", text, re.M)
            assert f"  {name.split('@')[0]}: " in text


def test_the_keypoint_table_counts_each_keypoint_alone():
    table = make_table(4)
    visibility = table.visibility.copy()
    visibility[:3, 0], visibility[0, 1] = 0, 1
    table = dataclasses.replace(table, visibility=visibility)
    poses = make_poses(table)
    poses.points_xy[:, 2] += np.array([6, 8])
    nose, left_eye, right_eye, *_ = rows = measures.per_keypoint(table, poses)
    assert [row["name"] for row in rows] == list(table.keypoints.names)
    assert (nose["labelled"], left_eye["hidden"]) == (1, 1)
    assert right_eye["median_error"] == pytest.approx(10, abs=1e-4)
    assert nose["mean_error"] < 1e-4 and nose["PCK@0.2"] == 1
    assert "right_eye" in measures.keypoint_table(rows)
    unlabelled = dataclasses.replace(table, labelled=False)
    assert measures.per_keypoint(unlabelled, poses) == []


def test_nobody_labelled_gives_numbers_or_nan_and_no_error():
    table = make_table(2)
    table = dataclasses.replace(table, visibility=np.zeros_like(table.visibility))
    found = measures.measure(table, make_poses(table))
    assert found["AP@gt_boxes"] == -1 and np.isnan(found["pixel_error@gt_boxes"])
    (note,) = measures.notes(table, make_poses(table), found)
    assert "none of the 2 annotated people counts" in note
    assert measures.keypoint_table(measures.per_keypoint(table, make_poses(table)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"areas": np.zeros(6)}, r"6 of 6 labelled people have an area of 0"),
        ({"crowd": np.ones(6, bool)}, r"6 are crowd regions"),
    ],
)
def test_an_ap_of_nothing_says_why(change, says):
    table = dataclasses.replace(make_table(), **change)
    poses = make_poses(table, moved=1.0)
    found = measures.measure(table, poses)
    assert found["AP@gt_boxes"] in (0, -1)
    notes = measures.notes(table, poses, found)
    assert any(re.search(says, note) for note in notes), notes


def test_predictions_in_other_units_are_recognised():
    table = make_table()
    poses = make_poses(table)
    poses.points_xy[:] /= 400
    found = measures.measure(table, poses)
    (note,) = measures.notes(table, poses, found)
    assert "are the predictions in pixels of the original image" in note


def test_poses_on_detections_are_counted_against_the_annotated_people():
    table = make_table()
    rows = np.array([0, 1, 2, 3, 4, 5, 0, 2])
    boxes = detections(table, rows, np.linspace(1, 0.3, 8))
    poses = make_poses(boxes)
    raw = measures.measure(boxes, poses)
    assert raw["AP@detections"] == pytest.approx(1, abs=0.1)
    assert not any("PCK" in name for name in raw)
    kept = evaluate.suppress(boxes, poses, evaluate.EvaluationConfig())
    assert kept.row.tolist() == [0, 1, 2, 3, 4, 5]
    assert measures.measure(boxes, kept)["AP@detections"] == pytest.approx(1)


@pytest.mark.parametrize("how", ["none", "oks", "soft_oks"])
def test_suppression_is_that_of_each_image_alone(how):
    """Against NMS image by image, on images of 0 to 40 poses."""
    import jax.numpy as jnp

    from pose_jax import nms

    rng = np.random.default_rng(0)
    table = make_table(12)
    rows = np.concatenate([[i] * (7 * i + 1) for i in range(6)])
    boxes = detections(table, rows, rng.uniform(size=len(rows)))
    poses = make_poses(boxes)
    poses.points_xy[:] += rng.normal(size=poses.points_xy.shape) * 3
    poses.score[:] = rng.uniform(size=len(rows))
    config = evaluate.EvaluationConfig(nms=how, nms_threshold=0.8)
    found = evaluate.suppress(boxes, poses, config)
    areas = (boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]).prod(-1)
    expected, scores = [], {}
    for image in range(len(table.images)):
        own = np.flatnonzero(boxes.image == image)
        if not len(own):
            continue
        args = (
            jnp.asarray(poses.points_xy[own]),
            jnp.asarray(poses.score[own]),
            jnp.asarray(areas[own], jnp.float32),
            jnp.asarray(table.keypoints.sigmas),
        )
        keep = np.ones(len(own), bool)
        new = poses.score[own]
        if how == "oks":
            keep = np.asarray(nms.oks_nms(*args, threshold=0.8))
        elif how == "soft_oks":
            new = np.asarray(nms.soft_oks_nms(*args, threshold=0.8))
        expected += own[keep].tolist()
        scores |= dict(zip(own.tolist(), new.tolist(), strict=True))
    assert found.row.tolist() == sorted(expected)
    np.testing.assert_allclose(found.score, [scores[r] for r in found.row], rtol=1e-5)
    if how == "oks":
        assert len(expected) < len(rows)


def test_annotated_people_are_never_suppressed():
    table = make_table()
    twins = dataclasses.replace(table, points_xy=table.points_xy[[0, 0, 2, 2, 4, 4]])
    poses = make_poses(twins)
    kept = evaluate.suppress(twins, poses, evaluate.EvaluationConfig(nms_threshold=0.1))
    assert kept.row.tolist() == [0, 1, 2, 3, 4, 5]
