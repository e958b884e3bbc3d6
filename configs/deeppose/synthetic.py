r"""DeepPose in small: synthetic people seen from the front, two CPU cores.

  pose-jax data synth --difficulty easy --size 192x160 --n 6000 --val 1000 \
    --out data/synthetic-easy
  pose-jax train --config configs/deeppose/synthetic.py --run runs/deeppose_synthetic
  pose-jax eval --run runs/deeppose_synthetic --decoder stage_1,stage_2,stage_3
  ... --config configs/deeppose/synthetic.py:smoke     # two steps a stage, on data/smoke
  ... --config configs/deeppose/synthetic.py:overfit     # 64 people by heart
  ... --config configs/deeppose/synthetic.py:overfit_alexnet

Three stages, each a narrow ResNet-18 with a linear layer for all coordinates, the modern
stand-in for the paper's AlexNet; squares of one diameter, as on FLIC. Beyond the paper, a
later stage starts from the weights of the one before and learns, at a tenth of the weight,
the other joints inside of a square. From scratch and with the square's own joint alone,
1100 steps of stage 2 taught it nothing; from scratch and at the full weight, stage 3 was
worse than stage 2. The paper drew 12 million squares. A stage that does not raise PDJ@0.2
would end the cascade.

The people of :overfit are made by

  pose-jax data synth --difficulty easy --size 192x160 --n 64 --val 8 \
    --out data/synthetic-64

experiments/deeppose/README.md has what came of it.
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
        # The network of 64 people whom it is asked about; nothing of them moves.
        c.method.stages = 1
        c.method.augment = ConfigDict()
        c.data.train.root = c.data.eval.root = "data/synthetic-64"
        c.data.eval.split = "train2017"
        c.train = ConfigDict({"steps": 400, "eval_every_steps": 100})
    elif variant == "overfit_alexnet":
        # The same of the paper's network; without dropout and with Adam, to be quick.
        c = get_config("overfit")
        c.method.model = ConfigDict({"name": "deeppose", "options": {"dropout": 0.0}})
        c.method.input_size = (220, 220)
        c.optimizer.lr = 1e-4
        c.train.steps = 200
    elif variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.method.model.options.width = 8
        c.method.input_size = (32, 32)
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.stop_metric = ""
    elif variant:
        raise ValueError(
            f"no variant {variant!r}; there are 'overfit', 'overfit_alexnet', 'smoke'."
        )
    return c
