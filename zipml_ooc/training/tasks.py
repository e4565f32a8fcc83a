"""What runs on a worker: advance a replica over a window, score a window, measure its spectrum.

Tasks get the path of a dataset and small objects, read the chunks where they run, and give back a
model's worth of numbers. Between calls a process keeps the opened dataset, and chunks and targets
up to a budget (`loading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataset import open_cached
from .loading import load_tiles
from .plan import Plan, Step
from .problem import F32, F64, Problem

__all__ = [
    "Job",
    "Schedule",
    "Score",
    "State",
    "advance",
    "initial_state",
    "merge",
    "score",
    "total",
]


@dataclass(frozen=True)
class Schedule:
    """Step size and shrinkage of a run.

    The step is constant over the first half of the run, then falls to a twentieth in a straight
    line; iterates are averaged from the middle on.
    """

    step_size: float
    shrinkage: float
    average: bool

    def step_at(self, part: float) -> float:
        """Step size when this part (0 to 1) of the run is done."""
        return self.step_size * min(1.0, max(0.05, 2.0 * (1.0 - part)))


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share: the dataset's path or URL and how to train on it."""

    path: str
    problem: Problem
    plan: Plan
    schedule: Schedule
    fit_intercept: bool
    batch_tiles: int
    batch_rows: int
    """Rows that a full mini-batch has: those of its tiles, or all where there are fewer."""


@dataclass(frozen=True)
class State:
    """A model in training, and what has been summed up on the way.

    Attributes
    ----------
    model : (outputs, columns) float32, intercept : (outputs,) float32
    model_sum, intercept_sum : float64
        Sums of the averaged iterates.
    averaged : int
        How many these are.
    loss_sum : float
        Loss of each row with the model before its mini-batch, rounding bias removed.
    rows, bytes_read : int
    """

    model: F32
    intercept: F32
    model_sum: F64
    intercept_sum: F64
    averaged: int = 0
    loss_sum: float = 0.0
    rows: int = 0
    bytes_read: int = 0

    def estimate(self) -> tuple[F64, F64]:
        """The averaged model, or the last iterate where nothing was averaged."""
        if self.averaged == 0:
            return self.model.astype(np.float64), self.intercept.astype(np.float64)
        return self.model_sum / self.averaged, self.intercept_sum / self.averaged

    def without_counts(self) -> State:
        """The same model with loss, rows and bytes counted from zero."""
        return State(self.model, self.intercept, self.model_sum, self.intercept_sum, self.averaged)


def initial_state(problem: Problem) -> State:
    """All zeros."""
    shape = (problem.outputs, problem.columns)
    return State(
        np.zeros(shape, np.float32),
        np.zeros(problem.outputs, np.float32),
        np.zeros(shape),
        np.zeros(problem.outputs),
    )


def advance(job: Job, step: Step, state: State) -> State:
    """Run mini-batch SGD over one window."""
    problem, plan, schedule = job.problem, job.plan, job.schedule
    tiles = plan.training_tiles(step.window, step.epoch)
    if not len(tiles):
        return state
    loaded = load_tiles(open_cached(job.path), problem, tiles)
    model, intercept = state.model.copy(), state.intercept.copy()
    model_sum, intercept_sum = state.model_sum.copy(), state.intercept_sum.copy()
    batches = -(-len(tiles) // job.batch_tiles)
    middle = (0.5 - step.first) / (step.last - step.first)
    average_from = min(max(int(np.ceil(middle * batches)), 0), batches)
    split = problem.estimator == "split"
    kept = schedule.shrinkage if problem.corrected else 0.0
    loss_sum, rows, averaged = loaded.batch.sgd(
        model=model,
        intercept=intercept,
        model_sum=model_sum,
        intercept_sum=intercept_sum,
        loss=problem.loss,
        arithmetic=problem.arithmetic,
        split=split,
        correction=kept,
        variance=problem.variance,
        l2=problem.l2,
        fit_intercept=job.fit_intercept,
        batch_tiles=job.batch_tiles,
        batch_rows=job.batch_rows,
        step_first=schedule.step_at(step.first),
        step_last=schedule.step_at(step.last),
        average_from=average_from if schedule.average else batches,
        seed=plan.seed,
        draw=step.epoch,
    )
    return State(
        model,
        intercept,
        model_sum,
        intercept_sum,
        state.averaged + averaged,
        state.loss_sum + loss_sum,
        state.rows + rows,
        state.bytes_read + loaded.bytes_read,
    )


def merge(start: State, ends: Sequence[State]) -> State:
    """Average the replicas of a round, in their order."""
    if len(ends) == 1:
        return ends[0]
    return State(
        np.mean([e.model.astype(np.float64) for e in ends], axis=0).astype(np.float32),
        np.mean([e.intercept.astype(np.float64) for e in ends], axis=0).astype(np.float32),
        start.model_sum + np.sum([e.model_sum - start.model_sum for e in ends], axis=0),
        start.intercept_sum + np.sum([e.intercept_sum - start.intercept_sum for e in ends], axis=0),
        start.averaged + sum(e.averaged - start.averaged for e in ends),
        start.loss_sum + sum(e.loss_sum - start.loss_sum for e in ends),
        start.rows + sum(e.rows - start.rows for e in ends),
        start.bytes_read + sum(e.bytes_read - start.bytes_read for e in ends),
    )


@dataclass(frozen=True)
class Score:
    """Summed loss of some rows, in scaled coordinates."""

    loss_sum: float
    rows: int
    bytes_read: int


def score(job: Job, window: int, model: F64, intercept: F64, *, held_out: bool) -> Score:
    """Loss of a window's training rows or held-out rows, with the rounding bias taken out.

    For a loss l and a code q of a value a, E l(q.w) exceeds l(a.w) by half of the second
    derivative times the sum of variance times w squared: exactly for the squared loss, to second
    order for the logistic one.
    """
    problem, plan = job.problem, job.plan
    tiles = plan.held_out_tiles(window) if held_out else plan.kept_tiles(window)
    if not len(tiles):
        return Score(0.0, 0, 0)
    loaded = load_tiles(open_cached(job.path), problem, tiles)
    margin = loaded.margins(model.astype(np.float32), intercept.astype(np.float32))
    target = loaded.ordered_targets()
    rounding = (problem.variance.astype(np.float64) * model**2).sum(axis=1)
    loss, curvature = loss_and_curvature(problem.loss, margin.astype(np.float64), target)
    value = loss.sum() - 0.5 * (curvature.sum(axis=0) * rounding).sum()
    return Score(float(value), len(margin), loaded.bytes_read)


def loss_and_curvature(loss: str, margin: F64, target: npt.NDArray[np.floating]) -> tuple[F64, F64]:
    """Loss and its second derivative by the margin, elementwise."""
    if loss == "squared":
        return 0.5 * (margin - target) ** 2, np.ones_like(margin)
    signed = np.where(target > 0.5, margin, -margin)
    tail = np.exp(-np.abs(signed))
    value = np.log1p(tail) + np.maximum(-signed, 0.0)
    return value, tail / (1.0 + tail) ** 2


def total(scores: Sequence[Score]) -> Score:
    """Add scores in their order."""
    return Score(
        sum(s.loss_sum for s in scores),
        sum(s.rows for s in scores),
        sum(s.bytes_read for s in scores),
    )
