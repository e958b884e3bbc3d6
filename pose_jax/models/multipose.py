"""MultiPose, or G-RMI (Papandreou et al., arXiv:1701.01779): heatmaps and offsets.

Images [b, h, w, 3], normalized, height and width a multiple of 8 plus 1 (353x257) -> logits
[b, h, w, k] of lying within the radius of keypoint k, and offsets [b, h, w, k, 2] from each
pixel to the keypoint, (x, y) in pixels of the input.

An atrous ResNet of output stride 8, one 1x1 convolution, and bilinear interpolation with
aligned corners: 8n + 1 pixels have n + 1 features, feature i at pixel 8i, and are
interpolated back to 8n + 1 pixels.

With `train=True` the outputs are (auxiliary logits, (logits, offsets)). The auxiliary head
is halfway through the network and only used in training: a trained model works without the
parameters below params/auxiliary.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from pose_jax.models.layers import Conv, DType, NormKind, check_input
from pose_jax.models.ops import upsample_aligned
from pose_jax.models.pocket import Encoder
from pose_jax.models.resnet import DEPTHS, ResNet

_STRIDE = 8

# The paper puts it on "layer 50" of 101. Counting convolutions, block 9 of layer3 ends with
# the 49th and block 10 with the 52nd. Other depths: the block at half of the convolutions.
_AUXILIARY_UNITS = {18: 1, 50: 1, 101: 9, 152: 14}


class Auxiliary(nn.Module):
    """The training-only head, in its own tree level, so that its name is `head` too."""

    head: partial

    @nn.compact
    def __call__(self, x):
        return self.head(name="head")(x)


def _outputs(network: nn.Module, features, halfway, train: bool):
    """Outputs of both networks; called inside a network, whose attributes it reads."""
    k = network.num_keypoints
    head = partial(
        Conv,
        kernel=1,
        use_bias=True,
        dtype=network.dtype,
        kernel_init=nn.initializers.normal(0.001),
    )

    def enlarge(maps):
        return upsample_aligned(maps.astype(jnp.float32), factor=_STRIDE)

    both = head(3 * k, name="head")(features)
    # Split while they are small: splitting the large maps would copy them.
    logits = enlarge(both[..., :k])
    offsets = enlarge(both[..., k:].astype(jnp.float32) * network.offset_scale)
    final = logits, offsets.reshape(*logits.shape, 2)
    if not train:
        return final
    auxiliary = Auxiliary(partial(head, k), name="auxiliary")(halfway)
    return enlarge(auxiliary), final


class MultiPose(nn.Module):
    """Heatmaps and offsets from an atrous ResNet.

    Attributes:
      num_keypoints: k of the outputs.
      depth: depth of the ResNet: 18, 50, 101 or 152.
      norm: "batch", "frozen" or "group".
      dtype: of the computation; parameters, interpolation and outputs are float32.
      remat: recompute the ResNet's blocks in the backward pass, to save memory.
      width: channels of the ResNet's first stage.
      auxiliary_unit: number of blocks of layer3 below the auxiliary head; None: halfway
        through the network, 9 of 23 at depth 101.
      offset_scale: factor of the offset channels, pixels. 1: the network predicts pixels,
        as in the paper. The radius: it predicts numbers in [-1, 1], which trains faster,
        since the heatmaps' learning rate suits them too.
    """

    num_keypoints: int
    depth: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64
    auxiliary_unit: int | None = None
    offset_scale: float = 1.0

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=_STRIDE, remainder=1)
        _check_scale(self.offset_scale)
        units = DEPTHS[self.depth][1][2]
        unit = self.auxiliary_unit
        if unit is None:
            unit = _AUXILIARY_UNITS[self.depth]
        if not 1 <= unit <= units:
            raise ValueError(
                f"auxiliary_unit must be 1 to {units}, the blocks of layer3 at depth "
                f"{self.depth}; got {unit}."
            )
        features, halfway = ResNet(
            self.depth,
            self.norm,
            self.dtype,
            self.remat,
            self.width,
            output_stride=_STRIDE,
            name="backbone",
        )(images, train, keep=(3, unit))
        return _outputs(self, features, halfway, train)


class MultiPosePocket(nn.Module):
    """Heatmaps and offsets from a network for CPUs, demos and tests.

    Not from the paper; the encoder is `Pocket`'s, with aligned features. The auxiliary
    head is before the last block.

    Attributes:
      num_keypoints: k of the outputs.
      norm, dtype, width, blocks: as of `Encoder`; parameters, interpolation and outputs
        are float32.
      offset_scale: as of `MultiPose`.
    """

    num_keypoints: int
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    width: int = 32
    blocks: tuple[int, int, int] = (1, 2, 2)
    offset_scale: float = 1.0

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=_STRIDE, remainder=1)
        _check_scale(self.offset_scale)
        encoder = Encoder(self.norm, self.dtype, self.width, self.blocks, aligned=True)
        nn.share_scope(self, encoder)  # Variables have no extra level.
        return _outputs(self, *encoder(images, train), train)


def _check_scale(scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise ValueError(f"offset_scale must be positive, in pixels; got {scale}.")
