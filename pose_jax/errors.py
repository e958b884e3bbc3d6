"""The errors that are the user's to mend: one clear line each, no traceback.

The command line prints the message alone and exits with `exit_code`. A message names the
file, field or id, the reason, and the remedy. Everything else that goes wrong is a bug of
ours and keeps its traceback.
"""


class InputError(ValueError):
    """Something given to us (a file, an image, a run directory) cannot be used."""

    exit_code = 1


class ConfigError(InputError):
    """A config, an override or an option of the command line is wrong."""

    exit_code = 2
