"""A decoder of heatmaps as one file that runs wherever JAX does, without pose_jax.

`pose-jax export` writes a folder: `decoder.jax_export`, the decoder lowered by
`jax.export` for CPUs, CUDA and TPUs; `check.npz`, a few maps and what the decoder says of
them; `manifest.json`, what it is, and the three lines that run it. Batch, height, width
and number of keypoints stay open. It has no gradient: for that, import the decoder.

Heatmaps are [b, h, w, k], points (x, y) in heatmap pixels with integer centres.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from pose_jax import methods
from pose_jax._version import __version__
from pose_jax.codecs import gaussian
from pose_jax.errors import ConfigError, InputError, did_you_mean, disk_full, one_line
from pose_jax.keypoints import KeypointSet
from pose_jax.runs import states
from pose_jax.types import Decoder as MethodDecoder
from pose_jax.types import Method

PLATFORMS = ("cpu", "cuda", "tpu")

_ARTEFACT, _CHECK, _MANIFEST = "decoder.jax_export", "check.npz", "manifest.json"
_FORMAT = "pose_jax decoder 1"

_TOLERANCE = 1e-4
"""Heatmap pixels, and units of the maps: platforms round differently, but not so much."""

_MAX_SIGMA, _MAX_KERNEL = 16, 95
"""Wider blurs leave so little slope that rounding moves points by more than that."""

_FRAME = (
    "points are (x, y) in heatmap pixels with integer centres: the first pixel of a map "
    "is (0, 0), the last (w - 1, h - 1)"
)
_TO_INPUT = {
    "stride": "(x * W / w, y * H / h)",
    "aligned": "(x * (W - 1) / (w - 1), y * (H - 1) / (h - 1))",
}
_SIZES = "(w, h) is the size of the heatmap, (W, H) = input_size that of the input"
_BLUR = (
    "a Gaussian, in heatmap pixels. sigma null: that of OpenCV's kernel of this size; "
    "kernel_size null: the odd number nearest 6 * sigma - 1, at least 3"
)
_COMPATIBILITY = (
    "Artefacts written by jax 0.10 are read by 0.8.3 and later jax versions measured so "
    "far, up to 0.12.0, not by 0.8.0 and earlier; jax guarantees six months backward."
)
_USAGE = (
    "import jax, jax.export",
    f'artefact = bytearray(open("{_ARTEFACT}", "rb").read())',
    "points_xy, scores = jax.export.deserialize(artefact).call(heatmaps)",
)

Decode = Callable[[Any], tuple[jax.Array, jax.Array]]
"""Heatmaps [b, h, w, k] to points_xy [b, k, 2] and scores [b, k]."""


@dataclasses.dataclass(frozen=True, eq=False)  # Hashed as itself, for `jax.jit`.
class Decoder:
    """An exported decoder, read from its folder.

    Attributes:
      exported: the artefact, as `jax.export` gives it.
      manifest: the content of manifest.json.
      difference: the most by which its answers to the stored maps differ, on this
        machine, from those stored with them.
    """

    exported: jax.export.Exported
    manifest: Mapping[str, Any]
    difference: float = 0.0

    def __call__(self, heatmaps: Any) -> tuple[jax.Array, jax.Array]:
        """Decodes heatmaps; under `jax.jit` too, but not under `vmap` or `grad`.

        Args:
          heatmaps: [b, h, w, k], of NumPy or JAX, of any floating dtype; read as float32.

        Returns:
          points_xy [b, k, 2] in heatmap pixels and scores [b, k], both float32.

        Raises:
          ValueError: integer maps, an empty map, or not four axes.
        """
        if not isinstance(heatmaps, jax.Array):
            heatmaps = np.asarray(heatmaps)
        if heatmaps.ndim != 4 or 0 in heatmaps.shape[1:]:
            raise ValueError(
                f"heatmaps must be [b, h, w, k], no map empty; got {heatmaps.shape}."
            )
        if not jnp.issubdtype(heatmaps.dtype, jnp.floating):
            raise ValueError(f"heatmaps must be floating point; got {heatmaps.dtype}.")
        b, k = heatmaps.shape[0], heatmaps.shape[3]
        if b == 0:  # An open size of jax.export is at least 1.
            return jnp.zeros((0, k, 2), jnp.float32), jnp.zeros((0, k), jnp.float32)
        points_xy, scores = self.exported.call(jnp.asarray(heatmaps, jnp.float32))
        return points_xy, scores


def load(folder: Path | str) -> Decoder:
    """Reads an exported decoder, and tries it on the maps stored with it.

    Raises:
      InputError: a file is missing, damaged or not ours, this JAX cannot run it, or its
        answers are not those that were stored.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    artefact = _read(folder / _ARTEFACT, manifest)
    check = _read(folder / _CHECK, manifest)
    here = f"jax {jax.__version__} on {jax.default_backend()}"
    again = "export the decoder again with this version of jax."
    try:
        found = Decoder(jax.export.deserialize(artefact), manifest)
        with np.load(io.BytesIO(check), allow_pickle=False) as stored:
            difference = _difference(found, stored)
    except Exception as error:  # Whatever JAX raises: it does not run here.
        raise InputError(
            f"{folder / _ARTEFACT} does not run with {here} ({one_line(error, 200)}): "
            f"{again}"
        ) from error
    if not difference <= _TOLERANCE:
        raise InputError(
            f"{folder / _ARTEFACT} decodes the maps of {_CHECK} otherwise than it did, "
            f"by {difference:g}, with {here}: {again}"
        )
    return dataclasses.replace(found, difference=difference)


