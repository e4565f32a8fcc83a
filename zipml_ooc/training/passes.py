"""Passes over the data as Dask graphs: a task for some windows, merged in a fixed order.

Nothing is decided here: the loop gives the job, its model and its step, and gets what a pass adds
up. Which windows share a task depends on where it is computed, what is computed does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import ExecutorError
from . import laps
from .curved import curved_variance
from .executing import Lost
from .graph import Graph, same
from .homes import at_home, find_homes
from .plan import Plan, Step
from .polynomial import Polynomial
from .polynomial_choice import polynomial_at
from .problem import F32, F64, Problem
from .replicas import State
from .runner import Runner
from .spectrum import Spectrum, measure, sample_windows
from .tasks import Anchor, FullGradient, Job, Score, full_gradient, score

__all__ = ["Passes"]

_Part = TypeVar("_Part", Spectrum, FullGradient, Score)
# A pass without steps has so many tasks at most, and sums take in so many results at a time.
_TASKS, _AT_ONCE = 256, 16


@dataclass(frozen=True)
class Passes:
    """The passes of one run.

    A job is one node of its graphs: it is not taken apart, and reaches a worker once.
    """

    runner: Runner
    plan: Plan

    def spectrum(self, job: Job, problem: Problem) -> Spectrum:
        """Second moments of sampled windows."""
        from threadpoolctl import threadpool_limits

        groups, tiles = sample_windows(self.plan, problem)
        graph, shared = Graph(), self.runner.share("job", job)
        homes = find_homes(self.runner, self.plan, graph)
        parts = [
            graph.add(
                f"spectrum-window{windows}",
                measure,
                shared,
                windows,
                tiles,
                **at_home(homes, windows[0], knows=False),
            )
            for windows in groups
        ]
        # Dask runs the windows side by side; BLAS threads on top of that only get in the way.
        with threadpool_limits(limits=1, user_api="blas"):
            return self.runner.compute(graph, _summed(graph, "spectrum", parts))  # type: ignore[no-any-return]

    def curved_variance(self, job: Job, problem: Problem, estimate: tuple[F64, F64]) -> F32:
        """Rounding variances weighted by the curvature of the loss at a model."""
        graph, shared = Graph(), self.runner.share("job", job)
        key = graph.add("curvature", curved_variance, shared, problem, *estimate)
        return self.runner.compute(graph, key)  # type: ignore[no-any-return]

    def polynomial(self, job: Job, problem: Problem, estimate: tuple[F64, F64]) -> Polynomial:
        """The polynomial that suits the margins of a model."""
        graph, shared = Graph(), self.runner.share("job", job)
        key = graph.add("polynomial", polynomial_at, shared, problem, *estimate)
        return self.runner.compute(graph, key)  # type: ignore[no-any-return]

    def rounds(
        self,
        job: Job,
        rounds: Sequence[tuple[int, list[Step]]],
        state: State,
        anchor: Anchor | None = None,
    ) -> State:
        """Advance the replicas through some rounds of an epoch; each comes with its number.

        If no worker is left for them, the native core runs them where that is wanted.
        """
        try:
            return self._rounds(job, rounds, state, anchor)
        except ExecutorError as error:
            if job.chosen is None or not job.chosen.falls_back:
                raise
            first = rounds[0][1][0]
            lost = Lost(job.chosen.name, first.epoch, first.window, str(error))
            found = self._rounds(replace(job, chosen=None), rounds, state, anchor)
            return replace(found, lost=lost)

    def _rounds(
        self,
        job: Job,
        rounds: Sequence[tuple[int, list[Step]]],
        state: State,
        anchor: Anchor | None,
    ) -> State:
        runner = self.runner
        graph = Graph(None if job.chosen is None else job.chosen.resource)
        shared = runner.share("job", job)
        known = None if anchor is None else runner.share("anchor", anchor)
        key = laps.rounds(
            graph,
            shared,
            rounds,
            state,
            known,
            channel=job.channel,
            homes=find_homes(runner, self.plan, graph),
        )
        return runner.compute(graph, key)  # type: ignore[no-any-return]

    def full_gradient(
        self, job: Job, model: F32, intercept: F32, *, epoch: int, name: str
    ) -> FullGradient:
        """Gradient over all training rows."""
        graph = Graph()
        return self._over_windows(  # type: ignore[no-any-return]
            graph, name, full_gradient, job, (model, intercept), epoch=epoch
        )

    def score(self, job: Job, model: F64, intercept: F64, *, held_out: bool) -> Score:
        """Loss over the training rows, or over those held out."""
        graph, name = Graph(), "validate" if held_out else "evaluate"
        return self._over_windows(  # type: ignore[no-any-return]
            graph, name, score, job, (model, intercept), held_out=held_out
        )

    def _over_windows(
        self,
        graph: Graph,
        name: str,
        function: Callable[..., Any],
        job: Job,
        at: tuple[Any, Any],
        **options: Any,
    ) -> Any:
        """Sum over all windows of what a function of the job, a window and a model gives."""
        shared, windows = self.runner.share("job", job), self.plan.windows
        homes = find_homes(self.runner, self.plan, graph)
        model = [graph.add(f"{name}-at{i}", same, part) for i, part in enumerate(at)]
        # By the plan alone: sums must not depend on who computes them.
        each = -(-windows // _TASKS)
        parts = [
            graph.add(
                f"{name}-window{first}",
                _sum_over,
                function,
                shared,
                range(first, min(first + each, windows)),
                *model,
                **options,
                **at_home(homes, first),
            )
            for first in range(0, windows, each)
        ]
        return self.runner.compute(graph, _summed(graph, name, parts))


def _sum_over(
    function: Callable[..., _Part],
    job: Job,
    windows: range,
    model: Any,
    intercept: Any,
    **options: Any,
) -> _Part:
    return _sum([function(job, window, model, intercept, **options) for window in windows])


def _summed(graph: Graph, name: str, parts: list[str]) -> str:
    """Add up parts from the first to the last, a few at a time, so that they can be let go."""
    total: list[str] = []
    for start in range(0, len(parts), _AT_ONCE):
        taken = total + parts[start : start + _AT_ONCE]
        total = [graph.add(f"{name}-sum-{start}", _sum, taken)]
    return total[0]


def _sum(parts: list[_Part]) -> _Part:
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out
