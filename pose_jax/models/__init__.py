"""Registry of networks: `build(name)` returns a `flax.linen.Module`.

`build(name).apply(variables, images, train=False)` returns the final output alone. With
`train=True` it returns a tuple of all supervised outputs, the final one last; `init` runs
with `train=True`. Images are [b, h, w, 3], float, normalized. `entry(name)` says what the
output is, and the stride s of its maps:

    heatmaps              [b, h/s, w/s, k]
    heatmaps and offsets  logits [b, h/s, w/s, k] and offsets [b, h/s, w/s, k, 2] from each
                          pixel to the keypoint, (x, y), pixels of the input; in training
                          auxiliary logits come before the pair
    coordinates           [b, k, 2], (x, y) in units of the image, 0 at its center, +-0.5
                          at its edges
    coordinate bins       logits of x [b, k, split * w] and of y [b, k, split * h]
    boxes                 two halves, see `faster_rcnn`; the above description of `train`
                          does not apply

"deeppose" needs `rngs={"dropout": key}` to be applied with `train=True`.

A network outside this package is named `package.module:attribute`; the attribute is a
`Network`, whose `make` takes num_keypoints (except for boxes), norm and dtype.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, get_args

import flax.linen as nn

from pose_jax import registry
from pose_jax.errors import ConfigError, did_you_mean
from pose_jax.models.deeppose import DeepPose
from pose_jax.models.faster_rcnn import (
    FasterRCNN,
    FasterRCNNPocket,
    FasterRCNNPyramid,
)
from pose_jax.models.hourglass import Hourglass
from pose_jax.models.hrnet import HRNet
from pose_jax.models.layers import NormKind
from pose_jax.models.multipose import MultiPose, MultiPosePocket
from pose_jax.models.pocket import Pocket
from pose_jax.models.resnet_regression import ResNetRegression
from pose_jax.models.simcc import SimCC
from pose_jax.models.simple_baseline import SimpleBaseline

Outputs: TypeAlias = str
"""Kind of outputs that a method requires: "heatmaps", "heatmaps and offsets",
"coordinates", "boxes", or a name of your own for your own network and method."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the registry.

    Attributes:
      outputs: kind of its outputs.
      stride: pixels of the input from one pixel of its maps to the next; None where the
        output is not one map.
      make: builds the module from options.
    """

    outputs: Outputs
    stride: int | None
    make: Callable[..., nn.Module]


def _by_depth(
    name: str, outputs: Outputs, stride: int | None, make: Callable[..., nn.Module],
    depths: tuple[int, ...] = (18, 50, 101, 152),
) -> dict[str, Network]:  # fmt: skip
    return {
        f"{name}_{depth}": Network(outputs, stride, partial(make, depth=depth))
        for depth in depths
    }


MODELS: dict[str, Network] = {
    "deeppose": Network("coordinates", None, DeepPose),
    **_by_depth("faster_rcnn", "boxes", None, FasterRCNN, (18, 50, 101)),
    **_by_depth("faster_rcnn_fpn", "boxes", None, FasterRCNNPyramid, (18, 50, 101)),
    "faster_rcnn_pocket": Network("boxes", None, FasterRCNNPocket),
    "hourglass_4": Network("heatmaps", 4, partial(Hourglass, stacks=4)),
    "hourglass_8": Network("heatmaps", 4, partial(Hourglass, stacks=8)),
    "hrnet_w32": Network("heatmaps", 4, partial(HRNet, width=32)),
    "hrnet_w48": Network("heatmaps", 4, partial(HRNet, width=48)),
    **_by_depth("multipose", "heatmaps and offsets", 1, MultiPose, (18, 50, 101)),
    "multipose_pocket": Network("heatmaps and offsets", 1, MultiPosePocket),
    "pocket": Network("heatmaps", 4, Pocket),
    **_by_depth("resnet_regression", "coordinates", None, ResNetRegression),
    "simcc_pocket": Network("coordinate bins", None, SimCC),
    **_by_depth("simple_baseline", "heatmaps", 4, SimpleBaseline),
}

_DTYPES = ("float32", "bfloat16")


def entry(name: str) -> Network:
    """Returns a network by its registered name or import path.

    Args:
      name: a key of `MODELS`, or `package.module:attribute` of a `Network`.

    Raises:
      ConfigError: no such network.
    """
    network = registry.lookup(
        name, MODELS, kind="model", where="config.method.model.name"
    )
    if not isinstance(network, Network):
        raise ConfigError(
            f"config.method.model.name: {name!r} is a {type(network).__name__}; it must be "
            "a pose_jax.models.Network."
        )
    return network


def build(name: str, num_keypoints: int = 17, **options: Any) -> nn.Module:
    """Builds a network.

    Args:
      name: a key of `MODELS`, or `package.module:attribute` of a `Network`.
      num_keypoints: of the output, at least 1. Ignored for networks that output boxes.
      **options: attributes of the module. All have norm ("batch", "frozen" or "group";
        deeppose accepts only "batch") and dtype (of the computation: "float32" or
        "bfloat16"; parameters and outputs stay float32).

    Raises:
      ConfigError: for an unknown name or option, or an invalid value.
    """
    network = entry(name)
    if num_keypoints < 1:
        raise ConfigError(f"num_keypoints must be at least 1; got {num_keypoints}.")
    known = _options(network.make)
    for option in options:
        if option not in known:
            raise ConfigError(
                f"model {name!r} has no option {option!r}."
                f"{did_you_mean(option, known)} Known: {', '.join(known)}."
            )
    dtype = options.get("dtype", "float32")
    for option, value, values in [
        ("norm", options.get("norm", "batch"), get_args(NormKind)),
        ("dtype", getattr(dtype, "__name__", str(dtype)), _DTYPES),
    ]:
        if value not in values:
            raise ConfigError(
                f"{option} must be one of {', '.join(values)}; got {value!r}."
            )
    if network.outputs != "boxes":
        options["num_keypoints"] = num_keypoints
    return network.make(**options)


def _options(make: Callable[..., nn.Module]) -> list[str]:
    """The arguments of `make` that a config may set."""
    fixed = make.keywords if isinstance(make, partial) else {}
    hidden = {"num_keypoints", "name", "parent", *fixed}
    return [name for name in inspect.signature(make).parameters if name not in hidden]
