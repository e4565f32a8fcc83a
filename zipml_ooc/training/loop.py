"""Training, from the options to the model: what there is to compute with, and then the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..dataset import Dataset, open_dataset
from .checkpoints import Checkpoints, Keeper, fingerprint
from .options import TrainOptions
from .plan import make_plan
from .precision import precisions_of
from .problem import make_problem
from .reading import budget_of
from .replicas import initial_state
from .results import Progress, TrainResult
from .run import Run
from .runner import open_runner
from .skipping import NOTHING_SKIPPED, find_damaged
from .steps_on import StepsOn
from .weights import row_weights

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["train"]


def train(
    dataset: Dataset | str | os.PathLike[str],
    options: TrainOptions = TrainOptions(),  # noqa: B008 - frozen
    *,
    threads: int | None = None,
    workers: int | None = None,
    scheduler: str | Client | None = None,
    memory: int | str | None = None,
    scheduler_file: str | os.PathLike[str] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train a linear model on a compressed dataset.

    Parameters
    ----------
    dataset : Dataset or path
    options : TrainOptions
    threads, workers, scheduler, scheduler_file
        Where to compute, see `zipml_ooc.training.runner.open_runner`. The model does not depend
        on it: it is the same bit for bit.
    memory : int or str, optional
        What encoded chunks and targets may take, those that are fetched ahead included: bytes, or
        ``"512MB"``. Threads share it, local workers divide it, and each worker of a scheduler has
        as much. By default a quarter of the machine's memory.
    checkpoints : Checkpoints, optional
        Save the run on its way, and go on from where an earlier one was saved. A run that was
        stopped and went on gives the same model, bit for bit, as one that was not.
    progress : callable, optional
    notice : callable, optional
        Called with lines that a person should see, of checkpoints and executors; by default they
        are logged as warnings of the logger ``zipml_ooc``.

    Returns
    -------
    TrainResult

    Raises
    ------
    UsageError
        Options that do not fit the dataset.
    DataError
        A chunk is missing or damaged.
    TrainingError
        The run diverged; it has the last good model.
    ExecutorError
        The executor's device is lost.

    Examples
    --------
    >>> from zipml_ooc import TrainOptions, train
    >>> result = train("cadata.zarr", TrainOptions(l2=1e-4))  # doctest: +SKIP
    >>> result.model.save("cadata.zipml")  # doctest: +SKIP
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    problems = [
        make_problem(opened.spec, replace(options, bits=bits))
        for bits in precisions_of(opened.spec, options.bits)
    ]
    say = notice or logging.getLogger("zipml_ooc").warning
    steps_on = StepsOn.of(opened.spec, options, problems, say)
    elsewhere = scheduler is not None or scheduler_file is not None
    budget = budget_of(memory, workers=workers, elsewhere=elsewhere)
    keeper = None
    if checkpoints is not None:
        keeper = Keeper(checkpoints, opened.spec, options, say)
    with open_runner(
        threads=threads,
        workers=workers,
        scheduler=scheduler,
        scheduler_file=scheduler_file,
        place=opened.store.place,
        fingerprint=fingerprint(opened.spec),
        needs=None if steps_on is None else steps_on.needs(threads),
    ) as runner:
        skipped = NOTHING_SKIPPED
        if options.on_error == "skip":
            needed = list(problems)
            if options.full_gradient_bits is not None:
                more = replace(options, bits=options.full_gradient_bits)
                needed.append(make_problem(opened.spec, more))
            skipped = find_damaged(opened, needed, runner, budget)
        weights = row_weights(problems[0], opened, options, skipped.chunks)
        problems = [replace(problem, weights=weights) for problem in problems]
        plan = make_plan(opened.spec, options, skipped.tiles(opened.spec))
        course = None
        if keeper is not None:
            course = keeper.load(plan, initial_state(problems[0], momentum=options.momentum))
        run = Run(
            opened, options, problems, plan, runner, budget, keeper, course, skipped, steps_on
        )
        if steps_on is None:
            return run.solve(progress) if options.solver == "gram" else run.train(progress)
        try:
            return run.train(progress)
        finally:
            runner.everywhere(steps_on.chosen.close)
