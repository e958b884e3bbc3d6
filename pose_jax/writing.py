"""Writing files: checked before the work, and complete or not at all.

Every verb that writes a folder checks it first, so that a folder without permission or a
full disk is reported in one line before anything is computed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pose_jax.errors import ConfigError, InputError, disk_full, one_line

_NUMBER = itertools.count()
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def check(folder: Path | str, remedy: str = "give another --out") -> None:
    """Checks that files can be written in a folder, which need not exist yet.

    A temporary file is created, since permission bits say little about network file
    systems, containers and the superuser. Nothing is left behind.

    Args:
      folder: the folder.
      remedy: advice for the message.

    Raises:
      InputError: nothing can be written there.
    """
    folder = Path(folder).absolute()
    above = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=above) as file:
            file.write(b"\0")
    except OSError as error:
        raise failure(folder, error, remedy, above) from None


def check_new(folder: Path | str) -> None:
    """Checks that a folder does not exist yet, or is empty, and can be written.

    Raises:
      ConfigError: it holds something.
      InputError: nothing can be written there.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} already exists and is not an empty folder: give another --out, or "
            "delete it."
        )
    check(folder)


def write(path: Path | str, content: str | bytes) -> None:
    """Writes a file completely or not at all; its folder is created.

    The content goes to a temporary file beside it, which is renamed at the end, so that an
    existing file is kept if the disk is full or the process is stopped.

    Raises:
      InputError: it cannot be written; the message names the file and the reason.
    """
    data = content.encode() if isinstance(content, str) else content
    with replaced(path) as new:
        new.write_bytes(data)


@contextlib.contextmanager
def replaced(path: Path | str) -> Iterator[Path]:
    """Gives a path to write a file to, which takes the place of `path` at the end.

    This is `write` for files that are too large to be kept in memory.

    Raises:
      InputError: it cannot be written; the message names the file and the reason.
    """
    path = Path(path)
    new = path.with_name(f".{os.getpid()}-{next(_NUMBER)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield new
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise failure(path, error) from error


@contextlib.contextmanager
def naming(folder: Path | str) -> Iterator[None]:
    """Names a folder if a library that writes there meets a full disk and names no file.

    Raises:
      InputError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not disk_full(error):
            raise
        raise failure(folder, error) from error


def failure(
    path: object,
    error: BaseException,
    remedy: str = "change its permissions, or give another path",
    where: object = None,
) -> InputError:
    """Returns the error for a file or folder that cannot be written.

    Args:
      path: the file or folder.
      error: what the system said; the advice about a full disk replaces `remedy`.
      remedy: advice for the message.
      where: the file or folder that the system refused, if it is not `path`.
    """
    reason = disk_full(error)
    if reason is not None:
        remedy = "free some space and run the same command again"
    reason = reason or getattr(error, "strerror", None) or one_line(error, 200)
    if where not in (None, path):
        reason = f"{where}: {reason}"
    return InputError(f"{path} cannot be written ({reason}): {remedy}.")


def refused(error: BaseException) -> InputError | None:
    """Returns the error to report if an exception was caused by a full disk or a lack of
    permission; None for all others."""
    denied = isinstance(error, OSError) and error.errno in _DENIED
    if not denied and disk_full(error) is None:
        return None
    return failure(getattr(error, "filename", None) or "a file", error)
