"""Reads the contents of a run directory, finished or not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_jax.errors import InputError
from pose_jax.evaluation import evaluate, text
from pose_jax.report import html
from pose_jax.runs import log as log_lib
from pose_jax.runs import model as model_lib


@dataclasses.dataclass(frozen=True)
class Files:
    """The contents of a run directory.

    Attributes:
      run: the directory.
      config: RUN/config.json; for a model without it, the sections in its manifest.
      given: whether RUN/config.json exists.
      manifest: the manifest of RUN/model, or None.
      log: the lines of metrics.jsonl.
      evaluations: metrics in RUN/eval by (box source, decoder); for a detector the only key
        is ("images", "pose-jax eval").
      notes: messages about unreadable files.
      loaded: the checkpoint that is reported, or None: RUN/model.
    """

    run: Path
    config: dict[str, Any]
    given: bool
    manifest: dict[str, Any] | None
    log: list[dict[str, Any]]
    evaluations: dict[tuple[str, str], dict[str, Any]]
    notes: tuple[str, ...]
    loaded: model_lib.LoadedRun | None = None

    @property
    def checkpoint(self) -> str:
        """The reported checkpoint, "PHASE/STEP"; "" for RUN/model."""
        return self.loaded.checkpoint if self.loaded else ""

    def data(self, use: str) -> Mapping[str, Any]:
        """Returns the data section for "train" or "eval"; {} if unknown."""
        if use == "eval" and self.manifest is not None:
            return self.manifest.get("data") or {}
        return self.config.get("data", {}).get(use, {})

    def steps(self, phase: str) -> int | None:
        """Returns the number of steps of a phase in the config."""
        own = self.config.get("phases", {}).get(phase, {}).get("train", {})
        return {**self.config.get("train", {}), **own}.get("steps")

    def scores(self) -> tuple[str, Mapping[str, Any]]:
        """Returns a description of the last evaluation in training, and its metrics."""
        if self.manifest is not None:
            when = f"checkpoint {self.checkpoint}" if self.loaded else "end of training"
            return when, self.manifest.get("scores", {})
        for line in reversed(self.log):
            scores = {name: line[name] for name in line if text.is_metric(name)}
            if scores:
                return f"step {line['step']} of phase {line['phase']!r}", scores
        return "", {}

    def why_no_model(self) -> str:
        """Describes the state of a run without a readable model in one or two sentences."""
        if (self.run / "model").is_dir():
            return "The model cannot be read: scores and predictions are not shown."
        what = "There is no model yet: training has not finished."
        if not self.log:
            return f"{what} No metrics logged yet."
        last = self.log[-1]
        total = self.steps(last["phase"])
        of = "" if total is None else f" of {total}"
        when = f", at {html.clock(last['time'])}" if "time" in last else ""
        step = f"step {last['step']}{of} of phase {last['phase']!r}"
        return f"{what} The last log entry is {step}{when}."


def read(run: Path, checkpoint: str | None = None) -> Files:
    """Reads a run directory.

    Args:
      run: the directory.
      checkpoint: a checkpoint to report instead of RUN/model, as in `model.load`.

    Raises:
      InputError: the directory is missing, has neither a config nor a model, or has no such
        checkpoint.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such run directory.")
    path, notes, manifest, config = run / "config.json", [], None, {}
    loaded = model_lib.load(run, checkpoint) if checkpoint is not None else None
    if loaded is not None:
        manifest = loaded.manifest
    elif (run / "model").is_dir():
        try:
            manifest = model_lib.load_manifest(run / "model")
        except InputError as error:
            notes.append(str(error))
    elif not path.is_file():
        raise InputError(f"{run} is not a run: it has neither config.json nor a model.")
    if path.is_file():
        config = _json_object(path, notes) or {}
    elif manifest is not None:
        config = {key: manifest[key] for key in ("method", "input") if key in manifest}
        config["data"] = {"eval": manifest.get("data") or {}}
    evaluations = {}
    folder = evaluate.folder(run, checkpoint=loaded.checkpoint if loaded else "")
    for file in sorted(folder.glob("*/**/metrics.json")):
        metrics = _json_object(file, notes)
        source, *decoder = file.parent.relative_to(folder).parts
        if metrics is not None:
            evaluations[source, "/".join(decoder) or "pose-jax eval"] = metrics
    return Files(
        run=run,
        config=config,
        given=path.is_file(),
        manifest=manifest,
        log=log_lib.read_metrics(run),
        evaluations=evaluations,
        notes=tuple(notes),
        loaded=loaded,
    )


def _json_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        reason = "not a JSON object"
    except (OSError, ValueError) as error:
        reason = str(error)
    notes.append(f"{path} cannot be read and is ignored: {reason}.")
    return None
