"""The common form of labels: what every tool's reader returns and every writer takes.

Points are (x, y, v) in pixels of the image, with COCO's visibility v: 0 not labelled, 1
labelled and hidden, 2 visible. Boxes are (x, y, width, height). A keypoint that is absent
from `Person.points` is not labelled.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pose_jax.errors import ConfigError, InputError, did_you_mean

Point = tuple[float, float, int]
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Category:
    """A kind of people or animals.

    Attributes:
      name: its name.
      names: its keypoints, in the order of the data set.
      skeleton: pairs of names to draw.
      flip_pairs: pairs of names that are exchanged in a mirror image; None if the file does
        not say, so that they follow from left and right in the names.
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[str, str], ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] | None = None

    @property
    def flips(self) -> tuple[tuple[str, str], ...]:
        """`flip_pairs`, or those that left and right in the names say."""
        if self.flip_pairs is not None:
            return self.flip_pairs
        others = [(n, n.replace("left", "right")) for n in self.names if "left" in n]
        return tuple((a, b) for a, b in others if b in self.names)


@dataclasses.dataclass
class Person:
    """A person or animal of an image.

    Attributes:
      category: name of its category.
      points: its keypoints by name.
      box: its box; None if the tool has none.
      joint_box: whether `box` was made from its keypoints.
      track: the same text for the same individual in all frames of a video; None if
        unknown.
      score: confidence of a prediction; None for labels.
      scores: confidences of its keypoints by name; empty for labels.
    """

    category: str
    points: dict[str, Point]
    box: Box | None = None
    joint_box: bool = False
    track: str | None = None
    score: float | None = None
    scores: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def labelled(self) -> int:
        """Number of labelled keypoints."""
        return sum(v > 0 for _, _, v in self.points.values())


@dataclasses.dataclass
class Image:
    """An image or a frame of a video.

    Attributes:
      name: name in the data set, with "/" between folders, relative to those of the split.
      people: its people.
      file: its file; None if there is `content`.
      content: returns the bytes of its file, if it is not a file of its own.
      size: (width, height) that points refer to; None: those of the image as viewers
        show it.
      split: name of the split; "" if the tool has none.
    """

    name: str
    people: list[Person] = dataclasses.field(default_factory=list)
    file: Path | None = None
    content: Callable[[], bytes] | None = None
    size: tuple[int, int] | None = None
    split: str = ""


class Counts:
    """Counts of what was left out, or of what else users should know.

    A phrase is a template: "box[es] of {label}" becomes "1 box of mouse" or "2 boxes of
    mouse".
    """

    def __init__(self) -> None:
        self._counts: collections.Counter[tuple[str, tuple[tuple[str, Any], ...]]] = (
            collections.Counter()
        )

    def add(self, phrase: str, count: int = 1, **values: Any) -> None:
        self._counts[phrase, tuple(values.items())] += count

    def __getitem__(self, phrase: str) -> int:
        """Returns the sum of a phrase over all its values."""
        return sum(n for (own, _), n in self._counts.items() if own == phrase)

    def lines(self) -> list[str]:
        return [
            f"{n} {plural(phrase, n).format(**dict(values))}"
            for (phrase, values), n in self._counts.items()
            if n
        ]


def plural(phrase: str, count: int) -> str:
    """Returns "boxes" or "box" for "box[es]"."""
    return re.sub(r"\[(\w+)\]", "" if count == 1 else r"\1", phrase)


@dataclasses.dataclass
class Labels:
    """Everything that a tool's file says.

    Attributes:
      categories: the categories by name; those without people are not written.
      images: the images that were found.
      left_out: what is not in `images`.
      notes: further remarks, one phrase each.
      missing: names of images that were not found.
      sought: the folders where they were looked for.
    """

    categories: dict[str, Category] = dataclasses.field(default_factory=dict)
    images: list[Image] = dataclasses.field(default_factory=list)
    left_out: Counts = dataclasses.field(default_factory=Counts)
    notes: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    sought: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `data convert`; each tool names those it takes.

    Attributes:
      names: names of the keypoints, in their order.
      images: folder of the images, if the file does not say it.
      label_config: Label Studio's labelling configuration (XML).
      interpolated: take the poses between keyframes too.
      predicted: take predictions where there are no labels.
      copy: copy the images instead of linking to them.
    """

    names: tuple[str, ...] = ()
    images: Path | None = None
    label_config: Path | None = None
    interpolated: bool = False
    predicted: bool = False
    copy: bool = False

    def given(self) -> list[str]:
        """Returns the options that are given, as on the command line."""
        fields = dataclasses.fields(self)
        return [option_name(f.name) for f in fields if getattr(self, f.name)]


def option_name(field: str) -> str:
    return "--" + field.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class Tool:
    """A labelling tool.

    Attributes:
      title: its name.
      read: reads an export.
      recognize: whether a file or folder is an export of the tool.
      options: fields of `Options` that `read` takes.
      write: writes labels or predictions for the tool into a folder, and returns what to
        say about it; None if there is no way back.
      write_options: fields of `Options` that `write` takes.
    """

    title: str
    read: Callable[[Path, Options], Labels] | None = None
    recognize: Callable[[Path], bool] | None = None
    options: frozenset[str] = frozenset()
    write: Callable[[Labels, Path, Options], list[str]] | None = None
    write_options: frozenset[str] = frozenset()


@contextlib.contextmanager
def reading(where: object, tool: str) -> Iterator[None]:
    """Names the place if a file lacks what the tool always writes.

    Raises:
      InputError: a field is absent, or has another type than it should.
    """
    try:
        yield
    except InputError:
        raise
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
    ) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{where} is not as {tool} writes it ({what}). Export it again."
        ) from None


def check_numbers(labels: Labels, where: object) -> None:
    """Checks that all points and boxes are finite.

    Raises:
      InputError: one is not; the message names its image.
    """
    for image in labels.images:
        for person in image.people:
            values = [value for x, y, _ in person.points.values() for value in (x, y)]
            values += person.box or ()
            if not all(map(math.isfinite, values)):
                raise InputError(
                    f"{where}: {image.name} has a point or a box that is not finite. "
                    "Export it again."
                )


def chosen(found: Collection[str], names: Sequence[str], where: object) -> list[str]:
    """Returns the names that users give for the keypoints of a file.

    Args:
      found: the labels in the file.
      names: the names given by --names.
      where: the file, for messages.

    Raises:
      ConfigError: a name is given twice, or none of them, or a misspelled one, is there.
    """
    twice = [n for n, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"--names has {twice[0]!r} twice.")
    other = [label for label in found if label not in names]
    for name in names:
        near = did_you_mean(name, other, cutoff=0.7)
        if name not in found and near:
            raise ConfigError(f"{where} has no keypoint {name!r} of --names.{near}")
    if found and not set(names) & set(found):
        raise ConfigError(
            f"{where} has none of the keypoints of --names; it has "
            f"{', '.join(sorted(found))}."
        )
    return list(names)


def assemble(
    found: Sequence[tuple[str, Point]], names: Collection[str], left_out: Counts
) -> dict[str, Point]:
    """Returns the labelled points of one person by name.

    Points of other names and second points of a name are left out and counted.
    """
    points: dict[str, Point] = {}
    for label, point in found:
        if label not in names:
            left_out.add("point[s] {label!r}, not among the names", label=label)
        elif label in points:
            left_out.add("second point[s] {label!r} of one person", label=label)
        else:
            points[label] = point
    return points


def extent(points: Collection[tuple[float, float]]) -> Box:
    """Returns the extent of some points as (x, y, width, height)."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
