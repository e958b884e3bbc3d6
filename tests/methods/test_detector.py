"""The detector as a method: what it sees, learns from, and finds in the image frame."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import keypoints, methods, metrics
from pose_jax.data import coco, readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.synthetic import scenes
from pose_jax.errors import ConfigError
from pose_jax.methods import image_input
from pose_jax.models import faster_rcnn, layers
from pose_jax.training import optim
from pose_jax.types import Batch, ImageLabels, Inputs
from tests.made_up import register_network

W, H = 64, 48  # Of the input and the canvas: not square, so that swapped axes fail.
STRIDE = 8
SCALES, ASPECTS = (12.0, 24.0), (1.0, 2.0)
ANCHORS = W * H // STRIDE**2 * 4


class Told(nn.Module):
    """Says of anchors what its parameters say, and of boxes what is linear in them."""

    num_anchors: int = 4
    norm: str = "batch"
    dtype: str = "float32"

    strides = (STRIDE,)
    offset = 0.0
    divisor = 8

    def setup(self):
        zeros = nn.initializers.zeros
        self.objectness = self.param("objectness", zeros, (ANCHORS,))
        self.deltas = self.param("deltas", zeros, (ANCHORS, 4))
        self.person = self.param("person", zeros, (4,))
        self.box = self.param("box", zeros, (4, 4))

    def __call__(self, images, train=False):
        return self.features_and_proposals(images, train)

    def features_and_proposals(self, images, train=False):
        b = len(images)
        objectness = jnp.broadcast_to(self.objectness, (b, ANCHORS))
        deltas = jnp.broadcast_to(self.deltas, (b, ANCHORS, 4))
        return (images,), objectness, deltas

    def classify(self, features, boxes_xyxy, train=False):
        place = boxes_xyxy / 32 - 1
        return place @ self.person, place @ self.box


class Trunk(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, images, train):
        x = layers.Conv(4, 3, stride=STRIDE)(images)
        return layers.Norm(self.norm, train)(x)


class Small(faster_rcnn._Detector):
    """One convolution: the smallest network that learns."""

    num_anchors: int = 4
    norm: str = "batch"
    dtype: str = "float32"

    strides = (STRIDE,)
    offset = 0.0
    divisor = 8
    crop_size = (2, 3)

    def setup(self):
        self.trunk = Trunk(self.norm)
        self.rpn = faster_rcnn.Proposer(4, self.num_anchors, self.dtype)
        self.box_head = faster_rcnn.BoxHead(4, self.dtype)

    def extract(self, images, train):
        return (self.trunk(images, train),)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for name, network in {"small": Small, "told": Told}.items():
        register_network(monkeypatch, f"faster_rcnn_{name}", network, outputs="boxes")


def build(**changes):
    section = {
        "name": "detector",
        "model": {"name": "faster_rcnn_told"},
        "size": (H, W),
        "buckets": ((W, H),),
        "max_people": 4,
        "anchor_scales": (SCALES,),
        "anchor_aspects": ASPECTS,
        "augment": {},
    }
    return methods.build(section | changes, None)


# Everything that is not ignored is drawn, so that there is no chance in a loss.
ALL = {
    "rpn_positive": 0.5,
    "rpn_negative": 0.3,
    "rpn_samples": 2 * ANCHORS,
    "rpn_share": 1.0,
    "pre_nms": 80,
    "post_nms": 30,
    "rpn_nms": 0.6,
    "box_samples": 200,
    "box_share": 1.0,
    "rpn_beta": 0.2,
    "box_beta": 0.7,
}
SOME = ALL | {
    "rpn_samples": 20,
    "rpn_share": 0.25,
    "box_samples": 12,
    "box_share": 0.25,
}


def make_batch(people, kinds=None, *, b=3, size=(W, H), image_size=None, seed=0):
    """Noise, with people at [n, 4] of each image; rows without a list are padding."""
    b = max(b, len(people))
    rng = np.random.default_rng(seed)
    people_xyxy = np.zeros((b, 4, 4), np.float32)
    people_kind = np.zeros((b, 4), np.int32)
    for i, boxes in enumerate(people):
        people_xyxy[i, : len(boxes)] = np.reshape(boxes, (-1, 4))
        people_kind[i, : len(boxes)] = 1 if kinds is None else kinds[i]
    image_size = size if image_size is None else image_size
    inputs = Inputs(
        images=rng.integers(0, 255, (b, size[1], size[0], 3), np.uint8),
        canvas_to_image=np.tile(np.eye(2, 3, dtype=np.float32), (b, 1, 1)),
        box_xyxy=np.tile(np.float32([0, 0, *image_size]), (b, 1)),
        box_score=np.ones(b, np.float32),
        valid=np.arange(b) < len(people),
        row=np.arange(b, dtype=np.int32),
    )
    labels = ImageLabels(
        people_xyxy=people_xyxy,
        people_kind=people_kind,
    )
    return Batch(inputs, labels, np.int32(0))


def replace(batch, **columns):
    """Some columns of the inputs or the labels."""
    own = {f.name for f in dataclasses.fields(Inputs)}
    inputs = {name: value for name, value in columns.items() if name in own}
    labels = {name: value for name, value in columns.items() if name not in own}
    return dataclasses.replace(
        batch,
        inputs=dataclasses.replace(batch.inputs, **inputs),
        labels=dataclasses.replace(batch.labels, **labels),
    )


def told(seed=0, **changes):
    """Parameters of `Told` that say something of everything."""
    rng = np.random.default_rng(seed)
    params = {
        "objectness": rng.normal(0, 1, ANCHORS),
        "deltas": rng.normal(0, 0.2, (ANCHORS, 4)),
        "person": rng.normal(0, 1, 4),
        "box": rng.normal(0, 0.5, (4, 4)),
    }
    return {k: jnp.asarray(v, jnp.float32) for k, v in (params | changes).items()}


@functools.cache
def compiled(options):
    """The loss of `Told` with these options, its gradient and what it logs."""
    phase = build(**dict(options)).phases[0]
    state = {"batch_stats": {}}

    def run(params, batch, key):
        return phase.loss(params, state, phase.prepare({}, batch, None), key)

    return jax.jit(jax.value_and_grad(run, has_aux=True))


def loss_of(options, params, batch, key=7):
    """The loss, its gradient, and what is logged (sum and count)."""
    (total, (_, logged)), grads = compiled(tuple(options.items()))(
        params, batch, jax.random.key(key)
    )
    logged = {k: (float(m.total), float(m.weight)) for k, m in logged.items()}
    return float(total), grads, logged


# ------------------------------------------------------------------- the loss, in loops


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


def slow_anchors():
    """Middles of features are middles of pixels: half a pixel from edges."""
    found = []
    for y in range(H // STRIDE):
        for x in range(W // STRIDE):
            for scale in SCALES:
                for aspect in ASPECTS:
                    w, h = scale / math.sqrt(aspect), scale * math.sqrt(aspect)
                    cx, cy = STRIDE * x + 0.5, STRIDE * y + 0.5
                    found.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    return np.array(found)


def slow_decode(deltas, box, scale):
    w, h = box[2] - box[0], box[3] - box[1]
    tx, ty, tw, th = np.float64(deltas) / scale
    cx, cy = box[0] + w / 2 + tx * w, box[1] + h / 2 + ty * h
    w, h = w * math.exp(tw), h * math.exp(th)
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def slow_encode(box, start, scale):
    w, h = start[2] - start[0], start[3] - start[1]
    moved = (box[:2] + box[2:] - start[:2] - start[2:]) / 2 / [w, h]
    grown = np.log([(box[2] - box[0]) / w, (box[3] - box[1]) / h])
    return np.concatenate([moved, grown]) * scale


def slow_clip(box):
    return np.clip(box, 0, [W, H, W, H])


def slow_nms(boxes, scores, threshold):
    kept = []
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(int(i))
    return kept


def slow_terms(logit, deltas, start, person, scale, beta):
    """The logistic loss, and smooth L1 of the four numbers, of one box."""
    logistic = math.log1p(math.exp(-logit if person is not None else logit))
    if person is None:
        return logistic, 0.0
    error = np.abs(np.float64(deltas) - slow_encode(person, start, scale))
    return logistic, sum(e * e / 2 / beta if e < beta else e - beta / 2 for e in error)


def slow_match(candidates, people, positive, negative, force=False):
    """For each: a person's box, None for background, or "ignored"."""
    overlaps = np.array([[iou(c, p) for p in people] for c in candidates])
    found = []
    for row in overlaps:
        best = row.max()
        if best >= positive:
            found.append(people[row.argmax()])
        else:
            found.append(None if best < negative else "ignored")
    for j in range(len(people)) if force else ():
        best = overlaps[:, j].max()
        for i in np.flatnonzero(overlaps[:, j] >= best * (1 - 1e-5)):
            found[i] = people[j]
    return found


