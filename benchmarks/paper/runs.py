"""The tables of the reproduction, their compressed copies, and how far a run ends from the best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zipml_ooc import CompressOptions, Dataset, TrainOptions, TrainResult, compress, train
from zipml_ooc.training.results import TrainingError

from ..guard.rounding import Table
from ..guard.suite import NAMED, suite

__all__ = ["STAND_INS", "Source", "made_sources", "median_excess", "real_sources"]

STAND_INS = ("diabetes", "breast_cancer")
"""Tables that scikit-learn brings along, for those of the paper where these are not at hand."""


class Source:
    """A standardised table on disk and its compressed copies, each made once.

    Parameters
    ----------
    name : str
    x, y : array_like
    folder : Path
        Where everything is put.
    """

    def __init__(self, name: str, x: Any, y: Any, folder: Path) -> None:
        self.name = name
        self.table = Table(x, y)
        self._folder = folder / name.replace(" ", "")
        self._folder.mkdir()
        self._path = self._folder / "table.npz"
        np.savez(self._path, X=self.table.x, y=self.table.y)
        self._copies: dict[tuple[Any, ...], Dataset] = {}

    def copy(self, bits: int, samples: int = 1, levels: str = "auto", seed: int = 0) -> Dataset:
        """Return the copy at this precision."""
        key = bits, samples, levels, seed
        if key not in self._copies:
            options = CompressOptions(
                bits=bits, samples=samples, levels=levels, seed=seed, task="regression"
            )
            dest = self._folder / "-".join(map(str, key))
            self._copies[key] = compress(self._path, dest, options)
        return self._copies[key]

    def weaved(self, seed: int = 0) -> Dataset:
        """Return the copy that is read at any precision up to 8 bits."""
        key = "weaved", seed
        if key not in self._copies:
            options = CompressOptions(
                bits=8, samples=1, layout="weaved", seed=seed, task="regression"
            )
            dest = self._folder / f"weaved-{seed}"
            self._copies[key] = compress(self._path, dest, options)
        return self._copies[key]

    def excess(self, dataset: Dataset, options: TrainOptions) -> float:
        """Loss over the least one on the original values, less 1; NaN where the run was stopped."""
        try:
            return self.excess_of(train(dataset, options, threads=1))
        except TrainingError:
            return math.nan

    def excess_of(self, result: TrainResult) -> float:
        """The same of a run that has been made."""
        residual = np.ravel(result.model.predict(self.table.x)) - self.table.y
        return 0.5 * float(np.mean(residual**2)) / self.table.least - 1


def median_excess(values: Sequence[float]) -> float:
    """Median over seeds, in which a run that was stopped is worse than any other."""
    middle = statistics.median(math.inf if math.isnan(v) else v for v in values)
    return math.nan if math.isinf(middle) else middle


@contextmanager
def real_sources(data: Path | None, *more: str) -> Iterator[list[Source]]:
    """Tables of the paper, or such as are always at hand; and `more` of those."""
    tables = suite(data)
    names = (*(NAMED if data is not None else STAND_INS), *more)
    with TemporaryDirectory() as scratch:
        yield [Source(name, *tables[name](), Path(scratch)) for name in names]


@contextmanager
def made_sources(columns: Sequence[int], rows: int = 10_000) -> Iterator[list[Source]]:
    """Independent normal columns and a noisy linear target."""
    rng = np.random.default_rng(0)
    normal = partial(rng.standard_normal, dtype=np.float32)
    with TemporaryDirectory() as scratch:
        found = []
        for width in columns:
            x = normal((rows, width))
            y = x @ normal(width) / np.sqrt(width) + 0.3 * normal(rows)
            found.append(Source(f"synthetic {width}", x, y, Path(scratch)))
        yield found
