"""The job of a run, from what it was asked for."""

from __future__ import annotations

from dataclasses import replace

from zipml_codecs import TILE_ROWS

from ..dataset import Dataset
from .channels import Channel
from .executing import Chosen
from .options import TrainOptions
from .plan import Plan
from .problem import Problem, make_problem
from .schedules import Schedule
from .tasks import Job

__all__ = ["make_job"]


def make_job(
    dataset: Dataset,
    options: TrainOptions,
    problem: Problem,
    plan: Plan,
    schedule: Schedule,
    budget: int | None,
    chosen: Chosen | None,
) -> Job:
    """Put together what all tasks of a run share."""
    batch_tiles = min(options.batch_tiles, plan.window_tiles, plan.tiles)
    channel = None
    if options.gradient_bits < 32:
        channel = Channel(options.gradient_bits, options.gradient_norm, options.seed)
    gradient_problem = None
    if options.full_gradient_bits is not None:
        more = replace(options, bits=options.full_gradient_bits)
        gradient_problem = replace(make_problem(dataset.spec, more), weights=problem.weights)
    return Job(
        path=dataset.store.place,
        stamp=dataset.stamp,
        cache_bytes=budget,
        problem=problem,
        plan=plan,
        schedule=schedule,
        fit_intercept=options.fit_intercept,
        # No mini-batch reaches beyond its window: a larger one would only shrink the step.
        batch_tiles=batch_tiles,
        batch_rows=min(batch_tiles * TILE_ROWS, dataset.spec.rows),
        channel=channel,
        gradient_problem=gradient_problem,
        chosen=chosen,
    )
