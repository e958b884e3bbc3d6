"""Detection and pose estimation of an image as one jitted function.

    canvas -> boxes -> box-NMS -> the best `slots` of them -> crops of the same canvas
           -> poses -> scores -> OKS-NMS -> people, the best first

The order and the default thresholds are MultiPose's (Papandreou et al., arXiv:1701.01779);
the pose method may be any. All shapes are fixed: the function is traced once per canvas
size, however many people there are.

People are cropped from the detector's canvas, which is the image reduced by an integer
factor until it fits in a bucket. `pose-jax eval --boxes` crops them from the image itself,
which has more detail where no bucket holds the image at full size.
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
from pose_jax.types import Inputs, Leaf, Method, Poses, Variables

Rescoring: TypeAlias = Literal["pose", "box", "product"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class People:
    """People in each of b images, in n slots; image frame, the best pose first.

    Attributes:
      points_xy: keypoints.
      keypoint_scores: score of each keypoint.
      score: score of the pose, after rescoring.
      boxes_xyxy: detected boxes.
      box_scores: scores of the boxes.
      valid: which slots hold a person; the contents of others are undefined.
      overflow: number of boxes after box-NMS that did not fit into the slots.
      row: number of the image.
    """

    points_xy: Float[Leaf, "b n k 2"]
    keypoint_scores: Float[Leaf, "b n k"]
    score: Float[Leaf, "b n"]
    boxes_xyxy: Float[Leaf, "b n 4"]
    box_scores: Float[Leaf, "b n"]
    valid: Bool[Leaf, "b n"]
    overflow: Int32[Leaf, " b"]
    row: Int32[Leaf, " b"]


def find_people(
    detector: Method,
    pose: Method,
    *,
    slots: int = 32,
    box_nms: float = 0.6,
    oks_nms: float | None = 0.5,
    rescoring: Rescoring | None = None,
) -> Callable[[Variables, Variables, Inputs], People]:
    """Combines a detector and a pose method into one function.

    Args:
      detector: predicts boxes of canvases.
      pose: predicts a pose for each box.
      slots: maximum number of boxes per image, the best, for which poses are predicted.
      box_nms: IoU above which the box of lower score is dropped.
      oks_nms: OKS above which the pose of lower score is dropped; the area of a pose is
        that of its box. None keeps all.
      rescoring: score by which people are ranked: "pose", the mean of the keypoint scores
        (7); "box", the detector's score; "product" of both. None: the pose method's own
        `Poses.score`: as configured in MultiPose; box score times mean keypoint score
        above a threshold in DARK; the box score in DeepPose, whose keypoints have none.

    Returns:
      A jitted function of (the detector's variables, the pose method's, canvases of images)
      to People. Rows with `valid` False have no people.

    Raises:
      ConfigError: detector and pose method are exchanged, or an invalid option.
    """
    _check(detector, pose, slots, box_nms, oks_nms, rescoring)
    system = _System(detector, pose, slots, box_nms, oks_nms, rescoring)
    return jax.jit(system.people)


def _check(detector, pose, slots, box_nms, oks_nms, rescoring) -> None:
    if detector.keypoints is not None:
        raise ConfigError(
            f"method {detector.name!r} is no detector: it takes one person box at a time."
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
            f"OKS-NMS needs sigmas; keypoint set {pose.keypoints.name!r} has none. Set "
            "oks_nms to None."
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
        """Selects n of the m boxes of one image; also returns how many more there are."""
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
        """Returns the people of one image, in the fields of `People` up to `valid`."""
        boxes_xyxy, box_scores, used = boxes
        # Empty slots use the whole image, since a crop needs a box with an extent.
        crop_xyxy = jnp.where(used[:, None], boxes_xyxy, whole_xyxy[None])

        def of_box(box_xyxy, box_score, valid):
            # The canvas is shared by all boxes; it is not copied by vmap.
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

        poses: Poses = jax.vmap(of_box)(crop_xyxy, box_scores, used)
        score = self._score(poses, box_scores)
        valid = used
        if self.oks_nms is not None:
            areas = jnp.prod(crop_xyxy[:, 2:] - crop_xyxy[:, :2], axis=-1)
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
