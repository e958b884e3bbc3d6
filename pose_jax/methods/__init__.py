"""The methods by the name that a config gives: `method.name`.

A method module has a frozen dataclass `Config`, and `build(config, keypoints) -> Method`;
where one network can be read out in several ways, `with_decoder(config, name)`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pose_jax import config as config_lib
from pose_jax.errors import ConfigError
from pose_jax.keypoints import KeypointSet
from pose_jax.methods import dark, deeppose, detector, multipose
from pose_jax.types import Method

METHODS = {
    "dark": dark,
    "deeppose": deeppose,
    "detector": detector,
    "multipose": multipose,
}


def parse(section: Mapping[str, Any], *, decoder: str | None = None):
    """Checks a method section without needing data.

    Args:
      section: `name` and the fields of that method's Config.
      decoder: another read-out of the same network; None for the section's own.

    Returns:
      The method's module and its Config.

    Raises:
      ConfigError: no such method or decoder, or a field that it does not know.
    """
    name = section.get("name")
    if name not in METHODS:
        near = difflib.get_close_matches(str(name), METHODS, n=1, cutoff=0.0)
        raise ConfigError(
            f"config.method.name: no method {name!r}; there are {sorted(METHODS)}. "
            f"Did you mean {near[0]!r}?"
        )
    module = METHODS[name]
    config = config_lib.build(module.Config, section, "config.method")
    if decoder is not None:
        config = module.with_decoder(config, decoder)
    return module, config


def build(
    section: Mapping[str, Any],
    keypoints: KeypointSet | None,
    *,
    decoder: str | None = None,
) -> Method:
    """Builds the method that a config section describes, for a keypoint set.

    A detector knows no keypoints, whatever set it is given.
    """
    module, config = parse(section, decoder=decoder)
    return module.build(config, keypoints)
