"""Boards with an AXI DMA: through UIO and u-dma-buf, and through PYNQ's package."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from register_model import RegisterModel

from zipml_ooc.errors import UsageError
from zipml_ooc.gateware.driver import DeviceError, Driver
from zipml_ooc.gateware.formats import Format, Register
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.stream import pack
from zipml_ooc.gateware.transports import axi_dma, open_bus, uio
from zipml_ooc.gateware.transports.axi_dma import AxiDmaBus
from zipml_ooc.gateware.transports.files import Mapped
from zipml_ooc.gateware.transports.uio import open_uio

FORM = Format(4, 8, 64)
ADDRESS = 0x3_7000_0000  # where the DMA sees the buffer: above 32 bits


@dataclass
class DmaModel:
    """The registers of Xilinx' AXI DMA (PG021), channel MM2S, in front of a model."""

    model: RegisterModel
    memory: np.ndarray
    length_bits: int = 26
    gathers: bool = False
    error: int = 0
    gone: bool = False
    hangs: bool = False
    words: dict[int, int] = field(default_factory=dict)
    status: int = axi_dma.HALTED
    resets: int = 0
    taken: list[int] = field(default_factory=list)

    def read(self, offset: int) -> int:
        if self.gone:
            return 0xFFFFFFFF
        if offset == axi_dma.STATUS:
            return self.status | (axi_dma.HAS_GATHER if self.gathers else 0)
        return self.words.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if self.gone:
            return
        self.words[offset] = value
        if offset == axi_dma.CONTROL:
            if value & axi_dma.RESET:
                self.words, self.status = {}, axi_dma.HALTED
                self.resets += 1
            elif value & axi_dma.RUN:
                self.status = 0 if self.resets else axi_dma.HALTED
        if offset == axi_dma.LENGTH:
            size = value & ((1 << self.length_bits) - 1)
            self.words[offset] = size
            assert not self.status & axi_dma.HALTED
            self.status &= ~axi_dma.IDLE
            if self.error:
                self.status |= self.error | axi_dma.HALTED
            elif size == value and not self.hangs and not self.model.stops:
                start = self.words[axi_dma.ADDRESS] | self.words[axi_dma.ADDRESS_HIGH] << 32
                self.taken.append(start - ADDRESS)
                self.model.packet(self.memory[start - ADDRESS :][:size].tobytes())
                self.status |= axi_dma.IDLE

    def close(self) -> None:
        self.gone = True


@dataclass
class Registers:
    """The model's registers as a window."""

    model: RegisterModel

    def read(self, offset: int) -> int:
        return self.model.read(offset)

    def write(self, offset: int, value: int) -> None:
        self.model.write(offset, value)

    def close(self) -> None:
        pass


def board(**faults: object) -> tuple[AxiDmaBus, DmaModel]:
    """A bus, and what is behind it."""
    memory = np.zeros(1 << 16, np.uint8)
    model = RegisterModel(FORM)
    dma = DmaModel(model, memory, **faults)  # type: ignore[arg-type]

    def allocate(count: int, size: int) -> list[tuple[np.ndarray, int]]:
        return [(memory[i * 4096 :][:size], ADDRESS + i * 4096) for i in range(count)]

    return AxiDmaBus(Registers(model), dma, allocate, timeout=0.3), dma


def some_run(tiles: int):
    """A program, tiles and a state."""
    rng = np.random.default_rng(tiles)
    table = rng.integers(0, 1 << 15, 8)
    table[0] = 0
    program = Program(FORM.bits, 1, 30000, 9, table, table, table)
    made = [Tile(rng.integers(0, 16, (8, 7)), rng.integers(-9, 9, 8)) for _ in range(tiles)]
    return program, made, State(rng.integers(-500, 500, 8), 99)


def check_run(driver: Driver, tiles: int) -> None:
    """A run ends as on the reference."""
    program, made, state = some_run(tiles)
    driver.load(program, state)
    driver.run([pack(tile, FORM) for tile in made], tiles)
    run(program, made, state)
    assert driver.state(7).model.tolist() == state.model.tolist()


def fail(driver: Driver, words: str) -> None:
    """A run ends in a line."""
    program, made, state = some_run(6)
    driver.load(program, state)
    with pytest.raises(DeviceError, match=words):
        driver.run([pack(tile, FORM) for tile in made], 6)


def test_runs_through_a_dma_end_as_the_reference_and_go_around_the_ring() -> None:
    bus, dma = board()
    driver = Driver(bus)
    for tiles in (1, 9, 6):
        check_run(driver, tiles)
    assert dma.taken[:8] == [0, 4096, 8192, 12288] * 2
    driver.close()
    driver.close()
    assert dma.gone
    with pytest.raises(DeviceError, match="closed"):
        driver.reset()


