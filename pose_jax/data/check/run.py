"""`pose-jax data check`: everything that is wrong with a data set, counted, in one go.

The readers stop at the first error; this goes on. COCO json is looked at as it stands in
the file, the other formats through their readers. Both become columns (`_People`), which
share their checks: scale, extent, boxes, left and right. Images are looked at by their
headers and ends, a sample of them (or all) by decoding.

An error is what a reader refuses, or what silently makes scores or labels wrong; a
warning is what may be meant. Nothing is changed. Host code: NumPy and Pillow.

To add a check: a line in KINDS, and `file.add(kind, example)` where it is seen.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import keypoints
from pose_jax.data.table import ImageRef, Table, encoded
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.keypoints import MPII, KeypointSet

Severity = Literal["error", "warning"]
Depth = Literal["headers", "full"]

EXAMPLES = 3
SAMPLE = 50
"""Images that are decoded whole where all others are read by header and end."""

_MIN_PEOPLE = 20
"""Fewer people with both joints of a pair labelled say nothing about left and right."""


class Kind(NamedTuple):
    """What can be wrong: how bad it is, what it means, what to do."""

    severity: Severity
    reason: str
    remedy: str


_MEND = "mend the file"
_RENUMBER = "number them anew, in all sections alike"
_FETCH = "fetch it again, or take it out of the annotations"
_RGB = "nothing, if the picture is right; else save it as RGB"

KINDS: dict[str, Kind] = {
    # ------------------------------------------------------------------- files of json
    "json-missing": Kind(
        "error", "there is no such file", "unpack it there, or name another file"
    ),
    "json-unreadable": Kind(
        "error", "the file cannot be opened", "mend its permissions"
    ),
    "json-broken": Kind("error", "not JSON, or cut short", "fetch or write it again"),
    "json-kind": Kind(
        "error",
        "another kind of file",
        "annotations are an object with images, annotations and categories; detections "
        "are a list of boxes",
    ),
    "section-missing": Kind("error", "a section is absent or not a list", _MEND),
    "field-missing": Kind("error", "a required field is absent", _MEND),
    "field-type": Kind("error", "a field has not its type", _MEND),
    "id-not-integer": Kind("error", "ids must be integers of 64 bits", _RENUMBER),
    "duplicate-image-id": Kind("error", "two images have one id", _RENUMBER),
    "duplicate-annotation-id": Kind(
        "error",
        "two annotations have one id: evaluators keep only one of them",
        _RENUMBER,
    ),
    "duplicate-file-name": Kind(
        "warning",
        "two images are one file: its people are spread over both",
        "join them under one id",
    ),
    "size-not-positive": Kind("error", "width or height is below 1, or absurd", _MEND),
    "unknown-image": Kind(
        "error",
        "annotations of images that are not listed",
        "list the images, or leave the annotations out",
    ),
    "unknown-category": Kind(
        "warning",
        "annotations of categories that are not listed: left out",
        "list the category, or correct category_id",
    ),
    # -------------------------------------------------------------------- the category
    "category-without-keypoints": Kind(
        "error",
        "no category names keypoints",
        "use person_keypoints_*.json, not instances_*.json; or name them there",
    ),
    "several-categories": Kind(
        "error", "several categories have keypoints", 'name one of them "person"'
    ),
    "keypoint-count": Kind(
        "error",
        "the file has another number of keypoints than the set",
        "give the set that the file follows (--keypoints)",
    ),
    "keypoint-names": Kind(
        "error",
        "the file names other keypoints than the set",
        "give the set that the file follows (--keypoints), or rename them",
    ),
    "keypoint-order": Kind(
        "error",
        "the file has the set's keypoints in another order",
        "reorder the names and every annotation's keypoints alike",
    ),
    "keypoint-sides": Kind(
        "error",
        "the file exchanges left and right against the set",
        "reorder the names and every annotation's keypoints alike",
    ),
    "flip-pairs": Kind(
        "error",
        "the set's flip pairs do not join the left_ and right_ of its names: mirrored "
        "inputs would teach nonsense",
        "mend the keypoint set",
    ),
    # ------------------------------------------------------------------------- people
    "nobody": Kind(
        "warning", "no annotation is of the category with keypoints", "is it the file?"
    ),
    "nobody-labelled": Kind(
        "warning",
        "no person has a labelled keypoint: nothing to learn from or to measure",
        "is it the file?",
    ),
    "keypoints-length": Kind(
        "error", "keypoints are not (x, y, v) for each name of the category", _MEND
    ),
    "keypoints-not-finite": Kind("error", "keypoints are not finite", _MEND),
    "visibility-value": Kind("error", "v is not 0, 1 or 2", _MEND),
    "visibility-binary": Kind(
        "warning",
        "v is never 2 in the whole file: 1 may mean visible there, here it is hidden",
        "write 2 for visible, 1 for labelled and hidden, 0 for not labelled",
    ),
    "unlabelled-coordinates": Kind(
        "warning",
        "people with coordinates where v is 0: not used",
        "if they are labels, give them v 1 or 2",
    ),
    "num-keypoints": Kind(
        "warning",
        "num_keypoints is not the number of v above 0: pycocotools reads it, we count",
        "write it again from v",
    ),
    "points-normalised": Kind(
        "error",
        "all coordinates lie in [0, 1]: normalised, not pixels",
        "multiply x by the image's width and y by its height",
    ),
    "points-swapped": Kind(
        "error", "x and y look exchanged in the whole file", "write x first, then y"
    ),
    "points-outside": Kind(
        "warning",
        "labelled keypoints outside of the image: learnt as they are",
        "clip them or give them v 0, if they are slips",
    ),
    "points-mostly-outside": Kind(
        "error",
        "most labelled keypoints are outside of the image: made for another resolution?",
        "scale them to the width and height that are listed",
    ),
    "points-outside-box": Kind(
        "warning",
        "people most of whose visible keypoints are outside of their own box: the crop "
        "misses them",
        "are boxes and keypoints in the same pixels, and [x, y, width, height]?",
    ),
    "torso-degenerate": Kind(
        "warning",
        "people whose torso is shorter than 1/50 of their extent: PCK and PDJ divide "
        "by it",
        "look at them; nothing, if seen end on",
    ),
    "pair-swapped": Kind(
        "warning",
        "left and right of a pair contradict the other pairs in most people",
        "are the two names exchanged?",
    ),
    "sides-mirrored": Kind(
        "warning",
        "the left eye is left of the right one in most faces: observer's sides, or "
        "mirrored images",
        "exchange left and right, if the person's own are meant",
    ),
    "person-unusable": Kind(
        "warning",
        "labelled people with too few joints for a box: neither learnt nor measured",
        "nothing, or another source of boxes",
    ),
    # -------------------------------------------------------------------------- boxes
    "bbox-not-finite": Kind("error", "bbox is not finite", _MEND),
    "bbox-empty": Kind(
        "error",
        "labelled people whose bbox has no width or height: never predicted, yet AP "
        "counts them as missed",
        "write their real bbox",
    ),
    "bbox-empty-unlabelled": Kind(
        "warning", "unlabelled boxes without width or height: left out", _MEND
    ),
    "bbox-outside": Kind(
        "error", "boxes that lie wholly outside of their image", "write the real bbox"
    ),
    "bbox-beyond": Kind(
        "warning",
        "boxes that go beyond their image: what is there is filled with zeros",
        "clip them, if they are slips",
    ),
    "bbox-xyxy": Kind(
        "error",
        "boxes look like [x1, y1, x2, y2]; COCO's are [x, y, width, height]",
        "subtract x1 from x2 and y1 from y2",
    ),
    "bbox-normalised": Kind(
        "error",
        "all boxes lie in [0, 1]: normalised, not pixels",
        "multiply by the image's width and height",
    ),
    "area-not-finite": Kind("error", "area is not finite", _MEND),
    "area-not-positive": Kind(
        "error",
        "labelled people without a positive area: OKS divides by it, AP ignores them",
        "write the segment's area, or about half of the box's",
    ),
    "area-exceeds-box": Kind(
        "warning",
        "people whose area is more than 1.5 times their box: OKS becomes too kind",
        "write the segment's area, or about half of the box's",
    ),
    "iscrowd-value": Kind("error", "iscrowd is not 0 or 1", _MEND),
    # ------------------------------------------------------------------------- images
    "no-image-folder": Kind(
        "error",
        "there is no folder of images",
        "unpack them there, or give the folder that holds it as ROOT",
    ),
    "image-missing": Kind(
        "error",
        "listed images are not in the folder",
        'complete it, or go without them (missing="skip")',
    ),
    "image-name-case": Kind(
        "error",
        "listed names and files differ in upper and lower case",
        "rename the files",
    ),
    "image-name-folder": Kind(
        "error",
        "listed names carry a folder that is not there; the files are without it",
        "write the names relative to the folder of images",
    ),
    "image-names-collide": Kind(
        "warning",
        "two listed names differ in upper and lower case alone: one file on other "
        "machines",
        "rename one",
    ),
    "image-empty": Kind("error", "image files of 0 bytes", _FETCH),
    "image-unreadable": Kind("error", "files that are no image", _FETCH),
    "image-truncated": Kind(
        "error", "image files that are cut short or damaged", _FETCH
    ),
    "image-size": Kind(
        "error",
        "images of another size than the annotations say",
        "use the original files",
    ),
    "image-grey": Kind(
        "warning", "grey images: the value is repeated in all three channels", _RGB
    ),
    "image-palette": Kind(
        "warning", "images with a palette: turned into RGB by it", _RGB
    ),
    "image-alpha": Kind(
        "warning",
        "images with transparency: it is dropped, the colours below show",
        _RGB,
    ),
    "image-cmyk": Kind(
        "warning", "CMYK images: turned into RGB without a colour profile", _RGB
    ),
    "image-16-bit": Kind(
        "warning", "images of 16 bits: the upper 8 are kept, as grey", _RGB
    ),
    "image-mode": Kind(
        "warning", "images that are not RGB: clipped to 8 bits and converted", _RGB
    ),
    "image-turned": Kind(
        "warning",
        "images with an EXIF orientation: not applied, labels must fit the stored "
        "pixels",
        "if they were made on the turned picture, save it turned, without the tag",
    ),
    "image-animated": Kind(
        "warning", "files of several pictures: the first is used", "save that one alone"
    ),
    # --------------------------------------------------------------------- detections
    "detection-unknown-image": Kind(
        "warning",
        "detections in images that are not listed: left out",
        "nothing, if the file covers more images",
    ),
    "detections-all-unknown": Kind(
        "error",
        "no detection is in a listed image",
        "name the detections of this split",
    ),
    "detection-category": Kind(
        "warning",
        "detections of other categories than people: left out",
        "nothing, if the detector finds more than people",
    ),
    "detections-nobody": Kind(
        "error",
        "no detection is of the category of people",
        "write the category_id of the annotation file",
    ),
    "score-not-finite": Kind("error", "scores are not finite", _MEND),
    "score-range": Kind(
        "warning",
        "scores outside of [0, 1]: thresholds of boxes mean something else there",
        "are they logits?",
    ),
    # ------------------------------------------------------------------------ readers
    "reader-refuses": Kind(
        "error", "the reader does not accept it", "as the message says"
    ),
    "reader-fails": Kind(
        "error", "the reader breaks on it: a bug of pose_jax", "tell its makers"
    ),
}
"""All kinds of findings. A kind has one line in a report, for each file it is in."""


# ------------------------------------------------------------------------------ reports


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of problem in one file.

    Attributes:
      severity: "error" or "warning".
      kind: a key of KINDS.
      file: where: the annotation file, the detections, the folder of images.
      count: how many cases.
      reason: what it means.
      remedy: what to do.
      examples: the first of them, each with its id.
    """

    severity: Severity
    kind: str
    file: str
    count: int
    reason: str
    remedy: str
    examples: tuple[str, ...]

    def text(self) -> str:
        more = "; ..." if self.count > len(self.examples) else ""
        return (
            f"{self.severity:7}  {self.kind}  {self.count}: {self.reason} -> "
            f"{self.remedy}  [{self.file}: {'; '.join(self.examples)}{more}]"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What is wrong with one split, and what is in it.

    Attributes:
      title: the data set, the split and where they are.
      notes: how it was looked at.
      findings: errors first.
      counts: what is in it, in words: "people" -> 12.
    """

    title: str
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]

    @property
    def exit_code(self) -> int:
        """1 where there are errors, else 0."""
        return int(any(f.severity == "error" for f in self.findings))

    def text(self) -> str:
        """The report, a line for each finding."""
        severities = collections.Counter(f.severity for f in self.findings)
        verdict = ", ".join(
            f"{severities[s]} {s}{'s' * (severities[s] != 1)}"
            for s in ("error", "warning")
        )
        lines = [self.title, *self.notes, *(f.text() for f in self.findings)]
        if self.counts:
            lines.append(", ".join(f"{n} {what}" for what, n in self.counts.items()))
        lines.append(f"{verdict} (of kinds)" if self.findings else "clean")
        return "\n".join(lines)


class _Findings:
    """Counts cases by kind and file, and keeps the first examples of each.

    Files under `root` are called by their path in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cases: dict[tuple[str, str], list[Any]] = {}

    def add(
        self,
        kind: str,
        file: str,
        example: str,
        *,
        count: int = 1,
        severity: Severity | None = None,
    ) -> None:
        case = self._cases.setdefault((kind, file), [0, [], severity])
        case[0] += count
        if len(case[1]) < EXAMPLES:
            case[1].append(_one_line(example))

    def has(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _ in self._cases)

    def findings(self) -> tuple[Finding, ...]:
        order = list(KINDS)
        found = []
        for (kind, file), (count, examples, severity) in self._cases.items():
            known = KINDS[kind]
            if Path(file) != self._root and Path(file).is_relative_to(self._root):
                file = str(Path(file).relative_to(self._root))
            found.append(
                Finding(
                    severity=severity or known.severity,
                    kind=kind,
                    file=file,
                    count=count,
                    reason=known.reason,
                    remedy=known.remedy,
                    examples=tuple(examples),
                )
            )
        found.sort(key=lambda f: (f.severity, order.index(f.kind), f.file))
        return tuple(found)


class _File:
    """One file's findings, and careful access to the rows of its json."""

    def __init__(self, found: _Findings, name: str | Path) -> None:
        self.found = found
        self.name = str(name)

    def add(self, kind: str, example: str, **options: Any) -> None:
        self.found.add(kind, self.name, example, **options)

    def section(self, data: Mapping[str, Any], name: str) -> list[Any]:
        """A list of rows; none where it is absent or something else."""
        rows = data.get(name)
        if isinstance(rows, list):
            return rows
        got = "absent" if name not in data else f"is {_short(rows)}"
        self.add("section-missing", f"{name}: {got}")
        return []

    def rows(
        self, values: Iterable[Any], what: str
    ) -> Iterable[tuple[Mapping[str, Any], str]]:
        """Each row that is an object, and how to point at it."""
        for i, row in enumerate(values):
            if isinstance(row, Mapping):
                has_id = "id" in row
                yield row, f"{what} id {row['id']}" if has_id else f"{what} number {i}"
            else:
                self.add("field-type", f"{what} number {i} is {_short(row)}")

    def field(self, row: Mapping[str, Any], name: str, kinds: Any, where: str) -> Any:
        """A required field of one of `kinds`; None, and a finding, if it is not."""
        value = row.get(name)
        if value is None:
            self.add("field-missing", f"{where}: {name}")
        elif not isinstance(value, kinds) or isinstance(value, bool):
            self.add("field-type", f"{where}: {name} is {_short(value)}")
        else:
            return value
        return None

    def id(self, row: Mapping[str, Any], name: str, where: str) -> int | None:
        value = row.get(name)
        if value is None:
            self.add("field-missing", f"{where}: {name}")
        elif type(value) is not int or not -(2**63) <= value < 2**63:
            self.add("id-not-integer", f"{where}: {name} is {_short(value)}")
        else:
            return value
        return None

    def numbers(
        self, values: Any, where: str, not_finite: str, count: int | None = None
    ) -> np.ndarray | None:
        """A list of `count` numbers as float64; None, and a finding, if it is not."""
        numeric = isinstance(values, list) and {*map(type, values)} <= {int, float}
        if not numeric or (count is not None and len(values) != count):
            self.add("field-type", f"{where} is {_short(values)}")
            return None
        array = _floats(values)
        if np.isfinite(array).all():
            return array
        self.add(not_finite, f"{where} is {_short(values)}")
        return None


def _floats(values: Sequence[float]) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except OverflowError:  # An integer of hundreds of digits.
        return np.full(len(values), np.inf)


def _finite(value: float) -> bool:
    """False for NaN, and for integers that no float holds."""
    return abs(value) <= sys.float_info.max


def _one_line(text: Any) -> str:
    """Without line breaks, and without what no terminal can print."""
    return one_line(text).encode(errors="backslashreplace").decode()


def _short(value: Any) -> str:
    text = _one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


# ------------------------------------------------------------------- what to look at


def sources(
    root: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    keypoint_set: str | None = None,
    annotations: str | Path | None = None,
    detections: str | Path | None = None,
) -> list[data_lib.SourceConfig]:
    """What is in a folder, or what is said to be.

    Args:
      root: the user's folder.
      format: a key of DATASETS; None: by the files that are there.
      split: None: all that are there.
      keypoint_set: a key of `keypoints.SETS` that a COCO json follows.
      annotations: the annotation file, if it has another name.
      detections: a COCO results json to check with it.

    Raises:
      InputError: the folder is absent, or nothing in it is known.
      ConfigError: the options do not go together.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the one that holds the data.")
    formats = [format] if format else _formats(root)
    if not formats and annotations is not None:
        formats = ["coco"]
    if not formats:
        raise InputError(_nothing_known(root))
    options: dict[str, Any] = {}
    if keypoint_set is not None:
        options["keypoints"] = _keypoint_set(keypoint_set)
    if detections is not None:
        options["detections"] = Path(detections)
    if options and formats != ["coco"]:
        raise ConfigError(
            "--keypoints and --detections go with COCO json; "
            f"this is {' and '.join(formats)}."
        )
    if annotations is not None:
        options["annotations"] = Path(annotations)
        if split is None and formats == ["coco"]:
            split = _split_of(Path(annotations))
    found = [
        data_lib.SourceConfig(name, str(root), one, options)
        for name in formats
        for one in ([split] if split else _splits(name, root))
    ]
    if len(found) > 1 and not {"annotations", "detections"}.isdisjoint(options):
        splits = ", ".join(f"{source.name} {source.split}" for source in found)
        raise ConfigError(
            f"say with --split, or --format, whose file that is: {splits}."
        )
    return found


def _split_of(annotations: Path) -> str:
    match = re.fullmatch(r"person_keypoints_(.+)", annotations.stem)
    if match is None:
        raise ConfigError(
            f"--annotations {annotations}: say with --split which folder holds its "
            "images."
        )
    return match[1]


def _formats(root: Path) -> list[str]:
    """The formats that a folder looks like."""
    found = []
    if (root / "annotations").is_dir():
        found.append("coco")
    if (root / "joints.mat").is_file() or (root / "joints-OC.mat").is_file():
        # LSP-extended has five digits: im00001.jpg.
        extended = any(root.glob("images/im[0-9][0-9][0-9][0-9][0-9].*"))
        found.append("lsp_extended" if extended else "lsp")
    if (root / "examples.mat").is_file():
        found.append("flic")
    if (root / "annot").is_dir() or any(root.glob("mpii_human_pose*.mat")):
        found.append("mpii")
    return found


def _nothing_known(root: Path) -> str:
    inside = [p for p in sorted(root.iterdir()) if p.is_dir() and _formats(p)]
    if inside:
        names = ", ".join(f"{p} ({' and '.join(_formats(p))})" for p in inside)
        return f"{root} is no data set, but holds some: {names}. Give one of them."
    return (
        f"{root} looks like no data set that is known: no annotations/ (COCO), "
        "joints.mat (LSP), examples.mat (FLIC), annot/ or mpii_human_pose*.mat (MPII). "
        "Say with --format what it is."
    )


def _splits(name: str, root: Path) -> list[str]:
    """The splits of one format that are in a folder."""
    if name == "coco":
        return _coco_splits(root)
    if name == "flic":
        return ["train", "test"]
    if name == "mpii":
        folders = (root / "annot", root)
        if any((f / "mpii_annotations.json.gz").is_file() for f in folders):
            return ["train", "valid"]
        both = ("train", "valid")
        split = [s for s in both if any((f / f"{s}.json").is_file() for f in folders)]
        return split or ["all"]
    return ["all"]


def _coco_splits(root: Path) -> list[str]:
    folder = root / "annotations"
    found = [p.stem.split("_", 2)[2] for p in folder.glob("person_keypoints_*.json")]
    if not found:
        there = ", ".join(sorted(p.name for p in folder.glob("*.json"))[:5])
        raise InputError(
            f"{folder} holds no person_keypoints_*.json (it has: {there or 'no json'}). "
            "Name a file with --annotations and its folder of images with --split."
        )
    return sorted(found)


def _keypoint_set(given: Any) -> KeypointSet:
    if isinstance(given, KeypointSet):
        return given
    if given not in keypoints.SETS:
        raise ConfigError(
            f"no keypoint set {given!r}; there are {sorted(keypoints.SETS)}."
        )
    return keypoints.SETS[given]


# ------------------------------------------------------------------------------- checks


def config_sources(config: Mapping[str, Any]) -> list[data_lib.SourceConfig]:
    """What a config trains on and evaluates on; once, where that is the same.

    Raises:
      ConfigError: the config has no such section, or it is wrong.
    """
    found = []
    for use in ("train", "eval"):
        try:
            section = config["data"][use]
        except (KeyError, TypeError):
            raise ConfigError(f"config.data.{use} is missing.") from None
        source = config_lib.build(data_lib.SourceConfig, section, f"config.data.{use}")
        if source not in found:
            found.append(source)
    return found


def check(
    source: data_lib.SourceConfig,
    *,
    images: Depth = "headers",
    need_images: bool = True,
) -> Report:
    """Looks for everything that is wrong with one split.

    Args:
      source: as a config names it. COCO's `keypoints` may be a name, too.
      images: "headers" reads headers and ends of all images and decodes SAMPLE of
        them; "full" decodes all.
      need_images: whether it is an error that there is no folder of images (COCO).

    Returns:
      The report; what is wrong with the data is in it and not raised.

    Raises:
      ConfigError: no such data set, or an option is wrong.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # Of absurd numbers.
        if source.name == "coco":
            return _check_coco(source, images, need_images)
        return _check_table(source, images)


# ---------------------------------------------------------------------------- COCO json


class _Listed(NamedTuple):
    """One image of an annotation file, as far as it can be used."""

    id: int
    name: str
    size: tuple[int, int] | None


def _check_coco(
    source: data_lib.SourceConfig, depth: Depth, need_images: bool
) -> Report:
    options = dict(source.options)
    keypoint_set = _keypoint_set(options.get("keypoints", keypoints.COCO))
    root = Path(source.root)
    found = _Findings(root)
    path = options.get("annotations")
    if path is None:
        path = root / "annotations" / f"person_keypoints_{source.split}.json"
    file = _File(found, path)
    data = _read_json(Path(path), file, dict)
    folders = (root / source.split, root / "images" / source.split)
    folder = next((f for f in folders if f.is_dir()), None)
    if folder is None:
        found.add(
            "no-image-folder",
            str(root),
            f"neither {folders[0]} nor {folders[1]}",
            severity="error" if need_images else "warning",
        )

    notes, counts = [], {}
    if data is not None:
        listed, known_ids = _coco_images(file, data)
        category, categories, file_set = _coco_category(file, data, keypoint_set)
        people = _coco_people(
            file, data, listed, known_ids, category, categories, file_set
        )
        _check_people(people, file)
        sources = {"gt_boxes": len(people.names)}
        detections = options.get("detections")
        if detections is not None:
            sources["detections"] = _check_detections(
                _File(found, detections), Path(detections), listed, known_ids, category
            )
        if folder is not None:
            files = _files_of_images(
                listed, folder, found, options.get("missing", "error")
            )
            notes.append(_check_images(files, _File(found, folder), depth))
        counts = _counts([image.id for image in listed], people, sources)
    if folder is not None and not any(f.severity == "error" for f in found.findings()):
        # What is clean here must be readable, whatever was not thought of above.
        options["keypoints"] = keypoint_set
        _read(dataclasses.replace(source, options=options), file)
    title = f"COCO {source.split}: {path}, images in {folder or 'no folder'}"
    return Report(title, tuple(notes), found.findings(), counts)


def _read_json(path: Path, file: _File, kind: type) -> Any:
    """What the file holds; None, and a finding, if it cannot be used."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        file.add("json-missing", "not found")
    except OSError as error:
        file.add("json-unreadable", str(error.strerror))
    except RecursionError:
        file.add("json-broken", "nested too deeply")
    except ValueError as error:
        file.add("json-broken", str(error))
    else:
        if isinstance(data, kind):
            return data
        file.add("json-kind", f"it holds a JSON {type(data).__name__}")
    return None


def _coco_images(
    file: _File, data: Mapping[str, Any]
) -> tuple[list[_Listed], set[int]]:
    """Images that can be looked for, and all ids."""
    listed, ids, names, lowered = [], set(), {}, {}
    for row, where in file.rows(file.section(data, "images"), "image"):
        image_id = file.id(row, "id", where)
        name = file.field(row, "file_name", str, where)
        sides = [file.field(row, side, int, where) for side in ("width", "height")]
        if any(side is not None and not 1 <= side < 2**31 for side in sides):
            file.add("size-not-positive", f"{where}: {_short(sides)}")
            sides = [None, None]
        if image_id is None:
            continue
        if image_id in ids:
            file.add("duplicate-image-id", f"{where}: {name}")
            continue
        ids.add(image_id)
        if name is None:
            continue
        if name in names:
            file.add("duplicate-file-name", f"{where} and {names[name]}: {name}")
        elif name.lower() in lowered:
            other = lowered[name.lower()]
            file.add("image-names-collide", f"{where} and {other}: {name}")
        names[name] = lowered[name.lower()] = where
        size = None if None in sides else (sides[0], sides[1])
        listed.append(_Listed(image_id, name, size))
    return listed, ids


def _coco_category(
    file: _File, data: Mapping[str, Any], wanted: KeypointSet
) -> tuple[int | None, set[int], KeypointSet]:
    """The category of people, all ids, and the set that the file follows."""
    ids, candidates = set(), []
    for row, where in file.rows(file.section(data, "categories"), "category"):
        category = file.id(row, "id", where)
        names = row.get("keypoints")
        if names and not isinstance(names, list):
            file.add("field-type", f"{where}: keypoints is {_short(names)}")
            names = list(wanted.names)  # So that all else can be looked at.
        if category is not None:
            ids.add(category)
            if names:
                is_person = row.get("name") == "person"
                candidates.append((category, [str(n) for n in names], is_person, where))
    people = [c for c in candidates if c[2]] or candidates
    if len(people) > 1:
        file.add("several-categories", ", ".join(where for *_, where in people))
    elif not people and isinstance(data.get("categories"), list):
        file.add("category-without-keypoints", f"{len(ids)} categories")
    if not people:
        return None, ids, wanted
    category, names, _, where = people[0]
    _check_names(file, names, wanted, where)
    _check_set(file, wanted)
    return category, ids, wanted if names == list(wanted.names) else _set_of(names)


def _check_names(
    file: _File, names: list[str], wanted: KeypointSet, where: str
) -> None:
    """The names of the file against those of the set."""
    if names == list(wanted.names):
        return
    if len(names) != len(wanted):
        file.add(
            "keypoint-count",
            f"{where}: {len(names)}; set {wanted.name} has {len(wanted)}",
        )
        return
    wrong = [i for i, name in enumerate(names) if name != wanted.names[i]]
    first = f"{where}: keypoint {wrong[0]} is {names[wrong[0]]!r}, "
    first += f"set {wanted.name} has {wanted.names[wrong[0]]!r}"
    if set(names) != set(wanted.names):
        kind = "keypoint-names"
    elif all(names[i] == wanted.names[wanted.permutation[i]] for i in wrong):
        kind = "keypoint-sides"
    else:
        kind = "keypoint-order"
    file.add(kind, first, count=len(wrong))


def _check_set(file: _File, keypoint_set: KeypointSet) -> None:
    """Do the flip pairs join left_x and right_x, all of them?"""
    names = keypoint_set.names
    by_name = {frozenset(pair) for pair in _pairs_by_name(names)}
    for pair in keypoint_set.flip_pairs:
        sided = any(_other_side(names[i]) for i in pair)
        if sided and frozenset(pair) not in by_name:
            file.add("flip-pairs", f"{names[pair[0]]} with {names[pair[1]]}")
    stated = {frozenset(pair) for pair in keypoint_set.flip_pairs}
    paired = {i for pair in keypoint_set.flip_pairs for i in pair}
    for i, j in _pairs_by_name(names):
        if frozenset((i, j)) not in stated and not {i, j} & paired:
            file.add("flip-pairs", f"{names[i]} and {names[j]} are no pair")


def _other_side(name: str) -> str | None:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left") if "right" in name else None


def _pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) keypoints whose names say that they are a pair."""
    at = {name: i for i, name in enumerate(names)}
    pairs = ((at[n], at.get(_other_side(n) or "")) for n in names if "left" in n)
    return tuple((i, j) for i, j in pairs if j is not None)


def _set_of(names: Sequence[str]) -> KeypointSet:
    """A set for a file that follows none of ours; names that repeat are numbered."""
    if len(set(names)) < len(names):
        names = [f"{i} {name}" for i, name in enumerate(names)]
    return KeypointSet("of the file", tuple(names), _pairs_by_name(names), ())


def _coco_people(
    file: _File,
    data: Mapping[str, Any],
    listed: Sequence[_Listed],
    known_ids: set[int],
    category: int | None,
    categories: set[int],
    keypoint_set: KeypointSet,
) -> _People:
    """The annotations of people as columns; what cannot be used is NaN there."""
    sizes = {image.id: image.size for image in listed if image.size}
    names, image_ids, triples, boxes, areas, crowd = [], [], [], [], [], []
    rows, seen, others = file.section(data, "annotations"), set(), 0
    k = len(keypoint_set)
    for row, where in file.rows(rows, "annotation"):
        own_id = file.id(row, "id", where)
        if own_id is not None and own_id in seen:
            file.add("duplicate-annotation-id", where)
        seen.add(own_id)
        row_category = file.id(row, "category_id", where)
        if row_category is None or category is None:
            continue
        if row_category != category:
            others += 1
            if row_category not in categories:
                file.add("unknown-category", f"{where}: category_id {row_category}")
            continue
        image_id = file.id(row, "image_id", where)
        # Where no image can be used, that has been said already.
        lost = image_id is not None and image_id not in known_ids
        if lost and (known_ids or data.get("images") == []):
            file.add("unknown-image", f"{where}: image_id {image_id}")
        names.append(where)
        image_ids.append(image_id)
        boxes.append(_coco_box(file, row, where))
        areas.append(_coco_area(file, row, where))
        crowd.append(_coco_crowd(file, row, where))
        triples.append(_coco_keypoints(file, row, where, k))
    if rows and category is not None and not names:
        file.add("nobody", f"{others} annotations of other categories")
    n = len(names)
    points = np.reshape(np.array(triples, np.float64), (n, k, 3))
    xywh = np.reshape(np.array(boxes, np.float64), (n, 4))
    people = _People(
        names=names,
        keypoints=keypoint_set,
        images=np.array([-1 if i is None else i for i in image_ids], np.int64),
        sizes=np.array(
            [sizes.get(i, (np.nan, np.nan)) for i in image_ids], np.float64
        ).reshape(n, 2),
        points_xy=points[..., :2],
        visibility=points[..., 2].astype(np.int64),
        boxes_xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], -1),
        areas=np.array(areas, np.float64),
        crowd=np.array(crowd, bool),
        annotated_boxes=True,
    )
    stray = (people.visibility == 0) & (people.points_xy != 0).any(-1)
    people.add(file, "unlabelled-coordinates", stray.any(1))
    return people


