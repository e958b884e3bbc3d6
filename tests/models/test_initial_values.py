"""Every network's variables and initial values are those of `initial_values.json`.

    python -m tests.models.test_initial_values      # write the file again

Names, shapes and types are stored as one digest for each network, of all networks; values,
as drawn with one key, of small ones. Values are kept as two numbers for each module at the
top: the norm, and the product with a fixed vector. Random bits do not depend on the
machine, the last bit of what is computed of them may. They are XLA's own ("unsafe_rbg"),
since JAX's default bits compile for a minute; which key a parameter is drawn with is the
same for both.

A change of this file means that runs start from other weights, or that stored ones do not
fit: whoever writes it again says in the commit why.
"""

import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "jax" not in sys.modules:  # As tests/conftest.py has it.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

import jax
import numpy as np
import pytest

from pose_jax import models
from pose_jax.models import ops
from pose_jax.trees import flatten
from tests.models.networks import with_larger_slow

FILE = Path(__file__).with_name("initial_values.json")

# Name and options. Of the small ones values too.
SMALL = {
    "deeppose": {"width": 12, "features": 64},
    "faster_rcnn_18": {"width": 8, "features": 16, "head_features": 16},
    "faster_rcnn_fpn_18": {"width": 8, "features": 16, "head_features": 16},
    "faster_rcnn_pocket": {"width": 8, "head_features": 16},
    "hourglass_4": {"width": 16, "depth": 1},
    "multipose_18": {"width": 8},
    "multipose_pocket": {"width": 8},
    "pocket": {"width": 8},
    "resnet_regression_18": {"width": 8},
    "simcc_pocket": {},
    "simple_baseline_18": {"width": 8, "deconv_features": 8},
}
SHAPES = [
    *[(name, {}) for name in models.MODELS],
    ("pocket", {"norm": "group"}),
    ("multipose_pocket", {"norm": "group"}),
    ("faster_rcnn_pocket", {"norm": "group"}),
    ("simple_baseline_50", {"remat": True}),
    ("hrnet_w32", {"remat": True}),
    ("hourglass_4", {"remat": True, "norm": "group"}),
    ("faster_rcnn_fpn_18", {"remat": True}),
]


def _images(name):
    network = models.entry(name)
    odd = network.outputs == "heatmaps and offsets" or network.alignment == "aligned"
    side = 65 if odd else 64
    return jax.ShapeDtypeStruct((1, side, side, 3), np.float32)


def _digest(name, options):
    """Of the sorted names, shapes and types of all variables."""
    init = partial(models.build(name, **options).init, train=True)
    with ops.use_forms("stock"):  # Fewer operations to trace.
        shapes = flatten(jax.eval_shape(init, jax.random.key(0), _images(name)))
    lines = sorted(
        f"{'/'.join(path)} {leaf.shape} {leaf.dtype}" for path, leaf in shapes.items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _values(name, options):
    """Of each module at the top: norm, and product with a fixed vector."""
    key = jax.random.key(0, impl="unsafe_rbg")
    model = models.build(name, **options)
    # Draws the parameters and computes nothing of the network.
    with ops.use_forms("stock"), jax.debug_key_reuse(False):
        variables = model.lazy_init(key, _images(name), train=True)
    values = {}
    for module, leaves in variables.items():
        for top, tree in leaves.items():
            flat = np.concatenate(
                [np.float64(leaf).ravel() for _, leaf in sorted(flatten(tree).items())]
            )
            fixed = np.random.default_rng(flat.size).standard_normal(flat.size)
            values[f"{module}/{top}"] = [np.linalg.norm(flat), flat @ fixed]
    return values


def _label(name, options):
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


@pytest.mark.parametrize(
    "name, options", with_larger_slow(SHAPES), ids=[_label(*a) for a in SHAPES]
)
def test_names_shapes_and_types_are_the_stored_ones(name, options):
    stored = json.loads(FILE.read_text())["shapes"]
    assert _digest(name, options) == stored[_label(name, options)]


# The same ResNet as in simple_baseline_18, the same heads as in a pocket network.
_COMPOSED = (
    "faster_rcnn_pocket", "hourglass_4", "simcc_pocket", "simple_baseline_18",
    "faster_rcnn_18", "faster_rcnn_fpn_18", "multipose_18", "resnet_regression_18",
)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in _COMPOSED else ())
        for name in SMALL
    ],
)
def test_initial_values_are_the_stored_ones(name):
    stored = json.loads(FILE.read_text())["values"][name]
    found = _values(name, SMALL[name])
    assert found.keys() == stored.keys()
    for module, (norm, product) in stored.items():
        atol = 1e-5 * norm
        np.testing.assert_allclose(found[module], (norm, product), rtol=0, atol=atol)


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    stored = {
        "shapes": {_label(*case): _digest(*case) for case in SHAPES},
        "values": {name: _values(name, options) for name, options in SMALL.items()},
    }
    FILE.write_text(json.dumps(stored, indent=1) + "\n")
