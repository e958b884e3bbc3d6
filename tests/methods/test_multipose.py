"""MultiPose as a method: its loss, its crops, and the votes back in the image frame."""

import dataclasses
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods
from pose_jax.codecs import offsets
from pose_jax.data import readers
from pose_jax.data.plan import Plan
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError
from pose_jax.evaluation import evaluate
from pose_jax.methods import multipose, topdown
from pose_jax.methods.topdown import PersonExample
from pose_jax.training import train
from pose_jax.types import Batch, Inputs, PersonLabels
from tests.made_up import register_network

SET = keypoints.KeypointSet(
    name="hands",
    names=("nose", "left_hand", "right_hand"),
    flip_pairs=((1, 2),),
    skeleton=((0, 1), (0, 2)),
)
K = len(SET)
W, H = 33, 41  # Of the input: not square, so that swapped axes fail.
RADIUS = 4.0
SURE = 40.0  # Logits of what is certain.


class Told(nn.Module):
    """Answers what its parameters say, to every image."""

    num_keypoints: int
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train=False):
        shape = (*images.shape[:3], self.num_keypoints)
        zeros = nn.initializers.zeros
        auxiliary = self.param("auxiliary", zeros, shape)
        logits = self.param("logits", zeros, shape)
        fields = self.param("fields", zeros, (*shape, 2))
        return (auxiliary, (logits, fields)) if train else (logits, fields)


class Hands(nn.Module):
    """Finds two spots of light: perfect discs, and from everywhere the way there.

    Whoever waves them faces the camera: the left hand is on the right of the image, in a
    mirrored one too. The nose is in the middle.
    """

    num_keypoints: int
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        _, h, w, _ = images.shape
        light = images.sum(-1) - images.sum(-1).min((1, 2), keepdims=True)
        pixels = jnp.stack(jnp.meshgrid(jnp.arange(w), jnp.arange(h)), -1)[None] * 1.0

        def middle(light):
            mass = light.sum((1, 2))[:, None]
            return (light[..., None] * pixels).sum((1, 2)) / mass

        is_left = pixels[..., 0] > middle(light)[:, :1, None]
        left, right = middle(light * is_left), middle(light * ~is_left)
        points_xy = jnp.stack([(left + right) / 2, left, right], 1)
        ways = points_xy[:, None, None] - pixels[..., None, :]
        logits = jnp.where(jnp.square(ways).sum(-1) <= RADIUS**2, SURE, -SURE)
        return (logits, (logits, ways)) if train else (logits, ways)


class Small(nn.Module):
    """One convolution: the smallest network that is not the same from left and right."""

    num_keypoints: int
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, train=False):
        k = self.num_keypoints
        both = nn.Conv(3 * k, (5, 5), kernel_init=nn.initializers.normal(0.3))(images)
        final = both[..., :k], both[..., k:].reshape(*both.shape[:3], k, 2)
        return (both[..., :k], final) if train else final


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for name, network in {"told": Told, "hands": Hands, "small": Small}.items():
        outputs = "heatmaps and offsets"
        register_network(monkeypatch, name, network, outputs=outputs, stride=1)


def build(keypoint_set=SET, **changes):
    section = {
        "name": "multipose",
        "model": {"name": "told"},
        "input_size": (W, H),
        "radius": RADIUS,
    }
    decoder = changes.pop("decoder", None)
    return methods.build(section | changes, keypoint_set, decoder=decoder)


# Tall, wide, square; small and large; some beyond the borders of the canvas.
BOXES = np.array(
    [
        [40, 20, 90, 120],
        [10, 60, 150, 90],
        [-30, -20, 70, 80],
        [100.5, 90.25, 118.75, 111.5],
        [0, 0, 300, 250],
        [75, 30, 80, 140],
    ],
    np.float32,
)


def make_batch(b=6, m=0, seed=0, keypoint_set=SET):
    """People in boxes of many sizes, and noise for images."""
    rng = np.random.default_rng(seed)
    k = len(keypoint_set)
    box = BOXES[np.arange(b) % len(BOXES)]
    inside = rng.uniform(0, 1, (b, 1 + m, k, 2))
    points = box[:, None, None, :2] + inside * (box[:, 2:] - box[:, :2])[:, None, None]
    inputs = Inputs(
        images=rng.integers(0, 255, (b, 12, 16, 3), np.uint8),
        canvas_to_image=np.tile(np.float32([[9, 0, 3], [0, 11, 2]]), (b, 1, 1)),
        box_xyxy=box,
        box_score=rng.uniform(0.5, 1, b).astype(np.float32),
        valid=np.ones(b, bool),
        row=np.arange(b, dtype=np.int32),
    )
    labels = PersonLabels(
        points_xy=points[:, 0].astype(np.float32),
        visibility=rng.integers(0, 3, (b, k)).astype(np.int32),
        area=np.ones(b, np.float32),
        others_xy=points[:, 1:].astype(np.float32),
        others_visibility=rng.integers(0, 3, (b, m, k)).astype(np.int32),
    )
    return Batch(inputs, labels, np.int32(0))


def crop_of(box_xyxy, padding=1.25):
    """The crop rule for one box, image pixels: its middle and its sides."""
    x0, y0, x1, y1 = np.float64(box_xyxy)
    width, height = x1 - x0, y1 - y0
    if width / height < W / H:
        width = height * W / H
    else:
        height = width * H / W
    return np.array([x0 + x1, y0 + y1]) / 2, padding * np.array([width, height])


