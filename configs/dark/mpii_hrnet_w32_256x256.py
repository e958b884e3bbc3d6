r"""HRNet-W32 at 256x256 on MPII: a row of DARK's MPII table (arXiv:1910.06278).

  pose-jax train --config configs/dark/mpii_hrnet_w32_256x256.py \
    --run runs/mpii_hrnet_w32_256x256
  ... --config configs/dark/mpii_hrnet_w32_256x256.py:biased   # the standard codec
  ... --config configs/dark/mpii_hrnet_w32_256x256.py:smoke    # on data/smoke

MPII is expected in data/mpii (images/, annot/train.json, annot/valid.json,
annot/gt_valid.mat), or in the folder given by --config.data.train.root and
--config.data.eval.root. PCKh requires the head boxes in gt_valid.mat. Settings of all rows
are in _recipes.py, with explanations.

The released recipe: Adam at 1e-3, times 0.1 at epochs 170 and 200 of 210; batch 128, 32 on
each of 4 GPUs; 22,246 people are 173 steps per epoch; scale augmentation up to 0.25,
rotation with a sigma of 30 degrees, no half-body crops. DARK's kernel size is derived from
sigma: 11, as released.

The published network is initialized from an ImageNet HRNet, which is loaded here by

  pose-jax weights convert hrnet_w32-36af842e.pth --backbone --model hrnet_w32 \
    --out runs/hrnet_w32_imagenet
  ... --config.train.init_from=runs/hrnet_w32_imagenet

The paper evaluates on the ground-truth boxes of the validation set, like training does:

  pose-jax eval --run runs/mpii_hrnet_w32_256x256 \
    --flip plain    # for :biased, --flip shift

PCKh@0.5 of the paper, mean over all keypoints, with flip test: 90.3 biased, 90.6 with DARK.
Its "PCKh@0.1" (37.7 and 42.0) is computed at 0.11 by the published code: compare it with
PCKh@0.11@gt_boxes, not with PCKh@0.1@gt_boxes; `eval` prints both. Ours: not yet run.

28,536,080 parameters and 10.2 G multiply-adds per input, 9.49 GFLOPs as counted in papers.
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
