r"""Correctness check on real images: overfits the people of a small COCO subset.

The detector counterpart of configs/coco_subset.py, trained and evaluated on the same
images. Both together predict the people of an image and their poses:

  pose-jax train --config configs/detector/coco_subset.py --run runs/coco_subset_detector \
    --config.data.train.root=COCO --config.data.eval.root=COCO
  pose-jax predict --detector runs/coco_subset_detector --run runs/coco_subset \
    COCO/train2017/*.jpg
  ... --config configs/detector/coco_subset.py:smoke      # two steps, on data/smoke

COCO is a folder with annotations/person_keypoints_train2017.json and train2017/. All images
are placed in canvases of 640x640 and resized to at most 256x256, so that small people have
few pixels.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "detector",
            "model": {"name": "faster_rcnn_pocket", "options": {}},
            "size": (256, 256),
            "buckets": ((640, 640),),
            "max_people": 32,
            "anchor_scales": ((16.0, 32.0, 64.0, 128.0),),
            "anchor_aspects": (1.0, 2.0, 3.0),
            "rpn_positive": 0.6,
            "rpn_samples": 128,
            "pre_nms": 400,
            "post_nms": 64,
            "test_pre_nms": 400,
            "test_post_nms": 100,
            "box_samples": 32,
            "slots": 30,
            "augment": {"flip": 0.5},
        }
    )
    source = {"name": "coco", "root": "data/coco", "split": "train2017"}
    c.data = ConfigDict({"train": source, "eval": source})
    c.input = ConfigDict({"batch_size": 8, "cache_mb": 512})
    c.optimizer = ConfigDict(
        {
            "name": "muon",
            "lr": 0.02,
            "adam_kernels": ("rpn", "person", "deltas"),
            "schedule": "cosine",
            "warmup_steps": 50,
        }
    )
    c.train = ConfigDict({"steps": 600, "log_every_steps": 50, "eval_every_steps": 300})
    if variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.method.model.options = ConfigDict({"width": 8, "blocks": (1, 1, 1)})
        c.method.size = (64, 64)
        c.method.pre_nms = c.method.test_pre_nms = 50
        c.method.post_nms = c.method.test_post_nms = 20
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
