"""The order of rows: the rows of each batch, computed from (seed, epoch).

No pixels are read here. Everything is a pure function of (table, view, config, seed,
step), so reading can start at any step.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from pose_jax.data import rows as rows_lib
from pose_jax.data._files import one_of
from pose_jax.data.table import Table
from pose_jax.errors import ConfigError, InputError
from pose_jax.types import View


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """Options for reading batches.

    Attributes:
      batch_size: rows of a batch, over all processes.
      canvas_size: (width, height) of a `PersonView`'s canvases; (640, 640) holds every
        complete COCO image. An `ImageView` uses its buckets instead.
      reader: "tf" (tf.data), "numpy" (Pillow in threads, without TensorFlow), or
        "auto": "tf" if it is installed.
      workers: number of decoding threads; 0: one per CPU.
      cache_mb: size of the NumPy reader's cache of decoded images.
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
        one_of("reader", self.reader, ("auto", "tf", "numpy"))
        if self.workers < 0 or self.cache_mb < 0:
            raise ConfigError("workers and cache_mb cannot be negative.")


class Plan:
    """The rows of each batch, and the image window of each row.

    An epoch is a sequence of batches, each with canvases of one size: the rows of
    `order(epoch)` are grouped by canvas size, and a batch is emitted as soon as it is full.
    A `PersonView` has one size, so its batches are slices of the order. Training drops
    incomplete batches (unless a size would have no batch: then it is padded); evaluation
    pads them, at the end.

    Args:
      table: source of the rows.
      view: what a row is: a person, or an image.
      config: sizes, reader.
      rows: [r] int32 rows of the Table (`PersonView`) or image numbers (`ImageView`).
        None: all rows usable for training or evaluation, see `rows.default`.
      training: shuffle, and extend windows beyond the padded box; requires labels.
      seed: seed of the order.
      process_index, process_count: this process reads its part of every batch.

    Attributes:
      windows: [n, 5] int32, for each row of the Table (or image) the window of the image
        that its canvas shows: x, y, r, canvas width, canvas height.
      undecided: image numbers that readers have found to have an EXIF orientation which
        their annotated size does not decide; see `pixels.turns`.

    Raises:
      InputError: no rows, or no labels to train on.
      ConfigError: the batch cannot be divided evenly.
    """

    def __init__(
        self,
        table: Table,
        view: View,
        config: InputConfig,
        rows: np.ndarray | None = None,
        *,
        training: bool = False,
        seed: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        self.table, self.view, self.config = table, view, config
        self.training, self.seed = training, seed
        self.process_index, self.process_count = process_index, process_count
        self.kind = rows_lib.of(view)
        self.undecided: set[int] = set()
        if rows is None:
            rows = self.kind.default(table, training)
        self.rows = np.asarray(rows, np.int32)
        if not len(self.rows):
            raise InputError(
                f"{table.name}: there are no rows to read. Training needs people "
                "(`PersonView`: with labeled keypoints), prediction needs boxes."
            )
        if config.batch_size % process_count:
            raise ConfigError(
                f"batch_size {config.batch_size} cannot be shared by {process_count} "
                f"processes; make it a multiple of {process_count}."
            )
        if not 0 <= process_index < process_count or seed < 0:
            raise ValueError(
                f"process_index {process_index} of {process_count}, seed {seed}: "
                "neither may be negative, and the index must be below the count."
            )
        if training and not table.labelled:
            raise InputError(
                f"{table.name} has boxes from {table.box_source} and no labels: it cannot "
                "be used for training."
            )
        self.windows = self.kind.windows(table, config.canvas_size, training)
        sizes = self.windows[self.rows, 3:]
        self._groups = np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1)
        self._lock, self._epochs = threading.Lock(), {}

    @property
    def local_batch_size(self) -> int:
        """Rows of a batch in this process."""
        return self.config.batch_size // self.process_count

    @property
    def steps_per_epoch(self) -> int:
        return int(self._full(np.bincount(self._groups)).sum())

    def order(self, epoch: int) -> np.ndarray:
        """Returns [r] int32: the order of `rows` in this epoch, from (seed, epoch) only."""
        return self.rows[self._permutation(epoch)]

    def batch_rows(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Returns the rows of this process at a step.

        Args:
          step: counted from 0 over all epochs; no batch has rows of two epochs.

        Returns:
          epoch; rows [batch_size / process_count] int32; valid, False where a row is
          padding (a copy of the first row of the global batch).
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
        part = slice(self.process_index * local, (self.process_index + 1) * local)
        return epoch, rows[part], places[part] >= 0

    def steps(self, start: int, stop: int | None) -> Iterator[int]:
        """start .. stop - 1; without `stop` up to one epoch, or infinite in training."""
        if stop is None and self.training:
            return itertools.count(start)
        return iter(range(start, self.steps_per_epoch if stop is None else stop))

    def _permutation(self, epoch: int) -> np.ndarray:
        if not self.training:
            return np.arange(len(self.rows))
        # Raw words of Philox are stable; NumPy's own shuffles may change.
        words = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        return np.argsort(words.random_raw(len(self.rows)), kind="stable")

    def _full(self, rows: Any) -> Any:
        """Returns the number of batches for a number of rows of one canvas size."""
        size = self.config.batch_size
        return np.maximum(rows // size if self.training else -(-rows // size), 1)

    def _batches(self, epoch: int) -> np.ndarray:
        """Returns [steps, batch_size]: indices into `rows`, -1 for padding."""
        size = self.config.batch_size
        order = self._permutation(epoch)
        batches, filled_at = [], []
        for group in range(self._groups.max() + 1):
            at = np.flatnonzero(self._groups[order] == group)  # indices into the order
            full = self._full(len(at))
            at = at[: full * size]
            padded = np.full(full * size, -1)
            padded[: len(at)] = order[at]
            batches.append(padded.reshape(full, size))
            # A batch is emitted with its last row, an incomplete one at the end.
            last = np.full(full * size, len(order))
            last[: len(at)] = at
            filled_at.append(last.reshape(full, size)[:, -1])
        when = np.argsort(np.concatenate(filled_at), kind="stable")
        return np.concatenate(batches)[when]