def to_input(points_xy, boxes_xyxy, padding=1.25):
    """Image to input: corner pixels lie on corner pixels. [b, ..., 2]."""
    found = []
    for points, box in zip(np.float64(points_xy), boxes_xyxy, strict=True):
        middle, size = crop_of(box, padding)
        last = np.array([W - 1, H - 1])
        found.append((points - middle) * last / (size - 1) + last / 2)
    return np.stack(found)


def discs(points_xy, size=(W, H), radius=RADIUS):
    """Of points [..., k, 2]: where the disc is, and the way, [..., h, w, k(, 2)]."""
    y, x = np.mgrid[: size[1], : size[0]]
    ways = (
        np.float64(points_xy)[..., None, None, :, :] - np.stack([x, y], -1)[:, :, None]
    )
    return (ways**2).sum(-1) <= radius**2, ways


def weights(discs, ways, auxiliary=None):
    """Of a network that says so."""
    logits = np.where(discs, SURE, -SURE) if discs.dtype == bool else discs
    params = {
        "auxiliary": logits if auxiliary is None else auxiliary,
        "logits": logits,
        "fields": ways,
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return {"pose": {"params": params, "batch_stats": {}}}


def loss_of(method, params, example):
    """The loss, its gradient, and what is logged."""
    phase, state = method.phases[0], {"batch_stats": {}}
    run = jax.jit(jax.value_and_grad(phase.loss, has_aux=True))
    (total, (_, logged)), gradient = run(params, state, example, jax.random.key(0))
    return total, gradient, logged


# ------------------------------------------------------------------------------ the loss


def make_example(b=4, m=2, seed=0):
    """People as the loss gets them: in the frame of the input, partly outside of it."""
    rng = np.random.default_rng(seed)
    example = PersonExample(
        images=np.zeros((b, H, W, 3)),
        points_xy=rng.uniform(-3, (W + 3, H + 3), (b, K, 2)),
        visibility=rng.integers(0, 3, (b, K)),
        valid=np.arange(b) != 1,
        others_xy=rng.uniform(-3, (W + 3, H + 3), (b, m, K, 2)),
        others_visibility=rng.integers(0, 3, (b, m, K)),
    )
    # Discs that overlap; and pixels exactly on the rim.
    example.visibility[0] = 1, 2, 0
    example.points_xy[0, :2] = [[10, 12], [8.25, 30]]
    example.others_xy[0, 0, :2] = [[13, 15], [9, 31]]
    example.others_visibility[0, 0] = 2, 1, 2
    example.others_xy[0, 1, 0] = [20, 12]
    example.others_visibility[0, 1] = 0
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32 if leaf.dtype == float else None),
        example,
    )


def defined(params, example, *, reduction, others, delta=1.0, radius=RADIUS):
    """L_h, its auxiliary twin, and L_o by (5): pixel after pixel, in double precision."""
    example = jax.device_get(example)
    auxiliary, logits, fields = (
        np.float64(params[name]) for name in ("auxiliary", "logits", "fields")
    )
    b, h, w, k = logits.shape
    sums = {"heatmap": 0.0, "auxiliary": 0.0, "offset": 0.0}
    counts = dict.fromkeys(sums, 0)

    def logistic(x, positive):
        return math.log1p(math.exp(-x)) if positive else math.log1p(math.exp(x))

    for i, y, x, j in np.ndindex(b, h, w, k):
        if not example.valid[i] or example.visibility[i, j] == 0:
            continue
        way = np.float64(example.points_xy[i, j]) - [x, y]
        positive = math.hypot(*way) <= radius
        apart = not any(
            seen[j] > 0 and math.hypot(*(np.float64(points[j]) - [x, y])) <= radius
            for points, seen in zip(
                example.others_xy[i], example.others_visibility[i], strict=True
            )
        )
        if apart or others != "both":
            sums["heatmap"] += logistic(logits[i, y, x, j], positive)
            counts["heatmap"] += 1
        if apart or others == "none":
            sums["auxiliary"] += logistic(auxiliary[i, y, x, j], positive)
            counts["auxiliary"] += 1
        if positive:
            u = math.hypot(*(fields[i, y, x, j] - way))
            sums["offset"] += u**2 / 2 if u <= delta else delta * (u - delta / 2)
            counts["offset"] += 1
    people = example.valid.sum()
    per = {
        "sum": dict.fromkeys(sums, people),
        "pixel": dict.fromkeys(sums, people * h * w),
        "mean": counts,
    }[reduction]
    return {name: value / per[name] for name, value in sums.items()}


@pytest.fixture(scope="module")
def anything():
    """Answers of a network that knows nothing."""
    rng = np.random.default_rng(5)
    shape = (4, H, W, K)
    answers = [3 * rng.standard_normal(shape) for _ in range(2)]
    fields = 6 * rng.standard_normal((*shape, 2))
    return weights(answers[0], fields, auxiliary=answers[1])["pose"]["params"]


@pytest.mark.parametrize("others", ["auxiliary", "both", "none"])
@pytest.mark.parametrize("reduction", ["sum", "pixel", "mean"])
def test_the_loss_is_equations_5_and_6_pixel_after_pixel(anything, reduction, others):
    """4 (L_h + the same of the auxiliary map) + L_o, by default."""
    example = make_example()
    choices = {"reduction": reduction, "others": others}
    parts = defined(anything, example, **choices)
    total, _, logged = loss_of(build(**choices), anything, example)
    expected = 4 * (parts["heatmap"] + parts["auxiliary"]) + parts["offset"]
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert set(logged) == {"loss", *parts}
    for name, value in (parts | {"loss": expected}).items():
        assert logged[name].compute() == pytest.approx(value, rel=1e-5), name
        assert float(logged[name].weight) == 3  # Rows that are valid.


