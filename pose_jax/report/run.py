"""`pose-jax report`: one HTML file that says what a run is and what it gets wrong.

RUN/report.html needs nothing beside itself: no link leads out of it, no script is in it,
pictures are inside. It is written for a run in any state: what cannot be shown (no model
yet, data that are gone) is said in one line, there and on stderr.

Markup is made by `html.tag` alone, which escapes all text that is not markup already.

Of a detector it shows images with boxes instead of people, and no keypoints.

n people, k keypoints. Points, boxes and errors are in the image frame, in pixels.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import methods
from pose_jax import metrics as metrics_lib
from pose_jax import sharding as sharding_lib
from pose_jax._version import __version__
from pose_jax.data import canvas, readers
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.errors import ConfigError, InputError
from pose_jax.evaluation import evaluate, measure, pictures
from pose_jax.keypoints import KeypointSet
from pose_jax.report import html
from pose_jax.report.html import tag
from pose_jax.runs import directory, states
from pose_jax.runs import log as log_lib
from pose_jax.training import config as training_config
from pose_jax.types import Boxes, Method, PersonView, Poses

PEOPLE_OF_A_KIND = 8
"""So many of the best, of the middle and of the worst people, or images, are shown."""


def report(run: Path | str, *, people: int = 500, data: str | None = None) -> Path:
    """Writes RUN/report.html.

    Args:
      run: a run directory, finished or not.
      people: of the evaluation data, at most so many are predicted, evenly spaced; of a
        detector so many images.
      data: another root of the evaluation data; None for the run's.

    Returns:
      The file.

    Raises:
      InputError: `run` is none.
      ConfigError: `people` is below 1.
    """
    if people < 1:
        raise ConfigError(f"--people must be at least 1; got {people}.")
    files = _read(Path(run))
    notes, seen = list(files.notes), None
    if files.manifest is None:
        notes.append(_no_model(files))
    else:
        try:
            seen = _look(files.run, files.manifest, people, data)
        except InputError as error:
            what = "people and no errors" if files.manifest["keypoints"] else "images"
            notes.append(f"No {what} are shown: {error}")
    page = _page(files, seen, notes)
    out = files.run / "report.html"
    out.write_text(page, encoding="utf-8")
    for note in notes:
        print(f"pose-jax: note: {note}", file=sys.stderr)
    print(f"report: {out}")
    return out


# -------------------------------------------------------------------- what a run holds


@dataclasses.dataclass(frozen=True)
class _Files:
    """A run directory, read.

    Attributes:
      run: the directory.
      config: RUN/config.json; of a model without one, what its manifest has of it.
      given: whether there is a RUN/config.json.
      manifest: of RUN/model, if there is a model.
      log: the lines of metrics.jsonl.
      evaluations: of RUN/eval: metrics by (source of boxes, decoder); a detector has one,
        ("images", "pose-jax eval").
      notes: what could not be read.
    """

    run: Path
    config: dict[str, Any]
    given: bool
    manifest: dict[str, Any] | None
    log: list[dict[str, Any]]
    evaluations: dict[tuple[str, str], dict[str, Any]]
    notes: tuple[str, ...]

    def data(self, use: str) -> Mapping[str, Any]:
        """The section of the data to "train" on or to "eval" on; {} if not known."""
        if use == "eval" and self.manifest is not None:
            return self.manifest.get("data") or {}
        return self.config.get("data", {}).get(use, {})

    def steps(self, phase: str) -> int | None:
        """How many the config asks for."""
        own = self.config.get("phases", {}).get(phase, {}).get("train", {})
        return {**self.config.get("train", {}), **own}.get("steps")


def _read(run: Path) -> _Files:
    if not run.is_dir():
        raise InputError(f"{run}: no such run directory.")
    path, notes, manifest = run / "config.json", [], None
    if (run / "model").is_dir():
        try:
            manifest = states.load_manifest(run / "model")
        except InputError as error:
            notes.append(str(error))
    elif not path.is_file():
        raise InputError(f"{run}: not a run: it has neither config.json nor a model.")
    config = {}
    if path.is_file():
        config = _json_object(path, notes) or {}
    elif manifest is not None:
        config = {
            name: manifest[name] for name in ("method", "input") if name in manifest
        }
        config["data"] = {"eval": manifest.get("data") or {}}
    evaluations = {}
    for file in sorted(run.glob("eval/*/*/metrics.json")):
        found = _json_object(file, notes)
        if found is not None:
            evaluations[file.parent.parent.name, file.parent.name] = found
    for file in run.glob("eval/images/metrics.json"):
        found = _json_object(file, notes)
        if found is not None:
            evaluations["images", "pose-jax eval"] = found
    return _Files(
        run=run,
        config=config,
        given=path.is_file(),
        manifest=manifest,
        log=log_lib.read_metrics(run),
        evaluations=evaluations,
        notes=tuple(notes),
    )


def _json_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = "not a JSON object"
    except (OSError, ValueError) as error:
        reason = str(error)
    notes.append(f"{path} cannot be read and is left out: {reason}.")
    return None


def _no_model(files: _Files) -> str:
    what = "There is no model yet: training has not finished."
    if (files.run / "model").is_dir():
        return "The model of this run cannot be read: scores and people are missing."
    if not files.log:
        return f"{what} It has not written a number so far."
    last = files.log[-1]
    total = files.steps(last["phase"])
    of = "" if total is None else f" of {total}"
    when = f", at {html.clock(last['time'])}" if "time" in last else ""
    return (
        f"{what} Its log ends at step {last['step']}{of} of phase "
        f"{last['phase']!r}{when}."
    )


# --------------------------------------------------------------------- what a model does


class _Yardstick(NamedTuple):
    """What errors are measured in.

    Attributes:
      metric: PCK with this length is called so.
      words: what it is.
      length: [n] pixels; NaN where a person has none.
      thresholds: that tables show.
    """

    metric: str
    words: str
    length: np.ndarray
    thresholds: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class _People:
    """Predictions for some people of the evaluation data.

    Attributes:
      table: the data.
      poses: n predictions.
      total: of how many people these are a part.
      decoder: the read-out.
      error: [n, k] pixels; NaN where there is no label.
      yardstick: of the errors; None without labels.
      relative: [n] mean error over the root of the box's area; NaN without labels.
      oks: [n], or None where the set has no sigmas or the data no labels.
      order: [n] places, the best first; without labels as they came.
      shown: places whose `inspected` there is.
      inspected: of `Method.inspect`, with NumPy leaves.
      method: whose panels these are.
    """

    table: Table
    poses: Poses
    total: int
    decoder: str
    error: np.ndarray
    yardstick: _Yardstick | None
    relative: np.ndarray
    oks: np.ndarray | None
    order: np.ndarray
    shown: list[int]
    inspected: dict[str, np.ndarray]
    method: Method

    def truth(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Points [k, 2], zero where not labelled, and visibility [k]."""
        row = self.poses.row[place]
        visibility = self.table.visibility[row]
        return np.where(
            visibility[:, None] > 0, self.table.points_xy[row], 0
        ), visibility


