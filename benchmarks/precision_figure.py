"""Draw docs/figures/excess_loss.svg: what bits cost, by gradient estimator, on two tables.

One table suits the correction (many rows, independent columns), the other one does not (442 rows,
ten collinear columns). Losses are those of the original rows in float64, so that neither rounding
nor its removal enters the score. Needs matplotlib and scikit-learn; takes some minutes.

    python -m benchmarks.precision_figure [--seeds 5] [--out docs/figures/excess_loss.svg]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

from zipml_ooc import CompressOptions, TrainOptions, compress, evaluate, synth, train

from .tables import least_squares_loss

OUT = Path(__file__).parents[1] / "docs" / "figures" / "excess_loss.svg"
STORED_BITS = (2, 3, 4, 5, 6, 7, 8)
COLOURS = {"naive": "#c44e52", "corrected": "#4c72b0", "double": "#55a868"}


@dataclass(frozen=True)
class Table:
    """A table on disk, how long to train on it, and the smallest loss of a linear model."""

    title: str
    path: Path
    epochs: int | None
    best: float


def main() -> None:
    """Measure, print every number, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        panels = [(table.title, measure(table, arguments.seeds)) for table in tables(Path(folder))]
    draw(panels, arguments.out)
    print(f"wrote {arguments.out}")


def tables(folder: Path) -> Iterator[Table]:
    """Make the two tables."""
    made = folder / "synth.npz"
    synth(made, rows=20_000, columns=100)
    with np.load(made) as arrays:
        best = least_squares_loss(arrays["X"], arrays["y"])
    yield Table("20,000 x 100, independent columns", made, None, best)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    np.savez(folder / "diabetes.npz", X=x, y=y)
    # So few rows need more epochs than the 200 that a run takes by itself.
    best = least_squares_loss(x, y)
    yield Table("diabetes, 442 x 10, collinear", folder / "diabetes.npz", 1000, best)


def measure(table: Table, seeds: int) -> dict[str, dict[int, list[float]]]:
    """Excess loss relative to the best, by estimator and stored bits, one for each seed."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in COLOURS}
    for stored in STORED_BITS:
        for samples, estimators in ((1, ("naive", "corrected")), (2, ("double",))):
            for seed in range(seeds):
                dest = table.path.with_name("table.zarr")
                options = CompressOptions(
                    levels="uniform",
                    bits=stored - samples + 1,
                    samples=samples,
                    seed=seed,
                    task="regression",
                )
                dataset = compress(table.path, dest, options, force=True)
                for name in estimators:
                    run = TrainOptions(sampling=name, epochs=table.epochs, seed=seed)
                    model = train(dataset, run, threads=1).model
                    excess = evaluate(model, table.path)["loss"] / table.best - 1
                    found[name].setdefault(stored, []).append(excess)
        for name, by_bits in found.items():
            print(
                f"{table.title}; {stored} stored bits; {name}: "
                f"median {100 * statistics.median(by_bits[stored]):.3f} %, "
                f"worst {100 * max(by_bits[stored]):.3f} %"
            )
            sys.stdout.flush()
    return found


def draw(panels: list[tuple[str, dict[str, dict[int, list[float]]]]], out: Path) -> None:
    """One panel a table: medians as lines, the range over the seeds behind them."""
    mpl.rcParams.update({"svg.hashsalt": "zipml", "font.size": 9})
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (title, found) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, by_bits in found.items():
            bits = list(by_bits)
            percent = {b: [100 * max(value, 1e-7) for value in by_bits[b]] for b in bits}
            axes.fill_between(
                bits,
                [min(percent[b]) for b in bits],
                [max(percent[b]) for b in bits],
                color=COLOURS[name],
                alpha=0.15,
                linewidth=0,
            )
            medians = [statistics.median(percent[b]) for b in bits]
            axes.plot(bits, medians, "o-", markersize=3.5, color=COLOURS[name], label=name)
        axes.set(title=title, xlabel="stored bits a value", yscale="log")
        axes.set_ylabel("loss above the optimum [%]")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
