"""What runs on a worker: advance a replica over a window, score a window, measure its spectrum.

Tasks get the path of a dataset and small objects, read the chunks where they run, and give back a
model's worth of numbers. Between calls a process keeps the opened dataset, and chunks and targets
up to a budget (`loading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS

from ..dataset import Dataset, open_cached
from ..executors.native import kernel_polynomial
from ..executors.protocol import Window
from .channels import Channel
from .executing import Chosen, carry_out
from .loading import LoadedTiles, load_tiles, look_ahead, set_budget
from .plan import Plan, Step
from .problem import F32, F64, Problem
from .reading import cache_bytes
from .replicas import Sent, State, outset, send
from .schedules import Schedule
from .sizes import Sized
from .window_loss import window_loss

__all__ = ["Anchor", "FullGradient", "Job", "Score", "advance", "full_gradient", "score"]

# Tiles whose gradients are added in single precision before doubles take over.
_GRADIENT_TILES = 4
# Margins that are held at once.
_MARGINS = 1 << 22


@dataclass(frozen=True)
class Job(Sized):
    """What all tasks of a run share: the dataset's path or URL and how to train on it."""

    path: str
    problem: Problem
    plan: Plan
    schedule: Schedule
    fit_intercept: bool
    batch_tiles: int
    batch_rows: int
    """Rows that a full mini-batch has: those of its tiles, or all where there are fewer."""
    channel: Channel | None = None
    """How the changes of replicas are rounded on their way; None: not at all."""
    gradient_problem: Problem | None = None
    """How full gradients read the tiles, where that is with more precision than the steps do."""
    stamp: str = ""
    """That of the dataset when the run began."""
    cache_bytes: int | None = None
    """What each process may hold of the data; None: a quarter of what its machine has."""
    chosen: Chosen | None = None
    """The executor of the steps; None: the native core."""

    def open(self) -> Dataset:
        """The dataset, opened once in a process, and room for its chunks."""
        set_budget(cache_bytes(None) if self.cache_bytes is None else self.cache_bytes)
        return open_cached(self.path, self.stamp)

    def load(
        self,
        problem: Problem,
        tiles: npt.NDArray[np.int64],
        around: tuple[Sequence[int], Sequence[int]],
    ) -> LoadedTiles:
        """Load tiles, and begin to fetch the windows that come after those that are used now."""
        dataset = self.open()
        loaded = load_tiles(dataset, problem, tiles, again=True)
        look_ahead(dataset, problem, *(map(self.plan.window_range, windows) for windows in around))
        return loaded


@dataclass(frozen=True)
class FullGradient(Sized):
    """Sums over rows of the gradient at a model, rounding bias removed, without penalties."""

    model: F64
    intercept: F64
    loss_sum: float
    rows: float
    bytes_read: int

    def __add__(self, other: FullGradient) -> FullGradient:
        return FullGradient(
            self.model + other.model,
            self.intercept + other.intercept,
            self.loss_sum + other.loss_sum,
            self.rows + other.rows,
            self.bytes_read + other.bytes_read,
        )


@dataclass(frozen=True)
class Anchor(Sized):
    """A model and the mean gradient of a row there: what steps of SVRG refer to."""

    model: F32
    intercept: F32
    gradient: F32
    intercept_gradient: F32


def full_gradient(
    job: Job,
    window: int,
    model: F32,
    intercept: F32,
    *,
    epoch: int,
    near: frozenset[int] | None = None,
) -> FullGradient:
    """Gradient of the training rows of a window; the epoch names the split of the samples.

    Here and below, `near` are the replicas whose windows go through the same process (None: all of
    them): what comes next of these is fetched ahead.
    """
    plan = job.plan
    problem = job.gradient_problem or job.problem
    out, intercept_out = np.zeros(model.shape), np.zeros(intercept.shape)
    tiles = plan.kept_tiles(window)
    if not len(tiles):
        return FullGradient(out, intercept_out, 0.0, 0, 0)
    loaded = job.load(problem, tiles, plan.around(window, replicas=near))
    loss_sum, _ = loaded.batch.full_gradient(
        model=model,
        intercept=intercept,
        loss=problem.loss,
        arithmetic="float",
        split=problem.estimator == "split",
        correction=job.schedule.shrinkage if problem.corrected else 0.0,
        variance=problem.variance,
        batch_tiles=_GRADIENT_TILES,
        seed=plan.seed,
        draw=epoch,
        out=out,
        intercept_out=intercept_out,
        huber_delta=problem.huber_delta,
        polynomial=kernel_polynomial(problem),
        **loaded.fetching,
    )
    read = loaded.bytes_read + loaded.reread.bytes
    return FullGradient(out, intercept_out, loss_sum, loaded.weight, read)