@dataclasses.dataclass(frozen=True)
class _Images:
    """Boxes that a detector finds in some images of the evaluation data.

    Attributes:
      table: the data.
      boxes: n predictions.
      total: of how many images these are a part.
      missed: [n] people that no sure box finds, see `measure.box_errors`.
      false: [n] sure boxes that find nobody.
      order: [n] places, the fewest mistakes first; without labels as they came.
    """

    table: Table
    boxes: Boxes
    total: int
    missed: np.ndarray
    false: np.ndarray
    order: np.ndarray


def _look(
    run: Path, manifest: Mapping[str, Any], people: int, data: str | None
) -> _People | _Images:
    """Predicts people, or images, of the evaluation data and measures each.

    Raises:
      InputError: the data are not there or do not fit.
    """
    if not manifest.get("data"):
        raise InputError(f"{run}: this model names no evaluation data.")
    loaded = directory.load(run)
    method = loaded.method()
    table = loaded.eval_table(data=data)
    rows = readers.default_rows(table, method.view, training=False)
    picked = rows[_evenly(len(rows), people)]
    # One device takes batches of any size; the readers give the same pixels.
    mesh = sharding_lib.make_mesh(jax.devices()[:1])
    config = dataclasses.replace(loaded.input, reader="numpy")
    poses = evaluate.Predictor(method, mesh)(loaded.variables, table, config, picked)
    if isinstance(poses, Boxes):
        return _Images(table, poses, len(rows), **_mistakes(table, poses))
    assert isinstance(method.view, PersonView)
    measured = _measured(table, poses)
    shown = _some(measured["order"], of_a_kind=2)
    inspected = pictures.inspect(
        method, loaded.variables, table, config, poses.row[shown]
    )
    return _People(
        table=table,
        poses=poses,
        total=len(rows),
        decoder=loaded.decoder,
        shown=shown,
        inspected=inspected,
        method=method,
        **measured,
    )


def _mistakes(table: Table, boxes: Boxes) -> dict[str, np.ndarray]:
    missed = false = np.zeros(len(boxes.row), int)
    if measure.has_truth(table):
        missed, false = measure.box_errors(table, boxes)
    order = np.argsort(missed + false, kind="stable")
    return {"missed": missed, "false": false, "order": order}


