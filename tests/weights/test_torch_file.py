"""Checkpoint files: all formats give the same arrays, and none can run anything."""

import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from pose_jax.errors import InputError
from pose_jax.weights import torch_file
from tests.weights import torch_writer
from tests.weights.torch_writer import Call, Global, Raw, rebuilt, storage

FORMATS = ("safetensors", "zip", "legacy")
ARRAYS = {
    "conv1.weight": np.arange(24, dtype="<f4").reshape(2, 3, 2, 2) - 7.25,
    "bn1.running_var": np.array([1e-30, 2.5], "<f8"),
    "bn1.num_batches_tracked": np.array(12345678901, "<i8"),
    "half": np.array([[0.5, -65504]], "<f2"),
    "empty": np.zeros((0, 3), "<f4"),
}


def _error(path, *, capture=None):
    with pytest.raises(InputError) as caught:
        torch_file.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}") and "\n" not in message, message
    assert len(message) < len(str(path)) + 400
    return message


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array)


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_arrays(kind, tmp_path):
    torch_writer.write(tmp_path / "any.name", ARRAYS, kind)
    _assert_same(torch_file.read(tmp_path / "any.name"), ARRAYS)


def test_bfloat16_is_read_exactly(tmp_path):
    values = np.array([1, -2.5, 3.140625, 2.0**127, 0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    entry = {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}
    torch_writer.write_header(tmp_path / "a", {"x": entry}, halves)
    saved = {"x": rebuilt(storage("BFloat16Storage", "0", 5), 0, (5,), (1,))}
    torch_writer.write_zip(tmp_path / "b", saved, {"0": halves})
    for name in "ab":
        _assert_same(torch_file.read(tmp_path / name), {"x": values})


def test_views_of_one_storage_are_taken_by_offset_and_stride(tmp_path):
    stored = storage("FloatStorage", "7", 6)
    saved = {
        "transposed": rebuilt(stored, 0, (3, 2), (1, 3)),
        "row": rebuilt(stored, 3, (3,), (1,)),
        "last": rebuilt(stored, 5, (), ()),
    }
    data = np.arange(6, dtype="<f4")
    torch_writer.write_zip(tmp_path / "x", saved, {"7": data.tobytes()})
    _assert_same(
        torch_file.read(tmp_path / "x"),
        {
            "transposed": data.reshape(2, 3).T,
            "row": data[3:],
            "last": np.array(5, "f4"),
        },
    )


def test_big_endian_machines_are_believed(tmp_path):
    saved = {"x": rebuilt(storage("FloatStorage", "0", 2), 0, (2,), (1,))}
    data = np.array([1, 2], ">f4").tobytes()
    torch_writer.write_zip(tmp_path / "x", saved, {"0": data}, byteorder=b"big")
    np.testing.assert_array_equal(torch_file.read(tmp_path / "x")["x"], [1, 2])


def _training_state(saved):
    """What a training script leaves: optimiser, scores, names, and wrapped twice."""
    moment = rebuilt(storage("DoubleStorage", "opt", 1, None), 0, (1,), (1,))
    score = Call(
        Global("numpy.core.multiarray", "scalar"),
        (
            Call(Global("numpy", "dtype"), ("f8", False, True), (3, "<", None)),
            Call(Global("_codecs", "encode"), ("\x00\x01", "latin1")),
        ),
    )
    ordered = Call(torch_writer.ORDERED_DICT, (list(saved.items()),), {"_metadata": {}})
    return {
        "epoch": 209,
        "model": "pose_hrnet",
        "perf": score,
        "optimizer": {"state": {0: {"exp_avg": moment}}, "lr": [1e-3, None, True]},
        "state_dict": ordered,
    }


def test_a_training_checkpoint_gives_its_state_dict(tmp_path):
    saved, storages = torch_writer.tensors(ARRAYS, None)
    sizes = dict(zip(storages, [4, 8, 8, 2, 4], strict=True))
    storages, sizes["opt"] = {"opt": bytes(8), **storages}, 8
    saved = _training_state(saved)
    torch_writer.write_legacy(tmp_path / "a", saved, storages, sizes)
    torch_writer.write_zip(tmp_path / "b", saved, storages)
    torch_writer.write_zip(tmp_path / "c", {"model": saved}, storages)
    for name in "abc":
        _assert_same(torch_file.read(tmp_path / name), ARRAYS)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_prefix_of_data_parallel_comes_off_if_all_have_it(kind, tmp_path):
    x = np.ones(2, "<f4")
    torch_writer.write(tmp_path / "a", {"module.a": x, "module.module.b": x}, kind)
    assert list(torch_file.read(tmp_path / "a")) == ["a", "module.b"]
    torch_writer.write(tmp_path / "b", {"module.a": x, "b": x}, kind)
    assert list(torch_file.read(tmp_path / "b")) == ["module.a", "b"]


# ------------------------------------------------------------------------- code and lies


class _Make:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("where", ["bare", "legacy", "zip"])
def test_a_pickle_with_code_is_refused_by_name_and_not_run(where, protocol, tmp_path):
    made, path = tmp_path / "made", tmp_path / "x.pth"
    code = pickle.dumps({"state_dict": _Make(made)}, protocol)
    if where == "bare":
        path.write_bytes(code)
    elif where == "legacy":
        parts = (torch_writer.MAGIC, torch_writer.VERSION, torch_writer.MACHINE)
        path.write_bytes(b"".join(map(torch_writer.pickled, parts)) + code)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", code)
    message = _error(path)
    assert "names posix.mkdir" in message or "names nt.mkdir" in message
    assert "nothing of it was run" in message and "state_dict()" in message
    assert not made.exists()
    pickle.loads(code)  # It does what it is feared for.
    assert made.is_dir()


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (Call(Global("builtins", "eval"), ("1",)), "builtins.eval"),
        (Call(Global("torch", "load"), ("x",)), "torch.load"),
        (Global("models.pose_hrnet", "PoseHRNet"), "models.pose_hrnet.PoseHRNet"),
        (Raw(b"(X\x01\x00\x00\x00xios\nsystem\n"), "os.system"),  # INST
        (Global("collections", "OrderedDict.fromkeys"), "OrderedDict.fromkeys"),
        (Global("torch._utils", "_Dict.__init__"), "_Dict.__init__"),
        (Global("os", "x" * 500), "os.xxx"),
        (Global("torch", "a\u2028b"), "a\\u2028b"),
    ],
)
def test_every_other_name_is_refused_too(code, named, tmp_path):
    torch_writer.write_zip(tmp_path / "x", {"a": code}, {})
    assert named in _error(tmp_path / "x")


