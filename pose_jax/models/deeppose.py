"""DeepPose (Toshev and Szegedy, CVPR 2014, arXiv:1312.4659): joints from AlexNet.

Images [b, h, w, 3], normalized, 220x220 in the paper, height and width at least 57 ->
coordinates [b, k, 2], (x, y) in units of the image: 0 at its center, +-0.5 at its edges.
Layers are named as in AlexNet's published definitions: conv1 to conv5, fc6, fc7, and the
last one head, as in every network here.

The layers are those that the paper lists:

    C(55x55x96) LRN P  C(27x27x256) LRN P  C(13x13x384) C(13x13x384) C(13x13x256) P
    F(4096) F(4096) linear(2k)

with a ReLU after every C and F, before LRN and pool. The paper gives the filter sizes, 11,
5, 3, 3, 3, and the first stride, 4. Pools of 3x3 with stride 2 and the constants of LRN are
AlexNet's; "SAME" padding of convolutions and no padding of pools give the sizes of the
maps. These are 58,396,060 parameters for k = 14. The paper says about 40 million, which
its layers do not give.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from pose_jax.models.layers import Conv, Coordinates, DType, NormKind, check_input
from pose_jax.models.ops import local_response_norm, max_pool

_MIN_SIZE = 57  # Maps of 15, 7, 3 and 1 pixels.

# Without BatchNorm, the initialization has to preserve the scale of the activations under
# ReLUs (He et al., arXiv:1502.01852).
_HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class DeepPose(nn.Module):
    """Network of one stage, predicting coordinates; a cascade has one for each stage.

    Training draws from the random stream "dropout" of `apply`; `init` drops nothing and
    needs one key, as with all other networks.

    Attributes:
      num_keypoints: how many points.
      norm: "batch" only, the default of all networks. This network has no normalization
        layers and no batch_stats; other values raise an error.
      dtype: of the computation except for the last layer, since bfloat16 would round
        coordinates to half a pixel of 220; parameters and output are float32.
      dropout: fraction of the outputs of fc6 and fc7 that is dropped in training. The
        paper says 0.6, but not whether that is the fraction dropped or kept.
      lrn_alpha_per: see `ops.local_response_norm`.
      width: channels of the first convolution, a multiple of 3; the others have 8/3, 4,
        4 and 8/3 times as many.
      features: outputs of fc6 and of fc7.
    """

    num_keypoints: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    dropout: float = 0.6
    lrn_alpha_per: Literal["element", "window"] = "element"
    width: int = 96
    features: int = 4096

    @nn.compact
    def __call__(self, images, train: bool = False):
        self._check(images)
        conv = partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=_HE)
        pool = partial(max_pool, window=3, stride=2)
        lrn = partial(local_response_norm, alpha_per=self.lrn_alpha_per)
        w = self.width

        # For 220 pixels, "SAME" pads 3 before and 4 after, which `Conv` does not support.
        sides = lax.padtype_to_pads(images.shape[1:3], (11, 11), (4, 4), "SAME")
        x = jnp.pad(images, ((0, 0), *sides, (0, 0)))
        x = nn.relu(conv(w, 11, stride=4, padding=0, name="conv1")(x))
        x = pool(lrn(x))
        x = nn.relu(conv(8 * w // 3, 5, name="conv2")(x))
        x = pool(lrn(x))
        x = nn.relu(conv(4 * w, 3, name="conv3")(x))
        x = nn.relu(conv(4 * w, 3, name="conv4")(x))
        x = nn.relu(conv(8 * w // 3, 3, name="conv5")(x))
        x = pool(x)

        x = x.reshape(x.shape[0], -1)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_HE)
        drop = not train or self.is_initializing()
        for name in ("fc6", "fc7"):
            x = nn.relu(dense(self.features, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=drop)(x)
        points_xy = Coordinates(self.num_keypoints, name="head")(x)
        return (points_xy,) if train else points_xy

    def _check(self, images):
        check_input(images, divisor=1)
        if min(images.shape[1:3]) < _MIN_SIZE:
            raise ValueError(
                f"height and width must be at least {_MIN_SIZE}, pixels; got "
                f"{images.shape[1]} x {images.shape[2]}."
            )
        if self.norm != "batch":
            raise ValueError(
                f"DeepPose has no normalization layers: leave norm at its default, "
                f'"batch"; got {self.norm!r}.'
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {self.dropout}.")
        if self.width < 3 or self.width % 3:
            raise ValueError(f"width must be a multiple of 3; got {self.width}.")
        if self.features < 1:
            raise ValueError(f"features must be at least 1; got {self.features}.")
