"""Saving the states of a phase: at intervals, and when an error ends the training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pose_jax import sharding as sharding_lib
from pose_jax.errors import InputError, Stopped, one_line
from pose_jax.runs import directory as run_directory
from pose_jax.training.config import Sections

_ASKED_EVERY = 10
"""Number of steps after which several processes ask the first one for the time."""


def due(step: int, every: int, last: int) -> bool:
    """Returns whether something that happens every so many steps, and last, is due."""
    return step == last or (every > 0 and step % every == 0 and step > 0)


class DivergedError(Exception):
    """Something is not finite.

    Attributes:
      step: the step whose state leads to it.
      advice: further advice, "" for none.
    """

    def __init__(self, what: str, step: int, advice: str = "") -> None:
        super().__init__(what)
        self.step, self.advice = step, advice


def all_finite(tree: Any) -> bool:
    """Returns whether all numbers of a pytree of host arrays are finite."""
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves(tree))
    return all(
        bool(np.isfinite(leaf).all())
        for leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


class Saves:
    """Saves the states of a phase that begins at step `start`."""

    def __init__(
        self, run: Path, phase: str, sections: Sections, store, log_lines, start: int
    ) -> None:
        self._run, self._phase, self._sections = run, phase, sections
        self._store, self._log, self._start = store, log_lines, start
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Returns whether the state after `step` is saved; equal in all processes."""
        train = self._sections.train
        if due(step, train.checkpoint_every_steps, train.steps):
            return True
        if not train.checkpoint_every_minutes:
            return False
        if jax.process_count() > 1 and step % _ASKED_EVERY:
            return False
        waited = time.monotonic() - self._last
        return sharding_lib.decided_by_first(
            waited >= 60 * train.checkpoint_every_minutes
        )

    def save(self, step: int, state: Any) -> None:
        """Saves a state, after the log lines of its steps.

        Raises:
          DivergedError: its weights or the loss that led to it are not finite.
        """
        self._log.settle()
        start = time.perf_counter()
        state = jax.device_get(state)
        if not all_finite(state.weights()):
            raise DivergedError(f"the weights after step {step} are not finite", step)
        self._store.save(step, state)
        self._last = time.monotonic()
        self._log.window.away += time.perf_counter() - start

    @contextlib.contextmanager
    def on_error(self, state: Any) -> Iterator[None]:
        """Saves the state if there is an error in the block."""
        try:
            yield
        except Stopped:
            raise
        except DivergedError as error:
            raise self._diverged(error) from None
        except Exception:
            # With several processes, the others do not know of the error and save nothing.
            if jax.process_count() == 1:
                self._keep(state)
            raise

    def _keep(self, state: Any) -> None:
        try:
            step = int(state.step)
            if step > self._start:
                self.save(step, state)
            self._store.wait()
            if step:
                self._log.progress.say(
                    f"phase {self._phase!r}: stopped by an error after step {step}; the "
                    "state is saved"
                )
        except Exception as error:
            logging.warning(
                "phase %r: the state of the last step could not be saved: %s",
                self._phase, one_line(error, 300),
            )  # fmt: skip

    def _diverged(self, error: DivergedError) -> InputError:
        """Sets the state aside that led to the error, and returns what is reported."""
        aside = self._store.set_aside(error.step, "diverged")
        lr = self._sections.optimizer.lr
        run_directory.mark_diverged(self._run, lr)
        last = self._store.latest_step()
        resumes = "starts again" if last is None else f"continues from step {last}"
        moved = f" The state of step {error.step} is now {aside}." if aside else ""
        return InputError(
            f"phase {self._phase!r}: {error}: the training has diverged with learning rate "
            f"{lr:g}.{moved} Reduce config.optimizer.lr: the same command with a lower one "
            f"{resumes}. Or set config.optimizer.clip_norm in another --run."
            f"{error.advice}"
        )
