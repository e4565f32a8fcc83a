"""Whether a polynomial in place of the hinge loss's slope would pay: a study in NumPy.

The slope of the hinge loss jumps at the margin 1, by one, and no polynomial comes nearer to it
there than a half. Rows are rounded to few bits, k samples each; a sample takes the Chebyshev series
of the slope at the margins of the k - 1 others (which is unbiased for the series), or where their
mean lies outside of the range the slope itself there. Degree k - 1; the range is the one of a grid
that ends with the lowest objective on the original rows, which no real choice could know. Naive
steps along the slope at the mean of all samples. Averaged SGD, the same steps for all.

    python -m benchmarks.hinge_polynomial
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

Array = npt.NDArray[Any]

ROWS, COLUMNS, BATCH, EPOCHS = 50_000, 8, 250, 12
RANGES = (1.0, 2.0, 4.0, 8.0, 16.0)
SEEDS = 3
BOUND = 8.0  # what lies beyond says nothing: the slope itself


def table(signal: float, seed: int) -> tuple[Array, Array]:
    """Normal columns, and classes of a logistic model whose margins have that deviation; signs."""
    rng = np.random.default_rng([seed, 1])
    x = rng.standard_normal((ROWS, COLUMNS))
    w = rng.standard_normal(COLUMNS)
    margin = x @ w * (signal / np.linalg.norm(w))
    sign = np.where(rng.random(ROWS) < 1 / (1 + np.exp(-margin)), 1.0, -1.0)
    return np.column_stack([x, np.ones(ROWS)]), sign


def rounded(x: Array, bits: int, samples: int, seed: int) -> Array:
    """Samples of equally spaced levels between the bounds of each column: (samples, rows, d)."""
    rng = np.random.default_rng([seed, 2])
    low, span = x.min(axis=0), np.ptp(x, axis=0)
    step = np.where(span > 0, span, 1) / (2**bits - 1)
    place = (x - low) / step
    base = np.floor(place)
    up = rng.random((samples, *x.shape)) < place - base
    return low + step * (base + up)


def objective(x: Array, sign: Array, w: Array) -> float:
    """Mean hinge loss."""
    return float(np.maximum(0.0, 1.0 - sign * (x @ w)).mean())


def descend(gradient: Callable[[Array, Array], Array], seed: int, *, epochs: int = EPOCHS) -> Array:
    """Averaged SGD over the second half; `gradient` takes a model and rows."""
    rng = np.random.default_rng([seed, 3])
    w, mean, count = np.zeros(COLUMNS + 1), np.zeros(COLUMNS + 1), 0
    whole = epochs * (ROWS // BATCH)
    for epoch in range(epochs):
        for number, rows in enumerate(rng.permutation(ROWS).reshape(-1, BATCH)):
            done = (epoch * (ROWS // BATCH) + number) / whole
            w = w - 0.3 * min(1.0, 2.1 - 2 * done) * gradient(w, rows)
            if done >= 0.5:
                count += 1
                mean += (w - mean) / count
    return mean


def plain(values: Array, sign: Array) -> Callable[[Array, Array], Array]:
    """The slope at the margins of the rows as they are given."""

    def gradient(w: Array, rows: Array) -> Array:
        x, s = values[rows], sign[rows]
        return -((s * (x @ w) < 1) * s) @ x / len(rows)

    return gradient


def polynomial(samples: Array, sign: Array, margin_range: float) -> Callable[[Array, Array], Array]:
    """The series at the other samples' margins, for each sample in turn."""
    k = len(samples)
    angle = (np.arange(4096) + 0.5) * (math.pi / 4096)
    terms = np.cos(np.arange(k)[:, None] * angle) @ np.where(np.cos(angle) < 0, -1.0, 0.0)
    terms *= 2.0 / 4096
    terms[0] /= 2
    powers = chebyshev.cheb2poly(terms)
    weights = [c / math.comb(k - 1, j) for j, c in enumerate(powers)]

    def gradient(w: Array, rows: Array) -> Array:
        x, s = samples[:, rows], sign[rows]
        u = s * (x @ w)
        t = (u - 1) / margin_range
        symmetric = np.zeros((k + 1, len(rows)))
        symmetric[0] = 1
        for i in range(k):
            symmetric[1:] += t[i] * symmetric[:-1].copy()
        out = np.zeros_like(w)
        for i in range(k):
            others, value = np.ones(len(rows)), np.full(len(rows), weights[0])
            for j in range(1, k):
                others = symmetric[j] - t[i] * others
                value = value + weights[j] * others
            rest = (u.sum(axis=0) - u[i]) / (k - 1)
            inside = (np.abs(rest - 1) < margin_range) & (np.abs(value) < BOUND)
            out += (np.where(inside, value, np.where(rest < 1, -1.0, 0.0)) * s) @ x[i]
        return out / (k * len(rows))

    return gradient


def excesses(signal: float, bits: int, k: int, seed: int) -> tuple[float, float, float]:
    """Objective above the best one: naive, the polynomial's best range, and that range."""
    x, sign = table(signal, seed)
    best = objective(x, sign, descend(plain(x, sign), seed, epochs=2 * EPOCHS))
    samples = rounded(x, bits, k, seed)
    naive = objective(x, sign, descend(plain(samples.mean(axis=0), sign), seed)) / best - 1
    found = [
        (objective(x, sign, descend(polynomial(samples, sign, r), seed)) / best - 1, r)
        for r in RANGES
    ]
    return naive, *min(found)


def main() -> None:
    """Print the table."""
    print(f"{ROWS:,} x {COLUMNS} normal columns, medians of {SEEDS} tables; excess hinge loss")
    print(f"{'signal':>7}{'bits':>6}{'k':>4}{'naive':>10}{'polynomial':>12}{'range':>8}")
    for signal in (0.5, 1.0, 2.0):
        for bits in (1, 2, 3, 4):
            for k in (4, 8):
                runs = [excesses(signal, bits, k, seed) for seed in range(SEEDS)]
                naive, poly, reach = (float(np.median(part)) for part in zip(*runs, strict=True))
                print(f"{signal:>7}{bits:>6}{k:>4}{naive:>10.2%}{poly:>12.2%}{reach:>8g}")


if __name__ == "__main__":
    main()
