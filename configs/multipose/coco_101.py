r"""MultiPose as published: ResNet-101 at 353x257 on COCO (arXiv:1701.01779, G-RMI).

  pose-jax weights convert resnet101.pth --backbone --model multipose_101 \
    --out runs/multipose_101_imagenet
  pose-jax train --config configs/multipose/coco_101.py --run runs/multipose_coco_101 \
    --config.train.init_from=runs/multipose_101_imagenet
  ... --config configs/multipose/coco_101.py:smoke     # two steps, on data/smoke

resnet101.pth is torchvision's, of ImageNet. COCO lies in data/coco (annotations/,
train2017/, val2017/), or wherever --config.data.train.root and --config.data.eval.root say.
The recipe is in _recipes.py, with what is the paper's and what is our choice: the
reduction of the loss and the decay of the weights' average are ours.

Training reports AP@gt_boxes, which is not comparable to what follows. With boxes of a
detector, of which the paper has its own (a Faster R-CNN), poses are scored by (7) alone and
those above an OKS of 0.5 to a better one are dropped:

  pose-jax eval --run runs/multipose_coco_101 --boxes DETECTIONS.json \
    --decoder argmax,argmax_offset,hough,hough_subpixel

The paper's, on test-dev with its own detector, its pose network trained on COCO alone: AP
64.9, AP50 85.5, AP75 71.3, APm 62.3, APl 70.0, AR 69.7; on test-standard AP 64.3. With its
private images (COCO+int): AP 68.5, AP50 87.1, AP75 75.5, APm 65.8, APl 73.3, AR 73.3; AP
67.3. Ours: not yet run.

42,622,084 parameters, 17,425 of them in the auxiliary head, which only training has; 64.4 G
multiply-adds an input, 59.97 as papers count GFLOPs. HRNet's paper has 42.6M and 57.0.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(model="multipose_101", input_size=(257, 353), radius=25.0)
    return apply_variant(c, variant)
