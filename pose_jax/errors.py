"""The errors that a user can fix: one clear line each, no traceback.

The command line prints the message alone and exits with `exit_code`. A message names the
file, field or id, the reason, and the remedy. Everything else that goes wrong is a bug of
ours and keeps its traceback.
"""

import difflib
import errno
import os
from collections.abc import Iterable


class InputError(ValueError):
    """Something given to us (a file, an image, a run directory) cannot be used."""

    exit_code = 1


class ConfigError(InputError):
    """A config, an override or an option of the command line is wrong."""

    exit_code = 2


class Stopped(Exception):
    """Training was asked to stop, and has: its state is saved, nothing went wrong."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(name: object, known: Iterable[str], *, cutoff: float = 0.0) -> str:
    """ " Did you mean 'x'?" with the nearest known name, as the end of a message.

    Args:
      name: what was given.
      known: what it may be.
      cutoff: similarity in [0, 1] that the nearest must have; else, or where nothing is
        known, the answer is empty.
    """
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_line(error: object, length: int | None = None) -> str:
    """The message of another library's error without line breaks, cut at a length."""
    return " ".join(str(error).split())[:length] or type(error).__name__


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_full(error: BaseException | None) -> str | None:
    """What a write failed of, in the system's words, if it was for lack of space.

    Libraries wrap such errors, some as mere text: causes and messages are looked at too.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return os.strerror(error.errno)
        for number in _FULL:
            if os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None
