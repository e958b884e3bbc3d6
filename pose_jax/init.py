"""`pose-jax init`: a config for data of your own, with the reasons for its settings.

The data decide: number of people, sizes and shapes of boxes, how often they overlap, the
directions they are seen in. The machine decides the number of steps. The config is a plain
Python file that trains as it is; nothing refers back to this module.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import writing
from pose_jax._version import __version__
from pose_jax.config import Entry
from pose_jax.data import coco
from pose_jax.data import split as split_lib
from pose_jax.data.survey import SHARED, Survey, survey
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.evaluation import poses
from pose_jax.evaluation import text as metric_text
from pose_jax.training import config as training_config
from pose_jax.training import measure
from pose_jax.training.measure import StepCost
from pose_jax.weights import fetch

Start = Literal["auto", "scratch", "movenet_lightning", "movenet_thunder"]
"""What the weights of the pose network begin with."""
PADDING, REACH = 1.25, 1.5
"""Of person boxes, in the pose configs."""
_EPOCHS, _FEWEST_STEPS, _EVALUATIONS, _PATIENCE = 100, 300, 10, 5
_METRICS = ("PCK@0.2", "PCKh@0.5", "PCK@0.1@box", "box_error")
"""Metrics that may select the best weights, the preferred first."""
_LONG_SIDE = {"movenet_lightning": 192, "movenet_thunder": 256, "scratch": 128}
_FROZEN = ("stem", "block_0", "block_1", "block_2")

Cost = Callable[[training_config.Setup], StepCost]


@dataclasses.dataclass(frozen=True)
class Sources:
    """The data of a config.

    Attributes:
      train, eval: the sections of `config.data`.
      why: where the evaluation data come from.
    """

    train: dict[str, Any]
    eval: dict[str, Any]
    why: str


def init(
    data: Path | str,
    out: Path | str,
    *,
    start: Start = "auto",
    minutes: float = 20.0,
    split: str | None = None,
    annotations: Path | str | None = None,
    category: str | None = None,
    keypoints: str | None = None,
    seed: int = 0,
    cost: Cost | None = None,
) -> str:
    """Writes a config for the data in a folder, and where it is needed, one of a detector.

    Data without a validation split are divided by video, or by image where the names of
    files show no videos: the two annotation files go to the folder OUT_split, and the
    weights that training begins with to OUT_network, both without the suffix of OUT.

    Args:
      data: the folder of a data set in COCO's format.
      out: the config to write, a file that does not exist.
      start: published weights, which are looked for in $POSE_JAX_WEIGHTS, then downloaded;
        "auto": MoveNet Lightning, or on an accelerator Thunder, and "scratch" where they
        cannot be had.
      minutes: time that training may take on this machine.
      split: the training split; None: the one whose name begins with "train", or the only
        one.
      annotations: its annotation file, if it has another name.
      category: name or id of the category to train on, if there are several.
      keypoints: what the keypoint set has that the file does not say, as option
        `data.train.options.keypoints`.
      seed: of the division of data without a validation split.
      cost: measures a step; None: `measure.step_cost`.

    Returns:
      What was found, what was written, and the commands that come next, as text.

    Raises:
      ConfigError: an invalid option, or a file exists.
      InputError: the data are not usable, or nothing can be written there.
    """
    out = Path(out)
    if out.suffix != ".py":
        raise ConfigError(f"--out {out}: a config is a Python file: give NAME.py.")
    if start not in get_args(Start):
        raise ConfigError(f"start must be one of {', '.join(get_args(Start))}.")
    if not 0 < minutes < math.inf:
        raise ConfigError(f"minutes must be positive; got {minutes:g}.")
    detector_out = out.with_name(f"{out.stem}_detector.py")
    for path in (out, detector_out):
        if path.exists():
            raise ConfigError(f"{path} exists: give another --out, or delete it.")
    writing.check(out.parent)
    own = {"category": category, "keypoints": keypoints}
    own = {name: value for name, value in own.items() if value is not None}
    sources = _sources(Path(data), out, split, annotations, own, seed)
    train, validation = (
        data_lib.load(config_lib.build(data_lib.SourceConfig, section, "data"))
        for section in (sources.train, sources.eval)
    )
    for table in (train, validation):
        if not len(table.labelled_rows()):
            raise InputError(f"{table.name}: nothing is labeled: give another --split.")
    found = survey(train)
    network, start_run, why_start = _start(start, out)
    pose = _Pose(found, sources, network, start_run, why_start, _metric(validation))
    commands = _commands(out, detector_out if needs_detector(found) else None)
    options = {**own, "split": split, "annotations": annotations, "start": start}
    command = _command(data, out, {**options, "minutes": minutes, "seed": seed})
    intro = [
        f"Poses in {data}, written by `{command}` (pose_jax {__version__}).",
        *_described(found),
    ]
    people = len(validation.labelled_rows())
    cost = cost or measure.step_cost
    writer = _Writer(minutes, people, cost)
    written = [writer.write(out, pose.sections, intro, commands)]
    if needs_detector(found):
        intro = [f"Boxes for {out.name}: what is in {data}, and where.", intro[1]]
        sections = _Detector(found, sources, train).sections
        writer = _Writer(minutes, len(validation.images), cost)
        written.append(writer.write(detector_out, sections, intro, commands))
    return "\n".join([*intro[1:], sources.why, why_start, *written, "next:", *commands])


def needs_detector(found: Survey) -> bool:
    """Returns whether images have to be searched: for several, or for something small."""
    return found.several > 0.05 or found.extent < 1 / 3


# ------------------------------------------------------------------------------ the data


def _sources(
    root: Path,
    out: Path,
    split: str | None,
    annotations: Path | str | None,
    own: Mapping[str, Any],
    seed: int,
) -> Sources:
    """Returns the data to train and evaluate on; divides them if there is one split.

    `own` are the options of the reader.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; pass the one that holds the data.")
    names = [] if annotations else coco.splits(root)
    chosen = split or next((n for n in names if n.startswith("train")), None)
    if annotations is not None or chosen is None:
        chosen, file = split_lib.source(root, split, annotations)
    else:
        file = coco.annotation_file(root, chosen)
    of_file = {**own, **({"annotations": str(annotations)} if annotations else {})}
    section = {"name": "coco", "root": str(root), "split": chosen}
    train = {**section, "options": of_file} if of_file else section
    held_out = [n for n in names if n.startswith("val") and n != chosen]
    if held_out:
        section = {**section, "split": held_out[0]}
        held = {**section, "options": dict(own)} if own else section
        return Sources(train, held, f"Evaluated on split {held_out[0]}.")
    folder = out.with_name(f"{out.stem}_split")
    by, why = _divided_by(file, chosen)
    split_lib.split(root, folder, by=by, seed=seed, name=chosen, annotations=file)
    sections = []
    for part in ("train", "val"):
        made = split_lib.config_section(root, chosen, folder / f"{part}.json")
        made["options"] |= own
        sections.append(made)
    return Sources(sections[0], sections[1], why)


