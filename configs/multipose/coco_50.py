r"""MultiPose in the paper's smaller form: ResNet-50 at 257x185 on COCO (arXiv:1701.01779).

  pose-jax weights convert resnet50.pth --backbone --model multipose_50 \
    --out runs/multipose_50_imagenet
  pose-jax train --config configs/multipose/coco_50.py --run runs/multipose_coco_50 \
    --config.train.init_from=runs/multipose_50_imagenet
  pose-jax eval --run runs/multipose_coco_50 --boxes DETECTIONS.json
  ... --config configs/multipose/coco_50.py:smoke     # two steps, on data/smoke

resnet50.pth is torchvision's, of ImageNet. All else as in coco_101.py. The discs have 18
pixels, 25 * 185 / 257: the same share of the crop. The paper's may have 25 here, too.

The paper has smaller inputs in an ablation, whose numbers could not be had. Ours: not yet
run.

23,629,956 parameters, 17,425 of them in the auxiliary head, which only training has; 19.3 G
multiply-adds an input, 18.01 as papers count GFLOPs.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(model="multipose_50", input_size=(185, 257), radius=18.0)
    return apply_variant(c, variant)
