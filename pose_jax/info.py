"""`pose-jax info`: a description of a run or a config: model, cost, data, scores.

The cost is derived from the traced network, without allocating weights or computing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import keypoints, methods
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.models import cost
from pose_jax.runs import model as model_lib
from pose_jax.training import config as training_config
from pose_jax.types import Inputs, Method, Phase


def _cost(phase: Phase) -> dict[str, Any]:
    """Returns the number of parameters and the cost per input of a phase's network.

    The init of a network applies it to one input, so that its trace gives both.
    """
    key = jax.random.key(0)
    true, charged = cost.multiply_adds(phase.init, key)
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
    """Describes the network; an unknown keypoint set is assumed to be COCO's."""
    method = methods.build(section, keypoint_set or keypoints.COCO)
    entries = {"method": method.name, "model": section["model"]["name"]}
    if method.keypoints is None:
        words = "none: predicts boxes"
        return {**entries, "keypoints": words, **_detector(method, method.view)}
    width, height = method.view.size
    words = "unknown: data not found; 17 assumed"
    if keypoint_set is not None:
        words = f"{keypoint_set.name}, {len(keypoint_set)}"
    return {
        **entries,
        "keypoints": words,
        "input": f"{height}x{width}",
        "phases": {phase.name: _cost(phase) for phase in method.phases},
    }


def _detector(method: Method, view: Any) -> dict[str, Any]:
    """Returns the parameters per phase, and input size and cost per canvas bucket.

    The cost is that of `predict`: a detector's init does not depend on the input size.
    """
    key = jax.random.key(0)
    variables = {phase.name: jax.eval_shape(phase.init, key) for phase in method.phases}
    phases = {n: {"parameters": _size(v["params"])} for n, v in variables.items()}
    inputs = {}
    shape = jax.ShapeDtypeStruct
    for width, height in view.buckets:
        shapes = Inputs(
            images=shape((1, height, width, 3), np.uint8),
            canvas_to_image=shape((1, 2, 3), np.float32),
            box_xyxy=shape((1, 4), np.float32),
            box_score=shape((1,), np.float32),
            valid=shape((1,), np.bool_),
            row=shape((1,), np.int32),
        )
        resized = jax.eval_shape(method.inspect, variables, shapes)["input"].shape
        true, _ = cost.multiply_adds(method.predict, variables, shapes)
        inputs[f"{height}x{width}"] = {
            "input": f"{resized[1]}x{resized[2]}",
            "multiply_adds": true,
        }
    return {"phases": phases, "inputs": inputs}


def _data(sources: Mapping[str, data_lib.SourceConfig]):
    """Returns a description of each data set of a config, and their keypoint set.

    If the data are missing, this is the usual set of their format, or None if that is
    unknown (joined and user-defined data sets).
    """
    words: dict[str, str] = {}
    usual = (data_lib.usual_keypoints(s.name, s.options) for s in sources.values())
    keypoint_set = next(filter(None, usual), None)
    for use, source in sources.items():
        source = data_lib.inheriting(source, sources["train"])
        try:
            table = data_lib.load(source, keypoint_set)
        except InputError as error:
            words[use] = f"not readable: {error}"
            continue
        keypoint_set = table.keypoints
        words[use] = (
            f"{table.name}: {len(table.images)} images, {len(table.labelled_rows())} "
            f"labelled people, fingerprint {table.fingerprint()}"
        )
    return words, keypoint_set


def _of_config(config: Any) -> dict[str, Any]:
    built = config_lib.build(training_config.Config, config, "config")
    data, keypoint_set = _data({"train": built.data.train, "eval": built.data.eval})
    return {**_network(built.method, keypoint_set), "data": data}


def _of_model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    given = manifest["keypoints"]
    keypoint_set = KeypointSet.from_json(given) if given else None
    source, trained = manifest["data"], manifest["train_data"]
    return {
        **_network(manifest["method"], keypoint_set),
        "data": {
            "train": f"{trained['name']}, fingerprint {trained['fingerprint']}",
            "eval": f"{source['name']} {source['split']}"
            + (f" in {source['root']}" if source["root"] else "; give it by --data"),
        },
        "scores": manifest["scores"],
        "versions": manifest["versions"],
    }


def info(target: Path | str) -> dict[str, Any]:
    """Describes a run directory or a config file as plain values.

    Args:
      target: RUN, finished or not, or a config file, FILE.py or FILE.py:ARGUMENT.

    Returns:
      method, model, keypoints, input ("height x width"), phases (name -> parameters,
      multiply_adds, papers_gflops), data; for a finished run also scores and versions. For
      a detector, phases have only parameters, and input is replaced by inputs (canvas
      "height x width" -> input, multiply_adds).

    Raises:
      InputError: `target` is neither a run nor a config.
    """
    run = Path(target)
    if not run.is_dir():
        return _of_config(config_lib.load(target))
    if (run / "model").is_dir():
        return _of_model(model_lib.load_manifest(run / "model"))
    if (run / "config.json").is_file():
        config = config_lib.from_json((run / "config.json").read_text())
        return {**_of_config(config), "scores": "training has not finished"}
    raise InputError(
        f"{run} is neither a run (it has no model and no config.json) nor a config file."
    )


def text(found: Mapping[str, Any]) -> str:
    """Formats the result of `info` as text."""
    lines = []
    for name, value in found.items():
        if name == "phases":
            for phase, cost in value.items():
                line = f"{cost['parameters']:,} parameters"
                if "multiply_adds" in cost:
                    line += (
                        f", {cost['multiply_adds'] / 1e9:.3g} G multiply-adds per input "
                        f"({cost['papers_gflops']:.2f} GFLOPs as counted in papers)"
                    )
                lines.append((f"phase {phase}", line))
        elif name == "inputs":
            for canvas, cost in value.items():
                price = f"{cost['multiply_adds'] / 1e9:.3g} G multiply-adds"
                lines.append((f"canvas {canvas}", f"input {cost['input']}, {price}"))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                shown = f"{item:.4g}" if isinstance(item, float) else str(item)
                lines.append((f"{name} {key}", shown))
        else:
            lines.append((name, str(value)))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)
