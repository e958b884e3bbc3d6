"""The types that pass between data, methods, trainer and evaluator.

A *method* predicts a pose from a canvas and a box (or boxes from a canvas). It is an object
with pure functions; it holds no parameters, no optimizer and no file. The trainer runs its
phases in order without knowing what they learn; the evaluator calls `predict`.

Frames: everything here is in the *image* frame (pixels of the original image, integer
centers, (x, y)), except `Inputs.images`, which are canvases: uint8 windows of an image,
with the transform from canvas pixels to image pixels. The network's own frame is only used
inside a method.

Axes: b rows, k keypoints, m other people nearby, n people of an image, H W canvas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8

from pose_jax.geometry import Alignment
from pose_jax.keypoints import KeypointSet

Key: TypeAlias = jax.Array
Params: TypeAlias = Mapping[str, Any]
ModelState: TypeAlias = Mapping[str, Any]
"""State that a step updates besides the parameters: `{"batch_stats": ...}`."""
Variables: TypeAlias = Mapping[str, Mapping[str, Any]]
"""`{phase name: {"params", "batch_stats", "constants"}}`: always an argument of a function,
never closed over, so that nothing retraces when weights change."""
Example: TypeAlias = Any
"""Output of a phase's `prepare` for a batch: a registered dataclass of the method."""
Sums: TypeAlias = Any
"""A pytree of arrays that may be added, leaf by leaf, over batches and devices."""
Leaf: TypeAlias = Any
"""A jax.Array inside of functions, a NumPy array on the host, or only its shape."""
Labels = TypeVar("Labels")
"""`PersonLabels` or `ImageLabels`, as the view; None for data without labels."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A weighted mean as total and weight. Means add; `compute` divides at the end.

    Correct under any batching, padding or sharding, because only sums are combined.
    """

    total: Float[Array, ...]
    weight: Float[Array, ...]

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> float:
        """Returns the mean on the host; NaN if the weight is 0."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else float("nan")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs at prediction time. Rows with `valid` False are padding."""

    images: UInt8[Leaf, "b H W 3"]
    canvas_to_image: Float[Leaf, "b 2 3"]
    box_xyxy: Float[Leaf, "b 4"]
    box_score: Float[Leaf, " b"]
    valid: Bool[Leaf, " b"]
    row: Int32[Leaf, " b"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PersonLabels:
    """Labels of rows that are one person each.

    Attributes:
      points_xy: keypoints; arbitrary where they are not labeled.
      visibility: COCO's: 0 not labeled, 1 hidden, 2 visible.
      area: area of the person, square pixels.
      others_xy: keypoints of other people in the same image, the nearest first.
      others_visibility: visibility of `others_xy`; 0 for padding.
    """

    points_xy: Float[Leaf, "b k 2"]
    visibility: Int32[Leaf, "b k"]
    area: Float[Leaf, " b"]
    others_xy: Float[Leaf, "b m k 2"]
    others_visibility: Int32[Leaf, "b m k"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageLabels:
    """Labels of rows that are one image each.

    Attributes:
      people_xyxy: boxes.
      people_kind: 0 none (padding), 1 person, 2 crowd region.
    """

    people_xyxy: Float[Leaf, "b n 4"]
    people_kind: Int32[Leaf, "b n"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch(Generic[Labels]):
    """Rows of one epoch. Randomness may depend on `epoch` and `row` only."""

    inputs: Inputs
    labels: Labels
    epoch: Int32[Leaf, ""]


@dataclasses.dataclass(frozen=True)
class PersonView:
    """One row is one person box.

    Attributes:
      size: (width, height) of the network input.
      padding: factor by which the box is enlarged at evaluation.
      keep_aspect: widen the box to the aspect of `size`; False stretches it (DeepPose's N).
      alignment: of crops, see `geometry`.
      reach: width of the canvas region that training uses, in padded boxes.
      max_others: number of other people of the image in each row.
    """

    size: tuple[int, int]
    padding: float = 1.25
    keep_aspect: bool = True
    alignment: Alignment = "stride"
    reach: float = 2.0
    max_others: int = 0

    @property
    def aspect(self) -> float | None:
        """Width over height of the crops; None keeps the boxes' own."""
        return self.size[0] / self.size[1] if self.keep_aspect else None


@dataclasses.dataclass(frozen=True)
class ImageView:
    """One row is one image.

    Attributes:
      size: (short, long) side that the image is resized to fit in.
      buckets: canvas sizes (width, height); an image goes to the smallest it fits in.
      max_people: maximum number of boxes per image.
    """

    size: tuple[int, int]
    buckets: tuple[tuple[int, int], ...]
    max_people: int
    alignment: ClassVar[Literal["stride"]] = "stride"


View: TypeAlias = PersonView | ImageView


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Poses:
    """A pose per row, in the image frame. `row` is the row of the Table."""

    points_xy: Float[Leaf, "b k 2"]
    keypoint_scores: Float[Leaf, "b k"]
    score: Float[Leaf, " b"]
    valid: Bool[Leaf, " b"]
    row: Int32[Leaf, " b"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Boxes:
    """Boxes per image, in the image frame; `valid` marks the slots in use."""

    boxes_xyxy: Float[Leaf, "b n 4"]
    scores: Float[Leaf, "b n"]
    valid: Bool[Leaf, "b n"]
    row: Int32[Leaf, " b"]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """A pass over the training set before a phase.

    Attributes:
      measure: sums of one batch (jitted); they add over batches and devices.
      finish: computes the phase's "constants", kept in its checkpoint, from all sums.
    """

    measure: Callable[[Variables, Batch], Sums]
    finish: Callable[[Sums], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One run of one optimizer.

    Attributes:
      name: "pose"; "stage_1", "stage_2"; "detector".
      init: maps a key to this phase's {"params", "batch_stats"}; `constants` come from
        `statistics`.
      prepare: augments (unless key is None), warps, normalizes; labels in the input frame.
        The only place that resamples pixels. `variables` holds the finished phases and
        this one's constants.
      loss: (params, model state, example, key) to the loss and (new model state, Means by
        name). Renders its own targets.
      preview: returns images of an example: "input" [b,h,w,3] in [0,1], "points_xy" and
        "visibility" in the input frame, and "targets" [b,h,w,k] where there are maps.
      statistics: what to measure before this phase, if anything.
      starts_from: the earlier phase whose weights (their average, if there is one)
        initialize this phase; None: `init`.
      heads: the parameters with channels of keypoints, see `models.Network`.
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
    heads: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A decoder of network outputs.

    Attributes:
      fn: maps output arrays, and settings by keyword, to points [b, k, 2], scores [b, k].
      uses: fields of the method's Config that are passed as settings.
      inputs: the array arguments in order, name to axes.
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
    """A visualization of network outputs, for a PNG and a report.

    Attributes:
      file: name of the PNG, without extension.
      title: heading.
      caption: description, in whole sentences.
      draw: maps the output of `Method.inspect` (NumPy, leading axis n), the keypoint set
        and the alignment to n lists of (title, uint8 image), all of one length.
    """

    file: str
    title: str
    caption: str
    draw: Callable[
        [Mapping[str, np.ndarray], KeypointSet, str],
        Sequence[Sequence[tuple[str, np.ndarray]]],
    ]


NO_RETRAINING: Mapping[str, Any] = {"retrain": False}
"""Metadata of a Config's field that can be changed without retraining."""


class Method(Protocol):
    """A pose estimator or a detector.

    An implementation is a frozen dataclass (`eq=False`) of a config and a keypoint set. It
    is neither a pytree nor a static argument: its owner jits a bound method once.

    Attributes:
      name: name of the method, used for its results.
      outputs: kind of network outputs it needs, as in the registry of models.
      config: the method's section of a config.
      keypoints: the keypoint set; None for a detector.
      view: what one row is: a person or an image.
      phases: one for most methods; one per stage for DeepPose.
      decoders: decoders of the network's outputs, by name.
      panels: the visualizations of `inspect`.
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
        """Name of the decoder in use; this and the next two need `decoders`."""
        ...

    @property
    def decoder(self) -> Decoder: ...

    @property
    def input_words(self) -> str:
        """Describes the decoder's input, in words."""
        ...

    def predict(self, variables: Variables, inputs: Inputs) -> Any:
        """Predicts `Poses` or `Boxes` in the image frame."""
        ...

    def inspect(self, variables: Variables, inputs: Inputs) -> dict[str, Array]:
        """Returns inputs, maps and stages of a few rows, for visualization only."""
        ...
