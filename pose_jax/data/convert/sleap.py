"""SLEAP: .slp files and training packages (.pkg.slp), read and written by sleap-io.

Only instances that a user made are labels; with --predicted, predictions that no user has
corrected are taken too. Since format 1.1, SLEAP documents that the center of the first
pixel is (0, 0), as everywhere in pose_jax. Before, it was that pixel's corner: sleap-io
moves these points by half a pixel.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing
from pose_jax.data.convert import files, frames
from pose_jax.data.convert.form import (
    Category,
    Counts,
    Image,
    Labels,
    Options,
    Person,
    Tool,
    chosen,
    plural,
)
from pose_jax.errors import ConfigError, InputError, one_line

_PREDICTED = "predicted instance[s] (--predicted takes those without a correction)"


def _library() -> Any:
    """Imports sleap-io.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import sleap_io  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            f"SLEAP's files need sleap-io ({error}): pip install 'pose_jax[convert]'."
        ) from None
    return sleap_io


def read(path: Path, options: Options) -> Labels:
    """Reads a .slp file, see `form.Tool`.

    Raises:
      InputError: it is broken or another file, or its frames cannot be read.
    """
    file = files.one_file(path, "*.slp", recognize)
    library = _library()
    try:
        project = library.load_slp(str(file), open_videos=False)
    except Exception as error:  # h5py and sleap-io have no common class for these.
        raise InputError(
            f"{file} cannot be read as a file of SLEAP ({one_line(error, 150)})."
        ) from None
    labels = Labels()
    categories = {}
    for number, skeleton in enumerate(project.skeletons):
        category = _category(skeleton, options, file)
        if category.name in labels.categories:  # Skeletons may share a name.
            name = f"{category.name}_{number}"
            category = Category(
                name, category.names, category.skeleton, category.flip_pairs
            )
        labels.categories[category.name] = categories[id(skeleton)] = category
    find = files.Finder(
        [options.images] if options.images else [file.parent, Path.cwd()]
    )
    labels.sought = find.folders
    videos = [_Video(video, i, file, find) for i, video in enumerate(project.videos)]
    of = {id(video): own for video, own in zip(project.videos, videos, strict=True)}
    for frame in project.labeled_frames:
        people = _people(frame, categories, options, labels)
        if not people:
            labels.left_out.add("frame[s] without an instance")
            continue
        image = of[id(frame.video)].image(int(frame.frame_idx))
        if image is None:
            shown = of[id(frame.video)].shown(int(frame.frame_idx))
            labels.missing.append(shown)
            continue
        image.people = people
        labels.images.append(image)
    if not labels.images and not labels.missing:
        hint = " --predicted takes predictions." if labels.left_out[_PREDICTED] else ""
        raise InputError(f"{file} has no instances with keypoints.{hint}")
    own = [image for image in labels.images if image.file is not None]
    paths = [image.file for image in own if image.file is not None]
    for image, name in zip(own, files.common_names(paths), strict=True):
        image.name = name
    return labels


def _category(skeleton: Any, options: Options, file: Path) -> Category:
    names = [str(name) for name in skeleton.node_names]
    if options.names:
        names = chosen(names, options.names, file)
    inside = lambda pairs: tuple(
        (str(a), str(b)) for a, b in pairs if a in names and b in names
    )
    nodes = skeleton.node_names
    flips = [(nodes[i], nodes[j]) for i, j in skeleton.symmetry_inds]
    return Category(
        str(skeleton.name or "animal"),
        tuple(names),
        inside(skeleton.edge_names),
        inside(flips) if flips else None,
    )


def _people(
    frame: Any, categories: dict[int, Category], options: Options, labels: Labels
) -> list[Person]:
    """Returns the instances of a frame to take, and counts the others."""
    taken = list(frame.user_instances)
    predictions = len(frame.predicted_instances)
    if options.predicted:
        unused = _uncorrected(frame)
        taken += unused
        labels.left_out.add(
            "prediction[s] that a user has corrected", predictions - len(unused)
        )
    else:
        labels.left_out.add(_PREDICTED, predictions)
    people = []
    for instance in taken:
        category = categories[id(instance.skeleton)]
        at = np.asarray(instance.numpy(), np.float64)[:, :2]
        points = {
            str(name): (float(x), float(y), 2)
            for name, (x, y) in zip(instance.skeleton.node_names, at, strict=True)
            if np.isfinite([x, y]).all() and name in category.names
        }
        if not points:
            labels.left_out.add("instance[s] without a visible point")
            continue
        track = instance.track.name if instance.track is not None else None
        people.append(Person(category.name, points, track=track))
    return people


def _uncorrected(frame: Any) -> list[Any]:
    """Returns the predictions of a frame that no instance of a user replaces.

    An instance replaces the prediction that it was made from, and one of its track.
    """
    users = frame.user_instances
    made_from = {id(user.from_predicted) for user in users}
    tracks = {id(user.track) for user in users if user.track is not None}
    return [
        prediction
        for prediction in frame.predicted_instances
        if id(prediction) not in made_from and id(prediction.track) not in tracks
    ]