PEOPLE = np.array([[4, 3, 18, 30], [20.5, 10, 40, 47]])


def test_the_loss_is_the_definition_in_loops():
    """Of one image, beside which there are rows of padding, whatever they hold."""
    params = told()
    batch = make_batch([PEOPLE, PEOPLE[:1], []])
    batch = replace(batch, valid=np.array([True, False, False]))
    total, _, logged = loss_of(ALL, params, batch)
    p = {name: np.float64(value) for name, value in params.items()}

    anchors = slow_anchors()
    sums, counts = dict.fromkeys(("objectness", "proposal", "person", "box"), 0.0), {}
    matched = slow_match(anchors, PEOPLE, 0.5, 0.3, force=True)
    counted = 0
    for i, person in enumerate(matched):
        if isinstance(person, str):
            continue
        counted += 1
        terms = slow_terms(
            p["objectness"][i], p["deltas"][i], anchors[i], person, np.ones(4), 0.2
        )
        sums["objectness"] += terms[0]
        sums["proposal"] += terms[1]
    counts["objectness"] = counts["proposal"] = counted

    best = np.argsort(-p["objectness"], kind="stable")[:80]
    boxes = [
        slow_clip(slow_decode(p["deltas"][i], anchors[i], np.ones(4))) for i in best
    ]
    inside = [j for j, box in enumerate(boxes) if min(box[2:] - box[:2]) >= 1]
    boxes, scores = [boxes[j] for j in inside], p["objectness"][best][inside]
    proposals = [boxes[j] for j in slow_nms(boxes, scores, 0.6)[:30]]
    candidates = [*proposals, *PEOPLE]
    assert len(proposals) == 30
    counted = 0
    scale = np.array([10, 10, 5, 5])
    for box, person in zip(
        candidates, slow_match(candidates, PEOPLE, 0.5, 0.5), strict=True
    ):
        counted += 1
        place = box / 32 - 1
        terms = slow_terms(
            place @ p["person"], place @ p["box"], box, person, scale, 0.7
        )
        sums["person"] += terms[0]
        sums["box"] += terms[1]
    counts["person"] = counts["box"] = counted

    for name, expected in sums.items():
        assert logged[name][1] == counts[name], name
        assert expected > 1
        assert logged[name][0] == pytest.approx(expected, rel=1e-4), name
    mean = sum(sums[name] / counts[name] for name in sums)
    assert total == pytest.approx(mean, rel=1e-4)
    assert logged["loss"] == pytest.approx((mean, 1.0), rel=1e-4)


