"""Boards whose devices Linux shows by UIO, with a u-dma-buf for contiguous memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..driver import DeviceError, TransferError
from .axi_dma import DMA_BYTES, REGISTER_BYTES, AxiDmaBus, Buffer
from .files import Mapped, explained, lock, unlock

__all__ = ["open_uio"]


def open_uio(
    registers: str = "/dev/uio0",
    dma: str = "/dev/uio1",
    buffer: str = "/dev/udmabuf0",
    *,
    slots: int = 4,
    timeout: float = 10.0,
    sysfs: str = "/sys/class",
) -> AxiDmaBus:
    """Open the bus of an accelerator behind UIO.

    Parameters
    ----------
    registers, dma : str
        UIO devices of the accelerator's registers and of the AXI DMA.
    buffer : str
        A u-dma-buf, which has to hold a packet `slots` times.
    slots : int
    timeout : float
        Seconds without progress after which the accelerator counts as stopped.
    sysfs : str
        Where the system describes devices.

    Raises
    ------
    DeviceError
        A device is not there, or too small.
    """
    windows = []
    with ExitStack() as undo:
        for path, least in ((registers, REGISTER_BYTES), (dma, DMA_BYTES)):
            size = _number(Path(sysfs, "uio", Path(path).name, "maps/map0/size"), path)
            if size < least:
                raise DeviceError(
                    f"{path} is a window of {size:,} bytes, and {least:,} are needed: name the "
                    "device of the accelerator (registers) or of the AXI DMA (dma)"
                )
            windows.append(Mapped(path, size))
            undo.callback(windows[-1].close)
        memory = _Memory(buffer, sysfs)
        undo.callback(memory.close)
        bus = AxiDmaBus(
            windows[0],
            windows[1],
            memory.allocate,
            slots=slots,
            timeout=timeout,
            release=memory.close,
        )
        undo.pop_all()
    return bus


class _Memory:
    """A u-dma-buf, mapped: the same bytes for processor and DMA; nobody else has it meanwhile.

    The map goes with its last part, which may be later than `close`.
    """

    def __init__(self, path: str, sysfs: str) -> None:
        self._path = path
        about = Path(sysfs, "u-dma-buf", Path(path).name)
        self._size = _number(about / "size", path)
        self._address = _number(about / "phys_addr", path)
        self._number = -1
        try:
            self._number = os.open(path, os.O_RDWR | os.O_SYNC | os.O_CLOEXEC)  # past the caches
            lock(self._number, path)
            self._map = mmap.mmap(self._number, self._size)
        except (OSError, ValueError, DeviceError) as error:
            self.close()
            if isinstance(error, DeviceError):
                raise
            if isinstance(error, OSError):
                raise explained(path, error, "it was mapped") from error
            raise DeviceError(f"{path} cannot be mapped: {error}") from error

    def close(self) -> None:
        """Let others have it; once more does nothing."""
        if self._number >= 0:
            unlock(self._number)
            os.close(self._number)
            self._number = -1

    def allocate(self, count: int, size: int) -> Sequence[Buffer]:
        """Parts of it, each from a whole beat on."""
        room = self._size // count & ~63
        if size > room:
            raise TransferError(
                f"{self._path} has {self._size:,} bytes and {count} packets take "
                f"{count * (size + 63 & ~63):,}: make it larger, or ask for fewer slots"
            )
        whole = np.frombuffer(self._map, np.uint8)
        return [(whole[i * room :][:size], self._address + i * room) for i in range(count)]


def _number(path: Path, device: str) -> int:
    """A number that the system tells about a device."""
    try:
        return int(path.read_text().strip(), 0)
    except FileNotFoundError:
        raise DeviceError(
            f"{device} is not there ({path} is missing): load the board's driver and bitstream, "
            "or name another device"
        ) from None
    except OSError as error:
        raise explained(str(path), error, "it was read") from error
    except ValueError:
        raise DeviceError(f"{path} holds no number") from None
