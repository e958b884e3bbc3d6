"""The leaderboard of a study as one HTML file, written from the storage alone.

It can be written while the study runs, and on a machine without the runs. Trials that
differ only in their seed are one row: their mean with Student's 95% interval.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing
from pose_jax.report import html
from pose_jax.report.html import tag
from pose_jax.sweep import space
from pose_jax.sweep import study as study_lib

MARKED = 6
"""Number of best rows with a color of their own in the learning curves."""

STATES = {
    "complete": "complete", "pruned": "pruned", "fail": "failed", "running": "unfinished",
}  # fmt: skip
"""Descriptions of Optuna's states."""

_EVAL_OPTIONS = {
    "method.decoder": "--decoder",
    "method.flip_test": "--flip",
    "evaluation.nms": "--nms",
    "evaluation.nms_threshold": "--nms-threshold",
}
"""Keys with a corresponding option of `pose-jax eval`."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Trials that differ only in their seed.

    Attributes:
      point: values by key, without the seed.
      trials: all trials, by number.
      values: values of the complete trials.
    """

    point: Mapping[str, Any]
    trials: tuple[Any, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def half_width(self) -> float:
        """Half width of the 95% interval of the mean over seeds; NaN for one seed."""
        n = len(self.values)
        if n < 2:
            return math.nan
        from scipy import stats

        spread = np.std(self.values, ddof=1) / math.sqrt(n)
        return float(stats.t.ppf(0.975, n - 1) * spread)


def leaderboard(trials: Sequence[Any], spec: Mapping[str, Any]) -> list[Row]:
    """Returns rows with a value, best first; rows with missing seeds come last.

    Otherwise a row with few seeds could lead by chance, and one whose bad seeds were pruned
    would be overrated.
    """
    groups: dict[tuple, list[Any]] = collections.defaultdict(list)
    for trial in trials:
        point = {k: trial.params[k] for k in spec["space"] if k in trial.params}
        point.pop(spec["seeds"], None)
        groups[tuple(point.items())].append(trial)
    rows = [
        Row(
            dict(point),
            tuple(group),
            tuple(t.value for t in group if t.state.name == "COMPLETE"),
        )
        for point, group in groups.items()
    ]
    rows = [row for row in rows if row.values]
    most = max((len(row.values) for row in rows), default=0)
    sign = -1 if spec["direction"] == "maximize" else 1
    return sorted(rows, key=lambda row: (len(row.values) < most, sign * row.mean))


def report(
    study: str,
    *,
    name: str | None = None,
    out: Path | str | None = None,
    file: Path | str | None = None,
) -> Path:
    """Writes the leaderboard and prints its first lines.

    Args:
      study, name, out: as in `runner.run`.
      file: the HTML file to write; None: report.html in the folder of the runs.

    Raises:
      InputError: the study does not exist.
    """
    where = study_lib.place(study, name, out)
    path = Path(file) if file is not None else where.out / "report.html"
    writing.check(path.parent, "give another --html")
    opened, spec = study_lib.open_study(where)
    trials = opened.get_trials(deepcopy=False)
    rows = leaderboard(trials, spec)
    title = where.name if where.storage else where.out.resolve().name
    writing.write(path, _page(title, opened, trials, rows, spec))
    print(text(rows, spec))
    print(f"leaderboard: {path}")
    return path


def text(rows: Sequence[Row], spec: Mapping[str, Any], count: int = 10) -> str:
    """Formats the first rows as text."""
    if not rows:
        return "no trial is complete yet"
    keys = _varied(rows)
    lines = [["rank", spec["metric"], "95%", "seeds", *map(_short(keys).get, keys)]]
    for rank, row in enumerate(rows[:count], 1):
        half = row.half_width
        lines.append(
            [
                str(rank),
                f"{row.mean:.4g}",
                "–" if half != half else f"±{half:.2g}",
                str(len(row.values)),
                *(html.number(row.point[key]) for key in keys),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _varied(rows: Sequence[Row]) -> list[str]:
    """Returns the keys with more than one value; all keys if nothing varies."""
    keys = list(rows[0].point)
    varied = [k for k in keys if len({row.point.get(k) for row in rows}) > 1]
    return varied or keys


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Removes the sections of keys where the result is unique."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: name if last.count(name) == 1 else key
        for key, name in zip(keys, last, strict=True)
    }


def winner(row: Row, spec: Mapping[str, Any]) -> str:
    """Returns the command line that reproduces a row."""
    if not spec["eval_only"]:
        overrides = [*spec["overrides"], *space.words(row.point)]
        command = ["pose-jax", "train", "--config", spec["config"], *overrides]
        return shlex.join([*command, "--run", "runs/best"])
    command = ["pose-jax", "eval", "--run", spec["eval_only"]]
    rest = []
    for key, value in row.point.items():
        if key in _EVAL_OPTIONS:
            command += [_EVAL_OPTIONS[key], str(value)]
        else:
            rest.append(f"--config.{key}={value}")
    line = shlex.join(command)
    if rest:
        line += f"\n# and in a config of the run: {shlex.join(rest)}"
    return line


# ---------------------------------------------------------------------------------- page


def _page(title: str, study, trials, rows: Sequence[Row], spec) -> str:
    parts = {
        "winner": ("Winner", _first(trials, rows, spec)),
        "leaderboard": ("Leaderboard", _ranked(rows, spec)),
        "curves": ("Learning curves", _curves(trials, rows, spec)),
        "importances": ("Importances", _importances(study, trials, spec)),
        "coordinates": ("Parallel coordinates", _coordinates(trials, spec)),
        "trials": ("Trials", _trials(trials, spec)),
        "study": ("Study", [_about(spec)]),
    }
    base = spec["config"] or f"the network of {spec['eval_only']}"
    subtitle = f"{spec['direction']} {spec['metric']} of {base}"
    sections = [
        html.section(key, words, *content) for key, (words, content) in parts.items()
    ]
    return html.page(title, "sweep", subtitle, sections)


def _first(trials, rows: Sequence[Row], spec) -> list[html.Html]:
    states = collections.Counter(trial.state.name.lower() for trial in trials)
    tiles: list[tuple[Any, str]] = [
        (states[state], word)
        for state, word in STATES.items()
        if states[state] or state == "complete"
    ]
    content = [tag("p", "No trial is complete yet.")]
    if rows:
        best = rows[0]
        half = best.half_width
        value = f"{best.mean:.4g}" + ("" if half != half else f" ± {half:.2g}")
        tiles.insert(0, (value, spec["metric"]))
        content = [tag("pre", winner(best, spec))]
        if not spec["eval_only"]:
            runs = [t.user_attrs.get("run") for t in best.trials if t.value is not None]
            content.append(tag("p", f"Existing runs: {', '.join(filter(None, runs))}."))
    made = [
        tag("div", tag("b", n), tag("span", word), class_="tile") for n, word in tiles
    ]
    return [tag("div", *made, class_="tiles"), *content]


def _ranked(rows: Sequence[Row], spec) -> list[html.Html]:
    if not rows:
        return [tag("p", "No trial is complete yet.")]
    keys = _varied(rows)
    most = max(len(row.values) for row in rows)
    made = []
    for rank, row in enumerate(rows, 1):
        half = row.half_width
        low, high = row.mean - half, row.mean + half
        states = collections.Counter(t.state.name.lower() for t in row.trials)
        unlike = [
            f"{states[state]} {word}"
            for state, word in STATES.items()
            if states[state] and state != "complete"
        ]
        made.append(
            [
                rank,
                *(html.number(row.point[key]) for key in keys),
                f"{row.mean:.4g}",
                "–" if half != half else f"{low:.4g} to {high:.4g}",
                ", ".join([str(len(row.values)), *unlike]),
                " ".join(str(trial.number) for trial in row.trials),
            ]
        )
    head = ["rank", *keys, spec["metric"], "95% interval", "seeds", "trials"]
    words = (
        f"Means over {spec['seeds']!r} with Student's interval of the mean, which does not "
        "include the variation between evaluation people. "
    )
    if any(len(row.values) < most for row in rows):
        words += f"Rows with fewer than {most} seeds come last."
    return [tag("p", words, class_="aside"), html.table(head, made)]


def _label(point: Mapping[str, Any], keys: Sequence[str]) -> str:
    short = _short(keys)
    return " ".join(f"{short[k]}={html.number(point[k])}" for k in keys)


def _curves(trials, rows: Sequence[Row], spec) -> list[html.Html]:
    known = [trial for trial in trials if len(trial.intermediate_values) > 1]
    if not known:
        return [tag("p", "No trial has evaluations during training.")]
    keys = _varied(rows) if rows else []
    best = {
        trial.number: (place, row)
        for place, row in enumerate(rows[:MARKED])
        for trial in row.trials
    }

    def draw(axes):
        labeled = set()
        for trial in sorted(known, key=lambda t: t.number in best):
            steps, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
            if trial.number not in best:
                axes.plot(steps, values, color=html.INK, alpha=0.2, lw=1)
                continue
            place, row = best[trial.number]
            label = (
                None if place in labeled else f"{place + 1}: {_label(row.point, keys)}"
            )
            labeled.add(place)
            marker = "o" if len(steps) < 15 else ""
            color = html.COLOURS[place]
            axes.plot(steps, values, color=color, label=label, marker=marker, ms=3)
        axes.set_xlabel("batch")
        if labeled:
            axes.figure.legend(loc="outside lower center", ncols=1)

    chart = html.chart(spec["metric"], draw, 2.6 + 0.2 * min(len(rows), MARKED))
    words = f"Colored: all seeds of the best {min(MARKED, len(rows))} rows."
    return [tag("p", words, class_="aside"), tag("div", chart, class_="charts large")]


def importances(study, trials, spec) -> dict[str, float]:
    """Returns the relative importance of each key for the best trials (PED-ANOVA,
    arXiv:2304.10255); {} if too few trials are complete."""
    import optuna

    complete = [t for t in trials if t.state.name == "COMPLETE"]
    keys = [k for k in spec["space"] if len({t.params[k] for t in complete}) > 1]
    if len(complete) < 4 or len(keys) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=keys
        )
    except (ValueError, RuntimeError):
        return {}


def _importances(study, trials, spec) -> list[html.Html]:
    found = importances(study, trials, spec)
    if not found or not sum(found.values()):
        words = "Importances require four complete trials and two keys that vary."
        return [tag("p", words)]
    names = sorted(found, key=lambda key: found[key])

    def draw(axes):
        axes.barh(names, [100 * found[name] for name in names], color=html.COLOURS[0])
        axes.set_xlabel("%")
        axes.grid(axis="y", visible=False)

    words = (
        "How much the best tenth of the trials differs from all, by key (PED-ANOVA). The "
        "importance of the seed shows the level of noise."
    )
    chart = html.chart("relative importance", draw, 0.9 + 0.28 * len(names))
    return [tag("p", words, class_="aside"), tag("div", chart, class_="charts large")]


def heights(values: Sequence[Any], at: Mapping[str, Any]) -> tuple[list[float], dict]:
    """Returns positions of values on an axis from 0 to 1, and its ticks by position."""
    texts = at.get("texts")
    numbers = _numbers(texts if texts else values)
    if texts and (numbers is None or len(texts) > len(set(numbers))):
        order = {t: i / max(len(texts) - 1, 1) for i, t in enumerate(texts)}
        return [order[v] for v in values], {p: t for t, p in order.items()}
    assert numbers is not None
    ends = sorted(numbers) if texts else [at["low"], at["high"]]
    low, high = ends[0], ends[-1]
    log = at.get("log") or (low > 0 and high / low > 30)
    scale = math.log if log else float

    def place(value: float) -> float:
        return (scale(value) - scale(low)) / ((scale(high) - scale(low)) or 1)

    marks = {place(end): html.number(end) for end in ends}
    return [place(float(v)) for v in values], marks


def _numbers(values: Sequence[Any]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _coordinates(trials, spec) -> list[html.Html]:
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    keys = [k for k in spec["space"] if len({t.params.get(k) for t in complete}) > 1]
    if len(complete) < 2 or not keys:
        return [tag("p", "Parallel coordinates require two different complete trials.")]
    axes_of = {
        k: heights([t.params[k] for t in complete], spec["space"][k]) for k in keys
    }
    values = np.array([t.value for t in complete])
    low, high = float(values.min()), float(values.max())
    last = (values - low) / ((high - low) or 1)
    sign = 1 if spec["direction"] == "maximize" else -1

    def draw(axes):
        from matplotlib import colormaps

        lines = np.array([*(places for places, _ in axes_of.values()), last]).T
        good = last if sign > 0 else 1 - last
        for i in np.argsort(good):  # The best on top.
            axes.plot(lines[i], color=colormaps["viridis"](good[i]), lw=1.2, alpha=0.8)
        marks = [marks for _, marks in axes_of.values()]
        marks.append({0.0: f"{low:.4g}", 1.0: f"{high:.4g}"})
        for x, at in enumerate(marks):
            axes.axvline(x, color=html.INK, lw=0.8)
            for y, words in at.items():
                axes.text(x + 0.03, y, words, fontsize=7, va="center")
        names = [*_short(keys).values(), spec["metric"].split("@")[0]]
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(names) - 0.6)
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)

    chart = html.chart("one line per complete trial, the best brightest", draw, 3.2)
    return [tag("div", chart, class_="charts large")]


