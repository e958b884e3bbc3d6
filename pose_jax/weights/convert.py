"""Conversion of a published file to a run directory: `pose-jax weights convert`.

A PyTorch checkpoint, or the model.json of a TensorFlow.js graph, as the network says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from pose_jax import keypoints, methods, models, writing
from pose_jax.errors import ConfigError, InputError
from pose_jax.geometry import Alignment
from pose_jax.runs import model as model_lib
from pose_jax.trees import flatten
from pose_jax.weights import graphs, tfjs_file, torch_file
from pose_jax.weights.mapping import (
    COUNTER,
    facts_of,
    from_torch,
    num_keypoints,
    to_rgb,
)

_SPLITS = {"coco": "val2017", "mpii": "valid"}
"""The keypoint sets of published weights, and the splits they were evaluated on."""


def convert(
    file: Path | str,
    model: str,
    out: Path | str,
    *,
    backbone: bool = False,
    keypoint_set: str | None = None,
    input_size: tuple[int, int] | None = None,
    sigma: float | None = None,
    alignment: Alignment | None = None,
    channels: Literal["rgb", "bgr"] | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Writes OUT/model from a published checkpoint; writes nothing on failure.

    Settings that the checkpoint does not contain have the published defaults.

    Args:
      file: a .safetensors or torch.save file, see `torch_file`; for the networks in
        `graphs.GRAPHS` the model.json of a TensorFlow.js graph model, which only
        `input_size` and `options` are for.
      model: name of the network.
      out: a run directory that does not exist yet or is empty.
      backbone: `file` is an ImageNet classifier, torchvision's ResNet or HRNet's; OUT can
        only be used in `train.init_from`.
      keypoint_set: "coco" or "mpii"; None: the one with this number of keypoints.
      input_size: (width, height); None: 192x256 for COCO, 256x256 for MPII, 96x128 for
        Hourglass, 257x353 for MultiPose.
      sigma: sigma of the targets, heatmap pixels; None: 1 at 96x128 (except 2 for
        hourglass_8), 3 at 288x384, otherwise 2. Only for heatmap networks.
      alignment: "stride": the HRNet and SimpleBaseline checkpoints, decoded by the
        quarter shift, with flip test "shift". "aligned": DarkPose's, decoded by "dark",
        with flip test "plain"; "half_pixel": the same with half-pixel centers. None:
        "stride", for Hourglass "aligned". Only for heatmap networks.
      channels: color order in training, see `to_rgb`; None: "bgr", for HRNet and
        backbones "rgb".
      options: options of the network that differ from the published one.

    Returns:
      A summary of the conversion, as text.

    Raises:
      InputError: `file` cannot be used, or `out` cannot be written.
      ConfigError: an option is invalid, or `out` exists.
    """
    file, out = Path(file), Path(out)
    options = dict(options or {})
    writing.check_new(out)
    if model in graphs.GRAPHS:
        unused = {
            "backbone": backbone or None, "keypoints": keypoint_set, "sigma": sigma,
            "alignment": alignment, "channels": channels,
        }  # fmt: skip
        for option in (name for name, value in unused.items() if value is not None):
            raise ConfigError(
                f"--{option} is fixed by the published graph of {model}: omit it."
            )
        return _convert_graph(file, model, out, input_size, options)
    facts_of(model)
    if file.suffix == ".json":
        raise InputError(
            f"{file}: no TensorFlow.js graph of model {model!r} is published; use one of "
            f"{', '.join(graphs.GRAPHS)}, or a .safetensors or torch.save file."
        )
    state_dict = torch_file.read(file)
    try:
        variables = from_torch(state_dict, model, backbone=backbone, **options)
    except ConfigError:
        raise
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    k = None if backbone else num_keypoints(state_dict, model)
    chosen = _keypoint_set(keypoint_set, k)
    size = _input_size(model, input_size, chosen.name)
    method = _method(model, options, size, sigma, alignment)
    channels = channels or ("rgb" if backbone else facts_of(model).channels)
    is_detector = models.entry(model).outputs == "boxes"
    if channels == "bgr":
        variables = to_rgb(variables)
    phase = "detector" if is_detector else "pose"
    converted = {"channels": channels, "part": "backbone" if backbone else "whole"}
    manifest = _save(
        out, {phase: variables}, method, None if is_detector else chosen, [file],
        chosen.name, converted,
    )  # fmt: skip
    return _summary(file, out, state_dict, manifest, len(flatten(variables)))


