"""Epochs, and the time to 1 % above the best loss: zipml and its peers, taking turns."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zipml_ooc import CompressOptions, TrainOptions, compress, synth

from ..machine import versions
from . import ours, peers
from .runs import Run, Way
from .table import Quadratic

BITS, SAMPLES = 4, 2
PACKAGES = ("zarr", "dask", "scikit-learn", "dask-ml", "vowpalwabbit")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the table, let all sides take turns."""
    source = folder / "table.zarr"
    synth(source, rows=arguments.rows, columns=arguments.columns)
    loss = Quadratic.of(source)
    turns, missing = _sides(source, folder, loss, arguments)
    runs: dict[str, list[Run]] = {}
    for _ in range(arguments.repeats):
        for turn in turns:
            run = turn()
            runs.setdefault(run.name, []).append(run)
    ways = [Way(tuple(each)) for each in runs.values()]
    return {
        "versions": versions(PACKAGES),
        "missing": missing,
        "rows": arguments.rows,
        "columns": arguments.columns,
        "bits": BITS,
        "samples": SAMPLES,
        "threads": arguments.threads,
        "epochs": arguments.epochs,
        "repeats": arguments.repeats,
        "best_loss": loss.best,
        "ways": [
            {
                "name": way.name,
                "epoch_seconds": way.epoch,
                "read_seconds": way.reading,
                "values_per_second": way.values_per_second,
                "seconds_to_enough": way.to_enough,
                "bytes_per_epoch": way.runs[0].bytes_per_epoch,
                "values": way.runs[0].values,
                "excess": way.runs[0].excess,
                "runs": [asdict(run) for run in way.runs],
            }
            for way in ways
        ],
    }


def _sides(
    source: Path, folder: Path, loss: Quadratic, arguments: argparse.Namespace
) -> tuple[list[Callable[[], Run]], list[str]]:
    turns: list[Callable[[], Run]] = []
    epochs, threads = arguments.epochs, arguments.threads
    for levels in ("uniform", "optimal"):
        options = CompressOptions(bits=BITS, samples=SAMPLES, levels=levels)
        dataset = compress(source, folder / f"{levels}.zarr", options)
        for batch_rows in (64, 256):
            name = f"zipml, {levels}, batches of {batch_rows}"
            training = TrainOptions(batch_rows=batch_rows)
            turns.append(
                lambda n=name, d=dataset, t=training: ours.run(n, d, loss, t, threads, epochs)
            )
    turns.append(lambda: peers.scikit_learn(source, loss, epochs))
    missing = []
    try:
        import dask_ml  # noqa: F401

        turns.append(lambda: peers.dask_ml(source, loss, epochs, threads))
    except ImportError:
        missing.append("dask-ml")
    try:
        wabbit = peers.VowpalWabbit(source, folder)
        turns.append(lambda: wabbit.run(epochs))
    except ImportError:
        missing.append("vowpalwabbit")
    return turns, missing
