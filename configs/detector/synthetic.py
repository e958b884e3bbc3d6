r"""A small detector: synthetic crowds, two CPU cores.

  pose-jax data synth --n 5000 --val 500 --difficulty crowd --out data/synthetic-crowd
  pose-jax train --config configs/detector/synthetic.py --run runs/detector_synthetic
  ... --config configs/detector/synthetic.py:smoke     # two steps, on data/smoke

One to four people per image, upright, front-facing and occluding each other. The network
input is 160x128, half the image size: the square root of the box area is 33 to 85 pixels,
the aspect ratio 1.1 to 4. Anchors have two sizes and three aspect ratios. Because the boxes
overlap, an anchor is positive only from an IoU of 0.6 on.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "detector",
            "model": {"name": "faster_rcnn_pocket", "options": {}},
            "size": (128, 160),
            "buckets": ((320, 256),),
            "max_people": 4,  # The maximum in this data set.
            "anchor_scales": ((40.0, 64.0),),
            "anchor_aspects": (1.4, 2.0, 2.8),
            "rpn_positive": 0.6,
            "rpn_samples": 64,
            "pre_nms": 200,
            "post_nms": 48,
            "test_pre_nms": 200,
            "test_post_nms": 48,
            "box_samples": 32,
            "slots": 20,
            "augment": {
                "flip": 0.5,
                "scale": 0.1,
                "scale_law": "uniform",
                "translation": 1.0,
            },
        }
    )
    source = {"name": "coco", "root": "data/synthetic-crowd"}
    c.data = ConfigDict(
        {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        }
    )
    c.input = ConfigDict({"batch_size": 16, "cache_mb": 2048})
    c.optimizer = ConfigDict(
        {
            "name": "muon",
            "lr": 0.03,
            "adam_kernels": ("rpn", "person", "deltas"),
            "schedule": "cosine",
            "warmup_steps": 50,
            "ema_decay": 0.99,
            "ema_warmup": True,
        }
    )
    c.train = ConfigDict(
        {
            "steps": 1500,
            "log_every_steps": 100,
            "eval_every_steps": 500,
            "checkpoint_every_steps": 500,
        }
    )
    if variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.method.model.options = ConfigDict({"width": 8, "blocks": (1, 1, 1)})
        c.method.size = (64, 80)
        c.method.anchor_scales = ((20.0, 32.0),)
        c.method.pre_nms = c.method.test_pre_nms = 50
        c.method.post_nms = c.method.test_post_nms = 20
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
