"""The errors that are the user's to mend: one clear line each, no traceback.

The command line prints the message alone and exits with `exit_code`. A message names the
file, field or id, the reason, and the remedy. Everything else that goes wrong is a bug of
ours and keeps its traceback.
"""

import errno
import os


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
