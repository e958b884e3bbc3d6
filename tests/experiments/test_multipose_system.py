"""The tables of the whole system, of people that are made up."""

import dataclasses

import numpy as np
import pytest

from experiments.multipose import system as tables
from pose_jax.evaluation import poses as measure
from pose_jax.methods import system
from tests.made_up import make_table


@pytest.fixture(scope="module")
def table():
    return make_table(n=6)  # Two an image.


@pytest.fixture(scope="module")
def people(table):
    """Everybody exactly, in each image somebody twice; the worst box has the best pose."""
    images = len(table.images)
    row = np.array([table.people_of_image(i)[[0, 1, 0]] for i in range(images)])
    row = np.concatenate([row, row[:, :1]], axis=1)
    valid = np.array([[True, True, True, False]] * images)
    pose = np.array([0.9, 0.8, 0.3, 1.0])
    return system.People(
        points_xy=table.points_xy[row].astype(np.float32),
        keypoint_scores=np.tile(pose[None, :, None], (images, 1, 17)).astype(
            np.float32
        ),
        score=np.tile(pose, (images, 1)).astype(np.float32),
        boxes_xyxy=table.boxes_xyxy[row].astype(np.float32),
        box_scores=np.tile([0.2, 0.5, 0.7, 1.0], (images, 1)).astype(np.float32),
        valid=valid,
        overflow=np.zeros(images, np.int32),
        row=np.arange(images, dtype=np.int32),
    )


def test_slots_without_a_person_are_left_out(table, people):
    found, poses = tables.as_detections(table, people)
    assert len(found) == len(poses.row) == 9 and len(people.valid.ravel()) == 12
    assert found.box_source == "detections" and not found.labelled
    assert found.truth is table
    np.testing.assert_array_equal(found.image, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(found.areas, 100 * 200, rtol=1e-5)


def test_ranks(table, people):
    found, poses = tables.as_detections(table, people)
    for how, wanted in (
        ("box", [0.2, 0.5, 0.7]),
        ("pose", [0.9, 0.8, 0.3]),
        ("product", [0.18, 0.4, 0.21]),
    ):
        score = tables.rescored(found, poses, how).score
        np.testing.assert_allclose(score, wanted * 3, rtol=1e-5)


def test_who_is_there_twice_goes_by_oks(table, people):
    found, poses = tables.as_detections(table, people)
    assert len(tables.suppressed(found, poses, None).row) == 9
    left = tables.suppressed(found, poses, 0.5)
    np.testing.assert_array_equal(left.row, [0, 1, 3, 4, 6, 7])
    by_box = tables.suppressed(found, tables.rescored(found, poses, "box"), 0.5)
    np.testing.assert_array_equal(by_box.row, [1, 2, 4, 5, 7, 8])
    assert measure.measure(found, left)["AP@detections"] == 1


def test_boxes_are_measured_as_coco_does(table, people):
    once = dataclasses.replace(people, valid=people.valid & (np.arange(4) < 2))
    assert tables.box_metrics(table, once)["AP"] == 1
    far = dataclasses.replace(once, boxes_xyxy=once.boxes_xyxy + 1000)
    assert tables.box_metrics(table, far)["AP"] == 0


def test_every_row_but_the_base_has_its_difference(table, people):
    found, poses = tables.as_detections(table, people)
    values = {
        how: tables._values(found, tables.rescored(found, poses, how))
        for how in tables.RESCORINGS
    }
    lines = tables._rows(values, "box", tables.RESCORINGS).splitlines()
    assert len(lines) == 2 + 3
    assert lines[2].endswith("|  |") and "[" in lines[3] and "[" in lines[4]
