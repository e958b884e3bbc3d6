"""Rows of a batch, people or images, and everything that depends on the kind."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from absl import logging

from pose_jax.data.canvas import image_windows, person_windows
from pose_jax.data.table import Table
from pose_jax.types import ImageLabels, ImageView, PersonLabels, PersonView, View


def of(view: View) -> PersonRows | ImageRows:
    """Returns the kind of rows of a view."""
    return PersonRows(view) if isinstance(view, PersonView) else ImageRows(view)


@dataclasses.dataclass(frozen=True)
class PersonRows:
    """A row is a person's box: a row of the Table."""

    view: PersonView
    words: ClassVar = "people"

    def default(self, table: Table, training: bool) -> np.ndarray:
        """Returns [r] int32: labeled rows, or all boxes if there are no labels."""
        del training
        if table.labelled:
            return table.labelled_rows()
        return np.arange(len(table), dtype=np.int32)

    def windows(
        self, table: Table, canvas_size: tuple[int, int], training: bool
    ) -> np.ndarray:
        """Returns [n, 5]: the window of each row of the Table, see `canvas`."""
        return person_windows(table, self.view, canvas_size, training)

    def ids(self, table: Table) -> np.ndarray:
        """Returns [n]: the data set's id of each row."""
        return table.ids

    def images(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Returns [b]: numbers of the rows' images."""
        return table.image[rows]

    def boxes(self, table: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns boxes [b, 4] and scores [b]."""
        return table.boxes_xyxy[rows], table.box_scores[rows]

    def labels(self, table: Table, rows: np.ndarray, valid: np.ndarray) -> PersonLabels:
        """Returns labels of rows; padding rows are unlabeled."""
        b, m, k = len(rows), self.view.max_others, len(table.keypoints)
        others_xy = np.zeros((b, m, k, 2), np.float32)
        others_visibility = np.zeros((b, m, k), np.int32)
        boxes = table.boxes_xyxy
        center = lambda rows: (boxes[rows, :2] + boxes[rows, 2:]) / 2
        for i, row in enumerate(rows if m else ()):
            others = table.people_of_image(int(table.image[row]))
            labelled = (table.visibility[others] > 0).any(-1) & ~table.crowd[others]
            others = others[labelled & (others != row)]
            distance = np.square(center(others) - center(row)).sum(-1)
            others = others[np.argsort(distance, kind="stable")[:m]]
            others_xy[i, : len(others)] = _points(table, others)
            others_visibility[i, : len(others)] = table.visibility[others]
        visibility = table.visibility[rows].astype(np.int32)
        visibility[~valid] = others_visibility[~valid] = 0
        return PersonLabels(
            points_xy=_points(table, rows),
            visibility=visibility,
            area=table.areas[rows].astype(np.float32),
            others_xy=others_xy,
            others_visibility=others_visibility,
        )


def _points(table: Table, rows: np.ndarray) -> np.ndarray:
    """Returns [b, k, 2] float32: keypoints, 0 where not labeled and not finite."""
    points = table.points_xy[rows].astype(np.float32)
    known = (table.visibility[rows] > 0)[..., None] | np.isfinite(points)
    return np.where(known, points, np.float32(0))


@dataclasses.dataclass(frozen=True)
class ImageRows:
    """A row is an image; its number is its index in `Table.images`."""

    view: ImageView
    words: ClassVar = "images"

    def default(self, table: Table, training: bool) -> np.ndarray:
        """Returns [r] int32: all images; in training those with boxes of single people."""
        if training:
            return np.unique(table.image[table.has_box & ~table.crowd]).astype(np.int32)
        return np.arange(len(table.images), dtype=np.int32)

    def windows(
        self, table: Table, canvas_size: tuple[int, int], training: bool
    ) -> np.ndarray:
        """Returns [m, 5]: the window of each image, see `canvas`."""
        del canvas_size, training  # A view of images has its own sizes.
        limit = self.view.max_people
        count = np.bincount(table.image, minlength=len(table.images)) > limit
        if count.any():
            logging.warning(
                "%s: %d images have more than max_people = %d people: the rest is dropped.",
                table.name, count.sum(), limit,
            )  # fmt: skip
        return image_windows(table, self.view)

    def ids(self, table: Table) -> np.ndarray:
        """Returns [m]: the data set's id of each image."""
        return table.image_ids

    def images(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Returns [b]: numbers of the rows' images."""
        del table
        return rows

    def boxes(self, table: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the whole images as boxes [b, 4], and scores [b] of 1."""
        size = table.image_sizes[rows]
        return np.concatenate([np.zeros((len(rows), 2)), size], -1), np.ones(len(rows))

    def labels(self, table: Table, rows: np.ndarray, valid: np.ndarray) -> ImageLabels:
        """Returns labels of images; padding rows have no people."""
        b, n = len(rows), self.view.max_people
        people_xyxy = np.zeros((b, n, 4), np.float32)
        people_kind = np.zeros((b, n), np.int32)
        for i, image in enumerate(rows):
            people = table.people_of_image(image)
            people = people[table.has_box[people]]
            people = people[np.argsort(table.crowd[people], kind="stable")][:n]
            people_xyxy[i, : len(people)] = table.boxes_xyxy[people]
            people_kind[i, : len(people)] = 1 + table.crowd[people]
        people_kind[~valid] = 0
        return ImageLabels(people_xyxy=people_xyxy, people_kind=people_kind)
