"""Section "Config": values that differ from the defaults, then all values."""

from __future__ import annotations

import json
from typing import Any

from pose_jax._version import __version__
from pose_jax.report import html
from pose_jax.report.files import Files
from pose_jax.report.html import tag
from pose_jax.training.config import Absent, Setting, settings


def config(files: Files) -> html.Section:
    """Builds the section."""
    every = settings(files.config)
    if not files.given:  # A model without a run has only some sections of the config.
        every = [s for s in every if s.key.split(".")[0] in files.config]
    title = "config.json" if files.given else "Config stored with the model"
    return html.section(
        "config",
        "Config",
        f"Values without default or different from the default in pose_jax {__version__}.",
        _table([setting for setting in every if setting.changed]),
        html.details(f"All {len(every)} values", _table(every)),
        html.details(title, tag("pre", json.dumps(files.config, indent=1))),
    )


def _table(listed: list[Setting]) -> html.Html:
    rows = []
    for setting in listed:
        key, value, default = setting
        cells = [html.breakable(key, after="."), _shown(value), _shown(default)]
        rows.append(html.row(cells, "changed" if setting.changed else ""))
    return html.table(["key", "value", "default"], rows, class_="words config")


def _shown(value: Any) -> str:
    if isinstance(value, Absent):
        return value.value
    return value if isinstance(value, str) and value else json.dumps(value)
