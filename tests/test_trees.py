"""Leaves by path, patterns of paths, and what differs between two trees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pose_jax import trees
from pose_jax.trees import compare_trees, flatten


def test_compare_trees_names_every_difference():
    expected = {"a": np.zeros((2, 3)), "b": [np.zeros(1), np.zeros(2)], "c": {}}
    found = {"a": np.zeros((3, 2)), "b": [np.zeros(1, int)], "d": np.zeros(0)}
    assert compare_trees(expected, expected) == []
    assert compare_trees(expected, found) == [
        "a: expected float64[2, 3], found float64[3, 2]",
        "b/0: expected float64[1], found int64[1]",
        "b/1: expected float64[2], found nothing",
        "d: expected nothing, found float64[0]",
    ]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("head", True),
        ("head/kernel", True),
        ("kernel", True),
        ("params/head", True),
        ("params/*/kernel", True),
        ("he*", True),
        ("hea", False),
        ("kernel/head", False),
        ("params/kernel", False),
        ("params/head/kernel/x", False),
    ],
)
def test_patterns_match_runs_of_whole_names(pattern, matches):
    path = ("params", "head", "kernel")
    assert trees.path_matches(pattern, path) is matches


def test_flatten_keeps_the_order_of_the_leaves():
    params = {"conv.0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
    state = {"params": params, "opt_state": optax.adam(1e-3).init(params)}
    leaves = list(flatten(state).values())
    for one, other in zip(leaves, jax.tree.leaves(state), strict=True):
        assert one is other
    assert ("params", "conv.0", "kernel") in flatten(state)


def test_a_pattern_of_no_match_gets_the_nearest_name():
    paths = list(flatten({"head": {"kernel": 1}, "stem": {"bias": 1}}))
    assert trees.nearest("haed", paths) == "Did you mean 'head'?"
    assert trees.nearest("stem/bais", paths) == "Did you mean 'stem/bias'?"
    assert trees.nearest("x", []) == "There are no parameters."
