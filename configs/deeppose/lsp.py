r"""DeepPose as in the paper, on the data of the paper: AlexNet at 220x220, three stages.

  pose-jax train --config configs/deeppose/lsp.py --run runs/deeppose_lsp_joined \
    --config.data.train.options.sources.lsp.root=LSP \
    --config.data.train.options.sources.lsp_extended.root=LSPET \
    --config.data.eval.root=LSP
  python -m experiments.deeppose.table --run runs/deeppose_lsp_joined
  ... --config configs/deeppose/lsp.py:smoke     # two steps per stage, on data/smoke

Trains on the 1000 training images of LSP and all 10,000 images of LSP-extended, and
evaluates on the 1000 test images of LSP, as in the paper's table. The test scores select
nothing: the last weights are kept, not the best. The box of stage 1 is the complete image,
the side of a crop is two diameters, as in the paper for LSP. Labels are person-centric, as
in both releases; the paper does not specify this. LSP and LSPET are folders with joints.mat
and images/.

PCP of the paper after stages 1, 2, 3, quoted from memory, as means of arms and legs: 0.54,
0.60, 0.61. Ours: not yet run.
"""

from _recipes import apply_variant, paper
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    options = {"boxes": "image"}
    data = ConfigDict(
        {
            "train": {
                "name": "joined",
                "root": ".",
                "split": "train",
                "options": {
                    "sources": {
                        "lsp": {"root": "data/lsp", "options": options},
                        "lsp_extended": {"root": "data/lspet", "options": options},
                    }
                },
            },
            "eval": {
                "name": "lsp",
                "root": "data/lsp",
                "split": "test",
                "options": options,
            },
        }
    )
    c = paper(data, sigma=2.0)
    return apply_variant(c, variant)
