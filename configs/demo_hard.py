r"""Hard synthetic people, the small network, two CPU cores: run by `make demo-hard`.

  pose-jax data synth --n 2000 --val 250 --seed 0 --out data/synthetic-hard
  pose-jax train --config configs/demo_hard.py --run runs/demo-hard
  ... --config configs/demo_hard.py:long        # run by `make demo-long`
  ... --config configs/demo_hard.py:smoke       # two steps, on data/smoke
  ... --config.optimizer.lr=1e-3                # overrides any value

People stand, sit, squat, bend and lie, are seen from all sides, partly occluded, and
truncated by the image. Data of the long variant: `pose-jax data synth --n 6000 --val 250
--seed 0 --out data/synthetic-long`. `configs/demo.py` has upright, front-facing people.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": "pocket"},
            "input_size": (64, 96),
            "sigma": 1.5,
            "encoding": "unbiased",
            "loss": "mse",
            "decoder": "dark",
            "reach": 1.5,
            # Weak augmentation: in a few minutes each person is seen only a dozen times.
            "augment": {"flip": 0.5, "scale": 0.15},
        }
    )
    source = {"name": "coco", "root": "data/synthetic-hard"}
    c.data = ConfigDict(
        {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        }
    )
    c.input = ConfigDict(
        {
            "batch_size": 32,
            "canvas_size": (320, 256),
            "reader": "auto",
            "cache_mb": 1024,
        }
    )
    c.optimizer = ConfigDict(
        {
            "name": "muon",
            "lr": 0.03,
            "adam_kernels": ("head",),
            "schedule": "cosine",
            "warmup_steps": 50,
            "ema_decay": 0.99,
            "ema_warmup": True,
        }
    )
    c.train = ConfigDict(
        {"steps": 1150, "log_every_steps": 100, "eval_every_steps": 575}
    )
    if variant == "long":
        c.data.train.root = c.data.eval.root = "data/synthetic-long"
        c.input.cache_mb = 2048
        c.train.steps = 7000
        c.train.eval_every_steps = 1000
        c.method.augment.rotation = 15.0
        c.method.augment.brightness = 0.2
        c.method.augment.contrast = 0.2
    elif variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    elif variant:
        raise ValueError(f"no variant {variant!r}; there are 'long' and 'smoke'.")
    return c
