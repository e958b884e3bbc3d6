r"""The paper's DeepPose on LSP, on the paper's data: AlexNet at 220x220, three stages.

  pose-jax train --config configs/deeppose/lsp.py --run runs/deeppose_lsp_joined \
    --config.data.train.options.sources.lsp.root=LSP \
    --config.data.train.options.sources.lsp_extended.root=LSPET \
    --config.data.eval.root=LSP
  python -m experiments.deeppose.table --run runs/deeppose_lsp_joined
  ... --config configs/deeppose/lsp.py:smoke     # two steps a stage, on data/smoke

Trains on the 1000 training images of LSP and all 10,000 of LSP-extended as one set, and
measures on LSP's 1000 test images: the paper's table. Its scores choose nothing: the last
weights are kept, not the best. The box of stage 1 is the whole image, squares have two
diameters: the paper's choices for LSP. Left and right are the person's, as in both
releases; the paper does not say. LSP and LSPET are folders with joints.mat and images/.

The paper's PCP after stages 1, 2, 3, quoted from memory, as means of arms and legs: 0.54,
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
