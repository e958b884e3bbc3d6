"""Checkpoints of training states. No other module uses orbax.

States are stored as host arrays under their path in the tree, independent of the devices
used. Paths are those of `trees`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from absl import logging
from flax.traverse_util import unflatten_dict

from pose_jax.errors import ConfigError, InputError, did_you_mean, disk_full, one_line
from pose_jax.trees import TreePath, compare_trees, first, flatten


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one phase, `directory/<step>/`, written in the background.

    Keeps the latest `keep_latest` checkpoints and the one with the best metric. Only one
    process group may open a directory at a time: incomplete checkpoints of an interrupted
    run are removed on opening. Use it in a `with` statement, which waits for pending
    writes on exceptions too.

    With `read_only`, nothing is modified and incomplete checkpoints are ignored.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_latest: int = 2,
        best_metric: str | None = None,
        best_mode: Literal["max", "min"] = "max",
        read_only: bool = False,
    ):
        # Slow to import, and not needed to read a finished model.
        from orbax.checkpoint import v1 as ocp

        if keep_latest < 1:
            raise ConfigError(f"keep_latest must be at least 1; got {keep_latest}.")
        self._directory = Path(directory).absolute()
        self._best_metric = best_metric
        self._sign = -1.0 if best_mode == "min" else 1.0
        self._saved: set[int] = set()
        self._read_only = read_only
        if jax.process_index() == 0 and not read_only:
            _remove_incomplete(self._directory)
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_latest)]
        if best_metric is not None:
            best = policies.BestN(
                get_metric_fn=self._rank, n=1, keep_checkpoints_without_metrics=False
            )
            keep.append(best)
        logging.get_absl_logger().addFilter(_raised_anyway)
        any_of: Any = policies.AnyPreservationPolicy(keep)
        self._checkpointer = ocp.training.Checkpointer(
            str(self._directory),
            preservation_policy=any_of,
            cleanup_tmp_directories=not read_only,
        )

    def _rank(self, metrics: Any) -> float:
        value = self._sign * metrics[self._best_metric]
        return -math.inf if math.isnan(value) else value

    def save(
        self, step: int, state: Any, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves `state`, a pytree of arrays, asynchronously.

        The values are copied before it returns: `state` may be donated right after. Saving
        a step again replaces it, unless this object has already saved it. `metrics` are
        those of an evaluation at this step, if there was one.

        Raises:
          ConfigError: `metrics` has no `best_metric`.
          InputError: the disk is full, now or during the previous write.
        """
        assert not self._read_only
        if step in self._saved:
            return
        name = self._best_metric
        best: Any = None
        if name is not None and metrics:
            if name not in metrics:
                raise ConfigError(
                    f"best_metric: the evaluation has no metric {name!r}."
                    + did_you_mean(name, metrics)
                )
            best = {name: float(metrics[name])}
        values = _with_values(jax.device_get(state))
        with self._writing():
            self._check_space(values)
            self._checkpointer.save_async(
                step, unflatten_dict(values), force=True, overwrite=True, metrics=best
            )
        self._saved.add(step)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of an evaluation next to the checkpoints."""
        known = {**self._recorded(), str(step): dict(metrics)}
        if jax.process_index() == 0:
            new = self._metrics_file.with_suffix(".new")
            new.write_text(json.dumps(known), encoding="utf-8")
            new.replace(self._metrics_file)

    def metrics(self, step: int) -> dict[str, float] | None:
        """Returns the recorded metrics of a step; None if it was not evaluated."""
        return self._recorded().get(str(step))

    @property
    def _metrics_file(self) -> Path:
        return self._directory.with_suffix(".json")

    def _recorded(self) -> dict[str, dict[str, float]]:
        try:
            return json.loads(self._metrics_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def steps(self) -> list[int]:
        """Returns all steps that can be restored, ascending."""
        self.wait()
        complete = set(whole_steps(self._directory))
        return [c.step for c in self._checkpointer.checkpoints if c.step in complete]

    def latest_step(self) -> int | None:
        """Returns the highest step, or None if nothing has been saved."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Returns the kept step with the best metric; None if no step has it."""
        self.wait()
        scored = [c for c in self._checkpointer.checkpoints if c.metrics is not None]
        if self._best_metric is None or not scored:
            return None
        return max(scored, key=lambda c: (self._rank(c.metrics), c.step)).step

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """Restores a state exactly.

        Args:
          abstract_state: the expected state: a pytree of arrays or their shapes.
          step: the step to restore; None: the latest.

        Returns:
          A pytree like `abstract_state`, of NumPy arrays.

        Raises:
          InputError: no such step, or it has another tree.
        """
        steps = self.steps()
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            raise InputError(
                f"{self._directory}: no checkpoint {'' if step is None else step}; "
                f"existing steps: {', '.join(map(str, steps)) or 'none'}."
            )
        expected = _with_values(abstract_state)
        try:
            stored = self._checkpointer.metadata(step).metadata
        except Exception as error:  # orbax raises many types for unusable files.
            raise self._broken(step, error) from error
        differences = compare_trees(unflatten_dict(expected), stored)
        if differences:
            raise InputError(
                f"{self._directory / str(step)} is of another model or optimizer: "
                f"{first(differences)}. Use its config, or another run directory."
            )
        target = {p: np.empty(v.shape, v.dtype) for p, v in expected.items()}
        try:
            loaded = flatten(self._checkpointer.load(step, unflatten_dict(target)))
        except Exception as error:
            raise self._broken(step, error) from error
        leaves = [
            loaded[path] if path in loaded else np.zeros(leaf.shape, leaf.dtype)
            for path, leaf in flatten(abstract_state).items()
        ]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)

    def _broken(self, step: int, error: Exception) -> InputError:
        return InputError(
            f"{self._directory / str(step)} cannot be read ({one_line(error, 200)}): "
            "delete it to resume from the previous checkpoint."
        )

    def wait(self) -> None:
        """Waits until all saved states are on disk; raises errors of their writes."""
        with self._writing():
            self._checkpointer.wait()

    def close(self) -> None:
        """Waits for pending writes, then closes the directory."""
        with self._writing():
            self._checkpointer.close()

    def _check_space(self, values: Mapping[TreePath, Any]) -> None:
        """Raises before writing if the disk is too small; quotas are detected later."""
        needed = sum(np.asarray(value).nbytes for value in values.values())
        if shutil.disk_usage(self._directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Converts errors caused by a full disk to an InputError."""
        try:
            yield
        except Exception as error:
            reason = disk_full(error)
            if reason is None:
                raise
            last = max(whole_steps(self._directory), default="(none)")
            raise InputError(
                f"{self._directory}: a checkpoint could not be written: {reason}. The "
                f"last complete checkpoint is step {last}. Free some space and run the "
                "same command again to resume from it."
            ) from error

    def __exit__(self, *_: object) -> None:
        self.close()


def _raised_anyway(record: Any) -> bool:
    """Hides tracebacks that orbax's threads log for errors which `wait` raises anyway."""
    return "_SignalingThread.run() raised" not in record.getMessage()


def whole_steps(directory: Path) -> list[int]:
    """Returns the steps of all complete checkpoints in a directory, ascending."""
    paths = Path(directory).glob("[0-9]*")
    return sorted(int(path.name) for path in paths if _is_complete(path))


def _remove_incomplete(directory: Path) -> None:
    for path in directory.glob("[0-9]*"):
        if path.name.isdigit() and not _is_complete(path):
            logging.warning("%s is an incomplete checkpoint: removed.", path)
            shutil.rmtree(path)


def _is_complete(path: Path) -> bool:
    """Returns whether a step directory has the files that are written last."""
    needed = (path / "_CHECKPOINT_METADATA", path / "state" / "_METADATA")
    return path.name.isdigit() and all(file.exists() for file in needed)


def _with_values(tree: Any) -> dict[TreePath, Any]:
    """Returns the leaves by path, without empty arrays, which orbax rejects."""
    return {p: leaf for p, leaf in flatten(tree).items() if math.prod(leaf.shape)}
