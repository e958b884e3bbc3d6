"""Names, normalisers and reasons: what evaluation says beside predictions."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.io

from pose_jax import keypoints
from pose_jax.data.table import Table
from pose_jax.evaluation import boxes as of_boxes
from pose_jax.evaluation import poses as measure
from pose_jax.evaluation import text as metric_text
from pose_jax.evaluation.suppress import EvaluationConfig, suppress
from pose_jax.types import Boxes
from tests.made_up import detections, make_poses, make_table, right_answers


def test_perfect_predictions_measure_perfect():
    table = make_table()
    found = measure.measure(table, make_poses(table))
    for name in ("AP", "AP50", "AR", "PCK@0.05", "PDJ@0.2", "PCP@0.5", "PCP_loose@0.5"):
        assert found[f"{name}@gt_boxes"] == pytest.approx(1), name
    assert found["PCK_AUC@gt_boxes"] == pytest.approx(1)
    assert found["pixel_error@gt_boxes"] < 1e-4
    moved = measure.measure(table, make_poses(table, moved=np.array([3, 4])))
    assert moved["pixel_error@gt_boxes"] == pytest.approx(5, abs=1e-4)
    size = (table.boxes_xyxy[:, 2:] - table.boxes_xyxy[:, :2]).max(-1)
    labelled = (table.visibility > 0).sum(1)
    expected = np.average(5 / size, weights=labelled)
    assert moved["box_error@gt_boxes"] == pytest.approx(expected, rel=1e-5)
    assert set(measure.names(table)) == set(moved)


def test_a_name_says_boxes_and_whose_left_it_is():
    table = make_table(
        keypoint_set=keypoints.LSP, box_source="joint_boxes", centric="OC"
    )
    found = measure.measure(table, make_poses(table))
    assert "PCK@0.2@joint_boxes@OC" in found and "PCP@0.5@joint_boxes@OC" in found
    assert not any(name.startswith("AP") for name in found)
    (note,) = measure.notes(table, make_poses(table), found)
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
    found = measure.measure(table, poses)
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
    found = measure.measure(table, poses)
    assert found["PCKh@0.5@gt_boxes"] == 1
    assert found["PCKh@0.11@gt_boxes"] == 1 and found["PCKh@0.1@gt_boxes"] == 0
    assert found["PCKh_people_without_head_box@gt_boxes"] == 1


# ------------------------------------------------------------------- sticks and torsos


def values(found):
    """By NAME[@threshold], without the source of the boxes."""
    return {name.replace("@gt_boxes", ""): value for name, value in found.items()}


def moved(table, changes):
    """The table with points of (person, keypoint name) put where another's are."""
    points = table.points_xy.copy()
    at = table.keypoints.names.index
    for (person, name), other in changes.items():
        points[person, at(name)] = points[person, at(other)]
    return dataclasses.replace(table, points_xy=points)


def test_sticks_of_length_zero_are_wrong_and_counted_where_both_ends_are_labelled():
    changes = {
        (0, "right_ankle"): "right_knee",
        (1, "left_wrist"): "left_elbow",
        (2, "left_wrist"): "left_elbow",
    }
    table = moved(make_table(8, keypoints.LSP), changes)
    visibility = table.visibility.copy()
    visibility[2, keypoints.LSP.names.index("left_wrist")] = 0
    table = dataclasses.replace(table, visibility=visibility)
    found = values(measure.measure(table, make_poses(table)))
    assert found["PCP_sticks_of_length_zero"] == 2
    for name in ("PCP", "PCP_loose"):
        assert found[f"{name}@0.5"] == pytest.approx(77 / 79)
        assert found[f"{name}_lower_leg@0.5"] == pytest.approx(15 / 16)
        assert found[f"{name}_lower_arm@0.5"] == pytest.approx(14 / 15)
        assert found[f"{name}_upper_arm@0.5"] == found[f"{name}_head@0.5"] == 1
        mean = (15 / 16 + 14 / 15 + 1 + 1) / 4
        assert found[f"{name}_limbs@0.5"] == pytest.approx(mean)


