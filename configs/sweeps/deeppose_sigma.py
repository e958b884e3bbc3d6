r"""DeepPose's crop: the side of a joint's square, 1.5 to 2.3 diameters of the pose.

  pose-jax sweep run --config configs/deeppose/synthetic.py \
    --sweep configs/sweeps/deeppose_sigma.py --study runs/sweeps/deeppose_sigma \
    --workers 2
  pose-jax sweep report --study runs/sweeps/deeppose_sigma

The paper chose sigma on 50 people held out, 1.0 on FLIC and 2.0 on LSP. The first stage is
the same for all of them: its seeds are what the differences have to be larger than.
"""

from pose_jax.sweep import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        space={"method.sigma": grid(1.5, 1.7, 2.0, 2.3), "seed": grid(0, 1)},
        metric="PCK@0.1",
        sampler="grid",
    )
