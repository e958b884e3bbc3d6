"""Reads PyTorch checkpoint files as NumPy arrays, without PyTorch and without running code.

Three formats are detected by content: `.safetensors`; the zip archive that `torch.save`
writes since PyTorch 1.6; and the plain pickles that it wrote before (most published pose
networks). A pickle may call any function of any module. It is read by an unpickler that
imports nothing: objects other than tensors (scores, settings, optimizers) are replaced by
inert placeholders. No file makes it allocate much more memory than the file has bytes.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a checkpoint file.

    Wrappers ({"state_dict": ...}, {"model": ...}) are unwrapped; the prefix "module." is
    removed if all names have it.

    Args:
      path: a file in one of the formats above, with any suffix.

    Returns:
      Arrays by their PyTorch names, in file order (.safetensors: sorted by name);
      bfloat16 is converted to float32.

    Raises:
      InputError: the file is missing, of another format, truncated, damaged, or has no
        state dict.
      ConfigError: the file is .safetensors, and the safetensors library is not installed.
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
    if not tensors:
        raise InputError(f"{path} has no tensors: give a checkpoint with a state dict.")
    cut = len(_PARALLEL) if all(name.startswith(_PARALLEL) for name in tensors) else 0
    return {
        name[cut:]: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
        for name, x in tensors.items()
    }


def _reader(content: bytes) -> Callable[[bytes], dict[str, np.ndarray]]:
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


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
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
    return tensors


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

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns the unwrapped names and tensors."""
        saved = self.load()
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
        return saved


def _read_zip(content: bytes) -> dict[str, np.ndarray]:
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


def _read_pickles(content: bytes) -> dict[str, np.ndarray]:
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
    tensors = main.state_dict()
    keys = _Unpickler(file, buffer).load()
    if not isinstance(keys, list) or set(map(str, keys)) != main.storages.keys():
        raise _damaged("its storages do not match its tensors")
    for key in keys:
        dtype, data = main.storages[key]
        numel = (len(data) // dtype.itemsize).to_bytes(8, "little")
        if file.read(8) != numel or file.readinto(data) != len(data):
            raise _damaged(f"storage {key} does not have {len(data)} bytes")
    return tensors
