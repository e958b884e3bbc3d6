"""Resolution of names in a config: registered names and `package.module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from pose_jax.errors import ConfigError, did_you_mean, one_line


def lookup(name: Any, registered: Mapping[str, Any], *, kind: str, where: str) -> Any:
    """Returns the object that a config refers to by name.

    Args:
      name: a key of `registered`, or "package.module:attribute" for a user-defined object;
        the module must be importable from sys.path or the current directory.
      registered: the built-in objects by name.
      kind: name of this kind of object in messages, e.g. "method".
      where: the key of the config, for messages.

    Raises:
      ConfigError: no such object.
    """
    if isinstance(name, str) and name in registered:
        return registered[name]
    if isinstance(name, str) and ":" in name:
        return _imported(name, where)
    raise ConfigError(
        f"{where}: no {kind} {name!r}; there are {', '.join(sorted(registered))}."
        f"{did_you_mean(name, registered)} For a {kind} of your own, give "
        "'package.module:attribute'."
    )


def _imported(name: str, where: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # Not included for console scripts.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # User code may raise anything.
        reason = f"{type(error).__name__}: {one_line(error)}"
    else:
        if hasattr(module, attribute):
            return getattr(module, attribute)
        reason = f"module {module_name!r} has no {attribute!r}"
    raise ConfigError(f"{where}: {name!r} cannot be imported: {reason}.")
