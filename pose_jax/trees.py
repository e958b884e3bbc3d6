"""Access to the leaves of pytrees by name.

A *path* is a tuple of names, written "params/conv/kernel"; `path_matches` matches a
*pattern* against a path.
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
    """Returns the leaves of a pytree by path, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in leaves
    }


def path_matches(pattern: str, path: TreePath) -> bool:
    """Returns whether the names of `pattern` occur consecutively anywhere in `path`.

    Each name is a glob that must match a complete name of the path: "head",
    "stage_*/conv".
    """
    names = pattern.strip("/").split("/")
    return any(
        all(map(fnmatch.fnmatchcase, path[i : i + len(names)], names))
        for i in range(len(path) - len(names) + 1)
    )


def compare_trees(expected: Any, found: Any) -> list[str]:
    """Returns one line per leaf that is missing, extra, or differs in shape or dtype."""
    expected, found = flatten(expected), flatten(found)
    lines = []
    for path in sorted(expected.keys() | found.keys()):
        a, b = _described(expected.get(path)), _described(found.get(path))
        if a != b:
            lines.append(f"{'/'.join(path)}: expected {a}, found {b}")
    return lines


def _described(leaf: Any) -> str:
    if leaf is None:
        return "nothing"
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def nearest(pattern: str, paths: Sequence[TreePath]) -> str:
    """Returns 'Did you mean "..."?' with the name or path closest to a pattern."""
    names = sorted({name for path in paths for name in (*path, "/".join(path))})
    return did_you_mean(pattern, names).strip() or "There are no parameters."


def first(lines: Sequence[str], count: int = 3) -> str:
    """Joins the first few lines, followed by the number of omitted ones."""
    more = f"; and {len(lines) - count} more" if len(lines) > count else ""
    return "; ".join(lines[:count]) + more
