"""Reads PyTorch checkpoint files as NumPy arrays, without PyTorch and without running code.

Three formats are detected by content: `.safetensors`; the zip archive that `torch.save`
writes since PyTorch 1.6; and the plain pickles that it wrote before (most published pose
networks). A pickle may call any function of any module. It is read by an unpickler that
imports nothing: objects other than tensors (scores, settings, optimizers) are replaced by
inert placeholders. No file makes it allocate much more memory than the file has bytes.

A checkpoint in several files is read by its index, `*.index.json`. The text of a training
config, which mmpose stores beside the tensors, is returned as text.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from pose_jax.errors import ConfigError, InputError

_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?", "BFloat16Storage": "bfloat16",
}  # fmt: skip

# Keys under which training scripts store the state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PARALLEL = "module."  # Prefix that torch.nn.DataParallel adds to every name.

_MAX_RATIO = 20
"""Maximum ratio of uncompressed and compressed size of a zip archive."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_SAVE = "in PyTorch: torch.save(model.state_dict(), OTHER)."


class _Unusable(Exception):
    """The reason why a file cannot be read, and the fix; `read` adds the file name."""


@dataclasses.dataclass
class Checkpoint:
    """What is read of a checkpoint.

    Attributes:
      tensors: arrays by their PyTorch names.
      files: the files that they come from, the index first if there is one.
      config: text of the config that the network was trained with; "" if there is none.
    """

    tensors: dict[str, np.ndarray]
    files: list[Path]
    config: str = ""


_INDEX = ".index.json"
_PART = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
"""Of a checkpoint in several files, as transformers names them."""
_CONFIGS = ("cfg", "config")
"""Keys of mmpose's "meta" with the text of the config, in 1.x and 0.x."""


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint; see `read_checkpoint`."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint in one file, or in several by their index.

    Wrappers ({"state_dict": ...}, {"model": ...}) are unwrapped; the prefix "module." is
    removed if all names have it.

    Args:
      path: a file in one of the formats above, with any suffix, or an index.

    Returns:
      Arrays in file order (.safetensors: sorted by name); bfloat16 is converted to
      float32.

    Raises:
      InputError: the file is missing, of another format, truncated, damaged, has no state
        dict, or is one of several.
      ConfigError: the file is .safetensors, and the safetensors library is not installed.
    """
    path = Path(path)
    if path.name.endswith(_INDEX):
        return _read_index(path)
    if _PART.search(path.name):
        raise InputError(
            f"{path} is one of several files of a checkpoint: give their index, "
            f"{_PART.sub('', path.name)}{path.suffix}{_INDEX}, in the same folder."
        )
    return _read_file(path)


def _read_index(path: Path) -> Checkpoint:
    """Reads the files that an index names; each tensor is in the file that it says."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        places = {str(name): str(file) for name, file in entries.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f'{path} is no index of a checkpoint: it has no JSON object "weight_map".'
        ) from None
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(
                f"{path}: {_short(name)} is not a file name in the folder of the index."
            )
    files = [path.with_name(name) for name in names]
    parts = {file.name: _read_file(file).tensors for file in files}
    missing = [name for name, file in places.items() if name not in parts[file]]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} tensors are not in the files that it names (first: "
            f"{_short(missing[0])}): download all files of the checkpoint again."
        )
    tensors = {name: parts[file][name] for name, file in places.items()}
    return Checkpoint(tensors, [path, *files])


def _read_file(path: Path) -> Checkpoint:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        tensors, config = _reader(content)(content)
    except _Unusable as error:
        raise InputError(f"{path}: {error}") from None
    if not tensors:
        raise InputError(f"{path} has no tensors: give a checkpoint with a state dict.")
    cut = len(_PARALLEL) if all(name.startswith(_PARALLEL) for name in tensors) else 0
    tensors = {
        name[cut:]: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
        for name, x in tensors.items()
    }
    return Checkpoint(tensors, [path], config)


_Read: TypeAlias = tuple[dict[str, np.ndarray], str]
"""The tensors, and the text of a config or ""."""


