r"""Front-facing synthetic people, the small network, two CPU cores: run by `make demo`.

  pose-jax data synth --difficulty easy --size 192x160 --n 3000 --val 250 --seed 0 \
    --out data/synthetic
  pose-jax train --config configs/demo.py --run runs/demo
  ... --config configs/demo.py:smoke       # two steps, on data/smoke
  ... --config.seed=1                      # overrides any value

`configs/demo_hard.py` trains on harder people.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": "pocket"},
            "input_size": (96, 128),
            "sigma": 1.0,
            "encoding": "unbiased",
            "loss": "mse",
            "decoder": "dark",
            "reach": 1.5,
            # Weak augmentation: in a few minutes each person is seen only a dozen times.
            "augment": {"flip": 0.5, "scale": 0.15},
        }
    )
    source = {"name": "coco", "root": "data/synthetic"}
    c.data = ConfigDict(
        {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        }
    )
    c.input = ConfigDict(
        {
            "batch_size": 32,
            "canvas_size": (192, 160),
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
        {"steps": 800, "log_every_steps": 100, "eval_every_steps": 400}
    )
    if variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
