"""Coordinates in units of a box and the steps of the cascade, against closed forms."""

import subprocess
import sys

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
    normal = regression.normalize(points, box)
    np.testing.assert_array_equal(normal, expected)
    np.testing.assert_array_equal(regression.denormalize(normal, box), points)


def test_both_are_their_definition_in_float64():
    points, boxes = random_points(6, 5), random_boxes(6)
    found = [
        np.asarray(jax.jit(function)(points, boxes))
        for function in (regression.normalize, regression.denormalize)
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
    normal = regression.normalize(points, boxes)
    assert np.isfinite(normal).all()
    back = regression.denormalize(normal, boxes)
    np.testing.assert_allclose(back, points, atol=1e-3)


@pytest.mark.parametrize("box", [(7, 8, 7, 8), (7.3, 8.2, 6.7, 7.8), (9, 11, 5, 5)])
def test_an_empty_box_counts_as_one_pixel_and_all_stays_finite(box):
    points, box = arrays([[9, 5], [7, 8]], box)
    centre = 0.5 * (box[:2] + box[2:])[None]
    normal = regression.normalize(points, box)
    np.testing.assert_allclose(normal, points - centre, atol=1e-6)
    np.testing.assert_allclose(regression.denormalize(normal, box), points, atol=1e-6)
    slopes = jax.grad(lambda *a: regression.normalize(*a).sum(), argnums=(0, 1))
    assert all(np.isfinite(slope).all() for slope in slopes(points, box))


def test_gradients_are_one_over_the_size_and_the_size():
    points, box = arrays([[12, 3], [40, 70]], BOX)
    slope = jax.grad(lambda p: regression.normalize(p, box).sum())(points)
    np.testing.assert_allclose(slope, [[1 / 40, 1 / 80]] * 2, rtol=1e-6)
    slope = jax.grad(lambda p: regression.denormalize(p, box).sum())(points)
    np.testing.assert_allclose(slope, [[40, 80]] * 2, rtol=1e-6)


# ------------------------------------------------------------------------------ diameter


def test_diameter_is_the_distance_of_the_two_joints():
    points = random_points(2, 3, 5)
    found = regression.diameter(points, TORSO)
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
        found = regression.diameter(points, TORSO, visibility=visibility)
        return found.sum(), found

    slope, found = jax.jit(jax.grad(total, has_aux=True))(points)
    np.testing.assert_array_equal(found > 0, [True, False, False, False, True])
    np.testing.assert_allclose(found[0], regression.diameter(points[0], TORSO))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[1:4], 0)
    np.testing.assert_allclose(jnp.linalg.norm(slope[0, 1]), 1, rtol=1e-6)
    np.testing.assert_array_equal(slope[0, 1], -slope[0, 3])


def test_diameter_of_one_place_is_0_with_a_finite_gradient():
    points = jnp.ones((5, 2))
    value, slope = jax.value_and_grad(lambda p: regression.diameter(p, TORSO))(points)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("keypoint_set", keypoints.SETS.values(), ids=lambda s: s.name)
def test_diameter_takes_the_torso_of_every_keypoint_set(keypoint_set):
    points = random_points(len(keypoint_set))
    found = regression.diameter(points, keypoint_set.torso)
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
        regression.refine(points, output, side[:, None]),
        regression.refine(points, output, every),
    )


def test_refine_with_the_label_gives_the_truth_exactly():
    true, delta, side = arrays([[320, 16.5]], [[-8, 4]], [64])
    label = regression.normalize(true[:, None], square(true + delta, side))[:, 0]
    np.testing.assert_array_equal(label, [[0.125, -0.0625]])
    np.testing.assert_array_equal(regression.refine(true + delta, label, side), true)


def test_refine_adds_the_centre_of_the_box_once():
    points, output, side = arrays([[100, 40]], [[0.25, -0.5]], [20])
    refined = regression.refine(points, output, side)
    np.testing.assert_array_equal(refined, [[105, 30]])
    box = square(points, side)
    np.testing.assert_array_equal(
        regression.denormalize(output[:, None], box)[:, 0], refined
    )


@pytest.mark.parametrize("side", [0.0, 0.5, -3.0])
def test_a_side_below_one_pixel_counts_as_one_everywhere(side):
    points, output, side = arrays([[3, 4]], [[2, -1]], [side])
    refined = regression.refine(points, output, side)
    np.testing.assert_array_equal(refined, points + output)
    box = square(points, side)
    np.testing.assert_array_equal(
        regression.denormalize(output[:, None], box)[:, 0], refined
    )


def test_gradients_of_refine_are_one_to_the_joints_and_the_side_to_the_output():
    points, side = random_points(3), jnp.asarray([5.0, 80.0, 300.0])
    to_points, to_output = jax.grad(
        lambda *a: regression.refine(*a, side).sum(), argnums=(0, 1)
    )(points, jnp.zeros((3, 2)))
    np.testing.assert_array_equal(to_points, 1)
    np.testing.assert_array_equal(to_output, side[:, None] * np.ones((3, 2)))


