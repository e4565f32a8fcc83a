"""What polynomials in place of the hinge loss's slope gain.

    python -m benchmarks.hinge_polynomial [--data FOLDER]

Excess of the (penalised) hinge loss on the original values over its least, which a general
minimiser finds on the same rows. `naive` and `chebyshev` train on the same copy of four or eight
samples; `oracle` is the best of runs that keep one polynomial, of a few degrees and ranges, which
no real choice could know. `refetch` reads a weaved copy, one sample of eight bits, at as few bits.
Normal columns first, equally spaced levels; then tables of classes with default levels, those that
are real from `--data` or the folder that ZIPML_TEST_DATA names. The tables are in
docs/estimators.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from zipml_ooc import CompressOptions, Dataset, TrainOptions, compress, train
from zipml_ooc.training import TrainingError, passes, problem
from zipml_ooc.training.polynomial import RANGES, Polynomial
from zipml_ooc.training.step_polynomial import fit_step

from .class_tables import class_tables
from .machine import about_machine, about_versions, versions
from .tables import add_data_option

ROWS, COLUMNS, EPOCHS, SEEDS = 50_000, 8, 20, 3
SIGNALS, BITS, SAMPLES = (0.5, 1.0, 2.0), (1, 2, 3), (4, 8)
TABLE_BITS, TABLE_EPOCHS, TABLE_L2 = (1, 2, 4), 100, 1e-2
DEGREES = {4: (3,), 8: (3, 5, 7)}
TRIED = tuple(RANGES[i] for i in (0, 2, 4, 5, 6, 7, 8, 10))

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Columns of variance one, signs of the classes, and the least objective."""

    x: F64
    sign: F64
    l2: float
    least: float

    @classmethod
    def of(cls, x: F64, sign: F64, l2: float) -> Table:
        """Standardise, and look for the least objective."""
        x = x / x.std(axis=0)
        found = cls(x, sign, l2, 0.0)
        return cls(x, sign, l2, found.objective(*found.best()))

    def objective(self, w: F64, intercept: float) -> float:
        """Mean hinge loss and penalty."""
        lost = np.maximum(0.0, 1.0 - self.sign * (self.x @ w + intercept))
        return float(lost.mean() + self.l2 / 2 * (w @ w))

    def best(self) -> tuple[F64, float]:
        """Minimise with the kink rounded off, less and less."""
        v, signed = np.zeros(self.x.shape[1] + 1), self.sign[:, None] * self.x
        for width in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003):

            def smooth(v: F64, width: float = width) -> tuple[float, F64]:
                gap = 1.0 - signed @ v[:-1] - self.sign * v[-1]
                part = np.clip(gap / width + 0.5, 0.0, 1.0)
                value = np.where(gap > width / 2, gap, width / 2 * part**2).mean()
                slope = -np.append(part @ signed, part @ self.sign) / len(gap)
                shrunk = self.l2 * np.append(v[:-1], 0.0)
                return float(value + 0.5 * shrunk @ v), slope + shrunk

            limits = {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-7}
            v = minimize(smooth, v, jac=True, method="L-BFGS-B", options=limits).x
        return v[:-1], float(v[-1])

    def excess(self, dataset: Dataset, epochs: int, **options: Any) -> tuple[float, Any, float]:
        """Train, and say how far from the least objective that ends [%].

        With the record, and how far from that on the original values the loss is that is shown [%].
        """
        asked = TrainOptions(loss="hinge", epochs=epochs, l2=self.l2, **options)
        try:
            result = train(dataset, asked, threads=1)
        except TrainingError:
            return float("inf"), None, float("inf")
        model = result.model
        margin = np.ravel(model.decision_function(self.x))
        coef = np.ravel(model.coef)
        lost = float(np.maximum(0.0, 1.0 - self.sign * margin).mean())
        found = lost + self.l2 / 2 * float(coef @ coef)
        return 100 * (found / self.least - 1), model.record, 100 * (result.loss / lost - 1)


@contextmanager
def kept(found: Polynomial) -> Iterator[None]:
    """Let runs take this polynomial from beginning to end."""
    first = mock.patch.object(problem, "_first_polynomial", lambda *_: found)
    with first, mock.patch.object(passes, "polynomial_at", lambda *_: found):
        yield


def normal_table(signal: float, seed: int) -> Table:
    """Normal columns, and classes of a logistic model whose margins have that deviation."""
    rng = np.random.default_rng([seed, 1])
    x = rng.standard_normal((ROWS, COLUMNS))
    w = rng.standard_normal(COLUMNS)
    margin = x @ w * (signal / np.linalg.norm(w))
    sign = np.where(rng.random(ROWS) < 1 / (1 + np.exp(-margin)), 1.0, -1.0)
    return Table.of(x, sign, 0.0)


