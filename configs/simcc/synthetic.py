r"""SimCC (coordinate classification) on the data of the demo, two CPU cores.

  pose-jax data synth --difficulty easy --size 192x160 --n 3000 --val 250 --seed 0 \
    --out data/synthetic
  pose-jax train --config configs/simcc/synthetic.py --run runs/simcc
  pose-jax eval --run runs/simcc --decoder argmax,expectation
  ... --config configs/simcc/synthetic.py:equal              # 800 steps
  ... --config configs/simcc/synthetic.py:smoke              # two steps, on data/smoke

`configs/demo.py` with SimCC instead of heatmaps, 2400 steps. sigma is 6 bins at 192x256 in
the paper, hence 3 at 96x128. Results: experiments/simcc.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "equal", "smoke"):
        raise ValueError(f"no variant {variant!r}; there are 'equal' and 'smoke'.")
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "simcc",
            "model": {"name": "simcc_pocket"},
            "input_size": (96, 128),
            "split": 2,
            "sigma": 3.0,
            "decoder": "argmax",
            "reach": 1.5,
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
        {"batch_size": 32, "canvas_size": (192, 160), "cache_mb": 1024}
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
    steps = 800 if variant == "equal" else 2400
    c.train = ConfigDict(
        {"steps": steps, "log_every_steps": 100, "eval_every_steps": 800}
    )
    if variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    return c
