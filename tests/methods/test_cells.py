"""Cells: decoders in the frame of the input, the person in the middle, the losses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods, models
from pose_jax.errors import ConfigError
from pose_jax.methods import cells
from pose_jax.methods.topdown import PersonExample
from pose_jax.models import ops
from tests.models.networks import random_variables

SET = keypoints.KeypointSet(
    name="hands",
    names=("nose", "left_hand", "right_hand"),
    flip_pairs=((1, 2),),
    skeleton=((0, 1), (0, 2)),
)
K = len(SET)
ORIGIN = (-0.5, 0.25)  # Of offsets: not the same for x and y.
SIZE = {"half_pixel": (64, 96), "aligned": (65, 97)}  # Of the input.


class Told(nn.Module):
    """Answers what its parameters say, to every image."""

    num_keypoints: int
    norm: str = "none"
    dtype: str = "float32"
    people: bool = True
    stride: int = 4

    @nn.compact
    def __call__(self, images, train=False):
        b, h, w, _ = images.shape
        maps = (b, -(-h // self.stride), -(-w // self.stride), self.num_keypoints)
        zeros = nn.initializers.zeros
        shapes = {"heatmap": maps, "offset": (*maps, 2)}
        if self.people:
            shapes |= {"center": (*maps[:3], 1), "regression": (*maps, 2)}
        final = tuple(self.param(name, zeros, shape) for name, shape in shapes.items())
        return (final,) if train else final


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for alignment in SIZE:
        network = models.Network(
            "cells", 4, Told, models.SIGNED, alignment, norms=("none",),
            offset_origin=ORIGIN,
        )  # fmt: skip
        monkeypatch.setitem(models.MODELS, alignment, network)


def build(alignment="half_pixel", keypoint_set=SET, options=None, **changes):
    model = {"name": alignment, "options": options or {}}
    section = {"name": "cells", "model": model, "input_size": SIZE[alignment]}
    return methods.build(section | changes, keypoint_set)


def output_of(method, points_xy, *, sigma=1.4):
    """What a perfect network says of points [k, 2] in the frame of the input."""
    w, h = method.map_size
    at = np.asarray(method._in_cells(jnp.asarray(points_xy, jnp.float32)[None])[0])
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    ways = at - np.stack([x, y], -1)[:, :, None]
    heat = np.exp(-(ways**2).sum(-1) / (2 * sigma**2))
    logits = np.log(0.8 * heat + 1e-6) - np.log1p(-0.8 * heat)
    center = np.asarray(at).mean(0).round()
    logit = 4 - np.hypot(x - center[0], y - center[1])
    output = logits, ways - ORIGIN, logit[..., None], ways
    return tuple(jnp.asarray(part, jnp.float32)[None] for part in output)


def decode(method, output):
    return method.decode(method.activate(output))


POINTS = np.array([[30.2, 41.7], [17.9, 52.3], [44.4, 30.6]])
PRECISION = {  # Pixels of the input, of which a cell has four.
    "argmax_offset": 1e-3, "density": 1e-3, "argmax": 2.01, "shift": 1.3,
    "dark": 0.2, "dark_paper": 0.2, "hough": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("alignment", SIZE)
def test_every_decoder_finds_the_points_in_the_frame_of_the_input(alignment):
    assert cells.DECODERS.keys() == PRECISION.keys()
    output = output_of(build(alignment), POINTS)
    for name, precision in PRECISION.items():
        for weighting in ("regression", "none"):
            method = build(alignment, decoder=name, weighting=weighting)
            found, scores = decode(method, output)
            np.testing.assert_allclose(found[0], POINTS, atol=precision)
            assert (scores > 0.3).all()


def test_cells_lie_where_the_alignment_of_the_network_says():
    cell = jnp.array([[[3.0, 5.0]] * K])
    for alignment, expected in {
        "half_pixel": (13.5, 21.5),
        "aligned": (12.0, 20.0),
    }.items():
        method = build(alignment)
        assert method.view.alignment == alignment
        found = method._in_cells(jnp.array([[expected] * K]))
        np.testing.assert_allclose(found, cell, rtol=1e-6)


def test_every_decoder_refines_the_peak_of_the_person_in_the_middle():
    """Another person is brighter, but farther from the middle."""
    own, other = (output_of(build(), POINTS + shift) for shift in (0, (-14, 36)))
    logits = jnp.maximum(own[0], other[0] + 2)
    brighter = (other[0] + 2 > own[0])[..., None]
    output = logits, jnp.where(brighter, other[1], own[1]), *own[2:]
    for name, precision in PRECISION.items():
        found, _ = decode(build(decoder=name), output)
        np.testing.assert_allclose(found[0], POINTS, atol=precision)
        found, _ = decode(build(decoder=name, weighting="none"), output)
        np.testing.assert_allclose(found[0], POINTS + (-14, 36), atol=2.01)


def test_a_network_without_regression_has_no_weighting():
    output = output_of(build("aligned"), POINTS)[:2]
    found, _ = decode(build("aligned", options={"people": False}), output)
    np.testing.assert_allclose(found[0], POINTS, atol=1e-3)


@pytest.mark.parametrize("alignment", SIZE)
def test_the_flip_test_of_a_symmetric_answer_changes_nothing(alignment):
    method = build(alignment)
    w = method.view.size[0]
    mirrored_xy = POINTS[[0, 2, 1]] * (-1, 1) + (w - 1, 0)
    output, mirrored = (
        method.activate(output_of(method, p)) for p in (POINTS, mirrored_xy)
    )
    both = method.mirror(output, mirrored)
    for one, other in zip(both, output, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert len(method.mirror(output[:2], mirrored[:2])) == 2


def _example(**changes):
    rows = {
        "images": np.zeros((2, 96, 64, 3)),
        "points_xy": np.stack([POINTS, POINTS + 6]),
        "visibility": np.array([[2, 1, 0], [2, 2, 2]]),
        "valid": np.array([True, False]),
        "others_xy": np.zeros((2, 0, K, 2)),
        "others_visibility": np.zeros((2, 0, K), np.int32),
    }
    return PersonExample(**jax.tree.map(jnp.asarray, rows | changes))


def test_losses_have_their_minimum_at_the_truth_and_their_gradients_flow():
    method, example = build(), _example()
    outputs = [output_of(method, p) for p in (POINTS, POINTS + 6)]
    true = jax.tree.map(lambda *rows: jnp.concatenate(rows), *outputs)
    value = jax.jit(lambda output: method.loss_of((output,), example))
    total, parts = value(true)
    assert parts.keys() == {"heatmap", "offset", "center", "regression"}
    assert parts["offset"] == pytest.approx(0, abs=1e-9)
    weights = {"offset": 1.0, "center": 1.0, "regression": 0.1, "heatmap": 1.0}
    expected = sum(weights[name] * part for name, part in parts.items())
    assert total == pytest.approx(expected)
    # By hand: nothing counts but the two labelled points of the valid row.
    shift = jnp.array([3.0, 4.0]).reshape(1, 1, 1, 1, 2)
    moved = true[0], true[1] + shift, true[2], true[3] + shift
    _, parts = value(moved)
    assert parts["offset"] == pytest.approx((5 - 0.5) * 2 / 3, rel=1e-5)
    assert parts["regression"] == pytest.approx((2.5 + 3.5) * 2 / 3, rel=1e-5)
    gradients = jax.jit(jax.grad(lambda output: value(output)[0]))(moved)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0
        np.testing.assert_array_equal(gradient[1], 0)
    for name in ("heatmap", "offset", "regression"):
        index = {"heatmap": 0, "offset": 1, "regression": 3}[name]
        assert np.abs(gradients[index][0, :, :, 2]).max() == 0, name  # Not labelled.


def test_all_parameters_of_a_network_have_a_gradient():
    section = {"name": "cells", "model": {"name": "posenet_mobilenet_075"}}
    method = methods.build(section | {"input_size": (33, 49)}, SET)
    images = np.random.default_rng(0).normal(size=(2, 49, 33, 3))
    example = _example(images=images.astype(np.float32))
    variables = random_variables(method.model, example.images)

    @jax.jit
    def gradient(params):
        state = {"batch_stats": {}}
        loss = lambda p: method.loss(p, state, example, jax.random.key(2))[0]
        return jax.grad(loss)(params)

    with ops.use_forms("stock"):  # Compiles faster.
        found = gradient(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kernel_size": 4}, "kernel_size must be an odd"),
        ({"sigma": 0.0}, "sigma must be a positive"),
        ({"window": -1}, "window must be 0 or a positive"),
        ({"decoder": "drak"}, "Did you mean 'dark'"),
        (
            {"model": {"name": "half_pixel", "norm": "batch"}},
            "norm must be one of none",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        build(**changes)
    assert "\n" not in str(error.value)
