r"""Real people: LSP-extended, the small network, two CPU cores.

Trains on images 1 to 5500 and validates on 5501 to 6000. This split is our own: all of
LSP-extended is training data of LSP. Its labels are crowd-sourced, and some are wrong.
Boxes are the extent of the labeled joints (@joint_boxes in metric names). DeepPose uses the
complete image instead: --config.data.train.options.boxes=image, and the same for eval.

  pose-jax train --config configs/lsp_extended.py --run runs/lsp_extended \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET
  pose-jax train --config configs/lsp_extended.py:fine --run runs/lsp_fine \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET
  pose-jax eval --run runs/lsp_fine --decoder argmax,shift,dark --flip none,shift
  ... --config configs/lsp_extended.py:smoke     # two steps, on data/smoke

The second run fine-tunes the first at 128x128: at 96x96 the strictest thresholds are
a fraction of a heatmap cell, but three quarters of the training are cheaper there.

With published features it takes a quarter of the training to get much further: MoveNet
Lightning (Google, Apache-2.0), whose head is mapped to LSP's joints by name, the neck
from the shoulders and the top of the head from the face:

  pose-jax weights fetch movenet_lightning --out runs/movenet_lightning
  pose-jax train --config configs/lsp_extended.py:movenet --run runs/lsp_movenet \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET
  pose-jax train --config configs/lsp_extended.py:movenet_fine --run runs/lsp_movenet_fine \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET

LSPET is a folder with joints.mat and images/im00001.jpg to im06000.jpg.

Fine-tuning a network with other keypoints, here that of `make demo-long`; the last layer
is randomly initialized:

  pose-jax train --config configs/lsp_extended.py --run runs/lsp_finetuned \
    --config.train.init_from=runs/demo-long --config.train.init_skip='("head",)'
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": "pocket"},
            "input_size": (96, 96),
            "sigma": 1.5,
            "reach": 1.5,
            "augment": {
                "flip": 0.5,
                "scale": 0.2,
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
        {
            "steps": 7000,
            "log_every_steps": 100,
            "eval_every_steps": 1000,
            "checkpoint_every_steps": 1000,
            "init_from": "",
            "init_skip": (),
        }
    )
    if variant == "fine":
        c.method.input_size = (128, 128)
        c.optimizer.lr = 0.015
        c.train.steps = 1700
        c.train.eval_every_steps = 850
        c.train.checkpoint_every_steps = 850
        c.train.init_from = "runs/lsp_extended"
    elif variant in ("movenet", "movenet_fine"):
        c.method = ConfigDict(
            {
                "name": "cells",
                "model": {"name": "movenet_lightning"},
                "input_size": (192, 192),
                "decoder": "dark",
                "weighting": "none",
                "flip_test": "plain",
                "reach": 1.5,
                "augment": c.method.augment,
            }
        )
        c.optimizer = ConfigDict(
            {
                "name": "adam",
                "lr": 4e-4,
                "schedule": "cosine",
                "warmup_steps": 30,
                "freeze": ("stem", "block_0", "block_1", "block_2"),
            }
        )
        c.train.steps = 1000
        c.train.log_every_steps = 20
        c.train.eval_every_steps = 200
        c.train.checkpoint_every_steps = 200
        c.train.init_from = "runs/movenet_lightning"
        c.train.init_map = {
            "neck": ("left_shoulder", "right_shoulder"),
            "head_top": ("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        }
        if variant == "movenet_fine":
            c.optimizer.lr = 2e-4
            c.optimizer.ema_decay = 0.99
            c.optimizer.ema_warmup = True
            c.train.steps = 700
            c.train.eval_every_steps = 350
            c.train.init_from = "runs/lsp_movenet"
            c.train.init_map = {}
    elif variant == "smoke":
        for part, split in (("train", "train2017"), ("eval", "val2017")):
            c.data[part] = ConfigDict(
                {"name": "coco", "root": "data/smoke", "split": split}
            )
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    elif variant:
        raise ValueError(
            f"no variant {variant!r}; there are 'fine', 'movenet', 'movenet_fine' and "
            "'smoke'."
        )
    return c
