"""The executor `native`: the kernels of the C++ core, which take everything that there is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ExecutorError
from ..losses import LOSSES
from .counted import CountedSession
from .protocol import Capabilities, Session, Settings, Trained, Window

if TYPE_CHECKING:
    from ..training.loading import LoadedTiles
    from ..training.options import TrainOptions
    from ..training.problem import F32, Problem

__all__ = ["Native", "executor", "kernel_polynomial", "run_window"]


def kernel_polynomial(problem: Problem) -> tuple[F32, float, float] | None:
    """The polynomial of a problem as the kernels take it."""
    return None if problem.polynomial is None else problem.polynomial.for_kernel(problem.samples)


def run_window(window: Window, tiles: LoadedTiles) -> Trained:
    """Run mini-batch SGD over all tiles of a window."""
    w, problem = window, window.problem
    model, intercept = w.model.copy(), w.intercept.copy()
    model_sum, intercept_sum = np.zeros(model.shape), np.zeros(intercept.shape)
    velocity, intercept_velocity = None, None
    if w.velocity is not None and w.intercept_velocity is not None:
        velocity, intercept_velocity = w.velocity.copy(), w.intercept_velocity.copy()
    reference = None
    if w.anchor is not None:
        mean = w.anchor.gradient, w.anchor.intercept_gradient
        reference = (w.anchor.model, w.anchor.intercept, *mean)
    loss_sum, _, averaged = tiles.batch.sgd(
        model=model,
        intercept=intercept,
        model_sum=model_sum,
        intercept_sum=intercept_sum,
        loss=problem.loss,
        arithmetic=problem.arithmetic,
        split=problem.estimator == "split",
        correction=w.shrinkage,
        variance=problem.variance,
        l1=problem.l1,
        l2=problem.l2,
        fit_intercept=w.fit_intercept,
        batch_tiles=w.batch_tiles,
        batch_rows=w.batch_rows,
        step_first=w.step_first,
        step_last=w.step_last,
        average_from=w.average_from,
        seed=w.seed,
        draw=w.epoch,
        huber_delta=problem.huber_delta,
        momentum=w.momentum,
        velocity=velocity,
        intercept_velocity=intercept_velocity,
        anchor=reference,
        polynomial=kernel_polynomial(problem),
        **tiles.fetching,
    )
    return Trained(
        model, intercept, model_sum, intercept_sum, averaged, loss_sum, velocity, intercept_velocity
    )


class _Session(CountedSession):
    """Runs windows on the calling thread."""

    def __init__(self) -> None:
        super().__init__()
        self._window: Window | None = None
        self._trained: Trained | None = None

    def load(self, window: Window) -> None:
        self.counters()
        self._window, self._trained = window, None

    def run(self, tiles: LoadedTiles) -> None:
        self.counters()
        if self._window is None or self._trained is not None:
            raise ExecutorError("a window is loaded before it is run, and run once")
        with self.counting(tiles):
            self._trained = run_window(self._window, tiles)

    def read(self) -> Trained:
        self.counters()
        if self._trained is None:
            raise ExecutorError("a window is run before its model is read")
        return self._trained

    def close(self) -> None:
        super().close()
        self._window = self._trained = None


class Native:
    """Makes sessions of the native core."""

    name = "native"
    summary = "the kernels of the C++ core"

    def capabilities(self) -> Capabilities:
        """Everything."""
        return Capabilities(
            samples=(1, 2, 4, 8),
            layouts=("packed", "weaved"),
            levels=("uniform", "optimal"),
            scales=("column", "row"),
            losses=tuple(LOSSES),
            estimators=("mean", "split", "polynomial", "refetch"),
            arithmetics=("float", "int16", "int8"),
            solvers=("sgd", "svrg", "gram"),
            penalties=("l1", "l2"),
            outputs=True,
            weights=True,
            momentum=True,
            averaging=True,
        )

    def unavailable(self) -> str | None:
        """Never."""
        return None

    def check(self, problem: Problem, options: TrainOptions, settings: Settings) -> None:
        """There is nothing more to refuse."""

    def largest_step(self, problem: Problem, batch_rows: int, settings: Settings) -> float:
        """There is no limit."""
        return math.inf

    def devices(self, settings: Settings) -> None:
        """As many as there are threads."""

    def open(self, device: str | None, problem: Problem, settings: Settings) -> Session:
        """Begin with counters at zero."""
        return _Session()


executor = Native
