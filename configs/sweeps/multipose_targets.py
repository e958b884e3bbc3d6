r"""MultiPose's targets: the radius R of its discs, and delta of its Huber loss.

  pose-jax sweep run --config configs/multipose/synthetic.py \
    --sweep configs/sweeps/multipose_targets.py --study runs/sweeps/multipose_targets \
    --workers 2
  pose-jax sweep report --study runs/sweeps/multipose_targets

In pixels of the config's input, 97x73 there, where R = 7.1 is the paper's share of the
crop. The paper gives no delta.
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
