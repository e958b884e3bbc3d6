"""Faster R-CNN (Ren et al., arXiv:1506.01497) for one class: people.

Images [b, h, w, 3], normalized. A network has two halves; the caller computes proposals
from the outputs of the first:

    features_and_proposals(images) -> features, a map [b, h/s, w/s, c] for each stride s;
        objectness [b, a], logits; deltas [b, a, 4]. The a anchors are in the order of maps
        (the finest first), rows, columns, and `num_anchors` boxes at each feature.
    classify(features, boxes_xyxy [b, n, 4]) -> person [b, n], logits; deltas [b, n, 4].

Deltas are those of `codecs.boxes.encode`; both outputs are float32. Feature i of a map is
at pixel s * i + `offset`. Boxes are in pixels of the input with the edges of the first
pixel at 0 and 1: a box of all pixels is (0, 0, w, h).

Parameters below "box_head" and "rpn" depend on the anchors of a method; those below
"backbone" are named as in torchvision's ResNet.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from pose_jax import geometry
from pose_jax.models.layers import Conv, DType, NormKind, check_input
from pose_jax.models.ops import upsample_nearest
from pose_jax.models.pocket import Encoder
from pose_jax.models.resnet import ResNet

_small = nn.initializers.normal(0.01)
_smaller = nn.initializers.normal(0.001)

_PERSON = 1
"""Index of people where a box has several classes."""


class Proposer(nn.Module):
    """The region proposal network, shared by all maps.

    Attributes:
      features: channels of its 3x3 convolution.
      num_anchors: boxes at each feature.
      dtype: of the computation.
    """

    features: int
    num_anchors: int
    dtype: DType

    def setup(self):
        conv = partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=_small)
        self.conv = conv(self.features, 3)
        self.objectness = conv(self.num_anchors, 1)
        self.deltas = conv(4 * self.num_anchors, 1)

    def __call__(self, maps):
        objectness, deltas = [], []
        for x in maps:
            x = nn.relu(self.conv(x))
            objectness.append(self.objectness(x).reshape(x.shape[0], -1))
            deltas.append(self.deltas(x).reshape(x.shape[0], -1, 4))
        both = jnp.concatenate(objectness, 1), jnp.concatenate(deltas, 1)
        return tuple(values.astype(jnp.float32) for values in both)


class BoxHead(nn.Module):
    """Two layers and two outputs: crops [b, n, h, w, c] -> [b, n] and [b, n, 4].

    Attributes:
      features: outputs of each of the two layers.
      dtype: of the computation.
      classes: 1: the logit of a person is an output. More: a softmax of so many classes,
        the background first and people second; the logit is that of the person's
        probability, its output minus the logsumexp of the others.
    """

    features: int
    dtype: DType
    classes: int = 1

    @nn.compact
    def __call__(self, crops):
        dense = partial(nn.Dense, dtype=self.dtype)
        x = crops.reshape(*crops.shape[:2], -1)
        for name in ("fc6", "fc7"):
            he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
            x = nn.relu(dense(self.features, kernel_init=he, name=name)(x))
        if self.classes == 1:
            person = dense(1, kernel_init=_small, name="person")(x)[..., 0]
        else:
            logits = dense(self.classes, kernel_init=_small, name="classes")(x)
            logits = logits.astype(jnp.float32)
            others = jnp.delete(logits, _PERSON, axis=-1, assume_unique_indices=True)
            person = logits[..., _PERSON] - jax.nn.logsumexp(others, axis=-1)
        deltas = dense(4, kernel_init=_smaller, name="deltas")(x)
        return person.astype(jnp.float32), deltas.astype(jnp.float32)


class _Detector(nn.Module):
    """Base class of the three networks; each has `backbone` features and their strides."""

    strides: ClassVar[tuple[int, ...]]
    divisor: ClassVar[int]
    crop_size: ClassVar[tuple[int, int]]
    if (
        TYPE_CHECKING
    ):  # An option of one of them, whose fields would be sorted by this one.
        offset: float

    def __call__(self, images, train: bool = False):
        """Runs both halves, with the whole image as the only box; for `init`."""
        features, objectness, deltas = self.features_and_proposals(images, train)
        h, w = images.shape[1:3]
        boxes_xyxy = jnp.array([0, 0, w, h], jnp.float32)
        boxes_xyxy = jnp.tile(boxes_xyxy, (len(images), 1, 1))
        return objectness, deltas, *self.classify(features, boxes_xyxy, train)

    def features_and_proposals(self, images, train: bool = False):
        """The first half; see the module."""
        check_input(images, divisor=self.divisor)
        features = self.extract(images, train)
        return features, *self.rpn(features)

    def classify(self, features, boxes_xyxy, train: bool = False):
        """The second half; see the module."""
        del train  # No norm, no dropout.
        return self.box_head(self.crop(features, boxes_xyxy))

    def extract(self, images, train):
        """Returns the feature maps of the backbone; defined by each subclass."""
        raise NotImplementedError(f"{type(self).__name__} defines no extract.")

    def crop(self, features, boxes_xyxy):
        """Returns the features in boxes, [b, n, h, w, c]."""
        return self._crops(features[0], boxes_xyxy, self.strides[0])

    def _crops(self, maps, boxes_xyxy, stride):
        crop = partial(
            geometry.roi_align,
            size=self.crop_size,
            stride=stride,
            offset=self.offset + 0.5,  # From pixel center to edge.
        )
        return jax.vmap(crop)(maps, boxes_xyxy)


class FasterRCNN(_Detector):
    """One map of stride 8 from an atrous ResNet, as in MultiPose's detector.

    All four stages run on the image, and a 1x1 convolution reduces the map to 256 channels
    for the proposals and the two layers of the head, as in R-FCN (arXiv:1605.06409). The
    TensorFlow detectors of the time (arXiv:1611.10012) propose from the third stage and
    run the fourth on each of 300 overlapping crops.

    Attributes:
      depth: depth of the ResNet: 18, 50, 101 or 152.
      num_anchors: boxes at each feature.
      norm: of the ResNet: "batch", "frozen" or "group".
      dtype: of the computation; parameters and outputs are float32.
      remat: recompute the ResNet's blocks in the backward pass, to save memory.
      width: channels of the ResNet's first stage.
      features: channels of the map.
      head_features: outputs of each layer of the box head.
    """

    depth: int
    num_anchors: int = 12
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64
    features: int = 256
    head_features: int = 1024

    strides = (8,)
    offset = 0.0
    divisor = 8
    crop_size = (7, 7)

    def setup(self):
        self.backbone = ResNet(
            self.depth,
            self.norm,
            self.dtype,
            self.remat,
            self.width,
            output_stride=8,
        )
        self.reduce = Conv(self.features, 1, use_bias=True, dtype=self.dtype)
        self.rpn = Proposer(self.features, self.num_anchors, self.dtype)
        self.box_head = BoxHead(self.head_features, self.dtype)

    def extract(self, images, train):
        return (nn.relu(self.reduce(self.backbone(images, train))),)


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al., arXiv:1612.03144): maps of four strides to five.

    Attributes:
      features: channels of each map.
      dtype: of the computation.
    """

    features: int
    dtype: DType

    @nn.compact
    def __call__(self, maps):
        conv = partial(Conv, self.features, use_bias=True, dtype=self.dtype)
        above, pyramid = None, []
        for i in reversed(range(len(maps))):
            x = conv(1, name=f"lateral{i + 2}")(maps[i])
            if above is not None:
                h, w = x.shape[1:3]
                x = x + upsample_nearest(above, size=(w, h))
            above = x
            pyramid.insert(0, conv(3, name=f"output{i + 2}")(x))
        return (*pyramid, pyramid[-1][:, ::2, ::2])


