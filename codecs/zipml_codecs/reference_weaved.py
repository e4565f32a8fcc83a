"""The weaved layout in plain NumPy, slow and obvious: the oracle of the native core's tests.

Like `reference.py`, whose grids and packing it shares, it follows docs/format.md sentence by
sentence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .quantizer import TILE_ROWS, Quantizer
from .reference import FloatArray, _Grid, _pack_tile, positions, unpack_codes
from .rng import weave_draws

__all__ = ["decode_planes", "encode_planes", "probabilities", "unpack_planes", "variance_sums"]

I64 = npt.NDArray[np.int64]


def probabilities(where: I64, quantizer: Quantizer, precision: int) -> tuple[I64, I64]:
    """Split positions into the base at a precision and the probability of rounding up.

    The base never exceeds the last but one level; the last one has a probability of 2^16.
    """
    rest = quantizer.bits - precision
    base = np.minimum(where >> 16, quantizer.intervals - 1) >> rest
    left = where - (base << (16 + rest))
    p = np.minimum((left + (1 << rest >> 1)) >> rest, 65535)
    return base, np.where(where == quantizer.intervals << 16, 65536, p)


def variance_sums(where: I64, quantizer: Quantizer) -> npt.NDArray[np.uint64]:
    """Return the sums of p (65536 - p): (precisions, columns), lowest precision first."""
    each = [probabilities(where, quantizer, k)[1] for k in quantizer.precisions]
    return np.array([(p * (65536 - p)).sum(axis=0) for p in each], np.uint64)


def _plane(bits: I64) -> npt.NDArray[np.uint8]:
    """Pack one bit of each value of a chunk."""
    tiles = [_pack_tile(bits[i : i + TILE_ROWS], 1) for i in range(0, len(bits), TILE_ROWS)]
    return np.concatenate([*tiles, np.empty(0, np.uint8)])


def encode_planes(
    matrix: FloatArray,
    quantizer: Quantizer,
    lower: FloatArray,
    upper: FloatArray,
    first_tile: int,
    *,
    half: bool = False,
) -> npt.NDArray[np.uint8]:
    """Quantise a (rows, columns) array to planes, one behind the other."""
    where = positions(matrix, quantizer, lower, upper, half=half)
    base, _ = probabilities(where, quantizer, quantizer.bits)
    planes = [_plane(base >> bit & 1) for bit in reversed(range(quantizer.bits))]
    rows, columns = matrix.shape
    for precision in reversed(quantizer.precisions):
        _, p = probabilities(where, quantizer, precision)
        for sample in range(quantizer.samples):
            draws = np.zeros((-(-rows // TILE_ROWS) * TILE_ROWS, columns), np.int64)
            for start in range(0, rows, TILE_ROWS):
                tile = first_tile + start // TILE_ROWS
                for c in range(columns):
                    drawn = weave_draws(quantizer.seed, tile, c, precision, sample)
                    draws[start : start + TILE_ROWS, c] = drawn
            planes.append(_plane((draws[:rows] < p).astype(np.int64)))
    return np.concatenate(planes)


def unpack_planes(
    planes: npt.NDArray[np.uint8], rows: int, columns: int, precision: int, samples: int
) -> I64:
    """Put the stored codes of a precision together from its planes: (rows, columns)."""
    size = len(planes) // (precision + samples)
    bits = [
        unpack_codes(planes[i * size : (i + 1) * size], rows, columns, 1)
        for i in range(precision + samples)
    ]
    base = np.zeros((rows, columns), np.int64)
    for plane in bits[:precision]:
        base = 2 * base + plane
    return np.asarray(samples * base + sum(bits[precision:]))


def decode_planes(
    planes: npt.NDArray[np.uint8],
    rows: int,
    precision: int,
    samples: int,
    lower: FloatArray,
    upper: FloatArray,
    *,
    half: bool = False,
) -> FloatArray:
    """Put codes together and dequantise."""
    codes = unpack_planes(planes, rows, len(upper), precision, samples)
    out: Any = np.empty(codes.shape, upper.dtype)
    for c in range(len(upper)):
        grid = _Grid(lower[c], upper[c], 1 << precision, half=half)
        out[:, c] = grid.values(codes[:, c], samples)
    return np.asarray(out)
