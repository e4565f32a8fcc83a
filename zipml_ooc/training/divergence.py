"""The divergence guard: says when a run has left for good, and what to change then.

A step that is too large shows in the loss. A correction that is too strong may not: where the
second moments less the correction have a direction of negative variance, the corrected loss falls
without end along it, slowly, and looks better and better. What gives it away: the model grows in
that direction, where it is known; and the loss bends downwards on the way that the run has gone,
which a gradient at either end tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .options import TrainOptions
from .problem import F64, Problem
from .replicas import State
from .schedules import Schedule
from .spectrum import Spectrum
from .tasks import FullGradient, Score

__all__ = [
    "DIVERGED",
    "FALLING",
    "UNFIT",
    "Seen",
    "Watch",
    "Weakest",
    "advice",
    "curvature",
    "weakest",
]

DIVERGED = "training diverged"
FALLING = "training diverged: the corrected loss falls without end"
UNFIT = "training stopped: no polynomial suits margins that rounding moves so far"

# A loss this many times that of the zero model means that the iteration has left for good.
_FAR = 4.0
# A loss this far below zero, in parts of that of the zero model and in standard deviations of an
# estimate, is none: the rounding bias of a runaway model has been taken out of it.
_BELOW, _DEVIATIONS = 0.05, 8.0
# The correction matters if it takes this part of the loss away; the way is looked at again when
# what it takes has grown by this factor, and models up to the second one are in order.
_MATTERS, _GROWN, _CALM = 0.1, 2.0, 1.5
# Growth in a direction without a minimum that no chance explains: what the steps so far would
# multiply a model by, as an exponent, and what it was multiplied by.
_EXPONENT, _FACTOR = 1.0, 2.0
# A model with more than this part of its length in such a direction at the end of a run is what
# the run's length has made of it. (On cadata at two bits: 0.76 to 0.81 of models some 30 % above
# the optimum, at most 0.12 of those within 3 %.)
_SHARE = 0.5

Estimate = tuple[F64, F64]


@dataclass(frozen=True)
class Weakest:
    """Direction of the least variance after the correction, and that variance."""

    variance: float
    direction: F64


def weakest(spectrum: Spectrum, problem: Problem, kept: float) -> Weakest | None:
    """Find the direction in which the corrected loss of the sampled rows falls, if there is one."""
    if spectrum.moments is None or spectrum.rows == 0:
        return None
    curved = spectrum.moments / spectrum.rows
    curved = curved + np.diag(problem.l2 - kept * problem.variance.astype(np.float64))
    values, vectors = np.linalg.eigh(curved)
    if values[0] >= 0:
        return None
    # In one piece, so that products with it have the same digits after it has been saved.
    return Weakest(float(values[0]), np.ascontiguousarray(vectors[:, 0]))


@dataclass
class Seen:
    """What the guard remembers of the epochs so far.

    Attributes
    ----------
    good : (model, intercept) or None
        The last model that the correction has not drawn away.
    best : (model, intercept) or None
        That of the epoch with the smallest loss, which is `best_loss`.
    least, looked : float
        What the correction took out of the loss, at least and when the way was last looked at.
    smallest : float
        Least length of a model in the weak direction.
    travelled : float
        Sum of the step sizes.
    """

    good: Estimate | None = None
    best: Estimate | None = None
    best_loss: float = math.inf
    least: float = math.inf
    looked: float = math.inf
    smallest: float = math.inf
    travelled: float = 0.0


class Watch:
    """Looks at the epochs of one attempt, in turn.

    `steps` are the steps that follow each other in an epoch; `weak` the direction to look in, where
    it is known. `seen` is what an earlier watch remembered, and stays as it was.
    """

    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        *,
        steps: float,
        weak: Weakest | None,
        seen: Seen | None = None,
    ) -> None:
        self._problem, self._corrects = problem, problem.corrected and schedule.shrinkage > 0
        self._steps, self._schedule, self._weak = steps, schedule, weak
        self._from_slopes = problem.polynomial is not None and problem.loss == "hinge"
        self._at_zero = problem.loss_at_zero
        self._loss = self._at_zero
        self.seen = Seen() if seen is None else replace(seen)

    def leaving(self, state: State, *, part: float, last: bool) -> str | None:
        """Why an epoch shows that the run diverges, or None; `part` of the run is done."""
        self._loss = mean = state.loss_sum / max(state.rows, 1)
        finite = np.isfinite(state.model).all() and np.isfinite(state.intercept).all()
        if not (finite and math.isfinite(mean) and mean <= _FAR * self._at_zero):
            return DIVERGED
        if self._from_slopes:
            # Off by what polynomials leave, to either side; nothing was taken out of it.
            return DIVERGED if mean < -_FAR * self._at_zero else None
        # That of the squared loss may be somewhat below zero by chance, like any estimate.
        raw = mean + self._removed(state.model)
        chance = _DEVIATIONS * raw / math.sqrt(max(state.rows, 1))
        if mean < -max(_BELOW * self._at_zero, chance):
            return FALLING
        if self._corrects and self._weak is not None:
            self.seen.travelled += self._steps * self._schedule.step_at(part)
            model = state.estimate()[0]
            along = float(np.abs(model @ self._weak.direction).max())
            far = self.seen.travelled * -self._weak.variance > _EXPONENT
            if far and along > _FACTOR * self.seen.smallest:
                return FALLING
            if last and along > _SHARE * float(np.linalg.norm(model)):
                return FALLING
            self.seen.smallest = min(self.seen.smallest, along)
        return None

    def useless(self, held_out: Score) -> str | None:
        """Why the loss of held-out rows shows that the run has diverged, or None."""
        mean = held_out.loss_sum / max(held_out.rows, 1)
        return None if abs(mean) <= _FAR * self._at_zero else DIVERGED

    def doubts(self, estimate: Estimate, *, last: bool) -> bool:
        """Whether the way from the last good model to this one is to be looked at."""
        if self._loss < self.seen.best_loss:
            self.seen.best_loss, self.seen.best = self._loss, estimate
        if not self._corrects:
            return False
        removed = self._removed(estimate[0])
        self.seen.least = min(self.seen.least, removed)
        if removed <= _CALM * self.seen.least:
            self.seen.good, self.seen.looked = estimate, removed
            return False
        if removed <= _MATTERS * (self._loss + removed):
            return False
        look = last or removed > _GROWN * self.seen.looked
        self.seen.looked = max(self.seen.looked, removed) if look else self.seen.looked
        return look

    def _removed(self, model: npt.NDArray[np.floating]) -> float:
        variance = self._problem.variance.astype(np.float64)
        return 0.5 * float((variance * np.square(model.astype(np.float64))).sum())


def curvature(
    problem: Problem, start: Estimate, end: Estimate, at_start: FullGradient, at_end: FullGradient
) -> float:
    """Second difference of the penalised, corrected loss on the way from one model to another."""
    way = end[0] - start[0]
    slope = at_end.model / at_end.rows - at_start.model / at_start.rows
    down = at_end.intercept / at_end.rows - at_start.intercept / at_start.rows
    bend = float((way * slope).sum() + ((end[1] - start[1]) * down).sum())
    return bend + float((problem.l2.astype(np.float64) * np.square(way)).sum())


def advice(reason: str, options: TrainOptions, schedule: Schedule) -> str:
    """One line: what happened, and what to change."""
    if reason == UNFIT:
        return f"{reason}; use more bits, --samples 8, a larger --l2, or --gradient double"
    stronger = "a larger --l2, more bits, or --sampling naive"
    if reason == FALLING:
        given = options.shrinkage is not None
        change = "leave out --shrinkage to have it chosen, or use " if given else "use "
        return (
            f"{reason}; shrinkage {schedule.shrinkage:g} takes out more of the rounding than the "
            f"data bear; {change}{stronger}"
        )
    if options.step_size is not None:
        return (
            f"{reason} with step size {schedule.step_size:g}: use a smaller one or leave it out "
            f"to have it chosen; if that does not help, try {stronger}"
        )
    return f"{reason} down to step size {schedule.step_size:g}: try {stronger}"