def test_the_mean_of_limbs_is_over_kinds_and_leaves_out_head_and_torso():
    table = make_table(8, keypoints.LSP)
    at = keypoints.LSP.names.index
    visibility = table.visibility.copy()
    visibility[2:, at("left_wrist")] = visibility[:, at("right_wrist")] = 0
    table = dataclasses.replace(table, visibility=visibility)
    poses = make_poses(table)
    poses.points_xy[:, at("head_top")] += 500  # Every head.
    poses.points_xy[:, at("right_hip")] += 500  # Half of the upper legs, all torsos.
    poses.points_xy[0, at("left_wrist")] += 500  # One of two lower arms.
    found = values(measure.measure(table, poses))
    assert found["PCP_limbs@0.5"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 1) / 4)
    assert found["PCP_head@0.5"] == found["PCP_torso@0.5"] == 0
    # Nobody's lower arms: of the other three kinds.
    visibility = visibility.copy()
    visibility[:, at("left_wrist")] = 0
    table = dataclasses.replace(table, visibility=visibility)
    found = values(measure.measure(table, poses))
    assert found["PCP_limbs@0.5"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    # FLIC has arms alone.
    table = make_table(8, keypoints.FLIC)
    poses = make_poses(table)
    poses.points_xy[:, keypoints.FLIC.names.index("left_wrist")] += 500
    found = values(measure.measure(table, poses))
    assert found["PCP_limbs@0.5"] == pytest.approx(3 / 4)


def test_sticks_of_other_names_have_no_mean_of_limbs():
    stick = dataclasses.replace(keypoints.LSP, name="own", sticks=(("spine", 12, 2),))
    table = make_table(8, stick)
    found = values(measure.measure(table, make_poses(table)))
    assert found["PCP_spine@0.5"] == found["PCP@0.5"] == 1
    assert not any("limbs" in name for name in found)


def test_degenerate_torsos_are_counted_and_nobody_is_divided_by_zero():
    table = moved(make_table(8, keypoints.LSP), {(1, "left_shoulder"): "right_hip"})
    i, j = table.keypoints.torso
    points, visibility = table.points_xy.copy(), table.visibility.copy()
    visibility[0, i] = 0
    longer_side = np.ptp(points[2], axis=0).max()
    points[2, i] = points[2, j] + (0.04 * longer_side, 0)
    points[3] = 7.0  # All at one point: the torso, too.
    table = dataclasses.replace(table, points_xy=points, visibility=visibility)
    poses = make_poses(table)
    poses.points_xy[2] += 0.1 * longer_side
    with np.errstate(all="raise"):
        found = values(measure.measure(table, poses))
    assert found["PCK_people_without_torso"] == 1
    assert found["PCK_people_with_torso_of_length_zero"] == 2
    assert found["PCK_people_with_tiny_torso"] == 3
    # Person 2 and the four of 4 to 7 are left, and all but that one are right.
    assert found["PCK@0.2"] == 4 / 5
    notes = measure.notes(table, poses, measure.measure(table, poses))
    for name, count in (
        ("PCK_people_with_torso_of_length_zero", 2),
        ("PCK_people_with_tiny_torso", 3),
        ("PCP_sticks_of_length_zero", 10),
    ):
        (note,) = (n for n in notes if n.startswith(f"{name}@gt_boxes is {count}: "))
        assert note.endswith(metric_text.FORMULAS[name])


def test_real_labels_have_a_stick_of_length_zero_and_a_tiny_torso(real_data):
    joints = scipy.io.loadmat(real_data / "lsp_dataset" / "joints.mat")["joints"]
    points = joints.transpose(2, 1, 0)[..., :2]
    i, j = keypoints.LSP.torso
    # Both sticks are of one leg: its hip, knee and ankle are at one point.
    for half, sticks, tiny in ((slice(1000), 0, 1), (slice(1000, 2000), 2, 1)):
        table = make_table(1000, keypoints.LSP, points_xy=points[half])
        found = values(measure.measure(table, make_poses(table)))
        assert found["PCP_sticks_of_length_zero"] == sticks
        assert found["PCP@0.5"] == pytest.approx(1 - sticks / 10_000)
        assert found["PCP_limbs@0.5"] == pytest.approx(1 - sticks / 8000)
        assert found["PCK_people_with_torso_of_length_zero"] == 0
        assert found["PCK_people_with_tiny_torso"] == tiny
        torso = np.linalg.norm(points[half, i] - points[half, j], axis=-1)
        assert (torso < 10).sum() == tiny
    assert np.median(torso) == pytest.approx(48, abs=0.1)


# -------------------------------------------------------------------------- PDJ curves


def test_a_curve_steps_where_the_distance_is_and_sides_are_averaged_by_counts():
    table = make_table(8, keypoints.LSP)
    i, j = table.keypoints.torso
    at = table.keypoints.names.index
    points, visibility = table.points_xy.copy(), table.visibility.copy()
    points[:, i] = points[:, j] + (0, -64)  # Torsos of 64 pixels.
    visibility[1:, at("left_wrist")] = 0
    visibility[:, at("neck")] = 0
    table = dataclasses.replace(
        table, points_xy=np.round(points), visibility=visibility
    )
    poses = make_poses(table)
    poses.points_xy[0, at("left_wrist")] += (16, 0)  # Exactly a quarter.
    poses.points_xy[2, at("right_wrist")] += (0, 32)  # Exactly a half.
    poses.points_xy[3, at("right_knee")] += (32.01, 0)  # And a little more.
    curve = measure.pdj_curve(table, poses, (0.0, 0.24, 0.25, 0.49, 0.5))
    np.testing.assert_allclose(curve["wrist"], np.array([7, 7, 8, 8, 9]) / 9)
    np.testing.assert_allclose(curve["knee"], np.full(5, 15 / 16))
    np.testing.assert_allclose(curve["hip"], np.ones(5))
    total = 8 * 14 - 7 - 8
    mean = (total - np.array([3, 3, 2, 2, 1])) / total
    np.testing.assert_allclose(curve["mean"], mean)
    assert list(curve) == [
        "ankle", "knee", "hip", "wrist", "elbow", "shoulder", "head_top", "mean",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["lsp", "flic"])
def test_a_curve_is_the_loop_and_passes_through_pdj(name):
    keypoint_set = keypoints.SETS[name]
    table = make_table(16, keypoint_set)
    rng = np.random.default_rng(1)
    shape = table.visibility.shape
    table = dataclasses.replace(
        table, visibility=rng.choice([0, 1, 2], shape, p=[0.2, 0.3, 0.5])
    )
    poses = make_poses(table, moved=rng.normal(size=(*shape, 2)) * 20)
    rows = np.array([14, 1, 7, 0, 8, 2, 11, 5], np.int32)
    poses = dataclasses.replace(
        make_poses(table, rows=rows), points_xy=poses.points_xy[rows]
    )
    curve = measure.pdj_curve(table, poses)
    right, counted = {}, {}
    i, j = keypoint_set.torso
    for row, pred in zip(rows, poses.points_xy, strict=True):
        true, visibility = table.points_xy[row], table.visibility[row]
        if visibility[i] == 0 or visibility[j] == 0:
            continue
        torso = np.hypot(*(true[i] - true[j]))
        for k, keypoint in enumerate(keypoint_set.names):
            if visibility[k] > 0:
                near = np.hypot(*(pred[k] - true[k])) <= np.arange(51) / 100 * torso
                bare = keypoint.split("_", 1)[1] if "t_" in keypoint else keypoint
                for group in (bare, "mean"):
                    right[group] = right.get(group, 0) + near
                    counted[group] = counted.get(group, 0) + 1
    assert set(curve) == set(right) and len(counted) > 3
    for group, shares in curve.items():
        np.testing.assert_allclose(shares, right[group] / counted[group])
        assert (np.diff(shares) >= 0).all()
    found = measure.measure(table, poses)
    assert curve["mean"][20] == pytest.approx(found["PDJ@0.2@gt_boxes"], abs=1e-12)


def test_there_is_no_curve_without_labels_a_torso_or_people():
    table = make_table(2)
    poses = make_poses(table)
    no_torso = dataclasses.replace(keypoints.COCO, torso=None)
    for changes in (
        {"labelled": False},
        {"visibility": np.zeros_like(table.visibility)},
        {"keypoints": no_torso},
    ):
        assert measure.pdj_curve(dataclasses.replace(table, **changes), poses) == {}
    nobody = make_poses(table, rows=np.zeros(0, np.int32))
    assert measure.pdj_curve(table, nobody) == {}


def test_groups_are_left_and_right_of_one_name():
    groups = keypoints.COCO.groups
    assert list(groups)[:4] == ["nose", "eye", "ear", "shoulder"]
    assert groups["nose"] == (0,) and groups["wrist"] == (9, 10)
    for keypoint_set in keypoints.SETS.values():
        together = [i for its in keypoint_set.groups.values() for i in its]
        assert sorted(together) == list(range(len(keypoint_set)))
        pairs = {frozenset(its) for its in keypoint_set.groups.values() if len(its) > 1}
        assert pairs == {frozenset(pair) for pair in keypoint_set.flip_pairs}


# --------------------------------------------------------------------- left and right


def exchange(table, poses, person, part=None):
    """Exchanges left and right of a prediction, all or those of a part of the body."""
    for i, j in table.keypoints.flip_pairs:
        upper = i in table.keypoints.upper_body
        if part is None or (part == "upper") == upper:
            points = poses.points_xy[person]
            points[[i, j]] = points[[j, i]]


def test_flipped_people_are_counted_by_part_and_what_they_cost():
    table = make_table(8, keypoints.LSP)
    visibility = table.visibility.copy()
    visibility[7, :9] = 0  # Three of the left upper body's, neck and head are left.
    table = dataclasses.replace(table, visibility=visibility)
    poses = make_poses(table)
    exchange(table, poses, 0)
    exchange(table, poses, 1)
    exchange(table, poses, 2, "upper")
    exchange(table, poses, 3, "lower")
    exchange(table, poses, 7)
    found = values(measure.measure(table, poses))
    assert found["flipped_people_left_out"] == 1
    assert found["flipped_people_upper_body_left_out"] == 1
    assert found["flipped_people_lower_body_left_out"] == 1
    assert found["flipped_people_upper_body"] == pytest.approx(3 / 7)
    assert found["flipped_people_lower_body"] == pytest.approx(3 / 7)
    # Of the people half exchanged, at most one half is better off in the whole.
    assert 2 / 7 <= found["flipped_people"] <= 4 / 7
    assert found["PDJ_unflipped@0.2"] > found["PDJ@0.2"]
    assert found["PCP_unflipped@0.5"] > found["PCP@0.5"]


def test_without_its_flips_a_prediction_is_what_it_would_have_been():
    table = make_table(8, keypoints.LSP)
    poses = make_poses(table, moved=np.array([2.0, 1.0]))
    straight = values(measure.measure(table, poses))
    exchange(table, poses, 5)
    found = values(measure.measure(table, poses))
    assert straight["flipped_people"] == 0 and found["flipped_people"] == 1 / 8
    for name, at in (("PDJ", "0.2"), ("PCP", "0.5")):
        assert straight[f"{name}_unflipped@{at}"] == straight[f"{name}@{at}"]
        assert found[f"{name}_unflipped@{at}"] == straight[f"{name}@{at}"]
        assert found[f"{name}@{at}"] < straight[f"{name}@{at}"]


def test_parts_of_the_body_are_told_apart_where_the_set_has_two():
    for name, parts in (("lsp", 4), ("coco", 4), ("flic", 0)):
        table = make_table(6 if name == "coco" else 8, keypoints.SETS[name])
        found = measure.measure(table, make_poses(table))
        assert sum("_body" in metric for metric in found) == parts
    # Two pairs at least can be exchanged, or nothing is said.
    few = dataclasses.replace(keypoints.LSP, flip_pairs=((0, 5),), upper_body=())
    table = make_table(8, few)
    found = measure.measure(table, make_poses(table))
    assert not any("flip" in name for name in found)


@pytest.mark.parametrize("nobody", ["no rows", "no labels", "no table"])
def test_of_nobody_all_that_is_counted_is_a_number(nobody):
    table = make_table(0 if nobody == "no table" else 8, keypoints.LSP)
    rows = np.zeros(0, np.int32) if nobody == "no rows" else None
    if nobody == "no labels":
        hidden = np.zeros_like(table.visibility)
        table = dataclasses.replace(table, visibility=hidden)
    poses = make_poses(table, rows=rows)
    with np.errstate(all="raise"):
        found = values(measure.measure(table, poses))
    assert np.isnan(found.pop("pixel_error")) and np.isnan(found.pop("box_error"))
    left_out = 8.0 if nobody == "no labels" else 0.0
    assert found.pop("PCK_people_without_torso") == left_out
    for part in ("", "_upper_body", "_lower_body"):
        assert found.pop(f"flipped_people{part}_left_out") == left_out
    assert "PCP_limbs@0.5" in found and "flipped_people" in found
    assert set(found.values()) == {0.0}


def test_new_names_keep_the_convention_and_all_have_formulas():
    changes = {"box_source": "joint_boxes", "centric": "PC"}
    table = make_table(8, keypoints.LSP, **changes)
    found = measure.measure(table, make_poses(table))
    parts = {f"{name}_{kind}" for name in ("PCP", "PCP_loose") for kind in _KINDS}
    for name in found:
        assert re.fullmatch(r"\w+(@0\.\d+)?@joint_boxes@PC", name), name
        assert metric_text.formula(name) or name.split("@")[0] in parts, name
    order = [name.split("@")[0] for name in metric_text.shown(found)]
    assert order == ["pixel_error", *["PCK"] * 3, "PCP", "PCP_limbs", "flipped_people"]
    assert "flipped" not in metric_text.one_line(1, found)


_KINDS = {name for name, _, _ in keypoints.LSP.sticks}


def test_every_metric_shown_has_a_formula_and_it_is_printed():
    table = make_table(4, keypoints.MPII, head_sizes=np.full(4, 40.0))
    for made in (table, make_table(4)):
        found = measure.measure(made, make_poses(made, moved=1.0))
        text = metric_text.table_of({"dark": found, "argmax": found})
        for name in metric_text.shown(found):
            assert metric_text.formula(name)
            assert re.search(rf"^{re.escape(name)} +[\d.]+ +[\d.]+$", text, re.M)
            assert f"  {name.split('@')[0]}: " in text


def test_the_keypoint_table_counts_each_keypoint_alone():
    table = make_table(4)
    visibility = table.visibility.copy()
    visibility[:3, 0], visibility[0, 1] = 0, 1
    table = dataclasses.replace(table, visibility=visibility)
    poses = make_poses(table)
    poses.points_xy[:, 2] += np.array([6, 8])
    nose, left_eye, right_eye, *_ = rows = measure.per_keypoint(table, poses)
    assert [row["name"] for row in rows] == list(table.keypoints.names)
    assert (nose["labelled"], left_eye["hidden"]) == (1, 1)
    assert right_eye["median_error"] == pytest.approx(10, abs=1e-4)
    assert nose["mean_error"] < 1e-4 and nose["PCK@0.2"] == 1
    assert "right_eye" in metric_text.keypoint_table(rows)
    unlabelled = dataclasses.replace(table, labelled=False)
    assert measure.per_keypoint(unlabelled, poses) == []


def test_nobody_labelled_gives_numbers_or_nan_and_no_error():
    table = make_table(2)
    table = dataclasses.replace(table, visibility=np.zeros_like(table.visibility))
    found = measure.measure(table, make_poses(table))
    assert found["AP@gt_boxes"] == -1 and np.isnan(found["pixel_error@gt_boxes"])
    (note,) = measure.notes(table, make_poses(table), found)
    assert "none of the 2 annotated people is counted" in note
    assert metric_text.keypoint_table(measure.per_keypoint(table, make_poses(table)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"areas": np.zeros(6)}, r"6 of 6 labeled people have an area of 0"),
        ({"areas": np.ones(6)}, r"area of 6 of 6 labeled people is less than 1/100"),
        ({"crowd": np.ones(6, bool)}, r"6 are crowd regions"),
    ],
)
def test_an_ap_of_nothing_says_why(change, says):
    table = dataclasses.replace(make_table(), **change)
    poses = make_poses(table, moved=1.0)
    found = measure.measure(table, poses)
    assert found["AP@gt_boxes"] in (0, -1)
    notes = measure.notes(table, poses, found)
    assert any(re.search(says, note) for note in notes), notes


