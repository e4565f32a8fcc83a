"""The codec in plain NumPy and Python, slow and obvious: the oracle of the native core's tests.

It follows docs/format.md sentence by sentence and shares no arithmetic with the native core. It
starts where `chunk.py` has found the scales and ends at the packed codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .quantizer import TILE_ROWS, Quantizer
from .rng import quantize_draws

__all__ = [
    "decode_codes",
    "encode_codes",
    "levels",
    "positions",
    "rounded",
    "unpack_codes",
    "variance_sums",
]

FloatArray = npt.NDArray[np.floating[Any]]
_EXTREMES = {
    np.dtype(np.float32): (np.float32(2.0**126), np.float32(2.0**-60), np.float32(2.0**80)),
    np.dtype(np.float64): (np.float64(2.0**1022), np.float64(2.0**-510), np.float64(2.0**510)),
}


class _Grid:
    """Levels between two bounds, in the arithmetic of `dtype`, times a power of two."""

    def __init__(self, lower: Any, upper: Any, intervals: int, *, half: bool) -> None:
        dtype = np.dtype(type(upper))
        huge, tiny, up = _EXTREMES[dtype]
        self.bounds = lower, upper
        largest = max(abs(lower), abs(upper))
        one = dtype.type(1)
        factor: Any = dtype.type(0.25) if largest > huge else up if largest < tiny else one
        self.factor = factor
        self.lo, self.hi = lower * self.factor, upper * self.factor
        span = float(self.hi) - float(self.lo)
        self.step = dtype.type(span / intervals)
        self.inverse = dtype.type(intervals / span) if span > 0 else dtype.type(0)
        self.intervals, self.half, self.dtype = intervals, half, dtype
        codes = np.arange(intervals + 1).astype(dtype)
        with np.errstate(over="ignore"):  # only beyond the upper bound, which is taken instead
            scaled = self.lo + codes * self.step
            scaled = (scaled / self.factor) * self.factor
        scaled = np.minimum(self._round(scaled), self.hi)
        scaled[-1] = self.hi
        scaled[0] = self.lo
        self.scaled = scaled

    def _round(self, x: Any) -> Any:
        if not self.half:
            return x
        with np.errstate(over="ignore"):
            return np.asarray(x).astype(np.float16).astype(np.float32)

    def positions(self, values: FloatArray) -> npt.NDArray[np.int64]:
        x = values * self.factor
        codes = np.clip(np.rint((x - self.lo) * self.inverse), 0, self.intervals).astype(np.int64)
        near = self.scaled[codes]
        side = np.where(x >= near, 1, -1)
        gap = self.scaled[np.clip(codes + side, 0, self.intervals)] - near
        share = np.divide(x - near, gap, out=np.zeros_like(x), where=gap != 0)
        units = np.rint(np.clip(share, 0, 1) * self.dtype.type(65536)).astype(np.int64)
        found = codes * 65536 + side * units
        return np.asarray(np.clip(found, 0, self.intervals * 65536))

    def levels(self) -> FloatArray:
        level: FloatArray = self.scaled / self.factor
        level[-1] = self.bounds[1]
        level[0] = self.bounds[0]
        return level

    def values(self, stored: npt.NDArray[np.int64], samples: int) -> FloatArray:
        level = self.levels()
        low, up = stored // samples, stored % samples
        return np.where(up == 0, level[low], self.mean(low, low + (up > 0), up, samples))

    def mean(self, low: Any, high: Any, up: Any, samples: int) -> Any:
        """Mean of samples: `up` of them are at the higher place, the others at the lower."""
        if samples <= 2:
            mean = (self.scaled[low] + self.scaled[high]) * self.dtype.type(0.5)
        else:
            upper = (np.asarray(up) / samples).astype(self.dtype)  # exact
            mean = self.scaled[low] * (1 - upper) + self.scaled[high] * upper
        return self._round(mean / self.factor)


def levels(lower: Any, upper: Any, bits: int, *, half: bool = False) -> FloatArray:
    """Return the ``2**bits`` levels between two bounds."""
    grid = _Grid(lower, upper, (1 << bits) - 1, half=half)
    return grid.levels()


def _grids(
    lower: FloatArray | None, upper: FloatArray, quantizer: Quantizer, half: bool
) -> list[_Grid]:
    low = 0 - upper if lower is None else lower  # never -0.0
    return [_Grid(a, b, quantizer.intervals, half=half) for a, b in zip(low, upper, strict=True)]


def positions(
    matrix: FloatArray,
    quantizer: Quantizer,
    lower: FloatArray | None,
    upper: FloatArray,
    *,
    half: bool = False,
) -> npt.NDArray[np.int64]:
    """Return base code times 2**16 plus the probability of rounding up in units of 2**-16."""
    out = np.empty(matrix.shape, np.int64)
    for i, grid in enumerate(_grids(lower, upper, quantizer, half)):
        part = np.s_[i, :] if lower is None else np.s_[:, i]
        out[part] = grid.positions(matrix[part])
    return out


def variance_sums(
    matrix: FloatArray,
    quantizer: Quantizer,
    lower: FloatArray | None,
    upper: FloatArray,
    *,
    half: bool = False,
) -> npt.NDArray[Any]:
    """Return the variance table: exact integers for column scales, doubles for row scales."""
    up = positions(matrix, quantizer, lower, upper, half=half) & 0xFFFF
    if lower is not None:
        return np.asarray((up * (65536 - up)).sum(axis=0), np.uint64)
    with np.errstate(over="ignore", invalid="ignore"):  # the step may be infinite
        grids = _grids(lower, upper, quantizer, half)
        step = np.array([float(g.step) / float(g.factor) for g in grids])[:, None]
        p = up / 65536
        terms = np.where(up > 0, p * (1 - p) * step * step, 0.0)
        out = np.zeros(matrix.shape[1])
        for start in range(0, len(matrix), TILE_ROWS):
            out += np.cumsum(terms[start : start + TILE_ROWS], axis=0)[-1]  # in the order of rows
    return out


def encode_codes(
    matrix: FloatArray,
    quantizer: Quantizer,
    lower: FloatArray | None,
    upper: FloatArray,
    first_tile: int,
    *,
    half: bool = False,
) -> npt.NDArray[np.uint8]:
    """Quantise and pack a (rows, columns) array."""
    where = positions(matrix, quantizer, lower, upper, half=half)
    parts = []
    for start in range(0, len(where), TILE_ROWS):
        tile = where[start : start + TILE_ROWS]
        codes = rounded(tile, quantizer, first_tile + start // TILE_ROWS)
        parts.append(_pack_tile(codes, quantizer.stored_bits))
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def rounded(
    tile: npt.NDArray[np.int64], quantizer: Quantizer, number: int
) -> npt.NDArray[np.int64]:
    """Return the stored codes of the positions of a tile, (rows, columns)."""
    base, up = tile >> 16, tile & 0xFFFF
    own = quantizer.samples > 2  # draws for each sample

    def draws(sample: int) -> npt.NDArray[np.int64]:
        columns = [
            quantize_draws(quantizer.seed, number, c, sample)[: len(tile)]
            for c in range(tile.shape[1])
        ]
        return np.stack(columns, axis=1).astype(np.int64)

    if own:
        ups = [(draws(sample) < up).astype(np.int64) for sample in range(quantizer.samples)]
        return np.asarray(quantizer.samples * base + sum(ups))
    if quantizer.samples == 1:
        return np.asarray(base + (draws(0) < up))
    both = (up * up) >> 16
    return np.asarray(2 * base + (draws(0) < both) + (draws(0) < 2 * up - both))


def _field_widths(stored_bits: int) -> list[int]:
    return [width for width in (8, 4, 2, 1) if stored_bits & width]


def _pack_tile(codes: npt.NDArray[np.int64], stored_bits: int) -> npt.NDArray[np.uint8]:
    rows, columns = codes.shape
    slots = -(-rows // 8) * 8
    padded = np.zeros((slots, columns), np.int64)
    padded[:rows] = codes
    out = []
    shift = 0
    for width in _field_widths(stored_bits):
        digits = (padded >> shift) & ((1 << width) - 1)
        size = slots * width // 8
        packed = np.zeros((columns, size), np.int64)
        for i in range(8 // width):
            packed |= digits[i * size : (i + 1) * size].T << (i * width)
        out.append(packed.reshape(-1).astype(np.uint8))
        shift += width
    return np.concatenate(out)


def _unpack_tile(
    data: npt.NDArray[np.uint8], rows: int, columns: int, stored_bits: int
) -> npt.NDArray[np.int64]:
    slots = -(-rows // 8) * 8
    codes = np.zeros((slots, columns), np.int64)
    shift = offset = 0
    for width in _field_widths(stored_bits):
        size = slots * width // 8
        packed = data[offset : offset + columns * size].reshape(columns, size).astype(np.int64)
        for i in range(8 // width):
            digits = (packed >> (i * width)) & ((1 << width) - 1)
            codes[i * size : (i + 1) * size] |= digits.T << shift
        offset += columns * size
        shift += width
    return codes[:rows]


def unpack_codes(
    data: npt.NDArray[np.uint8], rows: int, columns: int, stored_bits: int
) -> npt.NDArray[np.int64]:
    """Unpack the stored codes of a chunk: (rows, columns)."""
    out = np.zeros((rows, columns), np.int64)
    tile_bytes = columns * stored_bits * TILE_ROWS // 8
    for t, start in enumerate(range(0, rows, TILE_ROWS)):
        count = min(TILE_ROWS, rows - start)
        out[start : start + count] = _unpack_tile(
            data[t * tile_bytes :], count, columns, stored_bits
        )
    return out


def decode_codes(
    data: npt.NDArray[np.uint8],
    rows: int,
    quantizer: Quantizer,
    lower: FloatArray | None,
    upper: FloatArray,
    columns: int,
    *,
    half: bool = False,
) -> FloatArray:
    """Unpack and dequantise: the inverse of `encode_codes` up to rounding."""
    codes = unpack_codes(data, rows, columns, quantizer.stored_bits)
    out = np.empty((rows, columns), upper.dtype)
    for i, grid in enumerate(_grids(lower, upper, quantizer, half)):
        part = np.s_[i, :] if lower is None else np.s_[:, i]
        out[part] = grid.values(codes[part], quantizer.samples)
    return out
