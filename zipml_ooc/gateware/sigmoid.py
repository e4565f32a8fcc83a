"""The sigmoid in fixed point, as the accelerator has it: a table and straight lines between."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from .formats import LOGISTIC_BITS

__all__ = ["INTERVALS", "POINT_BITS", "STEP_BITS", "slope_and_value", "table"]

I64 = npt.NDArray[np.int64]

INTERVALS = 512  # of 1/16, from -16 to 16
POINT_BITS = 14  # of an argument behind the point
STEP_BITS = 10  # of those within an interval


@functools.cache
def table() -> tuple[I64, I64]:
    """The values at the left ends of the intervals, and what they rise by in each: both in 2**-14.

    ``round(2**14 / (1 + exp(-i / 16)))`` for `i` from -256 to 256: none of these is within 0.005 of
    a tie, so that rounding does not depend on how exactly the exponential is computed.
    """
    ends = range(-INTERVALS // 2, INTERVALS // 2 + 1)
    real = [(1 << LOGISTIC_BITS) / (1.0 + math.exp(-i / 16)) for i in ends]
    value = np.array([math.floor(v + 0.5) for v in real], np.int64)
    return value[:-1], np.diff(value)


def slope_and_value(argument: I64) -> tuple[I64, I64]:
    """Rise in its interval, and the sigmoid itself, of an argument in units of 2**-14."""
    value, rise = table()
    limit = INTERVALS // 2 << STEP_BITS
    held = np.clip(argument, -limit, limit - 1)
    place, within = (held >> STEP_BITS) + INTERVALS // 2, held & ((1 << STEP_BITS) - 1)
    half = 1 << (STEP_BITS - 1)
    return rise[place], value[place] + ((rise[place] * within + half) >> STEP_BITS)
