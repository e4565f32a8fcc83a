"""Stand-ins for a board behind XDMA: the files of its driver, on a model of the accelerator.

`Board` answers what the driver's files are asked. It is used in two ways: `BoardFiles` in place of
the calls of the operating system, everywhere; and a process that serves the files through FUSE
(``python xdma_board.py FOLDER BITS LANES DEPTH``), so that the calls are those of a real board.
Faults are commands, written to a file ``control``:

    short N     of the next N writes to the stream a third is taken
    stop        packets are taken no more, until the accelerator is reset
    gone ERRNO  every call fails
    half        the next word is read in half
    empty       reads give nothing
    ones        registers read as ones
    die         the process ends
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
import time

from register_model import RegisterModel

from zipml_ooc.gateware.formats import Format, Register
from zipml_ooc.gateware.transports.files import Files

NAMES = ("board_user", "board_h2c_0", "control")
USER, STREAM, CONTROL = range(3)
PATIENCE = 0.2  # seconds in which the kernel's driver gives up a transfer


class Stopped(Exception):
    """Nobody takes the packet: the answer comes later."""


class Board:
    """The three files."""

    def __init__(self, form: Format) -> None:
        self.model = RegisterModel(form)
        self.short, self.stopped, self.gone = 0, False, 0
        self.half, self.empty, self.ones = False, False, False
        self.begun = b""

    def read(self, which: int, size: int, offset: int) -> bytes:
        """What is read there."""
        self._fail()
        assert which == USER and size == 4
        if self.empty:
            return b""
        value = 0xFFFFFFFF if self.ones else self.model.read(offset)
        word = value.to_bytes(4, "little")
        if self.half:
            self.half = False
            return word[:2]
        return word

    def write(self, which: int, data: bytes, offset: int) -> int:
        """How many bytes are taken."""
        if which == CONTROL:
            self.command(data.decode())
            return len(data)
        self._fail()
        if which == USER:
            assert len(data) == 4
            value = int.from_bytes(data, "little")
            self.stopped &= not (offset == Register.CONTROL and value & 2)
            self.model.write(offset, value)
            return 4
        if self.stopped or self.model.stops:
            self.begun = b""
            raise Stopped
        if self.short and len(data) > 3:
            part = len(data) // 3
            self.short, self.begun = self.short - 1, self.begun + data[:part]
            return part
        whole, self.begun = self.begun + data, b""
        self.model.packet(whole)
        return len(data)

    def command(self, text: str) -> None:
        """A fault from here on."""
        name, _, number = text.partition(" ")
        if name == "die":
            os._exit(1)
        setattr(self, {"stop": "stopped"}.get(name, name), int(number or 1))

    def _fail(self) -> None:
        if self.gone:
            raise OSError(self.gone, os.strerror(self.gone))


class BoardFiles(Files):
    """The calls of the operating system, answered here."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.closed: list[int] = []

    def open(self, path: str, flags: int) -> int:
        name = path.rpartition("/")[2]
        if name not in NAMES:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return NAMES.index(name)

    def lock(self, number: int, path: str) -> None:
        """Nobody else has it."""

    def close(self, number: int) -> None:
        self.closed.append(number)

    def pread(self, number: int, size: int, offset: int) -> bytes:
        return self.board.read(number, size, offset)

    def pwrite(self, number: int, data: bytes, offset: int) -> int:
        return self.board.write(number, bytes(data), offset)

    def write(self, number: int, data: memoryview) -> int:
        try:
            return self.board.write(number, bytes(data), 0)
        except Stopped:
            time.sleep(PATIENCE)
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


# What follows speaks FUSE's protocol as linux/fuse.h has it.

_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 1, 2, 3, 4, 14, 15, 16
_RELEASE, _FLUSH, _INIT, _INTERRUPT, _DESTROY, _BATCH_FORGET = 18, 25, 26, 36, 38, 42
_ROOT = 1


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == _ROOT else 0o100600
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


class Fuse:
    """Serves a board's files in a folder."""

    def __init__(self, folder: str, board: Board) -> None:
        self.board = board
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"zipml", folder.encode(), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.waiting: list[tuple[float, int]] = []  # answers that come later

    def serve(self) -> None:
        """Answer until the folder is unmounted."""
        while True:
            soonest = min((when for when, _ in self.waiting), default=None)
            pause = None if soonest is None else max(0.0, soonest - time.monotonic())
            if select.select([self.device], [], [], pause)[0]:
                try:
                    request = os.read(self.device, 1 << 21)
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        return
                    raise
                self._answer(request)
            for when, unique in list(self.waiting):
                if when <= time.monotonic():
                    self.waiting.remove((when, unique))
                    self._reply(unique, error=errno.ETIMEDOUT)

    def _answer(self, request: bytes) -> None:
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        if code in (_FORGET, _INTERRUPT, _BATCH_FORGET):
            return
        try:
            self._reply(unique, self._handle(code, node, body))
        except Stopped:
            self.waiting.append((time.monotonic() + PATIENCE, unique))
        except OSError as error:
            self._reply(unique, error=error.errno or errno.EIO)

    def _handle(self, code: int, node: int, body: bytes) -> bytes:
        if code == _INIT:
            return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 1 << 17, 1, 0, 0, *[0] * 8)
        if code == _LOOKUP:
            name = body.rstrip(b"\0").decode()
            if name not in NAMES:
                raise OSError(errno.ENOENT, "")
            found = 2 + NAMES.index(name)
            return struct.pack("<4Q2I", found, 0, 0, 0, 0, 0) + _attributes(found)
        if code in (_GETATTR, _SETATTR):
            return struct.pack("<QII", 0, 0, 0) + _attributes(node)
        if code == _OPEN:
            direct_io = 1
            return struct.pack("<QII", 0, direct_io, 0)
        if code == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self.board.read(node - 2, size, offset)
        if code == _WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            return struct.pack("<II", self.board.write(node - 2, body[40 : 40 + size], offset), 0)
        if code in (_RELEASE, _FLUSH, _DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "")

    def _reply(self, unique: int, data: bytes = b"", *, error: int = 0) -> None:
        os.write(self.device, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)


if __name__ == "__main__":
    Fuse(sys.argv[1], Board(Format(*map(int, sys.argv[2:5])))).serve()
