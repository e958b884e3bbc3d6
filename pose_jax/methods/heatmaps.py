"""Base class of methods whose network predicts one map per keypoint."""

from __future__ import annotations

import abc
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pose_jax import keypoints
from pose_jax.codecs import gaussian
from pose_jax.drawing import maps as maps_lib
from pose_jax.methods.topdown import PersonExample, TopDown
from pose_jax.types import Panel

HEATMAPS = Panel(
    file="heatmaps",
    title="Heatmaps",
    caption="The input of the network, its heatmaps, one hue per keypoint (full color is "
    "the largest value in any of these images), and the decoded keypoints.",
    draw=maps_lib.heatmap_panel,
)


class Heatmaps(TopDown):
    """A method of heatmaps; subclasses define the target maps."""

    panels = (HEATMAPS,)

    @property
    def assumed_sigma(self) -> float | None:
        """That of the decoder's blur, if it has one."""
        if "kernel_size" not in self.decoder.uses:
            return None
        if self.config.kernel_size is None:
            return self.config.sigma
        return gaussian.kernel_sigma(kernel_size=self.config.kernel_size) or None

    @abc.abstractmethod
    def targets(
        self, example: PersonExample
    ) -> tuple[Float[Array, "b h w k"], Bool[Array, "b k"]]:
        """Returns the target maps, and which of them count in the loss."""

    def preview(self, example: PersonExample) -> dict[str, Array]:
        maps, counted = self.targets(example)
        return {
            **super().preview(example),
            "targets": maps * counted[:, None, None, :],
        }

    def unmirrored(self, maps: Float[Array, "b h w k"]) -> Float[Array, "b h w k"]:
        """Mirrors maps of a mirrored crop back, and exchanges left and right channels."""
        return keypoints.swap(maps[:, :, ::-1], self.keypoints, axis=-1)

    def unmirrored_fields(
        self, fields: Float[Array, "b h w k 2"]
    ) -> Float[Array, "b h w k 2"]:
        """As `unmirrored`, for offsets (x, y), whose x changes its sign."""
        fields = keypoints.swap(fields[:, :, ::-1], self.keypoints, axis=-2)
        return fields * jnp.array([-1.0, 1.0]).reshape(1, 1, 1, 1, 2)

    def both_views(self, maps, fields, mirrored_maps, mirrored_fields):
        """Averages probabilities and offsets with those of the mirrored crop; offsets are
        weighted by their probability."""
        mirrored_maps = self.unmirrored(mirrored_maps)
        mirrored_fields = self.unmirrored_fields(mirrored_fields)
        weight = jnp.stack([maps, mirrored_maps])[..., None]
        both = weight * jnp.stack([fields, mirrored_fields])
        weights = jnp.maximum(weight.sum(0), jnp.finfo(maps.dtype).tiny)
        return 0.5 * (maps + mirrored_maps), both.sum(0) / weights

    def shown(self, output: Any) -> dict[str, Array]:
        return {"heatmaps": output}


def shifted(maps: Float[Array, "b h w k"]) -> Float[Array, "b h w k"]:
    """Moves maps right by one pixel, to undo the shift of mirroring with "stride"."""
    return jnp.concatenate([maps[:, :, :1], maps[:, :, :-1]], 2)
