"""The emulator computes what the reference computes, and refuses what the gateware refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zipml_codecs import _native

from zipml_ooc.gateware.driver import DeviceError
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.floats import float_packet
from zipml_ooc.gateware.formats import (
    DELAYED_COLUMNS,
    FEWEST_COLUMNS,
    LEAST_EXPONENT,
    NO_ROW,
    Format,
    Loss,
)
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.stream import pack, unpack

FORM = Format(4, 8, 64)


def outcome(state: State) -> tuple[Any, ...]:
    return state.model.tolist(), state.seed, state.model_saturated, state.residual_saturated


def emulated(
    form: Format, program: Program, tiles: list[Tile], state: State
) -> tuple[Emulator, State]:
    emulator = Emulator(form)
    emulator.load(program, state)
    emulator.run((pack(tile, form) for tile in tiles), len(tiles))
    return emulator, emulator.state(len(state.model) - 1)


@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([1, 2, 4, 8, 16]),
    lanes=st.sampled_from([8, 16, 32, 64]),
    more=st.integers(0, 300),
    tiles=st.integers(1, 9),
    batch=st.integers(1, 4),
    delayed=st.booleans(),
    loss=st.sampled_from(list(Loss)),
    refinement=st.integers(0, 3),
)
def test_random_programs_end_as_on_the_reference(
    seed: int,
    bits: int,
    lanes: int,
    more: int,
    tiles: int,
    batch: int,
    delayed: bool,
    loss: Loss,
    refinement: int,
) -> None:
    random_run = pytest.importorskip("gateware_bench").random_run
    form = Format(bits, lanes, 512)
    columns = (DELAYED_COLUMNS if delayed else FEWEST_COLUMNS) + more
    program, made, state = random_run(
        np.random.default_rng(seed),
        form,
        columns=columns,
        tiles=tiles,
        batch=batch,
        delayed=delayed,
    )
    exponent = LEAST_EXPONENT + max(0, bits - 4) + refinement
    program = replace(program, loss=loss, exponent=exponent)
    if loss == Loss.LOGISTIC:
        made = [
            replace(t, targets=np.where(t.targets == NO_ROW, NO_ROW, t.targets >> 15)) for t in made
        ]
    _, found = emulated(form, program, made, state)
    run(program, made, state)
    assert outcome(found) == outcome(state)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(
    ("sign", "loss"),
    [(-1, Loss.SQUARED), (1, Loss.SQUARED), (-1, Loss.LOGISTIC), (1, Loss.SQUARED_HINGE)],
)
def test_the_largest_numbers_end_as_on_the_reference_with_every_instruction_set(
    bits: int, sign: int, loss: Loss
) -> None:
    """All that could overflow is as large as it gets: columns, model, codes, residuals, rows."""
    form, columns = Format(bits, 64, 16384), 16360
    entries = columns + 1
    extreme = np.full(entries, -32768 if sign < 0 else 32767)
    top = np.full(entries, 65535)
    centre = np.zeros(entries, np.int64)
    exponent = LEAST_EXPONENT + max(0, bits - 4)
    program = Program(bits, 64, 65535, 0, centre, top, top, loss=loss, exponent=exponent)
    tile = Tile(np.full((64, columns), (1 << bits) - 1), np.full(64, -sign * 32767))
    state = State(extreme, (1 << 64) - 1)
    found, live = [], _native.live_simd()
    for level in _native.simd_levels():
        _native.select_simd(level)
        found.append(emulated(form, program, [tile] * 64, state)[1])
    _native.select_simd(live)
    run(program, [tile] * 64, state)
    assert all(outcome(one) == outcome(state) for one in found)
    assert state.residual_saturated == (loss != Loss.LOGISTIC)


def quiet(seed: int = 0, tiles: int = 4, batch: int = 1) -> tuple[Program, list[Tile], State]:
    """A program in which nothing is clipped, for 8 lanes of 4 bits."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, 1 << 16, 9)
    centre[0] = 0
    tables = rng.integers(0, 1 << 15, (2, 9))
    program = Program(4, batch, 40000, 13, centre, tables[0], tables[1])
    made = [Tile(rng.integers(0, 16, (8, 8)), rng.integers(-300, 300, 8)) for _ in range(tiles)]
    return program, made, State(rng.integers(-500, 500, 9), 1 << 40)


