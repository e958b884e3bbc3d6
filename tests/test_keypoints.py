"""The tables of joints are consistent with their own names, and others' with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints
from pose_jax.keypoints import COCO, FLIC, LSP, MPII, SETS, KeypointSet

every_set = pytest.mark.parametrize("keypoint_set", SETS.values(), ids=list(SETS))


def flat(stick):
    return [i for end in stick[1:] for i in np.atleast_1d(end)]


def mirror(name):
    for a, b in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(a):
            return b + name.removeprefix(a)
    return name


@every_set
def test_flip_pairs_are_left_and_right(keypoint_set):
    for i, j in enumerate(keypoint_set.permutation):
        assert keypoint_set.names[j] == mirror(keypoint_set.names[i])


@every_set
def test_limbs_are_symmetric(keypoint_set):
    """What is drawn and counted on the left is drawn and counted on the right."""
    p = keypoint_set.permutation
    limbs = {frozenset(limb) for limb in keypoint_set.skeleton}
    assert limbs == {frozenset(p[i] for i in limb) for limb in limbs}
    assert len(limbs) == len(keypoint_set.skeleton)
    sticks = {(s[0], frozenset(flat(s))) for s in keypoint_set.sticks}
    assert sticks == {(n, frozenset(p[i] for i in s)) for n, s in sticks}
    assert set(keypoint_set.upper_body) == {p[i] for i in keypoint_set.upper_body}
    for values in (keypoint_set.sigmas, keypoint_set.joint_weights):
        if values is not None:
            assert values == tuple(values[i] for i in p)


@every_set
def test_sticks_and_torso_join_the_joints_they_say(keypoint_set):
    name = keypoint_set.names
    joints = {
        "upper_arm": {"shoulder", "elbow"},
        "lower_arm": {"elbow", "wrist"},
        "upper_leg": {"hip", "knee"},
        "lower_leg": {"knee", "ankle"},
    }
    for stick in keypoint_set.sticks:
        if stick[0] in joints:
            ends = [name[i] for i in flat(stick)]
            assert {e.split("_")[1] for e in ends} == joints[stick[0]]
            assert len({e.split("_")[0] for e in ends}) == 1
    a, b = (name[i] for i in keypoint_set.torso)
    assert {a.split("_")[1], b.split("_")[1]} == {"shoulder", "hip"}
    assert a.split("_")[0] != b.split("_")[0]


def test_published_tables():
    assert [len(s) for s in (COCO, MPII, LSP, FLIC)] == [17, 16, 14, 11]
    # COCO's annotation files count from 1.
    published = "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 6-8 7-9 8-10 9-11 2-3 1-2"
    published += " 1-3 2-4 3-5 4-6 5-7"
    limbs = [tuple(int(i) - 1 for i in p.split("-")) for p in published.split()]
    assert {frozenset(p) for p in limbs} == {frozenset(p) for p in COCO.skeleton}
    sigmas = (
        ".026 .025 .025 .035 .035 .079 .079 .072 .072 .062 .062 .107 .107 .087 .087"
    )
    sigmas += " .089 .089"
    assert COCO.sigmas == tuple(map(float, sigmas.split()))
    assert MPII.sigmas is LSP.sigmas is FLIC.sigmas is None
    assert MPII.flip_pairs == ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13))
    limbs = "0-1 1-2 2-6 6-3 3-4 4-5 6-7 7-8 8-9 8-12 12-11 11-10 8-13 13-14 14-15"
    limbs = {frozenset(map(int, p.split("-"))) for p in limbs.split()}
    assert limbs == {frozenset(p) for p in MPII.skeleton}
    torso = {s.name: {s.names[i] for i in s.torso} for s in SETS.values()}
    for name, one in (("coco", "left"), ("mpii", "left"), ("lsp", "left")):
        assert torso[name] == {f"{one}_shoulder", "right_hip"}
    assert torso["flic"] == {"right_shoulder", "left_hip"}


@every_set
def test_swap_twice_is_nothing_on_any_axis(keypoint_set):
    k = len(keypoint_set)
    rng = np.random.default_rng(0)
    for shape, axis in (((3, k, 2), -2), ((4, 5, k), -1), ((k, 2), 0)):
        values = jnp.asarray(rng.normal(size=shape), jnp.float32)
        run = jax.jit(lambda v, axis=axis: keypoints.swap(v, keypoint_set, axis=axis))
        swapped = run(values)
        np.testing.assert_array_equal(run(swapped), values)
        for i, j in enumerate(keypoint_set.permutation):
            np.testing.assert_array_equal(
                np.asarray(swapped).take(i, axis), np.asarray(values).take(j, axis)
            )
        back = jax.grad(lambda v: jnp.vdot(run(v), values))(values)  # noqa: B023
        np.testing.assert_array_equal(back, swapped)


@pytest.mark.parametrize("source", SETS.values(), ids=list(SETS))
@pytest.mark.parametrize("target", SETS.values(), ids=list(SETS))
def test_remap_goes_by_name(source, target):
    rng = np.random.default_rng(1)
    points = rng.uniform(1, 99, (2, 3, len(source), 2)).astype(np.float32)
    visibility = rng.integers(0, 3, (2, 3, len(source))).astype(np.int32)
    moved, seen = keypoints.remap(
        jnp.asarray(points), jnp.asarray(visibility), source, target
    )
    assert moved.shape == (2, 3, len(target), 2) and seen.dtype == jnp.int32
    for i, name in enumerate(target.names):
        if name in source.names:
            j = source.names.index(name)
            np.testing.assert_array_equal(moved[..., i, :], points[..., j, :])
            np.testing.assert_array_equal(seen[..., i], visibility[..., j])
        else:
            assert not np.any(moved[..., i, :]) and not np.any(seen[..., i])


def test_what_remap_drops_has_no_gradient_and_no_nan():
    points = jnp.full((len(COCO), 2), jnp.nan).at[5:].set(1.0)  # COCO's face
    visibility = jnp.ones(len(COCO), jnp.int32)
    total = lambda p: keypoints.remap(p, visibility, COCO, LSP)[0].sum()
    value, gradient = jax.jit(jax.value_and_grad(total))(points)
    assert value == 2 * 12  # all but neck and head top
    np.testing.assert_array_equal(gradient[:5], 0)
    np.testing.assert_array_equal(gradient[5:], 1)


def test_a_set_checks_itself():
    good = dict(
        name="mine",
        names=("tail", "left_paw", "right_paw"),
        flip_pairs=((1, 2),),
        skeleton=((0, 1), (0, 2)),
        sticks=(("back", 0, (1, 2)),),
        torso=(0, 1),
        upper_body=(1, 2),
        sigmas=(0.1, 0.2, 0.2),
        joint_weights=(1.0, 1.5, 1.5),
    )
    assert KeypointSet(**good).permutation == (0, 2, 1)
    for spoilt in (
        dict(names=("tail", "paw", "paw")),
        dict(flip_pairs=((1, 2), (2, 0))),
        dict(flip_pairs=((1, 1),)),
        dict(flip_pairs=((1, 3),)),
        dict(skeleton=((0, -1),)),
        dict(sticks=(("back", 0, (1, 3)),)),
        dict(torso=(0, 5)),
        dict(upper_body=(7,)),
        dict(sigmas=(0.1, 0.2)),
        dict(sigmas=(0.1, 0.2, 0.0)),
        dict(joint_weights=(1.0, 1.0, 1.0, 1.0)),
    ):
        with pytest.raises(ValueError, match="mine"):
            KeypointSet(**(good | spoilt))
    with pytest.raises(dataclasses.FrozenInstanceError):
        COCO.name = "other"
    assert hash(COCO) != hash(MPII)


def test_mistakes_are_refused_with_the_rule():
    points, visibility = jnp.ones((17, 2)), jnp.ones(17)
    stranger = KeypointSet("stranger", ("tail",), (), ())
    for call in (
        lambda: keypoints.remap(points, visibility, MPII, COCO),
        lambda: keypoints.remap(points, visibility[:3], COCO, MPII),
        lambda: keypoints.remap(points, visibility, COCO, stranger),
        lambda: keypoints.swap(points, MPII, axis=0),
        lambda: keypoints.swap(points, COCO, axis=1),
    ):
        with pytest.raises(ValueError, match=r"coco|mpii"):
            call()