def _coco_box(file: _File, row: Mapping[str, Any], where: str) -> np.ndarray:
    box = file.field(row, "bbox", list, where)
    if box is not None:
        box = file.numbers(box, f"{where}: bbox", "bbox-not-finite", 4)
    return np.full(4, np.nan) if box is None else box


def _coco_area(file: _File, row: Mapping[str, Any], where: str) -> float:
    area = file.field(row, "area", (int, float), where)
    if area is None:
        return np.nan
    if not _finite(area):
        file.add("area-not-finite", f"{where}: area is {_short(area)}")
        return np.nan
    return float(area)


def _coco_crowd(file: _File, row: Mapping[str, Any], where: str) -> bool:
    crowd = row.get("iscrowd", 0)
    if isinstance(crowd, int | float) and crowd in (0, 1):
        return bool(crowd)
    file.add("iscrowd-value", f"{where}: iscrowd is {_short(crowd)}")
    return False


def _coco_keypoints(
    file: _File, row: Mapping[str, Any], where: str, k: int
) -> np.ndarray:
    """[3 k]; zeros where there are none that could be used."""
    triples, none = row.get("keypoints"), np.zeros(3 * k)
    if triples is None:
        return none
    if isinstance(triples, list) and len(triples) != 3 * k:
        file.add("keypoints-length", f"{where}: {len(triples)} numbers, not {3 * k}")
        return none
    values = file.numbers(triples, f"{where}: keypoints", "keypoints-not-finite")
    if values is None:
        return none
    if wrong := set(triples[2::3]) - {0, 1, 2}:
        file.add("visibility-value", f"{where}: v is {min(wrong):g}")
        return none
    said, count = row.get("num_keypoints"), int(np.count_nonzero(values[2::3]))
    if said is not None and said != count:
        shown = f"num_keypoints is {_short(said)}, not {count}"
        file.add("num-keypoints", f"{where}: {shown}")
    return values