def test_every_weight_and_delta_is_of_its_own_term(anything):
    example = make_example()
    parts = defined(anything, example, reduction="sum", others="auxiliary", delta=2.5)
    given = {"heatmap_weight": 3.0, "auxiliary_weight": 0.25, "offset_weight": 0.5}
    total, gradient, _ = loss_of(build(delta=2.5, **given), anything, example)
    expected = 3 * (parts["heatmap"] + parts["auxiliary"] / 4) + parts["offset"] / 2
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in gradient.values())
    silent = {
        "heatmap_weight": {"logits", "auxiliary"},
        "auxiliary_weight": {"auxiliary"},
        "offset_weight": {"fields"},
    }

    @jax.jit
    def without(params):
        state, key = {"batch_stats": {}}, jax.random.key(0)
        phases = {name: build(**{name: 0.0}).phases[0] for name in silent}
        return {
            name: jax.grad(phase.loss, has_aux=True)(params, state, example, key)[0]
            for name, phase in phases.items()
        }

    for name, gradient in jax.device_get(without(anything)).items():
        zero = {leaf for leaf, values in gradient.items() if not values.any()}
        assert zero == silent[name], name


def test_by_hand_at_the_size_of_the_paper():
    """h = 1/2 is ln 2 a pixel; offsets wrong by (3, 4) are 4.5 each, of 1961 in a disc."""
    method = methods.build({"name": "multipose", "model": {"name": "told"}}, SET)
    assert method.view.size == (257, 353)
    points = np.array([[[100, 200], [60, 90], [150, 300]]])
    _, ways = discs(points, (257, 353))
    answer = weights(np.zeros(ways.shape[:-1]), ways + (3, 4))
    example = PersonExample(
        images=jnp.zeros((1, 353, 257, 3)),
        points_xy=jnp.asarray(points, jnp.float32),
        visibility=jnp.array([[1, 0, 2]]),
        valid=jnp.array([True]),
        others_xy=jnp.zeros((1, 8, K, 2)),
        others_visibility=jnp.zeros((1, 8, K), int),
    )
    total, _, logged = loss_of(method, answer["pose"]["params"], example)
    maps, ways = 2 * 353 * 257 * math.log(2), 2 * 1961 * (5 - 0.5)
    assert logged["heatmap"].compute() == pytest.approx(maps, rel=1e-5)
    assert logged["offset"].compute() == pytest.approx(ways, rel=1e-5)
    assert float(total) == pytest.approx(4 * (maps + maps) + ways, rel=1e-5)


@pytest.mark.parametrize(
    "others, expected",
    [("auxiliary", (2, 0)), ("both", (0, 0)), ("none", (2, 2))],
)
def test_the_final_map_learns_that_other_people_are_not_asked_for(others, expected):
    """Of (final, auxiliary) maps: gradients at another's keypoint, where logits are 0."""
    example = dataclasses.replace(
        make_example(b=1),
        visibility=jnp.ones((1, K), int),
        points_xy=jnp.tile(jnp.array([8.0, 9.0]), (1, K, 1)),
        others_xy=jnp.tile(jnp.array([25.0, 30.0]), (1, 2, K, 1)),
        others_visibility=jnp.zeros((1, 2, K), int).at[0, 1, 1].set(1),
    )
    answer = weights(np.zeros((1, H, W, K)), np.zeros((1, H, W, K, 2)))
    method = build(others=others)
    _, gradient, _ = loss_of(method, answer["pose"]["params"], example)
    for name, there in zip(("logits", "auxiliary"), expected, strict=True):
        found = np.asarray(gradient[name][0])
        np.testing.assert_allclose(found[30, 25], [2, there, 2], atol=1e-5)
        np.testing.assert_allclose(found[9, 8], -2, atol=1e-5)  # Its own.
        np.testing.assert_allclose(found[40, 0], 2, atol=1e-5)  # Nobody's.
    assert method.view.max_others == (0 if others == "none" else 8)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_are_finite_where_there_is_nothing_to_learn(anything, reduction):
    method = build(reduction=reduction)
    phase, state = method.phases[0], {"batch_stats": {}}
    run = jax.jit(jax.value_and_grad(phase.loss, has_aux=True))

    def changed(**values):
        example = make_example()
        same = {
            name: jnp.full_like(getattr(example, name), value)
            for name, value in values.items()
        }
        example = dataclasses.replace(example, **same)
        return run(anything, state, example, jax.random.key(0))

    for values, people, learns in (
        ({"visibility": 0}, 3, False),
        ({"valid": False}, 0, False),
        ({"visibility": 1}, 3, True),  # Everything is hidden.
        ({"others_visibility": 0}, 3, True),
        ({"others_xy": 1e6}, 3, True),
        ({"points_xy": -1e6}, 3, True),
    ):
        (total, (_, logged)), gradient = changed(**values)
        size = max(float(jnp.abs(leaf).max()) for leaf in gradient.values())
        assert np.isfinite(size) and np.isfinite(total), values
        assert (float(total) > 0) == (size > 0) == learns, values
        assert float(logged["loss"].weight) == people, values
    # What is hidden counts as what is seen; people far away as none.
    assert changed(visibility=1)[0][0] == changed(visibility=2)[0][0]
    assert changed(others_visibility=0)[0][0] == changed(others_xy=1e6)[0][0]


