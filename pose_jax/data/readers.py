"""From a Table to batches: the order of rows, and two readers that give the same bits.

The host only decodes and cuts. Pixels come as *canvases*: uint8 RGB windows of an
image, see `canvas`; `canvas_to_image` says which window. Everything else is in the
image frame and is copied from the Table. All of it is a pure function of (table, view,
config, seed, step): starting at step n is arithmetic, and neither threads nor the reader
change a bit. This is the only file that names tf.data.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib.util
import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from absl import logging

from pose_jax.data.canvas import check_size, cut, decode, image_windows, person_windows
from pose_jax.data.table import Record, Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import (
    Batch,
    ImageLabels,
    ImageView,
    Inputs,
    PersonLabels,
    PersonView,
    View,
)

PREFETCH = 2
"""Batches that are read ahead of the one in use, at least."""


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How batches are read.

    Attributes:
      batch_size: rows of a batch, over all processes.
      canvas_size: (width, height) of a `PersonView`'s canvases; (640, 640) holds every
        COCO image whole. An `ImageView` has its own, its buckets.
      reader: "tf" (tf.data), "numpy" (Pillow in threads, without TensorFlow), or
        "auto": "tf" where it is installed.
      workers: threads that decode; 0: one per CPU.
      cache_mb: the NumPy reader keeps up to this much of decoded images.
    """

    batch_size: int
    canvas_size: tuple[int, int] = (640, 640)
    reader: Literal["auto", "tf", "numpy"] = "auto"
    workers: int = 0
    cache_mb: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be positive; got {self.batch_size}.")
        if len(self.canvas_size) != 2 or min(self.canvas_size) < 1:
            raise ConfigError(
                f"canvas_size is (width, height); got {self.canvas_size}."
            )
        if self.reader not in ("auto", "tf", "numpy"):
            raise ConfigError(
                f'reader is "auto", "tf" or "numpy"; got {self.reader!r}.'
            )
        if self.workers < 0 or self.cache_mb < 0:
            raise ConfigError("workers and cache_mb cannot be negative.")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Which rows make which batch, and which window of its image each row sees.

    An epoch is a sequence of batches of equal canvases: the rows of `order(epoch)`
    gather by canvas size, and a batch goes out as soon as it is full. A `PersonView`
    has one size, so its batches are slices of the order. Training drops what does not
    fill a batch (unless there would be none at all of that size: that one is padded);
    evaluation pads, at the end.

    Attributes:
      table: where rows come from.
      view: what a row is: a person, or an image.
      config: sizes, reader.
      rows: [r] int32 rows of the Table (`PersonView`) or image numbers (`ImageView`).
        None: all that have something to learn or to score, see `default_rows`.
      training: shuffled, reaching beyond the padded box; labels must exist.
      seed: of the order.
      process_index, process_count: this process gets its part of every batch.
      windows: made here: per row of the Table (or image), the window of the image that
        its canvas shows, [n, 5] int32: x, y, r, canvas width, canvas height.

    Raises:
      InputError: no rows, or no labels to train on.
      ConfigError: the batch cannot be shared evenly.
    """

    table: Table
    view: View
    config: InputConfig
    rows: np.ndarray = None  # type: ignore  # Never None once made.
    training: bool = False
    seed: int = 0
    process_index: int = 0
    process_count: int = 1
    windows: np.ndarray = dataclasses.field(init=False, repr=False)
    _groups: np.ndarray = dataclasses.field(init=False, repr=False)
    _epochs: dict[int, np.ndarray] = dataclasses.field(init=False, repr=False)
    _lock: threading.Lock = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = self.rows
        if rows is None:
            rows = default_rows(self.table, self.view, self.training)
        rows = np.asarray(rows, np.int32)
        size, count = self.config.batch_size, self.process_count
        if not len(rows):
            raise InputError(
                f"{self.table.name}: there are no rows to read. Training needs people "
                "(`PersonView`: with labelled keypoints), prediction needs boxes."
            )
        if size % count:
            raise ConfigError(
                f"batch_size {size} cannot be shared by {count} processes; make it a "
                f"multiple of {count}."
            )
        if not 0 <= self.process_index < count or self.seed < 0:
            raise ValueError(
                f"process_index {self.process_index} of {count}, seed {self.seed}: "
                "neither may be negative, and the index must be below the count."
            )
        if self.training and not self.labelled:
            raise InputError(
                f"{self.table.name} has boxes from {self.table.box_source} and no "
                "labels: it cannot be trained on."
            )
        if isinstance(self.view, PersonView):
            windows = person_windows(
                self.table, self.view, self.config.canvas_size, self.training
            )
        else:
            windows = image_windows(self.table, self.view)
            _warn_of_crowded_images(self.table, self.view)
        groups = np.unique(windows[rows, 3:], axis=0, return_inverse=True)[1]
        for name, value in (
            ("rows", rows),
            ("windows", windows),
            ("_groups", groups.reshape(-1)),
            ("_lock", threading.Lock()),
            ("_epochs", {}),
        ):
            object.__setattr__(self, name, value)

    @property
    def labelled(self) -> bool:
        """Whether batches have labels: ground truth, not detections or bare images."""
        return self.table.labelled

    @property
    def local_batch_size(self) -> int:
        """Rows of a batch in this process."""
        return self.config.batch_size // self.process_count

    @property
    def steps_per_epoch(self) -> int:
        counts = np.bincount(self._groups)
        if self.training:
            return int(np.maximum(counts // self.config.batch_size, 1).sum())
        return int((-(-counts // self.config.batch_size)).sum())

    def order(self, epoch: int) -> np.ndarray:
        """[r] int32: `rows` as this epoch visits them, by (seed, epoch) alone."""
        return self.rows[self._permutation(epoch)]

    def batch_rows(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The rows of this process at a step.

        Args:
          step: counted from 0 over all epochs; no batch has rows of two epochs.

        Returns:
          epoch; rows [batch_size / process_count] int32; valid, False where a row is
          padding (it then repeats the first row of the whole batch).
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        with self._lock:
            if epoch not in self._epochs:
                if len(self._epochs) > 1:  # A reader may be one epoch ahead.
                    del self._epochs[min(self._epochs)]
                self._epochs[epoch] = self._batches(epoch)
            places = self._epochs[epoch][index]
        rows = self.rows[np.where(places < 0, places[0], places)]
        local = self.local_batch_size
        mine = slice(self.process_index * local, (self.process_index + 1) * local)
        return epoch, rows[mine], places[mine] >= 0

    def steps(self, start: int, stop: int | None) -> Iterator[int]:
        """start .. stop - 1; without `stop` to one epoch, in training without end."""
        if stop is None and self.training:
            return itertools.count(start)
        return iter(range(start, self.steps_per_epoch if stop is None else stop))

    def _permutation(self, epoch: int) -> np.ndarray:
        if not self.training:
            return np.arange(len(self.rows))
        # Raw words of Philox are fixed for good; NumPy's own shuffles may change.
        words = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        return np.argsort(words.random_raw(len(self.rows)), kind="stable")

    def _batches(self, epoch: int) -> np.ndarray:
        """[steps, batch_size]: places in `rows`, -1 for padding."""
        size = self.config.batch_size
        order = self._permutation(epoch)
        batches, filled_at = [], []
        for group in range(self._groups.max() + 1):
            at = np.flatnonzero(self._groups[order] == group)  # places in the order
            full = len(at) // size if self.training else -(-len(at) // size)
            full = max(full, 1)
            at = at[: full * size]
            padded = np.full(full * size, -1)
            padded[: len(at)] = order[at]
            batches.append(padded.reshape(full, size))
            # A batch goes out when its last row has come, an unfilled one at the end.
            last = np.full(full * size, len(order))
            last[: len(at)] = at
            filled_at.append(last.reshape(full, size)[:, -1])
        when = np.argsort(np.concatenate(filled_at), kind="stable")
        return np.concatenate(batches)[when]


def default_rows(table: Table, view: View, training: bool) -> np.ndarray:
    """[r] int32: rows worth reading.

    People: those with a label, or all boxes where there are no labels. Images: all, in
    training those with at least one person who is not a crowd.
    """
    if isinstance(view, PersonView):
        if table.labelled:
            return table.labelled_rows()
        return np.arange(len(table), dtype=np.int32)
    if training:
        return np.unique(table.image[~table.crowd]).astype(np.int32)
    return np.arange(len(table.images), dtype=np.int32)


def _warn_of_crowded_images(table: Table, view: ImageView) -> None:
    count = np.bincount(table.image, minlength=len(table.images)) > view.max_people
    if count.any():
        logging.warning(
            "%s: %d images have more than max_people = %d people: the rest is cut.",
            table.name, count.sum(), view.max_people,
        )  # fmt: skip


class _Decoded:
    """Decoded images, the last used up to a number of bytes."""

    def __init__(self, table: Table, limit: int):
        self._table, self._limit, self._bytes = table, limit, 0
        self._kept: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, image: int) -> np.ndarray:
        with self._lock:
            if image in self._kept:
                self._kept.move_to_end(image)
                return self._kept[image]
        pixels = decode(self._table, image)
        if pixels.nbytes <= self._limit:
            with self._lock:
                if image not in self._kept:
                    self._kept[image] = pixels
                    self._bytes += pixels.nbytes
                while self._bytes > self._limit:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


# Readers.


def batches(plan: Plan, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """The batches of steps start..stop-1 (NumPy leaves), by the reader of the config.

    Without `stop`: one epoch, in training without end. Close or drop the iterator to
    stop its threads.

    Raises:
      InputError: an image cannot be read; the message names it.
    """
    reader = plan.config.reader
    if reader == "auto":
        in_memory = any(isinstance(image, np.ndarray) for image in plan.table.images)
        found = importlib.util.find_spec("tensorflow") is not None
        reader = "tf" if found and not in_memory else "numpy"
        logging.log_first_n(logging.INFO, "Reading images with: %s.", 1, reader)
    return {"tf": tf_batches, "numpy": numpy_batches}[reader](plan, start, stop)


def numpy_batches(
    plan: Plan, start: int = 0, stop: int | None = None
) -> Iterator[Batch]:
    """`batches` by Pillow in threads; TensorFlow is not imported."""
    decoded = _Decoded(plan.table, plan.config.cache_mb << 20)
    workers = _workers(plan)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pose_jax_read")
    # Small batches: enough of them that no thread is idle.
    prefetch = max(PREFETCH, 2 * workers // plan.local_batch_size)

    def read(image, slots, windows, canvases):
        pixels = decoded(image)
        for slot, window in zip(slots, windows, strict=True):
            cut(pixels, window, canvases[slot])

    def submit(step):
        epoch, rows, valid = plan.batch_rows(step)
        images, windows = _image_of(plan, rows), plan.windows[rows]
        canvases = np.zeros((len(rows), windows[0, 4], windows[0, 3], 3), np.uint8)
        jobs = []
        for image in dict.fromkeys(images[valid].tolist()):  # Each once, in this order.
            slots = np.flatnonzero(valid & (images == image))
            jobs.append(pool.submit(read, image, slots, windows[slots], canvases))
        return epoch, rows, valid, canvases, jobs

    def finish(epoch, rows, valid, canvases, jobs):
        for job in jobs:
            job.result()
        return _assemble(plan, epoch, rows, valid, canvases)

    ahead = collections.deque()
    try:
        for step in plan.steps(start, stop):
            ahead.append(submit(step))
            if len(ahead) > prefetch:
                yield finish(*ahead.popleft())
        while ahead:
            yield finish(*ahead.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def tf_batches(plan: Plan, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """`batches` by tf.data, equal to the bit. TensorFlow is imported here, on the CPU.

    JPEG of one or three components is decoded by TensorFlow with Pillow's exact inverse
    transform; Pillow itself decodes what the two may read differently (CMYK, PNG,
    palettes, 16 bits) and what TensorFlow refuses.

    Raises:
      ConfigError: TensorFlow is not installed.
    """
    tf = _import_tensorflow()
    paths = tf.constant(
        [os.fspath(i) if isinstance(i, os.PathLike) else "" for i in plan.table.images]
    )
    packed = tf.constant([isinstance(i, Record) for i in plan.table.images])

    def by_pillow(image):
        pixels = tf.numpy_function(
            lambda i: decode(plan.table, int(i)), [image], tf.uint8, stateful=False
        )
        return tf.ensure_shape(pixels, [None, None, 3])

    def window_of(pixels, item):
        # In NumPy: a third of the time of tf.pad, a quarter of tf.reduce_sum.
        check_size(plan.table, item[0], pixels)
        canvas = np.empty((item[5], item[4], 3), np.uint8)
        cut(pixels, item[1:], canvas)
        return canvas

    def canvas_of(item):
        # int64 [6]: image (-1: padding) and window.
        image = item[0]
        if image < 0:
            canvas = tf.zeros([item[5], item[4], 3], tf.uint8)
        else:
            if packed[image] or paths[image] != "":
                pixels = decoded(image)
            else:  # Pixels in memory.
                pixels = by_pillow(image)
            canvas = tf.numpy_function(
                window_of, [pixels, item], tf.uint8, stateful=False
            )
        return tf.ensure_shape(canvas, [None, None, 3])

    def decoded(image):
        contents = contents_of(image)
        if tf.io.is_jpeg(contents) and components(contents) != 4:
            pixels = tf.io.decode_jpeg(
                contents, channels=3, dct_method="INTEGER_ACCURATE"
            )
        else:
            pixels = by_pillow(image)
        return pixels

    def contents_of(image):
        if packed[image]:
            contents = tf.numpy_function(
                lambda i: plan.table.images[int(i)].read(),
                [image],
                tf.string,
                stateful=False,
            )
        else:
            contents = tf.io.read_file(paths[image])
        return tf.ensure_shape(contents, [])

    def components(contents):
        return tf.image.extract_jpeg_shape(contents)[2]

    def items(steps):
        for step in steps:
            _, rows, valid = plan.batch_rows(step)
            images = _image_of(plan, rows)
            images = np.where(valid, images, -1)[:, None]
            yield np.concatenate([images, plan.windows[rows]], -1).astype(np.int64)

    local = plan.local_batch_size

    def canvases_from(step):
        data = tf.data.Dataset.from_generator(
            lambda: items(plan.steps(step, stop)),
            output_signature=tf.TensorSpec([local, 6], tf.int64),
        )
        workers = _workers(plan)
        data = data.unbatch().map(canvas_of, workers, deterministic=True)
        data = data.batch(local, drop_remainder=True).prefetch(PREFETCH)
        options = tf.data.Options()
        options.threading.private_threadpool_size = workers
        return data.with_options(options).as_numpy_iterator()

    canvases = canvases_from(start)
    for step in plan.steps(start, stop):
        epoch, rows, valid = plan.batch_rows(step)
        try:
            pixels = next(canvases)
        except tf.errors.OpError as error:
            # Pillow reads the batch, or says which image is at fault.
            pixels = _read_batch(plan, rows, valid)
            logging.warning(
                "TensorFlow could not read step %d: %s", step, error.message
            )
            canvases = canvases_from(step + 1)
        yield _assemble(plan, epoch, rows, valid, pixels)


def _import_tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault(
        "TF_ENABLE_ONEDNN_OPTS", "0"
    )  # Else it logs; nothing uses it.
    try:
        import tensorflow as tf
    except ImportError:
        raise ConfigError(
            'reader "tf" needs TensorFlow: install it, or choose reader "numpy".'
        ) from None
    with contextlib.suppress(RuntimeError):  # TensorFlow was already in use: too late.
        tf.config.set_visible_devices([], "GPU")
    return tf


def _read_batch(plan: Plan, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
    windows, images = plan.windows[rows], _image_of(plan, rows)
    canvases = np.zeros((len(rows), windows[0, 4], windows[0, 3], 3), np.uint8)
    for slot in np.flatnonzero(valid):
        cut(decode(plan.table, int(images[slot])), windows[slot], canvases[slot])
    return canvases


def _workers(plan: Plan) -> int:
    return plan.config.workers or os.cpu_count() or 1


def _image_of(plan: Plan, rows: np.ndarray) -> np.ndarray:
    return plan.table.image[rows] if isinstance(plan.view, PersonView) else rows


# Everything of a batch that is not pixels.


def _assemble(
    plan: Plan, epoch: int, rows: np.ndarray, valid: np.ndarray, canvases: np.ndarray
) -> Batch:
    table, view = plan.table, plan.view
    x, y, r = plan.windows[rows, :3].T.astype(np.float32)
    to_image = np.zeros((len(rows), 2, 3), np.float32)
    to_image[:, 0, 0] = to_image[:, 1, 1] = r
    to_image[:, 0, 2], to_image[:, 1, 2] = x + (r - 1) / 2, y + (r - 1) / 2
    if isinstance(view, PersonView):
        boxes, scores = table.boxes_xyxy[rows], table.box_scores[rows]
        labels = _person_labels(table, view, rows, valid) if plan.labelled else None
    else:
        boxes = np.concatenate([np.zeros((len(rows), 2)), table.image_sizes[rows]], -1)
        scores = np.ones(len(rows))
        labels = _image_labels(table, view, rows, valid) if plan.labelled else None
    inputs = Inputs(
        images=canvases,
        canvas_to_image=to_image,
        box_xyxy=boxes.astype(np.float32),
        box_score=scores.astype(np.float32),
        valid=valid,
        row=rows,
    )
    return Batch(inputs, labels, np.asarray(epoch, np.int32))


# Nothing of a padding row counts as labelled.


def _person_labels(
    table: Table, view: PersonView, rows: np.ndarray, valid: np.ndarray
) -> PersonLabels:
    b, m, k = len(rows), view.max_others, len(table.keypoints)
    others_xy = np.zeros((b, m, k, 2), np.float32)
    others_visibility = np.zeros((b, m, k), np.int32)

    def center(rows):
        return (table.boxes_xyxy[rows, :2] + table.boxes_xyxy[rows, 2:]) / 2

    for i, row in enumerate(rows if m else ()):
        others = table.people_of_image(int(table.image[row]))
        labelled = (table.visibility[others] > 0).any(-1) & ~table.crowd[others]
        others = others[labelled & (others != row)]
        distance = np.square(center(others) - center(row)).sum(-1)
        others = others[np.argsort(distance, kind="stable")[:m]]
        others_xy[i, : len(others)] = table.points_xy[others]
        others_visibility[i, : len(others)] = table.visibility[others]
    visibility = table.visibility[rows].astype(np.int32)
    visibility[~valid] = others_visibility[~valid] = 0
    return PersonLabels(
        points_xy=table.points_xy[rows].astype(np.float32),
        visibility=visibility,
        area=table.areas[rows].astype(np.float32),
        others_xy=others_xy,
        others_visibility=others_visibility,
    )


def _image_labels(
    table: Table, view: ImageView, rows: np.ndarray, valid: np.ndarray
) -> ImageLabels:
    b, n = len(rows), view.max_people
    people_xyxy = np.zeros((b, n, 4), np.float32)
    people_kind = np.zeros((b, n), np.int32)
    for i, image in enumerate(rows):
        people = table.people_of_image(image)
        people = people[np.argsort(table.crowd[people], kind="stable")][:n]
        people_xyxy[i, : len(people)] = table.boxes_xyxy[people]
        people_kind[i, : len(people)] = 1 + table.crowd[people]
    people_kind[~valid] = 0
    return ImageLabels(people_xyxy=people_xyxy, people_kind=people_kind)
