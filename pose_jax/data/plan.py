"""The order of rows: which rows make which batch, as arithmetic of (seed, epoch).

No pixel is read here. All of it is a pure function of (table, view, config, seed, step):
starting at step n is arithmetic.
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
        one_of("reader", self.reader, ("auto", "tf", "numpy"))
        if self.workers < 0 or self.cache_mb < 0:
            raise ConfigError("workers and cache_mb cannot be negative.")


class Plan:
    """Which rows make which batch, and which window of its image each row sees.

    An epoch is a sequence of batches of equal canvases: the rows of `order(epoch)`
    gather by canvas size, and a batch goes out as soon as it is full. A `PersonView`
    has one size, so its batches are slices of the order. Training drops what does not
    fill a batch (unless there would be none at all of that size: that one is padded);
    evaluation pads, at the end.

    Args:
      table: where rows come from.
      view: what a row is: a person, or an image.
      config: sizes, reader.
      rows: [r] int32 rows of the Table (`PersonView`) or image numbers (`ImageView`).
        None: all that have something to learn or to score, see `rows.default`.
      training: shuffled, reaching beyond the padded box; labels must exist.
      seed: of the order.
      process_index, process_count: this process gets its part of every batch.

    Attributes:
      windows: [n, 5] int32, for each row of the Table (or image) the window of the image
        that its canvas shows: x, y, r, canvas width, canvas height.

    Raises:
      InputError: no rows, or no labels to train on.
      ConfigError: the batch cannot be shared evenly.
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
        if rows is None:
            rows = self.kind.default(table, training)
        self.rows = np.asarray(rows, np.int32)
        if not len(self.rows):
            raise InputError(
                f"{table.name}: there are no rows to read. Training needs people "
                "(`PersonView`: with labelled keypoints), prediction needs boxes."
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
                "be trained on."
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

    def _full(self, rows: Any) -> Any:
        """How many batches so many rows of one canvas size make."""
        size = self.config.batch_size
        return np.maximum(rows // size if self.training else -(-rows // size), 1)

    def _batches(self, epoch: int) -> np.ndarray:
        """[steps, batch_size]: places in `rows`, -1 for padding."""
        size = self.config.batch_size
        order = self._permutation(epoch)
        batches, filled_at = [], []
        for group in range(self._groups.max() + 1):
            at = np.flatnonzero(self._groups[order] == group)  # places in the order
            full = self._full(len(at))
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
