"""Faster R-CNN's networks: both halves, their shapes, and where their features lie."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models
from pose_jax.errors import ConfigError
from pose_jax.models import faster_rcnn
from pose_jax.models.resnet import ResNet
from pose_jax.trees import flatten
from tests.models.networks import (
    fill,
    random_images,
    random_variables,
    shapes,
    size,
    slow_conv,
)

IMAGES = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)  # not square
SMALL = {  # Small enough to run. **options -> a module.
    "faster_rcnn_18": partial(
        models.build, "faster_rcnn_18", width=4, features=8, head_features=8
    ),
    "faster_rcnn_fpn_18": partial(
        models.build, "faster_rcnn_fpn_18", width=4, features=8, head_features=8
    ),
    "faster_rcnn_pocket": partial(
        models.build,
        "faster_rcnn_pocket",
        width=8,
        features=8,
        head_features=8,
    ),
}
BOXES = jnp.asarray(  # Small, wide, all of the image, partly outside, without extent.
    [
        [[4, 8, 20, 40], [10, 30, 90, 50], [0, 0, 96, 64]],
        [[-9, 20, 30, 80], [50, 10, 50, 10], [3.5, 2.25, 7, 9]],
    ],
    jnp.float32,
)


def cells(model, h, w):
    """Features of all maps."""
    return sum(-(-h // stride) * -(-w // stride) for stride in model.strides)


# ---------------------------------------------------------------------------- what it is

RESNET_50 = 25_557_032 - 2049 * 1000  # torchvision's, without its classifier.
RESNET_101 = 44_549_160 - 2049 * 1000


def by_hand(name, a):
    """Parameters beside the backbone's, layer by layer: weights + biases."""
    rpn = 9 * 256 * 256 + 256 + 257 * 5 * a
    head = (7 * 7 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 5
    if "fpn" not in name:
        return 2049 * 256 + rpn + head
    lateral = (256 + 512 + 1024 + 2048 + 4) * 256
    return lateral + 4 * (9 * 256 * 256 + 256) + rpn + head


@pytest.mark.parametrize(
    "name, a, backbone",
    [
        ("faster_rcnn_101", 12, RESNET_101),
        ("faster_rcnn_fpn_50", 3, RESNET_50),
    ],
)
def test_sizes_are_those_of_torchvision_and_what_is_counted_by_hand(name, a, backbone):
    params = shapes(models.build(name, num_anchors=a))["params"]
    assert size(params["backbone"]) == backbone
    assert size(params) == backbone + by_hand(name, a)


def test_the_pyramid_has_torchvisions_number_of_parameters():
    """Of its fasterrcnn_resnet50_fpn, which tells 91 classes apart with 5 numbers each.

    Its BatchNorm is frozen and not counted there: 53,120 scales and biases.
    """
    ours = size(shapes(models.build("faster_rcnn_fpn_50"))["params"])
    classes = 1025 * (91 + 4 * 91) - 1025 * 5
    assert ours + classes - 53_120 == 41_755_286


def test_the_pocket_has_so_many_parameters_per_part():
    model = models.build("faster_rcnn_pocket", num_anchors=6)
    params = shapes(model)["params"]
    assert size(params["reduce"]) == 97 * model.features
    hidden = 2 * model.width
    assert size(params["rpn"]) == (9 * 96 + 1) * hidden + (hidden + 1) * 30
    w, h = model.crop_size
    n = model.head_features
    assert size(params["box_head"]) == (
        (w * h * model.features + 1) * n + (n + 1) * n + (n + 1) * 5
    )
    assert size(params) < 1_500_000


@pytest.mark.parametrize("name", ["faster_rcnn_50", "faster_rcnn_fpn_50"])
def test_the_backbone_is_that_of_the_other_networks_by_name(name):
    theirs = flatten(shapes(models.build("simple_baseline_50"))["params"]["backbone"])
    ours = flatten(shapes(models.build(name))["params"]["backbone"])
    assert {path: leaf.shape for path, leaf in ours.items()} == {
        path: leaf.shape for path, leaf in theirs.items()
    }


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_both_halves_have_their_shapes_in_float32(name, norm):
    h, w = (96, 32) if norm == "frozen" else (64, 96)
    model = SMALL[name](num_anchors=5, norm=norm, dtype="bfloat16")
    images = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    variables = shapes(model, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("f4")}
    assert ("batch_stats" in variables) == (norm != "group")

    def run(variables, images, boxes):
        features, *first = model.apply(
            variables, images, method="features_and_proposals"
        )
        return (
            features,
            first,
            model.apply(variables, features, boxes, method="classify"),
        )

    features, first, second = jax.eval_shape(run, variables, images, BOXES)
    assert [maps.shape[:3] for maps in features] == [
        (2, -(-h // stride), -(-w // stride)) for stride in model.strides
    ]
    a = 5 * cells(model, h, w)
    assert [output.shape for output in (*first, *second)] == [
        (2, a),
        (2, a, 4),
        (2, 3),
        (2, 3, 4),
    ]
    assert {output.dtype for output in (*first, *second)} == {jnp.dtype("f4")}


def test_numbers_of_keypoints_are_not_asked_for():
    assert models.build("faster_rcnn_pocket", 5) == models.build("faster_rcnn_pocket")
    with pytest.raises(
        ConfigError, match="'faster_rcnn_pocket' has no option 'anchors'"
    ):
        models.build("faster_rcnn_pocket", anchors=3)


@pytest.mark.parametrize(
    "name, h, w, message",
    [
        ("faster_rcnn_18", 60, 64, r"divisible by 8, pixels; got 60 x 64"),
        ("faster_rcnn_fpn_18", 64, 80, r"divisible by 32"),
        ("faster_rcnn_pocket", 64, 72, r"divisible by 16"),
    ],
)
def test_other_sizes_are_refused(name, h, w, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL[name](), jax.ShapeDtypeStruct((1, h, w, 3), "f4"))


# ----------------------------------------------------------------------- what it computes


@pytest.fixture(scope="module", params=SMALL)
def computed(request):
    """A small network's outputs, of two images, and of them exchanged."""
    model = SMALL[request.param](num_anchors=2)
    variables = random_variables(model, IMAGES)

    @jax.jit
    def run(images, boxes):
        features, *first = model.apply(
            variables, images, method="features_and_proposals"
        )
        second = model.apply(variables, features, boxes, method="classify")
        return features, first, second

    images = random_images(IMAGES.shape)
    return {
        "name": request.param,
        "model": model,
        "params": variables["params"],
        "plain": run(images, BOXES),
        "swapped": run(images[::-1], BOXES[::-1]),
    }


def test_images_are_treated_alone(computed):
    _, *plain = computed["plain"]
    _, *swapped = computed["swapped"]
    for one, other in zip(*map(jax.tree.leaves, (plain, swapped)), strict=True):
        assert np.std(one) > 1e-3
        np.testing.assert_allclose(other[::-1], one, atol=1e-4 * np.std(one))


def test_anchors_go_over_maps_rows_columns_and_boxes(computed):
    """By the definition of the proposal network, output after output."""
    features, (objectness, deltas), _ = computed["plain"]
    params = computed["params"]["rpn"]
    found, found_deltas = [], []
    for maps in features:
        x = np.maximum(slow_conv(np.float64(maps), params["conv"]), 0)
        scores, numbers = (slow_conv(x, params[n]) for n in ("objectness", "deltas"))
        for i, j, box in np.ndindex(*scores.shape[1:]):
            found.append(scores[:, i, j, box])
            found_deltas.append(numbers[:, i, j, 4 * box : 4 * box + 4])
    np.testing.assert_allclose(objectness, np.stack(found, 1), atol=1e-4)
    np.testing.assert_allclose(deltas, np.stack(found_deltas, 1), atol=1e-4)


def test_the_head_is_two_layers_over_a_crop(computed):
    features, _, (person, deltas) = computed["plain"]
    model, params = computed["model"], computed["params"]
    bound = model.bind({"params": params})
    crops = np.float64(jax.jit(bound.crop)(features, BOXES))
    w, h = model.crop_size
    assert crops.shape == (2, 3, h, w, 8)

    def dense(x, name):
        return x @ np.float64(params["box_head"][name]["kernel"]) + np.float64(
            params["box_head"][name]["bias"]
        )

    x = crops.reshape(2, 3, -1)
    for name in ("fc6", "fc7"):
        x = np.maximum(dense(x, name), 0)
    np.testing.assert_allclose(person, dense(x, "person")[..., 0], atol=1e-4)
    np.testing.assert_allclose(deltas, dense(x, "deltas"), atol=1e-4)


def test_a_resnet_gives_the_maps_of_all_its_stages():
    images = random_images((1, 64, 96, 3))
    resnet = ResNet(18, width=4)
    variables = random_variables(resnet, images)
    expected = jax.jit(resnet.apply)(variables, images)
    maps = jax.jit(partial(resnet.apply, all_stages=True))(variables, images)
    np.testing.assert_allclose(maps[-1], expected, atol=1e-5)
    assert [m.shape for m in maps] == [
        (1, 64 // stride, 96 // stride, 4 * 2**i)
        for i, stride in enumerate((4, 8, 16, 32))
    ]


def test_the_pyramid_adds_what_is_above():
    """By its definition, in loops."""
    random = np.random.default_rng(0)
    maps = [
        np.float32(random.normal(size=(1, 2 * n, 3 * n, c)))
        for n, c in ((8, 2), (4, 3), (2, 4), (1, 5))
    ]
    pyramid = faster_rcnn.Pyramid(6, jnp.float32)
    variables = fill(jax.eval_shape(pyramid.init, jax.random.key(0), maps))
    found = jax.jit(pyramid.apply)(variables, maps)
    params, above, expected = variables["params"], None, []
    for i in (3, 2, 1, 0):
        x = slow_conv(np.float64(maps[i]), params[f"lateral{i + 2}"])
        if above is not None:
            for y, z in np.ndindex(*x.shape[1:3]):
                x[:, y, z] += above[:, y // 2, z // 2]
        above = x
        expected.insert(0, slow_conv(x, params[f"output{i + 2}"]))
    for one, other in zip(found, [*expected, expected[-1][:, ::2, ::2]], strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_box_is_cut_from_the_map_of_its_size():
    """4 + log2(sqrt(w h) / 224), rounded down, and no finer or coarser than there is."""
    model = SMALL["faster_rcnn_fpn_18"]()
    features = [
        jnp.full((1, 1024 // stride, 1024 // stride, 2), i + 2.0)
        for i, stride in enumerate(model.strides)
    ]
    sides = {  # (w, h): level; each on either side of where it changes.
        (20, 20): 2,
        (111, 111): 2,
        (113, 113): 3,
        (223, 223): 3,
        (224, 224): 4,
        (112, 448): 4,
        (447, 447): 4,
        (500, 449): 5,
        (1000, 1000): 5,
        (0, 0): 2,
    }
    boxes = jnp.asarray([[(3, 5, 3 + w, 5 + h) for w, h in sides]], jnp.float32)
    crops = model.bind({}).crop(features, boxes)
    np.testing.assert_allclose(
        crops.mean((2, 3, 4))[0], list(sides.values()), rtol=1e-6
    )


@pytest.mark.parametrize("name", SMALL)
def test_crops_show_the_place_that_boxes_say(name):
    """Maps that say where they are; boxes begin at edges, half a pixel before middles."""
    model = SMALL[name]()
    maps = []
    for stride in model.strides:
        y, x = np.mgrid[: 256 // stride, : 320 // stride]
        middle = stride * np.stack([x, y], -1) + model.offset + 0.5
        maps.append(jnp.asarray(middle[None], jnp.float32))
    crop = model._crops(maps[0], jnp.asarray([[[40.0, 60, 96, 144]]]), model.strides[0])
    w, h = model.crop_size
    expected = np.stack(
        np.meshgrid(
            40 + 56 * (np.arange(w) + 0.5) / w, 60 + 84 * (np.arange(h) + 0.5) / h
        ),
        -1,
    )
    np.testing.assert_allclose(crop[0, 0], expected, rtol=1e-5)


# ------------------------------------------------------------------------------- training


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name.endswith("pocket") else pytest.mark.slow)
        for name in SMALL
    ],
)
def trained(request):
    """Gradients and statistics of both halves, with remat where there is some."""
    options = {} if request.param.endswith("pocket") else {"remat": True}
    model = SMALL[request.param](num_anchors=2, **options)
    variables = random_variables(model, IMAGES)

    def loss(params, images):
        variables_ = {**variables, "params": params}
        (features, *first), changed = model.apply(
            variables_,
            images,
            train=True,
            method="features_and_proposals",
            mutable=["batch_stats"],
        )
        second = model.apply(variables_, features, BOXES, train=True, method="classify")
        values = [jnp.mean(jnp.sin(output)) for output in (*first, *second)]
        return sum(values), changed["batch_stats"]

    grads, after = jax.jit(jax.grad(loss, has_aux=True))(
        variables["params"], random_images(IMAGES.shape)
    )
    return variables["batch_stats"], after, grads


def test_every_parameter_learns(trained):
    _, _, grads = trained
    for path, leaf in flatten(jax.device_get(grads)).items():
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf) or path[-1] != "kernel", path


def test_training_updates_every_statistic(trained):
    before, after, _ = trained
    before, after = (flatten(jax.device_get(tree)) for tree in (before, after))
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf != before[path]), path


def test_outputs_start_near_one_half_and_at_the_anchors():
    model = SMALL["faster_rcnn_pocket"](num_anchors=4)

    @jax.jit
    def heads(key):  # Them alone: sampling it all would compile long.
        params = model.init(key, jnp.zeros((1, 32, 32, 3)), train=True)["params"]
        return {part: params[part] for part in ("rpn", "box_head")}

    params = heads(jax.random.key(0))
    for part, name, deviation in [
        ("rpn", "objectness", 0.01),
        ("rpn", "deltas", 0.01),
        ("box_head", "person", 0.01),
        ("box_head", "deltas", 0.001),
    ]:
        head = params[part][name]
        assert not np.any(head["bias"])
        assert float(jnp.std(head["kernel"])) == pytest.approx(deviation, rel=0.5)
