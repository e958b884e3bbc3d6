"""Pictures of predictions and the panels of a method, for PNG files and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax.data import readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import Table
from pose_jax.drawing import curves as curves_lib
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.types import Method, Panel, Variables

_CELLS = 36
"""Maximum number of pictures in one PNG file."""

Rows = list[list[tuple[str, np.ndarray]]]


def inspect(
    method: Method,
    variables: Variables,
    table: Table,
    config: InputConfig,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """Applies `Method.inspect` to rows; returns NumPy leaves in the order of `rows`."""
    plan = Plan(
        table=table,
        view=method.view,
        config=dataclasses.replace(config, batch_size=len(rows)),
        rows=rows,
        training=False,
    )
    inputs = next(iter(readers.batches(plan))).inputs
    # Runs once: full optimization would take longer than it saves.
    quick = {"xla_backend_optimization_level": 0}
    return jax.device_get(
        jax.jit(method.inspect, compiler_options=quick)(variables, inputs)
    )


def drawn(
    method: Method, inspected: dict[str, np.ndarray]
) -> Iterator[tuple[Panel, Rows]]:
    """Yields each panel of a method, with titles and pictures per row."""
    for panel in method.panels:
        rows = panel.draw(inspected, method.keypoints, method.view.alignment)
        yield panel, [list(row) for row in rows]


def draw_run(
    run: Path,
    method: Method,
    evaluation: Any,
    variables: Variables,
    config: InputConfig,
) -> Path:
    """Draws RUN/pictures: predictions, the worst of them, the panels of the method for some
    rows, and learning curves.

    Args:
      run: the run directory.
      method: the method whose panels are drawn.
      evaluation: an `evaluate.Evaluation`.
      variables: the weights.
      config: the input config.
    """
    out = Path(run) / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    draw_predictions(out, evaluation)
    if method.panels:
        rows = evaluation.predictions.row
        rows = rows[evenly(len(rows), 12)]
        inspected = inspect(method, variables, evaluation.table, config, rows)
        for panel, pictures in drawn(method, inspected):
            sheet_lib.save_png(out / f"{panel.file}.png", sheet(pictures))
    curves_lib.curves(Path(run) / "metrics.jsonl", out / "curves.png")
    return out


def draw_predictions(out: Path, evaluation: Any) -> None:
    """Draws predictions.png (24 evenly spaced images) and, with labels, worst.png."""
    kind, args = evaluation.kind, (evaluation.table, evaluation.predictions)
    images = kind.images(*args)
    cells = [kind.draw(*args, i, side=320) for i in images[evenly(len(images), 24)]]
    sheet_lib.save_png(out / "predictions.png", sheet_lib.sheet(cells, columns=6))
    if (worst := kind.worst(*args)) is not None:
        sheet_lib.save_png(out / "worst.png", worst)


def evenly(total: int, count: int) -> np.ndarray:
    """Returns at most `count` evenly spaced indices from 0 to total - 1."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def sheet(rows: Rows) -> np.ndarray:
    """Arranges the pictures of evenly spaced rows in a sheet, uint8 [h, w, 3]."""
    across = len(rows[0])
    count = min(len(rows), max(1, _CELLS // across))
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    cells = [picture for i in chosen for _, picture in rows[i]]
    titles = [title for i in chosen for title, _ in rows[i]]
    columns = across * (2 if across < 5 else 1)
    return sheet_lib.sheet(cells, columns=columns, titles=titles)
