"""The packed store: a Table and its encoded images, as a TensorFlow Datasets data set.

`prepare` writes OUT/<data set>/<split>/<version>/: shards of ArrayRecord (random access;
a checksum for every chunk) and the metadata of TFDS. A record is one image: the bytes of
its file, its id and size, and the Table's values of its people (`row` is the row of the
Table). The columns of the Table are also stored in columns.npz, so that opening a store
does not read every image. Columns, order and fingerprint are those of the packed folder,
bit for bit.

Neither writing nor reading imports TensorFlow or opens a connection, and
tensorflow_datasets is imported inside functions only. `data.tfds` reads other TFDS data
sets.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import itertools
import json
import math
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing
from pose_jax.data import coco
from pose_jax.data.check.kinds import KINDS
from pose_jax.data.table import ImageRef, Record, Table
from pose_jax.errors import ConfigError, InputError, one_line
from pose_jax.keypoints import KeypointSet

VERSION = "1.0.0"
"""Version of the format; the first number changes when older stores become unreadable."""

SHARD_BYTES = 256 << 20
"""Approximate size of a shard."""

_OF_IMAGES = ("image_ids", "image_sizes", "image")  # All other columns are of people.


def prepare(
    table: Table,
    out: Path | str,
    *,
    dataset: str,
    split: str,
    about: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Path:
    """Writes a Table to OUT/dataset/split/VERSION, completely or not at all.

    An existing store is kept if it is complete and holds the same table.

    Args:
      table: its images are files, or records of another store.
      out: the folder of all stores.
      dataset: name of the data set in the store.
      split: name of the split.
      about: description of the data set, as in `DataSet.about`, kept in the store.
      progress: whether to show a bar on stderr.

    Returns:
      The folder of the store.

    Raises:
      InputError: an image cannot be read; a different or damaged store exists.
      ConfigError: a name that TFDS does not accept; TFDS is not installed.
    """
    import tqdm

    if not re.fullmatch(r"[A-Za-z]\w*/\w[\w-]*", f"{dataset}/{split}"):
        raise ConfigError(
            f"A store cannot hold split {split!r} of {dataset!r}: names are letters, "
            'digits and "_", a letter first (splits may have "-" and a digit first).'
        )
    path = folder(out, dataset, split)
    if path.exists():
        there = read(path).fingerprint()
        if there != table.fingerprint():
            raise InputError(
                f"{path} holds other data (fingerprint {there}, not "
                f"{table.fingerprint()}). Delete it, or give another folder."
            )
        return path
    if not table.images or any(isinstance(i, np.ndarray) for i in table.images):
        raise InputError(f"{table.name}: only images in files can be packed.")
    if table.truth is not None:
        raise InputError(
            f"{table.name}: pack the annotated people, and pass `detections` to the "
            "reader of the store instead."
        )
    config = import_tfds().download.DownloadConfig(try_download_gcs=False)
    bar = tqdm.tqdm(
        desc=table.name,
        total=len(table.images),
        unit=" images",
        disable=not progress,
        mininterval=1 if sys.stderr.isatty() else 60,  # A log keeps every line.
    )
    try:
        # TFDS prints about downloads.
        with writing.naming(path), bar, contextlib.redirect_stdout(io.StringIO()):
            builder = _builder(table, Path(out), dataset, split, about, bar)
            options = {"download_config": config, "file_format": "array_record"}
            builder.download_and_prepare(**options)
    except OSError as error:
        raise InputError(
            f"{error.filename or path}: {error.strerror or one_line(error, 200)}. Nothing "
            f"was written to {path}; fix that and run the same command again."
        ) from None
    return path


def folder(out: Path | str, dataset: str, split: str) -> Path:
    """Returns the folder to which `prepare` writes a split."""
    return Path(out) / dataset / split / VERSION


def _builder(
    table: Table, out: Path, dataset: str, split: str, about: Any, bar: Any
) -> Any:
    """Returns the TFDS builder of a Table."""
    tfds = import_tfds()
    columns: dict[str, Any] = {
        k: v for k, v in vars(table).items() if isinstance(v, np.ndarray)
    }
    metadata = {
        "pose_jax": VERSION,
        "split": split,
        "fingerprint": table.fingerprint(),
        "table": {
            k: v
            for k, v in vars(table).items()
            if isinstance(v, str | int) and k != "on_error"
        },
        "notes": table.notes,
        "keypoints": table.keypoints.to_json(),
    }
    people = {name: c for name, c in columns.items() if name not in _OF_IMAGES}
    people["row"] = np.arange(len(table))

    def feature(column: np.ndarray) -> Any:
        # Encoded as numbers, TFDS would keep only 32 bits of a float.
        encoding = "bytes" if column.dtype.kind == "f" else "none"
        return tfds.features.Tensor(
            shape=(None, *column.shape[1:]), dtype=column.dtype, encoding=encoding
        )

    class Metadata(tfds.core.MetadataDict):
        def save_metadata(self, data_dir: Any) -> None:
            super().save_metadata(data_dir)
            np.savez(Path(data_dir) / "columns.npz", **columns)

    # Shard by shard: GeneratorBasedBuilder would load all images into memory to sort.
    # (The base is unknown to pyright, so it checks the keyword against `object`.)
    class Builder(  # pyright: ignore[reportGeneralTypeIssues]
        tfds.core.ShardBasedBuilder,
        skip_registration=True,  # pyright: ignore[reportCallIssue]
    ):
        name = dataset
        url_infos = None  # Otherwise TFDS looks for a list of downloads here.
        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = [  # noqa: RUF012
            tfds.core.BuilderConfig(name=split, description=table.name)
        ]

        def _info(self) -> Any:
            features = {
                # Any pixel mode: the bytes are kept as they are.
                "image": tfds.features.Image(),
                "image/id": tfds.features.Scalar(np.int64),
                "image/size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
                "people": {name: feature(column) for name, column in people.items()},
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                metadata=Metadata(metadata),
                disable_shuffling=True,
                **(about or {"description": f"{table.name}, by pose_jax."}),
            )

        def _shard_iterators_per_split(self, dl_manager: Any) -> Any:
            del dl_manager
            count = len(table.images)
            # A thousand images suffice for the mean size.
            some: tuple[Any, ...] = table.images[:: -(-count // 1000)]
            sizes = [
                i.stat().st_size if isinstance(i, Path) else len(i.read()) for i in some
            ]
            shards = min(math.ceil(count * np.mean(sizes) / SHARD_BYTES), count)
            bounds = [count * i // shards for i in range(shards + 1)]
            return {
                # In TFDS, "all" means the sum of all splits.
                "everything" if split == "all" else split: [
                    functools.partial(_examples, table, people, first, last, bar)
                    for first, last in itertools.pairwise(bounds)
                ]
            }

    return Builder(data_dir=out)


def _examples(
    table: Table, people: dict[str, np.ndarray], first: int, last: int, bar: Any
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the images of one shard. TFDS reads the bytes of files or records later.

    Raises:
      InputError: what should be an image is none, or is damaged.
    """
    for i in range(first, last):
        _verify(table.images[i])
        rows = table.people_of_image(i)
        example = {
            "image": table.images[i],
            "image/id": int(table.image_ids[i]),
            "image/size": table.image_sizes[i].astype(np.int32),
            "people": {name: column[rows] for name, column in people.items()},
        }
        yield i, example
        bar.update()


