"""The Table: the common representation of data sets, and the input of the readers.

NumPy columns in the image frame, and a reference to the encoded bytes of each image. A
Table keeps the float64 and int64 of the files; `readers` select and cast what goes to the
device. People of one image need not be adjacent.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from pose_jax.data import pixels as pixels_lib
from pose_jax.data.pixels import Exif
from pose_jax.errors import InputError
from pose_jax.keypoints import KeypointSet, matched


@dataclasses.dataclass(frozen=True)
class Record:
    """An encoded image in a packed store.

    Attributes:
      store: `store.read(index)` gives the bytes, in any thread; see `data.store`.
      index: index of the record.
    """

    store: Any
    index: int

    def __str__(self) -> str:
        return f"{self.store}: record {self.index}"

    def read(self) -> bytes:
        """The bytes of the image's file."""
        return self.store.read(self.index)


ImageRef = Path | Record | np.ndarray
"""A file of encoded bytes, a record that holds such a file, or decoded pixels uint8
[h, w, 3] (`predict` only)."""


def encoded(image: Path | Record) -> Path | io.BytesIO:
    """Returns what Pillow opens: a file, or its bytes."""
    return io.BytesIO(image.read()) if isinstance(image, Record) else image


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """People and images of one split.

    Attributes:
      name: data set and split, for display: "coco val2017".
      keypoints: the set that `points_xy` and `visibility` follow.
      images: [m] one reference per image.
      image_ids: [m] int64.
      image_sizes: [m, 2] int32, (width, height) as the annotation file says.
      image: [n] int32, the image number (index into `images`) of each person.
      ids: [n] int64 annotation ids; 0 for boxes without a label.
      boxes_xyxy: [n, 4] float64, (x, y, x + w, y + h).
      box_scores: [n] float64; 1 for ground truth.
      points_xy: [n, k, 2] float64; arbitrary where not labeled.
      visibility: [n, k] int32, COCO's 0/1/2.
      areas: [n] float64, COCO's segment area.
      crowd: [n] bool, regions of many people: ignored in training and in metrics.
      box_source: name of the source of boxes in metrics: "gt_boxes" (annotated),
        "joint_boxes" (the extent of the labeled joints), "torso_boxes" (FLIC's), "image"
        (all of it), "detections", "given_boxes".
      labelled: whether points and visibility are annotations; False for boxes only.
      centric: meaning of left and right, where a data set exists in both forms: "PC"
        (the person's) or "OC" (the observer's); shown in metrics. "" elsewhere.
      matched: if `keypoints` are only those that a model has by the same name, which ones
        are left out, in words; shown in metrics. "" elsewhere.
      category_id: id of people in the annotation file, for results in COCO's format.
      truth: for boxes without labels of a labeled split: the table of its labels; see
        `ground_truth`.
      exif: how the frame of the annotations follows from EXIF orientations, see
        `pixels.turns`.
      head_sizes: [n] float64, MPII's normalizer of PCKh, pixels; 0 where there is no
        head box. None for data sets without head boxes.
      notes: what users should know of how the files were read, one phrase each.
      on_error: what readers do with an image that cannot be read: "stop" or "skip", see
        `readers`.
    """

    name: str
    keypoints: KeypointSet
    images: tuple[ImageRef, ...]
    image_ids: np.ndarray
    image_sizes: np.ndarray
    image: np.ndarray
    ids: np.ndarray
    boxes_xyxy: np.ndarray
    box_scores: np.ndarray
    points_xy: np.ndarray
    visibility: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    box_source: str = "gt_boxes"
    labelled: bool = True
    centric: str = ""
    matched: str = ""
    category_id: int = 1
    exif: Exif = "auto"
    head_sizes: np.ndarray | None = None
    truth: Table | None = None
    notes: tuple[str, ...] = ()
    on_error: str = "stop"

    def __post_init__(self) -> None:
        n, m, k = len(self.image), len(self.images), len(self.keypoints)
        for name, shape in (
            ("image_ids", (m,)), ("image_sizes", (m, 2)), ("ids", (n,)),
            ("boxes_xyxy", (n, 4)), ("box_scores", (n,)), ("points_xy", (n, k, 2)),
            ("visibility", (n, k)), ("areas", (n,)), ("crowd", (n,)),
            ("head_sizes", (n,)),
        ):  # fmt: skip
            column = getattr(self, name)
            if column is not None and column.shape != shape:
                raise ValueError(
                    f"{self.name}: column {name} is {column.shape}; {n} "
                    f"people of {m} images with {k} keypoints need {shape}."
                )
        if n and not 0 <= self.image.min() <= self.image.max() < m:
            raise ValueError(f"{self.name}: a person is in none of the {m} images.")

    def __len__(self) -> int:
        return len(self.image)

    @property
    def ground_truth(self) -> Table | None:
        """The annotated people to evaluate predictions against, if there are any."""
        return self if self.labelled else self.truth

    def labelled_rows(self) -> np.ndarray:
        """Returns [r] int32: people with a labeled keypoint, an area and a nonempty box."""
        usable = self.has_box & (self.areas > 0)
        return np.flatnonzero(self._has_labels & usable).astype(np.int32)

    @property
    def has_box(self) -> np.ndarray:
        """[n] bool: people whose box has a width and a height."""
        return np.all(self.boxes_xyxy[:, 2:] > self.boxes_xyxy[:, :2], axis=1)

    @property
    def _has_labels(self) -> np.ndarray:
        return (self.visibility > 0).any(1) & ~self.crowd

    def remarks(self) -> list[str]:
        """Returns `notes`, and how many people are left out and why, one phrase each."""
        found = list(self.notes)
        truth = self.ground_truth
        if truth is None:
            return found
        labelled, used = truth._has_labels, truth.labelled_rows()
        out = labelled.sum() - len(used)
        if out:
            no_box = (labelled & ~truth.has_box).sum()
            left_out = "are left out of training and prediction, and " * (truth is self)
            found.append(
                f"{out} of {labelled.sum()} labeled people {left_out}count as missed in "
                f"AP: {no_box} have an empty box, {out - no_box} an area of 0 (`pose-jax "
                "data check` names them)"
            )
        return found

    def missing_images(self) -> list[Path]:
        """Returns the image files that do not exist; each folder is listed once."""
        paths = [image for image in self.images if isinstance(image, Path)]
        listed: dict[Path, set[str]] = {}
        for folder in {path.parent for path in paths}:
            try:
                listed[folder] = set(os.listdir(folder))
            except OSError:
                listed[folder] = set()
        unlisted = (path for path in paths if path.name not in listed[path.parent])
        return [path for path in unlisted if not path.is_file()]

    def people_of_image(self, image: int) -> np.ndarray:
        """Returns [r] int32: the rows of one image, in table order."""
        return self._rows_by_image[image]

    @functools.cached_property
    def _rows_by_image(self) -> list[np.ndarray]:
        order = np.argsort(self.image, kind="stable").astype(np.int32)
        cuts = np.searchsorted(self.image[order], np.arange(1, len(self.images)))
        return np.split(order, cuts)

    def matched_to(self, keypoints: KeypointSet) -> Table:
        """Returns the table with only the keypoints that another set has by the same name.

        Raises:
          InputError: there are none.
        """
        if self.keypoints == keypoints:
            return self
        chosen = matched(self.keypoints, keypoints)
        if not len(chosen):
            raise InputError(
                f"{self.name} has keypoint set {self.keypoints.name!r}, of which "
                f"{keypoints.name!r} has none by the same name."
            )
        which = [self.keypoints.names.index(name) for name in chosen.names]
        left_out = [
            f"; only in {each.name}: {', '.join(names)}"
            for each in (self.keypoints, keypoints)
            if (names := [name for name in each.names if name not in chosen.names])
        ]
        return dataclasses.replace(
            self,
            keypoints=chosen,
            points_xy=self.points_xy[:, which],
            visibility=self.visibility[:, which],
            truth=self.truth and self.truth.matched_to(keypoints),
            matched=f"{len(chosen)} keypoints of the same name{''.join(left_out)}",
        )

    def with_keypoints(self, keypoints: KeypointSet) -> Table:
        """Returns the table with another set of the same names, e.g. with sigmas.

        Raises:
          InputError: the names, or their order, are others.
        """
        if self.keypoints == keypoints:
            return self
        if self.keypoints.names != keypoints.names:
            raise InputError(
                f"{self.name} has the {len(self.keypoints)} keypoints of set "
                f"{self.keypoints.name!r}, not the {len(keypoints)} of "
                f"{keypoints.name!r}, in their order."
            )
        truth = self.truth and self.truth.with_keypoints(keypoints)
        return dataclasses.replace(self, keypoints=keypoints, truth=truth)

    def coco_ground_truth(self) -> dict[str, Any]:
        """Returns the table as a COCO keypoint annotation dictionary, for evaluators.

        Segmentations are not kept; keypoint AP does not use them. Labeled people without
        an area or with an empty box are included, as in COCO, though no poses are
        predicted for them: `remarks` counts them.
        """
        labelled = self.visibility > 0
        points = np.where(labelled[..., None], self.points_xy, 0.0)
        keypoints = np.concatenate([points, self.visibility[..., None]], -1)
        wh = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        xywh = np.concatenate([self.boxes_xyxy[:, :2], wh], -1)
        return {
            "images": [
                {"id": int(i), "width": int(w), "height": int(h)}
                for i, (w, h) in zip(self.image_ids, self.image_sizes, strict=True)
            ],
            "categories": [
                {
                    "id": self.category_id,
                    "name": "person",
                    "keypoints": list(self.keypoints.names),
                }
            ],
            "annotations": [
                {
                    "id": int(self.ids[row]),
                    "image_id": int(self.image_ids[self.image[row]]),
                    "category_id": self.category_id,
                    "keypoints": keypoints[row].reshape(-1).tolist(),
                    "num_keypoints": int(labelled[row].sum()),
                    "bbox": xywh[row].tolist(),
                    "area": float(self.areas[row]),
                    "iscrowd": int(self.crowd[row]),
                }
                for row in range(len(self))
            ],
        }

    def fingerprint(self) -> str:
        """Returns a hash (16 hex digits) of all labels, boxes and image ids, not pixels."""
        labelled = (self.visibility > 0)[..., None]
        what = (self.keypoints.names, self.box_source, self.labelled, self.centric)
        digest = hashlib.sha256(repr(what).encode())
        for column, dtype in (
            (self.image_ids, np.int64),
            (self.image_sizes, np.int32),
            (self.image, np.int32),
            (self.ids, np.int64),
            (self.boxes_xyxy, np.float64),
            (self.box_scores, np.float64),
            # Unlabeled coordinates are arbitrary.
            (np.where(labelled, self.points_xy, 0), np.float64),
            (self.visibility, np.int32),
            (self.areas, np.float64),
            (self.crowd, np.bool_),
            (np.zeros(0) if self.head_sizes is None else self.head_sizes, np.float64),
        ):
            digest.update(repr(column.shape).encode())
            digest.update(np.ascontiguousarray(column, dtype).tobytes())
        return digest.hexdigest()[:16]


