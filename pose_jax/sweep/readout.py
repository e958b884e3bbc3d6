"""A trained network read out in other ways: trials that train nothing.

Decoders, flip tests, rescoring and NMS need no other weights: each trial is an evaluation
of one run, and the poses of a method are predicted once for all that comes after them.
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
"""Keys of what comes after the network, for any method."""


def check_evaluated(file: str, sweep: Sweep, run: str, boxes: str) -> tuple[dict, Any]:
    """As `check`, of a trained run whose network is only read out.

    Returns:
      What a study keeps, and `Readouts` of the run.
    """
    from pose_jax import methods
    from pose_jax.evaluation import poses

    readouts = Readouts(run, boxes)
    if readouts.loaded.keypoints is None:
        raise ConfigError(f"{run} is a detector: it can be read out in one way only.")
    name = readouts.loaded.manifest["method"]["name"]
    fields = methods.without_retraining(methods.find(name))
    known = [f"method.{key}" for key in fields] + [*EVALUATION]
    for key in sweep.space:
        if key not in known:
            raise ConfigError(
                f"{file}: {key!r} cannot be varied without training a network of method "
                f"{name!r} for it.{did_you_mean(key, known, cutoff=0.4)} There are "
                f"{', '.join(known)}."
            )
    for point in corners(sweep.space):
        try:
            readouts.method(point)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    if sweep.pruner != "none":
        raise ConfigError(f"{file}: an evaluation cannot be pruned.")
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
    """A trained network, measured in other ways; nothing is trained."""

    def __init__(self, run: str, boxes: str):
        from pose_jax import sharding as sharding_lib
        from pose_jax.runs import directory

        self.loaded = directory.load(run)
        self.table = self.loaded.eval_table(boxes=boxes)
        self.mesh = sharding_lib.make_mesh()
        # Poses of a method: what comes after them is cheap.
        self.known: dict[str, Any] = {}

    def method(self, point: Mapping[str, Any]):
        """The method and the evaluation that a point of the space asks for.

        Raises:
          ConfigError: it cannot be.
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
        """Metrics by full name."""
        from pose_jax.evaluation import poses
        from pose_jax.evaluation.predictor import Predictor

        method, evaluation, name = self.method(point)
        if name not in self.known:
            predictor = Predictor(method, self.mesh)
            self.known[name] = predictor(
                self.loaded.variables, self.table, self.loaded.input
            )
        found = poses.suppress(self.table, self.known[name], evaluation)
        return poses.measure(self.table, found)


def measured(
    sweep: Sweep, readouts: Readouts, done: Callable[[], object]
) -> Callable[[Claims, Claim], None]:
    """Finishes trials by reading out the network; `done` is called after each."""

    def finish(claims: Claims, claim: Claim) -> None:
        point = {}  # Drawn values as the sweep file has them.
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
