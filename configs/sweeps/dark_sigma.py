r"""Targets of DARK: sigma of the Gaussian, in heatmap pixels.

  pose-jax sweep run --config configs/dark/synthetic.py \
    --sweep configs/sweeps/dark_sigma.py --study runs/sweeps/dark_sigma --workers 2
  pose-jax sweep report --study runs/sweeps/dark_sigma

The kernel size of the decoder is derived from sigma. Published networks use 1 at 128x96, 2
at 256x192 and 3 at 384x288.
"""

from pose_jax.sweep import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        space={"method.sigma": grid(0.7, 1.0, 1.5, 2.0, 3.0), "seed": grid(0, 1)},
        metric="AP",
        sampler="grid",
    )
