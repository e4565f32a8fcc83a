"""Bytes read until a loss is reached: fixed precisions, schedules, and packed copies beside them.

    python -m benchmarks.weaved [TABLE.csv.gz ...]

Each table is compressed once to the weaved layout and once for each precision to the packed one.
For every way of reading, runs of 2 to 64 epochs; the least bytes that end within 1 % of the loss of
least squares on the original values, medians over seeds. Bytes are those of an epoch times the
epochs, as without a cache; the loss is that on the original values.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np

from zipml_ooc import CompressOptions, SourceOptions, TrainOptions, compress, synth, train

from .machine import about_machine, about_versions
from .tables import least_squares_loss, read_csv

EPOCHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
WITHIN = 1.01
WAYS = ("1", "2", "4", "8", "2:4:8", "1:2:4:8", "auto")


def table_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features and target (the last column) of a CSV file or an npz."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return arrays["X"].astype(float), arrays["y"].astype(float)
    return read_csv(path)


def mean_loss(model, x: np.ndarray, y: np.ndarray) -> float:
    return 0.5 * float(np.mean((np.ravel(model.predict(x)) - y) ** 2))


def reached(dataset, way: str | None, x, y, optimum: float) -> tuple[int | None, int | None, float]:
    """Bytes and epochs of the shortest run that gets there, and the excess of the longest one."""
    excess = float("nan")
    for epochs in EPOCHS:
        result = train(dataset, TrainOptions(bits=way, epochs=epochs, arithmetic="float"))
        loss = mean_loss(result.model, x, y)
        excess = loss / optimum - 1
        if loss <= WITHIN * optimum:
            return sum(e.bytes_read for e in result.epochs), epochs, excess
    return None, None, excess


def study(
    name: str, path: Path, samples: int, seeds: int, folder: Path, ways: tuple[str, ...]
) -> None:
    x, y = table_of(path)
    optimum = least_squares_loss(x, y)
    target = SourceOptions(target=() if path.suffix == ".npz" else ("-1",))
    print(f"\n{name}: {len(x):,} rows x {x.shape[1]} columns, {samples} sample(s)")
    print(f"{'read':>12}  {'MB to 1 %':>10}  {'epochs':>6}  {'excess of the last run':>22}")
    found: dict[str, list] = {}
    for seed in range(seeds):
        place = folder / f"{name}-{samples}-{seed}"
        shared = {"samples": samples, "seed": seed, "chunk_rows": 8192}
        place.mkdir()
        weaved = compress(
            path,
            place / "weaved",
            CompressOptions(bits=8, layout="weaved", **shared),
            source_options=target,
        )
        for way in ways:
            found.setdefault(way, []).append(reached(weaved, way, x, y, optimum))
        for bits in (1, 2, 4, 8) if ways == WAYS else ():
            packed = compress(
                path,
                place / f"packed{bits}",
                CompressOptions(bits=bits, levels="uniform", **shared),
                source_options=target,
            )
            found.setdefault(f"packed {bits}", []).append(reached(packed, None, x, y, optimum))
    for way, runs in found.items():
        got = [run for run in runs if run[0] is not None]
        excess = statistics.median(run[2] for run in runs)
        if 2 * len(got) <= len(runs):
            print(f"{way:>12}  {'not reached':>10}  {'':>6}  {100 * excess:>20.2f} %")
            continue
        size = statistics.median(run[0] for run in got)
        epochs = statistics.median(run[1] for run in got)
        print(f"{way:>12}  {size / 1e6:>10.3f}  {epochs:>6.0f}  {100 * excess:>20.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", type=Path, help="CSV files, the target last")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=WAYS, help="what to give to --bits")
    chosen = parser.parse_args()
    print(f"{about_machine()}\n{about_versions()}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = folder / "synthetic.npz"
        synth(made, rows=20_000, columns=100)
        for path in (made, *chosen.tables):
            for samples in (1, 2):
                study(
                    path.name.partition(".")[0],
                    path,
                    samples,
                    chosen.seeds,
                    folder,
                    tuple(chosen.ways),
                )


if __name__ == "__main__":
    main()
