"""Weights and a jitted prediction, run over the rows of a table.

`System` has a detector and a pose method; `evaluate.Predictor` has one method.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from pose_jax import sharding as sharding_lib
from pose_jax.data import readers
from pose_jax.data.table import Table
from pose_jax.methods.system import People, find_people
from pose_jax.types import Method, Variables


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
        config: readers.InputConfig,
        **options,
    ) -> None:
        """Args:
        detector, detector_variables: who is there.
        pose, pose_variables: how they stand.
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
        plan = readers.Plan(
            table=table,
            view=self.detector.view,
            config=self.config,
            rows=np.arange(len(table.images), dtype=np.int32),
        )
        parts = []
        for batch in readers.batches(plan):
            inputs = sharding_lib.put_batch(batch.inputs, self.mesh)
            # The batch before is fetched while this one is computed.
            parts.append((batch.inputs.valid, self._people(*self._variables, inputs)))
            if len(parts) > 1:
                parts[-2] = jax.device_get(parts[-2])
        parts = jax.device_get(parts)
        real = [
            jax.tree.map(lambda leaf, valid=valid: leaf[valid], found)
            for valid, found in parts
        ]
        merged = jax.tree.map(lambda *leaves: np.concatenate(leaves), *real)
        # Images come by canvas size.
        order = np.argsort(merged.row, kind="stable")
        return jax.tree.map(lambda leaf: leaf[order], merged)