@pytest.mark.parametrize("name", [*torch_file._GLOBALS])
def test_a_pickle_cannot_change_what_it_may_name(name, tmp_path):
    known = torch_file._GLOBALS[name]
    before = dict(vars(known)) if isinstance(known, type) else known
    for state in ({"kind": "x", "__new__": 1}, (None, {"kind": "x", "__new__": 1})):
        code = torch_writer._opcodes(Global(*name.rsplit(".", 1)))
        code += torch_writer._opcodes(state) + b"b"
        torch_writer.write_zip(tmp_path / "x", {"a": Raw(code)}, {})
        _error(tmp_path / "x")
    assert (dict(vars(known)) if isinstance(known, type) else known) == before


STORED = storage("FloatStorage", "0", 6)


@pytest.mark.parametrize(
    "lie",
    [
        rebuilt(STORED, 1, (2, 3), (3, 1)),
        rebuilt(STORED, -1, (2,), (1,)),
        rebuilt(STORED, 5, (2,), (-1,)),
        rebuilt(STORED, 0, (-2, -3), (3, 1)),
        rebuilt(STORED, 0, (2, 3), (3,)),
        rebuilt(STORED, 0, (10**6, 10**6), (0, 0)),
        rebuilt(STORED, 0, (1,) * 40, (1,) * 40),
        rebuilt(STORED, 0, "23", (3, 1)),
        rebuilt(STORED, 0.0, (2,), (1,)),
        rebuilt(STORED, 0, [2], [1]),
        rebuilt("a storage", 0, (2,), (1,)),
        rebuilt(None, 0, (0,), (1,)),
        rebuilt(storage("FloatStorage", "0", 7), 0, (7,), (1,)),
        rebuilt(storage("FloatStorage", "0", 10**12), 0, (2,), (1,)),
        rebuilt(storage("DoubleStorage", "0", 6), 0, (2,), (1,)),
        rebuilt(storage("FloatStorage", "1", 6), 0, (2,), (1,)),
        rebuilt(storage("FloatStorage", "../data.pkl", 6), 0, (2,), (1,)),
        rebuilt(torch_writer.Persistent("storage"), 0, (2,), (1,)),
        # Made without __init__; called, a thing that is none.
        Raw(torch_writer._opcodes(torch_writer.REBUILD) + b")\x81"),
        Call(Global("torch", "FloatStorage"), ()),
    ],
)
def test_tensors_that_lie_are_refused(lie, tmp_path):
    data = {"0": np.arange(6, dtype="<f4").tobytes()}
    honest = rebuilt(STORED, 0, (6,), (1,))
    torch_writer.write_zip(tmp_path / "x", {"a": honest}, data)
    assert torch_file.read(tmp_path / "x")["a"].tolist() == [0, 1, 2, 3, 4, 5]
    torch_writer.write_zip(tmp_path / "x", {"a": lie}, data)
    assert "damaged" in _error(tmp_path / "x")