def _check_detections(
    file: _File,
    path: Path,
    listed: Sequence[_Listed],
    known_ids: set[int],
    category: int | None,
) -> int:
    """Looks at a results file; returns how many boxes are of use."""
    rows = _read_json(path, file, list)
    if rows is None:
        return 0
    if not rows:
        file.add("detections-nobody", "the list is empty")
        return 0
    sizes = {image.id: image.size for image in listed}
    boxes, their_sizes, names, usable = [], [], [], 0
    unknown, others = [], []
    for i, row in enumerate(rows):
        where = f"detection {i}"
        if not isinstance(row, Mapping):
            file.add("field-type", f"{where} is {_short(row)}")
            continue
        image_id = file.id(row, "image_id", where)
        own_category = file.id(row, "category_id", where)
        box = _coco_box(file, row, where)
        _check_score(file, row, where)
        where += f" (image id {image_id})"
        if None not in (own_category, category) and own_category != category:
            others.append(f"{where}: category_id {own_category}")
        elif known_ids and image_id is not None and image_id not in known_ids:
            unknown.append(where)
        elif np.isfinite(box).all():
            if box[2:].min() <= 0:
                file.add("bbox-empty-unlabelled", f"{where}: bbox {box.tolist()}")
                continue
            usable += 1
            names.append(where)
            boxes.append(box)
            their_sizes.append(sizes.get(image_id) or (np.nan, np.nan))
    _tell_left_out(file, others, len(rows), "detections-nobody", "detection-category")
    rest = len(rows) - len(others)
    _tell_left_out(
        file, unknown, rest, "detections-all-unknown", "detection-unknown-image"
    )
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    if _looks_xyxy(xywh, np.array(their_sizes, np.float64).reshape(-1, 2)):
        file.add("bbox-xyxy", names[0], count=len(names))
    return usable


