"""What DARK trains on and with, through its phase, against the published rules in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods, models
from pose_jax.methods import augment
from pose_jax.types import Batch, Inputs, PersonLabels

SETS = {"coco": keypoints.COCO, "mpii": keypoints.MPII}
UPPER = {"coco": range(11), "mpii": range(7, 16)}
W, H = 64, 96  # Of the input.
CANVAS = 240  # Its width and height.
BOX = np.array([60.0, 40.0, 180.0, 200.0], np.float32)


def make_batch(keypoint_set, b=8, seed=0):
    """Upright people in black pictures, all labelled; upper bodies are above y = 115."""
    rng = np.random.default_rng(seed)
    k = len(keypoint_set)
    points = rng.uniform(90, 150, (b, k, 2))
    upper = np.isin(np.arange(k), UPPER[keypoint_set.name])
    points[:, upper, 1] = rng.uniform(45, 110, (b, upper.sum()))
    points[:, ~upper, 1] = rng.uniform(120, 195, (b, (~upper).sum()))
    inputs = Inputs(
        images=np.zeros((b, CANVAS, CANVAS, 3), np.uint8),
        canvas_to_image=np.tile(np.eye(2, 3, dtype=np.float32), (b, 1, 1)),
        box_xyxy=np.tile(BOX, (b, 1)),
        box_score=np.ones(b, np.float32),
        valid=np.ones(b, bool),
        row=np.arange(b, dtype=np.int32),
    )
    labels = PersonLabels(
        points_xy=points.astype(np.float32),
        visibility=np.full((b, k), 2, np.int32),
        area=np.full(b, 5000, np.float32),
        others_xy=np.zeros((b, 0, k, 2), np.float32),
        others_visibility=np.zeros((b, 0, k), np.int32),
    )
    return Batch(inputs, labels, np.int32(0))


def build(keypoint_set, **changes):
    section = {
        "name": "dark",
        "model": {"name": "pocket"},
        "input_size": (W, H),
        "sigma": 1.5,
    }
    return methods.build({**section, **changes}, keypoint_set)


# ----------------------------------------------------------------------------- the loss


def published_loss(output, target, weight, hardest=0):
    """Half the mean squared error of each joint's maps, averaged over the joints, or in
    each person over the `hardest` joints alone; then over the people."""
    weight = weight[:, None, None]
    each = 0.5 * np.square(weight * output - weight * target).mean((1, 2))  # [b, k]
    if hardest:
        each = np.sort(each, axis=1)[:, -hardest:]
    return each.mean()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hardest", [0, 8])
def test_the_loss_is_the_published_one_of_every_output(
    name, hardest, weighted, monkeypatch
):
    keypoint_set, rng = SETS[name], np.random.default_rng(1)
    k, (h, w) = len(keypoint_set), (H // 4, W // 4)
    outputs = rng.normal(size=(3, 8, h, w, k)).astype(np.float32)
    outputs *= rng.uniform(0.1, 3, (8, 1, 1, k)).astype(np.float32)

    class ThreeStacks:
        def apply(self, variables, images, train, mutable, rngs):
            return tuple(map(jnp.asarray, outputs)), {}

    monkeypatch.setattr(models, "build", lambda *args, **kwargs: ThreeStacks())
    phase = build(keypoint_set, ohkm=hardest, joint_weights=weighted).phases[0]
    batch = make_batch(keypoint_set)
    labels = dataclasses.replace(
        batch.labels, visibility=rng.integers(0, 3, (8, k)).astype(np.int32)
    )
    labels.visibility[0, 6:] = 0  # Fewer than eight to choose from.
    inputs = dataclasses.replace(batch.inputs, valid=np.arange(8) < 7)
    batch = Batch(inputs, labels, batch.epoch)
    example = jax.jit(phase.prepare)({}, batch, None)
    y, x = np.mgrid[:h, :w]
    points = np.asarray(example.points_xy) / 4  # Of the heatmap.
    away = (x[..., None] - points[:, None, None, :, 0]) ** 2
    away += (y[..., None] - points[:, None, None, :, 1]) ** 2
    maps = np.exp(-away / (2 * 1.5**2))
    weight = (labels.visibility > 0).astype(float)
    if weighted:
        weight = weight * keypoint_set.joint_weights
    # The last row only fills the batch up.
    expected = [published_loss(o[:7], maps[:7], weight[:7], hardest) for o in outputs]
    state, key = {"batch_stats": {}}, jax.random.key(0)
    total, (_, sums) = jax.jit(phase.loss)({}, state, example, key)
    assert float(total) == pytest.approx(sum(expected), rel=1e-5)
    assert float(sums["loss"].total) == pytest.approx(7 * sum(expected), rel=1e-5)
    if hardest:
        assert sum(expected) > 1.2 * sum(
            published_loss(o[:7], maps[:7], weight[:7]) for o in outputs
        )


def test_joint_weights_are_the_published_ones():
    """More the further from the trunk; by name, so that a wrong order is found."""
    far = {"elbow": 1.2, "knee": 1.2, "wrist": 1.5, "ankle": 1.5}
    for keypoint_set in SETS.values():
        expected = [far.get(name.split("_")[-1], 1.0) for name in keypoint_set.names]
        assert list(keypoint_set.joint_weights) == expected


# ---------------------------------------------------------------------------- half a body


def published_half(labelled, want_upper, upper):
    """Which keypoints make the view; None: the whole person is shown."""
    if labelled.sum() <= 8:
        return None
    half, other = labelled & upper, labelled & ~upper
    if not want_upper:
        half, other = other, half
    return half if half.sum() > 2 else other


def light(image):
    """The mean place of what is not black, (x, y)."""
    image = image.sum(-1) - image.sum(-1).min()
    y, x = np.mgrid[:H, :W]
    return [(image * axis).sum() / image.sum() for axis in (x, y)]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_half_a_body_is_shown_as_published(name, flip):
    keypoint_set, b = SETS[name], 24
    k, order = len(keypoint_set), list(keypoint_set.permutation)
    upper = np.isin(np.arange(k), UPPER[name])
    batch = make_batch(keypoint_set, b)
    points, visibility = batch.labels.points_xy, batch.labels.visibility
    visibility[:, 0] = 1  # Hidden counts.
    visibility[0, 8:] = 0  # Eight are too few, nine enough.
    visibility[1, 9:] = 0
    visibility[2:5, np.flatnonzero(~upper)[2:]] = 0  # Too few for a lower half ...
    visibility[5:7, np.flatnonzero(upper)[2:]] = 0  # ... and for an upper one.
    section = {"half_body": 1.0, "flip": flip}
    key, config = jax.random.key(5), augment.AugmentConfig(**section)
    drawn = augment.draw(key, batch.epoch, batch.inputs.row, config)
    drawn = jax.device_get(drawn)
    halves = [
        published_half(visibility[i] > 0, drawn.upper[i], upper) for i in range(b)
    ]
    # A light on one keypoint of what is shown.
    lit = [1 if half is None else np.flatnonzero(half)[1] for half in halves]
    for i, image in enumerate(batch.inputs.images):
        x, y = points[i, lit[i]] = np.round(points[i, lit[i]])
        image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255

    prepare = jax.jit(build(keypoint_set, augment=section).phases[0].prepare)
    found = jax.device_get(prepare({}, batch, key))
    for i, half in enumerate(halves):
        # The whole: the box, widened to the input's aspect, and a quarter more.
        center, size = (BOX[:2] + BOX[2:]) / 2, 1.25 * np.array([120, 180])
        if half is not None:
            center, (w, h) = points[i, half].mean(0), np.ptp(points[i, half], axis=0)
            size = 1.5 * np.array([max(w, h * W / H), max(h, w * H / W)])
            assert size[1] < 0.85 * 1.25 * 180
        expected, seen = (points[i] - center) * W / size[0] + (W / 2, H / 2), lit[i]
        if half is not None:
            assert (expected[half] > 0).all() and (expected[half] < (W, H)).all()
        labels = visibility[i]
        if drawn.flip[i]:
            expected = ((W - 1, 0) + expected * (-1, 1))[order]
            labels, seen = labels[order], order[seen]
        np.testing.assert_array_equal(found.visibility[i], labels)
        np.testing.assert_allclose(
            found.points_xy[i][labels > 0], expected[labels > 0], atol=2e-3
        )
        # The pixels go where the points go.
        np.testing.assert_allclose(light(found.images[i]), expected[seen], atol=0.3)

    few_upper = {"coco": {"whole"}, "mpii": {"lower"}}[name]  # 8 labels, and 9.
    kinds = [
        "whole" if half is None else "upper" if half[upper].any() else "lower"
        for half in halves
    ]
    nine = {"coco": "upper", "mpii": "lower"}[name]  # Their order in the set.
    assert kinds[:2] == ["whole", nine] and set(kinds[2:5]) == {"upper"}
    assert set(kinds[5:7]) == few_upper and set(kinds[7:]) == {"upper", "lower"}
    assert set(drawn.upper[2:5]) == set(drawn.upper[5:7]) == {True, False}
    assert set(drawn.flip) == ({True, False} if flip else {False})
