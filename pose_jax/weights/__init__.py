"""Conversion of published weights to variables, and back.

`mapping` converts names and layouts, `graphs` TensorFlow.js graphs, `convert` makes a run
directory from a published file, `torch_file` and `tfjs_file` read the files, `catalogue`
lists the published checkpoints.
"""

from pose_jax.weights.graphs import from_tfjs
from pose_jax.weights.mapping import from_torch, to_rgb, to_torch

__all__ = ["from_tfjs", "from_torch", "to_rgb", "to_torch"]
