r"""DeepPose as in the paper on FLIC: AlexNet at 220x220, three stages.

  pose-jax train --config configs/deeppose/flic.py --run runs/deeppose_flic \
    --config.data.train.root=FLIC --config.data.eval.root=FLIC
  python -m experiments.deeppose.table --run runs/deeppose_flic
  ... --config configs/deeppose/flic.py:smoke     # two steps per stage, on data/smoke

3987 training and 1016 test people with 11 labeled joints. The side of a joint's crop is one
diameter of the pose, as in the paper. The first box in the paper is an enlarged face
detection; here it is the extent of the labeled joints, enlarged by a factor of 1.5. Labels
are observer-centric (flic-joints-oc.mat), as in most published FLIC results.

The paper reports PDJ of elbows and wrists only as a figure. Ours: not yet run.
"""

from _recipes import apply_variant, paper
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    source = {"name": "flic", "root": "data/FLIC", "options": {"centric": "OC"}}
    data = ConfigDict(
        {"train": {**source, "split": "train"}, "eval": {**source, "split": "test"}}
    )
    c = paper(data, sigma=1.0)
    c.method.padding = 1.5
    return apply_variant(c, variant)