def test_as_many_are_drawn_as_asked_for_and_no_more_people_than_their_share():
    """With losses that tell people from background: logits of -20 cost 20 a person."""
    flat = told(
        objectness=np.full(ANCHORS, -20.0),
        deltas=np.zeros((ANCHORS, 4)),
        person=np.zeros(4),
    )
    _, _, logged = loss_of(SOME, flat, make_batch([PEOPLE, PEOPLE]))
    assert logged["objectness"][1] == logged["proposal"][1] == 2 * 20
    assert logged["person"][1] == logged["box"][1] == 2 * 12
    positives = sum(
        isinstance(p, np.ndarray)
        for p in slow_match(slow_anchors(), PEOPLE, 0.5, 0.3, force=True)
    )
    assert positives > 5  # More than there is room for.
    assert logged["objectness"][0] == pytest.approx(2 * 5 * 20, rel=1e-4)


def test_other_keys_draw_others_and_rows_draw_their_own():
    batch = make_batch([PEOPLE, PEOPLE, PEOPLE])
    one, _, logged = loss_of(SOME, told(), batch, key=1)
    other, *_ = loss_of(SOME, told(), batch, key=2)
    assert abs(one - other) > 1e-3
    # In whatever order and company: the sums are those of the rows.
    names = ("objectness", "proposal", "person", "box")
    sums = []
    for i in range(3):
        moved = jax.tree.map(lambda x, i=i: np.roll(x, i, 0) if x.ndim else x, batch)
        alone = replace(moved, valid=np.arange(3) == 1)
        found = loss_of(SOME, told(), alone, key=1)[2]
        sums.append([found[name][0] for name in names])
    # One image three times: what differs is what was drawn. Its people always are.
    assert np.std(sums, axis=0)[:3].min() > 1e-3
    np.testing.assert_allclose(
        np.sum(sums, axis=0), [logged[name][0] for name in names], rtol=1e-5
    )


