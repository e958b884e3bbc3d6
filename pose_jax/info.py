"""`pose-jax info`: what a run or a config is: model, cost, data, scores.

Cost is read off the traced network; nothing is computed and no weight exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import keypoints, methods
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.models import ops
from pose_jax.runs import states
from pose_jax.training import config as training_config
from pose_jax.types import ImageView, Inputs, Method, Phase


def multiply_adds(fn: Callable, *args: Any) -> tuple[int, int]:
    """Counts the multiply-adds of the convolutions and matrix products of a function.

    Args:
      fn: a function of arrays; traced in the networks' stock forms, so that the count
        does not depend on this machine.
      *args: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The true number (zero padding counts), and the number as the papers charge it:
      they count a transposed convolution on its output grid, inserted zeros and all.
      Divided by 2^30, that is the "GFLOPs" in the tables of HRNet, Simple Baselines and
      DARK.
    """
    with ops.use_forms("stock"):
        return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: Any) -> tuple[int, int]:
    true = charged = 0
    for equation in jaxpr.eqns:
        parameters = equation.params
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs_axis = parameters["dimension_numbers"].rhs_spec[0]
            out = math.prod(equation.outvars[0].aval.shape)
            macs = out * math.prod(kernel) // kernel[outputs_axis]
            charged += macs
            true += macs // math.prod(parameters["lhs_dilation"])
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            out = math.prod(equation.outvars[0].aval.shape)
            macs = out * math.prod(left[axis] for axis in contracted)
            charged += macs
            true += macs
        else:
            times = parameters.get("length", 1)  # Of a scan.
            for inner in map(_jaxpr_of, jax.tree.leaves(list(parameters.values()))):
                if inner is not None:
                    inner_true, inner_charged = _count(inner)
                    true += times * inner_true
                    charged += times * inner_charged
    return true, charged


def _jaxpr_of(parameter: Any) -> Any | None:
    """The jaxpr that an equation's parameter is, closed or not; None if it is none."""
    jaxpr = getattr(parameter, "jaxpr", parameter)
    return jaxpr if hasattr(jaxpr, "eqns") else None


def _cost(phase: Phase) -> dict[str, Any]:
    """Size and price of a phase's network, of one input.

    A network's init runs it once on one input of its size: tracing that has both.
    """
    key = jax.random.key(0)
    true, charged = multiply_adds(phase.init, key)
    return {
        "parameters": _size(jax.eval_shape(phase.init, key)["params"]),
        "multiply_adds": true,
        "papers_gflops": charged / 2**30,
    }


