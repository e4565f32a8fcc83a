"""The calls of the operating system that transports make, and what their failures mean.

`Files` is the lowest layer: nothing below it is ours. A device that is gone shows itself by an
error number, by a read that gives nothing, or by registers that read as ones.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import Protocol

import numpy as np

from ..driver import DeviceError, TransferError

__all__ = ["Files", "Mapped", "Window", "explained", "lock", "unlock"]

_GONE = {
    errno.ENODEV,
    errno.ENXIO,
    errno.EIO,
    errno.ENOTCONN,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ESHUTDOWN,
}


def explained(path: str, error: OSError, doing: str) -> TransferError:
    """What the failure of a call means, in a line."""
    why = error.strerror or str(error)
    if error.errno in _GONE:
        text = (
            f"{path}: the device is gone ({why}, while {doing}): check the board and its power, "
            "load its driver and bitstream again"
        )
    elif error.errno == errno.ENOENT:
        text = f"{path} is not there: load the board's driver and bitstream, or name another device"
    elif error.errno in (errno.EACCES, errno.EPERM):
        text = f"{path}: {why}; ask for the right to read and write it"
    else:
        text = f"{path}: {why}, while {doing}"
    return TransferError(text)


def lock(number: int, path: str) -> None:
    """Have a device for oneself until it is closed, where its file system knows locks.

    Raises
    ------
    DeviceError
        Somebody else has it.
    """
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DeviceError(
            f"{path} is in use, by another run or process: wait for it, or name another board"
        ) from None
    except OSError:
        return


def unlock(number: int) -> None:
    """Let others have a device, although it is still mapped."""
    with contextlib.suppress(OSError):
        fcntl.flock(number, fcntl.LOCK_UN)


class Files:
    """Open files by their numbers, as `os` has them."""

    def open(self, path: str, flags: int) -> int:
        """Open a file."""
        return os.open(path, flags | os.O_CLOEXEC)

    def lock(self, number: int, path: str) -> None:
        """Have it for oneself: see `lock`."""
        lock(number, path)

    def close(self, number: int) -> None:
        """Close it."""
        os.close(number)

    def pread(self, number: int, size: int, offset: int) -> bytes:
        """Read at an offset."""
        return os.pread(number, size, offset)

    def pwrite(self, number: int, data: bytes, offset: int) -> int:
        """Write at an offset."""
        return os.pwrite(number, data, offset)

    def write(self, number: int, data: memoryview) -> int:
        """Write."""
        return os.write(number, data)


class Window(Protocol):
    """Registers of 32 bits in an address space."""

    def read(self, offset: int) -> int:
        """Read a word."""

    def write(self, offset: int, value: int) -> None:
        """Write a word."""

    def close(self) -> None:
        """Let go of it."""


class Mapped:
    """A window that is a mapped file, as UIO gives it; nobody else has it meanwhile.

    Words are moved by single instructions: registers see no bytes.
    """

    def __init__(self, path: str, size: int) -> None:
        self._number = -1
        try:
            self._number = os.open(path, os.O_RDWR | os.O_SYNC | os.O_CLOEXEC)
            lock(self._number, path)
            self._map = mmap.mmap(self._number, size)
        except (OSError, ValueError, DeviceError) as error:
            if self._number >= 0:
                os.close(self._number)
            if isinstance(error, DeviceError):
                raise
            raise _not_mapped(path, error) from error
        self._words: np.ndarray[tuple[int], np.dtype[np.uint32]] | None = np.frombuffer(
            self._map, np.uint32
        )

    def read(self, offset: int) -> int:
        """Read a word."""
        return int(self._open[offset >> 2])

    def write(self, offset: int, value: int) -> None:
        """Write a word."""
        self._open[offset >> 2] = value & 0xFFFFFFFF

    def close(self) -> None:
        """Unmap; once more does nothing."""
        if self._words is not None:
            self._words = None
            self._map.close()
            os.close(self._number)

    @property
    def _open(self) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        if self._words is None:
            raise DeviceError("the accelerator's bus is closed")
        return self._words


def _not_mapped(path: str, error: OSError | ValueError) -> DeviceError:
    if isinstance(error, OSError):
        return explained(path, error, "it was mapped")
    return DeviceError(f"{path} cannot be mapped: {error}")
