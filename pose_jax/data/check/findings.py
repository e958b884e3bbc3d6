"""Findings of `data check`: kinds of problems, counted by file, with examples."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_jax.data.check.kinds import KINDS, Severity
from pose_jax.errors import one_line

EXAMPLES = 3


@dataclasses.dataclass
class Finding:
    """One kind of problem in one file.

    Attributes:
      kind: a key of KINDS.
      file: the annotation file, the detections, or the folder of images.
      severity: "error" or "warning".
      count: number of cases.
      examples: the first cases, each with its id.
    """

    kind: str
    file: str
    severity: Severity
    count: int = 0
    examples: tuple[str, ...] = ()

    def text(self) -> str:
        _, reason, remedy = KINDS[self.kind]
        more = "; ..." if self.count > len(self.examples) else ""
        return (
            f"{self.severity:7}  {self.kind}  {self.count}: {reason} -> {remedy}  "
            f"[{self.file}: {'; '.join(self.examples)}{more}]"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """Problems and contents of one split.

    Attributes:
      title: the data set, the split and their paths.
      notes: how the split was checked.
      findings: errors first.
      counts: contents, by name: "people" -> 12.
    """

    title: str
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]

    @property
    def exit_code(self) -> int:
        """1 if there are errors, else 0."""
        return int(any(f.severity == "error" for f in self.findings))

    def text(self) -> str:
        """Returns the report, with a line for each finding."""
        severities = collections.Counter(f.severity for f in self.findings)
        verdict = ", ".join(
            f"{severities[s]} {s}{'s' * (severities[s] != 1)}"
            for s in ("error", "warning")
        )
        lines = [self.title, *self.notes, *(f.text() for f in self.findings)]
        if self.counts:
            lines.append(", ".join(f"{n} {what}" for what, n in self.counts.items()))
        lines.append(f"{verdict} (of kinds)" if self.findings else "clean")
        return "\n".join(lines)


class Findings:
    """All findings of one split; files under `root` are named by their path in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cases: dict[tuple[str, str], Finding] = {}

    def has(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _ in self.cases)

    def sorted(self) -> tuple[Finding, ...]:
        """Returns errors first, then in the order of KINDS."""
        order = list(KINDS)
        key = lambda f: (f.severity, order.index(f.kind), f.file)
        return tuple(sorted(self.cases.values(), key=key))


class File:
    """The findings of one file or folder."""

    def __init__(self, found: Findings, path: Path) -> None:
        self.found, self.path = found, path
        inside = path != found.root and path.is_relative_to(found.root)
        self._name = str(path.relative_to(found.root) if inside else path)

    def add(
        self,
        kind: str,
        example: str,
        *,
        count: int = 1,
        severity: Severity | None = None,
    ) -> None:
        """Counts cases, and keeps the first examples."""
        new = Finding(kind, self._name, severity or KINDS[kind].severity)
        case = self.found.cases.setdefault((kind, self._name), new)
        case.count += count
        if len(case.examples) < EXAMPLES:
            case.examples += (printable(example),)


def printable(text: Any) -> str:
    """Returns text without line breaks and unprintable characters."""
    return one_line(text).encode(errors="backslashreplace").decode()


def short(value: Any) -> str:
    """Returns a JSON value, truncated to fit in a line."""
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
