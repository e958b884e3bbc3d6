"""Export of a heatmap decoder to one file that runs with JAX alone, without pose_jax.

`pose-jax export` writes a folder with `decoder.jax_export`, the decoder lowered by
`jax.export` for CPUs, CUDA and TPUs; `check.npz`, a few heatmaps and their decoded points;
and `manifest.json`, which describes the decoder and has the three lines that run it. Batch,
height, width and number of keypoints are symbolic. For gradients, import the decoder.

Heatmaps are [b, h, w, k], points (x, y) in heatmap pixels with integer centers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from pose_jax import methods, writing
from pose_jax._version import __version__
from pose_jax.codecs import gaussian
from pose_jax.errors import ConfigError, InputError, did_you_mean, one_line
from pose_jax.keypoints import KeypointSet
from pose_jax.runs import model as model_lib
from pose_jax.types import Decoder as MethodDecoder
from pose_jax.types import Method

PLATFORMS = ("cpu", "cuda", "tpu")

_ARTIFACT, _CHECK, _MANIFEST = "decoder.jax_export", "check.npz", "manifest.json"
_FORMAT = "pose_jax decoder 1"

_TOLERANCE = 1e-4
"""In heatmap pixels and score units; more than the rounding differences of platforms."""

_MAX_SIGMA, _MAX_KERNEL = 16, 95
"""For wider blurs the slope is so small that rounding errors exceed the tolerance."""

_FRAME = (
    "points are (x, y) in heatmap pixels with integer centers: the first pixel of a map "
    "is (0, 0), the last (w - 1, h - 1)"
)
_TO_INPUT = {
    "stride": "(x * W / w, y * H / h)",
    "aligned": "(x * (W - 1) / (w - 1), y * (H - 1) / (h - 1))",
    "half_pixel": "((x + 1/2) * W / w - 1/2, (y + 1/2) * H / h - 1/2)",
}
_SIZES = "(w, h) is the size of the heatmap, (W, H) = input_size the size of the input"
_BLUR = (
    "a Gaussian, in heatmap pixels. sigma null: sigma of OpenCV's kernel of this size; "
    "kernel_size null: the odd number nearest 6 * sigma - 1, at least 3"
)
_COMPATIBILITY = (
    "Artifacts written by jax 0.10 can be read by jax 0.8.3 to 0.12.0 (the latest version "
    "tested), not by 0.8.0 and earlier; jax guarantees backward compatibility for 6 months."
)
_USAGE = (
    "import jax, jax.export",
    f'artifact = bytearray(open("{_ARTIFACT}", "rb").read())',
    "points_xy, scores = jax.export.deserialize(artifact).call(heatmaps)",
)

Decode = Callable[[Any], tuple[jax.Array, jax.Array]]
"""Heatmaps [b, h, w, k] to points_xy [b, k, 2] and scores [b, k]."""


@dataclasses.dataclass(frozen=True, eq=False)  # Hashed by identity, for `jax.jit`.
class Decoder:
    """An exported decoder, loaded from its folder.

    Attributes:
      exported: the artifact, as returned by `jax.export`.
      manifest: the content of manifest.json.
      difference: maximum difference, on this machine, between the decoded points and
        scores of the stored heatmaps and the stored ones.
    """

    exported: jax.export.Exported
    manifest: Mapping[str, Any]
    difference: float = 0.0

    def __call__(self, heatmaps: Any) -> tuple[jax.Array, jax.Array]:
        """Decodes heatmaps. Supports `jax.jit`, but not `vmap` or `grad`.

        Args:
          heatmaps: [b, h, w, k], NumPy or JAX, any floating dtype; converted to float32.

        Returns:
          points_xy [b, k, 2] in heatmap pixels and scores [b, k], both float32.

        Raises:
          ValueError: integer heatmaps, an empty heatmap, or not four axes.
        """
        if not isinstance(heatmaps, jax.Array):
            heatmaps = np.asarray(heatmaps)
        if heatmaps.ndim != 4 or 0 in heatmaps.shape[1:]:
            raise ValueError(
                f"heatmaps must be non-empty [b, h, w, k]; got shape {heatmaps.shape}."
            )
        if not jnp.issubdtype(heatmaps.dtype, jnp.floating):
            raise ValueError(f"heatmaps must be floating point; got {heatmaps.dtype}.")
        b, k = heatmaps.shape[0], heatmaps.shape[3]
        if b == 0:  # Symbolic sizes of jax.export are at least 1.
            return jnp.zeros((0, k, 2), jnp.float32), jnp.zeros((0, k), jnp.float32)
        points_xy, scores = self.exported.call(jnp.asarray(heatmaps, jnp.float32))
        return points_xy, scores


def load(folder: Path | str) -> Decoder:
    """Loads an exported decoder and checks it on the stored heatmaps.

    Raises:
      InputError: a file is missing, damaged or of another format, this version of JAX
        cannot run it, or its outputs differ from the stored ones.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    artifact = read_member(folder / _ARTIFACT, manifest)
    check = read_member(folder / _CHECK, manifest)
    here = f"jax {jax.__version__} on {jax.default_backend()}"
    again = "export the decoder again with this version of jax."
    try:
        decoder = Decoder(jax.export.deserialize(artifact), manifest)
        with np.load(io.BytesIO(check), allow_pickle=False) as stored:
            difference = _difference(decoder, stored)
    except Exception as error:  # JAX raises many types; each means it cannot run here.
        raise InputError(
            f"{folder / _ARTIFACT} does not run with {here} ({one_line(error, 200)}): "
            f"{again}"
        ) from error
    if not difference <= _TOLERANCE:
        raise InputError(
            f"{folder / _ARTIFACT}: self-check failed: outputs for {_CHECK} differ by "
            f"{difference:g} from those stored at export, with {here}: {again}"
        )
    return dataclasses.replace(decoder, difference=difference)