def test_more_people_than_ap_counts_are_said_and_counted_on_request():
    table = make_table(42)
    table = dataclasses.replace(table, image=(np.arange(42) // 21).astype(np.int32))
    poses = make_poses(table)
    found = measure.measure(table, poses)
    assert found["AP@gt_boxes"] < 1
    notes = measure.notes(table, poses, found)
    assert any("2 images have more labeled people, up to 21" in note for note in notes)
    more = measure.ap_of_more(table, measure.to_results(table, poses), 21)
    assert more["AP[max=21]@gt_boxes"] == pytest.approx(1) and len(more) == 10
    few = make_table(4)
    found = measure.measure(few, make_poses(few))
    assert not any(
        "counts the best" in n for n in measure.notes(few, make_poses(few), found)
    )


def test_predictions_in_other_units_are_recognized():
    table = make_table()
    poses = make_poses(table)
    poses.points_xy[:] /= 400
    found = measure.measure(table, poses)
    (note,) = measure.notes(table, poses, found)
    assert "are predictions in pixels of the original image" in note


def test_poses_on_detections_are_counted_against_the_annotated_people():
    table = make_table()
    rows = np.array([0, 1, 2, 3, 4, 5, 0, 2])
    boxes = detections(table, rows, np.linspace(1, 0.3, 8))
    poses = make_poses(boxes)
    raw = measure.measure(boxes, poses)
    assert raw["AP@detections"] == pytest.approx(1, abs=0.1)
    assert not any("PCK" in name for name in raw)
    kept = suppress(boxes, poses, EvaluationConfig())
    assert kept.row.tolist() == [0, 1, 2, 3, 4, 5]
    assert measure.measure(boxes, kept)["AP@detections"] == pytest.approx(1)


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
    config = EvaluationConfig(nms=how, nms_threshold=0.8)
    found = suppress(boxes, poses, config)
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
    kept = suppress(twins, poses, EvaluationConfig(nms_threshold=0.1))
    assert kept.row.tolist() == [0, 1, 2, 3, 4, 5]


# Boxes of a detector.


def boxes_of(table: Table, variables: dict) -> Boxes:
    """What a detector of these answers gives for all images."""
    params = variables["params"]
    return Boxes(
        boxes_xyxy=params["boxes"],
        scores=params["scores"],
        valid=params["scores"] > 0,
        row=np.arange(len(table.images), dtype=np.int32),
    )


def test_right_boxes_measure_perfect_and_names_know_it_before():
    table = make_table(7)
    boxes = boxes_of(table, right_answers(table))
    found = of_boxes.measure(table, boxes)
    assert list(found) == of_boxes.names(table)
    assert found["box_AP"] == found["box_AP50"] == found["box_AR"] == 1
    # All have 10,000 square pixels.
    assert found["box_APs"] == found["box_APm"] == -1 and found["box_APl"] == 1
    assert all(map(metric_text.formula, found)) and all(
        map(metric_text.is_metric, found)
    )
    assert not metric_text.is_metric("box_loss") and not metric_text.is_metric("lr")
    assert of_boxes.notes(table, boxes, found) == []
    assert "box_AP 1  box_AP50 1" in metric_text.one_line(5, found)
    text = metric_text.table_of({"detector": found})
    assert f"box_AP: {metric_text.FORMULAS['box_AP']}" in text


def test_a_false_box_in_an_image_of_nobody_costs_precision():
    """All images count: with the false box scored above all, precision is n / (n + 1)."""
    table = make_table(4)
    empty = dataclasses.replace(
        table,
        images=(*table.images, table.images[0]),
        image_ids=np.arange(3) + 10,
        image_sizes=np.full((3, 2), 400, np.int32),
    )
    answers = right_answers(empty)
    assert of_boxes.measure(empty, boxes_of(empty, answers))["box_AP"] == 1
    answers["params"]["boxes"][2, 0] = (10, 10, 50, 90)
    answers["params"]["scores"][2, 0] = 0.99
    found = of_boxes.measure(empty, boxes_of(empty, answers))
    assert found["box_AP"] == pytest.approx(4 / 5) and found["box_AR"] == 1


def test_boxes_as_results_are_those_that_are_valid():
    table = make_table(3)
    boxes = boxes_of(table, right_answers(table))
    results = of_boxes.to_results(table, boxes)
    assert [r["image_id"] for r in results] == [10, 10, 11]
    assert {r["category_id"] for r in results} == {1}
    xywh = np.array([r["bbox"] for r in results])
    np.testing.assert_allclose(xywh[:, 2:], [[100, 200]] * 3, atol=1e-3)
    np.testing.assert_allclose(xywh[:, :2], table.boxes_xyxy[:, :2], atol=1e-3)
    np.testing.assert_allclose([r["score"] for r in results], [0.9, 0.89, 0.9])


def none(boxes):
    return dataclasses.replace(boxes, valid=np.zeros_like(boxes.valid))


def scaled(boxes):
    return dataclasses.replace(boxes, boxes_xyxy=boxes.boxes_xyxy / 10)


def aside(boxes):
    return dataclasses.replace(boxes, boxes_xyxy=boxes.boxes_xyxy + 400)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (none, "produced no boxes"),
        (scaled, "longer side of boxes is 20 pixels, of ground-truth boxes 200"),
        (aside, r"6 boxes .* none reaches IoU 0.5"),
    ],
)
def test_a_box_ap_of_nothing_says_why(change, says):
    table = make_table()
    boxes = change(boxes_of(table, right_answers(table)))
    found = of_boxes.measure(table, boxes)
    (note,) = of_boxes.notes(table, boxes, found)
    assert re.search(f"^box_AP is 0: .*{says}", note), note


