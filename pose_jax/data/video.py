"""Video files as frames, and frames as video files: the only module that opens a video.

Frames are uint8 RGB [h, w, 3], turned as a viewer shows them, decoded one at a time, and
counted from 0. Animated images (GIF, WebP, APNG) are read with Pillow; all other files need
PyAV, which is the extra [video].
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import writing
from pose_jax.data import pixels as pixels_lib
from pose_jax.errors import InputError, one_line

Frames = Generator[np.ndarray, None, None]
"""Frames one at a time, uint8 RGB [h, w, 3]; closing it closes the file."""

SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mjpeg .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob "
    ".webm .wmv .y4m".split()
)
"""Suffixes, in small letters, of the files that are taken for videos."""

_ANIMATED = frozenset((".gif", ".webp", ".png", ".apng"))
_CODECS = ("libx264", "libopenh264", "mpeg4")
"""Video codecs by preference; the builds of FFmpeg differ in what they have."""


@dataclasses.dataclass(frozen=True)
class Video:
    """An opened video.

    Attributes:
      path: the file.
      size: (width, height) of the frames.
      fps: mean number of frames per second; None if the file does not say.
      frames: number of frames that the file announces; it may be wrong, and None if the
        file does not say.
    """

    path: Path
    size: tuple[int, int]
    fps: float | None
    frames: int | None
    _decode: Callable[[int], Frames] = dataclasses.field(repr=False)

    def read(self, start: int = 0) -> Frames:
        """Yields the frames from number `start` on, uint8 RGB [h, w, 3].

        Frames before `start` are decoded too, but not converted: seeking is not exact in
        all formats. Each call opens the file, which is closed with the iterator.

        Raises:
          InputError: after the last frame that can be decoded, if some cannot be or the
            file ends early.
        """
        return self._decode(start)


def is_video(path: Path | str) -> bool:
    """Returns whether a file is taken for a video, by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def is_animated(path: Path | str) -> bool:
    """Returns whether a file is an image of several frames; False if it is damaged."""
    path = Path(path)
    if path.suffix.lower() not in _ANIMATED:
        return False
    try:
        with pixels_lib.opened(path, path) as image:
            return getattr(image, "n_frames", 1) > 1
    except InputError:
        return False


def open_video(path: Path | str) -> Video:
    """Opens a video file or an animated image, and decodes its first frame.

    Raises:
      InputError: the file is missing or no video, has no frame, or PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    video = _animation(path) if path.suffix.lower() in _ANIMATED else _film(path)
    frames = video.read()
    with contextlib.closing(frames):
        if next(frames, None) is None:
            raise InputError(f"{path} is a video without frames.")
    return video


def _animation(path: Path) -> Video:
    with pixels_lib.opened(path, path) as image:
        count = getattr(image, "n_frames", 1)
        milliseconds = 0
        for i in range(count):  # The duration of a frame is known once it is read.
            image.seek(i)
            image.load()
            milliseconds += image.info.get("duration", 0)
        size = image.size
    fps = 1000 * count / milliseconds if milliseconds else None

    def decode(start: int) -> Frames:
        with pixels_lib.opened(path, path) as image:
            for i in range(start, count):
                image.seek(i)
                yield np.asarray(image.convert("RGB"))

    return Video(path, size, fps, count, decode)


def _film(path: Path) -> Video:
    with _opened(path) as (container, stream):
        announced = stream.frames or None
        rate = stream.average_rate or stream.guessed_rate
        if container.duration and rate:
            # Of a clip that was cut without encoding it again, not all frames are shown.
            shown = round(container.duration / 1_000_000 * rate)
            announced = min(announced or shown, shown)
        size = _size_of(container, stream, path)
    fps = float(rate) if rate else None
    width, height = size

    def decode(start: int) -> Frames:
        damaged, count = 0, 0
        with _opened(path) as (container, stream):
            for frame in _decoded(container, stream):
                if frame is None:
                    damaged += 1
                    continue
                if count >= start:
                    yield _pixels(frame, width, height)
                count += 1
        if announced and count < 0.95 * announced - 1:
            raise InputError(
                f"{path} ends after {count} frames of about {announced}: the file is "
                "incomplete. Copy it again, or use what is there."
            )
        if damaged:
            raise InputError(
                f"{path} is damaged: {damaged} of its packets cannot be decoded; "
                f"{count} frames can."
            )

    return Video(path, size, fps, announced, decode)


def _size_of(container: Any, stream: Any, path: Path) -> tuple[int, int]:
    """Returns (width, height) of the first frame, turned."""
    for frame in _decoded(container, stream):
        if frame is not None:
            turned = frame.rotation % 180 == 90
            size = frame.width, frame.height
            return size[::-1] if turned else size
    raise InputError(f"{path}: no frame of the video can be decoded.")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yields the frames of a stream, and None for each packet that cannot be decoded."""
    av = _pyav()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
        except av.error.FFmpegError:  # The rest of the file cannot be read.
            yield None
            packet = None  # What the decoder still holds.
        try:
            yield from stream.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            yield None
        if packet is None:
            return


