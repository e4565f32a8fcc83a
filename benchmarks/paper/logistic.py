"""The logistic loss: polynomial gradients against double sampling and naive ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zipml_ooc import CompressOptions, TrainOptions, compress, train
from zipml_ooc.training.results import TrainingError

from ..tables import read_mnist
from .runs import median_excess
from .text import Claim, Findings

__all__ = ["STORED", "measure"]

STORED = (4, 5, 6, 8)
"""Stored bits of a value, for one, two, four and eight samples."""

_SAMPLES = {1: 0, 2: 1, 4: 2, 8: 3}
"""And the bits that they take beside those of one."""

_GRADIENTS = ("naive", "double", "chebyshev")
_WITHIN, _POINTS = 0.01, 0.5
_L2 = {"MNIST 4 9": 1e-2, "breast_cancer": 1e-2}


@dataclass(frozen=True)
class Labelled:
    """Rows to train on and rows to test on, and the best model's objective and accuracy."""

    name: str
    x: Any
    y: Any
    x_test: Any
    y_test: Any

    @property
    def l2(self) -> float:
        """Strength of the penalty: some tables are separable."""
        return _L2.get(self.name, 0.0)

    def reference(self) -> tuple[float, float]:
        """Objective and test accuracy of the optimum in full precision."""
        from sklearn.linear_model import LogisticRegression

        penalty = 1 / (len(self.x) * self.l2) if self.l2 else np.inf
        best = LogisticRegression(C=penalty, solver="newton-cholesky", tol=1e-9, max_iter=1000)
        best.fit(self.x, self.y)
        margin = best.decision_function(self.x)
        return self.objective(margin, best.coef_), best.score(self.x_test, self.y_test)

    def objective(self, margin: Any, coef: Any) -> float:
        """Mean loss of the rows at these margins, and the penalty."""
        loss = np.logaddexp(0, np.where(self.y > 0, -np.ravel(margin), np.ravel(margin)))
        return float(np.mean(loss) + 0.5 * self.l2 * np.sum(np.square(coef)))


def measure(data: Path | None, quick: bool) -> list[Findings]:
    """Every gradient on every copy of every table."""
    seeds, rows = (1, 4000) if quick else (3, 20_000)
    findings = Findings(
        "Logistic loss: loss over the optimum, less 1 [%], and test accuracy over its [points]",
        f"Equal spacing, float arithmetic, 30 epochs (small tables 100), medians of {seeds}\n"
        "seeds; of one sample, double is the corrected one; chebyshev needs four",
        {
            "table": "",
            "stored": "d",
            "samples": "d",
            "bits": "d",
            **dict.fromkeys(_GRADIENTS, ".3f"),
            **{f"{g} acc": "+.2f" for g in _GRADIENTS},
        },
    )
    for table in _tables(data, rows):
        least, accuracy = table.reference()
        for stored in STORED[1::2] if quick else STORED:
            for samples, more in _SAMPLES.items():
                found = _copy(table, stored - more, samples, seeds, quick=quick)
                excess = [100 * (median_excess(found[g][0]) / least - 1) for g in _GRADIENTS]
                points = [100 * (float(np.median(found[g][1])) - accuracy) for g in _GRADIENTS]
                findings.rows.append((table.name, stored, samples, stored - more, *excess, *points))
    findings.claims.extend(_claims(findings))
    return [findings]