def test_what_is_no_state_dict_is_said(tmp_path):
    path, x = tmp_path / "x", rebuilt(STORED, 0, (6,), (1,))
    data = {"0": bytes(24)}
    for saved, words in [
        ({"weight": x, "epoch": 3}, "entry epoch is no tensor"),
        ({"weight": {"deep": x}}, "entry weight is no tensor"),
        ({5: x}, "entry 5 is no tensor"),
        ([x], "a list, not a state dict"),
        (x, "a tensor, not a state dict"),
        ({}, "no tensor in it"),
        ({"state_dict": Raw(b"}q\x00X\x0a\x00\x00\x00state_dicth\x00s")}, "no tensor"),
    ]:
        torch_writer.write_zip(path, saved, data)
        assert words in _error(path), saved
    torch_writer.write_legacy(path, {"a": x}, {"0": bytes(24), "1": b""})
    assert "unknown storage 1" in _error(path)
    view = storage("FloatStorage", "0", 6, ("1", 0, 3))
    torch_writer.write_legacy(path, {"a": rebuilt(view, 0, (6,), (1,))}, data)
    assert "before 0.4" in _error(path)


# --------------------------------------------------------------------- damaged and others


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_is_one_line(kind, tmp_path):
    torch_writer.write(tmp_path / "whole", ARRAYS, kind)
    content = (tmp_path / "whole").read_bytes()
    for length in [*range(0, len(content), 11), len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        _error(tmp_path / "cut")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_flipped_byte_is_read_or_one_line_and_never_another_error(kind, tmp_path):
    torch_writer.write(tmp_path / "whole", ARRAYS, kind)
    content = bytearray((tmp_path / "whole").read_bytes())
    refused = 0
    for position in range(0, len(content), 2):
        content[position] ^= 0x15
        (tmp_path / "x").write_bytes(content)
        content[position] ^= 0x15
        try:
            torch_file.read(tmp_path / "x")
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(content) / 8


def test_a_zip_s_checksum_finds_a_flipped_bit_of_the_data(tmp_path):
    torch_writer.write(tmp_path / "x", ARRAYS, "zip")
    content = (tmp_path / "x").read_bytes()
    data = ARRAYS["conv1.weight"].tobytes()
    assert content.count(data) == 1
    (tmp_path / "x").write_bytes(content.replace(data, data[:-1] + b"\x01"))
    assert "CRC" in _error(tmp_path / "x")


def _entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        ({"a": _entry(), "b": _entry()}, 8, "overlap"),
        ({"a": _entry(), "b": _entry(data_offsets=[4, 12])}, 12, "overlap"),
        ({"a": _entry(), "b": _entry(data_offsets=[12, 20])}, 20, "gap at byte 8"),
        ({"a": _entry()}, 9, "1 bytes belong to no tensor"),
        ({"a": _entry()}, 7, "a ends at byte 8 of 7"),
        ({"a": _entry(shape=[3])}, 8, "header of a"),
        ({"a": _entry(shape=[-2, -1])}, 8, "header of a"),
        ({"a": _entry(shape=[True, 2])}, 8, "header of a"),
        ({"a": _entry(shape=[2.0])}, 8, "header of a"),
        ({"a": _entry(shape=[1] * 40 + [2])}, 8, "header of a"),
        ({"a": _entry(shape=None)}, 8, "header of a"),
        ({"a": _entry(data_offsets=[8, 0])}, 8, "header of a"),
        ({"a": _entry(data_offsets=[0, 8, 9])}, 8, "header of a"),
        ({"a": _entry(dtype="F8_E4M3")}, 8, "F8_E4M3"),
        ({"a": _entry(dtype=[1])}, 8, "is not read"),
        ({"a": {"dtype": "F32"}}, 8, "header of a"),
        ({"a": 5}, 8, "header of a"),
        ({"__metadata__": {}}, 0, "no tensor"),
        (b'{"a": 1, "a": 2}', 0, "twice"),
        (b'{"a": 1', 0, "header"),
        (b'{"a":' * 100_000, 0, "header"),
        (b'{"\xff": 1}', 0, "header"),
    ],
)
def test_a_wrong_safetensors_header_is_refused(header, length, words, tmp_path):
    torch_writer.write_header(tmp_path / "x", header, bytes(length))
    assert words in _error(tmp_path / "x")


