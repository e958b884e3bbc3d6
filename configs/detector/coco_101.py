r"""MultiPose's detector: an atrous ResNet-101 at 800x1200 on COCO (arXiv:1701.01779).

  pose-jax weights convert resnet101.pth --model faster_rcnn_101 --backbone \
    --out runs/faster_rcnn_101_imagenet
  pose-jax train --config configs/detector/coco_101.py --run runs/detector_coco_101 \
    --config.train.init_from=runs/faster_rcnn_101_imagenet
  ... --config configs/detector/coco_101.py:smoke      # two steps, on data/smoke

resnet101.pth is torchvision's ResNet-101 of ImageNet.
COCO lies in data/coco (annotations/, train2017/, val2017/), or wherever
--config.data.train.root and --config.data.eval.root say. The recipe is in _recipes.py,
with what is the paper's and what is our choice.

The paper's box AP of people, from memory: 0.487, and 0.466 at 600x900. Ours: not yet run.

57,531,009 parameters, 42,500,160 of them the ResNet's.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(model="faster_rcnn_101", anchor_scales=((64.0, 128.0, 256.0, 512.0),))
    return apply_variant(c, variant)
