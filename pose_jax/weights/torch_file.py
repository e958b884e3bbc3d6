"""PyTorch checkpoint files as NumPy arrays: without PyTorch, and running nothing of them.

Three formats, told apart by content: `.safetensors`; the zip archive that `torch.save`
writes since PyTorch 1.6; the bare pickles that it wrote before (most published pose
networks). A pickle may call any function of any module. Here it is read by an unpickler
that knows only the few names that tensors need, each as an inert stand-in of this module,
and refuses every other by name before anything is looked up.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax.errors import InputError

# What a file may call its elements; a bfloat16 is the upper half of a float32.
_BFLOAT16 = "bfloat16"
_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": _BFLOAT16,
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": _BFLOAT16, "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}  # fmt: skip

# Under which a training script may keep the state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PARALLEL = "module."  # What torch.nn.DataParallel puts before every name.

_MAX_AXES = 32  # NumPy has 64.
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001


class _Unusable(Exception):
    """Why a file cannot be read, and what to do; `read` says which file."""


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a checkpoint file.

    Wrappers ({"state_dict": ...}, {"model": ...}) are opened; the prefix "module." is
    taken off if every name has it.

    Args:
      path: of a file of one of the formats above, whatever its suffix.

    Returns:
      Read-only arrays by PyTorch's names, in the file's order; bfloat16 as float32.

    Raises:
      InputError: no such file, another format, truncated or damaged, without a state
        dict, or a pickle that asks for more than tensors.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        tensors = _reader(content)(content)
    except _Unusable as error:
        raise InputError(f"{path}: {error}") from None
    if all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name[len(_PARALLEL) :]: tensors[name] for name in tensors}
    return tensors


def _reader(content: bytes) -> Callable[[bytes], dict[str, np.ndarray]]:
    if content.startswith(b"PK\x03\x04"):
        return _read_zip
    if content[8:9] == b"{":  # Its first bytes, a length, may look like a pickle's.
        return _read_safetensors
    if content.startswith(b"\x80"):
        return _read_pickles
    if not content:
        raise _Unusable("the file is empty; copy or download it again.")
    if content[257:262] == b"ustar":
        raise _Unusable(
            "a tar archive, as PyTorch before 0.1.10 wrote; save it again with a newer "
            "one: torch.save(torch.load(FILE), OTHER)."
        )
    raise _Unusable(
        "neither a .safetensors file nor one of torch.save; convert it in PyTorch: "
        "torch.save(model.state_dict(), FILE)."
    )


def _damaged(reason: str) -> _Unusable:
    return _Unusable(
        f"truncated or damaged ({_short(reason)}); copy or download it again."
    )


def _short(text: Any) -> str:
    """One line of bounded length, whatever a file says."""
    text = ascii(text)[1:-1] if isinstance(text, str) else ascii(text)
    return text if len(text) <= 80 else text[:77] + "..."


def _elements(kind: str, raw: bytes | memoryview, order: str = "<") -> np.ndarray:
    """All elements of a storage, 1-D; `raw` has the right length."""
    if kind == _BFLOAT16:
        upper = np.frombuffer(raw, order + "u2").astype(np.uint32)
        return (upper << 16).view(np.float32)
    return np.frombuffer(raw, order + np.dtype(kind).str[1:])


def _size_of(kind: str) -> int:
    return 2 if kind == _BFLOAT16 else np.dtype(kind).itemsize


# -------------------------------------------------------------------------- safetensors


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """The length of the header, the header (json), the data without a gap."""
    start = 8 + int.from_bytes(content[:8], "little")
    if start > len(content):
        raise _damaged(f"its header ends at byte {start} of {len(content)}")
    try:
        header = json.loads(content[8:start], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"header: {error}") from None
    header.pop("__metadata__", None)
    data = memoryview(content)[start:]
    tensors, ranges = {}, []
    for name, entry in header.items():
        try:
            kind, shape = entry["dtype"], entry["shape"]
            begin, end = entry["data_offsets"]
            numbers = [begin, end, *shape]
        except (TypeError, KeyError, ValueError):
            raise _damaged(f"header of {name}: {entry}") from None
        if type(kind) is not str or kind not in _SAFETENSORS:
            raise _Unusable(
                f"{_short(name)} is of type {_short(kind)}, which is not read; convert "
                "the file to float32."
            )
        kind = _SAFETENSORS[kind]
        sound = all(type(number) is int and number >= 0 for number in numbers)
        sound = sound and len(shape) <= _MAX_AXES
        if not sound or end - begin != math.prod(shape) * _size_of(kind):
            raise _damaged(f"header of {name}: {entry}")
        if end > len(data):
            raise _damaged(f"{name} ends at byte {end} of {len(data)} of data")
        ranges.append((begin, end))
        tensors[name] = _elements(kind, data[begin:end]).reshape(shape)
    covered = 0
    for begin, end in sorted(ranges):
        if begin != covered:
            raise _damaged(f"its tensors overlap or leave a gap at byte {covered}")
        covered = end
    if covered != len(data):
        raise _damaged(f"{len(data) - covered} bytes belong to no tensor")
    if not tensors:
        raise _Unusable("there is no tensor in it.")
    return tensors


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


# ------------------------------------------------------------------------------ pickles


class _Inert:
    """A stand-in. Its __setstate__ keeps a pickle from setting attributes, also on the
    class itself: Python calls it instead."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Ignored(_Inert):
    """A number of NumPy's beside the weights, such as a score: not looked at."""

    def __init__(self, *args: Any) -> None:
        pass


