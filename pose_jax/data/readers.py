"""From a plan to batches: two readers with bitwise identical results.

The host only decodes and crops. Pixels are *canvases*: uint8 RGB windows of an image, see
`canvas`; `canvas_to_image` gives their position. Everything else is in the image frame and
copied from the Table. Everything is a pure function of (table, view, config, seed, step):
reading can start at any step, and results depend neither on threads nor on the reader.
This is the only file that uses tf.data.

If `Table.on_error` is "skip", an image that cannot be read does not end the reading. In
training its rows are replaced by others, a function of (seed, epoch, row); in evaluation
its rows are not valid.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.util
import io
import os
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from absl import logging

from pose_jax.data import pixels as pixels_lib
from pose_jax.data.canvas import cut, decode, framed
from pose_jax.data.plan import Plan
from pose_jax.data.table import Record, Table, undecided_exif
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import Batch, Inputs

PREFETCH = 2
"""Minimum number of batches that are read ahead."""


class _Decoded:
    """A cache of recently used decoded images, up to a number of bytes."""

    def __init__(self, table: Table, limit: int, undecided: set[int] | None = None):
        self._table, self._limit, self._undecided = table, limit, undecided
        self._bytes = 0
        self._kept: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, image: int) -> np.ndarray:
        with self._lock:
            if image in self._kept:
                self._kept.move_to_end(image)
                return self._kept[image]
        pixels = decode(self._table, image, self._undecided)
        if pixels.nbytes <= self._limit:
            with self._lock:
                if image not in self._kept:
                    self._kept[image] = pixels
                    self._bytes += pixels.nbytes
                while self._bytes > self._limit:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


class _Unreadable:
    """Handles images that cannot be read, as `Table.on_error` says."""

    def __init__(self, plan: Plan):
        self._plan, self._images = plan, plan.kind.images(plan.table, plan.rows)
        count = len(np.unique(self._images)) // plan.process_count
        self._limit = max(1, count // 100)
        self._epoch, self._known = -1, set()

    def note(self, image: int, epoch: int, error: InputError) -> None:
        """Counts and logs an image.

        Raises:
          InputError: images are not skipped, or there are too many in this epoch.
        """
        if self._plan.table.on_error != "skip":
            if not self._plan.training:
                raise error
            raise InputError(f"{error} config.data.train.on_error=skip replaces it.")
        if epoch != self._epoch:
            self._epoch, self._known = epoch, set()
        if image in self._known:
            return
        self._known.add(image)
        if not self._plan.training:
            logging.warning("Its people count as missed (on_error): %s", error)
            return
        count = len(self._known)
        if count > self._limit:
            raise InputError(
                f"{error} It is unreadable image {count} of epoch {epoch}: on_error "
                f'"skip" replaces at most 1% of the images, here {self._limit}.'
            )
        logging.warning(
            "Its rows are replaced in epoch %d (on_error; %d of at most %d images): %s",
            epoch, count, self._limit, error,
        )  # fmt: skip

    def replace(
        self, slots: np.ndarray, batch: tuple[int, np.ndarray, np.ndarray, np.ndarray],
        decoded: _Decoded,
    ) -> None:  # fmt: skip
        """Replaces the rows of slots of a batch; in evaluation, makes them invalid."""
        epoch, rows, valid, canvases = batch
        for slot in slots:
            if self._plan.training:
                rows[slot] = self._other(
                    epoch, int(rows[slot]), canvases[slot], decoded
                )
            else:
                valid[slot] = False

    def _other(
        self, epoch: int, row: int, canvas: np.ndarray, decoded: _Decoded
    ) -> int:
        """Fills the canvas of another row, a function of (seed, epoch, row)."""
        plan = self._plan
        same = (plan.windows[plan.rows, 3:] == plan.windows[row, 3:]).all(-1)
        rows, images = plan.rows[same], self._images[same]
        key = np.random.SeedSequence([plan.seed, epoch, int(row), 1])
        words = np.random.Philox(key)
        while not self._known.issuperset(images.tolist()):
            index = int(words.random_raw() % len(rows))
            image = int(images[index])
            if image in self._known:
                continue
            try:
                cut(decoded(image), plan.windows[rows[index]], canvas)
            except InputError as error:
                self.note(image, epoch, error)
            else:
                return rows[index]
        raise InputError(
            f"{plan.table.name}: no image of canvas size {canvas.shape[1]}x"
            f"{canvas.shape[0]} can be read. Fetch the data again."
        )


def batches(plan: Plan, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """Yields the batches of steps start..stop-1 (NumPy leaves), with the config's reader.

    Without `stop`: one epoch, or infinite in training. Close or drop the iterator to stop
    its threads.

    Raises:
      InputError: an image cannot be read; the message names it.
    """
    reader = plan.config.reader
    if reader == "auto":
        in_memory = any(isinstance(image, np.ndarray) for image in plan.table.images)
        found = importlib.util.find_spec("tensorflow") is not None
        reader = "tf" if found and not in_memory else "numpy"
        logging.log_first_n(logging.INFO, "Reading images with: %s.", 1, reader)
    read = {"tf": tf_batches, "numpy": numpy_batches}[reader](plan, start, stop)
    return _counted(plan, read, start)


def _counted(plan: Plan, batches: Iterator[Batch], start: int) -> Iterator[Batch]:
    """Yields batches; warns about undecided EXIF orientations after each epoch."""
    with contextlib.closing(cast(Generator[Batch], batches)):
        try:
            for step, batch in enumerate(batches, start + 1):
                yield batch
                if step % plan.steps_per_epoch == 0:
                    _warn_once(_undecided(plan))
        finally:
            _warn_once(_undecided(plan))


def _undecided(plan: Plan) -> str:
    images = sorted(plan.undecided.copy())
    if not images:
        return ""
    first = plan.table.images[images[0]]
    return f"{plan.table.name}: {undecided_exif(len(images), first)}"


@functools.cache
def _warn_once(text: str) -> None:
    if text:  # Every evaluation of a training would repeat it.
        logging.warning("%s", text)


def numpy_batches(
    plan: Plan,
    start: int = 0,
    stop: int | None = None,
    unreadable: _Unreadable | None = None,
) -> Iterator[Batch]:
    """`batches` by Pillow in threads; TensorFlow is not imported."""
    unreadable = unreadable or _Unreadable(plan)
    decoded = _Decoded(plan.table, plan.config.cache_mb << 20, plan.undecided)
    workers = plan.config.workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pose_jax_read")
    # Enough small batches that no thread is idle.
    prefetch = max(PREFETCH, 2 * workers // plan.local_batch_size)

    def read(image, slots, windows, canvases):
        pixels = decoded(image)
        for slot, window in zip(slots, windows, strict=True):
            cut(pixels, window, canvases[slot])

    def submit(step):
        epoch, rows, valid = plan.batch_rows(step)
        images, windows = plan.kind.images(plan.table, rows), plan.windows[rows]
        canvases = np.zeros((len(rows), windows[0, 4], windows[0, 3], 3), np.uint8)
        jobs = []
        for image in dict.fromkeys(images[valid].tolist()):  # Each once, in order.
            slots = np.flatnonzero(valid & (images == image))
            job = pool.submit(read, image, slots, windows[slots], canvases)
            jobs.append((job, image, slots))
        return jobs, epoch, rows, valid, canvases

    def finish(jobs, *batch):
        for job, image, slots in jobs:
            try:
                job.result()
            except InputError as error:
                unreadable.note(image, batch[0], error)
                unreadable.replace(slots, batch, decoded)
        return _assemble(plan, *batch)

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
    """`batches` by tf.data, bitwise equal. TensorFlow is imported here, on the CPU.

    JPEG of one or three components is decoded by TensorFlow with Pillow's exact inverse
    transform; Pillow decodes formats that the two may read differently (CMYK, PNG,
    palettes, 16 bits) and files that TensorFlow rejects.

    Raises:
      ConfigError: TensorFlow is not installed.
    """
    tf = _import_tensorflow()
    canvas_of, unreadable = _tf_canvas_of(tf, plan), _Unreadable(plan)

    def items(steps):
        for step in steps:
            _, rows, valid = plan.batch_rows(step)
            images = plan.kind.images(plan.table, rows)
            images = np.where(valid, images, -1)[:, None]
            yield np.concatenate([images, plan.windows[rows]], -1).astype(np.int64)

    local = plan.local_batch_size

    def canvases_from(step):
        data = tf.data.Dataset.from_generator(
            lambda: items(plan.steps(step, stop)),
            output_signature=tf.TensorSpec([local, 6], tf.int64),
        )
        workers = plan.config.workers or os.cpu_count() or 1
        data = data.unbatch().map(canvas_of, workers, deterministic=True)
        data = data.batch(local, drop_remainder=True).prefetch(PREFETCH)
        options = tf.data.Options()
        options.threading.private_threadpool_size = workers
        return data.with_options(options).as_numpy_iterator()

    canvases = canvases_from(start)
    for step in plan.steps(start, stop):
        try:
            batch = _assemble(plan, *plan.batch_rows(step), next(canvases))
        except tf.errors.OpError as error:
            # Pillow reads the batch, or names the invalid image.
            (batch,) = numpy_batches(plan, step, step + 1, unreadable)
            why = error.message
            logging.warning("TensorFlow could not read step %d: %s", step, why)
            canvases = canvases_from(step + 1)
        yield batch


def _tf_canvas_of(tf, plan: Plan):
    """Returns a tf.data function: [6] int64, image (-1: padding) and window, to canvas."""
    images: tuple[Any, ...] = plan.table.images
    paths = [os.fspath(i) if isinstance(i, os.PathLike) else "" for i in images]
    paths = tf.constant(paths)
    packed = tf.constant([isinstance(i, Record) for i in images])

    def in_numpy(function, values, kind, shape):
        result = tf.numpy_function(function, values, kind, stateful=False)
        return tf.ensure_shape(result, shape)

    def by_pillow(image):
        read = lambda i: decode(plan.table, int(i), plan.undecided)
        return in_numpy(read, [image], tf.uint8, [None, None, 3])

    def window_of(pixels, contents, item):
        # In NumPy, which is faster than tf.pad and tf.reduce_sum.
        if contents:  # Of a JPEG file; Pillow's pixels are in the right frame.
            turned = _orientation(contents)
            pixels = framed(plan.table, int(item[0]), pixels, turned, plan.undecided)
        canvas = np.empty((item[5], item[4], 3), np.uint8)
        cut(pixels, item[1:], canvas)
        return canvas

    def canvas_of(item):
        image = item[0]
        if image < 0:
            canvas = tf.zeros([item[5], item[4], 3], tf.uint8)
        else:
            if packed[image] or paths[image] != "":
                pixels, contents = decoded(image)
            else:  # Pixels in memory.
                pixels, contents = by_pillow(image), tf.constant(b"")
            arguments = [pixels, contents, item]
            canvas = in_numpy(window_of, arguments, tf.uint8, [None, None, 3])
        return tf.ensure_shape(canvas, [None, None, 3])

    def decoded(image):
        contents = contents_of(image)
        if tf.io.is_jpeg(contents) and tf.image.extract_jpeg_shape(contents)[2] != 4:
            pixels = tf.io.decode_jpeg(
                contents, channels=3, dct_method="INTEGER_ACCURATE"
            )
        else:
            pixels, contents = by_pillow(image), tf.constant(b"")
        return pixels, contents

    def contents_of(image):
        if packed[image]:
            read = lambda i: images[int(i)].read()
            contents = in_numpy(read, [image], tf.string, [])
        else:
            contents = tf.io.read_file(paths[image])
        return tf.ensure_shape(contents, [])

    return canvas_of


def _orientation(jpeg: bytes) -> int:
    """Returns EXIF's orientation of an encoded JPEG file."""
    # Most files have none; the search takes microseconds.
    if b"Exif\0\0" not in jpeg and b"tiff:Orientation" not in jpeg:
        return 1
    return pixels_lib.sizes(io.BytesIO(jpeg), "JPEG")[1]