def _evenly(total: int, count: int) -> np.ndarray:
    """At most `count` of 0..total-1, evenly spaced."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def _measured(table: Table, poses: Poses) -> dict[str, Any]:
    n = len(poses.row)
    if not table.labelled:
        none = np.full(poses.points_xy.shape[:2], np.nan)
        return {
            "error": none, "yardstick": None, "relative": none[:, 0], "oks": None,
            "order": np.arange(n),
        }  # fmt: skip
    labelled = table.visibility[poses.row] > 0
    true_xy = np.where(labelled[..., None], table.points_xy[poses.row], 0)
    error = np.linalg.norm(poses.points_xy - true_xy, axis=-1)
    boxes = table.boxes_xyxy[poses.row]
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1))
    mean = np.where(labelled, error, 0).sum(1) / np.maximum(labelled.sum(1), 1)
    relative = mean / np.maximum(side, 1)
    oks = None
    if table.keypoints.sigmas is not None:
        oks = np.asarray(
            metrics_lib.oks(
                np.asarray(poses.points_xy, np.float32),
                true_xy.astype(np.float32),
                labelled,
                table.areas[poses.row].astype(np.float32),
                table.keypoints.sigmas,
            )
        )
    return {
        "error": np.where(labelled, error, np.nan),
        "yardstick": _yardstick(table, np.asarray(poses.row)),
        "relative": relative,
        "oks": oks,
        "order": np.argsort(relative, kind="stable"),
    }


def _yardstick(table: Table, rows: np.ndarray) -> _Yardstick:
    """The length that the literature measures errors on this data in."""
    if table.head_sizes is not None:
        metric, words = "PCKh", "0.6 of the head box's diagonal"
        thresholds, length = measure.PCKH_THRESHOLDS, table.head_sizes[rows]
    elif table.keypoints.torso is not None:
        ends = list(table.keypoints.torso)
        names = [table.keypoints.names[i] for i in ends]
        metric, words = "PCK", f"the torso, from {names[0]} to {names[1]}"
        known = np.all(table.visibility[rows][:, ends] > 0, axis=-1)
        a, b = np.where(
            known[:, None, None], table.points_xy[rows][:, ends], 0
        ).swapaxes(0, 1)
        thresholds, length = measure.PCK_THRESHOLDS, np.linalg.norm(a - b, axis=-1)
    else:
        metric, words = "PCK_box", "the longer side of the box"
        boxes = table.boxes_xyxy[rows]
        thresholds, length = (0.05, 0.2), (boxes[:, 2:] - boxes[:, :2]).max(-1)
    length = np.where(length > 0, length, np.nan)
    return _Yardstick(metric, words, length, tuple(sorted(thresholds)))


def _kinds(order: np.ndarray, of_a_kind: int) -> dict[str, np.ndarray]:
    """Places of the best, the middle and the worst people."""
    count = min(of_a_kind, len(order))
    middle = (len(order) - count) // 2
    return {
        "Best": order[:count],
        "Median": order[middle : middle + count],
        "Worst": order[::-1][:count],
    }


def _some(order: np.ndarray, of_a_kind: int) -> list[int]:
    kinds = np.concatenate(list(_kinds(order, of_a_kind).values()))
    return list(dict.fromkeys(kinds.tolist()))


# -------------------------------------------------------------------------------- curves

Lines = dict[str, list[tuple[int, float]]]
"""Steps and values by label."""

_TITLES = {
    "lr": "learning rate",
    "images_per_second": "images per second",
    "input_bound_percent": "waiting for input, % of the time",
}


def _curves(files: _Files) -> html.Html:
    panels = _panels(files.log)
    charts = [_curve(title, lines) for title, lines in panels.items()]
    if not charts:
        return html.section(
            "curves", "Learning curves", tag("p", "No number is logged.")
        )
    words = (
        "Over the batches of each phase. An evaluation metric has a curve if it was "
        "measured twice and changed; all of them are in the tables of metrics."
    )
    return html.section(
        "curves", "Learning curves",
        tag("p", words, class_="aside"), tag("div", *charts, class_="charts"),
    )  # fmt: skip


def _panels(log: Sequence[Mapping[str, Any]]) -> dict[str, Lines]:
    """The log's numbers by panel and line: losses, speed, then metrics by their kind."""
    several = len({line["phase"] for line in log}) > 1
    logged: dict[str, Lines] = {}
    metrics: dict[str, Lines] = {}
    for line in log:
        for name, value in line.items():
            if name in ("step", "phase", "time") or not isinstance(value, int | float):
                continue
            panel, label = _TITLES.get(name, name), ""
            if measure.is_metric(name):
                panel, label = _kind(name)
            if several:
                label = f"{label} {line['phase']}".strip()
            group = metrics if measure.is_metric(name) else logged
            lines = group.setdefault(panel, {})
            lines.setdefault(label, []).append((line["step"], value))
    order = [*(name for name in logged if name not in _TITLES.values())]
    order += [name for name in _TITLES.values() if name in logged]
    metrics = {
        panel: changing
        for panel, lines in metrics.items()
        if (changing := {k: v for k, v in lines.items() if len({y for _, y in v}) > 1})
    }
    return {**{name: logged[name] for name in order}, **metrics}


def _kind(name: str) -> tuple[str, str]:
    """Panel and line of a metric: kinds of AP, of AR, and thresholds share a panel."""
    kind, *rest = name.split("@")
    thresholds = [part for part in rest if re.fullmatch(r"[\d.]+", part)]
    family = re.fullmatch(r"((?:box_)?A[PR])(\d\d|[sml])?", kind)
    panel = "@".join(
        [
            family[1] if family else kind,
            *(part for part in rest if part not in thresholds),
        ]
    )
    return panel, "@".join([kind, *thresholds])


