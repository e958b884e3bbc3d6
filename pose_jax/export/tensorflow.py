"""Exports for TensorFlow: a SavedModel, or a TFLite file, by jax2tf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax._version import __version__
from pose_jax.errors import ConfigError, one_line
from pose_jax.export.decoder import PLATFORMS
from pose_jax.models import ops

_SAVED_MODEL, _TFLITE = "saved_model", "network.tflite"
_METADATA = "pose_jax"
"""Name of the metadata in a TFLite file: the manifest as JSON."""


def _tensorflow() -> Any:
    try:
        import tensorflow
        from jax.experimental import jax2tf
    except ImportError:
        raise ConfigError(
            "--format saved_model and tflite require TensorFlow: pip install "
            "'pose_jax[data]'."
        ) from None
    return tensorflow, jax2tf


def write(
    folder: Path, program: Any, format: str, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a SavedModel or a TFLite file.

    Args:
      folder: where to.
      program: a `network.Program`.
      format: "saved_model", with a free batch size; or "tflite", one image at a time.
      manifest: what is stored in the file's metadata.

    Returns:
      Further entries of the manifest.

    Raises:
      ConfigError: TensorFlow is not installed.
    """
    tf, jax2tf = _tensorflow()
    lite = format == "tflite"
    platforms = ("cpu",) if lite else PLATFORMS

    def portable(*arrays):
        # TFLite does not know the matrix products of the fast forms for CPUs.
        with ops.use_forms("stock"):
            return program.function(*arrays)

    converted = jax2tf.convert(
        portable if lite else program.function,
        polymorphic_shapes=None
        if lite
        else [
            f"(b, {', '.join(map(str, shape))})" for shape, _ in program.inputs.values()
        ],
        with_gradient=False,
        native_serialization_platforms=platforms,
    )
    signature = [
        tf.TensorSpec([1 if lite else None, *shape], dtype, name=name)
        for name, (shape, dtype) in program.inputs.items()
    ]
    function = tf.function(converted, autograph=False, input_signature=signature)
    module = tf.Module()
    module.call = function
    entries = {
        "file": _TFLITE if lite else _SAVED_MODEL,
        "platforms": list(platforms),
        "versions": {
            "pose_jax": __version__,
            "jax": jax.__version__,
            "tensorflow": tf.__version__,
        },
    }
    text = json.dumps({**manifest, **entries})
    if not lite:
        module.about = tf.constant(text)
        tf.saved_model.save(
            module,
            str(folder / _SAVED_MODEL),
            signatures=function.get_concrete_function(),
        )
        extra = folder / _SAVED_MODEL / "assets.extra"
        extra.mkdir()
        (extra / f"{_METADATA}.json").write_text(text, encoding="utf-8")
        return entries
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], module
    )
    try:
        model = converter.convert()
    except Exception as error:  # TensorFlow raises many types, of hundreds of lines.
        raise ConfigError(
            f"TFLite cannot express this network and its decoder ({one_line(error, 200)}): "
            "give --format saved_model or another --decoder."
        ) from error
    (folder / _TFLITE).write_bytes(_with_metadata(model, text))
    return entries


def _with_metadata(model: bytes, text: str) -> bytes:
    """Adds a named buffer to a TFLite file."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    found: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    buffer: Any = schema.BufferT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    entry: Any = schema.MetadataT()
    entry.name, entry.buffer = _METADATA, len(found.buffers)
    found.buffers.append(buffer)
    found.metadata = [*(found.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(found))


def run(
    folder: Path, manifest: Mapping[str, Any], example: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Runs an export on arrays by name."""
    tf, _ = _tensorflow()
    file = str(folder / manifest["file"])
    if manifest["file"] == _TFLITE:
        answer = tf.lite.Interpreter(file).get_signature_runner()(**example)
    else:
        answer = tf.saved_model.load(file).call(*example.values())
    return {name: np.asarray(value) for name, value in answer.items()}
