"""Conversion of a published file to a run directory: `pose-jax weights convert`.

A PyTorch checkpoint, or the model.json of a TensorFlow.js graph, as the network says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from flax.traverse_util import unflatten_dict

from pose_jax import keypoints, methods, models, writing
from pose_jax.data import keypoint_sets
from pose_jax.errors import ConfigError, InputError
from pose_jax.geometry import Alignment
from pose_jax.runs import model as model_lib
from pose_jax.trees import flatten, path_matches
from pose_jax.weights import detectors, graphs, settings, tfjs_file, torch_file
from pose_jax.weights import names as names_lib
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
    decoder: str | None = None,
    channels: Literal["rgb", "bgr"] | None = None,
    norm_epsilon: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Writes OUT/model from a published checkpoint; writes nothing on failure.

    Settings that are None are those of the catalogue, if it has the file (by its name or
    SHA-256); otherwise those of the config in a file of mmpose, as far as it is read; and
    otherwise the published defaults of the network, which are stated below. A checkpoint
    whose number of keypoints is that of no known set is converted without its head.

    Args:
      file: a .safetensors or torch.save file, see `torch_file`; for the networks in
        `graphs.GRAPHS` the model.json of a TensorFlow.js graph model, which only
        `input_size` and `options` are for.
      model: name of the network.
      out: a run directory that does not exist yet or is empty.
      backbone: `file` is an ImageNet classifier, torchvision's ResNet or HRNet's; OUT can
        only be used in `train.init_from`.
      keypoint_set: "coco", "mpii", or another set or .json file of one, for which the head
        is left out; None: that of "coco" and "mpii" with this number of keypoints.
      input_size: (width, height); None: 192x256 for COCO, 256x256 for MPII, 96x128 for
        Hourglass, 257x353 for MultiPose.
      sigma: sigma of the targets, heatmap pixels; None: 1 at 96x128 (except 2 for
        hourglass_8), 3 at 288x384, otherwise 2. Only for heatmap networks.
      alignment: "stride": the HRNet and SimpleBaseline checkpoints, decoded by the
        quarter shift, with flip test "shift". "aligned": DarkPose's, ViTPose's and mmpose's
        "udp", decoded by "dark", with flip test "plain"; "half_pixel": the same with
        half-pixel centers. None: "stride", for Hourglass and ViTPose "aligned". Only for
        heatmap networks.
      decoder: decoder of heatmaps; None: the one of the alignment. All but "shift" are for
        targets at the unrounded point, e.g. "dark_paper" for mmpose's "dark".
      channels: color order in training, see `to_rgb`; None: "bgr", for HRNet, ViTPose,
        backbones and mmpose's files "rgb".
      norm_epsilon: of the frozen norms of a detector, see `detectors.from_torch`.
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
            "alignment": alignment, "decoder": decoder, "channels": channels,
        }  # fmt: skip
        for option in (name for name, value in unused.items() if value is not None):
            raise ConfigError(
                f"--{option} is fixed by the published graph of {model}: omit it."
            )
        return _convert_graph(file, model, out, input_size, options)
    if model in detectors.NETWORKS and not backbone:
        unused = {
            "keypoints": keypoint_set, "input-size": input_size, "sigma": sigma,
            "alignment": alignment, "decoder": decoder, "channels": channels,
        }  # fmt: skip
        for option in (name for name, value in unused.items() if value is not None):
            raise ConfigError(
                f"--{option} is not for detectors, as {model} is: omit it."
            )
        return _convert_detector(file, model, out, norm_epsilon, options)
    if norm_epsilon is not None:
        raise ConfigError(
            f"--norm-epsilon is for the detectors {', '.join(detectors.NETWORKS)}: omit it."
        )
    facts_of(model)
    if file.suffix == ".json" and not file.name.endswith(".index.json"):
        raise InputError(
            f"{file}: no TensorFlow.js graph of model {model!r} is published; use one of "
            f"{', '.join(graphs.GRAPHS)}, or a .safetensors or torch.save file."
        )
    checkpoint = torch_file.read_checkpoint(file)
    try:
        variables = from_torch(checkpoint.tensors, model, backbone=backbone, **options)
    except ConfigError:
        raise
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    k = None if backbone else num_keypoints(checkpoint.tensors, model)
    chosen = _keypoint_set(keypoint_set, k)
    headless = k is not None and _sizes().get(k) != chosen.name
    if headless:
        variables = _without_head(variables, model)
    used = len(flatten(variables))
    digest = _digest(checkpoint.files)
    asked = {
        "input_size": input_size, "sigma": sigma, "alignment": alignment,
        "decoder": decoder, "channels": channels,
    }  # fmt: skip
    told, source = _told(asked, file.name, digest, model, checkpoint, backbone)
    size = _input_size(model, told["input_size"], chosen.name)
    method = _method(
        model, options, size, told["sigma"], told["alignment"], told["decoder"]
    )
    order = told["channels"] or ("rgb" if backbone else facts_of(model).channels)
    is_detector = models.entry(model).outputs == "boxes"
    if order == "bgr":
        variables = to_rgb(variables)
    phase = "detector" if is_detector else "pose"
    part = "backbone" if backbone else "without head" if headless else "whole"
    converted = {"channels": order, "part": part, "settings": source}
    manifest = _save(
        out, {phase: variables}, method, None if is_detector else chosen,
        checkpoint.files, chosen.name if chosen.name in _SPLITS else "coco", converted,
        digest,
    )  # fmt: skip
    lost = k if headless else None
    return _summary(file, out, checkpoint.tensors, manifest, used, lost)


def _told(
    asked: Mapping[str, Any],
    file_name: str,
    digest: str,
    model: str,
    checkpoint: torch_file.Checkpoint,
    backbone: bool,
) -> tuple[dict[str, Any], str]:
    """Returns the settings, None where nothing states them, and where they come from."""
    release, known = settings.of_file(file_name, digest, model)
    source = f"the catalogue ({release})" if release else ""
    if not release and not backbone and models.entry(model).outputs == "heatmaps":
        known = settings.of_config(checkpoint.config)
        source = "the config in the file" if known else ""
    if names_lib.project(checkpoint.tensors) == "mmpose":
        known = {"channels": "rgb", **known}
    source = source or f"the defaults of {model}"
    given = [name for name, value in asked.items() if value is not None]
    if given:
        source = f"options ({', '.join(given)}), otherwise {source}"
    merged = {
        name: known.get(name) if value is None else value
        for name, value in asked.items()
    }
    if asked["alignment"] is not None and asked["decoder"] is None:
        merged["decoder"] = None  # The decoder belongs to the alignment.
    return merged, source


def _digest(files: Sequence[Path]) -> str:
    """Returns the SHA-256 of the files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _save(
    out: Path,
    variables: Mapping[str, Any],
    method: Mapping[str, Any],
    keypoint_set: keypoints.KeypointSet | None,
    files: Sequence[Path],
    data: str,
    converted: Mapping[str, Any],
    digest: str,
) -> dict[str, Any]:
    """Writes OUT/model and returns its manifest."""
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
        out, {phase.name: variables}, section, keypoints.COCO, files, "coco", converted,
        _digest(files),
    )  # fmt: skip
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


