"""SimCC as a method: targets, flip test, and poses in the image frame."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods
from pose_jax.codecs import simcc as codec
from pose_jax.errors import ConfigError
from tests.methods import test_dark

SECTION = {
    "name": "simcc",
    "model": {"name": "simcc_pocket", "options": {}},
    "input_size": (48, 64),
    "sigma": 1.5,
}


def make_batch():
    return jax.tree.map(jnp.asarray, test_dark.make_batch())


def build(**changes):
    return methods.build({**SECTION, **changes}, keypoints.COCO)


def prepared(method, batch):
    return jax.jit(lambda batch: method.prepare({}, batch, None))(batch)


def probabilities(seed, split, size=(48, 64)):
    rng = np.random.default_rng(seed)
    return tuple(
        jax.nn.softmax(jnp.asarray(rng.normal(size=(2, 17, split * side))), -1)
        for side in size
    )


@pytest.mark.parametrize("decoder", ["argmax", "expectation"])
def test_a_network_that_answers_its_targets_gives_the_labels_back(decoder):
    method, batch = build(decoder=decoder), make_batch()
    example = prepared(method, batch)
    target = codec.encode(example.points_xy, size=(48, 64), sigma=1.5)
    points_xy, scores = method.decode(target)
    inside = (example.points_xy > 4).all(-1) & (
        example.points_xy < jnp.array([[[43, 59]]])
    ).all(-1)
    known = np.asarray(inside & (example.visibility > 0))
    assert known.sum() > 10
    error = np.abs(np.asarray(points_xy - example.points_xy))[known]
    assert error.max() < (0.26 if decoder == "argmax" else 0.01)
    assert scores.shape == (4, 17)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_mirror_image_of_bins_is_that_of_the_points(split):
    """Bins of the mirrored points, mirrored back, are the bins of the points."""
    options = {"options": {"split": split}, "name": "simcc_pocket"}
    method = build(split=split, model=options, sigma=1.0)
    points = np.random.default_rng(0).uniform(6, 40, (2, 17, 2)).astype(np.float32)
    mirrored = points * np.float32([-1, 1]) + np.float32([47, 0])
    mirrored = keypoints.swap(jnp.asarray(mirrored), keypoints.COCO, axis=-2)
    bins, of_mirrored = (
        codec.encode(jnp.asarray(p), size=(48, 64), split=split, sigma=1.0)
        for p in (points, mirrored)
    )
    for both, one in zip(method.mirror(bins, of_mirrored), bins, strict=True):
        np.testing.assert_allclose(both, one, atol=1e-5)


def test_the_loss_is_least_at_the_targets_and_ignores_what_does_not_count():
    method, batch = build(), make_batch()
    example = prepared(method, batch)
    target = codec.encode(example.points_xy, size=(48, 64), sigma=1.5)
    exact = tuple(jnp.log(jnp.maximum(bins, 1e-12)) for bins in target)
    other = probabilities(1, 2)
    other = tuple(jnp.concatenate([bins, bins]) for bins in other)
    loss = jax.jit(lambda out, example: method.loss_of((out,), example)[0])
    assert loss(exact, example) < 1e-3 < loss(other, example)
    counted = (example.visibility > 0) & example.valid[:, None]
    # Points without a label and rows of padding may be anything, NaN included.
    spoilt = dataclasses.replace(
        example,
        points_xy=jnp.where(counted[..., None], example.points_xy, jnp.nan),
    )
    assert loss(other, spoilt) == loss(other, example)
    gradient = jax.grad(lambda out: method.loss_of((out,), spoilt)[0])(other)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    nothing = dataclasses.replace(example, valid=jnp.zeros(4, bool))
    assert loss(other, nothing) == 0


def test_predict_is_in_the_image_frame_and_the_flip_test_keeps_it():
    batch = make_batch()
    method = build(flip_test="plain", decoder="expectation")
    weights = {"pose": jax.jit(method.init)(jax.random.key(0))}

    @jax.jit
    def run(weights, inputs):
        return method.predict(weights, inputs), method.inspect(weights, inputs)

    poses, shown = jax.device_get(run(weights, batch.inputs))
    assert poses.points_xy.shape == (4, 17, 2)
    center = np.array([75.0, 70.0])
    assert (np.abs(poses.points_xy - center) < 80).all()
    assert shown["heatmaps"].shape == (4, 64, 48, 17)
    (panel,) = method.panels
    assert len(panel.draw(shown, keypoints.COCO, "stride")) == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split": 3}, "model.options.split is 2 and config.method.split 3"),
        ({"sigma": 0.0}, "sigma positive"),
        ({"decoder": "argmx"}, "Did you mean 'argmax'"),
    ],
)
def test_options_that_cannot_be(changes, says):
    with pytest.raises(ConfigError, match=says):
        build(**changes)
