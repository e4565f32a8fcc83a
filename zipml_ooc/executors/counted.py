"""What our sessions have in common: they are open or closed, and count their runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ExecutorError
from .protocol import Counters

if TYPE_CHECKING:
    from ..training.loading import LoadedTiles

__all__ = ["CountedSession"]


class CountedSession:
    """The part of a session that does not depend on what it computes with."""

    def __init__(self) -> None:
        self._counters: Counters | None = Counters()

    def counters(self) -> Counters:
        """What was done; an error once the session is closed."""
        if self._counters is None:
            raise ExecutorError("the session is closed")
        return self._counters

    def close(self) -> None:
        """Count no more."""
        self._counters = None

    @contextmanager
    def counting(self, tiles: LoadedTiles) -> Iterator[None]:
        """Count a run over some tiles: what is done here."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._counters = self.counters() + Counters(runs=1, bytes=tiles.bytes_read, seconds=seconds)
