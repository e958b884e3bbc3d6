"""Metrics as text: what they are called, a table of them, a line of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pose_jax.evaluation import boxes, poses

FORMULAS = {**poses.FORMULAS, **boxes.FORMULAS}
"""What each NAME of a metric is."""


def formula(full: str) -> str:
    """What a metric is; "" for parts of others."""
    return FORMULAS.get(full.split("@")[0], "")


def is_metric(name: str) -> bool:
    """Whether a number of this name in a log is an evaluation's, not the training's."""
    return "@" in name or name in boxes.FORMULAS


_LOGGED = (
    "AP", "AP50", "AP75", "AR", "PCK", "PCKh", "PCP", "pixel_error",
    "box_AP", "box_AP50", "box_AP75", "box_AR",
)  # fmt: skip
_SHOWN = (*_LOGGED, "PCP_limbs", "flipped_people", "box_APs", "box_APm", "box_APl")


def shown(metrics: Mapping[str, float], names: Sequence[str] = _SHOWN) -> list[str]:
    """The metrics worth a line of a table, in their order."""
    return [name for name in metrics if name.split("@")[0] in names]


def one_line(step: int, metrics: Mapping[str, float]) -> str:
    """An evaluation as one line of a log."""
    values = [f"{name} {metrics[name]:.4g}" for name in shown(metrics, _LOGGED)]
    return f"evaluation at step {step}: " + "  ".join(values)


def table_of(found: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics side by side: a row a metric, a column a decoder; then their formulas."""
    names = shown(next(iter(found.values())))
    rows = [["metric", *found]]
    rows += [[name, *(f"{m[name]:.3f}" for m in found.values())] for name in names]
    bases = dict.fromkeys(name.split("@")[0] for name in names)
    lines = [*_aligned(rows), *(f"  {base}: {FORMULAS[base]}" for base in bases)]
    return "\n".join(lines)


def keypoint_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`per_keypoint` as text."""

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
