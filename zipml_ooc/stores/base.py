"""What a store is: whole objects and ranges of them by key, counted. Writing is not for here."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

__all__ = ["MARKERS", "Range", "Store", "Traffic", "from_start", "short"]

Range = tuple[int, int]
"""First byte, and the number of bytes; (-n, n) are the last n bytes."""

MARKERS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""Objects that a Zarr group or array has one of; some stores cannot say whether a folder exists."""


class Traffic:
    """Counts what a store fetched; threads may share it.

    Attributes
    ----------
    fetched_bytes, requests : int
        Every range is a request, whatever the store makes of several at once.
    retries : int
        How often a call failed in passing and was made again.
    """

    def __init__(self) -> None:
        self.fetched_bytes = 0
        self.requests = 0
        self.retries = 0
        self._lock = threading.Lock()

    def add(self, fetched_bytes: int, requests: int) -> None:
        """Count some requests and the bytes that came of them."""
        with self._lock:
            self.fetched_bytes += fetched_bytes
            self.requests += requests

    def add_retry(self) -> None:
        """Count a call that is made again."""
        with self._lock:
            self.retries += 1


class Store(Protocol):
    """Bytes by key, below one place.

    Attributes
    ----------
    place : str
        An absolute path or a URL: opens the same store elsewhere.
    remote : bool
        Whether it is neither a folder nor a file of this machine.
    traffic : Traffic
    """

    place: str
    remote: bool
    traffic: Traffic

    def exists(self) -> bool:
        """Whether there is anything at the place."""

    def size(self, key: str) -> int:
        """Bytes of an object."""

    def stamp(self, keys: Sequence[str]) -> str:
        """What changes when one of these objects does; those that do not exist are left out."""

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """Fetch an object, or ranges of it, one behind the other.

        Raises
        ------
        FileNotFoundError
            There is no such object.
        OSError
            It cannot be read, or ends before a range does.
        """

    def read_checked(
        self, key: str, part: Range | None = None, expected_bytes: int = 0
    ) -> memoryview:
        """Fetch an object, or a range of it, that ends with its CRC-32C; give back what it is of.

        Parameters
        ----------
        key : str
        part : Range, optional
        expected_bytes : int
            What it most likely has, checksum included, if that is known: saves a question.

        Raises
        ------
        ChunkError
            The checksum is another one.
        FileNotFoundError, OSError
            As for `read`.
        """


def from_start(part: Range, size: int) -> Range:
    """The range of an object of this size, counted from its start."""
    start, length = part
    return (size + start if start < 0 else start), length


def short(key: str, part: Range) -> OSError:
    """The error for an object that ends before a range does."""
    start, length = part
    if start < 0:
        return OSError(f"{key} has fewer than {length} bytes: truncated")
    return OSError(f"{key} ends before byte {start + length}: truncated")
