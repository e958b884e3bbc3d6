"""Hyperparameter sweeps: many trainings of one config, each with its own overrides.

What a sweep file imports is here; `runner` brings a study to its end, `summary` ranks it.
"""

from pose_jax.sweep.space import (
    Choice,
    Range,
    Space,
    Sweep,
    choice,
    grid,
    linear_range,
    log_range,
)

__all__ = [
    "Choice",
    "Range",
    "Space",
    "Sweep",
    "choice",
    "grid",
    "linear_range",
    "log_range",
]
