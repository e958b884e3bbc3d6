"""PyTorch checkpoint files as NumPy arrays: without PyTorch, and running nothing of them.

Three formats, told apart by content: `.safetensors`; the zip archive that `torch.save`
writes since PyTorch 1.6; the bare pickles that it wrote before (most published pose
networks). A pickle may call any function of any module. Here it is read by an unpickler
that looks nothing up: what a training script left beside the tensors (scores, settings,
an optimiser) becomes inert stand-ins.
"""

from __future__ import annotations

import collections
import io
import pickle
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

# Under which a training script may keep the state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PARALLEL = "module."  # What torch.nn.DataParallel puts before every name.

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_SAVE = "in PyTorch: torch.save(model.state_dict(), OTHER)."


class _Unusable(Exception):
    """Why a file cannot be read, and what to do; `read` says which file."""


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a checkpoint file.

    Wrappers ({"state_dict": ...}, {"model": ...}) are opened; the prefix "module." is
    taken off if every name has it.

    Args:
      path: of a file of one of the formats above, whatever its suffix.

    Returns:
      Arrays by PyTorch's names, in the file's order (of .safetensors: by name);
      bfloat16 as float32.

    Raises:
      InputError: no such file, another format, truncated or damaged, or without a state
        dict.
      ConfigError: a .safetensors file, without the library that reads it.
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
        raise InputError(f"{path}: there is no tensor in it.")
    cut = len(_PARALLEL) if all(name.startswith(_PARALLEL) for name in tensors) else 0
    return {
        name[cut:]: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
        for name, x in tensors.items()
    }


def _reader(content: bytes) -> Callable[[bytes], dict[str, np.ndarray]]:
    if content.startswith(b"PK\x03\x04"):
        return _read_zip
    if content[8:9] == b"{":  # Its first bytes, a length, may look like a pickle's.
        return _read_safetensors
    if content.startswith(b"\x80"):
        return _read_pickles
    if not content:
        raise _Unusable("the file is empty; copy or download it again.")
    raise _Unusable(
        f"neither a .safetensors file nor one of torch.save; convert it {_SAVE}"
    )


def _damaged(reason: object) -> _Unusable:
    return _Unusable(
        f"truncated or damaged ({_short(reason)}); copy or download it again."
    )


def _short(text: object) -> str:
    """One line of bounded length, whatever a file says."""
    text = ascii(str(text))[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError:
        raise ConfigError(
            "a .safetensors file needs the library safetensors: pip install safetensors."
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
                f"{_short(name)} is of type {kind}, which is not read; convert the file to "
                "float32."
            ) from None
        tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return tensors


# ------------------------------------------------------------------------------ pickles


class _Other:
    """Stands for every class and function that tensors do not need: it can be made,
    called and filled as a pickle likes, and keeps nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _ignore(self, *args: Any) -> None:
        pass

    # Python calls __setstate__ instead of setting attributes.
    __setstate__ = __setitem__ = append = extend = add = _ignore


class _Unpickler(pickle.Unpickler):
    """Looks up nothing, and gives a pickle nothing that it could change: a storage is its
    key there; its type and buffer, which may be filled later, are here."""

    def __init__(self, file: io.BytesIO, buffer: Callable[[str, int], Any]) -> None:
        super().__init__(file, encoding="latin1")  # Strings of Python 2.
        self._buffer = buffer  # By key and size.
        self.storages: dict[str, tuple[Any, Any]] = {}
        self.others: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            if name not in _STORAGES:
                raise _Unusable(f"its tensors are of {name}, which is not read.")
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
            raise ValueError("a storage is a view, as before PyTorch 0.4")
        if kind not in _STORAGES.values():
            raise ValueError(f"a storage of {kind}")
        if key not in self.storages:
            dtype = np.dtype(kind)
            self.storages[key] = dtype, self._buffer(key, numel * dtype.itemsize)
        return key

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any):
        dtype, buffer = self.storages[storage]
        steps = [step * dtype.itemsize for step in stride]
        # It checks that the view lies inside the buffer.
        return np.ndarray(size, dtype, buffer, offset * dtype.itemsize, steps)

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data

    def load(self) -> Any:
        try:
            return super().load()
        except _Unusable:
            raise
        except Exception as error:  # Of many kinds: a pickle is a program.
            raise _damaged(f"{type(error).__name__}: {error}") from None

    def state_dict(self) -> dict[str, np.ndarray]:
        """The names and tensors in what was saved, out of its wrappers."""
        saved = self.load()
        for _ in range(3):  # Not for ever: a pickle may hold itself.
            for word in _WRAPPERS:
                if isinstance(saved, dict) and isinstance(saved.get(word), dict):
                    saved = saved[word]
                    break
        if not isinstance(saved, dict):
            is_other = isinstance(saved, _Other) and self.others
            what = self.others[0] if is_other else type(saved).__name__
            raise _Unusable(f"a {_short(what)}, not a state dict; {_SAVE}")
        for key, value in saved.items():
            if not isinstance(key, str) or not isinstance(value, np.ndarray):
                raise _Unusable(
                    f"not a state dict: its entry {_short(key)} is no tensor, and none of "
                    f"{', '.join(_WRAPPERS)} is in it; {_SAVE}"
                )
        return saved


def _read_zip(content: bytes) -> dict[str, np.ndarray]:
    """NAME/data.pkl, and a member NAME/data/KEY for each storage."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            main = next((n for n in names if n.split("/")[1:] == ["data.pkl"]), None)
            if main is None:
                raise _Unusable("a zip archive, but not of torch.save: no data.pkl.")
            root = main.removesuffix("data.pkl")
            if f"{root}constants.pkl" in names:
                raise _Unusable(
                    "a TorchScript program; save its state dict alone in PyTorch: "
                    "torch.save(torch.jit.load(FILE).state_dict(), OTHER)."
                )

            def buffer(key: str, size: int) -> bytes:
                return archive.read(f"{root}data/{key}")

            return _Unpickler(io.BytesIO(archive.read(main)), buffer).state_dict()
    except _Unusable:
        raise
    except Exception as error:  # Of many kinds, where an archive contradicts itself.
        raise _damaged(error) from None


def _read_pickles(content: bytes) -> dict[str, np.ndarray]:
    """Pickles: a magic number, the version, the machine, the object, the keys of its
    storages. Then the storages, each after its number of elements."""
    file = io.BytesIO(content)

    def buffer(key: str, size: int) -> bytearray:
        if size > len(content):
            raise ValueError(f"the data of storage {key} are missing")
        return bytearray(size)

    if _Unpickler(file, buffer).load() != _LEGACY_MAGIC:
        raise _Unusable(f"a pickle, but not of torch.save; convert it {_SAVE}")
    _Unpickler(file, buffer).load()
    _Unpickler(file, buffer).load()
    main = _Unpickler(file, buffer)
    tensors = main.state_dict()
    keys = _Unpickler(file, buffer).load()
    if not isinstance(keys, list) or set(map(str, keys)) != main.storages.keys():
        raise _damaged("its storages are not those of its tensors")
    for key in keys:
        dtype, data = main.storages[key]
        numel = (len(data) // dtype.itemsize).to_bytes(8, "little")
        if file.read(8) != numel or file.readinto(data) != len(data):
            raise _damaged(f"storage {key} is not of {len(data)} bytes")
    return tensors
