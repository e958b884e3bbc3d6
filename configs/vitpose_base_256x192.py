r"""ViTPose-B at 256x192 on COCO, with layer-wise learning rates.

  pose-jax weights fetch vitpose_base --out runs/vitpose_base
  pose-jax train --config configs/vitpose_base_256x192.py --run runs/vitpose \
    --config.train.init_from=runs/vitpose_base
  ... --config configs/vitpose_base_256x192.py:smoke    # two steps, on data/smoke

COCO is expected in data/coco, as for simple_baseline_50_256x192.py. For keypoints of your
own, give your data; the head is then random (train.init_skip) and all other layers are
those of the published network.

The published recipe: AdamW at 5e-4, 500 steps of warmup, times 0.1 at epochs 170 and 200 of
210, batch 512, weight decay 0.1, norm of the gradients at most 1. The learning rate of the
last layer of the transformer is 0.75 of the head's, that of each earlier one 0.75 of the
next. The published drop path of 0.3 is not implemented. The recipe starts from an MAE
network; from published poses, a tenth of the steps and of the rate is a first try.

Published score, with detected boxes and flip test: AP 75.7 (mmpose). Ours: not yet run.
"""

from dark._recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(
        model="vitpose_base",
        input_size=(192, 256),
        sigma=2.0,
        batch_size=512,
        lr=5e-4,
        epochs=210,
        drop_epochs=(170, 200),
        augment={"flip": 0.5, "scale": 0.5, "rotation": 40.0},
    )
    c.optimizer.name = "adamw"
    c.optimizer.weight_decay = 0.1
    c.optimizer.warmup_steps = 500
    c.optimizer.clip_norm = 1.0
    if variant == "smoke":
        c.optimizer.warmup_steps = 1
    c.optimizer.lr_factors = _layer_wise(0.75, layers=1 if variant == "smoke" else 12)
    if variant not in ("", "smoke"):
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return apply_variant(c, variant)


def _layer_wise(decay: float, *, layers: int) -> tuple[tuple[str, float], ...]:
    """Returns a factor for every layer: `decay` for the last, its square for the one before
    it, and so on."""
    factors = [(f"layer/{i}", decay ** (layers - i)) for i in range(layers)]
    return (("embeddings", decay ** (layers + 1)), *factors)