def test_what_lies_in_a_crowd_is_no_background():
    """A logit there changes nothing, with the crowd; without it, it does."""
    crowd = [34, 4, 64, 44]
    people = [[PEOPLE[0], crowd]]
    anchors = slow_anchors()
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    there = np.abs(middle - [48.5, 24.5]).max(1) < 1
    inside = there & (anchors[:, 2] - anchors[:, 0] < 28)
    assert inside.any()
    plain = told(deltas=np.zeros((ANCHORS, 4)), person=[0.0, 0, 0, 0])
    objectness = np.where(inside, 9.0, plain["objectness"])
    other = {**plain, "objectness": jnp.asarray(objectness, jnp.float32)}
    batches = {kind: make_batch(people, [[1, kind]]) for kind in (0, 2)}
    sums = {
        kind: [loss_of(ALL, p, batch)[2]["objectness"] for p in (plain, other)]
        for kind, batch in batches.items()
    }
    assert sums[2][0] == pytest.approx(sums[2][1], rel=1e-6)
    assert sums[0][1][0] > sums[0][0][0] + 5
    # Fewer boxes and anchors count, and the crowd is no person either.
    counts = {
        kind: loss_of(ALL, plain, batch)[2]["person"][1]
        for kind, batch in batches.items()
    }
    assert counts[2] < counts[0]


def test_padding_alone_costs_and_teaches_nothing():
    batch = make_batch([PEOPLE, PEOPLE, PEOPLE])
    nothing = replace(batch, valid=np.zeros(3, bool))
    total, grads, logged = loss_of(ALL, told(), nothing)
    assert total == 0 and all(v == (0, 0) for v in logged.values())
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_without_people_gradients_are_finite_and_boxes_learn_nothing():
    total, grads, logged = loss_of(ALL, told(), make_batch([[], []]))
    assert 0 < total < math.inf
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    assert not np.any(grads["deltas"]) and not np.any(grads["box"])
    assert np.any(grads["objectness"]) and np.any(grads["person"])
    assert logged["proposal"][0] == logged["box"][0] == 0


def test_gradients_stop_at_proposals():
    """What the head learns does not move the boxes that it looks at."""
    phase = build(**ALL).phases[0]

    def second_half(params, batch):
        example = phase.prepare({}, batch, None)
        state = {"batch_stats": {}}
        _, (_, logged) = phase.loss(params, state, example, jax.random.key(0))
        return logged["person"].total + logged["box"].total

    grads = jax.jit(jax.grad(second_half))(told(), make_batch([PEOPLE]))
    assert not np.any(grads["objectness"]) and not np.any(grads["deltas"])
    assert np.any(grads["person"]) and np.any(grads["box"])


# ----------------------------------------------------------------------- what is seen


def painted(boxes, size=(W, H)):
    """Black canvases with one white rectangle of whole pixels each."""
    images = np.zeros((len(boxes), size[1], size[0], 3), np.uint8)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[y0:y1, x0:x1] = 255
    return images


