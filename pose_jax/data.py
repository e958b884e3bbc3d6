"""`pose-jax data show`: training inputs of a config, as the network will see them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pose_jax import input_pipeline, train, visualize


def show(config: Mapping[str, Any], out: Path, rows: int = 24) -> None:
    """Draws the first training inputs, augmented, with keypoints and target heatmaps.

    Args:
      config: as for `train.train`.
      out: the PNG to write.
      rows: how many inputs to draw.

    Raises:
      ConfigError: the config is wrong.
      InputError: the data are not there or not usable.
    """
    s = train.setup(config)
    phase = s.method.phases[0]
    key = jax.random.key(s.config.seed)

    @jax.jit
    def preview(batch):
        return phase.preview(phase.prepare({}, batch, key))

    plan = s.train_plan()
    batches = -(-rows // s.config.input.batch_size)
    parts = [
        jax.device_get(preview(batch))
        for batch in input_pipeline.batches(plan, 0, batches)
    ]
    merged = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:rows], *parts)
    picture = visualize.preview_sheet(
        merged, s.method.keypoints, alignment=s.method.view.alignment
    )
    visualize.save_png(out, picture)
    print(f"{len(merged['input'])} training inputs of phase {phase.name!r}: {out}")
