"""Handling of stop requests: SIGTERM and Ctrl-C set a flag that a loop can poll."""

from __future__ import annotations

import signal
import threading
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """Raised by `StopRequest.check` to abandon a long operation."""


class StopRequest:
    """Context manager that records the first signal; a second one has its usual effect.

    Outside of the main thread signals cannot be caught and no stop is ever requested. The
    same holds for `enabled=False`.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """True if a signal was received."""
        return self._received is not None

    @property
    def name(self) -> str:
        """Name of the signal; SIGTERM if another process received it."""
        return (self._received or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """0 for SIGTERM, which is a regular stop; 130 for Ctrl-C, as in shells."""
        return 130 if self._received is signal.SIGINT else 0

    def check(self) -> None:
        """Raises Interrupted if a signal was received."""
        if self.requested:
            raise Interrupted

    def _note(self, number: int, frame: object) -> None:
        del frame
        self._received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> StopRequest:
        main = threading.current_thread() is threading.main_thread()
        if self._enabled and main:
            self._before = {n: signal.signal(n, self._note) for n in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
