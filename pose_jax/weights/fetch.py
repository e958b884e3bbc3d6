"""Published weights to a run directory in one step: `pose-jax weights fetch`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pose_jax import writing
from pose_jax.errors import ConfigError, InputError, did_you_mean
from pose_jax.weights.catalogue import RELEASES, SHARED, File, Release
from pose_jax.weights.download import Progress, digest, download, matches, megabytes

LOCAL = "POSE_JAX_WEIGHTS"
"""Environment variable: a folder with published files, which is searched first. Files whose
name many checkpoints have (model.safetensors) are in a folder of the release in it."""


def fetch(
    name: str,
    out: Path | str,
    *,
    network: str | None = None,
    releases: Mapping[str, Release] = RELEASES,
    converter: Callable[..., str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Downloads published weights and converts them to a run directory.

    The files are looked for in the folder $POSE_JAX_WEIGHTS, then in the cache folder,
    $XDG_CACHE_HOME/pose_jax/weights, to which they are downloaded.

    Args:
      name: a name of `releases`.
      out: a run directory that does not exist yet or is empty.
      network: the network to convert to; None: the published one.
      releases: the known releases.
      converter: called as `convert.convert`, which None stands for.
      progress: the progress of downloads; None: on stderr.

    Returns:
      A summary of the files and the conversion, as text.

    Raises:
      ConfigError: an option is invalid, or `out` exists.
      InputError: the files cannot be downloaded or converted, or `out` cannot be written.
    """
    release = find(name, releases)
    network = release.networks[0] if network is None else network
    if network not in release.networks:
        raise ConfigError(
            f"{name} are not weights of {network!r}: use --model with one of "
            f"{', '.join(release.networks)}."
        )
    writing.check_new(out)
    progress = progress or Progress()
    folder = _local(name, release, progress)
    try:
        folder = folder or _downloaded(name, release, progress)
    except InputError as error:
        by_hand = _by_hand(release, network, out)
        raise InputError(f"{str(error).rstrip('.')}: {by_hand}") from None
    if converter is None:
        from pose_jax.weights.convert import convert as converter
    files = [
        f"{folder / file.name}: {megabytes((folder / file.name).stat().st_size)}, "
        f"{_verification(file)}"
        for file in release.files
    ]
    lines = [*files, _license(release)]
    first = folder / release.files[0].name
    return "\n".join([*lines, converter(first, network, out, **release.options)])


def find(name: str, releases: Mapping[str, Release] = RELEASES) -> Release:
    """Returns a release; raises ConfigError for an unknown name."""
    if name not in releases:
        raise ConfigError(
            f"no weights are named {name!r}.{did_you_mean(name, releases)} `pose-jax "
            "weights list` prints all names; a file of your own: pose-jax weights convert "
            "FILE --model NETWORK --out RUN."
        )
    return releases[name]


def command(
    release: Release, network: str, out: Path | str = "RUN", folder: str = ""
) -> str:
    """Returns the command that converts the files of a release in a folder."""
    file = f"{folder}{release.files[0].name or 'FILE'}"
    words = ["pose-jax", "weights", "convert", file]
    words += ["--model", network]
    for option, value in release.options.items():
        words.append(f"--{option.replace('_', '-')}")
        if value is not True:
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(text)
    return shlex.join([*words, "--out", str(out)])


def cache() -> Path:
    """Returns the folder of downloaded files."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "pose_jax" / "weights"


def present(name: str, releases: Mapping[str, Release] = RELEASES) -> bool:
    """Returns whether all files of a release are here, so that nothing is downloaded."""
    release = find(name, releases)
    files = release.files
    folders = [cache() / name]
    if os.environ.get(LOCAL):
        folders.append(_place(name, release))
    return any(
        all(file.name and (folder / file.name).is_file() for file in files)
        for folder in folders
    )


def _place(name: str, release: Release) -> Path:
    """Returns the folder of a release in $POSE_JAX_WEIGHTS, which is set."""
    folder = Path(os.environ[LOCAL]).expanduser()
    return folder / name if release.files[0].name in SHARED else folder


def _local(name: str, release: Release, progress: Progress) -> Path | None:
    """Returns $POSE_JAX_WEIGHTS if it has all files, with the published SHA-256."""
    folder = os.environ.get(LOCAL)
    if not folder or not all(file.name for file in release.files):
        return None
    place = _place(name, release)
    if not Path(folder).expanduser().is_dir():
        progress.note(f"{LOCAL}={folder} is not a folder: not used")
        return None
    if not all((place / file.name).is_file() for file in release.files):
        return None
    for file in release.files:
        path = place / file.name
        if not matches(path, file):
            progress.note(
                f"{path} has the SHA-256 {digest(path)[:16]}..., not the published one: "
                "not used"
            )
            return None
    return place


def _downloaded(name: str, release: Release, progress: Progress) -> Path:
    """Returns the cache folder of a release, with all files."""
    if not release.source.addresses:
        raise InputError(
            f"{name} cannot be downloaded: its files have no stable address"
        )
    folder = cache() / name
    writing.check(folder, "set XDG_CACHE_HOME to a folder of your own")
    for file in release.files:
        path = download(file, release.source.addresses, folder, progress)
        size = megabytes(path.stat().st_size)
        progress.note(f"{file.name}: {size}, {_verification(file)}")
    return folder


def _license(release: Release) -> str:
    source = release.source
    known = source.license if source.license != "-" else source.license_from
    return f"license of the weights: {known}; {source.publisher}"


def _verification(file: File) -> str:
    if not file.sha256:
        return "unverified (no SHA-256 is published)"
    digits = "" if file.whole_hash else f" (its first {len(file.sha256)} digits)"
    return f"SHA-256 verified{digits}"


def _by_hand(release: Release, network: str, out: Any) -> str:
    """Says how to get the files without `weights fetch`."""
    names = [file.name for file in release.files if file.name]
    return (
        f"download {' and '.join(names) or 'the file'} from {release.source.page} to a "
        f"FOLDER, then run: {command(release, network, out, 'FOLDER/')}"
    )