def test_a_network_that_is_right_pulls_on_nothing():
    """No square root of 0 in the gradient of a length; certain pixels cost nothing."""
    example = make_example()
    nobody = jnp.zeros_like(example.others_visibility)
    example = dataclasses.replace(example, others_visibility=nobody)
    answer = weights(*discs(example.points_xy))
    total, gradient, _ = loss_of(build(), answer["pose"]["params"], example)
    assert float(total) < 1e-2
    for leaf in jax.tree.leaves(gradient):
        assert np.abs(leaf).max() < 1e-4  # NaN is not less.


def test_what_stands_where_nothing_is_labelled_does_not_matter():
    batch = make_batch(m=2)
    moved = jax.tree.map(np.copy, batch)
    for points, seen in (
        (moved.labels.points_xy, moved.labels.visibility),
        (moved.labels.others_xy, moved.labels.others_visibility),
    ):
        points[seen == 0] = np.nan
    assert np.isnan(moved.labels.others_xy).any()
    method = build(max_others=2)
    prepare = jax.jit(method.phases[0].prepare)
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((6, H, W, K))
    params = weights(maps, rng.standard_normal((6, H, W, K, 2)))["pose"]["params"]
    plain, example = (prepare({}, b, None) for b in (batch, moved))
    for name, value in vars(plain).items():
        np.testing.assert_array_equal(value, getattr(example, name), err_msg=name)
    assert np.isfinite(example.others_xy).all()
    one, _, _ = loss_of(method, params, plain)
    two, gradient, _ = loss_of(method, params, example)
    assert float(one) == float(two)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# ------------------------------------------------------------------- crops, in training


def test_the_crop_widens_the_box_and_never_squeezes():
    """In evaluation by 1.25; the labels move along, those of others too."""
    batch = make_batch(m=2)
    batch.labels.visibility[:] = 2
    batch.labels.others_visibility[:] = 1
    method = build(max_others=2)
    assert method.view.padding == 1.25 and method.view.aspect == W / H
    example = jax.device_get(jax.jit(method.phases[0].prepare)({}, batch, None))
    for found, given in (
        (example.points_xy, batch.labels.points_xy),
        (example.others_xy, batch.labels.others_xy),
    ):
        expected = to_input(given, BOXES)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(
        example.others_visibility, batch.labels.others_visibility
    )
    # The corners of the boxes are seen, and one side is padded by 1.25 exactly.
    corners = to_input(BOXES.reshape(-1, 2, 2), BOXES)
    sides = np.stack([crop_of(box)[1] for box in BOXES])
    share = (corners[:, 1] - corners[:, 0]) / (W - 1, H - 1) * (sides - 1) / sides
    assert (share < 0.8 + 1e-6).all()
    np.testing.assert_allclose(share.max(1), 0.8, rtol=1e-6)
    # A pixel of the input is as wide as high, but for the two halves that it has less.
    pixel = (sides - 1) / (W - 1, H - 1)
    np.testing.assert_allclose(pixel[:, 0], pixel[:, 1], rtol=0.02)
    assert pixel.min() < 1 < 5 < pixel.max()


def test_padding_is_random_from_1_to_1_5_in_training_instead_of_1_25():
    batch = make_batch(b=1200)
    batch.labels.visibility[:] = 2
    phase = build().phases[0]
    prepare = jax.jit(lambda batch, key: phase.prepare({}, batch, key).points_xy)
    seen = np.asarray(prepare(batch, jax.random.key(0)))
    # What the factor was: of the distance of two points before and after.
    apart = [p[:, 1] - p[:, 2] for p in (np.float64(batch.labels.points_xy), seen)]
    widest = np.abs(apart[0]).argmax(1)[:, None]
    before, after = (np.take_along_axis(d, widest, 1)[:, 0] for d in apart)
    sides = np.stack([crop_of(box, padding=1)[1] for box in batch.inputs.box_xyxy])
    side = np.take_along_axis(sides, widest, 1)[:, 0]
    last = np.array([W, H])[widest[:, 0]] - 1
    padding = (last * before / after + 1) / side
    assert padding.min() > 0.999 and padding.max() < 1.501
    uniform = np.linspace(1, 1.5, 1200)
    np.testing.assert_allclose(np.sort(padding), uniform, atol=0.02)
    # Its middle stays, and no row is mirrored: all of a row is explained by its factor.
    people = zip(batch.labels.points_xy, batch.inputs.box_xyxy, padding, strict=True)
    for found, (points, box, factor) in zip(seen[:60], people, strict=False):
        expected = to_input(points[None], box[None], factor)[0]
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_mirrored_example_exchanges_the_names_of_everybody():
    batch = make_batch(b=48, m=2)
    batch.labels.visibility[:, 0] = 2
    phase = build(max_others=2, augment={"flip": 0.5, "scale": 0.0}).phases[0]

    @jax.jit
    def prepare(batch, key):  # Without the pixels: these are followed below.
        return dataclasses.replace(phase.prepare({}, batch, key), images=None)

    drawn = jax.device_get(prepare(batch, jax.random.key(0)))
    boxes, labels = batch.inputs.box_xyxy, batch.labels
    nose_x = to_input(labels.points_xy, boxes)[:, 0, 0]
    mirrored = np.abs(drawn.points_xy[:, 0, 0] - nose_x) > 1e-2
    assert 12 < mirrored.sum() < 36
    for xy, visibility, given_xy, given in (
        ("points_xy", "visibility", labels.points_xy, labels.visibility),
        ("others_xy", "others_visibility", labels.others_xy, labels.others_visibility),
    ):
        points, seen = to_input(given_xy, boxes), given.copy()
        points[mirrored] = points[mirrored][..., [0, 2, 1], :] * [-1, 1] + [W - 1, 0]
        seen[mirrored] = seen[mirrored][..., [0, 2, 1]]
        np.testing.assert_array_equal(getattr(drawn, visibility), seen)
        labelled, found = seen > 0, getattr(drawn, xy)
        np.testing.assert_allclose(found[labelled], points[labelled], atol=2e-3)


