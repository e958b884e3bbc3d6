"""Registry of networks: `build(name)` returns a `flax.linen.Module`.

`build(name).apply(variables, images, train=False)` returns the final output alone. With
`train=True` it returns a tuple of all supervised outputs, the final one last; `init` runs
with `train=True`. Images are [b, h, w, 3], float, normalized. `entry(name)` says what the
output is, the stride s of its maps, how they are aligned, and which pixels it takes:

    heatmaps              [b, h/s, w/s, k]
    heatmaps and offsets  logits [b, h/s, w/s, k] and offsets [b, h/s, w/s, k, 2] from each
                          pixel to the keypoint, (x, y), pixels of the input; in training
                          auxiliary logits come before the pair
    cells                 logits [b, h/s, w/s, k] and offsets [b, h/s, w/s, k, 2] from each
                          cell (`Network.offset_origin`) to the keypoint, (x, y), in cells;
                          optionally then center
                          logits [b, h/s, w/s, 1] and the regression [b, h/s, w/s, k, 2]
                          from a person's center to its keypoints, (x, y), in cells
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
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias, get_args

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pose_jax import registry
from pose_jax.errors import ConfigError, did_you_mean
from pose_jax.geometry import Alignment
from pose_jax.models.deeppose import DeepPose
from pose_jax.models.efficientnet_lite import EfficientNetLite
from pose_jax.models.faster_rcnn import (
    FasterRCNN,
    FasterRCNNPocket,
    FasterRCNNPyramid,
)
from pose_jax.models.hourglass import Hourglass
from pose_jax.models.hrnet import HRNet
from pose_jax.models.layers import NormKind
from pose_jax.models.movenet import MoveNet
from pose_jax.models.multipose import MultiPose, MultiPosePocket
from pose_jax.models.pocket import Pocket
from pose_jax.models.posenet import PoseNet
from pose_jax.models.resnet_regression import ResNetRegression
from pose_jax.models.simcc import SimCC
from pose_jax.models.simple_baseline import SimpleBaseline
from pose_jax.models.vitpose import ViTPose

Outputs: TypeAlias = str
"""Kind of outputs that a method requires: "heatmaps", "heatmaps and offsets",
"cells", "coordinates", "boxes", or a name of your own for your own network and method."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Normalization of a network's input: (value - mean) / std for values in [0, 1].

    Attributes:
      mean, std: of red, green and blue.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalize(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Normalizes values in [0, 1]."""
        mean, std = self._rows()
        return (images - mean) / std

    def denormalize(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """The inverse of `normalize`, clipped to [0, 1], for visualization."""
        mean, std = self._rows()
        return jnp.clip(images * std + mean, 0, 1)

    def _rows(self) -> tuple[np.ndarray, ...]:
        pairs = (self.mean, self.std)
        return tuple(np.array(v, np.float32).reshape(1, 1, 1, 3) for v in pairs)


IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean 0 and standard deviation 1 over the images of ImageNet."""
SIGNED = Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Values in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the registry.

    Attributes:
      outputs: kind of its outputs.
      stride: pixels of the input from one pixel of its maps to the next, unless it has an
        option of this name; None where the output is not one map.
      make: builds the module from options.
      pixels: normalization of its input.
      alignment: of its maps with the input, where the method has no setting for it.
      norms: values of the option `norm`, the default first.
      offset_origin: where in a cell its offset starts, (x, y) from its center, in cells.
      heads: the parameters with channels of keypoints, as patterns (`trees.path_matches`,
        the first that matches counts), and how their channels are divided: consecutive
        groups, each with so many channels for keypoint 0, then for keypoint 1 and so on.
    """

    outputs: Outputs
    stride: int | None
    make: Callable[..., nn.Module]
    pixels: Pixels = IMAGENET
    alignment: Alignment = "stride"
    norms: tuple[str, ...] = get_args(NormKind)
    offset_origin: tuple[float, float] = (0.0, 0.0)
    heads: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


_MAPS = {"head": (1,)}
_POINTS = {"head": (2,)}
_SHUFFLED = {"head": (1, 1, 1, 1)}
_MAPS_AND_OFFSETS = {"auxiliary/head": (1,), "head": (1, 2)}


def _by_depth(
    name: str, outputs: Outputs, stride: int | None, make: Callable[..., nn.Module],
    depths: tuple[int, ...] = (18, 50, 101, 152),
    heads: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Network]:  # fmt: skip
    return {
        f"{name}_{depth}": Network(
            outputs, stride, partial(make, depth=depth), heads=heads or {}
        )
        for depth in depths
    }


_VITPOSE = {  # Features, layers and heads.
    "small": (384, 12, 12), "base": (768, 12, 12), "large": (1024, 24, 16),
}  # fmt: skip


def _vitpose(size: str, simple: bool) -> Network:
    features, layers, heads = _VITPOSE[size]
    make = partial(ViTPose, features=features, heads=heads, simple=simple)
    if layers != 12:  # The default, which stays an option.
        make = partial(make, layers=layers)
    norms = ("none",) if simple else get_args(NormKind)
    return Network("heatmaps", 4, make, norms=norms, heads=_MAPS)


def _movenet(width: float) -> Network:
    make = partial(MoveNet, width=width)
    return Network(
        "cells", 4, make, SIGNED, "half_pixel", norms=("none",),
        offset_origin=(-0.5, -0.5),
        heads={
            "heatmap/output": (1,), "offset/output": (2,), "regression/output": (2,),
        },
    )  # fmt: skip


def _hourglass(stacks: int) -> Network:
    heads = {"score": (1,), "score_": (1,)}
    return Network("heatmaps", 4, partial(Hourglass, stacks=stacks), heads=heads)


MODELS: dict[str, Network] = {
    "deeppose": Network("coordinates", None, DeepPose, heads=_POINTS),
    "efficientnet_lite0": Network("heatmaps", 4, EfficientNetLite, SIGNED, heads=_MAPS),
    **_by_depth("faster_rcnn", "boxes", None, FasterRCNN, (18, 50, 101)),
    **_by_depth("faster_rcnn_fpn", "boxes", None, FasterRCNNPyramid, (18, 50, 101)),
    "faster_rcnn_pocket": Network("boxes", None, FasterRCNNPocket),
    "hourglass_4": _hourglass(4),
    "hourglass_8": _hourglass(8),
    "hrnet_w32": Network("heatmaps", 4, partial(HRNet, width=32), heads=_MAPS),
    "hrnet_w48": Network("heatmaps", 4, partial(HRNet, width=48), heads=_MAPS),
    "movenet_lightning": _movenet(1.0),
    "movenet_thunder": _movenet(1.75),
    **_by_depth(
        "multipose",
        "heatmaps and offsets",
        1,
        MultiPose,
        (18, 50, 101),
        heads=_MAPS_AND_OFFSETS,
    ),
    "multipose_pocket": Network(
        "heatmaps and offsets", 1, MultiPosePocket, heads=_MAPS_AND_OFFSETS
    ),
    "pocket": Network("heatmaps", 4, Pocket, heads=_SHUFFLED),
    "posenet_mobilenet_075": Network(
        "cells",
        16,
        partial(PoseNet, width=0.75),
        SIGNED,
        "aligned",
        norms=("none",),
        heads={"heatmap": (1,), "offset": (2,)},
    ),
    **_by_depth(
        "resnet_regression", "coordinates", None, ResNetRegression, heads=_POINTS
    ),
    "simcc_pocket": Network("coordinate bins", None, SimCC, heads=_SHUFFLED),
    **_by_depth("simple_baseline", "heatmaps", 4, SimpleBaseline, heads=_MAPS),
    **{
        f"vitpose_{size}{'_simple' if simple else ''}": _vitpose(size, simple)
        for size in _VITPOSE
        for simple in (False, True)
    },
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
      **options: attributes of the module. All have norm (one of `Network.norms`: "batch",
        "frozen" or "group"; deeppose accepts only "batch", movenet, posenet and
        vitpose_*_simple only "none")
        and dtype (of the computation: "float32" or
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
        ("norm", options.get("norm", network.norms[0]), network.norms),
        ("dtype", getattr(dtype, "__name__", str(dtype)), _DTYPES),
    ]:
        if value not in values:
            raise ConfigError(
                f"{option} must be one of {', '.join(values)}; got {value!r}."
            )
    if network.outputs != "boxes":
        options["num_keypoints"] = num_keypoints
    return network.make(**options)


def stride(name: str, options: Mapping[str, Any]) -> int | None:
    """Returns the stride of the maps of a network with these options."""
    return options.get("stride", entry(name).stride)


def _options(make: Callable[..., nn.Module]) -> list[str]:
    """The arguments of `make` that a config may set."""
    fixed = make.keywords if isinstance(make, partial) else {}
    hidden = {"num_keypoints", "name", "parent", *fixed}
    return [name for name in inspect.signature(make).parameters if name not in hidden]