def _save(
    out: Path,
    variables: Mapping[str, Any],
    method: Mapping[str, Any],
    keypoint_set: keypoints.KeypointSet | None,
    files: Sequence[Path],
    data: str,
    converted: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes OUT/model and returns its manifest."""
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    manifest = {
        "method": method,
        "keypoints": keypoint_set.to_json() if keypoint_set else None,
        "input": {"batch_size": 32},
        # The data folder is unknown here; it is given by `eval --data`.
        "data": {"name": data, "root": "", "split": _SPLITS[data]},
        "evaluation": {},
        "scores": {},
        "train_data": {
            "name": f"published weights, {files[0].name}",
            "fingerprint": digest[:16],
        },
        "converted": {"file": files[0].name, "sha256": digest, **converted},
        "versions": model_lib.VERSIONS,
    }
    model_lib.save_model(out / "model", variables, manifest)
    return manifest


def _convert_graph(
    file: Path,
    model: str,
    out: Path,
    input_size: tuple[int, int] | None,
    options: Mapping[str, Any],
) -> str:
    """Writes OUT/model from a TensorFlow.js graph model; see `convert`."""
    facts = graphs.facts_of(model)
    size = input_size or facts.input_size
    section = {
        "name": methods.for_network(model),
        "model": {"name": model, "options": dict(options)},
        "input_size": list(size),
    }
    method = methods.build(section, keypoints.COCO)
    (phase,) = method.phases
    try:
        jax.eval_shape(phase.init, jax.random.key(0))
    except ConfigError as error:
        raise ConfigError(f"--input-size: {error}") from None
    variables = {**graphs.from_tfjs(file, model), "batch_stats": {}}
    files = [file, *tfjs_file.shards(file)]
    converted = {"channels": "rgb", "part": "whole"}
    _save(
        out, {phase.name: variables}, section, keypoints.COCO, files, "coco", converted
    )
    width, height = size
    return "\n".join(
        [
            f"{file}: loaded {len(flatten(variables))} tensors of {model}",
            f"keypoints coco, input {height}x{width}, alignment {method.view.alignment}, "
            f"decoder {method.decoder_name}",
            f"to use it: pose-jax predict --run {out} PHOTO",
            f"to evaluate it: pose-jax eval --run {out} --data FOLDER",
            f"model: {out / 'model'}",
        ]
    )


def _input_size(
    model: str, asked: tuple[int, int] | None, keypoint_set: str
) -> tuple[int, int]:
    """Returns the requested or published size; raises if it is not supported."""
    published = facts_of(model)
    if models.entry(model).outputs == "boxes" and asked is not None:
        raise ConfigError(
            f"--input-size is not supported for detectors, and {model} is a detector: omit "
            "--input-size."
        )
    usual = (256, 256) if keypoint_set == "mpii" else (192, 256)
    size = asked or published.input_size or usual
    if not published.fits(size):
        smallest, divisor, remainder = published.sides
        plus = f" plus {remainder}" if remainder else ""
        raise ConfigError(
            f"--input-size: both sides must be multiples of {divisor}{plus}, at least "
            f"{smallest}, for {model}; got {size[0]}x{size[1]}."
        )
    return size


def _method(
    model: str,
    options: Mapping[str, Any],
    input_size: tuple[int, int],
    sigma: float | None,
    alignment: Alignment | None,
) -> dict[str, Any]:
    """Returns the config section of the method for the network."""
    published, outputs = facts_of(model), models.entry(model).outputs
    section = {
        "name": methods.for_network(model),
        "model": {"name": model, "options": options},
        **published.settings,
    }
    if outputs != "boxes":
        section["input_size"] = list(input_size)
    if outputs != "heatmaps":
        if sigma is not None or alignment is not None:
            raise ConfigError(
                f"--sigma and --alignment are only for heatmap networks, which {model} is "
                "not: omit them."
            )
        return section
    if sigma is None:
        sigma = published.sigmas.get(input_size, 2.0)
    elif not 0 < sigma < float("inf"):
        raise ConfigError(f"--sigma must be positive; got {sigma}.")
    alignment = alignment or published.alignment
    biased = alignment == "stride"
    return {
        **section,
        "sigma": float(sigma),
        "encoding": "biased" if biased else "unbiased",
        "decoder": "shift" if biased else "dark",
        "alignment": alignment,
        "flip_test": "shift" if biased else "plain",
    }


def _keypoint_set(name: str | None, k: int | None) -> keypoints.KeypointSet:
    """Returns the requested set, or the one of k keypoints; k is None for a backbone."""
    sizes = {known: len(keypoints.SETS[known]) for known in _SPLITS}
    if name is None:
        by_size = {size: known for known, size in sizes.items()}
        name = "coco" if k is None else by_size.get(k)
    if name not in sizes or k not in (None, sizes[name]):
        known = ", ".join(f"{known} ({size})" for known, size in sizes.items())
        wrong = f"--keypoints {name}: no match; " if name else ""
        raise ConfigError(
            f"{wrong}the checkpoint has {k} keypoints; known keypoint sets: {known}."
        )
    return keypoints.SETS[name]


def _summary(file: Path, out: Path, state_dict, manifest, used: int) -> str:
    method, converted = manifest["method"], manifest["converted"]
    counters = sum(key.endswith(COUNTER) for key in state_dict)
    lines = [
        f"{file}: loaded {used} tensors of {method['model']['name']}; ignored "
        f"{counters} counters ({COUNTER})"
    ]
    if converted["part"] == "backbone":
        tensors = len(state_dict) - counters - used
        lines[0] += f", {tensors} tensors of the classifier" if tensors else ""
        lines += [
            "backbone only: the head is randomly initialized",
            f"to use it: --config.train.init_from={out}",
        ]
    else:
        width, height = method["input_size"]
        lines += [
            f"keypoints {manifest['keypoints']['name']}, input {height}x{width}, sigma "
            f"{method['sigma']:g}, color order {converted['channels']}",
            f"alignment {method['alignment']}, decoder {method['decoder']}, flip test "
            f"{method['flip_test']}",
            f"to evaluate it: pose-jax eval --run {out} --data FOLDER",
        ]
    return "\n".join([*lines, f"model: {out / 'model'}"])
