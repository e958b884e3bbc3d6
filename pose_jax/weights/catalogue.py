"""The published checkpoints of each network, and how they were trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Published:
    """The published checkpoints of a network.

    Attributes:
      whole: whether complete checkpoints exist, including the head.
      backbone: whether ImageNet checkpoints of the backbone exist.
      last: tensor of the last layer, with one output channel per keypoint.
      channels: color order of the training images of the complete checkpoints.
      alignment: alignment of their heatmaps.
      input_size: (width, height); None: 192x256 for COCO, 256x256 for MPII.
      sigmas: sigma of their targets in heatmap pixels, by input size; 2 for all others.
      sides: (minimum, divisor, remainder) of the input sides in pixels.
      settings: settings of the method that differ from its defaults.
    """

    whole: bool = True
    backbone: bool = True
    last: str = "final_layer.weight"
    channels: Literal["rgb", "bgr"] = "bgr"
    alignment: Literal["stride", "aligned"] = "stride"
    input_size: tuple[int, int] | None = None
    sigmas: Mapping[tuple[int, int], float] = dataclasses.field(
        default_factory=lambda: {(96, 128): 1.0, (288, 384): 3.0}
    )
    sides: tuple[int, int, int] = (64, 32, 0)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def fits(self, input_size: tuple[int, int]) -> bool:
        """Returns whether the network supports inputs of this size."""
        smallest, divisor, remainder = self.sides
        return all(n >= smallest and n % divisor == remainder for n in input_size)


_HOURGLASS = Published(
    backbone=False, last="score.0.weight", alignment="aligned", input_size=(96, 128)
)
_MULTIPOSE = Published(whole=False, input_size=(257, 353), sides=(65, 8, 1))
_ONE_MAP = Published(
    whole=False, settings={"anchor_scales": ((64.0, 128.0, 256.0, 512.0),)}
)
_PYRAMID = Published(
    whole=False,
    settings={"anchor_scales": ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))},
)
_REGRESSION = Published(whole=False, settings={"stages": 1})

CATALOGUE: Mapping[str, Published] = {
    "hourglass_4": _HOURGLASS,
    # Released with a different sigma than the other networks of this size.
    "hourglass_8": dataclasses.replace(_HOURGLASS, sigmas={(288, 384): 3.0}),
    "hrnet_w32": Published(channels="rgb"),
    "hrnet_w48": Published(channels="rgb"),
    **{f"simple_baseline_{depth}": Published() for depth in (18, 50, 101, 152)},
    # Only backbones are published: torchvision's ResNet.
    **{f"faster_rcnn_{depth}": _ONE_MAP for depth in (18, 50, 101)},
    **{f"faster_rcnn_fpn_{depth}": _PYRAMID for depth in (18, 50, 101)},
    **{f"multipose_{depth}": _MULTIPOSE for depth in (18, 50, 101)},
    **{f"resnet_regression_{depth}": _REGRESSION for depth in (18, 50, 101, 152)},
}