def test_names_are_exchanged_in_the_rows_that_are_mirrored_alone():
    """Of one person a row or of several, who may be as many as there are rows."""
    flip = jnp.array([True, False, True])
    for people in ((), (3,), (1,), (0,)):
        points = np.arange(3 * math.prod(people) * K * 2, dtype=np.float32)
        points = points.reshape(3, *people, K, 2)
        seen = points[..., 0].astype(np.int32)
        found = topdown.mirror_names(jnp.asarray(points), jnp.asarray(seen), flip, SET)
        for given, value, axis in zip((points, seen), found, (-2, -1), strict=True):
            expected = given.copy()
            expected[[0, 2]] = np.take(given[[0, 2]], [0, 2, 1], axis=axis)
            np.testing.assert_array_equal(value, expected)


def test_the_labels_of_others_stay_on_their_pixels():
    """A spot on the nose of somebody else is there after every augmentation."""
    b, side = 24, 200
    rng = np.random.default_rng(0)
    batch = make_batch(b=b, m=3)
    batch.inputs.box_xyxy[:] = box = np.float32([60, 40, 130, 150])
    at = rng.uniform(box[:2], box[2:], (b, 2))
    y, x = np.mgrid[:side, :side]
    distance = np.square(x - at[:, :1, None]) + np.square(y - at[:, 1:, None])
    images = np.round(255 * np.exp(-distance / 2 / 4**2)).astype(np.uint8)
    inputs = dataclasses.replace(
        batch.inputs,
        images=np.tile(images[..., None], 3),
        canvas_to_image=np.tile(np.eye(2, 3, dtype=np.float32), (b, 1, 1)),
    )
    batch.labels.others_xy[:, 1, 0] = at
    batch.labels.others_visibility[:, 1, 0] = 1
    augment = {"flip": 0.5, "scale": 0.2, "rotation": 30.0, "translation": 0.1}
    phase = build(max_others=3, augment=augment).phases[0]
    prepare = jax.jit(lambda b, key: phase.prepare({}, b, key))
    example = prepare(Batch(inputs, batch.labels, np.int32(2)), jax.random.key(1))
    light = np.asarray(phase.preview(example)["input"]).sum(-1)
    y, x = np.mgrid[:H, :W]
    found = np.stack([(light * x).sum((1, 2)), (light * y).sum((1, 2))], -1)
    found /= light.sum((1, 2))[:, None]
    expected = np.asarray(example.others_xy[:, 1, 0])
    inside = ((expected > 5) & (expected < (W - 6, H - 6))).all(-1)
    assert inside.sum() >= 12
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.1)


def test_a_view_without_others_gives_none():
    batch = make_batch(m=0)
    phase = build(max_others=0).phases[0]
    example = jax.eval_shape(lambda batch: phase.prepare({}, batch, None), batch)
    assert example.others_xy.shape == (6, 0, K, 2)
    assert example.others_visibility.shape == (6, 0, K)


# --------------------------------------------------------- from the maps to the people


@pytest.fixture(scope="module")
def people():
    """People anywhere in their boxes, and a network that knows where they are."""
    batch = make_batch(keypoint_set=keypoints.COCO)
    return batch, weights(*discs(to_input(batch.labels.points_xy, BOXES)))


def predictions(variables, inputs, variants):
    """Of methods that differ in these options, all out of one compilation."""

    @jax.jit
    def predict(variables, inputs):
        methods = [build(**options) for options in variants.values()]
        return [method.predict(variables, inputs) for method in methods]

    return dict(zip(variants, jax.device_get(predict(variables, inputs)), strict=True))


def test_perfect_maps_give_the_keypoints_back_in_the_image(people):
    batch, variables = people
    variants = {
        name: {"decoder": name, "keypoint_set": keypoints.COCO}
        for name in multipose.DECODERS
    }
    found = predictions(variables, batch.inputs, variants)
    true_xy = to_input(batch.labels.points_xy, BOXES)
    # Pixels of the input. The first pixel of a disc is its top; votes meet at a point, of
    # which "hough" says the nearest pixel.
    limits = {
        "argmax": (RADIUS - 1.5, RADIUS),
        "argmax_offset": (0, 1e-3),
        "hough": (0, 0.5 * math.sqrt(2) + 1e-3),
        "hough_subpixel": (0, 1e-2),
    }
    assert set(found) == set(limits)
    for name, poses in found.items():
        points = to_input(poses.points_xy, BOXES)
        distance = np.linalg.norm(points - true_xy, axis=-1)
        low, high = limits[name]
        assert low <= distance.min() and distance.max() < high, name
        np.testing.assert_array_equal(poses.row, batch.inputs.row)
        np.testing.assert_array_equal(poses.valid, batch.inputs.valid)
        if name == "hough":
            assert distance.mean() > 0.2
            np.testing.assert_allclose(points, points.round(), atol=1e-3)