def seen_box(image):
    """Where brightness passes 1/2; pixel 0 has its middle half a pixel from its edge."""
    found = []
    for axis in (0, 1):
        profile = np.pad(image.max(-1).max(axis), 1)
        (bright,) = np.nonzero(profile >= 0.5)
        low, high = bright[0], bright[-1]
        rise = (profile[low] - 0.5) / (profile[low] - profile[low - 1])
        fall = (profile[high] - 0.5) / (profile[high] - profile[high + 1])
        found.append((low - rise - 0.5, high + fall - 0.5))
    (x0, x1), (y0, y1) = found
    return np.array([x0, y0, x1, y1])


RECTANGLES = [(8, 6, 24, 40), (30, 10, 50, 30), (0, 0, 20, 16), (40, 20, 64, 48)]


@pytest.mark.parametrize(
    "options, size",
    [
        ({}, (H, W)),
        ({}, (96, 128)),
        ({"flip": 1.0}, (H, W)),
        ({"scale": 0.3, "scale_law": "uniform"}, (H, W)),
        ({"scale": 0.3, "translation": 1.0, "flip": 0.5}, (96, 128)),
    ],
    ids=["plain", "doubled", "flip", "scale", "all"],
)
def test_boxes_move_with_the_pixels(options, size):
    boxes = RECTANGLES * 4
    batch = make_batch([[box] for box in boxes])
    batch = replace(batch, images=painted(boxes))
    phase = build(augment={"flip": 0.0, **options}, size=size).phases[0]
    prepare = jax.jit(phase.prepare)
    example = jax.device_get(prepare({}, batch, jax.random.key(3)))
    shown = jax.device_get(phase.preview(example))
    assert shown["input"].shape == (16, size[0], size[1], 3)
    compared = 0
    for i, image in enumerate(shown["input"]):
        if shown["kind"][i, 0] != 1:
            continue
        compared += 1
        np.testing.assert_allclose(seen_box(image), shown["boxes_xyxy"][i, 0], atol=0.4)
    assert compared >= 10
    factor = size[0] / H
    moved = np.abs(shown["boxes_xyxy"][:, 0] - factor * np.float32(boxes)).max()
    assert (moved < 1e-3) == (options == {})
    # In another order the same rows are seen the same way.
    turned = jax.tree.map(lambda leaf: leaf[::-1] if np.ndim(leaf) else leaf, batch)
    again = jax.device_get(prepare({}, turned, jax.random.key(3)))
    np.testing.assert_allclose(again.people_xyxy, example.people_xyxy[::-1])


def test_people_who_are_cut_off_are_not_to_be_found():
    """Views at up to twice the size, which show parts of people or none."""
    batch = make_batch([RECTANGLES] * 32)
    options = {"scale": 0.5, "scale_law": "uniform", "translation": 1.0}
    phase = build(augment=options).phases[0]
    example = jax.device_get(jax.jit(phase.prepare)({}, batch, jax.random.key(0)))
    box, kind = example.people_xyxy, example.people_kind
    assert (box >= 0).all() and (box <= np.float32([W, H, W, H])).all()
    assert set(np.unique(kind)) == {0, 1, 2}
    sides = box[..., 2:] - box[..., :2]
    assert (sides[kind == 1] > 2).all() and (sides[kind == 0].min(-1) <= 0).all()


@pytest.mark.parametrize(
    "size, canvas, expected",
    [
        ((800, 1200), (640, 480), (1072, 800)),
        ((800, 1200), (640, 640), (800, 800)),
        ((600, 900), (480, 640), (600, 800)),
        ((128, 160), (320, 256), (160, 128)),
        ((100, 300), (200, 20), (304, 32)),
    ],
)
def test_a_bucket_has_one_size_of_input(size, canvas, expected):
    assert image_input.input_size(size, canvas, 16 if size[0] % 3 else 8) == expected


