"""The accelerator's arithmetic in plain NumPy integers: slow, obvious, and what is specified.

docs/accelerator.md says the same in words. The gateware computes these integers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .formats import (
    CURVATURE_SHIFT,
    DRAW_BITS,
    LEAST_EXPONENT,
    LOGISTIC_BITS,
    NO_ROW,
    STEP_BITS,
    TABLE_BITS,
    Loss,
    intercept_code,
    margin_shift,
)
from .sigmoid import POINT_BITS, slope_and_value

__all__ = [
    "Program",
    "State",
    "Tile",
    "curvature_sum",
    "draw",
    "margins",
    "residuals",
    "rounded",
    "run",
    "update",
]

I64 = npt.NDArray[np.int64]
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Tile:
    """Codes of a tile, (lanes, columns), and targets, (lanes,), `NO_ROW` where a row is missing.

    For the logistic loss targets are 0 in rows of the class that positive margins stand for, and
    -1 in the others; for the squared hinge plus and minus the fixed-point number 1.
    """

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
    loss : Loss
    exponent : int
        What the logistic loss takes a unit of the model for: ``2**-exponent``. Other losses do not
        ask.
    """

    bits: int
    batch_tiles: int
    step: int
    shift: int
    centre: I64
    pace: I64
    variance: I64
    delayed: bool = False
    loss: Loss = Loss.SQUARED
    exponent: int = LEAST_EXPONENT

    @property
    def refinement(self) -> int:
        """By how much the exponent exceeds the least one, 0 to 3."""
        return self.exponent - LEAST_EXPONENT - max(0, self.bits - 4)


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


def _with_intercept(program: Program, tile: Tile) -> I64:
    """Codes of all entries, (lanes, columns + 1): the intercept's are all the same."""
    own = np.full((len(tile.codes), 1), intercept_code(program.bits), np.int64)
    return np.concatenate([own, tile.codes], axis=1)


def margins(program: Program, model: I64, tile: Tile) -> I64:
    """Margins less targets, in units of the model: (lanes,)."""
    centre = int(model @ program.centre) >> (TABLE_BITS - program.bits)
    target = tile.targets << margin_shift(program.bits)
    return np.asarray(_with_intercept(program, tile) @ model - centre - target)


def _derivatives(program: Program, model: I64, tile: Tile) -> tuple[I64, I64, bool]:
    """Of the loss of each row by its margin, the first and the second; whether any was clipped."""
    shift = margin_shift(program.bits)
    present, negative = tile.targets != NO_ROW, tile.targets < 0
    margin = margins(program, model, tile)
    if program.loss == Loss.LOGISTIC:
        margin = margin - (negative << shift)
        places = POINT_BITS - LEAST_EXPONENT - program.refinement
        slope, value = slope_and_value((margin << places) >> max(0, program.bits - 4))
        value = value - (~negative << LOGISTIC_BITS)
        return np.where(present, value, 0), np.where(present, slope, 0), False
    residual = (margin + (1 << (shift - 1))) >> shift
    if program.loss == Loss.SQUARED_HINGE:  # where the margin is on the wrong side of the target
        present = present & ((residual < 0) != negative)
    clipped, outside = _clip(np.where(present, residual, 0), 16)
    return clipped, present.astype(np.int64), outside


def residuals(program: Program, model: I64, tile: Tile) -> tuple[I64, bool]:
    """Derivatives of the loss, (lanes,), and whether any was clipped; 0 where there is no row."""
    residual, _, clipped = _derivatives(program, model, tile)
    return residual, clipped


def curvature_sum(program: Program, model: I64, tile: Tile) -> int:
    """Of the rows of a tile: their number, or how many of them count, or a sum of slopes."""
    return int(_derivatives(program, model, tile)[1].sum())


def rounded(model: I64, moved: I64, draws: I64) -> tuple[I64, bool]:
    """The model less a change in 2**-16 of its units, rounded stochastically, and clipped."""
    return _clip(((model << DRAW_BITS) - moved + draws) >> DRAW_BITS, 16)


def update(program: Program, state: State, gradient: I64, curvature: int) -> None:
    """The end of a mini-batch: correct the gradient, take the step, round the model.

    `curvature` is the sum over the tiles of `curvature_sum`.
    """
    model, shift = state.model, margin_shift(program.bits)
    if program.loss == Loss.LOGISTIC:
        curvature >>= CURVATURE_SHIFT + program.refinement
    total = gradient[0] // intercept_code(program.bits)  # of the residuals: exact
    at_centre = (program.centre * total) >> (TABLE_BITS - program.bits)
    correction = (curvature * program.variance * model) >> (TABLE_BITS + shift)
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
    curvature = 0
    before = state.model  # the model ahead of the last tile's update
    for number, tile in enumerate(tiles):
        met = before if program.delayed else state.model
        residual, clipped = residuals(program, met, tile)
        before = state.model
        state.residual_saturated |= clipped
        gradient = gradient + residual @ _with_intercept(program, tile)
        curvature += curvature_sum(program, met, tile)
        if (number + 1) % program.batch_tiles == 0 or number + 1 == len(tiles):
            update(program, state, gradient, curvature)
            gradient, curvature = np.zeros_like(gradient), 0
