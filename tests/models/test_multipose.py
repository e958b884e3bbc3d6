"""MultiPose: atrous ResNets, aligned interpolation, and the networks made of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models, weights
from pose_jax.models import cost, ops
from pose_jax.models.resnet import ResNet
from pose_jax.trees import flatten, path_matches
from tests.models.networks import random_images, random_variables, shapes, size
from tests.weights import published

IMAGES = jax.ShapeDtypeStruct((2, 65, 97, 3), jnp.float32)  # not square
PAPER = jax.ShapeDtypeStruct((1, 353, 257, 3), jnp.float32)
SMALL = {  # Small enough to run. num_keypoints, **options -> a module.
    "multipose_18": partial(models.build, "multipose_18", width=8),
    "multipose_pocket": partial(models.build, "multipose_pocket", width=8),
}


# --------------------------------------------------------------------------- enlarging


def slow_upsample(x, factor):
    """The definition, in loops: pixel i of the output is at i / factor of the input."""
    b, h, w, c = x.shape
    out = np.zeros((b, factor * (h - 1) + 1, factor * (w - 1) + 1, c))
    for i, j in np.ndindex(out.shape[1:3]):
        (y, down), (z, right) = divmod(i, factor), divmod(j, factor)
        for rows, u in ((y, 1 - down / factor), (y + 1, down / factor)):
            for columns, v in ((z, 1 - right / factor), (z + 1, right / factor)):
                if u * v > 0:
                    out[:, i, j] += u * v * np.float64(x[:, rows, columns])
    return out


@pytest.mark.parametrize("factor", [1, 2, 8])
@pytest.mark.parametrize("h, w", [(4, 3), (1, 5), (1, 1)])
def test_upsampling_and_its_gradient_are_the_definition(factor, h, w):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, h, w, 3)).astype("f4")
    upsample = jax.jit(partial(ops.upsample_aligned, factor=factor))
    found, pull = jax.vjp(upsample, x)
    np.testing.assert_allclose(found, slow_upsample(x, factor), atol=1e-6)
    # Corners, and all pixels that the input has, are its own to the bit.
    np.testing.assert_array_equal(found[:, ::factor, ::factor], x)

    weight = random.normal(size=found.shape).astype("f4")
    expected = np.zeros(x.shape)
    for i, j in np.ndindex(h, w):
        one = np.zeros((1, h, w, 1))
        one[0, i, j] = 1
        expected[:, i, j] = (weight * slow_upsample(one, factor)).sum((1, 2))
    np.testing.assert_allclose(pull(weight)[0], expected, atol=1e-5)


def test_upsampling_keeps_what_is_linear_and_the_sizes_of_the_paper():
    y, x = np.mgrid[:45, :33].astype("f4")
    plane = (3 * y - 2 * x + 1)[None, :, :, None]
    large = np.asarray(ops.upsample_aligned(plane, factor=8))[0, :, :, 0]
    assert large.shape == (353, 257)
    y, x = np.mgrid[:353, :257] / 8
    np.testing.assert_allclose(large, 3 * y - 2 * x + 1, atol=1e-4)


def test_upsampling_by_less_than_one_is_refused():
    with pytest.raises(ValueError, match="factor must be at least 1; got 0"):
        ops.upsample_aligned(jnp.zeros((1, 2, 2, 1)), factor=0)


# --------------------------------------------------------------------- the atrous ResNet


@pytest.mark.slow
@pytest.mark.parametrize(
    "depth, h, w, strides",
    # Sizes of 32n + 1, and of 8n + 1 only.
    [(18, 65, 97, [8]), (18, 81, 49, [16, 8]), (50, 81, 49, [8])],
)
def test_atrous_features_are_the_others_and_those_between_them(depth, h, w, strides):
    resnet = partial(ResNet, depth, "frozen", width=4)
    images = random_images((1, h, w, 3))
    variables = random_variables(resnet(), images)
    expected = jax.jit(resnet().apply)(variables, images)
    scale = float(jnp.std(expected))
    assert scale > 1e-3
    for stride in strides:
        found = jax.jit(resnet(output_stride=stride).apply)(variables, images)
        assert found.shape[1:3] == (-(-h // stride), -(-w // stride))
        step = 32 // stride
        # At the borders too: zeros are read at the same places beyond them.
        np.testing.assert_allclose(
            found[:, ::step, ::step], expected, atol=1e-4 * scale
        )
        # Those between are no copies.
        copies = np.repeat(np.repeat(found[:, ::step, ::step], step, 1), step, 2)
        copies = copies[:, : found.shape[1], : found.shape[2]]
        assert np.abs(found - copies).mean() > 0.01 * scale


@pytest.mark.parametrize("depth", [18, 50])
def test_an_output_stride_changes_no_variable(depth):
    plain, atrous = (
        flatten(shapes(ResNet(depth, output_stride=stride))) for stride in (32, 8)
    )
    assert plain == atrous


@pytest.mark.parametrize(
    "depth, spacings",
    [
        # Of the 3x3 convolutions of layer3 and layer4: what reads the map that is no
        # longer reduced keeps the spacing of before.
        (18, [1, 2, 2, 2] + [2, 4, 4, 4]),
        (50, [1, 2, 2, 2, 2, 2] + [2, 4, 4]),
    ],
)
def test_taps_are_two_and_four_features_apart(depth, spacings):
    resnet = ResNet(depth, output_stride=8, width=4)
    with ops.use_forms("stock"):
        jaxpr = jax.make_jaxpr(resnet.apply)(shapes(resnet, IMAGES), IMAGES)
    found = [
        equation.params["rhs_dilation"]
        for equation in jaxpr.eqns
        if equation.primitive.name == "conv_general_dilated"
        and equation.invars[1].aval.shape[:2] == (3, 3)
    ]
    assert found[-len(spacings) :] == [(n, n) for n in spacings]
    assert set(found[: -len(spacings)]) == {(1, 1)}


def test_other_output_strides_are_refused():
    with pytest.raises(ValueError, match=r"8, 16 or 32, pixels; got 4"):
        shapes(ResNet(18, output_stride=4))


def test_the_backbone_is_that_of_simple_baseline():
    state_dict = published.values(published.resnet(18, width=8))
    images = random_images((1, 64, 96, 3))

    def converted(name):
        found = weights.from_torch(state_dict, name, backbone=True, width=8)
        return {kind: tree["backbone"] for kind, tree in found.items()}

    variables = converted("multipose_18")
    model = models.build("simple_baseline_18", 3, width=8, deconv_features=8)
    whole = random_variables(model, images)
    for kind, tree in converted("simple_baseline_18").items():
        whole[kind] = {**whole[kind], "backbone": tree}

    @jax.jit
    def run(whole, variables, images):
        _, state = model.apply(whole, images, capture_intermediates=True)
        (theirs,) = state["intermediates"]["backbone"]["__call__"]
        ours = [
            ResNet(18, width=8, output_stride=stride).apply(variables, images)
            for stride in (32, 8)
        ]
        return theirs, *ours

    theirs, ours, atrous = run(whole, variables, images)
    assert float(jnp.std(theirs)) > 0.05
    np.testing.assert_array_equal(ours, theirs)
    scale = float(jnp.std(theirs))
    np.testing.assert_allclose(atrous[:, ::4, ::4], theirs, atol=1e-4 * scale)


# -------------------------------------------------------------------------- what it is


@pytest.mark.parametrize(
    "name, backbone, channels",
    [
        ("multipose_18", 11_689_512 - 513 * 1000, 512),  # torchvision's, its classifier
        ("multipose_50", 25_557_032 - 2049 * 1000, 2048),
        ("multipose_101", 44_549_160 - 2049 * 1000, 2048),
    ],
)
def test_sizes_are_those_of_torchvision_and_one_convolution(name, backbone, channels):
    params = shapes(models.build(name), PAPER)["params"]
    assert set(params) == {"backbone", "head", "auxiliary"}
    count = size(params) - size(params["auxiliary"])  # Which is of training alone.
    assert count == backbone + (channels + 1) * 51
    assert (name != "multipose_101") or count == 42_604_659
    assert params["head"]["kernel"].shape == (1, 1, channels, 51)
    # Of layer3, which is half as wide as layer4.
    assert params["auxiliary"]["head"]["kernel"].shape == (1, 1, channels // 2, 17)


def test_the_cost_is_64_4_G_at_353x257():
    model = models.build("multipose_101")
    macs, charged = cost.multiply_adds(model.apply, shapes(model, PAPER), PAPER)
    assert macs == charged == 64_369_017_024


@pytest.mark.parametrize("name", ["multipose_18", "multipose_pocket"])
@pytest.mark.parametrize("h, w", [(257, 185), (9, 17)])
def test_outputs_have_the_size_of_the_input(name, h, w):
    model, images = models.build(name, 5), jax.ShapeDtypeStruct((2, h, w, 3), "f4")
    variables = shapes(model, images)
    logits, offsets = jax.eval_shape(model.apply, variables, images)
    assert logits.shape == (2, h, w, 5) and offsets.shape == (2, h, w, 5, 2)
    (auxiliary, final), _ = jax.eval_shape(
        partial(model.apply, train=True, mutable=["batch_stats"]), variables, images
    )
    assert auxiliary.shape == (2, h, w, 5)
    assert (final[0].shape, final[1].shape) == (logits.shape, offsets.shape)


def test_sizes_of_all_that_is_computed_are_those_of_the_paper():
    model = models.build("multipose_101")
    outputs, state = jax.eval_shape(
        partial(
            model.apply, train=True, capture_intermediates=True, mutable=["batch_stats"]
        ),
        shapes(model, PAPER),
        PAPER,
    )
    assert [output.shape for output in jax.tree.leaves(outputs)] == [
        (1, 353, 257, 17),
        (1, 353, 257, 17),
        (1, 353, 257, 17, 2),
    ]
    ((features, halfway),) = state["intermediates"]["backbone"]["__call__"]
    assert features.shape == (1, 45, 33, 2048) and halfway.shape == (1, 45, 33, 1024)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_with_every_norm_bfloat16_gives_float32(name, norm):
    model = SMALL[name](5, norm=norm, dtype="bfloat16")
    variables = shapes(model, IMAGES)
    assert ("batch_stats" in variables) == (norm != "group")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("f4")}
    outputs, _ = jax.eval_shape(
        partial(model.apply, train=True, mutable=["batch_stats"]), variables, IMAGES
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("f4")}


@pytest.mark.parametrize("name", SMALL)
def test_what_depends_on_the_keypoints_is_below_head(name):
    few, many = (flatten(shapes(SMALL[name](k), IMAGES)) for k in (3, 4))
    assert few.keys() == many.keys()
    changed = {path for path in few if few[path].shape != many[path].shape}
    assert changed == {path for path in few if path_matches("head", path)}
    assert {path[1] for path in changed} == {"head", "auxiliary"}


@pytest.mark.parametrize("remat, recomputed", [(False, 0), (True, 8)])
def test_remat_recomputes_the_blocks(remat, recomputed):
    model = SMALL["multipose_18"](3, remat=remat)
    jaxpr = jax.make_jaxpr(model.apply)(shapes(model, IMAGES), IMAGES)
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert sum("remat" in name for name in names) == recomputed


@pytest.mark.parametrize(
    "h, w, message",
    [
        (352, 257, r"got 352 x 257\. Nearest are 345 or 353 for 352\."),
        (65, 96, r"multiple of 8 plus 1, pixels; got 65 x 96\. Nearest are 89 or 97"),
        (64, 96, r"Nearest are 57 or 65 for 64, 89 or 97 for 96\."),
        (66, 66, r"Nearest are 65 or 73 for 66\."),
        (1, 65, r"Nearest are 9 or 17 for 1\."),
    ],
)
@pytest.mark.parametrize("name", SMALL)
def test_other_sizes_are_refused_with_the_nearest_that_fit(name, h, w, message):
    with pytest.raises(ValueError, match=message) as error:
        shapes(SMALL[name](3), jax.ShapeDtypeStruct((1, h, w, 3), "f4"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("multipose_18", {"auxiliary_unit": 3}, "1 to 2, .* at depth 18; got 3"),
        ("multipose_50", {"auxiliary_unit": 0}, "1 to 6, .* at depth 50; got 0"),
        ("multipose_18", {"offset_scale": 0.0}, "offset_scale must be positive.*got 0"),
        ("multipose_pocket", {"offset_scale": -1.0}, "offset_scale"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        shapes(models.build(name, 3, **options), IMAGES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images, message",
    [
        (jax.ShapeDtypeStruct((65, 97, 3), "f4"), r"\[b, h, w, 3\]"),
        (jax.ShapeDtypeStruct((1, 65, 97, 3), "u1"), "floats"),
    ],
)
def test_what_are_no_images_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL["multipose_pocket"](3), images)


# ------------------------------------------------------------------------- where it looks


@pytest.mark.parametrize(
    "name, rows, columns",
    # Pocket's deepest features are 32 pixels apart.
    [("multipose_18", 2, 1), ("multipose_pocket", 8, 4)],
)
def test_moving_the_image_by_strides_moves_the_features(name, rows, columns):
    """8 pixels are one feature, also as the outputs have it."""
    # Each output of multipose_18 sees 217 pixels to all sides, which are 28 features;
    # pocket's see less. So there are 4 from where no border is seen, in both views.
    rim, count = 28, 4
    h, w = (8 * (2 * rim + count - 1 + moved) + 1 for moved in (rows, columns))
    scene = random_images((1, h + 8 * rows, w + 8 * columns, 3))
    model = models.build(name, 2, width=4, norm="frozen")
    variables = random_variables(model, scene[:, :h, :w])

    @jax.jit
    def features(images):
        logits, offsets = model.apply(variables, images)
        return jnp.concatenate([logits[..., None], offsets], axis=-1)[0, ::8, ::8]

    one = features(scene[:, :h, :w])[rim + rows :, rim + columns :]
    other = features(scene[:, 8 * rows :, 8 * columns :])[rim:, rim:]
    one, other = one[:count, :count], other[:count, :count]
    scale = float(jnp.std(one))
    assert scale > 1e-3
    np.testing.assert_allclose(other, one, atol=1e-3 * scale)


@pytest.mark.parametrize("name", SMALL)
def test_a_feature_is_centred_on_its_pixel(name):
    """With kernels that are symmetric, a mirrored image has mirrored outputs."""
    model = SMALL[name](2, norm="frozen")
    variables = random_variables(model, IMAGES)

    def symmetric(path, leaf):
        if path[-1].key != "kernel":
            return leaf
        if (
            path[-2].key == "stem"
        ):  # A patch's first column is left of its centre's rim.
            patch = leaf.reshape(4, 4, 3, -1)
            patch[:, 1:] = patch[:, 1:] + patch[:, :0:-1]
            patch[:, 0] = 0
            return patch.reshape(leaf.shape)
        return leaf + leaf[:, ::-1]

    variables = jax.tree_util.tree_map_with_path(symmetric, variables)
    images = random_images()
    run = jax.jit(model.apply)
    images = random_images(IMAGES.shape)
    for plain, mirrored in zip(
        run(variables, images), run(variables, images[:, :, ::-1]), strict=True
    ):
        scale = float(jnp.std(plain))
        assert scale > 1e-3
        np.testing.assert_allclose(mirrored[:, :, ::-1], plain, atol=1e-3 * scale)
        assert np.abs(mirrored - plain).max() > 0.1 * scale


def test_pocket_sees_the_whole_image():
    images = random_images((1, 129, 97, 3))
    model = SMALL["multipose_pocket"](2)
    variables = random_variables(model, images)  # Not where blocks are the identity.
    seen = jax.jit(jax.grad(lambda x: model.apply(variables, x)[0][0, 64, 48, 0]))
    assert np.all(np.abs(seen(images)).max(-1) > 0)


# ------------------------------------------------------------------------- what it computes


_SCALE = 4.0  # Of the offsets, in training below.


@pytest.fixture(scope="module", params=SMALL)
def computed(request):
    """A small network in evaluation, in both precisions, and in training.

    The latter in the stock forms, with offsets scaled, with its auxiliary head.
    """
    name, images = request.param, random_images(IMAGES.shape)
    model = SMALL[name](3, norm="frozen")
    variables = random_variables(model, IMAGES)
    finished = {k: v for k, v in variables["params"].items() if k != "auxiliary"}
    finished = {**variables, "params": finished}

    evaluate = jax.jit(model.apply)
    half = SMALL[name](3, norm="frozen", dtype="bfloat16")
    train = partial(
        SMALL[name](3, norm="frozen", offset_scale=_SCALE).apply,
        train=True,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    with ops.use_forms("stock"):
        trained, state = jax.jit(train)(variables, images)
    return {
        "name": name,
        "params": variables["params"],
        "eval": evaluate(finished, images),
        "swapped": evaluate(finished, np.stack([images[1], 5 * images[0]])),
        "half": jax.jit(half.apply)(finished, images),
        "train": trained,
        "intermediates": state["intermediates"],
    }


def _assert_close(found, expected, share):
    """Logits and offsets, to a share of their deviation."""
    for a, b in zip(found, expected, strict=True):
        assert np.std(b) > 1e-3
        np.testing.assert_allclose(a, b, atol=share * np.std(b))


@pytest.mark.slow
def test_training_ends_with_what_evaluation_gives_in_the_other_forms(computed):
    auxiliary, (logits, offsets) = computed["train"]
    _assert_close([logits, offsets / _SCALE], computed["eval"], 1e-4)
    assert auxiliary.shape == logits.shape
    assert np.abs(auxiliary - logits).max() > 0.1 * np.std(auxiliary)


def test_images_are_treated_alone(computed):
    swapped = [output[0] for output in computed["swapped"]]
    _assert_close(swapped, [output[1] for output in computed["eval"]], 1e-4)


def test_bfloat16_is_close_and_enlarged_in_float32(computed):
    _assert_close(computed["half"], computed["eval"], 0.5)
    for output in computed["half"]:
        assert output.dtype == jnp.float32
        # Halfway between two features is their mean, which bfloat16 would round.
        mean = (output[:, ::8][:, :-1] + output[:, ::8][:, 1:]) / 2
        np.testing.assert_allclose(output[:, 4::8], mean, atol=1e-6)


def test_outputs_are_a_1x1_convolution_enlarged(computed):
    params, kept = computed["params"], computed["intermediates"]
    if computed["name"] == "multipose_18":
        ((features, halfway),) = kept["backbone"]["__call__"]
        # After the first of the two blocks of layer3.
        (block,) = kept["backbone"]["layer3"]["0"]["__call__"]
        np.testing.assert_array_equal(halfway, block)
    else:
        (features,) = kept["up_8_block"]["__call__"]
        halfway = np.maximum(kept["up_8_norm"]["__call__"][-1], 0)

    def head(x, params):
        return np.float64(x) @ np.float64(params["kernel"][0, 0]) + params["bias"]

    maps = head(features, params["head"])
    assert maps.shape == (2, 9, 13, 9)
    logits = slow_upsample(maps[..., :3], 8)
    offsets = slow_upsample(maps[..., 3:], 8).reshape(2, 65, 97, 3, 2)
    expected = slow_upsample(head(halfway, params["auxiliary"]["head"]), 8)
    auxiliary, final = computed["train"]
    _assert_close([auxiliary, *final], [expected, logits, _SCALE * offsets], 1e-4)


def test_the_auxiliary_head_moves_without_the_outputs():
    images = random_images((1, 33, 41, 3))
    variables = random_variables(SMALL["multipose_18"](3, norm="frozen"), images)
    found = []
    for unit in (None, 2):
        model = SMALL["multipose_18"](3, norm="frozen", auxiliary_unit=unit)
        found.append(jax.jit(partial(model.apply, train=True))(variables, images))
    (first, final), (second, other) = found
    assert np.abs(second - first).max() > 0.1 * np.std(first)
    _assert_close(other, final, 1e-5)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name.endswith("pocket") else pytest.mark.slow)
        for name in SMALL
    ],
)
def trained(request):
    """Statistics and gradients of a training step, with remat where there is some."""
    name, images = request.param, random_images(IMAGES.shape)
    options = {"remat": True} if name == "multipose_18" else {}
    model = SMALL[name](3, **options)
    variables = random_variables(model, IMAGES)

    def loss(params, images):
        (auxiliary, (logits, offsets)), changed = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        values = jnp.sin(auxiliary), jnp.sin(logits), jnp.cos(offsets)
        return sum(map(jnp.mean, values)), changed["batch_stats"]

    (to_params, to_images), stats = jax.jit(
        jax.grad(loss, argnums=(0, 1), has_aux=True)
    )(variables["params"], images)
    return {
        "before": variables["batch_stats"],
        "after": stats,
        "params": to_params,
        "images": to_images,
    }


def test_every_parameter_learns_and_every_pixel_counts(trained):
    for path, leaf in flatten(jax.device_get(trained["params"])).items():
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf) or path[-1] != "kernel", path
    to_images = np.abs(trained["images"])
    assert np.all(np.isfinite(to_images)) and np.all(to_images.max(-1) > 0)


def test_training_updates_every_statistic(trained):
    before, after = (flatten(jax.device_get(trained[i])) for i in ("before", "after"))
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf != before[path]), path


@pytest.mark.parametrize("name", SMALL)
def test_a_network_starts_near_one_half_and_no_offset(name):
    model = SMALL[name](2)

    @jax.jit
    def heads(key):  # Them alone: sampling it all would compile long.
        params = model.init(key, jnp.zeros((1, 33, 41, 3)), train=True)["params"]
        return params["head"], params["auxiliary"]["head"]

    for head in heads(jax.random.key(0)):
        assert not np.any(head["bias"])
        assert float(jnp.std(head["kernel"])) == pytest.approx(0.001, rel=0.3)
