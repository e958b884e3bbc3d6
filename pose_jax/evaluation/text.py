"""Metrics as text: definitions, tables and log lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pose_jax.evaluation import boxes, poses

FORMULAS = {**poses.FORMULAS, **boxes.FORMULAS}
"""Definitions of all metrics by NAME."""


def whole(name: str) -> str:
    """Returns the name of a metric without the number of compared keypoints, and without a
    sigma of all."""
    return re.sub(r"\[(\d+ keypoints|sigma=[^]]*)\]", "", name)


def base(name: str) -> str:
    """Returns NAME of a metric's full name, with the length of "PCK@box"."""
    name, *parts = whole(name).split("@")
    return f"{name}@box" if "box" in parts else name


def formula(full: str) -> str:
    """Returns the definition of a metric; "" if it has none of its own."""
    return FORMULAS.get(base(full), "")


def best_mode(full: str) -> Literal["max", "min"]:
    """Returns whether the highest or the lowest value of a metric is the best."""
    name = base(full)
    lower = name.endswith("_error") or name.startswith("flipped_people")
    return "min" if lower else "max"


def is_metric(name: str) -> bool:
    """Returns whether a name in a log is a metric of an evaluation, not of training."""
    return "@" in name or name in boxes.FORMULAS


_LOGGED = (
    "AP", "AP50", "AP75", "AR", "PCK", "PCK@box", "PCKh", "PCP", "pixel_error",
    "box_AP", "box_AP50", "box_AP75", "box_AR",
)  # fmt: skip
_SHOWN = (*_LOGGED, "PCP_limbs", "flipped_people", "box_APs", "box_APm", "box_APl")


def shown(metrics: Mapping[str, float], names: Sequence[str] = _SHOWN) -> list[str]:
    """Selects the metrics to show in a table, in their order."""
    return [name for name in metrics if base(name) in names]


def one_line(step: int, metrics: Mapping[str, float]) -> str:
    """Formats an evaluation as one log line."""
    values = [f"{name} {metrics[name]:.4g}" for name in shown(metrics, _LOGGED)]
    return f"evaluation at step {step}: " + "  ".join(values)


def table_of(found: Mapping[str, Mapping[str, float]]) -> str:
    """Formats metrics as a table of metrics by decoders, followed by their definitions."""
    names = shown(next(iter(found.values())))
    rows = [["metric", *found]]
    rows += [[name, *(f"{m[name]:.3f}" for m in found.values())] for name in names]
    bases = dict.fromkeys(base(name) for name in names)
    lines = [*_aligned(rows), *(f"  {name}: {FORMULAS[name]}" for name in bases)]
    return "\n".join(lines)


def keypoint_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the result of `per_keypoint` as text."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3f}"
        return "-" if value is None else str(value)

    heads = [name.replace("_", " ") for name in rows[0]]
    heads[0] = "keypoint"
    return "\n".join(_aligned([heads, *([*map(cell, row.values())] for row in rows)]))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
