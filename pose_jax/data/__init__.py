"""From original annotation files to batches.

A data set's module turns files into a `table.Table`, `canvas` and `readers` turn the rows
of a Table into batches; `check` finds damage, `synthetic` makes people to train on.

To add a data set: a module with `load(root, split, **options) -> Table`, and a line in
DATASETS.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_jax import registry
from pose_jax.data import coco, flic, joined, lsp, mpii, store, tfds
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One split of one data set, as a config names it.

    Attributes:
      name: a key of DATASETS, or "package.module:attribute", a reader of your own.
      root: the user's folder; of a joined set the folder of its sources' folders.
      split: as the data set calls it.
      options: further keyword arguments of its reader.
    """

    name: str
    root: str
    split: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _load_joined(
    root: str | Path, split: str = "", *, sources: Mapping[str, Mapping[str, Any]]
) -> Table:
    """`joined.load` of the data sets that are registered here."""
    return joined.load(
        root,
        split,
        sources=sources,
        load_source=lambda **source: load(SourceConfig(**source)),
    )


DATASETS = {
    "coco": coco.load,
    "flic": flic.load,
    "joined": _load_joined,
    "lsp": lsp.load,
    "lsp_extended": lsp.load_extended,
    "mpii": mpii.load,
    "prepared": store.load,
    "tfds": tfds.load,
}


def load(source: SourceConfig) -> Table:
    """Reads the split that a config names.

    Raises:
      ConfigError: no such data set, or its reader does not take an option.
      InputError: the files are absent or broken.
    """
    reader = registry.lookup(
        source.name, DATASETS, kind="data set", where="config.data"
    )
    try:
        inspect.signature(reader).bind(source.root, source.split, **source.options)
    except TypeError as error:
        raise ConfigError(
            f"config.data: options of data set {source.name!r}: {error}."
        ) from None
    return reader(source.root, source.split, **source.options)


def prepare_source(
    source: SourceConfig, out: Path | str, name: str | None = None
) -> str:
    """Packs the split that a config names, and describes the store.

    Args:
      source: what to pack.
      out: the folder of all stores, as of `store.prepare`.
      name: of the data set in the store; None for its own.

    Raises:
      ConfigError: the source is a store already, or a name cannot be.
      InputError: the files are absent or broken, or another store is there.
    """
    if source.name == "prepared":
        raise ConfigError(f"{source.root} is a store already: give the original data.")
    table = load(source)
    dataset = name or source.name
    existed = store.folder(out, dataset, source.split).exists()
    path = store.prepare(table, out, dataset=dataset, split=source.split, progress=True)
    return store.describe(path, table, existed=existed)