def from_boxes(
    images: Sequence[ImageRef | str],
    boxes: Sequence[np.ndarray] | None,
    scores: Sequence[np.ndarray] | None = None,
    *,
    keypoints: KeypointSet,
    name: str = "images",
    exif: Exif = "auto",
) -> Table:
    """Builds a Table without labels from images and boxes.

    Args:
      images: files, or decoded pixels uint8 [h, w, 3] (RGB).
      boxes: for each image [p, 4] (x, y, x + w, y + h). None: each image is one person.
      scores: for each image [p]; None: 1.
      keypoints: the keypoint set to predict.
      name: name of the Table.
      exif: "apply": boxes and points refer to the images turned by their EXIF
        orientation; "ignore": to the pixels as stored; "auto": as stored, with a warning
        if an image has an orientation.

    Returns:
      A Table with image ids 0..m-1; `box_source` is "given_boxes" or "image".

    Raises:
      InputError: an image cannot be read, or boxes or scores do not fit the images.
    """
    images = tuple(Path(i) if isinstance(i, str) else i for i in images)
    sizes = np.array(_sizes(images, exif), np.int32).reshape(-1, 2)
    source = "given_boxes"
    if boxes is None:
        boxes = [np.array([[0.0, 0.0, w, h]]) for w, h in sizes]
        source = "image"
    boxes = [np.asarray(box, np.float64).reshape(-1, 4) for box in boxes]
    if scores is None:
        scores = [np.ones(len(box)) for box in boxes]
    scores = [np.asarray(score, np.float64).reshape(-1) for score in scores]
    counts = [len(box) for box in boxes]
    if len(boxes) != len(images) or counts != [len(score) for score in scores]:
        raise InputError(
            f"{len(images)} images need as many arrays of boxes, and each box a score; "
            f"got {len(boxes)} arrays of boxes and {len(scores)} of scores."
        )
    for i, box in enumerate(boxes):
        if not (np.isfinite(box).all() and (box[:, 2:] > box[:, :2]).all()):
            raise InputError(
                f"The boxes of image {i} must be finite (x, y, x + w, y + h), w and h "
                "positive."
            )
    flat = np.concatenate([np.zeros((0, 4)), *boxes])
    n, k = len(flat), len(keypoints)
    return Table(
        name=name,
        keypoints=keypoints,
        images=images,
        image_ids=np.arange(len(images)),
        image_sizes=sizes,
        image=np.repeat(np.arange(len(images), dtype=np.int32), counts),
        ids=np.zeros(n, np.int64),
        boxes_xyxy=flat,
        box_scores=np.concatenate([np.zeros(0), *scores]),
        points_xy=np.zeros((n, k, 2)),
        visibility=np.zeros((n, k), np.int32),
        areas=(flat[:, 2:] - flat[:, :2]).prod(-1),
        crowd=np.zeros(n, bool),
        box_source=source,
        labelled=False,
        exif="apply" if exif == "apply" else "ignore",
    )


