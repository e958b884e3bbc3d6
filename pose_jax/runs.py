"""A run directory: whose it is (RUN/config.json), and the model it leaves (RUN/model)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax

import pose_jax
from pose_jax import checkpoints, input_pipeline, methods
from pose_jax import config as config_lib
from pose_jax.datasets.table import Table
from pose_jax.errors import ConfigError
from pose_jax.keypoints import KeypointSet
from pose_jax.method import Method, Variables


def claim(run: Path, config: Mapping[str, Any]) -> None:
    """Writes RUN/config.json, or checks that the one there asks for the same run."""
    path = run / "config.json"
    plain = json.loads(config_lib.to_json(config))
    if path.exists():
        there = json.loads(path.read_text())
        changed = [
            name
            for name in config_lib.differences(plain, there)
            if name not in _MAY_CHANGE
        ]
        if changed:
            raise ConfigError(
                f"{run} holds a run of another config (it differs in "
                f"{', '.join(changed[:3])}): give another --run, or delete {run}."
            )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=1))


_MAY_CHANGE = (
    "input.reader", "input.workers", "input.cache_mb", "train.log_every_steps",
    "train.eval_every_steps", "train.checkpoint_every_steps", "train.keep_checkpoints",
)  # fmt: skip
"""What a resumed run may change: nothing that its weights depend on."""


def write_model(
    run: Path,
    *,
    config: Mapping[str, Any],
    method: Method,
    train_table: Table,
    variables: Variables,
    scores: Mapping[str, float],
) -> None:
    """RUN/model: the weights to use, and what they are."""
    plain = json.loads(config_lib.to_json(config))
    manifest = {
        "method": plain["method"],
        "keypoints": method.keypoints.to_json() if method.keypoints else None,
        "input": plain["input"],
        "data": plain["data"]["eval"],
        "scores": dict(scores),
        "train_data": {
            "name": train_table.name,
            "fingerprint": train_table.fingerprint(),
        },
        "versions": {
            "pose_jax": pose_jax.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
        },
    }
    if jax.process_index() == 0:
        checkpoints.save_model(run / "model", jax.device_get(variables), manifest)


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """What RUN/model says of itself, with its weights."""

    variables: Variables
    manifest: dict[str, Any]
    keypoints: KeypointSet
    input: input_pipeline.InputConfig

    def method(self, decoder: str | None = None) -> Method:
        """The run's method, or another read-out of the same network."""
        return methods.build(self.manifest["method"], self.keypoints, decoder=decoder)


def load(run: Path | str) -> LoadedRun:
    """Reads RUN/model.

    Raises:
      InputError: no finished model there.
    """
    variables, manifest = checkpoints.load_model(Path(run) / "model")
    return LoadedRun(
        variables=variables,
        manifest=manifest,
        keypoints=KeypointSet.from_json(manifest["keypoints"]),
        input=config_lib.build(
            input_pipeline.InputConfig, manifest["input"], "manifest.input"
        ),
    )