def _curve(title: str, lines: Lines) -> html.Html:
    values = [y for points in lines.values() for _, y in points]
    steep = "loss" in title and min(values) > 0 and max(values) > 20 * min(values)

    def draw(axes):
        for label, points in list(lines.items())[: len(html.COLOURS)]:
            marker = "o" if len(points) < 15 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, ms=3, label=label)
        if steep:
            axes.set_yscale("log")
        axes.set_xlabel("batch")
        if len(lines) > 1:
            axes.figure.legend(loc="outside lower center", ncols=3)

    height = 2.4 + 0.25 * (len(lines) > 1) * -(-len(lines) // 3)
    return html.chart(title + (", log scale" if steep else ""), draw, height)


# ------------------------------------------------------------------------------- metrics

_HEADLINES = (
    "AP", "AP50", "PCKh@0.5", "PCK@0.2", "PCP@0.5", "pixel_error", "PDJ@0.2",
    "box_AP", "box_AP50", "box_AP75", "box_AR",
)  # fmt: skip


def _latest_scores(files: _Files) -> tuple[str, Mapping[str, Any]]:
    """When the run was last measured by its training, and the metrics."""
    if files.manifest is not None:
        return "end of training", files.manifest.get("scores", {})
    for line in reversed(files.log):
        scores = {name: line[name] for name in line if measure.is_metric(name)}
        if scores:
            return f"step {line['step']} of phase {line['phase']!r}", scores
    return "", {}


def _headline(files: _Files) -> html.Html:
    when, scores = _latest_scores(files)
    names = [n for head in _HEADLINES for n in scores if f"{n}@".startswith(f"{head}@")]
    names = (names or list(scores))[:5]
    tiles = [
        tag(
            "div",
            tag("b", html.number(scores[name])),
            tag("span", name),
            class_="tile",
        )
        for name in names
    ]
    if not tiles:
        what = tag("p", "Nothing has been measured at the end of training.")
        return tag("section", what, id="scores")
    said = "; the source of the boxes is in each name" if "@" in names[0] else ""
    words = tag("p", f"Scores at {when}{said}.")
    return tag("section", tag("div", *tiles, class_="tiles"), words, id="scores")


def _metrics(files: _Files) -> html.Html:
    """All that was measured, a table for each source of boxes, decoders side by side."""
    when, trained = _latest_scores(files)
    columns = {("", when): trained, **files.evaluations}
    sources = {source: None for source, _ in files.evaluations}
    # Manifests are sorted; evaluations and the log have the order of the evaluator.
    measured = [*files.evaluations.values(), *files.log]
    names = [name for found in measured for name in found if measure.is_metric(name)]
    present = {name for found in columns.values() for name in found}
    names = [n for n in dict.fromkeys([*names, *present]) if n in present]

    def source_of(name):
        return next((part for part in name.split("@")[1:] if part in sources), "")

    tables = []
    for source in dict.fromkeys(source_of(name) for name in names):
        mine = [name for name in names if source_of(name) == source]
        used = {
            title: found
            for (_, title), found in columns.items()
            if any(name in found for name in mine)
        }
        rows = [
            [
                html.breakable(n),
                *(html.number(found.get(n)) for found in used.values()),
            ]
            for n in mine
        ]
        tables.append(html.table(["metric", *used], rows))
    if not tables:
        tables = [tag("p", "No metric is here.")]
    formulas = {n.split("@")[0]: f for n in names if (f := measure.formula(n))}
    if formulas:
        tables.append(
            tag(
                "details",
                tag("summary", "What the names mean"),
                html.facts(formulas),
            )
        )
    if files.manifest is not None and not files.evaluations:
        how = (
            "Nothing is in RUN/eval: `pose-jax eval --run RUN` measures a model again."
        )
        tables.append(tag("p", how, class_="aside"))
    return html.section("metrics", "Metrics", *tables)


# ------------------------------------------------------------------ keypoints and errors


def _pairs(keypoint_set: KeypointSet) -> list[tuple[int, ...]]:
    """All keypoints, left and right together, left first."""
    partner = keypoint_set.permutation
    pairs = []
    for i, name in enumerate(keypoint_set.names):
        pair = tuple(dict.fromkeys((i, partner[i])))
        if "right" in name:
            pair = pair[::-1]
        if pair not in pairs and pair[::-1] not in pairs:
            pairs.append(pair)
    return pairs


def _pair_name(keypoint_set: KeypointSet, pair: tuple[int, ...]) -> str:
    names = [keypoint_set.names[i] for i in pair]
    bare = {re.sub(r"^(left|right)[_ ]", "", name) for name in names}
    return bare.pop() if len(bare) == 1 else " / ".join(names)


def _keypoint_table(people: _People) -> html.Html:
    table, yardstick = people.table, people.yardstick
    assert yardstick is not None
    visibility = table.visibility[people.poses.row]
    relative = people.error / yardstick.length[:, None]
    head = [
        "keypoint", "labelled", "visible", "hidden", "median error, px", "mean error, px",
        "median error, lengths", "mean error, lengths",
        *(f"{measure.full_name(yardstick.metric, table, t)}, %"
          for t in yardstick.thresholds),
        "mean score",
    ]  # fmt: skip

    def cells(name, which):
        seen, far = visibility[:, which], relative[:, which]
        known = far[np.isfinite(far)]
        score = people.poses.keypoint_scores[:, which]
        return [
            name,
            *(int(count.sum()) for count in (seen > 0, seen == 2, seen == 1)),
            *_middle(people.error[:, which], 2),
            *_middle(far, 3),
            *(
                html.percent((known <= t).sum(), len(known))
                for t in yardstick.thresholds
            ),
            f"{score.mean():.3f}",
        ]

    rows = []
    for pair in _pairs(table.keypoints):
        for place, i in enumerate(pair):
            name = table.keypoints.names[i]
            side = "" if len(pair) == 1 else ("right" if place else "left")
            dot = tag("i", class_=f"dot {side}".strip())
            rows.append(
                html.row(
                    cells(tag("span", dot, name, class_="joint"), [i]),
                    "pair" if place else "",
                )
            )
    everything = list(range(len(table.keypoints)))
    rows.append(html.row(cells("all", everything), "total"))
    without = int(np.isnan(yardstick.length).sum())
    words = (
        f"Lengths are units of {yardstick.words}; {without} of {len(yardstick.length)} "
        "people have none and are left out of these columns. Scores are means over "
        "all people, labelled or not."
    )
    return html.section(
        "keypoints",
        "Keypoints",
        tag("p", words, class_="aside"),
        html.table(head, rows),
    )


def _middle(values: np.ndarray, digits: int) -> tuple[str, str]:
    """Median and mean of what is finite."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "–", "–"
    return f"{np.median(values):.{digits}f}", f"{values.mean():.{digits}f}"


def _errors(people: _People) -> html.Html:
    yardstick, names = people.yardstick, people.table.keypoints
    assert yardstick is not None
    pixels = people.error[np.isfinite(people.error)]
    relative = people.error / yardstick.length[:, None]
    thresholds = np.linspace(0, 0.5, 101)

    def share(which):
        known = np.sort(relative[:, which][np.isfinite(relative[:, which])])
        found = np.searchsorted(known, thresholds, side="right")
        return 100 * found / len(known) if len(known) else None

    def histogram(axes):
        end = max(float(np.quantile(pixels, 0.98)), 1e-6)
        axes.hist(np.minimum(pixels, end), bins=40, range=(0, end))
        axes.axvline(float(np.median(pixels)), color=html.INK, lw=1, ls=":")
        axes.set_xlabel("error, pixels (in the last bar: and more)")
        axes.set_ylabel("keypoints")

    def curve(axes):
        for pair in _pairs(names):
            found = share(list(pair))
            if found is not None:
                label = _pair_name(names, pair)
                axes.plot(thresholds, found, lw=1, label=label)
        everything = share(list(range(len(names))))
        if everything is not None:
            axes.plot(thresholds, everything, lw=2.4, color=html.INK, label="all")
        for threshold in yardstick.thresholds:
            axes.axvline(threshold, color=html.INK, lw=0.8, ls=":")
        axes.set_xlabel(f"threshold, units of {yardstick.words.split(',')[0]}")
        axes.set_ylabel(f"{yardstick.metric}, %")
        axes.set_ylim(0, 100)
        if axes.get_legend_handles_labels()[0]:
            axes.figure.legend(loc="outside lower center", ncols=3)

    charts = tag(
        "div",
        html.chart(
            "errors of all labelled keypoints; the dotted line is the median",
            histogram,
            height=3.8,
        ),
        html.chart(f"{yardstick.metric} over its threshold", curve, height=3.8),
        class_="charts large",
    )
    return html.section("errors", "Errors", charts)


# ------------------------------------------------------------------------------ pictures


def _crop(
    image: np.ndarray, box_xyxy: np.ndarray, points_xy: np.ndarray, side: int = 240
) -> tuple[np.ndarray, np.ndarray, float]:
    """A window round a box and some points, its corner [2], and the scale to draw at."""
    corners = np.concatenate([box_xyxy.reshape(2, 2), points_xy])
    low, high = corners.min(0), corners.max(0)
    margin = 4 + 0.1 * (high - low).max()
    h, w = image.shape[:2]
    low = np.clip(np.floor(low - margin).astype(int), 0, [w - 1, h - 1])
    high = np.clip(np.ceil(high + margin).astype(int), low + 1, [w, h])
    window = image[low[1] : high[1], low[0] : high[0]]
    return window, low, side / max(window.shape[:2])


def _person(people: _People, place: int) -> html.Html:
    """One person: the truth, beside it the prediction, under it who and how far off."""
    table, poses = people.table, people.poses
    row = poses.row[place]
    true_xy, visibility = people.truth(place)
    image = canvas.decode(table, table.image[row])
    window, corner, scale = _crop(image, table.boxes_xyxy[row], true_xy[visibility > 0])
    who = f"image {table.image_ids[table.image[row]]}, annotation {table.ids[row]}"
    draw = lambda points, **marks: drawing.draw_pose(
        window, points - corner, table.keypoints, scale=scale, **marks
    )
    pictures = []
    if table.labelled:
        picture = draw(true_xy, visibility=visibility)
        pictures.append(html.picture(picture, f"{who}: truth"))
    picture = draw(poses.points_xy[place], scores=poses.keypoint_scores[place])
    pictures.append(html.picture(picture, f"{who}: prediction"))
    facts = [f"score {poses.score[place]:.2f}"]
    if table.labelled:
        error = people.error[place][visibility > 0]
        of_box = people.relative[place]
        words = (
            f"{len(error)} labelled keypoints"
            if len(error) > 1
            else "1 labelled keypoint"
        )
        facts = [f"error {error.mean():.1f} px, {of_box:.3f} of the box", words, *facts]
    if people.oks is not None:
        facts.append(f"OKS {people.oks[place]:.2f}")
    caption = tag("figcaption", tag("b", who), " ", " · ".join(facts))
    pair = tag("div", *pictures, class_="pictures")
    return tag("figure", pair, caption, class_="person")


def _gallery(people: _People) -> html.Html:
    if not people.table.labelled:
        places = _evenly(len(people.order), 3 * PEOPLE_OF_A_KIND)
        kinds = {"Predictions": places}
        words = "These data have no labels: predictions alone, evenly spaced."
    else:
        kinds = _kinds(people.order, PEOPLE_OF_A_KIND)
        words = (
            "By mean error over the root of the box's area. Truth left, prediction "
            "right: the person's left is orange, the right blue; hidden keypoints, and "
            "predictions scored below 0.2, are hollow."
        )
    shown = []
    for kind, places in kinds.items():
        figures = [_person(people, place) for place in places]
        shown += [tag("h3", kind), tag("div", *figures, class_="people")]
    return html.section("people", "People", tag("p", words, class_="aside"), *shown)


def _images(images: _Images) -> html.Html:
    """What a detector finds and misses."""
    table, boxes = images.table, images.boxes
    truth = table.truth or table
    if measure.has_truth(table):
        kinds = _kinds(images.order, PEOPLE_OF_A_KIND)
        persons = [
            int((~truth.crowd[truth.people_of_image(int(image))]).sum())
            for image in boxes.row
        ]
        missed, false = int(images.missed.sum()), int(images.false.sum())
        words = (
            f"By how many people are missed and how many boxes find nobody. A box is "
            f"counted from a score of {measure.SURE:g} on, and finds a person from an IoU "
            f"of 0.5 on; in a crowd region it may find nobody. So counted, "
            f"{sum(persons) - missed} of {sum(persons)} people are found, and "
            f"{false} boxes are false. Boxes are orange, with their scores, unsure ones "
            "thin; annotated ones green, crowd regions grey."
        )
    else:
        places = _evenly(len(images.order), 3 * PEOPLE_OF_A_KIND)
        kinds, persons = {"Predictions": places}, None
        words = "These data have no labels: predictions alone, evenly spaced."
    shown = []
    for kind, places in kinds.items():
        figures = []
        for place in places:
            image = int(boxes.row[place])
            who = f"image {table.image_ids[image]}"
            facts = [f"{int(boxes.valid[place].sum())} boxes"]
            if persons is not None:
                facts = [
                    f"{persons[place]} people, {images.missed[place]} missed",
                    f"{images.false[place]} false",
                    *facts,
                ]
            picture = evaluate.draw_image(table, boxes, image, side=400)
            caption = tag("figcaption", tag("b", who), " ", " · ".join(facts))
            picture = html.picture(picture, f"{who}: boxes")
            figures.append(
                tag(
                    "figure",
                    tag("div", picture, class_="pictures"),
                    caption,
                    class_="inspected",
                )
            )
        shown += [tag("h3", kind), tag("div", *figures, class_="people large")]
    return html.section("images", "Images", tag("p", words, class_="aside"), *shown)


def _network(people: _People) -> html.Html:
    """What the network saw and answered: the panels that the method declares."""
    content = []
    for panel, rows in pictures.drawn(people.method, people.inspected):
        lines = [[row[i : i + 3] for i in range(0, len(row), 3)] for row in rows]
        figures = [_inside(people, place, row) for place, row in enumerate(lines)]
        content += [
            tag("h3", panel.title),
            tag("p", panel.caption, class_="aside"),
            tag("div", *figures, class_="people large"),
        ]
    return html.section("network", "Inside the network", *content)


def _inside(
    people: _People, place: int, rows: Sequence[Sequence[tuple[str, np.ndarray]]]
) -> html.Html:
    """Titles and pictures of one person that was inspected, and who it is."""
    person, table = people.shown[place], people.table
    row = people.poses.row[person]
    who = f"image {table.image_ids[table.image[row]]}, annotation {table.ids[row]}"
    if table.labelled:
        error = people.error[person]
        who += f": error {error[np.isfinite(error)].mean():.1f} px"
    lines = [
        tag(
            "div",
            *(
                tag(
                    "div",
                    html.picture(picture, f"{who}: {title}"),
                    tag("span", title),
                )
                for title, picture in pictures
            ),
            class_="pictures",
        )
        for pictures in rows
    ]
    return tag("figure", *lines, tag("figcaption", who), class_="inspected")


# ---------------------------------------------------------------- config and environment


class _Absent:
    """Stands for a value that is not there, in words."""

    def __init__(self, words: str) -> None:
        self.words = words


_REQUIRED, _NONE, _UNKNOWN = _Absent("required"), _Absent("–"), _Absent("unknown key")


class Setting(NamedTuple):
    """One value of a config.

    Attributes:
      key: "optimizer.lr".
      value: in force.
      default: what it would be without the config; an _Absent where there is none.
      given: whether the config file has the key.
    """

    key: str
    value: Any
    default: Any
    given: bool

    @property
    def changed(self) -> bool:
        """Whether the value is not the default; what has to be given has none."""
        required = self.default is _REQUIRED
        return (
            self.given and not required and _plain(self.value) != _plain(self.default)
        )


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Every value that a run goes by, in the order of the sections."""
    return list(_settings(training_config.Config, config, ""))


def _settings(
    cls: type, section: Mapping[str, Any], prefix: str, standard: Any = _REQUIRED
) -> Iterator[Setting]:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name, field in fields.items():
        key, given = prefix + name, name in section
        default = _default(field)
        if not isinstance(standard, _Absent):
            default = getattr(standard, name)
        inner = _section_class(key, hints[name], section)
        if inner is not None and isinstance(section.get(name, {}), Mapping):
            yield from _settings(inner, section.get(name, {}), f"{key}.", default)
        elif given and isinstance(section[name], Mapping) and section[name]:
            for leaf, (_, value) in config_lib.differences(section[name], {}).items():
                yield Setting(f"{key}.{leaf}", value, _NONE, True)
        else:
            unset = _NONE if default is _REQUIRED else default
            yield Setting(key, section.get(name, unset), default, given)
    for name in section:
        if name not in fields:
            yield Setting(prefix + name, section[name], _UNKNOWN, True)


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _REQUIRED


def _section_class(key: str, hint: Any, section: Mapping[str, Any]) -> type | None:
    """The dataclass that reads a key, if one does."""
    if key == "method":
        name = section.get(key, {}).get("name")
        return methods.METHODS[name].Config if name in methods.METHODS else None
    arms = [hint, *typing.get_args(hint)]
    return next(
        (a for a in arms if isinstance(a, type) and dataclasses.is_dataclass(a)), None
    )


def _plain(value: Any) -> Any:
    """Lists for tuples, so that what JSON has kept compares with what code says."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _shown(value: Any) -> str:
    if isinstance(value, _Absent):
        return value.words
    return value if isinstance(value, str) and value else json.dumps(_plain(value))


def _config(files: _Files) -> html.Html:
    rows = []
    for setting in settings(files.config):
        if not files.given and setting.key.split(".")[0] not in files.config:
            continue  # A model without its run has a part of the config.
        marks = {"changed": setting.changed, "given": setting.given}
        cells = [
            html.breakable(setting.key, after="."),
            _shown(setting.value),
            _shown(setting.default),
            "yes" if setting.given else "",
        ]
        rows.append(html.row(cells, " ".join(name for name in marks if marks[name])))
    words = (
        f"Values that differ from their default in pose_jax {__version__} are "
        "marked; the last column says which keys the config names."
    )
    raw = tag("pre", json.dumps(files.config, indent=1))
    title = "config.json" if files.given else "what the model keeps of its config"
    head = ["key", "value", "default", "in the file"]
    return html.section(
        "config",
        "Config",
        tag("p", words, class_="aside"),
        html.table(head, rows, class_="words config"),
        tag("details", tag("summary", title), raw),
    )


_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow",
    "pycocotools", "tensorflow", "tensorflow-cpu",
)  # fmt: skip


def _environment(files: _Files) -> html.Html:
    trained = (files.manifest or {}).get("versions", {})
    here = {"pose_jax": __version__}
    here |= {name: version for name in _PACKAGES if (version := _version(name))}
    if not any(name.startswith("tensorflow") for name in here):
        here["tensorflow"] = "not installed"
    versions = [
        [name, trained.get(name, "–"), here.get(name, "–")]
        for name in {**here, **trained}
    ]
    facts = {
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "devices": sharding_lib.device_summary(),
        "CPU cores": os.cpu_count(),
        "git commit": _git_commit() or "the package is in no git checkout",
        "report written": html.clock(datetime.datetime.now().timestamp()),
    }
    words = (
        "The machine and the code that wrote this report; a run keeps versions alone."
    )
    head = ["package", "of the model", "of this report"]
    return html.section(
        "environment", "Environment", tag("p", words, class_="aside"),
        html.facts(facts), html.table(head, versions, class_="words"),
    )  # fmt: skip


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git_commit() -> str:
    """The commit that this package is of; "" unless git tracks it."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", str(here), *words],
            capture_output=True, text=True, timeout=30, check=True,
        ).stdout.strip()  # fmt: skip

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        commit = git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}, with changes that are not committed" if changed else commit


