"""Being asked to stop: SIGTERM and Ctrl-C become a question that a loop can ask."""

from __future__ import annotations

import signal
import threading

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """Raised by `StopRequest.check` where something long can be left undone."""


class StopRequest:
    """While it is entered, the first signal is noted; a second one acts as always.

    Outside of the main thread signals cannot be caught: then nothing is ever requested.
    With `enabled=False` nothing is caught either.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    @property
    def name(self) -> str:
        """Of the signal; SIGTERM, batch systems' own, where another process got it."""
        return (self._received or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """0 for SIGTERM: to stop was what was wanted. 130 for Ctrl-C, as shells have it."""
        return 130 if self._received is signal.SIGINT else 0

    def check(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.requested:
            raise Interrupted

    def _note(self, number: int, frame: object) -> None:
        del frame
        self._received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore
        self._before = {}

    def __enter__(self) -> StopRequest:
        main = threading.current_thread() is threading.main_thread()
        if self._enabled and main:
            self._before = {n: signal.signal(n, self._note) for n in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
