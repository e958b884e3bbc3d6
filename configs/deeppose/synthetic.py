r"""DeepPose in small: synthetic people seen from the front, two CPU cores.

  pose-jax data synth --difficulty easy --size 192x160 --n 6000 --val 1000 \
    --out data/synthetic-easy
  pose-jax train --config configs/deeppose/synthetic.py --run runs/deeppose_synthetic
  pose-jax eval --run runs/deeppose_synthetic --decoder stage_1,stage_2,stage_3
  ... --config configs/deeppose/synthetic.py:smoke     # two steps a stage, on data/smoke

Three stages, each a narrow ResNet-18 with a linear layer for all coordinates, the modern
stand-in for the paper's AlexNet; squares of one diameter, as on FLIC. Beyond the paper, a
later stage learns all joints inside of a square. With the square's own joint alone, a row
has one label instead of 17, and 1100 steps of stage 2 taught it nothing: a loss of 0.035
from step 200 on, which answering 0 has too. The paper drew 12 million squares.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "deeppose",
            "model": {"name": "resnet_regression_18", "options": {"width": 32}},
            "input_size": (64, 64),
            "stages": 3,
            "sigma": 1.0,
            "inside": 0.1,
            "start": "before",
            "padding": 1.2,
            "augment": {
                "flip": 0.5,
                "scale": 0.15,
                "translation": 0.05,
                "rotation": 15.0,
            },
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
            "name": "adam",
            "lr": 2e-3,
            "schedule": "cosine",
            "warmup_steps": 50,
            "ema_decay": 0.995,
            "ema_warmup": True,
        }
    )
    c.train = ConfigDict(
        {
            "steps": 2000,
            "log_every_steps": 100,
            "eval_every_steps": 1000,
            "checkpoint_every_steps": 500,
            "stop_metric": "PDJ@0.2@gt_boxes",
        }
    )
    if variant == "overfit":
        # The paper's network and optimiser; nothing moves, and what is learnt is asked.
        c.method.model = ConfigDict({"name": "deeppose", "options": {}})
        c.method.input_size = (220, 220)
        c.method.stages = 1
        c.method.augment = ConfigDict()
        c.data.train.root = c.data.eval.root = "data/synthetic-64"
        c.data.eval.split = "train2017"
        c.input.batch_size = 32
        c.optimizer = ConfigDict({"name": "adagrad", "lr": 5e-4})
        c.train.steps = 600
        c.train.log_every_steps = 20
        c.train.stop_metric = ""
        c.train.eval_every_steps = 100
    elif variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.method.model.options.width = 8
        c.method.input_size = (32, 32)
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.stop_metric = ""
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
