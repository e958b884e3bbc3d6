"""Heads of another keypoint set as initial weights: `train.init_from`, `train.init_map`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pose_jax.errors import did_you_mean
from pose_jax.keypoints import KeypointSet
from pose_jax.trees import flatten, path_matches

Groups = tuple[int, ...]
"""How the channels of a head are divided among keypoints, see `models.Network`."""
Rows = Sequence[Sequence[int]]
"""For each keypoint, those of the other set whose mean initializes it; () for none."""


def sources(
    own: KeypointSet,
    other: KeypointSet,
    names: Mapping[str, str | Sequence[str]] | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Returns which keypoints of another set correspond to each keypoint of a set.

    Args:
      own: the set with k keypoints.
      other: the other set.
      names: keypoints of `own` to those of `other`, one or several whose mean is meant, or
        "" for none. Those that it does not name correspond by name.

    Returns:
      k tuples of indices into `other`; () if there is no such keypoint.

    Raises:
      ValueError: a name is in neither set.
    """
    names = names or {}
    for name in names:
        if name not in own.names:
            raise ValueError(
                f"{own.name} has no keypoint {name!r}.{did_you_mean(name, own.names)}"
            )
    at = {name: i for i, name in enumerate(other.names)}
    rows = []
    for name in own.names:
        chosen = names.get(name, name if name in at else "")
        chosen = [chosen] if isinstance(chosen, str) else chosen
        for each in filter(None, chosen):
            if each not in at:
                raise ValueError(
                    f"{other.name} has no keypoint {each!r}, which is to be the source "
                    f"of {name!r}.{did_you_mean(each, other.names)}"
                )
        rows.append(tuple(at[each] for each in filter(None, chosen)))
    return tuple(rows)


def map_heads(
    own: Any, loaded: Any, heads: Mapping[str, Groups], rows: Rows, num_loaded: int
) -> Any:
    """Rearranges the heads of other weights to one's own keypoints.

    Args:
      own: initialized variables for k keypoints.
      loaded: the variables of the same network for `num_loaded` keypoints.
      heads: patterns of the parameters with channels of keypoints, to their groups.
      rows: k rows of keypoints of `loaded`.
      num_loaded: number of keypoints of `loaded`.

    Returns:
      `loaded` with heads of the shapes of `own`. The channels of a keypoint are the mean of
      those of its row, and those of `own` if the row is empty.
    """
    own_leaves = flatten(own)

    def mapped(path, leaf):
        groups = next((g for p, g in heads.items() if path_matches(p, path)), None)
        if groups is None or path not in own_leaves:
            return leaf
        mine = np.asarray(own_leaves[path])
        axis = axis_of(mine.shape, leaf.shape, sum(groups), (len(rows), num_loaded))
        if axis is None:  # A head of another kind; `merge_params` refuses its shape.
            return leaf
        source = np.moveaxis(np.asarray(leaf), axis, -1)
        result = np.moveaxis(mine, axis, -1).copy()
        start = loaded_start = 0
        for size in groups:
            for keypoint, row in enumerate(rows):
                if not row:
                    continue
                at = start + size * keypoint
                parts = [loaded_start + size * each for each in row]
                values = [source[..., i : i + size] for i in parts]
                result[..., at : at + size] = np.mean(values, axis=0)
            start, loaded_start = (
                start + size * len(rows),
                loaded_start + size * num_loaded,
            )
        return np.moveaxis(result, -1, axis)

    leaves = [mapped(path, leaf) for path, leaf in flatten(loaded).items()]
    return jax.tree.unflatten(jax.tree.structure(loaded), leaves)


def present(loaded: Any, heads: Mapping[str, Groups]) -> bool:
    """Returns whether variables have a head; those of a backbone do not."""
    return any(path_matches(p, path) for path in flatten(loaded) for p in heads)


def axis_of(
    own: tuple[int, ...], loaded: tuple[int, ...], size: int, numbers: tuple[int, int]
) -> int | None:
    """Returns the axis with `size` channels per keypoint, the last one first."""
    wanted = (size * numbers[0], size * numbers[1])
    if len(own) != len(loaded):
        return None
    axes = range(len(own) - 1, -1, -1)
    return next((i for i in axes if (own[i], loaded[i]) == wanted), None)


def described(own: KeypointSet, other: KeypointSet, rows: Rows) -> str:
    """Returns where each keypoint's channels come from, in a line."""
    by_name, means, new = [], [], []
    for name, row in zip(own.names, rows, strict=True):
        sources = [other.names[i] for i in row]
        if not sources:
            new.append(name)
        elif sources == [name]:
            by_name.append(name)
        else:
            means.append(f"{name} from {' + '.join(sources)}")
    parts = [f"{len(by_name)} keypoints of the head by name"] if by_name else []
    parts += means
    if new:
        parts.append(f"{len(new)} randomly initialized ({', '.join(new)})")
    return f"keypoints {own.name} from {other.name}: {', '.join(parts)}"
