"""Frames of videos that exports refer to, and pixels as files."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pose_jax.data import video
from pose_jax.errors import InputError


class Video:
    """A video whose frames become images; reading them in order is cheap.

    Args:
      path: its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Iterator[np.ndarray] = iter(())
        self._next = 0
        self._opened = False

    def frame(self, number: int) -> Callable[[], bytes]:
        """Returns a function that returns frame `number`, from 0, as a PNG file.

        Raises:
          InputError: by that function, if the video cannot be read or is shorter.
        """
        return functools.partial(self._read, number)

    def _read(self, number: int) -> bytes:
        if not self._opened or number < self._next:
            self._frames = video.open_video(self.path).read()
            self._next, self._opened = 0, True
        pixels = None
        while self._next <= number:
            pixels = next(self._frames, None)
            if pixels is None:
                raise InputError(
                    f"{self.path} has no frame {number}: is it the same video?"
                )
            self._next += 1
        assert pixels is not None
        return png(np.asarray(pixels))


def png(pixels: np.ndarray) -> bytes:
    """Returns a PNG file of pixels uint8 [h, w], [h, w, 1] or [h, w, 3]."""
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
