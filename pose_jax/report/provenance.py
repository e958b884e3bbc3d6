"""Sections "Data", "Environment" and "Reproduce": the provenance of a run."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_jax import config as config_lib
from pose_jax import data as data_lib
from pose_jax import sharding as sharding_lib
from pose_jax._version import __version__
from pose_jax.data.table import Table
from pose_jax.errors import InputError
from pose_jax.report import html
from pose_jax.report.files import Files
from pose_jax.report.html import tag
from pose_jax.report.look import Images, People


def data(files: Files, seen: People | Images | None) -> html.Section:
    """Builds section "Data": training and evaluation data with fingerprints."""
    facts = {}
    trained = (files.manifest or {}).get("train_data")
    if trained:
        facts["trained on"] = f"{trained['name']}, fingerprint {trained['fingerprint']}"
    elif files.data("train"):
        facts["trained on"] = _loaded(files.data("train"))
    if seen is not None:
        facts["evaluated on"] = _described(seen.table)
        count, what, decoder = len(seen.order), "images", ""
        if isinstance(seen, People):
            what, decoder = "people", f"; decoder {seen.decoder!r}"
        spaced = ", evenly spaced" if count < seen.total else ""
        words = f"{count} of {seen.total} {what}{spaced}{decoder}"
        facts["predicted for this report"] = words
    elif files.data("eval"):
        facts["evaluated on"] = _loaded(files.data("eval"))
    return html.section("data", "Data", html.facts(facts))


def _described(table: Table) -> str:
    return (
        f"{table.name}: {len(table.images)} images, {len(table)} people, boxes: "
        f"{table.box_source}, fingerprint {table.fingerprint()}"
    )


def _loaded(section: Mapping[str, Any]) -> str:
    try:
        source = config_lib.build(data_lib.SourceConfig, section, "config.data")
        return _described(data_lib.load(source))
    except InputError as error:
        return f"not readable: {error}"


def environment(files: Files) -> html.Section:
    """Builds section "Environment": package versions of the model, and this machine."""
    here = {"pose_jax": __version__}
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    here |= {name: importlib.metadata.version(name) for name in packages}
    trained = (files.manifest or {}).get("versions", {})
    facts = {
        "packages of the model": ", ".join(map(" ".join, trained.items())) or "–",
        "packages of this report": ", ".join(map(" ".join, here.items())),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "devices": sharding_lib.device_summary(),
        "CPU cores": os.cpu_count(),
        "git commit": _git_commit() or "none: the package is not in a git checkout",
        "report written": html.clock(datetime.datetime.now().timestamp()),
    }
    words = "The machine that wrote this report; runs only store package versions."
    return html.section("environment", "Environment", words, html.facts(facts))


def _git_commit() -> str:
    """Returns the git commit of this package; "" if it is not tracked by git."""
    here = str(Path(__file__).parent)
    try:
        _, commit, changes = (
            subprocess.run(
                ["git", "--no-optional-locks", "-C", here, *words.split()],
                capture_output=True, text=True, timeout=30, check=True,
            ).stdout.strip()
            for words in (
                "ls-files --error-unmatch files.py",
                "rev-parse HEAD",
                # Not `describe --dirty`, which locks and rewrites the index.
                "status --porcelain --untracked-files=no",
            )
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changes else commit


def reproduce(files: Files) -> html.Section:
    """Builds section "Reproduce": training time and the command to repeat the run."""
    content: list[Any] = []
    phases = dict.fromkeys(line["phase"] for line in files.log)
    rows = [_phase(files, name) for name in phases]
    if rows:
        head = ["phase", "steps", "of", "start of log", "wall time", "images/s"]
        content += [
            html.table(head, rows, class_="words"),
            "Wall time is from the first to the last line of the log, with evaluations and "
            "pauses, without the compilation of the first step.",
        ]
    if files.given:
        run = files.run if files.run.name else files.run.resolve()
        again = _command(files.run, run.with_name(f"{run.name}-again"))
        content += [tag("p", "To repeat the run in another directory:"), again]
        if files.manifest is None:
            words = "To resume this run from its last checkpoint:"
            content += [tag("p", words), _command(files.run, files.run)]
    else:
        content.append("This directory has a model without its training config.")
    return html.section("repeat", "Reproduce", *content)


def _phase(files: Files, phase: str) -> list[Any]:
    lines = [line for line in files.log if line["phase"] == phase]
    times = [line["time"] for line in lines if "time" in line]
    speeds = [v for line in lines if (v := line.get("images_per_second")) is not None]
    return [
        phase,
        max(line["step"] for line in lines),
        html.number(files.steps(phase)),
        html.clock(times[0]) if times else "–",
        html.duration(times[-1] - times[0]) if times else "–",
        f"{np.median(speeds):.1f}" if speeds else "–",
    ]


def _command(config_of: Path, run: Path) -> html.Html:
    """Returns a command that trains the config of a run, which is a JSON file."""
    paths = (config_of / "config.json", run)
    file, out = (json.dumps(str(path), ensure_ascii=False) for path in paths)
    code = (
        "from pose_jax.config import from_json; from pose_jax.training.train import train; "
        f"train(from_json(open({file}).read()), {out})"
    )
    folder = shlex.quote(str(Path.cwd()))
    return tag("pre", f"cd {folder}\npython -c {shlex.quote(code)}")
