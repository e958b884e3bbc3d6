"""Export of a network with its decoder, or of detector and poses, with the weights inside.

Two forms: *crops* in, points out; and, with a detector, *photographs* in, people out.

    crops        images uint8 [b, h, w, 3] -> points_xy [b, k, 2], scores [b, k]
    photographs  images uint8 [b, h, w, 3], sizes int32 [b, 2] (width, height) of each
                 photograph, in the upper left corner of its image
                 -> points_xy [b, n, k, 2], scores [b, n, k], person_scores [b, n],
                    boxes_xyxy [b, n, 4], box_scores [b, n], valid [b, n]

Points and boxes are in pixels of `images`, with integer centers for points; only b is
symbolic. The flip test of the run is included. A folder holds `network.jax_export`, lowered
by `jax.export` for CPUs, CUDA and TPUs (or a SavedModel, or a TFLite file, see
`tensorflow`); `check.npz`, inputs and outputs, on which every export is verified after it
was written and whenever `load_network` reads it; `manifest.json`; and `run.py`, which runs
it on a picture.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from pose_jax import writing
from pose_jax._version import __version__
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.export import decoder as decoder_lib
from pose_jax.export import tensorflow as tensorflow_lib
from pose_jax.methods.system import find_people
from pose_jax.runs import model as model_lib
from pose_jax.types import Inputs

Format = Literal["jax", "saved_model", "tflite"]

_ARTIFACT, _CHECK, _MANIFEST = "network.jax_export", "check.npz", "manifest.json"
_SCRIPT = "run.py"
_FORMAT = "pose_jax network 1"
_PROMISE_DAYS = 182
"""JAX reads exported functions for 6 months."""

_NEAR, _ENOUGH = 0.1, 0.95
"""Points differ by less than _NEAR pixels, except for this many: another platform rounds
otherwise, and where two peaks are equal the other one may win."""

Function = Callable[..., Any]
"""Arrays -> outputs by name."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What is exported.

    Attributes:
      function: arrays in the order of `inputs` -> outputs by name.
      inputs: name -> (shape without the batch axis, dtype).
      about: entries of the manifest.
    """

    function: Function
    inputs: Mapping[str, tuple[tuple[int, ...], Any]]
    about: Mapping[str, Any]

    def example(self, count: int = 2) -> dict[str, np.ndarray]:
        """Returns inputs of `count` rows, the same ones always: shapes and noise."""
        rng = np.random.default_rng(0)
        (shape, _) = self.inputs["images"]
        h, w, _ = shape
        coarse = rng.integers(0, 256, (count, -(-h // 8), -(-w // 8), 3))
        images = coarse.repeat(8, 1).repeat(8, 2)[:, :h, :w].astype(np.uint8)
        example: dict[str, np.ndarray] = {"images": images}
        if "sizes" in self.inputs:
            example["sizes"] = np.array([[w, h]] * count, np.int32)
            images[1:, h // 2 :] = 0
            example["sizes"][1:, 1] = h // 2
        return example


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A loaded export.

    Attributes:
      exported: the artifact, as returned by `jax.export`.
      manifest: the content of manifest.json.
      difference: largest difference of a point of the stored inputs from the stored one.
    """

    exported: jax.export.Exported
    manifest: Mapping[str, Any]
    difference: float

    def __call__(self, *arrays: Any) -> Any:
        """Runs it; see the module for the arrays."""
        return self.exported.call(*arrays)


def export_run(
    out: Path | str,
    run: Path | str,
    *,
    detector: Path | str | None = None,
    decoder: str | None = None,
    flip: str | None = None,
    canvas: tuple[int, int] | None = None,
    format: Format = "jax",
    bfloat16: bool = False,
    **options: Any,
) -> str:
    """Exports a run, loads the export again and compares; removes the folder on failure.

    Args:
      out: a folder that does not exist yet or is empty.
      run: the run directory of a pose method.
      detector: the run directory of a detector: the form of photographs.
      decoder, flip: decoder and flip test; None: the run's.
      canvas: (width, height) of photographs; None: the detector's largest bucket.
      format: "jax"; "saved_model", TensorFlow's; or "tflite", crops one at a time.
      bfloat16: weights of matrices and convolutions are stored in bfloat16, which halves
        the file; the computation is the run's.
      **options: of `methods.system.find_people`.

    Returns:
      A summary of the export, as text.

    Raises:
      ConfigError: an option that is invalid or does not fit, or `out` exists.
      InputError: no finished model in a run, or `out` cannot be written.
    """
    out = Path(out)
    writing.check_new(out)
    if format == "tflite" and (detector is not None or bfloat16):
        raise ConfigError(
            "--format tflite is for crops with float32 weights: omit --detector and "
            "--bfloat16."
        )
    if detector is None and (canvas is not None or options):
        raise ConfigError("--canvas and the options of detection need --detector.")
    program = _program(Path(run), detector, decoder, flip, canvas, bfloat16, options)
    return _written(out, program, format)


