"""Hyperparameter sweeps: many trainings of one config, each with its own overrides.

Exports the names that sweep files import; `runner` runs studies, `summary` ranks trials.
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
