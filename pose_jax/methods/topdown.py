"""Base class of methods on crops of one person.

A box becomes a crop of the canvas, the network is applied to the crop (and its mirror
image), the output is decoded to points of the crop, and these are mapped to the image
frame. A method defines the meaning of the output: `loss_of`, `decode`, `mirror`, `score`.

Frames: boxes, canvases and labels are in the image frame; examples and arguments of hooks
are in the frame of the network's input. b rows, k keypoints, m other people nearby.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from pose_jax import geometry, keypoints, models
from pose_jax.errors import ConfigError, did_you_mean
from pose_jax.keypoints import KeypointSet
from pose_jax.methods import augment
from pose_jax.types import (
    NO_RETRAINING,
    Batch,
    Decoder,
    Inputs,
    Key,
    Mean,
    ModelState,
    Panel,
    Params,
    PersonLabels,
    PersonView,
    Phase,
    Poses,
    Variables,
)


def evaluated(default: Any) -> Any:
    """Declares a field of a Config that can be changed without retraining."""
    return dataclasses.field(default=default, metadata=NO_RETRAINING)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A network: `models.build(name, k, norm=..., dtype=..., **options)`.

    Attributes:
      name: of the network.
      norm: see `models.build`; None: the network's default, "batch" for most.
      dtype: of the computation.
      options: other attributes of the network.
    """

    name: str
    norm: Literal["batch", "frozen", "group", "none"] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, *args: int, **options: Any) -> nn.Module:
        """Calls `models.build` with these and further arguments."""
        if self.norm is not None:
            options["norm"] = self.norm
        dtype = jnp.dtype(self.dtype)
        return models.build(self.name, *args, dtype=dtype, **options, **self.options)

    @property
    def pixels(self) -> models.Pixels:
        """The normalization of the network's input."""
        return models.entry(self.name).pixels

    @property
    def heads(self) -> Mapping[str, tuple[int, ...]]:
        """The parameters with channels of keypoints, see `models.Network`."""
        return models.entry(self.name).heads


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PersonExample:
    """Training example: crops, and labels in the frame of the crop.

    Attributes:
      images: normalized crops.
      points_xy, visibility: keypoints of the person.
      valid: False for padding rows.
      others_xy, others_visibility: those of other people, if the view has any.
    """

    images: Float[Array, "b h w 3"]
    points_xy: Float[Array, "b k 2"]
    visibility: Int32[Array, "b k"]
    valid: Bool[Array, " b"]
    others_xy: Float[Array, "b m k 2"]
    others_visibility: Int32[Array, "b m k"]