def floats(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Any bits, halves of the last place, and what is next to limits and halves."""
    words = rng.integers(0, 1 << 32, shape, dtype=np.uint64).astype(np.uint32).view(np.float32)
    halves = (rng.integers(-(1 << 16), 1 << 16, shape) / 8192).astype(np.float32)
    beside = np.nextafter(halves, rng.choice([-9, 9], shape).astype(np.float32))
    ends = rng.choice(np.array([8, -8, np.nan, -np.nan, np.inf, -np.inf, 0, -0.0, 1e-40]), shape)
    return rng.permuted(np.stack([words, halves, beside, ends.astype(np.float32)]), axis=0)[0]


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16, 64]))
def test_values_in_float32_become_the_codes_of_the_reference(seed: int, lanes: int) -> None:
    """Also at the limits: one row and the largest step move each entry by about its code."""
    rng, form, columns = np.random.default_rng(seed), Format(16, lanes, 512), 480
    entries, one = np.zeros(columns + 1, np.int64), int(rng.integers(lanes))
    targets = np.where(np.arange(lanes) == one, rng.choice([-1, 1]), NO_ROW)
    packet = float_packet(floats(rng, (lanes, columns)), np.zeros(lanes, np.int64), form)
    packet[0, : 2 * lanes] = targets.astype("<i2").view(np.uint8)
    centre = np.where(entries == 0, 1 << 15, 0)
    centre[0] = 0
    top = entries + 65535
    program, state = Program(16, 1, 65535, 0, centre, top, entries), State(entries, seed + 1)
    found, live = [], _native.live_simd()
    for level in _native.simd_levels():
        _native.select_simd(level)
        emulator = Emulator(form)
        emulator.load(program, state)
        emulator.run([packet], 1)
        found.append(emulator.state(columns))
    _native.select_simd(live)
    tile = unpack(packet, form)
    run(program, [tile], state)
    assert all(outcome(each) == outcome(state) for each in found)
    moved = np.abs(state.model[1:]) - np.abs(tile.codes[one] - (1 << 15))
    assert np.abs(moved).max() <= 1


def test_instruction_sets_do_not_differ(simd: str) -> None:
    program, made, state = quiet(batch=3)
    _, found = emulated(FORM, program, made, state)
    run(program, made, state)
    assert outcome(found) == outcome(state)


def test_a_run_in_parts_is_that_run_and_flags_are_of_the_last_part() -> None:
    program, made, state = quiet()
    loud = replace(made[0], targets=np.full(8, 32767))
    made = [loud, *made]
    emulator = Emulator(FORM)
    emulator.load(program, State(np.full(9, -30000), state.seed))
    emulator.run([pack(loud, FORM)], 1)
    assert emulator.state(8).residual_saturated
    emulator.run([pack(tile, FORM) for tile in made[1:2]], 1)
    expected = State(np.full(9, -30000), state.seed)
    run(program, made[:1], expected)
    expected.model_saturated = expected.residual_saturated = False
    run(program, made[1:2], expected)
    assert outcome(emulator.state(8)) == outcome(expected)


def test_what_was_loaded_is_not_what_the_caller_changes_later() -> None:
    program, made, state = quiet()
    emulator = Emulator(FORM)
    emulator.load(program, state)
    expected = replace(state, model=state.model.copy())
    run(program, made, expected)
    program.pace[:] = 0
    state.model[:] = 0
    emulator.run([pack(tile, FORM) for tile in made], len(made))
    assert outcome(emulator.state(8)) == outcome(expected)


def test_tiles_without_rows_change_nothing_but_the_draws() -> None:
    program, made, state = quiet(tiles=1)
    program = replace(program, variance=np.zeros(9, np.int64))
    nobody = replace(made[0], targets=np.full(8, NO_ROW))
    _, found = emulated(FORM, program, [nobody], state)
    assert found.model.tolist() == state.model.tolist()
    assert found.seed != state.seed


@pytest.mark.parametrize(
    ("change", "seed", "tiles"),
    [
        ({"batch_tiles": 0}, 1, 1),
        ({"batch_tiles": 65}, 1, 1),
        ({"delayed": True}, 1, 1),  # 8 columns are too few
        ({"loss": Loss.LOGISTIC, "exponent": LEAST_EXPONENT - 1}, 1, 1),
        ({"loss": Loss.LOGISTIC, "exponent": LEAST_EXPONENT + 4}, 1, 1),
        ({}, 0, 1),
        ({}, 1, 0),
    ],
)
def test_a_setting_out_of_range_is_refused_at_the_start(
    change: dict[str, Any], seed: int, tiles: int
) -> None:
    program, made, state = quiet()
    emulator = Emulator(FORM)
    emulator.load(replace(program, **change), replace(state, seed=seed))
    with pytest.raises(DeviceError, match="a setting is out of range"):
        emulator.run([pack(made[0], FORM)], tiles)
    emulator.load(program, state)
    emulator.run([pack(made[0], FORM)], 1)


def test_nothing_runs_before_a_program_is_there() -> None:
    with pytest.raises(DeviceError, match="a setting is out of range"):
        Emulator(FORM).run([], 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 8}, "is built for 4 stored bits, the data have 8"),
        ({"pace": np.full(9, 1 << 16)}, "paces from 65536 to 65536: entries hold 0 to 65535"),
        ({"step": 1 << 16}, "the step is 65536, and its register has 16 bits"),
        ({"shift": 32}, "the shift is 32, and its register has 5 bits"),
        ({"shift": -1}, "the shift is -1"),
    ],
)
def test_programs_that_do_not_fit_are_refused_as_the_driver_does(
    change: dict[str, Any], message: str
) -> None:
    program, _, state = quiet()
    with pytest.raises(DeviceError, match=message):
        Emulator(FORM).load(replace(program, **change), state)


@pytest.mark.parametrize(
    ("beats", "message"), [(11, "a packet ended early"), (13, "did not end where it should")]
)
def test_a_malformed_packet_stops_the_run_until_a_reset(beats: int, message: str) -> None:
    program, made, state = quiet()
    emulator = Emulator(FORM)
    emulator.load(program, state)
    packet = np.resize(pack(made[0], FORM), (beats, 4))
    for _ in range(2):
        with pytest.raises(DeviceError, match=message):
            emulator.run([packet], 1)
    emulator.reset()
    assert emulator.state(8).seed == 1
    emulator.load(program, state)
    emulator.run([pack(tile, FORM) for tile in made], 4)
    run(program, made, state)
    assert outcome(emulator.state(8)) == outcome(state)


def test_too_few_and_too_many_packets_are_errors() -> None:
    program, made, state = quiet()
    packets = [pack(tile, FORM) for tile in made]
    emulator = Emulator(FORM)
    emulator.load(program, state)
    with pytest.raises(DeviceError, match="did not end: 4 of 5 tiles were sent"):
        emulator.run(packets, 5)
    with pytest.raises(DeviceError, match="busy with a run that lacks packets: reset it"):
        emulator.run(packets, 4)
    emulator.reset()
    with pytest.raises(DeviceError, match="stopped taking beats in tile 3"):
        emulator.run(packets, 3)
    with pytest.raises(DeviceError, match=r"beats of 4 bytes, not \(12, 5\)"):
        emulator.run([np.zeros((12, 5), np.uint8)], 1)


def native(**change: Any) -> Any:
    tables = {name: np.zeros(9, np.uint16) for name in ("centre", "pace", "variance")}
    settings = {"bits": 4, "lanes": 8, "batch_tiles": 1, "step": 1, "shift": 0, "delayed": False}
    more = {"model": np.zeros(9, np.int16), "seed": 1, "loss": 0, "refinement": 0}
    halves = {"sigmoid": np.zeros(512, np.int16), "rise": np.zeros(512, np.int16)}
    return _native.FixedPointRun(**{**settings, **tables, **more, **halves, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 3},
        {"lanes": 12},
        {"batch_tiles": 0},
        {"batch_tiles": 65},
        {"step": 1 << 16},
        {"step": -1},
        {"shift": 32},
        {"shift": -1},
        {"model": np.zeros(0, np.int16)},
        {"model": np.zeros(16386, np.int16)},
        {"pace": np.zeros(8, np.uint16)},
        {"loss": 3},
        {"refinement": 4},
        {"refinement": -1},
        {"sigmoid": np.zeros(511, np.int16)},
        {"rise": np.full(512, -1, np.int16)},
    ],
)
def test_the_native_core_checks_every_size(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|has|needs|need"):
        native(**change)
    made = native()
    for wrong in (np.zeros((1, 47), np.uint8), np.zeros((1, 49), np.uint8)):
        with pytest.raises(ValueError, match="a row for each packet"):
            made.tiles(wrong)
    with pytest.raises(ValueError, match="another number of entries"):
        made.model(np.zeros(8, np.int16))
