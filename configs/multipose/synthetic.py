r"""A small MultiPose: synthetic crowds, two CPU cores.

  pose-jax data synth --n 5000 --val 500 --difficulty crowd --out data/synthetic-crowd
  pose-jax train --config configs/multipose/synthetic.py --run runs/multipose_synthetic
  pose-jax eval --run runs/multipose_synthetic \
    --decoder argmax,argmax_offset,hough,hough_subpixel
  ... --config configs/multipose/synthetic.py:long      # for the demo: 2000 steps, delta 3
  ... --config configs/multipose/synthetic.py:smoke     # two steps, on data/smoke

One to four people per image, upright, front-facing and occluding each other. The input size
is 97x73. The radius of the binary heatmaps is 7.1 pixels, 25 * 73 / 257: the same fraction
of the crop as in the paper. Delta is 1 pixel as at 353x257, although a pixel here is 3.5
times as large.

`python -m experiments.multipose.ablation` trains its variants.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "multipose",
            # The radius: the network predicts offsets in units of it.
            "model": {"name": "multipose_pocket", "options": {"offset_scale": 7.1}},
            "input_size": (73, 97),
            "radius": 7.1,
            "delta": 1.0,
            "auxiliary_weight": 1.0,
            "reduction": "pixel",
            "others": "auxiliary",
            "max_others": 3,  # The maximum in this data set.
            "decoder": "hough",
            "reach": 1.5,
            "augment": {"flip": 0.5, "scale": 0.2, "scale_law": "uniform"},
        }
    )
    source = {"name": "coco", "root": "data/synthetic-crowd"}
    c.data = ConfigDict(
        {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        }
    )
    c.input = ConfigDict(
        {"batch_size": 32, "canvas_size": (320, 256), "cache_mb": 2048}
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
            "steps": 1000,
            "log_every_steps": 100,
            "eval_every_steps": 500,
            "checkpoint_every_steps": 500,
        }
    )
    # Applied to poses in detected boxes.
    c.evaluation = ConfigDict({"nms": "oks", "nms_threshold": 0.5})
    if variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.method.model.options = ConfigDict(
            {"width": 8, "blocks": (1, 1, 1), "offset_scale": 4.7}
        )
        c.method.input_size = (49, 65)
        c.method.radius = 4.7
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
    elif variant == "long":
        c.train.steps = 2000
        c.method.delta = 3.0  # Better than 1 in the ablation.
    elif variant:
        raise ValueError(f"no variant {variant!r}; there are 'long' and 'smoke'.")
    return c