def _data(files: _Files, seen: _People | _Images | None) -> html.Html:
    """What was trained and evaluated on, and its fingerprints."""
    facts = {}
    trained = (files.manifest or {}).get("train_data")
    if trained:
        facts["trained on"] = f"{trained['name']}, fingerprint {trained['fingerprint']}"
    elif files.data("train"):
        facts["trained on"] = _fingerprint(files.data("train"))
    if seen is not None:
        table = seen.table
        facts["evaluated on"] = _described(table)
        if isinstance(seen, _People):
            count, what = len(seen.poses.row), "people"
            read_out = f"; decoder {seen.decoder!r}"
        else:
            count, what, read_out = len(seen.boxes.row), "images", ""
        spaced = ", evenly spaced" if count < seen.total else ""
        facts["predicted for this report"] = (
            f"{count} of {seen.total} {what}{spaced}{read_out}"
        )
    elif files.data("eval"):
        facts["evaluated on"] = _fingerprint(files.data("eval"))
    for use in ("train", "eval"):
        section = files.data(use)
        if section:
            facts[f"{use} data"] = json.dumps(section)
    return html.section("data", "Data", html.facts(facts))


def _described(table: Table) -> str:
    return (
        f"{table.name}: {len(table.images)} images, {len(table)} people, boxes: "
        f"{table.box_source}, fingerprint {table.fingerprint()}"
    )


