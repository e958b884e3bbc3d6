"""The files of `pose-jax predict`: results as they come, pictures, and a description.

OUT/predictions.jsonl   one person per line, written image by image
OUT/predictions.json    the same as a list, in COCO's result format, written at the end
OUT/predictions_info.json   keypoint set, category, and the images with ids and sizes
OUT/.../NAME.png        each image with its people
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from pose_jax import writing
from pose_jax.data import pixels as pixels_lib
from pose_jax.data.box_file import Category
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.predict.estimator import Person
from pose_jax.predict.inputs import Source
from pose_jax.runs import directory

LINES, RESULTS, INFO = (
    "predictions.jsonl", "predictions.json", "predictions_info.json",
)  # fmt: skip


def check_free(
    out: Path, sources: Sequence[Source], others: Sequence[Path] = ()
) -> None:
    """Refuses to overwrite files that `predict` has not written.

    Args:
      out: the output folder.
      sources: the images.
      others: further files and folders that are read.

    Raises:
      InputError: an output would replace an image, a file that is read, or a picture that
        comes from elsewhere; or images are read from the folder of the output.
    """
    real = {os.path.realpath(s.path): s.path for s in sources}
    real |= {os.path.realpath(path): path for path in others}
    for name in ("", *(source.picture for source in sources), LINES, RESULTS, INFO):
        path = out / name
        given = real.get(os.path.realpath(path))
        if given is not None:
            raise InputError(
                f"--out {out} would overwrite {given}, which is read: choose another "
                "folder."
            )
        if name.endswith(".png") and path.exists() and not _is_ours(path):
            raise InputError(
                f"{path} exists and was not written by pose-jax: choose another folder by "
                "--out, or move the file."
            )


def _is_ours(picture: Path) -> bool:
    try:
        with pixels_lib.opened(picture, picture) as image:
            return image.info.get("Software") == sheet_lib.SOFTWARE
    except InputError:
        return False


class Results:
    """A context manager that writes the results, whatever ends its block.

    Attributes:
      people: number of people so far.
      done: number of images so far.
      skipped: images that could not be read.
    """

    def __init__(self, out: Path, keypoints: KeypointSet, category: Category) -> None:
        self.out, self.people, self.done = out, 0, 0
        self.skipped: list[dict[str, str]] = []
        self._keypoints, self._category = keypoints, category
        self._images: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for name in (RESULTS, INFO):  # Of earlier images.
                (self.out / name).unlink(missing_ok=True)
            self._lines = open(self.out / LINES, "w", encoding="utf-8")
        except OSError as error:
            raise writing.failure(self.out, error, "give another --out") from None
        return self

    def add(
        self,
        source: Source,
        image_id: int | str,
        size: tuple[int, int],
        people: Sequence[Person],
        picture: np.ndarray,
    ) -> None:
        """Writes an image: its picture, then a line per person.

        Args:
          source: the image.
          image_id: its id.
          size: (width, height) of the image that points refer to.
          people: its people.
          picture: the image with its people, [h, w, 3].
        """
        sheet_lib.save_png(self.out / source.picture, picture)
        for person in people:
            found = result(source, image_id, self._category, person)
            self._lines.write(json.dumps(found, allow_nan=False) + "\n")
        self._lines.flush()
        self.people += len(people)
        self.done += 1
        self._images.append(
            {
                "id": image_id,
                "file_name": source.name,
                "path": os.path.abspath(source.path),
                "width": size[0],
                "height": size[1],
                "picture": source.picture,
            }
        )

    def skip(self, source: Source, reason: str) -> None:
        """Counts an image that could not be read."""
        self.skipped.append(
            {"path": os.path.abspath(source.path), "reason": " ".join(reason.split())}
        )

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        lines = (self.out / LINES).read_text(encoding="utf-8").splitlines()
        writing.write(self.out / RESULTS, "[" + ",\n".join(lines) + "]\n")
        category = {
            "id": self._category.id,
            "name": self._category.name,
            "keypoints": list(self._keypoints.names),
        }
        info = {
            "keypoints": self._keypoints.to_json(),
            "category": category,
            "images": self._images,
            "skipped": self.skipped,
        }
        directory.write_json(self.out / INFO, info)


def result(
    source: Source, image_id: int | str, category: Category, person: Person
) -> dict[str, Any]:
    """Returns a person in COCO result format."""
    xys = np.concatenate([person.points_xy, person.keypoint_scores[:, None]], axis=1)
    x0, y0, x1, y1 = person.box_xyxy
    return {
        "file_name": source.name,
        "image_id": image_id,
        "category_id": category.id,
        "keypoints": [round(float(v), 3) for v in xys.reshape(-1)],
        "score": float(person.score),
        "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
    }