class _Video:
    """A video of a project: a list of images, images in the file, or a video.

    Attributes:
      folder: the folder of its frames in the data set.
    """

    def __init__(self, video: Any, number: int, file: Path, find: files.Finder) -> None:
        self.video, self.file, self.find = video, file, find
        first = getattr(video.source_video or video, "filename", "")
        first = first[0] if isinstance(first, list) else first
        self.folder = f"{number:02d}_{Path(files.posix(str(first))).stem}"
        metadata = video.backend_metadata or {}
        self.embedded = bool(metadata.get("has_embedded_images"))
        self._opened = False

    def image(self, number: int) -> Image | None:
        """Returns the image of a frame, without people; None if it is not there."""
        names = self.video.filename
        if isinstance(names, list):
            if not 0 <= number < len(names):
                return None
            found = self.find(str(names[number]))
            return None if found is None else Image(names[number], file=found)
        if not self.embedded:
            found = self.find(str(names))
            if found is None:
                return None
            self.video.filename = str(found)
        name = f"{self.folder}/frame_{number:06d}.png"
        return Image(name, content=self._content(number))

    def shown(self, number: int) -> str:
        names = self.video.filename
        if isinstance(names, list):
            return str(names[number]) if 0 <= number < len(names) else f"frame {number}"
        return f"frame {number} of {names}"

    def _content(self, number: int) -> Callable[[], bytes]:
        return functools.partial(self._read, number)

    def _read(self, number: int) -> bytes:
        try:
            if not self._opened:
                self.video.open()
                self._opened = True
            pixels = np.asarray(self.video[number])
        except Exception as error:  # Of h5py, imageio, PyAV or OpenCV.
            raise InputError(
                f"frame {number} of {self.video.filename} cannot be read "
                f"({one_line(error, 150)})."
            ) from None
        return frames.png(pixels.astype(np.uint8))


def recognize(path: Path) -> bool:
    """Returns whether this is a .slp file, or a folder that holds one."""
    if path.is_dir():
        return any(path.glob("*.slp"))
    return path.suffix.lower() == ".slp" and files.starts(path, 4) == b"\x89HDF"


# ------------------------------------------------------------------- the way back


def write(labels: Labels, out: Path, options: Options) -> list[str]:
    """Writes `labels.slp`, see `form.Tool`.

    Predictions become predicted instances with their scores, all others user instances. The
    file refers to the images where they are.

    Raises:
      ConfigError: sleap-io is not installed.
    """
    library = _library()
    said = Counts()
    skeletons = {
        category.name: _skeleton(library, category)
        for category in labels.categories.values()
    }
    paths = [image.file for image in labels.images if image.file is not None]
    if len(paths) != len(labels.images):
        raise InputError("SLEAP needs images that are files of their own.")
    video = library.Video.from_filename([os.path.abspath(path) for path in paths])
    found = []
    for number, image in enumerate(labels.images):
        instances = [
            _instance(
                library, p, labels.categories[p.category], skeletons[p.category], said
            )
            for p in image.people
        ]
        found.append(library.LabeledFrame(video, number, instances))
    project = library.Labels(found, videos=[video], skeletons=list(skeletons.values()))
    out.mkdir(parents=True, exist_ok=True)
    with writing.naming(out):
        project.save(str(out / "labels.slp"), verbose=False)
    people = sum(len(image.people) for image in labels.images)
    return [
        *said.lines(),
        f"{people} {plural('instance[s]', people)}: {out / 'labels.slp'}",
    ]


def _skeleton(library: Any, category: Category) -> Any:
    nodes = {name: library.Node(name) for name in category.names}
    return library.Skeleton(
        list(nodes.values()),
        [library.Edge(nodes[a], nodes[b]) for a, b in category.skeleton],
        [library.Symmetry([nodes[a], nodes[b]]) for a, b in category.flips],
        name=category.name,
    )


def _instance(
    library: Any, person: Person, category: Category, skeleton: Any, said: Counts
) -> Any:
    points = np.full((len(category.names), 2), np.nan)
    scores = np.zeros(len(category.names))
    for i, name in enumerate(category.names):
        x, y, v = person.points.get(name, (0.0, 0.0, 0))
        if v == 1:
            said.add("hidden point[s], which SLEAP would not show: written as visible")
        if v:
            points[i] = x, y
            scores[i] = person.scores.get(name, 0.0)
    if person.score is None:
        return library.Instance.from_numpy(points, skeleton)
    return library.PredictedInstance.from_numpy(
        points, skeleton, point_scores=scores, score=person.score
    )


TOOL = Tool(
    title="SLEAP",
    read=read,
    recognize=recognize,
    options=frozenset({"names", "images", "predicted"}),
    write=write,
)
