"""The results of a video: written as they come, continued after any stop.

OUT/predictions.jsonl        one person per line; `image_id` is the frame, from 0
OUT/predictions_info.json    the video, and how many frames of it are done

The second file is replaced after the lines of some frames are written, and says how long
the first one is then: whatever stops the process, the rest is cut off when it continues.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from pose_jax import writing
from pose_jax.data.box_file import Category
from pose_jax.data.video import Video
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.predict import track as track_lib
from pose_jax.predict.estimator import Person
from pose_jax.predict.inputs import Source
from pose_jax.predict.results import INFO, LINES, RESULTS, result
from pose_jax.runs import directory

Result = dict[str, Any]
"""A person in COCO's result format, see `results.result`."""


class Frames:
    """A context manager of the results of a video.

    Attributes:
      counts: numbers so far: frames `done`, `bytes` of the lines, `people`, people that
        are left out since they are `not_finite`, and detections `dropped`.
      complete: whether all frames are done.
      problem: why the video could not be read to its end; "" if it could.
      drawn: the options of the annotated video that exists; None if there is none.
    """

    def __init__(
        self,
        out: Path,
        video: Video,
        keypoints: KeypointSet,
        category: Category,
        made_by: Mapping[str, Any],
    ) -> None:
        """Args:
        out: the output folder.
        video: the video.
        keypoints: keypoint set of the results.
        category: category of people in the results.
        made_by: plain values that the results depend on, beside the video.
        """
        self.out, self.video, self.keypoints = out, video, keypoints
        self.counts: dict[str, int] = dict.fromkeys(
            ("done", "bytes", "people", "not_finite", "dropped"), 0
        )
        self.complete, self.problem = False, ""
        self.drawn: dict[str, Any] | None = None
        self._source = Source(video.path, video.path.name, "")
        self._category = category
        self._made_by = {"video": _identity(video.path), **made_by}

    def __enter__(self) -> Self:
        """Opens the results; continues those of the same video and options.

        Raises:
          InputError: the folder has other results of a video, or cannot be written.
        """
        self._resume()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / LINES
            length = path.stat().st_size if path.exists() else 0
            if length < self.counts["bytes"]:  # The disk has lost what was written.
                self.counts = dict.fromkeys(self.counts, 0)
                self.complete, self.problem, self.drawn = False, "", None
            self._lines = open(path, "ab")
            self._lines.truncate(self.counts["bytes"])
        except OSError as error:
            raise writing.failure(self.out, error, "give another --out") from None
        self.save()
        return self

    def _resume(self) -> None:
        old = read_info(self.out)
        if "progress" not in old:
            for name in (LINES, RESULTS):  # Of images.
                with contextlib.suppress(FileNotFoundError):
                    (self.out / name).unlink()
            return
        differ = [
            f"{name.replace('_', '-')} {_said(old['made_by'].get(name))}, not "
            f"{_said(value)}"
            for name, value in self._made_by.items()
            if old["made_by"].get(name) != value
        ]
        if differ:
            raise InputError(
                f"{self.out} has the results of {old['video']['file_name']} with "
                f"{'; '.join(differ)}: choose another folder by --out, or delete it."
            )
        progress = old["progress"]
        self.counts = {name: progress[name] for name in self.counts}
        self.complete, self.problem = progress["complete"], progress["problem"]
        self.drawn = progress["drawn"]

    def add(self, people: Sequence[Sequence[Person]]) -> None:
        """Writes the people of the next frames.

        Raises:
          InputError: they cannot be written.
        """
        lines = []
        for persons in people:
            for person in persons:
                found = result(
                    self._source, self.counts["done"], self._category, person
                )
                lines.append(json.dumps(found, allow_nan=False) + "\n")
            self.counts["done"] += 1
        data = "".join(lines).encode()
        try:
            self._lines.write(data)
            self._lines.flush()
        except OSError as error:
            raise writing.failure(self.out / LINES, error) from None
        self.counts["bytes"] += len(data)
        self.counts["people"] += len(lines)
        self.save()

    def save(self) -> None:
        """Writes predictions_info.json."""
        video, category = self.video, self._category
        info = {
            "keypoints": self.keypoints.to_json(),
            "category": {
                "id": category.id,
                "name": category.name,
                "keypoints": list(self.keypoints.names),
            },
            "images": [],
            "skipped": [],
            "video": {
                "file_name": video.path.name,
                "path": os.path.abspath(video.path),
                "width": video.size[0],
                "height": video.size[1],
                "fps": video.fps,
                "frames": self.counts["done"] if self.complete else video.frames,
            },
            "made_by": self._made_by,
            "progress": {
                **self.counts,
                "complete": self.complete,
                "problem": self.problem,
                "drawn": self.drawn,
            },
        }
        directory.write_json(self.out / INFO, info)

    def __iter__(self) -> Iterator[list[Result]]:
        """Yields the people of each frame that is done, a frame at a time."""
        with open(self.out / LINES, encoding="utf-8") as file:
            lines = map(json.loads, file)
            groups = itertools.groupby(lines, lambda line: line["image_id"])
            number, people = next(groups, (None, ()))
            for frame in range(self.counts["done"]):
                if frame != number:
                    yield []
                    continue
                yield list(people)
                number, people = next(groups, (None, ()))

    def tracked(self, gap: int | None) -> Iterator[list[Result]]:
        """Like `__iter__`, with a `track_id` for each person, see `track.step`.

        Args:
          gap: as in `track.step`; None: no ids.
        """
        if gap is None:
            yield from self
            return
        tracks = track_lib.start(len(self.keypoints))
        sigmas = track_lib.sigmas(self.keypoints)
        for people in self:
            persons = list(map(person_of, people))
            points_xy = np.array([p.points_xy for p in persons])
            boxes = np.array([p.box_xyxy for p in persons]).reshape(-1, 2, 2)
            ids, tracks = track_lib.step(
                tracks,
                points_xy.reshape(-1, len(self.keypoints), 2),
                np.prod(boxes[:, 1] - boxes[:, 0], -1),
                sigmas,
                gap=gap,
            )
            yield [
                {**person, "track_id": int(own)}
                for person, own in zip(people, ids, strict=True)
            ]

    def write_list(self, gap: int | None) -> None:
        """Writes predictions.json, with ids if `gap` is not None."""
        with (
            writing.replaced(self.out / RESULTS) as new,
            open(new, "w", encoding="utf-8") as file,
        ):
            file.write("[")
            before = ""
            for person in itertools.chain.from_iterable(self.tracked(gap)):
                file.write(before + json.dumps(person, allow_nan=False))
                before = ",\n"
            file.write("]\n")

    def __exit__(self, *_: object) -> None:
        self._lines.close()


def person_of(found: Result) -> Person:
    """Returns the person of a result."""
    xys = np.reshape(found["keypoints"], (-1, 3))
    x, y, w, h = found["bbox"]
    box = np.array([x, y, x + w, y + h])
    return Person(xys[:, :2], xys[:, 2], found["score"], box)


def read_info(out: Path) -> dict[str, Any]:
    """Returns predictions_info.json; {} if there is none, or it is damaged."""
    try:
        found = json.loads((out / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _identity(path: Path) -> str:
    """Returns what tells a video from others: its length and a digest of its beginning."""
    with open(path, "rb") as file:
        beginning = hashlib.sha256(file.read(1 << 20)).hexdigest()
    return f"{path.stat().st_size} bytes, sha256 {beginning[:16]}"


def _said(value: object) -> object:
    return "none" if value in (None, {}) else value