def export_decoder(
    out: Path | str,
    *,
    decoder: str | None = None,
    run: Path | str | None = None,
    sigma: float | None = None,
    kernel_size: int | None = None,
) -> str:
    """Exports a decoder, loads it again and compares; removes the folder on failure.

    Args:
      out: a folder that does not exist yet or is empty.
      decoder: name of a heatmap decoder; None: the decoder of the run, or "dark".
      run: the run directory that provides sigma and kernel size.
      sigma, kernel_size: of the blur, without a run; as in `gaussian.decode_dark`.

    Returns:
      A summary of the export, as text.

    Raises:
      ConfigError: unknown decoder, an option that is invalid or not used by the decoder, a
        run of another method, or `out` exists.
      InputError: no finished model in `run`, or `out` cannot be written.
    """
    out = Path(out)
    writing.check_new(out)
    options = {"sigma": sigma, "kernel_size": kernel_size}
    options = {name: value for name, value in options.items() if value is not None}
    method = None
    if run is None:
        name = decoder or "dark"
        chosen, settings = _with_options(name, options)
    elif options:
        raise ConfigError(
            f"{_words(options)}: set by {run}; give these options or --run, not both."
        )
    else:
        method = _method_of(Path(run), decoder)
        name, chosen = method.decoder_name, method.decoder
        settings = {key: getattr(method.config, key) for key in chosen.uses}
        _check_blur(settings, f"{run}: method.sigma", f"{run}: method.kernel_size")

    @jax.jit
    def decode(heatmaps):
        return chosen.fn(heatmaps, **settings)

    shape = jax.export.symbolic_shape("b, h, w, k")
    exported = lower(decode, [jax.ShapeDtypeStruct(shape, jnp.float32)])
    blur = {"sigma": None, "kernel_size": None, **settings}
    points_xy, scores = exported.out_avals
    artifact, check = bytes(exported.serialize()), _check_file(decode)
    manifest = {
        "format": _FORMAT,
        "decoder": name,
        **blur,
        "blur": _BLUR if blur["sigma"] or blur["kernel_size"] else None,
        **_describe(method),
        "input": {"heatmaps": str(exported.in_avals[0])},
        "output": {"points_xy": str(points_xy), "scores": str(scores)},
        "sizes": "b, h, w and k are symbolic: any size from 1; keypoints are the last axis",
        "frame": _FRAME,
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "versions": {"pose_jax": __version__, "jax": jax.__version__},
        "sha256": {_ARTIFACT: sha256(artifact), _CHECK: sha256(check)},
        "compatibility": _COMPATIBILITY,
        "usage": list(_USAGE),
    }
    text = (json.dumps(manifest, indent=2) + "\n").encode()
    written = _write(out, {_ARTIFACT: artifact, _CHECK: check, _MANIFEST: text})
    described = "".join(f", {key} {value}" for key, value in blur.items() if value)
    maps = sum(len(maps) * maps.shape[-1] for maps in _stored_maps())
    return (
        f"{out}: decoder {name}{described}, {len(artifact):,} bytes for "
        f"{', '.join(exported.platforms)}\n"
        f"self-check on {maps} stored heatmaps: maximum difference {written.difference:g}"
    )