def test_images_are_resized_to_fit_and_no_larger_than_the_bucket():
    """(image, canvas) to the factor: short / min, long / max, and the room there is."""
    cases = [
        ((64, 48), 1.0),  # The bucket itself.
        ((32, 24), 2.0),  # Both sides fit.
        ((60, 20), 64 / 60),  # The long side first.
        ((16, 40), 48 / 40),  # Upright in a wide bucket.
        ((128, 90), 0.5),  # Its canvas is reduced by 2.
    ]
    batch = make_batch([[(0, 0, *image)] for image, _ in cases])
    whole = np.float32([(0, 0, *image) for image, _ in cases])
    phase = build().phases[0]
    example = jax.jit(phase.prepare)({}, replace(batch, box_xyxy=whole), None)
    for i, (image, factor) in enumerate(cases):
        expected = np.float32([0, 0, *image]) * factor
        np.testing.assert_allclose(example.people_xyxy[i, 0], expected, rtol=1e-5)
        np.testing.assert_allclose(example.region_xyxy[i], expected, rtol=1e-5)


def test_one_trace_serves_all_batches_of_a_bucket():
    method = build(model={"name": "faster_rcnn_small"})
    phase = method.phases[0]
    variables = jax.jit(phase.init)(jax.random.key(0))
    traces = []

    @jax.jit
    def step(params, batch, key):
        traces.append("loss")
        state = {"batch_stats": variables["batch_stats"]}
        example = phase.prepare({}, batch, key)
        return phase.loss(params, state, example, jax.random.fold_in(key, 1))[0]

    @jax.jit
    def predict(batch):
        traces.append("predict")
        return method.predict({"detector": variables}, batch.inputs)

    batches = [make_batch([PEOPLE, []], seed=0), make_batch([[], PEOPLE[:1]], seed=1)]
    found = [
        (step(variables["params"], batch, jax.random.key(0)), predict(batch))
        for batch in batches
    ]
    assert traces == ["loss", "predict"]
    assert found[0][0] != found[1][0]
    predict(make_batch([PEOPLE, []], size=(48, 64)))
    assert traces == ["loss", "predict", "predict"]


@pytest.mark.parametrize(
    "norm", ["frozen", pytest.param("group", marks=pytest.mark.slow), "batch"]
)
def test_only_batch_norm_has_new_statistics(norm):
    method = build(model={"name": "faster_rcnn_small", "norm": norm})
    variables = jax.jit(method.phases[0].init)(jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}
    before = jax.device_get(variables["batch_stats"])
    phase = method.phases[0]

    @jax.jit
    def run(params, batch, key):
        state = {"batch_stats": before}
        example = phase.prepare({}, batch, None)
        return jax.grad(phase.loss, has_aux=True)(params, state, example, key)

    grads, (new, _) = run(
        variables["params"], make_batch([PEOPLE, []]), jax.random.key(0)
    )
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    after = jax.device_get(new["batch_stats"])
    assert jax.tree.structure(after) == jax.tree.structure(before)
    changed = [
        bool(np.any(a != b))
        for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    ]
    assert (norm == "batch") == any(changed)
    assert (norm == "group") == (not changed)


# -------------------------------------------------------------------- what is found


def found_in(method, params, batch, what="predict"):
    variables = {"detector": {"params": params, "batch_stats": {}}}
    run = jax.jit(lambda v, i: getattr(method, what)(v, i))
    return jax.device_get(run(variables, batch.inputs))