def _pixels(frame: Any, width: int, height: int) -> np.ndarray:
    """Returns a frame as RGB [height, width, 3], turned and of the size of the first."""
    turns = round(frame.rotation / 90) % 4  # Counterclockwise.
    if turns % 2:
        width, height = height, width
    rgb = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a video file with PyAV: the container, and its first video stream."""
    av = _pyav()
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or one_line(error, 200)
        raise InputError(
            f"{path} cannot be read as a video: {reason}. Is the file complete?"
        ) from None
    with container:
        # The cover of a sound file is a stream of one image.
        streams = [s for s in container.streams.video if not s.disposition & _PICTURE]
        if not streams or "_pipe" in container.format.name:
            kind = container.format.long_name or container.format.name
            raise InputError(f"{path} is no video: FFmpeg reads it as {kind!r}.")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


_PICTURE = 1 << 10  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC.


def _pyav() -> Any:
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "videos need PyAV, which is not installed: pip install 'pose_jax[video]'."
        ) from None
    return av


def can_write() -> bool:
    """Returns whether PyAV is installed, so that `writer` works."""
    with contextlib.suppress(InputError):
        return _pyav() is not None
    return False


@contextlib.contextmanager
def writer(
    path: Path | str, fps: float | None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that adds a frame to a new video, H.264 in MP4.

    Frames are uint8 RGB [h, w, 3], all of one size, and shown at a constant rate; an odd
    size is padded by one pixel. The file appears complete at the end of the block, or not
    at all.

    Args:
      path: the file; its folder is created.
      fps: frames per second; None: 25.

    Raises:
      InputError: it cannot be written, or PyAV is not installed.
    """
    av, path = _pyav(), Path(path)
    rate = Fraction(fps or 25).limit_denominator(1001)
    with _naming(path), writing.replaced(path) as new, _container(new) as container:
        stream = container.add_stream(_codec(), rate=rate)
        # Without B-frames, packets are in the order of frames and can be joined.
        stream.options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        stream.pix_fmt = "yuv420p"
        empty = True

        def add(frame: np.ndarray) -> None:
            nonlocal empty
            h, w = frame.shape[:2]
            frame = np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), "edge")
            if empty:
                stream.height, stream.width = frame.shape[:2]
                empty = False
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))

        yield add
        if not empty:
            container.mux(stream.encode(None))


def join(pieces: Sequence[tuple[int, Path]], path: Path | str) -> None:
    """Joins videos of one size and rate, made by `writer`, without encoding them again.

    Args:
      pieces: number of the first frame in the result, and file, of each.
      path: the file to write, complete or not at all.

    Raises:
      InputError: a piece cannot be read, or the file cannot be written.
    """
    path = Path(path)
    with _naming(path), writing.replaced(path) as new, _container(new) as out:
        stream: Any = None
        for first, piece in pieces:
            with _opened(piece) as (container, source):
                if stream is None:
                    stream = out.add_stream_from_template(source)
                start = round(first / (source.average_rate * source.time_base))
                for packet in container.demux(source):
                    if packet.dts is not None:  # The last one is empty.
                        packet.pts, packet.dts = packet.pts + start, packet.dts + start
                        packet.stream = stream
                        out.mux(packet)


def _codec() -> str:
    av = _pyav()
    for name in _CODECS:
        with contextlib.suppress(ValueError):
            av.codec.Codec(name, "w")
            return name
    raise InputError(f"PyAV has none of the codecs {', '.join(_CODECS)}.")


@contextlib.contextmanager
def _container(path: Path) -> Iterator[Any]:
    with _naming(path):
        # The table of frames at the beginning: players can start at once.
        options = {"movflags": "faststart"}
        with _pyav().open(str(path), "w", format="mp4", options=options) as container:
            yield container


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Reports errors of PyAV as those of a file that cannot be written."""
    try:
        yield
    except _pyav().error.FFmpegError as error:
        raise writing.failure(path, error) from None
