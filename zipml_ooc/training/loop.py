"""Training: epochs of rounds of replicas, as Dask graphs over windows of encoded tiles."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from zipml_codecs import TILE_ROWS

from ..dataset import Dataset, open_dataset
from ..errors import ZipmlError
from ..model import LinearModel
from .options import TrainOptions
from .plan import Plan, make_plan
from .problem import F64, Problem, make_problem, resolve_sampling
from .runner import Runner, open_runner
from .spectrum import Spectrum, measure, sample_windows, shrinkage, step_size
from .tasks import Job, Schedule, Score, State, advance, initial_state, merge, score, total

__all__ = ["EpochRecord", "TrainResult", "TrainingError", "train"]

# A loss this many times that of the zero model means that the iteration has left for good.
_DIVERGED = 4.0
_RESTARTS = 6


class TrainingError(ZipmlError):
    """Training did not get anywhere; the message says what to change."""


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; losses are those of the target's own units.

    `loss` is the mean loss of a row with the model as it was before the row's mini-batch;
    `validation_loss` that of the model at its end on the held-out rows (the averaged model, once
    the run has begun to average). Both have the rounding
    bias taken out, so that they estimate the loss on the unquantised data.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    seconds: float
    bytes_read: int


@dataclass(frozen=True)
class TrainResult:
    """A trained model and how it came about.

    Attributes
    ----------
    model : LinearModel
    epochs : tuple of EpochRecord
    loss : float
        Mean loss of the training rows under the final model.
    validation_loss : float or None
    seconds : float
    """

    model: LinearModel
    epochs: tuple[EpochRecord, ...]
    loss: float
    validation_loss: float | None
    seconds: float


Progress = Callable[[EpochRecord, int], None]
"""Called as progress(epoch record, epochs in all) after each epoch."""


def train(
    dataset: Dataset | str | os.PathLike[str],
    options: TrainOptions = TrainOptions(),  # noqa: B008 - frozen
    *,
    threads: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a linear model on a compressed dataset.

    Parameters
    ----------
    dataset : Dataset or path
    options : TrainOptions
    threads, workers, scheduler
        Where to compute, see `zipml_ooc.training.runner.open_runner`. The model does not depend
        on it: it is the same bit for bit.
    progress : callable, optional

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
        The iteration diverged with the step size that was asked for.

    Examples
    --------
    >>> from zipml_ooc import TrainOptions, train
    >>> result = train("cadata.zarr", TrainOptions(l2=1e-4))  # doctest: +SKIP
    >>> result.model.save("cadata.zipml")  # doctest: +SKIP
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    problem = make_problem(opened.spec, options)
    plan = make_plan(opened.spec, options)
    with open_runner(threads=threads, workers=workers, scheduler=scheduler) as runner:
        return _Run(opened, options, problem, plan, runner).train(progress)


class _Run:
    """One call of `train`: what all its steps share."""

    def __init__(
        self, dataset: Dataset, options: TrainOptions, problem: Problem, plan: Plan, runner: Runner
    ) -> None:
        self._dataset, self._options = dataset, options
        self._problem, self._plan, self._runner = problem, plan, runner
        # Step and shrinkage are not known before the spectrum is.
        batch_tiles = min(options.batch_tiles, plan.window_tiles, plan.tiles)
        self._job = Job(
            path=dataset.store.place,
            problem=problem,
            plan=plan,
            schedule=Schedule(step_size=0.0, shrinkage=0.0, average=options.average),
            fit_intercept=options.fit_intercept,
            # No mini-batch reaches beyond its window: a larger one would only shrink the step.
            batch_tiles=batch_tiles,
            batch_rows=min(batch_tiles * TILE_ROWS, dataset.spec.rows),
        )

    def _shared(self) -> Any:
        """The job as one node of the graph: it is not taken apart, and reaches a worker once."""
        from dask import delayed

        return delayed(self._job, traverse=False)

    def train(self, progress: Progress | None) -> TrainResult:
        began = time.perf_counter()
        schedule = self._schedule()
        for _ in range(_RESTARTS):
            self._job = replace(self._job, schedule=schedule)
            outcome = self._epochs(progress)
            if outcome is not None:
                break
            if self._options.step_size is not None:
                raise TrainingError(
                    f"training diverged with step size {schedule.step_size:g}: use a smaller one "
                    "or leave it out to have it chosen; if that does not help, try --sampling "
                    "naive, more bits, or an l2 penalty"
                )
            schedule = replace(schedule, step_size=schedule.step_size / 4)
        else:
            raise TrainingError(
                f"training diverged down to step size {schedule.step_size:g}: try "
                "--sampling naive, more bits, or an l2 penalty"
            )
        estimate, records, validation_loss = outcome
        final = self._score(*estimate, held_out=False)
        loss = self._mean_loss(final.loss_sum, final.rows)
        return TrainResult(
            model=self._model(estimate, schedule, records, loss),
            epochs=tuple(records),
            loss=loss,
            validation_loss=validation_loss,
            seconds=time.perf_counter() - began,
        )

    def _schedule(self) -> Schedule:
        options = self._options
        step, kept = options.step_size, options.shrinkage
        if step is None or (kept is None and self._problem.corrected):
            spectrum = self._spectrum()
            step = step or step_size(spectrum, self._problem, self._job.batch_rows)
            kept = shrinkage(spectrum, self._problem) if kept is None else kept
        kept = kept or 0.0
        return Schedule(step_size=step, shrinkage=kept, average=options.average)

    def _spectrum(self) -> Spectrum:
        from dask import delayed
        from threadpoolctl import threadpool_limits

        windows, tiles = sample_windows(self._plan, self._problem)
        task, job = delayed(measure), self._shared()
        parts = [
            task(job, window, tiles, dask_key_name=f"spectrum-window{window}") for window in windows
        ]
        # Dask runs the windows side by side; BLAS threads on top of that only get in the way.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._runner.compute(delayed(_sum)(parts, dask_key_name="spectrum-sum"))  # type: ignore[no-any-return]

    def _epochs(
        self, progress: Progress | None
    ) -> tuple[tuple[F64, F64], list[EpochRecord], float | None] | None:
        """Run all epochs; None if the iteration diverged."""
        state = initial_state(self._problem)
        records: list[EpochRecord] = []
        kept, kept_loss, waited = state.estimate(), None, 0
        for epoch in range(self._plan.epochs):
            began = time.perf_counter()
            state = self._epoch(epoch, state.without_counts())
            loss = self._mean_loss(state.loss_sum, state.rows)
            if not self._sound(state):
                return None
            estimate = state.estimate()
            read, validation = state.bytes_read, None
            if self._plan.held_out:
                held_out = self._score(*estimate, held_out=True)
                validation = self._mean_loss(held_out.loss_sum, held_out.rows)
                read += held_out.bytes_read
            records.append(
                EpochRecord(
                    epoch=epoch + 1,
                    loss=loss,
                    validation_loss=validation,
                    seconds=time.perf_counter() - began,
                    bytes_read=read,
                )
            )
            if progress is not None:
                progress(records[-1], self._plan.epochs)
            if self._options.patience is None or validation is None:
                kept, kept_loss = estimate, validation
            elif kept_loss is None or validation < kept_loss:
                kept, kept_loss, waited = estimate, validation, 0
            else:
                waited += 1
                if waited >= self._options.patience:
                    break
        return kept, records, kept_loss

    def _epoch(self, epoch: int, state: State) -> State:
        from dask import delayed

        task, job = delayed(advance), self._shared()
        value: Any = delayed(state, traverse=False)
        for number, steps in enumerate(self._plan.rounds(epoch)):
            ends = [
                task(job, step, value, dask_key_name=f"advance-epoch{epoch}-window{step.window}")
                for step in steps
            ]
            value = delayed(merge)(value, ends, dask_key_name=f"merge-epoch{epoch}-round{number}")
        return self._runner.compute(value)  # type: ignore[no-any-return]

    def _score(self, model: F64, intercept: F64, *, held_out: bool) -> Score:
        from dask import delayed

        name = "validate" if held_out else "evaluate"
        task, job = delayed(score), self._shared()
        at = delayed(model, traverse=False), delayed(intercept, traverse=False)
        parts = [
            task(job, window, *at, held_out=held_out, dask_key_name=f"{name}-window{window}")
            for window in range(self._plan.windows)
        ]
        return self._runner.compute(delayed(total)(parts, dask_key_name=f"{name}-total"))  # type: ignore[no-any-return]

    def _mean_loss(self, loss_sum: float, rows: int) -> float:
        return loss_sum / max(rows, 1) * self._problem.loss_unit

    def _sound(self, state: State) -> bool:
        at_zero = 0.5 * self._problem.outputs if self._problem.loss == "squared" else math.log(2.0)
        mean = state.loss_sum / max(state.rows, 1)
        finite = np.isfinite(state.model).all() and np.isfinite(state.intercept).all()
        # A loss that is far below zero has the rounding bias of a runaway model taken out of it.
        # That of the squared loss may be somewhat below zero by chance, like any estimate.
        return bool(finite) and math.isfinite(mean) and abs(mean) <= _DIVERGED * at_zero

    def _model(
        self, estimate: tuple[F64, F64], schedule: Schedule, records: list[EpochRecord], loss: float
    ) -> LinearModel:
        spec, options = self._dataset.spec, self._options
        coef, intercept = self._problem.to_model(*estimate)
        kept = ("epoch", "loss", "validation_loss")
        record = {
            "options": options.to_dict(),
            "sampling": resolve_sampling(spec, options),
            "arithmetic": self._problem.arithmetic,
            "step_size": schedule.step_size,
            "shrinkage": schedule.shrinkage if self._problem.corrected else None,
            "replicas": self._plan.replicas,
            "rows": spec.rows,
            "bits": spec.quantizer.bits,
            "samples": spec.quantizer.samples,
            "loss": loss,
            # No times and bytes: equal runs give equal files, whatever the machine and chunks.
            "epochs": [{k: v for k, v in asdict(r).items() if k in kept} for r in records],
            "source": dict(spec.source),
        }
        return LinearModel(
            loss=self._problem.loss,
            coef=coef,
            intercept=intercept,
            columns=spec.columns,
            mean=spec.mean,
            scale=spec.scale,
            targets=spec.targets,
            classes=spec.classes,
            encoder=dict(spec.encoder),
            record=record,
        )


def _sum(parts: list[Spectrum]) -> Spectrum:
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out
