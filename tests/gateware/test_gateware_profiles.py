"""What a run takes on a board: the slowest of clock, memory and link."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zipml_ooc.errors import UsageError
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.profiles import (
    PROFILES,
    Profile,
    float32_bytes,
    get_profile,
    modelled,
    modelled_float32,
    stream_bytes,
)
from zipml_ooc.gateware.reference import Program, State, Tile
from zipml_ooc.gateware.stream import pack

BOARD = Profile("b", "a board", 1e6, 64, 1e6, 2e6, 100_000, 1 << 24)


@pytest.mark.parametrize(
    ("change", "bound_by", "seconds"),
    [
        ({}, "memory", 8.0),
        ({"memory_bytes_per_s": 4e6}, "link", 4.0),
        ({"memory_bytes_per_s": 4e6, "link_bytes_per_s": 4e6}, "clock", 3.0),
        # A bus of a byte a cycle: eight million cycles.
        ({"memory_bytes_per_s": 4e6, "bus_bits": 8}, "clock", 8.0),
    ],
)
def test_a_stage_takes_as_long_as_what_it_is_bound_by(
    change: dict[str, float], bound_by: str, seconds: float
) -> None:
    found = modelled(replace(BOARD, **change), cycles=3_000_000, size=8_000_000)
    assert (found.bound_by, found.seconds) == (bound_by, seconds)


def test_the_bytes_are_those_of_the_packets() -> None:
    form = Format(2, 16, 64)
    tile = Tile(np.zeros((16, 7), np.int64), np.zeros(16, np.int64))
    assert stream_bytes(form, 7, 3) == 3 * pack(tile, form).size
    assert float32_bytes(7, 48) == 48 * 8 * 4
    assert modelled_float32(BOARD, 7, 48).memory_seconds == pytest.approx(48 * 8 * 4 / 1e6)


def test_pipelines_and_columns_are_those_that_fit() -> None:
    assert BOARD.pipelines == 2
    form = Format(4)
    limit = BOARD.columns_limit(form)
    # Two share 2^24 bits; a word takes 256 + 144 of them, and the sigmoid has 16 tables.
    assert (limit + 24) * 400 + 16 * 18_432 <= 1 << 23 < 2 * (limit + 24) * 400
    assert all(p.pipelines >= 1 for p in PROFILES.values())
    # What was placed and routed on the ECP5-85 fits there.
    assert PROFILES["ecp5-85"].columns_limit(form) >= Format(4).columns_limit


def test_tables_of_the_sigmoid_take_their_part_of_the_memory() -> None:
    form, words = Format(4), 400 * 2048
    tables = 16 * 18_432
    for size, columns in ((words + tables, 2024), (words + tables - 1, 1000)):
        assert replace(BOARD, luts=40_000, ram_bits=size).columns_limit(form) == columns


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    assert get_profile("harp").memory_bytes_per_s == 6.5e9
    with pytest.raises(UsageError, match="no profile 'vu9p': choose one of pynq-z1, harp"):
        get_profile("vu9p")


def test_an_emulator_of_a_board_counts_modelled_seconds_that_add_up() -> None:
    form, board = Format(4, 8, 64), PROFILES["harp"]
    table = np.zeros(9, np.int64)
    emulator = Emulator(form, board)
    emulator.load(Program(4, 1, 1, 0, table, table, table), State(table, 1))
    packet = pack(Tile(np.zeros((8, 8), np.int64), np.zeros(8, np.int64)), form)
    counters = emulator.run([packet] * 5, 5)
    found = modelled(board, counters.cycles, 5 * packet.size)
    assert counters.more == {
        "modelled_seconds": found.seconds,
        "modelled_clock_seconds": found.clock_seconds,
        "modelled_memory_seconds": found.memory_seconds,
        "modelled_link_seconds": found.link_seconds,
        "modelled_float32_seconds": modelled_float32(board, 8, 40).seconds,
    }
