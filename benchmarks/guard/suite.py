"""The tables: real ones, scikit-learn's, and made ones of every spectrum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..tables import read_csv, read_mnist

__all__ = ["LARGE", "NAMED", "QUICK", "suite"]

Pair = tuple[Any, Any]
# Tables of the acceptance numbers, apart from the further ones.
NAMED = ("cadata", "cpusmall")
# Too large for ten seeds and all bits.
LARGE = ("mnist", "cifar")
QUICK = ("cadata", "cpusmall", "diabetes", "wine", "condition 1e4", "heavy tails", "collinear")


def suite(data: Path | None) -> dict[str, Callable[[], Pair]]:
    """Makers of (columns, target), by name."""
    from sklearn import datasets

    tables: dict[str, Callable[[], Pair]] = {}
    if data is not None:
        tables["cadata"] = partial(read_csv, data / "cadata.csv.gz", "medianHouseValue")
        tables["cpusmall"] = partial(read_csv, data / "cpusmall.csv.gz", "usr")
    for name in ("diabetes", "breast_cancer", "wine", "digits", "iris"):
        tables[name] = partial(getattr(datasets, f"load_{name}"), return_X_y=True)
    tables["linnerud"] = linnerud
    tables["friedman1"] = partial(datasets.make_friedman1, 2000, noise=1.0, random_state=0)
    tables["friedman2"] = partial(datasets.make_friedman2, 2000, noise=100.0, random_state=0)
    tables["friedman3"] = partial(datasets.make_friedman3, 2000, noise=0.1, random_state=0)
    tables["polynomial"] = polynomial
    tables["autoregressive"] = autoregressive
    tables["factors"] = factors
    for power in (0, 2, 4, 6, 8):
        tables[f"condition 1e{power}"] = partial(made, 5000, 20, 10.0**power, 0.5)
    tables["weak signal 1e2"] = partial(made, 5000, 20, 1e2, 0.5, weak=True)
    tables["weak signal 1e4"] = partial(made, 20_000, 20, 1e4, 0.5, weak=True)
    tables["low noise 1e2"] = partial(made, 5000, 20, 1e2, 0.05)
    tables["low noise 1e4"] = partial(made, 5000, 20, 1e4, 0.05)
    tables["noisy 1e2"] = partial(made, 5000, 20, 1e2, 5.0)
    tables["heavy tails"] = partial(made, 10_000, 20, 1e2, 0.5, tail=3.0)
    tables["heavier tails"] = partial(made, 10_000, 10, 1e3, 0.5, tail=2.2)
    tables["collinear"] = partial(made, 3000, 10, 10.0, 0.5, twins=5, constants=2)
    tables["n = 2 d"] = partial(made, 80, 40, 100.0, 0.5)
    tables["n = 5 d"] = partial(made, 200, 40, 100.0, 0.5)
    tables["n = 20 d"] = partial(made, 1000, 50, 1e3, 0.5)
    tables["n = 1e4 d"] = partial(made, 80_000, 8, 1e3, 0.02)
    tables["n = 1e5 d"] = partial(made, 400_000, 4, 1e3, 0.5)
    if data is not None:
        tables["mnist"] = partial(mnist, data)
        tables["cifar"] = partial(cifar, data)
    return tables


def made(
    rows: int,
    columns: int,
    condition: float,
    noise: float,
    *,
    tail: float | None = None,
    weak: bool = False,
    twins: int = 0,
    constants: int = 0,
) -> Pair:
    """Columns whose second moments have this condition number.

    `tail`: degrees of freedom of a Student t distribution. `weak`: the weak directions matter for
    the target as much as the strong ones. `twins`: columns that repeat others but for 0.1 %.
    """
    rng = np.random.default_rng(0)
    shape = rows, columns
    drawn = rng.standard_normal(shape) if tail is None else rng.standard_t(tail, shape)
    basis = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    spread = np.sqrt(np.logspace(0, -np.log10(condition), columns))
    x = drawn * spread @ basis.T
    truth = rng.standard_normal(columns)
    if weak:
        truth = basis @ (rng.standard_normal(columns) / spread)
    signal = x @ truth
    y = signal / signal.std() + noise * rng.standard_normal(rows)
    if constants:
        x = np.column_stack([x, np.full((rows, constants), 3.0)])
    if twins:
        x = np.column_stack([x, x[:, :twins] + 1e-3 * rng.standard_normal((rows, twins))])
    return x, y


def polynomial() -> Pair:
    """Powers 1 to 8 of one variable."""
    rng = np.random.default_rng(3)
    at = rng.uniform(-1, 1, 2000)
    x = np.stack([at**k for k in range(1, 9)], axis=1)
    return x, np.sin(3 * at) + 0.3 * rng.standard_normal(len(at))


def autoregressive() -> Pair:
    """Each column 0.95 of the one before, and noise."""
    rng = np.random.default_rng(4)
    rows, columns = 5000, 40
    x = rng.standard_normal((rows, columns))
    for j in range(1, columns):
        x[:, j] = 0.95 * x[:, j - 1] + np.sqrt(1 - 0.95**2) * x[:, j]
    return x, x @ rng.standard_normal(columns) + 2 * rng.standard_normal(rows)


def factors() -> Pair:
    """Forty columns that five factors explain but for a tenth."""
    rng = np.random.default_rng(5)
    hidden = rng.standard_normal((5000, 5))
    x = hidden @ rng.standard_normal((5, 40)) + 0.1 * rng.standard_normal((5000, 40))
    return x, hidden @ rng.standard_normal(5) + 0.5 * rng.standard_normal(5000)


def linnerud() -> Pair:
    """Three exercises of twenty men, and their weight."""
    from sklearn.datasets import load_linnerud

    table = load_linnerud()
    return table.data, table.target[:, 0]


def mnist(data: Path) -> Pair:
    """Pixels of MNIST's test images, and the digit as a number."""
    images, digits = read_mnist(data)
    return images.astype(float), digits * 1.0


def cifar(data: Path) -> Pair:
    """Pixels of CIFAR-10 images at half the resolution, and the class as a number."""
    with np.load(data / "cifar10-subset.npz") as arrays:
        by_rank = sorted(arrays.values(), key=lambda a: (-a.ndim, -len(a)))
        images = by_rank[0]
        labels = next(a for a in by_rank if a.ndim == 1 and len(a) == len(images))
    small = images.reshape(len(images), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    return small.reshape(len(images), -1), labels.astype(float)
