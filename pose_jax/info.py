"""`pose-jax info`: what a run or a config is: model, cost, data, scores.

Cost is read off the traced network; nothing is computed and no weight exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from pose_jax import checkpoints, datasets, experiment, keypoints, methods
from pose_jax import config as config_lib
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.method import Phase
from pose_jax.models import layers


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
    with layers.use_forms("stock"):
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
    params = jax.eval_shape(phase.init, key)["params"]
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "multiply_adds": true,
        "papers_gflops": charged / 2**30,
    }


def _network(section: Mapping[str, Any], keypoint_set: KeypointSet) -> dict[str, Any]:
    method = methods.build(section, keypoint_set)
    width, height = method.view.size
    return {
        "method": method.name,
        "model": section["model"]["name"],
        "keypoints": f"{keypoint_set.name}, {len(keypoint_set)}",
        "input": f"{height}x{width}",
        "phases": {phase.name: _cost(phase) for phase in method.phases},
    }


def _data(sources: Mapping[str, datasets.SourceConfig]):
    """What the data of a config are, in words, and their keypoint set.

    Of data that are not there, the set that their kind usually has.
    """
    words: dict[str, str] = {}
    name = next(iter(sources.values())).name.split("_")[0]
    usual = {"mpii": keypoints.MPII, "lsp": keypoints.LSP, "flic": keypoints.FLIC}
    keypoint_set = usual.get(name, keypoints.COCO)
    for use, source in sources.items():
        try:
            table = datasets.load(source)
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
    built = config_lib.build(experiment.Config, config, "config")
    sources = {"train": built.data.train, "eval": built.data.eval}
    data, keypoint_set = _data(sources)
    return {**_network(built.method, keypoint_set), "data": data}


def _of_model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    keypoint_set = KeypointSet.from_json(manifest["keypoints"])
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
      multiply_adds, papers_gflops), data; of a finished run also scores and versions.

    Raises:
      InputError: neither a run nor a config.
    """
    run = Path(target)
    if not run.is_dir():
        return _of_config(config_lib.load(target))
    if (run / "model").is_dir():
        return _of_model(checkpoints.load_manifest(run / "model"))
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
                line = (
                    f"{cost['parameters']:,} parameters, "
                    f"{cost['multiply_adds'] / 1e9:.3g} G multiply-adds an input "
                    f"({cost['papers_gflops']:.2f} as papers count GFLOPs)"
                )
                lines.append((f"phase {phase}", line))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                shown = f"{item:.4g}" if isinstance(item, float) else str(item)
                lines.append((f"{name} {key}", shown))
        else:
            lines.append((name, str(value)))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)
