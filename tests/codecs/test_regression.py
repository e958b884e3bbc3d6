"""Coordinates in units of a box and the steps of the cascade, against closed forms."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from pose_jax import keypoints
from pose_jax.codecs import regression

BOX = (10.0, 20.0, 50.0, 100.0)  # Centre (30, 60), 40 x 80: not square.
TORSO = (1, 3)


# Compiled once per shape: eager, every small operation is compiled by itself.
normalize, denormalize = jax.jit(regression.normalize), jax.jit(regression.denormalize)
diameter = jax.jit(regression.diameter, static_argnames="torso")
refine = jax.jit(regression.refine)


def arrays(*values):
    return [jnp.asarray(value, jnp.float32) for value in values]


def random_points(*shape, seed=0):
    points = np.random.default_rng(seed).uniform(-200, 900, (*shape, 2))
    return jnp.asarray(points, jnp.float32)


def random_boxes(*shape, seed=1):
    random = np.random.default_rng(seed)
    low, size = random.uniform(-100, 500, (*shape, 2)), random.uniform(2, 400, shape)
    high = low + size[..., None] * random.uniform(1, 2, (*shape, 2))
    return jnp.asarray(np.concatenate([low, high], axis=-1), jnp.float32)


# ------------------------------------------------------------------------- N and inverse


def test_normalize_is_0_at_the_centre_and_half_at_the_sides():
    points, box = arrays([[30, 60], [10, 20], [50, 100], [50, 20], [30, 80]], BOX)
    expected = [[0, 0], [-0.5, -0.5], [0.5, 0.5], [0.5, -0.5], [0, 0.25]]
    normal = normalize(points, box)
    np.testing.assert_array_equal(normal, expected)
    np.testing.assert_array_equal(denormalize(normal, box), points)


def test_both_are_their_definition_in_float64():
    points, boxes = random_points(6, 5), random_boxes(6)
    found = [
        np.asarray(function(points, boxes)) for function in (normalize, denormalize)
    ]
    for i in range(6):
        x, y, x2, y2 = np.float64(boxes[i])
        for j in range(5):
            px, py = np.float64(points[i, j])
            centre, size = np.array([(x + x2) / 2, (y + y2) / 2]), (x2 - x, y2 - y)
            normal = np.array([px, py]) - centre
            normal /= size
            np.testing.assert_allclose(found[0][i, j], normal, rtol=1e-5, atol=1e-5)
            back = centre + np.array([px, py]) * size
            np.testing.assert_allclose(found[1][i, j], back, rtol=1e-5)


@given(
    hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-500, 2000, width=32)),
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 1000, width=32)),
)
@settings(max_examples=60, deadline=None)
def test_the_round_trip_is_exact_to_rounding_for_any_box(points, boxes):
    # Boxes may be inside out or empty.
    points, boxes = jnp.asarray(points), jnp.asarray(boxes)
    normal = normalize(points, boxes)
    assert np.isfinite(normal).all()
    back = denormalize(normal, boxes)
    np.testing.assert_allclose(back, points, atol=1e-3)


@pytest.mark.parametrize("box", [(7, 8, 7, 8), (7.3, 8.2, 6.7, 7.8), (9, 11, 5, 5)])
def test_an_empty_box_counts_as_one_pixel(box):
    points, box = arrays([[9, 5], [7, 8]], box)
    centre = 0.5 * (box[:2] + box[2:])[None]
    normal = normalize(points, box)
    np.testing.assert_allclose(normal, points - centre, atol=1e-6)
    np.testing.assert_allclose(denormalize(normal, box), points, atol=1e-6)


def test_gradients_are_one_over_the_size_and_the_size():
    points, box = arrays([[12, 3], [40, 70]], BOX)
    slope = jax.grad(lambda p: normalize(p, box).sum())(points)
    np.testing.assert_allclose(slope, [[1 / 40, 1 / 80]] * 2, rtol=1e-6)
    slope = jax.grad(lambda p: denormalize(p, box).sum())(points)
    np.testing.assert_allclose(slope, [[40, 80]] * 2, rtol=1e-6)


# ------------------------------------------------------------------------------ diameter


def test_diameter_is_the_distance_of_the_two_joints():
    points = random_points(2, 3, 5)
    found = diameter(points, TORSO)
    assert found.shape == (2, 3)
    difference = np.float64(points[..., 1, :]) - np.float64(points[..., 3, :])
    np.testing.assert_allclose(found, np.hypot(*np.moveaxis(difference, -1, 0)))


def test_diameter_is_0_where_an_end_is_not_labelled_whatever_stands_there():
    points = random_points(5, 5)
    points = points.at[1, 1].set(jnp.nan).at[2, 3].set(jnp.inf).at[4, 0].set(jnp.nan)
    visibility = np.full((5, 5), 2)
    visibility[1, 1] = visibility[2, 3] = visibility[3, 1] = visibility[4, 0] = 0
    visibility[0, 3] = 1  # Hidden, but known.
    visibility = jnp.asarray(visibility)

    def total(points):
        found = diameter(points, TORSO, visibility=visibility)
        return found.sum(), found

    slope, found = jax.jit(jax.grad(total, has_aux=True))(points)
    np.testing.assert_array_equal(found > 0, [True, False, False, False, True])
    np.testing.assert_allclose(found[0], diameter(points[0], TORSO))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[1:4], 0)
    np.testing.assert_allclose(jnp.linalg.norm(slope[0, 1]), 1, rtol=1e-6)
    np.testing.assert_array_equal(slope[0, 1], -slope[0, 3])


def test_diameter_of_one_place_is_0_with_a_finite_gradient():
    points = jnp.ones((5, 2))
    value, slope = jax.value_and_grad(lambda p: diameter(p, TORSO))(points)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("keypoint_set", keypoints.SETS.values(), ids=lambda s: s.name)
def test_diameter_takes_the_torso_of_every_keypoint_set(keypoint_set):
    points = random_points(len(keypoint_set))
    found = diameter(points, keypoint_set.torso)
    one, other = (np.asarray(points[i]) for i in keypoint_set.torso)
    np.testing.assert_allclose(found, np.linalg.norm(one - other), rtol=1e-6)
    names = [keypoint_set.names[i] for i in keypoint_set.torso]
    assert {name.split("_")[0] for name in names} == {"left", "right"}


# --------------------------------------------------------------------------- the cascade


def square(points, side):
    return jnp.concatenate([points - side[:, None] / 2, points + side[:, None] / 2], -1)


def test_a_side_may_be_one_for_all_joints_of_a_person():
    points, side = random_points(3, 4), jnp.asarray([5.0, 80.0, 300.0])
    every = jnp.broadcast_to(side[:, None], (3, 4))
    output = random_points(3, 4, seed=2) / 1000
    np.testing.assert_array_equal(
        refine(points, output, side[:, None]),
        refine(points, output, every),
    )


def test_refine_with_the_label_gives_the_truth_exactly():
    true, delta, side = arrays([[320, 16.5]], [[-8, 4]], [64])
    label = normalize(true[:, None], square(true + delta, side))[:, 0]
    np.testing.assert_array_equal(label, [[0.125, -0.0625]])
    np.testing.assert_array_equal(refine(true + delta, label, side), true)


def test_refine_adds_the_centre_of_the_box_once():
    points, output, side = arrays([[100, 40]], [[0.25, -0.5]], [20])
    refined = refine(points, output, side)
    np.testing.assert_array_equal(refined, [[105, 30]])
    box = square(points, side)
    np.testing.assert_array_equal(denormalize(output[:, None], box)[:, 0], refined)


@pytest.mark.parametrize("side", [0.0, 0.5, -3.0])
def test_a_side_below_one_pixel_counts_as_one_everywhere(side):
    points, output, side = arrays([[3, 4]], [[2, -1]], [side])
    refined = refine(points, output, side)
    np.testing.assert_array_equal(refined, points + output)
    box = square(points, side)
    np.testing.assert_array_equal(denormalize(output[:, None], box)[:, 0], refined)


def test_gradients_of_refine_are_one_to_the_joints_and_the_side_to_the_output():
    points, side = random_points(3), jnp.asarray([5.0, 80.0, 300.0])
    to_points, to_output = jax.grad(lambda *a: refine(*a, side).sum(), argnums=(0, 1))(
        points, jnp.zeros((3, 2))
    )
    np.testing.assert_array_equal(to_points, 1)
    np.testing.assert_array_equal(to_output, side[:, None] * np.ones((3, 2)))