def _tell_left_out(
    file: _File, examples: Sequence[str], total: int, of_all: str, of_some: str
) -> None:
    kind = of_all if len(examples) == total else of_some
    for example in examples:
        file.add(kind, example)


def _check_score(file: _File, row: Mapping[str, Any], where: str) -> None:
    score = file.field(row, "score", (int, float), where)
    if score is None:
        return
    if not _finite(score):
        file.add("score-not-finite", f"{where}: score is {_short(score)}")
    elif not 0 <= score <= 1:
        file.add("score-range", f"{where}: score is {_short(score)}")


# ---------------------------------------------------------------------- through readers


def _read(source: data_lib.SourceConfig, file: _File) -> Table | None:
    """The reader's Table; None, and a finding, if it refuses."""
    reader = data_lib.DATASETS.get(source.name)
    if reader is None:
        return data_lib.load(source)  # It says which there are.
    try:
        inspect.signature(reader).bind(source.root, source.split, **source.options)
    except TypeError as error:
        raise ConfigError(f"data set {source.name!r}: {error}.") from None
    try:
        return reader(source.root, source.split, **source.options)
    except ConfigError:
        raise
    except InputError as error:
        file.add("reader-refuses", str(error))
    except Exception as error:  # To be told in one line with all the rest.
        file.add("reader-fails", f"{type(error).__name__}: {error}")
    return None