def test_other_files_are_told_what_to_do(tmp_path):
    path = tmp_path / "x.pth"
    assert "No such file" in _error(path)
    assert "directory" in _error(tmp_path)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    for content, words in [
        (b"", "empty"),
        (b"<html>404 not found</html>", "neither"),
        (tar.getvalue(), "before 0.1.10"),
        (pickle.dumps([1, 2]), "not of torch.save"),
        (pickle.dumps([1, 2], 0), "neither"),
        (torch_writer.pickled(torch_writer.MAGIC), "damaged"),
        (struct.pack("<Q", 2**62) + b"{}", "header ends at byte"),
    ]:
        path.write_bytes(content)
        assert words in _error(path), content[:20]
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert "no data.pkl" in _error(tmp_path / "x.npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", torch_writer.pickled({}))
    assert "compressed" in _error(path)
    torch_writer.write_zip(path, {}, {}, **{"constants.pkl": b"", "code/x.py": b""})
    assert "TorchScript" in _error(path)
    version = torch_writer.pickled(torch_writer.MAGIC) + torch_writer.pickled(999)
    path.write_bytes(version)
    assert "version 999" in _error(path)


# ------------------------------------------------------------------------- PyTorch itself


@pytest.mark.parametrize("new", [True, False])
def test_what_pytorch_writes_is_read(new, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
    norm = torch.nn.BatchNorm2d(3)
    saved = {
        "t": base.T,
        "column": base[:, 1],
        "scalar": torch.tensor(3),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "parameter": torch.nn.Parameter(base),
        "bool": base > 1,
        **norm.state_dict(),
    }
    path = tmp_path / "x.pth"
    torch.save(
        {"state_dict": saved, "epoch": 3}, path, _use_new_zipfile_serialization=new
    )
    found = torch_file.read(path)
    assert list(found) == list(saved)
    for name, tensor in saved.items():
        tensor = tensor.detach()
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_pytorch_module_is_refused(new, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "x.pth"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=new)
    assert "names torch.nn.modules.linear.Linear" in _error(path)