def test_predictions_are_the_definition_in_loops():
    """Anchors, proposals, the head's boxes, suppression; twice as large in the image."""
    options = {
        "test_pre_nms": 60,
        "test_post_nms": 25,
        "rpn_nms": 0.5,
        "box_nms": 0.4,
        "score_threshold": 0.5,
        "slots": 30,
    }
    method, params = build(**options), told(1)
    batch = make_batch([[]], b=1)
    batch = replace(
        batch,
        box_xyxy=np.float32([[0, 0, 2 * W, 2 * H]]),
        canvas_to_image=np.float32([[[2, 0, 0.5], [0, 2, 0.5]]]),
    )
    boxes = found_in(method, params, batch)
    p, anchors = {k: np.float64(v) for k, v in params.items()}, slow_anchors()
    best = np.argsort(-p["objectness"], kind="stable")[:60]
    first = [slow_clip(slow_decode(p["deltas"][i], anchors[i], 1)) for i in best]
    inside = [j for j, box in enumerate(first) if min(box[2:] - box[:2]) >= 1]
    first, scores = [first[j] for j in inside], p["objectness"][best][inside]
    proposals = [first[j] for j in slow_nms(first, scores, 0.5)[:25]]
    found = []
    for box in proposals:
        place = box / 32 - 1
        score = 1 / (1 + math.exp(-place @ p["person"]))
        box = slow_clip(slow_decode(place @ p["box"], box, [10, 10, 5, 5]))
        if score >= 0.5 and min(box[2:] - box[:2]) > 0:
            found.append((score, box))
    kept = slow_nms([box for _, box in found], [s for s, _ in found], 0.4)
    assert 3 < len(kept) < len(found) < len(proposals)
    n = len(kept)
    assert boxes.valid[0].tolist() == [True] * n + [False] * (30 - n)
    np.testing.assert_allclose(
        boxes.scores[0, :n], [found[j][0] for j in kept], rtol=1e-4
    )
    np.testing.assert_allclose(
        boxes.boxes_xyxy[0, :n], [2 * found[j][1] for j in kept], atol=2e-3
    )
    assert not boxes.scores[0, n:].any() and not boxes.boxes_xyxy[0, n:].any()

    seen = found_in(method, params, batch, "inspect")
    np.testing.assert_array_equal(seen["boxes_xyxy"], boxes.boxes_xyxy)
    np.testing.assert_allclose(
        seen["proposals_xyxy"][0][seen["proposal_valid"][0]],
        2 * np.array(proposals),
        atol=2e-3,
    )
    assert seen["input"].shape == (1, H, W, 3) and 0 <= seen["input"].min()
    assert 0.5 < seen["input"].max() <= 1


