"""The networks, by name: `build(name)` gives a `flax.linen.Module`.

`build(name).apply(variables, images, train=False)` returns the final output alone. With
`train=True` it returns a tuple of all supervised outputs, the final one last; `init` runs
with `train=True`. Images are [b, h, w, 3], float, normalised. The output is, by kind:

    heatmaps     [b, h/4, w/4, k]  hourglass, hrnet, pocket, simple_baseline
    coordinates  [b, k, 2]         deeppose, resnet_regression: (x, y) in units of the
                                   image, 0 at its centre, +-0.5 at its edges
    logits       [b, h, w, k]      multipose: of heatmaps, and
    and offsets  [b, h, w, k, 2]   (x, y) to the keypoint, pixels; h and w are 8n + 1, and
                                   in training auxiliary logits come before the pair
    boxes        two halves        faster_rcnn: see `faster_rcnn`; what is said above of
                                   `train` is not of them

"deeppose" needs `rngs={"dropout": key}` to be applied with `train=True`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import flax.linen as nn

from pose_jax.errors import ConfigError
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
from pose_jax.models.simple_baseline import SimpleBaseline

__all__ = [
    "COORDINATES",
    "DETECTORS",
    "HEATMAPS",
    "HEATMAPS_AND_OFFSETS",
    "MODELS",
    "build",
]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "deeppose": DeepPose,
    "faster_rcnn_18": partial(FasterRCNN, depth=18),
    "faster_rcnn_50": partial(FasterRCNN, depth=50),
    "faster_rcnn_101": partial(FasterRCNN, depth=101),
    "faster_rcnn_fpn_18": partial(FasterRCNNPyramid, depth=18),
    "faster_rcnn_fpn_50": partial(FasterRCNNPyramid, depth=50),
    "faster_rcnn_fpn_101": partial(FasterRCNNPyramid, depth=101),
    "faster_rcnn_pocket": FasterRCNNPocket,
    "hourglass_4": partial(Hourglass, stacks=4),
    "hourglass_8": partial(Hourglass, stacks=8),
    "hrnet_w32": partial(HRNet, width=32),
    "hrnet_w48": partial(HRNet, width=48),
    "multipose_18": partial(MultiPose, depth=18),
    "multipose_50": partial(MultiPose, depth=50),
    "multipose_101": partial(MultiPose, depth=101),
    "multipose_pocket": MultiPosePocket,
    "pocket": Pocket,
    "resnet_regression_18": partial(ResNetRegression, depth=18),
    "resnet_regression_50": partial(ResNetRegression, depth=50),
    "resnet_regression_101": partial(ResNetRegression, depth=101),
    "resnet_regression_152": partial(ResNetRegression, depth=152),
    "simple_baseline_18": partial(SimpleBaseline, depth=18),
    "simple_baseline_50": partial(SimpleBaseline, depth=50),
    "simple_baseline_101": partial(SimpleBaseline, depth=101),
    "simple_baseline_152": partial(SimpleBaseline, depth=152),
}


HEATMAPS = ("hourglass_", "hrnet_", "pocket", "simple_baseline_")
"""What the names of networks that give heatmaps begin with."""

COORDINATES = ("deeppose", "resnet_regression_")
"""What the names of networks that give coordinates begin with."""

HEATMAPS_AND_OFFSETS = ("multipose_",)
"""What the names of networks that give heatmaps' logits and offsets begin with."""

DETECTORS = ("faster_rcnn_",)
"""What the names of networks that find boxes begin with; they know no keypoints."""

_DTYPES = ("float32", "bfloat16")


def build(name: str, num_keypoints: int = 17, **options: Any) -> nn.Module:
    """Builds a network.

    Args:
      name: a key of `MODELS`.
      num_keypoints: of the output, at least 1. Detectors have none.
      **options: attributes of the module. All have norm ("batch", "frozen" or "group";
        deeppose takes the first alone) and dtype (of the computation: "float32" or
        "bfloat16"; parameters and outputs stay float32).

    Raises:
      ConfigError: for an unknown name or option, or a value that cannot be.
    """
    if name not in MODELS:
        raise ConfigError(
            f"no model {name!r}; did you mean {_nearest(name, MODELS)!r}? "
            f"Known: {', '.join(MODELS)}."
        )
    if num_keypoints < 1:
        raise ConfigError(f"num_keypoints must be at least 1; got {num_keypoints}.")
    make = MODELS[name]
    known = _options(make)
    for option in options:
        if option not in known:
            raise ConfigError(
                f"model {name!r} has no option {option!r}; did you mean "
                f"{_nearest(option, known)!r}? Known: {', '.join(known)}."
            )
    if not name.startswith(DETECTORS):
        options["num_keypoints"] = num_keypoints
    model = make(**options)
    for option, value, values in [
        ("norm", model.norm, get_args(NormKind)),
        ("dtype", getattr(model.dtype, "__name__", str(model.dtype)), _DTYPES),
    ]:
        if value not in values:
            raise ConfigError(
                f"{option} must be one of {', '.join(values)}; got {value!r}."
            )
    return model


def _options(make: Callable[..., nn.Module]) -> list[str]:
    """The attributes of a module that a config may set."""
    cls, fixed = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    hidden = {"num_keypoints", "name", "parent", *fixed}
    return [field for field in cls.__dataclass_fields__ if field not in hidden]


def _nearest(word: str, words: Any) -> str:
    return difflib.get_close_matches(word, list(words), n=1, cutoff=0.0)[0]


class _E:
    def __init__(self, outputs, stride):
        self.outputs, self.stride = outputs, stride


def entry(name):
    if name.startswith(HEATMAPS):
        return _E("heatmaps", 4)
    if name.startswith(COORDINATES):
        return _E("coordinates", None)
    if name.startswith(HEATMAPS_AND_OFFSETS):
        return _E("heatmaps and offsets", 1)
    return _E("boxes", None)
