"""Errors that the user can fix: one line each, without traceback.

The command line prints only the message and exits with `exit_code`. A message names the
file, field or id, the reason, and the fix. All other exceptions are bugs in pose_jax and
keep their traceback.
"""

import difflib
import errno
import os
from collections.abc import Iterable


class InputError(ValueError):
    """An input (a file, an image, a run directory) cannot be used."""

    exit_code = 1


class ConfigError(InputError):
    """A config, an override or a command line option is invalid."""

    exit_code = 2


class Stopped(Exception):
    """Work was stopped by a signal and what was done is kept; this is not a failure."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(name: object, known: Iterable[str], *, cutoff: float = 0.0) -> str:
    """Returns " Did you mean 'x'?" with the closest known name, to append to a message.

    Args:
      name: the unknown name.
      known: all valid names.
      cutoff: minimum similarity in [0, 1] of the closest name; if no name reaches it, the
        result is "".
    """
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_line(error: object, length: int | None = None) -> str:
    """Returns the message of an error in one line, truncated to `length` characters."""
    return " ".join(str(error).split())[:length] or type(error).__name__


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_full(error: BaseException | None) -> str | None:
    """Returns the system's message if an error was caused by a lack of disk space.

    Some libraries wrap such errors, or keep only their text, so that causes and messages
    are searched too.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return os.strerror(error.errno)
        for number in _FULL:
            if os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None
