"""Checkpoint files: all formats give the same arrays, and none can run anything."""

import json
import os
import pickle
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pose_jax.errors import ConfigError, InputError
from pose_jax.weights import torch_file
from tests.weights import torch_writer
from tests.weights.torch_writer import Call, Global, Persistent, Raw, rebuilt, storage

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
    by_name = dict(sorted(ARRAYS.items())) if kind == "safetensors" else ARRAYS
    _assert_same(torch_file.read(tmp_path / "any.name"), by_name)


def test_bfloat16_is_read_exactly(tmp_path):
    values = np.array([1, -2.5, 3.140625, 2.0**127, 0], np.float32)
    halves = values.astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"x": halves}, tmp_path / "a")
    saved = {"x": rebuilt(storage("BFloat16Storage", "0", 5), 0, (5,), (1,))}
    torch_writer.write_zip(tmp_path / "b", saved, {"0": halves.tobytes()})
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
    array = Call(
        Global("numpy.core.multiarray", "_reconstruct"),
        (Global("numpy", "ndarray"), (0,), "b"),
        (1, (1,), Call(Global("numpy", "dtype"), ("f8", False, True)), False, "x" * 8),
    )
    history = Global("mmengine.logging.history_buffer", "HistoryBuffer")
    mean = Call(Global("__builtin__", "getattr"), (history, "mean"))
    buffer = Call(history, (), {"_log_history": array, "_statistics": {"mean": mean}})
    milestones = Call(Global("collections", "Counter"), ({170: 1},))
    settings = Raw(
        torch_writer._opcodes(Global("argparse", "Namespace")) + b")\x81}"
        + torch_writer._opcodes("lr") + torch_writer._opcodes(0.1) + b"sb"
    )  # fmt: skip
    filled = Raw(  # Something like a list, and something like a dict.
        b"(" + torch_writer._opcodes(history) + b")R(K\x01K\x02e"
        + torch_writer._opcodes(Global("collections", "defaultdict"))
        + b")R(K\x01K\x02ut"
    )  # fmt: skip
    ordered = Call(torch_writer.ORDERED_DICT, (list(saved.items()),), {"_metadata": {}})
    return {
        "epoch": 209,
        "model": "pose_hrnet",
        "perf": score,
        "meta": {"cfg": "model = dict()", "CLASSES": ("person",), "args": settings},
        "message_hub": {"log_scalars": {"loss": buffer}, "filled": filled},
        "param_schedulers": [{"milestones": milestones}],
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
    assert set(torch_file.read(tmp_path / "b")) == {"module.a", "b"}


# ------------------------------------------------------------------------- code and lies


class _Make:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("where", ["bare", "legacy", "zip"])
def test_no_code_of_a_pickle_is_run(where, protocol, tmp_path):
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
    _error(path)
    assert not made.exists()
    pickle.loads(code)  # It does what it is feared for.
    assert made.is_dir()


@pytest.mark.parametrize(
    "code",
    [
        Call(Global("builtins", "eval"), ("1/0",)),
        Call(Global("torch", "load"), ("x",)),
        Global("models.pose_hrnet", "PoseHRNet"),
        Raw(b"(X\x01\x00\x00\x00xios\nsystem\n"),  # INST
        Call(Global("collections", "OrderedDict.fromkeys"), ("ab",)),
        Call(Global("torch._utils", "_rebuild_tensor_v2.__globals__"), ()),
    ],
)
def test_every_other_name_is_an_inert_stand_in(code, tmp_path):
    before = dict(vars(torch_file._Other))
    kept = {"x": rebuilt(STORED, 0, (6,), (1,))}
    state = Raw(torch_writer._opcodes(Global("os", "x")) + b"}X\x01\x00\x00\x00aNsb")
    saved = {"meta": code, "hooks": state, "state_dict": kept}
    torch_writer.write_zip(tmp_path / "x", saved, {"0": bytes(24)})
    assert list(torch_file.read(tmp_path / "x")) == ["x"]
    assert dict(vars(torch_file._Other)) == before


STORED = storage("FloatStorage", "0", 6)


@pytest.mark.parametrize(
    "lie",
    [
        rebuilt(STORED, 1, (-1,), (1,)),
        rebuilt(STORED, 1, (2, 3), (3, 1)),
        rebuilt(STORED, -1, (2,), (1,)),
        rebuilt(STORED, 0, (-2, -3), (3, 1)),
        rebuilt(STORED, 0, (2, 3), (3,)),
        rebuilt(STORED, 0, "23", (3, 1)),
        rebuilt(STORED, 0.0, (2,), (1,)),
        rebuilt("a storage", 0, (2,), (1,)),
        rebuilt(storage("FloatStorage", "1", 6), 0, (2,), (1,)),
        rebuilt(Persistent("storage"), 0, (2,), (1,)),
        rebuilt(Persistent(("storage", "O", "0", "cpu", 1)), 0, (1,), (1,)),
    ],
)
def test_tensors_that_lie_are_refused(lie, tmp_path):
    data = {"0": np.arange(6, dtype="<f4").tobytes()}
    honest = rebuilt(STORED, 0, (6,), (1,))
    torch_writer.write_zip(tmp_path / "x", {"a": honest}, data)
    assert torch_file.read(tmp_path / "x")["a"].tolist() == [0, 1, 2, 3, 4, 5]
    torch_writer.write_zip(tmp_path / "x", {"a": lie}, data)
    assert "damaged" in _error(tmp_path / "x")


def big(number):
    return number.to_bytes(4, "little")


LEGACY = torch_writer.MAGIC, torch_writer.VERSION, torch_writer.MACHINE
ASKING = {
    "bytes": b"\x80\x02B" + big(3 << 30),
    "long bytes": b"\x80\x04\x8e" + (3 << 30).to_bytes(8, "little"),
    "text": b"\x80\x02X" + big(3 << 30),
    "byte array": b"\x80\x05\x96" + (3 << 30).to_bytes(8, "little"),
    "memo": b"\x80\x02Nr" + big(200 << 20) + b".",
    "memo as text": b"\x80\x02Np200000000\n.",
    "storages": b"".join(map(torch_writer.pickled, LEGACY))
    + torch_writer.pickled(
        {
            str(i): rebuilt(storage("FloatStorage", str(i), 1 << 20), 0, (1,), (1,))
            for i in range(100)
        }
    )
    + bytes(5 << 20),
}


@pytest.mark.parametrize("name", ASKING)
def test_no_file_asks_for_more_memory_than_it_has_bytes(name, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(ASKING[name])
    tracemalloc.start()
    try:
        assert "damaged" in _error(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_archives_and_tensors_that_would_grow_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", torch_writer.pickled({}))
        archive.writestr("x/data/0", bytes(1 << 20))
    assert "state that they hold" in _error(path)
    repeated = rebuilt(STORED, 0, (1 << 30,), (0,))
    torch_writer.write_zip(path, {"a": repeated}, {"0": bytes(24)})
    assert "repeats the 24 bytes" in _error(path)


def test_what_is_no_state_dict_is_said(tmp_path):
    path, x = tmp_path / "x", rebuilt(STORED, 0, (6,), (1,))
    data = {"0": bytes(24)}
    for saved, words in [
        ({"weight": x, "epoch": 3}, "entry epoch is not a tensor"),
        ({"weight": {"deep": x}}, "entry weight is not a tensor"),
        ({5: x}, "entry 5 is not a tensor"),
        ([x], "a list, not a state dict"),
        (Call(Global("a", "Net"), ()), "a a.Net, not a state dict"),
        ({}, "has no tensors"),
        (
            {"state_dict": Raw(b"}q\x00X\x0a\x00\x00\x00state_dicth\x00s")},
            "not a tensor",
        ),
    ]:
        torch_writer.write_zip(path, saved, data)
        assert words in _error(path), saved
    torch_writer.write_legacy(path, {"a": x}, {"0": bytes(24), "1": b""})
    assert "do not match its tensors" in _error(path)
    view = storage("FloatStorage", "0", 6, ("1", 0, 3))
    torch_writer.write_legacy(path, {"a": rebuilt(view, 0, (6,), (1,))}, data)
    assert "before PyTorch 0.4" in _error(path)


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


def test_safetensors_of_other_types_or_without_the_library(tmp_path, monkeypatch):
    array = np.ones(2, ml_dtypes.float8_e4m3fn)
    safetensors.numpy.save_file({"a": array}, tmp_path / "x")
    assert "a has the unsupported type F8_E4M3" in _error(tmp_path / "x")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConfigError, match="pip install safetensors"):
        torch_file.read(tmp_path / "x")


def test_other_files_are_told_what_to_do(tmp_path):
    path = tmp_path / "x.pth"
    assert "No such file" in _error(path)
    assert "directory" in _error(tmp_path)
    for content, words in [
        (b"", "empty"),
        (b"<html>404 not found</html>", "neither"),
        (pickle.dumps([1, 2]), "not from torch.save"),
        (pickle.dumps([1, 2], 0), "neither"),
        (torch_writer.pickled(torch_writer.MAGIC), "damaged"),
        (b"\xff" * 7 + b"\0{}", "damaged"),
    ]:
        path.write_bytes(content)
        assert words in _error(path), content[:20]
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert "no data.pkl" in _error(tmp_path / "x.npz")
    torch_writer.write_zip(path, {}, {}, **{"constants.pkl": b"", "code/x.py": b""})
    assert "TorchScript" in _error(path)


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
    assert "a torch.nn.modules.linear.Linear, not a state dict" in _error(path)


# ------------------------------------------------- several files, and the text of a config


def _write_parts(folder):
    """A checkpoint in two files with its index, as transformers writes them."""
    parts = {
        "model-00001-of-00002.safetensors": {"a": np.ones((2, 3), "f4")},
        "model-00002-of-00002.safetensors": {"b": np.arange(4, dtype="f4")},
    }
    for name, arrays in parts.items():
        safetensors.numpy.save_file(arrays, folder / name)
    places = {key: name for name, arrays in parts.items() for key in arrays}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index, places


def test_several_files_are_read_by_their_index(tmp_path):
    index, places = _write_parts(tmp_path)
    found = torch_file.read_checkpoint(index)
    _assert_same(
        found.tensors, {"a": np.ones((2, 3), "f4"), "b": np.arange(4, dtype="f4")}
    )
    assert found.files == [index, *(tmp_path / name for name in places.values())]
    half = tmp_path / places["a"]
    assert f"one of several files of a checkpoint: give their index, {index.name}" in (
        _error(half)
    )


def test_a_wrong_index_is_one_line(tmp_path):
    index, places = _write_parts(tmp_path)
    for content, words in [
        ("{", "is no index of a checkpoint"),
        ("[]", "is no index of a checkpoint"),
        ('{"weight_map": 3}', "is no index of a checkpoint"),
        (json.dumps({"weight_map": {"a": "../x"}}), "../x is not a file name"),
        (json.dumps({"weight_map": {**places, "c": places["a"]}}), "first: c"),
    ]:
        index.write_text(content)
        assert words in _error(index)
    index.write_text(json.dumps({"weight_map": places}))
    (tmp_path / places["b"]).unlink()
    with pytest.raises(InputError, match=r"00002-of-00002\.safetensors cannot be read"):
        torch_file.read(index)


@pytest.mark.parametrize("key", ["config", "cfg"])
def test_arrays_and_histories_beside_the_tensors_are_inert(key, tmp_path):
    """As in mmpose's files: NumPy arrays in "meta", and a message hub after training."""
    array = Call(
        Global("numpy.core.multiarray", "_reconstruct"),
        (Global("numpy", "ndarray"), (0,), "b"),
        (1, (2,), Call(Global("numpy", "dtype"), ("f8", 0, 1), (3, "<")), False,
         Call(Global("_codecs", "encode"), ("\x00" * 16, "latin1"))),
    )  # fmt: skip
    hub = Call(Global("mmengine.logging.history_buffer", "HistoryBuffer"), (), {"a": 1})
    called = Call(Global("builtins", "getattr"), (hub, "min"))
    saved, storages = torch_writer.tensors(ARRAYS)
    whole = {
        "meta": {"dataset_meta": {"sigmas": array}, key: "codec = 1\n"},
        "state_dict": saved,
        "message_hub": {"log": [hub, called]},
    }
    torch_writer.write_zip(tmp_path / "x.pth", whole, storages)
    found = torch_file.read_checkpoint(tmp_path / "x.pth")
    _assert_same(found.tensors, ARRAYS)
    assert found.config == "codec = 1\n"
    assert torch_file.read_checkpoint(tmp_path / "x.pth").files == [tmp_path / "x.pth"]
