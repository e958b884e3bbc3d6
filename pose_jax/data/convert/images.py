"""Images of a data set that is written: their sizes, and links to or copies of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pose_jax import writing
from pose_jax.data import pixels
from pose_jax.data.convert.form import Counts, Image
from pose_jax.errors import InputError

UNREADABLE = "image[s] that cannot be read as images (first: {name})"
OTHER_SIZE = "image[s] of another size than the export says (first: {name})"
TWICE = "image[s] listed a second time (first: {name})"


def usable(images: Sequence[Image], left_out: Counts) -> list[Image]:
    """Returns the images that can be read and have the size that the export says.

    The size of those without one is set to that of the image as viewers show it.

    Raises:
      InputError: two images of a split have one name or one file.
    """
    kept: list[Image] = []
    bad: dict[str, list[str]] = {UNREADABLE: [], OTHER_SIZE: [], TWICE: []}
    names: dict[tuple[str, str], Path | None] = {}
    owners: dict[Path, Image] = {}
    for image in images:
        key = image.split, image.name
        if key in names and names[key] == image.file is not None:
            bad[TWICE].append(image.name)
            continue
        if key in names:
            raise InputError(
                f"two images would have the name {image.name!r}: {names[key]} and "
                f"{image.file}. Convert their folders one by one."
            )
        names[key] = image.file
        if image.file is not None:
            other = owners.setdefault(image.file, image)
            if other is not image and other.split == image.split:
                raise InputError(
                    f"{other.name} and {image.name} are both {image.file}: give the "
                    "folders of both images."
                )
            try:
                why = _set_size(image, image.file)
            except InputError:
                why = UNREADABLE
            if why:
                bad[why].append(image.name)
                continue
        kept.append(image)
    for phrase, found in bad.items():
        if found:
            left_out.add(phrase, len(found), name=found[0])
    return kept


def _set_size(image: Image, file: Path) -> str:
    """Sets or checks the size of an image; returns why it is left out, or ""."""
    stored, orientation = pixels.sizes(file, file)
    upright = pixels.upright_size(stored, orientation)
    if image.size is None:
        image.size = upright
    return "" if image.size in (stored, upright) else OTHER_SIZE


def place(image: Image, path: Path, copy: bool) -> None:
    """Puts an image into a data set: its content, a copy of its file, or a link to it.

    The size of an image with a content is set, or checked.

    Raises:
      InputError: it cannot be written, or its content has another size.
    """
    if not _inside(image.name):
        raise InputError(f"{image.name!r} is no name of a file inside of a data set.")
    if image.content is not None:
        writing.write(path, image.content())
        if _set_size(image, path):
            raise InputError(f"{image.name} has another size than the export says.")
        return
    assert image.file is not None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            shutil.copyfile(image.file, path)
        else:
            path.symlink_to(os.path.abspath(image.file))
    except OSError as error:
        remedy = "give another --out" if copy else "give another --out, or --copy"
        raise writing.failure(path, error, remedy) from None


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
