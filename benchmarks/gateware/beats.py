"""How steadily the accelerator takes beats: an epoch of random codes, simulated cycle by cycle."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from zipml_ooc.gateware.driver import Counters, Driver
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.simulation import Simulation
from zipml_ooc.gateware.stream import pack

__all__ = ["CASES", "Beats", "measure"]

# Columns, tiles of the epoch, tiles of a mini-batch, delayed.
CASES = [
    (784, 200, 1, False),
    (784, 200, 4, False),
    (784, 200, 1, True),
    (90, 1600, 1, False),
    (90, 1600, 4, False),
    (90, 1600, 8, False),
    (90, 1600, 16, False),
    (90, 1600, 1, True),
]


@dataclass(frozen=True)
class Beats:
    """An epoch; `seconds` is how long its simulation took."""

    columns: int
    tiles: int
    batch_tiles: int
    is_delayed: bool
    counters: Counters
    seconds: float

    @property
    def fraction(self) -> float:
        """Cycles that took a beat, of all."""
        return self.counters.beats / self.counters.cycles


def measure(
    device: Simulation, form: Format, columns: int, tiles: int, batch_tiles: int, *, delayed: bool
) -> Beats:
    """Run an epoch with a beat always at the door, and compare the model with the reference's."""
    rng = np.random.default_rng(0)
    entries = columns + 1
    centre = np.full(entries, 1 << 15)
    centre[0] = 0
    program = Program(
        bits=form.bits,
        batch_tiles=batch_tiles,
        step=40000,
        shift=12,
        centre=centre,
        pace=np.full(entries, 30000),
        variance=np.full(entries, 5000),
        delayed=delayed,
    )
    made = []
    for _ in range(tiles):
        codes = rng.integers(0, 1 << form.bits, (form.lanes, columns))
        made.append(Tile(codes, rng.integers(-1000, 1000, form.lanes)))
    state = State(np.zeros(entries, np.int64), 1)
    driver = Driver(device)
    driver.load(program, state)
    packets = [pack(tile, form) for tile in made]
    began = time.perf_counter()
    counters = driver.run(packets, tiles)
    seconds = time.perf_counter() - began
    run(program, made, state)
    if (driver.state(columns).model != state.model).any():
        raise SystemExit("the simulation and the reference differ")
    return Beats(columns, tiles, batch_tiles, delayed, counters, seconds)
