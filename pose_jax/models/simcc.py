"""SimCC's network: two linear layers on each keypoint's map, for the bins of x and of y.

Images [b, h, w, 3], normalized -> logits of x [b, k, split * w] and of y [b, k, split * h],
float32. The backbone is a heatmap network, whose maps are flattened; both layers are shared
by all keypoints. Li et al., ECCV 2022, arXiv:2107.03332.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import DType, NormKind
from pose_jax.models.pocket import Pocket


class SimCC(nn.Module):
    """A heatmap network and two linear layers.

    Attributes:
      num_keypoints: k.
      norm: of the backbone, "batch", "frozen" or "group".
      dtype: of the computation; parameters and output are float32.
      split: bins per pixel of the input.
      backbone: num_keypoints, norm and dtype to a heatmap network.
    """

    num_keypoints: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    split: int = 2
    backbone: Callable[..., Any] = Pocket

    @nn.compact
    def __call__(self, images, train: bool = False):
        h, w = images.shape[1:3]
        maps = self.backbone(
            self.num_keypoints, norm=self.norm, dtype=self.dtype, name="backbone"
        )(images, train)
        maps = maps[-1] if train else maps
        b, k = maps.shape[0], maps.shape[-1]
        maps = jnp.moveaxis(maps, -1, 1).reshape(b, k, -1)
        x = nn.Dense(self.split * w, dtype=self.dtype, name="head_x")(maps)
        y = nn.Dense(self.split * h, dtype=self.dtype, name="head_y")(maps)
        logits = x.astype(jnp.float32), y.astype(jnp.float32)
        return (logits,) if train else logits
