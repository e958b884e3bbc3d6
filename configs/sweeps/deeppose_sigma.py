r"""Crop size of DeepPose: side of a joint's crop, 1.5 to 2.3 diameters of the pose.

  pose-jax sweep run --config configs/deeppose/synthetic.py \
    --sweep configs/sweeps/deeppose_sigma.py --study runs/sweeps/deeppose_sigma \
    --workers 2
  pose-jax sweep report --study runs/sweeps/deeppose_sigma

The paper chose sigma on 50 held-out people, 1.0 on FLIC and 2.0 on LSP. The first stage is
the same for all values: its variation over seeds is the noise level of the differences.
"""

from pose_jax.sweep import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        space={"method.sigma": grid(1.5, 1.7, 2.0, 2.3), "seed": grid(0, 1)},
        metric="PCK@0.1",
        sampler="grid",
    )
