"""`pose-jax data show`: training inputs of a config, as the network will see them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax.data import readers
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.training import config as training_config
from pose_jax.training import keys
from pose_jax.types import Method


def show(config: Mapping[str, Any], out: Path, rows: int = 24) -> None:
    """Draws the first training inputs, augmented, with keypoints and target heatmaps, or
    with boxes.

    Args:
      config: as for `train.train`.
      out: the PNG to write.
      rows: how many inputs to draw.

    Raises:
      ConfigError: the config is wrong.
      InputError: the data are not there or not usable.
    """
    s = training_config.setup(config)
    phase = s.method.phases[0]
    # The same views as the first steps of training have.
    key = keys.augment_key(keys.phase_keys(s.config.seed, 0)[1])

    @jax.jit
    def preview(batch):
        return phase.preview(phase.prepare({}, batch, key))

    batches = -(-rows // s.config.input.batch_size)
    parts = [
        jax.device_get(preview(batch)) for batch in readers.batches(s.plan, 0, batches)
    ]
    # Of canvases of one size: those of another may be other inputs.
    shape = parts[0]["input"].shape
    parts = [part for part in parts if part["input"].shape == shape]
    merged = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:rows], *parts)
    draw(out, merged, s.method)
    print(f"{len(merged['input'])} training inputs of phase {phase.name!r}: {out}")


def draw(out: Path, shown: Mapping[str, np.ndarray], method: Method) -> None:
    """Writes pictures of an example, of `Phase.preview`, as a PNG."""
    picture = sheet_lib.preview_sheet(
        shown, method.keypoints, alignment=method.view.alignment
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet_lib.save_png(out, picture)
