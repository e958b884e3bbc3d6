"""A run directory: whose it is (RUN/config.json), and the model it leaves (RUN/model)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import methods
from pose_jax.data.plan import InputConfig
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import KeypointSet
from pose_jax.runs import states
from pose_jax.types import Method, Variables


@contextlib.contextmanager
def claim(run: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Holds a run directory for one training, and writes or checks RUN/config.json.

    The hold ends with the block or the process, however that ends.

    Raises:
      InputError: another process holds it, or its config cannot be read.
      ConfigError: it holds a run of another config.
    """
    if jax.process_index() != 0:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with _lock(run):
        _check_config(run, json.loads(config_lib.to_json(config)))
        yield


@contextlib.contextmanager
def _lock(run: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Not on Windows.
        yield
        return
    with open(run / "lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{run} is in use by {holder}: wait until it has finished, stop it, or "
                "give another --run."
            ) from None
        except OSError as error:  # Some network file systems have no locks.
            logging.warning("%s cannot be locked (%s).", run, error.strerror)
        file.seek(0)
        file.truncate()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
        file.flush()
        yield


def _check_config(run: Path, plain: Mapping[str, Any]) -> None:
    path = run / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path} cannot be read ({error}): put the run's config back, or give "
                "another --run."
            ) from None
        names = config_lib.differences(plain, there)
        changed = [name for name in names if name not in _MAY_CHANGE]
        if changed:
            raise ConfigError(
                f"{run} holds a run of another config (it differs in "
                f"{', '.join(changed[:3])}): give another --run, or delete {run}."
            )
    write_json(path, plain)


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1), encoding="utf-8")
    new.replace(path)


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
        "evaluation": plain.get("evaluation", {}),
        "scores": dict(scores),
        "train_data": {
            "name": train_table.name,
            "fingerprint": train_table.fingerprint(),
        },
        "versions": states.VERSIONS,
    }
    if jax.process_index() == 0:
        states.save_model(run / "model", jax.device_get(variables), manifest)


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """What RUN/model says of itself, with its weights.

    Attributes:
      variables: the weights.
      manifest: of RUN/model.
      keypoints: the set that the method predicts; None for a detector.
      input: how batches were read.
    """

    variables: Variables
    manifest: dict[str, Any]
    keypoints: KeypointSet | None
    input: InputConfig

    @property
    def decoder(self) -> str:
        """The run's own decoder, or the method's name where there is but one."""
        section = self.manifest["method"]
        _, config = methods.parse(section)
        return getattr(config, "decoder", "") or section["name"]

    def method(self, decoder: str | None = None, flip: str | None = None) -> Method:
        """The run's method, or another decoder or flip test of the same network."""
        self._check_whole()
        section = dict(self.manifest["method"])
        if flip is not None:
            section["flip_test"] = flip
        return methods.build(section, self.keypoints, decoder=decoder)

    def eval_table(
        self, *, data: str | None = None, split: str | None = None, boxes: str = "gt"
    ) -> Table:
        """The run's evaluation data.

        Args:
          data, split: another root, another split of them; None for the config's.
          boxes: "gt" for those of the data set, or a COCO detections json.

        Raises:
          InputError: the data are not there, or of another keypoint set.
        """
        self._check_whole()
        section = dict(self.manifest["data"])
        if data is not None:
            section["root"] = data
        if not section["root"]:
            raise InputError(
                "the model was converted from published weights and has no data of its "
                f"own: say by --data where {section['name']} is."
            )
        if split is not None:
            section["split"] = split
        if boxes != "gt":
            if not data_lib.data_set(section["name"]).takes_detections:
                known = data_lib.DATASETS.items()
                takers = ", ".join(repr(k) for k, it in known if it.takes_detections)
                raise ConfigError(
                    f"boxes of a detector can be read for the data sets {takers}; this "
                    f"run's is {section['name']!r}."
                )
            section["options"] = {**section.get("options", {}), "detections": boxes}
        source = config_lib.build(data_lib.SourceConfig, section, "manifest.data")
        table = data_lib.load(source)
        if self.keypoints is not None and table.keypoints != self.keypoints:
            raise InputError(
                f"the model has keypoints {self.keypoints.name!r}, {table.name} has "
                f"{table.keypoints.name!r}; evaluate on data of the model's set."
            )
        return table

    def _check_whole(self) -> None:
        if self.manifest.get("converted", {}).get("part") == "backbone":
            raise InputError(
                "the model is a backbone alone, without what is above it: train "
                "one that starts from it, by config.train.init_from."
            )


def load(run: Path | str) -> LoadedRun:
    """Reads RUN/model.

    Raises:
      InputError: no finished model there.
    """
    variables, manifest = states.load_model(Path(run) / "model")
    keypoints = manifest["keypoints"]
    return LoadedRun(
        variables=variables,
        manifest=manifest,
        keypoints=keypoints and KeypointSet.from_json(keypoints),
        input=config_lib.build(InputConfig, manifest["input"], "manifest.input"),
    )
