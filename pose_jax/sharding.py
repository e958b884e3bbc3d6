"""Devices: the mesh, the placement of arrays on it, and transfers to and from the host.

Data parallelism over one axis, "data": parameters are replicated, leading batch axes
are split. Under `jax.jit` the compiler derives everything else, including BatchNorm
statistics over the global batch. No other module handles devices.
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
    """Makes a mesh with one axis, "data", over `devices` (default: of all processes)."""
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding in which every device holds the complete array."""
    return NamedSharding(mesh, PartitionSpec())


def multiple(batch_size: int, mesh: Mesh) -> int:
    """Returns the smallest batch size that is not below this one and fits the devices."""
    return -(-batch_size // mesh.size) * mesh.size


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Checks that devices can share a batch without padding it, as in training.

    Raises:
      ConfigError: the batch size is not divisible by the number of devices.
    """
    above = multiple(batch_size, mesh)
    if above != batch_size:
        nearest = " or ".join(str(n) for n in (above - mesh.size, above) if n)
        raise ConfigError(
            f"batch size {batch_size} is not divisible by {mesh.size} devices: set "
            f"batch_size to {nearest}, or use fewer devices."
        )


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Moves a host batch to the devices.

    Args:
      batch: pytree of NumPy arrays; the first axis of a leaf holds the rows of this
        process, scalars are equal in all processes.
      mesh: from `make_mesh`.

    Returns:
      The same tree of global arrays: rows split over the devices, scalars replicated.

    Raises:
      ConfigError: the global batch size is not divisible by the number of devices.
    """
    split, whole = NamedSharding(mesh, PartitionSpec("data")), replicated(mesh)

    def put(leaf):
        leaf = np.asarray(leaf)
        if leaf.ndim == 0:
            return jax.device_put(leaf, whole)
        check_batch(leaf.shape[0] * jax.process_count(), mesh)
        return jax.make_array_from_process_local_data(split, leaf)

    return jax.tree.map(put, batch)


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Copies every leaf (equal in all processes) to every device."""
    return jax.device_put(tree, replicated(mesh))


def fetch(tree: Any) -> Any:
    """Transfers arrays to the host as NumPy arrays, with the rows of all processes."""
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
    """Connects the processes of several hosts; must precede every other use of JAX.

    On clusters that JAX recognizes (Slurm, Cloud TPU, MPI) no argument is needed. Call
    it only for runs of several processes.
    """
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot connect to the other processes: {one_line(error).rstrip('.')}. Give "
            "the coordinator address, the number of processes and the id of this process, "
            "or start without the distributed option."
        ) from error


def is_main_process() -> bool:
    """Returns True in the process that writes files and prints."""
    return jax.process_index() == 0


def device_summary(mesh: Mesh | None = None) -> str:
    """Describes the devices of `mesh` (or all) and the number of processes in one line."""
    devices = jax.devices() if mesh is None else list(mesh.devices.flat)
    kinds = sorted({device.device_kind for device in devices})
    processes = jax.process_count()
    return (
        f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)} "
        f"({', '.join(kinds)}) in {processes} process{'es' * (processes > 1)}"
    )


def agreed(requested: bool, step: int) -> bool:
    """Returns whether all processes should stop before `step`; equal in all processes.

    Args:
      requested: whether this process received a stop request. With several processes the
        runtime itself detects SIGTERM in any of them and chooses a common step.
      step: the next step; every process must call this at every step.
    """
    if jax.process_count() == 1:
        return requested
    return multihost_utils.reached_preemption_sync_point(step)


def decided_by_first(value: bool) -> bool:
    """Returns the value of the first process; equal in all processes, which all call it."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value)))
