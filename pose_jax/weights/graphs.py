"""Published TensorFlow.js graphs, converted to variables.

The convolutions of a graph and those of a network are listed in the same order, that of
their computation, and must have the same shapes. What is stored as (y, x) becomes (x, y).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from pose_jax import models
from pose_jax.errors import ConfigError, InputError, did_you_mean
from pose_jax.models.layers import Conv, Depthwise
from pose_jax.weights import tfjs_file
from pose_jax.weights.tfjs_file import Layer


@dataclasses.dataclass(frozen=True)
class Graph:
    """A published graph.

    Attributes:
      input_size: (width, height) of the published input.
      points: order of the channels of points: (y, x) of each keypoint, or y of all and then
        x of all.
      heads: channels of its heads, some of which the network here may not have.
    """

    input_size: tuple[int, int]
    points: Literal["pairs", "planes"]
    heads: tuple[int, ...]

    @property
    def order(self) -> np.ndarray:
        """The stored channels in the order of our outputs: (x, y) of each keypoint."""
        channels = np.arange(2 * NUM_KEYPOINTS)
        if self.points == "pairs":
            return channels.reshape(-1, 2)[:, ::-1].reshape(-1)
        return channels.reshape(2, -1)[::-1].T.reshape(-1)


NUM_KEYPOINTS = 17
"""Keypoints of all published graphs: COCO's, in COCO's order."""

_MOVENET = Graph((192, 192), "pairs", (1, 17, 34, 34))
GRAPHS: Mapping[str, Graph] = {
    "movenet_lightning": _MOVENET,
    "movenet_thunder": dataclasses.replace(_MOVENET, input_size=(256, 256)),
    "posenet_mobilenet_075": Graph((257, 353), "planes", (17, 32, 32, 34)),
}


def from_tfjs(model_json: str | Path, name: str) -> dict[str, Any]:
    """Converts a published TensorFlow.js graph model to variables.

    Args:
      model_json: path of the model.json of the graph; its binary files lie beside it.
      name: "movenet_lightning", "movenet_thunder" or "posenet_mobilenet_075".

    Returns:
      {"params"}, float32 NumPy arrays, for `models.build(name).apply` to images in [-1, 1].
      Its output is (heatmap logits, offsets [b, h, w, k, 2] (x, y) in cells), for MoveNet
      then (center logits [b, h, w, 1], regression [b, h, w, k, 2] in cells).

    Raises:
      InputError: a file cannot be used, or is another network's.
      ConfigError: no graph of the network is published.
    """
    facts = facts_of(name)
    layers, heads = tfjs_file.read(model_json)
    ours = _our_layers(name, facts)
    if (mistake := _mistake(layers, heads, ours, facts)) is not None:
        raise InputError(
            f"{model_json} is not {name}: {mistake}.{_advice(layers, heads, name)}"
        )
    return {"params": unflatten_dict(_params(_used(layers, heads, ours), ours, facts))}


def facts_of(name: str) -> Graph:
    """Returns the entry of a network in `GRAPHS`; raises ConfigError if there is none."""
    if name not in GRAPHS:
        raise ConfigError(
            f"no TensorFlow.js graph of model {name!r} is published; use one of "
            f"{', '.join(GRAPHS)}.{did_you_mean(name, GRAPHS)}"
        )
    return GRAPHS[name]


@dataclasses.dataclass(frozen=True)
class _Ours:
    """A convolution of a network here: its path, shape of its kernel, whether it has a
    bias."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    biased: bool

    @property
    def is_of_points(self) -> bool:
        return self.shape[-1] == 2 * NUM_KEYPOINTS


def _our_layers(name: str, facts: Graph) -> list[_Ours]:
    """Returns the convolutions of a network, in the order in which they are called."""
    paths: list[tuple[str, ...]] = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, (Conv, Depthwise)):
            if context.method_name == "__call__" and context.module.path not in paths:
                paths.append(context.module.path)
        return call(*args, **kwargs)

    model = models.build(name, NUM_KEYPOINTS)
    w, h = facts.input_size
    with nn.intercept_methods(record):
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, h, w, 3)))
    found = []
    for path in paths:
        leaves: Any = params["params"]
        for part in path:
            leaves = leaves[part]
        found.append(_Ours(path, leaves["kernel"].shape, "bias" in leaves))
    return found


def _used(layers: list[Layer], heads: list[Layer], ours: list[_Ours]) -> list[Layer]:
    """Returns the layers without heads of a width that the network does not have."""
    widths = {layer.shape[-1] for layer in ours}
    unused = [head for head in heads if head.kernel.shape[-1] not in widths]
    return [layer for layer in layers if not any(layer is head for head in unused)]


def _mistake(
    layers: list[Layer], heads: list[Layer], ours: list[_Ours], facts: Graph
) -> str | None:
    """Returns the first difference from a network, in words."""
    widths = tuple(head.kernel.shape[-1] for head in heads)
    if widths != facts.heads:
        return (
            f"its {len(widths)} outputs have {list(widths)[:8]} channels, expected "
            f"{list(facts.heads)}"
        )
    layers = _used(layers, heads, ours)
    if len(layers) != len(ours):
        return f"it has {len(layers)} convolutions, expected {len(ours)}"
    for number, (layer, expected) in enumerate(zip(layers, ours, strict=True), 1):
        where = f"convolution {number} ({'/'.join(expected.path)})"
        if layer.kernel.shape != expected.shape:
            return f"{where} is {list(layer.kernel.shape)}, expected {list(expected.shape)}"
        if (layer.bias is not None) != expected.biased:
            return (
                f"{where} has {'an unknown' if expected.biased is False else 'no'} bias"
            )
        if layer.bias is not None and layer.bias.shape != expected.shape[-1:]:
            return f"{where} has a bias {list(layer.bias.shape)}"
        values = [layer.kernel] if layer.bias is None else [layer.kernel, layer.bias]
        if not all(np.isfinite(value).all() for value in values):
            return f"{where} has values that are not finite"
    return None


def _advice(layers: list[Layer], heads: list[Layer], asked: str) -> str:
    for name, facts in GRAPHS.items():
        if name != asked:
            if _mistake(layers, heads, _our_layers(name, facts), facts) is None:
                return f" It matches --model {name}."
    return ""


def _params(
    layers: list[Layer], ours: list[_Ours], facts: Graph
) -> dict[tuple[str, ...], np.ndarray]:
    params = {}
    for layer, own in zip(layers, ours, strict=True):
        leaves = {"kernel": layer.kernel, "bias": layer.bias}
        for leaf, value in leaves.items():
            if value is not None:
                value = value[..., facts.order] if own.is_of_points else value
                params[*own.path, leaf] = np.ascontiguousarray(value, np.float32)
    return params