def test_a_dma_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(DeviceError, match="built with scatter-gather: build the design without"):
        board(gathers=True)
    with pytest.raises(DeviceError, match="does not come out of its reset"):
        board(gone=True)
    bus, _ = board(length_bits=5)
    fail(Driver(bus), "length register does not hold 44 bytes")


def test_errors_of_a_transfer_are_named_and_a_reset_helps() -> None:
    for bit, words in ((1 << 4, "internal error"), (1 << 5, "its memory"), (1 << 6, "no memory")):
        bus, dma = board(error=bit)
        driver = Driver(bus)
        fail(driver, f"AXI DMA stopped: {words}")
        dma.error, before = 0, dma.resets
        driver.reset()
        assert dma.resets == before + 1
        check_run(driver, 5)


def test_a_stream_that_stops_is_named_and_a_reset_helps() -> None:
    bus, dma = board(hangs=True)
    driver = Driver(bus)
    fail(driver, "stopped taking beats")
    dma.hangs = False
    driver.reset()
    check_run(driver, 5)
    program, made, state = some_run(4)
    driver.load(program, state)
    with pytest.raises(DeviceError, match="a packet ended early"):
        driver.run([pack(made[0], FORM)[:-1], *(pack(tile, FORM) for tile in made[1:])], 4)
    driver.reset()
    check_run(driver, 5)


def test_a_transfer_that_hangs_is_stopped_before_its_memory_is_given_back() -> None:
    bus, dma = board(hangs=True)
    _, made, _ = some_run(1)
    assert bus.stream(pack(made[0], FORM)) and not bus.drain()
    assert not dma.status & axi_dma.HALTED
    before = dma.resets
    bus.close()
    bus.close()
    assert dma.resets == before + 1 and dma.status & axi_dma.HALTED and dma.gone


def test_a_dma_that_vanishes_is_named() -> None:
    bus, dma = board()
    driver = Driver(bus)
    check_run(driver, 3)
    dma.gone = True
    fail(driver, "the AXI DMA is gone: its registers read as ones")


def test_a_mapped_window_moves_words(tmp_path: Path) -> None:
    path = tmp_path / "uio9"
    path.write_bytes(bytes(range(16)))
    window = Mapped(str(path), 16)
    assert window.read(4) == 0x07060504
    window.write(8, 0x1_AABBCCDD)
    with pytest.raises(DeviceError, match=r"uio9 is in use, by another run or process"):
        Mapped(str(path), 16)
    assert path.read_bytes()[8:12] == b"\xdd\xcc\xbb\xaa"
    window.close()
    window.close()
    with pytest.raises(DeviceError, match="closed"):
        window.read(0)
    Mapped(str(path), 16).close()


@pytest.fixture
def system(tmp_path: Path) -> dict[str, str]:
    """Files as UIO and u-dma-buf have them, and what the system tells about them."""
    for name, size in (("uio4", 0x80000), ("uio5", 0x10000)):
        (tmp_path / name).write_bytes(bytes(size))
        about = tmp_path / "class/uio" / name / "maps/map0"
        about.mkdir(parents=True)
        (about / "size").write_text(f"{size:#010x}\n")
    (tmp_path / "udmabuf3").write_bytes(bytes(8192))
    about = tmp_path / "class/u-dma-buf/udmabuf3"
    about.mkdir(parents=True)
    (about / "size").write_text("8192\n")
    (about / "phys_addr").write_text(f"{ADDRESS:#x}\n")
    named = {"registers": "uio4", "dma": "uio5", "buffer": "udmabuf3"}
    return {key: str(tmp_path / name) for key, name in named.items()} | {
        "sysfs": str(tmp_path / "class")
    }


