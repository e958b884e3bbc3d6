"""A resumed log equals the straight one; progress is plain text in a pipe."""

import io
import json
import math
import re
import struct
import sys

import numpy as np
import pytest

from pose_jax.runs import log
from pose_jax.runs.log import MetricWriter, Progress, read_metrics


def without_time(entries):
    return [{k: v for k, v in entry.items() if k != "time"} for entry in entries]


def test_a_line_is_one_json_object(tmp_path):
    value = np.float32(0.1)
    with MetricWriter(tmp_path / "run", tensorboard=False) as writer:
        writer.write(3, "pose", {"loss": value, "AP@0.5": 1, "lr": np.float64(3e-4)})
        (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert list(entry) == ["step", "phase", "time", "loss", "AP@0.5", "lr"]
    assert entry["step"] == 3 and entry["phase"] == "pose"
    assert np.float32(entry["loss"]) == value  # exact
    assert entry["time"] > 1e9
    assert read_metrics(tmp_path / "run") == [entry]
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, "pose", {"loss": value})
    assert read_metrics(tmp_path)[0]["loss"] is None
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_names_that_the_log_uses_are_refused(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        with pytest.raises(ValueError, match="'time'"):
            writer.write(1, "pose", {"time": 1.0})


def write(writer, phase, steps):
    for step in steps:
        writer.write(step, phase, {"loss": 1 / step})
        if step % 4 == 0:
            writer.write(step, phase, {"AP": step / 10})


@pytest.mark.parametrize("checkpoint", [0, 3, 4, 6])
@pytest.mark.parametrize("cut", ["", '{"step": 7, "phase": "st', "\0\0"])
def test_a_resumed_log_equals_the_straight_one(tmp_path, checkpoint, cut):
    with MetricWriter(tmp_path / "straight", tensorboard=False) as writer:
        write(writer, "stage_1", range(1, 9))
        write(writer, "stage_2", range(1, 9))
    with MetricWriter(tmp_path / "stopped", tensorboard=False) as writer:
        write(writer, "stage_1", range(1, 9))
        write(writer, "stage_2", range(1, 7))
    with open(tmp_path / "stopped" / "metrics.jsonl", "a") as file:
        file.write(cut)
    with MetricWriter(tmp_path / "stopped", tensorboard=False) as writer:
        writer.resume("stage_2", checkpoint)
        write(writer, "stage_2", range(checkpoint + 1, 9))
    straight = without_time(read_metrics(tmp_path / "straight"))
    assert without_time(read_metrics(tmp_path / "stopped")) == straight
    assert len(straight) == 20


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step": "7", "phase": "pose"}',
        b'{"step": 7.5, "phase": "pose"}',
        b'{"step": true, "phase": "pose"}',
        b'{"step": 7, "phase": 3}',
        b'{"step": 7, "phase": "pose", "loss": "0.1"}',
        b'{"step": 7, "phase": "pose", "loss": 0.1',
        b'{"step": 7, "phase": "p\xffse"}',
        b"[1, 2]",
    ],
)
def test_damaged_lines_are_set_aside_and_counted(tmp_path, damaged, caplog):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, "pose", {"loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damaged + b"\n" + path.read_bytes() + damaged + b'\n{"st')
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1]
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.resume("pose", 1)
        writer.write(2, "pose", {"loss": 0.25})
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]
    assert len(path.read_bytes().splitlines()) == 2
    aside = (tmp_path / "metrics_damaged.jsonl").read_bytes()
    assert aside == 2 * (damaged + b"\n")
    assert "2 damaged lines were moved to metrics_damaged.jsonl" in caplog.text