class FasterRCNNPyramid(_Detector):
    """Maps P2 to P6 of a feature pyramid (arXiv:1612.03144): strides 4 to 64.

    Proposals come from all maps. The features of a box come from P2 to P5 by its size, 4 +
    log2(sqrt(w h) / 224) rounded down. A box is cropped from all four and one crop is kept,
    so that shapes do not depend on the boxes.

    Attributes: as of `FasterRCNN`, and:
      offset: where feature i of each map is, see the module. torchvision: -0.5, the center
        of feature i at the edge stride * i.
      classes: of the box head, see `BoxHead`.
      min_features: a box is cropped with sides of at least this many features;
        torchvision: 1.
    """

    depth: int
    num_anchors: int = 3
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    width: int = 64
    features: int = 256
    head_features: int = 1024
    offset: float = 0.0
    classes: int = 1
    min_features: float = 0.0

    strides = (4, 8, 16, 32, 64)
    divisor = 32
    crop_size = (7, 7)

    def setup(self):
        self.backbone = ResNet(
            self.depth, self.norm, self.dtype, self.remat, self.width
        )
        self.pyramid = Pyramid(self.features, self.dtype)
        self.rpn = Proposer(self.features, self.num_anchors, self.dtype)
        self.box_head = BoxHead(self.head_features, self.dtype, self.classes)

    def extract(self, images, train):
        return self.pyramid(self.backbone(images, train, all_stages=True))

    def crop(self, features, boxes_xyxy):
        size = jnp.maximum(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 1)
        level = jnp.floor(4 + jnp.log2(jnp.sqrt(size[..., 0] * size[..., 1]) / 224))
        level = jnp.clip(level, 2, 5)[..., None, None, None]
        return sum(
            jnp.where(level == i, self._crops(features[i - 2], boxes_xyxy, 2**i), 0)
            for i in range(2, 6)
        )

    def _crops(self, maps, boxes_xyxy, stride):
        low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
        high = jnp.maximum(high, low + self.min_features * stride)
        return super()._crops(maps, jnp.concatenate([low, high], -1), stride)


class FasterRCNNPocket(_Detector):
    """One map of stride 8, for CPUs, demos and tests.

    Not from a paper; its encoder is `Pocket`'s. Crops have fewer channels and fewer cells,
    higher than wide as suits people, and the head is narrower.

    Attributes:
      num_anchors: boxes at each feature.
      norm, dtype, width, blocks: as of `Encoder`; parameters and outputs are float32.
      features: channels of the map that the head uses.
      head_features: outputs of each layer of the box head.
    """

    num_anchors: int = 3
    norm: NormKind = "batch"
    dtype: DType = jnp.float32
    width: int = 32
    blocks: tuple[int, int, int] = (1, 2, 2)
    features: int = 64
    head_features: int = 256

    strides = (8,)
    offset = 1.5
    divisor = 16
    crop_size = (4, 6)

    def setup(self):
        self.backbone = Encoder(self.norm, self.dtype, self.width, self.blocks)
        self.reduce = Conv(self.features, 1, use_bias=True, dtype=self.dtype)
        self.rpn = Proposer(2 * self.width, self.num_anchors, self.dtype)
        self.box_head = BoxHead(self.head_features, self.dtype)

    def extract(self, images, train):
        features, _ = self.backbone(images, train)
        return (features,)

    def crop(self, features, boxes_xyxy):
        return self._crops(nn.relu(self.reduce(features[0])), boxes_xyxy, 8)
