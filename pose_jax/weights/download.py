"""Download of a published file: resumed where it broke off, verified by its SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from pose_jax.errors import InputError, one_line
from pose_jax.weights.catalogue import File

_TIMEOUT = 30.0  # Seconds without a byte.
_CHUNK = 1 << 18
_ATTEMPTS = 5  # Connections to one address.
_RANGE_REFUSED = 416


class _Failed(Exception):
    """A file could not be received from an address."""


class _BrokenOff(_Failed):
    """A part of the file was received."""


class Progress:
    """Progress on a stream: a line that changes on a terminal, otherwise nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.width = 0

    def bytes(self, name: str, done: int, total: int | None) -> None:
        if self.stream.isatty():
            of = "" if not total else f" of {megabytes(total)} ({100 * done // total}%)"
            line = f"{name}: {megabytes(done)}{of}"
            self.stream.write("\r" + line.ljust(self.width))
            self.stream.flush()
            self.width = len(line)

    def note(self, text: str) -> None:
        self.stream.write(("\n" if self.width else "") + text + "\n")
        self.stream.flush()
        self.width = 0


def download(
    file: File, addresses: Sequence[str], folder: Path, progress: Progress
) -> Path:
    """Downloads a file to a folder, unless it is there.

    The file has the name `file.name` once it is complete and verified, and the name with
    ".part" before. A part is continued if the SHA-256 can show that the pieces belong
    together.

    Args:
      file: the file.
      addresses: web folders of the file, in the order to try.
      folder: the folder to write.
      progress: the progress.

    Returns:
      The path of the file.

    Raises:
      InputError: no address has the file; the message names each and the reason.
    """
    path = folder / file.name
    if path.exists() and matches(path, file):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{file.name}.part")
    if not file.sha256:
        part.unlink(missing_ok=True)
    reasons = []
    for address in addresses:
        url = f"{address}/{quote(file.path)}"
        try:
            _verified(url, file, part, progress)
        except _Failed as failed:
            reasons.append(f"{url}: {failed}")
            continue
        part.replace(path)
        return path
    kept = part.stat().st_size if part.exists() else 0
    again = f" ({megabytes(kept)} are kept: the same command resumes)" if kept else ""
    raise InputError(f"{file.name} cannot be downloaded ({'; '.join(reasons)}){again}")


def matches(path: Path, file: File) -> bool:
    """Returns whether a file has the published SHA-256; True if none is published."""
    return not file.sha256 or digest(path).startswith(file.sha256)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _verified(url: str, file: File, part: Path, progress: Progress) -> None:
    """Receives `part` whole; repeats without resuming if a continued part is wrong."""
    while True:
        resumed = _whole(url, file, part, progress)
        if matches(part, file):
            return
        wrong = digest(part)
        part.unlink()
        if not resumed:
            raise _Failed(
                f"the SHA-256 is {wrong[:16]}..., the published one {file.sha256[:16]}"
                f"{'...' if len(file.sha256) > 16 else ''}: deleted"
            )


def _whole(url: str, file: File, part: Path, progress: Progress) -> bool:
    """Receives a file in as many connections as needed; returns whether it resumed."""
    resumed = False
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if file.sha256 and part.exists() else 0
        try:
            return _receive(url, part, before, file, progress) or resumed
        except _BrokenOff as failed:
            gained = part.stat().st_size > before
            if attempt == _ATTEMPTS - 1 or not gained:
                raise
            progress.note(f"{file.name}: {failed}; resuming")
            resumed = True
    raise AssertionError("unreachable")


def _receive(url: str, part: Path, offset: int, file: File, progress: Progress) -> bool:
    """Receives the bytes after `offset`, or all if the server cannot resume.

    Returns:
      Whether the bytes before `offset` were kept.
    """
    try:
        response = _open(url, offset)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_REFUSED or not offset:
            raise _Failed(f"HTTP {error.code} {error.reason}".strip()) from None
        if error.headers.get("Content-Range", "") == f"bytes */{offset}":
            return True  # All bytes are there.
        part.unlink()
        return _receive(url, part, 0, file, progress)
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(_reason(error)) from None
    with response:
        starts = response.headers.get("Content-Range", "").startswith(
            f"bytes {offset}-"
        )
        kept = response.status == http.HTTPStatus.PARTIAL_CONTENT and starts
        done = offset if kept else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        with part.open("ab" if kept else "wb") as out:
            while chunk := _read(response):
                out.write(chunk)
                done += len(chunk)
                progress.bytes(file.name, done, total)
    if total is not None and done < total:
        raise _BrokenOff(f"broken off after {megabytes(done)} of {megabytes(total)}")
    return kept


def _open(url: str, offset: int) -> Any:
    headers = {"User-Agent": "pose-jax", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _read(response: Any) -> bytes:
    """Returns the next bytes; b"" at the end, also where the connection broke off."""
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"broken off: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return getattr(cause, "strerror", None) or one_line(cause, 200)