def _fingerprint(section: Mapping[str, Any]) -> str:
    try:
        source = config_lib.build(data_lib.SourceConfig, section, "config.data")
        return _described(data_lib.load(source))
    except InputError as error:
        return f"not readable now: {error}"


def _training(files: _Files) -> html.Html:
    """How long it took, and how to do it again."""
    rows = []
    for phase in dict.fromkeys(line["phase"] for line in files.log):
        mine = [line for line in files.log if line["phase"] == phase]
        times = [line["time"] for line in mine if "time" in line]
        speeds = [
            v for line in mine if (v := line.get("images_per_second")) is not None
        ]
        rows.append(
            [
                phase,
                max(line["step"] for line in mine),
                html.number(files.steps(phase)),
                html.clock(times[0]) if times else "–",
                html.duration(times[-1] - times[0]) if times else "–",
                f"{np.median(speeds):.1f}" if speeds else "–",
            ]
        )
    head = [
        "phase",
        "steps done",
        "of",
        "first line of the log",
        "wall time",
        "images/s",
    ]
    content = [html.table(head, rows, class_="words")] if rows else []
    words = (
        "Wall time is from the first to the last line of the log, evaluations and any "
        "pause included; the first step's compilation is not in it."
    )
    if rows:
        content.append(tag("p", words, class_="aside"))
    if files.given:
        run = files.run if files.run.name else files.run.resolve()
        again = run.with_name(f"{run.name}-again")
        code = (
            "from pathlib import Path; from pose_jax import config; "
            "from pose_jax.training import train; "
            f"text = Path({str(files.run / 'config.json')!r}).read_text(); "
            f"train.train(config.from_json(text), {str(again)!r})"
        )
        content += [
            tag("p", "The same run again, in another directory:"),
            tag("pre", f"cd {shlex.quote(str(Path.cwd()))}\n{_command(code)}"),
        ]
        if files.manifest is None:
            code = code.replace(repr(str(again)), repr(str(files.run)))
            content += [
                tag("p", "To go on with this one from its last checkpoint:"),
                tag("pre", _command(code)),
            ]
    else:
        content.append(tag("p", "This directory holds a model alone, no training."))
    return html.section("repeat", "Training time, and how to repeat it", *content)


