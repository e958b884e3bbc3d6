"""`pose-jax data show`: the training inputs of a config as the network receives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax import writing
from pose_jax.data import readers
from pose_jax.drawing import sheet as sheet_lib
from pose_jax.training import config as training_config
from pose_jax.training import keys
from pose_jax.types import Method


def show(config: Mapping[str, Any], out: Path, rows: int = 24) -> None:
    """Draws the first augmented training inputs with keypoints and targets, or with boxes.

    Args:
      config: as for `train.train`.
      out: the PNG file to write.
      rows: number of inputs to draw.

    Raises:
      ConfigError: the config is invalid.
      InputError: the data are missing or not usable.
    """
    writing.check(out.parent)
    s = training_config.setup(config)
    phase = s.method.phases[0]
    # The same augmentation as in the first steps of training.
    key = keys.augment_key(keys.phase_keys(s.config.seed, 0)[1])

    @jax.jit
    def preview(batch):
        return phase.preview(phase.prepare({}, batch, key))

    batches = -(-rows // s.config.input.batch_size)
    parts = [
        jax.device_get(preview(batch)) for batch in readers.batches(s.plan, 0, batches)
    ]
    # Inputs of different canvas sizes cannot be concatenated.
    shape = parts[0]["input"].shape
    parts = [part for part in parts if part["input"].shape == shape]
    merged = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:rows], *parts)
    draw(out, merged, s.method)
    print(f"{len(merged['input'])} training inputs of phase {phase.name!r}: {out}")


def draw(out: Path, shown: Mapping[str, np.ndarray], method: Method) -> None:
    """Draws the output of `Phase.preview` to a PNG file."""
    picture = sheet_lib.preview_sheet(
        shown, method.keypoints, alignment=method.view.alignment
    )
    sheet_lib.save_png(out, picture)