def _divided_by(file: Path, name: str) -> tuple[split_lib.By, str]:
    """Returns what stays together where there is no validation split, and why."""
    images = split_lib.read_images(file)
    videos = split_lib.groups(images, "video")
    begin = f"There is no validation split: a fifth of {name}"
    if len(videos) == len(images):
        return "image", f"{begin} is set aside by image; each seems to stand alone."
    if len(videos) >= _FEWEST_VIDEOS:
        return "video", f"{begin} is set aside, in whole videos (of {len(videos)})."
    return "image", (
        f"{begin} is set aside by image, since names of files show only {len(videos)} "
        "videos. If they are frames of a few videos, the score is too good: label another "
        "video for validation."
    )


_FEWEST_VIDEOS = 4


def _described(found: Survey) -> list[str]:
    """Returns sentences about the data."""
    (w, h), (image_w, image_h) = found.box, found.image
    per_image = (
        "one in each image"
        if found.most == 1
        else f"up to {found.most} in an image, {100 * found.overlapping:.0f}% of them "
        f"share more than {100 * SHARED:.0f}% of their box with another"
    )
    return [
        f"{found.people} labeled individuals in {found.images} images, {per_image}; "
        f"{found.keypoints} keypoints, of which {100 * found.labeled:.0f}% are labeled. "
        f"Boxes of {w}x{h} pixels (the median), {100 * found.extent:.0f}% of the longer "
        f"side of an image; images of up to {image_w}x{image_h}."
    ]


