"""How good predicted poses are, by the definitions the literature compares with.

`keypoint`: sums and similarities of arrays, for jit and vmap; sums add over batches.
`coco`: average precision over a data set, on the host. Points are image pixels, (x, y).
"""

from pose_jax.metrics.coco import coco_box_ap, coco_keypoint_ap
from pose_jax.metrics.keypoint import flipped, oks, pck, pckh, pcp, pdj

__all__ = [
    "coco_box_ap",
    "coco_keypoint_ap",
    "flipped",
    "oks",
    "pck",
    "pckh",
    "pcp",
    "pdj",
]
