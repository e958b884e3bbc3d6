"""PoseNet: Google's network with MobileNetV1, without the displacements between joints.

Images [b, h, w, 3] in [-1, 1], height and width a multiple of the stride plus 1 -> maps of
cells: heatmap logits [b, h/s + 1, w/s + 1, k] of lying within the disc of a keypoint, and
offsets [b, h/s + 1, w/s + 1, k, 2] from each cell to the keypoint, (x, y) in cells. Cell i
lies at pixel s i (alignment "aligned").

MobileNetV1 (Howard et al., arXiv:1704.04861) at width 0.75; maps and offsets of G-RMI
(Papandreou et al., arXiv:1701.01779). BatchNorm is folded into the published weights: there
is no norm. Padding is TensorFlow's "SAME". Layers are called in the order in which
`weights.from_tfjs` finds them.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import ConvSame, Depthwise, DType, check_input

_BLOCKS = (  # Channels at width 1, stride.
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    *[(512, 1)] * 7,
)  # fmt: skip
_PUBLISHED_STRIDE = 16


class PoseNet(nn.Module):
    """Heatmaps and offsets of cells.

    Attributes:
      num_keypoints: k of the outputs.
      norm: "none": the network has no norms.
      dtype: of the computation; parameters and outputs are float32.
      width: factor of the channels of MobileNetV1.
      stride: pixels of the input from one cell to the next: 16, or 8, with the same
        weights: from that stride on, strides become dilations.
    """

    num_keypoints: int
    norm: Literal["none"] = "none"
    dtype: DType = jnp.float32
    width: float = 0.75
    stride: int = _PUBLISHED_STRIDE

    @nn.compact
    def __call__(self, images, train: bool = False):
        if self.stride not in (8, _PUBLISHED_STRIDE):
            raise ValueError(f"stride must be 8 or 16, pixels; got {self.stride}.")
        check_input(images, divisor=self.stride, remainder=1)
        conv = partial(ConvSame, dtype=self.dtype)
        x = nn.relu6(conv(int(32 * self.width), 3, 2, name="stem")(images))
        reached, dilation = 2, 1
        for number, (features, stride) in enumerate(_BLOCKS, 1):
            lost = stride if reached == self.stride else 1
            layer = Depthwise(
                stride=stride // lost,
                dilation=dilation,
                dtype=self.dtype,
                name=f"depthwise_{number}",
            )
            x = nn.relu6(layer(x))
            features = int(features * self.width)
            x = nn.relu6(conv(features, name=f"pointwise_{number}")(x))
            reached, dilation = reached * (stride // lost), dilation * lost

        k = self.num_keypoints
        heatmaps = conv(k, name="heatmap")(x).astype(jnp.float32)
        offsets = conv(2 * k, name="offset")(x).astype(jnp.float32)
        # The layer gives pixels of the input.
        final = heatmaps, offsets.reshape(*heatmaps.shape, 2) / self.stride
        return (final,) if train else final