def _command(code: str) -> str:
    return f"python -c {shlex.quote(code)}"


# ---------------------------------------------------------------------------------- page

_SECTIONS = {
    "scores": "Scores",
    "curves": "Curves",
    "metrics": "Metrics",
    "keypoints": "Keypoints",
    "errors": "Errors",
    "people": "People",
    "images": "Images",
    "network": "Network",
    "config": "Config",
    "data": "Data",
    "environment": "Environment",
    "repeat": "Repeat",
}


def _page(files: _Files, seen: _People | _Images | None, notes: Sequence[str]) -> str:
    name = files.run.resolve().name
    sections = [_headline(files), _curves(files), _metrics(files)]
    if isinstance(seen, _Images):
        sections.append(_images(seen))
    elif seen is not None:
        if seen.yardstick is not None:
            sections += [_keypoint_table(seen), _errors(seen)]
        sections += [_gallery(seen), _network(seen)]
    sections += [
        _config(files),
        _data(files, seen),
        _environment(files),
        _training(files),
    ]
    present = [key for key in _SECTIONS if any(f' id="{key}"' in s for s in sections)]
    links = [tag("a", _SECTIONS[key], href=f"#{key}") for key in present]
    said = [tag("p", note, class_="note") for note in notes]
    body = tag(
        "main",
        tag("h1", name),
        tag("p", _subtitle(files), class_="subtitle"),
        *said,
        tag("nav", *links),
        *sections,
    )
    return html.document(f"{name}: pose_jax report", body)


def _subtitle(files: _Files) -> str:
    section = files.config.get("method", {})
    model = section.get("model", {})
    keypoint_set = (files.manifest or {}).get("keypoints") or {}
    data = files.data("eval")
    parts = [
        f"method {section.get('name', 'unknown')}",
        f"network {model['name']}" if "name" in model else "",
        f"{data.get('name')} {data.get('split')} in {data.get('root')}" if data else "",
        f"keypoint set {keypoint_set['name']}, {len(keypoint_set['names'])} keypoints"
        if keypoint_set
        else "",
    ]
    return " · ".join(filter(None, parts))
