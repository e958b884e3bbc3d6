"""MoveNet Lightning with DARK as a TFLite file, beside the published graph in TensorFlow.

    python -m experiments.benchmarks.tflite MOVENET_LIGHTNING.json PHOTO [--repeats 50]

Converts the graph, exports it with decoder "dark" for TFLite, and runs both on the
photograph, resized to 192x192. Prints how far the points are apart, in pixels of the input,
and the median times. The published graph is TensorFlow.js's, as a TensorFlow function of
the same nodes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image

from pose_jax import export
from pose_jax.weights import convert, tfjs_file

NAME, SIDE = "movenet_lightning", 192


def graph(path: Path):
    """The published graph as a TensorFlow function: int32 [1, 192, 192, 3] -> [17, 3]."""
    content = json.loads(path.read_text())
    constants = tfjs_file._constants(content["weightsManifest"], path.parent)
    nodes = []
    for node in content["modelTopology"]["node"]:
        if node["name"] in constants:
            value = tf.make_tensor_proto(constants[node["name"]])
            node = tf.compat.v1.NodeDef(name=node["name"], op="Const")
            node.attr["value"].tensor.CopyFrom(value)
            node.attr["dtype"].type = value.dtype
            nodes.append(node)
        elif node["op"] == "FusedDepthwiseConv2dNative":  # Of TensorFlow.js alone.
            nodes += _unfused(node)
        else:
            nodes.append(json_format.ParseDict(node, tf.compat.v1.NodeDef()))
    definition = tf.compat.v1.GraphDef(node=nodes)
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(definition, name=""), []
    )
    return wrapped.prune("input:0", "Identity:0")


def _unfused(node):
    """The nodes of a depthwise convolution with bias and activation."""
    parsed = json_format.ParseDict(node, tf.compat.v1.NodeDef())
    steps = [step.decode() for step in parsed.attr["fused_ops"].list.s]
    name, (x, kernel, *rest) = node["name"], parsed.input
    conv = tf.compat.v1.NodeDef(
        name=f"{name}/conv", op="DepthwiseConv2dNative", input=[x, kernel]
    )
    for key in ("T", "strides", "padding", "dilations", "data_format"):
        if key in parsed.attr:
            conv.attr[key].CopyFrom(parsed.attr[key])
    made = [conv]
    for i, step in enumerate(steps):
        inputs = [made[-1].name, *(rest[:1] if step == "BiasAdd" else [])]
        last = name if i == len(steps) - 1 else f"{name}/{step}"
        made.append(tf.compat.v1.NodeDef(name=last, op=step, input=inputs))
        made[-1].attr["T"].CopyFrom(parsed.attr["T"])
    return made


def median_ms(function, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[repeats // 5 :]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("graph", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    photo = Image.open(args.photo).convert("RGB").resize((SIDE, SIDE))
    image = np.asarray(photo)[None]
    published = graph(args.graph)
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "out"
        convert.convert(args.graph, NAME, run)
        print(export.export_run(out, run, decoder="dark", format="tflite"))
        content = (out / "network.tflite").read_bytes()
    lines = {}
    for threads in (1, 2):
        lite = tf.lite.Interpreter(model_content=content, num_threads=threads)
        runner = lite.get_signature_runner()
        lines[f"TFLite with DARK, {threads} threads"] = median_ms(
            lambda runner=runner: runner(images=image), args.repeats
        )
    tensor = tf.constant(image, tf.int32)
    lines["published graph in TensorFlow"] = median_ms(
        lambda: np.asarray(published(tensor)), args.repeats
    )
    answer = runner(images=image)
    y, x, scores = np.asarray(published(tensor)).reshape(17, 3).T
    points_xy = SIDE * np.stack([x, y], axis=1)
    apart = np.linalg.norm(answer["points_xy"][0] - points_xy, axis=1)
    print(
        f"points: median {np.median(apart):.2f} px apart, maximum {apart.max():.2f}; of "
        f"the {np.sum(scores > 0.3)} with a score above 0.3: median "
        f"{np.median(apart[scores > 0.3]):.2f}, maximum {apart[scores > 0.3].max():.2f}"
    )
    print(
        f"scores: maximum difference {np.abs(answer['scores'][0] - scores).max():.3f}"
    )
    for name, value in lines.items():
        print(f"{name}: {value:.1f} ms")


if __name__ == "__main__":
    main()
