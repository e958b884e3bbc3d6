"""Devices: the mesh, where arrays live on it, and how they get there and back.

Data parallelism over one axis, "data": parameters are replicated, leading batch axes
are split. Under `jax.jit` the compiler derives everything else, also that BatchNorm
statistics are those of the whole batch. No other file names devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pose_jax.errors import ConfigError, one_line


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, "data", over `devices` (default: all of all processes)."""
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Moves a host batch to the devices.

    Args:
      batch: pytree of NumPy arrays; leaves with axes hold this process's rows along the
        first, scalars are the same in all processes.
      mesh: from `make_mesh`.

    Returns:
      The same tree of global arrays: rows split over the devices, scalars replicated.

    Raises:
      ConfigError: the rows of all processes do not divide by the number of devices.
    """
    split, whole = NamedSharding(mesh, PartitionSpec("data")), replicated(mesh)

    def put(leaf):
        leaf = np.asarray(leaf)
        if leaf.ndim == 0:
            return jax.device_put(leaf, whole)
        rows = leaf.shape[0] * jax.process_count()
        if rows % mesh.size:
            below = rows - rows % mesh.size
            nearest = " or ".join(str(n) for n in (below, below + mesh.size) if n)
            raise ConfigError(
                f"a batch of {rows} rows does not divide by {mesh.size} devices: set "
                f"batch_size to {nearest}, or use fewer devices."
            )
        return jax.make_array_from_process_local_data(split, leaf)

    return jax.tree.map(put, batch)


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Copies every leaf (the same in all processes) to every device."""
    return jax.device_put(tree, replicated(mesh))


def fetch(tree: Any) -> Any:
    """Brings arrays to the host as NumPy, with the rows of all processes."""
    if all(
        leaf.is_fully_addressable or leaf.is_fully_replicated
        for leaf in jax.tree.leaves(tree)
        if isinstance(leaf, jax.Array)
    ):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of several hosts; must precede every other use of JAX.

    On clusters that JAX recognises (Slurm, Cloud TPU, MPI) no argument is needed. Call
    it only when several processes are wanted: a single one has none to join.
    """
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot join the other processes: {one_line(error).rstrip('.')}. Give the "
            "address of the coordinator, the number of processes and the id of this one, "
            "or start without the distributed option."
        ) from error


def device_summary(mesh: Mesh | None = None) -> str:
    """One line for logs: the devices of `mesh`, or all, and the number of processes."""
    devices = jax.devices() if mesh is None else list(mesh.devices.flat)
    kinds = sorted({device.device_kind for device in devices})
    processes = jax.process_count()
    return (
        f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)} "
        f"({', '.join(kinds)}) in {processes} process{'es' * (processes > 1)}"
    )


def agreed(requested: bool, step: int) -> bool:
    """Whether all processes are to stop before `step`, the same answer in all of them.

    Args:
      requested: whether this process was asked to. With several processes the runtime
        itself notices SIGTERM in any of them, and finds a step that none has passed.
      step: that is about to be taken; every process asks at every step.
    """
    if jax.process_count() == 1:
        return requested
    return multihost_utils.reached_preemption_sync_point(step)