def _metric(table: Table) -> str:
    """Returns the full name of the metric that selects the best weights."""
    names = poses.names(table)
    return next(n for m in _METRICS for n in names if n.startswith(f"{m}@"))


# --------------------------------------------------------------------------- the weights


def _start(start: Start, out: Path) -> tuple[str, str, str]:
    """Returns the network, the run of its initial weights ("" for none), and why.

    Raises:
      InputError: the weights that were asked for cannot be had.
    """
    if start == "scratch":
        return "pocket", "", "Random weights, as --start scratch asks for."
    name = start
    if start == "auto":
        on_cpu = jax.default_backend() == "cpu"
        name = "movenet_lightning" if on_cpu else "movenet_thunder"
    run = out.with_name(f"{out.stem}_{name}")
    why = (
        f"Features of {name}, which has seen thousands of people: it needs a quarter of "
        "the training, and learns from few images what random weights cannot."
    )
    if (run / "model").is_dir():
        return name, str(run), why
    try:
        fetch.fetch(name, run)
    except InputError as error:
        if start != "auto":
            raise
        return (
            "pocket",
            "",
            (
                f"Random weights, as {name} is not in $POSE_JAX_WEIGHTS and could not be "
                f"downloaded ({one_line(error, 120)}). Run init again where it can."
            ),
        )
    return name, str(run), why


# ------------------------------------------------------------------------------ settings


def _multiple(value: float, of: int = 32, least: int = 1) -> int:
    return of * max(least, round(value / of))


