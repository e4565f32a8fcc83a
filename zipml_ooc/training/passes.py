"""Passes over the data as Dask graphs: a task for each window, merged in a fixed order.

Nothing is decided here: the loop gives the job, its model and its step, and gets what a pass adds
up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .curved import curved_variance
from .plan import Plan, Step
from .polynomial import Polynomial
from .polynomial_choice import polynomial_at
from .problem import F32, F64, Problem
from .replicas import State, merge, outset
from .runner import Runner
from .spectrum import Spectrum, measure, sample_windows
from .tasks import Anchor, FullGradient, Job, Score, advance, full_gradient, score, total

__all__ = ["Passes"]

_Part = TypeVar("_Part", Spectrum, FullGradient)


@dataclass(frozen=True)
class Passes:
    """The passes of one run.

    A job is one node of its graph: it is not taken apart, and reaches a worker once.
    """

    runner: Runner
    plan: Plan

    def spectrum(self, job: Job, problem: Problem) -> Spectrum:
        """Second moments of sampled windows."""
        from dask import delayed
        from threadpoolctl import threadpool_limits

        windows, tiles = sample_windows(self.plan, problem)
        task, shared = delayed(measure), delayed(job, traverse=False)
        parts = [
            task(shared, window, tiles, dask_key_name=f"spectrum-window{window}")
            for window in windows
        ]
        # Dask runs the windows side by side; BLAS threads on top of that only get in the way.
        with threadpool_limits(limits=1, user_api="blas"):
            return self.runner.compute(delayed(_sum)(parts, dask_key_name="spectrum-sum"))  # type: ignore[no-any-return]

    def curved_variance(self, job: Job, problem: Problem, estimate: tuple[F64, F64]) -> F32:
        """Rounding variances weighted by the curvature of the loss at a model."""
        from dask import delayed

        task = delayed(curved_variance)(delayed(job, traverse=False), problem, *estimate)
        return self.runner.compute(task)  # type: ignore[no-any-return]

    def polynomial(self, job: Job, problem: Problem, estimate: tuple[F64, F64]) -> Polynomial:
        """The polynomial that suits the margins of a model."""
        from dask import delayed

        task = delayed(polynomial_at)(delayed(job, traverse=False), problem, *estimate)
        return self.runner.compute(task)  # type: ignore[no-any-return]

    def rounds(
        self,
        job: Job,
        rounds: Sequence[tuple[int, list[Step]]],
        state: State,
        anchor: Anchor | None = None,
    ) -> State:
        """Advance the replicas through some rounds of an epoch; each comes with its number."""
        from dask import delayed

        task, shared = delayed(advance), delayed(job, traverse=False)
        known = None if anchor is None else delayed(anchor, traverse=False)
        value: Any = delayed(state, traverse=False)
        for number, steps in rounds:
            epoch = steps[0].epoch
            begin = delayed(outset)(value, dask_key_name=f"begin-epoch{epoch}-round{number}")
            ends = [
                task(
                    shared,
                    step,
                    begin,
                    known,
                    dask_key_name=f"advance-epoch{epoch}-window{step.window}",
                )
                for step in steps
            ]
            name = f"merge-epoch{epoch}-round{number}"
            value = delayed(merge)(value, ends, job.channel, dask_key_name=name)
        return self.runner.compute(value)  # type: ignore[no-any-return]

    def full_gradient(
        self, job: Job, model: F32, intercept: F32, *, epoch: int, name: str
    ) -> FullGradient:
        """Gradient over all training rows."""
        from dask import delayed

        task, shared = delayed(full_gradient), delayed(job, traverse=False)
        at = delayed(model, traverse=False), delayed(intercept, traverse=False)
        parts = [
            task(shared, window, *at, epoch=epoch, dask_key_name=f"{name}-window{window}")
            for window in range(self.plan.windows)
        ]
        return self.runner.compute(delayed(_sum)(parts, dask_key_name=f"{name}-sum"))  # type: ignore[no-any-return]

    def score(self, job: Job, model: F64, intercept: F64, *, held_out: bool) -> Score:
        """Loss over the training rows, or over those held out."""
        from dask import delayed

        name = "validate" if held_out else "evaluate"
        task, shared = delayed(score), delayed(job, traverse=False)
        at = delayed(model, traverse=False), delayed(intercept, traverse=False)
        parts = [
            task(shared, window, *at, held_out=held_out, dask_key_name=f"{name}-window{window}")
            for window in range(self.plan.windows)
        ]
        return self.runner.compute(delayed(total)(parts, dask_key_name=f"{name}-total"))  # type: ignore[no-any-return]


def _sum(parts: list[_Part]) -> _Part:
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out