@dataclasses.dataclass(frozen=True, eq=False)
class TopDown(abc.ABC):
    """A method on crops of one person; subclasses define the meaning of the output.

    Attributes:
      config: the subclass's `Config`; it has at least the fields `model`, `input_size`,
        `padding`, `reach`, `flip_test`, `decoder` and `augment`.
      keypoints: the keypoint set.

    Class attributes of a subclass: `name`, `Config`, `outputs` (the required kind of
    network outputs, see `models.Network`), `decoders`, and `panels`.
    """

    config: Any
    keypoints: KeypointSet

    name: ClassVar[str]
    Config: ClassVar[type]
    outputs: ClassVar[str]
    decoders: ClassVar[Mapping[str, Decoder]]
    panels: ClassVar[tuple[Panel, ...]] = ()
    input_words: ClassVar[str] = "the network's output"

    def __post_init__(self) -> None:
        """Raises ConfigError for invalid options."""
        name = self.decoder_name
        if name not in self.decoders:
            raise ConfigError(
                f"no decoder {name!r}; there are {list(self.decoders)}."
                + did_you_mean(name, self.decoders)
            )
        _ = self.model

    # ------------------------------------------------------------------ the hooks

    @abc.abstractmethod
    def loss_of(
        self, outputs: tuple[Any, ...], example: Any
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the loss of a batch, and parts of it to log.

        Args:
          outputs: all supervised outputs of the network, the final one last.
          example: result of `prepare`.
        """

    def activate(self, output: Any) -> Any:
        """Converts the network's output to the input of decoders."""
        return output

    @abc.abstractmethod
    def mirror(self, output: Any, mirrored: Any) -> Any:
        """Combines outputs for the crop and for its mirror image (not mirrored back)."""

    @abc.abstractmethod
    def decode(self, output: Any) -> tuple[Array, Array]:
        """Returns points [b, k, 2] in the input frame and keypoint scores [b, k]."""

    def score(self, box_score: Array, keypoint_scores: Array) -> Array:
        """Returns scores of poses [b]."""
        return box_score * keypoint_scores.mean(-1)

    def shown(self, output: Any) -> dict[str, Array]:
        """Returns the arrays of the output that panels draw."""
        return {}

    @property
    def assumed_sigma(self) -> float | None:
        """Width of the heatmaps' peaks that the decoder assumes, in their pixels; None: it
        assumes none."""
        return None

    # ------------------------------------------------------------- view and network

    @functools.cached_property
    def view(self) -> PersonView:
        return PersonView(
            size=self.config.input_size,
            padding=self.config.padding,
            alignment=self.alignment,
            reach=self.config.reach,
        )

    @property
    def alignment(self) -> geometry.Alignment:
        """Of crops and maps, see `geometry`."""
        return getattr(self.config, "alignment", "stride")

    @functools.cached_property
    def model(self) -> nn.Module:
        return self.config.model.build(len(self.keypoints))

    @property
    def pixels(self) -> models.Pixels:
        """The normalization of the network's input."""
        return self.config.model.pixels

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(
                "pose", self.init, self.prepare, self.loss, self.preview,
                heads=self.config.model.heads,
            ),
        )  # fmt: skip

    def init(self, key: Key) -> dict[str, Any]:
        """Returns a phase's {"params", "batch_stats"}."""
        w, h = self.view.size
        try:
            variables = self.model.init(key, jnp.zeros((1, h, w, 3)), train=True)
        except ValueError as error:  # A size or option that the network rejects.
            raise ConfigError(
                f"config.method: {self.config.model.name!r} with input_size ({w}, {h}): "
                f"{error}"
            ) from error
        return {"batch_stats": {}, **variables}

    def network(self, weights: Mapping[str, Any], images: Float[Array, "b h w 3"]):
        """Runs the network, including the flip test.

        Args:
          weights: variables of one phase.
          images: normalized crops.
        """
        output = self._answer(weights, images)
        if self.config.flip_test == "none":
            return output
        return self.mirror(output, self._answer(weights, images[:, :, ::-1]))

    def _answer(self, weights, images):
        weights = {name: weights[name] for name in ("params", "batch_stats")}
        return self.activate(self.model.apply(weights, images, train=False))

    def crop(self, inputs: Inputs):
        """Crops people as at evaluation: images in [0, 1], and image -> input."""
        center_xy, size = geometry.person_box(
            inputs.box_xyxy, aspect=self.view.aspect, padding=self.view.padding
        )
        return crop(self.view, inputs, center_xy, size)

    # ------------------------------------------------------------------- training

    def prepare(
        self, variables: Variables, batch: Batch[PersonLabels], key: Key | None
    ) -> PersonExample:
        """Crops the whole person, augmented if there is a key; see `types.Phase`."""
        del variables  # No earlier phase, no constants.
        return self.example(batch, key)

    def example(self, batch: Batch[PersonLabels], key: Key | None) -> PersonExample:
        """Returns the crop of each person, augmented if there is a key, and its labels."""
        inputs, labels, view = batch.inputs, batch.labels, self.view
        config = self.config.augment
        if key is None:
            images, image_to_input = self.crop(inputs)
            flip = None
        else:
            draw = augment.draw(key, batch.epoch, inputs.row, config)
            center_xy, size = geometry.person_box(
                inputs.box_xyxy, aspect=view.aspect, padding=view.padding
            )
            center_xy, size = augment.view(
                center_xy, size, labels.points_xy, labels.visibility,
                draw, self.keypoints, config,
            )  # fmt: skip
            images, image_to_input = crop(
                view, inputs, center_xy, size, draw.rotation_deg, draw.flip
            )
            images = augment.colour(images, draw.colour)
            flip = draw.flip
        b, m = labels.others_visibility.shape[:2]
        to_input_of_others = jnp.broadcast_to(image_to_input[:, None], (b, m, 2, 3))
        points_xy, visibility = self._in_input(
            labels.points_xy, labels.visibility, image_to_input, flip
        )
        others_xy, others_visibility = self._in_input(
            labels.others_xy, labels.others_visibility, to_input_of_others, flip
        )
        return PersonExample(
            images=self.pixels.normalize(images),
            points_xy=points_xy,
            visibility=visibility,
            valid=inputs.valid,
            others_xy=others_xy,
            others_visibility=others_visibility,
        )

    def _in_input(self, points_xy, visibility, image_to_input, flip):
        """Maps labels to the frame of the input, with left and right exchanged by flips."""
        points_xy = jnp.where((visibility > 0)[..., None], points_xy, 0)
        points_xy = geometry.transform_points(points_xy, image_to_input)
        if flip is None:
            return points_xy, visibility
        return mirror_names(points_xy, visibility, flip, self.keypoints)

    def loss(
        self, params: Params, model_state: ModelState, example: Any, key: Key
    ) -> tuple[Array, tuple[ModelState, dict[str, Mean]]]:
        """Returns the loss of an example; see `types.Phase`."""
        outputs, updates = self.model.apply(
            {"params": params, "batch_stats": model_state["batch_stats"]},
            example.images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        total, parts = self.loss_of(outputs, example)
        count = jnp.sum(example.valid).astype(jnp.float32)
        means = {
            name: Mean(value * count, count)
            for name, value in {"loss": total, **parts}.items()
        }
        return total, ({"batch_stats": updates.get("batch_stats", {})}, means)

    def preview(self, example: Any) -> dict[str, Array]:
        """Returns images of an example; see `types.Phase`."""
        return {
            "input": self.pixels.denormalize(example.images),
            "points_xy": example.points_xy,
            "visibility": example.visibility,
        }

    # ----------------------------------------------------------------- prediction

    @property
    def decoder_name(self) -> str:
        return self.config.decoder

    @property
    def decoder(self) -> Decoder:
        """The decoder of the config."""
        return self.decoders[self.decoder_name]

    def of_crops(self, variables: Variables, images: Float[Array, "b h w 3"]):
        """Predicts the poses of crops in [0, 1], of the size of the network's input.

        Returns:
          The network's output, points [b, k, 2] in the input frame, and scores [b, k].
        """
        output = self.network(variables["pose"], self.pixels.normalize(images))
        return output, *self.decode(output)

    def _run(self, variables: Variables, inputs: Inputs):
        images, image_to_input = self.crop(inputs)
        output, points_xy, scores = self.of_crops(variables, images)
        return images, output, points_xy, scores, image_to_input

    def predict(self, variables: Variables, inputs: Inputs) -> Poses:
        """Predicts poses in the image frame."""
        _, _, points_xy, scores, image_to_input = self._run(variables, inputs)
        return Poses(
            points_xy=geometry.transform_points(
                points_xy, geometry.invert(image_to_input)
            ),
            keypoint_scores=scores,
            score=self.score(inputs.box_score, scores),
            valid=inputs.valid,
            row=inputs.row,
        )

    def inspect(self, variables: Variables, inputs: Inputs) -> dict[str, Array]:
        """Returns crops, decoded points in their frame, and the arrays that panels draw."""
        images, output, points_xy, scores, _ = self._run(variables, inputs)
        return {
            "input": images,
            **self.shown(output),
            "points_xy": points_xy,
            "keypoint_scores": scores,
        }


def crop(
    view: PersonView,
    inputs: Inputs,
    center_xy: Array,
    size: Array,
    rotation_deg: float | Array = 0.0,
    flip: bool | Array = False,
):
    """Crops boxes, given in the image frame, to network inputs.

    Returns:
      images in [0, 1], [b, h, w, 3], and the transform image -> input, [b, 2, 3].
    """
    image_to_input = geometry.crop_transform(
        center_xy,
        size,
        rotation_deg,
        output_size=view.size,
        alignment=view.alignment,
        flip=flip,
    )
    canvas_to_input = geometry.compose(image_to_input, inputs.canvas_to_image)
    images = geometry.warp(inputs.images, canvas_to_input, size=view.size)
    return images / 255, image_to_input


def labelled_points(labels: PersonLabels) -> Float[Array, "b k 2"]:
    """Returns points in the image frame, with 0 where they are not labeled (may be NaN)."""
    return jnp.where(labels.visibility[..., None] > 0, labels.points_xy, 0)


def mirror_names(points_xy, visibility, flip, keypoint_set: keypoints.KeypointSet):
    """Exchanges left and right in mirrored rows.

    Args:
      points_xy: [b, k, 2], or [b, m, k, 2] with several people per row.
      visibility: [b, k], or [b, m, k].
      flip: [b], the mirrored rows.
    """

    def exchange(values, axis):
        rows = flip.reshape(-1, *(1 for _ in values.shape[1:]))
        return jnp.where(rows, keypoints.swap(values, keypoint_set, axis=axis), values)

    return exchange(points_xy, -2), exchange(visibility, -1)


def mean_above(scores: Float[Array, "b k"], threshold: float) -> Float[Array, " b"]:
    """Returns the mean of the keypoint scores above a threshold; 0 if there are none."""
    counted = scores > threshold
    return jnp.sum(jnp.where(counted, scores, 0), 1) / jnp.maximum(counted.sum(1), 1)
