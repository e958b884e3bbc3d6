"""Logging of scalars to `metrics.jsonl`, TensorBoard and the terminal.

Only the first process writes; in all others these objects do nothing. Values are host
numbers, which the caller has fetched from the device.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
from absl import logging

_METRICS, _DAMAGED = "metrics.jsonl", "metrics_damaged.jsonl"
_OF_TRAINING = "images_per_second"
"""A scalar that every entry of training steps has, and no entry of an evaluation."""
_RESERVED = ("step", "phase", "time")


class MetricWriter:
    """Writes scalars to `run_dir/metrics.jsonl` and, if tensorboardX is installed, for
    TensorBoard.

    A line is one JSON object: `step`, `phase`, `time` (seconds since 1970) and the
    scalars; values that are not finite are null. In TensorBoard each phase is a run in
    `run_dir/tensorboard`; TensorFlow is neither needed nor loaded.
    """

    def __init__(self, run_dir: str | Path, *, tensorboard: bool = True):
        self._enabled = jax.process_index() == 0
        self._run_dir = Path(run_dir)
        self._file: TextIO | None = None
        self._tensorboard = tensorboard and self._enabled and _has_tensorboard()
        self._events: dict[str, Any] = {}
        if self._enabled:
            self._run_dir.mkdir(parents=True, exist_ok=True)

    def resume(self, phase: str, step: int, *, evaluated: bool = True) -> None:
        """Removes the entries that an interrupted run wrote for `phase` after `step`.

        The log is then that of an uninterrupted run. A line that was cut off is removed
        too; damaged lines are moved to metrics_damaged.jsonl, with a warning.

        Args:
          phase: name of the phase.
          step: step of the restored state.
          evaluated: False if the evaluation of `step` is not complete and is repeated: its
            entry is removed as well.
        """
        if not self._enabled:
            return
        self.close()
        path = self._run_dir / _METRICS
        if path.exists():
            lines = path.read_bytes().split(b"\n")
            entries = [_entry(line) for line in lines]
            kept = [
                line
                for line, entry in zip(lines, entries, strict=True)
                if entry is not None
                and (entry["phase"] != phase or entry["step"] <= step)
                and (
                    evaluated
                    or (entry["phase"], entry["step"]) != (phase, step)
                    or _OF_TRAINING in entry
                )
            ]
            # The last line has no end if the process was killed while writing it.
            self._set_aside(
                line
                for line, entry in zip(lines[:-1], entries, strict=False)
                if entry is None and line.strip(b"\0 \r")
            )
            new = path.with_suffix(".new")
            new.write_bytes(b"".join(line + b"\n" for line in kept))
            new.replace(path)
        if self._tensorboard:
            # TensorBoard hides the events of earlier files from this step on.
            self._writer(phase, purge_step=step + 1)

    def _set_aside(self, damaged: Iterable[bytes]) -> None:
        """Moves damaged lines to a file of their own and says how many there are."""
        lines = list(damaged)
        if lines:
            path = self._run_dir / _DAMAGED
            with open(path, "ab") as file:
                file.writelines(line + b"\n" for line in lines)
            logging.warning(
                "%s: %d damaged lines were moved to %s.",
                self._run_dir / _METRICS, len(lines), path.name,
            )  # fmt: skip

    def write(self, step: int, phase: str, scalars: Mapping[str, Any]) -> None:
        """Writes the scalars of one step of one phase."""
        if not self._enabled:
            return
        taken = [name for name in scalars if name in _RESERVED]
        if taken:
            raise ValueError(f"scalar names {taken} are reserved by the log.")
        values = {name: float(value) for name, value in scalars.items()}
        line = {"step": int(step), "phase": phase, "time": round(time.time(), 3)}
        line |= {name: _json_number(value) for name, value in values.items()}
        if self._file is None:
            self._file = open(self._run_dir / _METRICS, "a", encoding="utf-8")
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard:
            from tensorboardX.proto import summary_pb2

            # Not by add_scalar, which replaces "@" by "_". Protobuf makes the class later.
            summary = summary_pb2.Summary()  # pyright: ignore[reportAttributeAccessIssue]
            for name, value in values.items():
                summary.value.add(tag=name, simple_value=value)
            self._writer(phase).file_writer.add_summary(summary, step)

    def _writer(self, phase: str, purge_step: int | None = None) -> Any:
        from tensorboardX import SummaryWriter

        if phase not in self._events:
            self._events[phase] = SummaryWriter(
                str(self._run_dir / "tensorboard" / phase), purge_step=purge_step,
                max_queue=0,  # Unbounded: a full queue would block forever on a full disk.
                flush_secs=5, filename_suffix=f".{time.time_ns()}",
            )  # fmt: skip
        return self._events[phase]

    def close(self) -> None:
        """Flushes and closes all files; writing again reopens them."""
        if self._file is not None:
            self._file.close()
            self._file = None
        for writer in self._events.values():
            writer.close()
        self._events.clear()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """Reads the complete lines of `run_dir/metrics.jsonl` as dicts; [] without the file.

    Damaged lines are left out; `MetricWriter.resume` counts them.
    """
    path = Path(run_dir) / _METRICS
    if not path.exists():
        return []
    entries = map(_entry, path.read_bytes().split(b"\n"))
    return [entry for entry in entries if entry is not None]


def _entry(line: bytes) -> dict[str, Any] | None:
    """Returns the entry of a line; None if the line is incomplete or damaged."""
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("phase"), str):
        return None
    numbers = [value for name, value in entry.items() if name != "phase"]
    if type(entry.get("step")) is not int or any(
        isinstance(value, bool) or not isinstance(value, int | float | None)
        for value in numbers
    ):
        return None
    return entry


def _json_number(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    # Nine digits represent a float32 exactly.
    return float(f"{value:.9g}")


def _has_tensorboard() -> bool:
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        logging.warning(
            "tensorboardX is not installed (pip install 'pose_jax[log]'): metrics are "
            "written to %s only.",
            _METRICS,
        )
        return False
    return True


class Progress:
    """Progress of a phase: a bar on a terminal, plain lines otherwise.

        pose step 200/1000  loss 0.0012  lr 0.001  images/s 183  eta 2:10

    Call it after every step; a plain line is printed only if there are values. The ETA is
    computed from the steps after the first call, which excludes compilation.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        enabled: bool | None = None,
        *,
        label: str = "",
        unit: str = "step",
        stream: TextIO | None = None,
    ):
        """Creates the progress display.

        Args:
          total: number of steps of the complete phase.
          start: number of steps done before, in a resumed run.
          enabled: False prints nothing; None: only the first process prints.
          label: start of every line.
          unit: name of a step.
          stream: output stream; None: standard output.
        """
        self._enabled = jax.process_index() == 0 if enabled is None else enabled
        self._total = total
        self._stream = stream or sys.stdout
        self._label = f"{label} {unit}".strip()
        self._first: tuple[int, float] | None = None
        self._bar = None
        if self._enabled and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=start,
                file=self._stream,
                bar_format=self._label + " {n_fmt}/{total_fmt} {bar:20}{desc}",
                dynamic_ncols=True,
            )

    def __call__(self, step: int, values: Mapping[str, Any] | None = None) -> None:
        """Displays that `step` steps are done; strings in `values` are shown unchanged."""
        if not self._enabled:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        if values is not None:
            shown = {**values, "eta": self._eta(step, now)}
            text = "  ".join(f"{name} {_short(value)}" for name, value in shown.items())
            if self._bar is None:
                line = f"{self._label} {step}/{self._total}  {text}"
                print(line, file=self._stream, flush=True)
            else:
                self._bar.set_description_str(f"  {text}", refresh=False)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """Prints a separate line, above the bar if there is one."""
        if not self._enabled:
            return
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def _eta(self, step: int, now: float) -> str:
        assert self._first is not None
        first_step, first_time = self._first
        if step <= first_step:
            return "?"
        seconds = (now - first_time) / (step - first_step) * (self._total - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        )

    def close(self) -> None:
        """Closes the bar and ends its line."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
