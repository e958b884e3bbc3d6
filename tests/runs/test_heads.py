"""Heads of another keypoint set as initial weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, models
from pose_jax.runs import heads
from pose_jax.trees import flatten, path_matches
from tests.models.networks import SMALL, random_variables, shapes

ROWS = ((2,), (), (0,), (1, 2))  # Own keypoints from those of the other set.


@pytest.mark.parametrize("name", ["pocket", "multipose_pocket"])
def test_outputs_are_those_of_the_keypoints_they_come_from(name):
    images = jax.random.normal(jax.random.key(0), (1, 33, 49, 3))
    images = images[:, :32, :48] if name == "pocket" else images
    own, other = (models.build(name, k, width=8) for k in (len(ROWS), 3))
    variables = random_variables(own, images), random_variables(other, images)
    start = heads.map_heads(*variables, models.entry(name).heads, ROWS, 3)
    assert shapes_of(start) == shapes_of(variables[0])
    outputs = (
        jax.tree.leaves(apply(model, values, images))
        for model, values in ((own, start), (other, variables[1]))
    )
    for mine, theirs in zip(*outputs, strict=True):
        mine, theirs = np.moveaxis(mine, 3, 0), np.moveaxis(theirs, 3, 0)
        tolerance = 1e-4 * np.abs(theirs).max()
        np.testing.assert_allclose(mine[0], theirs[2], atol=tolerance)
        np.testing.assert_allclose(mine[2], theirs[0], atol=tolerance)
        mean = (theirs[1] + theirs[2]) / 2
        np.testing.assert_allclose(mine[3], mean, atol=tolerance)


def apply(model, variables, images):
    return jax.jit(model.apply)(variables, images)


def shapes_of(tree):
    return {path: leaf.shape for path, leaf in flatten(tree).items()}


def test_a_keypoint_without_source_keeps_its_initial_values():
    own = {"head": {"kernel": np.full((2, 8), 5.0), "bias": np.full(8, 5.0)}}
    loaded = {"head": {"kernel": np.ones((2, 6)), "bias": np.ones(6)}}
    start = heads.map_heads(own, loaded, {"head": (2,)}, ROWS, 3)
    bias = [1, 1, 5, 5, 1, 1, 1, 1]
    np.testing.assert_array_equal(start["head"]["bias"], bias)
    np.testing.assert_array_equal(start["head"]["kernel"], [bias, bias])


NETWORKS = {
    "deeppose": (220, 220), "hourglass_4": (64, 64), "hrnet_w32": (64, 64),
    "movenet_lightning": (64, 64), "multipose_pocket": (65, 65), "pocket": (64, 64),
    "posenet_mobilenet_075": (65, 65), "resnet_regression_18": (64, 64),
    "simcc_pocket": (64, 64), "simple_baseline_18": (64, 64),
}  # fmt: skip
"""One network of each kind, and the size of an input."""
SMALLER = {"hourglass_4": SMALL["hourglass"], "hrnet_w32": SMALL["hrnet"]}


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_are_what_depends_on_the_number_of_keypoints(name):
    make = SMALLER.get(name, partial(models.build, name))
    images = jnp.zeros((1, *NETWORKS[name], 3))
    three, five = (shapes_of(shapes(make(k), images)) for k in (3, 5))
    declared = models.entry(name).heads
    for path, shape in three.items():
        groups = next((g for p, g in declared.items() if path_matches(p, path)), ())
        axis = heads.axis_of(shape, five[path], sum(groups), (3, 5))
        assert (shape != five[path]) == (axis is not None), path


def test_every_network_of_keypoints_declares_its_heads():
    for name, network in models.MODELS.items():
        assert bool(network.heads) == (network.outputs != "boxes"), name


def test_keypoints_correspond_by_name_or_as_one_says():
    names = {"neck": ("left_shoulder", "right_shoulder"), "left_knee": ""}
    rows = heads.sources(keypoints.LSP, keypoints.COCO, names)
    found = dict(zip(keypoints.LSP.names, rows, strict=True))
    assert found["right_ankle"] == (16,)
    assert found["neck"] == (5, 6)
    assert found["left_knee"] == found["head_top"] == ()
    said = heads.described(keypoints.LSP, keypoints.COCO, rows)
    assert said == (
        "keypoints lsp from coco: 11 keypoints of the head by name, "
        "neck from left_shoulder + right_shoulder, "
        "2 randomly initialized (left_knee, head_top)"
    )
    with pytest.raises(ValueError, match=r"lsp has no keypoint 'nek'.*neck"):
        heads.sources(keypoints.LSP, keypoints.COCO, {"nek": "nose"})
    with pytest.raises(ValueError, match=r"coco has no keypoint 'nos'.*nose"):
        heads.sources(keypoints.LSP, keypoints.COCO, {"neck": "nos"})
