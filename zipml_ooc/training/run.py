"""One run: when to step, how far, what to keep and when to stop; `passes` computes.

All that changes on the way is a `Course`: it is replaced between rounds and between epochs, and
then saved if it is time to. A run that goes on begins with the course that was saved.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..dataset import Dataset
from ..errors import UsageError
from ..model import LinearModel
from . import gram
from .checkpoints import Keeper
from .course import Course, Setting
from .curved import applies
from .divergence import FALLING, UNFIT, Seen, Watch, advice, curvature, weakest
from .executing import Lost, added
from .jobs import make_job
from .options import TrainOptions
from .outcome import make_model
from .pace import Pace
from .passes import Passes
from .plan import Plan
from .polish import polished
from .polynomial_choice import step_part
from .precision import AUTO, Stages
from .problem import F32, F64, Problem
from .replicas import initial_state
from .results import EpochRecord, Progress, TrainingError, TrainResult
from .runner import Runner
from .schedules import Schedule
from .skipping import NOTHING_SKIPPED, Skipped
from .spectrum import shrinkage, step_size
from .steps_on import StepsOn
from .tasks import Anchor, FullGradient, Score

__all__ = ["Run"]

_RESTARTS = 6
# The noise of SVRG grows with the distance to its anchor and so feeds itself: what SGD bears, it
# bears only just. At a quarter it came closest in the same time (docs/training.md).
_SVRG_STEP = 0.25

Estimate = tuple[F64, F64]


class _Left(NamedTuple):
    """Why a run diverged, and the last good model."""

    reason: str
    good: Estimate


class Run:
    """One call of `train`: what all its steps share."""

    def __init__(
        self,
        dataset: Dataset,
        options: TrainOptions,
        problems: list[Problem],  # one for each precision, in their order
        plan: Plan,
        runner: Runner,
        budget: int | None,
        keeper: Keeper | None = None,
        course: Course | None = None,  # to go on from
        skipped: Skipped = NOTHING_SKIPPED,
        steps_on: StepsOn | None = None,
    ) -> None:
        self._dataset, self._options, self._keeper = dataset, options, keeper
        self._steps_on = steps_on
        self._averages = options.average and options.solver == "sgd"
        self._averages &= steps_on is None or steps_on.averages
        self._problems, self._problem = problems, problems[0]
        self._plan, self._passes = plan, Passes(runner, plan)
        self._pace = Pace(None if keeper is None else keeper.seconds)
        self._curves = applies(self._problem, by_row=dataset.spec.quantizer.by_row)
        self._shaping: tuple[object, ...] = (None,) * 4  # what the job was made from
        self._course, self._skipped = course, skipped
        self._began = time.perf_counter() - (0.0 if course is None else course.seconds)
        # Step and shrinkage are not known before the spectrum is.
        schedule = self._steps(step=0.0, kept=0.0)
        chosen = None if steps_on is None or self._lost is not None else steps_on.chosen
        self._job = make_job(dataset, options, self._problem, plan, schedule, budget, chosen)

    def _steps(self, *, step: float, kept: float) -> Schedule:
        options = self._options
        return Schedule(
            step_size=step,
            shrinkage=kept,
            average=self._averages,
            name=options.step_schedule,
            momentum=options.momentum,
        )

    def train(self, progress: Progress | None) -> TrainResult:
        """Take steps; if the run is interrupted or fails on the way, save where it stands."""
        try:
            return self._train(progress)
        except (TrainingError, UsageError):
            raise  # it would come to the same point again
        except BaseException:
            if self._keeper is not None and self._course is not None:
                self._keeper.leave(self._course)
            raise

    def _train(self, progress: Progress | None) -> TrainResult:
        """Take steps, with smaller ones if the run diverges and the step was ours to choose."""
        self._go(self._course or self._outset(0, self._settle()))
        while (left := self._epochs(progress)) is not None:
            self._again(left)
        course = self._here
        assert course.kept is not None
        estimate, schedule = course.kept, course.setting.schedule
        if self._problem.l1 is not None and schedule.average:
            estimate = polished(
                estimate,
                self._problem,
                self._polish_gradient,
                step=schedule.step_size,
                fit_intercept=self._options.fit_intercept,
            )
        final = self._score(*estimate, held_out=False)
        loss = self._mean_loss(final.loss_sum, final.rows)
        if self._steps_on is not None:
            self._steps_on.look_at(course.records)
        return TrainResult(
            model=self._model(estimate, schedule, course.records, loss),
            skipped=self._skipped,
            epochs=course.records,
            loss=loss,
            validation_loss=course.kept_loss,
            seconds=self._seconds(),
            counters=added(*(record.counters for record in course.records)),
            lost=course.lost,
        )

    def solve(self, progress: Progress | None) -> TrainResult:
        """Take no steps: solve for the model from second moments."""
        began, schedule = time.perf_counter(), self._settle().schedule
        self._job = replace(self._job, schedule=schedule)
        try:
            found = gram.fit(self._job, self._passes.runner, self._options)
        except gram.Indefinite as error:
            raise TrainingError(advice(FALLING, self._options, schedule)) from error
        seconds = time.perf_counter() - began
        records = (EpochRecord(1, found.loss, found.validation_loss, seconds, found.bytes_read),)
        if progress is not None:
            progress(records[0], 1)
        estimate = found.model, found.intercept
        schedule = replace(schedule, shrinkage=found.shrinkage)
        return TrainResult(
            model=self._model(estimate, schedule, records, found.loss),
            skipped=self._skipped,
            epochs=records,
            loss=found.loss,
            validation_loss=found.validation_loss,
            seconds=seconds,
            l2_path=found.path,
        )

    def _settle(self) -> Setting:
        """Choose step and shrinkage for the live precision, as far as they are not given."""
        options, weak = self._options, None
        step, kept = options.step_size, options.shrinkage
        if step is None or (kept is None and self._problem.corrected):
            spectrum = self._passes.spectrum(self._job, self._problem)
            if step is None:
                step = step_size(spectrum, self._problem, self._job.batch_rows)
                step *= _SVRG_STEP if options.solver == "svrg" else step_part(self._problem)
                if self._steps_on is not None:
                    step = self._steps_on.held(step, self._problem, self._job.batch_rows)
            if kept is None:
                kept = shrinkage(spectrum, self._problem)
            elif self._problem.corrected:  # nobody has seen to it that there is a minimum
                weak = weakest(spectrum, self._problem, kept)
        return Setting(self._steps(step=step, kept=kept or 0.0), weak)

    @property
    def _lost(self) -> Lost | None:
        return None if self._course is None else self._course.lost

    @property
    def _here(self) -> Course:
        assert self._course is not None
        return self._course

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _outset(self, attempt: int, setting: Setting) -> Course:
        """Where an attempt begins."""
        state = initial_state(self._problems[0], momentum=self._options.momentum)
        return Course(
            attempt, setting, setting, state, Seen(), kept=state.estimate(),
            seconds=self._seconds(), epoch_seconds=self._seconds(), lost=self._lost,
        )  # fmt: skip

    def _go(self, course: Course) -> None:
        """Go on from here; save it if it is time to."""
        self._problem = problem = self._problems[course.stage]
        shaping = problem, course.setting, course.variance, course.polynomial
        # The same object as long as it says the same: workers have it already.
        if any(new is not old for new, old in zip(shaping, self._shaping, strict=True)):
            if course.variance is not None:
                problem = replace(problem, variance=course.variance)
            if course.polynomial is not None:
                problem = replace(problem, polynomial=course.polynomial)
            self._job = replace(self._job, problem=problem, schedule=course.setting.schedule)
            self._shaping = shaping
        self._course = course
        if self._keeper is not None:
            self._keeper.passed(course)

    def _again(self, left: _Left) -> None:
        """Begin another attempt with smaller steps, or with less of the correction, or give up."""
        course, options = self._here, self._options
        schedule, last = course.first.schedule, course.attempt == _RESTARTS - 1
        if left.reason == FALLING and options.shrinkage is None and not last:
            # What the guard allowed, by a first-order estimate, was too much.
            kept = schedule.shrinkage / 4 if course.attempt < _RESTARTS - 2 else 0.0
            schedule = replace(schedule, shrinkage=kept)
        # A smaller step cures neither a step that was asked for nor a loss without a minimum.
        elif options.step_size is not None or left.reason in (FALLING, UNFIT) or last:
            good = None
            if course.records:
                loss = course.records[-1].loss
                good = self._model(left.good, schedule, course.records, loss)
            raise TrainingError(advice(left.reason, options, schedule), good)
        else:
            schedule = replace(schedule, step_size=schedule.step_size / 4)
        setting = replace(course.first, schedule=schedule)
        self._go(self._outset(course.attempt + 1, setting))

    def _epochs(self, progress: Progress | None) -> _Left | None:
        """Run all epochs that are left; stop with the reason if the run diverges."""
        while not self._here.settled:
            if self._here.rounds is None:
                self._begin_epoch()
            self._advance()
            left = self._end_epoch(progress)
            if left is not None:
                return left
        return None

    def _begin_epoch(self) -> None:
        course = self._here
        auto, count = self._options.bits == AUTO, len(self._problems)
        stages = Stages(
            count, self._plan.epochs, auto=auto, stage=course.stage, best=course.stage_best
        )
        raised = stages.next_epoch(course.epoch, course.records)
        course = replace(course, stage=stages.stage, stage_best=stages.best)
        if raised:  # the step stays, the correction is chosen again
            step = course.setting.schedule.step_size
            self._problem = self._problems[course.stage]
            self._job = replace(self._job, problem=self._problem)
            found = self._settle()
            found = replace(found, schedule=replace(found.schedule, step_size=step))
            self._job = replace(self._job, schedule=found.schedule)
            course = replace(course, setting=found, seen=Seen(), variance=None)
        state, anchor = course.state.without_counts(), None
        if self._options.solver == "svrg":  # steps refer to the model of this moment, the anchor
            at = state.model, state.intercept
            full = self._full_gradient(*at, course.epoch, f"gradient-epoch{course.epoch}")
            gradient, down = full.model / full.rows, full.intercept / full.rows
            anchor = Anchor(*at, gradient.astype(np.float32), down.astype(np.float32))
            state = replace(state, bytes_read=full.bytes_read)
        self._go(replace(course, state=state, anchor=anchor, rounds=0))

    def _advance(self) -> None:
        """Run the rounds that are left of an epoch, a few in one go."""
        rounds = list(enumerate(self._plan.rounds(self._here.epoch)))
        while (done := self._here.rounds or 0) < len(rounds):
            count, began = self._pace.next_rounds(len(rounds) - done), time.perf_counter()
            course = self._here
            state = self._passes.rounds(
                self._job, rounds[done : done + count], course.state, course.anchor
            )
            self._pace.took(count, time.perf_counter() - began)
            if state.lost is not None and course.lost is None:
                self._give_up(state.lost)
                course = replace(course, lost=state.lost)
            self._go(replace(course, state=state, rounds=done + count, seconds=self._seconds()))

    def _give_up(self, lost: Lost) -> None:
        """Go on with the native core."""
        assert self._steps_on is not None
        self._steps_on.fell_back(lost)
        self._job = replace(self._job, chosen=None)

    def _end_epoch(self, progress: Progress | None) -> _Left | None:
        """Look at the epoch: a reason to stop, or its record and what to keep."""
        course, plan = self._here, self._plan
        state, epoch, variance = course.state, course.epoch, course.variance
        polynomial = course.polynomial
        last = epoch == plan.epochs - 1
        watch = self._watch(course)
        estimate = state.estimate()
        if self._curves:  # rounding variances weighted by the curvature of the loss at this model
            variance = self._passes.curved_variance(self._job, self._problem, estimate)
            self._job = replace(self._job, problem=replace(self._problem, variance=variance))
        if self._problem.polynomial is not None:  # as the margins of this model ask for
            polynomial = self._passes.polynomial(self._job, self._problem, estimate)
            self._job = replace(self._job, problem=replace(self._problem, polynomial=polynomial))
        read, validation = state.bytes_read, None
        reason = watch.leaving(state, part=(epoch + 0.5) / plan.epochs, last=last)
        if reason is None and last and polynomial is not None and not polynomial.fits:
            reason = UNFIT
        if reason is None and plan.held_out:
            held_out = self._score(*estimate, held_out=True)
            validation = self._mean_loss(held_out.loss_sum, held_out.rows)
            read += held_out.bytes_read
            reason = watch.useless(held_out)
        if reason is None and watch.doubts(estimate, last=last):
            reason, looked = self._look(watch, estimate, epoch)
            read += looked
        if reason is not None:
            good = watch.seen.good if reason == FALLING else watch.seen.best
            assert course.kept is not None
            return _Left(reason, good or course.kept)
        seconds = self._seconds()
        record = EpochRecord(
            epoch=epoch + 1,
            loss=self._mean_loss(state.loss_sum, state.rows),
            validation_loss=validation,
            seconds=seconds - course.epoch_seconds,
            bytes_read=read,
            bits=self._problem.precision,
            refetch_rate=state.reread.rate if self._problem.finer else None,
            refetched_bytes=state.reread.bytes if self._problem.finer else None,
            counters=state.counters,
        )
        if progress is not None:
            progress(record, plan.epochs)
        course = replace(
            course,
            seen=watch.seen,
            epoch=epoch + 1,
            rounds=None,
            anchor=None,
            variance=variance,
            polynomial=polynomial,
            records=(*course.records, record),
            seconds=seconds,
            epoch_seconds=seconds,
        )
        self._go(course.keeping(estimate, validation, self._options.patience, last=last))
        return None

    def _watch(self, course: Course) -> Watch:
        steps = self._plan.tiles / self._job.batch_tiles / self._plan.replicas
        setting = course.setting
        return Watch(
            self._problem, setting.schedule, steps=steps, weak=setting.weak, seen=course.seen
        )

    def _look(self, watch: Watch, estimate: Estimate, epoch: int) -> tuple[str | None, int]:
        """Whether the corrected loss falls without end on the way to a model; and bytes read."""
        start = watch.seen.good or estimate
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

    def _full_gradient(self, model: F32, intercept: F32, epoch: int, name: str) -> FullGradient:
        return self._passes.full_gradient(self._job, model, intercept, epoch=epoch, name=name)

    def _polish_gradient(self, model: F32, intercept: F32, number: int) -> FullGradient:
        return self._full_gradient(model, intercept, self._plan.epochs, f"polish{number}")

    def _score(self, model: F64, intercept: F64, *, held_out: bool) -> Score:
        return self._passes.score(self._job, model, intercept, held_out=held_out)

    def _mean_loss(self, loss_sum: float, rows: float) -> float:
        return loss_sum / (rows or 1) * self._problem.loss_unit

    def _model(
        self, estimate: Estimate, schedule: Schedule, records: tuple[EpochRecord, ...], loss: float
    ) -> LinearModel:
        polynomial = None if self._course is None else self._course.polynomial
        return make_model(
            self._dataset.spec, self._options, self._plan, self._problem, estimate,
            schedule=schedule, records=records, loss=loss, skipped=self._skipped,
            polynomial=polynomial, steps_on=self._steps_on, lost=self._lost,
        )  # fmt: skip
