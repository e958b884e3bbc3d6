"""Checkpoints of training states. No other module uses orbax.

States are stored as host arrays under their path in the tree, independent of the devices
used, with the SHA-256 of every array. Paths are those of `trees`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging as standard_logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from absl import logging
from flax.traverse_util import unflatten_dict

from pose_jax.errors import ConfigError, InputError, did_you_mean, disk_full, one_line
from pose_jax.runs import digests
from pose_jax.trees import TreePath, compare_trees, first, flatten

_METADATA = "_CHECKPOINT_METADATA"
Mode: TypeAlias = Literal["max", "min"]
"""Whether the highest or the lowest value of a metric is the best."""


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one phase, `directory/<step>/`, written in the background.

    Keeps the latest `keep_latest` checkpoints and the one with the best metric. Only one
    process group may open a directory at a time: incomplete checkpoints of an interrupted
    run are removed on opening, damaged ones after the next `save`. Use it in a `with`
    statement, which waits for pending writes on exceptions too.

    With `read_only`, nothing is modified and incomplete checkpoints are ignored.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_latest: int = 2,
        best_metric: str | None = None,
        best_mode: Mode = "max",
        read_only: bool = False,
    ):
        # Slow to import, and not needed to read a finished model.
        from orbax.checkpoint import v1 as ocp

        if keep_latest < 1:
            raise ConfigError(f"keep_latest must be at least 1; got {keep_latest}.")
        self._directory = Path(directory).absolute()
        self._keep_latest = keep_latest
        self._best_metric, self._best_mode = best_metric, best_mode
        self._saved: set[int] = set()
        self._damaged: dict[int, str] = {}
        self._read_metrics()
        if not read_only and not whole_steps(self._directory):
            self._metrics = {}  # Their states were removed: all start again.
        if jax.process_index() == 0 and not read_only:
            _remove_incomplete(self._directory)
        for logger in (
            logging.get_absl_logger(),
            standard_logging.getLogger("asyncio"),
        ):
            logger.addFilter(_raised_anyway)
        self._resources = contextlib.ExitStack()
        self._root = self._resources.enter_context(_plain_path(self._directory))
        self._checkpointer = None
        if not read_only:
            self._checkpointer = ocp.training.Checkpointer(
                str(self._root),
                preservation_policy=_Preservation(self._kept),  # pyright: ignore
                cleanup_tmp_directories=True,
                lightweight_initialize=True,  # The metadata may be damaged.
            )

    def _kept(self, steps: Sequence[int]) -> set[int]:
        """Returns which of these steps, ascending, are kept."""
        good = [step for step in steps if step not in self._damaged]
        best = self._best(good)
        return {*good[-self._keep_latest :], *([] if best is None else [best])}

    def _best(self, steps: Sequence[int]) -> int | None:
        """Returns the step with the best metric, the later of equals; None without any."""
        scored = [step for step in steps if self._best_metric in self.metrics(step, {})]
        return max(scored, key=lambda step: (self._rank(step), step), default=None)

    def _rank(self, step: int) -> float:
        value = self._metrics[step][self._best_metric or ""]
        value = -value if self._best_mode == "min" else value
        return -math.inf if math.isnan(value) else value

    def save(self, step: int, state: Any) -> None:
        """Saves `state`, a pytree of arrays, asynchronously.

        The values are copied before it returns: `state` may be donated right after. Saving
        a step again replaces it, unless this object has already saved it.

        Raises:
          InputError: the disk is full, now or during the previous write.
        """
        assert self._checkpointer is not None, "read-only"
        if step in self._saved:
            return
        values = _with_values(jax.device_get(state))
        arrays = {"/".join(p): _described(value) for p, value in values.items()}
        with self._writing():
            self._check_space(values)
            self._checkpointer.save_async(
                step,
                unflatten_dict(values),
                force=True,
                overwrite=True,
                custom_metadata=digests.sealed({"arrays": arrays}),
            )
        self._saved.add(step)
        self._damaged.pop(step, None)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of an evaluation of a saved state.

        Raises:
          ConfigError: `metrics` has no `best_metric`.
        """
        name = self._best_metric
        if name is not None and metrics and name not in metrics:
            raise ConfigError(
                f"best_metric: the evaluation has no metric {name!r}."
                + did_you_mean(name, metrics)
            )
        self._metrics[step] = {name: float(value) for name, value in metrics.items()}
        self._write_metrics()

    def without_improvement(self) -> int:
        """Returns how many of the latest evaluations are not better than all before."""
        best, count = None, 0
        for step in sorted(self._metrics):
            if self._best_metric in self._metrics[step]:
                rank = self._rank(step)
                count = 0 if best is None or rank > best else count + 1
                best = rank if best is None else max(best, rank)
        return count

    def adopt(self, other: Checkpoints, state: Any, step: int) -> None:
        """Takes over a state of another directory, its best state before, and the metrics
        of all evaluations until then."""
        self._metrics = {s: m for s, m in other._metrics.items() if s <= step}
        best = self._best([s for s in other.steps() if s < step])
        if best is not None:
            self.save(best, other.restore(state, best))
        self.save(step, state)
        self.wait()
        self._write_metrics()

    def _write_metrics(self) -> None:
        if jax.process_index() == 0:
            content = {str(step): self._metrics[step] for step in sorted(self._metrics)}
            best = [self._best_metric, self._best_mode]
            sealed = digests.sealed({"metrics": content, "best": best})
            new = self._metrics_file.with_suffix(".new")
            new.write_text(json.dumps(sealed), "utf-8")
            new.replace(self._metrics_file)

    def metrics(self, step: int, default: Any = None) -> Any:
        """Returns the recorded metrics of a step; `default` if it was not evaluated."""
        return self._metrics.get(step, default)

    @property
    def _metrics_file(self) -> Path:
        return self._directory.with_name(f"{self._directory.name}.json")

    def _read_metrics(self) -> None:
        """Reads the metrics of all evaluations; and which is best, unless it is given."""
        self._metrics: dict[int, dict[str, float]] = {}
        try:
            found = json.loads(self._metrics_file.read_text(encoding="utf-8"))
            if not all(name.isdecimal() for name in found):  # Else of an older run.
                found = digests.opened(found)
                if self._best_metric is None and "best" in found:
                    self._best_metric, self._best_mode = found["best"]
                found = found["metrics"]
            self._metrics = {int(step): metrics for step, metrics in found.items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            logging.warning(
                "%s is damaged (%s): earlier evaluations do not count.",
                self._metrics_file, one_line(error, 200),
            )  # fmt: skip

    def steps(self) -> list[int]:
        """Returns all steps that can be restored, ascending."""
        self.wait()
        complete = whole_steps(self._directory)
        return [step for step in complete if step not in self._damaged]

    def latest_step(self) -> int | None:
        """Returns the highest step, or None if nothing has been saved."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Returns the kept step with the best metric; None if no step has it."""
        return self._best(self.steps())

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """Restores a state exactly.

        Args:
          abstract_state: the expected state: a pytree of arrays or their shapes.
          step: the step to restore; None: the latest that is not damaged.

        Returns:
          A pytree like `abstract_state`, of NumPy arrays.

        Raises:
          InputError: no such step, it has another tree, or all steps are damaged.
        """
        steps = self.steps()
        if not steps or step not in (None, *steps):
            raise InputError(
                f"{self._directory}: no checkpoint {'' if step is None else step}; "
                f"existing steps: {', '.join(map(str, steps)) or 'none'}."
            )
        for each in reversed(steps) if step is None else [step]:
            try:
                state = self._load(each, abstract_state)
            except _DamagedError as error:
                self._damaged[each] = one_line(error, 200)
                continue
            for damaged in filter(self._damaged.get, steps):
                logging.warning(
                    "%s is damaged (%s): step %d is used instead.",
                    self._directory / str(damaged), self._damaged[damaged], each,
                )  # fmt: skip
            if self._checkpointer is not None and step is None:
                # Later evaluations are repeated.
                self._metrics = {s: m for s, m in self._metrics.items() if s <= each}
            return state
        if step is not None:
            raise self._unusable(step, self._damaged[step])
        damaged = max(self._damaged)
        raise InputError(
            f"{self._directory / str(damaged)} is damaged ({self._damaged[damaged]}) and "
            "there is no other checkpoint: copy it again, or delete "
            f"{self._directory} to start from the beginning."
        )

    def _unusable(self, step: int, reason: object) -> InputError:
        return InputError(
            f"{self._directory / str(step)} is damaged ({one_line(reason, 200)}): copy it "
            "again, or use another checkpoint."
        )

    def arrays(self, step: int) -> dict[str, Any]:
        """Returns the arrays of a saved state as nested mappings, without empty ones.

        Raises:
          InputError: it is damaged.
        """
        try:
            stored, _ = self._stored(self._directory / str(step))
        except _DamagedError as error:
            raise self._unusable(step, error) from None
        return self.restore(stored, step)

    def _load(self, step: int, abstract_state: Any) -> Any:
        """Restores one step; raises _DamagedError if it is not what was saved."""
        from orbax.checkpoint import v1 as ocp

        path = self._directory / str(step)
        expected = _with_values(abstract_state)
        stored, arrays = self._stored(path)
        differences = compare_trees(unflatten_dict(expected), stored)
        if differences:
            raise InputError(
                f"{path} is of another model or optimizer: {first(differences)}. Use its "
                "config, or another run directory."
            )
        target = {p: np.empty(v.shape, v.dtype) for p, v in expected.items()}
        try:
            with _quiet_if_it_fails():
                loaded = ocp.load(str(self._root / str(step)), unflatten_dict(target))
            loaded = flatten(loaded)
        except Exception as error:
            raise _DamagedError(error) from error
        names = {path: "/".join(path) for path in loaded}
        wrong = [
            names[p]
            for p, value in loaded.items()
            if arrays is not None and _described(value) != arrays[names[p]]
        ]
        if wrong:
            raise _DamagedError(f"differs from what was saved: {first(wrong)}")
        leaves = [
            loaded[path] if path in loaded else np.zeros(leaf.shape, leaf.dtype)
            for path, leaf in flatten(abstract_state).items()
        ]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)

    def _stored(self, path: Path) -> tuple[Any, dict[str, Any] | None]:
        """Returns the shapes of a step's arrays, and what `_manifest` returns."""
        from orbax.checkpoint import v1 as ocp

        try:
            arrays = _manifest(path)
            if arrays is None:  # Of an older run.
                return ocp.metadata(str(self._root / path.name)).metadata, None
            shapes = {
                tuple(name.split("/")): jax.ShapeDtypeStruct(shape, dtype)
                for name, (dtype, shape, _) in arrays.items()
            }
            return unflatten_dict(shapes), arrays
        except Exception as error:  # orbax raises many types for unusable files.
            raise _DamagedError(error) from error

    def set_aside(self, step: int, suffix: str) -> Path | None:
        """Renames a checkpoint, so that it is not restored; returns its new path, or None
        if there is no such checkpoint."""
        if step not in self.steps():
            return None
        path = self._directory / str(step)
        new = path.with_name(f"{step}.{suffix}")
        if jax.process_index() == 0:
            shutil.rmtree(new, ignore_errors=True)
            path.rename(new)
        self._damaged[step] = suffix
        return new

    def wait(self) -> None:
        """Waits until all saved states are on disk; raises errors of their writes."""
        if self._checkpointer is not None:
            with self._writing():
                self._checkpointer.wait()

    def close(self) -> None:
        """Waits for pending writes, then closes the directory."""
        with self._resources, self._writing():
            if self._checkpointer is not None:
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


