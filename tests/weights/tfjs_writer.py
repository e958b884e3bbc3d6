"""TensorFlow.js graph models, in the form in which they are published, for tests."""

import json
import math

import numpy as np


class Graph:
    """Nodes, and constants under names that mean nothing."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def node(self, operation, *inputs, name=None, **attributes):
        name = name or f"n{len(self.nodes) * 7919 % 1009}/{operation}"
        node = {"name": name, "op": operation}
        if inputs:
            node["input"] = list(inputs)
        self.nodes.append(node | attributes)
        return name

    def constant(self, value):
        name = self.node("Const", name=f"Const_{len(self.constants) * 31 % 997}")
        self.constants.append((name, np.asarray(value)))
        return name

    def conv(self, x, kernel, bias=None, *, depthwise=False):
        """A convolution, fused with its bias; kernels are as in our networks."""
        if depthwise:
            kernel = np.transpose(kernel, (0, 1, 3, 2))
        inputs = [x, self.constant(kernel)]
        if bias is None:
            return self.node(
                "DepthwiseConv2dNative" if depthwise else "Conv2D", *inputs
            )
        fused = "FusedDepthwiseConv2dNative" if depthwise else "_FusedConv2D"
        return self.node(fused, *inputs, self.constant(bias))

    def write(self, folder, *, stored="float32", shards=(1.0,)):
        """Writes model.json and shards, which end at these fractions of the constants.

        The constants are in reverse order. Returns the path of model.json.
        """
        weights, content = [], b""
        for name, value in reversed(self.constants):
            entry = {"name": name, "shape": list(value.shape), "dtype": "float32"}
            value = value.astype(np.float32)
            if stored == "float16":
                entry["quantization"] = {"dtype": stored, "original_dtype": "float32"}
                value = value.astype("<f2")
            elif stored != "float32":
                low, most = float(value.min()), np.iinfo(stored).max
                scale = (float(value.max()) - low) / most or 1.0
                entry["quantization"] = {"dtype": stored, "scale": scale, "min": low}
                value = np.round((value - low) / scale).astype(
                    f"<{np.dtype(stored).str[1:]}"
                )
            weights.append(entry)
            content += value.tobytes()
        paths = []
        ends = [math.floor(fraction * len(content)) for fraction in shards]
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
            paths.append(f"group1-shard{number}of{len(ends)}.bin")
            (folder / paths[-1]).write_bytes(content[start:end])
        model = {
            "format": "graph-model",
            "modelTopology": {"node": self.nodes, "library": {}, "versions": {}},
            "weightsManifest": [{"paths": paths, "weights": weights}],
        }
        (folder / "model.json").write_text(json.dumps(model))
        return folder / "model.json"


def posenet(params):
    """PoseNet's graph of the parameters of our network, with heads for displacements.

    Args:
      params: of `models.build("posenet_mobilenet_075")`.
    """
    graph = Graph()
    x = graph.node("Placeholder", name="image")
    x = graph.conv(x, **params["stem"])
    for i in range(1, 14):
        x = graph.conv(x, **params[f"depthwise_{i}"], depthwise=True)
        x = graph.conv(x, **params[f"pointwise_{i}"])
    order = np.arange(34).reshape(17, 2)[:, ::-1].T.reshape(-1)  # All y, then all x.
    offset = {leaf: value[..., order] for leaf, value in params["offset"].items()}
    more = np.zeros((1, 1, 384, 32)), np.zeros(32)
    for kernel, bias in (
        (offset["kernel"], offset["bias"]), more, more,
        (params["heatmap"]["kernel"], params["heatmap"]["bias"]),
    ):  # fmt: skip
        graph.conv(x, kernel, bias)
    return graph
