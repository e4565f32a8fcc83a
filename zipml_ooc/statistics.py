"""Column statistics in one streaming pass.

Blocks are merged in order by the parallel-variance formula of Chan, Golub and LeVeque (1983), so
that the result depends on the rows alone as long as the blocks are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["ColumnStatistics", "StatisticsAccumulator"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of the finite values of each column: (columns,) arrays.

    `std` is the population standard deviation; `missing` counts NaN.
    """

    rows: int
    mean: F64
    std: F64
    minimum: F64
    maximum: F64
    missing: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "rows": self.rows,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "min": self.minimum.tolist(),
            "max": self.maximum.tolist(),
            "missing": self.missing.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from `to_dict`'s form."""
        return cls(
            rows=int(data["rows"]),
            mean=np.asarray(data["mean"], np.float64),
            std=np.asarray(data["std"], np.float64),
            minimum=np.asarray(data["min"], np.float64),
            maximum=np.asarray(data["max"], np.float64),
            missing=np.asarray(data["missing"], np.int64),
        )


_Summary = tuple[int, F64, F64, F64, F64, F64]
"""Of a block: rows, and of each column count, mean, squares, minimum and maximum."""


def _summary(block: F64) -> _Summary:
    missing = np.isnan(block)
    with np.errstate(over="ignore", invalid="ignore"):  # reported by `result`'s reader
        if missing.any():
            count = (len(block) - missing.sum(axis=0)).astype(np.float64)
            safe = np.where(missing, 0.0, block)
            mean = safe.sum(axis=0) / np.maximum(count, 1)
            squares = np.square(np.where(missing, 0.0, block - mean)).sum(axis=0)
            low = np.where(missing, np.inf, block).min(axis=0)
            high = np.where(missing, -np.inf, block).max(axis=0)
        else:
            count = np.full(block.shape[1], float(len(block)))
            mean = block.mean(axis=0)
            squares = np.square(block - mean).sum(axis=0)
            low, high = block.min(axis=0), block.max(axis=0)
    return len(block), count, mean, squares, low, high


class StatisticsAccumulator:
    """Collects `ColumnStatistics` block by block.

    Parameters
    ----------
    columns : int
    keep : bool
        Keep what is known of each block, so that another accumulator can `merge` it.
    """

    def __init__(self, columns: int, *, keep: bool = False) -> None:
        self._kept: list[_Summary] | None = [] if keep else None
        self._rows = 0
        self._count = np.zeros(columns)
        self._mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._min = np.full(columns, np.inf)
        self._max = np.full(columns, -np.inf)

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._rows

    def update(self, block: F64) -> None:
        """Add a (rows, columns) block; NaN are left out, infinities are not allowed."""
        if len(block):
            self._add(_summary(block))

    def merge(self, other: StatisticsAccumulator) -> None:
        """Add the blocks of another accumulator, one by one: the result is as if they were here."""
        assert other._kept is not None
        for summary in other._kept:
            self._add(summary)

    def _add(self, summary: _Summary) -> None:
        if self._kept is not None:
            self._kept.append(summary)
        rows, count, mean, squares, low, high = summary
        self._rows += rows
        with np.errstate(over="ignore", invalid="ignore"):  # reported by `result`'s reader
            total = self._count + count
            safe_total = np.maximum(total, 1)
            delta = mean - self._mean
            self._mean = self._mean + delta * (count / safe_total)
            self._squares = self._squares + squares + delta**2 * (self._count * count / safe_total)
        self._count = total
        self._min = np.minimum(self._min, low)
        self._max = np.maximum(self._max, high)

    def result(self) -> ColumnStatistics:
        """Return the statistics so far; of a column without finite values all are zero."""
        empty = self._count == 0
        with np.errstate(invalid="ignore"):
            std = np.sqrt(self._squares / np.maximum(self._count, 1))
        constant = self._min == self._max
        return ColumnStatistics(
            rows=self._rows,
            mean=np.where(empty, 0.0, np.clip(self._mean, self._min, self._max)),
            std=np.where(constant | empty, 0.0, std),
            minimum=np.where(empty, 0.0, self._min),
            maximum=np.where(empty, 0.0, self._max),
            missing=np.asarray(self._rows - self._count, np.int64),
        )
