"""Where the bytes of a dataset lie: whole objects and ranges of them, from files and from URLs.

One protocol with two implementations: files of this machine, and everything that fsspec opens (S3,
memory, HTTP and others). Both count what they fetched. Writing is not for here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from .errors import UsageError

__all__ = ["LocalStore", "Range", "Store", "Traffic", "UrlStore", "open_store"]

Range = tuple[int, int]
"""First byte, and the number of bytes; (-n, n) are the last n bytes."""

_PACKAGES = {"s3": 's3fs: pip install "zipml-ooc[s3]"'}


class Traffic:
    """Counts what a store fetched; threads may share it.

    Attributes
    ----------
    fetched_bytes, requests : int
        Every range is a request, whatever the store makes of several at once.
    """

    def __init__(self) -> None:
        self.fetched_bytes = 0
        self.requests = 0
        self._lock = threading.Lock()

    def add(self, fetched_bytes: int, requests: int) -> None:
        """Count some requests and the bytes that came of them."""
        with self._lock:
            self.fetched_bytes += fetched_bytes
            self.requests += requests


class Store(Protocol):
    """Bytes by key, below one place.

    Attributes
    ----------
    place : str
        An absolute path or a URL: opens the same store elsewhere.
    remote : bool
        Whether it is no folder of this machine.
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


class LocalStore:
    """A folder of this machine."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)
        self.traffic = Traffic()

    def exists(self) -> bool:
        """See `Store`."""
        return self._folder.exists()

    def size(self, key: str) -> int:
        """See `Store`."""
        return (self._folder / key).stat().st_size

    def stamp(self, keys: Sequence[str]) -> str:
        """See `Store`."""
        paths = [self._folder / key for key in keys]
        return str(max((p.stat().st_mtime_ns for p in paths if p.exists()), default=0))

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """See `Store`."""
        with (self._folder / key).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            parts = [(0, size)] if ranges is None else [_from_start(r, size) for r in ranges]
            for start, length in parts:
                if start < 0 or start + length > size:  # before anything is allocated
                    raise _short(key, start + length)
            out = memoryview(bytearray(sum(length for _, length in parts)))
            done = 0
            for start, length in parts:
                file.seek(start)
                end = done + length
                while done < end:
                    got = file.readinto(out[done:end])
                    if not got:
                        raise _short(key, start + length)
                    done += got
        self.traffic.add(len(out), len(parts))
        return out


class UrlStore:
    """Whatever fsspec opens."""

    remote = True

    def __init__(self, url: str) -> None:
        import fsspec

        self.place = url
        self.traffic = Traffic()
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.place)
        except ImportError as error:
            scheme = urlsplit(url).scheme
            raise UsageError(
                f"{url}: this kind of URL needs {_PACKAGES.get(scheme, error)}"
            ) from error
        except ValueError as error:  # a protocol that nobody knows
            raise UsageError(f"{url}: {error}") from error

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def exists(self) -> bool:
        """See `Store`."""
        return bool(self._call(self._files.exists, self._root))

    def size(self, key: str) -> int:
        """See `Store`."""
        return int(self._call(self._files.size, self._path(key)))

    def stamp(self, keys: Sequence[str]) -> str:
        """See `Store`."""
        parts = []
        for key in keys:
            try:
                info = self._call(self._files.info, self._path(key))
            except FileNotFoundError:
                continue
            named = ("ETag", "LastModified", "mtime", "created", "size")
            parts.append(str([info.get(name) for name in named]))
        return " ".join(parts)

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """See `Store`."""
        path = self._path(key)
        if ranges is None:
            parts = [self._call(self._files.cat_file, path)]
        else:
            starts = [start for start, _ in ranges]
            ends = [start + length if start >= 0 else None for start, length in ranges]
            parts = self._call(self._files.cat_ranges, [path] * len(ranges), starts, ends)
            for part, (start, length) in zip(parts, ranges, strict=True):
                if isinstance(part, BaseException):
                    raise _as_os_error(part)
                if len(part) != length:
                    raise _short(key, start + length)
        out = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        self.traffic.add(len(out), len(parts))
        return out

    def _call(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:  # every file system has exceptions of its own
            raise _as_os_error(error) from error


def _as_os_error(error: BaseException) -> BaseException:
    if isinstance(error, OSError):
        return error
    return OSError(" ".join(str(error).split()) or type(error).__name__)


def _from_start(part: Range, size: int) -> Range:
    start, length = part
    return (size + start if start < 0 else start), length


def _short(key: str, end: int) -> OSError:
    if end <= 0:
        return OSError(f"{key} is shorter than its index: truncated")
    return OSError(f"{key} ends before byte {end}: truncated")


def open_store(place: str | os.PathLike[str]) -> Store:
    """Open the store at a path or URL; nothing is fetched.

    Within a process there is one store for each place, so that its traffic is that of all tasks.

    Raises
    ------
    UsageError
        A kind of URL that is not known or whose package is missing.
    """
    text = os.fspath(place)
    if "://" in text and not text.startswith("file://"):
        return _remote_store(text.rstrip("/"))
    return _local_store(Path(text.removeprefix("file://")).absolute())


@lru_cache(maxsize=64)
def _remote_store(url: str) -> UrlStore:
    return UrlStore(url)


@lru_cache(maxsize=64)
def _local_store(folder: Path) -> LocalStore:
    return LocalStore(folder)
