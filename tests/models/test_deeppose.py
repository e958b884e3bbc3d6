"""DeepPose and what it alone needs (LRN), and the ResNet that regresses coordinates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models, weights
from pose_jax.models import cost, layers, ops
from pose_jax.trees import flatten, path_matches
from tests.models.networks import (
    fill,
    random_images,
    random_variables,
    shapes,
    size,
    slow_relu,
)
from tests.weights import published

SMALL = {  # Small enough to run, on images that are not square.
    "deeppose": partial(models.build, "deeppose", width=12, features=32),
    "resnet_regression_18": partial(models.build, "resnet_regression_18", width=8),
}
IMAGES = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
PAPER = jax.ShapeDtypeStruct((1, 220, 220, 3), jnp.float32)


# ----------------------------------------------------------------------------------- LRN


def slow_lrn(x, n=5, k=2.0, alpha=1e-4, beta=0.75, alpha_per="element"):
    """The definition, in loops."""
    flat = np.float64(x).reshape(-1, x.shape[-1])
    out = np.zeros_like(flat)
    for i, pixel in enumerate(flat):
        for c in range(len(pixel)):
            total = 0.0
            for d in range(c - n // 2, c + n // 2 + 1):
                if 0 <= d < len(pixel):
                    total += pixel[d] ** 2
            weight = alpha / n if alpha_per == "window" else alpha
            out[i, c] = pixel[c] / (k + weight * total) ** beta
    return out.reshape(x.shape)


LRN = [
    {},
    {"alpha_per": "window"},
    {"alpha": 0.3},
    {"alpha": 0.3, "alpha_per": "window", "n": 3, "k": 1.0},
    {"alpha": 2.0, "beta": 0.5, "n": 1},
    {"alpha": 0.1, "beta": 1.3, "n": 11},  # Wider than the maps have channels.
]


@pytest.mark.parametrize("options", LRN)
def test_lrn_and_its_gradient_are_the_definition_in_float64(options):
    random = np.random.default_rng(0)
    x = 3 * random.normal(size=(2, 3, 1, 7)).astype("f4")
    weight = random.normal(size=x.shape).astype("f4")
    lrn = jax.jit(partial(ops.local_response_norm, **options))
    found, pull = jax.vjp(lrn, x)
    np.testing.assert_allclose(found, slow_lrn(x, **options), rtol=1e-5, atol=1e-7)

    def slope(index, step=1e-4):
        moved = np.zeros(x.shape)
        moved[index] = step
        change = slow_lrn(x + moved, **options) - slow_lrn(x - moved, **options)
        return (weight * change).sum() / (2 * step)

    expected = np.reshape([slope(i) for i in np.ndindex(x.shape)], x.shape)
    np.testing.assert_allclose(pull(weight)[0], expected, rtol=1e-3, atol=1e-5)


def test_lrn_takes_alpha_for_the_sum_unless_told():
    x = np.full((1, 5), 100.0, "f4")  # The middle channel sees five of 10^4.
    for alpha_per, scale in (("element", 2 + 5), ("window", 2 + 1)):
        out = ops.local_response_norm(x, alpha_per=alpha_per)
        np.testing.assert_allclose(out[0, 2], 100 / scale**0.75, rtol=1e-6)


def test_lrn_is_computed_in_float32_and_keeps_the_type():
    x = np.random.default_rng(0).normal(size=(4, 9)).astype("f4") * 20
    half = jnp.asarray(x, jnp.bfloat16)
    out = ops.local_response_norm(half)
    assert out.dtype == jnp.bfloat16
    # 2 + 1e-4 * sum would be a multiple of 1/64 in bfloat16.
    np.testing.assert_array_equal(
        out, ops.local_response_norm(half.astype(jnp.float32)).astype(jnp.bfloat16)
    )


@pytest.mark.parametrize(
    "options, message",
    [({"n": 4}, "odd"), ({"k": 0.0}, "positive"), ({"alpha_per": "n"}, "element")],
)
def test_lrn_refuses_what_it_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ops.local_response_norm(jnp.ones((1, 7)), **options)


# -------------------------------------------------------------------------- what it is


def test_deeppose_is_the_one_that_the_paper_lists():
    model = models.build("deeppose", 14)
    params = shapes(model, PAPER)["params"]
    # By hand: the paper's "about 40M" are not what its layers have.
    assert size(params) == 58_396_060
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 96, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 384, 384),
        "conv5": (3, 3, 384, 256),
        "fc6": (6 * 6 * 256, 4096),
        "fc7": (4096, 4096),
        "head": (4096, 28),
    }
    assert sum(size(params[f"conv{i}"]) for i in (1, 2, 3, 4, 5)) == 3_747_200


def test_maps_of_deeppose_have_the_printed_sizes():
    model = models.build("deeppose", 14)
    variables = shapes(model, PAPER)
    points, state = jax.eval_shape(
        partial(model.apply, capture_intermediates=True), variables, PAPER
    )
    assert points.shape == (1, 14, 2)
    maps = {
        name: outputs["__call__"][0].shape[1:]
        for name, outputs in state["intermediates"].items()
        if name[:4] == "conv"
    }
    assert maps == {
        "conv1": (55, 55, 96),
        "conv2": (27, 27, 256),
        "conv3": (13, 13, 384),
        "conv4": (13, 13, 384),
        "conv5": (13, 13, 256),
    }


def test_the_cost_of_deeppose_is_counted():
    model, key = models.build("deeppose", 14), jax.random.key(0)
    convolutions = (
        55**2 * 11**2 * 3 * 96
        + 27**2 * 5**2 * 96 * 256
        + 13**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
    )
    dense = 9216 * 4096 + 4096 * 4096 + 4096 * 28
    found = cost.multiply_adds(
        partial(model.init, train=True), key, jnp.zeros(PAPER.shape)
    )
    assert found == (convolutions + dense,) * 2 == (1_131_274_784,) * 2


@pytest.mark.parametrize("depth", [18, 50, 101, 152])
def test_resnet_regression_is_torchvision_s_with_another_last_layer(depth):
    def count(classes):
        return sum(
            np.prod(shape, dtype=int)
            for name, shape in published.resnet(depth, classes=classes).items()
            if "running" not in name and "num_batches" not in name
        )

    found = size(shapes(models.build(f"resnet_regression_{depth}", 17))["params"])
    assert found == count(34)
    # torchvision's own documentation, with 1000 classes.
    printed = {18: 11_689_512, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
    assert count(1000) == printed[depth]


def test_torchvision_s_backbone_fits():
    state_dict = published.values(published.resnet(18, width=8))
    converted = weights.from_torch(
        state_dict, "simple_baseline_18", backbone=True, width=8
    )
    expected = shapes(SMALL["resnet_regression_18"](3))
    for kind in ("params", "batch_stats"):
        ours, theirs = (
            flatten(expected[kind]["backbone"]),
            flatten(converted[kind]["backbone"]),
        )
        assert {path: leaf.shape for path, leaf in ours.items()} == {
            path: leaf.shape for path, leaf in theirs.items()
        }
    assert set(expected["params"]) == {"backbone", "head"}


@pytest.mark.parametrize("name", SMALL)
def test_what_depends_on_the_keypoints_is_below_head(name):
    few, many = (flatten(shapes(SMALL[name](k), IMAGES)) for k in (3, 4))
    assert few.keys() == many.keys()
    changed = {path for path in few if few[path].shape != many[path].shape}
    assert changed == {path for path in few if path_matches("head", path)}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_are_float32_points(name, dtype):
    model = SMALL[name](5, dtype=dtype)
    variables = shapes(model, IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    points = jax.eval_shape(model.apply, variables, IMAGES)
    assert (points.shape, points.dtype) == ((2, 5, 2), jnp.float32)
    outputs, _ = jax.eval_shape(
        lambda v, x, key: model.apply(
            v, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        ),
        variables,
        IMAGES,
        jax.random.key(0),
    )
    assert isinstance(outputs, tuple) and len(outputs) == 1
    assert (outputs[0].shape, outputs[0].dtype) == ((2, 5, 2), jnp.float32)


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_the_resnet_takes_every_norm(norm):
    variables = shapes(SMALL["resnet_regression_18"](5, norm=norm))
    assert ("batch_stats" in variables) == (norm != "group")


def test_resnet_regression_recomputes_its_blocks_if_asked():
    counts = []
    for remat in (False, True):
        model = SMALL["resnet_regression_18"](3, remat=remat)
        jaxpr = jax.make_jaxpr(model.apply)(shapes(model), IMAGES)
        names = [equation.primitive.name for equation in jaxpr.eqns]
        counts.append(sum("remat" in name for name in names))
    assert counts == [0, 8]


@pytest.mark.parametrize("h, w, maps", [(57, 57, 1), (64, 96, 2), (221, 203, 6 * 5)])
def test_deeppose_takes_any_size_from_the_smallest(h, w, maps):
    images = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    model = SMALL["deeppose"](3)
    variables = shapes(model, images)
    assert variables["params"]["fc6"]["kernel"].shape[0] == maps * 32
    assert jax.eval_shape(model.apply, variables, images).shape == (2, 3, 2)


@pytest.mark.parametrize(
    "shape, dtype, options, message",
    [
        ((1, 56, 80, 3), "f4", {}, "at least 57, pixels; got 56 x 80"),
        ((1, 80, 40, 3), "f4", {}, "at least 57, pixels; got 80 x 40"),
        ((64, 64, 3), "f4", {}, r"\[b, h, w, 3\]"),
        ((1, 64, 64, 3), "u1", {}, "floats"),
        ((1, 64, 64, 3), "f4", {"norm": "group"}, "norm.*'group'"),
        ((1, 64, 64, 3), "f4", {"norm": "frozen"}, "norm.*'frozen'"),
        ((1, 64, 64, 3), "f4", {"dropout": 1.0}, r"dropout.*\[0, 1\)"),
        ((1, 64, 64, 3), "f4", {"width": 32}, "multiple of 3; got 32"),
        ((1, 64, 64, 3), "f4", {"features": 0}, "features"),
        ((1, 64, 64, 3), "f4", {"lrn_alpha_per": "n"}, "alpha_per"),
    ],
)
def test_deeppose_refuses_in_one_line(shape, dtype, options, message):
    with pytest.raises(ValueError, match=message) as error:
        shapes(
            models.build("deeppose", 3, **options), jax.ShapeDtypeStruct(shape, dtype)
        )
    assert "\n" not in str(error.value)


def test_the_resnet_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="divisible by 32"):
        shapes(
            SMALL["resnet_regression_18"](3), jax.ShapeDtypeStruct((1, 64, 40, 3), "f4")
        )


# ------------------------------------------------------------------------- what it computes


def slow_conv(x, params, pads, stride=1):
    """A convolution, output pixel by output pixel; pads: (before, after)."""
    kernel = np.float64(params["kernel"])
    side = kernel.shape[0]
    x = np.pad(x, [(0, 0), pads, pads, (0, 0)])
    h, w = ((n - side) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), h, w, kernel.shape[-1]))
    for i, j in np.ndindex(h, w):
        y, z = i * stride, j * stride
        out[:, i, j] = np.tensordot(x[:, y : y + side, z : z + side], kernel, 3)
    return out + params["bias"]


def slow_pool(x):
    h, w = ((n - 3) // 2 + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), h, w, x.shape[-1]))
    for i, j in np.ndindex(h, w):
        out[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    return out


def slow_deeppose(params, images, alpha_per):
    # 64 or 96 pixels and an 11x11/4 convolution: 3 before and 4 after.
    x = slow_relu(slow_conv(np.float64(images), params["conv1"], (3, 4), stride=4))
    x = slow_pool(slow_lrn(x, alpha_per=alpha_per))
    x = slow_relu(slow_conv(x, params["conv2"], (2, 2)))
    x = slow_pool(slow_lrn(x, alpha_per=alpha_per))
    for i in (3, 4, 5):
        x = slow_relu(slow_conv(x, params[f"conv{i}"], (1, 1)))
    x = slow_pool(x).reshape(len(x), -1)
    for name in ("fc6", "fc7"):
        x = slow_relu(x @ np.float64(params[name]["kernel"]) + params[name]["bias"])
    x = x @ np.float64(params["head"]["kernel"]) + params["head"]["bias"]
    return x.reshape(len(x), -1, 2)


def strong_variables(model):
    """Random ones whose activations are large enough for LRN to matter."""
    variables = random_variables(model, IMAGES)
    params = variables["params"]
    for name in ("conv1", "conv2"):
        params[name]["kernel"] = params[name]["kernel"] * 60
    return variables


@pytest.mark.parametrize("alpha_per", ["element", "window"])
def test_deeppose_is_its_layers_in_this_order(alpha_per):
    model = SMALL["deeppose"](3, lrn_alpha_per=alpha_per)
    variables, images = strong_variables(model), random_images()
    found = jax.jit(model.apply)(variables, images)
    expected = slow_deeppose(variables["params"], images, alpha_per)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    other = {"element": "window", "window": "element"}[alpha_per]
    unlike = slow_deeppose(variables["params"], images, other)
    assert np.abs(unlike - expected).max() > 0.01 * np.abs(expected).max()


@pytest.fixture(scope="module", params=SMALL)
def computed(request):
    """A small network, run in evaluation in both precisions and in both forms."""
    name, images = request.param, random_images()
    model, half = SMALL[name](3), SMALL[name](3, dtype="bfloat16")
    variables = random_variables(model, IMAGES)
    evaluate = jax.jit(model.apply)

    def apply_stock(variables, images):
        with ops.use_forms("stock"):
            return model.apply(variables, images)

    return {
        "eval": evaluate(variables, images),
        "swapped": evaluate(variables, np.stack([images[1], 5 * images[0]])),
        "stock": jax.jit(apply_stock)(variables, images),
        "half": jax.jit(half.apply)(variables, images),
    }


def test_bfloat16_is_close(computed):
    exact, half = computed["eval"], computed["half"]
    scale = float(jnp.std(exact))
    assert scale > 1e-3
    np.testing.assert_allclose(half, exact, atol=0.1 * scale)


def test_the_last_layer_does_not_round_to_bfloat16():
    random, head = np.random.default_rng(0), layers.Coordinates(3)
    x = jnp.asarray(random.normal(size=(2, 9)), jnp.bfloat16)
    params = fill(jax.eval_shape(head.init, jax.random.key(0), x))
    found = head.apply(params, x)  # Not jitted: a compiler may leave rounding out.
    kernel, bias = (np.float64(params["params"][name]) for name in ("kernel", "bias"))
    expected = np.float64(x) @ kernel + bias
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected.reshape(2, 3, 2), rtol=1e-5, atol=1e-6)


def test_forms_agree_and_images_are_treated_alone(computed):
    np.testing.assert_allclose(computed["stock"], computed["eval"], atol=1e-5)
    np.testing.assert_allclose(computed["swapped"][0], computed["eval"][1], atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_one_training_step_reaches_every_kernel_and_pixel(name):
    model, images = SMALL[name](3), random_images()
    variables = random_variables(model, IMAGES)

    @jax.jit
    def gradients(params, images, key):
        def loss(params, images):
            outputs, _ = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return jnp.sum(outputs[-1] ** 2)

        return jax.grad(loss, argnums=(0, 1))(params, images)

    to_params, to_images = gradients(variables["params"], images, jax.random.key(0))
    for path, leaf in flatten(jax.device_get(to_params)).items():
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf) or path[-1] != "kernel", path
    # Windows that do not fit into VALID pools see nothing of the last columns.
    patches = ops.space_to_depth(jnp.abs(to_images), 8).max(-1)[:, :-2, :-2]
    assert np.all(np.isfinite(to_images)) and np.all(np.asarray(patches) > 0)


# ----------------------------------------------------------------------- start, dropout


@pytest.fixture(scope="module")
def initial():
    """DeepPose a quarter as wide, as it starts."""
    model = models.build("deeppose", 14, width=24, features=256)
    init = jax.jit(lambda key: model.init(key, jnp.zeros(IMAGES.shape), train=True))
    return model, init(jax.random.key(0))


def test_init_needs_one_key_and_makes_parameters_alone(initial):
    _, variables = initial
    assert set(variables) == {"params"}


def test_deeppose_starts_at_the_centre_with_activations_of_one_scale(initial):
    model, variables = initial
    images = np.random.default_rng(0).normal(size=IMAGES.shape).astype("f4")
    points, state = jax.jit(partial(model.apply, capture_intermediates=True))(
        variables, images
    )
    assert 0 < float(jnp.abs(points).max()) < 0.1
    for name, outputs in state["intermediates"].items():
        if name[:4] in ("conv", "fc6", "fc7"):
            scale = float(jnp.sqrt(jnp.mean(outputs["__call__"][0] ** 2)))
            assert 0.5 < scale < 5, name
    for path, leaf in flatten(variables["params"]).items():
        assert path[-1] == "kernel" or not np.any(np.asarray(leaf)), path


@pytest.fixture(scope="module")
def dropping():
    """DeepPose with many features: a function of train and a key, and what it returns.

    Outputs, and fc6, fc7 and what dropout makes of them.
    """
    model = models.build("deeppose", 3, width=3, features=2000)
    variables, images = fill(shapes(model, IMAGES)), random_images()

    @partial(jax.jit, static_argnums=0)
    def run(train, key):
        points, state = model.apply(
            variables,
            images,
            train=train,
            rngs={"dropout": key},
            capture_intermediates=True,
        )
        found = state["intermediates"]
        return points[0] if train else points, {
            name: jax.nn.relu(found[name]["__call__"][0])
            for name in ("fc6", "fc7", "Dropout_0", "Dropout_1")
        }

    return run, jax.jit(model.apply)(variables, images)


def test_training_drops_six_of_ten_and_scales_the_others(dropping):
    run, _ = dropping
    _, found = run(True, jax.random.key(1))
    for before, after in (("fc6", "Dropout_0"), ("fc7", "Dropout_1")):
        before, after = np.asarray(found[before]), np.asarray(found[after])
        active = before > 0
        assert active.sum() > 1000
        dropped = active & (after == 0)
        share = dropped.sum() / active.sum()
        assert abs(share - 0.6) < 5 * np.sqrt(0.6 * 0.4 / active.sum())  # 5 deviations
        np.testing.assert_allclose(
            after[~dropped], before[~dropped] / 0.4, rtol=1e-5, atol=1e-6
        )
    masks = [np.asarray(found[f"Dropout_{i}"] > 0) for i in (0, 1)]
    assert np.any(masks[0] != masks[1]) and np.any(masks[0][0] != masks[0][1])


def test_each_key_drops_others_and_the_same_key_the_same(dropping):
    run, _ = dropping
    (one, found), (other, others) = (run(True, jax.random.key(i)) for i in (1, 2))
    assert np.all(np.asarray(one) != np.asarray(other))
    first, second = (np.asarray(f["Dropout_0"] > 0) for f in (found, others))
    # Independent: both keep 0.4 * 0.4 of those that are active.
    active = np.asarray(found["fc6"] > 0)
    assert np.mean((first & second)[active]) == pytest.approx(0.16, abs=0.05)
    np.testing.assert_array_equal(run(True, jax.random.key(1))[0], one)


def test_evaluation_drops_nothing_and_needs_no_key(dropping):
    run, without_key = dropping
    points, found = run(False, jax.random.key(1))
    np.testing.assert_array_equal(found["Dropout_0"], found["fc6"])
    np.testing.assert_array_equal(found["Dropout_1"], found["fc7"])
    np.testing.assert_allclose(points, without_key, rtol=1e-5, atol=1e-6)


def test_training_without_a_key_is_an_error_unless_nothing_is_dropped():
    def run(**options):
        model = SMALL["deeppose"](3, **options)
        return jax.eval_shape(
            partial(model.apply, train=True), shapes(model, IMAGES), IMAGES
        )

    with pytest.raises(Exception, match="dropout"):
        run()
    assert run(dropout=0.0)[0].shape == (2, 3, 2)
