r"""A small MultiPose on real people: LSP-extended, two CPU cores.

  pose-jax train --config configs/multipose/lsp_extended.py --run runs/multipose_lsp \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET
  pose-jax eval --run runs/multipose_lsp --decoder argmax,argmax_offset,hough \
    --flip none,plain
  ... --config configs/multipose/lsp_extended.py:smoke     # two steps, on data/smoke

Data, boxes and augmentation are as in configs/lsp_extended.py (images 5501 to 6000 are not
the LSP test images), except for the scale, which is uniform in 1.0 to 1.5 times the box, as
in the paper. At 97x97 the radius of the binary heatmaps is 6.9 pixels, 25 * 97 / 353: for a
standing person the same fraction as in the paper.

A step takes longer than in configs/lsp_extended.py, because the maps have 97x97 instead of
24x24 pixels: 4000 steps should take about as long as its 7000.

LSPET is a folder with joints.mat and images/im00001.jpg to im06000.jpg. Run for 1200 steps
so far: experiments/multipose/README.md.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "multipose",
            "model": {"name": "multipose_pocket", "options": {"offset_scale": 6.9}},
            "input_size": (97, 97),
            "radius": 6.9,
            "reduction": "pixel",
            "others": "none",  # Other people are not labeled.
            "reach": 1.5,
            "augment": {
                "flip": 0.5,
                "scale": 0.2,
                "scale_law": "uniform",
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
            "steps": 4000,
            "log_every_steps": 100,
            "eval_every_steps": 500,
            "checkpoint_every_steps": 500,
        }
    )
    if variant == "smoke":
        for part, split in (("train", "train2017"), ("eval", "val2017")):
            c.data[part] = ConfigDict(
                {"name": "coco", "root": "data/smoke", "split": split}
            )
        c.method.model.options = ConfigDict({"width": 8, "blocks": (1, 1, 1)})
        c.method.input_size = (65, 65)
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