def test_without_labels_boxes_are_not_measured():
    table = make_table(labelled=False)
    boxes = boxes_of(table, right_answers(table))
    assert of_boxes.measure(table, boxes) == {}
    assert of_boxes.names(table) == []
    (note,) = of_boxes.notes(table, boxes, {})
    assert "have no annotations" in note


def test_box_errors_are_people_missed_and_boxes_of_nobody():
    table = make_table(
        4,
        boxes_xyxy=np.array(
            [
                [0.0, 0, 100, 200], [10, 0, 110, 200], [200, 0, 300, 200],
                [200, 200, 400, 400],
            ]
        ),
        image=np.array([0, 0, 0, 1], np.int32),
        crowd=np.array([False, False, False, True]),
    )  # fmt: skip
    boxes = Boxes(
        boxes_xyxy=np.array(
            [
                # The first two on one person and his neighbour; half of a third; nothing.
                [
                    [0, 0, 100, 200],
                    [1, 0, 101, 200],
                    [200, 0, 300, 99],
                    [0, 300, 9, 390],
                ],
                # In the crowd; mostly outside of it; and two that are not said.
                [
                    [210, 210, 250, 300],
                    [100, 200, 290, 300],
                    [0, 0, 9, 9],
                    [0, 0, 9, 9],
                ],
            ],
            np.float32,
        ),
        scores=np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.49, 0.9]], np.float32),
        valid=np.array([[True] * 4, [True] * 3 + [False]]),
        row=np.array([0, 1], np.int32),
    )
    missed, false = of_boxes.box_errors(table, boxes)
    assert missed.tolist() == [1, 0] and false.tolist() == [2, 1]
    missed, false = of_boxes.box_errors(table, boxes, score=0.75, iou=0.4)
    assert missed.tolist() == [1, 0] and false.tolist() == [0, 0]