class _DamagedError(Exception):
    """A checkpoint is not what was saved."""


@dataclasses.dataclass(frozen=True)
class _Preservation:
    """A preservation policy of orbax: `kept` returns which of the steps stay."""

    kept: Any

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        del context
        kept = self.kept(sorted(info.step for info in checkpoints))
        return [info.step in kept for info in checkpoints]


@contextlib.contextmanager
def _plain_path(directory: Path) -> Iterator[Path]:
    """Yields a path of the directory without brackets and backslashes.

    orbax and TensorStore take these for patterns and separators; a temporary link has none.
    """
    if os.name == "nt" or not {"[", "]", "*", "?", "\\"} & set(str(directory)):
        yield directory
        return
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pose_jax_") as folder:
        link = Path(folder) / "checkpoints"
        link.symlink_to(directory, target_is_directory=True)
        yield link


def _raised_anyway(record: Any) -> bool:
    """Hides errors that orbax's threads and tasks log although they are raised too."""
    logged = "_SignalingThread.run() raised", "Task exception was never", _METADATA
    return not any(part in record.getMessage() for part in logged)


@contextlib.contextmanager
def _quiet_if_it_fails() -> Iterator[None]:
    """Hides what the other reads of a checkpoint print after one of them has failed.

    They end later, in threads: if there is an exception, the hook stays.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before


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
    needed = (path / _METADATA, path / "state" / "_METADATA")
    return path.name.isdigit() and all(file.exists() for file in needed)


def _manifest(path: Path) -> dict[str, Any] | None:
    """Returns the `_described` arrays of a checkpoint by name; None if it has no digests.

    Raises:
      Exception: of many types, if the manifest is damaged.
    """
    content = json.loads((path / _METADATA).read_bytes())["custom_metadata"]
    return digests.opened(content)["arrays"] if content else None


def _described(value: Any) -> list[Any]:
    """Returns dtype, shape and digest of an array, as in JSON."""
    value = np.asarray(value)
    return [value.dtype.name, list(value.shape), digests.of_array(value)]


def _with_values(tree: Any) -> dict[TreePath, Any]:
    """Returns the leaves by path, without empty arrays, which orbax rejects."""
    return {p: leaf for p, leaf in flatten(tree).items() if math.prod(leaf.shape)}
