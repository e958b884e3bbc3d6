"""Evaluation of a model, and `pose-jax eval`, which writes RUN/eval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pose_jax import config as config_lib
from pose_jax import evaluation as evaluation_lib
from pose_jax import methods, writing
from pose_jax import sharding as sharding_lib
from pose_jax.data import keypoint_sets
from pose_jax.data.plan import InputConfig
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError
from pose_jax.evaluation import pictures, text, widths
from pose_jax.evaluation.predictor import Predictor
from pose_jax.evaluation.suppress import EvaluationConfig
from pose_jax.runs import directory
from pose_jax.runs import model as model_lib
from pose_jax.types import Boxes, Method, Poses, Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions on a table and their metrics, computed on demand and cached.

    Attributes:
      kind: `evaluation.poses` or `evaluation.boxes`.
      table: the data.
      predictions: the predictions after NMS, NumPy leaves.
      max_detections: also compute AP with this number of poses per image.
      checkpoint: the checkpoint that predicted them; "" for RUN/model and in training.
      width: the width of the heatmaps beside the decoder's, in words; None: it has none.
    """

    kind: ModuleType
    table: Table
    predictions: Poses | Boxes
    max_detections: int | None = None
    checkpoint: str = ""
    width: str | None = None

    @functools.cached_property
    def results(self) -> list[dict[str, Any]]:
        """The predictions in COCO result format."""
        return self.kind.to_results(self.table, self.predictions)

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Values by full name."""
        found = self.kind.measure(self.table, self.predictions, self.results)
        if self.max_detections is not None:
            found |= self.kind.ap_of_more(self.table, self.results, self.max_detections)
        return found

    @functools.cached_property
    def per_keypoint(self) -> list[dict[str, Any]]:
        """One row per keypoint; empty for boxes and without labels."""
        return self.kind.per_keypoint(self.table, self.predictions)

    @functools.cached_property
    def notes(self) -> list[str]:
        """Explanations of special values of the metrics."""
        found = self.kind.notes(
            self.table, self.predictions, self.metrics, self.results
        )
        return [*found, self.width] if self.width else found

    def files(self) -> dict[str, Any]:
        """Returns the contents of the files that `pose-jax eval` writes, by name."""
        files = {"metrics.json": self.metrics, self.kind.RESULTS: self.results}
        return files | {
            name: getattr(self, part) for name, part in self.kind.FILES.items()
        }


def evaluate(
    predictor: Predictor,
    variables: Variables,
    table: Table,
    config: InputConfig,
    evaluation: EvaluationConfig | None = None,
    *,
    between_batches: Callable[[], None] | None = None,
) -> Evaluation:
    """Predicts and applies NMS; metrics are computed when the result is asked for them."""
    kind = evaluation_lib.of(predictor.method)
    predictions = predictor(variables, table, config, between_batches=between_batches)
    predictions = kind.matched(table, predictions, predictor.method.keypoints)
    predictions = kind.suppress(table, predictions, evaluation or EvaluationConfig())
    return Evaluation(kind, table, predictions)


def evaluate_run(
    run: Path | str,
    *,
    decoders: Sequence[str] = (),
    flips: Sequence[str] = (),
    data: str | None = None,
    split: str | None = None,
    boxes: str = "gt",
    annotations: str | None = None,
    format: str | None = None,
    match_keypoints: bool = False,
    nms: str | None = None,
    nms_threshold: float | None = None,
    out: Path | str | None = None,
    max_detections: int | None = None,
    weighting: str | None = None,
    sigmas: Sequence[float] | None = None,
    checkpoint: str | None = None,
) -> dict[str, Evaluation]:
    """Evaluates RUN/model and writes RUN/eval/<box source>/<decoder>/, or below `out`.

    For a detector it writes RUN/eval/images/: metrics, pictures, and detections.json, which
    can be used as `boxes` in the evaluation of a pose model.

    Args:
      run: the run directory.
      decoders: names of decoders; empty: the decoder of the run.
      flips: flip tests "none", "plain", "shift"; empty: the flip test of the run. Others
        are part of the name of the result: "dark_flip_shift".
      data, split, boxes, annotations, format, match_keypoints: as in
        `LoadedRun.eval_table`.
      nms, nms_threshold: as in EvaluationConfig; None: from the config.
      out: the folder to write; None: RUN/eval, for a checkpoint RUN/eval_<phase>_<step>.
      max_detections: also compute AP with this number of poses per image; None: only with
        COCO's 20.
      weighting: that of method "cells"; None: of the run. Another than the run's is part of
        the name of the result: "dark_weighting_none".
      sigmas: of OKS, one for all keypoints or one per keypoint, instead of those of the
        run's keypoint set; None: those.
      checkpoint: a checkpoint instead of RUN/model, as in `model.load`.

    Returns:
      Evaluations by decoder, flip test and weighting.

    Raises:
      ConfigError: an option that the method of the run does not support.
      InputError: the folder to write, the model or the data are not usable.
    """
    run = Path(run)
    writing.check(folder(run, out), "give a folder of your own by --out")
    loaded = model_lib.load(run, checkpoint)
    root = folder(run, out, loaded.checkpoint)
    kind = evaluation_lib.of(loaded)
    is_set = {
        "decoder": decoders, "flip": flips, "boxes": boxes != "gt", "nms": nms,
        "nms-threshold": nms_threshold is not None, "match-keypoints": match_keypoints,
        "max-detections": max_detections is not None, "weighting": weighting,
        "sigmas": sigmas,
    }  # fmt: skip
    for option in (name for name, used in is_set.items() if used):
        if option not in kind.OPTIONS:
            raise ConfigError(
                f"--{option} is not supported for detectors, and {run} is a detector: omit "
                f"--{option}."
            )
    if max_detections is not None and max_detections < 1:
        raise ConfigError(f"max_detections must be positive; got {max_detections}.")
    table = loaded.eval_table(
        data=data,
        split=split,
        boxes=boxes,
        annotations=annotations,
        format=format,
        match_keypoints=match_keypoints,
    )
    if sigmas is not None:
        values = {"sigmas": sigmas[0] if len(sigmas) == 1 else list(sigmas)}
        keypoints = keypoint_sets.resolve(values, table.keypoints, "--sigmas")
        table = table.with_keypoints(keypoints)
    section = dict(loaded.manifest.get("evaluation") or {})
    options = {"nms": nms, "nms_threshold": nms_threshold}
    section |= {name: value for name, value in options.items() if value is not None}
    config = config_lib.build(EvaluationConfig, section, "evaluation")
    mesh, evaluations = sharding_lib.make_mesh(), {}
    for name, method in _variants(loaded, decoders, flips, weighting).items():
        evaluation = evaluate(
            Predictor(method, mesh), loaded.variables, table, loaded.input, config
        )
        width = widths.note(
            method, loaded.variables, table, loaded.input, evaluation.predictions.row
        )
        evaluations[name] = dataclasses.replace(
            evaluation,
            max_detections=max_detections,
            checkpoint=loaded.checkpoint,
            width=width,
        )
        place = root / kind.folder(table, name)
        for file, content in evaluations[name].files().items():
            directory.write_json(place / file, content)
        if kind.DRAWN_BY_EVAL:
            pictures.draw_predictions(place, evaluations[name])
    return evaluations


def folder(run: Path, out: Path | str | None = None, checkpoint: str = "") -> Path:
    """Returns the folder that `evaluate_run` writes."""
    name = "_".join(["eval", *filter(None, checkpoint.split("/"))])
    return run / name if out is None else Path(out)


def described(
    run: Path | str, found: Mapping[str, Evaluation], out: Path | str | None = None
) -> str:
    """Formats the evaluations of a run as text: metrics, tables, notes, files."""
    *_, last = found.values()
    lines = [f"checkpoint {last.checkpoint}"] if last.checkpoint else []
    if all(each.metrics for each in found.values()):
        lines.append(text.table_of({name: of.metrics for name, of in found.items()}))
    for name, each in found.items():
        if each.per_keypoint:
            table = text.keypoint_table(each.per_keypoint)
            lines.append(f"\nby keypoint, {name}:\n{table}")
    for name, each in found.items():
        of = f" {name}:" if len(found) > 1 else ""
        lines += [f"note:{of} {note}" for note in each.notes]
    place = folder(Path(run), out, last.checkpoint)
    return "\n".join([*lines, last.kind.written(place, last.table, last.results)])


def _variants(
    loaded: model_lib.LoadedRun,
    decoders: Sequence[str],
    flips: Sequence[str],
    weighting: str | None = None,
) -> dict[str, Method]:
    """Returns methods for all decoders and flip tests, by their names in RUN/eval."""
    _, own = methods.parse(loaded.manifest["method"])
    own_flip = getattr(own, "flip_test", "none")
    same = weighting in (None, getattr(own, "weighting", None))
    other = "" if same else f"_weighting_{weighting}"
    settings = {} if weighting is None else {"weighting": weighting}
    return {
        (decoder or loaded.decoder)
        + (f"_flip_{flip}" if flip not in (None, own_flip) else "")
        + other: loaded.method(decoder, flip, **settings)
        for decoder in decoders or (None,)
        for flip in flips or (None,)
    }
