"""Levels that fit the data: those with the least variance of stochastic rounding.

`optimal_levels` is exact and takes all values at once; `LevelHistograms` takes the rows of a table
block by block, in bounded memory. Chunks take levels on a grid, which `tables.py` finds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ValueRefusedError
from .scales import FloatArray, working_dtype

__all__ = ["LevelHistograms", "optimal_levels"]

_Doubles = npt.NDArray[np.float64]
_Longs = npt.NDArray[np.int64]
_Ints = npt.NDArray[np.int32]
_Contents = tuple[_Ints, _Longs, _Longs, _Longs, _Doubles, _Doubles, _Longs]

_DIGITS: int = _native.LEVEL_DIGITS
_ROWS_AT_ONCE: int = _native.LEVEL_ROWS
_MOST_ROWS = 2 ** (63 - _DIGITS)
_LEAST_EXPONENT = -990  # of a bin's width: its units and their inverse are normal numbers
_EMPTY_EXPONENT = -(2**20)
_BUDGET_BYTES = 128_000_000
_BYTES_PER_BIN = 24
_LEAST_BINS, _MOST_BINS = 1024, 65_536


def optimal_levels(
    values: npt.ArrayLike, levels: int, weights: npt.ArrayLike | None = None
) -> _Doubles:
    """Find the levels that minimise the variance of stochastic rounding, exactly.

    They minimise ``sum(w * (right - v) * (v - left))``, where ``left <= v <= right`` are the levels
    next to a value ``v``: the total variance of ZipML (arXiv 1611.05402), section 3. The optimum is
    found among the values themselves (there is one that consists of values) by a dynamic programme
    whose best choices are monotone, as in QUIVER (NeurIPS 2024): O(levels * n * log n) for n
    distinct values, in O(n) memory and at most 64 MB of choices beside it.

    Parameters
    ----------
    values : array_like
        Finite numbers of any shape, in any order; they are taken as float64.
    levels : int
        How many levels, at least 2.
    weights : array_like, optional
        Finite and not negative, one for each value; 1 where not given. Values of weight 0 count
        for the smallest and the largest level only.

    Returns
    -------
    ndarray of float64, shape (levels,)
        Ascending; the first is the smallest value and the last the largest. With fewer distinct
        values than levels each of them is a level, the last one repeated, and the variance is 0.

    Notes
    -----
    Costs are computed in doubles, from compensated prefix sums that are counted from the weighted
    median. The variance of the result exceeds the optimum by no more than rounding: a small
    multiple of ``2**-52 * levels * sum(w * (v - median)**2)``.

    Examples
    --------
    >>> optimal_levels([0, 0, 1, 1, 1, 2, 9, 10], 4)
    array([ 0.,  2.,  9., 10.])
    """
    v = np.asarray(values, np.float64).ravel()
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    if not v.size:
        raise ValueError("values are empty: levels need at least one value")
    _refuse_entry("values", v, ~np.isfinite(v), "must be finite")
    if weights is None:
        points, counts = np.unique(v, return_counts=True)
        w = counts.astype(np.float64)
    else:
        given = np.asarray(weights, np.float64).ravel()
        if given.size != v.size:
            raise ValueError(f"one weight for each value is needed: {v.size}, got {given.size}")
        _refuse_entry(
            "weights", given, ~(np.isfinite(given) & (given >= 0)), "must be >= 0, finite"
        )
        points, where = np.unique(v, return_inverse=True)
        # A power of two away from overflow, however many are added.
        small = np.ldexp(given, -int(np.frexp(given.max())[1]))
        w = np.bincount(where.ravel(), small, points.size).astype(np.float64)
        counted = w > 0
        counted[[0, -1]] = True
        points, w = points[counted], w[counted]
    points = points + 0.0  # zeros of either sign are one level
    scaled = np.ldexp(points, -int(np.frexp(np.abs(points).max())[1]))
    chosen = np.empty(levels, np.int32)
    _native.solve_levels(scaled, w, chosen)
    return points[chosen]


def _refuse_entry(name: str, array: _Doubles, bad: npt.NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name}[{index}] is {array[index]}: {name} {rule}")


def default_bins(columns: int) -> int:
    """Bins of a column: a power of two for which all columns fit 128 MB, 1024 to 65536."""
    fit = _BUDGET_BYTES // (_BYTES_PER_BIN * max(columns, 1))
    return min(max(1 << (max(fit, 1).bit_length() - 1), _LEAST_BINS), _MOST_BINS)


class LevelHistograms:
    """Histograms of the columns of a table, that levels are found from in one streaming pass.

    Each bin holds the number of its values and the sum of their places in it, both as integers.
    What `levels` and `variance` give depends on the values alone, to the bit: not on how they were
    cut into blocks, nor on the order in which blocks were added or histograms merged.

    Parameters
    ----------
    columns : int
        Columns of the table.
    bins : int, optional
        Most bins of a column, 16 to 2**20. A column takes 24 bytes a bin. By default the power of
        two for which all columns fit 128 MB, 1024 to 65536. Histograms merge with equal bins only.

    Notes
    -----
    *Bins.* A column's bins are ``h = 2**e`` wide and start at multiples of ``h``; ``e`` is the
    smallest exponent with which the column's range needs at most `bins` of them, so that
    ``h < 2 * (max - min) / (bins - 2)``. When the range grows, neighbouring bins are joined. A bin
    is never narrower than ``2**-26`` of the column's largest magnitude (nor than ``2**-990``), and
    values of float64 count with their first 27 binary digits, cut off towards zero (float16 and
    float32 are exact). Minimum and maximum are kept as they are.

    *Points.* A bin stands for its values by their mean, which is exact. Only the two bins next to
    zero stand by their middle, for the values near zero have no smallest unit in which sums would
    be exact; values equal to zero are counted apart. Minimum and maximum are points of their own.

    *Error.* Let ``J(L)`` be the variance of levels ``L`` summed over the column's n values, ``L*``
    its optimum and ``L^`` the levels found here; ``D*`` and ``D^`` the largest distance between
    neighbouring levels of each; ``N*`` and ``N^`` the numbers of values that lie in a bin with a
    level inside, or next to zero. As a function of the value, the variance
    ``(right - v) * (v - left)`` is continuous with a slope of at most the distance of the levels.
    So moving each value to its point changes it by at most ``h * D``. Over a bin within one
    interval the sum changes by the scatter of its values about their mean alone,
    ``sum((v - mean)**2)``, which only adds, and at most ``h**2 / 4`` a value. ``L^`` is the optimum
    for the points, over any levels with these ends, hence::

        J(L^) <= J(L*) + n * h**2 / 4 + h * (N* * D* + N^ * D^)

    where ``h`` for float64 is the width of a bin plus ``2**-26`` of the largest magnitude.

    *Choosing bins.* The excess is small where many bins lie between neighbouring levels. Far
    outliers leave few bins to the bulk. For a million normal, lognormal (sigma 1 and 2) or bimodal
    values, as they are, rounded to ties, or with twenty outliers at a hundred times the standard
    deviation, and 4, 16 or 64 levels, it was at most 0.15 % with 65536 bins; with 4096 it was below
    0.05 % for normal values and 23 % for those outliers. With five outliers at 10,000 standard
    deviations it was 0.16 %, 17 % and a factor of 8 with 65536 bins, 1 % at most with 2**20.

    Examples
    --------
    >>> histograms = LevelHistograms(1)
    >>> for block in ([0, 0, 1, 1], [1, 2, 9, 10]):
    ...     histograms.add(np.array(block, np.float32)[:, None])
    >>> histograms.levels(4)
    array([[ 0.,  2.,  9., 10.]])
    """

    def __init__(self, columns: int, bins: int | None = None) -> None:
        if columns < 0:
            raise ValueError(f"columns must not be negative, got {columns}")
        bins = default_bins(columns) if bins is None else bins
        if not 16 <= bins <= 2**20:
            raise ValueError(f"bins must lie in 16..2**20, got {bins}")
        self.columns = columns
        self.bins = bins
        self.rows = 0
        self._low = np.full(columns, np.inf)
        self._high = np.full(columns, -np.inf)
        self._exponent = np.full(columns, _EMPTY_EXPONENT, np.int32)
        self._origin = np.zeros(columns, np.int64)
        self._zeros = np.zeros(columns, np.int64)
        self._counts = np.zeros((columns, bins), np.int64)
        self._sums = np.zeros((columns, bins), np.int64)
        self._packed = np.zeros((columns, bins), np.uint64)
        self._packed_rows = 0

    def add(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Count the values of some rows.

        Parameters
        ----------
        values : ndarray of float16, float32 or float64, shape (rows, columns)
            In any memory order. The values must be finite; otherwise none of them is counted.
        """
        matrix = np.asarray(values)
        if matrix.dtype.kind != "f" or matrix.dtype.itemsize > 8:
            raise TypeError(f"values must be float16, float32 or float64, got {matrix.dtype}")
        if matrix.ndim != 2 or matrix.shape[1] != self.columns:
            raise ValueError(
                f"rows of {self.columns} columns are needed, got values of shape {matrix.shape}"
            )
        matrix = matrix.astype(matrix.dtype.newbyteorder("="), copy=False)
        if not matrix.size:
            return
        self._check_rows(len(matrix))
        working = working_dtype(matrix.dtype)
        low: FloatArray = np.empty(self.columns, working)
        high: FloatArray = np.empty(self.columns, working)
        if not _native.column_bounds(matrix, low, high):
            row, column = (int(i) for i in np.argwhere(~np.isfinite(matrix))[0])
            raise ValueRefusedError(
                f"the value at row {row}, column {column} is {matrix[row, column]}: "
                "only finite values have levels; remove or replace it",
                row=row,
                column=column,
            )
        self._widen(low.astype(np.float64) + 0.0, high.astype(np.float64) + 0.0)
        scale = np.ldexp(1.0, _DIGITS - self._exponent)
        shift = np.ldexp(self._origin.astype(np.float64), _DIGITS)
        for start in range(0, len(matrix), _ROWS_AT_ONCE):
            part = matrix[start : start + _ROWS_AT_ONCE]
            if self._packed_rows + len(part) > _ROWS_AT_ONCE:
                self._unpack()
            _native.count_values(part, scale, shift, self._packed, self._zeros)
            self._packed_rows += len(part)
        self.rows += len(matrix)

    def merge(self, other: LevelHistograms) -> None:
        """Add what another histogram of such columns has counted."""
        if other.columns != self.columns or other.bins != self.bins:
            raise ValueError(
                f"histograms of {other.columns} columns and {other.bins} bins do not merge into "
                f"those of {self.columns} columns and {self.bins} bins"
            )
        if not other.rows:
            return
        self._check_rows(other.rows)
        other._unpack()
        self._widen(other._low, other._high)
        self._unpack()
        counts, sums = other._counts, other._sums
        if other is self:
            counts, sums = counts.copy(), sums.copy()
        _native.add_bins(
            self._exponent,
            self._origin,
            self._counts,
            self._sums,
            other._exponent,
            other._origin,
            counts,
            sums,
        )
        self._zeros += other._zeros
        self.rows += other.rows

    @property
    def bounds(self) -> tuple[_Doubles, _Doubles]:
        """Smallest and largest value of each column."""
        self._require_rows()
        return self._low.copy(), self._high.copy()

    def levels(self, count: int) -> _Doubles:
        """Find the levels of least variance among each column's points: (columns, count).

        They ascend from the smallest to the largest value; with fewer points than levels the last
        one is repeated.
        """
        if count < 2:
            raise ValueError(f"count must be at least 2, got {count}")
        out = np.empty((self.columns, count))
        _native.histogram_levels(*self.contents(), out)
        return out

    def variance(self, levels: npt.ArrayLike) -> _Doubles:
        """Mean variance of stochastic rounding to the given levels, for each column's points.

        It misses that of the values by at most the same terms as in the notes: too large by
        ``h**2 / 4``, too small by ``h`` times the distance of the levels for the share of values in
        bins with a level inside. So it means little where most values lie in such bins.

        Parameters
        ----------
        levels : array_like, shape (columns, count)
            Ascending, from the column's smallest value or below to its largest or above.
        """
        self._require_rows()
        given = np.ascontiguousarray(levels, np.float64)
        if given.ndim != 2 or len(given) != self.columns or given.shape[1] < 2:
            raise ValueError(
                f"levels must have the shape ({self.columns}, 2 or more), got {given.shape}"
            )
        good = (given[:, 0] <= self._low) & (given[:, -1] >= self._high)
        good &= (given[:, 1:] >= given[:, :-1]).all(axis=1)
        if not good.all():
            column = int(np.flatnonzero(~good)[0])
            raise ValueError(
                f"the levels of column {column} must ascend and span its values, "
                f"{self._low[column]} to {self._high[column]}"
            )
        out = np.empty(self.columns)
        _native.histogram_variance(*self.contents(), given, out)
        return out

    def __getstate__(self) -> dict[str, Any]:
        self._unpack()
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._packed = np.zeros((self.columns, self.bins), np.uint64)

    def contents(self) -> _Contents:
        """Everything that was counted, as the native core takes it."""
        self._require_rows()
        self._unpack()
        bins = self._exponent, self._origin, self._counts, self._sums
        return (*bins, self._low, self._high, self._zeros)

    def _require_rows(self) -> None:
        if not self.rows:
            raise ValueError("nothing has been counted yet: add rows first")

    def _check_rows(self, more: int) -> None:
        if self.rows + more > _MOST_ROWS:
            raise ValueError(f"at most {_MOST_ROWS} rows can be counted, not {self.rows + more}")

    def _unpack(self) -> None:
        if self._packed_rows:
            _native.unpack_counts(
                self._packed, self._exponent, self._origin, self._counts, self._sums
            )
            self._packed_rows = 0

    def _widen(self, low: _Doubles, high: _Doubles) -> None:
        """Make the bins hold these bounds too."""
        low, high = np.minimum(self._low, low), np.maximum(self._high, high)
        exponent = _bin_exponent(low, high, self.bins)
        first, last = _bin_index(low, exponent), _bin_index(high, exponent)
        changed = exponent != self._exponent
        changed |= (first < self._origin) | (last >= self._origin + self.bins)
        where = np.flatnonzero(changed)
        self._low, self._high = low, high
        if not where.size:
            return
        before = self._exponent[where], self._origin[where]
        # In the middle, so that the range can grow on either side.
        spare = (self.bins - 1 - (last - first)) // 2
        self._exponent[where] = exponent[where]
        self._origin[where] = (first - spare)[where]
        if not self.rows:
            return
        counts, sums, packed = self._counts[where], self._sums[where], self._packed[where]
        if self._packed_rows:
            _native.unpack_counts(packed, *before, counts, sums)
            self._packed[where] = 0
        moved_counts, moved_sums = np.zeros_like(counts), np.zeros_like(sums)
        _native.add_bins(
            self._exponent[where],
            self._origin[where],
            moved_counts,
            moved_sums,
            *before,
            counts,
            sums,
        )
        self._counts[where], self._sums[where] = moved_counts, moved_sums


