"""Several data sets as one: the rows of the one after those of the other.

  data.train = {
      "name": "joined",
      "root": "data",
      "split": "train",
      "options": {"sources": {"lsp": {"root": "lsp"}, "lsp_extended": {"root": "lspet"}}},
  }

Each source is a section like any other, and is overridden like any other:
`--config.data.train.options.sources.lsp.root=LSP`.

Nothing is compared by content. An image that two sources hold is two images: it is seen
twice in an epoch, and the people whom the one source labels are not there as neighbours
in the other. Whether one source holds what another is evaluated on is for the user to know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import config as config_lib
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError


@dataclasses.dataclass(frozen=True)
class PartConfig:
    """One source, as the section of its name says.

    Attributes:
      name: the data set; "" if the section is called so. Two sources of one data set need
        names of their own: {"ours": {"name": "coco", ...}, "theirs": {"name": "coco"}}.
      root: the user's folder; relative to the root of the joined set.
      split: None: that of the joined set.
      options: of the data set's reader.
    """

    name: str = ""
    root: str = ""
    split: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load(
    root: str | Path,
    split: str = "",
    *,
    sources: Mapping[str, Mapping[str, Any]],
    load_source: Callable[..., Table],
) -> Table:
    """Reads several sources and joins them in the order of their sections' names.

    Args:
      root: the folder to which the sources' roots are relative; "." or absolute roots
        leave them as they are.
      split: of the sources that name none.
      sources: a section of PartConfig by name.
      load_source: `load_source(name=, root=, split=, options=)` reads one of them.

    Returns:
      As of `join`.

    Raises:
      ConfigError: a section or an option is wrong, or two sources cannot be one table.
      InputError: a source's files are absent or broken.
    """
    if not isinstance(sources, Mapping) or not sources:
        raise ConfigError(
            "config.data: sources must be sections by name, such as {'lsp': {'root': "
            f"'LSP'}}}}; got {sources!r}."
        )
    # By name, as ConfigDicts have their keys: a config says no other order.
    parts = {
        label: config_lib.build(PartConfig, section, f"config.data: sources.{label}")
        for label, section in sorted(sources.items())
    }
    if split and all(part.split is not None for part in parts.values()):
        raise ConfigError(
            f"config.data: no source uses split {split!r}: all name their own "
            f"({', '.join(f'{label} {p.split!r}' for label, p in parts.items())}). "
            'Leave the joined set\'s "".'
        )
    tables = []
    for label, part in parts.items():
        name = part.name or label
        try:
            if name == "joined":
                raise ConfigError("joined itself; name its sources here instead.")
            one = {"name": name, "root": str(Path(root) / part.root)}
            one["split"] = split if part.split is None else part.split
            tables.append(load_source(**one, options=part.options))
        except ConfigError as error:
            said = str(error).removeprefix("config.data: ")
            raise ConfigError(f"config.data: sources.{label}: {said}") from None
    return join(tables)


def join(tables: Sequence[Table]) -> Table:
    """One Table of several, rows and images in their order.

    Ids stay unique and readable: those of table i grow by i * 10^d, the least power of
    ten above every image and annotation id of all of them. Of LSP and LSP-extended, image
    17 of the second becomes 100017. The name says it: "lsp train + lsp_extended train (ids
    + 100000)".

    Args:
      tables: of one keypoint set and one source of boxes; all with labels, or none. Their
        left and right must mean the same; sets that exist in one form alone (`centric`
        "") label the person's sides, and go with "PC".

    Returns:
      A Table with `head_sizes` if one of them has any: 0, "no head box", in the others.
      `truth` of detections is joined like the rest.

    Raises:
      ConfigError: two of them cannot be one table.
      InputError: ids that leave no room for others.
    """
    if not tables:
        raise ValueError("there must be a table to join; got none.")
    for other in tables[1:]:
        why = _misfit(tables[0], other)
        if why is not None:
            raise ConfigError(
                f"{tables[0].name} and {other.name} cannot be one table: {why}"
            )
    return _concatenate(tables, _stride(tables))


def _misfit(a: Table, b: Table) -> str | None:
    """Why two tables cannot be one."""
    if a.keypoints != b.keypoints:
        sets = [f"{t.keypoints.name!r} ({len(t.keypoints)})" for t in (a, b)]
        return (
            f"their keypoint sets are {' and '.join(sets)}. `keypoints.remap` takes "
            "points of one set to another: convert the labels with it."
        )
    if a.box_source != b.box_source:
        return (
            f"their boxes are {a.box_source!r} and {b.box_source!r}, which metrics "
            "tell apart. Choose one by the sources' options."
        )
    if a.labelled != b.labelled or (a.truth is None) != (b.truth is None):
        bare = a if not a.labelled and a.truth is None else b
        return f"{bare.name} has no labels. Leave it out."
    if (a.centric or "PC") != (b.centric or "PC"):
        sides = " and ".join(repr(t.centric) for t in (a, b))
        return (
            f'their left and right are {sides} ("" is the person\'s, "PC", too). Choose '
            "one by option `centric`."
        )
    return None


def _stride(tables: Sequence[Table]) -> int:
    """The power of ten by which ids grow from table to table."""
    count, stride = len(tables), 1
    if count == 1:
        return stride
    truths = [table.truth for table in tables if table.truth is not None]
    for table in (*tables, *truths):
        for ids in filter(len, (table.image_ids, table.ids)):
            stride = max(stride, 10 ** len(str(ids.max())))
            if ids.min() < 0 or count * stride > 2**63:
                raise InputError(
                    f"{table.name}: ids from {ids.min()} to {ids.max()} leave no room for "
                    f"those of {count} data sets in 64 bits. Renumber them from 1."
                )
    return stride


def _concatenate(tables: Sequence[Table], stride: int) -> Table:
    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(table, name) for table in tables])

    def shifted(name: str, steps: Iterable[int]) -> np.ndarray:
        columns = (getattr(table, name) for table in tables)
        return np.concatenate([c + s for c, s in zip(columns, steps, strict=True)])

    first, strides = tables[0], [i * stride for i in range(len(tables))]
    truths = [table.truth for table in tables if table.truth is not None]
    counts = [len(table.images) for table in tables]
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    ids = shifted("ids", strides)
    if not first.labelled:
        ids = np.where(column("ids") == 0, 0, ids)  # Boxes without a label.
    heads = None
    if any(table.head_sizes is not None for table in tables):
        heads = [
            np.zeros(len(t)) if t.head_sizes is None else t.head_sizes for t in tables
        ]
    names = [f"{t.name} (ids + {s})" for t, s in zip(tables, strides, strict=True)]
    same = ("image_sizes", "boxes_xyxy", "box_scores", "points_xy", "visibility")
    return dataclasses.replace(
        first,
        name=" + ".join([first.name, *names[1:]]),
        images=tuple(image for table in tables for image in table.images),
        image_ids=shifted("image_ids", strides),
        image=shifted("image", starts),
        ids=ids,
        centric=next(filter(None, (table.centric for table in tables)), ""),
        head_sizes=heads and np.concatenate(heads),
        truth=_concatenate(truths, stride) if truths else None,
        **{name: column(name) for name in (*same, "areas", "crowd")},
    )
