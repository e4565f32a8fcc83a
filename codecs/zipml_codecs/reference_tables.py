"""Level tables in plain NumPy and Python, slow and obvious: the twin of the native core for them.

It follows docs/format.md sentence by sentence, as `reference.py` does for equally spaced levels,
and takes from there what both share: the levels of a grid, and packing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .quantizer import TILE_ROWS, Quantizer
from .reference import FloatArray, _Grid, _pack_tile, rounded, unpack_codes

__all__ = ["decode_codes", "encode_codes", "levels", "positions", "variance_sums"]

Places = npt.NDArray[Any]


def _steps(places: Places, samples: int) -> int:
    largest: int = 2 ** (8 * places.dtype.itemsize) - 1
    return largest // samples


def _useful(places: Places, top: int) -> list[int]:
    """The places of one column without the repetitions of the last."""
    return [int(k) for k in places if k < top] + [top]


def levels(lower: Any, upper: Any, places: Places, samples: int, *, half: bool) -> FloatArray:
    """Return the levels of one column, without the repetitions of the last."""
    top = _steps(places, samples)
    return _Grid(lower, upper, top, half=half).levels()[_useful(places, top)]


def positions(
    matrix: FloatArray,
    quantizer: Quantizer,
    lower: FloatArray,
    upper: FloatArray,
    places: Places,
    *,
    half: bool = False,
) -> npt.NDArray[np.int64]:
    """Return base code times 2**16 plus the probability of rounding up in units of 2**-16."""
    out = np.zeros(matrix.shape, np.int64)
    top = _steps(places, quantizer.samples)
    for c in range(matrix.shape[1]):
        grid = _Grid(lower[c], upper[c], top, half=half)
        scaled = grid.scaled[_useful(places[c], top)]
        for r, value in enumerate(matrix[:, c]):
            x = value * grid.factor
            base = max(i for i, level in enumerate(scaled) if level <= x)
            if base == len(scaled) - 1:
                out[r, c] = base << 16
                continue
            share = (x - scaled[base]) / (scaled[base + 1] - scaled[base])
            out[r, c] = (base << 16) + int(np.rint(share * grid.dtype.type(65536)))
    return out


def variance_sums(where: npt.NDArray[np.int64], quantizer: Quantizer, places: Places) -> list[int]:
    """Return the variance sums of the columns whose positions are given."""
    sums = []
    for c in range(where.shape[1]):
        useful = _useful(places[c], _steps(places, quantizer.samples))
        total = 0
        for position in where[:, c].tolist():
            base, p = divmod(position, 65536)
            if p:
                total += p * (65536 - p) * (useful[base + 1] - useful[base]) ** 2
        sums.append(total)
    return sums


def encode_codes(
    where: npt.NDArray[np.int64], quantizer: Quantizer, first_tile: int
) -> npt.NDArray[np.uint8]:
    """Round and pack (rows, columns) positions."""
    parts = []
    for start in range(0, len(where), TILE_ROWS):
        tile = where[start : start + TILE_ROWS]
        codes = rounded(tile, quantizer, first_tile + start // TILE_ROWS)
        parts.append(_pack_tile(codes, quantizer.stored_bits))
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def decode_codes(
    data: npt.NDArray[np.uint8],
    rows: int,
    quantizer: Quantizer,
    lower: FloatArray,
    upper: FloatArray,
    places: Places,
    *,
    half: bool = False,
) -> FloatArray:
    """Unpack and dequantise."""
    columns = len(upper)
    codes = unpack_codes(data, rows, columns, quantizer.stored_bits)
    top = _steps(places, quantizer.samples)
    out = np.empty((rows, columns), upper.dtype)
    for c in range(columns):
        grid = _Grid(lower[c], upper[c], top, half=half)
        at = np.append(places[c].astype(np.int64), top)
        level = grid.levels()[at]
        for r in range(rows):
            z = int(codes[r, c])
            low = min(z // quantizer.samples, quantizer.intervals)
            up = z % quantizer.samples if low < quantizer.intervals else 0
            out[r, c] = level[low]
            if up:
                out[r, c] = grid.mean(at[low], at[low + 1], up, quantizer.samples)
    return out
