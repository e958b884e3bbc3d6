r"""SimpleBaseline-50 at 256x192 on COCO, with DARK's codec or the standard one.

  pose-jax train --config configs/simple_baseline_50_256x192.py --run runs/sb50
  ... --config configs/simple_baseline_50_256x192.py:biased   # HRNet's encoding and shift
  ... --config configs/simple_baseline_50_256x192.py:smoke    # two steps, on data/smoke

COCO lies in data/coco (annotations/, train2017/, val2017/), or wherever
--config.data.train.root and --config.data.eval.root say. What is not here is in
dark/_recipes.py, with its reasons.

The published recipe: Adam at 1e-3, times 0.1 at epochs 90 and 120 of 140, batch 32 on each
of 4 GPUs; 149,813 people give 1,170 steps an epoch. It starts from ImageNet's weights,
torchvision's. So does this one with

  pose-jax weights convert resnet50.pth --backbone --model simple_baseline_50 \
    --out runs/resnet50
  ... --config.train.init_from=runs/resnet50

Published score, with detected boxes and flip test: AP 70.4 (biased, shift). Ours: not yet
run. The boxes are COCO_val2017_detections_AP_H_56_person.json, of 56.4 person AP:

  pose-jax eval --run runs/sb50 --boxes DETECTIONS.json \
    --flip plain    # or, of :biased, --flip shift

33,999,697 parameters and 5.43 G multiply-adds an input, 8.99 as papers count GFLOPs; the
published table says 34.0M and 8.9.
"""

from dark._recipes import apply_variant, coco
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    c = coco(
        model="simple_baseline_50",
        input_size=(192, 256),
        sigma=2.0,
        batch_size=4 * 32,
        lr=1e-3,
        epochs=140,
        drop_epochs=(90, 120),
        augment={"flip": 0.5, "scale": 0.3, "rotation": 40.0},
    )
    return apply_variant(c, variant)
