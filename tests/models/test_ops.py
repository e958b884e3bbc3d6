"""Operations against their definitions, and the fast forms against the stock ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pose_jax.models import ops

# Height, width: not square, odd and even.
SIZES = [(16, 14), (17, 13)]


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _both_forms(function, *args):
    """Outputs and gradients (of a random projection) under both forms."""
    results = []
    for forms in ("fast", "stock"):
        with ops.use_forms(forms):

            def run(weight, *args):
                out, pull = jax.vjp(function, *args)
                return out, pull(weight)

            shape = jax.eval_shape(function, *args).shape
            results.append(jax.jit(run)(_normal(*shape, seed=2), *args))
    return results


def _assert_forms_agree(function, *args):
    fast, stock = _both_forms(function, *args)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(stock), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()), rtol=0)


def _correlate(x, kernel, stride, padding, dilation):
    """The definition, in loops."""
    x = np.pad(x.astype(np.float64), [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)])
    reach = dilation * (kernel.shape[0] - 1)
    rows, columns = ((n - reach - 1) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            for a in range(kernel.shape[0]):
                for b in range(kernel.shape[1]):
                    seen = x[:, i * stride + a * dilation, j * stride + b * dilation]
                    out[:, i, j] += seen @ kernel[a, b].astype(np.float64)
    return out


CONVOLUTIONS = [  # kernel, stride, padding, dilation, channels
    (1, 1, 0, 1, 3),
    (1, 2, 0, 1, 3),
    (3, 1, 1, 1, 96),
    (3, 2, 1, 1, 96),
    (3, 1, 2, 2, 96),
    (7, 2, 3, 1, 3),
]


@pytest.mark.parametrize("size", [*SIZES, (3, 2), (4, 5)])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv_matches_the_definition_in_both_forms(case, size):
    kernel_size, stride, padding, dilation, c = case
    x, kernel = _normal(2, *size, c), _normal(kernel_size, kernel_size, c, c, seed=1)

    def convolve(x, kernel):
        return ops.conv(x, kernel, stride=stride, padding=padding, dilation=dilation)

    _assert_forms_agree(convolve, x, kernel)
    np.testing.assert_allclose(
        convolve(x, kernel),
        _correlate(x, kernel, stride, padding, dilation),
        atol=1e-3,
    )


def test_wide_convolutions_really_take_the_other_gradient():
    def kernel_gradient(x, kernel):
        return jax.grad(lambda k: ops.conv(x, k, padding=1).sum())(kernel)

    x = jnp.zeros((1, 8, 6, 96))
    jaxprs = {}
    for forms in ("fast", "stock"):
        with ops.use_forms(forms):
            # A new function each time: traces are cached by function.
            jaxprs[forms] = str(
                jax.make_jaxpr(lambda *a: kernel_gradient(*a))(
                    x, jnp.zeros((3, 3, 96, 96))
                )
            )
    assert jaxprs["fast"].count("dot_general") == 9
    assert "dot_general" not in jaxprs["stock"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "side, stride, dilation", [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 2, 1)]
)
def test_depthwise_matches_flax_in_both_forms(side, stride, dilation, size):
    x, kernel = _normal(2, *size, 6), _normal(side, side, 1, 6, seed=1)

    def convolve(x, kernel):
        return ops.depthwise(x, kernel, stride=stride, dilation=dilation)

    _assert_forms_agree(convolve, x, kernel)
    flax = nn.Conv(
        6, (side, side), stride, "VALID", feature_group_count=6, use_bias=False,
        kernel_dilation=dilation,
    )  # fmt: skip
    expected = flax.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(convolve(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (2, 3)])
@pytest.mark.parametrize(
    "side, stride, dilation", [(3, 1, 1), (3, 2, 1), (1, 2, 1), (3, 1, 2)]
)
def test_same_padding_is_tensorflows(side, stride, dilation, size):
    x, kernel = _normal(1, *size, 2), _normal(side, side, 2, 2, seed=1)
    padded = ops.pad_same(x, kernel=side, stride=stride, dilation=dilation)
    ours = ops.conv(padded, kernel, stride=stride, dilation=dilation)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(3, 5), (1, 2)])
def test_upsample_half_pixel_is_bilinear_interpolation_of_pixel_areas(size):
    x = _normal(2, *size, 3)
    h, w = size
    expected = jax.image.resize(x, (2, 2 * h, 2 * w, 3), "bilinear")
    np.testing.assert_allclose(ops.upsample_half_pixel(x), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_conv_transpose_matches_flax_in_both_forms(size):
    x, kernel = _normal(2, *size, 3), _normal(4, 4, 3, 5, seed=1)
    _assert_forms_agree(ops.conv_transpose, x, kernel)
    flax = nn.ConvTranspose(5, (4, 4), (2, 2), use_bias=False)
    np.testing.assert_allclose(
        ops.conv_transpose(x, kernel),
        flax.apply({"params": {"kernel": kernel}}, x),
        atol=1e-5,
    )


def test_conv_transpose_is_pytorchs_with_a_flipped_kernel():
    h, w = 3, 2
    x, torch_kernel = (
        _normal(1, h, w, 2),
        _normal(2, 3, 4, 4, seed=1),
    )  # [in, out, 4, 4]
    expected = np.zeros((1, 2 * h + 2, 2 * w + 2, 3))
    for i in range(h):
        for j in range(w):
            for a in range(4):
                for b in range(4):
                    stamp = x[:, i, j] @ torch_kernel[:, :, a, b]
                    expected[:, 2 * i + a, 2 * j + b] += stamp
    expected = expected[:, 1:-1, 1:-1]  # padding=1 cuts a border off
    kernel = torch_kernel.transpose(2, 3, 0, 1)[::-1, ::-1]
    with ops.use_forms("fast"):
        np.testing.assert_allclose(ops.conv_transpose(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window, stride, padding", [(3, 2, 1), (3, 2, 0), (2, 2, 0)])
def test_max_pool_matches_flax_in_both_forms_also_at_ties(
    window, stride, padding, size
):
    def pool(x):
        return ops.max_pool(x, window=window, stride=stride, padding=padding)

    # Few values: almost every window has a tie, and the gradient goes to the first.
    x = np.random.default_rng(0).integers(-2, 1, (2, *size, 16)).astype(np.float32)
    fast, stock = _both_forms(pool, x)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(stock), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("forms", ["fast", "stock"])
def test_max_pool_shows_nan(forms):
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 1, 2] = np.nan
    with ops.use_forms(forms):
        pooled = np.asarray(ops.max_pool(x, window=2, stride=2))[0, :, :, 0]
    np.testing.assert_array_equal(np.isnan(pooled), [[False, True], [False, False]])


def test_max_pool_refuses_windows_of_padding_alone():
    with pytest.raises(ValueError, match="padding"):
        ops.max_pool(jnp.zeros((1, 4, 4, 1)), window=2, stride=2, padding=2)


@pytest.mark.parametrize("size", [(10, 6), (5, 6), (9, 7), (7, 3), (20, 9)])
def test_upsample_nearest_matches_the_definition(size):
    x = _normal(2, 3, 5, 2)
    w, h = size
    enlarged = ops.upsample_nearest(x, size=size)
    assert enlarged.shape == (2, h, w, 2)
    for i in range(h):
        for j in range(w):
            np.testing.assert_array_equal(
                enlarged[:, i, j], x[:, int(i * 3 / h), int(j * 5 / w)]
            )


def test_space_to_depth_cuts_patches_and_depth_to_space_puts_them_back():
    x = _normal(2, 4, 6, 3)
    patches = ops.space_to_depth(x, 2)
    assert patches.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(patches[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(ops.depth_to_space(patches, 2), x)
    with pytest.raises(ValueError, match="divisible by 4"):
        ops.space_to_depth(x, 4)


OPERATIONS = {
    "conv_1x1": (ops.conv, (1, 8, 6, 4), (1, 1, 4, 4)),
    "conv_wide": (partial(ops.conv, padding=1), (1, 8, 6, 96), (3, 3, 96, 96)),
    "conv_small_maps": (partial(ops.conv, padding=1), (1, 2, 3, 4), (3, 3, 4, 4)),
    "depthwise": (ops.depthwise, (1, 8, 6, 4), (3, 3, 1, 4)),
    "conv_transpose": (ops.conv_transpose, (1, 4, 3, 4), (4, 4, 4, 4)),
    "max_pool": (partial(ops.max_pool, window=3, stride=2), (1, 9, 7, 4)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_program_has_the_form_of_the_platform_it_is_lowered_for(name):
    """Its gradient and under vmap and remat too, whatever the backend here is."""
    function, *shapes = OPERATIONS[name]
    args = [jnp.zeros((2, *shape)) for shape in shapes]

    def loss(*args):
        return jnp.sum(jax.vmap(jax.remat(function))(*args) ** 2)

    gradient = jax.grad(loss, argnums=tuple(range(len(args))))
    for platform, count in (("cpu", True), ("cuda", False), ("tpu", False)):
        for f in (jax.vmap(function), gradient):
            lowered = jax.jit(f).trace(*args).lower(lowering_platforms=(platform,))
            text = lowered.as_text(debug_info=True)
            assert (ops.FAST_SCOPE in text) == count, platform


def test_a_form_can_be_forced_and_the_override_is_undone():
    x, kernel = jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 1, 2, 2))

    def primitives():
        # A new function each time: traces are cached by function.
        jaxpr = jax.make_jaxpr(lambda *args: ops.conv(*args))(x, kernel)
        return {equation.primitive.name for equation in jaxpr.eqns}

    assert "cond" in primitives()
    with ops.use_forms("stock"):
        assert primitives() == {"conv_general_dilated"}
        with ops.use_forms("fast"):
            assert "dot_general" in primitives()
        assert primitives() == {"conv_general_dilated"}
    assert "cond" in primitives()
    with pytest.raises(ValueError, match="form"), ops.use_forms("quick"):
        pass
