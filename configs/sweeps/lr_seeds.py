r"""Learning rate over a factor of 100, with three seeds per sampled value.

  pose-jax sweep run --config configs/dark/synthetic.py --sweep configs/sweeps/lr_seeds.py \
    --study runs/sweeps/lr_seeds --trials 36 --workers 2
  pose-jax sweep report --study runs/sweeps/lr_seeds

For any config. Trials below the median in the middle of the training are pruned. The range
is for Muon, around 0.03; for Adam use a range around a thirtieth of that.
"""

from pose_jax.sweep import Sweep, grid, log_range


def get_sweep() -> Sweep:
    return Sweep(
        space={"optimizer.lr": log_range(3e-3, 0.3), "seed": grid(0, 1, 2)},
        metric="AP",
        pruner="median",
        startup_trials=4,
    )
