r"""Kernel size of DARK and other decoders, for a trained network.

  pose-jax sweep run --config configs/dark/synthetic.py \
    --sweep configs/sweeps/dark_kernel.py --study runs/sweeps/dark_kernel_trained
  pose-jax sweep run --eval-only runs/synthetic \
    --sweep configs/sweeps/dark_kernel.py --study runs/sweeps/dark_kernel
  pose-jax sweep report --study runs/sweeps/dark_kernel

The second command is recommended: it evaluates one network with all settings, in seconds
each. The kernel size is that of the modulation, in heatmap pixels; the released code uses
11, and 17 at 384x288. Decoders without modulation ignore it.
"""

from pose_jax.sweep import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        space={
            "method.decoder": grid("argmax", "shift", "dark", "dark_paper"),
            "method.kernel_size": grid(3, 5, 7, 9, 11, 13, 17),
        },
        metric="AP",
        sampler="grid",
    )
