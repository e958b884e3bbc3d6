"""Weights and a jitted prediction, run over the rows of a table.

Training, `pose-jax eval` and `predict` all go through here: one preprocessing, one
decoding. Every row counts exactly once; the last batch is padded and masked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pose_jax import sharding as sharding_lib
from pose_jax.data import readers
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import Table
from pose_jax.methods.system import People, find_people
from pose_jax.types import Boxes, Inputs, Method, Poses, Variables


def over_batches(
    plan: Plan,
    mesh,
    function: Callable[[Inputs], tuple[Any, jax.Array]],
    between_batches: Callable[[], None] | None = None,
) -> Any:
    """Runs a jitted function over the batches of a plan.

    Args:
      plan: which rows.
      mesh: of devices.
      function: inputs to (results with a leaf `row`, which of them are no padding).
      between_batches: called there; what it raises comes through.

    Returns:
      NumPy leaves, one entry per row, in the order of `plan.rows`.
    """
    parts = []
    for batch in readers.batches(plan):
        if between_batches is not None:
            between_batches()
        # The batch before is fetched while this one is computed.
        parts.append(function(sharding_lib.put_batch(batch.inputs, mesh)))
        if len(parts) > 1:
            parts[-2] = jax.device_get(parts[-2])
    kept = [
        jax.tree.map(lambda leaf, valid=valid: leaf[valid], found)
        for found, valid in jax.device_get(parts)
    ]
    merged = jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)
    # Batches may come in another order than the rows (canvases of several sizes).
    place = np.empty(plan.rows.max() + 1, np.int64)
    place[merged.row] = np.arange(len(merged.row))
    return jax.tree.map(lambda leaf: leaf[place[plan.rows]], merged)


class Predictor:
    """A method's jitted `predict`, kept so that it is traced once for all its uses."""

    def __init__(self, method: Method, mesh) -> None:
        self.method = method
        self.mesh = mesh

        def predict(variables, inputs):
            return method.predict(variables, inputs), inputs.valid

        # Replicated, so that every process holds all rows of a batch.
        self._predict = jax.jit(predict, out_shardings=sharding_lib.replicated(mesh))

    @property
    def traces(self) -> int:
        """How often `predict` has been traced."""
        return self._predict._cache_size()

    def __call__(
        self,
        variables: Variables,
        table: Table,
        config: InputConfig,
        rows: np.ndarray | None = None,
        between_batches: Callable[[], None] | None = None,
    ) -> Poses | Boxes:
        """Predicts rows of a table.

        Args:
          variables: the weights.
          table: the rows' data.
          config: batch and canvas size.
          rows: table rows, for a detector image numbers; None for those that evaluation
            counts.
          between_batches: as of `over_batches`.

        Returns:
          NumPy leaves, one entry per row, in the order of `rows`.
        """
        plan = Plan(
            table=table,
            view=self.method.view,
            config=config,
            rows=rows,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        predict = lambda inputs: self._predict(variables, inputs)
        return over_batches(plan, self.mesh, predict, between_batches)


class System:
    """`find_people` with its weights, over the images of a table."""

    def __init__(
        self,
        detector: Method,
        detector_variables: Variables,
        pose: Method,
        pose_variables: Variables,
        *,
        mesh,
        config: InputConfig,
        **options,
    ) -> None:
        """Args:
        detector, detector_variables: finds the boxes.
        pose, pose_variables: predicts the poses in them.
        mesh: of devices; each takes one image at a time.
        config: how images are read; its batch size is left out of account.
        **options: of `find_people`.
        """
        self.detector, self.pose, self.mesh = detector, pose, mesh
        self.config = dataclasses.replace(config, batch_size=mesh.size)
        self._variables = sharding_lib.put_replicated(
            (detector_variables, pose_variables), mesh
        )
        self._people = find_people(detector, pose, **options)

    @property
    def traces(self) -> int:
        """How often the function has been traced: once a canvas size."""
        return self._people._cache_size()

    def __call__(self, table: Table) -> People:
        """Finds the people of all images of a table; its boxes and labels are not read.

        Returns:
          NumPy leaves, an entry per image, in the table's order.
        """
        rows = np.arange(len(table.images), dtype=np.int32)
        plan = Plan(table, self.detector.view, self.config, rows)
        return over_batches(
            plan,
            self.mesh,
            lambda inputs: (self._people(*self._variables, inputs), inputs.valid),
        )
