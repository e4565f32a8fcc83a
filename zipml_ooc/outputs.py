"""Where a dataset is written: object by object, each there whole or not at all.

A folder of this machine, or a URL that fsspec writes to. Both can be sent to workers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from .durable import commit, write_durably
from .errors import UsageError
from .shard_file import ObjectFile
from .stores import LocalStore, Store
from .stores.urls import OBSTORE_PREFIX, FsspecStore, needed_package

__all__ = ["FolderOutput", "Output", "UrlOutput"]


class Output(Protocol):
    """A place for the objects of a dataset."""

    def open(self, key: str, shard_chunks: int | None) -> ObjectFile:
        """Start an object; it appears when it is closed."""

    def write(self, key: str, data: bytes) -> None:
        """Write an object."""

    def store(self) -> Store:
        """What reads from the same place."""


@dataclass(frozen=True)
class FolderOutput:
    """A folder of this machine.

    Parameters
    ----------
    data : Path
    scratch : Path
        On the same file system, for what is being written.
    """

    data: Path
    scratch: Path

    def open(self, key: str, shard_chunks: int | None) -> ObjectFile:
        """See `Output`."""
        return ObjectFile(self.scratch, shard_chunks, partial(_commit, self.data / key))

    def write(self, key: str, data: bytes) -> None:
        """See `Output`."""
        write_durably(self.data / key, [data], self.scratch)

    def store(self) -> Store:
        """See `Output`."""
        return LocalStore(self.data)


def _commit(path: Path, descriptor: int, temporary: Path) -> None:
    commit(descriptor, temporary, path)


@dataclass(frozen=True)
class UrlOutput:
    """A URL. Objects are made in the folder for temporary files, and sent when they are whole.

    Parameters
    ----------
    url : str
    """

    url: str

    def open(self, key: str, shard_chunks: int | None) -> ObjectFile:
        """See `Output`."""
        return ObjectFile(Path(tempfile.gettempdir()), shard_chunks, partial(self._send, key))

    def _send(self, key: str, descriptor: int, temporary: Path) -> None:
        try:
            self.store().upload(key, temporary)
        finally:
            temporary.unlink()

    def write(self, key: str, data: bytes) -> None:
        """See `Output`."""
        self.store().put(key, data)

    def store(self) -> WritableStore:
        """See `Output`."""
        if self.url.startswith(OBSTORE_PREFIX):
            raise UsageError(f"{self.url}: datasets are written by fsspec: leave out the prefix")
        try:
            return WritableStore(self.url)
        except ImportError as error:
            raise UsageError(needed_package(self.url, error)) from error


class WritableStore(FsspecStore):
    """A store by fsspec that can be written to."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self._call(lambda: self._files.pipe_file(self._path(key), data))

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a file."""
        self._call(lambda: self._files.put_file(os.fspath(path), self._path(key)))

    def has(self, key: str) -> bool:
        """Whether there is an object."""
        return self._there(self._path(key))

    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""
        if self.has(key):
            self._call(lambda: self._files.rm_file(self._path(key)))

    def every_key(self) -> list[str]:
        """Every object at or below the place; the place itself is the empty key."""
        self._call(self._files.invalidate_cache)
        root = self._root.rstrip("/")
        try:
            found = self._call(lambda: self._files.find(root))
        except FileNotFoundError:
            return []
        return [path[len(root) :].lstrip("/") for path in found]

    def remove_many(self, keys: Sequence[str]) -> None:
        """Remove objects that are there."""
        if keys:
            self._call(lambda: self._files.rm([self._path(key) for key in keys]))
