r"""A small ablation of DARK: front-facing synthetic people, two CPU cores.

  pose-jax data synth --difficulty easy --size 192x160 --n 6000 --val 1000 \
    --out data/synthetic-easy
  pose-jax train --config configs/dark/synthetic.py --run runs/synthetic
  ... --config configs/dark/synthetic.py:biased         # rounded centers, cut at 3 sigma
  ... --config configs/dark/synthetic.py:64x48          # half the input, half the maps
  ... --config configs/dark/synthetic.py:biased,64x48
  ... --config configs/dark/synthetic.py:smoke          # two steps, on data/smoke

`python -m experiments.dark.ablation` trains all variants with two seeds and evaluates six
decoders. The heatmaps are 32x24 and 16x12; sigma is 1, as at 128x96 in the paper. Crops and
heatmaps are aligned in all variants, so that only the encoding differs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    chosen = set(filter(None, variant.split(",")))
    if unknown := sorted(chosen - {"biased", "64x48", "smoke"}):
        raise ValueError(
            f"no variant {unknown[0]!r}; there are 'biased', '64x48' and 'smoke'."
        )
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": "pocket"},
            "input_size": (96, 128),
            "sigma": 1.0,
            "encoding": "biased" if "biased" in chosen else "unbiased",
            "decoder": "dark",
            "alignment": "aligned",
            "reach": 1.5,
            "augment": {"flip": 0.5, "scale": 0.15, "rotation": 15.0},
        }
    )
    source = {"name": "coco", "root": "data/synthetic-easy"}
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
            "ema_decay": 0.995,
            "ema_warmup": True,
        }
    )
    c.train = ConfigDict(
        {"steps": 2500, "log_every_steps": 100, "eval_every_steps": 1250}
    )
    if "64x48" in chosen:
        c.method.input_size = (48, 64)
        # Canvases are downsampled by exact averaging, without aliasing.
        c.input.canvas_size = (96, 80)
    if "smoke" in chosen:
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    return c
