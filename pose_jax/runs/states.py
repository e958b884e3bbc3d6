"""Training state and finished models on disk. No other file names orbax.

Both are stored as plain host arrays under their path in the tree, so that they do not
depend on the devices they came from or go to. Paths and patterns are those of `trees`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import flax
import jax
import numpy as np
from absl import logging
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict

from pose_jax._version import __version__
from pose_jax.errors import ConfigError, InputError, did_you_mean, disk_full, one_line
from pose_jax.trees import TreePath, compare_trees, flatten, nearest, path_matches

VERSIONS = {"pose_jax": __version__, "jax": jax.__version__, "flax": flax.__version__}
"""What a manifest says of the packages that wrote it."""


def _first(lines: Sequence[str], count: int = 3) -> str:
    more = f"; and {len(lines) - count} more" if len(lines) > count else ""
    return "; ".join(lines[:count]) + more


class Checkpoints(contextlib.AbstractContextManager):
    """The training states of one phase: `directory/<step>/`, written in the background.

    Keeps the latest `keep_latest` and, beside them, the one with the best metric. One
    process group at a time may have a directory open: what an interrupted run left
    half-written is removed on opening. Open it by `with`: a program that ends by an
    exception would otherwise not wait for what is being written.

    With `read_only` nothing there is touched, and half-written ones are passed over.
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
        self._checkpointer = ocp.training.Checkpointer(
            str(self._directory),
            preservation_policy=policies.AnyPreservationPolicy(keep),  # pyright: ignore
            cleanup_tmp_directories=not read_only,
        )

    def _rank(self, metrics: Any) -> float:
        value = self._sign * metrics[self._best_metric]
        return -math.inf if math.isnan(value) else value

    def save(
        self, step: int, state: Any, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Begins to write `state`, a pytree of arrays, and returns.

        The values are taken before it returns: `state` may be donated right after.
        Saving a step again replaces it, except one that this object has saved already.
        `metrics` are those of an evaluation at this step, if there was one.

        Raises:
          ConfigError: `metrics` lack the one that says which checkpoint is best.
          InputError: the disk is full, now or when the state before was being written.
        """
        assert not self._read_only
        if step in self._saved:
            return
        name = self._best_metric
        best: Any = None
        if name is not None and metrics:
            if name not in metrics:
                raise ConfigError(
                    f"best_metric: the evaluation gives no {name!r}."
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
        """Keeps the metrics of an evaluation, beside the checkpoints."""
        known = {**self._recorded(), str(step): dict(metrics)}
        if jax.process_index() == 0:
            new = self._metrics_file.with_suffix(".new")
            new.write_text(json.dumps(known), encoding="utf-8")
            new.replace(self._metrics_file)

    def metrics(self, step: int) -> dict[str, float] | None:
        """The metrics that were recorded of a step; None if it was not evaluated."""
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
        """All steps that can be restored, ascending."""
        self.wait()
        whole = set(whole_steps(self._directory))
        return [c.step for c in self._checkpointer.checkpoints if c.step in whole]

    def latest_step(self) -> int | None:
        """The highest step, or None where nothing has been saved."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The kept step with the best metric; None where none has it."""
        self.wait()
        scored = [c for c in self._checkpointer.checkpoints if c.metrics is not None]
        if self._best_metric is None or not scored:
            return None
        return max(scored, key=lambda c: (self._rank(c.metrics), c.step)).step

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """Reads a state, bit for bit.

        Args:
          abstract_state: the state to expect: a pytree of arrays or their shapes.
          step: which one; None: the latest.

        Returns:
          The structure of `abstract_state` filled with NumPy arrays.

        Raises:
          InputError: no such step, or it holds another tree.
        """
        steps = self.steps()
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            raise InputError(
                f"{self._directory}: no checkpoint {'' if step is None else step}; "
                f"there are: {', '.join(map(str, steps)) or 'none'}."
            )
        expected = _with_values(abstract_state)
        try:
            found = self._checkpointer.metadata(step).metadata
        except Exception as error:  # Whatever orbax raises: the files are unusable.
            raise self._broken(step, error) from error
        differences = compare_trees(unflatten_dict(expected), found)
        if differences:
            raise InputError(
                f"{self._directory / str(step)} is of another model or optimiser: "
                f"{_first(differences)}. Use its config, or another run directory."
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
            "remove it to go back to the checkpoint before."
        )

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises what went wrong there."""
        with self._writing():
            self._checkpointer.wait()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        with self._writing():
            self._checkpointer.close()

    def _check_space(self, values: Mapping[TreePath, Any]) -> None:
        """Refuses what cannot fit before anything is written. Quotas show up later."""
        needed = sum(np.asarray(value).nbytes for value in values.values())
        if shutil.disk_usage(self._directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says in one line that the disk is full, if that is what went wrong."""
        try:
            yield
        except Exception as error:
            reason = disk_full(error)
            if reason is None:
                raise
            last = max(whole_steps(self._directory), default="(none)")
            raise InputError(
                f"{self._directory}: a checkpoint could not be written: {reason}. The "
                f"last good one is of step {last}. "
                "Free some space and run the same command again: it goes on from there."
            ) from error

    def __exit__(self, *_: object) -> None:
        self.close()


def _raised_anyway(record: Any) -> bool:
    """Hides the tracebacks that orbax's threads log of errors which `wait` then raises."""
    return "_SignalingThread.run() raised" not in record.getMessage()


def whole_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a directory that are written to their end, ascending."""
    found = Path(directory).glob("[0-9]*")
    return sorted(int(path.name) for path in found if _is_whole(path))


def _remove_incomplete(directory: Path) -> None:
    for path in directory.glob("[0-9]*"):
        if path.name.isdigit() and not _is_whole(path):
            logging.warning("%s is not a whole checkpoint: removed.", path)
            shutil.rmtree(path)


def _is_whole(path: Path) -> bool:
    """Whether a step directory has what is written last and with the arrays."""
    needed = (path / "_CHECKPOINT_METADATA", path / "state" / "_METADATA")
    return path.name.isdigit() and all(file.exists() for file in needed)


def _with_values(tree: Any) -> dict[TreePath, Any]:
    """The leaves by path, without arrays of no element: orbax refuses them."""
    return {p: leaf for p, leaf in flatten(tree).items() if math.prod(leaf.shape)}


def save_model(
    path: str | Path, variables: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    """Writes a finished model, replacing the one at `path` only when all is written.

    Args:
      path: a directory: `variables.npz`, one array per path, and `manifest.json`.
      variables: nested mappings of arrays.
      manifest: plain values that say what the model is.
    """
    if jax.process_index() != 0:
        return
    path = Path(path).absolute()
    _recover(path)
    new, old = _siblings(path)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    np.savez(new / _VARIABLES, **_to_members(variables))  # pyright: ignore
    text = json.dumps(dict(manifest), indent=2, sort_keys=True)
    (new / _MANIFEST).write_text(text + "\n", encoding="utf-8")
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def load_model(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a finished model: its variables as NumPy arrays, and its manifest.

    Raises:
      InputError: there is none, or it is damaged.
    """
    manifest = load_manifest(path)
    file = Path(path) / _VARIABLES
    try:
        with np.load(file, allow_pickle=False) as members:
            return _from_members(members), manifest
    except _UNREADABLE as error:
        raise _unusable(file, error) from error


def load_manifest(path: str | Path) -> dict[str, Any]:
    """Reads what a finished model is, without its variables.

    Raises:
      InputError: there is none, or it is damaged.
    """
    path = Path(path).absolute()
    _recover(path)
    file = path / _MANIFEST
    if not path.is_dir():
        raise InputError(
            f"{path}: no model here. A finished training run has one, in RUN/model; "
            "`weights convert` makes one of published weights."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except _UNREADABLE as error:
        raise _unusable(file, error) from error
    if not isinstance(manifest, dict):
        raise _unusable(file, ValueError("not a JSON object"))
    return manifest


_VARIABLES, _MANIFEST = "variables.npz", "manifest.json"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def _unusable(file: Path, error: Exception) -> InputError:
    return InputError(
        f"{file} cannot be read ({one_line(error, 200)}): the model is incomplete or "
        "damaged. Copy it again, or let the training run finish: it writes the model again."
    )


def _siblings(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".new"), path.with_name(path.name + ".old")


def _recover(path: Path) -> None:
    """Puts the old model back where a writer was killed between its two renames."""
    _, old = _siblings(path)
    if old.exists() and not path.exists():
        old.rename(path)


def _to_members(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{"a/b": array}; an empty mapping is the member "a/", so that it comes back."""
    members = {}
    for path, leaf in flatten_dict(variables, keep_empty_nodes=True).items():
        for name in path:
            if "/" in name:
                raise ValueError(f"a name of variables contains '/': {name!r}.")
        name = "/".join(path)
        if leaf is empty_node:
            members[name + "/"] = np.zeros(0)
            continue
        members[name] = np.asarray(jax.device_get(leaf))
        if members[name].dtype.kind not in "biufc":
            dtype = members[name].dtype
            raise ValueError(f"{name}: {dtype} cannot be kept in a model.")
    return members


def _from_members(members: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nodes = {
        key.removesuffix("/"): empty_node if key.endswith("/") else members[key]
        for key in members
    }
    return unflatten_dict(nodes, sep="/")


@dataclasses.dataclass(frozen=True)
class MergeReport:
    """What `merge_params` did, as paths "params/head/kernel".

    Attributes:
      loaded: taken from the given variables.
      skipped: kept as they were because a pattern said so.
      new: kept as they were because the given variables lack them.
      unused: given, but unknown here.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} arrays"]
        for word in ("skipped", "new", "unused"):
            names = getattr(self, word)
            if names:
                parts.append(f"{word} {len(names)} ({_first(names)})")
        return ", ".join(parts)


def merge_params(
    own: Mapping[str, Any], loaded: Mapping[str, Any], skip: Sequence[str] = ("head",)
) -> tuple[Any, MergeReport]:
    """Starts from other weights: `own` with every leaf replaced that `loaded` has.

    Args:
      own: freshly initialised variables; their structure, shapes and dtypes stay.
      loaded: variables of another model.
      skip: patterns (`path_matches`) of leaves to leave as they are.

    Returns:
      The merged variables and a report.

    Raises:
      ConfigError: a pattern matches nothing, nothing is left to load, or a leaf that is
        not skipped has another shape.
    """
    ours, theirs = flatten(own), flatten(loaded)
    paths = [*ours, *theirs]
    for pattern in skip:
        if not any(path_matches(pattern, path) for path in paths):
            raise ConfigError(
                f"init_skip: {pattern!r} matches no variable. {nearest(pattern, paths)}"
            )
    leaves, wrong = [], []
    groups: dict[str, list[str]] = {"loaded": [], "skipped": [], "new": []}
    for path, leaf in ours.items():
        name = "/".join(path)
        if any(path_matches(pattern, path) for pattern in skip):
            group = "skipped"
        elif path not in theirs:
            group = "new"
        else:
            group = "loaded"
            value = theirs[path]
            if value.shape != leaf.shape:
                wrong.append(f"{name}: {list(value.shape)} for {list(leaf.shape)}")
            leaf = value.astype(leaf.dtype)
        groups[group].append(name)
        leaves.append(leaf)
    if wrong:
        raise ConfigError(
            f"init_from has other shapes: {_first(wrong)}. Name them in init_skip."
        )
    if not groups["loaded"]:
        raise ConfigError(
            "init_from has no variable of this model that init_skip leaves: is it of "
            f"another model? It has {_first(['/'.join(path) for path in theirs])}."
        )
    report = MergeReport(
        **{group: tuple(names) for group, names in groups.items()},
        unused=tuple("/".join(path) for path in theirs if path not in ours),
    )
    return jax.tree.unflatten(jax.tree.structure(own), leaves), report
