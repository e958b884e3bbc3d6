"""What a method shows of itself: its panels, for a PNG and for a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from pose_jax.data import readers
from pose_jax.data.table import Table
from pose_jax.drawing import people as drawing
from pose_jax.types import Method, Panel, Variables

_CELLS = 36
"""Pictures of one PNG at the most."""

Rows = list[list[tuple[str, np.ndarray]]]


def inspect(
    method: Method,
    variables: Variables,
    table: Table,
    config: readers.InputConfig,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """`Method.inspect` of some rows, with NumPy leaves, in their order."""
    plan = readers.Plan(
        table=table,
        view=method.view,
        config=dataclasses.replace(config, batch_size=len(rows)),
        rows=rows,
        training=False,
    )
    inputs = next(iter(readers.batches(plan))).inputs
    # Once only: compiling it well would take longer than it runs.
    quick = {"xla_backend_optimization_level": 0}
    return jax.device_get(
        jax.jit(method.inspect, compiler_options=quick)(variables, inputs)
    )


def drawn(
    method: Method, inspected: dict[str, np.ndarray]
) -> Iterator[tuple[Panel, Rows]]:
    """Each panel of a method, and its titles and pictures of each row."""
    alignment = getattr(method.view, "alignment", "stride")
    for panel in method.panels:
        rows = panel.draw(inspected, method.keypoints, alignment)
        yield panel, [list(row) for row in rows]


def sheet(rows: Rows) -> np.ndarray:
    """The pictures of evenly chosen rows side by side, uint8 [h, w, 3]."""
    across = len(rows[0])
    count = min(len(rows), max(1, _CELLS // across))
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    cells = [picture for i in chosen for _, picture in rows[i]]
    titles = [title for i in chosen for title, _ in rows[i]]
    columns = across * (2 if across < 5 else 1)
    return drawing.sheet(cells, columns=columns, titles=titles)
