"""Moments in which the signals that stop a process must wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signals_ignored"]


@contextmanager
def signals_ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals, by default those of Ctrl-C and of `kill`; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {n: signal.getsignal(n) for n in numbers or (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that Python did not set cannot be set again
                signal.signal(number, handler)
