"""Where a run's randomness comes from: keys of (seed, phase), no state.

What varies by epoch, row or step is folded in by whoever uses the key.
"""

from __future__ import annotations

import jax


def phase_keys(seed: int, number: int) -> tuple[jax.Array, jax.Array]:
    """The key that initialises the phase of this number, and the key of its steps."""
    init_key, step_key = jax.random.split(
        jax.random.fold_in(jax.random.key(seed), number)
    )
    return init_key, step_key


def augment_key(step_key: jax.Array) -> jax.Array:
    """What `Phase.prepare` gets; the same at every step, for it folds in what changes."""
    return jax.random.fold_in(step_key, 0)