def test_an_evaluation_that_is_repeated_is_logged_once(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(4, "pose", {"loss": 0.5, "images_per_second": 1.0})
        writer.write(4, "pose", {"AP": 0.5})
        writer.resume("pose", 4, evaluated=False)
        (entry,) = read_metrics(tmp_path)
        assert entry["loss"] == 0.5


def test_resuming_without_a_log_is_fine(tmp_path):
    with MetricWriter(tmp_path / "run", tensorboard=False) as writer:
        writer.resume("pose", 5)
        writer.write(6, "pose", {"loss": 1.0})
    assert len(read_metrics(tmp_path / "run")) == 1


def events(folder):
    """The events of all files, read by the record format's definition."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(proto.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
        assert at == len(data)
    return found


def test_tensorboard_gets_scalars_a_run_per_phase(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricWriter(tmp_path) as writer:
        writer.write(1, "a", {"loss": 0.5, "AP@0.5": 2.0})
        writer.write(2, "b", {"loss": 0.25})
        writer.resume("a", 1)
    values = [
        (event.step, value)
        for event in events(tmp_path / "tensorboard" / "a")
        for value in event.summary.value
    ]
    scalars = {value.tag: (step, value.simple_value) for step, value in values}
    assert scalars == {"loss": (1, 0.5), "AP@0.5": (1, 2.0)}
    starts = [
        event.step
        for event in events(tmp_path / "tensorboard" / "a")
        if event.HasField("session_log")
    ]
    assert starts == [2]  # hides later events of the interrupted run
    version, loss = events(tmp_path / "tensorboard" / "b")
    assert version.file_version == "brain.Event:2"
    assert loss.step == 2 and loss.summary.value[0].simple_value == 0.25


def test_without_tensorboard_the_log_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    said = []
    monkeypatch.setattr(log.logging, "warning", lambda *args: said.append(args))
    with MetricWriter(tmp_path) as writer:
        writer.write(1, "pose", {"loss": 1.0})
        writer.write(2, "pose", {"loss": 1.0})
        writer.resume("pose", 1)
    assert len(said) == 1 and "tensorboardX is not installed" in said[0][0]
    assert not (tmp_path / "tensorboard").exists()
    assert len(read_metrics(tmp_path)) == 1


def test_other_processes_write_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(log.jax, "process_index", lambda: 1)
    with MetricWriter(tmp_path / "run") as writer:
        writer.resume("pose", 0)
        writer.write(1, "pose", {"loss": 1.0})
    with Progress(10) as progress:
        progress(1, {"loss": 1.0})
        progress.say("text")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_progress_in_a_pipe_is_plain_lines():
    stream = io.StringIO()
    with Progress(1000, 100, label="pose", stream=stream) as progress:
        progress(101, {"loss": 0.00123456, "images/s": 183.2, "lr": 1e-3})
        progress.say("saved")
        progress(200, {"loss": 12345.678, "input-bound": "3%", "people": 7})
    first, note, second = stream.getvalue().splitlines()
    assert first == (
        "pose step 101/1000  loss 0.001235  images/s 183.2  lr 0.001  eta ?"
    )
    assert note == "saved"
    assert second == (
        "pose step 200/1000  loss 1.235e+04  input-bound 3%  people 7  eta 0:00"
    )
    assert re.fullmatch(r"[\x20-\x7e\n]*", stream.getvalue())


def test_progress_without_label_or_output():
    stream = io.StringIO()
    with Progress(2, stream=stream) as progress:
        progress(1, {})
    assert stream.getvalue() == "step 1/2  eta ?\n"
    with Progress(2, enabled=False, stream=stream) as progress:
        progress(2, {"loss": 1.0})
        progress.say("text")
    assert stream.getvalue() == "step 1/2  eta ?\n"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1, "0:09"), (10, "1:30"), (1000, "2:30:00")]
)
def test_the_eta_is_the_time_left_at_the_rate_since_the_first_call(
    monkeypatch, seconds, shown
):
    clock = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = Progress(110, 50, stream=stream)
    progress(10)
    progress(20, {})
    assert stream.getvalue().endswith(f"eta {shown}\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_a_bar():
    stream = Terminal()
    with Progress(10, 2, label="pose", stream=stream) as progress:
        progress(3)
        progress.say("hello")
        progress(10, {"loss": 0.5})
    text = stream.getvalue()
    assert "hello\n" in text
    last = text.split("\r")[-1]
    assert last.startswith("pose step 10/10 ") and "loss 0.5" in last
    assert text.endswith("\n")


def test_writing_does_not_load_tensorflow(tmp_path, run_python):
    code = f"""
import sys
from pose_jax.runs.log import MetricWriter
with MetricWriter({str(tmp_path)!r}) as writer:
    writer.write(1, "pose", {{"loss": 1.0}})
print("tensorflow" in sys.modules)
"""
    out = run_python(code)
    assert out.stdout.strip() == "False", out.stderr