def _batch(people: int, largest: int) -> int:
    """Returns a power of two, at most half of the people, that all devices can share."""
    size = min(largest, 2 ** int(math.log2(max(people // 2, 1))))
    return max(size, jax.device_count())


@dataclasses.dataclass(frozen=True)
class _Pose:
    """The settings of a pose network."""

    found: Survey
    sources: Sources
    network: str
    start: str
    why_start: str
    metric: str

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height): the shape of the boxes, not larger than what they show."""
        long = _LONG_SIDE[self.network if self.start else "scratch"]
        shown = max(self.found.box) * PADDING
        while long > 96 and long - 32 >= shown:
            long -= 32
        aspect = 1.0 if self.found.any_direction else self.found.aspect
        short = _multiple(long * min(aspect, 1 / aspect), least=3)
        short = long if short > 0.8 * long else min(short, long)
        return (short, long) if aspect < 1 else (long, short)

    @property
    def canvas(self) -> tuple[int, int]:
        w, h = self.input_size
        sides = zip((w, h), self.found.image, strict=True)
        limit = 3 * max(w, h)
        first, second = (min(_multiple(of + 16), limit) for _, of in sides)
        return first, second

    @property
    def batch(self) -> int:
        return _batch(self.found.people, 32)

    def augment(self) -> dict[str, Any]:
        return {
            "flip": 0.5 if self.found.has_sides else 0.0,
            "scale": 0.25,
            "rotation": 45.0 if self.found.any_direction else 25.0,
            "rotation_probability": 0.8 if self.found.any_direction else 0.6,
            "translation": 0.05,
            "brightness": 0.2,
            "contrast": 0.2,
        }

    def _why_augment(self) -> str:
        flip = (
            "mirrored, since left and right are known"
            if self.found.has_sides
            else "not mirrored, since no keypoints are known to be left and right (set "
            "flip=0.5 if all lie on the middle line)"
        )
        turned = (
            "turned by up to 90 degrees, as they are seen in all directions"
            if self.found.any_direction
            else "turned by up to 50 degrees"
        )
        return f"Few images are made many: {flip}, {turned}, resized, moved, recolored."

    def method(self) -> list[Entry]:
        found, (w, h) = self.found, self.input_size
        shape = (
            "square" if w == h else f"{'wide' if w > h else 'high'}, as the boxes are"
        )
        size = Entry(
            "input_size", (w, h),
            f"(width, height) of the network's input: {shape}; a box has "
            f"{found.box[0]}x{found.box[1]} pixels, and the time grows with the area.",
        )  # fmt: skip
        reach = Entry(
            "reach",
            REACH,
            "Training looks this far beyond the box, as it turns and moves.",
        )
        augment = Entry("augment", self.augment(), self._why_augment())
        if not self.start:
            model = Entry("model", {"name": self.network}, self.why_start)
            name = Entry("name", "dark", "Heatmaps, decoded by a Taylor expansion.")
            sigma = Entry("sigma", 1.5, "Of the targets, in heatmap pixels.")
            return [name, model, size, sigma, reach, augment]
        alone = found.overlapping < 0.05
        weighting = Entry(
            "weighting", "none" if alone else "regression",
            "The highest peak of each keypoint counts: boxes rarely overlap."
            if alone
            else "Peaks of the individual in the middle count: boxes overlap.",
        )  # fmt: skip
        return [
            Entry("name", "cells", "Coarse heatmaps with an offset in each cell."),
            Entry("model", {"name": self.network}, self.why_start),
            size,
            Entry("decoder", "dark", "From the heatmap alone, between its cells."),
            weighting,
            Entry("flip_test", "plain", "The mean with the mirrored crop is better.")
            if found.has_sides
            else Entry(
                "flip_test", "none", "Without left and right, nothing to mirror."
            ),
            reach,
            augment,
        ]

    def optimizer(self) -> list[Entry]:
        if self.start:
            return [
                Entry("name", "adam"),
                Entry("lr", 4e-4, "Low, so that the features are changed, not lost."),
                Entry("schedule", "cosine", "To 0 at the last step."),
                Entry("warmup_steps", 30, "The new last layer begins at random."),
                Entry(
                    "freeze", _FROZEN,
                    "Edges and colors are the same for all; half of the time is saved.",
                ),
            ]  # fmt: skip
        return [
            Entry("name", "muon", "The fastest here for a network from scratch."),
            Entry("lr", 0.02),
            Entry("adam_kernels", ("head",)),
            Entry("schedule", "cosine", "To 0 at the last step."),
            Entry("warmup_steps", 30),
        ]

    def sections(self, steps: int) -> dict[str, list[Entry]]:
        return {
            "method": self.method(),
            "data": _data(self.sources),
            "input": [
                Entry("batch_size", self.batch, _why_batch(self.batch, self.found.people)),
                Entry(
                    "canvas_size", self.canvas,
                    "(width, height) of what is cut from an image: the box and its reach.",
                ),
                _cache(self.found),
            ],
            "optimizer": self.optimizer(),
            "train": _train(steps, self.batch, self.found.people, self.metric, self.start),
        }  # fmt: skip


def _data(sources: Sources) -> list[Entry]:
    return [Entry("train", sources.train), Entry("eval", sources.eval, sources.why)]


def _why_batch(batch: int, people: int) -> str:
    return f"{people / batch:.3g} steps show all {people} once."


def _cache(found: Survey) -> Entry:
    if found.megabytes > _CACHE:
        return Entry(
            "cache_mb", 0, f"All images would take {found.megabytes} MB of memory."
        )
    size = found.megabytes + 1
    return Entry("cache_mb", size, "All images stay in memory, decoded.")


_CACHE = 2048


def _train(
    steps: int, batch: int, rows: int, metric: str, start: str = ""
) -> list[Entry]:
    interval = max(1, steps // _EVALUATIONS)
    lower = metric_text.best_mode(metric) == "min"
    lines = [
        Entry("steps", steps, f"{steps * batch / rows:.0f} times all data; see above."),
        Entry("log_every_steps", max(1, steps // 20)),
        Entry("eval_every_steps", interval),
        Entry(
            "best_metric", metric,
            f"{'Lower' if lower else 'Higher'} is better; `pose-jax eval` explains it.",
        ),
        Entry(
            "patience", _PATIENCE,
            f"Training ends after {_PATIENCE} evaluations without a better one.",
        ),
        Entry("keep", "best", "The last weights of few data may be overfitted."),
    ]  # fmt: skip
    if start:
        lines.append(
            Entry(
                "init_from", start,
                "Keypoints with the names of COCO's begin with COCO's, others at random.",
            )
        )  # fmt: skip
    return lines


@dataclasses.dataclass(frozen=True)
class _Detector:
    """The settings of a detector."""

    found: Survey
    sources: Sources
    table: Table

    def scale(self) -> float:
        """Input pixels per image pixel: small boxes have 24, no image has more than 320."""
        w, h = self.found.image
        return min(1.0, 320 / max(w, h), max(160 / max(w, h), 24 / min(self.found.box)))

    def buckets(self) -> tuple[tuple[int, int], ...]:
        """Canvases of the landscape and of the portrait images."""
        sizes = self.table.image_sizes
        wide = sizes[:, 0] >= sizes[:, 1]
        found = []
        for of in (sizes[wide], sizes[~wide]):
            if len(of):
                w, h = of.max(0)
                factor = math.ceil(max(w, h) / 640)
                found.append((_multiple(w / factor + 16), _multiple(h / factor + 16)))
        return tuple(found)

    def anchors(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Sizes (square roots of areas, input pixels), and heights over widths."""
        rows = self.table.labelled_rows()
        boxes = self.table.boxes_xyxy[rows]
        w, h = (boxes[:, 2:] - boxes[:, :2]).T
        low, high = np.quantile(np.sqrt(w * h) * self.scale(), (0.1, 0.9))
        count = 1 + min(3, round(math.log2(max(high / max(low, 1.0), 1)) / 0.8))
        scales = np.geomspace(max(low, 8), max(high, 8), count)
        aspects = np.quantile(h / w, (0.1, 0.5, 0.9))
        return (
            tuple(float(round(v)) for v in scales),
            tuple(float(np.round(v, 2)) for v in aspects),
        )

    def sections(self, steps: int) -> dict[str, list[Entry]]:
        found, scale = self.found, self.scale()
        w, h = (_multiple(side * scale, 16) for side in found.image)
        scales, aspects = self.anchors()
        batch = _batch(found.images, 8)
        most = max(4, 2 ** math.ceil(math.log2(self._most())))
        return {
            "method": [
                Entry("name", "detector", "Faster R-CNN of one category."),
                Entry(
                    "model", {"name": "faster_rcnn_pocket"},
                    "Small, for a CPU; faster_rcnn_fpn_50 is better, with a GPU.",
                ),
                Entry(
                    "size", (min(w, h), max(w, h)),
                    f"(short, long) side of the input: {scale:.2g} of the images' pixels.",
                ),
                Entry("buckets", self.buckets(), "Canvases (width, height): whole images."),
                Entry("max_people", most, f"In an image; here up to {self._most()}."),
                Entry(
                    "anchor_scales", (scales,),
                    "Sizes of the boxes here, from the smallest tenth to the largest.",
                ),
                Entry("anchor_aspects", aspects, "Height over width, likewise."),
                Entry("rpn_positive", 0.6, "Anchors that fit are few."),
                Entry("rpn_samples", 128),
                Entry("pre_nms", 300),
                Entry("post_nms", 64),
                Entry("test_pre_nms", 300),
                Entry("test_post_nms", 64),
                Entry("box_samples", 32),
                Entry("slots", max(8, 2 * most), "The most boxes of an image."),
                Entry(
                    "augment",
                    {"flip": 0.5, "scale": 0.2, "scale_law": "uniform", "translation": 1.0},
                    "Mirrored, which changes no box; resized, moved.",
                ),
            ],
            "data": _data(self.sources),
            "input": [
                Entry("batch_size", batch, _why_batch(batch, found.images)),
                _cache(found),
            ],
            "optimizer": [
                Entry("name", "muon", "The fastest here for a network from scratch."),
                Entry("lr", 0.02),
                Entry("adam_kernels", ("rpn", "person", "deltas")),
                Entry("schedule", "cosine", "To 0 at the last step."),
                Entry("warmup_steps", 30),
            ],
            "train": _train(steps, batch, found.images, "box_AP50"),
        }  # fmt: skip

    def _most(self) -> int:
        return int(np.bincount(self.table.image).max())


# ------------------------------------------------------------------------------- the file


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Writes a config whose training fits into a time.

    Attributes:
      minutes: the time.
      evaluated: number of rows of an evaluation.
      cost: measures a step.
    """

    minutes: float
    evaluated: int
    cost: Cost

    def write(
        self,
        out: Path,
        sections: Callable[[int], Mapping[str, list[Entry]]],
        intro: Sequence[str],
        commands: Sequence[str],
    ) -> str:
        """Measures a step, chooses the number of steps, writes the file; returns a line."""
        with tempfile.TemporaryDirectory(prefix="pose_jax_") as folder:
            draft = Path(folder) / "draft.py"
            draft.write_text(
                config_lib.text(sections(_FEWEST_STEPS), intro, commands), "utf-8"
            )
            s = training_config.setup(config_lib.load(str(draft)).to_dict())
            cost = self.cost(s)
        batch, rows = s.config.input.batch_size, len(s.plan.rows)
        steps = self.steps(cost.seconds, batch, rows)
        minutes = self._minutes(steps, cost.seconds, batch)
        measured = (
            f"A step takes {cost.seconds:.2g} s and {cost.megabytes} MB on "
            f"{cost.device}, {os.cpu_count()} CPUs; {steps} steps and their evaluations "
            f"about {minutes:.0f} min."
        )
        writing.write(
            out, config_lib.text(sections(steps), [*intro, measured], commands)
        )
        return f"{out}: {measured}"

    def steps(self, seconds: float, batch: int, rows: int) -> int:
        """Returns a number of steps: `_EPOCHS` times all data, if there is time for it."""
        wanted = max(_FEWEST_STEPS, _EPOCHS * rows // batch)
        per_step = self._minutes(1000, seconds, batch) - self._minutes(
            0, seconds, batch
        )
        left = self.minutes - self._minutes(0, seconds, batch)
        possible = max(int(1000 * left / per_step), 2 * _EVALUATIONS)
        steps = min(wanted, possible)
        digits = 10 if steps < 500 else 50
        return max(steps // digits * digits, 2 * _EVALUATIONS)

    def _minutes(self, steps: int, seconds: float, batch: int) -> float:
        """A prediction takes about a third of a step, or with its mirror image two."""
        batches = _EVALUATIONS * math.ceil(self.evaluated / batch)
        return seconds * (steps + batches * 2 / 3) / 60


def _command(data: Any, out: Path, options: Mapping[str, Any]) -> str:
    """Returns the command of this config; options with their default are left out."""
    usual = {"start": "auto", "minutes": 20.0, "seed": 0}
    words = ["pose-jax", "init", str(data), "--out", str(out)]
    for name, value in options.items():
        if value not in (None, usual.get(name)):
            words += [f"--{name}", f"{value:g}" if name == "minutes" else str(value)]
    return shlex.join(words)


def _commands(out: Path, detector: Path | None) -> list[str]:
    """Returns the commands that come next, for a docstring."""
    run = f"runs/{out.stem}"
    lines = [
        f"pose-jax data show --config {out} --out {out.stem}.png   # what the network sees",
        f"pose-jax train --config {out} --run {run}",
        f"pose-jax eval --run {run}",
        f"pose-jax report {run}",
    ]
    if detector is None:
        return [
            *lines,
            f"pose-jax predict --run {run} --passes 2 IMAGES   # one in each",
        ]
    return [
        *lines,
        f"pose-jax train --config {detector} --run runs/{detector.stem}",
        f"pose-jax predict --run {run} --detector runs/{detector.stem} IMAGES",
    ]
