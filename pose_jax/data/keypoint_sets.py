"""Keypoint sets that come with the data: of a COCO category, or of option `keypoints`.

The option wins, and may say only a part: what it leaves out is the file's.

  c.data.train.options.keypoints = {
      "flip_pairs": [["ear_near", "ear_far"]],    # names, or indices from 0
      "skeleton": [["snout", "tail"]],
      "torso": ["snout", "tail"],                 # PCK divides by its length
      "sigmas": 0.05,                             # for all, a list, or by name
  }

It is a mapping of fields of `KeypointSet`, a .json file of such a mapping, the name of a
registered set, or a KeypointSet. "names" are needed only where the file has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import keypoints as keypoints_lib
from pose_jax.data._files import read_json
from pose_jax.errors import ConfigError, InputError, did_you_mean, one_line
from pose_jax.keypoints import SETS, KeypointSet

Option = KeypointSet | Mapping[str, Any] | str | Path
"""What option `keypoints` may be."""

_FIELDS = {field.name for field in dataclasses.fields(KeypointSet)}


def resolve(
    option: Option, of_file: KeypointSet | None, where: str = "option keypoints"
) -> KeypointSet:
    """Returns the keypoint set that an option says.

    Args:
      option: see above.
      of_file: the set of the annotation file, which provides what a mapping leaves out.
      where: the option, for messages.

    Raises:
      ConfigError: no such set or field, a name that is no keypoint, or another number of
        values than keypoints.
      InputError: the file does not exist, or is no JSON object.
    """
    if isinstance(option, KeypointSet):
        return option
    if isinstance(option, str | Path):
        if str(option) in SETS:
            return SETS[str(option)]
        if Path(option).suffix != ".json":
            known = ", ".join(map(repr, SETS))
            raise ConfigError(
                f"no keypoint set {str(option)!r}; there are {known}. A set of your own is "
                "a .json file."
            )
        read = read_json(Path(option), dict, "option keypoints names it")
        return _of_mapping(read, of_file, f"{option}", Path(option).stem)
    if not isinstance(option, Mapping):
        raise ConfigError(
            f"{where} must be a mapping, a .json file or the name of a set; got {option!r}."
        )
    return _of_mapping(option, of_file, where, "keypoints")


def _of_mapping(
    values: Mapping[str, Any], of_file: KeypointSet | None, where: str, name: str
) -> KeypointSet:
    for key in values:
        if key not in _FIELDS:
            raise ConfigError(
                f"{where}: no such field {key!r}.{did_you_mean(key, _FIELDS, cutoff=0.5)} "
                f"Known: {', '.join(sorted(_FIELDS))}."
            )
    names = values.get("names") or (of_file.names if of_file else None)
    if names is None:
        raise ConfigError(
            f"{where}: names are missing, and the annotation file has none: add "
            "'names': ['snout', ...], in the file's order."
        )
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"{where}: names must be a list of texts; got {names!r}.")
    names = tuple(names)
    base = of_file if of_file is not None and of_file.names == names else None
    given = {
        field: _parsed(field, values[field], names, f"{where}: {field}")
        for field in values.keys() - {"name", "names"}
    }
    start: dict[str, Any] = {"name": name, "names": names, "skeleton": ()}
    start["flip_pairs"] = () if base else keypoints_lib.pairs_by_name(names)
    if base is not None:
        start = {field: getattr(base, field) for field in _FIELDS}
    if "name" in values:
        given["name"] = str(values["name"])
    try:
        return KeypointSet(**{**start, **given})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


def _parsed(field: str, value: Any, names: tuple[str, ...], where: str) -> Any:
    """Returns a field of KeypointSet: names of keypoints become indices."""
    if field in ("sigmas", "joint_weights"):
        return _numbers(value, names, where)
    if value is None:
        return None if field == "torso" else ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where} must be a list; got {value!r}.")
    if field == "sticks":
        for stick in value:
            if isinstance(stick, str) or len(stick) != 3:
                raise ConfigError(f"{where}: {stick!r} is not (name, end, end).")
        return tuple(
            (str(name), *(_indices(end, names, where) for end in ends))
            for name, *ends in value
        )
    found = _indices(value, names, where)
    if field == "torso" and len(found) != 2:
        raise ConfigError(f"{where} must be two keypoints; got {value!r}.")
    if field in ("flip_pairs", "skeleton"):
        for pair in found:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ConfigError(f"{where} must be pairs of keypoints; got {value!r}.")
    return found


def _indices(value: Any, names: tuple[str, ...], where: str) -> Any:
    """Converts names to indices, in nested lists too, which become tuples."""
    if isinstance(value, str):
        if value not in names:
            near = did_you_mean(value, names, cutoff=0.5)
            raise ConfigError(
                f"{where}: there is no keypoint {value!r}.{near} The keypoints are "
                f"{_some(names)}."
            )
        return names.index(value)
    if isinstance(value, Sequence):
        return tuple(_indices(each, names, where) for each in value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where}: {value!r} is neither a name nor an index.")
    return value


def _numbers(value: Any, names: tuple[str, ...], where: str) -> Any:
    """Returns one number per keypoint, of one for all, a list, or a mapping by name."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        for key in value:
            _indices(key, names, where)
        without = [name for name in names if name not in value]
        if without:
            raise ConfigError(f"{where}: no number for {_some(without)}.")
        value = [value[name] for name in names]
    elif isinstance(value, int | float):
        value = [value] * len(names)
    numbers = [v for v in value if isinstance(v, int | float)]
    if isinstance(value, str) or len(numbers) != len(value):
        raise ConfigError(f"{where} must be numbers; got {value!r}.")
    return tuple(map(float, numbers))


