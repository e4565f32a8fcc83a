"""Writing an object of an array: one chunk, or a shard of several with an index at its end.

The shard is that of Zarr's codec `sharding_indexed` with the index codecs `bytes` (little-endian)
and `crc32c`. Chunks go to the disk as they come, so that a shard takes no memory.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .durable import write_all
from .value_codec import CHECKSUM_BYTES, add_checksum

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NOWHERE", "ObjectFile", "index_bytes"]

NOWHERE = 2**64 - 1
"""Offset and length of a chunk that a shard does not hold."""
_ENTRY_BYTES = 16


def index_bytes(chunks: int) -> int:
    """Size of the index of a shard with its checksum."""
    return chunks * _ENTRY_BYTES + CHECKSUM_BYTES


class ObjectFile:
    """An object that is there when it is closed, and not before.

    Parameters
    ----------
    scratch : Path
        A folder for the time until then.
    shard_chunks : int or None
        Chunks of a shard; None for an object that is one chunk.
    publish : callable
        Called as publish(descriptor, path) with what was written; the path is its own then.
    """

    def __init__(
        self, scratch: Path, shard_chunks: int | None, publish: Callable[[int, Path], None]
    ) -> None:
        self._publish = publish
        # Nobody else writes this file, not even another attempt at the same object.
        self._temporary = scratch / secrets.token_hex(8)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o666)
        self._index = None
        if shard_chunks is not None:
            self._index = np.full((shard_chunks, 2), NOWHERE, "<u8")
        self._size = 0

    def append(self, data: Buffer, inner: int) -> None:
        """Write the next chunk, which has this number within the shard."""
        length = memoryview(data).nbytes
        write_all(self._descriptor, data)
        if self._index is not None:
            self._index[inner] = self._size, length
        self._size += length

    def close(self) -> None:
        """Let the object appear, whole and on the disk."""
        try:
            if self._index is not None:
                write_all(self._descriptor, add_checksum(self._index.tobytes()))
            self._publish(self._descriptor, self._temporary)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Drop what was written."""
        os.close(self._descriptor)
        self._temporary.unlink(missing_ok=True)
