"""The images of a command line: files, folders and patterns; their names and ids."""

from __future__ import annotations

import collections
import dataclasses
import functools
import glob
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from pose_jax.data import video as video_lib
from pose_jax.data.box_file import number
from pose_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Source:
    """An image to predict.

    Attributes:
      path: the file.
      name: its path below the folder that all images have in common, with "/".
      picture: path of its annotated picture, relative to the output folder.
    """

    path: Path
    name: str
    picture: str


def find(arguments: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """Returns the images of a command line, each once, and notes on what is left out.

    Args:
      arguments: files, folders (their images, without those in folders below), and patterns
        such as `videos/**/*.jpg`. A missing file is kept: reading it reports the error.

    Raises:
      InputError: a folder has no image, or nothing matches a pattern.
    """
    paths: dict[str, Path] = {}
    notes, repeated = [], 0
    for argument in arguments:
        found, others = _expanded(Path(argument))
        if others:
            notes.append(f"{argument}: {others} files are not images and are left out.")
        for path in found:
            key = os.path.abspath(path)
            repeated += key in paths
            paths.setdefault(key, path)
    if repeated:
        notes.append(f"{repeated} images were given more than once: each is done once.")
    names = _below_common_folder(list(paths))
    pictures = _pictures(names)
    return [
        Source(path, name, picture)
        for path, name, picture in zip(paths.values(), names, pictures, strict=True)
    ], notes


def videos(arguments: Sequence[Path]) -> list[Path]:
    """Returns the videos of a command line, each once; [] if it has images.

    An animated image is a video if it is the only argument; in a folder that has images,
    videos are left out.

    Args:
      arguments: as in `find`.

    Raises:
      InputError: there are both videos and images.
    """
    if len(arguments) == 1 and video_lib.is_animated(arguments[0]):
        return [Path(arguments[0])]
    found: dict[str, Path] = {}
    other: Path | None = None
    for argument in map(Path, arguments):
        paths = [argument]
        if argument.is_dir():
            files = sorted(path for path in argument.iterdir() if path.name[0] != ".")
            if any(path.suffix.lower() in _suffixes() for path in files):
                other = argument
                continue
            paths = [path for path in files if video_lib.is_video(path)]
        elif any(mark in str(argument) for mark in "*?[") and not os.path.lexists(
            argument
        ):
            matches = sorted(glob.glob(str(argument), recursive=True))
            paths = list(map(Path, matches))
        for path in paths:
            if video_lib.is_video(path):
                found.setdefault(os.path.abspath(path), path)
            else:
                other = path
    if found and other is not None:
        raise InputError(
            f"{next(iter(found.values()))} is a video, and {other} is not: predict them "
            "one after the other."
        )
    return list(found.values())


def _expanded(argument: Path) -> tuple[list[Path], int]:
    """Returns the files of an argument, and the number of other files in its folder."""
    if argument.is_dir():
        files = [p for p in sorted(argument.iterdir()) if p.name[0] != "."]
        files = [path for path in files if not path.is_dir()]
        images = [p for p in files if p.suffix.lower() in _suffixes()]
        if not images:
            raise InputError(
                f"{argument} has no images. Those of the folders in it are "
                f"'{argument / '**' / '*.jpg'}' (with the quotes)."
            )
        return images, len(files) - len(images)
    is_pattern = any(mark in str(argument) for mark in "*?[")
    if os.path.lexists(argument) or not is_pattern:
        return [argument], 0
    matches = map(Path, sorted(glob.glob(str(argument), recursive=True)))
    files = [path for path in matches if not path.is_dir()]
    if not files:
        raise InputError(f"{argument}: no file matches this pattern.")
    return files, 0


@functools.cache
def _suffixes() -> frozenset[str]:
    """Suffixes of files that Pillow reads as images."""
    Image.init()
    no_images = {"PDF", "MPEG", "EPS"}
    return frozenset(
        suffix
        for suffix, format_ in Image.registered_extensions().items()
        if format_ in Image.OPEN and format_ not in no_images
    )


def _below_common_folder(paths: Sequence[str]) -> list[str]:
    folders = [os.path.dirname(path) for path in paths]
    try:
        common = os.path.commonpath(folders) if folders else ""
    except ValueError:  # Several drives.
        return [PurePosixPath(*Path(p).parts[1:]).as_posix() for p in paths]
    return [Path(os.path.relpath(path, common)).as_posix() for path in paths]


def _pictures(names: Sequence[str]) -> list[str]:
    """Returns different names of PNG files, also where case does not distinguish files.

    The suffix is replaced by .png: a/x.png. Where two images would have this name, it is
    kept: a/x.jpg.png; where this is not enough, a number is added.
    """
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in names]
    times = collections.Counter(map(_key, short))
    taken = {key for key, count in times.items() if count == 1}
    found = []
    for name, own in zip(names, short, strict=True):
        if times[_key(own)] > 1:
            own, n = f"{name}.png", 1
            while _key(own) in taken:
                n += 1
                own = f"{name}-{n}.png"
            taken.add(_key(own))
        found.append(own)
    return found


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def image_ids(
    sources: Iterable[Source], listed: Mapping[Path, int | str | None]
) -> dict[Path, int | str]:
    """Returns the id of each image by its path.

    That of the box file's list of images, where it has one; else the number that is the
    image's name, if these are numbers and all differ; else a running number.
    """
    paths = [source.path for source in sources]
    ids = {path: own for path in paths if (own := listed.get(path)) is not None}
    rest = [path for path in paths if path not in ids]
    numbers = [n for path in rest if (n := number(path.stem)) is not None]
    used = {str(own) for own in ids.values()} | {str(n) for n in numbers}
    if len(used) < len(paths):  # Two are the same, or one is no number.
        taken = [own for own in ids.values() if isinstance(own, int)]
        start = max([0, *taken]) + 1
        numbers = list(range(start, start + len(rest)))
    return {**ids, **dict(zip(rest, numbers, strict=True))}