def of_category(name: str, names: Sequence[str], skeleton: Any) -> KeypointSet:
    """Returns the keypoint set of a COCO category.

    It is a registered set, if one has the same names in the same order. Otherwise flip
    pairs follow from the names. The skeleton counts from 1, or from 0 if a 0 is in it.

    Raises:
      InputError: names repeat, or the skeleton is not of pairs of these keypoints.
    """
    for known in SETS.values():
        if known.names == tuple(names):
            return known
    pairs = [] if skeleton is None else skeleton
    right = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(i) is int for i in pair)
        for pair in pairs
    )
    if not right:
        raise InputError(
            f"skeleton must be pairs of integers; got {one_line(pairs, 60)}"
        )
    first = 0 if counts_from_zero(pairs) else 1
    for pair in pairs:
        if not all(first <= i < len(names) + first for i in pair):
            raise InputError(
                f"skeleton: {pair} is no pair of keypoints {first} to "
                f"{len(names) + first - 1} (it counts from {first})"
            )
    try:
        return KeypointSet(
            name=name or "keypoints",
            names=tuple(names),
            flip_pairs=keypoints_lib.pairs_by_name(names),
            skeleton=tuple((i - first, j - first) for i, j in pairs),
        )
    except ValueError as error:
        raise InputError(one_line(error).rstrip(".")) from None


def counts_from_zero(skeleton: Any) -> bool:
    """Returns whether a 0 is in the skeleton of a COCO category, which counts from 0."""
    return isinstance(skeleton, list) and any(
        isinstance(pair, list) and 0 in pair for pair in skeleton
    )


def described(
    keypoint_set: KeypointSet, skeleton: Any = None, *, with_sigmas: bool = True
) -> str:
    """Describes a set in a phrase: number, flip pairs, limbs, sigmas.

    Args:
      keypoint_set: the set.
      skeleton: that of the category, if it has one.
      with_sigmas: whether sigmas are part of it.
    """
    names = keypoint_set.names
    pairs = [f"{names[i]} and {names[j]}" for i, j in keypoint_set.flip_pairs]
    by_name = {frozenset(pair) for pair in keypoints_lib.pairs_by_name(names)}
    same = by_name == {frozenset(pair) for pair in keypoint_set.flip_pairs}
    flips = f"flip pairs{' by their names' * same}: {_some(pairs)}"
    if not pairs:
        flips = "no flip pairs" + ", as no names are left and right" * same
    limbs = f"{len(keypoint_set.skeleton)} limbs"
    if counts_from_zero(skeleton):
        limbs += ", counted from 0, as a 0 is in the skeleton"
    sigmas = "with sigmas" if keypoint_set.sigmas else "no sigmas, hence no AP"
    if keypoint_set.one_sigma is not None:
        sigmas = f"sigma {keypoint_set.one_sigma:g} for all"
    return (
        f"keypoint set {keypoint_set.name!r}, {len(names)} keypoints; {flips}; {limbs}"
        f"{f'; {sigmas}' * with_sigmas}"
    )


def _some(words: Sequence[str], count: int = 6) -> str:
    more = f", and {len(words) - count} more" if len(words) > count else ""
    return ", ".join(words[:count]) + more


def number_in(rows: Any) -> int | None:
    """Returns the number of keypoints of annotations that have some; None if none has."""
    if isinstance(rows, list):
        for row in rows:
            values = row.get("keypoints") if isinstance(row, Mapping) else None
            if isinstance(values, list) and values:
                return int(np.ceil(len(values) / 3))
    return None