def test_argmax_offset_adds_what_the_likeliest_pixel_says():
    """And it alone: all other offsets are wrong, and of another keypoint and person."""
    rng = np.random.default_rng(3)
    maps, ways = rng.normal(-5, 1, (6, H, W, K)), rng.normal(0, 5, (6, H, W, K, 2))
    at = rng.integers(0, (W, H), (6, K, 2))
    expected = np.zeros((6, K, 2))
    for i, j in np.ndindex(6, K):
        x, y = at[i, j]
        maps[i, y, x, j] = 3.0
        expected[i, j] = at[i, j] + ways[i, y, x, j]
    inspect = jax.jit(build(decoder="argmax_offset").inspect)
    seen = jax.device_get(inspect(weights(maps, ways), make_batch().inputs))
    np.testing.assert_allclose(seen["points_xy"], expected, atol=1e-4)
    np.testing.assert_allclose(seen["keypoint_scores"], 1 / (1 + np.exp(-3)), rtol=1e-5)


def light_of(points_xy, boxes_xyxy, canvas_to_image, size=(160, 144)):
    """Canvases with spots of light at points of the image [b, 2, 2]."""
    y, x = np.mgrid[: size[1], : size[0]]
    a, c = canvas_to_image[0, 0, 0], canvas_to_image[0, :, 2]
    images = np.zeros((len(points_xy), size[1], size[0]))
    for image, points, box in zip(images, points_xy, boxes_xyxy, strict=True):
        spread = 0.02 * crop_of(box)[1].max()
        for px, py in points:
            distance = np.square(a * x + c[0] - px) + np.square(a * y + c[1] - py)
            image += np.exp(-distance / 2 / spread**2)
    images = np.round(255 * np.minimum(images, 1)).astype(np.uint8)
    return np.tile(images[..., None], 3)


@pytest.fixture(scope="module")
def waving():
    """Canvases of half the density, shifted, of people whose hands shine."""
    batch = make_batch()
    boxes = np.float32(
        [
            [60, 40, 140, 180],
            [40, 150, 260, 230],
            [150, 100, 230, 190],
            [20, 20, 300, 270],
            [-60, 60, 120, 220],
            [200, 30, 215, 200],
        ]
    )
    to_image = np.tile(np.float32([[2, 0, 4.5], [0, 2, 7.5]]), (6, 1, 1))
    sides = np.stack([crop_of(box)[1] for box in boxes])
    middles = np.stack([crop_of(box)[0] for box in boxes])
    # Left hand, right hand: of the crop, from its middle.
    rng = np.random.default_rng(0)
    hands = rng.uniform(
        [[0.12, -0.25], [-0.3, -0.25]], [[0.3, 0.25], [-0.12, 0.25]], (6, 2, 2)
    )
    hands[4] = [[0.3, 0.2], [0.1, -0.25]]  # The canvas ends there.
    hands = middles[:, None] + sides[:, None] * hands
    inputs = dataclasses.replace(
        batch.inputs,
        images=light_of(hands, boxes, to_image),
        canvas_to_image=to_image,
        box_xyxy=boxes,
    )
    true_xy = np.concatenate([hands.mean(1, keepdims=True), hands], 1)
    return inputs, true_xy


def test_what_a_network_sees_is_found_in_the_image(waving):
    """To a part of a pixel of the input; the mirrored image agrees, names and all."""
    inputs, true_xy = waving
    limits = {
        ("hough", "none"): 0.55,
        ("hough", "plain"): 0.55,
        ("hough_subpixel", "none"): 0.05,
        ("hough_subpixel", "plain"): 0.05,
    }
    variants = {
        name: {"decoder": name[0], "flip_test": name[1], "model": {"name": "hands"}}
        for name in limits
    }
    variables = {"pose": {"params": {"unused": jnp.zeros(1)}, "batch_stats": {}}}
    found = predictions(variables, inputs, variants)
    for name, limit in limits.items():
        points = to_input(found[name].points_xy, inputs.box_xyxy)
        error = points - to_input(true_xy, inputs.box_xyxy)
        assert np.abs(error).max() < limit, name
    once, twice = (found["hough_subpixel", flip] for flip in ("none", "plain"))
    np.testing.assert_allclose(twice.points_xy, once.points_xy, atol=5e-3)


def test_the_flip_test_averages_maps_and_weighs_offsets_by_them():
    """A network that says the same of both images: its answer and the mirrored one."""
    rng = np.random.default_rng(0)
    logits, ways = rng.normal(0, 3, (6, H, W, K)), rng.normal(0, 3, (6, H, W, K, 2))
    logits[0] = -200  # 0 in single precision, in both images.
    inspect = jax.jit(build(flip_test="plain").inspect)
    seen = jax.device_get(inspect(weights(logits, ways), make_batch().inputs))
    h = 1 / (1 + np.exp(-logits))
    order = list(SET.permutation)
    other_h, other_ways = h[:, :, ::-1][..., order], ways[:, :, ::-1][..., order, :]
    other_ways = other_ways * [-1, 1]
    np.testing.assert_allclose(seen["heatmaps"], (h + other_h) / 2, atol=1e-5)
    a, b = h[..., None], other_h[..., None]
    expected = (a * ways + b * other_ways) / (a + b)
    np.testing.assert_allclose(seen["offsets"][1:], expected[1:], atol=1e-3)
    assert (seen["heatmaps"][0] == 0).all() and np.isfinite(seen["offsets"]).all()


