r"""SimpleBaseline-101 at 128x96 on COCO: a row of DARK's table (arXiv:1910.06278).

  pose-jax train --config configs/dark/coco_simple_baseline_101_128x96.py \
    --run runs/coco_simple_baseline_101_128x96
  ... --config configs/dark/coco_simple_baseline_101_128x96.py:biased   # the standard codec
  ... --config configs/dark/coco_simple_baseline_101_128x96.py:smoke    # on data/smoke

COCO is expected in data/coco (annotations/, train2017/, val2017/), or in the folder set by
--config.data.train.root and --config.data.eval.root. Settings shared by all rows are in
_recipes.py, with explanations.

The released recipe: Adam at 1e-3, times 0.1 at epochs 90 and 120 of 140; batch 128, 64 on
each of 2 GPUs; 149,813 people are 1,170 steps per epoch; scale augmentation up to 0.3,
rotation with a sigma of 40 degrees. DARK's kernel size is derived from sigma: 5; the
released one is 3.

The published network is initialized from torchvision's ImageNet weights, which are loaded
here by

  pose-jax weights convert resnet101.pth --backbone --model simple_baseline_101 \
    --out runs/resnet101
  ... --config.train.init_from=runs/resnet101

The paper evaluates on detected boxes with a person AP of 56.4, the published
COCO_val2017_detections_AP_H_56_person.json; AP@gt_boxes, which training reports, is not
comparable.

  pose-jax eval --run runs/coco_simple_baseline_101_128x96 --boxes DETECTIONS.json \
    --flip plain    # for :biased, --flip shift

AP of the paper with these boxes and flip test: 58.8 biased, 63.2 with DARK. Ours: not yet
run.

52,991,825 parameters and 2.27 G multiply-adds per input, 3.09 GFLOPs as counted in papers;
the table has 53.0M and 3.1.
"""

from _recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(
        model="simple_baseline_101",
        input_size=(96, 128),
        sigma=1.0,
        batch_size=2 * 64,
        lr=1e-3,
        epochs=140,
        drop_epochs=(90, 120),
        augment={"flip": 0.5, "scale": 0.3, "rotation": 40.0},
    )
    return apply_variant(c, variant)
