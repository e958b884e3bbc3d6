"""A csv of the points of a video, as DeepLabCut writes it and `movement` reads it.

Rows of the header: scorer, individuals (of several animals), bodyparts, coords. Then one
row per frame: x, y, likelihood of each keypoint; NaN where no one was found.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from pose_jax import writing
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.predict.frames import Result

SCORER = "pose_jax"


def write(
    path: Path,
    frames: Callable[[], Iterator[list[Result]]],
    keypoint_set: KeypointSet,
    tracked: bool,
) -> None:
    """Writes the csv of several animals if `tracked`, else that of a single animal.

    Args:
      path: the file.
      frames: gives the people of each frame, from the beginning.
      keypoint_set: names of the k keypoints.
      tracked: whether people have a `track_id`: animal i is "individual" and i.

    Raises:
      InputError: several people in a frame, without ids; or it cannot be written.
    """
    ids = [0]
    if tracked:
        ids = sorted({person["track_id"] for people in frames() for person in people})
    names, k = keypoint_set.names, len(keypoint_set)
    with (
        writing.replaced(path) as new,
        open(new, "w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        columns = 3 * k * len(ids)
        rows.writerow(["scorer", *[SCORER] * columns])
        if tracked:
            of_each = [[f"individual{own}"] * 3 * k for own in ids]
            rows.writerow(["individuals", *itertools.chain(*of_each)])
        rows.writerow(["bodyparts", *[n for n in names for _ in range(3)] * len(ids)])
        rows.writerow(["coords", *["x", "y", "likelihood"] * k * len(ids)])
        for frame, people in enumerate(frames()):
            if not tracked and len(people) > 1:
                raise InputError(
                    f"no csv: frame {frame} has {len(people)} people, and that of several "
                    "animals requires ids: add --track."
                )
            found = {p.get("track_id", 0): p["keypoints"] for p in people}
            none = ["NaN"] * 3 * k  # pandas takes an empty first row for a header.
            values = (found.get(own, none) for own in ids)
            rows.writerow([frame, *itertools.chain.from_iterable(values)])
