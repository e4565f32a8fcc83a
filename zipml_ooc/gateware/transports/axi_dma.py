"""Xilinx' AXI DMA without scatter-gather, and the bus of an accelerator behind one.

A transfer is started by its length; TLAST is on its last beat, so that it is a packet. The driver
of UIO and the overlay of PYNQ both end here: they differ in where registers and buffers come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..driver import DeviceError, TransferError
from .files import Window
from .ring import Ring

__all__ = ["DMA_BYTES", "REGISTER_BYTES", "AxiDma", "AxiDmaBus", "Buffer"]

U8 = npt.NDArray[np.uint8]
REGISTER_BYTES = 0x50000  # of the accelerator's addresses, up to the end of the last table
DMA_BYTES = 0x30
CONTROL, STATUS, ADDRESS, ADDRESS_HIGH, LENGTH = 0x00, 0x04, 0x18, 0x1C, 0x28
RUN, RESET = 1 << 0, 1 << 2
HALTED, IDLE, HAS_GATHER = 1 << 0, 1 << 1, 1 << 3
_ERRORS = {1 << 4: "internal error", 1 << 5: "its memory answered an error", 1 << 6: "no memory"}
_NOBODY = 0xFFFFFFFF
_PAUSE = 20e-6  # seconds between two looks at a transfer

Buffer = tuple[U8, int]
"""Bytes, and where the DMA finds them."""


class AxiDma:
    """The channel from memory to the stream."""

    def __init__(self, window: Window, timeout: float) -> None:
        self._window, self._timeout = window, timeout
        self._aborted = False
        self.reset()
        if self._status() & HAS_GATHER:
            raise DeviceError(
                "the AXI DMA is built with scatter-gather: build the design without it"
            )

    def reset(self) -> None:
        """Stop what is under way, and start the channel."""
        window = self._window
        window.write(CONTROL, RESET)
        self._until(lambda: not window.read(CONTROL) & RESET, "does not come out of its reset")
        window.write(CONTROL, RUN)
        self._until(lambda: not self._status() & HALTED, "does not start")
        self._aborted = False

    def abort(self) -> None:
        """Let `send`, in another thread, give up."""
        self._aborted = True

    def stop(self) -> None:
        """Stop what is under way, and leave the channel at that."""
        self._window.write(CONTROL, RESET)

    def send(self, address: int, size: int) -> bool:
        """Send bytes from memory; False if they are not all taken in time."""
        window = self._window
        window.write(ADDRESS, address & 0xFFFFFFFF)
        window.write(ADDRESS_HIGH, address >> 32)
        window.write(LENGTH, size)
        if window.read(LENGTH) != size:
            self._status()
            raise TransferError(
                f"the AXI DMA's length register does not hold {size} bytes: build the design with "
                "a wider one (26 bits)"
            )
        deadline = time.monotonic() + self._timeout
        while True:
            status = self._status()
            for bit, words in _ERRORS.items():
                if status & bit:
                    raise TransferError(f"the AXI DMA stopped: {words} (DMASR {status:#x})")
            if status & IDLE:
                return True
            if self._aborted or time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)

    def _status(self) -> int:
        status = self._window.read(STATUS)
        if status == _NOBODY:
            raise TransferError("the AXI DMA is gone: its registers read as ones")
        return status

    def _until(self, ready: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not ready():
            if time.monotonic() > deadline:
                raise TransferError(f"the AXI DMA {complaint}")
            time.sleep(_PAUSE)


class AxiDmaBus:
    """The bus of an accelerator with an AXI DMA in front of its stream.

    Parameters
    ----------
    registers, dma : Window
        Of the accelerator, and of the DMA.
    allocate : callable
        (count, size) -> buffers that both sides see.
    slots : int
    timeout : float
    release : callable, optional
        Gives the buffers' memory back; called when the bus is closed, or cannot be made.
    """

    def __init__(
        self,
        registers: Window,
        dma: Window,
        allocate: Callable[[int, int], Sequence[Buffer]],
        *,
        slots: int = 4,
        timeout: float = 10.0,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._registers, self._allocate = registers, allocate
        self._ring = Ring(self._buffers, self._send, slots=slots, timeout=timeout)
        self._addresses: list[int] = []
        self._closing = [release, registers.close, dma.close]
        self._dma: AxiDma | None = None
        try:
            self._dma = AxiDma(dma, timeout)
            self._closing.append(self._dma.stop)  # comes first, when nothing is sent any more
        except BaseException:
            self.close()
            raise

    def read(self, address: int) -> int:
        """Read a word."""
        return self._registers.read(address)

    def write(self, address: int, value: int) -> None:
        """Write a word."""
        self._registers.write(address, value)

    def stream(self, packet: U8) -> int:
        """Queue a packet."""
        return len(packet) if self._ring.put(packet) else 0

    def drain(self) -> bool:
        """Wait until all packets were taken."""
        return self._ring.drain()

    def abort(self) -> None:
        """Stop the DMA, and drop the queue."""
        dma = self._channel
        dma.abort()
        self._ring.abort()
        dma.reset()

    def close(self) -> None:
        """Stop the DMA and let go of everything; once more does nothing."""
        if self._dma is not None:
            self._dma.abort()
            self._dma = None
        self._ring.close()
        while self._closing:
            self._closing.pop()()

    def _buffers(self, count: int, size: int) -> Sequence[U8]:
        pairs = self._allocate(count, size)
        self._addresses = [address for _, address in pairs]
        return [data for data, _ in pairs]

    def _send(self, index: int, buffer: U8, size: int) -> bool:
        return self._channel.send(self._addresses[index], size)

    @property
    def _channel(self) -> AxiDma:
        if self._dma is None:
            raise TransferError("the accelerator's bus is closed")
        return self._dma
