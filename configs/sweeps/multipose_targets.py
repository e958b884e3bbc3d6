r"""Targets of MultiPose: radius R of the binary heatmaps, and delta of the Huber loss.

  pose-jax sweep run --config configs/multipose/synthetic.py \
    --sweep configs/sweeps/multipose_targets.py --study runs/sweeps/multipose_targets \
    --workers 2
  pose-jax sweep report --study runs/sweeps/multipose_targets

Both are in pixels of the config's input, 97x73, where R = 7.1 is the same fraction of the
crop as in the paper. The paper does not give delta.
"""

from pose_jax.sweep import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        space={
            "method.radius": grid(4.3, 7.1, 10.7),
            "method.delta": grid(0.3, 1.0, 3.0),
            "seed": grid(0, 1),
        },
        metric="AP",
        sampler="grid",
    )
