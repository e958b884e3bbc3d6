"""Metrics of poses and boxes, as defined in the literature.

`keypoint`: counts and similarities of arrays, for jit and vmap; counts add over batches.
`coco`: average precision of a data set, on the host. Points are image pixels, (x, y).
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
