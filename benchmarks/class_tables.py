"""Tables of two classes, and the halves of them that models are trained and scored on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .guard.suite import suite

__all__ = ["ClassTable", "class_tables", "cod_rna_like"]

F64 = npt.NDArray[np.float64]

_EVERY = 4  # this part of the rows is held out


@dataclass(frozen=True)
class ClassTable:
    """Standardised columns and classes 0 and 1, of training rows and of others.

    Columns have mean 0 and variance 1 over the training rows; those of one value are gone.
    """

    name: str
    x: F64
    y: npt.NDArray[np.int64]
    other_x: F64
    other_y: npt.NDArray[np.int64]

    @classmethod
    def of(cls, name: str, x: Any, y: Any) -> ClassTable:
        """Shuffle, hold out a quarter of the rows, standardise."""
        order = np.random.default_rng(0).permutation(len(x))
        held, kept = order[::_EVERY], np.delete(order, np.s_[::_EVERY])
        x, y = np.asarray(x, np.float64), np.asarray(y, np.int64)
        mean, std = x[kept].mean(axis=0), x[kept].std(axis=0)
        x = ((x - mean) / np.where(std > 0, std, 1))[:, std > 0]
        return cls(name, x[kept], y[kept], x[held], y[held])


def cod_rna_like(rows: int = 60_000) -> tuple[F64, npt.NDArray[np.int64]]:
    """Eight columns, a third of the rows in class 1, classes that overlap: as in cod-rna.

    Each class is normal with a covariance of its own; two columns are skewed as free energies and
    two as lengths and counts are.
    """
    rng = np.random.default_rng(11)
    mixing = np.eye(8) + 0.4 * rng.standard_normal((2, 8, 8))
    centre = np.zeros((2, 8))
    centre[1] = 0.8 * rng.choice([-1, 1], 8) * rng.uniform(0.5, 1.0, 8)
    y = (rng.random(rows) < 1 / 3).astype(np.int64)
    normal = rng.standard_normal((rows, 8))
    x = np.einsum("rj,rjk->rk", normal, mixing[y]) + centre[y]
    x[:, :2] = -np.exp(0.5 * x[:, :2])
    x[:, 2:4] = np.floor(np.exp(3 + 0.3 * x[:, 2:4]))
    return x, y


def class_tables(data: Path | None, *, quick: bool = False) -> list[ClassTable]:
    """All tables; those that need `data` only with it, and breast_cancer in their place."""
    makers: dict[str, Callable[[], tuple[Any, Any]]] = {}
    tables = suite(data)
    if data is not None:
        for a, b in ((0, 1), (3, 5), (4, 9)):
            makers[f"MNIST {a} and {b}"] = partial(_pair, *tables["mnist"](), a, b)
        makers["cadata, above its median"] = partial(_above, *tables["cadata"]())
    else:
        makers["breast_cancer"] = tables["breast_cancer"]
    makers["cod-rna-like"] = partial(cod_rna_like, 6000 if quick else 60_000)
    return [ClassTable.of(name, *maker()) for name, maker in makers.items()]


def _pair(x: Any, digit: Any, a: int, b: int) -> tuple[Any, Any]:
    rows = (digit == a) | (digit == b)
    return x[rows], digit[rows] == b


def _above(x: Any, y: Any) -> tuple[Any, Any]:
    return x, y > np.median(y)
