"""Frames of a video beside the export, read in order."""

import types

import numpy as np
import pytest
from PIL import Image

from pose_jax.data.convert import frames
from pose_jax.errors import InputError
from tests.data.convert import exports, test_cvat


@pytest.fixture
def opened(monkeypatch):
    """A reader of videos of three frames; returns the files that it has opened."""
    files = []

    def open_video(path):
        files.append(path.name)
        shades = (np.full((48, 64, 3), 50 * i, np.uint8) for i in range(3))
        return types.SimpleNamespace(read=lambda: shades)

    monkeypatch.setattr(frames.video, "open_video", open_video)
    return files


def write(folder, last):
    pose = {"ear": test_cvat.at("10,14"), "tail": test_cvat.at("20,24")}
    film = "".join(test_cvat.frame(i, pose, 1) for i in (1, last))
    meta = test_cvat.task(more="<source>mice.mp4</source>")
    test_cvat.write(folder, test_cvat.track(film), meta)
    (folder / "mice.mp4").touch()


def test_frames_of_a_video_become_images(tmp_path, opened):
    write(tmp_path, 2)
    _, found = exports.convert_from("cvat", tmp_path, tmp_path / "o")
    assert list(found) == ["train/frame_000001.png", "train/frame_000002.png"]
    shades = [Image.open(tmp_path / "o" / name).getpixel((3, 3)) for name in found]
    assert shades == [(50, 50, 50), (100, 100, 100)]
    assert opened == ["mice.mp4"]  # Once.


def test_a_frame_before_the_last_one_opens_the_video_again(tmp_path, opened):
    video = frames.Video(tmp_path / "mice.mp4")
    assert video.frame(2)() != video.frame(0)() == video.frame(0)()
    assert len(opened) == 3


def test_a_video_that_is_too_short_writes_nothing(tmp_path, opened):
    write(tmp_path, 3)
    with pytest.raises(InputError, match=r"mice\.mp4 has no frame 3"):
        exports.convert_from("cvat", tmp_path, tmp_path / "o")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotations.xml", "mice.mp4"]


def test_a_video_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path, 2)
    with pytest.raises(InputError, match=r"mice\.mp4|\[video\]"):
        exports.convert_from("cvat", tmp_path, tmp_path / "o")
    assert not (tmp_path / "o").exists()
