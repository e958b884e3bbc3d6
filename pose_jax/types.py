"""The types that pass between data, methods, trainer and evaluator.

A *method* turns a canvas and a box into a pose (or a canvas into boxes). It is an object
with pure functions; it holds no parameters, no optimizer and no file. The trainer runs its
phases one after the other without knowing what they learn, the evaluator calls `predict`.

Frames: everything here is in the *image* frame (pixels of the original image, integer
centres, (x, y)), except `Inputs.images`, which are canvases: uint8 windows of an image,
with the transform that takes canvas pixels to image pixels. The network's own frame does
not leave a method.

Axes: b rows, k keypoints, m other people in reach, n people of an image, H W canvas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8

from pose_jax.keypoints import KeypointSet

Key: TypeAlias = jax.Array
Params: TypeAlias = Mapping[str, Any]
ModelState: TypeAlias = Mapping[str, Any]
"""What a step changes beside the parameters: `{"batch_stats": ...}`."""
Variables: TypeAlias = Mapping[str, Mapping[str, Any]]
"""`{phase name: {"params", "batch_stats", "constants"}}`: always an argument of a function,
never closed over, so that nothing retraces when weights change."""
Example: TypeAlias = Any
"""What a phase's `prepare` makes of a batch: a registered dataclass of the method."""
Sums: TypeAlias = Any
"""A pytree of arrays that may be added, leaf by leaf, over batches and devices."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """What exists at prediction time. Rows with `valid` False are padding."""

    images: UInt8[Array, "b H W 3"]
    canvas_to_image: Float[Array, "b 2 3"]
    box_xyxy: Float[Array, "b 4"]
    box_score: Float[Array, " b"]
    valid: Bool[Array, " b"]
    row: Int32[Array, " b"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PersonLabels:
    """Labels of rows that are one person each.

    Attributes:
      points_xy: keypoints; anything where they are not labelled.
      visibility: COCO's: 0 not labelled, 1 hidden, 2 visible.
      area: of the person, square pixels.
      others_xy: keypoints of other people in the same image, the nearest first.
      others_visibility: theirs; 0 where there is no such person.
    """

    points_xy: Float[Array, "b k 2"]
    visibility: Int32[Array, "b k"]
    area: Float[Array, " b"]
    others_xy: Float[Array, "b m k 2"]
    others_visibility: Int32[Array, "b m k"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageLabels:
    """Labels of rows that are one image each.

    Attributes:
      people_xyxy: boxes.
      people_kind: 0 none (padding), 1 person, 2 crowd region.
    """

    people_xyxy: Float[Array, "b n 4"]
    people_kind: Int32[Array, "b n"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one epoch. `epoch` and `row` are all that randomness may depend on."""

    inputs: Inputs
    labels: PersonLabels | ImageLabels | None
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
    alignment: ClassVar = "stride"


View: TypeAlias = PersonView | ImageView


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Poses:
    """A pose per row, in the image frame. `row` leads back to the Table."""

    points_xy: Float[Array, "b k 2"]
    keypoint_scores: Float[Array, "b k"]
    score: Float[Array, " b"]
    valid: Bool[Array, " b"]
    row: Int32[Array, " b"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
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
    """One run of one optimizer.

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
class Decoder:
    """A way to read what a network outputs.

    Attributes:
      fn: output arrays, and the settings by keyword, to points [b, k, 2] and scores [b, k].
      uses: fields of the method's Config that are its settings.
      inputs: its array arguments in order, name to axes.
    """

    fn: Callable[..., tuple[Array, Array]]
    uses: tuple[str, ...] = ()
    inputs: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"heatmaps": "b h w k"}
    )

    def __call__(self, config: Any, *arrays: Array) -> tuple[Array, Array]:
        """Decodes with the settings of a method's Config."""
        return self.fn(*arrays, **{name: getattr(config, name) for name in self.uses})


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture of what a network did with some inputs: for a PNG and for a report.

    Attributes:
      file: name of the PNG, without its ending.
      title: its heading.
      caption: what it shows, in whole sentences.
      draw: what `Method.inspect` returned, NumPy with leading axis n, the keypoint set and
        the alignment, to n lists of (title, uint8 picture), all of one length.
    """

    file: str
    title: str
    caption: str
    draw: Callable[
        [Mapping[str, np.ndarray], KeypointSet, str],
        Sequence[Sequence[tuple[str, np.ndarray]]],
    ]


NO_RETRAINING: Mapping[str, Any] = {"retrain": False}
"""Metadata of a Config's field that evaluation may vary without training again."""


class Method(Protocol):
    """A pose estimator or a detector.

    An implementation is a frozen dataclass (`eq=False`) of a config and a keypoint set. It
    is neither a pytree nor a static argument: its owner jits a bound method once.

    Attributes:
      name: what its results are called.
      outputs: what its network has to give, as the registry of models says it.
      config: its section of a config.
      keypoints: the keypoint set; None for a detector.
      view: what one row is.
      phases: one for most; one per stage for DeepPose.
      decoders: the ways to read its network, by name.
      panels: the pictures of `inspect`.
    """

    Config: Any
    name: str
    outputs: str
    config: Any
    keypoints: Any

    @property
    def view(self) -> PersonView | ImageView: ...

    @property
    def phases(self) -> tuple[Phase, ...]: ...

    @property
    def decoders(self) -> Mapping[str, Decoder]: ...

    @property
    def panels(self) -> tuple[Panel, ...]: ...

    @property
    def decoder_name(self) -> str:
        """The decoder in use; only where there are any, as are the next two."""
        ...

    @property
    def decoder(self) -> Decoder: ...

    @property
    def input_words(self) -> str:
        """What of the network's output the decoder gets, in words."""
        ...

    def predict(self, variables: Variables, inputs: Inputs) -> Any:
        """Weights and canvases to `Poses` or `Boxes` in the image frame."""
        ...

    def inspect(self, variables: Variables, inputs: Inputs) -> dict[str, Array]:
        """Input, maps, stages of a few rows, for pictures only."""
        ...