def _check_table(source: data_lib.SourceConfig, depth: Depth) -> Report:
    """A format that has no checks of its own: its reader, then its columns."""
    root = Path(source.root)
    found = _Findings(root)
    file = _File(found, root)
    title, notes = f"{source.name} {source.split}: {root}", []
    table = _read(source, file)
    if table is None and "missing" not in source.options:
        # Perhaps only images are absent: then the rest can be looked at.
        options = {**source.options, "missing": "skip"}
        with contextlib.suppress(ConfigError):  # A reader without this option.
            again = dataclasses.replace(source, options=options)
            table = _read(again, _File(_Findings(root), root))
            notes = ["looked at without what is missing"]
    if table is None:
        # One of the images may be what stopped the reader.
        paths = sorted(p for p in root.glob("images/*") if p.is_file())
        note = _check_images([(p, "not read", None) for p in paths], file, depth)
        return Report(title, (note,), found.findings(), {"files in images": len(paths)})
    people = _people_of(table if table.truth is None else table.truth)
    _check_set(file, table.keypoints)
    if table.labelled or table.truth is not None:
        _check_people(people, file)
    files = [
        (image, f"image id {image_id}", (int(size[0]), int(size[1])))
        for image, image_id, size in zip(
            table.images, table.image_ids, table.image_sizes, strict=True
        )
        if not isinstance(image, np.ndarray)
    ]
    notes.append(_check_images(files, file, depth))
    counts = _counts(table.image_ids, people, {table.box_source: len(table)})
    return Report(title, tuple(notes), found.findings(), counts)


