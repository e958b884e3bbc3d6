"""Locking of a run directory, and its config, RUN/config.json."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from pose_jax import config as config_lib
from pose_jax import writing
from pose_jax.errors import ConfigError, InputError


@contextlib.contextmanager
def claim(run: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Locks a run directory for one training, and writes or checks RUN/config.json.

    The lock is released at the end of the block, or when the process ends in any way.

    Raises:
      InputError: the directory is locked by another process, or its config is unreadable.
      ConfigError: the directory has a run of another config.
    """
    if jax.process_index() != 0:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with _lock(run):
        _check_config(run, json.loads(config_lib.to_json(config)))
        yield


@contextlib.contextmanager
def _lock(run: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Not on Windows.
        yield
        return
    with open(run / "lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{run} is in use by {holder}: wait for it to finish, stop it, or give "
                "another --run."
            ) from None
        except OSError as error:  # Some network file systems have no locks.
            logging.warning("%s cannot be locked: %s.", run, error.strerror)
        file.seek(0)
        file.truncate()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        file.flush()
        yield


def _check_config(run: Path, plain: Mapping[str, Any]) -> None:
    path = run / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path} cannot be read ({error}): restore the config of the run, or give "
                "another --run."
            ) from None
        changed = {
            name: values
            for name, values in config_lib.differences(plain, there).items()
            if name not in _may_change(plain)
        }
        diverged_at = _diverged_at(run)
        lower = [n for n, (_, new) in changed.items() if _is_lower(n, new, diverged_at)]
        for name in lower:
            changed.pop(name)
        if changed:
            raise _other_config(run, changed)
        if lower:
            print(f"{run} had diverged: it is continued with a lower learning rate")
            (run / _DIVERGED).unlink()
    write_json(path, plain)


def _other_config(run: Path, changed: Mapping[str, tuple[Any, Any]]) -> ConfigError:
    """Returns the error for a run of another config."""
    for name, (old, new) in changed.items():
        longer = isinstance(old, int) and isinstance(new, int) and new > old
        if name.split(".")[-2:] == ["train", "steps"] and longer:
            return ConfigError(
                f"{run} has a run of {old} steps ({name}): to train it for {new} steps, "
                "give another --run and resume its last state there, with "
                f"--config.train.resume_from={run}"
            )
    return ConfigError(
        f"{run} has a run of another config, which differs in "
        f"{', '.join(list(changed)[:3])}: give another --run, or delete {run}."
    )


def mark_diverged(run: Path, lr: float) -> None:
    """Notes that the training in a directory has diverged with learning rate `lr`: it may
    be continued there with a lower one."""
    if jax.process_index() == 0:
        (run / _DIVERGED).write_text(repr(lr), encoding="utf-8")


def _diverged_at(run: Path) -> float:
    """Returns the learning rate of a training that has diverged; 0 for any other."""
    try:
        return float((run / _DIVERGED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _is_lower(name: str, value: Any, limit: float) -> bool:
    """Returns whether a key is a learning rate whose value is below a limit."""
    is_rate = name.split(".")[-2:] == ["optimizer", "lr"]
    return is_rate and isinstance(value, int | float) and value < limit


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file completely or not at all."""
    writing.write(path, json.dumps(content, indent=1))


def _may_change(config: Mapping[str, Any]) -> set[str]:
    """Returns the keys that a resumed run may change: its weights do not depend on them."""
    sections = [config, *(config.get("phases") or {}).values()]
    trains = [section.get("train") or {} for section in sections]
    if any(train.get("patience") or train.get("keep") == "best" for train in trains):
        return _MAY_CHANGE - {"train.eval_every_steps"}
    return _MAY_CHANGE


_DIVERGED = "diverged"
_MAY_CHANGE = {
    "input.reader", "input.workers", "input.cache_mb", "train.log_every_steps",
    "train.eval_every_steps", "train.checkpoint_every_steps",
    "train.checkpoint_every_minutes", "train.keep_checkpoints", "data.train.on_error",
    "data.eval.on_error",
}  # fmt: skip
