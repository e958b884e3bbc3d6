"""Several data sets as one, by concatenating their rows.

  data.train = {
      "name": "joined",
      "root": "data",
      "split": "train",
      "options": {"sources": {"lsp": {"root": "lsp"}, "lsp_extended": {"root": "lspet"}}},
  }

Each source is a section like any other, and is overridden like any other:
`--config.data.train.options.sources.lsp.root=LSP`.

Contents are not compared. An image in two sources is two images: it is seen twice in an
epoch, and people labeled in one source are not neighbors in the other. The user has to
ensure that no source contains evaluation data of another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import config as config_lib
from pose_jax.data.pixels import Exif
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError


@dataclasses.dataclass(frozen=True)
class PartConfig:
    """One source: the section of its name.

    Attributes:
      name: the data set; "" for the section's name. Two sources of one data set need
        different section names: {"ours": {"name": "coco", ...}, "other": {"name": "coco"}}.
      root: folder of the data set, relative to the root of the joined set.
      split: split of the data set; None for that of the joined set.
      options: options of the data set's reader.
      exif: as in SourceConfig.
    """

    name: str = ""
    root: str = ""
    split: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exif: Exif = "auto"


def load(
    root: str | Path,
    split: str = "",
    *,
    sources: Mapping[str, Mapping[str, Any]],
    load_source: Callable[..., Table],
) -> Table:
    """Reads several sources and joins them in the order of their sections' names.

    Args:
      root: the folder to which the sources' roots are relative, unless they are absolute.
      split: split of the sources that name none.
      sources: sections of PartConfig by name.
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
    # Sorted, like the keys of ConfigDicts, which do not keep another order.
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
            source = {**one, "options": part.options, "exif": part.exif}
            tables.append(load_source(**source))
        except ConfigError as error:
            said = str(error).removeprefix("config.data: ")
            raise ConfigError(f"config.data: sources.{label}: {said}") from None
    return join(tables)


def join(tables: Sequence[Table]) -> Table:
    """Concatenates Tables, keeping the order of rows and images.

    Ids stay unique and readable: those of table i are increased by i * 10^d, the smallest
    power of ten above all image and annotation ids. With LSP and LSP-extended, image 17 of
    the second becomes 100017. The name of the Table shows it: "lsp train + lsp_extended
    train (ids + 100000)".

    Args:
      tables: of one keypoint set and one source of boxes; all with labels, or none. Their
        left and right must mean the same; sets without a choice (`centric` "") label the
        person's sides, and go with "PC".

    Returns:
      A Table with `head_sizes` if one of them has any, and 0 ("no head box") in the others.
      `truth` of detections is joined in the same way.

    Raises:
      ConfigError: the tables cannot be joined.
      InputError: ids are too large to be made unique.
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
    """Returns why two tables cannot be joined, or None."""
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
    if a.exif != b.exif:
        return f"their exif is {a.exif!r} and {b.exif!r}. Choose one for all."
    if (a.centric or "PC") != (b.centric or "PC"):
        sides = " and ".join(repr(t.centric) for t in (a, b))
        return (
            f'their left and right are {sides} ("" is the person\'s, "PC", too). Choose '
            "one by option `centric`."
        )
    return None


def _stride(tables: Sequence[Table]) -> int:
    """Returns the power of ten by which ids increase from table to table."""
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
        ids = np.where(column("ids") == 0, 0, ids)  # Boxes without labels.
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
        notes=tuple(f"{t.name}: {note}" for t in tables for note in t.notes),
        **{name: column(name) for name in (*same, "areas", "crowd")},
    )
