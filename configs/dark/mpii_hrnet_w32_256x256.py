r"""HRNet-W32 at 256x256 on MPII: DARK's table of MPII (arXiv:1910.06278).

  pose-jax train --config configs/dark/mpii_hrnet_w32_256x256.py \
    --run runs/mpii_hrnet_w32_256x256
  ... --config configs/dark/mpii_hrnet_w32_256x256.py:biased   # the standard codec
  ... --config configs/dark/mpii_hrnet_w32_256x256.py:smoke    # on data/smoke

MPII lies in data/mpii (images/, annot/train.json, annot/valid.json, annot/gt_valid.mat), or
wherever --config.data.train.root and --config.data.eval.root say. PCKh needs gt_valid.mat,
which has the head boxes. What all rows share is in _recipes.py, with its reasons.

The released recipe: Adam at 1e-3, times 0.1 at epochs 170 and 200 of 210; batch 128, 32
on each of 4 GPUs; 22,246 people give 173 steps an epoch; scaled by up to 0.25, turned
with a sigma of 30 degrees, never half a body. DARK's kernel follows from sigma: 11, as
released.

The published network starts from an HRNet that has learnt ImageNet. So does this one with

  pose-jax weights convert hrnet_w32-36af842e.pth --backbone --model hrnet_w32 \
    --out runs/hrnet_w32_imagenet
  ... --config.train.init_from=runs/hrnet_w32_imagenet

The paper measures on the validation people's own boxes, as training does:

  pose-jax eval --run runs/mpii_hrnet_w32_256x256 \
    --flip plain    # or, of :biased, --flip shift

The paper's PCKh@0.5, the mean over all keypoints, with flip test: 90.3 biased, 90.6 with
DARK. Its "PCKh@0.1" (37.7 and 42.0) is read at 0.11 by the published code: compare it with
PCKh@0.11@gt_boxes, not with PCKh@0.1@gt_boxes; `eval` prints both. Ours: not yet run.

28,536,080 parameters and 10.2 G multiply-adds an input, 9.49 as papers count GFLOPs.
"""

from _recipes import apply_variant, mpii
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = mpii(
        model="hrnet_w32",
        input_size=(256, 256),
        sigma=2.0,
        batch_size=4 * 32,
        lr=1e-3,
        epochs=210,
        drop_epochs=(170, 200),
        augment={"flip": 0.5, "scale": 0.25, "rotation": 30.0},
    )
    return apply_variant(c, variant)
