r"""The paper's DeepPose on FLIC: AlexNet at 220x220, three stages.

  pose-jax train --config configs/deeppose/flic.py --run runs/deeppose_flic \
    --config.data.train.root=FLIC --config.data.eval.root=FLIC
  python -m experiments.deeppose.table --run runs/deeppose_flic
  ... --config configs/deeppose/flic.py:smoke     # two steps a stage, on data/smoke

The 3987 training and 1016 test people, 11 labelled joints. Squares have one diameter, as in
the paper. Its first box is an enlarged detection of the face; here it is the extent of the
labelled joints, enlarged by a half. Labels are observer-centric (flic-joints-oc.mat), as
published FLIC numbers usually are.

The paper has PDJ curves of elbows and wrists only as a figure. Ours: not yet run.
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
