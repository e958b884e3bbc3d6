r"""MultiPose's detector: an atrous ResNet-101 at 800x1200 on COCO (arXiv:1701.01779).

  pose-jax weights convert resnet101.pth --model faster_rcnn_101 --backbone \
    --out runs/faster_rcnn_101_imagenet
  pose-jax train --config configs/detector/coco_101.py --run runs/detector_coco_101 \
    --config.train.init_from=runs/faster_rcnn_101_imagenet
  ... --config configs/detector/coco_101.py:smoke      # two steps, on data/smoke

resnet101.pth is torchvision's ImageNet ResNet-101.
COCO is expected in data/coco (annotations/, train2017/, val2017/), or in the folder set by
--config.data.train.root and --config.data.eval.root. The recipe is in _recipes.py, which
lists the settings of the paper and our own choices.

Box AP of people in the paper, quoted from memory: 0.487, and 0.466 at 600x900. Ours: not
yet run.

57,531,009 parameters, of which 42,500,160 are in the ResNet.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(model="faster_rcnn_101", anchor_scales=((64.0, 128.0, 256.0, 512.0),))
    return apply_variant(c, variant)