# ------------------------------------------------------------------- all of them together

CALLS = {  # Names, and arguments of one example, without leading axes.
    "normalize": ((5, 2), (4,)),
    "denormalize": ((5, 2), (4,)),
    "diameter": ((5, 2),),
    "refine": ((2,), (2,), ()),
}


def call(name):
    function = getattr(regression, name)
    return (lambda p: function(p, TORSO)) if name == "diameter" else function


def arguments(name, *leading, dtype=jnp.float32):
    random = np.random.default_rng(5)
    return [
        jnp.asarray(random.uniform(1, 99, (*leading, *shape)), dtype)
        for shape in CALLS[name]
    ]


@pytest.mark.parametrize("name", CALLS)
def test_under_jit_vmap_and_leading_axes(name):
    function, args = call(name), arguments(name, 2, 3)
    whole = function(*args)
    assert whole.shape[:2] == (2, 3)
    np.testing.assert_allclose(jax.jit(function)(*args), whole, rtol=1e-5)
    mapped = jax.vmap(jax.vmap(function))(*args)
    np.testing.assert_allclose(mapped, whole, rtol=1e-5)
    for i, j in np.ndindex(2, 3):
        one = function(*(arg[i, j] for arg in args))
        np.testing.assert_allclose(one, whole[i, j], rtol=1e-5)
    assert function(*arguments(name, 0)).shape == (0, *whole.shape[2:])


@pytest.mark.parametrize("name", CALLS)
def test_results_have_float32_at_least(name):
    function, exact = call(name), call(name)(*arguments(name, 4))
    assert exact.dtype == jnp.float32
    half = function(*arguments(name, 4, dtype=jnp.bfloat16))
    assert half.dtype == jnp.float32
    with jax.enable_x64(True):
        double = function(*arguments(name, 4, dtype=jnp.float64))
    assert double.dtype == np.float64


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_has_to_be_floating_point(name):
    args = arguments(name, 4)
    for i, arg in enumerate(args):
        wrong = [*args[:i], arg.astype(jnp.int32), *args[i + 1 :]]
        with pytest.raises((ValueError, TypeError)):
            call(name)(*wrong)
        bare = getattr(regression, name).__wrapped__  # Without checked annotations.
        with pytest.raises(ValueError, match="must be floating point; got int32"):
            bare(*wrong, *[TORSO] * (name == "diameter"))


@pytest.mark.parametrize(
    "name, shapes",
    [
        ("normalize", [(3, 5, 2), (4,)]),  # Would broadcast.
        ("normalize", [(3, 5, 2), (1, 4)]),
        ("normalize", [(3, 5, 3), (3, 4)]),
        ("normalize", [(2,), (4,)]),
        ("denormalize", [(3, 5, 2), (2, 4)]),
        ("denormalize", [(3, 5, 2), (3, 5, 4)]),
        ("refine", [(3, 2), (3, 2), ()]),
        ("refine", [(3, 2), (3, 2), (2,)]),
        ("refine", [(3, 3), (3, 3), (3,)]),
        ("refine", [(1, 2), (1, 2), (3,)]),
        ("refine", [(4, 3, 2), (4, 2), (4, 3)]),
        ("refine", [(4, 3, 2), (1, 3, 2), (4, 3)]),
        ("diameter", [(2,)]),
    ],
)
def test_shapes_that_do_not_match_are_refused(name, shapes):
    args = [jnp.ones(shape) for shape in shapes]
    # A TypeError is the checked annotation's, which these tests turn on.
    with pytest.raises((ValueError, TypeError)):
        call(name)(*args)
    # Without the annotations, it is one line of ours.
    bare = getattr(regression, name).__wrapped__
    args += [TORSO] if name == "diameter" else []
    with pytest.raises(ValueError, match=r"must be|needs? |is ") as error:
        bare(*args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("torso", [(1, 5), (-1, 2)])
def test_a_torso_of_unknown_keypoints_is_refused(torso):
    with pytest.raises(ValueError, match=r"torso names keypoint (5|-1); there are 5"):
        regression.diameter(jnp.ones((5, 2)), torso)


def test_visibility_has_to_be_one_a_point():
    with pytest.raises((ValueError, TypeError)):
        regression.diameter(
            jnp.ones((3, 5, 2)), TORSO, visibility=jnp.ones(5, jnp.int32)
        )


def test_the_module_loads_neither_flax_nor_tensorflow():
    code = (
        "import sys; from pose_jax.codecs import regression; "
        "bad = {'flax', 'tensorflow', 'optax', 'orbax'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
