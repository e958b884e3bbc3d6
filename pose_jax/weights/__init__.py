"""Published weights: names and layouts of their files to variables here, and back.

`convert` maps names and makes a run of a published file, `torch_file` reads the files.
"""

from pose_jax.weights.convert import from_torch, to_rgb, to_torch

__all__ = ["from_torch", "to_rgb", "to_torch"]
