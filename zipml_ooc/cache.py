"""A cache of read-only buffers with a byte budget, shared by all threads of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ["ByteCache"]

T = TypeVar("T")


class ByteCache:
    """Keeps the most recently used values whose sizes add up to at most `budget_bytes`.

    A value is loaded by whoever misses it first; two threads that miss it together may both load
    it, which is cheaper than making one wait for the other.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._held = 0
        self._values: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], T], size: Callable[[T], int]) -> T:
        """Return the value of a key, loading it if it is not held."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]  # type: ignore[return-value]
        value = load()
        nbytes = size(value)
        if nbytes > self._budget:
            return value
        with self._lock:
            if key not in self._values:
                self._values[key] = (value, nbytes)
                self._held += nbytes
            while self._held > self._budget:
                _, (_, released) = self._values.popitem(last=False)
                self._held -= released
        return value