def _people_of(table: Table) -> _People:
    def name(row: int) -> str:
        image = table.images[table.image[row]]
        shown = image.name if isinstance(image, Path) else "pixels"
        return f"person id {table.ids[row]} ({shown})"

    return _People(
        names=[name(row) for row in range(len(table))],
        keypoints=table.keypoints,
        images=table.image_ids[table.image],
        sizes=table.image_sizes[table.image].astype(np.float64),
        points_xy=table.points_xy,
        visibility=table.visibility,
        boxes_xyxy=table.boxes_xyxy,
        areas=table.areas,
        crowd=table.crowd,
        # MPII's are squares about a centre, and leave the image on purpose.
        annotated_boxes=table.box_source == "gt_boxes" and table.keypoints != MPII,
    )


# --------------------------------------------------------------------- checks on columns


@dataclasses.dataclass(frozen=True, eq=False)
class _People:
    """n people with k keypoints, from a json or a Table; NaN where nothing was usable.

    Attributes:
      names: [n] how to point at each.
      keypoints: the set that they follow.
      images: [n] image id of each.
      sizes: [n, 2] (width, height) of its image.
      points_xy, visibility, boxes_xyxy, areas, crowd: as in a Table.
      annotated_boxes: whether the boxes are labels; else they were made of the joints or
        the image, and say nothing new.
    """

    names: list[str]
    keypoints: KeypointSet
    images: np.ndarray
    sizes: np.ndarray
    points_xy: np.ndarray
    visibility: np.ndarray
    boxes_xyxy: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    annotated_boxes: bool

    @property
    def labelled(self) -> np.ndarray:
        """[n, k] bool."""
        return (self.visibility > 0) & np.isfinite(self.points_xy).all(-1)

    def add(self, file: _File, kind: str, which: np.ndarray, **options: Any) -> None:
        """A finding of the people [n], or their keypoints [n, k], where `which` is."""
        cases = np.argwhere(which)
        for case in cases[:EXAMPLES]:
            where = self.names[case[0]]
            if len(case) > 1:
                x, y = self.points_xy[tuple(case)]
                where += f": {self.keypoints.names[case[1]]} ({x:g}, {y:g})"
            file.add(kind, where, **options)
        if len(cases) > EXAMPLES:
            file.add(kind, "", count=len(cases) - EXAMPLES, **options)


