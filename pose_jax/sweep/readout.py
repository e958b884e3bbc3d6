"""Trials that evaluate a trained network under different decoding settings.

Decoders, flip tests, rescoring and NMS do not require training: each trial evaluates the
same run, and the poses of a method are predicted once for all settings applied after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pose_jax import config as config_lib
from pose_jax.errors import ConfigError, InputError, did_you_mean
from pose_jax.sweep.preflight import described, full_metric
from pose_jax.sweep.space import Range, Sweep, as_override, corners
from pose_jax.sweep.study import Claim, Claims, suggest

EVALUATION = ("evaluation.nms", "evaluation.nms_threshold")
"""Keys of the settings that are applied after the network, for all methods."""


def check_evaluated(file: str, sweep: Sweep, run: str, boxes: str) -> tuple[dict, Any]:
    """Like `check`, for the evaluation of a trained run.

    Returns:
      The specification that the study stores, and `Readouts` of the run.
    """
    from pose_jax import methods
    from pose_jax.evaluation import poses

    readouts = Readouts(run, boxes)
    if readouts.loaded.keypoints is None:
        raise ConfigError(f"{run} is a detector: --eval-only requires a pose run.")
    name = readouts.loaded.manifest["method"]["name"]
    fields = methods.without_retraining(methods.find(name))
    known = [f"method.{key}" for key in fields] + [*EVALUATION]
    for key in sweep.space:
        if key not in known:
            raise ConfigError(
                f"{file}: {key!r} cannot be varied without training method {name!r}."
                f"{did_you_mean(key, known, cutoff=0.4)} Possible keys: "
                f"{', '.join(known)}."
            )
    for point in corners(sweep.space):
        try:
            readouts.method(point)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    if sweep.pruner != "none":
        raise ConfigError(f"{file}: --eval-only requires pruner 'none'.")
    spec = {
        **described(sweep),
        "metric": full_metric(file, sweep.metric, poses.names(readouts.table)),
        "config": "",
        "overrides": [],
        "base": readouts.loaded.manifest["method"],
        "resource": [1, 1],
        "eval_only": str(run),
    }
    return spec, readouts


class Readouts:
    """Evaluates a trained network under different decoding settings."""

    def __init__(self, run: str, boxes: str):
        from pose_jax import sharding as sharding_lib
        from pose_jax.runs import model as model_lib

        self.loaded = model_lib.load(run)
        self.table = self.loaded.eval_table(boxes=boxes)
        self.mesh = sharding_lib.make_mesh()
        # Cached poses by method: the settings applied after them are cheap.
        self.known: dict[str, Any] = {}

    def method(self, point: Mapping[str, Any]):
        """Builds the method and the evaluation config for a point of the space.

        Raises:
          ConfigError: the point is invalid.
        """
        from pose_jax import methods
        from pose_jax.evaluation.suppress import EvaluationConfig

        section = dict(self.loaded.manifest["method"])
        evaluation = dict(self.loaded.manifest.get("evaluation") or {})
        for key, value in point.items():
            part, _, name = key.partition(".")
            {"method": section, "evaluation": evaluation}[part][name] = value
        return (
            methods.build(section, self.loaded.keypoints),
            config_lib.build(EvaluationConfig, evaluation, "evaluation"),
            json.dumps(section, sort_keys=True, default=str),
        )

    def measure(self, point: Mapping[str, Any]) -> dict[str, float]:
        """Evaluates a point of the space; returns metrics by full name."""
        from pose_jax.evaluation import poses
        from pose_jax.evaluation.predictor import Predictor

        method, evaluation, name = self.method(point)
        if name not in self.known:
            predictor = Predictor(method, self.mesh)
            self.known[name] = predictor(
                self.loaded.variables, self.table, self.loaded.input
            )
        kept = poses.suppress(self.table, self.known[name], evaluation)
        return poses.measure(self.table, kept)


def measured(
    sweep: Sweep, readouts: Readouts, done: Callable[[], object]
) -> Callable[[Claims, Claim], None]:
    """Returns a function that finishes a trial by evaluation and then calls `done`."""

    def finish(claims: Claims, claim: Claim) -> None:
        point = {}  # Sampled values, in their form in the sweep file.
        for key, drawn in suggest(claim.trial, claims.spec["space"]).items():
            given = sweep.space[key]
            known = () if isinstance(given, Range) else given.values
            point[key] = next((v for v in known if as_override(v) == drawn), drawn)
        try:
            metrics = readouts.measure(point)
            value = metrics[claims.spec["metric"]]
            reason = "the metric is not a number" if value != value else ""
        except InputError as error:
            reason = str(error)
        if reason:
            claims.tell(claim.trial, "fail", reason=reason)
        else:
            claim.trial.report(value, 1)
            claim.trial.set_user_attr("metrics", metrics)
            claims.tell(claim.trial, "complete", value)
        done()

    return finish