def _verify(image: ImageRef) -> None:
    from pose_jax.data.check.images import look_at  # Imports Pillow.

    assert not isinstance(image, np.ndarray)  # These are those of `predict`.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, for large images and broken EXIF.
        for kind, detail in look_at((image, "", None), full=False):
            severity, reason, remedy = KINDS[kind]
            if severity == "error":
                more = detail and f" ({one_line(detail, 200)})"
                raise InputError(f"{image}: {reason}{more}: {remedy}.")


def load(
    root: str | Path, split: str, *, detections: str | Path | None = None
) -> Table:
    """Reads one split of a store.

    Args:
      root: the folder `out` of `prepare`, or the folder of one data set in it, or that of
        one store.
      split: name of the split.
      detections: boxes that replace the annotated people, as in `coco.load`.

    Raises:
      InputError: there is no such store, or it is damaged or of another version.
      ConfigError: TFDS or ArrayRecord is not installed.
    """
    table = read(_find(Path(root), split), split)
    if detections is None:
        return table
    return coco.with_detections(table, Path(detections))


def _find(root: Path, split: str) -> Path:
    """Returns the folder of the only store of a split under `root`."""
    if (root / "dataset_info.json").is_file():
        return root
    stores = [
        file.parent
        for folders in ("*/*", "*/*/*")
        for file in sorted(root.glob(f"{folders}/dataset_info.json"))
        if "incomplete" not in file.parent.name
    ]
    found = [path for path in stores if path.parent.name == split]
    found = [path for path in found if path.name == VERSION] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{root} holds split {split!r} {len(found)} times "
            f"({', '.join(map(str, found))}): give one of these folders as root."
        )
    there = ", ".join(repr(path.parent.name) for path in stores)
    raise InputError(
        f"{root} holds no store of split {split!r} but {there or 'none at all'}. "
        "`pose-jax data prepare` writes one."
    )