def advance(
    job: Job,
    step: Step,
    state: State,
    anchor: Anchor | None = None,
    *,
    near: frozenset[int] | None = None,
) -> State | Sent:
    """Run mini-batch SGD over one window, with less variance if an anchor is given.

    What is given back has summed up this window alone.
    """
    problem, plan, schedule = job.problem, job.plan, job.schedule
    tiles = plan.training_tiles(step.window, step.epoch)
    model_sum, intercept_sum = np.zeros(state.model.shape), np.zeros(state.intercept.shape)
    if not len(tiles):
        idle = replace(outset(state), model_sum=model_sum, intercept_sum=intercept_sum)
        return send(job.channel, state, idle, step)
    loaded = job.load(problem, tiles, plan.around(step.window, step.epoch, near))
    window = Window(
        problem=problem,
        number=step.window,
        epoch=step.epoch,
        seed=plan.seed,
        tiles=len(tiles),
        batch_tiles=job.batch_tiles,
        batch_rows=job.batch_rows,
        step_first=schedule.step_at(step.first),
        step_last=schedule.step_at(step.last),
        average_from=schedule.average_from(
            step.first, step.last, -(-len(tiles) // job.batch_tiles)
        ),
        shrinkage=schedule.shrinkage if problem.corrected else 0.0,
        momentum=schedule.momentum,
        fit_intercept=job.fit_intercept,
        model=state.model,
        intercept=state.intercept,
        velocity=state.velocity,
        intercept_velocity=state.intercept_velocity,
        anchor=anchor,
    )
    trained, counters, lost = carry_out(job.chosen, window, loaded)
    end = State(
        trained.model,
        trained.intercept,
        trained.model_sum,
        trained.intercept_sum,
        trained.velocity,
        trained.intercept_velocity,
        trained.averaged,
        trained.loss_sum,
        loaded.weight,
        loaded.bytes_read + loaded.reread.bytes,
        loaded.reread,
        counters,
        lost,
    )
    return send(job.channel, state, end, step)


@dataclass(frozen=True)
class Score:
    """Summed loss of some rows, in scaled coordinates."""

    loss_sum: float
    rows: float
    bytes_read: int

    def __add__(self, other: Score) -> Score:
        return Score(
            self.loss_sum + other.loss_sum,
            self.rows + other.rows,
            self.bytes_read + other.bytes_read,
        )


def score(
    job: Job,
    window: int,
    model: F64,
    intercept: F64,
    *,
    held_out: bool,
    near: frozenset[int] | None = None,
) -> Score:
    """Loss of a window's training rows or held-out rows, with the rounding bias taken out."""
    problem, plan = job.problem, job.plan
    tiles = plan.held_out_tiles(window) if held_out else plan.kept_tiles(window)
    if not len(tiles):
        return Score(0.0, 0, 0)
    # A row has as many margins as outputs: as many tiles at a time as keep them few.
    at_once = max(1, _MARGINS // (TILE_ROWS * problem.outputs))
    loss_sum, rows, again = 0.0, 0.0, 0
    sizes: dict[int, int] = {}
    for start in range(0, len(tiles), at_once):
        part = tiles[start : start + at_once]
        loaded = job.load(problem, part, plan.around(window, replicas=near))
        rows += loaded.weight
        sizes |= loaded.chunk_bytes
        if loaded.refetcher is not None or (problem.polynomial and problem.loss == "hinge"):
            loss_sum += _loss_of_slopes(problem, loaded, model, intercept)
            again += loaded.reread.bytes
            continue
        loss_sum += window_loss(problem, loaded, model, intercept)
    return Score(loss_sum, rows, sum(sizes.values()) + again)


def _loss_of_slopes(problem: Problem, loaded: LoadedTiles, model: F64, intercept: F64) -> float:
    """The hinge as its slopes times margins, without bias as far as these are; nothing moves."""
    total, _ = loaded.batch.full_gradient(
        model=model.astype(np.float32),
        intercept=intercept.astype(np.float32),
        loss=problem.loss,
        arithmetic="float",
        split=False,
        correction=0.0,
        variance=problem.variance,
        batch_tiles=_GRADIENT_TILES,
        seed=0,
        draw=0,
        out=np.empty(model.shape),
        intercept_out=np.empty(intercept.shape),
        polynomial=kernel_polynomial(problem),
        **loaded.fetching,
    )
    return float(total)
