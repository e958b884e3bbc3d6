"""Data sets: original annotation files in, Tables out; and synthetic people.

A reader takes the user's folder and a split and returns a `table.Table`: columns in the
image frame and a reference to each encoded image. Nothing here decodes a pixel, except
`synthetic`, which makes them.

To add a data set: a module with `load(root, split, **options) -> Table`, and a line in
DATASETS.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from pose_jax.datasets import coco, flic, joined, lsp, mpii, store
from pose_jax.datasets.table import Table
from pose_jax.errors import ConfigError

DATASETS = {
    "coco": coco.load,
    "flic": flic.load,
    "joined": joined.load,
    "lsp": lsp.load,
    "lsp_extended": lsp.load_extended,
    "mpii": mpii.load,
    "prepared": store.load,
}


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One split of one data set, as a config names it.

    Attributes:
      name: a key of DATASETS.
      root: the user's folder; of a joined set the folder of its sources' folders.
      split: as the data set calls it.
      options: further keyword arguments of its reader.
    """

    name: str
    root: str
    split: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load(source: SourceConfig) -> Table:
    """Reads the split that a config names.

    Raises:
      ConfigError: no such data set, or its reader does not take an option.
      InputError: the files are absent or broken.
    """
    if source.name not in DATASETS:
        near = difflib.get_close_matches(source.name, DATASETS, n=1, cutoff=0.0)
        raise ConfigError(
            f"config.data: no data set {source.name!r}; there are {sorted(DATASETS)}. "
            f"Did you mean {near[0]!r}?"
        )
    reader = DATASETS[source.name]
    try:
        inspect.signature(reader).bind(source.root, source.split, **source.options)
    except TypeError as error:
        raise ConfigError(
            f"config.data: options of data set {source.name!r}: {error}."
        ) from None
    return reader(source.root, source.split, **source.options)
