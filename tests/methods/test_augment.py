"""Random views: functions of (key, epoch, row), within their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import geometry, keypoints
from pose_jax.methods import augment

ALL = augment.AugmentConfig(
    flip=0.5,
    scale=0.3,
    rotation=30.0,
    translation=0.1,
    half_body=0.5,
    brightness=0.3,
    contrast=0.2,
    saturation=0.1,
)
draw = jax.jit(augment.draw, static_argnums=3)


def key(seed=0):
    return jax.random.key(seed)


def test_a_row_draws_the_same_whatever_the_batch_around_it():
    rows = jnp.arange(64, dtype=jnp.int32)
    whole = draw(key(), jnp.int32(3), rows, ALL)
    alone = draw(key(), jnp.int32(3), rows[::-1], ALL)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a, b[::-1])


@pytest.mark.parametrize("change", ["epoch", "row", "key"])
def test_epoch_row_and_key_each_change_the_draw(change):
    row = jnp.arange(8, dtype=jnp.int32)
    a = draw(key(), jnp.int32(0), row, ALL)
    b = draw(
        key(1 if change == "key" else 0),
        jnp.int32(1 if change == "epoch" else 0),
        row + 8 if change == "row" else row,
        ALL,
    )
    assert not np.any(np.asarray(a.colour) == np.asarray(b.colour))


def test_draws_keep_to_their_limits_and_use_them():
    n = 4000
    d = draw(key(), jnp.int32(0), jnp.arange(n, dtype=jnp.int32), ALL)
    assert abs(np.mean(d.flip) - 0.5) < 0.05
    assert np.min(d.scale) >= 0.7 and np.max(d.scale) <= 1.3
    assert abs(np.mean(np.asarray(d.rotation_deg) == 0) - 0.4) < 0.05
    assert np.abs(d.rotation_deg).max() <= 60 and np.abs(d.rotation_deg).max() > 50
    assert np.abs(d.translation).max() <= 0.1 and np.abs(d.translation).max() > 0.095
    assert abs(np.mean(d.half_body) - 0.5) < 0.05
    for i, limit in enumerate((0.3, 0.2, 0.1)):
        spread = np.abs(np.asarray(d.colour)[:, i] - 1)
        assert spread.max() <= limit + 1e-6 and spread.max() > 0.95 * limit


def test_the_default_changes_nothing():
    none = augment.AugmentConfig()
    d = draw(key(), jnp.int32(0), jnp.arange(6, dtype=jnp.int32), none)
    center, size = jnp.full((6, 2), 50.0), jnp.full((6, 2), 20.0)
    points = jnp.zeros((6, 17, 2))
    visibility = jnp.full((6, 17), 2, jnp.int32)
    c, s = augment.view(center, size, points, visibility, d, keypoints.COCO, none)
    np.testing.assert_array_equal(c, center)
    np.testing.assert_array_equal(s, size)
    assert not np.any(d.flip) and not np.any(d.rotation_deg)
    images = jax.random.uniform(key(2), (6, 4, 3, 3))
    np.testing.assert_allclose(augment.colour(images, d.colour), images, atol=1e-6)


def _half(visibility):
    """The half-body view of one person standing in x 10..30, y 0..160."""
    config = augment.AugmentConfig(half_body=1.0)
    y = np.linspace(0, 160, 17)
    points = np.stack([np.where(np.arange(17) % 2, 10.0, 30.0), y], -1)[None]
    d = draw(key(), jnp.int32(0), jnp.zeros(1, jnp.int32), config)
    results = []
    for upper in (True, False):
        fixed = augment.Draw(**{**vars(d), "upper": jnp.array([upper])})
        c, s = augment.view(
            jnp.array([[20.0, 80.0]]),
            jnp.array([[75.0, 100.0]]),
            jnp.asarray(points, jnp.float32),
            jnp.asarray(visibility, jnp.int32)[None],
            fixed,
            keypoints.COCO,
            config,
        )
        results.append((np.asarray(c)[0], np.asarray(s)[0]))
    return points[0], results


def test_half_body_shows_the_half_that_was_drawn_and_keeps_the_aspect():
    points, ((upper, size_up), (lower, size_low)) = _half(np.full(17, 2))
    np.testing.assert_allclose(upper, points[:11].mean(0), rtol=1e-5)
    np.testing.assert_allclose(lower, points[11:].mean(0), rtol=1e-5)
    np.testing.assert_allclose(size_up[1], 1.5 * np.ptp(points[:11, 1]), rtol=1e-5)
    np.testing.assert_allclose(size_low[1], 1.5 * np.ptp(points[11:, 1]), rtol=1e-5)
    for size in (size_up, size_low):
        np.testing.assert_allclose(size[0] / size[1], 0.75, rtol=1e-5)


def test_half_body_leaves_people_with_few_labels_alone():
    visibility = np.zeros(17, int)
    visibility[:8] = 2  # Not more than the eight that it takes.
    _, results = _half(visibility)
    for center, size in results:
        np.testing.assert_array_equal(center, [20, 80])
        np.testing.assert_array_equal(size, [75, 100])


def test_half_body_takes_the_other_half_where_one_has_too_few_points():
    visibility = np.zeros(17, int)
    visibility[:10] = 2
    points, ((upper, _), (lower, _)) = _half(visibility)
    np.testing.assert_allclose(upper, points[:10].mean(0), rtol=1e-5)
    np.testing.assert_allclose(lower, upper)


def test_colour_stays_in_range_and_does_what_it_says():
    images = jax.random.uniform(key(), (3, 8, 6, 3))
    factors = jnp.array([[1.5, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    out = np.asarray(augment.colour(images, factors))
    assert out.min() >= 0 and out.max() <= 1
    np.testing.assert_allclose(out[0], np.minimum(1.5 * images[0], 1), rtol=1e-5)
    assert np.ptp(out[1]) < 1e-6  # No contrast: all pixels equal.
    assert np.ptp(out[2], axis=-1).max() < 1e-6  # No saturation: gray.


def test_view_and_transform_move_points_as_the_box_moves():
    """A translated box shifts what it shows by the opposite amount."""
    center, size = jnp.array([[50.0, 40.0]]), jnp.array([[30.0, 40.0]])
    still = geometry.crop_transform(center, size, output_size=(96, 128))
    d = draw(key(), jnp.int32(0), jnp.zeros(1, jnp.int32), ALL)
    d = augment.Draw(
        **{**vars(d), "half_body": jnp.array([False]), "scale": jnp.ones(1)}
    )
    c, s = augment.view(
        center,
        size,
        jnp.zeros((1, 17, 2)),
        jnp.zeros((1, 17), jnp.int32),
        d,
        keypoints.COCO,
        ALL,
    )
    moved = geometry.crop_transform(c, s, output_size=(96, 128))
    point = jnp.array([[[45.0, 45.0]]])
    shift = geometry.transform_points(point, moved) - geometry.transform_points(
        point, still
    )
    np.testing.assert_allclose(
        shift[0, 0], -d.translation[0] * np.array([96, 128]), atol=1e-3
    )


def test_scales_may_be_uniform():
    """With padding 1.25 and 0.2: MultiPose's random 1.0 to 1.5, every one as likely."""
    config = augment.AugmentConfig(scale=0.2, scale_law="uniform")
    d = draw(key(), jnp.int32(0), jnp.arange(4000, dtype=jnp.int32), config)
    padding = 1.25 * np.asarray(d.scale)
    counts, _ = np.histogram(padding, bins=5, range=(1.0, 1.5))
    assert counts.sum() == 4000 and counts.min() > 700
