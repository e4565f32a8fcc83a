"""Stores behind URLs, by fsspec and by obstore; what fails in passing is tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import UsageError
from ..value_codec import without_checksum
from .base import MARKERS, Range, Traffic, short
from .retries import TruncatedError, patiently

__all__ = ["OBSTORE_PREFIX", "FsspecStore", "ObstoreStore", "needed_package", "open_url"]

T = TypeVar("T")

OBSTORE_PREFIX = "obstore+"
_OBSTORE_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https")
_PACKAGES = {"s3": 's3fs: pip install "zipml-ooc[s3]"', "s3a": 's3fs: pip install "zipml-ooc[s3]"'}
_OBSTORE = 'obstore: pip install "zipml-ooc[obstore]"'


class FsspecStore:
    """Whatever fsspec opens."""

    remote = True

    def __init__(self, url: str) -> None:
        import fsspec

        self.place = url
        self.traffic = Traffic()
        scheme = urlsplit(url).scheme
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **_options(scheme))
        except ValueError as error:  # a protocol that nobody knows
            raise UsageError(f"{url}: {error}") from error
        if scheme in ("s3", "s3a"):
            self._files.retries = 1  # ours are the only ones: they are counted, and have an end
            self._files.max_concurrency = 1  # else it asks for the size of a whole object first

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def exists(self) -> bool:
        """See `Store`."""
        return any(self._there(path) for path in (self._root, *map(self._path, MARKERS)))

    def _there(self, path: str) -> bool:
        """Whether there is something; not by the file system's own `exists`.

        That of fsspec takes every error for a no: a store that fails in passing would seem empty.
        """
        try:
            self._call(lambda: self._files.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, key: str) -> int:
        """See `Store`."""
        return int(self._call(lambda: self._files.size(self._path(key))))

    def stamp(self, keys: Sequence[str]) -> str:
        """See `Store`."""
        parts = []
        for key in keys:
            try:
                info = self._call(lambda key=key: self._files.info(self._path(key)))  # type: ignore[misc]
            except FileNotFoundError:
                continue
            named = ("ETag", "LastModified", "mtime", "created", "size")
            parts.append(str([info.get(name) for name in named]))
        return " ".join(parts)

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """See `Store`."""
        path = self._path(key)
        if ranges is None:
            parts = [self._call(lambda: self._files.cat_file(path))]
        else:
            parts = self._parts(path, key, ranges)
        out = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        self.traffic.add(len(out), len(parts))
        return out

    def read_checked(
        self, key: str, part: Range | None = None, expected_bytes: int = 0
    ) -> memoryview:
        """See `Store`."""
        return without_checksum(self.read(key, None if part is None else [part]))

    def _parts(self, path: str, key: str, ranges: Sequence[Range]) -> list[bytes]:
        found: dict[int, bytes] = {}

        def fetch() -> None:
            """Fetch side by side what did not come the last time."""
            wanted = [i for i in range(len(ranges)) if i not in found]
            starts = [ranges[i][0] for i in wanted]
            ends = [sum(ranges[i]) if ranges[i][0] >= 0 else None for i in wanted]
            came = self._files.cat_ranges([path] * len(wanted), starts, ends)
            failed: BaseException | None = None
            for i, part in zip(wanted, came, strict=True):
                if isinstance(part, BaseException):
                    failed = failed or part
                elif len(part) != ranges[i][1]:
                    failed = failed or TruncatedError(str(short(key, ranges[i])))
                else:
                    found[i] = part
            if failed is not None:
                raise failed

        self._call(fetch)
        return [found[i] for i in range(len(ranges))]

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return patiently(function, self.traffic)
        except Exception as error:  # every file system has exceptions of its own
            raise _as_os_error(error) from error


def needed_package(url: str, error: ImportError) -> str:
    """What to say where the package for a kind of URL is missing."""
    package = _PACKAGES.get(urlsplit(url).scheme, f"a package that is missing ({error})")
    return f"{url}: this kind of URL needs {package}"


def _options(scheme: str) -> dict[str, Any]:
    """What the file system is opened with: no retries of its own below ours."""
    if scheme not in ("s3", "s3a"):
        return {}
    from fsspec.config import conf

    theirs = conf.get(scheme, {}).get("config_kwargs", {})
    return {"config_kwargs": {**theirs, "retries": {"total_max_attempts": 1, "mode": "standard"}}}


class ObstoreStore:
    """An object store, by obstore."""

    remote = True

    def __init__(self, url: str) -> None:
        from obstore.store import from_url

        self.place = url
        self.traffic = Traffic()
        plain = url.removeprefix(OBSTORE_PREFIX)
        if urlsplit(plain).scheme not in _OBSTORE_SCHEMES:
            raise UsageError(
                f"{url}: obstore opens {', '.join(_OBSTORE_SCHEMES)} URLs; "
                f"leave out {OBSTORE_PREFIX!r} to use fsspec"
            )
        try:
            self._store = from_url(  # retries are ours alone: they are counted, and have an end
                plain, retry_config={"max_retries": 0, "retry_timeout": timedelta(minutes=1)}
            )
        except Exception as error:  # its own, and they share no base with ours
            raise UsageError(f"{url}: {_first_line(error)}") from error

    def exists(self) -> bool:
        """See `Store`."""
        for key in MARKERS:
            try:
                self._call(lambda key=key: self._store.head(key))  # type: ignore[misc]
            except FileNotFoundError:
                continue
            return True
        return False

    def size(self, key: str) -> int:
        """See `Store`."""
        return int(self._call(lambda: self._store.head(key))["size"])

    def stamp(self, keys: Sequence[str]) -> str:
        """See `Store`."""
        parts = []
        for key in keys:
            try:
                meta = self._call(lambda key=key: self._store.head(key))  # type: ignore[misc]
            except FileNotFoundError:
                continue
            parts.append(str([meta.get("e_tag"), meta.get("last_modified"), meta["size"]]))
        return " ".join(parts)

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """See `Store`."""
        if ranges is None:
            parts = [self._call(lambda: self._store.get(key).bytes())]
        else:  # `get_ranges` would fetch what lies between them as well
            parts = [self._part(key, part) for part in ranges]
        out = memoryview(parts[0]) if len(parts) == 1 else memoryview(b"".join(parts))
        self.traffic.add(len(out), len(parts))
        return out

    def read_checked(
        self, key: str, part: Range | None = None, expected_bytes: int = 0
    ) -> memoryview:
        """See `Store`."""
        return without_checksum(self.read(key, None if part is None else [part]))

    def _part(self, key: str, part: Range) -> Any:
        start, length = part

        def fetch() -> Any:
            if start < 0:
                found = self._store.get(key, options={"range": {"suffix": length}}).bytes()
            else:
                found = self._store.get_range(key, start=start, length=length)
            if len(found) != length:
                raise TruncatedError(str(short(key, part)))
            return found

        return self._call(fetch)

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return patiently(function, self.traffic)
        except Exception as error:  # the permission errors of obstore are no OSError
            raise _as_os_error(error) from error


def _as_os_error(error: BaseException) -> BaseException:
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(_first_line(error))
    if isinstance(error, OSError):
        return error
    return OSError(_first_line(error))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


_stores: dict[str, FsspecStore | ObstoreStore] = {}
_lock = threading.Lock()


def open_url(url: str) -> FsspecStore | ObstoreStore:
    """Open a URL once in a process, so that traffic adds up.

    By fsspec where it has the package that the URL needs, else by obstore where that is
    installed; by obstore in any case if the URL begins with ``obstore+``.

    Raises
    ------
    UsageError
        No such kind of URL, or a package is missing.
    """
    with _lock:
        if url not in _stores:
            _stores[url] = _open(url)
        return _stores[url]


def _open(url: str) -> FsspecStore | ObstoreStore:
    if url.startswith(OBSTORE_PREFIX):
        try:
            return ObstoreStore(url)
        except ImportError as error:
            raise UsageError(f"{url}: this kind of URL needs {_OBSTORE}") from error
    scheme = urlsplit(url).scheme
    try:
        return FsspecStore(url)
    except ImportError as error:
        needed = needed_package(url, error)
        if scheme not in _OBSTORE_SCHEMES:
            raise UsageError(needed) from error
    try:
        return ObstoreStore(url)
    except ImportError as error:
        raise UsageError(f"{needed}, or {_OBSTORE}") from error
