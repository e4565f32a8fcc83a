"""The training step against the float32 row kernel, for several widths."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from . import peers
from .packed import BOUND, PackedTable, Step, single, step_size
from .peers import Floats, PeerKernels
from .timing import ALLOWED, FULL, QUICK, Effort, Paired, cores, fastest, paired, table_bytes

WIDTHS = (8, 12, 90, 100, 784, 1024, 5000)
BITS = (8, 4, 2, 1)
ARITHMETIC = ("int8", "int16", "float")
LEVELS = ("uint8", "uint16")
BATCHES = (64, 256)

Record = dict[str, Any]

REPEATS = 10
"""Passes of a thread in one turn."""


class Bench:
    """Measures one width; collects records and what could not be measured."""

    def __init__(
        self, kernels: PeerKernels, memory: Floats, table: PackedTable, quick: bool
    ) -> None:
        self.kernels, self.memory, self.table, self.quick = kernels, memory, table, quick
        self.effort: Effort = QUICK if quick else FULL
        self.records: list[Record] = []
        self.missing: list[str] = []
        self.x, self.y = table.x, table.y[:, 0]
        self.rows, self.columns = self.x.shape
        size = step_size(self.columns)
        forms = peers.forms_for(
            kernels.row_forms, lambda form: kernels.row_sgd(form, self.x, self.y, size)
        )
        self.row_form = fastest(forms)
        self.row, self.plain = forms[self.row_form], forms["plain"]

    def add(self, group: str, name: str, timed: Paired, **more: Any) -> None:
        """Keep a comparison."""
        values = self.rows * self.columns
        self.records.append(
            {"group": group, "columns": self.columns, "name": name}
            | more
            | asdict(timed)
            | {"values_per_second": values / timed.seconds}
        )

    def row_speed(self) -> float:
        """Values a second of the row kernel: the median over all comparisons with it."""
        times = [r["base_seconds"] for r in self.records if r["group"] in ("step", "peer")]
        return self.x.size / statistics.median(times)

    def available(self, step: Step) -> bool:
        """Whether the core can do it; what it cannot is noted once."""
        refusal = self.table.refusal(step)
        if refusal is not None and refusal not in self.missing:
            self.missing.append(refusal)
        return refusal is None

    def steps(self, group: str, steps: list[Step]) -> None:
        """Our steps against the row kernel."""
        for step in filter(self.available, steps):
            timed = paired(self.table.run(step), self.row, self.effort)
            packed = self.table.codes(step.stored_bits, step.samples).nbytes
            self.add(group, label(step), timed, **asdict(step), packed_bytes=packed)

    def peers(self) -> None:
        """The peers against the row kernel."""
        size, x, y = step_size(self.columns), self.x, self.y
        if self.row_form != "plain":
            self.add("peer", "float32 rows, plain", paired(self.plain, self.row, self.effort))
        for batch in BATCHES:
            forms = peers.forms_for(
                self.kernels.batch_forms,
                lambda form, batch=batch: self.kernels.batch_sgd(form, x, y, size, batch),
            )
            form = fastest(forms)
            timed = paired(forms[form], self.row, self.effort)
            self.add("peer", f"float32 batches of {batch}", timed, form=form, batch=batch)
        for batch in BATCHES:
            timed = paired(lambda b=batch: peers.blas_sgd(x, y, size, b), self.row, self.effort)
            self.add("peer", f"NumPy BLAS, batches of {batch}", timed, batch=batch)
        # scikit-learn has a path for each precision; both are given their own type, uncopied.
        tables: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {
            "float32": (x, y),
            "float64": (x.astype("f8"), y.astype("f8")),
        }
        runs = {
            name: (lambda pair=pair: peers.sklearn_sgd(*pair, size))
            for name, pair in tables.items()
        }
        kind = fastest(runs, turns=1 if self.quick else 2)
        timed = paired(runs[kind], self.row, self.effort)
        self.add("peer", "scikit-learn partial_fit", timed, dtype=kind)

    def estimators(self, bits: tuple[int, ...], arithmetic: tuple[str, ...]) -> None:
        """Each estimator against the naive one on one sample of the same stored bits."""
        for kind in arithmetic:
            for stored in bits:
                candidates = [Step(stored, kind, correction=1.0)]
                if stored > 1:
                    candidates += [
                        Step(stored, kind, samples=2, correction=1.0),
                        Step(stored, kind, samples=2, correction=1.0, split=True),
                    ]
                for step in filter(self.available, candidates):
                    naive = self.table.run(single(step))
                    timed = paired(self.table.run(step), naive, self.effort, before=self.row)
                    self.add("estimator", label(step), timed, **asdict(step))

    def threads(self, steps: list[Step]) -> None:
        """Two replicas on two threads, each over its half, against one thread over both halves.

        The control shares nothing: what it falls short of two, other programs have taken.
        """
        if len(ALLOWED) < 2:
            self.missing.append("two threads: there is one core")
            return
        half = self.rows // 64 // 2
        size, cut = step_size(self.columns), 64 * half
        halves: dict[str, tuple[Record, list[Callable[[], Any]]]] = {
            label(step): (
                asdict(step),
                [self.table.run(step, part) for part in (slice(half), slice(half, 2 * half))],
            )
            for step in filter(self.available, steps)
        }
        parts = [(self.x[:cut], self.y[:cut]), (self.x[cut : 2 * cut], self.y[cut : 2 * cut])]
        halves[f"float32 rows, {self.row_form}"] = (
            {},
            [lambda part=part: self.kernels.row_sgd(self.row_form, *part, size) for part in parts],
        )
        # Long calls: between short ones two threads would wait for the interpreter's lock.
        small = np.ones((512, 512), "f4")
        halves["control: matrix products in the cache"] = (
            {},
            [lambda: [small @ small for _ in range(20)]] * 2,
        )
        with cores(2), ThreadPoolExecutor(2) as pool:
            for name, (more, runs) in halves.items():
                # Long enough for the scheduler to give each thread a core of its own.
                longer = [lambda one=run: [one() for _ in range(REPEATS)] for run in runs]
                timed = paired(
                    lambda runs=longer: list(pool.map(lambda call: call(), runs)),
                    lambda runs=longer: [call() for call in runs],
                    self.effort,
                    clock=time.perf_counter,
                    before=self.row,
                )
                self.add("threads", name, timed, **more)


def label(step: Step) -> str:
    """A name for people."""
    parts = [f"{step.stored_bits} bits", step.arithmetic]
    if step.levels != "uniform":
        parts.append(f"{step.levels} levels")
    if step.estimator != "naive":
        parts.append(step.estimator)
    if step.batch_tiles != Step.batch_tiles:
        parts.append(f"batches of {64 * step.batch_tiles}")
    return ", ".join(parts)


def measure(quick: bool = False) -> Record:
    """All of it."""
    values = table_bytes() // 4
    memory = peers.padded_table(values)
    rng = np.random.default_rng(1)
    rng.random(dtype="f4", out=memory[:values])
    memory -= 0.5
    memory *= 2 * BOUND
    records: list[Record] = []
    missing: list[str] = []
    tables = []
    with TemporaryDirectory() as folder:
        kernels = PeerKernels(Path(folder))
        peers.check(kernels)
        for columns in (100, 1024) if quick else WIDTHS:
            print(f"training, {columns} columns", file=sys.stderr)
            x = memory[: values // columns * columns].reshape(-1, columns)
            weights = rng.standard_normal(columns, "f4") / np.float32(np.sqrt(columns))
            y = x @ weights + np.float32(0.1) * rng.standard_normal(len(x), "f4")
            bench = Bench(kernels, memory, PackedTable(x, y), quick)
            measure_width(bench)
            records += bench.records
            missing += [line for line in bench.missing if line not in missing]
            tables.append(
                {
                    "columns": columns,
                    "rows": len(x),
                    "float32_bytes": x.nbytes,
                    "row_form": bench.row_form,
                    "values_per_second": bench.row_speed(),
                }
            )
    return {"tables": tables, "records": records, "missing": missing}


def measure_width(bench: Bench) -> None:
    """The comparisons of one width; the longest list at 1024 columns."""
    arithmetic = ("int8", "float") if bench.quick else ARITHMETIC
    bench.peers()
    bench.steps("step", [Step(bits, kind) for kind in arithmetic for bits in BITS])
    if bench.columns in (90, 1024):
        levels = LEVELS if bench.columns == 1024 and not bench.quick else LEVELS[:1]
        bench.steps(
            "levels",
            [Step(bits, kind, kept) for kept in levels for kind in arithmetic for bits in BITS],
        )
    if bench.columns in (100, 1024) and not bench.quick:
        bench.estimators((8, 4, 2) if bench.columns == 1024 else (4,), ("int8", "float"))
        bench.steps(
            "batch", [Step(4, kind, batch_tiles=n) for kind in arithmetic for n in (1, 4, 16)]
        )
    if bench.columns == 1024:
        bench.threads([Step(bits, kind) for kind in arithmetic for bits in (8, 4)])
