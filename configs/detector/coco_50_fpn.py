r"""Faster R-CNN with ResNet-50 and a feature pyramid on COCO (arXiv:1612.03144).

  pose-jax weights convert resnet50.pth --model faster_rcnn_fpn_50 --backbone \
    --out runs/faster_rcnn_fpn_50_imagenet
  pose-jax train --config configs/detector/coco_50_fpn.py --run runs/detector_coco_50_fpn \
    --config.train.init_from=runs/faster_rcnn_fpn_50_imagenet
  ... --config configs/detector/coco_50_fpn.py:smoke      # two steps, on data/smoke

resnet50.pth is torchvision's ImageNet ResNet-50.
Each of the five maps has anchors of one size, 32 to 512 pixels. The schedule is Detectron's
"1x" with half the batch size: 180,000 steps of eight images at a learning rate of 0.01,
divided by 10 after 120,000 and again after 160,000 steps. Everything else is as in
coco_101.py. Not yet run.

41,347,156 parameters, of which 23,508,032 are in the ResNet.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(
        model="faster_rcnn_fpn_50",
        anchor_scales=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    )
    c.optimizer.lr = 0.01
    c.optimizer.warmup_steps = 1000
    c.optimizer.weight_decay = 1e-4
    c.optimizer.drop_steps = (120_000, 160_000)
    c.train.steps = 180_000
    return apply_variant(c, variant)
