"""Image files as pixels: the only module that opens an image file.

Pixels are uint8 RGB [h, w, 3]: 16 bits are scaled to 8, alpha is dropped, gray and palettes
are converted, and of several frames the first is taken. Integers of 32 bits and floats have
no defined range and are refused.

An EXIF orientation says how viewers turn the stored pixels. `turns` decides whether
annotations refer to the stored or to the turned ("upright") pixels.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from pose_jax.errors import InputError, one_line

if TYPE_CHECKING:  # Readers that open no image do without Pillow.
    from PIL import Image

Exif = Literal["auto", "apply", "ignore"]
"""The frame of annotations: "ignore": the stored pixels; "apply": the upright ones; "auto":
that of the annotated size, and the stored pixels if both have this size."""
EXIF: tuple[Exif, ...] = ("auto", "apply", "ignore")

_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
      pixels: uint8 [h, w, 3], as stored.
      orientation: EXIF's, 1 to 8; 1 if there is none.
      frames: number of frames, of which this is the first; 1 if they were not counted.
    """

    pixels: np.ndarray
    orientation: int
    frames: int = 1


def read(
    source: Path | IO[bytes], name: object, *, count_frames: bool = False
) -> Picture:
    """Decodes an image.

    Args:
      source: the file, or its bytes.
      name: how to name it in an error.
      count_frames: read through the whole file, which finds damage in later frames.

    Raises:
      InputError: it is missing, damaged, or not an image of 8 or 16 bits.
    """
    with opened(source, name) as image:
        found = orientation(image)
        frames = getattr(image, "n_frames", 1) if count_frames else 1
        image.load()
        pixels = _rgb(image)
        # Pillow turns TIFF files while loading, and removes the tag.
        if found != 1 and orientation(image) == 1:
            pixels = turned(pixels, _INVERSE.get(found, found))
    return Picture(pixels, found, frames)


def sizes(source: Path | IO[bytes], name: object) -> tuple[tuple[int, int], int]:
    """Returns (width, height) as stored, and the orientation, mostly from the header.

    Raises:
      InputError: it is missing, or not an image.
    """
    with opened(source, name) as image:
        found = orientation(image)
        return stored_size(image, found), found


@contextlib.contextmanager
def opened(source: Path | IO[bytes], name: object) -> Iterator[Image.Image]:
    """Opens an image with Pillow; errors inside of the block are InputErrors.

    Args:
      source: the file, or its bytes.
      name: how to name it in an error.
    """
    from PIL import Image

    try:
        with contextlib.ExitStack() as stack:
            if isinstance(source, str | Path):
                # Pillow maps a file that it has opened itself into memory, and misreads
                # TIFF files with an orientation.
                source = stack.enter_context(open(source, "rb"))
            yield stack.enter_context(Image.open(source))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file.") from None
    except Exception as error:  # Pillow has no common class for these.
        raise InputError(
            f"{name} cannot be read as an image: {_reason(error)}. Fetch it again, or "
            "leave it out."
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Pillow prints the file, or the object that holds its bytes, again.
    text = one_line(error)
    unknown = text.startswith("cannot identify image file")
    return "unknown format" if unknown else text.rstrip(".")


def orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation of an opened image, 1 to 8; 1 if absent or invalid."""
    try:
        found = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Broken EXIF, which no reader uses.
        return 1
    return found if 1 <= found <= 8 else 1


def stored_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Returns (width, height) as stored of an opened image that is not loaded."""
    # Of TIFF files, Pillow gives the upright size.
    is_tiff = image.format == "TIFF"
    return upright_size(image.size, orientation) if is_tiff else image.size


def bits(image: Image.Image) -> int:
    """Returns 8, 16, or 32 for pixels without a defined range (integers, floats)."""
    if image.mode.startswith("I;16"):
        return 16
    if image.mode == "I":  # PPM files of 16 bits are opened in this mode.
        return 16 if image.format in ("PNG", "PPM") else 32
    return 32 if image.mode == "F" else 8


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels [h, w, c] upright, as EXIF's orientation says."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


_INVERSE = {6: 8, 8: 6}
"""The orientation that undoes another; all others undo themselves."""


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Returns (width, height) of an image after `turned`."""
    return (size[1], size[0]) if orientation > 4 else size


def turns(
    size: tuple[int, int],
    orientation: int,
    annotated: tuple[int, int] | None,
    exif: Exif,
) -> tuple[bool, bool]:
    """Decides whether annotations refer to the upright instead of the stored pixels.

    Args:
      size: (width, height) as stored.
      orientation: EXIF's.
      annotated: (width, height) in the annotations; None if they do not say.
      exif: the rule.

    Returns:
      Whether to turn the pixels; and whether this is undecided: both frames have the
      annotated size and `exif` is "auto", so that the pixels are used as stored.

    Raises:
      ValueError: the image does not have the annotated size; says which size it has.
    """
    upright = upright_size(size, orientation)
    frames = {"ignore": [size], "apply": [upright], "auto": [size, upright]}[exif]
    fits = [annotated in (None, frame) for frame in frames]
    if not any(fits):
        found = " or ".join(f"{w}x{h}" for w, h in dict.fromkeys(frames))
        if orientation != 1:
            found += f" (EXIF orientation {orientation}, exif={exif!r})"
        raise ValueError(found)
    if exif == "auto":
        return not fits[0], orientation != 1 and all(fits)
    return exif == "apply" and orientation != 1, False


def _rgb(image: Image.Image) -> np.ndarray:
    """Returns the loaded pixels as uint8 [h, w, 3]."""
    if bits(image) == 16:
        tags = getattr(image, "tag_v2", {})
        full = 2 ** int(tags.get(258, (16,))[0]) - 1  # BitsPerSample: 12 or 16.
        values = np.asarray(image).astype(np.uint32)
        if tags.get(262) == 0:  # PhotometricInterpretation: white is zero.
            values = full - values
        gray = ((values * 255 + full // 2) // full).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=-1)
    if bits(image) == 32:
        kind = "integers of 32 bits" if image.mode == "I" else "floats"
        raise ValueError(
            f"its pixels are {kind}, whose range is unknown; store it with 8 or 16 bits"
        )
    return np.asarray(image.convert("RGB"))
