"""What `init` learns about data: counts, boxes, overlaps, directions."""

import dataclasses

import numpy as np
import pytest

from pose_jax.data.survey import survey
from pose_jax.keypoints import COCO, KeypointSet
from tests.made_up import make_table


def test_counts_and_boxes():
    table = make_table(6, visibility=np.full((6, 17), 2, np.int32))
    table.visibility[0, :] = 0  # Not trained on.
    table.visibility[1, :12] = 0
    found = survey(table)
    assert (found.images, found.people, found.keypoints) == (3, 5, 17)
    assert found.most == 2 and found.several == pytest.approx(2 / 3)
    assert found.labeled == pytest.approx((4 * 17 + 5) / (5 * 17))
    assert found.box == (100, 200) and found.aspect == pytest.approx(0.5)
    assert found.extent == pytest.approx(0.5) and found.image == (400, 400)
    assert found.megabytes == round(3 * 3 * 400 * 400 / 1e6)
    assert found.has_sides


@pytest.mark.parametrize(
    ("second", "share"),
    [((90, 0), 0.0), ((75, 0), 1.0), ((0, 170), 0.0), ((0, 150), 1.0), ((300, 0), 0.0)],
)
def test_boxes_overlap_if_they_share_a_fifth(second, share):
    boxes = np.array([[0, 0, 100, 200], [0, 0, 100, 200]], float)
    boxes[1] += np.tile(second, 2)
    assert survey(make_table(2, boxes_xyxy=boxes)).overlapping == share


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("upright", False), ("side view", False), ("from above", True), ("one", False)],
)
def test_directions_are_those_of_the_longest_distance(kind, expected):
    rng = np.random.default_rng(0)
    n, worm = 40, KeypointSet("worm", ("head", "middle", "tail"), (), ())
    angle = {
        "upright": np.pi / 2 + rng.normal(0, 0.3, n),
        "side view": np.pi * rng.integers(0, 2, n) + rng.normal(0, 0.3, n),
        "from above": rng.uniform(0, 2 * np.pi, n),
        "one": rng.uniform(0, 2 * np.pi, n),
    }[kind]
    along = np.stack([np.cos(angle), np.sin(angle)], -1)
    points = 100 + np.array([-40, 5, 40])[:, None] * along[:, None]
    table = make_table(n, worm, points_xy=points)
    if kind == "one":  # No two keypoints are labeled together.
        visibility = np.zeros((n, 3), np.int32)
        visibility[np.arange(n), np.arange(n) % 3] = 2
        table = dataclasses.replace(table, visibility=visibility)
    assert survey(table).any_direction == expected
    assert not survey(table).has_sides and survey(make_table(4, COCO)).has_sides
