"""Videos: the same frames from any start, turned upright; damage; what is written."""

import builtins
import struct

import numpy as np
import pytest
from PIL import Image

from pose_jax.data import video
from pose_jax.errors import InputError

av = pytest.importorskip("av", reason="PyAV is not installed")


def gray(i, size=(32, 24)):
    """A frame whose brightness says its number, up to 60."""
    return np.full((size[1], size[0], 3), 4 * i + 8, np.uint8)


def number(frame):
    return round((float(frame.mean()) - 8) / 4)


def written(path, count, size=(32, 24), fps=25, first=0):
    with video.writer(path, fps) as add:
        for i in range(first, first + count):
            add(gray(i, size))
    return path


def encoded(path, count, codec, **options):
    """A video of another program: any container, codec and options."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.bit_rate = 4_000_000
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(gray(i), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(frames):
    return [number(frame) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}),
        ("a.mkv", "libx264", {"bf": "3", "g": "12"}),
        ("a.avi", "mpeg4", {"g": "5"}),
        ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
    ],
)
def test_frames_are_the_same_from_any_start(name, codec, options, tmp_path):
    found = video.open_video(encoded(tmp_path / name, 40, codec, **options))
    assert found.size == (32, 24) and found.fps == pytest.approx(25, rel=0.01)
    assert found.frames == pytest.approx(40, abs=5)
    every = list(found.read())
    assert numbers(every) == list(range(40))
    for start in (0, 1, 17, 39, 40, 50):
        rest = list(found.read(start))
        assert len(rest) == max(40 - start, 0)
        assert all(map(np.array_equal, rest, every[start:]))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated_images_need_no_pyav(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_pyav", None)
    first, *rest = (Image.fromarray(gray(i)) for i in range(3))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=rest, duration=40, lossless=True)
    assert video.is_animated(path) and not video.is_video(path)
    found = video.open_video(path)
    assert (found.size, found.frames) == ((32, 24), 3)
    assert found.fps == pytest.approx(25)
    assert numbers(found.read()) == [0, 1, 2] and numbers(found.read(2)) == [2]
    first.save(tmp_path / "still.png")
    (tmp_path / "cut.gif").write_bytes(path.read_bytes()[:20])
    assert not video.is_animated(tmp_path / "still.png")
    assert not video.is_animated(tmp_path / "cut.gif")


def test_frames_are_turned_as_viewers_do(tmp_path):
    path = tmp_path / "turned.mp4"
    corner = np.zeros((24, 32, 3), np.uint8)
    corner[:12, :16] = 255  # The upper left quarter, as stored.
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(corner, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    # The matrix of a phone held upright: turn by 90 degrees clockwise.
    content = path.read_bytes()
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    track = content.index(b"tkhd")
    at = content.index(identity, track)
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    found = video.open_video(path)
    assert found.size == (24, 32)
    (first, *_) = found.read()
    assert first.shape == (32, 24, 3)
    quarters = (
        first[8, 18].min() > 200,
        first[8, 6].max() < 60,
        first[24, 18].max() < 60,
    )
    assert quarters == (True, True, True)  # White has moved to the upper right.


def test_what_is_no_video_is_one_line(tmp_path):
    cases = {
        "gone.mp4": (None, "no such file"),
        "empty.mp4": (b"", "cannot be read as a video"),
        "text.mp4": (b"hello, world\n" * 99, "cannot be read as a video"),
        "head.mp4": (b"\0\0\0\x18ftypmp42" + b"\0" * 200, "cannot be read as a video"),
    }
    for name, (content, says) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=says) as caught:
            video.open_video(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    picture = tmp_path / "picture.mp4"
    Image.fromarray(gray(1)).save(picture, format="JPEG")
    with pytest.raises(InputError, match="is no video"):
        video.open_video(picture)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="is no video"):
        video.open_video(tmp_path / "sound.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_half_a_file_gives_its_frames_then_an_error(suffix, tmp_path):
    path = tmp_path / f"half.{suffix}"
    rng = np.random.default_rng(0)
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    codec = "libx264" if suffix == "mp4" else "mpeg4"
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(100):  # Noise: the frames are of one length in the file.
            noise = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(noise, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    whole = list(video.open_video(path).read())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    frames = []
    with pytest.raises(InputError, match=r"incomplete|damaged") as caught:
        for frame in video.open_video(path).read():
            frames.append(frame)
    assert 30 < len(frames) < 70 and "\n" not in str(caught.value)
    same = [np.array_equal(a, b) for a, b in zip(frames, whole, strict=False)]
    assert all(same[:-1])  # The last one may be cut.


def test_half_an_mp4_without_its_table_is_one_line(tmp_path):
    path = encoded(tmp_path / "a.mp4", 20, "libx264")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"cannot be read as a video.*complete"):
        video.open_video(path)


@pytest.mark.parametrize("size", [(32, 24), (33, 25)])
def test_what_is_written_is_read_and_joined(size, tmp_path):
    pieces = []
    for first, count in ((0, 10), (10, 10), (20, 7)):
        path = tmp_path / f"{first}.mp4"
        pieces.append((first, written(path, count, size, 29.97, first)))
    video.join(pieces, tmp_path / "all.mp4")
    found = video.open_video(tmp_path / "all.mp4")
    assert found.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert found.fps == pytest.approx(29.97, abs=0.01) and found.frames == 27
    assert numbers(found.read()) == list(range(27))


def test_a_video_is_written_complete_or_not_at_all(tmp_path):
    path = tmp_path / "a/b.mp4"
    with pytest.raises(MemoryError), video.writer(path, 25) as add:
        add(gray(0))
        raise MemoryError
    assert not list((tmp_path / "a").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        written(tmp_path / "file/b.mp4", 1)


def test_without_pyav_one_line_says_what_to_install(tmp_path, monkeypatch):
    path, real = written(tmp_path / "a.mp4", 1), builtins.__import__

    def without(name, *rest, **more):
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'pose_jax\[video\]'"):
        video.open_video(path)
    assert not video.can_write()
