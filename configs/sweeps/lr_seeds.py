r"""Learning rate and seeds: a hundredfold range, three seeds of each rate that is drawn.

  pose-jax sweep run --config configs/dark/synthetic.py --sweep configs/sweeps/lr_seeds.py \
    --study runs/sweeps/lr_seeds --trials 36 --workers 2
  pose-jax sweep report --study runs/sweeps/lr_seeds

For any config: a rate that is behind the median at the middle of its training is given up.
The rates are drawn for Muon's, 0.03; for Adam's, a thirtieth of that, write another range.
"""

from pose_jax.sweep import Sweep, grid, log_range


def get_sweep() -> Sweep:
    return Sweep(
        space={"optimizer.lr": log_range(3e-3, 0.3), "seed": grid(0, 1, 2)},
        metric="AP",
        pruner="median",
        startup_trials=4,
    )
