"""A store as zarr-python sees it: read-only, so that metadata come the same way as chunks do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.abc.store import Store as ZarrStore

from .base import Range, Store, Traffic

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["ReadOnlyStore"]

# A key below a file is missing, too. Raised, it would leave the other keys that zarr-python asks
# for at the same time without anybody to take their errors, which then print tracebacks.
_MISSING = (FileNotFoundError, NotADirectoryError)


class ReadOnlyStore(ZarrStore):
    """What zarr-python reads through; what it fetches is not counted with the store's traffic."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, store: Store) -> None:
        super().__init__(read_only=True)
        self._store = copy.copy(store)
        self._store.traffic = Traffic()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadOnlyStore) and other._store.place == self._store.place

    def __str__(self) -> str:
        return self._store.place

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See `zarr.abc.store.Store`."""
        try:
            data = await asyncio.to_thread(self._read, key, byte_range)
        except _MISSING:
            return None
        return prototype.buffer.from_bytes(bytes(data))

    def _read(self, key: str, wanted: ByteRequest | None) -> memoryview:
        ranges: list[Range] | None = None
        if isinstance(wanted, RangeByteRequest):
            ranges = [(wanted.start, wanted.end - wanted.start)]
        elif isinstance(wanted, SuffixByteRequest):
            ranges = [(-wanted.suffix, wanted.suffix)]
        elif isinstance(wanted, OffsetByteRequest):
            ranges = [(wanted.offset, self._store.size(key) - wanted.offset)]
        return self._store.read(key, ranges)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """See `zarr.abc.store.Store`."""
        return list(
            await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))
        )

    async def exists(self, key: str) -> bool:
        """See `zarr.abc.store.Store`."""
        try:
            await asyncio.to_thread(self._store.size, key)
        except _MISSING:
            return False
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """See `zarr.abc.store.Store`."""
        raise PermissionError(f"{self._store.place} was opened for reading")

    async def delete(self, key: str) -> None:
        """See `zarr.abc.store.Store`."""
        raise PermissionError(f"{self._store.place} was opened for reading")

    # The attributes say which objects there are, so that reading never lists, which some stores,
    # such as plain servers of files, could not do. zarr-python asks for `supports_listing` before
    # it looks for the members of a group; the base class wants the methods all the same.

    def list(self) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store`."""
        raise NotImplementedError("the keys of this store are not listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store`."""
        raise NotImplementedError("the keys of this store are not listed")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store`."""
        raise NotImplementedError("the keys of this store are not listed")
