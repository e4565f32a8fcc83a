"""Tables that benchmarks read, and the loss of least squares that they are compared with."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["least_squares_loss", "read_csv"]

Array = npt.NDArray[Any]


def read_csv(path: Path, target: str | None = None) -> tuple[Array, Array]:
    """Columns and target (the last column if it is not named) of a CSV file of numbers."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        names = next(csv.reader(file))
        table = np.loadtxt(file, delimiter=",")
    at = len(names) - 1 if target is None else names.index(target)
    return np.delete(table, at, axis=1), table[:, at]


def least_squares_loss(x: Array, y: Array) -> float:
    """Half the mean squared residual of the best linear model with intercept, in float64."""
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    std = centred.std(axis=0)
    design = np.column_stack([centred / np.where(std > 0, std, 1), np.ones(len(x))])
    coefficients = np.linalg.lstsq(design, y.astype(np.float64), rcond=None)[0]
    return 0.5 * float(np.mean((design @ coefficients - y) ** 2))
