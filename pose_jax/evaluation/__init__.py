"""Evaluation of a model on a table: predictions, metrics, files, pictures.

`of(method)` returns `poses` or `boxes`, two modules with the same functions; no other code
distinguishes the two cases.
"""

from types import ModuleType
from typing import Any

from pose_jax.evaluation import boxes, poses


def of(method: Any) -> ModuleType:
    """Returns the module that measures and draws the predictions of a method or a loaded
    run: `poses`, or `boxes` if there are no keypoints."""
    return boxes if method.keypoints is None else poses
