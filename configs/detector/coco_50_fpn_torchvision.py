r"""torchvision's Faster R-CNN, trained further on the people of COCO.

  pose-jax weights fetch fasterrcnn_coco --out runs/fasterrcnn_coco
  pose-jax train --config configs/detector/coco_50_fpn_torchvision.py \
    --run runs/detector_torchvision --config.train.init_from=runs/fasterrcnn_coco
  ... --config configs/detector/coco_50_fpn_torchvision.py:smoke      # two steps

Starts from all weights, the softmax of 91 classes included: the loss is that of the
person's probability. For keypointrcnn_coco, whose head is one logit:
--config.method.model.options.classes=1.
Our choices: 24,000 steps of eight images at a learning rate of 0.0025, divided by 10 after
16,000. Everything else is as in coco_50_fpn.py. Not yet run.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(
        model="faster_rcnn_fpn_50",
        anchor_scales=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    )
    c.method.conventions = "torchvision"
    c.method.size = (800, 1333)
    c.method.box_nms = 0.5
    c.method.test_post_nms = 1000
    c.method.model.options.offset = -0.5
    c.method.model.options.min_features = 1.0
    c.method.model.options.classes = 91
    c.optimizer.lr = 0.0025
    c.optimizer.warmup_steps = 500
    c.optimizer.weight_decay = 1e-4
    c.optimizer.drop_steps = (16_000,)
    c.train.steps = 24_000
    c.train.eval_every_steps = 8_000
    return apply_variant(c, variant)
