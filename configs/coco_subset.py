r"""Correctness check on real images: overfits a few people of COCO.

Trains on a small subset of COCO train2017 and evaluates on the same people: AP@gt_boxes
near 1 shows that reading, cropping, targets, decoding and the mapping back to the image are
consistent. It does not measure generalization.

  pose-jax train --config configs/coco_subset.py --run runs/coco_subset \
    --config.data.train.root=COCO --config.data.eval.root=COCO
  ... --config configs/coco_subset.py:smoke      # two steps, on data/smoke

COCO is a folder with annotations/person_keypoints_train2017.json and train2017/.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": "pocket"},
            "input_size": (96, 128),
            "sigma": 1.5,
        }
    )
    source = {"name": "coco", "root": "data/coco", "split": "train2017"}
    c.data = ConfigDict({"train": source, "eval": source})
    c.input = ConfigDict({"batch_size": 32, "canvas_size": (640, 640), "cache_mb": 256})
    c.optimizer = ConfigDict(
        {"name": "adam", "lr": 3e-3, "schedule": "cosine", "warmup_steps": 20}
    )
    c.train = ConfigDict({"steps": 600, "log_every_steps": 20, "eval_every_steps": 200})
    if variant == "smoke":
        c.data.train.root = c.data.eval.root = "data/smoke"
        c.input.batch_size = 4
        c.train.steps = 2
        c.train.eval_every_steps = 1
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