def read(path: Path, split: str | None = None) -> Table:
    """Reads a store written by `prepare`; images are read on demand.

    Raises:
      InputError: it is damaged, of another version, or of another split than `split`.
    """
    try:
        metadata = json.loads((path / "metadata.json").read_bytes())
        version = metadata["pose_jax"]
        if version.split(".")[0] != VERSION.split(".")[0]:
            raise InputError(
                f"{path} is a store of version {version}, this pose_jax reads {VERSION}: "
                "prepare it again."
            )
        with np.load(path / "columns.npz") as file:
            columns = dict(file)
        if split not in (None, metadata["split"]):
            held = metadata["split"]
            raise InputError(f"{path} holds split {held!r}, not {split!r}.")
        builder = open_builder(path)
        (info,) = builder.info.splits.values()
        missing = [file.name for file in info.filepaths if not file.exists()]
        size = 0 if missing else sum(file.stat().length for file in info.filepaths)
        store = Store(builder, info.name)
        table = Table(
            keypoints=KeypointSet.from_json(metadata["keypoints"]),
            images=tuple(Record(store, i) for i in range(info.num_examples)),
            notes=tuple(metadata.get("notes", ())),
            **metadata["table"],
            **columns,
        )
        fingerprint = table.fingerprint()
    except InputError:
        raise
    except Exception as error:  # zip, json, protobuf, TFDS: no common class.
        raise damaged(path, f"{type(error).__name__}: {one_line(error, 200)}") from None
    if missing:
        raise damaged(path, f"{', '.join(missing[:3])} is missing")
    if size != info.num_bytes:
        raise damaged(path, f"its shards have {size} bytes, not {info.num_bytes}")
    if fingerprint != metadata["fingerprint"]:
        raise damaged(path, "columns.npz is not what was written")
    return table


class Store:
    """The records of one split, opened at the first read; thread-safe."""

    def __init__(self, builder: Any, split: str):
        tfds = import_tfds()
        self._folder = builder.data_dir
        self._all = builder.info.features
        # Decoding a whole record takes several times as long as its image.
        self._image = tfds.features.FeaturesDict({"image": self._all["image"]})
        self._decoders = {"image": tfds.decode.SkipDecoding()}
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._open = lambda: builder.as_data_source(split, deserialize_method=raw)
        self._opened: Any = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self._folder}"

    def __len__(self) -> int:
        return len(self._source())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a record with its encoded image."""
        return self._record(index, self._all)

    def read(self, index: int) -> bytes:
        """Returns the encoded image of a record."""
        return self._record(index, self._image)["image"]

    def _record(self, index: int, features: Any) -> dict[str, Any]:
        try:
            record = self._source()[index]
            return features.deserialize_example_np(record, decoders=self._decoders)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # ArrayRecord and protobuf: no common class.
            raise damaged(self, f"record {index}: {one_line(error, 200)}") from None

    def _source(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened


def open_builder(path: Path) -> Any:
    """Returns TFDS's builder of a folder, which imports no module but TFDS's own.

    The metadata of a TFDS data set name classes, which TFDS imports from anywhere, the
    working directory included.

    Raises:
      InputError: the metadata name a class of another package.
      Exception: as of `tfds.builder_from_directory`.
    """
    tfds = import_tfds()
    for name in _class_names(json.loads((path / "features.json").read_bytes())):
        if not str(name).startswith("tensorflow_datasets."):
            raise InputError(
                f"{path / 'features.json'} names {ascii(name)[:80]}, a class of another "
                "package, which would be imported. Use the features of TFDS only."
            )
    return tfds.builder_from_directory(path)


def _class_names(value: Any) -> Iterator[Any]:
    """Yields all that a features.json names as classes, in either of its forms."""
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)
    elif isinstance(value, dict):
        # "type" may also be the name of a feature.
        names = ["pythonClassName", "python_class_name", "proto_cls"]
        names += ["type"] if "content" in value else []
        for key, item in value.items():
            if key in names and not isinstance(item, dict):
                yield item
            yield from _class_names(item)


def damaged(path: Any, what: str) -> InputError:
    """Returns the error for a store that differs from what was written."""
    return InputError(
        f"{path} is damaged: {what}. Delete it and prepare it again, or copy it again."
    )


def import_tfds() -> Any:
    """Imports tensorflow_datasets, or raises a ConfigError that says what to install."""
    for name in ("tensorflow_datasets", "array_record"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"A packed store needs {name}, which is not installed: install pose_jax "
                "with its [data] extra (array_record exists for Linux only)."
            )
    import tensorflow_datasets as tfds

    return tfds
