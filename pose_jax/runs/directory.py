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
        names = config_lib.differences(plain, there)
        changed = [name for name in names if name not in _MAY_CHANGE]
        if changed:
            raise ConfigError(
                f"{run} has a run of another config, which differs in "
                f"{', '.join(changed[:3])}: give another --run, or delete {run}."
            )
    write_json(path, plain)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file completely or not at all."""
    writing.write(path, json.dumps(content, indent=1))


_MAY_CHANGE = (
    "input.reader", "input.workers", "input.cache_mb", "train.log_every_steps",
    "train.eval_every_steps", "train.checkpoint_every_steps", "train.keep_checkpoints",
)  # fmt: skip
"""Keys that a resumed run may change; the weights do not depend on them."""