class _Dict(_Inert, dict):
    """collections.OrderedDict."""


class _Storage(_Inert):
    """Where elements are, by key; the elements themselves come later."""

    def __init__(self, kind: str, key: str, numel: int) -> None:
        if kind not in _STORAGES.values() or type(key) is not str:
            raise ValueError("a storage of no known type")
        if type(numel) is not int or numel < 0:
            raise ValueError(f"a storage of {numel} elements")
        self.kind, self.key, self.numel = kind, key, numel

    @property
    def nbytes(self) -> int:
        return self.numel * _size_of(self.kind)


class _Tensor(_Inert):
    """torch._utils._rebuild_tensor_v2: a view of a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    # In __new__, because a pickle can leave __init__ out.
    def __new__(
        cls, storage: Any, offset: Any, size: Any, stride: Any, *ignored: Any
    ) -> _Tensor:
        if type(storage) is not _Storage:
            raise ValueError("a tensor without storage")
        view = f"a view of size {size}, stride {stride}"
        if type(size) is not tuple or type(stride) is not tuple:
            raise ValueError(view)
        numbers = (offset, *size, *stride)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(view)
        if len(size) != len(stride) or len(size) > _MAX_AXES:
            raise ValueError(view)
        steps = zip(size, stride, strict=True)
        last = offset + sum((length - 1) * step for length, step in steps)
        count = math.prod(size)
        if count and max(last + 1, count) > storage.numel:
            raise ValueError(f"{view} of {storage.numel} elements")
        self = super().__new__(cls)
        self.storage, self.offset, self.size, self.stride = (
            storage,
            offset,
            size,
            stride,
        )
        return self

    def array(self, elements: np.ndarray) -> np.ndarray:
        """The view, of its storage's elements."""
        if math.prod(self.size) == 0:
            return np.zeros(self.size, elements.dtype)
        return np.lib.stride_tricks.as_strided(
            elements[self.offset :],
            self.size,
            [step * elements.itemsize for step in self.stride],
            writeable=False,
        )


class _Parameter(_Inert):
    """torch._utils._rebuild_parameter: its tensor."""

    def __new__(cls, data: Any, *ignored: Any) -> Any:
        return data


# All that a pickle may name. The storages' kinds are strings, which cannot be called.
_GLOBALS: Mapping[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _Tensor,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_parameter": _Parameter,
    **{f"torch.{name}": kind for name, kind in _STORAGES.items()},
    # How a NumPy number is pickled: a training script's best score so far.
    "numpy.core.multiarray.scalar": _Ignored,
    "numpy._core.multiarray.scalar": _Ignored,
    "numpy.dtype": _Ignored,
    "_codecs.encode": _Ignored,
}


