"""Small networks, variables for them, and their layers in float64 NumPy, for tests."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models
from pose_jax.models import ops
from pose_jax.models.hourglass import Hourglass
from pose_jax.models.hrnet import HRNet

IMAGES = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)  # not square

# Small enough to run; each still has every layer. num_keypoints, **options -> a module.
SMALL = {
    "pocket": partial(models.build, "pocket", width=8),
    "simple_baseline_18": partial(
        models.build, "simple_baseline_18", width=8, deconv_features=8
    ),
    "hrnet": partial(HRNet, width=4, stem_width=4, modules=(1, 1, 1), blocks=1),
    "hourglass": partial(Hourglass, stacks=2, width=8, depth=1),
}


# The code of a smaller network of the same family, which takes longer to trace.
_LARGER = (
    "hourglass_8",
    "hrnet_w48",
    "movenet_thunder",
    *(f"{f}_101" for f in ("faster_rcnn", "faster_rcnn_fpn", "multipose")),
    *(f"{f}_50" for f in ("faster_rcnn", "multipose", "resnet_regression")),
    "vitpose_base",
    "vitpose_base_simple",
    "vitpose_large",
    "vitpose_large_simple",
    *(
        f"{family}_{depth}"
        for family in ("resnet_regression", "simple_baseline")
        for depth in (101, 152)
    ),
)


def with_larger_slow(cases):
    """Cases for `parametrize`, whose first argument is the name of a network: those of
    networks that differ from others in size alone are marked as slow."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = pytest.mark.slow if values[0] in _LARGER else ()
        marked.append(pytest.param(*values, marks=marks))
    return marked


def shapes(model, images=IMAGES):
    """The variables of a model without values."""
    with ops.use_forms("stock"):  # Fewer operations to trace.
        return jax.eval_shape(
            lambda key, x: model.init(key, x, train=True), jax.random.key(0), images
        )


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def fill(tree):
    """Random variables without the initialisers, which take long to compile."""
    random = np.random.default_rng(0)

    def leaf(path, leaf):
        name = path[-1].key
        scale = 0.5 / np.sqrt(max(size(leaf) / leaf.shape[-1], 1))
        value = scale * random.normal(size=leaf.shape)
        return np.float32(np.exp(value) if name in ("scale", "var") else value)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def random_variables(model, images=IMAGES):
    return fill(shapes(model, images))


def random_images(size=IMAGES.shape):
    return np.random.default_rng(1).normal(size=size).astype(np.float32)


def slow_conv(x, params, stride=1):
    """A convolution padded by half of its kernel, output pixel by output pixel."""
    kernel = np.float64(params["kernel"])
    side = kernel.shape[0]
    x = np.pad(x, [(0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)])
    h, w = ((n - side) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), h, w, kernel.shape[-1]))
    for i in range(h):
        for j in range(w):
            y, z = i * stride, j * stride
            seen = x[:, y : y + side, z : z + side]
            out[:, i, j] = np.tensordot(seen, kernel, 3)
    return out + params.get("bias", 0.0)


def slow_norm(x, params, stats):
    """BatchNorm in evaluation."""
    standard = (x - stats["mean"]) / np.sqrt(np.float64(stats["var"]) + 1e-5)
    return standard * params["scale"] + params["bias"]


def slow_relu(x):
    return np.maximum(x, 0)
