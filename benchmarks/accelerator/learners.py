"""What learns a table: the emulator on codes of few bits, and plain SGD on values of 32 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.gateware.epochs import read_table
from benchmarks.tables import least_squares_loss
from zipml_ooc import SourceOptions, TrainOptions, compress, synth, train
from zipml_ooc.compression import CompressOptions
from zipml_ooc.errors import UsageError
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.profiles import Modelled, Profile, modelled, modelled_float32, stream_bytes
from zipml_ooc.gateware.reference import State
from zipml_ooc.gateware.scaling import Scaling
from zipml_ooc.gateware.stream import dataset_packets
from zipml_ooc.gateware.timing import run_cycles
from zipml_ooc.training.problem import Problem, make_problem

__all__ = ["TABLES", "Course", "Float32", "Learner", "Quantised", "Table", "make_table"]

F32 = npt.NDArray[np.float32]
TABLES = ("cadata", "cpusmall", "mnist 3/8", "synthetic")
TILE = 64


@dataclass(frozen=True)
class Table:
    """Columns and target of variance 1, and the loss of the best linear model."""

    name: str
    x: F32
    y: F32
    optimum: float

    def loss(self, coefficients: Any, intercept: float) -> float:
        """Half the mean square of the residuals, at full precision, over that of the optimum."""
        residual = self.x @ np.asarray(coefficients, np.float64) + intercept - self.y
        return 0.5 * float(np.mean(residual**2)) / self.optimum


def make_table(name: str, folder: Path | None) -> Table:
    """Read or draw a table, and scale it."""
    if name == "synthetic":
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "t.npz"
            synth(path, kind="regression", rows=20_000, columns=100, noise=0.5, condition=10.0)
            with np.load(path) as made:
                x, y = made["X"].astype(np.float64), made["y"].astype(np.float64)
    else:
        assert folder is not None
        x, y = read_table(name, folder)
    x, y = x.astype(np.float64), y.astype(np.float64)
    spread = x.std(axis=0)
    x = ((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    y = ((y - y.mean()) / y.std()).astype(np.float32)
    return Table(name, x, y, least_squares_loss(x, y))


@dataclass(frozen=True)
class Course:
    """How to learn: over so many epochs, the step constant in the first half and then down to 5 %.

    Attributes
    ----------
    epochs : int
    step : float
        Times the mean gradient of a mini-batch.
    batch_tiles : int
        Of 64 rows.
    delayed : bool
    """

    epochs: int
    step: float
    batch_tiles: int = 1
    delayed: bool = False

    def steps(self) -> Iterator[float]:
        """The step of each epoch."""
        for epoch in range(self.epochs):
            yield self.step * max(min(1.0, 2.0 - 2.0 * (epoch + 0.5) / self.epochs), 0.05)


def _order(tiles: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of the tiles, the same for all learners."""
    return np.random.default_rng((seed, epoch)).permutation(tiles)


class Learner(Protocol):
    """Something that learns a table and knows what an epoch takes."""

    table: Table
    bits: int

    def losses(self, course: Course, seed: int) -> Iterator[float]:
        """The loss after each epoch; NaN where there is none, and then no more of them."""

    def epoch(self, course: Course, profile: Profile) -> Modelled:
        """What an epoch takes."""


@dataclass
class Float32:
    """SGD in NumPy's single precision, where asked with the delay that the accelerator has."""

    table: Table
    bits: int = field(default=32, init=False)

    def losses(self, course: Course, seed: int) -> Iterator[float]:
        x, y = self.table.x, self.table.y
        model, intercept = np.zeros(x.shape[1], np.float32), np.float32(0)
        size = TILE * course.batch_tiles
        for epoch, step in enumerate(course.steps()):
            pace = np.float32(step / size)
            tiles = _order(-(-len(x) // TILE), seed, epoch)
            rows = (tiles[:, None] * TILE + np.arange(TILE)).ravel()
            rows = rows[rows < len(x)]
            met = model, intercept
            with np.errstate(over="ignore", invalid="ignore"):
                for start in range(0, len(rows), size):
                    batch = rows[start : start + size]
                    if not course.delayed:
                        met = model, intercept
                    residual = x[batch] @ met[0] + met[1] - y[batch]
                    met = model, intercept
                    model = model - pace * (residual @ x[batch])
                    intercept = intercept - pace * residual.sum()
                loss = self.table.loss(model, float(intercept))
            yield loss
            if not np.isfinite(loss):
                return

    def epoch(self, course: Course, profile: Profile) -> Modelled:
        rows, columns = self.table.x.shape
        return modelled_float32(profile, columns, -(-rows // TILE) * TILE)


class Quantised:
    """The emulated accelerator, on codes with equally spaced levels, one sample a value.

    Of the correction the part is taken that the guard of `zipml train` allows.
    """

    def __init__(self, table: Table, bits: int) -> None:
        self.table, self.bits, self.form = table, bits, Format(bits)
        with TemporaryDirectory() as scratch:
            source, place = Path(scratch) / "t.npz", Path(scratch) / "t.zarr"
            np.savez(source, X=table.x, y=table.y)
            options = CompressOptions(bits=bits, samples=1, levels="uniform", task="regression")
            data = compress(source, place, options, source_options=SourceOptions())
            found = train(data, TrainOptions(epochs=1))
            self.shrinkage = float(found.model.record["shrinkage"])
            self.problem: Problem = make_problem(data.spec, TrainOptions())
            self.scaling = Scaling(self.problem)
            self.packets = list(dataset_packets(data, self.scaling, self.form))

    def losses(self, course: Course, seed: int) -> Iterator[float]:
        emulator = Emulator(self.form)
        # Seeds near each other give draws near each other at first: spread them.
        state = State(np.zeros(self.problem.columns + 1, np.int64), 0x9E3779B97F4A7C15 ^ (seed + 1))
        tiles = len(self.packets)
        for epoch, step in enumerate(course.steps()):
            try:
                program = self.scaling.program(
                    step,
                    batch_tiles=course.batch_tiles,
                    shrinkage=self.shrinkage,
                    delayed=course.delayed,
                )
            except UsageError:  # a step beyond what registers hold
                yield float("nan")
                return
            emulator.load(program, state)
            emulator.run([self.packets[i] for i in _order(tiles, seed, epoch)], tiles)
            state = emulator.state(self.problem.columns)
            model, intercept = self.scaling.to_model(state.model)
            coefficients, offset = self.problem.to_model(model, intercept)
            yield self.table.loss(np.ravel(coefficients), float(np.ravel(offset)[0]))

    def epoch(self, course: Course, profile: Profile) -> Modelled:
        shape = self.form, self.problem.columns, len(self.packets)
        cycles = run_cycles(*shape, course.batch_tiles, delayed=course.delayed)
        return modelled(profile, cycles, stream_bytes(*shape))