def _size(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _network(
    section: Mapping[str, Any], keypoint_set: KeypointSet | None
) -> dict[str, Any]:
    """Of a set that is not known, the cost with COCO's."""
    method = methods.build(section, keypoint_set or keypoints.COCO)
    if isinstance(method.view, ImageView):
        return {
            "method": method.name,
            "model": section["model"]["name"],
            "keypoints": "none: it finds boxes",
            **_detector(method, method.view),
        }
    width, height = method.view.size
    words = "unknown: the data are not there; counted with 17"
    if keypoint_set is not None:
        words = f"{keypoint_set.name}, {len(keypoint_set)}"
    return {
        "method": method.name,
        "model": section["model"]["name"],
        "keypoints": words,
        "input": f"{height}x{width}",
        "phases": {phase.name: _cost(phase) for phase in method.phases},
    }


def _detector(method: Method, view: ImageView) -> dict[str, Any]:
    """Parameters of each phase, and size and price of an input of each bucket.

    A detector's init takes an input of any size: what `predict` does is counted.
    """
    key = jax.random.key(0)
    variables = {phase.name: jax.eval_shape(phase.init, key) for phase in method.phases}
    phases = {
        name: {"parameters": _size(shapes["params"])}
        for name, shapes in variables.items()
    }
    inputs = {}
    for width, height in view.buckets:
        shapes = _one_image(width, height)
        seen = jax.eval_shape(method.inspect, variables, shapes)["input"].shape
        true, _ = multiply_adds(method.predict, variables, shapes)
        inputs[f"{height}x{width}"] = {
            "input": f"{seen[1]}x{seen[2]}",
            "multiply_adds": true,
        }
    return {"phases": phases, "inputs": inputs}


def _one_image(width: int, height: int) -> Inputs:
    """Shapes of the inputs of one canvas."""
    shape = jax.ShapeDtypeStruct
    return Inputs(
        images=shape((1, height, width, 3), np.uint8),
        canvas_to_image=shape((1, 2, 3), np.float32),
        box_xyxy=shape((1, 4), np.float32),
        box_score=shape((1,), np.float32),
        valid=shape((1,), np.bool_),
        row=shape((1,), np.int32),
    )


def _data(sources: Mapping[str, data_lib.SourceConfig]):
    """What the data of a config are, in words, and their keypoint set.

    Of data that are not there, the set that their kind usually has; None where that is not
    known: several data sets as one, or one that was made by the user.
    """
    words: dict[str, str] = {}
    usual = (_usual(source.name, source.options) for source in sources.values())
    keypoint_set = next(filter(None, usual), None)
    for use, source in sources.items():
        try:
            table = data_lib.load(source)
        except InputError as error:
            words[use] = f"not readable: {error}"
            continue
        keypoint_set = table.keypoints
        words[use] = (
            f"{table.name}: {len(table.images)} images, {len(table.labelled_rows())} "
            f"labelled people, fingerprint {table.fingerprint()}"
        )
    return words, keypoint_set


_USUAL = {
    "coco": keypoints.COCO, "mpii": keypoints.MPII, "lsp": keypoints.LSP,
    "flic": keypoints.FLIC,
}  # fmt: skip


def _usual(name: str, options: Mapping[str, Any]) -> KeypointSet | None:
    """The set of a kind of data, or the one that all parts of a joined set have."""
    if name == "joined":
        parts = options.get("sources") or {}
        sets = [
            _usual(part.get("name") or label, part.get("options", {}))
            for label, part in parts.items()
        ]
        return sets[0] if sets and all(found == sets[0] for found in sets) else None
    given = options.get("keypoints")
    if given is not None:
        return keypoints.SETS.get(given)
    return _USUAL.get(name.split("_")[0])


def _of_config(config: Any) -> dict[str, Any]:
    built = config_lib.build(training_config.Config, config, "config")
    sources = {"train": built.data.train, "eval": built.data.eval}
    data, keypoint_set = _data(sources)
    return {**_network(built.method, keypoint_set), "data": data}


def _of_model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    given = manifest["keypoints"]
    keypoint_set = KeypointSet.from_json(given) if given else None
    source = manifest["data"]
    trained = manifest["train_data"]
    return {
        **_network(manifest["method"], keypoint_set),
        "data": {
            "train": f"{trained['name']}, fingerprint {trained['fingerprint']}",
            "eval": f"{source['name']} {source['split']}"
            + (f" in {source['root']}" if source["root"] else "; say where by --data"),
        },
        "scores": manifest["scores"],
        "versions": manifest["versions"],
    }


def info(target: Path | str) -> dict[str, Any]:
    """Describes a run directory or a config file in plain values.

    Args:
      target: RUN, finished or not, or a config file, FILE.py or FILE.py:ARGUMENT.

    Returns:
      method, model, keypoints, input ("height x width"), phases (name -> parameters,
      multiply_adds, papers_gflops), data; of a finished run also scores and versions. Of a
      detector phases say parameters alone, and instead of input there is inputs (canvas,
      "height x width" -> input, multiply_adds).

    Raises:
      InputError: neither a run nor a config.
    """
    run = Path(target)
    if not run.is_dir():
        return _of_config(config_lib.load(target))
    if (run / "model").is_dir():
        return _of_model(states.load_manifest(run / "model"))
    if (run / "config.json").is_file():
        config = config_lib.from_json((run / "config.json").read_text())
        return {**_of_config(config), "scores": "training has not finished"}
    raise InputError(
        f"{run}: neither a run (no model, no config.json) nor a config file."
    )


def text(found: Mapping[str, Any]) -> str:
    """An `info` for people to read."""
    lines = []
    for name, value in found.items():
        if name == "phases":
            for phase, cost in value.items():
                line = f"{cost['parameters']:,} parameters"
                if "multiply_adds" in cost:
                    line += (
                        f", {cost['multiply_adds'] / 1e9:.3g} G multiply-adds an input "
                        f"({cost['papers_gflops']:.2f} as papers count GFLOPs)"
                    )
                lines.append((f"phase {phase}", line))
        elif name == "inputs":
            for canvas, cost in value.items():
                line = (
                    f"input {cost['input']}, {cost['multiply_adds'] / 1e9:.3g} G "
                    "multiply-adds"
                )
                lines.append((f"canvas {canvas}", line))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                shown = f"{item:.4g}" if isinstance(item, float) else str(item)
                lines.append((f"{name} {key}", shown))
        else:
            lines.append((name, str(value)))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)
