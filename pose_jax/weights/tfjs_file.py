"""Reads the convolutions of TensorFlow.js graph models, without TensorFlow.

A graph model is a file model.json, with the graph and a list of its constants, and binary
files ("shards") with their values, named relative to model.json. Convolutions are found by
the edges of the graph, from the outputs back to the input; names have no meaning here.
"""

from __future__ import annotations

import collections
import dataclasses
import graphlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax.errors import InputError, one_line

_CONVOLUTIONS = ("Conv2D", "FusedConv2D")
_DEPTHWISE = ("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
_ADDITIONS = ("Add", "AddV2", "BiasAdd")
_DTYPES = {"float32": "f4", "int32": "i4", "bool": "?", "complex64": "c8"}
_STORED = {"float16": "f2", "uint8": "u1", "uint16": "u2"}
"""Types of quantized values: float16 as they are, others by scale and minimum."""


class _Unusable(Exception):
    """The reason why a model cannot be read; `read` adds the file name."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution.

    Attributes:
      kernel: [h, w, in, out]; of a depthwise convolution [h, w, 1, channels].
      bias: [out], or None.
    """

    kernel: np.ndarray
    bias: np.ndarray | None

    @property
    def depthwise(self) -> bool:
        return self.kernel.shape[2] == 1 and self.kernel.shape[:2] != (1, 1)


@dataclasses.dataclass(frozen=True)
class _Node:
    name: str
    operation: str
    inputs: tuple[str, ...]


def read(model_json: str | Path) -> tuple[list[Layer], list[Layer]]:
    """Reads the convolutions of a graph model.

    Args:
      model_json: path of model.json; the shards lie where it says, relative to it.

    Returns:
      All convolutions, and those of them that no other one depends on (the heads). Both in
      order of computation: head by head, each after everything that it depends on. Heads
      are ordered by channels, and those of equal channels by their distance from the end of
      the graph, the largest first. Of two summands the one behind more convolutions is
      first. Values are float32.

    Raises:
      InputError: a file is missing, too short, too long or damaged, or the model is of
        another format.
    """
    path = Path(model_json)
    try:
        content = _content(path)
        try:
            nodes = _nodes(content["modelTopology"]["node"])
            return _layers(nodes, _constants(content["weightsManifest"], path.parent))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = one_line(f"{type(error).__name__}: {error}", 80)
            raise _Unusable(f"is not a valid graph model ({what}).") from None
    except _Unusable as error:
        raise InputError(f"{path} {error}") from None


def shards(model_json: str | Path) -> list[Path]:
    """Returns the binary files of a graph model that `read` accepts."""
    path = Path(model_json)
    manifest = json.loads(path.read_bytes())["weightsManifest"]
    return [path.parent / name for group in manifest for name in group["paths"]]


# ------------------------------------------------------------------------------- values


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _Unusable(f"cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise _Unusable(
            f"is not a JSON file ({one_line(error, 80)}): give the model.json of a "
            "TensorFlow.js graph model."
        ) from None
    if not isinstance(content, dict) or "weightsManifest" not in content:
        raise _Unusable(
            "has no weightsManifest: give the model.json of a TensorFlow.js graph model."
        )
    if content.get("format", "graph-model") != "graph-model":
        raise _Unusable(
            f"is a {one_line(content['format'], 40)}; only graph models are supported."
        )
    return content


def _constants(manifest: Sequence[Any], folder: Path) -> dict[str, np.ndarray]:
    """Returns the constants by the names of their nodes."""
    constants = {}
    for group in manifest:
        content = b"".join(_shard(folder / name) for name in group["paths"])
        words = f"{', '.join(group['paths'])[:120]} in {folder}"
        start = 0
        for weight in group["weights"]:
            stored, value = _stored(weight)
            count = math.prod(weight["shape"])
            end = start + count * stored.itemsize
            if end > len(content):
                total = start + _bytes_from(group["weights"], weight)
                raise _Unusable(
                    f"needs {total} bytes of {words}, which has {len(content)}: the file "
                    "is incomplete; download it again."
                )
            numbers = np.frombuffer(content, stored, count, start)
            constants[weight["name"]] = value(numbers).reshape(weight["shape"])
            start = end
        if start != len(content):
            raise _Unusable(
                f"needs {start} bytes of {words}, which has {len(content)}: it belongs to "
                "another model, or its download was damaged."
            )
    return constants


def _shard(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Unusable(
            f"needs {path}, which cannot be read ({error.strerror}): put it there."
        ) from None


def _bytes_from(weights: Sequence[Mapping[str, Any]], first: Any) -> int:
    rest = weights[weights.index(first) :]
    return sum(math.prod(w["shape"]) * _stored(w)[0].itemsize for w in rest)


def _stored(weight: Mapping[str, Any]):
    """Returns the stored type of a constant, and a function from stored to true values."""
    quantization = weight.get("quantization")
    if quantization is None:
        kind = weight["dtype"]
        if kind not in _DTYPES:
            raise _Unusable(f"has constants of the unsupported type {kind[:40]!r}.")
        return np.dtype("<" + _DTYPES[kind]), lambda numbers: numbers
    kind = quantization["dtype"]
    if kind not in _STORED:
        raise _Unusable(
            f"has constants quantized to the unsupported type {kind[:40]!r}."
        )
    stored = np.dtype("<" + _STORED[kind])
    if kind == "float16":
        return stored, lambda numbers: numbers.astype(np.float32)
    scale, low = np.float32(quantization["scale"]), np.float32(quantization["min"])
    return stored, lambda numbers: numbers.astype(np.float32) * scale + low


# -------------------------------------------------------------------------------- graph


def _nodes(entries: Sequence[Mapping[str, Any]]) -> dict[str, _Node]:
    """Returns nodes by name, in an order of computation."""
    nodes = {}
    for entry in entries:
        inputs = [name for name in entry.get("input", []) if not name.startswith("^")]
        inputs = tuple(name.partition(":")[0] for name in inputs)
        operation = entry["op"].removeprefix("_")  # "_FusedConv2D" in older files.
        nodes[entry["name"]] = _Node(entry["name"], operation, inputs)
    missing = {i for node in nodes.values() for i in node.inputs} - nodes.keys()
    if missing:
        raise _Unusable(f"has no node {min(missing)[:80]!r}, which others need.")
    order = graphlib.TopologicalSorter({n.name: n.inputs for n in nodes.values()})
    try:
        return {name: nodes[name] for name in order.static_order()}
    except graphlib.CycleError:
        raise _Unusable("has a loop; only feed-forward graphs are supported.") from None


def _layers(
    nodes: Mapping[str, _Node], constants: Mapping[str, np.ndarray]
) -> tuple[list[Layer], list[Layer]]:
    kinds = _CONVOLUTIONS + _DEPTHWISE
    consumers = collections.defaultdict(list)
    depth: dict[str, int] = {}  # Convolutions on the longest path from the input.
    for node in nodes.values():
        own = node.operation in kinds
        depth[node.name] = own + max((depth[i] for i in node.inputs), default=0)
        for name in node.inputs:
            consumers[name].append(node)
    after: dict[str, int] = {}  # Nodes on the longest path to the end.
    inner: set[str] = set()  # Nodes that convolutions depend on.
    for name in reversed(list(nodes)):
        after[name] = max((1 + after[c.name] for c in consumers[name]), default=0)
        if any(c.operation in kinds or c.name in inner for c in consumers[name]):
            inner.add(name)
    layers = {
        node.name: _layer(node, consumers[node.name], constants)
        for node in nodes.values()
        if node.operation in kinds
    }
    heads = [name for name in layers if name not in inner]
    heads.sort(key=lambda name: (layers[name].kernel.shape[-1], -after[name]))
    order = [layers[name] for name in _ordered(heads, nodes, depth) if name in layers]
    return order, [layers[name] for name in heads]


def _ordered(
    heads: Sequence[str], nodes: Mapping[str, _Node], depth: Mapping[str, int]
) -> Iterator[str]:
    """Yields the names of nodes, each after its inputs, of which the deepest are first."""
    done: set[str] = set()
    for head in heads:
        path = [head]
        while path:
            inputs = sorted(nodes[path[-1]].inputs, key=lambda name: -depth[name])
            pending = next((name for name in inputs if name not in done), None)
            if pending is not None:
                path.append(pending)
                continue
            name = path.pop()
            if name not in done:
                done.add(name)
                yield name


def _layer(
    node: _Node, consumers: Sequence[_Node], constants: Mapping[str, np.ndarray]
) -> Layer:
    kernel_name, *more = node.inputs[1:]
    if not more and len(consumers) == 1 and consumers[0].operation in _ADDITIONS:
        more = [name for name in consumers[0].inputs if name != node.name]
    kernel = np.asarray(constants[kernel_name], np.float32)
    if kernel.ndim != 4:
        raise _Unusable(f"has a convolution with a kernel of {kernel.ndim} axes.")
    if node.operation in _DEPTHWISE:
        kernel = kernel.transpose(0, 1, 3, 2)
    biases = [constants[name] for name in more[:1] if name in constants]
    return Layer(kernel, np.asarray(biases[0], np.float32) if biases else None)