def _convert_detector(
    file: Path,
    model: str,
    out: Path,
    epsilon: float | None,
    options: Mapping[str, Any],
) -> str:
    """Writes OUT/model from a detector of torchvision; see `convert`."""
    if epsilon is not None and not 0 <= epsilon < 1:
        raise ConfigError(f"--norm-epsilon must be in [0, 1); got {epsilon}.")
    checkpoint = torch_file.read_checkpoint(file)
    try:
        variables, options = detectors.from_torch(
            checkpoint.tensors, model, epsilon=epsilon, **options
        )
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    section = {
        "name": methods.for_network(model),
        "model": {"name": model, "options": options},
        **detectors.SETTINGS,
    }
    (phase,) = methods.build(section, None).phases
    converted = {"channels": "rgb", "part": "whole"}
    _save(
        out, {phase.name: variables}, section, None, checkpoint.files, "coco", converted,
        _digest(checkpoint.files),
    )  # fmt: skip
    classes = max(options["classes"], 2)
    return "\n".join(
        [
            f"{file}: loaded {len(flatten(variables))} tensors of {model}",
            f"{classes} classes, of which people are used; images as in torchvision, "
            f"{section['size'][0]} to {section['size'][1]} pixels",
            f"to use it: pose-jax predict --run POSE_RUN --detector {out} PHOTO",
            f"to evaluate it: pose-jax eval --run {out} --data FOLDER",
            f"to train it further: --config.train.init_from={out}",
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
    decoder: str | None,
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
        if sigma is not None or alignment is not None or decoder is not None:
            raise ConfigError(
                "--sigma, --alignment and --decoder are only for heatmap networks, which "
                f"{model} is not: omit them."
            )
        return section
    if sigma is None:
        sigma = published.sigmas.get(input_size, 2.0)
    elif not 0 < sigma < float("inf"):
        raise ConfigError(f"--sigma must be positive; got {sigma}.")
    alignment = alignment or published.alignment
    stride = alignment == "stride"
    decoder = decoder or ("shift" if stride else "dark")
    section |= {
        "sigma": float(sigma),
        "encoding": "biased" if decoder == "shift" else "unbiased",
        "decoder": decoder,
        "alignment": alignment,
        "flip_test": "shift" if stride else "plain",
    }
    methods.build(section, keypoints.COCO)  # Raises for an unknown decoder.
    return section


def _sizes() -> dict[int, str]:
    """Returns the known keypoint sets by their number of keypoints."""
    return {len(keypoints.SETS[known]): known for known in _SPLITS}


def _keypoint_set(name: str | None, k: int | None) -> keypoints.KeypointSet:
    """Returns the requested set, or the one of k keypoints; k is None for a backbone."""
    if name is not None:
        return keypoint_sets.resolve(name, None)
    return keypoints.SETS["coco" if k is None else _sizes().get(k, "coco")]


def _without_head(variables: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Leaves out what depends on the keypoints."""
    heads = models.entry(model).heads
    kept = {
        path: leaf
        for path, leaf in flatten(variables).items()
        if not any(path_matches(pattern, path) for pattern in heads)
    }
    return unflatten_dict(kept)


def _summary(
    file: Path, out: Path, state_dict, manifest, used: int, lost: int | None
) -> str:
    """Returns what was done; `lost` is the number of keypoints of a head left out."""
    method, converted = manifest["method"], manifest["converted"]
    counters = sum(key.endswith(COUNTER) for key in state_dict)
    lines = [
        f"{file}: loaded {used} tensors of {method['model']['name']}; ignored "
        f"{counters} counters ({COUNTER})"
    ]
    project = names_lib.project(state_dict)
    if project is not None:
        lines[0] += f"; names of {project}"
    if lost is not None:
        known = ", ".join(f"{name} ({size})" for size, name in _sizes().items())
        combined = " (3 maps for each of 17: mmpose's combined UDP)" * (lost == 51)
        reason = f"its {lost} keypoints{combined} are of no known set, {known}"
        if lost in _sizes():
            reason = (
                f"it is that of {_sizes()[lost]}, not {manifest['keypoints']['name']}"
            )
        lines += [
            f"head left out: {reason}; a network trained from this one starts with a "
            "random head",
            f"to use it: --config.train.init_from={out}",
        ]
    elif converted["part"] == "backbone":
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
            f"settings: {converted['settings']}",
            f"to evaluate it: pose-jax eval --run {out} --data FOLDER",
        ]
    return "\n".join([*lines, f"model: {out / 'model'}"])
