"""Shared by the readers of original files: options, JSON files, and images on disk."""

from __future__ import annotations

import collections
import functools
import gzip
import json
import os
import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from absl import logging

from pose_jax.data.check.kinds import KINDS
from pose_jax.errors import ConfigError, InputError


def one_of(option: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises ConfigError if an option has none of the allowed values."""
    if value not in allowed:
        words = ", ".join(f'"{word}"' for word in allowed)
        raise ConfigError(f"{option} must be one of {words}; got {value!r}.")


def broken(what: str) -> InputError:
    """Returns the error for an invalid row."""
    return InputError(f"{what}. Fix the annotation file.")


def parse_json(path: Path) -> Any:
    """Parses a JSON file, also gzipped, and with a byte order mark.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not JSON.
    """
    data = path.read_bytes()
    try:
        # json.loads finds the encoding of bytes, and takes a byte order mark.
        return json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None


def read_json(
    path: Path, kind: type, remedy: str = "`annotations=` names another"
) -> Any:
    """Reads a JSON file by `parse_json` that holds a dict or a list, as given by `kind`.

    Raises:
      InputError: the file is missing (`remedy` is advice), broken, or of another kind.
    """
    try:
        data = parse_json(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {remedy}.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; {remedy}."
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Fetch it again.") from None
    if not isinstance(data, kind):
        raise InputError(
            f"{path} holds a JSON {type(data).__name__}, not a {kind.__name__}: is it "
            "another kind of file?"
        )
    return data


class ImageFolder:
    """Looks up the names of an annotation file in a folder of images.

    Names are relative to the folder, without "..": others are not looked up, whatever is
    there. Links in the folder are followed.

    Raises:
      OSError: the folder cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed = set(os.listdir(folder))

    def __contains__(self, name: str) -> bool:
        if name in self._listed:
            return name not in (os.curdir, os.pardir)
        return self._inside(name) and _is_file(self.folder / name)

    @staticmethod
    def _inside(name: str) -> bool:
        path = PurePath(name)
        return not path.anchor and os.pardir not in path.parts

    @functools.cached_property
    def _alike(self) -> dict[str, str]:
        return {_folded(name): name for name in self._listed}

    def why_absent(self, name: str) -> tuple[str, str]:
        """Explains why a name is not in the folder.

        Returns:
          A kind of finding, a key of KINDS, and the name of the file that seems to be
          meant; "" if there is none.
        """
        parts = re.split(r"[\\/]", name)
        for start in range(len(parts)):
            rest = "/".join(parts[start:])
            there = rest if rest in self else self._alike.get(_folded(rest))
            if not there:
                continue
            if start or "\\" in name:
                return "image-name-folder", there
            same = unicodedata.normalize("NFC", name)
            if same == unicodedata.normalize("NFC", there):
                return "image-name-unicode", there
            return "image-name-case", there
        return ("image-missing" if self._inside(name) else "image-name-outside"), ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def is_in(folder: Path, name: Any) -> bool:
    """Returns whether a folder has a file of a name, which may have folders in it."""
    return isinstance(name, str) and bool(name) and _is_file(folder / name)


def _is_file(path: Path) -> bool:
    """Returns whether a path is a file; False for invalid names."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


_EXPLAINED = 100
"""Number of missing images for which the reason is looked up."""


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
    images = ImageFolder(folder)
    there = np.array([name in images for name in names], bool)
    lost = [n for n, kept in zip(names, there, strict=True) if not kept]
    if lost:
        found = f"{len(lost)} of {len(names)} images of {what} are not in {folder}"
        examples, remedy = _why_absent(images, lost)
        if missing == "error":
            raise InputError(f"{found}: {examples}. {remedy}.")
        logging.warning("%s: %s; they are left out with their people.", found, examples)
    return there


def _why_absent(images: ImageFolder, names: Sequence[str]) -> tuple[str, str]:
    """Returns examples of absent images, with the most frequent reason, and its remedy."""
    whys = [images.why_absent(name) for name in names[:_EXPLAINED]]
    kind = collections.Counter(kind for kind, _ in whys).most_common(1)[0][0]
    examples = [
        f"{name} ({there} is there)" if there else name
        for name, (own, there) in zip(names, whys, strict=False)
        if own == kind
    ][:3]
    shown = ", ".join(examples) + (", ..." if len(names) > len(examples) else "")
    _, reason, remedy = KINDS[kind]
    shown += "" if kind == "image-missing" else f": {reason}"
    return shown, remedy[0].upper() + remedy[1:]
