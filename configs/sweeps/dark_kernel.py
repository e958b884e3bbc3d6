r"""DARK's kernel and the other decoders, of a network that is trained already.

  pose-jax sweep run --config configs/dark/synthetic.py \
    --sweep configs/sweeps/dark_kernel.py --study runs/sweeps/dark_kernel_trained
  pose-jax sweep run --eval-only runs/synthetic \
    --sweep configs/sweeps/dark_kernel.py --study runs/sweeps/dark_kernel
  pose-jax sweep report --study runs/sweeps/dark_kernel

The second command is the one to use: it reads one network out in all these ways, seconds
each. The kernel is that of the modulation, in pixels of the heatmap; the released code
takes 11, and 17 at 384x288. The decoders without modulation do not look at it.
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
