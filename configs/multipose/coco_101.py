r"""MultiPose as published: ResNet-101 at 353x257 on COCO (arXiv:1701.01779, G-RMI).

  pose-jax weights convert resnet101.pth --backbone --model multipose_101 \
    --out runs/multipose_101_imagenet
  pose-jax train --config configs/multipose/coco_101.py --run runs/multipose_coco_101 \
    --config.train.init_from=runs/multipose_101_imagenet
  ... --config configs/multipose/coco_101.py:smoke     # two steps, on data/smoke

resnet101.pth is torchvision's ImageNet ResNet-101. COCO is expected in data/coco
(annotations/, train2017/, val2017/), or in the folder given by --config.data.train.root and
--config.data.eval.root. The recipe is in _recipes.py, which lists the settings of the paper
and our own choices, among them the reduction of the loss and the decay of the averaged
weights.

Training reports AP@gt_boxes, which is not comparable with the numbers below. With detected
boxes (the paper uses its own Faster R-CNN), poses are scored by eq. (7) only, and OKS-NMS
has a threshold of 0.5:

  pose-jax eval --run runs/multipose_coco_101 --boxes DETECTIONS.json \
    --decoder argmax,argmax_offset,hough,hough_subpixel

Results of the paper on test-dev with its own detector and a pose network trained on COCO
only: AP 64.9, AP50 85.5, AP75 71.3, APm 62.3, APl 70.0, AR 69.7; on test-standard AP 64.3.
With additional private images (COCO+int): AP 68.5, AP50 87.1, AP75 75.5, APm 65.8, APl
73.3, AR 73.3; on test-standard AP 67.3. Ours: not yet run.

42,622,084 parameters, of which 17,425 are in the auxiliary head, which is used in training
only; 64.4 G multiply-adds per input, 59.97 GFLOPs as counted in papers. The HRNet paper
reports 42.6M and 57.0.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(model="multipose_101", input_size=(257, 353), radius=25.0)
    return apply_variant(c, variant)