def _trials(trials, spec) -> list[html.Html]:
    head = ["trial", "state", spec["metric"], "batches", "minutes", *spec["space"]]
    made = []
    for trial in trials:
        last = trial.last_step
        value = trial.value
        if value is None and last is not None:
            value = trial.intermediate_values[last]
        state = trial.state.name.lower()
        state = STATES[state] if state == "fail" else state
        reason = trial.user_attrs.get("reason")
        took = trial.duration
        made.append(
            [
                trial.number,
                f"{state}: {reason}" if reason else state,
                html.number(value),
                html.number(last),
                "–" if took is None else f"{took.total_seconds() / 60:.1f}",
                *(html.number(trial.params.get(key)) for key in spec["space"]),
            ]
        )
    words = (
        "Minutes are from the first start of a trial to its end, including pauses. "
        "Incomplete trials show their last value."
    )
    return [tag("p", words, class_="aside"), html.table(head, made)]


def _about(spec) -> html.Html:
    facts = {
        "config": " ".join([spec["config"], *spec["overrides"]]) or "–",
        "evaluated run": spec["eval_only"] or "–",
        "metric": f"{spec['direction']} {spec['metric']}",
        "sampler": f"{spec['sampler']}, seed {spec['seed']}",
        "pruner": spec["pruner"],
        **{key: _space(at) for key, at in spec["space"].items()},
    }
    return html.facts(facts)


def _space(at: Mapping[str, Any]) -> str:
    if "texts" in at:
        return ("each of " if at["every"] else "one of ") + ", ".join(at["texts"])
    how = ", log scale" if at["log"] else ""
    step = f", step {at['step']:g}" if at["step"] else ""
    return f"{at['low']:g} to {at['high']:g}{how}{step}"
