"""PCI Express boards with Xilinx' XDMA: the character devices of its Linux driver.

``/dev/xdma0_user`` is the AXI4-Lite master, read and written at the address of a register;
``/dev/xdma0_h2c_0`` is the stream. A call of ``write`` there is a transfer, and its last beat has
TLAST: that is a packet. The driver may take fewer bytes than it is offered; the rest goes on with
the next call, and TLAST is on the last beat of that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..driver import DeviceError, TransferError
from .files import Files, explained
from .ring import Ring

__all__ = ["Xdma"]

U8 = npt.NDArray[np.uint8]
_RESTART = 512  # ERESTARTSYS, which the driver gives when its own time is up
_STOPPED = {errno.ETIMEDOUT, errno.EAGAIN, errno.ETIME, _RESTART}
_TRIES = 3


class Xdma:
    """The bus of an accelerator behind XDMA.

    Parameters
    ----------
    path : str
        What the names of the devices begin with.
    offset : int
        Of the accelerator in the address space of the AXI4-Lite master.
    channel : int
        Of the stream.
    slots : int
        Buffers in the ring.
    timeout : float
        Seconds without progress after which the accelerator counts as stopped. The kernel's driver
        has a time of its own (10 seconds; its parameter ``h2c_timeout``).
    files : Files
        Calls of the operating system.

    Raises
    ------
    DeviceError
        A device is not there, cannot be opened, or somebody else has it.
    """

    def __init__(
        self,
        path: str = "/dev/xdma0",
        *,
        offset: int = 0,
        channel: int = 0,
        slots: int = 4,
        timeout: float = 15.0,
        files: Files | None = None,
    ) -> None:
        self._files = files or Files()
        self._timeout, self._offset = timeout, offset
        self._names = f"{path}_user", f"{path}_h2c_{channel}"
        self._ring = Ring(self._allocate, self._send, slots=slots, timeout=timeout)
        self._numbers: list[int] = []
        for name, flags in zip(self._names, (os.O_RDWR, os.O_WRONLY), strict=True):
            try:
                self._numbers.append(self._files.open(name, flags))
            except OSError as error:
                self.close()
                raise explained(name, error, "it was opened") from error
        try:
            self._files.lock(self._numbers[0], self._names[0])
        except DeviceError:
            self.close()
            raise

    def read(self, address: int) -> int:
        """Read a word."""
        number, name = self._open(0)
        for _ in range(_TRIES):  # a read changes nothing: half a word is asked for again
            try:
                word = self._files.pread(number, 4, self._offset + address)
            except OSError as error:
                raise explained(name, error, f"{address:#x} was read") from error
            if len(word) == 4:
                return int.from_bytes(word, "little")
            if not word:
                raise DeviceError(f"{name}: the device is gone (nothing at {address:#x})")
        raise DeviceError(f"{name}: {len(word)} bytes of the word at {address:#x}")

    def write(self, address: int, value: int) -> None:
        """Write a word."""
        number, name = self._open(0)
        word = (value & 0xFFFFFFFF).to_bytes(4, "little")
        try:
            taken = self._files.pwrite(number, word, self._offset + address)
        except OSError as error:
            raise explained(name, error, f"{address:#x} was written") from error
        if taken != 4:  # not again: a start that was heard would be another one
            raise DeviceError(f"{name}: {taken} bytes of the word for {address:#x} were taken")

    def stream(self, packet: U8) -> int:
        """Queue a packet."""
        self._open(1)
        return len(packet) if self._ring.put(packet) else 0

    def drain(self) -> bool:
        """Wait until all packets were taken."""
        return self._ring.drain()

    def abort(self) -> None:
        """Drop the queue. A write under way ends by the kernel's time limit, if not before."""
        self._ring.abort()

    def close(self) -> None:
        """Close the devices; once more does nothing."""
        self._ring.close()
        while self._numbers:
            with contextlib.suppress(OSError):  # of a device that is gone
                self._files.close(self._numbers.pop())

    def _open(self, which: int) -> tuple[int, str]:
        if not self._numbers:
            raise DeviceError(f"{self._names[which]} is closed")
        return self._numbers[which], self._names[which]

    @staticmethod
    def _allocate(count: int, size: int) -> Sequence[U8]:
        """Buffers that begin at a page, as the kernel maps them."""
        page = os.sysconf("SC_PAGE_SIZE")
        made = []
        for _ in range(count):
            block = np.empty(size + page, np.uint8)
            start = -block.ctypes.data % page
            made.append(block[start : start + size])
        return made

    def _send(self, index: int, buffer: U8, size: int) -> bool:
        """Write a packet, in as many calls as it takes."""
        number, name = self._open(1)
        left, last = buffer[:size].data, time.monotonic()
        while left:
            try:
                taken = self._files.write(number, left)
            except OSError as error:
                if error.errno in _STOPPED:
                    return False
                raise explained(name, error, "a packet was sent") from error
            if not 0 <= taken <= len(left):
                raise TransferError(f"{name}: {taken} of {len(left)} bytes were taken")
            if taken:
                last = time.monotonic()
            elif time.monotonic() - last >= self._timeout:
                return False
            left = left[taken:]
        return True
