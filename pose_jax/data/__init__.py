"""Data sets: from original annotation files to batches.

A data set's module reads files into a `table.Table`, `canvas` and `readers` turn the rows
of a Table into batches; `check` validates data sets, `synthetic` generates one.

To add a data set: a module with `load(root, split, **options) -> Table` and a `DataSet`,
and a line in DATASETS; tests/data/test_formats.py asks for an entry of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pose_jax import registry
from pose_jax.data import coco, flic, joined, lsp, mpii, store, synthetic, tfds
from pose_jax.data.dataset import DataSet
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError
from pose_jax.keypoints import SETS, KeypointSet


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One split of one data set, as a config names it.

    Attributes:
      name: a key of DATASETS, or "package.module:attribute", a reader of your own.
      root: folder of the data set; for a joined set, the parent folder of its sources.
      split: name of the split in the data set.
      options: further keyword arguments of its reader.
      on_error: what to do with an image that cannot be read. "stop": end with an error.
        "skip": in training, its rows are replaced by others, for at most 1% of the images
        (or one image) of an epoch; in evaluation, its people count as missed.
    """

    name: str
    root: str
    split: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    on_error: Literal["stop", "skip"] = "stop"


def _load_source(**source: Any) -> Table:
    return load(SourceConfig(**source))


DATASETS: dict[str, DataSet] = {
    "coco": coco.DATA_SET,
    "flic": flic.DATA_SET,
    "joined": DataSet(functools.partial(joined.load, load_source=_load_source)),
    "lsp": lsp.DATA_SET,
    "lsp_extended": lsp.EXTENDED,
    "mpii": mpii.DATA_SET,
    "prepared": DataSet(store.load),
    "tfds": DataSet(tfds.load),
}


def data_set(name: str, where: str = "config.data") -> DataSet:
    """Returns the data set of a name.

    Args:
      name: a key of DATASETS, or "package.module:attribute", a DataSet or a reader.
      where: the config's key, for messages.

    Raises:
      ConfigError: there is none.
    """
    found = registry.lookup(name, DATASETS, kind="data set", where=where)
    return found if isinstance(found, DataSet) else DataSet(found)


def reader(source: SourceConfig) -> Callable[[], Table]:
    """Returns a function that reads the split of a config.

    Raises:
      ConfigError: no such data set, or its reader does not take an option.
    """
    read = data_set(source.name).load
    try:
        inspect.signature(read).bind(source.root, source.split, **source.options)
    except TypeError as error:
        raise ConfigError(
            f"config.data: options of data set {source.name!r}: {error}."
        ) from None
    return functools.partial(read, source.root, source.split, **source.options)


def load(source: SourceConfig) -> Table:
    """Reads the split of a config.

    Raises:
      ConfigError: as of `reader`.
      InputError: the files are absent or broken.
    """
    table = reader(source)()
    if table.on_error == source.on_error:
        return table
    return dataclasses.replace(table, on_error=source.on_error)


def usual_keypoints(name: str, options: Mapping[str, Any]) -> KeypointSet | None:
    """Returns the keypoint set of data without reading them; None if unknown.

    Args:
      name: the data set, as in SourceConfig.
      options: options of its reader. "keypoints" names the set; for a joined set, it is
        the set that all sources share.
    """
    if name == "joined":
        sets = [
            usual_keypoints(part.get("name") or key, part.get("options", {}))
            for key, part in (options.get("sources") or {}).items()
        ]
        return sets[0] if sets and all(found == sets[0] for found in sets) else None
    given = options.get("keypoints")
    if given is not None:
        return SETS.get(given)
    return DATASETS[name].keypoints if name in DATASETS else None


def prepare_source(
    source: SourceConfig, out: Path | str, name: str | None = None
) -> str:
    """Packs the split of a config into a store, and returns a description of it.

    Args:
      source: the split to pack.
      out: the folder of all stores, as in `store.prepare`.
      name: name of the data set in the store; None for its own.

    Raises:
      ConfigError: the source is a store already, or a name is invalid.
      InputError: the files are absent or broken, or another store is there.
    """
    if source.name == "prepared":
        raise ConfigError(f"{source.root} is a store already: give the original data.")
    table = load(source)
    dataset = name or source.name
    existed = store.folder(out, dataset, source.split).exists()
    about = DATASETS[dataset].about if dataset in DATASETS else None
    if dataset == "synthetic":
        about = synthetic.ABOUT
    path = store.prepare(
        table, out, dataset=dataset, split=source.split, about=about, progress=True
    )
    shards = list(path.glob("*.array_record*"))
    size = sum(shard.stat().st_size for shard in shards) / 1e6
    use = {"name": "prepared", "root": str(path.parents[2]), "split": path.parent.name}
    return (
        f"{table.name}: {len(table.images)} images, {len(table)} people, {size:.1f} MB "
        f"in {len(shards)} shards, fingerprint {table.fingerprint()}: {path}"
        f"{' (it was there)' if existed else ''}\nin a config: {use}"
    )
