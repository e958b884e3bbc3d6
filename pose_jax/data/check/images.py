"""Checks of image files: headers and ends of all; a sample (or all) is decoded."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from pose_jax.data import pixels
from pose_jax.data.check.findings import File
from pose_jax.data.table import Record

Depth = Literal["headers", "full"]

SAMPLE = 50
"""Number of images that are decoded if only headers and ends of the others are read."""

ImageFile = tuple[Path | Record, str, tuple[int, int] | None]
"""A file or record, and its name and size in the annotations."""


def check_images(
    files: Sequence[ImageFile], file: File, depth: Depth, exif: pixels.Exif = "auto"
) -> str:
    """Checks all images; returns a note on how it was done."""
    sample = np.linspace(0, len(files) - 1, min(len(files), SAMPLE)).astype(int)
    full = np.full(len(files), depth == "full")
    full[sample] = True
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("ignore")  # Pillow's, for large images and broken EXIF.
        look = functools.partial(look_at, exif=exif)
        seen = pool.map(look, files, full, chunksize=16)
        for (image, where, _), kinds in zip(files, seen, strict=True):
            is_file = isinstance(image, Path)
            shown = os.path.relpath(image, file.path) if is_file else str(image)
            for kind, detail in kinds:
                file.add(kind, f"{shown} ({where}){detail and ': '}{detail}")
    if depth == "full":
        return f"{len(files)} images decoded"
    return (
        f"{len(files)} images: headers and ends read, {len(sample)} of them decoded "
        "(--images full decodes all)"
    )


def look_at(
    file: ImageFile, full: bool, exif: pixels.Exif = "auto"
) -> list[tuple[str, str]]:
    """Returns kinds of findings of one image, each with a detail."""
    source, _, listed = file
    wrong = "image-unreadable"
    try:
        opened = (
            open(source, "rb")
            if isinstance(source, Path)
            else io.BytesIO(source.read())
        )
        with opened as data:
            end = _end(data)
            if not end:
                return [("image-empty", "")]
            image = Image.open(data)
            seen = _of_header(image, listed, exif)
            # The file does not end as its format requires: decode it.
            if full or _ENDS.get(image.format or "", b"?") not in end:
                wrong = "image-truncated"
                image.load()
            return seen
    except FileNotFoundError:
        return [("image-missing", "")]
    except UnidentifiedImageError:
        return [("image-unreadable", "")]
    except Exception as error:  # Pillow has no common class for these.
        return [(wrong, str(error))]


def _of_header(
    image: Image.Image, listed: tuple[int, int] | None, exif: pixels.Exif
) -> list[tuple[str, str]]:
    found = []
    turned = _orientation(image)
    size = pixels.stored_size(image, turned)
    use = ""
    try:
        turn, undecided = pixels.turns(size, turned, listed, exif)
        use = "used turned" if turn else "used as stored"
        use += ", since both fit" if undecided else ""
    except ValueError as error:
        detail = "{}, listed as {}x{}".format(error, *(listed or ()))
        found.append(("image-size", detail + ": turned?" * (listed == size[::-1])))
    if kind := _kind_of_mode(image):
        found.append((kind, image.mode))
    if turned != 1:
        detail = f"orientation {turned}{', ' if use else ''}{use}"
        found.append(("image-turned", detail))
    if getattr(image, "is_animated", False):
        found.append(("image-animated", str(image.format)))
    return found


def _kind_of_mode(image: Image.Image) -> str | None:
    mode = image.mode
    if mode == "RGB":
        return "image-alpha" if "transparency" in image.info else None
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return "image-alpha"
    if pixels.bits(image) > 8:
        return "image-16-bit" if pixels.bits(image) == 16 else "image-range"
    known = {"L": "gray", "1": "gray", "P": "palette", "CMYK": "cmyk"}
    return f"image-{known.get(mode, 'mode')}"


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation, or 1; does not decode PNG files without EXIF."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return pixels.orientation(image)


_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


def _end(data: IO[bytes]) -> bytes:
    """Returns the last bytes of a file, and seeks to its start."""
    data.seek(0, os.SEEK_END)
    data.seek(max(0, data.tell() - 64))
    end = data.read()
    data.seek(0)
    return end
