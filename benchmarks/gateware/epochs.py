"""Whole epochs of real tables on the simulated gateware: equal to the reference, near to native."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.tables import read_csv, read_mnist
from zipml_ooc import SourceOptions, TrainOptions, compress, train
from zipml_ooc.compression import CompressOptions
from zipml_ooc.gateware.driver import Driver
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.reference import State, run
from zipml_ooc.gateware.scaling import Scaling
from zipml_ooc.gateware.simulation import Simulation
from zipml_ooc.gateware.stream import dataset_packets, unpack
from zipml_ooc.training.problem import make_problem

__all__ = ["TABLES", "Epochs", "measure"]

TABLES = ("cadata", "cpusmall", "mnist 3/8")


@dataclass(frozen=True)
class Epochs:
    """Losses as `zipml train` reports them; cycles and beats of all epochs."""

    rows: int
    columns: int
    epochs: int
    loss: float
    native_loss: float
    cycles: int
    beats: int
    seconds: float


def read_table(name: str, folder: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Columns and a target of numbers; for digits 1 and -1."""
    if not name.startswith("mnist"):
        return read_csv(folder / f"{name}.csv.gz")
    images, labels = read_mnist(folder)
    chosen = np.isin(labels, (3, 8))
    return images[chosen].astype(np.float32), np.where(labels[chosen] == 3, 1.0, -1.0)


def measure(device: Simulation, form: Format, name: str, folder: Path, epochs: int) -> Epochs:
    """Train natively, on the simulation and on the reference; stop where the last two differ."""
    x, y = read_table(name, folder)
    with TemporaryDirectory() as scratch:
        source, place = Path(scratch) / "t.npz", Path(scratch) / "t.zarr"
        np.savez(source, X=x.astype(np.float32), y=y)
        options = CompressOptions(bits=form.bits, samples=1, levels="uniform", task="regression")
        data = compress(source, place, options, source_options=SourceOptions())
        native_options = TrainOptions(epochs=epochs)
        native = train(data, native_options)
        problem = make_problem(data.spec, native_options)
        scaling = Scaling(problem)
        packets = list(dataset_packets(data, scaling, form))
        tiles = [unpack(packet, form) for packet in packets]
        record = native.model.record
        driver = Driver(device)
        expected = State(np.zeros(problem.columns + 1, np.int64), 1)
        found, cycles, beats, seconds = expected, 0, 0, 0.0
        for epoch in range(epochs):
            # As natively: constant over the first half, then down in a straight line.
            part = min(1.0, 2.0 - 2.0 * (epoch + 0.5) / epochs)
            program = scaling.program(
                record["step_size"] * max(part, 0.05), shrinkage=record["shrinkage"]
            )
            order = np.random.default_rng(epoch).permutation(len(packets))
            driver.load(program, found)
            began = time.perf_counter()
            counters = driver.run([packets[i] for i in order], len(packets))
            seconds += time.perf_counter() - began
            cycles, beats = cycles + counters.cycles, beats + counters.beats
            found = driver.state(problem.columns)
            run(program, [tiles[i] for i in order], expected)
            if found.seed != expected.seed or (found.model != expected.model).any():
                raise SystemExit(f"{name}, epoch {epoch}: simulation and reference differ")
        if found.model_saturated or found.residual_saturated:
            raise SystemExit(f"{name}: numbers were clipped")
        model, intercept = scaling.to_model(found.model)
        codes = np.concatenate([tile.codes for tile in tiles])[: data.spec.rows]
        target = problem.scale_target(data.read_target(0, data.spec.rows).reshape(-1, 1))[:, 0]
        residual = (problem.offset + problem.slope * codes) @ model[0] + intercept - target
        noise = record["shrinkage"] * float(problem.variance @ model[0] ** 2)
        loss = 0.5 * (float(np.mean(residual**2)) - noise) * problem.loss_unit
        return Epochs(*x.shape, epochs, loss, native.loss, cycles, beats, seconds)