class _Unpickler(pickle.Unpickler):
    """Knows `_GLOBALS`; everything else ends it. Notes the storages it meets, by key."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = _GLOBALS.get(f"{module}.{name}")
        if known is None:
            raise _Unusable(
                f"its pickle names {_short(f'{module}.{name}')}, which no tensor needs: "
                "refused, nothing of it was run. If you trust the file, save its state "
                "dict alone in PyTorch: torch.save(model.state_dict(), OTHER)."
            )
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        word, kind, key, _, numel, *view = pid
        if word != "storage":
            raise ValueError(f"a persistent {word}")
        if view and view[0] is not None:
            raise _Unusable(
                "its storages are views of others, as PyTorch before 0.4 wrote; save it "
                "again with a newer one: torch.save(torch.load(FILE), OTHER)."
            )
        found = _Storage(kind, key, numel)
        known = self.storages.setdefault(key, found)
        if (known.kind, known.numel) != (kind, numel):
            raise ValueError(f"storage {key} is of two kinds")
        return known


def _unpickle(file: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    """The next pickle of a file, and its storages."""
    unpickler = _Unpickler(file)
    try:
        return unpickler.load(), unpickler.storages
    except _Unusable:
        raise
    except Exception as error:  # Of many kinds: a pickle is a program.
        raise _damaged(f"{type(error).__name__}: {error}") from None


def _state_dict(saved: Any) -> dict[str, _Tensor]:
    """The names and tensors in what was saved, out of its wrappers."""
    for _ in range(3):  # Not for ever: a pickle may hold itself.
        for word in _WRAPPERS:
            if isinstance(saved, dict) and isinstance(saved.get(word), dict):
                saved = saved[word]
                break
    if not isinstance(saved, dict):
        raise _Unusable(
            f"a {type(saved).__name__.lstrip('_').lower()}, not a state dict; in PyTorch: "
            "torch.save(model.state_dict(), OTHER)."
        )
    other = [key for key, value in saved.items() if type(value) is not _Tensor]
    other += [key for key in saved if type(key) is not str]
    if other:
        raise _Unusable(
            f"not a state dict: its entry {_short(other[0])} is no tensor, and none of "
            f"{', '.join(_WRAPPERS)} is in it; in PyTorch: "
            "torch.save(model.state_dict(), OTHER)."
        )
    if not saved:
        raise _Unusable("there is no tensor in it.")
    return dict(saved)


# What zipfile lets through of an archive whose parts contradict each other.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
)


def _read_zip(content: bytes) -> dict[str, np.ndarray]:
    """NAME/data.pkl, and a member NAME/data/KEY for each storage."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_archive(archive)
    except _ZIP_ERRORS as error:
        raise _damaged(str(error)) from None


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise _Unusable("a compressed zip archive, which torch.save does not write.")
    names = set(archive.namelist())
    pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise _Unusable("a zip archive, but not of torch.save: it has no data.pkl.")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise _Unusable(
            "a TorchScript program; save its state dict alone in PyTorch: "
            "torch.save(torch.jit.load(FILE).state_dict(), OTHER)."
        )
    big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
    saved, _ = _unpickle(io.BytesIO(archive.read(pickles[0])))
    elements: dict[str, np.ndarray] = {}
    tensors = {}
    for name, tensor in _state_dict(saved).items():
        storage, member = tensor.storage, f"{root}data/{tensor.storage.key}"
        if storage.key not in elements:
            if member not in names:
                raise _damaged(f"the data of {name} are missing")
            if archive.getinfo(member).file_size != storage.nbytes:
                raise _damaged(f"the data of {name} are not {storage.nbytes} bytes")
            raw = archive.read(member)
            elements[storage.key] = _elements(storage.kind, raw, ">" if big else "<")
        tensors[name] = tensor.array(elements[storage.key])
    return tensors


def _read_pickles(content: bytes) -> dict[str, np.ndarray]:
    """Pickles: a magic number, the version, the machine, the object, the keys of its
    storages. Then the storages, each after its number of elements."""
    file = io.BytesIO(content)
    if _unpickle(file)[0] != _LEGACY_MAGIC:
        raise _Unusable(
            "a pickle, but not of torch.save; convert it in PyTorch: "
            "torch.save(model.state_dict(), FILE)."
        )
    if (version := _unpickle(file)[0]) != _LEGACY_VERSION:
        raise _Unusable(
            f"of version {_short(version)} of torch.save's format, which is not read; "
            "save it again: torch.save(torch.load(FILE), OTHER)."
        )
    machine, _ = _unpickle(file)
    saved, storages = _unpickle(file)
    keys, _ = _unpickle(file)
    if not isinstance(machine, dict) or not isinstance(keys, list):
        raise _damaged("its parts are not what they should be")
    order = "<" if machine.get("little_endian", True) else ">"
    elements, position = {}, file.tell()
    for key in keys:
        if type(key) is not str or key not in storages:
            raise _damaged(f"data of an unknown storage {key}")
        storage = storages[key]
        start, position = position + 8, position + 8 + storage.nbytes
        if position > len(content):
            raise _damaged(f"storage {key} ends at byte {position} of {len(content)}")
        if int.from_bytes(content[start - 8 : start], "little") != storage.numel:
            raise _damaged(f"storage {key} has not {storage.numel} elements")
        raw = memoryview(content)[start:position]
        elements[key] = _elements(storage.kind, raw, order)
    tensors = {}
    for name, tensor in _state_dict(saved).items():
        if tensor.storage.key not in elements:
            raise _damaged(f"the data of {name} are missing")
        tensors[name] = tensor.array(elements[tensor.storage.key])
    return tensors
