"""Training: when to step, how far, what to keep and when to stop; `passes` computes."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace

import numpy as np
from zipml_codecs import TILE_ROWS

from ..dataset import Dataset, open_dataset
from ..model import LinearModel
from . import gram
from .channels import Channel
from .curved import applies
from .divergence import FALLING, Watch, Weakest, advice, curvature, weakest
from .options import TrainOptions
from .passes import Passes
from .plan import Plan, make_plan
from .precision import AUTO, Stages, precisions_of
from .problem import F32, F64, Problem, make_problem, resolve_sampling
from .replicas import State, initial_state
from .results import EpochRecord, Progress, TrainingError, TrainResult
from .runner import Runner, open_runner
from .schedules import Schedule
from .spectrum import shrinkage, step_size
from .tasks import Anchor, FullGradient, Job, Score
from .weights import row_weights

__all__ = ["train"]

_RESTARTS = 6
# The noise of SVRG grows with the distance to its anchor and so feeds itself: what SGD bears, it
# bears only just. At a quarter it came closest in the same time (docs/training.md).
_SVRG_STEP = 0.25
# Accelerated proximal steps that the average of the iterates takes under an L1 penalty: averaging
# leaves small numbers where each iterate had zeros. Each is a pass over the data without updates.
_POLISH_STEPS = 10


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
        The run diverged; it has the last good model.

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
    weights = row_weights(problems[0], opened, options)
    problems = [replace(problem, weights=weights) for problem in problems]
    plan = make_plan(opened.spec, options)
    with open_runner(threads=threads, workers=workers, scheduler=scheduler) as runner:
        run = _Run(opened, options, problems, plan, runner)
        return run.solve(progress) if options.solver == "gram" else run.train(progress)


class _Run:
    """One call of `train`: what all its steps share."""

    def __init__(
        self,
        dataset: Dataset,
        options: TrainOptions,
        problems: list[Problem],  # one for each precision, in their order
        plan: Plan,
        runner: Runner,
    ) -> None:
        self._dataset, self._options = dataset, options
        problem = problems[0]
        self._problems, self._problem = problems, problem
        self._plan, self._passes = plan, Passes(runner, plan)
        self._weak: Weakest | None = None
        # Step and shrinkage are not known before the spectrum is.
        batch_tiles = min(options.batch_tiles, plan.window_tiles, plan.tiles)
        channel = None
        if options.gradient_bits < 32:
            channel = Channel(options.gradient_bits, options.gradient_norm, options.seed)
        self._job = Job(
            path=dataset.store.place,
            problem=problem,
            plan=plan,
            schedule=self._steps(step=0.0, kept=0.0),
            fit_intercept=options.fit_intercept,
            # No mini-batch reaches beyond its window: a larger one would only shrink the step.
            batch_tiles=batch_tiles,
            batch_rows=min(batch_tiles * TILE_ROWS, dataset.spec.rows),
            channel=channel,
            gradient_problem=None
            if options.full_gradient_bits is None
            else replace(
                make_problem(dataset.spec, replace(options, bits=options.full_gradient_bits)),
                weights=problem.weights,
            ),
        )

    def _steps(self, *, step: float, kept: float) -> Schedule:
        options = self._options
        return Schedule(
            step_size=step,
            shrinkage=kept,
            average=options.average and options.solver == "sgd",
            name=options.step_schedule,
            momentum=options.momentum,
        )

    def train(self, progress: Progress | None) -> TrainResult:
        """Take steps, with smaller ones if the run diverges and the step was ours to choose."""
        began = time.perf_counter()
        schedule = self._schedule()
        for attempt in range(_RESTARTS):
            self._job = replace(self._job, schedule=schedule)
            estimate, records, validation_loss, reason = self._epochs(progress)
            if reason is None:
                break
            if reason == FALLING and self._options.shrinkage is None and attempt < _RESTARTS - 1:
                # What the guard allowed, by a first-order estimate, was too much.
                kept = schedule.shrinkage / 4 if attempt < _RESTARTS - 2 else 0.0
                schedule = replace(schedule, shrinkage=kept)
                continue
            # A smaller step cures neither a step that was asked for nor a loss without a minimum.
            given = self._options.step_size is not None
            if given or reason == FALLING or attempt == _RESTARTS - 1:
                good = None
                if records:
                    good = self._model(estimate, schedule, records, records[-1].loss)
                raise TrainingError(advice(reason, self._options, schedule), good)
            schedule = replace(schedule, step_size=schedule.step_size / 4)
        schedule = self._job.schedule
        if self._problem.l1 is not None and schedule.average:
            estimate = self._polished(estimate)
        final = self._score(*estimate, held_out=False)
        loss = self._mean_loss(final.loss_sum, final.rows)
        return TrainResult(
            model=self._model(estimate, schedule, records, loss),
            epochs=tuple(records),
            loss=loss,
            validation_loss=validation_loss,
            seconds=time.perf_counter() - began,
        )

    def solve(self, progress: Progress | None) -> TrainResult:
        """Take no steps: solve for the model from second moments."""
        began, schedule = time.perf_counter(), self._schedule()
        self._job = replace(self._job, schedule=schedule)
        try:
            found = gram.fit(self._job, self._passes.runner, self._options)
        except gram.Indefinite as error:
            raise TrainingError(advice(FALLING, self._options, schedule)) from error
        seconds = time.perf_counter() - began
        records = [EpochRecord(1, found.loss, found.validation_loss, seconds, found.bytes_read)]
        if progress is not None:
            progress(records[0], 1)
        estimate = found.model, found.intercept
        schedule = replace(schedule, shrinkage=found.shrinkage)
        return TrainResult(
            model=self._model(estimate, schedule, records, found.loss),
            epochs=tuple(records),
            loss=found.loss,
            validation_loss=found.validation_loss,
            seconds=seconds,
            l2_path=found.path,
        )

    def _schedule(self) -> Schedule:
        options = self._options
        step, kept = options.step_size, options.shrinkage
        if step is None or (kept is None and self._problem.corrected):
            spectrum = self._passes.spectrum(self._job, self._problem)
            if step is None:
                step = step_size(spectrum, self._problem, self._job.batch_rows)
                step *= _SVRG_STEP if options.solver == "svrg" else 1.0
            if kept is None:
                kept = shrinkage(spectrum, self._problem)
            elif self._problem.corrected:  # nobody has seen to it that there is a minimum
                self._weak = weakest(spectrum, self._problem, kept)
        return self._steps(step=step, kept=kept or 0.0)

    def _epochs(
        self, progress: Progress | None
    ) -> tuple[tuple[F64, F64], list[EpochRecord], float | None, str | None]:
        """Run all epochs; with the reason to stop if the run diverged, and the last good model."""
        state = initial_state(self._problem, momentum=self._options.momentum)
        self._problem = self._problems[0]
        self._job = replace(self._job, problem=self._problem)
        auto = self._options.bits == AUTO
        stages = Stages(len(self._problems), self._plan.epochs, auto=auto)
        watch = self._watch()
        records: list[EpochRecord] = []
        curves = applies(self._problem, by_row=self._dataset.spec.quantizer.by_row)
        kept, kept_loss, waited = state.estimate(), None, 0
        for epoch in range(self._plan.epochs):
            began = time.perf_counter()
            if stages.next_epoch(epoch, records):
                self._read_at(stages.stage)
                watch = self._watch()
            state = self._epoch(epoch, state.without_counts())
            estimate = state.estimate()
            if curves:  # rounding variances weighted by the curvature of the loss at this model
                curved = self._passes.curved_variance(self._job, self._problem, estimate)
                self._job = replace(self._job, problem=replace(self._problem, variance=curved))
            read, validation = state.bytes_read, None
            last = epoch == self._plan.epochs - 1
            reason = watch.leaving(state, part=(epoch + 0.5) / self._plan.epochs, last=last)
            if reason is None and self._plan.held_out:
                held_out = self._score(*estimate, held_out=True)
                validation = self._mean_loss(held_out.loss_sum, held_out.rows)
                read += held_out.bytes_read
                reason = watch.useless(held_out)
            if reason is None and watch.doubts(estimate, last=last):
                reason, looked = self._look(watch, estimate, epoch)
                read += looked
            if reason is not None:
                good = watch.good if reason == FALLING else watch.best
                return good or kept, records, kept_loss, reason
            records.append(
                EpochRecord(
                    epoch=epoch + 1,
                    loss=self._mean_loss(state.loss_sum, state.rows),
                    validation_loss=validation,
                    seconds=time.perf_counter() - began,
                    bytes_read=read,
                    bits=self._problem.precision,
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
        return kept, records, kept_loss, None

    def _watch(self) -> Watch:
        steps = self._plan.tiles / self._job.batch_tiles / self._plan.replicas
        return Watch(self._problem, self._job.schedule, steps=steps, weak=self._weak)

    def _read_at(self, stage: int) -> None:
        """Go on at the next precision: the step stays, the correction is chosen again."""
        step = self._job.schedule.step_size
        self._problem = self._problems[stage]
        self._job = replace(self._job, problem=self._problem)
        self._job = replace(self._job, schedule=replace(self._schedule(), step_size=step))

    def _look(self, watch: Watch, estimate: tuple[F64, F64], epoch: int) -> tuple[str | None, int]:
        """Whether the corrected loss falls without end on the way to a model; and bytes read."""
        start = watch.good or estimate
        slopes = [
            self._full_gradient(
                model.astype(np.float32), intercept.astype(np.float32), epoch, f"look{i}-{epoch}"
            )
            for i, (model, intercept) in enumerate((start, estimate))
        ]
        read = sum(slope.bytes_read for slope in slopes)
        if curvature(self._problem, start, estimate, *slopes) < 0:
            return FALLING, read
        return None, read

    def _epoch(self, epoch: int, state: State) -> State:
        """Go through the data once; SVRG refers to the model of this moment, its anchor."""
        if self._options.solver != "svrg":
            return self._passes.epoch(self._job, epoch, state)
        model, intercept = state.model, state.intercept
        full = self._full_gradient(model, intercept, epoch, f"gradient-epoch{epoch}")
        gradient, down = full.model / full.rows, full.intercept / full.rows
        anchor = Anchor(model, intercept, gradient.astype(np.float32), down.astype(np.float32))
        start = replace(state, bytes_read=full.bytes_read)
        return self._passes.epoch(self._job, epoch, start, anchor)

    def _full_gradient(self, model: F32, intercept: F32, epoch: int, name: str) -> FullGradient:
        return self._passes.full_gradient(self._job, model, intercept, epoch=epoch, name=name)

    def _score(self, model: F64, intercept: F64, *, held_out: bool) -> Score:
        return self._passes.score(self._job, model, intercept, held_out=held_out)

    def _polished(self, estimate: tuple[F64, F64]) -> tuple[F64, F64]:
        """Bring an average back to exact zeros by a few proximal steps along full gradients."""
        step, problem = self._job.schedule.step_size, self._problem
        l1 = 0.0 if problem.l1 is None else problem.l1.astype(np.float64)
        (model, intercept), (ahead, down) = estimate, estimate
        for number in range(_POLISH_STEPS):
            at = ahead.astype(np.float32), down.astype(np.float32)
            full = self._full_gradient(*at, self._plan.epochs, f"polish{number}")
            before, below = model, intercept
            moved = ahead - step * full.model / full.rows
            left = np.maximum(np.abs(moved) - step * l1, 0.0)
            model = np.copysign(left, moved) / (1.0 + step * problem.l2.astype(np.float64)) + 0.0
            if self._options.fit_intercept:
                intercept = down - step * full.intercept / full.rows
            further = number / (number + 3)  # Nesterov's weights
            ahead, down = (
                model + further * (model - before),
                intercept + further * (intercept - below),
            )
        return model, intercept

    def _mean_loss(self, loss_sum: float, rows: float) -> float:
        return loss_sum / (rows or 1) * self._problem.loss_unit

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
            "solver": options.solver,
            "step_size": schedule.step_size,
            "shrinkage": schedule.shrinkage if self._problem.corrected else None,
            "replicas": self._plan.replicas,
            "rows": spec.rows,
            "bits": self._problem.precision,
            "samples": spec.quantizer.samples,
            "loss": loss,
            # No times and bytes: equal runs give equal files, whatever the machine and chunks.
            "epochs": [{k: v for k, v in asdict(r).items() if k in kept} for r in records],
            "source": dict(spec.source),
        }
        if self._problem.loss == "huber":
            record["huber_delta"] = self._problem.huber_delta * float(self._problem.target_std[0])
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