def _copy(
    table: Labelled, bits: int, samples: int, seeds: int, *, quick: bool
) -> dict[str, tuple[list[float], list[float]]]:
    """Objectives and accuracies of all gradients, on copies of these bits and samples."""
    epochs = 10 if quick else 30 if len(table.x) > 10_000 else 100
    found: dict[str, tuple[list[float], list[float]]] = {g: ([], []) for g in _GRADIENTS}
    with TemporaryDirectory() as scratch:
        np.savez(Path(scratch) / "t.npz", X=table.x, y=table.y)
        for seed in range(seeds):
            options = CompressOptions(
                bits=bits, samples=samples, levels="uniform", seed=seed, task="classification"
            )
            dataset = compress(Path(scratch) / "t.npz", Path(scratch) / f"{seed}", options)
            for gradient, (objectives, accuracies) in found.items():
                sampling = "corrected" if samples == 1 and gradient == "double" else gradient
                if gradient == "chebyshev" and samples < 4:
                    objectives.append(math.nan)
                    accuracies.append(math.nan)
                    continue
                try:
                    model = train(
                        dataset,
                        TrainOptions(
                            sampling=sampling, epochs=epochs, l2=table.l2, arithmetic="float",
                            seed=seed,
                        ),
                        threads=1,
                    ).model  # fmt: skip
                except TrainingError:
                    objectives.append(math.nan)
                    accuracies.append(math.nan)
                    continue
                margin = model.decision_function(table.x)
                objectives.append(table.objective(margin, model.coef))
                right = np.ravel(model.predict(table.x_test)).astype(int) == table.y_test
                accuracies.append(float(right.mean()))
    return found


def _tables(data: Path | None, rows: int) -> Iterator[Labelled]:
    rng = np.random.default_rng(0)
    for signal in (1, 2):
        x = rng.standard_normal((rows + 10_000, 8))
        y = _labels(x @ (signal * rng.standard_normal(8)), rng)
        yield _parted(f"normal, signal {signal}", x, y, rows)
    # Eight skewed columns and two thirds of one class, as in cod-rna.
    x = rng.gamma(2.0, size=(rows + 10_000, 8)) @ (np.eye(8) + 0.3 * rng.standard_normal((8, 8)))
    margin = (x - x.mean(axis=0)) / x.std(axis=0) @ rng.standard_normal(8)
    yield _parted("skewed", x, _labels(1.5 * margin - 1.0, rng), rows)
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    yield _parted("breast_cancer", x[order], y[order], 400)
    if data is not None and (data / "mnist-t10k-images-idx3-ubyte.gz").exists():
        x, y = read_mnist(data)
        x, pair = x.astype(float), np.isin(y, (4, 9))
        yield _parted("MNIST 4 9", x[pair], (y[pair] == 9).astype(int), 1400)


def _labels(margin: Any, rng: np.random.Generator) -> Any:
    return (rng.random(len(margin)) < 1 / (1 + np.exp(-margin))).astype(int)


def _parted(name: str, x: Any, y: Any, rows: int) -> Labelled:
    """Columns standardised by the rows to train on."""
    spread = x[:rows].std(axis=0)
    scaled = (x - x[:rows].mean(axis=0)) / np.where(spread > 0, spread, 1)
    scaled = scaled.astype(np.float32).astype(np.float64)
    return Labelled(name, scaled[:rows], y[:rows], scaled[rows:], y[rows:])


def _claims(findings: Findings) -> list[Claim]:
    def number(row: dict[str, Any], name: str) -> float:
        value = float(row[name])
        return value if math.isfinite(value) else math.inf

    eight = findings.where(stored=8, samples=1)
    claims = [
        Claim(
            f"naive rounding to 8 bits ends within {_WITHIN:.0%} and {_POINTS} points",
            all(
                number(r, "naive") <= 100 * _WITHIN and float(r["naive acc"]) >= -_POINTS
                for r in eight
            ),
            ", ".join(f"{r['table']} {float(r['naive']):.3f} %" for r in eight),
        )
    ]
    many = [r for r in findings.where() if r["samples"] in (4, 8)]
    for other in ("naive", "double"):
        nearer = sum(number(r, "chebyshev") < number(r, other) for r in many)
        claims.append(
            Claim(
                f"chebyshev ends nearer to the optimum than {other} on the same copy",
                nearer == len(many),
                f"on {nearer} of {len(many)}",
            )
        )
    best = 0
    groups = {(r["table"], r["stored"]) for r in many}
    for table, stored in groups:
        rows = findings.where(table=table, stored=stored)
        polynomial = min(number(r, "chebyshev") for r in rows)
        best += polynomial < min(number(r, g) for r in rows for g in ("naive", "double"))
    claims.append(
        Claim(
            "chebyshev is the best use of so many stored bits",
            best == len(groups),
            f"on {best} of {len(groups)} tables and sizes",
        )
    )
    return claims