def export_decoder(
    out: Path | str,
    *,
    decoder: str | None = None,
    run: Path | str | None = None,
    sigma: float | None = None,
    kernel_size: int | None = None,
) -> str:
    """Writes a decoder, reads it again and compares; a failure leaves nothing behind.

    Args:
      out: a folder that does not exist yet, or is empty.
      decoder: one of heatmaps, by name; None: the run's own, without a run "dark".
      run: the run directory that sigma and kernel size are taken from.
      sigma, kernel_size: without a run; of the blur, as in `gaussian.decode_dark`.

    Returns:
      What was written, in lines.

    Raises:
      ConfigError: no such decoder, an option that is wrong or that it does not use, a run
        of another method, or `out` is taken or cannot be made.
      InputError: no finished model in `run`.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already: give another --out, or delete it.")
    options = {"sigma": sigma, "kernel_size": kernel_size}
    options = {name: value for name, value in options.items() if value is not None}
    method = None
    if run is None:
        name = decoder or "dark"
        chosen, settings = _with_options(name, options)
    elif options:
        raise ConfigError(
            f"{_words(options)}: {run} has its own; give these or --run, not both."
        )
    else:
        method = _method_of(Path(run), decoder)
        name, chosen = method.decoder_name, method.decoder
        settings = {key: getattr(method.config, key) for key in chosen.uses}
        _check_blur(settings, f"{run}: method.sigma", f"{run}: method.kernel_size")

    @jax.jit
    def decode(heatmaps):
        return chosen.fn(heatmaps, **settings)

    exported = _lower(decode)
    blur = {"sigma": None, "kernel_size": None, **settings}
    points_xy, scores = exported.out_avals
    artefact, check = bytes(exported.serialize()), _answers(decode)
    manifest = {
        "format": _FORMAT,
        "decoder": name,
        **blur,
        "blur": _BLUR if blur["sigma"] or blur["kernel_size"] else None,
        **_describe(method),
        "input": {"heatmaps": str(exported.in_avals[0])},
        "output": {"points_xy": str(points_xy), "scores": str(scores)},
        "sizes": "b, h, w and k are open: any number from 1; keypoints come last",
        "frame": _FRAME,
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "versions": {"pose_jax": __version__, "jax": jax.__version__},
        "sha256": {_ARTEFACT: _sha256(artefact), _CHECK: _sha256(check)},
        "compatibility": _COMPATIBILITY,
        "usage": list(_USAGE),
    }
    text = (json.dumps(manifest, indent=2) + "\n").encode()
    read = _write(out, {_ARTEFACT: artefact, _CHECK: check, _MANIFEST: text})
    said = "".join(f", {key} {value}" for key, value in blur.items() if value)
    maps = sum(len(maps) * maps.shape[-1] for maps in _stored_maps())
    return (
        f"{out}: decoder {name}{said}, {len(artefact):,} bytes for "
        f"{', '.join(exported.platforms)}\n"
        f"read again: on {maps} stored maps it differs from the function by at most "
        f"{read.difference:g}"
    )


# ------------------------------------------------------------------ which decoder it is


def _words(names: Iterable[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def _with_options(
    name: str, options: Mapping[str, Any]
) -> tuple[MethodDecoder, dict[str, Any]]:
    """A decoder of heatmaps by name, and its settings."""
    known = methods.heatmap_decoders()
    if name not in known:
        meant = did_you_mean(name, known)
        raise ConfigError(f"no decoder {name!r}; there are {list(known)}.{meant}")
    decoder = known[name]
    unused = [option for option in options if option not in decoder.uses]
    if unused:
        raise ConfigError(
            f"{_words(unused)}: decoder {name!r} has no use for it; leave it out."
        )
    # Neither: what `gaussian.decode_dark` takes then, so that the manifest can say it.
    settings = {"sigma": None, "kernel_size": None if options else 11, **options}
    settings = {key: settings[key] for key in decoder.uses}
    _check_blur(settings, "--sigma", "--kernel-size")
    return decoder, settings


def _method_of(run: Path, decoder: str | None) -> Method:
    """A run's method, whose decoder is of heatmaps alone."""
    manifest = states.load_manifest(run / "model")
    if manifest.get("converted", {}).get("part") == "backbone":
        raise ConfigError(
            f"{run} is a backbone alone and gives no heatmaps; give a trained run."
        )
    if manifest["keypoints"] is None:
        raise ConfigError(f"{run} is a detector and has no decoders: give another run.")
    keypoint_set = KeypointSet.from_json(manifest["keypoints"])
    method = methods.build(manifest["method"], keypoint_set, decoder=decoder)
    if list(method.decoder.inputs) != ["heatmaps"]:
        raise ConfigError(
            f"{run} is of method {method.name!r}, whose decoder {method.decoder_name!r} "
            "does not take heatmaps alone; give another --decoder or run, or no --run."
        )
    return method


