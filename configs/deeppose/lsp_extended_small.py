r"""A small DeepPose on real people: LSP-extended, two CPU cores.

  pose-jax train --config configs/deeppose/lsp_extended_small.py --run runs/deeppose_small \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET
  python -m experiments.deeppose.table --run runs/deeppose_small
  ... --config configs/deeppose/lsp_extended_small.py:smoke     # two steps, on data/smoke

Trains on images 1 to 5500 and validates on 5501 to 6000 (not the LSP test images), like
configs/lsp_extended.py with heatmaps, with the same boxes and in about the same time. Three
stages of a narrow ResNet-18 at 64x64; the side of a crop is two diameters, as in the paper
for LSP. As in configs/deeppose/synthetic.py, but not in the paper, a later stage is
initialized from the previous one and is also trained on the other joints in its crops.

LSPET is a folder with joints.mat and images/im00001.jpg to im06000.jpg.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "deeppose",
            "model": {
                "name": "resnet_regression_18",
                "options": {"width": 32},
            },
            "input_size": (64, 64),
            "stages": 3,
            "sigma": 2.0,
            "inside": 0.1,
            "start": "before",
            "padding": 1.2,
            "augment": {
                "flip": 0.5,
                "scale": 0.2,
                "translation": 0.05,
                "rotation": 25.0,
                "brightness": 0.2,
                "contrast": 0.2,
            },
        }
    )
    source = {
        "name": "lsp_extended",
        "root": "data/lspet",
        "options": {"boxes": "joint_boxes"},
    }
    c.data = ConfigDict(
        {
            "train": {**source, "split": "1-5500"},
            "eval": {**source, "split": "5501-6000"},
        }
    )
    c.input = ConfigDict(
        {"batch_size": 32, "canvas_size": (320, 320), "cache_mb": 2048}
    )
    c.optimizer = ConfigDict(
        {
            "name": "adam",
            "lr": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 50,
            "ema_decay": 0.995,
            "ema_warmup": True,
        }
    )
    c.train = ConfigDict(
        {
            "steps": 6000,
            "log_every_steps": 100,
            "eval_every_steps": 1000,
            "checkpoint_every_steps": 500,
            "stop_metric": "PDJ@0.2@joint_boxes@PC",
        }
    )
    c.phases = ConfigDict(
        {stage: {"train": {"steps": 2500}} for stage in ("stage_2", "stage_3")}
    )
    if variant == "smoke":
        for part, split in (("train", "train2017"), ("eval", "val2017")):
            c.data[part] = ConfigDict(
                {"name": "coco", "root": "data/smoke", "split": split}
            )
        c.method.model.options.width = 8
        c.method.input_size = (32, 32)
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.stop_metric = ""
        c.phases = ConfigDict()
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
