"""Writes the checkpoint files of PyTorch without it, for tests: also ones it never would.

Pickles are written opcode by opcode (protocol 2), so that they can name and call anything.
"""

import dataclasses
import struct
import zipfile
from typing import Any

import numpy as np
import safetensors.numpy

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": VERSION, "little_endian": True}


@dataclasses.dataclass
class Global:
    """A function or class by name."""

    module: str
    name: str


@dataclasses.dataclass
class Call:
    """What a function returns, with a state set on it if there is one."""

    function: Any
    args: tuple
    state: Any = None


@dataclasses.dataclass
class Persistent:
    """What the reader keeps under an id."""

    id: Any


@dataclasses.dataclass
class Raw:
    """Opcodes."""

    code: bytes


ORDERED_DICT = Global("collections", "OrderedDict")
REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    def all_of(values):
        return b"".join(map(_opcodes, values))

    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            number = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(number)]) + number
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + all_of(value) + b"t"
        case list():
            return b"](" + all_of(value) + b"e"
        case dict():
            return b"}(" + all_of(x for item in value.items() for x in item) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, args, state):
            code = _opcodes(function) + _opcodes(args) + b"R"
            return code if state is None else code + _opcodes(state) + b"b"
        case Persistent(id):
            return _opcodes(id) + b"Q"
        case Raw(code):
            return code
    raise TypeError(type(value))


def storage(kind: str, key: str, numel: int, *view: Any) -> Persistent:
    """`view` is (None,) in the old format."""
    return Persistent(("storage", Global("torch", kind), key, "cuda:0", numel, *view))


def rebuilt(stored: Any, offset: Any, size: Any, stride: Any) -> Call:
    """A tensor, as PyTorch pickles it."""
    hooks = Call(ORDERED_DICT, ())
    return Call(REBUILD, (stored, offset, size, stride, False, hooks))


def tensors(arrays: dict[str, np.ndarray], *view: Any) -> tuple[dict, dict[str, bytes]]:
    """A state dict to pickle, and its storages by key."""
    kinds = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long"}
    state_dict, storages = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        key, kind = str(94000 + number), kinds[array.dtype.str[1:]] + "Storage"
        stride = tuple(step // array.itemsize for step in np.empty_like(array).strides)
        stored = storage(kind, key, array.size, *view)
        state_dict[name] = rebuilt(stored, 0, array.shape, stride)
        storages[key] = array.tobytes()
    return state_dict, storages


def write_zip(path, saved, storages, **members: bytes) -> None:
    """The format since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled(saved))
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)
        archive.writestr("model/version", b"3\n")
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)


def write_legacy(path, saved, storages, itemsizes=None) -> None:
    """The format before; storages of float32 unless `itemsizes` says otherwise."""
    parts = [pickled(x) for x in (MAGIC, VERSION, MACHINE, saved, list(storages))]
    for key, data in storages.items():
        size = (itemsizes or {}).get(key, 4)
        parts += [struct.pack("<q", len(data) // size), data]
    path.write_bytes(b"".join(parts))


def write(path, arrays: dict[str, np.ndarray], kind: str, wrap=lambda saved: saved):
    """Any of the formats: "safetensors", "zip" or "legacy"; `wrap` is for pickles."""
    if kind == "safetensors":
        safetensors.numpy.save_file(arrays, path)
    elif kind == "zip":
        saved, storages = tensors(arrays)
        write_zip(path, wrap(saved), storages)
    else:
        saved, storages = tensors(arrays, None)
        arrays_by_key = zip(storages, arrays.values(), strict=True)
        sizes = {key: array.itemsize for key, array in arrays_by_key}
        write_legacy(path, wrap(saved), storages, sizes)
