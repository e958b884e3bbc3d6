"""Ids of images: whole numbers in a Table, whatever the files have."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import PurePosixPath

Id = int | str


def numbers(texts: Sequence[str]) -> list[int]:
    """Returns a different number for each text.

    Args:
      texts: stems of files, or ids.

    Returns:
      The texts' own numbers if all are decimal numbers below 2^63 (digits 0 to 9) and all
      numbers differ ("0001" and "1" do not); else 1, 2, ...
    """
    if all(text.isascii() and text.isdigit() and len(text) < 20 for text in texts):
        own = [int(text) for text in texts]
        if len(set(own)) == len(own) and max(own, default=0) < 2**63:
            return own
    return list(range(1, len(texts) + 1))


class ImageIds:
    """The images of an annotation file by the ids that other rows and files give them.

    Attributes:
      are_text: whether ids of the file are text.
      numbers: [m] a different integer for each image: its id, or as of `numbers`, if ids
        are text.
    """

    def __init__(self, ids: Sequence[Id], files: Sequence[str] = ()) -> None:
        """Takes the ids of all images, which differ, and the names of their files."""
        self.are_text = any(isinstance(own, str) for own in ids)
        texts = numbers(list(map(str, ids))) if self.are_text else None
        self.numbers: list[int] = texts or [own for own in ids if isinstance(own, int)]
        self._of: dict[Id, int] = dict(zip(ids, self.numbers, strict=True))
        # Detectors name images by the stems of their files.
        stems = [PurePosixPath(name).stem for name in files]
        count = collections.Counter(stems)
        pairs = zip(stems, self.numbers, strict=False)
        self._of_stem = {stem: number for stem, number in pairs if count[stem] == 1}

    def __call__(self, own: Id) -> int | None:
        """Returns the number of the image with an id, or None.

        A text may also be the digits of an integer id, or the stem of one file's name.
        """
        if own in self._of:
            return self._of[own]
        if isinstance(own, int):
            return self._of.get(str(own))
        if own.isascii() and own.isdigit() and len(own) < 20 and int(own) in self._of:
            return self._of[int(own)]
        return self._of_stem.get(own)
