"""Accuracy beside LIBLINEAR on rows held out: `python -m benchmarks.accuracy [--data FOLDER]`.

The logistic and the hinge loss of two classes, with defaults but for the loss and the penalty,
which is that of LIBLINEAR with C = 1. Real tables are read from `--data` or the folder that
ZIPML_TEST_DATA names; without it breast_cancer takes their place. The table is in
docs/estimators.md.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from zipml_ooc import CompressOptions, TrainOptions, compress, train

from .class_tables import ClassTable, class_tables
from .machine import about_versions, versions
from .tables import add_data_option

__all__ = ["ALLOWED", "accuracies", "liblinear"]

ALLOWED = {8: 0.5, 4: 1.5}
"""Points of accuracy that may be missing, by bits."""

_SEEDS = 5


def liblinear(table: ClassTable, loss: str) -> float:
    """Accuracy of LIBLINEAR on the rows held out [%]."""
    makers: dict[str, Any] = {
        "logistic": lambda: LogisticRegression(solver="liblinear"),
        "hinge": lambda: LinearSVC(loss="hinge", max_iter=100_000),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: its last digits do not matter here
        fitted = makers[loss]().fit(table.x, table.y)
    return 100 * float(fitted.score(table.other_x, table.other_y))


def accuracies(
    table: ClassTable, bits: int, losses: tuple[str, ...], seeds: int
) -> dict[str, list[float]]:
    """Accuracies of models from compressed rows on the same rows [%], for each loss."""
    found: dict[str, list[float]] = {loss: [] for loss in losses}
    with TemporaryDirectory() as folder:
        np.savez(Path(folder) / "t.npz", X=table.x, y=table.y)
        for seed in range(seeds):
            options = CompressOptions(bits=bits, seed=seed, task="classification")
            dataset = compress(Path(folder) / "t.npz", Path(folder) / str(seed), options)
            for loss in losses:
                asked = TrainOptions(loss=loss, l2=1 / len(table.x), seed=seed)
                model = train(dataset, asked).model
                right = np.ravel(model.predict(table.other_x)).astype(np.int64) == table.other_y
                found[loss].append(100 * float(right.mean()))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    add_data_option(parser)
    data = parser.parse_args().data
    print(about_versions(versions(["scikit-learn"])) + "\n")
    losses, widths = ("logistic", "hinge"), (8, 4, 2)
    print("| Table | Loss | LIBLINEAR | " + " | ".join(f"{b} bits" for b in widths) + " |")
    print("|---|---|---|" + "---|" * len(widths))
    missing: dict[int, float] = dict.fromkeys(ALLOWED, 0.0)
    with threadpool_limits(1):
        for table in class_tables(data):
            found = {bits: accuracies(table, bits, losses, _SEEDS) for bits in widths}
            for loss in losses:
                peer = liblinear(table, loss)
                cells = []
                for bits in widths:
                    own = found[bits][loss]
                    middle = statistics.median(own)
                    cells.append(f"{middle:.2f} ({min(own):.2f} to {max(own):.2f})")
                    if bits in missing:
                        missing[bits] = max(missing[bits], peer - middle)
                line = " | ".join((table.name, loss, f"{peer:.2f}", *cells))
                print(f"| {line} |", flush=True)
    for bits, most in missing.items():
        word = "HOLDS" if most <= ALLOWED[bits] else "DOES NOT HOLD"
        print(f"\n{word}: at {bits} bits at most {ALLOWED[bits]} points are missing ({most:.2f})")


if __name__ == "__main__":
    main()
