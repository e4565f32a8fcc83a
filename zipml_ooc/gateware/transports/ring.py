"""A ring of buffers: the caller fills one while a thread sends another, in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import UsageError
from ..driver import TransferError

__all__ = ["Ring"]

U8 = npt.NDArray[np.uint8]


class Ring:
    """Packets on their way to the accelerator.

    Parameters
    ----------
    allocate : callable
        (count, size) -> so many buffers of at least so many bytes. Called with the first packet,
        and with one that is larger than those before, when nothing is on its way.
    send : callable
        (index of a buffer, its buffer, bytes) -> whether all were taken. It may raise a
        `TransferError`. Called by the ring's thread.
    slots : int
        How many buffers there are.
    timeout : float
        Seconds without any progress after which the accelerator counts as stopped.
    """

    def __init__(
        self,
        allocate: Callable[[int, int], Sequence[U8]],
        send: Callable[[int, U8, int], bool],
        *,
        slots: int,
        timeout: float,
    ) -> None:
        if not 2 <= slots <= 64:
            raise UsageError(f"slots is {slots}; choose 2 to 64 buffers")
        if not 0 < timeout < 1e6:
            raise UsageError(f"timeout is {timeout:g}; choose a number of seconds above 0")
        self._allocate, self._send = allocate, send
        self._slots, self._timeout = slots, timeout
        self._size = 0
        self._buffers: Sequence[U8] = ()
        self._free: deque[int] = deque()
        self._full: deque[tuple[int, int]] = deque()
        self._sending = False
        self._sent = 0
        self._stopped = False
        self._closed = False
        self._error: TransferError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, packet: U8) -> bool:
        """Queue the bytes of a packet; False if the accelerator takes no more.

        Raises
        ------
        TransferError
            What the thread met with.
        """
        data = np.ascontiguousarray(packet).reshape(-1)
        if data.size > self._size:
            if not self.drain():
                return False
            self._buffers, self._size = (), 0  # their memory is free for the larger ones
            self._free.clear()
            self._buffers = self._allocate(self._slots, data.size)
            self._size = data.size
            self._free = deque(range(self._slots))
        if not self._wait(lambda: bool(self._free)):
            return False
        index = self._free[0]
        self._buffers[index][: data.size] = data
        with self._changed:
            self._free.popleft()
            self._full.append((index, data.size))
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="zipml-dma", daemon=True)
            self._thread.start()
        return True

    def drain(self) -> bool:
        """Wait until all packets were taken; False if the accelerator takes no more."""
        return self._wait(lambda: not self._full and not self._sending)

    def abort(self) -> None:
        """Drop what is queued, wait for what is being sent, and begin anew.

        Raises
        ------
        TransferError
            A transfer does not end.
        """
        with self._changed:
            while self._full:
                self._free.append(self._full.popleft()[0])
            ended = self._changed.wait_for(lambda: not self._sending, self._timeout)
            if not ended:
                raise TransferError(
                    "a transfer does not end: load the board's driver and its bitstream again"
                )
            self._error, self._stopped = None, False

    def close(self) -> None:
        """Let the thread end; what is queued is dropped."""
        with self._changed:
            self._closed = True
            self._full.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(self._timeout)

    def _wait(self, ready: Callable[[], bool]) -> bool:
        """Wait for the thread as long as it gets on."""
        with self._changed:
            sent, last = self._sent, time.monotonic()
            while not ready() or self._error is not None or self._stopped:
                if self._error is not None:
                    raise self._error
                if self._stopped:
                    return False
                self._changed.wait(self._timeout)
                if self._sent != sent:
                    sent, last = self._sent, time.monotonic()
                elif time.monotonic() - last >= self._timeout and not ready():
                    self._stopped = True
            return True

    def _work(self) -> None:
        """Send what is queued until the ring is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._can_send())
                if self._closed:
                    return
                index, size = self._full.popleft()
                self._sending = True
            taken, error = False, None
            try:
                taken = self._send(index, self._buffers[index], size)
            except TransferError as failure:
                error = failure
            except Exception as failure:
                error = TransferError(f"sending failed: {failure}")
            with self._changed:
                self._sending = False
                self._sent += taken
                self._free.append(index)
                self._error = self._error or error
                self._stopped |= not taken
                self._changed.notify_all()

    def _can_send(self) -> bool:
        return bool(self._full) and not self._stopped and self._error is None
