"""Leaves of nested arrays by name.

A *path* is a tuple of names, written "params/conv/kernel"; a *pattern* is matched against
paths by `path_matches`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pose_jax.errors import did_you_mean

TreePath = tuple[str, ...]


def flatten(tree: Any) -> dict[TreePath, Any]:
    """The leaves of any pytree by path, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in leaves
    }


def path_matches(pattern: str, path: TreePath) -> bool:
    """Whether the names of `pattern` follow each other somewhere in `path`.

    Each name is a glob for one whole name of the path: "head", "stage_*/conv".
    """
    names = pattern.strip("/").split("/")
    return any(
        all(map(fnmatch.fnmatchcase, path[i : i + len(names)], names))
        for i in range(len(path) - len(names) + 1)
    )


def compare_trees(expected: Any, found: Any) -> list[str]:
    """One line for each leaf missing, unexpected, or of another shape or dtype."""
    expected, found = flatten(expected), flatten(found)
    lines = []
    for path in sorted(expected.keys() | found.keys()):
        wanted, there = _described(expected.get(path)), _described(found.get(path))
        if wanted != there:
            lines.append(f"{'/'.join(path)}: expected {wanted}, found {there}")
    return lines


def _described(leaf: Any) -> str:
    if leaf is None:
        return "nothing"
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def nearest(pattern: str, paths: Sequence[TreePath]) -> str:
    """'Did you mean "..."?' with the name or path nearest to a pattern of no match."""
    names = sorted({name for path in paths for name in (*path, "/".join(path))})
    return did_you_mean(pattern, names).strip() or "There are none."
