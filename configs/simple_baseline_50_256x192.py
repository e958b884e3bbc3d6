r"""SimpleBaseline-50 at 256x192 on COCO, with DARK's codec or the standard one.

  pose-jax train --config configs/simple_baseline_50_256x192.py --run runs/sb50
  ... --config configs/simple_baseline_50_256x192.py:biased   # HRNet's encoding and shift
  ... --config configs/simple_baseline_50_256x192.py:smoke    # two steps, on data/smoke

COCO lies in data/coco (annotations/, train2017/, val2017/), or wherever
--config.data.train.root and --config.data.eval.root say.

The published recipe: Adam at 1e-3, times 0.1 at epochs 90 and 120 of 140, batch 32 on each
of 4 GPUs; 149,813 people give 1,170 steps an epoch. Published score, with detected boxes,
flip test and ImageNet weights to start from: AP 70.4 (biased, shift). Ours: not yet run.
"""

from ml_collections import ConfigDict

STEPS_PER_EPOCH = 1170


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": "simple_baseline_50"},
            "input_size": (192, 256),
            "sigma": 2.0,
            "encoding": "unbiased",
            "decoder": "dark",
            "alignment": "aligned",
            "flip_test": "plain",
            "augment": {"flip": 0.5, "scale": 0.3, "rotation": 40.0},
        }
    )
    source = {"name": "coco", "root": "data/coco"}
    c.data = ConfigDict(
        {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        }
    )
    c.input = ConfigDict({"batch_size": 128, "canvas_size": (640, 640)})
    c.optimizer = ConfigDict(
        {
            "name": "adam",
            "lr": 1e-3,
            "schedule": "steps",
            "drop_steps": (90 * STEPS_PER_EPOCH, 120 * STEPS_PER_EPOCH),
        }
    )
    c.train = ConfigDict(
        {
            "steps": 140 * STEPS_PER_EPOCH,
            "eval_every_steps": 5 * STEPS_PER_EPOCH,
            "checkpoint_every_steps": STEPS_PER_EPOCH,
            "best_metric": "AP@gt_boxes",
        }
    )
    if variant == "biased":
        c.method.encoding = "biased"
        c.method.decoder = "shift"
        c.method.alignment = "stride"
        c.method.flip_test = "shift"
    elif variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.method.model.name = "simple_baseline_18"
        c.method.input_size = (96, 128)
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
    elif variant:
        raise ValueError(f"no variant {variant!r}; there are 'biased' and 'smoke'.")
    return c
