"""The accelerator's arithmetic in plain NumPy integers: slow, obvious, and what is specified.

docs/accelerator.md says the same in words. The gateware computes these integers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import DRAW_BITS, MARGIN_SHIFT, NO_ROW, STEP_BITS, TABLE_BITS

__all__ = ["Program", "State", "Tile", "draw", "margins", "residuals", "rounded", "run", "update"]

I64 = npt.NDArray[np.int64]
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Tile:
    """Codes of a tile, (lanes, columns), and targets, (lanes,), `NO_ROW` where a row is missing."""

    codes: I64
    targets: I64


@dataclass(frozen=True)
class Program:
    """What the registers and tables hold for a run.

    Attributes
    ----------
    bits : int
        Of a stored code.
    batch_tiles : int
        Tiles of a mini-batch, 1 to 64; the last one of a run may have fewer.
    step, shift : int
        A pace is multiplied by ``step / 2**16``, and the product by ``2**-shift``.
    centre, pace, variance : (columns + 1,) int64
        Entry 0 is the intercept, whose centre is 0.
    delayed : bool
        Whether a tile meets the model without what the tile ahead of it changes.
    """

    bits: int
    batch_tiles: int
    step: int
    shift: int
    centre: I64
    pace: I64
    variance: I64
    delayed: bool = False


@dataclass
class State:
    """What a run changes: model, (columns + 1,), generator, and whether numbers were clipped."""

    model: I64
    seed: int
    model_saturated: bool = field(default=False)
    residual_saturated: bool = field(default=False)


def draw(seed: int) -> tuple[int, int]:
    """Advance the generator, xorshift64; return its state and the 16 bits that it draws."""
    x = seed
    x ^= (x << 13) & _MASK
    x ^= x >> 7
    x ^= (x << 17) & _MASK
    return x, x >> (64 - DRAW_BITS)


def _clip(values: Any, bits: int) -> tuple[I64, bool]:
    """Values within the range of a signed number, and whether any lay outside."""
    largest = (1 << (bits - 1)) - 1
    clipped = np.clip(values, -largest - 1, largest)
    return clipped, bool((clipped != values).any())


def _with_intercept(tile: Tile) -> I64:
    """Codes of all entries, (lanes, columns + 1): the intercept's are ones."""
    return np.concatenate([np.ones((len(tile.codes), 1), np.int64), tile.codes], axis=1)


def margins(program: Program, model: I64, tile: Tile) -> I64:
    """Margins less targets, in units of the model: (lanes,)."""
    centre = int(model @ program.centre) >> (TABLE_BITS - program.bits)
    return np.asarray(_with_intercept(tile) @ model - centre - (tile.targets << MARGIN_SHIFT))


def residuals(program: Program, model: I64, tile: Tile) -> tuple[I64, bool]:
    """Residuals, (lanes,), and whether any was clipped; 0 where there is no row."""
    half = 1 << (MARGIN_SHIFT - 1)
    present = tile.targets != NO_ROW
    rounded = np.where(present, (margins(program, model, tile) + half) >> MARGIN_SHIFT, 0)
    return _clip(rounded, 16)


def rounded(model: I64, moved: I64, draws: I64) -> tuple[I64, bool]:
    """The model less a change in 2**-16 of its units, rounded stochastically, and clipped."""
    return _clip(((model << DRAW_BITS) - moved + draws) >> DRAW_BITS, 16)


def update(program: Program, state: State, gradient: I64, rows: int) -> None:
    """The end of a mini-batch: correct the gradient, take the step, round the model."""
    model = state.model
    at_centre = (program.centre * gradient[0]) >> (TABLE_BITS - program.bits)
    correction = (rows * program.variance * model) >> (TABLE_BITS + MARGIN_SHIFT)
    change = gradient - at_centre - correction
    pace = (program.pace * program.step + (1 << (STEP_BITS - 1))) >> STEP_BITS
    moved, _ = _clip((change * pace) >> program.shift, 33)
    draws = np.empty(len(model), np.int64)
    for entry in range(len(model)):
        state.seed, draws[entry] = draw(state.seed)
    state.model, clipped = rounded(model, moved, draws)
    state.model_saturated |= clipped


def run(program: Program, tiles: Sequence[Tile], state: State) -> None:
    """Run over the tiles and change the state."""
    gradient = np.zeros(len(state.model), np.int64)
    rows = 0
    before = state.model  # the model ahead of the last tile's update
    for number, tile in enumerate(tiles):
        residual, clipped = residuals(program, before if program.delayed else state.model, tile)
        before = state.model
        state.residual_saturated |= clipped
        gradient = gradient + residual @ _with_intercept(tile)
        rows += int((tile.targets != NO_ROW).sum())
        if (number + 1) % program.batch_tiles == 0 or number + 1 == len(tiles):
            update(program, state, gradient, rows)
            gradient, rows = np.zeros_like(gradient), 0
