"""A model over a table: predictions, metrics, files, pictures.

`of(method)` is `poses` or `boxes`, modules with the same functions; nothing else asks which
of the two it is.
"""

from types import ModuleType
from typing import Any

from pose_jax.evaluation import boxes, poses


def of(method: Any) -> ModuleType:
    """What measures and draws the predictions of a method, or of a loaded run: `poses`, or
    `boxes` where there are no keypoints."""
    return boxes if method.keypoints is None else poses