def test_results_have_the_digits_of_round():
    """Halves too: of a float32 the decimal expansion ends."""
    rng = np.random.default_rng(0)
    table = make_table(40)
    scale = 10.0 ** rng.integers(-4, 7, (40, 17, 2))
    points = (rng.normal(size=(40, 17, 2)) * scale).astype(np.float32)
    points[0, :6, 0] = (0.0625, 0.1875, -0.0625, -0.0001, 2.5, 1e30)
    poses = dataclasses.replace(make_poses(table), points_xy=points)
    for i, result in enumerate(measure.to_results(table, poses)):
        xys = np.concatenate([points[i], poses.keypoint_scores[i][:, None]], -1)
        expected = [round(float(v), 3) for v in xys.reshape(-1)]
        assert result["keypoints"] == expected
        assert np.signbit(result["keypoints"]).tolist() == np.signbit(expected).tolist()


def test_oks_of_an_image_is_pycocotools_to_the_bit():
    """With people of some, of one and of no labels, and more poses than count."""
    from pycocotools.cocoeval import COCOeval

    from pose_jax.metrics import coco

    rng = np.random.default_rng(0)
    table = make_table(8)
    visibility = rng.choice(3, (8, 17)).astype(np.int32)
    visibility[2], visibility[3, 1:], visibility[5] = 0, 0, 2
    table = dataclasses.replace(table, visibility=visibility)
    rows = np.repeat(np.arange(8, dtype=np.int32), 12)
    poses = make_poses(table, rng.normal(0, 30, (96, 17, 2)), rows)
    poses = dataclasses.replace(poses, score=rng.permutation(96).astype(np.float32))
    evaluator = coco._match(
        table.coco_ground_truth(),
        measure.to_results(table, poses),
        keypoints.COCO.sigmas,
        20,
    )
    images = table.image_ids.tolist()
    for image in images:
        found = evaluator.ious[image, 1]
        assert found.shape == (20, 2)
        np.testing.assert_array_equal(
            found, COCOeval.computeOks(evaluator, image, 1), strict=True
        )
    assert len({oks for image in images for oks in evaluator.ious[image, 1].flat}) > 80


def test_a_crop_holds_box_and_points_and_stays_inside():
    image = np.arange(30 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
    for box, points in (
        ([5, 6, 9, 12], [[20, 3]]),
        ([-50, -50, -40, -40], np.zeros((0, 2))),
        ([38, 28, 90, 90], [[39, 29]]),
    ):
        points = np.array(points, float).reshape(-1, 2)
        window, corner = measure.crop(image, np.array(box, float), points)
        h, w = window.shape[:2]
        x, y = corner
        np.testing.assert_array_equal(window, image[y : y + h, x : x + w])
        assert h > 0 and w > 0
        for px, py in points:
            assert x <= px < x + w and y <= py < y + h
