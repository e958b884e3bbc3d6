"""A photograph in, people out: a detector and a pose method as one jitted function.

    canvas -> boxes -> box-NMS -> the best `slots` of them -> crops of the same canvas
           -> poses -> scores -> OKS-NMS -> people, the best first

The order, and the thresholds that are the defaults, are MultiPose's (Papandreou et al.,
arXiv:1701.01779); the pose method may be any. Everything has fixed shapes: it is traced
once a canvas size, however many people there are.

People are cut from the canvas that the detector saw, the image reduced by a whole number
until it fits in a bucket. `pose-jax eval --boxes` cuts them from the image itself: where
no bucket holds an image as it is, that sees more of small people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from pose_jax import nms
from pose_jax.errors import ConfigError
from pose_jax.types import Inputs, Method, Poses, Variables

Rescoring: TypeAlias = Literal["pose", "box", "product"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class People:
    """Who is in each of b images, in n slots; image frame, the best pose first.

    Attributes:
      points_xy: keypoints.
      keypoint_scores: of each.
      score: of the pose, after rescoring.
      boxes_xyxy: what the detector found the person in.
      box_scores: its scores.
      valid: which slots hold a person; what is in the others means nothing.
      overflow: boxes that were left after box-NMS and had no slot.
      row: number of the image.
    """

    points_xy: Float[Array, "b n k 2"]
    keypoint_scores: Float[Array, "b n k"]
    score: Float[Array, "b n"]
    boxes_xyxy: Float[Array, "b n 4"]
    box_scores: Float[Array, "b n"]
    valid: Bool[Array, "b n"]
    overflow: Int32[Array, " b"]
    row: Int32[Array, " b"]


def find_people(
    detector: Method,
    pose: Method,
    *,
    slots: int = 32,
    box_nms: float = 0.6,
    oks_nms: float | None = 0.5,
    rescoring: Rescoring | None = None,
) -> Callable[[Variables, Variables, Inputs], People]:
    """One function of a detector and a pose method.

    Args:
      detector: gives boxes of canvases.
      pose: gives a pose of a box.
      slots: so many boxes of an image, the best, become poses.
      box_nms: IoU above which the worse of two boxes goes.
      oks_nms: OKS above which the worse of two poses goes; the area of a pose is that of
        its box. None keeps all.
      rescoring: what people are ranked by: "pose", the mean of the keypoints' scores (7);
        "box", the detector's score; "product" of both. None: the pose method's own
        `Poses.score`, which MultiPose has from its config, DARK multiplies (of keypoints
        above a threshold), and DeepPose, whose keypoints have no scores, takes from the
        box.

    Returns:
      (the detector's variables, the pose method's, canvases of images) to People, jitted.
      Rows with `valid` False hold nobody.

    Raises:
      ConfigError: methods in each other's place, or an option that cannot be.
    """
    _check(detector, pose, slots, box_nms, oks_nms, rescoring)
    system = _System(detector, pose, slots, box_nms, oks_nms, rescoring)
    return jax.jit(system.people)


def _check(detector, pose, slots, box_nms, oks_nms, rescoring) -> None:
    if detector.keypoints is not None:
        raise ConfigError(
            f"method {detector.name!r} is no detector: it sees one person's box at a time."
        )
    if pose.keypoints is None:
        raise ConfigError(f"method {pose.name!r} is a detector and gives no poses.")
    if slots < 1:
        raise ConfigError(f"slots must be at least 1; got {slots}.")
    for name, value in (("box_nms", box_nms), ("oks_nms", oks_nms)):
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{name} is an overlap in [0, 1]; got {value}.")
    if rescoring not in (None, *get_args(Rescoring)):
        raise ConfigError(
            f"rescoring is one of {', '.join(get_args(Rescoring))}; got {rescoring!r}."
        )
    if oks_nms is not None and pose.keypoints.sigmas is None:
        raise ConfigError(
            f"OKS-NMS needs sigmas; keypoint set {pose.keypoints.name!r} has none. Do "
            "without: oks_nms None."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _System:
    """`find_people` with its options."""

    detector: Method
    pose: Method
    slots: int
    box_nms: float
    oks_nms: float | None
    rescoring: Rescoring | None

    def people(
        self, detector_variables: Variables, pose_variables: Variables, inputs: Inputs
    ) -> People:
        boxes = self.detector.predict(detector_variables, inputs)
        *chosen, overflow = jax.vmap(self._best_boxes)(
            boxes.boxes_xyxy, boxes.scores, boxes.valid, inputs.valid
        )
        people = jax.vmap(self._of_image, in_axes=(None, 0, 0, 0, 0, 0))(
            pose_variables,
            inputs.images,
            inputs.canvas_to_image,
            inputs.box_xyxy,
            inputs.row,
            tuple(chosen),
        )
        return People(*people, overflow=overflow, row=inputs.row)

    def _best_boxes(self, boxes_xyxy, scores, valid, image_valid):
        """[m] boxes of one image -> [n] of them, and how many more there are."""
        keep = nms.box_nms(
            boxes_xyxy, scores, threshold=self.box_nms, valid=valid & image_valid
        )
        count = min(self.slots, scores.size)
        _, index = jax.lax.top_k(jnp.where(keep, scores, -jnp.inf), count)
        return (
            boxes_xyxy[index],
            scores[index],
            keep[index],
            jnp.maximum(jnp.sum(keep, dtype=jnp.int32) - count, 0),
        )

    def _of_image(self, variables, image, canvas_to_image, whole_xyxy, row, boxes):
        """The people of one image, in the fields of `People` up to `valid`."""
        boxes_xyxy, box_scores, used = boxes
        # An empty slot looks at the whole image: no box without extent is ever cut.
        looked_at_xyxy = jnp.where(used[:, None], boxes_xyxy, whole_xyxy[None])

        def of_box(box_xyxy, box_score, valid):
            # The canvas is the same for all boxes: mapped over, it is not copied.
            inputs = Inputs(
                images=image[None],
                canvas_to_image=canvas_to_image[None],
                box_xyxy=box_xyxy[None],
                box_score=box_score[None],
                valid=valid[None],
                row=row[None],
            )
            poses = self.pose.predict(variables, inputs)
            return jax.tree.map(lambda leaf: leaf[0], poses)

        poses: Poses = jax.vmap(of_box)(looked_at_xyxy, box_scores, used)
        score = self._score(poses, box_scores)
        valid = used
        if self.oks_nms is not None:
            areas = jnp.prod(looked_at_xyxy[:, 2:] - looked_at_xyxy[:, :2], axis=-1)
            valid = nms.oks_nms(
                poses.points_xy,
                score,
                areas,
                self.pose.keypoints.sigmas,
                threshold=self.oks_nms,
                valid=used,
            )
        order = jnp.argsort(jnp.where(valid, -score, jnp.inf), stable=True)
        fields = (poses.points_xy, poses.keypoint_scores, score, boxes_xyxy, box_scores)
        return jax.tree.map(lambda leaf: leaf[order], (*fields, valid))

    def _score(self, poses: Poses, box_scores: Array) -> Array:
        means = poses.keypoint_scores.mean(-1)
        return {
            None: poses.score,
            "pose": means,
            "box": box_scores,
            "product": box_scores * means,
        }[self.rescoring]
