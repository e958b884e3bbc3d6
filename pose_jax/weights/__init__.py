"""Conversion of published weights to variables, and back.

`mapping` converts names and layouts, `convert` makes a run directory from a published file,
`torch_file` reads the files, `catalogue` lists the published checkpoints.
"""

from pose_jax.weights.mapping import from_torch, to_rgb, to_torch

__all__ = ["from_torch", "to_rgb", "to_torch"]
