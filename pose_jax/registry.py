"""Names in a config: one that is registered here, or `package.module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from pose_jax.errors import ConfigError, did_you_mean, one_line


def lookup(name: Any, registered: Mapping[str, Any], *, kind: str, where: str) -> Any:
    """What a config means by a name.

    Args:
      name: a key of `registered`, or "package.module:attribute": somebody's own, in a
        module that Python finds, or that lies in the folder where the command was started.
      registered: what has a name of its own.
      kind: what it is called in messages, such as "method".
      where: the config's key, for messages.

    Raises:
      ConfigError: there is no such thing.
    """
    if isinstance(name, str) and name in registered:
        return registered[name]
    if isinstance(name, str) and ":" in name:
        return _imported(name, where)
    raise ConfigError(
        f"{where}: no {kind} {name!r}; there are {', '.join(sorted(registered))}."
        f"{did_you_mean(name, registered)} A {kind} of your own is named "
        "'package.module:attribute'."
    )


def _imported(name: str, where: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # A console script's path lacks it.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # Whatever somebody else's module raises.
        reason = f"{type(error).__name__}: {one_line(error)}"
    else:
        if hasattr(module, attribute):
            return getattr(module, attribute)
        reason = f"module {module_name!r} has no {attribute!r}"
    raise ConfigError(f"{where}: {name!r} cannot be imported: {reason}.")
