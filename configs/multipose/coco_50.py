r"""The smaller MultiPose of the paper: ResNet-50 at 257x185 on COCO (arXiv:1701.01779).

  pose-jax weights convert resnet50.pth --backbone --model multipose_50 \
    --out runs/multipose_50_imagenet
  pose-jax train --config configs/multipose/coco_50.py --run runs/multipose_coco_50 \
    --config.train.init_from=runs/multipose_50_imagenet
  pose-jax eval --run runs/multipose_coco_50 --boxes DETECTIONS.json
  ... --config configs/multipose/coco_50.py:smoke     # two steps, on data/smoke

resnet50.pth is torchvision's ImageNet ResNet-50. Everything else is as in coco_101.py. The
radius of the binary heatmaps is 18 pixels, 25 * 185 / 257: the same fraction of the crop.
The paper may have used 25 here as well.

The paper uses smaller inputs in an ablation, whose numbers were not available. Ours: not
yet run.

23,629,956 parameters, of which 17,425 are in the auxiliary head, which is used in training
only; 19.3 G multiply-adds per input, 18.01 GFLOPs as counted in papers.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(model="multipose_50", input_size=(185, 257), radius=18.0)
    return apply_variant(c, variant)
