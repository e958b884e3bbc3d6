"""Plots of metrics as PNG files, by Matplotlib without a display."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing

HEADLINE = 0.2
"""The threshold reported in tables and marked in curves."""

_FAMILY = re.compile(
    "(box_)?A[PR]|PCK_people|PCKh?|PDJ|PCP_(loose|sticks)|PCP|flipped_people"
)
"""Beginnings of names; metrics with the same one have one unit and share a panel."""


def curves(metrics_path: Path | str, out: Path | str) -> None:
    """Plots every number of a run's metrics.jsonl over its steps.

    A line per phase; the kinds of a metric (AP50, APm; PCP of each limb) share a panel.

    Args:
      metrics_path: one JSON object per line, with "step", "phase" and numbers.
      out: the PNG to write; its folder is created.
    """
    from matplotlib.figure import Figure  # No display, no global state of pyplot.

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for text in Path(metrics_path).read_text().splitlines():
        line = json.loads(text)
        for name, value in line.items():
            if name in ("step", "phase", "time") or not _is_number(value):
                continue
            panel, label = name, line.get("phase", "")
            if family := _FAMILY.match(name):
                kind, _, source = name.rpartition("@")
                panel, label = f"{family[0]}@{source}", f"{kind} {label}".strip()
                if value < 0:  # AP of a size that the data do not have.
                    continue
            lines = panels.setdefault(panel, {})
            lines.setdefault(label, []).append((line["step"], value))
    columns = min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), layout="constrained")
    for i, (name, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for label, points in lines.items():
            marker = "." if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=5 if len(lines) > 6 else 7)
    _save(figure, out, dpi=100)


def _save(figure: Any, out: Path | str, *, dpi: int) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    writing.write(out, content.getvalue())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def pdj_curves(
    found: Mapping[str, Mapping[str, np.ndarray]],
    out: Path | str,
    *,
    thresholds: Sequence[float],
    title: str = "",
) -> None:
    """Plots PDJ over its threshold: a panel per joint, a line per stage, run or model.

    With up to five lines, their values at 0.2 are printed in their colors and order.

    Args:
      found: results of `evaluation.poses.pdj_curve` by line label: fractions [t] by
        joint. A joint that is missing in one of them is plotted for the others.
      out: the PNG to write; its folder is created.
      thresholds: [t] fractions of the torso's diameter, ascending.
      title: title of the figure.

    Raises:
      ValueError: there is no curve, or one is not as long as the thresholds.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    grid = np.asarray(thresholds, np.float64)
    panels = dict.fromkeys(joint for curves in found.values() for joint in curves)
    if not panels:
        raise ValueError("there is no PDJ curve to plot.")
    for label, curves in found.items():
        for joint, curve in curves.items():
            if np.shape(curve) != grid.shape:
                raise ValueError(
                    f"{label}, {joint}: got {np.shape(curve)} values for "
                    f"{grid.shape} thresholds."
                )
    if "mean" in panels:  # Last, even after joints of later lines.
        panels["mean"] = panels.pop("mean")
    # As few empty cells as possible: nine joints need three rows, ten need two.
    columns = min(range(3, 6), key=lambda c: (-len(panels) % c, c))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    styles = [
        {"color": colormaps["tab10"](i % 10), "ls": ("-", "--", ":")[i // 10 % 3]}
        for i in range(len(found))
    ]
    width = 2.7 * max(columns, 2)
    longest = max(map(len, found))
    side_by_side = max(1, min(len(found), int(width / (0.8 + 0.08 * longest))))
    height = 2.3 * rows + 0.6 + 0.2 * -(-len(found) // side_by_side)
    figure = Figure(figsize=(width, height), layout="constrained")
    numbers = len(found) <= 5 and grid[0] <= HEADLINE <= grid[-1]
    lines = {}
    for i, joint in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.axvline(HEADLINE, color="0.6", lw=0.8, ls=":")
        values = []
        for (label, curves), style in zip(found.items(), styles, strict=True):
            if joint in curves:
                share = 100 * np.asarray(curves[joint])
                (lines[label],) = axes.plot(grid, share, lw=1.6, **style)
                values.append((np.interp(HEADLINE, grid, share), style["color"]))
        if numbers:
            for place, (value, color) in enumerate(reversed(values)):
                axes.text(
                    0.97, 0.04 + 0.1 * place, f"{value:.1f}", color=color, fontsize=8,
                    ha="right", transform=axes.transAxes,
                    bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1},
                )  # fmt: skip
        heavy = "bold" if joint == "mean" else "normal"
        axes.set_title(joint.replace("_", " "), fontsize=10, fontweight=heavy)
        axes.set_xlim(grid[0], grid[-1])
        axes.set_ylim(0, 100)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    figure.supxlabel("distance / torso diameter", fontsize=10)
    detected = "joints detected, %" + ("; numbers: at 0.2" if numbers else "")
    figure.supylabel(detected, fontsize=10)
    # A legend title, since Matplotlib would let a figure title overlap the legend.
    figure.legend(
        lines.values(), lines.keys(), title=title or None, title_fontsize=11,
        loc="outside upper center", fontsize=9, frameon=False,
        ncols=side_by_side,
    )  # fmt: skip
    _save(figure, out, dpi=110)
