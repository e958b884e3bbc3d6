"""`pose-jax predict`: images in, results and annotated pictures out."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing
from pose_jax.data import box_file
from pose_jax.data import pixels as pixels_lib
from pose_jax.data.pixels import Exif
from pose_jax.data.table import undecided_exif
from pose_jax.errors import ConfigError, InputError, Stopped
from pose_jax.keypoints import SETS
from pose_jax.predict import inputs, shown, videos
from pose_jax.predict.estimator import Estimator, People, Person, check_passes, load
from pose_jax.predict.inputs import Source
from pose_jax.predict.results import Results, check_free

_AT_ONCE = 16
"""Number of images whose pixels are kept in memory at a time, for drawing."""


def predict_run(
    run: Path | str,
    images: Sequence[Path],
    *,
    boxes: Path | None,
    out: Path,
    detector: Path | None = None,
    category: str | None = None,
    exif: Exif = "auto",
    min_score: float | None = None,
    passes: int = 1,
    weighting: str | None = None,
    track: bool = False,
    gap: int | None = None,
    suggest: int | None = None,
    checkpoint: str | None = None,
    **options: Any,
) -> int:
    """Writes the people of images to `out`, see `results`; of videos, see `videos`.

    Images that cannot be read are reported on stderr and skipped. Results are written image
    by image, and what has been done is kept, whatever stops the rest.

    Args:
      run: a run directory.
      images: image files, folders and patterns, see `inputs.find`; or videos.
      boxes: JSON file of person boxes, see `box_file`.
      out: output folder.
      detector: the run directory of a detector, instead of `boxes`.
      category: name or id of people in `boxes`, if it has several categories.
      exif: which pixels boxes and points refer to, see `pixels.turns`; without boxes,
        "auto" is the image as a viewer shows it.
      min_score: boxes of lower score are left out, people of lower score are not drawn.
      passes: 2: without boxes and detector, each person is predicted a second time, in the
        box of the keypoints of the first pass.
      weighting, checkpoint: as in `load`.
      track: give the people of a video ids.
      gap: number of frames that a person may be missing and keep the id; None: 10.
      suggest: number of frames of a video to suggest for labeling; None: none.
      **options: for `methods.system.find_people`.

    Returns:
      An exit code: 0, or 1 if an image could not be read or a pose is not finite.

    Raises:
      InputError: nothing can be predicted, or a file of the user would be overwritten.
      Stopped: it was interrupted by Ctrl-C.
    """
    if boxes is not None and detector is not None:
        raise ConfigError("give either --boxes or --detector, not both.")
    check_passes(passes, boxes is not None or detector is not None)
    if category is not None and boxes is None:
        raise ConfigError("--category is that of --boxes: give both.")
    films = inputs.videos(images)
    if films:
        if boxes is not None:
            raise ConfigError("--boxes is for images; a video needs a --detector.")
        chosen = {"weighting": weighting, "checkpoint": checkpoint}
        settings = options | {k: v for k, v in chosen.items() if v is not None}
        making = videos.options(detector is not None, track, gap, suggest)
        making = dataclasses.replace(
            making, passes=passes, min_score=min_score, settings=settings
        )
        videos.check(films, out, making)
        people = load(
            run, detector, weighting=weighting, checkpoint=checkpoint, **options
        )
        return videos.predict_videos(people, films, out, making)
    if track or gap is not None or suggest is not None:
        raise ConfigError("--track, --gap and --suggest are for videos.")
    sources, notes = inputs.find(images)
    folders = [Path(image) for image in images if Path(image).is_dir()]
    check_free(out, sources, [*folders, *([boxes] if boxes is not None else [])])
    writing.check(out)
    people = load(run, detector, weighting=weighting, checkpoint=checkpoint, **options)
    given, paths = None, [source.path for source in sources]
    if boxes is not None:
        given = box_file.read(boxes, paths, category=category, min_score=min_score)
        notes += given.notes
    for note in notes:
        shown.note(note)
    work = _Work(people, given, exif, min_score, detector is not None, passes)
    if given is None and detector is None:
        second = ", predicted again in the box of its keypoints" if passes == 2 else ""
        print(
            f"no --boxes and no --detector: each image is treated as one person{second}"
        )
    category_of = given.category if given is not None else None
    results = Results(
        out,
        people.keypoints,
        category_of or _category(people),
    )
    listed = {} if given is None else dict(zip(paths, given.ids, strict=True))
    ids = inputs.image_ids(sources, listed)
    _each(work, sources, ids, results)
    return _conclude(results, work, len(sources))


def _each(
    work: _Work,
    sources: Sequence[Source],
    ids: dict[Path, int | str],
    results: Results,
) -> None:
    """Predicts all images, some at a time.

    Raises:
      Stopped: it was interrupted by Ctrl-C.
    """
    try:
        # Pillow warns about large images, and rejects those twice as large.
        with warnings.catch_warnings(), results:
            warnings.filterwarnings("ignore", module="PIL")
            for start in range(0, len(sources), _AT_ONCE):
                chunk = range(start, min(start + _AT_ONCE, len(sources)))
                work.predict([(i, sources[i]) for i in chunk], ids, results)
    except KeyboardInterrupt:
        raise Stopped(
            f"interrupted: {results.done} of {len(sources)} images are done and kept, "
            f"{results.people} people: {results.out}",
            exit_code=130,
        ) from None


def _conclude(results: Results, work: _Work, count: int) -> int:
    """Prints what was done and what was not; returns the exit code."""
    if work.undecided:
        shown.note(undecided_exif(len(work.undecided), work.undecided[0], "--exif "))
    if work.not_finite:
        text = shown.NOT_FINITE.format(work.not_finite)
        print(f"pose-jax: error: {text}", file=sys.stderr)
    skipped = ""
    if results.skipped:
        skipped = f"; {len(results.skipped)} of {count} images were skipped"
    if results.done:
        images = f"{results.done} image{'s' * (results.done != 1)}"
        print(f"{results.people} people in {images}: {results.out}{skipped}")
    return 1 if results.skipped or work.not_finite else 0


@dataclasses.dataclass
class _Work:
    """Prediction of some images at a time.

    Attributes:
      people: the estimator.
      given: the boxes of all images; None: found by the detector, or the whole image.
      exif, min_score: as in `predict_run`.
      detected: whether there is a detector.
      passes: as in `predict_run`.
      undecided: images whose EXIF orientation their annotated size does not decide.
      not_finite: number of people that are left out.
    """

    people: Estimator
    given: box_file.BoxFile | None
    exif: Exif
    min_score: float | None
    detected: bool
    passes: int = 1
    undecided: list[Path] = dataclasses.field(default_factory=list)
    not_finite: int = 0

    def predict(
        self,
        numbered: Sequence[tuple[int, Source]],
        ids: dict[Path, int | str],
        results: Results,
    ) -> None:
        """Predicts images, given with their numbers, and writes their results."""
        read, arrays = [], []
        for i, source in numbered:
            try:
                arrays.append(self._pixels(i, source))
                read.append((i, source))
            except InputError as error:
                print(f"pose-jax: error: {error}", file=sys.stderr)
                results.skip(source, str(error))
        if not read:
            return
        boxes = scores = None
        if self.given is not None:
            boxes = [self.given.boxes_xyxy[i] for i, _ in read]
            scores = [self.given.scores[i] for i, _ in read]
        found = self.people(arrays, boxes, scores, passes=self.passes)
        for (_, source), image, persons in zip(read, arrays, found, strict=True):
            if persons.dropped:
                shown.note(
                    f"{source.path}: {persons.dropped} detections were dropped; increase "
                    "--slots."
                )
            kept = self._kept(persons)
            size = (image.shape[1], image.shape[0])
            if self.passes == 2 and any(
                p.box_xyxy[2:].tolist() == [*size] for p in kept
            ):
                shown.note(f"{source.path}: too few keypoints found: only one pass.")
            results.add(source, ids[source.path], size, kept, self._drawn(image, kept))

    def _pixels(self, i: int, source: Source) -> np.ndarray:
        """Reads an image, in the frame of its boxes."""
        path = source.path
        picture = pixels_lib.read(path, path, count_frames=True)
        if picture.frames > 1:
            shown.note(
                f"{path}: animated image ({picture.frames} frames): using the first frame; "
                "predicted alone, it is a video."
            )
        height, width = picture.pixels.shape[:2]
        size = (width, height)
        exif, listed = self.exif, None
        if self.given is not None:
            listed = self.given.sizes[i]
        elif exif == "auto":
            exif = "apply"
        try:
            turn, undecided = pixels_lib.turns(size, picture.orientation, listed, exif)
        except ValueError as found:
            says = "{}x{}".format(*(listed or ()))
            raise InputError(
                f"{path} is {found}, the file of boxes says {says}. Is it the original "
                "file?"
            ) from None
        self.undecided += [path] if undecided else []
        turned = pixels_lib.turned(picture.pixels, picture.orientation)
        return turned if turn else picture.pixels

    def _kept(self, persons: People) -> list[Person]:
        """Returns the people with finite values, and boxes of a sufficient score."""
        finite = [person for person in persons if shown.is_finite(person)]
        self.not_finite += len(persons) - len(finite)
        return [p for p in finite if not self._below(p.box_score)]

    def _below(self, score: float) -> bool:
        return self.min_score is not None and score < self.min_score

    def _drawn(self, image: np.ndarray, persons: Sequence[Person]) -> np.ndarray:
        persons = [person for person in persons if not self._below(person.score)]
        boxed = self.detected or self.given is not None or self.passes == 2
        titles = [f"{p.score:.2f}" for p in persons] if self.detected else None
        return shown.drawn(image, persons, self.people.keypoints, boxed, titles)


def _category(people: Any) -> box_file.Category:
    """Returns the category of the training data; a set of its own has its name."""
    registered = people.keypoints in SETS.values()
    name = "person" if registered else people.keypoints.name
    return box_file.Category(people.category_id, name)