def copies(
    table: Table, folder: Path, bits: tuple[int, ...], seed: int, **levels: str
) -> tuple[dict[tuple[int, int], Dataset], Dataset]:
    """Packed copies by bits and samples, and a weaved one."""
    source = folder / "t.npz"
    np.savez(source, X=table.x, y=(table.sign > 0).astype(np.int64))
    packed = {}
    for b in bits:
        for k in SAMPLES:
            options = CompressOptions(bits=b, samples=k, seed=seed, task="classification", **levels)
            packed[b, k] = compress(source, folder / f"{b}-{k}", options)
    options = CompressOptions(
        bits=8, samples=1, seed=seed, task="classification", layout="weaved",
        precisions=(*bits, 8),
    )  # fmt: skip
    return packed, compress(source, folder / "weaved", options)


def oracle(table: Table, dataset: Dataset, samples: int, epochs: int) -> tuple[float, str]:
    """The best of the polynomials that are tried, and which."""
    found = []
    for degree in DEGREES[samples]:
        for margin_range in TRIED:
            with kept(fit_step(degree, margin_range)):
                excess, *_ = table.excess(dataset, epochs, sampling="chebyshev")
            found.append((excess, f"{degree}, {margin_range:.3g}"))
    return min(found)


def shown(excess: float) -> str:
    """Two digits, without an exponent where it is large."""
    return "stopped" if excess == float("inf") else f"{float(f'{excess:.2g}'):g} %"


def middle(runs: list[tuple[Any, ...]], at: int) -> str:
    """Median of a column of numbers; the most frequent text."""
    column = [run[at] for run in runs]
    if isinstance(column[0], str):
        return statistics.mode(column)
    return shown(statistics.median(column))


def one(table: Table, packed: Dataset, weaved: Dataset, bits: int, epochs: int) -> tuple[Any, ...]:
    """What real runs give: naive, refetch, chebyshev with its polynomial, and the loss it shows."""
    naive, *_ = table.excess(packed, epochs, sampling="naive")
    own, record, off = table.excess(packed, epochs, sampling="chebyshev")
    again, *_ = table.excess(weaved, epochs, sampling="refetch", bits=bits)
    chosen = "stopped"
    if record is not None:
        found = record["polynomial"]
        chosen = f"{found['degree']}, {found['range']:.3g}"
    return naive, again, own, chosen, off


def lines(cells: dict[tuple[int, int], list[tuple[Any, ...]]], name: str) -> None:
    """Print the rows of a table."""
    for (bits, samples), runs in cells.items():
        line = " | ".join(middle(runs, i) for i in range(len(runs[0])))
        print(f"| {name} | {bits} | {samples} | {line} |", flush=True)


_HEAD = "| Bits | Samples | `naive` | `refetch` | `chebyshev` | Degree, range | Loss shown |"


def normal_tables() -> None:
    """Print the table of normal columns."""
    print(f"{ROWS:,} x {COLUMNS} normal columns, {EPOCHS} epochs, medians of {SEEDS} tables\n")
    print(f"| Signal {_HEAD} `oracle` | Degree, range |\n|{'---|' * 10}")
    for signal in SIGNALS:
        cells: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
        for seed in range(SEEDS):
            table = normal_table(signal, seed)
            with TemporaryDirectory() as folder:
                packed, weaved = copies(table, Path(folder), BITS, seed, levels="uniform")
                for (bits, samples), dataset in packed.items():
                    run = one(table, dataset, weaved, bits, EPOCHS)
                    run += oracle(table, dataset, samples, EPOCHS)
                    cells.setdefault((bits, samples), []).append(run)
        lines(cells, f"{signal:g}")


def other_tables(data: Path | None) -> None:
    """Print the table of the tables of classes."""
    print(f"\n`--l2 {TABLE_L2:g}`, {TABLE_EPOCHS} epochs, medians of {SEEDS} roundings\n")
    print(f"| Table {_HEAD}\n|{'---|' * 8}")
    for classes in class_tables(data):
        table = Table.of(classes.x, np.where(classes.y > 0, 1.0, -1.0), TABLE_L2)
        cells: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
        for seed in range(SEEDS):
            with TemporaryDirectory() as folder:
                packed, weaved = copies(table, Path(folder), TABLE_BITS, seed)
                for (bits, samples), dataset in packed.items():
                    run = one(table, dataset, weaved, bits, TABLE_EPOCHS)
                    cells.setdefault((bits, samples), []).append(run)
        lines(cells, f"{classes.name}, {len(table.x):,} x {table.x.shape[1]}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hinge_polynomial", description=__doc__
    )
    add_data_option(parser)
    data = parser.parse_args().data
    print(f"{about_machine()}, one thread\n{about_versions(versions(['scipy']))}\n")
    with threadpool_limits(1):
        normal_tables()
        other_tables(data)


if __name__ == "__main__":
    main()
