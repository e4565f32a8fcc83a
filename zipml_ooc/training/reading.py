"""How much of its data a process of a run may hold."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from ..errors import UsageError

__all__ = ["available_bytes", "budget_of", "cache_bytes", "parse_memory"]

_PART = 4
"""Without a wish: a quarter of what there is."""
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNLIMITED = 1 << 60


def parse_memory(memory: int | str | None) -> int | None:
    """Read a size: bytes, or text such as ``512MB`` or ``2GiB``.

    Raises
    ------
    UsageError
        It is no size.

    >>> parse_memory("512MB"), parse_memory("0.5 GiB"), parse_memory(None)
    (512000000, 536870912, None)
    """
    if memory is None:
        return None
    from dask.utils import parse_bytes

    try:
        if not any(c.isdigit() for c in str(memory)):  # Dask takes a unit alone for one of it
            raise ValueError
        size = int(parse_bytes(memory))
    except (ValueError, TypeError, OverflowError):
        size = -1
    if size < 0:
        raise UsageError(f"memory must be a size such as 512MB or 2GiB; got {memory!r}")
    return size


@lru_cache(maxsize=1)
def available_bytes() -> int:
    """Memory that this process may use at most: that of the machine, or what its group is given."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED:
            found.append(int(text))
    return min(found)


def cache_bytes(wished: int | None, processes: int = 1) -> int:
    """Budget of each of some processes of this machine."""
    return (available_bytes() // _PART if wished is None else wished) // max(processes, 1)


def budget_of(
    memory: int | str | None, *, workers: int | None = None, elsewhere: bool = False
) -> int | None:
    """Bytes of data that each process of a run may hold; None: a quarter of what its machine has.

    Parameters
    ----------
    memory : int, str or None
        As the user wishes it.
    workers : int, optional
        Processes of this machine, which share it.
    elsewhere : bool
        Whether processes of a scheduler compute: then each may have as much.
    """
    wished = parse_memory(memory)
    return wished if elsewhere else cache_bytes(wished, workers or 1)
