"""What the checks of `executor_suite` share: an executor, small datasets, and windows of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..compression import CompressOptions, compress
from ..dataset import Dataset
from ..errors import UsageError
from ..executors.admission import lacking, parse_settings, require, resolved_arithmetic
from ..executors.protocol import Capabilities, Executor, Session, Trained, Window
from ..executors.registry import offered
from ..losses import LOSSES
from ..sources import SourceOptions
from ..training.loading import LoadedTiles, load_tiles
from ..training.loop import train
from ..training.options import TrainOptions
from ..training.plan import make_plan
from ..training.problem import Problem, make_problem
from ..training.results import TrainResult
from ..training.tasks import Anchor
from ..training.weights import row_weights

__all__ = ["Bench", "Case", "Work", "base_case", "universe"]

_ROWS = 400


@dataclass(frozen=True)
class Case:
    """Something that an executor may be asked for.

    Attributes
    ----------
    words : str
    stored : mapping
        Options of the compression, and ``classes`` and ``targets`` of the table.
    options : mapping
        Of the training.
    """

    words: str
    stored: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def universe(able: Capabilities) -> list[Case]:
    """Everything that a run may ask for, one thing at a time, beside what an executor takes."""
    cases = [
        Case(f"the {loss.name} loss", {"classes": _classes(loss.name)}, {"loss": loss.name})
        for loss in LOSSES.values()
    ]
    base, own = base_case(able).stored, base_case(able).options
    cases += [
        Case(f"codes of {bits} bits", base | {"bits": bits, "samples": 1}, own)
        for bits in range(1, 9)
    ]
    cases += [
        Case(f"{samples} samples", base | {"bits": 4 - shift, "samples": samples}, own)
        for shift, samples in enumerate((1, 2, 4, 8))
    ]
    cases += [
        Case("the weaved layout", base | {"layout": "weaved"}, own),
        Case("optimal levels", base | {"levels": "optimal"}, own),
        Case("scales by row", base | {"scale": "row"}, own),
        Case("the split form", base | {"bits": 3, "samples": 2}, own | {"double_form": "split"}),
        Case(
            "polynomial gradients",
            {"bits": 2, "samples": 4, "classes": 2},
            {"loss": "logistic", "sampling": "chebyshev"},
        ),
        Case(
            "rows that are read again",
            {"layout": "weaved", "precisions": (2, 4), "classes": 2},
            {"loss": "hinge", "sampling": "refetch", "bits": 2},
        ),
        Case("variance-reduced steps", base, own | {"solver": "svrg"}),
        Case("no correction", base, own | {"sampling": "naive"}),
        Case("an L1 penalty", base, own | {"l1": 0.01}),
        Case("an L2 penalty", base, own | {"l2": 0.01}),
        Case("no intercept", base, own | {"fit_intercept": False}),
        Case("momentum", base, own | {"momentum": 0.5}),
        Case("large mini-batches", base, own | {"batch_rows": 192}),
        Case("mini-batches of a thousand tiles", base, own | {"batch_rows": 64_000}),
        Case("weights", base | {"weighted": True}, own),
        Case("several outputs", {"targets": 2}, {"loss": "squared"}),
    ]
    cases += [
        Case(f"{arithmetic} arithmetic", base, own | {"arithmetic": arithmetic})
        for arithmetic in ("float", "int16", "int8")
    ]
    limit = able.columns_limit
    if able.fewest_columns > 1:
        cases.append(Case("too few columns", base | {"columns": able.fewest_columns - 1}, own))
    if limit is not None and limit <= 1 << 12:
        cases.append(Case("too many columns", base | {"columns": limit + 1}, own))
    return cases


def _classes(loss: str) -> int:
    if not LOSSES[loss].of_classes:
        return 0
    return 3 if LOSSES[loss].coupled else 2


def base_case(able: Capabilities, loss: str | None = None) -> Case:
    """What an executor takes at least: one of its losses, by default the first."""
    loss = loss or able.losses[0]
    return Case("the base", {"classes": _classes(loss)}, {"loss": loss})


def _base(able: Capabilities) -> dict[str, Any]:
    """How a dataset is stored that an executor takes, if it takes any."""
    plain = 1 in able.samples
    wanted = [bits for bits in (4, 8, *able.stored_bits) if bits in able.stored_bits]
    return {
        "bits": wanted[0] if plain else wanted[0] - 1,
        "samples": 1 if plain else able.samples[0],
        "levels": "uniform" if "uniform" in able.levels else able.levels[0],
        "layout": able.layouts[0] if "packed" not in able.layouts else "packed",
        "scale": able.scales[0] if "column" not in able.scales else "column",
        "columns": max(8, able.fewest_columns),
    }


@dataclass(frozen=True)
class Work:
    """A window and its tiles."""

    window: Window
    tiles: LoadedTiles

    def on(self, session: Session) -> Trained:
        """Run all of it in one go."""
        session.load(self.window)
        session.run(self.tiles)
        return session.read()


class Bench:
    """An executor under test.

    Parameters
    ----------
    executor : Executor
    folder : path
        Where datasets may be put.
    options : mapping, optional
        The executor's own.
    """

    def __init__(
        self, executor: Executor, folder: Path, options: Mapping[str, Any] | None = None
    ) -> None:
        self.executor, self.folder = executor, folder
        self.able = executor.capabilities()
        self.options = dict(options or {})
        self.settings = parse_settings(executor, self.options)
        self._made: dict[str, Dataset] = {}
        self._declared: frozenset[str] | None = None

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session on the first device, closed in the end."""
        devices = self.executor.devices(self.settings)
        problem = self.work().window.problem
        session = self.executor.open(devices[0] if devices else None, problem, self.settings)
        try:
            yield session
        finally:
            session.close()

    def dataset(self, *, rows: int = _ROWS, **stored: Any) -> Dataset:
        """A compressed table: a linear model and noise, or classes by its sign."""
        given = _base(self.able) | stored
        key = "-".join(f"{name}{value}" for name, value in sorted(given.items())) + f"-{rows}"
        if key not in self._made:
            columns, classes = given.pop("columns"), given.pop("classes", 0)
            targets, weighted = given.pop("targets", 1), given.pop("weighted", False)
            rng = np.random.default_rng(0)
            x = rng.standard_normal((rows, columns))
            y = x @ rng.standard_normal((columns, targets)) / np.sqrt(columns)
            y += 0.3 * rng.standard_normal(y.shape) + 1.0
            if classes:
                at = np.quantile(y, np.arange(1, classes) / classes)
                y = np.array(["a", "b", "c"])[np.digitize(y, at)]
            table: dict[str, Any] = {f"x{j}": x[:, j] for j in range(columns)}
            table |= {f"y{k}": y[:, k] for k in range(targets)}
            if weighted:
                table["w"] = rng.integers(1, 4, rows)
            source = self.folder / f"{len(self._made)}.csv"
            _write(source, table)
            self._made[key] = compress(
                source,
                self.folder / f"{len(self._made)}.zarr",
                CompressOptions(**given, weight="w" if weighted else None),
                source_options=SourceOptions(target=tuple(f"y{k}" for k in range(targets))),
            )
        return self._made[key]

    def admitted(self, case: Case, dataset: Dataset) -> Problem:
        """The problem of a case, if the executor takes it.

        Raises
        ------
        UsageError
            It does not.
        """
        options = TrainOptions(**case.options)
        problem = make_problem(dataset.spec, options)
        require(self.executor, dataset.spec, problem, options, self.settings)
        return replace(problem, weights=row_weights(problem, dataset, options, ()))

    def work(self, case: Case | None = None, **changes: Any) -> Work:
        """The first window of a case, from a model that is not zero; `changes` are the window's."""
        case = case or base_case(self.able)
        dataset = self.dataset(**case.stored)
        options = TrainOptions(**case.options)
        problem = self.admitted(case, dataset)
        arithmetic = resolved_arithmetic(self.executor, problem, options)
        problem = replace(problem, arithmetic=arithmetic)
        plan = make_plan(dataset.spec, options)
        tiles = plan.training_tiles(0, 0)
        rng, shape = np.random.default_rng(1), (problem.outputs, problem.columns)
        moving = options.momentum > 0
        batch_tiles = min(options.batch_tiles, len(tiles))
        window = Window(
            problem=problem,
            number=0,
            epoch=0,
            seed=7,
            tiles=len(tiles),
            batch_tiles=batch_tiles,
            batch_rows=64 * batch_tiles,
            step_first=0.05,
            step_last=0.02,
            average_from=0,
            shrinkage=1.0 if problem.corrected else 0.0,
            momentum=options.momentum,
            fit_intercept=options.fit_intercept,
            model=(0.1 * rng.standard_normal(shape)).astype(np.float32),
            intercept=np.zeros(problem.outputs, np.float32),
            anchor=None if options.solver != "svrg" else _anchor(shape),
            velocity=np.zeros(shape, np.float32) if moving else None,
            intercept_velocity=np.zeros(problem.outputs, np.float32) if moving else None,
        )
        return Work(replace(window, **changes), load_tiles(dataset, problem, tiles, again=True))

    @property
    def declared(self) -> frozenset[str]:
        """Words of the cases that the capabilities admit, whatever the executor says to them."""
        if self._declared is None:
            found = []
            for case in universe(self.able):
                dataset, options = self.dataset(**case.stored), TrainOptions(**case.options)
                try:
                    problem = make_problem(dataset.spec, options)
                except UsageError:  # nobody takes it
                    continue
                if not lacking(self.able, dataset.spec, problem, options):
                    found.append(case.words)
            self._declared = frozenset(found)
        return self._declared

    def native(self, dataset: Dataset, options: TrainOptions) -> TrainResult:
        """Train by the native core."""
        return train(dataset, options, threads=1, notice=lambda line: None)

    def train(self, dataset: Dataset, options: TrainOptions) -> TrainResult:
        """Train on the executor, though it may not be installed."""
        chosen = replace(options, executor=self.executor.name, executor_options=self.options)
        with offered(self.executor):
            return train(dataset, chosen, threads=1, notice=lambda line: None)


def _anchor(shape: tuple[int, int]) -> Anchor:
    """The zero model, and a gradient that is none."""
    zero = np.zeros(shape, np.float32)
    return Anchor(zero, zero[:, 0], zero, zero[:, 0])


def _write(path: Path, table: Mapping[str, Any]) -> None:
    rows = zip(*(np.asarray(column).tolist() for column in table.values()), strict=True)
    lines = [",".join(table), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
