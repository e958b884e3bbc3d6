"""The published weights as text: `pose-jax weights list`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from pose_jax.weights.catalogue import RELEASES, Release, Source
from pose_jax.weights.download import megabytes
from pose_jax.weights.fetch import command, find

_HEADER = ("name", "settings", "reported", "by", "size", "license", "fetch")


def listing(names: Sequence[str] = (), *, as_json: bool = False) -> str:
    """Describes published weights.

    Args:
      names: names of releases, for all that is known of each; empty: a table of all.
      as_json: a JSON object by name instead of text.

    Raises:
      ConfigError: a name is unknown.
    """
    releases = {name: find(name) for name in names or RELEASES}
    if as_json:
        content = {name: dataclasses.asdict(of) for name, of in releases.items()}
        return json.dumps(content, indent=2)
    if names:
        return "\n\n".join(details(name, of) for name, of in releases.items())
    return table(releases)


def table(releases: Mapping[str, Release]) -> str:
    """Returns one line per release, then the sources with their scores."""
    sources = list({id(of.source): of.source for of in releases.values()}.values())
    rows = [_HEADER, *(_row(name, of) for name, of in releases.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    for source in sources:
        lines += ["", *_about(source)]
    lines += [
        "",
        "fetch: how `pose-jax weights fetch NAME --out RUN` verifies the files; - if they "
        "have no",
        "stable address. Addresses, files, SHA-256: pose-jax weights list NAME",
    ]
    return "\n".join(line.rstrip() for line in lines)


def details(name: str, release: Release) -> str:
    """Returns all that is known of a release."""
    source = release.source
    lines = [
        f"{name}: {release.settings}",
        f"  networks: {', '.join(release.networks)}",
        f"  reported: {release.score or 'nothing'}",
        *_about(source),
    ]
    for file in release.files:
        digits = f" ({len(file.sha256)} digits are published)" if file.sha256 else ""
        size = "unknown size" if file.size is None else megabytes(file.size)
        if file.whole_hash:
            size, digits = f"{file.size} bytes", ""
        known = file.sha256 or "unknown"
        lines.append(f"  {file.name or 'FILE'}: {size}, SHA-256 {known}{digits}")
        lines += [f"    {address}/{file.path}" for address in source.addresses]
    get = f"pose-jax weights fetch {name} --out RUN"
    if not source.addresses:
        get = command(release, release.networks[0])
    return "\n".join([*lines, f"  to use it: {get}"])


def _about(source: Source) -> list[str]:
    return [
        f"  {source.name}: {source.publisher}",
        f"    files: {source.page}",
        f"    scores: {source.metric}",
        f"    license: {source.license}, according to {source.license_from}"
        if source.license != "-"
        else f"    license: {source.license_from}",
    ]


def _row(name: str, release: Release) -> tuple[str, ...]:
    known = min(len(file.sha256) for file in release.files)
    verified = {0: "unverified", 64: "verified"}.get(known, f"{known} digits")
    return (
        name,
        release.settings,
        release.score or "-",
        release.source.name,
        "-" if release.size is None else megabytes(release.size),
        release.source.license,
        verified if release.source.addresses else "-",
    )
