"""Level tables: levels of any distances, as places on a grid between a column's bounds.

A place k of a grid of K steps stands for ``lower + (upper - lower) * k / K``, so that training can
take the places as they are, in integers. This module finds tables, checks them and says what their
codes are worth; the native core rounds to them (docs/format.md, section "Level tables").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from .quantizer import Quantizer

if TYPE_CHECKING:
    from .levels import LevelHistograms

__all__ = [
    "FittedLevels",
    "check_places",
    "chunk_places",
    "code_entries",
    "code_values",
    "fit_levels",
    "grid_steps",
    "table_bits_of",
]

Places = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_Doubles = npt.NDArray[np.float64]

_TYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16}
# Tables of 8 bits are taken where they add no more than this part to the rounding variance that
# those of 16 bits have, in the mean over standardised columns, or next to nothing beside the
# variance of the columns themselves: kernels are about twice as fast on them.
_WORTH_16_BITS = 0.02
_NEXT_TO_NOTHING = 1e-4
# What they are compared with: levels on a grid of so many bits, which are found much faster than
# those of 16 and lose some 256 times less than those of 8.
_REFERENCE_BITS = 12
# Of a chunk whose levels are its own: bins of a column, and columns at once (48 MB of bins).
_CHUNK_BINS, _COLUMNS_AT_ONCE = 4096, 512


def grid_steps(table_bits: int, samples: int) -> int:
    """Steps K of the grid: the sum of the places of all samples fits the table's type.

    >>> grid_steps(8, 1), grid_steps(8, 2)
    (255, 127)
    """
    return ((1 << table_bits) - 1) // samples


def table_bits_of(places: npt.NDArray[Any]) -> int:
    """Bits of a table's entries, 8 or 16, by the type of the array."""
    if places.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"levels must be places of uint8 or uint16, got {places.dtype}")
    return 8 * places.dtype.itemsize


@dataclass(frozen=True)
class FittedLevels:
    """Levels that were fitted to histograms.

    Attributes
    ----------
    places : (columns, 2**bits) uint8 or uint16
        Ascending from 0 to K; what is not needed repeats K.
    variance, uniform : (columns,) float64
        Mean rounding variance of the counted values with these levels, and with as many at equal
        distances, in units of the squared range of the column.
    """

    places: Places
    variance: _Doubles
    uniform: _Doubles


def fit_levels(
    histograms: Sequence[LevelHistograms],
    quantizer: Quantizer,
    at: npt.ArrayLike | None = None,
    more: npt.ArrayLike | None = None,
) -> FittedLevels:
    """Find the levels of least rounding variance on the coarser grid that does nearly as well.

    Parameters
    ----------
    histograms : sequence of LevelHistograms
        Of columns that follow one another.
    quantizer : Quantizer
        For its bits and samples.
    at, more : (columns,) array_like, optional
        Values that the histograms lack, and how many of each: those that stand for missing ones.

    Returns
    -------
    FittedLevels

    Examples
    --------
    >>> from zipml_codecs import LevelHistograms
    >>> histograms = LevelHistograms(1)
    >>> histograms.add(np.array([[0.0], [1], [2], [3], [30], [255]]))
    >>> fit_levels([histograms], Quantizer(bits=2)).places
    array([[  0,   3,  30, 255]], dtype=uint8)
    """
    columns = sum(h.columns for h in histograms)
    where = np.zeros(columns) if at is None else np.asarray(at, np.float64)
    count = np.zeros(columns) if more is None else np.asarray(more, np.float64)
    _, reference, _, spread = _fit(histograms, quantizer, _REFERENCE_BITS, where, count)
    places, variance, uniform, _ = _fit(histograms, quantizer, 8, where, count)
    varies = spread > 0
    best, found = (float((v[varies] / spread[varies]).sum()) for v in (reference, variance))
    if found - best > max(_WORTH_16_BITS * best, _NEXT_TO_NOTHING * int(varies.sum())):
        places, variance, uniform, _ = _fit(histograms, quantizer, 16, where, count)
    return FittedLevels(places, variance, uniform)


def _fit(
    histograms: Sequence[LevelHistograms],
    quantizer: Quantizer,
    table_bits: int,
    at: _Doubles,
    more: _Doubles,
) -> tuple[Places, _Doubles, _Doubles, _Doubles]:
    columns = len(at)
    places = np.zeros((columns, quantizer.intervals + 1), np.uint16)
    variance, uniform, spread = np.zeros(columns), np.zeros(columns), np.zeros(columns)
    top, start = grid_steps(table_bits, quantizer.samples), 0
    for h in histograms:
        part = slice(start, start + h.columns)
        out = places[part], variance[part], uniform[part], spread[part]
        _native.grid_levels(*h.contents(), at[part], more[part], top, *out)
        start += h.columns
    return places.astype(_TYPES.get(table_bits, np.uint16), copy=False), variance, uniform, spread


