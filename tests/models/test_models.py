"""Every network: sizes, shapes, names and norms. What need not be computed is not."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models
from pose_jax.errors import ConfigError
from pose_jax.models import cost, ops
from pose_jax.models.pocket import Pocket
from pose_jax.trees import flatten, path_matches
from tests.models.networks import (
    IMAGES,
    SMALL,
    random_images,
    random_variables,
    shapes,
    size,
    with_larger_slow,
)


@pytest.mark.parametrize(
    "name, num_keypoints, count",
    with_larger_slow(
        [
            ("simple_baseline_50", 17, 33_999_697),
            ("simple_baseline_50", 16, 33_999_440),
            ("simple_baseline_101", 17, 52_991_825),
            ("simple_baseline_152", 17, 68_635_473),
            # torchvision's resnet18 without its classifier, deconvolutions, head.
            ("simple_baseline_18", 17, 11_176_512 + 4_195_840 + 4_369),
        ]
    ),
)
def test_parameter_counts_are_the_published_ones(name, num_keypoints, count):
    assert size(shapes(models.build(name, num_keypoints))["params"]) == count


COSTS = {  # Millions of multiply-adds at 128x96, 256x192, 384x288; in the papers' tables.
    "simple_baseline_50": ((1356.595, 5426.381, 12209.357), (2.3, 8.9, 20.0)),
    "simple_baseline_101": ((2265.711, 9062.842, 20391.395), (3.1, 12.4, 27.9)),
    "simple_baseline_152": ((3174.826, 12699.304, 28573.434), (3.9, 15.7, 35.5)),
    "hrnet_w32": ((1911.251, 7645.004, 17201.258), (1.8, 7.1, 16.0)),
    "hrnet_w48": ((3922.956, 15691.825, 35306.607), (3.6, 14.6, 32.9)),
    "hourglass_4": ((2878.341,), (2.7,)),
    "hourglass_8": ((5265.555,), (4.9,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTS)
def test_costs_are_the_published_ones(name):
    model, key = models.build(name), jax.random.key(0)
    sizes = [(128, 96), (256, 192), (384, 288)]
    for (h, w), millions, printed in zip(sizes, *COSTS[name], strict=False):
        images = jnp.zeros((1, h, w, 3))
        true, charged = cost.multiply_adds(partial(model.init, train=True), key, images)
        assert true / 1e6 == pytest.approx(millions, abs=1e-3)
        # Some are printed rounded, some cut off, and SimpleBaseline's a little lower.
        assert charged / 2**30 == pytest.approx(printed, rel=0.013, abs=0.06)


def test_resnet_parameters_are_named_as_in_pytorch():
    variables = shapes(models.build("simple_baseline_50"))
    root = variables["params"]
    assert set(root) == {"backbone", "deconv_layers", "head"}
    assert set(root["deconv_layers"]) == {"0", "1", "3", "4", "6", "7"}
    assert root["deconv_layers"]["0"]["kernel"].shape == (4, 4, 2048, 256)
    assert root["head"]["kernel"].shape == (1, 1, 256, 17)
    backbone = root["backbone"]
    stages = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
    assert set(backbone) == {"conv1", "bn1", *stages}
    for stage, blocks in stages.items():
        assert set(backbone[stage]) == {str(i) for i in range(blocks)}
    block = backbone["layer2"]["0"]
    assert {
        name: leaf["kernel"].shape for name, leaf in block.items() if "conv" in name
    } == {
        "conv1": (1, 1, 256, 128),
        "conv2": (3, 3, 128, 128),
        "conv3": (1, 1, 128, 512),
    }
    assert block["downsample"]["0"]["kernel"].shape == (1, 1, 256, 512)
    stats = variables["batch_stats"]["backbone"]["layer2"]["0"]["downsample"]["1"]
    assert {name: leaf.shape for name, leaf in stats.items()} == {
        "mean": (512,),
        "var": (512,),
    }


@pytest.mark.parametrize("name", [*SMALL, "simple_baseline_50"])
@pytest.mark.parametrize(
    "norm",
    ["batch", *(pytest.param(n, marks=pytest.mark.slow) for n in ("frozen", "group"))],
)
def test_outputs_are_stride_four_heatmaps(name, norm):
    make = SMALL.get(name, partial(models.build, name))
    model = make(5, norm=norm, dtype="bfloat16")
    variables = shapes(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert ("batch_stats" in variables) == (norm != "group")
    with ops.use_forms("stock"):  # Fewer operations to trace.
        heatmaps = jax.eval_shape(model.apply, variables, IMAGES)
        outputs, _ = jax.eval_shape(
            lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]),
            variables,
            IMAGES,
        )
    assert (heatmaps.shape, heatmaps.dtype) == ((2, 16, 24, 5), jnp.float32)
    assert isinstance(outputs, tuple)
    assert len(outputs) == (2 if name == "hourglass" else 1)
    for output in outputs:
        assert (output.shape, output.dtype) == ((2, 16, 24, 5), jnp.float32)


@pytest.mark.parametrize("name", ["simple_baseline_18", "hrnet", "hourglass"])
def test_maps_are_a_quarter_of_the_image_whatever_its_size(name):
    options = {"stacks": 1, "depth": 4} if name == "hourglass" else {}
    model = SMALL[name](16, **options)
    variables = shapes(model)
    for h, w in [(128, 96), (384, 288), (192, 320), (64, 160)]:
        images = jax.ShapeDtypeStruct((1, h, w, 3), jnp.float32)
        with ops.use_forms("stock"):
            heatmaps = jax.eval_shape(model.apply, variables, images)
        assert heatmaps.shape == (1, h // 4, w // 4, 16)


_COMPOSED = ("hourglass", "simple_baseline_18")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in _COMPOSED else ())
        for name in SMALL
    ],
)
def computed(request):
    """A small network in evaluation and in training, in both precisions."""
    name, images = request.param, random_images()
    model = SMALL[name](3)
    variables = random_variables(model)
    half = SMALL[name](3, dtype="bfloat16")
    evaluate = jax.jit(model.apply)

    def apply_stock(variables, images):
        with ops.use_forms("stock"):
            return model.apply(variables, images)

    return {
        "variables": variables,
        "eval": evaluate(variables, images),
        "swapped": evaluate(variables, np.stack([images[1], 5 * images[0]])),
        "stock": jax.jit(apply_stock)(variables, images),
        "half": jax.jit(half.apply)(variables, images),
    }


def test_bfloat16_is_close_and_returns_float32(computed):
    exact, half = computed["eval"], computed["half"]
    assert half.dtype == jnp.float32
    scale = float(jnp.std(exact))
    assert scale > 1e-3
    np.testing.assert_allclose(half, exact, atol=0.5 * scale)
    assert float(jnp.mean(jnp.abs(half - exact))) < 0.1 * scale


def test_forms_agree_through_a_whole_network(computed):
    np.testing.assert_allclose(computed["stock"], computed["eval"], atol=1e-4)


def test_evaluation_treats_images_alone(computed):
    np.testing.assert_allclose(computed["swapped"][0], computed["eval"][1], atol=1e-4)


# Compiling the gradients of the large graphs takes most of a minute each.
_TRAINED = [
    pytest.param(name, marks=() if name == "pocket" else pytest.mark.slow)
    for name in SMALL
]


@pytest.fixture(scope="module", params=_TRAINED)
def trained(request):
    """A training step of a small network, taken twice; of one with remat, once."""
    name, images = request.param, random_images()
    variables = random_variables(SMALL[name](3))
    traces = []

    def step(model):
        def loss(params, stats, images):
            outputs, changed = model.apply(
                {"params": params, "batch_stats": stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            random = np.random.default_rng(2)
            weights = [random.normal(size=y.shape).astype("f4") for y in outputs]
            total = sum(jnp.mean(w * y) for w, y in zip(weights, outputs, strict=True))
            return total, changed["batch_stats"]

        @jax.jit
        def run(variables, images):
            traces.append(None)
            (value, stats), (to_params, to_images) = jax.value_and_grad(
                loss, argnums=(0, 2), has_aux=True
            )(variables["params"], variables["batch_stats"], images)
            return {
                "value": value,
                "batch_stats": stats,
                "params": to_params,
                "images": to_images,
            }

        return run

    run = step(SMALL[name](3))
    plain = run(variables, images)
    run({**variables, "batch_stats": plain["batch_stats"]}, images)
    found = {"variables": variables, "plain": plain, "traces": len(traces)}
    if name != "pocket":
        found["remat"] = step(SMALL[name](3, remat=True))(variables, images)
    return found


def test_training_updates_every_statistic(trained):
    before, after = (trained[i]["batch_stats"] for i in ("variables", "plain"))
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert np.all(np.isfinite(a)) and np.any(np.asarray(a) != b)


def test_every_kernel_learns_and_every_patch_of_the_image_counts(trained):
    for path, leaf in flatten(jax.device_get(trained["plain"]["params"])).items():
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf) or path[-1] != "kernel", path
    patches = ops.space_to_depth(jnp.abs(trained["plain"]["images"]), 4).max(-1)
    assert np.all(np.asarray(patches) > 0)


def test_a_step_is_traced_once_also_with_what_it_returned(trained):
    assert trained["traces"] == 1


def test_remat_changes_neither_values_nor_gradients(trained):
    if "remat" not in trained:
        pytest.skip("has no remat")
    plain, remat = trained["plain"], trained["remat"]
    plain, remat = flatten(jax.device_get(plain)), flatten(jax.device_get(remat))
    assert plain.keys() == remat.keys()
    for path, leaf in plain.items():
        # A bias that a norm takes away again has no gradient but for rounding.
        atol = 1e-4 * max(np.abs(leaf).max(), 1e-3)
        np.testing.assert_allclose(remat[path], leaf, atol=atol, err_msg=str(path))


@pytest.mark.parametrize("name", SMALL)
def test_what_depends_on_the_keypoints_is_below_head(name):
    few, many = (flatten(shapes(SMALL[name](k))) for k in (3, 4))
    assert few.keys() == many.keys()
    assert {path for path in few if few[path].shape != many[path].shape} <= {
        path for path in few if path_matches("head", path)
    }


@pytest.mark.slow
def test_frozen_norm_changes_nothing_but_kernels():
    model = SMALL["pocket"](3, norm="frozen")
    variables, images = random_variables(model), random_images()

    @jax.jit
    def run(params):
        def loss(params):
            outputs, changed = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(outputs[-1] ** 2), changed

        return jax.grad(loss, has_aux=True)(params)

    gradients, changed = run(variables["params"])
    for a, b in zip(
        jax.tree.leaves(changed), jax.tree.leaves(variables["batch_stats"]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        learns = "norm" not in jax.tree_util.keystr(path).lower()
        assert np.any(np.asarray(leaf) != 0) == learns, path


def test_pocket_starts_near_zero():
    model = SMALL["pocket"](2)
    images = random_images()

    @jax.jit
    def initial_head(key):  # the head alone: sampling it all would compile long
        return model.init(key, images, train=True)["params"]["head"]

    variables = random_variables(model)
    variables["params"]["head"] = initial_head(jax.random.key(0))
    heatmaps = jax.jit(model.apply)(variables, images)
    assert 0 < float(jnp.abs(heatmaps).max()) < 0.05


def test_pocket_takes_sizes_whose_smallest_maps_are_odd():
    model = SMALL["pocket"](3)
    images = random_images((2, 48, 80, 3))
    heatmaps = jax.eval_shape(model.apply, shapes(model, images), images)
    assert heatmaps.shape == (2, 12, 20, 3)


def test_pocket_sees_the_whole_image():
    model = SMALL["pocket"](2)
    images = random_images((1, 128, 96, 3))
    # Not the initial weights: there, blocks are the identity and see nothing.
    variables = random_variables(model, images)
    seen = jax.jit(jax.grad(lambda x: model.apply(variables, x)[0, 16, 12, 0]))(images)
    patches = ops.space_to_depth(jnp.abs(seen), 4).max(-1)
    assert np.all(np.asarray(patches) > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, recomputed",
    # All blocks; blocks of the stem and modules or stacks.
    [("simple_baseline_18", 8), ("hrnet", 1 + 3), ("hourglass", 3 + 2)],
)
def test_remat_recomputes(name, recomputed):
    counts = []
    for remat in (False, True):
        model = SMALL[name](3, remat=remat)
        jaxpr = jax.make_jaxpr(model.apply)(shapes(model), IMAGES)
        names = [equation.primitive.name for equation in jaxpr.eqns]
        counts.append(sum("remat" in name for name in names))
    assert counts == [0, recomputed]


@pytest.mark.parametrize(
    "images, message",
    [
        (jax.ShapeDtypeStruct((1, 64, 40, 3), jnp.float32), "divisible by (16|32)"),
        (jax.ShapeDtypeStruct((64, 32, 3), jnp.float32), r"\[b, h, w, 3\]"),
        (jax.ShapeDtypeStruct((1, 64, 32, 3), jnp.uint8), "floats"),
    ],
)
@pytest.mark.parametrize(
    "name", ["pocket", "simple_baseline_18", "hrnet_w32", "hourglass_4"]
)
def test_images_that_do_not_fit_are_refused(name, images, message):
    with pytest.raises(ValueError, match=message):
        shapes(models.build(name), images)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (("simple_baseline50",), {}, "pocket.*Did you mean 'simple_baseline_50'"),
        (("pocket",), {"widht": 3}, "Did you mean 'width'"),
        (("simple_baseline_18",), {"depth": 50}, "no option 'depth'"),
        (("pocket",), {"norm": "layer"}, "batch, frozen, group.*'layer'"),
        (("pocket",), {"dtype": "float16"}, "float32, bfloat16"),
        (("pocket",), {"dtype": "single8"}, "float32, bfloat16"),
        (("pocket", 0), {}, "at least 1"),
    ],
)
def test_misspelt_names_and_options_are_one_clear_line(arguments, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        models.build(*arguments, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", with_larger_slow(models.MODELS))
def test_a_network_gives_what_its_entry_says(name):
    network = models.entry(name)
    odd = network.outputs == "heatmaps and offsets" or network.alignment == "aligned"
    h, w = (65, 97) if odd else (64, 96)
    images = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    model = models.build(name, 5)
    with ops.use_forms("stock"):  # Fewer operations to trace.
        output = jax.eval_shape(
            lambda key, images: model.init_with_output(key, images)[0],
            jax.random.key(0),
            images,
        )
    found = jax.tree.map(lambda leaf: leaf.shape, output)
    if network.outputs == "boxes":
        (b, anchors), *rest = found
        assert b == 2 and rest == [(2, anchors, 4), (2, 1), (2, 1, 4)]
        return
    if network.outputs == "coordinates":
        assert found == (2, 5, 2)
        return
    if network.outputs == "coordinate bins":
        assert found == ((2, 5, 2 * w), (2, 5, 2 * h))
        return
    maps = (2, -(-h // network.stride), -(-w // network.stride), 5)
    if network.outputs == "heatmaps":
        assert found == maps
        return
    of_people = ((*maps[:3], 1), (*maps, 2))
    assert found[:2] == (maps, (*maps, 2)) and found[2:] in ((), of_people)


@pytest.mark.parametrize(
    "name, count",
    [
        ("movenet_lightning", 2_317_974),
        ("movenet_thunder", 6_226_046),
        ("posenet_mobilenet_075", 1_233_555),
    ],
)
def test_networks_of_graphs_have_the_published_sizes(name, count):
    images = jax.ShapeDtypeStruct((1, 97, 97, 3), jnp.float32)
    if name != "posenet_mobilenet_075":
        images = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    variables = shapes(models.build(name), images)
    assert set(variables) == {"params"} and size(variables) == count


def test_pixels_are_normalized_as_the_entry_says():
    images = jnp.array([[[[0.0, 0.5, 1.0]]]])
    signed = models.entry("movenet_thunder").pixels
    np.testing.assert_allclose(signed.normalize(images), [[[[-1, 0, 1]]]])
    imagenet = models.entry("pocket").pixels
    expected = [[[[-0.485 / 0.229, 0.044 / 0.224, 0.594 / 0.225]]]]
    np.testing.assert_allclose(imagenet.normalize(images), expected, rtol=1e-6)
    for pixels in (signed, imagenet):
        back = pixels.denormalize(pixels.normalize(images))
        np.testing.assert_allclose(back, images, atol=1e-6)


# What somebody else's module may have.
OWN = models.Network("heatmaps", 4, partial(Pocket, width=8))
NO_NETWORK = Pocket


def test_a_network_from_elsewhere_is_built_by_its_import_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_networks", sys.modules[__name__])
    assert models.entry("own_networks:OWN") is OWN
    model = models.build("own_networks:OWN", 3, norm="group", blocks=(1, 1, 1))
    assert model == Pocket(3, norm="group", width=8, blocks=(1, 1, 1))
    for name, message in {
        "own_networks:NO_NETWORK": "is a .*; it must be a pose_jax.models.Network",
        "own_networks:ONW": "cannot be imported: .*'ONW'",
        "own_networks:": "cannot be imported",
        "networks_own:OWN": "cannot be imported: ModuleNotFoundError: .*networks_own",
    }.items():
        with pytest.raises(ConfigError, match=f"name: '{name}' {message}") as error:
            models.build(name)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="no option 'width'"):
        models.build("own_networks:OWN", width=4)
