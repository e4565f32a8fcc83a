"""Would fresh samples in every epoch pay? `python -m benchmarks.fresh_samples [--data FOLDER]`.

A run that meets another sample of every value in each epoch ends where the mean of their corrected
losses is least. That is solved for here in closed form: for one sample, for the mean of two, for
two that take turns and for eight, on the equally spaced levels of the weaved layout. The table is
in docs/weaved.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from .guard.rounding import Table
from .guard.suite import NAMED, suite
from .tables import add_data_option

__all__ = ["excess", "solution"]

F64 = npt.NDArray[np.float64]

_SEEDS, _DRAWS = 9, 8
_WAYS = {
    "one": (1, False),
    "mean of two": (2, True),
    "two in turn": (2, False),
    "eight": (8, False),
}


def samples(x: F64, bits: int, seed: int) -> tuple[list[F64], F64]:
    """Independent roundings of standardised columns, and the variance of one in each column."""
    rng = np.random.default_rng([bits, seed])
    lower = x.min(axis=0)
    step = (x.max(axis=0) - lower) / 2.0**bits
    place = (x - lower) / np.where(step > 0, step, 1)
    base = np.minimum(np.floor(place), 2.0**bits - 1)
    up = place - base
    drawn = [lower + (base + (rng.random(x.shape) < up)) * step for _ in range(_DRAWS)]
    return drawn, (up * (1 - up)).mean(axis=0) * step**2


def solution(values: Sequence[F64], y: F64, variance: F64) -> F64:
    """Least mean of the corrected losses; the correction leaves a margin of two spreads."""
    moments = np.mean([q.T @ q for q in values], axis=0) / len(y)
    aimed = np.mean([q.T @ y for q in values], axis=0) / len(y)
    scale = np.sqrt(np.where(variance > 0, variance, 1))
    weakest = np.linalg.eigvalsh(moments / np.outer(scale, scale))[0]
    part = min(1.0, max(0.0, weakest - 2 * np.sqrt(len(variance) / len(y))))
    return np.asarray(np.linalg.solve(moments - part * np.diag(variance), aimed))


def excess(table: Table, bits: int) -> list[float]:
    """Loss on the original values over the least one, less 1 [%], for each way; medians."""
    found: list[list[float]] = [[] for _ in _WAYS]
    centred = table.y - table.y.mean()
    for seed in range(_SEEDS):
        drawn, variance = samples(table.x, bits, seed)
        for cells, (count, together) in zip(found, _WAYS.values(), strict=True):
            values = [np.mean(drawn[:count], axis=0)] if together else drawn[:count]
            w = solution(values, centred, variance / count if together else variance)
            loss = 0.5 * float(np.mean((table.x @ w - centred) ** 2))
            cells.append(100 * (loss / table.least - 1))
    return [statistics.median(cells) for cells in found]


def made() -> Table:
    """Independent normal columns and a noisy linear target."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 100))
    return Table(x, x @ rng.standard_normal(100) / 10 + 0.3 * rng.standard_normal(20_000))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh_samples")
    add_data_option(parser)
    data = parser.parse_args().data
    makers = suite(data)
    names = NAMED if data is not None else ("diabetes", "breast_cancer")
    tables = {name: Table(*makers[name]()) for name in names} | {"synthetic, 20,000 x 100": made()}
    print("| Table | Bits | " + " | ".join(_WAYS) + " |\n|---|---|" + "---|" * len(_WAYS))
    with threadpool_limits(1):
        for name, table in tables.items():
            for bits in (1, 2, 3, 4, 5, 8):
                cells = " | ".join(f"{value:.3g} %" for value in excess(table, bits))
                print(f"| {name} | {bits} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
