"""Section "Learning curves": losses and key metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pose_jax.evaluation import text
from pose_jax.report import html
from pose_jax.report.files import Files
from pose_jax.report.html import tag
from pose_jax.report.scores import key_metric

Lines = dict[str, list[tuple[int, float]]]
"""Steps and values by label."""

MIN_POINTS = 3
"""Lines with fewer points are not drawn."""

_SPEED = {
    "lr": "learning rate",
    "images_per_second": "images per second",
    "input_bound_percent": "waiting for input, % of the time",
}
"""Titles of the curves that are collapsed by default."""


def curves(files: Files) -> html.Section:
    """Builds the section."""
    shown = panels(files.log)
    speed = [_chart(n, shown.pop(n)) for n in _SPEED.values() if n in shown]
    charts = [_chart(title, lines) for title, lines in shown.items()]
    words = "Values by step of each phase."
    content: list[Any] = [words, _grid(charts)] if charts else []
    evaluations = sum(any(map(key_metric, line)) for line in files.log)
    if not files.log:
        content.append("No metrics logged yet.")
    elif not charts or evaluations < MIN_POINTS:
        words = f"Curves require at least {MIN_POINTS} points; evaluations so far:"
        content.append(f"{words} {evaluations}.")
    if speed:
        content.append(html.details("Learning rate and throughput", _grid(speed)))
    return html.section("curves", "Learning curves", *content)


def panels(log: Sequence[Mapping[str, Any]]) -> dict[str, Lines]:
    """Returns the lines of each chart by its title: training logs, then key metrics.

    Lines with fewer than MIN_POINTS points and constant metrics are omitted.
    """
    several = len({line["phase"] for line in log}) > 1
    logged: dict[str, Lines] = {}
    metrics: dict[str, Lines] = {}
    for line in log:
        for name, value in line.items():
            if name in ("step", "phase", "time") or not isinstance(value, int | float):
                continue
            group, title, label = logged, _SPEED.get(name, name), ""
            if text.is_metric(name):
                if not key_metric(name):
                    continue
                # AP, AP50 and AP75 share a chart.
                group, title = metrics, re.sub(r"^((?:box_)?AP)\d\d", r"\1", name)
                label = name.split("@")[0] if "AP" in name.split("@")[0] else ""
            if several:
                label = f"{label} {line['phase']}".strip()
            lines = group.setdefault(title, {})
            lines.setdefault(label, []).append((line["step"], value))
    charts = {}
    for title, lines in {**logged, **metrics}.items():
        least = 2 if title in metrics else 1
        lines = {
            label: points
            for label, points in lines.items()
            if len(points) >= MIN_POINTS and len({y for _, y in points}) >= least
        }
        if lines:
            charts[title] = lines
    return charts


def _grid(charts: Sequence[html.Html]) -> html.Html:
    return tag("div", *charts, class_="charts")


def _chart(title: str, lines: Lines) -> html.Html:
    values = [y for points in lines.values() for _, y in points]
    steep = "loss" in title and min(values) > 0 and max(values) > 20 * min(values)

    def draw(axes):
        for label, points in list(lines.items())[: len(html.COLOURS)]:
            marker = "o" if len(points) < 15 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, ms=3, label=label)
        if steep:
            axes.set_yscale("log")
        axes.set_xlabel("step")
        if any(lines):  # Any label that is not empty.
            axes.figure.legend(loc="outside lower center", ncols=3)

    height = 2.4 + 0.25 * any(lines) * -(-len(lines) // 3)
    return html.chart(title + (", log scale" if steep else ""), draw, height)