def _reader(content: bytes) -> Callable[[bytes], _Read]:
    if content.startswith(b"PK\x03\x04"):
        return _read_zip
    if content[8:9] == b"{":  # Checked first: its length field may look like a pickle.
        return _read_safetensors
    if content.startswith(b"\x80"):
        return _read_pickles
    if not content:
        raise _Unusable("the file is empty; copy or download it again.")
    raise _Unusable(f"neither a .safetensors nor a torch.save file; convert it {_SAVE}")


def _damaged(reason: object) -> _Unusable:
    return _Unusable(
        f"truncated or damaged ({_short(reason)}); copy or download it again."
    )


def _short(text: object) -> str:
    """Returns text from a file as one printable line of bounded length."""
    text = ascii(str(text))[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."


def _read_safetensors(content: bytes) -> _Read:
    try:
        import safetensors
    except ImportError:
        raise ConfigError(
            "reading .safetensors files requires safetensors: pip install safetensors."
        ) from None
    try:
        found = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise _damaged(error) from None
    kinds = {"BOOL": "?", "BF16": "bfloat16"}
    tensors = {}
    for name, entry in sorted(found, key=lambda pair: pair[0]):
        kind = entry["dtype"]
        try:  # "F32" is NumPy's "f4".
            dtype = np.dtype(
                kinds.get(kind) or f"{kind[0].lower()}{int(kind[1:]) // 8}"
            )
        except (TypeError, ValueError):
            raise _Unusable(
                f"{_short(name)} has the unsupported type {kind}; convert the file to "
                "float32."
            ) from None
        tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return tensors, ""


# ------------------------------------------------------------------------------ pickles


class _Other:
    """Placeholder for all classes and functions that tensors do not need. It accepts every
    operation of a pickle and stores nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _ignore(self, *args: Any) -> None:
        pass

    # Python calls __setstate__ instead of setting attributes.
    __setstate__ = __setitem__ = append = extend = add = _ignore


def _check_lengths(file: io.BytesIO) -> None:
    """Raises ValueError if the pickle at the position of a file states a length, or an
    index, that it cannot have: `pickle` allocates memory for them before it reads on."""
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):  # Checks lengths.
        if opcode.name.endswith("PUT") and int(argument or 0) > (position or 0) - start:
            raise ValueError(f"index {argument} at byte {position}")
    file.seek(start)


class _Unpickler(pickle.Unpickler):
    """An unpickler that imports nothing. The pickle sees storages only as keys; their types
    and buffers (which may be filled later) are kept here, where it cannot modify them."""

    def __init__(self, file: io.BytesIO, buffer: Callable[[str, int], Any]) -> None:
        super().__init__(file, encoding="latin1")  # Strings of Python 2.
        self._file = file
        self._buffer = buffer  # Returns the buffer of a key and size.
        self.storages: dict[str, tuple[Any, Any]] = {}
        self.others: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            if name not in _STORAGES:
                raise _Unusable(f"its tensors have the unsupported type {name}.")
            return _STORAGES[name]
        match f"{module}.{name}":
            case "collections.OrderedDict":
                return collections.OrderedDict
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
                return self._tensor
            case "torch._utils._rebuild_parameter":
                return self._parameter
            case other:
                self.others.append(other)
                return _Other

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, _, numel, *view = pid
        if any(view):
            raise ValueError("a storage is a view, a format from before PyTorch 0.4")
        if kind not in _STORAGES.values():
            raise ValueError(f"unknown storage type {kind}")
        if key not in self.storages:
            dtype = np.dtype(kind)
            self.storages[key] = dtype, self._buffer(key, numel * dtype.itemsize)
        return key

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any):
        dtype, buffer = self.storages[storage]
        steps = [step * dtype.itemsize for step in stride]
        # NumPy checks that the view is inside the buffer.
        view = np.ndarray(size, dtype, buffer, offset * dtype.itemsize, steps)
        if view.nbytes > len(buffer):
            raise _Unusable(
                f"a tensor of {view.nbytes} bytes repeats the {len(buffer)} bytes that are "
                "stored; save its .contiguous() in PyTorch."
            )
        return view

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data

    def load(self) -> Any:
        try:
            _check_lengths(self._file)
            return super().load()
        except _Unusable:
            raise
        except Exception as error:  # A pickle is a program and may raise anything.
            raise _damaged(f"{type(error).__name__}: {error}") from None

    def state_dict(self) -> _Read:
        """Returns the unwrapped names and tensors, and the text of a config or ""."""
        saved = self.load()
        config = _config_text(saved)
        for _ in range(3):  # Bounded: a pickle may contain itself.
            for word in _WRAPPERS:
                if isinstance(saved, dict) and isinstance(saved.get(word), dict):
                    saved = saved[word]
                    break
        if not isinstance(saved, dict):
            is_other = isinstance(saved, _Other) and self.others
            what = self.others[0] if is_other else type(saved).__name__
            raise _Unusable(f"it contains a {_short(what)}, not a state dict; {_SAVE}")
        for key, value in saved.items():
            if not isinstance(key, str) or not isinstance(value, np.ndarray):
                raise _Unusable(
                    f"not a state dict: entry {_short(key)} is not a tensor, and there is "
                    f"none of the keys {', '.join(_WRAPPERS)}; {_SAVE}"
                )
        return saved, config


def _config_text(saved: Any) -> str:
    """Returns the text of the config in mmpose's "meta"; "" if there is none."""
    meta = saved.get("meta") if isinstance(saved, dict) else None
    texts = [meta.get(key) for key in _CONFIGS] if isinstance(meta, dict) else []
    return next((text for text in texts if isinstance(text, str)), "")


def _read_zip(content: bytes) -> _Read:
    """Reads a zip archive: NAME/data.pkl, and a member NAME/data/KEY for each storage."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            size = sum(member.file_size for member in archive.infolist())
            if size > _MAX_RATIO * len(content):  # PyTorch does not compress.
                raise ValueError(f"{len(content)} bytes state that they hold {size}")
            main = next((n for n in names if n.split("/")[1:] == ["data.pkl"]), None)
            if main is None:
                raise _Unusable("a zip archive, but not from torch.save: no data.pkl.")
            root = main.removesuffix("data.pkl")
            if f"{root}constants.pkl" in names:
                raise _Unusable(
                    "a TorchScript program; save only its state dict in PyTorch: "
                    "torch.save(torch.jit.load(FILE).state_dict(), OTHER)."
                )

            def buffer(key: str, size: int) -> bytes:
                return archive.read(f"{root}data/{key}")

            return _Unpickler(io.BytesIO(archive.read(main)), buffer).state_dict()
    except _Unusable:
        raise
    except Exception as error:  # Inconsistent archives raise many types.
        raise _damaged(error) from None


def _read_pickles(content: bytes) -> _Read:
    """Reads the legacy format: pickles of a magic number, the version, the machine, the
    object and the keys of its storages; then the storages, each preceded by its length."""
    file, left = io.BytesIO(content), len(content)

    def buffer(key: str, size: int) -> bytearray:
        nonlocal left
        left -= size
        if size < 0 or left < 0:
            raise ValueError(f"the data of storage {key} is missing")
        return bytearray(size)

    if _Unpickler(file, buffer).load() != _LEGACY_MAGIC:
        raise _Unusable(f"a pickle, but not from torch.save; convert it {_SAVE}")
    _Unpickler(file, buffer).load()
    _Unpickler(file, buffer).load()
    main = _Unpickler(file, buffer)
    tensors, config = main.state_dict()
    keys = _Unpickler(file, buffer).load()
    if not isinstance(keys, list) or set(map(str, keys)) != main.storages.keys():
        raise _damaged("its storages do not match its tensors")
    for key in keys:
        dtype, data = main.storages[key]
        numel = (len(data) // dtype.itemsize).to_bytes(8, "little")
        if file.read(8) != numel or file.readinto(data) != len(data):
            raise _damaged(f"storage {key} does not have {len(data)} bytes")
    return tensors, config
