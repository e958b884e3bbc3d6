"""Jitted prediction over the rows of a table.

Training, `pose-jax eval` and `predict` all use this module, with the same preprocessing and
decoding. Every row is predicted exactly once; the last batch is padded and masked. Fewer
rows than a batch has are read in the smallest power of two that holds them: one picture
costs what one costs, and pictures in any number need few compilations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pose_jax import sharding as sharding_lib
from pose_jax.data import readers
from pose_jax.data import rows as rows_lib
from pose_jax.data.plan import InputConfig, Plan
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.methods.system import People, find_people
from pose_jax.types import Inputs, Method, Variables


def over_batches(
    plan: Plan,
    mesh,
    function: Callable[[Inputs], tuple[Any, jax.Array]],
    between_batches: Callable[[], None] | None = None,
) -> Any:
    """Runs a jitted function over the batches of a plan.

    Args:
      plan: the plan of the rows.
      mesh: mesh of devices.
      function: inputs -> (results with a leaf `row`, mask of rows that are not padding).
      between_batches: called before each batch; its exceptions are propagated.

    Returns:
      NumPy leaves, one entry per row, in the order of `plan.rows`. Rows that could not be
      read have zeros: they are not valid.
    """
    parts = []
    for batch in readers.batches(plan):
        if between_batches is not None:
            between_batches()
        # The previous batch is fetched while this one is computed.
        parts.append(function(sharding_lib.put_batch(batch.inputs, mesh)))
        if len(parts) > 1:
            parts[-2] = jax.device_get(parts[-2])
    kept = [
        jax.tree.map(lambda leaf, valid=valid: leaf[valid], results)
        for results, valid in jax.device_get(parts)
    ]
    merged = jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)
    # The order of batches may differ from that of the rows (canvases of several sizes).
    place = np.full(plan.rows.max() + 1, -1)
    place[merged.row] = np.arange(len(merged.row))
    place = place[plan.rows]
    if not len(merged.row):
        raise InputError(f"{plan.table.name}: none of the images can be read.")

    def in_order(leaf):
        read = (place >= 0).reshape(-1, *[1] * (leaf.ndim - 1))
        return np.where(read, leaf[place], leaf.dtype.type(0))

    if (place >= 0).all():
        return jax.tree.map(lambda leaf: leaf[place], merged)
    return dataclasses.replace(jax.tree.map(in_order, merged), row=plan.rows)


def holding(rows: int, largest: int) -> int:
    """Returns the smallest power of two that holds the rows, or the largest size."""
    return min(largest, 1 << (max(rows, 1) - 1).bit_length())


class Predictor:
    """The jitted `predict` of a method, traced once per batch size and canvas size."""

    def __init__(self, method: Method, mesh) -> None:
        self.method = method
        self.mesh = mesh

        def predict(variables, inputs):
            return method.predict(variables, inputs), inputs.valid

        # Replicated, so that every process has all rows of a batch.
        self._predict: Any = jax.jit(
            predict, out_shardings=sharding_lib.replicated(mesh)
        )

    @property
    def traces(self) -> int:
        """Number of times that `predict` was traced."""
        return self._predict._cache_size()

    def __call__(
        self,
        variables: Variables,
        table: Table,
        config: InputConfig,
        rows: np.ndarray | None = None,
        between_batches: Callable[[], None] | None = None,
    ) -> Any:
        """Predicts `Poses` or `Boxes` of rows of a table.

        Args:
          variables: the weights.
          table: the data.
          config: largest batch size, and canvas size.
          rows: table rows, for a detector image indices; None: the rows of an evaluation.
          between_batches: as in `over_batches`.

        Returns:
          NumPy leaves, one entry per row, in the order of `rows`.
        """
        kind = rows_lib.of(self.method.view)
        rows = kind.default(table, False) if rows is None else rows
        # Devices share a batch: those that do not divide it pad it.
        size = sharding_lib.multiple(holding(len(rows), config.batch_size), self.mesh)
        config = dataclasses.replace(config, batch_size=size)
        if not len(rows) and not table.labelled:  # A detector that found no one.
            return self._none(variables, config)
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

    def _none(self, variables: Variables, config: InputConfig) -> Any:
        """Returns predictions of no rows."""
        width, height = config.canvas_size
        shape = jax.ShapeDtypeStruct
        inputs = Inputs(
            images=shape((1, height, width, 3), np.uint8),
            canvas_to_image=shape((1, 2, 3), np.float32),
            box_xyxy=shape((1, 4), np.float32),
            box_score=shape((1,), np.float32),
            valid=shape((1,), np.bool_),
            row=shape((1,), np.int32),
        )
        predicted = jax.eval_shape(self.method.predict, variables, inputs)
        empty = lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype)
        return jax.tree.map(empty, predicted)


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
        detector, detector_variables: method and weights that predict boxes.
        pose, pose_variables: method and weights that predict the poses in them.
        mesh: mesh of devices; each processes one image at a time.
        config: the input config; its batch size is ignored.
        **options: options of `find_people`.
        """
        self.detector, self.pose, self.mesh = detector, pose, mesh
        self.config = dataclasses.replace(config, batch_size=mesh.size)
        self._variables: tuple[Variables, Variables] = sharding_lib.put_replicated(
            (detector_variables, pose_variables), mesh
        )
        self._people = find_people(detector, pose, **options)

    @property
    def traces(self) -> int:
        """Number of times that the function was traced: once per canvas size."""
        return self._people._cache_size()

    def __call__(self, table: Table) -> People:
        """Predicts the people of all images of a table, without its boxes and labels.

        Returns:
          NumPy leaves, one entry per image, in the order of the table.
        """
        rows = np.arange(len(table.images), dtype=np.int32)
        plan = Plan(table, self.detector.view, self.config, rows)
        return over_batches(
            plan,
            self.mesh,
            lambda inputs: (self._people(*self._variables, inputs), inputs.valid),
        )
