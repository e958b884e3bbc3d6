r"""HRNet-W32 at 384x288 on COCO: a row of DARK's table (arXiv:1910.06278).

  pose-jax train --config configs/dark/coco_hrnet_w32_384x288.py \
    --run runs/coco_hrnet_w32_384x288
  ... --config configs/dark/coco_hrnet_w32_384x288.py:biased   # the standard codec
  ... --config configs/dark/coco_hrnet_w32_384x288.py:smoke    # on data/smoke

COCO is expected in data/coco (annotations/, train2017/, val2017/), or in the folder set by
--config.data.train.root and --config.data.eval.root. Settings shared by all rows are in
_recipes.py, with explanations.

The released recipe: Adam at 1e-3, times 0.1 at epochs 170 and 200 of 210; batch 112, 28 on
each of 4 GPUs; 149,813 people are 1,337 steps per epoch; scale augmentation up to 0.35,
rotation with a sigma of 45 degrees, half-body crops with probability 0.3. DARK's kernel
size is derived from sigma: 17; the released one is 11.

The published network is initialized from an ImageNet HRNet, which is loaded here by

  pose-jax weights convert hrnet_w32-36af842e.pth --backbone --model hrnet_w32 \
    --out runs/hrnet_w32_imagenet
  ... --config.train.init_from=runs/hrnet_w32_imagenet

The paper evaluates on detected boxes with a person AP of 56.4, the published
COCO_val2017_detections_AP_H_56_person.json; AP@gt_boxes, which training reports, is not
comparable.

  pose-jax eval --run runs/coco_hrnet_w32_384x288 --boxes DETECTIONS.json \
    --flip plain    # for :biased, --flip shift

AP of the paper with these boxes and flip test: 75.8 biased, 76.6 with DARK. Ours: not yet
run.

28,536,113 parameters and 17.2 G multiply-adds per input, 16.02 GFLOPs as counted in papers;
the table has 28.5M and 16.0.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(
        model="hrnet_w32",
        input_size=(288, 384),
        sigma=3.0,
        batch_size=4 * 28,
        lr=1e-3,
        epochs=210,
        drop_epochs=(170, 200),
        augment={"flip": 0.5, "scale": 0.35, "rotation": 45.0, "half_body": 0.3},
    )
    return apply_variant(c, variant)