def test_mirroring_the_image_mirrors_the_answer_of_a_flip_test():
    """Of a network that is not the same from left and right: exact, corners align."""
    method = build(model={"name": "small"}, flip_test="plain")
    pose = jax.jit(method.phases[0].init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = make_batch(b=2)
    inputs = dataclasses.replace(
        batch.inputs,
        images=rng.integers(0, 255, (2, 60, 50, 3), np.uint8),
        canvas_to_image=np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)),
        box_xyxy=np.tile(np.float32([5, 6, 44, 53]), (2, 1)),
    )
    mirrored = dataclasses.replace(inputs, images=inputs.images[:, :, ::-1].copy())
    inspect = jax.jit(method.inspect)
    one, two = (jax.device_get(inspect({"pose": pose}, i)) for i in (inputs, mirrored))
    order = list(SET.permutation)
    assert one["heatmaps"].std() > 0.01 and one["offsets"].std() > 0.1
    np.testing.assert_allclose(
        two["heatmaps"][:, :, ::-1][..., order], one["heatmaps"], atol=1e-4
    )
    np.testing.assert_allclose(
        two["offsets"][:, :, ::-1][..., order, :] * [-1, 1], one["offsets"], atol=1e-3
    )


def test_a_pose_scores_the_mean_of_its_votes():
    """(7), by counting: at whole pixels all of a disc votes for one, over pi R^2."""
    rng = np.random.default_rng(0)
    at = rng.integers(0, (W, H), (6, K, 2))  # Some discs are cut by the border.
    logits, ways = discs(at)
    votes = logits.sum((1, 2)) / (np.pi * RADIUS**2)
    half = np.where(logits[:3], 0, -SURE)  # h = 1/2: half a vote each.
    logits = np.concatenate([half, np.where(logits[3:], SURE, -SURE)])
    votes[:3] /= 2
    inputs = make_batch().inputs
    expected = {
        "pose": votes.mean(1),
        "box": inputs.box_score,
        "product": votes.mean(1) * inputs.box_score,
    }
    variants = {name: {"rescoring": name} for name in expected}
    found = predictions(weights(logits, ways), inputs, variants)
    for name, score in expected.items():
        np.testing.assert_allclose(found[name].keypoint_scores, votes, rtol=1e-5)
        np.testing.assert_allclose(found[name].score, score, rtol=1e-5)
    assert 0.2 < votes.min() < votes.max() < 1.01


def test_a_disc_of_the_paper_gets_1961_votes_of_pi_r_squared():
    method = methods.build({"name": "multipose", "model": {"name": "told"}}, SET)
    variables = weights(*discs([[[100, 200], [60, 90], [150, 300]]], (257, 353), 25))
    inputs = jax.tree.map(lambda leaf: leaf[:1], make_batch().inputs)
    poses = jax.jit(method.predict)(variables, inputs)
    np.testing.assert_allclose(poses.keypoint_scores, 1961 / (np.pi * 625), rtol=1e-5)
    np.testing.assert_allclose(poses.score, 0.9987, atol=5e-5)


# ------------------------------------------------------------------ pictures and errors


def test_inspect_shows_what_predict_computes(people):
    batch, variables = people
    method = build(keypoints.COCO)
    both = jax.jit(lambda *args: (method.inspect(*args), method.predict(*args)))
    seen, poses = jax.device_get(both(variables, batch.inputs))
    shapes = {name: value.shape for name, value in seen.items()}
    assert shapes == {
        "input": (6, H, W, 3),
        "heatmaps": (6, H, W, 17),
        "offsets": (6, H, W, 17, 2),
        "fused": (6, H, W, 17),
        "points_xy": (6, 17, 2),
        "keypoint_scores": (6, 17),
    }
    assert seen["input"].min() >= 0 and 0.5 < seen["input"].max() <= 1
    np.testing.assert_allclose(
        seen["points_xy"], to_input(poses.points_xy, BOXES), atol=1e-3
    )
    np.testing.assert_array_equal(seen["keypoint_scores"], poses.keypoint_scores)
    np.testing.assert_array_equal(seen["fused"].max((1, 2)), poses.keypoint_scores)
    maps, ways = (jnp.asarray(seen[name]) for name in ("heatmaps", "offsets"))
    fused = offsets.fuse(maps, ways, radius=RADIUS)
    np.testing.assert_allclose(seen["fused"], fused, atol=1e-6)


