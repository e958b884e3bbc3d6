"""Folders are checked before the work, files are written completely or not at all."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pose_jax import cli, writing
from pose_jax.data.synthetic import scenes
from pose_jax.drawing import curves, sheet
from pose_jax.errors import InputError
from pose_jax.runs import directory

ROOT = Path(__file__).resolve().parent.parent
DEMO = str(ROOT / "configs" / "demo.py")
SWEEP = """
from pose_jax.sweep import Sweep, choice
def get_sweep():
    return Sweep({"optimizer.lr": choice(1e-3)}, metric="AP@gt_boxes")
"""

# Each names something else that is missing as well: the folder is checked first.
LINES = {
    "data synth": "data synth --n 2 --out FILE/x",
    "data show": f"data show --config {DEMO} --out FILE/x/x.png",
    "data prepare": "data prepare --format coco --root gone --split x --out FILE/x",
    "data split": "data split gone --out FILE/x",
    "init": "init gone --out FILE/x/x.py",
    "data convert": "data convert --from cvat gone --out FILE/x",
    "train": f"train --config {DEMO} --run FILE/x",
    "eval": "eval --run gone --out FILE/x",
    "predict": "predict gone.jpg --run gone --out FILE/x",
    "weights convert": "weights convert gone.pth --model hrnet_w32 --out FILE/x",
    "weights fetch": "weights fetch movenet_thunder --out FILE/x",
    "export": "export --out FILE/x",
    "sweep run": f"sweep run --sweep SWEEP.py --config {DEMO} --trials 1 --study FILE/x",
    "sweep report": "sweep report --study FILE/x",
}
READ_ONLY = ("data check", "info", "doctor", "weights list")


def one_line(capsys, line):
    code = cli.main(line.split())
    out, err = capsys.readouterr()
    assert err.startswith("pose-jax: error: ") and err.count("\n") == 1, err
    assert out == ""
    return code, err


@pytest.mark.parametrize("verb", [v for v in cli.VERBS if v not in READ_ONLY])
def test_a_folder_that_cannot_be_written_is_refused_first(
    verb, tmp_path, capsys, monkeypatch
):
    """Below a file nothing can be written, not even by the superuser."""
    (tmp_path / "FILE").touch()
    (tmp_path / "SWEEP.py").write_text(SWEEP)
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    if verb == "report":  # It writes into the run itself.

        def denied(dir):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{dir}/tmp")

        monkeypatch.setattr(tempfile, "TemporaryFile", denied)
        code, err = one_line(capsys, "report RUN")
        assert "RUN cannot be written (Permission denied): copy the run" in err
    else:
        code, err = one_line(capsys, LINES[verb])
        reason = f"({tmp_path / 'FILE'}: Not a directory): give "
        assert "FILE/x cannot be written " + reason in err
    assert code == 1
    assert not list(tmp_path.rglob("x"))


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    writing.check(tmp_path / "a" / "b")
    writing.check_new(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="link already exists"):
        writing.check_new(tmp_path / "link")


def curves_of_a_log(path):
    log = path.parent / "metrics.jsonl"
    log.write_text('{"step": 1, "phase": "pose", "loss": 0.5}\n')
    try:
        curves.curves(log, path)
    finally:
        log.unlink()


WRITERS = {
    "text": lambda path: writing.write(path, "new"),
    "json": lambda path: directory.write_json(path, {"a": 1}),
    "png": lambda path: sheet.save_png(path, np.zeros((4, 5, 3), np.uint8)),
    "curves": curves_of_a_log,
    "pdj": lambda path: curves.pdj_curves(
        {"a": {"mean": np.array([0.5, 1])}}, path, thresholds=(0.1, 0.2)
    ),
}


def half(error):
    """A `Path.write_bytes` that stops in the middle."""

    def write_bytes(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise error

    return write_bytes


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_keeps_the_old_file(writer, tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as m:
        m.setattr(Path, "write_bytes", half(full))
        says = r"folder/file cannot be written \(No space left on device\): free some"
        with pytest.raises(InputError, match=says):
            WRITERS[writer](path)
        assert path.read_text() == "old"
        m.setattr(Path, "write_bytes", half(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            WRITERS[writer](path)
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    WRITERS[writer](path)
    assert path.read_bytes() != b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_data_set_that_was_interrupted_is_completed(tmp_path, monkeypatch):
    """Whatever file was the last one: the others are the same again."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = {"n": 2, "val": 1, "seed": 0, "size": (64, 48)}
    scenes.write_dataset(whole, **options)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    write, written = writing.write, []

    def stops(path, content):
        if len(written) == count:
            raise KeyboardInterrupt
        write(path, content)
        written.append(path)

    for count in (3, 5):
        with monkeypatch.context() as m:
            m.setattr(writing, "write", stops)
            written.clear()
            with pytest.raises(KeyboardInterrupt):
                scenes.write_dataset(out, **options)
        assert len([p for p in out.rglob("*") if p.is_file()]) >= count
    assert "Wrote" in scenes.write_dataset(out, **options)
    assert files == sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert all((whole / f).read_bytes() == (out / f).read_bytes() for f in files)
    assert "already" in scenes.write_dataset(out, **options)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b cannot be"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (ValueError("[Errno 28] No space left on device"), "free some space"),
    ],
)
def test_errors_of_other_writers_are_one_line_too(error, says, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(scenes, "write_dataset", fail)
    code, err = one_line(capsys, "data synth --out x")
    assert code == 1 and says in err
