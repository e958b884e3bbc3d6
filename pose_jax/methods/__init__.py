"""Registry of methods by the name in a config, `method.name`.

A method is a class: `Cls(config, keypoints)` is a `types.Method`, `Cls.Config` its section.
`topdown.TopDown` is the base class of methods on a person's crop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pose_jax import config as config_lib
from pose_jax import models, registry
from pose_jax.errors import ConfigError
from pose_jax.keypoints import KeypointSet
from pose_jax.methods.cells import Cells
from pose_jax.methods.dark import Dark
from pose_jax.methods.deeppose import DeepPose
from pose_jax.methods.detector import Detector
from pose_jax.methods.multipose import MultiPose
from pose_jax.methods.simcc import SimCC
from pose_jax.types import Decoder, Method

METHODS: dict[str, Any] = {
    "dark": Dark,
    "cells": Cells,
    "deeppose": DeepPose,
    "detector": Detector,
    "multipose": MultiPose,
    "simcc": SimCC,
}


def find(name: Any) -> Any:
    """Returns the class of a method, by its name here or by "package.module:attribute".

    Raises:
      ConfigError: there is none.
    """
    cls = registry.lookup(name, METHODS, kind="method", where="config.method.name")
    for attribute in ("Config", "name", "outputs", "decoders"):
        if not hasattr(cls, attribute):
            raise ConfigError(
                f"config.method.name: {name!r} is no method: it has no {attribute!r}, see "
                "pose_jax.types.Method."
            )
    return cls


def parse(section: Mapping[str, Any], *, decoder: str | None = None):
    """Checks a method section without data.

    Args:
      section: `name` and the fields of that method's Config.
      decoder: decoder to use instead of the section's own; None keeps that.

    Returns:
      The method's class and its Config.

    Raises:
      ConfigError: unknown method or field, a network whose outputs it cannot decode, or a
        decoder for a method without a choice of decoders.
    """
    cls = find(section.get("name"))
    config = config_lib.build(cls.Config, section, "config.method")
    _check_network(cls, config.model.name)
    if decoder is None:
        return cls, config
    if not hasattr(config, "decoder"):
        raise ConfigError(
            f"method {cls.name!r} has no decoders; got {decoder!r}. Leave the option out."
        )
    return cls, dataclasses.replace(config, decoder=decoder)


def build(
    section: Mapping[str, Any],
    keypoints: KeypointSet | None,
    *,
    decoder: str | None = None,
) -> Method:
    """Builds the method that a config section describes, for a keypoint set.

    A detector ignores the keypoint set.
    """
    cls, config = parse(section, decoder=decoder)
    return cls(config, keypoints)


def for_network(model: str) -> str:
    """Returns the name of the first registered method for the outputs of a network.

    Raises:
      ConfigError: no such network.
    """
    outputs = models.entry(model).outputs
    return next(name for name, cls in METHODS.items() if cls.outputs == outputs)


def without_retraining(cls: Any) -> list[str]:
    """Returns the fields of a method's Config that can be changed without retraining: those
    with such metadata, and decoder settings without metadata."""
    fields = dataclasses.fields(cls.Config)
    decoders = cls.decoders if isinstance(cls.decoders, Mapping) else {}
    used = {name for decoder in decoders.values() for name in decoder.uses}
    return [
        field.name
        for field in fields
        if not field.metadata.get("retrain", field.name not in used)
    ]


def heatmap_decoders() -> dict[str, Decoder]:
    """Returns the decoders of all methods that take heatmaps only, by name."""
    return {
        name: decoder
        for cls in reversed(METHODS.values())
        if isinstance(cls.decoders, Mapping)
        for name, decoder in cls.decoders.items()
        if list(decoder.inputs) == ["heatmaps"]
    }


def _check_network(cls: Any, model: str) -> None:
    outputs = models.entry(model).outputs
    if outputs == cls.outputs:
        return
    suited = [name for name, other in METHODS.items() if other.outputs == outputs]
    other = f", or method {suited[0]!r}" if suited else ""
    raise ConfigError(
        f"config.method.model.name: {model!r} gives {outputs}, method {cls.name!r} needs "
        f"{cls.outputs}; take another network{other}."
    )
