"""Files that are there whole or not at all, whatever happens to the process or the machine.

A file is written under another name in a scratch folder of the same file system, reaches the disk,
and then takes its name by a rename, which is atomic.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["commit", "sync_folder", "sync_tree", "try_to_sync", "write_all", "write_durably"]


def write_durably(path: Path, parts: Iterable[Buffer], scratch: Path) -> None:
    """Write a file whole.

    Parameters
    ----------
    path : Path
        Where it appears; folders above it are made.
    parts : iterable of bytes
    scratch : Path
        An existing folder on the same file system.
    """
    temporary = scratch / "-".join(path.parts[-4:])
    with temporary.open("wb", buffering=0) as file:
        for part in parts:
            write_all(file.fileno(), part)
        commit(file.fileno(), temporary, path)


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all bytes; a system call may take fewer."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def commit(descriptor: int, temporary: Path, path: Path) -> None:
    """Bring what was written under `temporary` to the disk, and give it its name."""
    os.fsync(descriptor)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_to_sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can do that to a folder."""
    with contextlib.suppress(OSError):
        sync_folder(folder)


def sync_tree(top: Path) -> None:
    """Bring the names in a folder, and in all folders below it, to the disk."""
    for folder, _, _ in os.walk(top):
        sync_folder(Path(folder))