def _check_people(people: _People, file: _File) -> None:
    if not people.names:
        return
    labelled = people.labelled
    people.add(file, "visibility-value", ~np.isin(people.visibility, (0, 1, 2)).all(1))
    people.add(
        file, "keypoints-not-finite", ((people.visibility > 0) & ~labelled).any(1)
    )
    if not labelled.any():
        file.add("nobody-labelled", f"{len(people.names)} people")
    elif (people.visibility != 2).all():
        file.add("visibility-binary", f"{labelled.sum()} keypoints with v = 1")
    if people.annotated_boxes:
        _check_boxes(people, file)
    else:
        empty = ~(_extent(people.boxes_xyxy) > 0).all(1) | ~(people.areas > 0)
        people.add(file, "person-unusable", labelled.any(1) & empty)
    _check_points(people, file)
    _check_torsos(people, file)
    _check_sides(people, file)


def _extent(boxes_xyxy: np.ndarray) -> np.ndarray:
    return boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]


def _check_boxes(people: _People, file: _File) -> None:
    boxes, sizes = people.boxes_xyxy, people.sizes
    labelled = people.labelled.any(1) & ~people.crowd
    extent = _extent(boxes)  # NaN compares False: what is unknown is not blamed.
    empty = (extent <= 0).any(1)
    people.add(file, "bbox-empty", empty & labelled)
    people.add(file, "bbox-empty-unlabelled", empty & ~labelled)
    area = people.areas
    people.add(file, "area-not-positive", (area <= 0) & labelled)

    known = np.isfinite(boxes).all(1) & np.isfinite(sizes).all(1)
    if _normalised(boxes[known & ~empty], sizes[known & ~empty]):
        people.add(file, "bbox-normalised", known & ~empty)
        return
    xywh = np.concatenate([boxes[:, :2], extent], -1)
    sure = known & labelled & ~empty
    if _looks_xyxy(
        xywh[sure], sizes[sure], people.points_xy[sure], people.labelled[sure]
    ):
        people.add(file, "bbox-xyxy", sure)
        return
    too_large = area > 1.5 * np.prod(extent, -1)
    people.add(file, "area-exceeds-box", too_large & labelled & ~empty)
    low, high = boxes[:, :2], boxes[:, 2:]
    outside = ((high <= 0) | (low >= sizes)).any(1) & ~empty
    people.add(file, "bbox-outside", outside)
    # Annotation tools round; a pixel or two are nobody's slip.
    beyond = ((low < -2) | (high > sizes + 2)).any(1)
    people.add(file, "bbox-beyond", beyond & ~outside & ~empty)


