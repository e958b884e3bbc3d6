"""The width of a network's peaks, beside the one that its decoder assumes."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from pose_jax.codecs import gaussian
from pose_jax.data.plan import InputConfig
from pose_jax.data.table import Table
from pose_jax.evaluation import pictures
from pose_jax.types import Method, Variables

_PEOPLE = 16
"""People whose maps are measured: with 17 keypoints, the mean is within a few percent."""


def note(
    method: Method, variables: Variables, table: Table, config: InputConfig, rows: Any
) -> str | None:
    """Returns both widths in words; None if the method's decoder assumes none."""
    assumed = getattr(method, "assumed_sigma", None)
    if assumed is None or not len(rows):
        return None
    return described(measure(method, variables, table, config, rows), assumed)


def measure(
    method: Method, variables: Variables, table: Table, config: InputConfig, rows: Any
) -> float:
    """Returns the width of the peaks of some rows, heatmap pixels; NaN: no clear peak."""
    rows = np.asarray(rows)[pictures.evenly(len(rows), _PEOPLE)]
    maps = pictures.inspect(method, variables, table, config, rows)["heatmaps"]
    return float(gaussian.estimate_sigma(jnp.asarray(maps)))


def described(found: float, assumed: float) -> str:
    """Says both widths, and whether they differ by a third."""
    if not math.isfinite(found):
        return "the heatmaps have no clear peaks: their width is not known."
    text = (
        f"the heatmaps' peaks have a standard deviation of {found:.2f} pixels, the decoder "
        f"assumes {assumed:.2f}"
    )
    if 3 / 4 <= found / assumed <= 4 / 3:
        return f"{text}."
    return f"{text}: they differ by a third or more; try another kernel_size."
