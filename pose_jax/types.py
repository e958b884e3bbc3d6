"""The types that pass between data, methods, trainer and evaluator.

A *method* turns a canvas and a box into a pose (or a canvas into boxes). It is a bundle of
pure functions; it holds no parameters, no optimiser and no file. The trainer runs its
phases one after the other without knowing what they learn, the evaluator calls `predict`.

Frames: everything here is in the *image* frame (pixels of the original image, integer
centres, (x, y)), except `Inputs.images`, which are canvases: uint8 windows of an image,
with the transform that takes canvas pixels to image pixels. The network's own frame does
not leave a method.

Axes: b rows, k keypoints, m other people in reach, n people of an image, H W canvas.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
from jaxtyping import Array, Bool, Float, Int32, UInt8

from pose_jax.keypoints import KeypointSet

Key: TypeAlias = jax.Array
Params: TypeAlias = Mapping[str, Any]
ModelState: TypeAlias = Mapping[str, Any]
"""What a phase keeps beside its parameters: `{"batch_stats": ..., "constants": ...}`."""
Variables: TypeAlias = Mapping[str, Mapping[str, Any]]
"""`{phase name: {"params", "batch_stats", "constants"}}`: always an argument of a function,
never closed over, so that nothing retraces when weights change."""
Example: TypeAlias = Any
"""What a phase's `prepare` makes of a batch; private to the method."""
Sums: TypeAlias = Any
"""A pytree of arrays that may be added, leaf by leaf, over batches and devices."""


@typing.dataclass_transform(frozen_default=True)
def _pytree(cls):
    """A frozen dataclass whose fields are all array leaves."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=names, meta_fields=[])


@_pytree
class Mean:
    """A weighted mean under way. Means add; dividing is left to the very end.

    Correct under any batching, padding or sharding, because only sums travel.
    """

    total: Float[Array, ...]
    weight: Float[Array, ...]

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> float:
        """The mean on the host; NaN where nothing was counted."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else float("nan")


@_pytree
class Inputs:
    """What exists at prediction time. Rows with `valid` False are padding."""

    images: UInt8[Array, "b H W 3"]
    canvas_to_image: Float[Array, "b 2 3"]
    box_xyxy: Float[Array, "b 4"]
    box_score: Float[Array, " b"]
    valid: Bool[Array, " b"]
    row: Int32[Array, " b"]


@_pytree
class Labels:
    """What exists in training. `visibility` is COCO's: 0 not labelled, 1 hidden, 2 visible.

    `people_kind`: 0 none (padding), 1 person, 2 crowd region.
    """

    points_xy: Float[Array, "b k 2"]
    visibility: Int32[Array, "b k"]
    area: Float[Array, " b"]
    others_xy: Float[Array, "b m k 2"]
    others_visibility: Int32[Array, "b m k"]
    people_xyxy: Float[Array, "b n 4"]
    people_kind: Int32[Array, "b n"]


@_pytree
class Batch:
    """Rows of one epoch. `epoch` and `row` are all that randomness may depend on."""

    inputs: Inputs
    labels: Labels | None
    epoch: Int32[Array, ""]


@dataclasses.dataclass(frozen=True)
class PersonView:
    """One row is one person box.

    Attributes:
      size: (width, height) of the network input.
      padding: by how much the box is enlarged at evaluation.
      keep_aspect: widen the box to the aspect of `size`; False squeezes it (DeepPose's N).
      alignment: "stride" or "aligned", see `geometry.crop_transform`.
      reach: training may look this many padded boxes wide around the person.
      max_others: how many other people of the image come with each row.
    """

    size: tuple[int, int]
    padding: float = 1.25
    keep_aspect: bool = True
    alignment: Literal["stride", "aligned"] = "stride"
    reach: float = 2.0
    max_others: int = 0

    @property
    def aspect(self) -> float | None:
        """Width over height of the boxes that are cut; None leaves boxes as they are."""
        return self.size[0] / self.size[1] if self.keep_aspect else None


@dataclasses.dataclass(frozen=True)
class ImageView:
    """One row is one image.

    Attributes:
      size: (short, long) side that the image is resized to fit in.
      buckets: canvas sizes (width, height); an image goes to the smallest it fits in.
      max_people: room for this many boxes an image.
    """

    size: tuple[int, int]
    buckets: tuple[tuple[int, int], ...]
    max_people: int


View: TypeAlias = PersonView | ImageView


@_pytree
class Poses:
    """A pose per row, in the image frame. `row` leads back to the Table."""

    points_xy: Float[Array, "b k 2"]
    keypoint_scores: Float[Array, "b k"]
    score: Float[Array, " b"]
    valid: Bool[Array, " b"]
    row: Int32[Array, " b"]


@_pytree
class Boxes:
    """Boxes per image, in the image frame; `valid` marks the slots that are used."""

    boxes_xyxy: Float[Array, "b n 4"]
    scores: Float[Array, "b n"]
    valid: Bool[Array, "b n"]
    row: Int32[Array, " b"]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """A pass over the training set before a phase.

    Attributes:
      measure: jitted over one batch; its sums add over batches and devices.
      finish: turns all sums into the phase's "constants", kept in its checkpoint.
    """

    measure: Callable[[Variables, Batch], Sums]
    finish: Callable[[Sums], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One run of one optimiser.

    Attributes:
      name: "pose"; "stage_1", "stage_2"; "detector".
      init: a key to this phase's {"params", "batch_stats"}; `constants` come from
        `statistics`.
      prepare: augment (key None: do not), warp, normalise; labels into the input frame.
        The only place that resamples pixels. `variables` holds the finished phases and
        this one's constants.
      loss: (params, model state, example, key) to the loss and (new model state, a Mean by
        name). Renders its own targets.
      preview: an example to pictures of it: "input" [b,h,w,3] in [0,1], "points_xy" and
        "visibility" in the input frame, and "targets" [b,h,w,k] where there are maps.
      statistics: what to measure before this phase, if anything.
      starts_from: the earlier phase whose weights, averaged if there is an average, it
        starts with instead of `init`'s; None: from scratch.
    """

    name: str
    init: Callable[[Key], dict[str, Any]]
    prepare: Callable[[Variables, Batch, Key | None], Example]
    loss: Callable[
        [Params, ModelState, Example, Key],
        tuple[Array, tuple[ModelState, dict[str, Mean]]],
    ]
    preview: Callable[[Example], dict[str, Array]]
    statistics: Statistics | None = None
    starts_from: str | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A pose estimator or a detector.

    Attributes:
      name: what its results are called.
      view: what one row is.
      keypoints: the keypoint set; None for a detector.
      phases: one for DARK, MultiPose and the detector; one per stage for DeepPose.
      predict: weights and canvases to poses or boxes in the image frame; cascade, flip test
        and decoding are inside.
      inspect: input, maps, stages of a few rows, for pictures only.
    """

    name: str
    view: View
    keypoints: KeypointSet | None
    phases: tuple[Phase, ...]
    predict: Callable[[Variables, Inputs], Poses | Boxes]
    inspect: Callable[[Variables, Inputs], dict[str, Array]]