def test_boxes_are_sorted_in_the_image_and_padded_rows_have_none():
    method = build(slots=5, score_threshold=0.0)
    batch = make_batch([[]] * 3, image_size=(50, 40))
    batch = replace(batch, valid=np.array([True, False, True]))
    boxes = found_in(method, told(2), batch)
    assert boxes.boxes_xyxy.shape == (3, 5, 4) and boxes.scores.shape == (3, 5)
    assert boxes.valid.any(1).tolist() == [True, False, True]
    assert (np.diff(boxes.scores, axis=1) <= 0).all()
    assert (boxes.boxes_xyxy >= 0).all()
    assert (boxes.boxes_xyxy <= np.float32([50, 40, 50, 40])).all()
    np.testing.assert_array_equal(boxes.row, [0, 1, 2])


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "changes, says",
    [
        (
            {"model": {"name": "pocket"}},
            r"'pocket' gives heatmaps, .*'detector' needs boxes; take another network, or "
            r"method 'dark'\.",
        ),
        ({"model": {"name": "faster_rcnn_51"}}, r"'faster_rcnn_50'|'faster_rcnn_101'"),
        (
            {"model": {"name": "faster_rcnn_told", "options": {"num_anchors": 3}}},
            r"num_anchors follows from anchor_scales",
        ),
        (
            {"anchor_scales": ((8.0,), (16.0,))},
            r"anchor_scales must have 1 tuples, .* of strides 8; got 2",
        ),
        ({"anchor_scales": ()}, r"anchor_scales must be tuples of positive"),
        ({"anchor_scales": ((-8.0,),)}, r"anchor_scales must be tuples of positive"),
        ({"anchor_aspects": ()}, r"anchor_aspects must be one or more positive"),
        ({"rpn_positive": 0.2}, r"rpn_negative must be at most rpn_positive, 0\.2"),
        ({"rpn_nms": 1.5}, r"rpn_nms must be in \[0, 1\]; got 1\.5"),
        ({"box_positive": 0.0}, r"box_positive must be in \(0, 1\]"),
        ({"rpn_beta": 0.0}, r"rpn_beta must be a positive number"),
        ({"slots": 0}, r"slots must be at least 1; got 0"),
        ({"size": (64, 48)}, r"size must be \(short, long\), pixels; got \(64, 48\)"),
        ({"buckets": ()}, r"buckets must be one or more"),
        (
            {"augment": {"rotation": 10.0}},
            r"augment\.rotation is not supported for detectors",
        ),
        (
            {"augment": {"half_body": 0.3}},
            r"augment\.half_body is not supported for detectors",
        ),
        ({"augment": {"scale": 1.0}}, r"augment\.scale must be in \[0, 1\); got 1\.0"),
        ({"radius": 3.0}, r"radius"),
    ],
)
def test_what_cannot_be_is_one_line(changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


def test_there_are_no_decoders():
    section = {"name": "detector", "model": {"name": "faster_rcnn_told"}}
    with pytest.raises(ConfigError, match=r"has no decoders; got 'argmax'"):
        methods.parse(section, decoder="argmax")


@pytest.mark.parametrize(
    "section",
    [
        {"name": "dark", "input_size": (64, 64)},
        {"name": "multipose", "input_size": (65, 65)},
        {"name": "deeppose", "input_size": (64, 64)},
    ],
)
def test_the_other_methods_refuse_a_detectors_network(section):
    section = {**section, "model": {"name": "faster_rcnn_pocket"}}
    with pytest.raises(ConfigError, match=r"'faster_rcnn_pocket' gives .*'detector'"):
        methods.build(section, keypoints.COCO)


# ------------------------------------------------------------------------- all together


@pytest.mark.slow
def test_a_network_learns_a_few_pictures_by_heart(tmp_path):
    """Reading, resizing, matching, both losses and the way back fit together."""
    scenes.write_dataset(tmp_path, n=8, val=1, seed=0, difficulty="crowd")
    table = coco.load(tmp_path)
    method = build(
        model={"name": "faster_rcnn_pocket", "options": {"width": 16}},
        size=(128, 160),
        buckets=((320, 256),),
        anchor_scales=((40.0, 64.0),),
        anchor_aspects=(1.4, 2.0, 2.8),
        rpn_samples=64,
        pre_nms=100,
        post_nms=40,
        box_samples=32,
        augment={"flip": 0.5},
    )
    phase = method.phases[0]
    config = InputConfig(batch_size=8, reader="numpy", cache_mb=64)
    plan = Plan(table, method.view, config, training=True)
    variables = jax.jit(phase.init)(jax.random.key(0))
    tx, _ = optim.make_optimizer(
        optim.OptimizerConfig(lr=3e-3, schedule="cosine"), 150, variables["params"]
    )

    @jax.jit
    def step(params, batch_stats, opt_state, batch, key):
        example = phase.prepare({}, batch, jax.random.fold_in(key, 0))
        state = {"batch_stats": batch_stats}
        grads, (state, _) = jax.grad(phase.loss, has_aux=True)(
            params, state, example, jax.random.fold_in(key, 1)
        )
        params, opt_state = optim.apply(tx, grads, opt_state, params)
        return params, state["batch_stats"], opt_state

    state = variables["params"], variables["batch_stats"], tx.init(variables["params"])
    for i, batch in enumerate(readers.batches(plan, 0, 150)):
        state = step(*state, batch, jax.random.fold_in(jax.random.key(1), i))
    variables = {"detector": {"params": state[0], "batch_stats": state[1]}}
    plan = Plan(table, method.view, config, training=False)
    (batch,) = readers.batches(plan)
    boxes = jax.device_get(jax.jit(method.predict)(variables, batch.inputs))
    results = [
        {
            "image_id": int(table.image_ids[row]),
            "category_id": 1,
            "bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])],
            "score": float(score),
        }
        for i, row in enumerate(boxes.row)
        for box, score, valid in zip(
            boxes.boxes_xyxy[i], boxes.scores[i], boxes.valid[i], strict=True
        )
        if valid
    ]
    truth = tmp_path / "annotations/person_keypoints_train2017.json"
    assert metrics.coco_box_ap(str(truth), results)["AP50"] > 0.9
