"""TensorFlow.js graph models: the files, the order of convolutions, the published networks.

With the published files in the folder $POSE_JAX_WEIGHTS, outputs are compared with stored
ones of TensorFlow, which executed the published graphs:

    python -m tests.weights.test_graphs FOLDER      # write published_outputs.npz again
"""

import json
import os
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import cli, models, weights
from pose_jax.errors import ConfigError, InputError
from pose_jax.runs import model as model_lib
from pose_jax.weights import tfjs_file
from tests.models.networks import random_variables
from tests.weights import tfjs_writer
from tests.weights.tfjs_writer import Graph

POSENET = "posenet_mobilenet_075"
STORED = Path(__file__).with_name("published_outputs.npz")
PUBLISHED = {  # Network -> file, height and width of the input.
    "movenet_lightning": ("movenet-lightning.json", (192, 192)),
    "movenet_thunder": ("movenet-thunder.json", (256, 256)),
    POSENET: ("posenet.json", (257, 353)),
}
STEP = 4
"""Outputs are stored at every fourth row and column of cells."""


@pytest.fixture(scope="module")
def variables():
    return random_variables(
        models.build(POSENET), jax.ShapeDtypeStruct((1, 33, 49, 3), jnp.float32)
    )


@pytest.mark.parametrize(
    "stored, shards, error",
    [
        ("float32", (1.0,), 0),
        ("float32", (0.1, 0.1001, 1.0), 0),  # Inside of a number.
        ("float16", (0.5, 1.0), 2**-10),
        ("uint16", (1.0,), 1e-4),
        ("uint8", (0.7, 1.0), 1e-2),
    ],
)
def test_a_graph_becomes_the_variables_it_was_made_of(
    variables, stored, shards, error, tmp_path
):
    graph = tfjs_writer.posenet(variables["params"])
    found = weights.from_tfjs(
        graph.write(tmp_path, stored=stored, shards=shards), POSENET
    )
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    for one, other in zip(*map(jax.tree.leaves, (found, variables)), strict=True):
        spread = max(np.abs(other).max(), np.ptp(other))
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=error * spread)


def _kernel(number, channels=(2, 2)):
    return np.full((1, 1, *channels), number, np.float32)


def test_the_order_follows_the_edges_of_the_graph(tmp_path):
    """Two heads of equal channels: the one farther from the end is first. Of two summands,
    the one behind more convolutions, wherever it stands."""
    graph = Graph()
    x = graph.node("Placeholder")
    one = graph.conv(x, _kernel(1), np.zeros(2))
    deep = graph.conv(graph.conv(one, _kernel(2), np.zeros(2)), _kernel(3), np.zeros(2))
    side = graph.conv(one, _kernel(4))
    side = graph.node("BiasAdd", side, graph.constant(np.array([5.0, 6.0])))
    both = graph.node("AddV2", side, f"{deep}:0")
    near = graph.conv(both, _kernel(7), np.zeros(2))
    far = graph.conv(both, _kernel(6), np.zeros(2))
    small = graph.conv(both, _kernel(5, (2, 1)), np.zeros(1))
    index = graph.node("ArgMax", graph.node("Sigmoid", far), f"^{small}")
    graph.node("GatherNd", near, index)
    layers, heads = tfjs_file.read(graph.write(tmp_path))
    numbers = [int(layer.kernel.flat[0]) for layer in layers]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert [int(head.kernel.flat[0]) for head in heads] == [5, 6, 7]
    np.testing.assert_array_equal(layers[3].bias, [5, 6])


