"""Values in float32 on the stream: what they become, and training problems in them.

The same pipelines without quantisation, as what quantised runs are measured by: each value is
rounded to 16 bits at the door, and those are its code.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..training.problem import Problem
from .formats import FLOAT_FRACTION, NO_ROW, Format
from .reference import I64

__all__ = ["float_codes", "float_packet", "float_problem", "floats_of_codes"]

F32 = npt.NDArray[np.float32]

_CENTRE = 1 << 15


def float_codes(values: npt.ArrayLike) -> I64:
    """The codes of values: 2**12 times as much, rounded to the nearest, halves up, and clipped.

    Infinite values and NaN are clipped by their sign.
    """
    x = np.asarray(values, np.float32)
    far = ~(np.abs(x) < 8)
    real = np.where(far, 0, x).astype(np.float64)
    near = np.floor(real * (1 << FLOAT_FRACTION) + 0.5)
    code = np.where(far, np.where(np.signbit(x), -_CENTRE, _CENTRE), near)
    return np.clip(code, -_CENTRE, _CENTRE - 1).astype(np.int64) + _CENTRE


def floats_of_codes(codes: I64) -> F32:
    """Values that have these codes, exactly."""
    return ((codes - _CENTRE) / (1 << FLOAT_FRACTION)).astype(np.float32)


def float_packet(values: F32, targets: I64, form: Format) -> npt.NDArray[np.uint8]:
    """The packet of a tile, (beats, bytes of a beat).

    Parameters
    ----------
    values : (rows, columns) float32
        At most as many rows as there are lanes; the others have none.
    targets : (rows,) integers
        In fixed point.
    form : Format
        For values in float32.

    Raises
    ------
    DataError
        There are more rows than lanes, or not as many targets, or a target has more than 16 bits.
    """
    rows, columns = values.shape
    fixed = np.asarray(targets, np.int64)
    if (
        rows > form.lanes
        or fixed.shape != (rows,)
        or (fixed < NO_ROW).any()
        or (fixed >= -NO_ROW).any()
    ):
        raise DataError(
            f"a tile of {form.lanes} lanes takes as many rows at most and a target of 16 bits for "
            f"each; got {rows} rows and {fixed.shape} targets from {fixed.min(initial=0)} to "
            f"{fixed.max(initial=0)}"
        )
    beats = np.zeros((1 + columns, form.lanes), np.float32)
    beats[1:, :rows] = values.T
    packet = beats.view(np.uint8)
    marks = np.full(form.lanes, NO_ROW, "<i2")
    marks[:rows] = fixed
    packet[0, : 2 * form.lanes] = marks.view(np.uint8)
    return packet


def float_problem(problem: Problem) -> Problem:
    """A training problem on the same columns, scaled as there, in float32 values.

    Its rows are ``(stored - problem.column_mean) / problem.column_std``.
    """
    step = 2.0**-FLOAT_FRACTION
    return replace(
        problem,
        stored_bits=16,
        offset=np.full(problem.columns, -_CENTRE * step, np.float32),
        slope=np.full(problem.columns, step, np.float32),
        variance=np.zeros(problem.columns, np.float32),
        tables=None,
        corrected=False,
        samples=1,
    )
