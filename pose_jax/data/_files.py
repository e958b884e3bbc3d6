"""Shared by the readers of original files: options, JSON files, and images on disk."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from pose_jax.errors import ConfigError, InputError


def one_of(option: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises ConfigError if an option has none of the allowed values."""
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed)
        raise ConfigError(f"{option} must be one of {words}; got {value!r}.")


def broken(what: str) -> InputError:
    """Returns the error for an invalid row."""
    return InputError(f"{what}. Fix the annotation file.")


def read_json(
    path: Path, kind: type, remedy: str = "`annotations=` names another"
) -> Any:
    """Reads a JSON file, or a .gz of one, that holds a dict or a list, as given by `kind`.

    Raises:
      InputError: the file is missing (`remedy` is advice), broken, or of another kind.
    """
    try:
        data = path.read_bytes()
        data = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {remedy}.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; {remedy}."
        ) from None
    except (ValueError, RecursionError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not JSON ({error}). Fetch it again.") from None
    if not isinstance(data, kind):
        raise InputError(
            f"{path} holds a JSON {type(data).__name__}, not a {kind.__name__}: is it "
            "another kind of file?"
        )
    return data


def is_file(path: Path) -> bool:
    """Returns whether a path is a file; False for invalid names."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def present(what: Any, folder: Path, names: Sequence[str], missing: str) -> np.ndarray:
    """Returns [m] bool: which images of `what` are in the folder.

    Args:
      missing: for missing images, "error" raises, "skip" logs their number.

    Raises:
      InputError: there is no such folder, or images are missing from it.
    """
    one_of("missing", missing, ("error", "skip"))
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder. Unpack the images of {what} there, or give the "
            "folder that holds it as root."
        )
    listed = set(os.listdir(folder))
    there = np.array([n in listed or is_file(folder / n) for n in names], bool)
    lost = [n for n, kept in zip(names, there, strict=True) if not kept]
    if lost:
        found = f"{len(lost)} of {len(names)} images of {what} are not in {folder}"
        if missing == "error":
            raise InputError(
                f"{found}: {', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}. "
                'Complete the folder, or pass missing="skip" to go without them.'
            )
        logging.warning("%s; they are left out with their people.", found)
    return there