def _check_blur(settings: Mapping[str, Any], sigma_name: str, kernel_name: str) -> None:
    sigma, kernel_size = settings.get("sigma"), settings.get("kernel_size")
    if sigma is not None and not 0 < sigma <= _MAX_SIGMA:
        raise ConfigError(
            f"{sigma_name} must be above 0 and at most {_MAX_SIGMA}, in heatmap pixels; "
            f"got {sigma}."
        )
    if kernel_size is not None and kernel_size not in range(1, _MAX_KERNEL + 1, 2):
        raise ConfigError(
            f"{kernel_name} must be odd, from 1 to {_MAX_KERNEL}, in heatmap pixels; got "
            f"{kernel_size}."
        )


def _lower(decode: jax.stages.Wrapped) -> jax.export.Exported:
    shape = jax.export.symbolic_shape("b, h, w, k")
    # Or the artefact would name the folders of this machine.
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, r".*[/\\]")
    try:
        return jax.export.export(decode, platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(shape, jnp.float32)
        )
    finally:
        jax.config.update(option, before)


def _describe(method: Method | None) -> dict[str, Any]:
    """What only a run knows: its keypoints, its network's input and output."""
    keypoint_set = alignment = size = flip_test = None
    points_xy, heatmaps = _TO_INPUT, "as the network's decoder gets them"
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


