"""A cascade of two phases with statistics, without a network."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from pose_jax.methods.heatmaps import HEATMAPS
from pose_jax.methods.topdown import ModelConfig
from pose_jax.types import Mean, PersonView, Phase, Poses, Statistics
from tests.made_up import MadeUp

_NETWORK = ModelConfig("deeppose")  # Never built.


@dataclasses.dataclass(frozen=True)
class CascadeConfig:
    name: str
    starts_from: str | None = None  # Of stage 2.
    model: ModelConfig = _NETWORK


class Cascade(MadeUp):
    """Stage 1 learns the mean place in the box; stage 2 what stage 1 left, in units of
    the spread that was measured after stage 1."""

    name = "cascade"
    Config = CascadeConfig
    outputs = "coordinates"
    view = PersonView(size=(8, 8))
    panels = (HEATMAPS,)

    @property
    def phases(self):
        of_2 = functools.partial(self.prepare, stage="stage_2")
        of_1 = functools.partial(self.prepare, stage="stage_1")
        statistics = Statistics(self.measure, self.finish)
        start = self.config.starts_from
        return (
            Phase("stage_1", self.init, of_1, self.loss, self.preview),
            Phase(
                "stage_2", self.init, of_2, self.loss, self.preview, statistics, start
            ),
        )

    def init(self, key):
        return {"params": {"mean": jnp.zeros((1, 17, 2))}, "batch_stats": {}}

    def base(self, variables, b):
        if "stage_1" not in variables:
            return jnp.zeros((b, 17, 2))
        mean = variables["stage_1"]["params"]["mean"]
        return jnp.broadcast_to(mean, (b, 17, 2))

    def error(self, variables, batch):
        """What the phases before leave, and where it counts."""
        box, points = batch.inputs.box_xyxy, batch.labels.points_xy
        center, size = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
        true = (points - center[:, None]) / size[:, None]
        weight = batch.inputs.valid[:, None] & (batch.labels.visibility > 0)
        earlier = {k: v for k, v in variables.items() if "params" in v}
        return true - self.base(earlier, len(true)), weight

    def prepare(self, variables, batch, key, stage):
        error, weight = self.error(variables, batch)
        constants = variables[stage]["constants"]
        scale = constants.get("spread", jnp.ones((1, 17, 1)))
        return {"error": error, "weight": weight, "scale": scale}

    def loss(self, params, state, example, key):
        residual = example["error"] - params["mean"] * example["scale"]
        each = jnp.sum(residual**2, -1) * example["weight"]
        count = jnp.sum(example["weight"]).astype(jnp.float32)
        total = jnp.sum(each) / count
        return total, (state, {"loss": Mean(total * count, count)})

    def measure(self, variables, batch):
        error, weight = self.error(variables, batch)
        squared = jnp.sum(error**2, -1) * weight
        return {"squared": squared.sum(0), "count": weight.sum(0)}

    def finish(self, sums):
        spread = jnp.sqrt(sums["squared"] / jnp.maximum(sums["count"], 1))
        return {"spread": spread.reshape(1, 17, 1)}

    def predict(self, variables, inputs):
        place = self.base(variables, len(inputs.row))
        if "stage_2" in variables:
            two = variables["stage_2"]
            place = place + two["params"]["mean"] * two["constants"]["spread"]
        box = inputs.box_xyxy
        center, size = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
        return Poses(
            points_xy=center[:, None] + place * size[:, None],
            keypoint_scores=jnp.ones(place.shape[:2]),
            score=inputs.box_score,
            valid=inputs.valid,
            row=inputs.row,
        )

    def inspect(self, variables, inputs):
        b = len(inputs.row)
        return {
            "input": jnp.zeros((b, 8, 8, 3)),
            "heatmaps": jnp.zeros((b, 8, 8, 17)),
            "points_xy": jnp.zeros((b, 17, 2)),
            "keypoint_scores": jnp.ones((b, 17)),
        }

    def preview(self, example):
        b = len(example["weight"])
        return {
            "input": np.zeros((b, 8, 8, 3)),
            "points_xy": np.zeros((b, 17, 2)),
            "visibility": np.zeros((b, 17), int),
        }
