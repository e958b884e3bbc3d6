r"""DeepPose as in the paper on LSP-extended: AlexNet at 220x220, three stages.

  pose-jax train --config configs/deeppose/lsp_extended.py --run runs/deeppose_lsp \
    --config.data.train.root=LSPET --config.data.eval.root=LSPET
  python -m experiments.deeppose.table --run runs/deeppose_lsp
  ... --config configs/deeppose/lsp_extended.py:smoke     # two steps per stage, data/smoke

Trains on images 1 to 5500 and validates on 5501 to 6000. This split is our own: these are
not the LSP test images. The box of stage 1 is the complete image, the side of a crop is two
diameters, as in the paper for LSP. LSPET is a folder with joints.mat and images/.

PCP of the paper on the LSP test images after stages 1, 2, 3, quoted from memory, means of
arms and legs: 0.54, 0.60, 0.61. Ours: not yet run.
"""

from _recipes import apply_variant, paper
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    source = {
        "name": "lsp_extended",
        "root": "data/lspet",
        "options": {"boxes": "image"},
    }
    data = ConfigDict(
        {
            "train": {**source, "split": "1-5500"},
            "eval": {**source, "split": "5501-6000"},
        }
    )
    c = paper(data, sigma=2.0, stop_metric="PDJ@0.2@image@PC")
    return apply_variant(c, variant)
