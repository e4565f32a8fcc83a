"""A table and its roundings: levels as `zipml compress` finds them, draws as many as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from zipml_codecs import Quantizer
from zipml_codecs.tables import grid_steps, table_bits_of

from zipml_ooc.level_fitting import LevelGatherer
from zipml_ooc.statistics import StatisticsAccumulator

__all__ = ["Draw", "Rounding", "Table"]

Array = np.ndarray[Any, np.dtype[np.float64]]
_BLOCK_ROWS = 1 << 15


class Table:
    """Standardised columns and target, and the least-squares optimum."""

    def __init__(self, x: Any, y: Any) -> None:
        x, y = np.asarray(x, float), np.asarray(y, float)
        mean, std = x.mean(axis=0), x.std(axis=0)
        varies = std > 1e-9 * np.abs(mean)
        self.x: Array = np.ascontiguousarray((x[:, varies] - mean[varies]) / std[varies])
        self.y: Array = (y - y.mean()) / y.std()
        self.rows, self.columns = self.x.shape
        self.gram: Array = self.x.T @ self.x / self.rows
        cross = self.x.T @ self.y / self.rows
        if self.columns < 500:
            self.optimum: Array = np.linalg.lstsq(self.x, self.y, rcond=None)[0]
        else:
            self.optimum = np.linalg.lstsq(self.gram, cross, rcond=1e-13)[0]
        self.least = 0.5 * float(np.mean((self.x @ self.optimum - self.y) ** 2))

    def excess(self, model: Array, mean: Array) -> float:
        """Loss of a model with an intercept for columns of this mean, over the least, less 1."""
        off = model - self.optimum
        return float(0.5 * off @ self.gram @ off + 0.5 * (model @ mean) ** 2) / self.least


@dataclass(frozen=True)
class Draw:
    """What one rounding leaves of a table: moments of the stored values about their mean.

    Attributes
    ----------
    table : Table
    mean, variance : (columns,)
        Variance: of the rounding of the stored value.
    gram : (columns, columns), cross : (columns,)
    split : (columns, columns) or None
        Moments of one sample with the other.
    values : (rows, columns)
    """

    table: Table
    mean: Array
    variance: Array
    gram: Array
    cross: Array
    split: Array | None
    values: Array

    def excess(self, model: Array) -> float:
        """Excess loss of a model on the original values."""
        return self.table.excess(model, self.mean)

    @cached_property
    def power(self) -> float:
        """Mean square of the target."""
        return float(np.mean(self.table.y**2))


class Rounding:
    """Levels for a table, and where its values lie between them."""

    def __init__(self, table: Table, bits: int, samples: int, levels: str) -> None:
        self._table, self._bits, self._samples = table, bits, samples
        low, high = table.x.min(axis=0), table.x.max(axis=0)
        if levels == "uniform":
            places, top = np.arange(2**bits)[None], 2**bits - 1
        else:
            quantizer = Quantizer(bits=bits, samples=samples, levels="optimal")
            gatherer = LevelGatherer(table.columns, quantizer, missing=False)
            gatherer.update(table.x)
            statistics = StatisticsAccumulator(table.columns)
            statistics.update(table.x)
            places = gatherer.fit(statistics.result()).places
            top = grid_steps(table_bits_of(places), samples)
        at = low[:, None] + (high - low)[:, None] * places / top
        base = np.empty(table.x.shape, np.int64)
        for j in range(table.columns):
            base[:, j] = np.searchsorted(at[j], table.x[:, j], side="right") - 1
        base = np.clip(base, 0, 2**bits - 2)
        self._left = np.take_along_axis(at.T, base, axis=0)
        self._gap = np.take_along_axis(at.T, base + 1, axis=0) - self._left
        inside = np.where(self._gap > 0, self._gap, 1.0)
        self._up = np.clip(np.where(self._gap > 0, (table.x - self._left) / inside, 0.0), 0, 1)
        self.variance: Array = np.mean(self._up * (1 - self._up) * self._gap**2, axis=0) / samples

    def draw(self, seed: int) -> Draw:
        """Round once."""
        table, shape = self._table, self._up.shape
        rng = np.random.Generator(np.random.SFC64([seed, self._bits, self._samples]))
        ups = [rng.random(shape, np.float32) < self._up for _ in range(self._samples)]
        values = self._left + self._gap * np.mean(ups, axis=0)
        mean = values.mean(axis=0)
        values -= mean
        gram, split = values.T @ values / table.rows, None
        if self._samples == 2:
            between = 0.5 * self._gap * (ups[0].astype(float) - ups[1])
            split = gram - between.T @ between / table.rows
        cross = values.T @ table.y / table.rows
        return Draw(table, mean, self.variance, gram, cross, split, values)
