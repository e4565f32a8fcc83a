"""The main job beside its nearest peer: one epoch of training on data that are streamed from disk.

Peer: scikit-learn's `SGDRegressor.partial_fit`, fed chunk by chunk from the same table as
uncompressed float32 Zarr. Both run in this process, in turns. The files lie in the page cache, so
the disk's speed does not enter: bytes are shown instead. zipml keeps encoded chunks in memory
after the first epoch; the peer reads its chunks anew in each. A run of zipml also chooses the step
size and scores the final model. Losses are those of the original rows, relative to the smallest
one possible.

    python -m benchmarks.main_job [--rows 600000] [--columns 100] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
from sklearn.linear_model import SGDRegressor

from zipml_ooc import CompressOptions, Dataset, TrainOptions, compress, evaluate, synth, train

PACKAGES = ("zipml-ooc", "numpy", "zarr", "numcodecs", "dask", "scikit-learn")
BITS, SAMPLES = 4, 2


@dataclass(frozen=True)
class Measured:
    """One way to train, and the loss it reached.

    `read_seconds` is the part of each epoch that went into reading, where it can be told apart;
    `run_seconds` is for all epochs and all that a run does beside them.
    """

    name: str
    epoch_seconds: tuple[float, ...]
    read_seconds: tuple[float, ...]
    run_seconds: tuple[float, ...]
    bytes_per_epoch: int
    loss: float

    @property
    def epoch(self) -> float:
        """Median seconds of an epoch."""
        return statistics.median(self.epoch_seconds)

    @property
    def run(self) -> float:
        """Median seconds of a whole run."""
        return statistics.median(self.run_seconds)


def main() -> None:
    """Make the table, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        report = measure(Path(folder), arguments)
    print(json.dumps(report, indent=2) if arguments.json else as_text(report))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything."""
    source = folder / "table.zarr"
    synth(source, rows=arguments.rows, columns=arguments.columns)
    began = time.perf_counter()
    options = CompressOptions(
        bits=BITS, samples=SAMPLES, levels="uniform", threads=arguments.threads
    )
    dataset = compress(source, folder / "packed.zarr", options)
    compress_seconds = time.perf_counter() - began
    ways = compare(source, dataset, arguments)
    best = least_squares_loss(source)
    peer = ways[-1]
    return {
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
        "rows": arguments.rows,
        "columns": arguments.columns,
        "bits": BITS,
        "samples": SAMPLES,
        "epochs": arguments.epochs,
        "repeats": arguments.repeats,
        "float32_bytes": 4 * arguments.rows * arguments.columns,
        "stored_bytes": dataset.stored_bytes,
        "compress_seconds": compress_seconds,
        "best_loss": best,
        "ways": [
            {
                "name": way.name,
                "epoch_seconds": way.epoch,
                "epoch_seconds_all": list(way.epoch_seconds),
                "read_seconds": statistics.median(way.read_seconds) if way.read_seconds else None,
                "run_seconds": way.run,
                "million_values_per_second": arguments.rows * arguments.columns / way.epoch / 1e6,
                "bytes_per_epoch": way.bytes_per_epoch,
                "loss": way.loss,
                "excess_loss": way.loss / best - 1,
                "epoch_times_faster_than_peer": peer.epoch / way.epoch,
                "run_times_faster_than_peer": peer.run / way.run,
                "times_fewer_bytes_than_peer": peer.bytes_per_epoch / way.bytes_per_epoch,
            }
            for way in ways
        ],
    }


def compare(source: Path, dataset: Dataset, arguments: argparse.Namespace) -> list[Measured]:
    """Take turns, so that a machine that changes its pace does so for all; the peer is last."""
    runs = {f"zipml, {n} thread{'s' if n > 1 else ''}": n for n in sorted({1, arguments.threads})}
    parts: dict[str, list[Measured]] = {}
    for _ in range(arguments.repeats):
        for name, threads in runs.items():
            run = zipml_run(name, dataset, source, arguments.epochs, threads)
            parts.setdefault(name, []).append(run)
        run = partial_fit_run(source, arguments.epochs)
        parts.setdefault(run.name, []).append(run)
    return [
        Measured(
            name=name,
            epoch_seconds=tuple(second for run in runs_ for second in run.epoch_seconds),
            read_seconds=tuple(second for run in runs_ for second in run.read_seconds),
            run_seconds=tuple(second for run in runs_ for second in run.run_seconds),
            bytes_per_epoch=runs_[0].bytes_per_epoch,
            loss=runs_[0].loss,
        )
        for name, runs_ in parts.items()
    ]


def zipml_run(name: str, dataset: Dataset, source: Path, epochs: int, threads: int) -> Measured:
    """Train on the packed codes; a run includes the choice of the step and the final loss."""
    result = train(dataset, TrainOptions(epochs=epochs), threads=threads)
    return Measured(
        name=name,
        epoch_seconds=tuple(epoch.seconds for epoch in result.epochs),
        read_seconds=(),
        run_seconds=(result.seconds,),
        bytes_per_epoch=dataset.stored_bytes,
        loss=evaluate(result.model, source)["loss"],
    )


def partial_fit_run(source: Path, epochs: int) -> Measured:
    """Train on the float32 chunks, in the order of the file, with averaging as zipml does."""
    group = zarr.open_group(source, mode="r")
    x, y = group["X"], group["y"]
    model = SGDRegressor(average=True, alpha=0.0, random_state=0)
    seconds, read_seconds = [], []
    for _ in range(epochs):
        began, reading = time.perf_counter(), 0.0
        for start in range(0, x.shape[0], x.chunks[0]):
            read_began = time.perf_counter()
            features, target = (array[start : start + x.chunks[0]] for array in (x, y))
            reading += time.perf_counter() - read_began
            model.partial_fit(features, target)
        seconds.append(time.perf_counter() - began)
        read_seconds.append(reading)
    loss = sum(
        0.5 * float(np.sum((model.predict(features) - target) ** 2, dtype=np.float64))
        for features, target in blocks(source)
    )
    return Measured(
        name="scikit-learn partial_fit",
        epoch_seconds=tuple(seconds),
        read_seconds=tuple(read_seconds),
        run_seconds=(sum(seconds),),
        bytes_per_epoch=4 * x.size,
        loss=loss / x.shape[0],
    )


def blocks(source: Path) -> Any:
    """The original rows, chunk by chunk, in float64."""
    group = zarr.open_group(source, mode="r")
    x, y = group["X"], group["y"]
    for start in range(0, x.shape[0], x.chunks[0]):
        stop = start + x.chunks[0]
        yield x[start:stop].astype(np.float64), y[start:stop].astype(np.float64)


def least_squares_loss(source: Path) -> float:
    """Half the mean squared residual of the best linear model with intercept.

    From the normal equations, which is exact enough here: the columns are independent.
    """
    gram, moment, energy, rows = 0.0, 0.0, 0.0, 0
    for features, target in blocks(source):
        design = np.column_stack([features, np.ones(len(features))])
        gram, moment = gram + design.T @ design, moment + design.T @ target
        energy, rows = energy + float(target @ target), rows + len(target)
    solution = np.linalg.solve(gram, moment)
    return 0.5 * (energy - float(solution @ moment)) / rows


def machine() -> str:
    """Processor, cores and system, in one line."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"machine   {report['machine']}",
        f"versions  {versions}",
        f"data      {report['rows']:,} rows x {report['columns']} columns, "
        f"{report['float32_bytes'] / 1e6:.1f} MB as float32, "
        f"{report['stored_bytes'] / 1e6:.1f} MB at {report['bits']} bits x {report['samples']} "
        f"samples (compressed in {report['compress_seconds']:.1f} s)",
        f"runs      {report['repeats']} of {report['epochs']} epochs each, in turns; medians",
        "",
        f"{'':26}{'s/epoch':>9}{'s/run':>9}{'Mvalues/s':>11}{'MB/epoch':>10}{'above best':>12}",
    ]
    lines += [
        f"{way['name']:26}{way['epoch_seconds']:>9.3f}{way['run_seconds']:>9.2f}"
        f"{way['million_values_per_second']:>11.0f}{way['bytes_per_epoch'] / 1e6:>10.1f}"
        f"{way['excess_loss']:>12.3%}"
        for way in report["ways"]
    ]
    last = report["ways"][-1]
    peer = last["name"]
    lines += ["", f"{peer}: {last['read_seconds']:.3f} s of an epoch are reading"]
    lines += [
        f"{way['name']} against {peer}: epoch {way['epoch_times_faster_than_peer']:.2f} and "
        f"run {way['run_times_faster_than_peer']:.2f} times as fast, "
        f"{way['times_fewer_bytes_than_peer']:.2f} times fewer bytes"
        for way in report["ways"][:-1]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
