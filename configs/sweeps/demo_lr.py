r"""Learning rate of the hard demo, in minutes: eight short trainings on a few people.

  pose-jax data synth --n 100 --val 40 --seed 0 --out data/sweep
  pose-jax sweep run --config configs/demo_hard.py --sweep configs/sweeps/demo_lr.py \
    --study runs/sweeps/demo_lr --trials 8 --workers 2 \
    --config.data.train.root=data/sweep --config.data.eval.root=data/sweep \
    --config.train.steps=60 --config.train.eval_every_steps=20 \
    --config.train.log_every_steps=20 --config.train.checkpoint_every_steps=20 \
    --config.optimizer.warmup_steps=5
  pose-jax sweep report --study runs/sweeps/demo_lr

Four learning rates with two seeds each. Such short trainings favor fast starts: this is an
example of a study, not a way to choose the learning rate.
"""

from pose_jax.sweep import Sweep, grid, log_range


def get_sweep() -> Sweep:
    return Sweep(
        space={"optimizer.lr": log_range(3e-3, 0.3), "seed": grid(0, 1)},
        metric="PCK@0.2",
        sampler="tpe",
        startup_trials=2,
    )
