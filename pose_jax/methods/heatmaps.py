"""What methods share whose network gives one map per keypoint."""

from __future__ import annotations

import abc
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pose_jax import keypoints
from pose_jax.drawing import maps as maps_lib
from pose_jax.methods.topdown import PersonExample, TopDown
from pose_jax.types import Panel

HEATMAPS = Panel(
    file="heatmaps",
    title="Heatmaps",
    caption="The input of the network, its heatmaps, one hue per keypoint (full color is "
    "the largest value in any of these pictures), and the decoded keypoints.",
    draw=maps_lib.heatmap_panel,
)


class Heatmaps(TopDown):
    """A method of heatmaps; a subclass also says what they should be."""

    panels = (HEATMAPS,)

    @abc.abstractmethod
    def targets(
        self, example: PersonExample
    ) -> tuple[Float[Array, "b h w k"], Bool[Array, "b k"]]:
        """The maps to be learnt, and which of them count in the loss."""

    def preview(self, example: PersonExample) -> dict[str, Array]:
        maps, counted = self.targets(example)
        return {
            **super().preview(example),
            "targets": maps * counted[:, None, None, :],
        }

    def unmirrored(self, maps: Float[Array, "b h w k"]) -> Float[Array, "b h w k"]:
        """Maps of the mirror image, mirrored back, under the names of the crop."""
        return keypoints.swap(maps[:, :, ::-1], self.keypoints, axis=-1)

    def shown(self, output: Any) -> dict[str, Array]:
        return {"heatmaps": output}


def shifted(maps: Float[Array, "b h w k"]) -> Float[Array, "b h w k"]:
    """Maps moved by one pixel to the right: what alignment "stride" loses by mirroring."""
    return jnp.concatenate([maps[:, :, :1], maps[:, :, :-1]], 2)
