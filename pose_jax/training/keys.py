"""Random keys of a run, derived from (seed, phase) without state.

The code that uses a key folds in epoch, row or step.
"""

from __future__ import annotations

import jax


def phase_keys(seed: int, number: int) -> tuple[jax.Array, jax.Array]:
    """Returns the initialization key and the step key of a phase."""
    init_key, step_key = jax.random.split(
        jax.random.fold_in(jax.random.key(seed), number)
    )
    return init_key, step_key


def augment_key(step_key: jax.Array) -> jax.Array:
    """Returns the key for `Phase.prepare`, which folds in epoch and row itself."""
    return jax.random.fold_in(step_key, 0)