def _normalised(values: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether coordinates [n, ...] of images [n, 2] are fractions of these."""
    if values.size < 4 or sizes.min() <= 4:
        return False
    return bool(values.min() >= -0.5 and values.max() <= 1.5)


def _looks_xyxy(
    xywh: np.ndarray,
    sizes: np.ndarray,
    points_xy: np.ndarray | None = None,
    labelled: np.ndarray | None = None,
) -> bool:
    """Whether boxes [n, 4], taken as (x, y, w, h), are rather (x1, y1, x2, y2).

    As corners they must be boxes, hold their keypoints (where there are any), and many
    must leave the image if taken as they should be. Boxes at the origin say nothing: both
    readings agree there.
    """
    telling = (xywh[:, :2] > 2).any(1) & np.isfinite(sizes).all(1)
    if telling.sum() < 3:
        return False
    corners = xywh[telling]
    fits = (corners[:, 2:] > corners[:, :2]).all(1)
    if points_xy is not None and labelled is not None:
        inside = _inside(points_xy[telling], corners) | ~labelled[telling]
        fits &= inside.mean(1) > 0.9
    leaves = (corners[:, :2] + corners[:, 2:] > sizes[telling] + 2).any(1)
    return bool(fits.mean() > 0.9 and leaves.mean() > 0.3)


def _inside(points_xy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """[n, k] bool: points [n, k, 2] in boxes [n, 4], a tenth of it and 2 pixels beyond."""
    slack = 2 + 0.1 * np.maximum(_extent(boxes_xyxy), 0)
    low, high = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    slack = slack[:, None]
    return ((points_xy >= low - slack) & (points_xy <= high + slack)).all(-1)


def _check_points(people: _People, file: _File) -> None:
    labelled, points = people.labelled, people.points_xy
    sizes = np.broadcast_to(people.sizes[:, None], points.shape)
    known = labelled & np.isfinite(sizes).all(-1)
    if not known.any():
        return
    if _normalised(points[known], sizes[known]):
        people.add(file, "points-normalised", known.any(1))
        return
    outside = known & _outside(points, sizes)
    swapped = points[..., ::-1]
    exchanged = known & _outside(swapped, sizes)
    share = outside.sum() / known.sum()
    if share > 0.05 and exchanged.sum() < 0.1 * outside.sum():
        people.add(file, "points-swapped", known.any(1))
        return
    if share > 0.5:
        people.add(file, "points-mostly-outside", outside)
        return
    people.add(file, "points-outside", outside)
    trusted = people.annotated_boxes and not file.found.has(
        "bbox-xyxy", "bbox-normalised"
    )
    if trusted:
        real = (_extent(people.boxes_xyxy) > 0).all(1) & ~people.crowd
        # A box is round what is seen: hidden joints may well be outside of it.
        seen = people.visibility == 2
        in_box = labelled & (seen if seen.any() else labelled) & real[:, None]
        total = in_box.sum(1)
        hits = (_inside(points, people.boxes_xyxy) & in_box).sum(1)
        turned = (_inside(swapped, people.boxes_xyxy) & in_box).sum(1)
        if turned.sum() > 0.9 * total.sum() and hits.sum() < 0.5 * total.sum():
            people.add(file, "points-swapped", known.any(1))
            return
        people.add(file, "points-outside-box", hits < 0.5 * total)


def _outside(points_xy: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Pixel centres are integers; a pixel beyond the border is rounding."""
    return ((points_xy < -1) | (points_xy > sizes)).any(-1)


def _check_torsos(people: _People, file: _File) -> None:
    if people.keypoints.torso is None:
        return
    labelled, points = people.labelled, people.points_xy
    a, b = people.keypoints.torso
    length = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    low = np.where(labelled[..., None], points, np.inf).min(1)
    high = np.where(labelled[..., None], points, -np.inf).max(1)
    extent = np.linalg.norm(high - low, axis=-1)
    known = labelled[:, a] & labelled[:, b] & ~people.crowd
    people.add(file, "torso-degenerate", known & (length < 0.02 * extent))


def _check_sides(people: _People, file: _File) -> None:
    """Left and right of each pair against the majority of the other pairs.

    Who is seen from behind turns all of his pairs; who crosses his arms turns one. A pair
    that stands against the others in most people is exchanged in the file.
    """
    keypoint_set, labelled = people.keypoints, people.labelled
    pairs = [_sorted_pair(keypoint_set.names, pair) for pair in keypoint_set.flip_pairs]
    if not pairs:
        return
    left, right = np.array(pairs).T
    both = labelled[:, left] & labelled[:, right] & ~people.crowd[:, None]
    side = np.sign(people.points_xy[:, left, 0] - people.points_xy[:, right, 0])
    side = np.where(both, side, 0)  # [n, pairs]: 1 where left is at larger x.
    for i, (a, b) in enumerate(pairs):
        others = np.sign(side.sum(1) - side[:, i])
        telling = (side[:, i] != 0) & (others != 0)
        n, agree = telling.sum(), (telling & (side[:, i] == others)).sum()
        names = f"{keypoint_set.names[a]} and {keypoint_set.names[b]}"
        if n >= _MIN_PEOPLE and agree / n < 0.5 - 1.5 / np.sqrt(n):
            first = people.names[int(np.argmax(telling & (side[:, i] != others)))]
            file.add("pair-swapped", f"{names}: in {n - agree} of {n}, as {first}")
        if keypoint_set.names[a] == "left_eye":
            wrong = (side[:, i] < 0).sum()
            n = (side[:, i] != 0).sum()
            if n >= _MIN_PEOPLE and wrong > 0.7 * n:
                first = people.names[int(np.argmax(side[:, i] < 0))]
                count = int(wrong)
                file.add("sides-mirrored", f"{wrong} of {n}, as {first}", count=count)


def _sorted_pair(names: Sequence[str], pair: tuple[int, int]) -> tuple[int, int]:
    """(left, right), where the names say so."""
    a, b = pair
    return (b, a) if "right" in names[a] or "left" in names[b] else (a, b)


def _counts(
    image_ids: Sequence[int] | np.ndarray, people: _People, sources: Mapping[str, int]
) -> dict[str, int]:
    labelled = people.labelled.any(1)
    v = people.visibility[labelled]
    return {
        "images": len(image_ids),
        "of them with people": int(np.isin(image_ids, people.images).sum()),
        "people": len(people.names),
        "crowd regions among them": int(people.crowd.sum()),
        "with labelled keypoints": int(labelled.sum()),
        "keypoints visible": int((v == 2).sum()),
        "hidden": int((v == 1).sum()),
        "not labelled": int((v == 0).sum()),
        **{f"boxes from {name}": count for name, count in sources.items()},
    }


# ------------------------------------------------------------------------------- images

_ImageFile = tuple[ImageRef, str, tuple[int, int] | None]
"""A file or record, what it is called in the annotations, and its size there."""


def _files_of_images(
    listed: Sequence[_Listed], folder: Path, found: _Findings, missing: str
) -> list[_ImageFile]:
    """The files of the listed images; what is not there is told."""
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        found.add("no-image-folder", str(folder), str(error.strerror))
        return []
    by_lower = {name.lower(): name for name in present}
    files = []
    for image in listed:
        where = f"image id {image.id}"
        if image.name in present or _is_file(folder / image.name):
            files.append((folder / image.name, where, image.size))
            continue
        base = re.split(r"[\\/]", image.name)[-1]
        if image.name.lower() in by_lower:
            there = by_lower[image.name.lower()]
            kind, more = "image-name-case", f"; {there} is there"
        elif base != image.name and base in present:
            kind, more = "image-name-folder", f"; {base} is there"
        else:
            kind, more = "image-missing", ""
        found.add(
            kind,
            str(folder),
            f"{_short(image.name)} ({where}){more}",
            severity="warning" if missing == "skip" else None,
        )
    return files


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name that is too long, or none.
        return False


def _check_images(files: Sequence[_ImageFile], file: _File, depth: Depth) -> str:
    """Looks at all images; returns how it was done."""
    sample = np.linspace(0, len(files) - 1, min(len(files), SAMPLE)).astype(int)
    full = np.full(len(files), depth == "full")
    full[sample] = True
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of large images and of broken EXIF.
        seen = pool.map(_look_at, files, full, chunksize=16)
        for (image, where, _), kinds in zip(files, seen, strict=True):
            is_file = isinstance(image, Path)
            shown = os.path.relpath(image, file.name) if is_file else str(image)
            for kind, detail in kinds:
                file.add(kind, f"{shown} ({where}){detail and ': '}{detail}")
    if depth == "full":
        return f"{len(files)} images decoded"
    return (
        f"{len(files)} images: headers and ends read, {len(sample)} of them decoded "
        "(--images full decodes all)"
    )


def _look_at(file: _ImageFile, full: bool) -> list[tuple[str, str]]:
    """Kinds of findings of one image, each with a detail."""
    source, _, listed = file
    wrong = "image-unreadable"
    try:
        with (
            open(source, "rb") if isinstance(source, Path) else encoded(source) as data
        ):
            end = _end(data)
            if not end:
                return [("image-empty", "")]
            image = Image.open(data)
            seen = _of_header(image, listed)
            # A file that does not end as its format does: decoding it must tell.
            if full or _ENDS.get(image.format or "", b"?") not in end:
                wrong = "image-truncated"
                image.load()
            return seen
    except FileNotFoundError:
        return [("image-missing", "")]
    except UnidentifiedImageError:
        return [("image-unreadable", "")]
    except Exception as error:  # Pillow has no common class for these.
        return [(wrong, str(error))]


def _of_header(
    image: Image.Image, listed: tuple[int, int] | None
) -> list[tuple[str, str]]:
    found = []
    turned = _orientation(image)
    if listed is not None and image.size != listed:
        detail = "{}x{}, listed as {}x{}".format(*image.size, *listed)
        if image.size == listed[::-1]:
            detail += ": turned by its EXIF orientation?" if turned > 4 else ": turned?"
        found.append(("image-size", detail))
    if kind := _kind_of_mode(image):
        found.append((kind, image.mode))
    if turned != 1:
        found.append(("image-turned", f"orientation {turned}"))
    if getattr(image, "is_animated", False):
        found.append(("image-animated", str(image.format)))
    return found


def _kind_of_mode(image: Image.Image) -> str | None:
    mode = image.mode
    if mode == "RGB":
        return "image-alpha" if "transparency" in image.info else None
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return "image-alpha"
    if mode.startswith("I;16"):
        return "image-16-bit"
    known = {"L": "grey", "1": "grey", "P": "palette", "CMYK": "cmyk"}
    return f"image-{known.get(mode, 'mode')}"


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 if there is none. A PNG without EXIF would be decoded for it."""
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # Broken EXIF: no reader looks at it.
        return 1


_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


def _end(data: IO[bytes]) -> bytes:
    """The last bytes of a file, which is then at its beginning again."""
    data.seek(0, os.SEEK_END)
    data.seek(max(0, data.tell() - 64))
    end = data.read()
    data.seek(0)
    return end
