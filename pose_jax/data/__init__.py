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

from absl import logging

from pose_jax import registry, writing
from pose_jax.data import (
    coco,
    flic,
    joined,
    keypoint_sets,
    lsp,
    mpii,
    store,
    synthetic,
    tfds,
)  # fmt: skip
from pose_jax.data._files import one_of
from pose_jax.data.dataset import DataSet
from pose_jax.data.pixels import EXIF, Exif
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import KeypointSet


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One split of one data set, as a config names it.

    Attributes:
      name: a key of DATASETS, or "package.module:attribute", a reader of your own.
      root: folder of the data set; for a joined set, the parent folder of its sources.
      split: name of the split in the data set.
      options: further keyword arguments of its reader.
      exif: which pixels the annotations of images with an EXIF orientation refer to:
        "ignore": those stored; "apply": those turned by it; "auto": those that have the
        annotated width and height, and those stored if both have.
      on_error: what to do with an image that cannot be read. "stop": end with an error.
        "skip": in training, its rows are replaced by others, for at most 1% of the images
        (or one image) of an epoch; in evaluation, its people count as missed.
    """

    name: str
    root: str
    split: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exif: Exif = "auto"
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        one_of("exif", self.exif, EXIF)


def _load_source(**source: Any) -> Table:
    return reader(SourceConfig(**source))()


DATASETS: dict[str, DataSet] = {
    "coco": coco.DATA_SET,
    "flic": flic.DATA_SET,
    "joined": DataSet(functools.partial(joined.load, load_source=_load_source)),
    "lsp": lsp.DATA_SET,
    "lsp_extended": lsp.EXTENDED,
    "mpii": mpii.DATA_SET,
    "prepared": DataSet(store.load, file_options={"detections": "split"}),
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

    Option "keypoints" is for all data sets: where the reader does not take it, it replaces
    what the keypoint set of the data has, as sigmas.

    Raises:
      ConfigError: no such data set, or its reader does not take an option.
    """
    found, options, own = data_set(source.name), dict(source.options), None
    if not found.takes("keypoints"):
        own = options.pop("keypoints", None)
    try:
        inspect.signature(found.load).bind(source.root, source.split, **options)
    except TypeError as error:
        raise ConfigError(
            f"config.data: options of data set {source.name!r}: {error}."
        ) from None
    read = functools.partial(found.load, source.root, source.split, **options)
    if own is None:
        return read

    def read_own() -> Table:
        table = read()
        return table.with_keypoints(keypoint_sets.resolve(own, table.keypoints))

    return read_own


def inheriting(source: SourceConfig, train: SourceConfig) -> SourceConfig:
    """Returns the source with option "keypoints" of the training data, unless it has its
    own."""
    own = train.options.get("keypoints")
    if own is None or "keypoints" in source.options:
        return source
    return dataclasses.replace(source, options={**source.options, "keypoints": own})


def load(source: SourceConfig, keypoints: KeypointSet | None = None) -> Table:
    """Reads the split of a config, and logs what users should know of it.

    Args:
      source: the split.
      keypoints: the keypoint set of a model. Data with the same names and without an option
        "keypoints" have this set, also a file that names no keypoints, or only images.

    Raises:
      ConfigError: as of `reader`.
      InputError: the files are absent or broken.
    """
    if keypoints is not None and data_set(source.name).takes("assumed"):
        options = {"assumed": keypoints, **source.options}
        source = dataclasses.replace(source, options=options)
    table = reader(source)()
    same = keypoints is not None and keypoints.names == table.keypoints.names
    if keypoints is not None and same and "keypoints" not in source.options:
        table = table.with_keypoints(keypoints)
    if source.exif != "auto":  # Otherwise the reader's own.
        table = dataclasses.replace(table, exif=source.exif)
    if source.on_error != table.on_error:
        table = dataclasses.replace(table, on_error=source.on_error)
    for remark in table.remarks():
        logging.warning("%s: %s.", table.name, remark)
    return table


def moved(
    source: SourceConfig,
    root: str | None = None,
    split: str | None = None,
    name: str | None = None,
) -> tuple[SourceConfig, dict[str, Any]]:
    """Returns the source at another root or split, or of another data set.

    Args:
      source: the split of a config.
      root, split, name: the other ones; None: as in the config.

    Returns:
      The other source, without the options that name files of the former root or split
      (`DataSet.file_options`), and these options; those of a joined set's sources as
      "sources.NAME.OPTION". Another data set has none of the options.

    Raises:
      ConfigError: another data set is given without its root or split.
    """
    if name not in (None, source.name):
        found = data_set(name, "--format")
        splits = found.splits(Path(root)) if root and found.splits else []
        split = split or (splits[0] if len(splits) == 1 else None)
        if root is None or split is None:
            which = f": {', '.join(splits)}" if splits else ""
            raise ConfigError(
                f"--format {name} requires --data and --split{which}, as the run's data "
                f"set is {source.name!r}."
            )
        return SourceConfig(name, root, split), dict(source.options)
    other = dataclasses.replace(
        source,
        root=source.root if root is None else root,
        split=source.split if split is None else split,
    )
    kept, dropped = dict(source.options), {}
    if source.name == "joined":
        parts = {}
        for label, part in (kept.get("sources") or {}).items():
            own = SourceConfig(
                part.get("name") or label,
                str(Path(source.root) / part.get("root", "")),
                part.get("split") or source.split,
                part.get("options", {}),
            )
            own, gone = moved(
                own,
                str(Path(other.root) / part.get("root", "")),
                part.get("split") or other.split,
            )
            parts[label] = {**part, "options": own.options}
            dropped |= {f"sources.{label}.{name}": gone[name] for name in gone}
        return dataclasses.replace(other, options={**kept, "sources": parts}), dropped
    changed = {"root": other.root != source.root, "split": other != source}
    for name, of in data_set(source.name).file_options.items():
        if changed[of] and kept.get(name) is not None:
            dropped[name] = kept.pop(name)
    return dataclasses.replace(other, options=kept), dropped


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
        try:
            return keypoint_sets.resolve(given, None)
        except InputError:  # It needs the file, or is not valid.
            return None
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
      InputError: the files are absent or broken, another store is there, or `out` cannot
        be written.
    """
    if source.name == "prepared":
        raise ConfigError(f"{source.root} is a store already: give the original data.")
    dataset = name or source.name
    existed = store.folder(out, dataset, source.split).exists()
    if not existed:
        writing.check(out)
    table = load(source)
    about = DATASETS[dataset].about if dataset in DATASETS else None
    if dataset == "synthetic":
        about = synthetic.ABOUT
    path = store.prepare(
        table, out, dataset=dataset, split=source.split, about=about, progress=True
    )
    shards = list(path.glob("*.array_record*"))
    size = sum(shard.stat().st_size for shard in shards) / 1e6
    use = {"name": "prepared", "root": str(path.parents[2]), "split": path.parent.name}
    if source.exif != "auto":
        use["exif"] = source.exif
    return (
        f"{table.name}: {len(table.images)} images, {len(table)} people, {size:.1f} MB "
        f"in {len(shards)} shards, fingerprint {table.fingerprint()}: {path}"
        f"{' (it was there)' if existed else ''}\nin a config: {use}"
    )
