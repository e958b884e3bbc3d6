"""What every method that looks at one person's crop shares.

A box becomes a crop of the canvas, the network answers for the crop (and for its mirror
image), the answer is decoded to points of the crop, and these go back to the image frame.
A method adds what its network's output means: `loss_of`, `decode`, `mirror`, `score`.

Frames: boxes, canvases and labels come in the image frame; examples and what the hooks see
are in the frame of the network's input. b rows, k keypoints, m other people in reach.
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
import numpy as np
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

# ImageNet's, of values in [0, 1]; [b, h, w, 3].
_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 1, 3)
_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 1, 3)


def evaluated(default: Any) -> Any:
    """A field of a Config that evaluation may vary without training again."""
    return dataclasses.field(default=default, metadata=NO_RETRAINING)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A network: `models.build(name, k, norm=..., dtype=..., **options)`."""

    name: str
    norm: Literal["batch", "frozen", "group"] = "batch"
    dtype: Literal["float32", "bfloat16"] = "float32"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PersonExample:
    """What a network learns from: crops, and labels in the frame of the crop.

    Attributes:
      images: normalised.
      points_xy, visibility: of the person.
      valid: False for padding rows.
      others_xy, others_visibility: of other people, if the view asks for them.
    """

    images: Float[Array, "b h w 3"]
    points_xy: Float[Array, "b k 2"]
    visibility: Int32[Array, "b k"]
    valid: Bool[Array, " b"]
    others_xy: Float[Array, "b m k 2"]
    others_visibility: Int32[Array, "b m k"]


@dataclasses.dataclass(frozen=True, eq=False)
class TopDown(abc.ABC):
    """A method on crops of one person; a subclass says what the network's output means.

    Attributes:
      config: the subclass's `Config`; it has at least the fields `model`, `input_size`,
        `padding`, `reach`, `flip_test`, `decoder` and `augment`.
      keypoints: the keypoint set.

    Class attributes of a subclass: `name`, `Config`, `outputs` (what its network has to
    give, see `models.Network`), `decoders`, and `panels`.
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
        """Raises ConfigError for options that cannot be."""
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
        """The loss of a batch, and parts of it to log.

        Args:
          outputs: all supervised outputs of the network, the final one last.
          example: of `prepare`.
        """

    def activate(self, output: Any) -> Any:
        """The network's output as decoders take it."""
        return output

    @abc.abstractmethod
    def mirror(self, output: Any, mirrored: Any) -> Any:
        """One answer of two: for the crop, and for its mirror image as it comes."""

    @abc.abstractmethod
    def decode(self, output: Any) -> tuple[Array, Array]:
        """Points [b, k, 2] in the input frame and keypoint scores [b, k]."""

    def score(self, box_score: Array, keypoint_scores: Array) -> Array:
        """Scores of poses [b]."""
        return box_score * keypoint_scores.mean(-1)

    def shown(self, output: Any) -> dict[str, Array]:
        """Of the output, what the panels draw."""
        return {}

    # ------------------------------------------------------------- view and network

    @functools.cached_property
    def view(self) -> PersonView:
        return PersonView(
            size=self.config.input_size,
            padding=self.config.padding,
            alignment=getattr(self.config, "alignment", "stride"),
            reach=self.config.reach,
        )

    @functools.cached_property
    def model(self) -> nn.Module:
        model = self.config.model
        return models.build(
            model.name,
            len(self.keypoints),
            norm=model.norm,
            dtype=jnp.dtype(model.dtype),
            **model.options,
        )

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("pose", self.init, self.prepare, self.loss, self.preview),)

    def init(self, key: Key) -> dict[str, Any]:
        """A phase's {"params", "batch_stats"}."""
        w, h = self.view.size
        try:
            variables = self.model.init(key, jnp.zeros((1, h, w, 3)), train=True)
        except ValueError as error:  # A size, or an option, that the network refuses.
            raise ConfigError(
                f"config.method: {self.config.model.name!r} with input_size ({w}, {h}): "
                f"{error}"
            ) from error
        return {"batch_stats": {}, **variables}

    def network(self, weights: Mapping[str, Any], images: Float[Array, "b h w 3"]):
        """What the network answers, the flip test included.

        Args:
          weights: of one phase.
          images: normalised crops.
        """
        output = self._answer(weights, images)
        if self.config.flip_test == "none":
            return output
        return self.mirror(output, self._answer(weights, images[:, :, ::-1]))

    def _answer(self, weights, images):
        weights = {name: weights[name] for name in ("params", "batch_stats")}
        return self.activate(self.model.apply(weights, images, train=False))

    def crop(self, inputs: Inputs):
        """The whole person as at evaluation: images in [0, 1], and image -> input."""
        center_xy, size = geometry.person_box(
            inputs.box_xyxy, aspect=self.view.aspect, padding=self.view.padding
        )
        return crop(self.view, inputs, center_xy, size)

    # ------------------------------------------------------------------- training

    def prepare(
        self, variables: Variables, batch: Batch, key: Key | None
    ) -> PersonExample:
        """The whole person, augmented if there is a key; see `types.Phase`."""
        del variables  # No earlier phase, no constants.
        return self.example(batch, key)

    def example(self, batch: Batch, key: Key | None) -> PersonExample:
        """The crop of each person, augmented if there is a key, and its labels there."""
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
            images=normalise(images),
            points_xy=points_xy,
            visibility=visibility,
            valid=inputs.valid,
            others_xy=others_xy,
            others_visibility=others_visibility,
        )

    def _in_input(self, points_xy, visibility, image_to_input, flip):
        """Labels in the frame of the input, under the names that they have there."""
        points_xy = jnp.where((visibility > 0)[..., None], points_xy, 0)
        points_xy = geometry.transform_points(points_xy, image_to_input)
        if flip is None:
            return points_xy, visibility
        return mirror_names(points_xy, visibility, flip, self.keypoints)

    def loss(
        self, params: Params, model_state: ModelState, example: Any, key: Key
    ) -> tuple[Array, tuple[ModelState, dict[str, Mean]]]:
        """The network on an example; see `types.Phase`."""
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
        """Pictures of an example; see `types.Phase`."""
        return {
            "input": denormalise(example.images),
            "points_xy": example.points_xy,
            "visibility": example.visibility,
        }

    # ----------------------------------------------------------------- prediction

    @property
    def decoder_name(self) -> str:
        return self.config.decoder

    @property
    def decoder(self) -> Decoder:
        """The one that the config names."""
        return self.decoders[self.decoder_name]

    def _run(self, variables: Variables, inputs: Inputs):
        images, image_to_input = self.crop(inputs)
        output = self.network(variables["pose"], normalise(images))
        points_xy, scores = self.decode(output)
        return images, output, points_xy, scores, image_to_input

    def predict(self, variables: Variables, inputs: Inputs) -> Poses:
        """Poses in the image frame."""
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
        """Crops, decoded points in their frame, and what the panels draw."""
        images, output, points_xy, scores, _ = self._run(variables, inputs)
        return {
            "input": images,
            **self.shown(output),
            "points_xy": points_xy,
            "keypoint_scores": scores,
        }