def _edit(change):
    def edit(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def _weight(**changes):
    return _edit(lambda m: m["weightsManifest"][0]["weights"][0].update(changes))


def _shard(change):
    def edit(path):
        shard = path.with_name("group1-shard2of2.bin")
        shard.write_bytes(change(shard.read_bytes()))

    return edit


UNUSABLE = {
    "short": (_shard(lambda b: b[:-3]), r"needs \d+ bytes of .*shard1of2.bin.*has \d+: the "
              "file is incomplete"),
    "long": (_shard(lambda b: b + b"1234"), "belongs to another model"),
    "missing shard": (lambda p: p.with_name("group1-shard1of2.bin").unlink(),
                      "needs .*shard1of2.bin, which cannot be read .*: put it there"),
    "missing": (Path.unlink, "cannot be read: No such file"),
    "not json": (lambda p: p.write_bytes(b"\x80\x02}"), "not a JSON file"),
    "another json": (lambda p: p.write_text("[]"), "no weightsManifest"),
    "layers model": (_edit(lambda m: m.update(format="layers-model")), "is a layers-model"),
    "type": (_weight(dtype="string", quantization=None), "unsupported type 'string'"),
    "quantization": (_weight(quantization={"dtype": "int4"}), "unsupported type 'int4'"),
    "no topology": (_edit(lambda m: m.pop("modelTopology")), "not a valid graph model"),
    "no node": (_edit(lambda m: m["modelTopology"]["node"].pop(0)), "no node 'image'"),
    "loop": (_edit(lambda m: m["modelTopology"]["node"][0].update(
        input=[m["modelTopology"]["node"][-1]["name"]])), "has a loop"),
    "shape": (_weight(shape=[17, 1]), "incomplete|has a bias|is not posenet"),
}  # fmt: skip


@pytest.fixture(scope="module")
def content(variables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    graph = tfjs_writer.posenet(variables["params"])
    graph.write(folder, stored="uint8", shards=(0.5, 1.0))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def model_json(content, tmp_path):
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path / "model.json"


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_file_that_cannot_be_used_is_one_line(kind, model_json):
    edit, message = UNUSABLE[kind]
    edit(model_json)
    with pytest.raises(InputError, match=message) as error:
        weights.from_tfjs(model_json, POSENET)
    assert str(model_json) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, message",
    [
        ("movenet_thunder", r"is not movenet_thunder: its 4 outputs have .17, 32, 32, 34. "
         "channels.* It matches --model posenet_mobilenet_075"),
        ("movenet_thundr", "no TensorFlow.js graph.*Did you mean 'movenet_thunder'"),
        ("hrnet_w32", "no TensorFlow.js graph.*movenet_lightning"),
    ],
)  # fmt: skip
def test_another_network_is_named(name, message, model_json):
    with pytest.raises((InputError, ConfigError), match=message) as error:
        weights.from_tfjs(model_json, name)
    assert "\n" not in str(error.value)


def test_a_graph_of_other_shapes_is_refused(variables, tmp_path):
    params = dict(variables["params"])
    params["pointwise_3"] = {"kernel": np.zeros((1, 1, 96, 95)), "bias": np.zeros(95)}
    path = tfjs_writer.posenet(params).write(tmp_path)
    with pytest.raises(
        InputError, match=r"convolution 7 \(pointwise_3\) is .*, expected"
    ):
        weights.from_tfjs(path, POSENET)


def test_convert_writes_a_run(model_json, tmp_path, capsys):
    run = tmp_path / "run"
    words = [
        "weights",
        "convert",
        str(model_json),
        "--model",
        POSENET,
        "--out",
        str(run),
    ]
    assert cli.main([*words, "--stride", "8", "--input-size", "129x97"]) == 0
    printed = capsys.readouterr().out
    assert "input 97x129, alignment aligned, decoder argmax_offset" in printed
    loaded = model_lib.load(run)
    method = loaded.method("dark")
    assert method.name == "cells" and method.map_size == (17, 13)
    assert method.view.alignment == "aligned" and loaded.keypoints.name == "coco"
    assert loaded.manifest["converted"]["file"] == "model.json"
    words[4:5] = ["hrnet_w32"]
    words[-1] = str(tmp_path / "other")
    assert cli.main(words) == 1
    assert "no TensorFlow.js graph of model 'hrnet_w32'" in capsys.readouterr().err
    words[4:5] = ["movenet_thundr"]
    assert cli.main(words) == 2
    assert "Did you mean 'movenet_thunder'" in capsys.readouterr().err
    words[4:5] = [POSENET]
    for extra, message in {
        "--sigma=2": "--sigma is fixed",
        "--backbone": "--backbone is fixed",
        "--input-size=128x97": "--input-size: .*multiple of 16 plus 1",
    }.items():
        assert cli.main([*words, extra]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(message, line) and not (tmp_path / "other").exists()


# ------------------------------------------------------------------ the published files


def synthetic_input(h, w):
    """[1, h, w, 3] in [-1, 1], the same everywhere."""
    y, x = np.mgrid[:h, :w] / 16
    planes = np.sin(x + 1.7 * y), np.cos(0.8 * x - y), np.sin(x * y / 9)
    return np.stack(planes, axis=-1).astype(np.float32)[None]


def _file(name):
    folder = os.environ.get("POSE_JAX_WEIGHTS")
    path = Path(folder or "", PUBLISHED[name][0])
    if not folder or not path.is_file():
        pytest.skip(f"POSE_JAX_WEIGHTS names no folder with {path.name}")
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_are_those_of_the_published_graph(name):
    found = jax.jit(models.build(name).apply)(
        weights.from_tfjs(_file(name), name), synthetic_input(*PUBLISHED[name][1])
    )
    with np.load(STORED) as stored:
        expected = [stored[key] for key in stored if key.startswith(name)]
    assert len(found) == len(expected) == (2 if name == POSENET else 4)
    for one, other in zip(found, expected, strict=True):
        sample = np.asarray(one)[:, ::STEP, ::STEP]
        error = np.abs(sample - other).max() / np.abs(other).max()
        assert error <= 1e-4


def test_strides_are_dilations_of_the_same_weights():
    """Cells of stride 8 at the places of those of stride 16 see the same pixels."""
    variables = weights.from_tfjs(_file(POSENET), POSENET)
    images = synthetic_input(97, 129)
    coarse, fine = (
        jax.jit(models.build(POSENET, stride=stride).apply)(variables, images)
        for stride in (16, 8)
    )
    assert coarse[0].shape == (1, 7, 9, 17) and fine[0].shape == (1, 13, 17, 17)
    for one, other, factor in zip(coarse, fine, (1, 2), strict=True):
        inner = np.asarray(factor * one)[:, 3:-3, 3:-3]
        sample = np.asarray(other)[:, 6:-6:2, 6:-6:2]
        np.testing.assert_allclose(sample, inner, atol=1e-4 * np.abs(inner).max())


HEADS = {  # Nodes of the published graphs, in the order of our outputs.
    "movenet": ("kpt_heatmap_0/conv2d_5", "kpt_offset_0/conv2d_7", "center_0/conv2d_4",
                "kpt_regress_0/conv2d_6"),
    "posenet": ("MobilenetV1/heatmap_2", "MobilenetV1/offset_2"),
}  # fmt: skip


def _executed(path, images, heads, start):
    """Executes a graph in TensorFlow from the node `start` on; returns some heads."""
    import base64

    import tensorflow as tf

    content = json.loads(path.read_text())
    nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
    values = tfjs_file._constants(content["weightsManifest"], path.parent)
    text = lambda value: base64.b64decode(value).decode()
    then = {"Relu6": tf.nn.relu6, "Relu": tf.nn.relu}

    def run(name):
        name = name.partition(":")[0]
        if name in values:
            return values[name]
        node = nodes[name]
        kind, attributes = node["op"].lstrip("_"), node.get("attr", {})
        if name == start:
            value = tf.constant(images)
        else:
            x, *rest = map(run, node["input"])
            if kind == "AddV2":
                value = x + rest[0]
            elif kind == "ResizeBilinear":
                value = tf.raw_ops.ResizeBilinear(
                    images=x, size=rest[0], half_pixel_centers=True
                )
            else:
                strides = [int(i) for i in attributes["strides"]["list"]["i"]]
                conv = tf.nn.depthwise_conv2d if "Depth" in kind else tf.nn.conv2d
                value = conv(x, rest[0], strides, text(attributes["padding"]["s"]))
                if kind.startswith("Fused"):
                    value = value + rest[1]
                    for step in map(text, attributes["fused_ops"]["list"]["s"]):
                        value = then.get(step, lambda value: value)(value)
        values[name] = value
        return value

    return [
        np.asarray(run(name))
        for head in heads
        for name in nodes
        if name.endswith(f"{head}/BiasAdd")
    ]


def published_outputs(name, path):
    """The outputs of a published graph, in the layout of ours."""
    h, w = PUBLISHED[name][1]
    movenet = name.startswith("movenet")
    outputs = _executed(
        path, synthetic_input(h, w), HEADS["movenet" if movenet else "posenet"],
        "StatefulPartitionedCall/sub_1" if movenet else "image",
    )  # fmt: skip
    for i, output in enumerate(outputs):
        if output.shape[-1] == 34 and movenet:
            outputs[i] = output.reshape(*output.shape[:-1], 17, 2)[..., ::-1]
        elif output.shape[-1] == 34:
            outputs[i] = np.stack([output[..., 17:], output[..., :17]], axis=-1) / 16
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_stored_outputs_are_those_of_tensorflow(name):
    pytest.importorskip("tensorflow")
    with np.load(STORED) as stored:
        expected = [stored[key] for key in stored if key.startswith(name)]
    for one, other in zip(published_outputs(name, _file(name)), expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one[:, ::STEP, ::STEP], other, atol=1e-5 * scale)


if __name__ == "__main__":
    np.savez_compressed(
        STORED,
        **{
            f"{name}_{i}": output[:, ::STEP, ::STEP]
            for name, (file, _) in PUBLISHED.items()
            for i, output in enumerate(published_outputs(name, Path(sys.argv[1], file)))
        },
    )
