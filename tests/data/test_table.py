"""The Table: what evaluators, readers and checkpoints take from it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_jax import keypoints
from pose_jax.data import rows
from pose_jax.data.table import Table
from pose_jax.metrics import coco_keypoint_ap
from pose_jax.types import ImageView, PersonView

HASHED = (
    "image_ids",
    "image_sizes",
    "image",
    "ids",
    "boxes_xyxy",
    "points_xy",
    "visibility",
    "areas",
    "crowd",
)


def make_table(seed=0, *, people=12, images=5, keypoint_set=keypoints.COCO):
    """People scattered over the images, some crowds and some without a label."""
    rng = np.random.default_rng(seed)
    k = len(keypoint_set)
    corner, size = rng.uniform(0, 300, (people, 2)), rng.uniform(20, 200, (people, 2))
    visibility = rng.integers(0, 3, (people, k)).astype(np.int32)
    visibility[rng.random(people) < 0.2] = 0
    points = corner[:, None] + rng.random((people, k, 2)) * size[:, None]
    points[visibility == 0] = np.nan
    return Table(
        name="made up",
        keypoints=keypoint_set,
        images=tuple(Path(f"{i}.jpg") for i in range(images)),
        image_ids=rng.permutation(10**12 + np.arange(images)),
        image_sizes=rng.integers(300, 600, (images, 2)).astype(np.int32),
        image=rng.integers(0, images, people).astype(np.int32),
        ids=rng.permutation(10**12 + np.arange(people)),
        boxes_xyxy=np.concatenate([corner, corner + size], -1),
        box_scores=np.ones(people),
        points_xy=points,
        visibility=visibility,
        areas=size.prod(-1) * 0.6,
        crowd=rng.random(people) < 0.2,
    )


def test_people_who_are_left_out_are_counted():
    table = change(make_table(), "crowd", slice(None), False)
    table = change(table, "visibility", slice(None), 2)
    table = change(table, "points_xy", slice(None), 0.0)
    table = dataclasses.replace(table, notes=("as written",))
    assert table.remarks() == ["as written"] and len(table.labelled_rows()) == 12
    table = change(table, "areas", [1, 2, 3], 0)
    table = change(table, "boxes_xyxy", ([3, 4], 2), -100)
    table = change(table, "areas", 5, 0)
    table = change(table, "visibility", 5, 0)
    first, remark = table.remarks()
    assert first == "as written"
    assert remark.startswith("4 of 11 labeled people are left out of training and")
    assert "count as missed in AP: 2 have an empty box, 2 an area of 0" in remark
    assert table.labelled_rows().tolist() == [0, 6, 7, 8, 9, 10, 11]
    boxes = dataclasses.replace(table, labelled=False, truth=table, notes=())
    (remark,) = boxes.remarks()
    assert remark.startswith("4 of 11 labeled people count as missed in AP: 2 have an")
    assert dataclasses.replace(boxes, truth=None).remarks() == []


def test_batches_have_no_empty_boxes_and_no_nan_where_nothing_is_labelled():
    table = change(make_table(), "image", slice(None), 0)
    table = change(table, "crowd", slice(None), False)
    table = change(table, "boxes_xyxy", (slice(0, 10), 2), -100)
    images = rows.of(ImageView((8, 8), ((8, 8),), max_people=12))
    assert images.default(table, training=True).tolist() == [0]
    labels = images.labels(table, np.array([0]), np.array([True]))
    assert labels.people_kind.sum() == 2
    empty = change(table, "boxes_xyxy", (slice(None), 2), -100)
    assert not len(images.default(empty, training=True))
    assert np.isnan(table.points_xy[0]).any()
    people = rows.of(PersonView((8, 8), max_others=2))
    found = people.labels(table, np.arange(12), np.full(12, True))
    assert np.isfinite(found.points_xy).all() and np.isfinite(found.others_xy).all()
    wrong = change(table, "visibility", 0, 2)
    found = people.labels(wrong, np.arange(12), np.full(12, True))
    assert np.isnan(found.points_xy[0]).any()


def change(table, name, index, value):
    column = getattr(table, name).copy()
    column[index] = value
    return dataclasses.replace(table, **{name: column})


def perfect_results(table):
    """Every labelled person found exactly; what is not labelled is put anywhere."""
    points = np.where(table.visibility[..., None] > 0, table.points_xy, -1000.0)
    ones = np.ones_like(points[..., :1])
    flat = np.concatenate([points, ones], -1).reshape(len(table), -1)
    return [
        {
            "image_id": int(table.image_ids[table.image[row]]),
            "category_id": 1,
            "keypoints": flat[row].tolist(),
            "score": 1 - row / 100,
        }
        for row in table.labelled_rows()
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_perfect_results_have_an_ap_of_one(seed):
    table = make_table(seed)
    ap = coco_keypoint_ap(table.coco_ground_truth(), perfect_results(table))
    assert set(np.round(list(ap.values()), 9)) <= {1.0, -1.0}
    assert (ap["AP"] > 0) == (len(table.labelled_rows()) > 0)


def test_ap_falls_with_what_is_missed():
    table = make_table(1)
    found = perfect_results(table)
    half = coco_keypoint_ap(table.coco_ground_truth(), found[::2])
    assert half["AR"] == pytest.approx(len(found[::2]) / len(found))


def test_ap_of_a_set_without_sigmas_is_refused():
    table = make_table(keypoint_set=keypoints.LSP)
    with pytest.raises(ValueError, match="sigmas"):
        coco_keypoint_ap(table.coco_ground_truth(), perfect_results(table))


def test_coco_ground_truth_says_what_the_columns_say():
    table = make_table(2)
    # Through JSON: nothing of NumPy is left, and no NaN of an unlabelled point.
    truth = json.loads(json.dumps(table.coco_ground_truth(), allow_nan=False))
    assert [i["id"] for i in truth["images"]] == table.image_ids.tolist()
    sizes = [[i["width"], i["height"]] for i in truth["images"]]
    assert sizes == table.image_sizes.tolist()
    assert truth["categories"][0]["keypoints"] == list(keypoints.COCO.names)
    assert len(truth["annotations"]) == len(table)
    for row, person in enumerate(truth["annotations"]):
        points = np.reshape(person["keypoints"], (17, 3))
        labelled = table.visibility[row] > 0
        np.testing.assert_array_equal(points[:, 2], table.visibility[row])
        np.testing.assert_array_equal(
            points[labelled, :2], table.points_xy[row, labelled]
        )
        assert (points[~labelled, :2] == 0).all()
        assert person["num_keypoints"] == labelled.sum()
        x, y, w, h = person["bbox"]
        np.testing.assert_allclose([x, y, x + w, y + h], table.boxes_xyxy[row])
        assert person["area"] == table.areas[row]
        assert person["iscrowd"] == table.crowd[row]
        assert person["id"] == table.ids[row]
        assert person["image_id"] == table.image_ids[table.image[row]]
        assert person["category_id"] == truth["categories"][0]["id"]


def test_labelled_rows_are_the_usable_people():
    table = make_table(3, people=6)
    table = dataclasses.replace(
        table,
        visibility=np.full((6, 17), 2, np.int32),
        crowd=np.zeros(6, bool),
    )
    assert table.labelled_rows().tolist() == [0, 1, 2, 3, 4, 5]
    assert table.labelled_rows().dtype == np.int32
    x, y, right, bottom = table.boxes_xyxy[1]
    for spoilt in (
        change(table, "visibility", 1, 0),
        change(table, "areas", 1, 0.0),
        change(table, "areas", 1, np.nan),
        change(table, "crowd", 1, True),
        change(table, "boxes_xyxy", 1, (x, y, x, bottom)),
        change(table, "boxes_xyxy", 1, (x, y, right, y - 1)),
        change(table, "boxes_xyxy", 1, (x, y, right, np.nan)),
    ):
        assert spoilt.labelled_rows().tolist() == [0, 2, 3, 4, 5]
    # One label is enough, hidden or visible.
    one = change(table, "visibility", 1, [0] * 16 + [1])
    assert 1 in one.labelled_rows()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.integers(1, 5))
def test_people_of_image_is_the_loop(seed, people, images):
    table = make_table(seed, people=people, images=images)
    for image in range(images):
        rows = table.people_of_image(image)
        assert rows.tolist() == [r for r in range(people) if table.image[r] == image]
        assert rows.dtype == np.int32


def test_people_of_image_is_not_carried_to_a_changed_table():
    table = make_table(4)
    row = int(table.people_of_image(int(table.image[0]))[0])
    target = (int(table.image[row]) + 1) % 5
    moved = change(table, "image", row, target)
    assert row in moved.people_of_image(target)
    assert row not in table.people_of_image(target)


def test_fingerprint_changes_with_any_label():
    table = make_table(5)
    fingerprint = table.fingerprint()
    seen = {fingerprint}
    for name in HASHED:
        values = getattr(table, name)
        index = tuple(np.argwhere(np.isfinite(values))[0])
        value = ~values[index] if values.dtype == bool else values[index] + 1
        if name == "image":
            value %= len(table.images)
        seen.add(change(table, name, index, value).fingerprint())
    renamed = dataclasses.replace(keypoints.COCO, names=keypoints.COCO.names[::-1])
    seen.add(dataclasses.replace(table, keypoints=renamed).fingerprint())
    assert len(seen) == len(HASHED) + 2
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in seen)
    # The order of people matters: it is the order that a seed permutes.
    flipped = {name: getattr(table, name)[::-1] for name in HASHED[2:]}
    assert dataclasses.replace(table, **flipped).fingerprint() not in seen


def test_fingerprint_does_not_see_where_the_files_lie():
    table = make_table(6)
    fingerprint = table.fingerprint()
    elsewhere = tuple(Path("elsewhere") / path for path in table.images)
    moved = dataclasses.replace(table, images=elsewhere, name="moved")
    assert moved.fingerprint() == fingerprint
    other_memory = np.asfortranarray(table.points_xy)
    same = dataclasses.replace(table, points_xy=other_memory)
    assert same.fingerprint() == fingerprint
