"""One evaluation of a model, and `pose-jax eval`, which writes RUN/eval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pose_jax import config as config_lib
from pose_jax import evaluation as evaluation_lib
from pose_jax import sharding as sharding_lib
from pose_jax.data.plan import InputConfig
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError
from pose_jax.evaluation import pictures, text
from pose_jax.evaluation.predictor import Predictor
from pose_jax.evaluation.suppress import EvaluationConfig
from pose_jax.runs import directory
from pose_jax.types import Boxes, Method, Poses, Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions on a table and what they are worth; each part is computed once.

    Attributes:
      kind: `evaluation.poses` or `evaluation.boxes`.
      table: the data.
      predictions: after suppression, NumPy leaves.
    """

    kind: ModuleType
    table: Table
    predictions: Poses | Boxes

    @functools.cached_property
    def results(self) -> list[dict[str, Any]]:
        """The predictions in COCO's result form."""
        return self.kind.to_results(self.table, self.predictions)

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Values by full name."""
        return self.kind.measure(self.table, self.predictions, self.results)

    @functools.cached_property
    def per_keypoint(self) -> list[dict[str, Any]]:
        """A row a keypoint; none for boxes, and without labels."""
        return self.kind.per_keypoint(self.table, self.predictions)

    @functools.cached_property
    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        return self.kind.notes(self.table, self.predictions, self.metrics, self.results)

    def files(self) -> dict[str, Any]:
        """What `pose-jax eval` writes of it, by file name."""
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
    """Predicts and suppresses; the result measures itself when it is asked."""
    kind = evaluation_lib.of(predictor.method)
    found = predictor(variables, table, config, between_batches=between_batches)
    found = kind.suppress(table, found, evaluation or EvaluationConfig())
    return Evaluation(kind, table, found)


def evaluate_run(
    run: Path | str,
    *,
    decoders: Sequence[str] = (),
    flips: Sequence[str] = (),
    data: str | None = None,
    split: str | None = None,
    boxes: str = "gt",
    nms: str | None = None,
    nms_threshold: float | None = None,
) -> dict[str, Evaluation]:
    """Evaluates RUN/model and writes RUN/eval/<source of boxes>/<decoder>/.

    Of a detector it writes RUN/eval/images/: metrics, pictures, and detections.json, which
    `boxes` of a pose model's evaluation reads.

    Args:
      run: the run directory.
      decoders: of the network's output; empty for the run's own.
      flips: flip tests "none", "plain", "shift"; empty for the run's own. What is not its
        own is named: "dark_flip_shift".
      data, split: another root or split of the evaluation data; None for the config's.
      boxes: "gt", or a COCO detections json.
      nms, nms_threshold: as in EvaluationConfig; None for the run's own.

    Returns:
      An evaluation for each decoder.

    Raises:
      ConfigError: an option that the run's method does not have.
    """
    run = Path(run)
    loaded = directory.load(run)
    kind = evaluation_lib.of(loaded)
    given = {
        "decoder": decoders, "flip": flips, "boxes": boxes != "gt", "nms": nms,
        "nms-threshold": nms_threshold is not None,
    }  # fmt: skip
    for option in (name for name, said in given.items() if said):
        if option not in kind.OPTIONS:
            raise ConfigError(
                f"--{option}: {run} is a detector, which makes its boxes itself and has no "
                f"keypoints; leave --{option} out."
            )
    table = loaded.eval_table(data=data, split=split, boxes=boxes)
    section = dict(loaded.manifest.get("evaluation") or {})
    options = {"nms": nms, "nms_threshold": nms_threshold}
    section |= {name: value for name, value in options.items() if value is not None}
    config = config_lib.build(EvaluationConfig, section, "evaluation")
    mesh, found = sharding_lib.make_mesh(), {}
    for name, method in _variants(loaded, decoders, flips).items():
        found[name] = evaluate(
            Predictor(method, mesh), loaded.variables, table, loaded.input, config
        )
        out = run / "eval" / kind.folder(table, name)
        out.mkdir(parents=True, exist_ok=True)
        for file, content in found[name].files().items():
            directory.write_json(out / file, content)
        if kind.DRAWN_BY_EVAL:
            pictures.draw_predictions(out, found[name])
    return found


def described(run: Path | str, found: Mapping[str, Evaluation]) -> str:
    """Evaluations of a run for people to read: metrics, tables, notes, files."""
    lines = [text.table_of({name: each.metrics for name, each in found.items()})]
    for name, each in found.items():
        if each.per_keypoint:
            table = text.keypoint_table(each.per_keypoint)
            lines.append(f"\nby keypoint, {name}:\n{table}")
    for name, each in found.items():
        of = f" {name}:" if len(found) > 1 else ""
        lines += [f"note:{of} {note}" for note in each.notes]
    last = next(reversed(found.values()))
    return "\n".join([*lines, last.kind.written(Path(run), last.table, last.results)])


def _variants(
    loaded: directory.LoadedRun, decoders: Sequence[str], flips: Sequence[str]
) -> dict[str, Method]:
    """Methods over the same weights, by what they are called in RUN/eval."""
    own_flip = loaded.manifest["method"].get("flip_test", "none")
    return {
        (decoder or loaded.decoder)
        + (f"_flip_{flip}" if flip not in (None, own_flip) else ""): loaded.method(
            decoder, flip
        )
        for decoder in decoders or (None,)
        for flip in flips or (None,)
    }