def test_uio_devices_end_in_the_same_bus(
    system: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RegisterModel(FORM)
    memory = np.memmap(system["buffer"], np.uint8, "r+")  # what the DMA sees
    dma = DmaModel(model, memory)
    mapped = {}

    def window(path: str, size: int) -> object:
        mapped[path] = size
        return dma if path == system["dma"] else Registers(model)

    monkeypatch.setattr(uio, "Mapped", window)
    driver = Driver(open_uio(**system))
    for tiles in (3, 9):
        check_run(driver, tiles)
    assert dma.taken[:5] == [0, 2048, 4096, 6144, 0]
    assert mapped == {system["registers"]: 0x80000, system["dma"]: 0x10000}
    with pytest.raises(DeviceError, match=r"udmabuf3 is in use, by another run or process"):
        open_uio(**system)  # with windows of its own it would write over packets of the other
    driver.close()
    dma.gone = False
    with pytest.raises(DeviceError, match=r"has 8,192 bytes and 4 packets take 10,240"):
        open_uio(**system).stream(np.zeros((640, 4), np.uint8))


def test_uio_devices_that_are_missing_or_wrong_are_named(system: dict[str, str]) -> None:
    for key, words in (
        ("registers", r"uio4 is not there .*maps/map0/size is missing"),
        ("dma", r"uio5 is not there"),
        ("buffer", r"udmabuf3 is not there .*size is missing"),
    ):
        name = system[key] + "x"
        with pytest.raises(DeviceError, match=words.replace(" is not", "x is not")):
            open_uio(**system | {key: name})
    with pytest.raises(DeviceError, match=r"uio5 is a window of 65,536 bytes, and 327,680"):
        open_uio(**system | {"registers": system["dma"]})
    about = Path(system["sysfs"], "u-dma-buf/udmabuf3/phys_addr")
    about.write_text("?")
    with pytest.raises(DeviceError, match=r"phys_addr holds no number"):
        open_uio(**system)
    about.write_text(f"{ADDRESS:#x}\n")
    with pytest.raises(UsageError, match="slots is 1"):
        open_uio(**system, slots=1)
    Mapped(system["registers"], 0x80000).close()  # nobody has it
    Path(system["registers"]).unlink()
    with pytest.raises(DeviceError, match=r"uio4 is not there: load the board's driver"):
        open_uio(**system)


def test_an_overlay_ends_in_the_same_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as far as it is used; its documentation names these calls."""
    memory, model = np.zeros(1 << 16, np.uint8), RegisterModel(FORM)
    dma, room = DmaModel(model, memory), iter(range(0, 1 << 16, 4096))

    class Buffer(np.ndarray):
        device_address = 0

    def allocate(shape: tuple[int], dtype: str, cacheable: bool) -> np.ndarray:
        if shape[0] > 4096:
            raise RuntimeError("Failed to allocate Memory!")
        start = next(room)
        made = memory[start : start + shape[0]].view(Buffer)
        made.device_address = ADDRESS + start
        assert np.dtype(dtype) == np.uint8 and not cacheable
        return made

    class Overlay:
        def __init__(self, bitfile: str) -> None:
            if "broken" in bitfile:
                raise RuntimeError("no such part")
            self.ip_dict = {
                "zipml_accelerator_0": {"phys_addr": 0x4000_0000, "addr_range": 0x80000},
                "axi_dma_0": {"phys_addr": 0x4040_0000, "addr_range": 0x10000},
            }

    fake = types.ModuleType("pynq")
    fake.Overlay, fake.allocate = Overlay, allocate  # type: ignore[attr-defined]
    fake.MMIO = lambda address, size: {  # type: ignore[attr-defined]
        (0x4000_0000, 0x80000): Registers(model),
        (0x4040_0000, 0x10000): dma,
    }[address, size]
    bitfile = tmp_path / "zipml.bit"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pynq", None)
        with pytest.raises(UsageError, match="needs the package pynq"):
            open_bus("pynq", bitfile=str(bitfile))
    monkeypatch.setitem(sys.modules, "pynq", fake)
    with pytest.raises(UsageError, match=r"zipml\.bit is not there"):
        open_bus("pynq", bitfile=str(bitfile))
    bitfile.write_bytes(b"")
    driver = Driver(open_bus("pynq", bitfile=str(bitfile)))
    for tiles in (3, 9):
        check_run(driver, tiles)
    bus = open_bus("pynq", bitfile=str(bitfile))
    for _ in range(2):  # the same again, for nothing was allocated
        with pytest.raises(DeviceError, match=r"no 4 buffers of 5,000 bytes \(Failed to allocate"):
            bus.stream(np.zeros((1250, 4), np.uint8))
    check_run(Driver(bus), 3)
    with pytest.raises(DeviceError, match=r"axi_dma_0 has 65,536 bytes of addresses, and 327,680"):
        open_bus("pynq", bitfile=str(bitfile), accelerator="axi_dma_0")
    with pytest.raises(DeviceError, match=r"has no 'dma7'; it has axi_dma_0, zipml_accelerator_0"):
        open_bus("pynq", bitfile=str(bitfile), dma="dma7")
    bad = tmp_path / "broken.bit"
    bad.write_bytes(b"")
    with pytest.raises(DeviceError, match=r"broken\.bit cannot be loaded: no such part"):
        open_bus("pynq", bitfile=str(bad))


def test_the_model_of_the_dma_sends_nothing_before_it_runs() -> None:
    model = RegisterModel(FORM)
    dma = DmaModel(model, np.zeros(64, np.uint8))
    with pytest.raises(AssertionError):
        dma.write(axi_dma.LENGTH, 4)
    assert Registers(model).read(Register.COLUMNS_LIMIT) == 40
