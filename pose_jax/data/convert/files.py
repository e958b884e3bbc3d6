"""Files that exports refer to: images by names of another computer, and parsed files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from pose_jax.data._files import read_json
from pose_jax.errors import InputError, one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case."""


def is_image(path: Path | str) -> bool:
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def posix(name: str) -> str:
    """Returns a path of any system with "/" between its parts."""
    return name.replace("\\", "/")


class Finder:
    """Finds images by the names that a file has for them.

    An absolute path is taken if it exists. The folder that a name begins with may be that
    of another computer, so that folders are dropped from its start until a file is there.
    If none is, a file of this name anywhere below the folders is taken, if there is only
    one.

    Args:
      folders: where to look, in this order; those that do not exist are ignored.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        known = dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders)
        self.folders = tuple(folder for folder in known if folder.is_dir())
        self._below: dict[str, list[Path]] | None = None

    def __call__(self, name: str, *, ending: bool = True) -> Path | None:
        """Returns the file of an image, or None.

        Args:
          name: its name in the export.
          ending: whether the name has an ending; otherwise those of images are tried.
        """
        whole = Path(name)
        if whole.is_absolute() and whole.is_file():
            return whole
        parts = [p for p in posix(name).split("/") if p not in ("", ".", "..")]
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for folder in self.folders:
                found = _with_ending(folder / tail, ending)
                if found is not None:
                    return found
        found = self._all().get(parts[-1], []) if parts else []
        return found[0] if len(found) == 1 else None

    def _all(self) -> dict[str, list[Path]]:
        """Returns all images below the folders by the name of the file."""
        if self._below is None:
            below: dict[str, list[Path]] = {}
            for folder in self.folders:
                for path in images_below(folder):
                    if path not in below.setdefault(path.name, []):
                        below[path.name].append(path)
            self._below = below
        return self._below

    def name_of(self, file: Path) -> str:
        """Returns the name of a file below the folders, with "/" between its parts."""
        for folder in sorted(self.folders, key=lambda f: -len(f.parts)):
            if file.is_relative_to(folder):
                return file.relative_to(folder).as_posix()
        return file.name


def _with_ending(path: Path, ending: bool) -> Path | None:
    endings = [""] if ending else ["", *SUFFIXES, *(s.upper() for s in SUFFIXES)]
    for suffix in endings:
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            return candidate
    return None


def images_below(folder: Path) -> list[Path]:
    """Returns all images in a folder and its folders, in order of their names."""
    found = []
    for where, _, names in os.walk(folder, followlinks=True):
        found += [Path(where) / name for name in names if is_image(name)]
    return sorted(found)


def common_names(files: Sequence[Path]) -> list[str]:
    """Returns the names of files relative to the folder that all of them share."""
    if not files:
        return []
    folder = os.path.commonpath([str(file.parent) for file in files])
    return [file.relative_to(folder).as_posix() for file in files]


def one_file(path: Path, usual: str, is_it: Callable[[Path], bool]) -> Path:
    """Returns a file, or the one that is meant in a folder.

    Args:
      path: a file or a folder.
      usual: pattern of its usual name, as of `Path.glob`.
      is_it: whether a file of a folder is meant, if there are several.

    Raises:
      InputError: there is none, or there are several.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if not path.is_dir():
        return path
    found = sorted(path.glob(usual))
    if not found:
        raise InputError(f"{path} holds no {usual}.")
    kept = found if len(found) == 1 else [file for file in found if is_it(file)]
    if len(kept) != 1:
        shown = ", ".join(file.name for file in (kept or found)[:5])
        raise InputError(f"{path} holds several files ({shown}): name one of them.")
    return kept[0]


def parse_xml(path: Path) -> ElementTree.Element:
    """Parses an XML file.

    Raises:
      InputError: it cannot be read, or is no complete XML.
    """
    data = read_bytes(path)
    if data[:2] == b"PK":
        raise InputError(f"{path} is a ZIP archive: unpack it, and give its folder.")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(
            f"{path} is no complete XML file ({one_line(error)}). Export it again."
        ) from None


def parse_yaml(path: Path) -> dict[str, Any]:
    """Parses a YAML file that holds a mapping.

    Raises:
      InputError: it cannot be read, or is something else.
    """
    import yaml

    try:
        data = yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({one_line(error, 120)}).") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no mapping of names to values.")
    return data


def parse_json(path: Path, kind: type) -> Any:
    """Parses a JSON file that holds a list or a dict.

    Raises:
      InputError: it cannot be read, or is something else.
    """
    return read_json(path, kind, "give the exported file")


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_text(path: Path) -> str:
    """Reads a text file, with or without a byte order mark.

    Raises:
      InputError: it cannot be read, or is no text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file.") from None


def starts(path: Path, size: int = 4096) -> bytes:
    """Returns the first bytes of a file; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def split_name(text: str) -> str:
    """Returns a name of a split that can be the name of a folder."""
    return re.sub(r"[^\w-]+", "_", text.strip()).strip("_").lower()
