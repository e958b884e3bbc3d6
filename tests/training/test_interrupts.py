"""Signals become a question; a second one acts as it always does."""

import os
import signal
import threading

import pytest

from pose_jax.training.interrupts import Interrupted, StopRequest


@pytest.mark.parametrize(
    "number, exit_code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_is_noted_and_handlers_come_back(number, exit_code):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.check()
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested and stop.name == number.name
        assert stop.exit_code == exit_code
        with pytest.raises(Interrupted):
            stop.check()
        assert signal.getsignal(number) is before  # The next one is not caught.
    assert signal.getsignal(number) is before


def test_without_a_signal_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_is_caught_where_it_cannot_or_should_not_be():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(enabled=False):
        assert signal.getsignal(signal.SIGTERM) is before
    seen = []

    def elsewhere():
        with StopRequest() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(False, True)]
