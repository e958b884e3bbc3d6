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
twice in an epoch, and the people whom the one source labels are nobody's neighbours in the
other. Whether one source holds what another is evaluated on is for the user to know.
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
        label: config_lib.build(
            PartConfig, sources[label], f"config.data: sources.{label}"
        )
        for label in sorted(sources)
    }
    if split and all(part.split is not None for part in parts.values()):
        raise ConfigError(
            f"config.data: split {split!r} is nobody's: all sources name their own "
            f"({', '.join(f'{label} {p.split!r}' for label, p in parts.items())}). "
            'Leave the joined set\'s "".'
        )
    tables = []
    for label, part in parts.items():
        name = part.name or label
        try:
            if name == "joined":
                raise ConfigError("joined itself; name its sources here instead.")
            table = load_source(
                name=name,
                root=str(Path(root) / part.root),
                split=split if part.split is None else part.split,
                options=part.options,
            )
            tables.append(table)
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
    stride = _stride(tables)
    truths = [t.truth for t in tables if t.truth is not None]
    joined = _concatenate(tables, stride)
    if truths:
        joined = dataclasses.replace(joined, truth=_concatenate(truths, stride))
    return joined


def _misfit(a: Table, b: Table) -> str | None:
    """Why two tables cannot be one."""
    if a.keypoints != b.keypoints:
        return (
            f"their keypoint sets are {_set(a)} and {_set(b)}. `keypoints.remap` takes "
            "points of one set to another: write the labels anew with it."
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


def _set(table: Table) -> str:
    return f"{table.keypoints.name!r} ({len(table.keypoints)})"


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
                    f"those of {count} data sets in 64 bits. Number them anew, from 1."
                )
    return stride


def _concatenate(tables: Sequence[Table], stride: int) -> Table:
    first = tables[0]

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(table, name) for table in tables])

    def shifted(columns: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([c + i * stride for i, c in enumerate(columns)])

    counts = [len(table.images) for table in tables]
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    ids = shifted(table.ids for table in tables)
    if not first.labelled:
        ids = np.where(column("ids") == 0, 0, ids)  # Boxes without a label.
    head_sizes = None
    if any(table.head_sizes is not None for table in tables):
        head_sizes = np.concatenate(
            [np.zeros(len(t)) if t.head_sizes is None else t.head_sizes for t in tables]
        )
    more = [f"{t.name} (ids + {i * stride})" for i, t in enumerate(tables) if i]
    return Table(
        name=" + ".join([first.name, *more]),
        keypoints=first.keypoints,
        images=tuple(image for table in tables for image in table.images),
        image_ids=shifted(table.image_ids for table in tables),
        image_sizes=column("image_sizes"),
        image=np.concatenate(
            [table.image + start for table, start in zip(tables, starts, strict=True)]
        ),
        ids=ids,
        boxes_xyxy=column("boxes_xyxy"),
        box_scores=column("box_scores"),
        points_xy=column("points_xy"),
        visibility=column("visibility"),
        areas=column("areas"),
        crowd=column("crowd"),
        box_source=first.box_source,
        labelled=first.labelled,
        centric=next(filter(None, (table.centric for table in tables)), ""),
        head_sizes=head_sizes,
    )
