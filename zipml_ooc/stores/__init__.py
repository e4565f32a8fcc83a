"""Where the bytes of a dataset lie: whole objects and ranges of them, from files and from URLs.

One protocol with four implementations: a folder and a Zip file of this machine, and URLs by fsspec
or by obstore. All count what they fetched; those behind URLs try again what fails in passing.
Writing is not for here.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from .base import Range, Store, Traffic
from .local import LocalStore, ZipStore

__all__ = ["LocalStore", "Range", "Store", "Traffic", "ZipStore", "open_store"]

_ZIP = "zip://"


def open_store(place: str | os.PathLike[str]) -> Store:
    """Open the store at a path or URL; nothing is fetched.

    Within a process there is one store for each place, so that its traffic is that of all tasks.

    Parameters
    ----------
    place : path or URL
        A folder; a file whose name ends in ``.zip``, or after ``zip://``; or a URL, which fsspec
        opens where it has the package for it, else obstore. ``obstore+s3://...`` always goes by
        obstore.

    Raises
    ------
    UsageError
        A kind of URL that is not known or whose package is missing.
    """
    text = os.fspath(place)
    zipped = text.startswith(_ZIP) and "::" not in text  # fsspec chains URLs with ::
    if "://" in text and not text.startswith("file://") and not zipped:
        from .urls import open_url

        return open_url(text.rstrip("/"))
    path = Path(text.removeprefix("file://").removeprefix(_ZIP)).absolute()
    if not (zipped or path.suffix == ".zip"):
        return _local_store(path)
    # Another archive under the same name is another store: the places of its members differ.
    return _local_store(path) if path.is_dir() else _zip_store(path, _stamp(path))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=64)
def _local_store(folder: Path) -> LocalStore:
    return LocalStore(folder)


@lru_cache(maxsize=16)
def _zip_store(file: Path, stamp: int) -> ZipStore:
    return ZipStore(file)
