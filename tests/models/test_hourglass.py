"""Hourglass: the published sizes and costs; one stack against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models
from pose_jax.models import cost, layers
from pose_jax.models.hourglass import Hourglass, Stack
from tests.models import networks
from tests.models.networks import slow_conv, slow_norm, slow_relu


def test_size_and_cost_are_the_published_ones():
    model = models.build("hourglass_4")
    images = jnp.zeros((1, 128, 96, 3))

    def init(key):
        return model.init(key, images, train=True)

    key = jax.random.key(0)
    macs, charged = cost.multiply_adds(init, key)
    assert charged == macs  # no transposed convolution
    assert round(macs / 2**30, 1) == 2.7
    params = jax.eval_shape(init, key)["params"]
    assert networks.size(params) == 13_020_612
    # Eight are four more.
    assert models.build("hourglass_8").stacks == 8
    assert 13_020_612 + 4 * networks.size(params["stack_0"]) == 25_598_472

    last = params["stack_3"]
    assert set(last) == {"hg", "res", "fc", "head"} and set(last["head"]) == {"score"}
    first = params["stack_0"]
    assert set(first) == {*last, "fc_"} and set(first["head"]) == {"score", "score_"}
    assert {level: set(first["hg"][level]) for level in first["hg"]} == {
        "0": {"0", "1", "2", "3"},
        **{level: {"0", "1", "2"} for level in "123"},
    }
    assert first["hg"]["3"]["1"]["0"]["conv2"]["kernel"].shape == (3, 3, 128, 128)
    assert first["head"]["score_"]["kernel"].shape == (1, 1, 17, 256)


def test_a_stack_matches_the_definition():
    """On 8x6 maps, which are 4x3 and 2x1 below: enlarged by 2 and, in one axis, by 3."""
    x = np.random.default_rng(1).normal(size=(2, 8, 6, 4)).astype(np.float32)

    def conv(features, kernel=3, **options):
        return layers.Conv(features, kernel, use_bias=True, **options)

    def norm(**options):
        return layers.Norm("batch", False, **options)

    stack = Stack(3, 2, False, conv, norm)
    variables = networks.fill(jax.eval_shape(stack.init, jax.random.key(0), x))
    params, stats = variables["params"], variables["batch_stats"]

    def residual(x, params, stats):
        (params,), (stats,) = params.values(), stats.values()
        y = x
        for i in "123":
            y = slow_relu(slow_norm(y, params[f"bn{i}"], stats[f"bn{i}"]))
            y = slow_conv(y, params[f"conv{i}"])
        return x + y

    def pool(x):
        b, h, w, c = x.shape
        x = x[:, : h // 2 * 2, : w // 2 * 2]
        return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    def enlarge(x, size):
        (h, w), (rows, columns) = x.shape[1:3], size
        out = np.zeros((len(x), rows, columns, x.shape[-1]))
        for i in range(rows):
            for j in range(columns):
                out[:, i, j] = x[:, i * h // rows, j * w // columns]
        return out

    def hourglass(x, level):
        def block(i, x):
            name = str(level)
            return residual(x, params["hg"][name][i], stats["hg"][name][i])

        low = block("1", pool(x))
        low = hourglass(low, level - 1) if level else block("3", low)
        return block("0", x) + enlarge(block("2", low), x.shape[1:3])

    y = residual(hourglass(np.float64(x), 1), params["res"], stats["res"])
    y = slow_conv(y, params["fc"]["0"])
    y = slow_relu(slow_norm(y, params["fc"]["1"], stats["fc"]["1"]))
    heatmaps = slow_conv(y, params["head"]["score"])
    onward = slow_conv(heatmaps, params["head"]["score_"])
    onward = x + slow_conv(y, params["fc_"]) + onward

    found = jax.jit(stack.apply)(variables, x)
    np.testing.assert_allclose(found[0], heatmaps, atol=1e-5)
    np.testing.assert_allclose(found[1], onward, atol=1e-5)


def test_each_stack_has_an_output_and_hears_of_those_before_alone():
    model = Hourglass(2, stacks=3, norm="frozen", width=4, depth=1)
    images = networks.random_images((1, 16, 24, 3))
    variables = networks.random_variables(model, images)

    @jax.jit
    def run(params):
        own = {**variables, "params": params}
        return model.apply(own, images), model.apply(own, images, train=True)

    final, outputs = run(variables["params"])
    assert [output.shape for output in outputs] == [(1, 4, 6, 2)] * 3
    np.testing.assert_array_equal(final, outputs[-1])

    def changed(*path):
        """Which outputs change with the parameters at `path`."""
        params = jax.tree.map(np.copy, variables["params"])
        part = params
        for name in path:
            part = part[name]
        for leaf in jax.tree.leaves(part):
            leaf *= 1.5
        _, others = run(params)
        return [
            bool(np.any(np.asarray(a) != b))
            for a, b in zip(outputs, others, strict=True)
        ]

    assert changed("layer1") == [True, True, True]
    assert changed("stack_0", "hg") == [True, True, True]
    assert changed("stack_0", "head", "score_") == [False, True, True]
    assert changed("stack_0", "fc_") == [False, True, True]
    assert changed("stack_1", "res") == [False, True, True]
    assert changed("stack_2") == [False, False, True]


@pytest.mark.parametrize(
    "options, size, message",
    [
        ({}, (64, 32), "at least 64, pixels, .* got 64 x 32"),
        ({"depth": 2}, (16, 20), "divisible by 8"),
        ({"stacks": 0}, (64, 64), "stacks must be at least 1"),
        ({"depth": 0}, (64, 64), "depth must be at least 1"),
        ({"width": 6}, (64, 64), "width must be divisible by 4"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, size, message):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    with pytest.raises(ValueError, match=message):
        networks.shapes(Hourglass(2, **{"stacks": 1, **options}), images)