def normalise(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Values in [0, 1] to what the networks take: ImageNet's mean 0, deviation 1."""
    return (images - _MEAN) / _STD


def denormalise(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """The inverse of `normalise`, for pictures: values in [0, 1]."""
    return jnp.clip(images * _STD + _MEAN, 0, 1)


def crop(
    view: PersonView, inputs: Inputs, center_xy, size, rotation_deg=0.0, flip=False
):
    """The network's view of boxes in the image frame.

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
    """Points in the image frame; what is not labelled may be anything, NaN included."""
    return jnp.where(labels.visibility[..., None] > 0, labels.points_xy, 0)


def mirror_names(points_xy, visibility, flip, keypoint_set: keypoints.KeypointSet):
    """Exchanges left and right in the rows that are mirrored.

    Args:
      points_xy: [b, k, 2], or of several people a row, [b, m, k, 2].
      visibility: [b, k], or [b, m, k].
      flip: [b], which rows.
    """

    def exchange(values, axis):
        rows = flip.reshape(-1, *(1 for _ in values.shape[1:]))
        return jnp.where(rows, keypoints.swap(values, keypoint_set, axis=axis), values)

    return exchange(points_xy, -2), exchange(visibility, -1)


def mean_above(scores: Float[Array, "b k"], threshold: float) -> Float[Array, " b"]:
    """The mean of the keypoint scores above a threshold; 0 where there is none."""
    counted = scores > threshold
    return jnp.sum(jnp.where(counted, scores, 0), 1) / jnp.maximum(counted.sum(1), 1)
