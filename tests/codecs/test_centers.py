"""The person in the middle: weights and windows against definitions in loops."""

import jax.numpy as jnp
import numpy as np

from pose_jax.codecs import centers, gaussian, offsets

W, H, K = 12, 9, 2  # Not square, so that swapped axes fail.


def _two_people():
    """Centers at (6, 5) and (1, 1), the latter surer; keypoints 2 cells around them."""
    logits = np.full((H, W, 1), -9.0)
    logits[5, 6], logits[1, 1] = 1.0, 1.2
    field = np.full((H, W, K, 2), 50.0)
    field[5, 6] = (-2, 1), (2.5, 0)
    return jnp.array(logits, jnp.float32), jnp.array(field, jnp.float32)


def test_weights_are_the_closeness_to_the_regression_of_the_middle_person():
    found = centers.weights(*_two_people())
    for k, (x, y) in enumerate([(4, 6), (8.5, 5)]):
        for i in range(H):
            for j in range(W):
                expected = 1 / (np.hypot(j - x, i - y) + 1.8)
                np.testing.assert_allclose(found[i, j, k], expected, rtol=1e-6)


def test_only_the_window_around_the_chosen_peak_is_left():
    points = jnp.array([[4.0, 6.0], [8.0, 5.0]])
    others = jnp.array([[1.0, 1.0], [2.0, 1.0]])
    maps, strong = (
        gaussian.encode(p, size=(W, H), sigma=0.8) for p in (points, others)
    )
    maps = 0.5 * maps + 0.9 * strong
    np.testing.assert_array_equal(gaussian.decode_argmax(maps)[0], others)
    near = centers.around(maps, centers.weights(*_two_people()), radius=2)
    found, scores = gaussian.decode_argmax(near)
    np.testing.assert_array_equal(found, points)
    kept = np.zeros((H, W, K), bool)
    kept[4:9, 2:7, 0] = kept[3:8, 6:11, 1] = True
    np.testing.assert_array_equal(near, np.where(kept, maps, 0))
    np.testing.assert_array_equal(scores, [maps[6, 4, 0], maps[5, 8, 1]])


def test_the_density_of_votes_has_its_maximum_where_most_agree():
    """Far votes do not move it, and cells do not limit it."""
    rng = np.random.default_rng(0)
    point, far = np.array([5.3, 3.7]), np.array([10.6, 7.2])
    x, y = np.meshgrid(np.arange(W), np.arange(H))
    pixels = np.stack([x, y], -1)[:, :, None]
    near = np.hypot(*(pixels - point).T).T <= 2.5
    to_far = np.hypot(*(pixels - far).T).T <= 1.5
    noise = rng.normal(scale=0.1, size=(H, W, 1, 2))
    fields = np.where(to_far[..., None], far, point) - pixels + noise
    maps = jnp.asarray(np.where(near | to_far, 0.8, 0.01), jnp.float32)
    found, score = offsets.decode_density(
        maps, jnp.asarray(fields, jnp.float32), sigma=0.3
    )
    votes = (pixels + fields)[near].mean(0)
    np.testing.assert_allclose(found[0], votes, atol=0.06)
    np.testing.assert_allclose(score, 0.8, atol=0.05)


def test_the_peak_and_its_offset():
    maps = jnp.zeros((H, W, K)).at[2, 7, 0].set(0.6).at[8, 0, 1].set(0.3)
    fields = jnp.zeros((H, W, K, 2)).at[2, 7, 0].set(jnp.array([0.4, -1.5]))
    fields = fields.at[8, 0, 1].set(jnp.array([jnp.nan, 1.0]))
    found, scores = offsets.decode_peak(maps, fields)
    np.testing.assert_allclose(found, [[7.4, 0.5], [0, 8]])
    np.testing.assert_allclose(scores, [0.6, 0.3])