def _sizes(images: Sequence[ImageRef], exif: Exif) -> list[tuple[int, int]]:
    """Returns (width, height) of images without annotations, in the frame of `exif`."""
    sizes, undecided = [], []
    for image in images:
        size, orientation = _size(image)
        turn, open_ = pixels_lib.turns(size, orientation, None, exif)
        sizes.append(pixels_lib.upright_size(size, orientation) if turn else size)
        undecided += [image] if open_ else []
    if undecided:
        logging.warning("%s", undecided_exif(len(undecided), undecided[0]))
    return sizes


def undecided_exif(count: int, first: object, option: str = "exif=") -> str:
    """Describes images whose EXIF orientation the annotations do not decide.

    Args:
      count: number of the images.
      first: one of them.
      option: the option that decides.
    """
    return (
        f"{count} image{'s' * (count != 1)} with an EXIF orientation (first: {first}): the "
        "annotated size, if there is one, is that of the stored and of the turned image. "
        f"Boxes and points refer to the pixels as stored; {option}apply or "
        f"{option}ignore decides."
    )


def image_size(image: ImageRef) -> tuple[int, int]:
    """Returns (width, height) as stored; of a file, only the header is read."""
    return _size(image)[0]


def _size(image: ImageRef) -> tuple[tuple[int, int], int]:
    """Returns (width, height) as stored, and EXIF's orientation."""
    if not isinstance(image, np.ndarray):
        return pixels_lib.sizes(encoded(image), image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            "images must be paths or uint8 arrays [h, w, 3] (RGB); got "
            f"{image.dtype} {image.shape}."
        )
    return (image.shape[1], image.shape[0]), 1
