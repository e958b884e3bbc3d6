"""`pose-jax predict VIDEO`: the people of each frame, in constant memory, continued.

First all frames are predicted, see `frames`. Everything else is made of these results:
predictions.json, NAME_poses.csv, NAME_poses.mp4 and suggestions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from pose_jax import writing
from pose_jax.data import video as video_lib
from pose_jax.data.box_file import Category
from pose_jax.errors import ConfigError, InputError, Stopped
from pose_jax.predict import shown, suggest, table
from pose_jax.predict import track as track_lib
from pose_jax.predict.estimator import Estimator, Person
from pose_jax.predict.frames import Frames, person_of, read_info

_AT_ONCE = 16
"""Number of frames that are predicted, and kept in memory, at a time."""
_PIECE = 500
"""Number of frames of a piece of the annotated video; a stop costs at most one piece."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is made of a video.

    Attributes:
      detected: whether there is a detector; else each frame is one person.
      passes: as in `Estimator.__call__`.
      min_score: boxes of lower score are left out, people of lower score are not drawn.
      gap: number of frames that a person may be missing and keep the id; None: no ids.
      suggestions: number of frames to suggest for labeling; None: none.
      settings: further options that the results depend on.
    """

    detected: bool = False
    passes: int = 1
    min_score: float | None = None
    gap: int | None = None
    suggestions: int | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gap is not None and not self.detected:
            raise ConfigError("--track is for several people: give a --detector too.")
        if self.gap is not None and self.gap < 0:
            raise ConfigError(f"--gap cannot be negative; got {self.gap}.")
        if self.suggestions is not None and self.suggestions < 1:
            raise ConfigError(f"--suggest must be positive; got {self.suggestions}.")


def options(
    detected: bool, track: bool, gap: int | None, suggestions: int | None
) -> Options:
    """Returns what is made of a video, from the command line.

    Raises:
      ConfigError: options that do not fit.
    """
    if gap is not None and not track:
        raise ConfigError("--gap is that of --track: give both.")
    gap = 10 if gap is None else gap
    return Options(detected, gap=gap if track else None, suggestions=suggestions)


def outputs(videos: Sequence[Path], out: Path) -> list[Path]:
    """Returns the output folder of each video: `out`, or a folder in it if several."""
    if len(videos) == 1:
        return [out]
    folders = [out / path.stem for path in videos]
    if len({str(folder).casefold() for folder in folders}) < len(folders):
        folders = [out / path.name for path in videos]
    if len({str(folder).casefold() for folder in folders}) < len(folders):
        raise InputError("two videos have the same name: predict one at a time.")
    return folders


def check(videos: Sequence[Path], out: Path, options: Options) -> None:
    """Checks that each video can be read and its results can be written.

    Raises:
      InputError: a video of one command cannot be read, or an output would replace a file
        that is read or that pose-jax has not written.
    """
    for path, folder in zip(videos, outputs(videos, out), strict=True):
        if len(videos) == 1:
            video_lib.open_video(path)
        writing.check(folder)
        if os.path.realpath(folder) == os.path.realpath(path):
            raise InputError(f"--out {out} is the video: choose another folder.")
        ours = "progress" in read_info(folder)
        for made in (_annotated(folder, path), _csv(folder, path)):
            if made.exists() and not ours:
                raise InputError(
                    f"{made} exists and was not written by pose-jax: choose another "
                    "folder by --out, or move the file."
                )
        if options.suggestions is not None:
            suggest.check(folder, options.suggestions)


def predict_videos(
    people: Estimator, videos: Sequence[Path], out: Path, options: Options
) -> int:
    """Writes the people of videos, each in a folder of its own if there are several.

    Returns:
      An exit code: 0, or 1 if a video could not be read to its end or a pose is not finite.

    Raises:
      InputError: the results cannot be written, or are those of other options.
      Stopped: it was interrupted by Ctrl-C; the same command continues.
    """
    if not options.detected:
        second = ", predicted again in the box of its keypoints" if (
            options.passes == 2
        ) else ""  # fmt: skip
        print(f"no --detector: each frame is treated as one person{second}")
    if options.gap is not None and not people.keypoints.sigmas:
        shown.note(
            f"keypoint set {people.keypoints.name!r} has no sigmas: people are tracked "
            f"with {track_lib.SIGMA} for each keypoint."
        )
    code = 0
    for path, folder in zip(videos, outputs(videos, out), strict=True):
        try:
            video = video_lib.open_video(path)
        except InputError as error:
            print(f"pose-jax: error: {error}", file=sys.stderr)
            code = 1
            continue
        code |= _of_one(people, video, folder, options)
    return code


def _of_one(
    people: Estimator, video: video_lib.Video, out: Path, options: Options
) -> int:
    made_by = {
        "weights": people.digest,
        "passes": options.passes,
        "min_score": options.min_score,
        "options": options.settings,
    }
    category = Category(people.category_id)
    with Frames(out, video, people.keypoints, category, made_by) as frames:
        try:
            if not frames.complete:
                _predict(people, frames, options)
            _conclude(people, frames, options)
        except KeyboardInterrupt:
            done, total = frames.counts["done"], video.frames or "an unknown number of"
            raise Stopped(
                f"interrupted: {done} of {total} frames are done and kept: {out}. The same "
                "command continues.",
                exit_code=130,
            ) from None
        if frames.problem:
            print(f"pose-jax: error: {frames.problem}", file=sys.stderr)
        if frames.counts["not_finite"]:
            text = shown.NOT_FINITE.format(frames.counts["not_finite"])
            print(f"pose-jax: error: {text}", file=sys.stderr)
        print(
            f"{frames.counts['people']} people in {frames.counts['done']} frames: {out}"
        )
        return 1 if frames.problem or frames.counts["not_finite"] else 0


def _predict(people: Estimator, frames: Frames, options: Options) -> None:
    """Predicts the frames that are not done."""
    start = frames.counts["done"]
    if start:
        shown.note(f"{start} frames are done: continuing with frame {start}.")
    with (
        contextlib.closing(frames.video.read(start)) as pixels,
        _progress("frames", frames.video.frames, start) as bar,
    ):
        for images in _chunks(_until_error(pixels, frames), _AT_ONCE):
            # The last frames are predicted as the others are, without compiling again.
            missing = _AT_ONCE - len(images) if frames.counts["done"] else 0
            batch = [*images, *[images[-1]] * missing]
            found = people(batch, passes=options.passes)[: len(images)]
            kept = []
            for persons in found:
                finite = [person for person in persons if shown.is_finite(person)]
                frames.counts["not_finite"] += len(persons) - len(finite)
                frames.counts["dropped"] += persons.dropped
                low = -np.inf if options.min_score is None else options.min_score
                kept.append([p for p in finite if p.box_score >= low])
            frames.add(kept)
            bar.update(len(images))
    frames.complete = True
    frames.save()


def _until_error(pixels: Iterator[np.ndarray], frames: Frames) -> Iterator[np.ndarray]:
    """Yields frames until one cannot be read; keeps the reason."""
    try:
        yield from pixels
    except InputError as error:
        frames.problem = str(error)


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    items = iter(items)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _conclude(people: Estimator, frames: Frames, options: Options) -> None:
    """Makes all other files of the results."""
    if frames.counts["dropped"]:
        shown.note(
            f"{frames.counts['dropped']} detections were dropped; increase --slots."
        )
    frames.write_list(options.gap)
    path = _csv(frames.out, frames.video.path)
    try:
        follow = lambda: frames.tracked(options.gap)
        table.write(path, follow, people.keypoints, options.gap is not None)
    except InputError as error:
        if not str(error).startswith("no csv"):
            raise
        path.unlink(missing_ok=True)
        shown.note(str(error))
    if options.suggestions is not None:
        count = suggest.write(frames, options.suggestions)
        print(f"{count} frames to label next: {frames.out / suggest.FOLDER}")
    if video_lib.can_write():
        _annotate(frames, options)
    else:
        shown.note(
            "no annotated video, which needs PyAV: pip install 'pose_jax[video]'."
        )


def _annotate(frames: Frames, options: Options) -> None:
    """Writes the annotated video, in pieces that are joined at the end."""
    path = _annotated(frames.out, frames.video.path)
    key = {"gap": options.gap, "done": frames.counts["done"]}
    if not frames.counts["done"] or (path.exists() and frames.drawn == key):
        return
    folder = path.with_suffix(".pieces")
    if frames.drawn != {**key, "pieces": True}:
        shutil.rmtree(folder, ignore_errors=True)
        frames.drawn = {**key, "pieces": True}
        frames.save()
    total = frames.counts["done"]
    pieces = [(i, folder / f"{i:08d}.mp4") for i in range(0, total, _PIECE)]
    there = list(itertools.takewhile(lambda piece: piece[1].exists(), pieces))
    start = min(len(there) * _PIECE, total)
    people = itertools.islice(frames.tracked(options.gap), start, None)
    with (
        contextlib.closing(frames.video.read(start)) as pixels,
        _progress("drawn", total, start) as bar,
    ):
        both = zip(people, pixels, strict=False)
        for _, piece in pieces[len(there) :]:
            with video_lib.writer(piece, frames.video.fps) as add:
                for found, image in itertools.islice(both, _PIECE):
                    add(_drawn(image, found, frames, options))
                    bar.update()
    video_lib.join(pieces, path)
    frames.drawn = key
    frames.save()
    shutil.rmtree(folder, ignore_errors=True)


def _drawn(
    image: np.ndarray,
    found: Sequence[dict[str, Any]],
    frames: Frames,
    options: Options,
) -> np.ndarray:
    low = -np.inf if options.min_score is None else options.min_score
    found = [person for person in found if person["score"] >= low]
    if not found:
        return image
    persons: list[Person] = list(map(person_of, found))
    titles = None
    if options.gap is not None:
        titles = [str(person["track_id"]) for person in found]
    elif options.detected:
        titles = [f"{person['score']:.2f}" for person in found]
    boxed = options.detected or options.passes == 2
    # Without anti-aliasing, which is not visible in motion and takes most of the time.
    return shown.drawn(image, persons, frames.keypoints, boxed, titles, supersample=1)


def _annotated(out: Path, video: Path) -> Path:
    return out / f"{video.stem}_poses.mp4"


def _csv(out: Path, video: Path) -> Path:
    return out / f"{video.stem}_poses.csv"


def _progress(what: str, total: int | None, start: int) -> tqdm.tqdm:
    return tqdm.tqdm(
        desc=what,
        total=total,
        initial=start,
        unit=" frames",
        mininterval=1 if sys.stderr.isatty() else 60,  # A log keeps every line.
    )