def chunk_places(matrix: npt.NDArray[Any], quantizer: Quantizer) -> Places:
    """Find the levels of one chunk from its values, which must be finite."""
    from .levels import LevelHistograms  # readers and most writers do without

    rows, columns = matrix.shape
    histograms = []
    for start in range(0, columns if rows else 0, _COLUMNS_AT_ONCE):
        part = matrix[:, start : start + _COLUMNS_AT_ONCE]
        histogram = LevelHistograms(part.shape[1], _CHUNK_BINS)
        histogram.add(part.astype(np.float32) if part.dtype == np.uint8 else part)
        histograms.append(histogram)
    if histograms:
        return fit_levels(histograms, quantizer).places
    places = np.full((columns, quantizer.intervals + 1), grid_steps(8, quantizer.samples), np.uint8)
    places[:, 0] = 0
    return places


def check_places(places: npt.NDArray[Any], quantizer: Quantizer, columns: int) -> Places:
    """Check a table that somebody gives; the error says what is wrong with it."""
    table = np.ascontiguousarray(places)
    top = grid_steps(table_bits_of(table), quantizer.samples)
    if table.shape != (columns, quantizer.intervals + 1):
        raise ValueError(
            f"levels must have the shape {(columns, quantizer.intervals + 1)}, got {table.shape}"
        )
    numbers = table.astype(np.int64)
    before, after = numbers[:, :-1], numbers[:, 1:]
    good = (numbers[:, 0] == 0) & (numbers[:, -1] == top)
    good &= ((after > before) | ((before == top) & (after == top))).all(axis=1)
    if not good.all():
        column = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"the levels of column {column} must ascend from 0 to {top} and may repeat the last"
        )
    return table


def code_entries(places: Places, samples: int) -> Places:
    """What each stored code is worth in steps of the grid, times the samples.

    A stored code of several samples is the sum of codes that are one or two neighbouring ones.
    Codes that no writer makes are worth the last one.

    >>> code_entries(np.array([[0, 3, 30, 127]], np.uint8), 2)
    array([[  0,   3,   6,  33,  60, 157, 254, 254]], dtype=uint8)
    """
    if samples == 1:
        return places
    after = np.concatenate([places[:, 1:], places[:, -1:]], axis=1)
    kind = places.dtype.type
    ups = [places * kind(samples - up) + after * kind(up) for up in range(samples)]
    return np.stack(ups, axis=2).reshape(len(places), -1)


def code_values(
    lower: npt.NDArray[np.floating[Any]],
    upper: npt.NDArray[np.floating[Any]],
    places: Places,
    samples: int,
    *,
    half: bool,
    steps: int | None = None,
) -> npt.NDArray[np.floating[Any]]:
    """Values of all stored codes, (columns, codes), in the arithmetic of docs/format.md.

    The grid has as many steps as the type of the places says, or `steps`.
    """
    dtype = upper.dtype.type
    huge, tiny, up = (1022, -510, 510) if upper.dtype.itemsize == 8 else (126, -60, 80)
    top = steps or grid_steps(table_bits_of(places), samples)
    low, high = lower[:, None], upper[:, None]
    largest = np.maximum(abs(low), abs(high))
    factor = np.where(largest > dtype(2.0**huge), dtype(0.25), dtype(1))
    factor = np.where(largest < dtype(2.0**tiny), dtype(2.0**up), factor)

    def rounded(x: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        return x.astype(np.float16).astype(x.dtype) if half else x

    with np.errstate(over="ignore"):  # only beyond the upper bound, which is taken instead
        lo, hi = low * factor, high * factor
        step = ((hi.astype(np.float64) - lo) / top).astype(dtype)
        scaled = lo + places.astype(dtype) * step
        scaled = np.minimum(rounded((scaled / factor) * factor), hi)
        scaled = np.where(places >= top, hi, np.where(places == 0, lo, scaled))
        level = np.where(places >= top, high, np.where(places == 0, low, scaled / factor))
        if samples == 1:
            return np.ascontiguousarray(level)
        after = np.concatenate([scaled[:, 1:], scaled[:, -1:]], axis=1)
        if samples == 2:
            ups = [rounded(((scaled + after) * dtype(0.5)) / factor)]
        else:
            parts = [dtype(up / samples) for up in range(1, samples)]
            ups = [rounded((scaled * (1 - p) + after * p) / factor) for p in parts]
    for mean in ups:
        mean[:, -1] = level[:, -1]
    return np.ascontiguousarray(np.stack([level, *ups], axis=2).reshape(len(level), -1))