# ------------------------------------------------------------------ which decoder it is


def _words(names: Iterable[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def _with_options(
    name: str, options: Mapping[str, Any]
) -> tuple[MethodDecoder, dict[str, Any]]:
    """Returns a heatmap decoder by name, and its settings."""
    known = methods.heatmap_decoders()
    if name not in known:
        meant = did_you_mean(name, known)
        raise ConfigError(f"no decoder {name!r}.{meant} Known: {', '.join(known)}.")
    decoder = known[name]
    unused = [option for option in options if option not in decoder.uses]
    if unused:
        raise ConfigError(
            f"{_words(unused)}: not used by decoder {name!r}; omit the option."
        )
    # Without options, the default of `gaussian.decode_dark`, to record it in the manifest.
    settings = {"sigma": None, "kernel_size": None if options else 11, **options}
    settings = {key: settings[key] for key in decoder.uses}
    _check_blur(settings, "--sigma", "--kernel-size")
    return decoder, settings


def _method_of(run: Path, decoder: str | None) -> Method:
    """Returns the method of a run; its decoder must take heatmaps only."""
    manifest = model_lib.load_manifest(run / "model")
    if manifest.get("converted", {}).get("part") == "backbone":
        raise ConfigError(
            f"{run} is a backbone without a head and has no heatmaps: give a trained run."
        )
    if manifest["keypoints"] is None:
        raise ConfigError(f"{run} is a detector and has no decoders: give a pose run.")
    keypoint_set = KeypointSet.from_json(manifest["keypoints"])
    method = methods.build(manifest["method"], keypoint_set, decoder=decoder)
    if list(method.decoder.inputs) != ["heatmaps"]:
        raise ConfigError(
            f"{run}: decoder {method.decoder_name!r} of method {method.name!r} needs more "
            "than heatmaps; give another --decoder or --run, or omit --run."
        )
    return method


def _check_blur(settings: Mapping[str, Any], sigma_name: str, kernel_name: str) -> None:
    sigma, kernel_size = settings.get("sigma"), settings.get("kernel_size")
    if sigma is not None and not 0 < sigma <= _MAX_SIGMA:
        raise ConfigError(
            f"{sigma_name} must be in (0, {_MAX_SIGMA}] heatmap pixels; got {sigma}."
        )
    if kernel_size is not None and kernel_size not in range(1, _MAX_KERNEL + 1, 2):
        raise ConfigError(
            f"{kernel_name} must be an odd number of heatmap pixels from 1 to "
            f"{_MAX_KERNEL}; got {kernel_size}."
        )


def lower(function: Any, shapes: Sequence[Any]) -> jax.export.Exported:
    """Lowers a jitted function for all platforms, without the paths of this machine."""
    # Keeps the paths of this machine out of the artifact.
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, r".*[/\\]")
    try:
        return jax.export.export(function, platforms=PLATFORMS)(*shapes)
    finally:
        jax.config.update(option, before)


def _describe(method: Method | None) -> dict[str, Any]:
    """Returns the manifest entries that require a run: keypoints, input and output."""
    keypoint_set = alignment = size = flip_test = None
    points_xy, heatmaps = _TO_INPUT, "as passed to the network's decoder"
    if method is not None:
        keypoint_set = {"name": method.keypoints.name, "names": method.keypoints.names}
        alignment, size = method.view.alignment, method.view.size
        points_xy, heatmaps = _TO_INPUT[alignment], method.input_words
        flip_test = method.config.flip_test
    return {
        "keypoints": keypoint_set,
        "to_input": {
            "alignment": alignment,
            "input_size": size,
            "points_xy": points_xy,
            "where": _SIZES,
        },
        "heatmaps": heatmaps,
        "flip_test": flip_test,
    }


# ------------------------------------------------------------------------------- storage


def _stored_maps() -> list[np.ndarray]:
    """Heatmaps for each branch of a decoder: inner and edge peaks, noise, flat, empty."""
    rng = np.random.default_rng(0)
    interior = [(11.3, 15.6), (8.4, 20.0), (14.8, 12.2), (12.0, 16.0)]
    edge = [(0.3, 9.4), (22.6, 30.7), (5.2, 0.0), (23.4, 14.9)]
    points_xy = jnp.array([interior, edge], jnp.float32)
    clean = np.asarray(gaussian.encode(points_xy, size=(24, 32), sigma=2))
    noisy = clean + rng.normal(scale=0.05, size=clean.shape)
    other = np.zeros((1, 32, 24, 4))  # The first stays empty.
    other[..., 1] = 0.5
    peak = np.add.outer([0, 1, 0], [1, 2, 1])
    other[0, 8:11, 0:3, 2] = other[0, 20:23, 14:17, 2] = peak
    other[..., 3] = rng.random((1, 32, 24))
    other[0, 9, 1, 3] = 1.5  # Near an edge, where the slope of a wide blur is not used.
    small = np.zeros((2, 5, 7, 3))
    small[0, 3, 4] = 1
    small[1] = rng.random((5, 7, 3))
    large = np.concatenate([clean, noisy, other])
    return [large.astype(np.float32), small.astype(np.float32)]


def _check_file(decode: Decode) -> bytes:
    """Returns the content of check.npz."""
    members = {}
    for i, maps in enumerate(_stored_maps()):
        points_xy, scores = map(np.asarray, decode(maps))
        arrays = {"heatmaps": maps, "points_xy": points_xy, "scores": scores}
        members |= {f"{name}_{i}": array for name, array in arrays.items()}
    file = io.BytesIO()
    np.savez_compressed(file, **members)
    return file.getvalue()


def _difference(decode: Decode, stored: Mapping[str, np.ndarray]) -> float:
    """Returns the maximum difference of points and scores from the stored ones."""
    differences = []
    for i in range(len(stored) // 3):
        points_xy, scores = decode(stored[f"heatmaps_{i}"])
        differences += [points_xy - stored[f"points_xy_{i}"]]
        differences += [scores - stored[f"scores_{i}"]]
    return float(np.max([np.max(np.abs(values)) for values in differences]))


def _write(out: Path, files: Mapping[str, bytes]) -> Decoder:
    """Writes the folder atomically: it is renamed only after a successful self-check."""
    out = out.absolute()
    new = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        new.mkdir(parents=True)
        for name, content in files.items():
            (new / name).write_bytes(content)
        decoder = load(new)
        new.rename(out)
    except OSError as error:
        raise writing.failure(out, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return decoder


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no exported decoder found; `pose-jax export` writes one."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unusable(file, one_line(error, 200)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise unusable(file, f"its format is not {_FORMAT!r}")
    if not isinstance(manifest.get("sha256"), dict):
        raise unusable(file, "checksums are missing")
    return manifest


def read_member(file: Path, manifest: Mapping[str, Any]) -> bytearray:
    try:
        content = bytearray(file.read_bytes())
    except OSError as error:
        raise unusable(file, one_line(error, 200)) from error
    if sha256(content) != manifest["sha256"].get(file.name):
        raise unusable(file, f"its checksum differs from {_MANIFEST}")
    return content


def unusable(file: Path, reason: str) -> InputError:
    return InputError(
        f"{file} cannot be used ({reason}): copy the complete folder again, or export the "
        "decoder again."
    )


def sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
