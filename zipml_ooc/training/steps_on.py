"""The executor of a run, as the loop sees it: settled before the run, looked at in the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..dataset_spec import DatasetSpec
from ..executors.admission import parse_settings, require, resolved_arithmetic
from ..executors.registry import NATIVE, get_executor
from .bound import Needs
from .executing import Chosen, Lost, added
from .options import TrainOptions
from .problem import Problem
from .results import EpochRecord

__all__ = ["StepsOn"]


@dataclass(frozen=True)
class StepsOn:
    """What a run has to know of an executor other than the native core.

    Attributes
    ----------
    chosen : Chosen
    averages : bool
        Whether it sums up models for the average.
    devices : int or None
        How many a process may open; None: as many as it likes.
    notice : callable
        Is told what a person should see.
    """

    chosen: Chosen
    averages: bool
    devices: int | None
    notice: Callable[[str], None]

    @classmethod
    def of(
        cls,
        spec: DatasetSpec,
        options: TrainOptions,
        problems: Sequence[Problem],
        notice: Callable[[str], None],
    ) -> Self | None:
        """Find the executor that options name; None for the native core.

        Raises
        ------
        UsageError
            There is none of that name, it cannot be used here, or it does not take the problem.
        """
        if options.executor == NATIVE and not options.executor_options:
            return None
        executor = get_executor(options.executor)
        settings = parse_settings(executor, options.executor_options)
        for problem in problems:
            require(executor, spec, problem, options, settings)
        able = executor.capabilities()
        if options.average and not able.averaging:
            notice(
                f"executor {executor.name} does not average models: the result is the last model"
            )
        chosen = Chosen(
            executor.name,
            tuple(sorted(settings.items())),
            resolved_arithmetic(executor, problems[0], options),
            secrets.token_hex(5),
            falls_back=options.fallback == NATIVE,
            resource=able.resource,
        )
        names = executor.devices(settings)
        count = None if names is None else len(names)
        return cls(chosen, able.averaging, count, notice)

    def held(self, step: float, problem: Problem, batch_rows: int) -> float:
        """A step that was chosen from the data, or the largest that the executor can take."""
        executor = get_executor(self.chosen.name)
        return min(step, executor.largest_step(problem, batch_rows, dict(self.chosen.settings)))

    def needs(self, threads: int | None) -> Needs:
        """What it needs of workers; a local one runs as many tasks as it has devices."""
        count = threads or 1
        return Needs(
            self.chosen.name,
            self.chosen.resource,
            count if self.devices is None else max(1, min(count, self.devices)),
        )

    def fell_back(self, lost: Lost) -> None:
        """Tell that the native core goes on."""
        self.notice(
            f"executor {lost.executor} was lost in window {lost.window} of epoch "
            f"{lost.epoch + 1}: {lost.reason}; the native core goes on"
        )

    def look_at(self, records: Sequence[EpochRecord]) -> None:
        """Tell, at the end of a run, if numbers were clipped in its last epoch."""
        done = None if not records else records[-1].counters
        if done is None:
            return
        for count, what, remedy in (
            (
                done.model_clipped,
                "numbers of the model",
                "compress at more bits, or use --executor-option exponent=N with a smaller N",
            ),
            (
                done.residuals_clipped,
                "residuals",
                "look for outliers in the target, or use --executor-option exponent=N with a "
                "smaller N",
            ),
        ):
            if count:
                self.notice(
                    f"executor {self.chosen.name} clipped {what} in {count} of {done.runs} runs of "
                    f"the last epoch, which went beyond its range: {remedy}"
                )

    def to_record(self, records: Sequence[EpochRecord], lost: Lost | None) -> dict[str, Any]:
        """What a model tells of it: no times, so that equal runs give equal files."""
        record: dict[str, Any] = {
            "name": self.chosen.name,
            "options": dict(self.chosen.settings),
            "averages": self.averages,
        }
        counters = added(*(r.counters for r in records))
        if counters is not None:
            done = counters.to_dict()
            record["counters"] = {k: v for k, v in done.items() if "seconds" not in k}
        if lost is not None:
            record["lost"] = lost.to_dict()
        return record