# ------------------------------------------------------------------------ what is stored


def _stored_maps() -> list[np.ndarray]:
    """Maps that take every branch of a decoder: whole, cut, noisy, even and empty ones."""
    rng = np.random.default_rng(0)
    whole = [(11.3, 15.6), (8.4, 20.0), (14.8, 12.2), (12.0, 16.0)]
    at_the_rim = [(0.3, 9.4), (22.6, 30.7), (5.2, 0.0), (23.4, 14.9)]
    points_xy = jnp.array([whole, at_the_rim], jnp.float32)
    clean = np.asarray(gaussian.encode(points_xy, size=(24, 32), sigma=2))
    noisy = clean + rng.normal(scale=0.05, size=clean.shape)
    other = np.zeros((1, 32, 24, 4))  # The first stays empty.
    other[..., 1] = 0.5
    peak = np.add.outer([0, 1, 0], [1, 2, 1])
    other[0, 8:11, 0:3, 2] = other[0, 20:23, 14:17, 2] = peak
    other[..., 3] = rng.random((1, 32, 24))
    other[0, 9, 1, 3] = 1.5  # Where a wide blur of noise is not asked for its slope.
    small = np.zeros((2, 5, 7, 3))
    small[0, 3, 4] = 1
    small[1] = rng.random((5, 7, 3))
    large = np.concatenate([clean, noisy, other])
    return [large.astype(np.float32), small.astype(np.float32)]


def _answers(decode: Decode) -> bytes:
    """The content of check.npz."""
    members = {}
    for i, maps in enumerate(_stored_maps()):
        points_xy, scores = map(np.asarray, decode(maps))
        given = {"heatmaps": maps, "points_xy": points_xy, "scores": scores}
        members |= {f"{name}_{i}": array for name, array in given.items()}
    file = io.BytesIO()
    np.savez_compressed(file, **members)
    return file.getvalue()


def _difference(decode: Decode, stored: Mapping[str, np.ndarray]) -> float:
    """The most by which points or scores differ from those that were stored."""
    differences = []
    for i in range(len(stored) // 3):
        points_xy, scores = decode(stored[f"heatmaps_{i}"])
        differences += [points_xy - stored[f"points_xy_{i}"]]
        differences += [scores - stored[f"scores_{i}"]]
    return float(np.max([np.max(np.abs(values)) for values in differences]))


def _write(out: Path, files: Mapping[str, bytes]) -> Decoder:
    """Makes the folder, whole and read again, or not at all."""
    out = out.absolute()
    new = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        new.mkdir(parents=True)
        for name, content in files.items():
            (new / name).write_bytes(content)
        found = load(new)
        new.rename(out)
    except OSError as error:
        if disk_full(error) is not None:
            raise
        raise ConfigError(
            f"{out} cannot be made ({error.strerror}): give another --out."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return found


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no exported decoder here; `pose-jax export` makes one."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(file, one_line(error, 200)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise _unusable(file, f"it is not of a {_FORMAT!r}")
    if not isinstance(manifest.get("sha256"), dict):
        raise _unusable(file, "it has no checksums")
    return manifest


def _read(file: Path, manifest: Mapping[str, Any]) -> bytearray:
    try:
        content = bytearray(file.read_bytes())
    except OSError as error:
        raise _unusable(file, one_line(error, 200)) from error
    if _sha256(content) != manifest["sha256"].get(file.name):
        raise _unusable(file, f"its checksum is not the one in {_MANIFEST}")
    return content


def _unusable(file: Path, reason: str) -> InputError:
    return InputError(
        f"{file} cannot be used ({reason}): copy the whole folder again, or export the "
        "decoder again."
    )


def _sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
