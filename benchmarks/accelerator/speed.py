"""How fast the emulator is: codes a second on one core, by instruction set and bits."""

from __future__ import annotations

import time

import numpy as np
from zipml_codecs import _native

from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.reference import Program, State, Tile
from zipml_ooc.gateware.stream import pack

__all__ = ["COLUMNS", "gcodes_per_s", "speeds"]

COLUMNS = 784
_TILES, _REPEATS = 500, 5


def gcodes_per_s(bits: int) -> float:
    """The best of a few runs of random codes, with an update after each tile."""
    rng, form = np.random.default_rng(bits), Format(bits)
    codes, targets = rng.integers(0, 1 << bits, (64, COLUMNS)), rng.integers(-99, 99, 64)
    packets = [pack(Tile(codes, targets), form)] * _TILES
    table = np.full(COLUMNS + 1, 100)
    emulator = Emulator(form)
    emulator.load(Program(bits, 1, 100, 20, table, table, table), State(table, 1))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        emulator.run(packets, _TILES)
        seconds.append(time.perf_counter() - began)
    return _TILES * codes.size / min(seconds) / 1e9


def speeds(bits: tuple[int, ...]) -> dict[str, list[float]]:
    """For each instruction set of this machine those of so many bits."""
    live, found = _native.live_simd(), {}
    for level in _native.simd_levels():
        _native.select_simd(level)
        found[level] = [gcodes_per_s(b) for b in bits]
    _native.select_simd(live)
    return found
