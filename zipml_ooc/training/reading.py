"""How a run reads its data: how much of them a process may hold, and what it fetches ahead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import UsageError

__all__ = ["Reading", "available_bytes", "cache_bytes", "parse_memory"]

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


@dataclass(frozen=True)
class Reading:
    """What holds for all processes of a run.

    Attributes
    ----------
    cache_bytes : int or None
        Of each process; None: a quarter of the memory where it runs.
    ahead : bool
        Whether a process knows what it computes next, and fetches that while it computes.
    """

    cache_bytes: int | None = None
    ahead: bool = False

    @classmethod
    def of(
        cls, memory: int | str | None, *, workers: int | None = None, scheduler: str | None = None
    ) -> Reading:
        """Of a run with these options: local workers share the memory, those elsewhere do not."""
        wished = parse_memory(memory)
        if scheduler is not None:
            return cls(wished, ahead=False)
        processes = workers or 1
        return cls(cache_bytes(wished, processes), ahead=processes == 1)