def _import_tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Otherwise it logs.
    try:
        import tensorflow as tf
    except ImportError:
        raise ConfigError(
            'reader "tf" needs TensorFlow: install it, or choose reader "numpy".'
        ) from None
    with contextlib.suppress(RuntimeError):  # TensorFlow is already initialized.
        tf.config.set_visible_devices([], "GPU")
    return tf


def _assemble(
    plan: Plan, epoch: int, rows: np.ndarray, valid: np.ndarray, canvases: np.ndarray
) -> Batch:
    table = plan.table
    x, y, r = plan.windows[rows, :3].T.astype(np.float32)
    to_image = np.zeros((len(rows), 2, 3), np.float32)
    to_image[:, 0, 0] = to_image[:, 1, 1] = r
    to_image[:, 0, 2], to_image[:, 1, 2] = x + (r - 1) / 2, y + (r - 1) / 2
    boxes, scores = plan.kind.boxes(table, rows)
    labels = plan.kind.labels(table, rows, valid) if table.labelled else None
    inputs = Inputs(
        images=canvases,
        canvas_to_image=to_image,
        box_xyxy=boxes.astype(np.float32),
        box_score=scores.astype(np.float32),
        valid=valid,
        row=rows,
    )
    return Batch(inputs, labels, np.asarray(epoch, np.int32))
