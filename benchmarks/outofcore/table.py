"""The table that all sides train on, and how far a model is from the best one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

Array = npt.NDArray[Any]


def blocks(source: Path) -> Iterator[tuple[Array, Array]]:
    """The float32 rows as they lie, chunk by chunk."""
    group = zarr.open_group(source, mode="r")
    x, y = group["X"], group["y"]
    for start in range(0, x.shape[0], x.chunks[0]):
        stop = start + x.chunks[0]
        yield x[start:stop], y[start:stop]


@dataclass(frozen=True)
class Quadratic:
    """Half the mean squared residual of any linear model with intercept, from second moments.

    Exact enough here, as the columns are independent; and it takes no pass over the rows, so that
    a model can be judged whenever one wants to.
    """

    gram: Array
    moment: Array
    energy: float
    rows: int
    best: float

    @classmethod
    def of(cls, source: Path) -> Quadratic:
        """Add up the rows of a table."""
        gram: Any = 0.0
        moment: Any = 0.0
        energy, rows = 0.0, 0
        for features, target in blocks(source):
            design = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
            y = target.astype(np.float64)
            gram, moment = gram + design.T @ design, moment + design.T @ y
            energy, rows = energy + float(y @ y), rows + len(y)
        solution = np.linalg.solve(gram, moment)
        best = 0.5 * (energy - float(solution @ moment)) / rows
        return cls(gram, moment, energy, rows, best)

    def excess(self, coef: Array, intercept: float) -> float:
        """Loss of a model of the raw columns, as a part of the best one above it."""
        w = np.append(np.asarray(coef, np.float64).ravel(), intercept)
        loss = 0.5 * (self.energy - 2 * float(w @ self.moment) + float(w @ self.gram @ w))
        return loss / self.rows / self.best - 1