def _kept(values: _Doubles) -> _Doubles:
    """Cut values off after the digits that bins know."""
    bits = values.view(np.uint64) & np.uint64(2**64 - 2 ** (53 - _DIGITS))
    return bits.view(np.float64)


def _bin_index(values: _Doubles, exponent: _Ints) -> _Longs:
    scaled = np.floor(np.ldexp(_kept(values), -exponent))
    # Where the quotient is too small for a number, its sign still tells the bin.
    return np.where((values < 0) & (scaled == 0), -1, scaled).astype(np.int64)


def _bin_exponent(low: _Doubles, high: _Doubles, bins: int) -> _Ints:
    """Smallest exponent of a bin's width with which `bins` bins hold low to high."""
    magnitude = np.maximum(np.abs(low), np.abs(high))
    half_range = high * 0.5 - low * 0.5  # the range itself may overflow
    digits = np.where(magnitude > 0, np.frexp(magnitude)[1] - _DIGITS, _LEAST_EXPONENT)
    # A range of 2**r or more needs bins of 2**r / bins or more.
    least = np.frexp(half_range)[1] - math.ceil(math.log2(bins)) - 1
    least = np.where(half_range > 0, least, _LEAST_EXPONENT)
    exponent: _Ints = np.maximum(np.maximum(least, digits), _LEAST_EXPONENT).astype(np.int32)
    while True:
        wide = _bin_index(high, exponent) - _bin_index(low, exponent) >= bins
        if not wide.any():
            return exponent
        exponent[wide] += 1