def load_network(folder: Path | str) -> Network:
    """Loads an export of format "jax" and verifies it on the stored inputs.

    Raises:
      InputError: a file is missing, damaged or of another format, this version of JAX
        cannot run it (the message says until when it was promised to), or its outputs
        differ from the stored ones.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    if manifest["file"] != _ARTIFACT:
        raise InputError(
            f"{folder} is of another format, {manifest['file']}: see run.py."
        )
    artifact = decoder_lib.read_member(folder / _ARTIFACT, manifest)
    check = decoder_lib.read_member(folder / _CHECK, manifest)
    try:
        exported = jax.export.deserialize(artifact)
        difference = _difference(exported.call, _stored(check))
    except InputError:
        raise
    except Exception as error:  # JAX raises many types; each means it cannot run here.
        raise InputError(
            f"{folder / _ARTIFACT} does not run with jax {jax.__version__} "
            f"({one_line(error, 200)}): {_remedy(manifest)}"
        ) from error
    return Network(exported, manifest, _accepted(difference, folder))


def refresh(folder: Path | str) -> str:
    """Renews an export: written again by this version of JAX, with a new date.

    Args:
      folder: the folder of an export of format "jax", or its `network.jax_export`.

    Returns:
      A summary, as text.

    Raises:
      InputError: see `load_network`, or the folder cannot be written.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == _ARTIFACT else folder
    network = load_network(folder)
    manifest = dict(network.manifest)
    old = manifest["readable_until"]
    exported = decoder_lib.lower(
        jax.jit(network.exported.call), network.exported.in_avals
    )
    artifact = bytes(exported.serialize())
    check = (folder / _CHECK).read_bytes()
    difference = _accepted(
        _difference(jax.export.deserialize(bytearray(artifact)).call, _stored(check)),
        folder,
    )
    manifest |= _dates(exported)
    manifest["sha256"] = {
        **manifest["sha256"],
        _ARTIFACT: decoder_lib.sha256(artifact),
    }
    writing.write(folder / _ARTIFACT, artifact)
    writing.write(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return (
        f"{folder}: written again by jax {jax.__version__}; JAX reads it until "
        f"{manifest['readable_until']}, before: {old}\n"
        f"self-check: maximum difference {difference:.2g} px"
    )


# ------------------------------------------------------------------------ what it computes


def _program(
    run: Path,
    detector: Path | str | None,
    decoder: str | None,
    flip: str | None,
    canvas: tuple[int, int] | None,
    bfloat16: bool,
    options: Mapping[str, Any],
) -> Program:
    loaded = model_lib.load(run)
    if loaded.keypoints is None:
        raise ConfigError(
            f"{run} is a detector: export the pose run that it is for, with --detector "
            f"{run}."
        )
    method: Any = loaded.method(decoder=decoder, flip=flip)
    about = {
        "keypoints": {
            "name": loaded.keypoints.name,
            "names": list(loaded.keypoints.names),
            "skeleton": [list(pair) for pair in loaded.keypoints.skeleton],
        },
        "decoder": method.decoder_name,
        "flip_test": getattr(method.config, "flip_test", None),
        "weights": "bfloat16" if bfloat16 else "float32",
        "run": _run_info(loaded),
    }
    weights = _stored_weights(loaded.variables, bfloat16)
    if detector is None:
        return _of_crops(method, weights, about)
    found = model_lib.load(detector)
    if found.keypoints is not None:
        raise ConfigError(f"--detector: {detector} is a pose run, not a detector.")
    about["detector"] = _run_info(found)
    boxes: Any = found.method()
    size = canvas or max(boxes.view.buckets, key=lambda bucket: bucket[0] * bucket[1])
    people = find_people(boxes, method, **options)
    detector_weights = _stored_weights(found.variables, bfloat16)
    return _of_photographs(people, detector_weights, weights, size, about)


def _run_info(loaded: model_lib.LoadedRun) -> dict[str, Any]:
    names = ("method", "train_data", "scores", "versions", "converted")
    return {name: loaded.manifest[name] for name in names if name in loaded.manifest}


def _of_crops(method: Any, weights: Any, about: Mapping[str, Any]) -> Program:
    w, h = method.view.size

    def function(images):
        crops = jnp.asarray(images, jnp.float32) / 255
        _, points_xy, scores = method.of_crops(_float32(weights), crops)
        return {"points_xy": points_xy, "scores": scores}

    about = {**about, "form": "crops", "input_size": [w, h]}
    return Program(function, {"images": ((h, w, 3), np.uint8)}, about)


def _of_photographs(
    people: Callable[..., Any],
    detector_weights: Any,
    weights: Any,
    size: tuple[int, int],
    about: Mapping[str, Any],
) -> Program:
    w, h = size

    def function(images, sizes):
        b = images.shape[0]
        sizes = jnp.asarray(sizes, jnp.float32)
        inputs = Inputs(
            images=images,
            canvas_to_image=jnp.broadcast_to(jnp.eye(2, 3), (b, 2, 3)),
            box_xyxy=jnp.concatenate([jnp.zeros_like(sizes), sizes], axis=-1),
            box_score=jnp.ones((b,)),
            valid=jnp.ones((b,), bool),
            row=jnp.arange(b, dtype=jnp.int32),
        )
        found = people(_float32(detector_weights), _float32(weights), inputs)
        return {
            "points_xy": found.points_xy,
            "scores": found.keypoint_scores,
            "person_scores": found.score,
            "boxes_xyxy": found.boxes_xyxy,
            "box_scores": found.box_scores,
            "valid": found.valid,
        }

    about = {**about, "form": "photographs", "input_size": [w, h]}
    inputs = {"images": ((h, w, 3), np.uint8), "sizes": ((2,), np.int32)}
    return Program(function, inputs, about)


def _stored_weights(variables: Any, bfloat16: bool) -> Any:
    """Returns NumPy arrays; matrices and kernels in bfloat16 if asked for."""

    def stored(leaf):
        leaf = np.asarray(leaf)
        if bfloat16 and leaf.ndim > 1 and leaf.dtype == np.float32:
            return leaf.astype(jnp.bfloat16)
        return leaf

    return jax.tree.map(stored, variables)


def _float32(variables: Any) -> Any:
    def full(leaf):
        return (
            jnp.asarray(leaf).astype(jnp.float32)
            if leaf.dtype == jnp.bfloat16
            else leaf
        )

    return jax.tree.map(full, variables)


# ------------------------------------------------------------------------------- storage


def _written(out: Path, program: Program, format: Format) -> str:
    """Writes the folder atomically: it is renamed only after a successful self-check."""
    jitted = jax.jit(program.function)
    example = program.example(1 if format == "tflite" else 2)
    answer = {name: np.asarray(it) for name, it in jitted(*example.values()).items()}
    check = _check_file(example, answer)
    manifest = {
        "format": _FORMAT,
        **program.about,
        "inputs": {
            name: f"{np.dtype(dtype).name} [b, {', '.join(map(str, shape))}]"
            for name, (shape, dtype) in program.inputs.items()
        },
        "outputs": {
            name: f"{it.dtype.name} [b{''.join(f', {n}' for n in it.shape[1:])}]"
            for name, it in answer.items()
        },
        "frame": "points and boxes are in pixels of the input images; the first pixel's "
        "center is (0, 0) for points, its corner for boxes",
        "sha256": {_CHECK: decoder_lib.sha256(check)},
    }
    out = out.absolute()
    new = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        new.mkdir(parents=True)
        if format == "jax":
            exported = decoder_lib.lower(
                jitted, list(_symbolic(program.inputs).values())
            )
            artifact = bytes(exported.serialize())
            (new / _ARTIFACT).write_bytes(artifact)
            manifest |= {"file": _ARTIFACT, **_dates(exported)}
            manifest["sha256"][_ARTIFACT] = decoder_lib.sha256(artifact)
        else:
            manifest |= tensorflow_lib.write(new, program, format, manifest)
        (new / _CHECK).write_bytes(check)
        text = json.dumps(manifest, indent=2) + "\n"
        (new / _MANIFEST).write_text(text, encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name("example.py"), new / _SCRIPT)
        if format == "jax":
            difference = load_network(new).difference
        else:
            found = tensorflow_lib.run(new, manifest, example)
            difference = _accepted(_distances(found, answer), new)
        new.rename(out)
    except OSError as error:
        raise writing.failure(out, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    file = out / manifest["file"]
    files = file.rglob("*") if file.is_dir() else [file]
    size = sum(it.stat().st_size for it in files if it.is_file())
    until, about = manifest.get("readable_until"), program.about
    width, height = about["input_size"]
    lines = [
        f"{file}: {about['form']} of {width}x{height} in, decoder {about['decoder']}, "
        f"{size:,} bytes, {about['weights']} weights",
        f"self-check: maximum difference {difference:.2g} px",
    ]
    if until:
        lines += [
            f"JAX reads it until {until}; renew it before: pose-jax export --refresh "
            f"{out}"
        ]
    return "\n".join(
        [*lines, f"to run it without pose_jax: python {out / _SCRIPT} PICTURE"]
    )


def _symbolic(inputs: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, Any]:
    scope = jax.export.SymbolicScope()
    return {
        name: jax.ShapeDtypeStruct(
            (*jax.export.symbolic_shape("b", scope=scope), *shape), dtype
        )
        for name, (shape, dtype) in inputs.items()
    }


def _dates(exported: jax.export.Exported) -> dict[str, Any]:
    today = datetime.date.today()
    return {
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "versions": {"pose_jax": __version__, "jax": jax.__version__},
        "written": today.isoformat(),
        "readable_until": (today + datetime.timedelta(_PROMISE_DAYS)).isoformat(),
    }


def _remedy(manifest: Mapping[str, Any]) -> str:
    written = manifest.get("versions", {}).get("jax", "unknown")
    until = str(manifest.get("readable_until", ""))
    ended = " and ended" if until < datetime.date.today().isoformat() else ""
    return (
        f"it was written by jax {written}, which promised this until {until}{ended}. With "
        f"jax {written}: pose-jax export --refresh FOLDER with a version between, or "
        "export the run again."
    )


def _check_file(example: Mapping[str, Any], answer: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    members = {f"in_{name}": array for name, array in example.items()}
    members |= {f"out_{name}": array for name, array in answer.items()}
    np.savez_compressed(file, **members)
    return file.getvalue()


def _stored(check: bytes | bytearray) -> dict[str, dict[str, np.ndarray]]:
    with np.load(io.BytesIO(check), allow_pickle=False) as stored:
        parts: dict[str, dict[str, np.ndarray]] = {"in": {}, "out": {}}
        for name in stored:
            part, _, rest = name.partition("_")
            parts[part][rest] = stored[name]
    return parts


def _difference(call: Function, stored: Mapping[str, Any]) -> np.ndarray:
    return _distances(call(*stored["in"].values()), stored["out"])


def _distances(found: Mapping[str, Any], expected: Mapping[str, Any]) -> np.ndarray:
    """Returns the distance of each point from the expected one; only people that are."""
    valid = expected.get("valid", np.ones(len(expected["points_xy"]), bool))
    if not np.array_equal(np.asarray(found.get("valid", valid)), valid):
        return np.array([np.inf])
    apart = np.asarray(found["points_xy"]) - expected["points_xy"]
    distances = np.linalg.norm(apart[valid], axis=-1).ravel()
    return distances if len(distances) else np.zeros(1)


def _accepted(distances: np.ndarray, folder: Path) -> float:
    """Returns the largest distance; raises InputError if too many points differ."""
    near = np.mean(distances < _NEAR)
    if not near >= _ENOUGH:
        raise InputError(
            f"{folder}: self-check failed: of the stored points {near:.0%} are met within "
            f"{_NEAR} px with jax {jax.__version__} on {jax.default_backend()}: export "
            "the run again."
        )
    return float(distances.max())


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: no export found; `pose-jax export` writes one.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise decoder_lib.unusable(file, one_line(error, 200)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise decoder_lib.unusable(file, f"its format is {found!r}, not {_FORMAT!r}")
    if not isinstance(manifest.get("sha256"), dict) or "file" not in manifest:
        raise decoder_lib.unusable(file, "checksums are missing")
    return manifest
