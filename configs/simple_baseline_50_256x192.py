r"""SimpleBaseline-50 at 256x192 on COCO, with DARK's codec or the standard one.

  pose-jax train --config configs/simple_baseline_50_256x192.py --run runs/sb50
  ... --config configs/simple_baseline_50_256x192.py:biased   # encoding and shift of HRNet
  ... --config configs/simple_baseline_50_256x192.py:smoke    # two steps, on data/smoke

COCO is expected in data/coco (annotations/, train2017/, val2017/), or in the folder set by
--config.data.train.root and --config.data.eval.root. All other settings are in
dark/_recipes.py, with explanations.

The published recipe: Adam at 1e-3, times 0.1 at epochs 90 and 120 of 140, batch 32 on each
of 4 GPUs; 149,813 people are 1,170 steps per epoch. It is initialized from torchvision's
ImageNet weights, which are loaded here by

  pose-jax weights convert resnet50.pth --backbone --model simple_baseline_50 \
    --out runs/resnet50
  ... --config.train.init_from=runs/resnet50

Published score, with detected boxes and flip test: AP 70.4 (biased, shift). Ours: not yet
run. The boxes are COCO_val2017_detections_AP_H_56_person.json, with a person AP of 56.4:

  pose-jax eval --run runs/sb50 --boxes DETECTIONS.json \
    --flip plain    # for :biased, --flip shift

33,999,697 parameters and 5.43 G multiply-adds per input, 8.99 GFLOPs as counted in papers;
the published table has 34.0M and 8.9.
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