def test_the_preview_has_discs_where_there_are_labels():
    batch = make_batch(m=2)
    batch.labels.visibility[:] = [0, 1, 2]
    phase = build(max_others=2).phases[0]
    example = jax.jit(phase.prepare)({}, batch, None)
    shown = jax.device_get(phase.preview(example))
    expected, _ = discs(to_input(batch.labels.points_xy, BOXES))
    expected[..., 0] = False
    np.testing.assert_array_equal(shown["targets"], expected)
    np.testing.assert_array_equal(shown["points_xy"], example.points_xy)
    np.testing.assert_array_equal(shown["visibility"], batch.labels.visibility)
    assert shown["input"].shape == (6, H, W, 3)
    assert 0 <= shown["input"].min() < 0.1 < 0.5 < shown["input"].max() <= 1


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"decoder": "hugh"}, r"no decoder 'hugh'.*Did you mean 'hough'\?"),
        (
            {"model": {"name": "pocket"}},
            r"'pocket' gives heatmaps, .*'multipose' needs heatmaps and offsets; take "
            r"another network, or method 'dark'\.",
        ),
        ({"model": {"name": "deeppose"}}, r"gives coordinates, .* method 'deeppose'"),
        ({"model": {"name": "multipose_51"}}, r"'multipose_50'"),
        (
            {"radius": 0.0},
            r"config\.method\.radius must be a positive number; got 0\.0",
        ),
        ({"delta": -1.0}, r"config\.method\.delta must be a positive"),
        ({"padding": 0.0}, r"config\.method\.padding must be a positive"),
        ({"heatmap_weight": -4.0}, r"config\.method\.heatmap_weight .* got -4\.0"),
        ({"offset_weight": -1.0}, r"config\.method\.offset_weight must be 0 or a pos"),
        (
            {"auxiliary_weight": -0.1},
            r"config\.method\.auxiliary_weight must be 0 or a",
        ),
        ({"max_others": -1}, r"config\.method\.max_others must be 0 or a pos"),
        ({"radius": math.inf}, r"config\.method\.radius"),
        ({"delta": math.nan}, r"config\.method\.delta"),
        ({"offset_weight": math.nan}, r"config\.method\.offset_weight"),
        ({"reduction": "summ"}, r"config\.method\.reduction .*Did you mean 'sum'\?"),
        ({"others": "final"}, r"config\.method\.others .*'auxiliary', 'both', 'none'"),
        (
            {"rescoring": "mean"},
            r"config\.method\.rescoring .*'pose', 'box', 'product'",
        ),
        ({"flip_test": "shift"}, r"config\.method\.flip_test .*'none', 'plain'"),
        ({"input_size": (257,)}, r"config\.method\.input_size must have 2 values"),
        ({"radios": 3.0}, r"radius"),
    ],
)
def test_what_cannot_be_is_one_line(changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"input_size": (32, 41)}, r"input_size \(32, 41\).*multiple of 8 plus 1"),
        (
            {"model": {"name": "multipose_18", "options": {"auxiliary_unit": 9}}},
            "1 to 2",
        ),
    ],
)
def test_what_the_network_refuses_is_a_config_error(changes, says):
    method = build(**({"model": {"name": "multipose_pocket"}} | changes))
    with pytest.raises(ConfigError, match=says) as caught:
        jax.eval_shape(method.phases[0].init, jax.random.key(0))
    assert "\n" not in str(caught.value)


def test_dark_refuses_a_network_with_offsets():
    section = {
        "name": "dark",
        "model": {"name": "multipose_18"},
        "input_size": (65, 65),
    }
    with pytest.raises(
        ConfigError, match=r"heatmaps and offsets, .*method 'multipose'"
    ):
        methods.build(section, SET)


# ------------------------------------------------------------------------- all together


def make_config(root, model, **changes):
    return {
        "seed": 3,
        "method": {
            "name": "multipose",
            "model": model,
            "input_size": (65, 81),
            "radius": 6.0,
            "reduction": "pixel",
        },
        "data": {
            "train": {"name": "coco", "root": root, "split": "train2017"},
            "eval": {"name": "coco", "root": root, "split": "val2017"},
        },
        "input": {"batch_size": 4, "canvas_size": (320, 256), "reader": "numpy"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"steps": 3, "log_every_steps": 1},
    } | changes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("people") / "data"
    scenes.write_dataset(root, n=6, val=3, seed=0)  # 12 people.
    return str(root)


@pytest.mark.slow
def test_trained_and_evaluated_with_several_decoders(pictures, tmp_path):
    model = {"name": "multipose_18", "options": {"width": 4}}
    config = make_config(pictures, model)
    s = train.setup(config)
    plan = Plan(s.train_table, s.method.view, s.config.input, training=True)
    others = [b.labels.others_visibility for b in readers.batches(plan, 0, 3)]
    assert others[0].shape == (4, 8, 17)
    assert np.mean([(seen > 0).any((1, 2)) for seen in others]) > 0.3

    metrics = train.train(config, tmp_path / "run", devices=jax.devices()[:1])
    assert metrics["pixel_error@gt_boxes"] > 0 and metrics["AP@gt_boxes"] >= 0
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 3
    for line in steps:
        total = 4 * (line["heatmap"] + line["auxiliary"]) + line["offset"]
        assert line["loss"] == pytest.approx(total, rel=1e-4)
    # The network starts by saying 1/2: ln 2 a pixel, of so many keypoints as labelled.
    assert 0.3 < steps[0]["heatmap"] / math.log(2) / 17 <= 1.05
    for picture in ("inputs_pose", "heatmaps", "predictions"):
        assert (tmp_path / "run/pictures" / f"{picture}.png").exists()

    decoders = ["hough", "argmax_offset"]
    found = evaluate.evaluate_run(tmp_path / "run", decoders=decoders)
    assert list(found) == decoders
    assert found["hough"].metrics == pytest.approx(metrics, nan_ok=True)
    errors = {each.metrics["pixel_error@gt_boxes"] for each in found.values()}
    assert len(errors) == 2 and np.isfinite(list(errors)).all()
    with pytest.raises(ConfigError, match=r"flip_test must be one of 'none', 'plain'"):
        evaluate.evaluate_run(tmp_path / "run", flips=["shift"])


@pytest.mark.slow
def test_a_network_learns_a_few_people_by_heart(pictures, tmp_path):
    """Reading, cropping, discs, offsets, votes and the way back fit together."""
    model = {
        "name": "multipose_pocket",
        "options": {"width": 16, "offset_scale": 6.0},
    }
    config = make_config(
        pictures,
        model,
        input={"batch_size": 12, "canvas_size": (320, 256), "reader": "numpy"},
        optimizer={"name": "adam", "lr": 1e-2, "schedule": "cosine"},
        train={"steps": 300},
    )
    config["method"]["max_others"] = 3  # All that an image has.
    config["data"]["eval"] = config["data"]["train"]
    assert train.train(config, tmp_path / "run")["AP@gt_boxes"] > 0.8
