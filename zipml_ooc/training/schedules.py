"""How the step size changes over a run, and when averaging begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SCHEDULES", "Schedule", "relative_step"]

SCHEDULES = ("auto", "constant", "inverse", "cosine", "1cycle", "linear")

_LAST = 0.05  # the last step of those that fall, in parts of the largest
_WARM_UP = 0.3  # part of the run over which 1cycle rises
_AVERAGE_FROM = 0.5


def relative_step(schedule: str, part: float) -> float:
    """Step size, in parts of the largest, when this part (0 to 1) of the run is done.

    Examples
    --------
    >>> [relative_step("linear", part) for part in (0.0, 0.5, 0.75, 1.0)]
    [1.0, 1.0, 0.5, 0.05]
    >>> [relative_step("inverse", part) for part in (0.0, 0.5, 1.0)]
    [1.0, 0.09523809523809523, 0.05]
    """
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return min(1.0, max(_LAST, 2.0 * (1.0 - part)))
    if schedule == "inverse":
        return 1.0 / (1.0 + (1.0 / _LAST - 1.0) * part)
    if schedule == "1cycle" and part < _WARM_UP:
        return _LAST + (1.0 - _LAST) * part / _WARM_UP
    start = _WARM_UP if schedule == "1cycle" else 0.0
    wave = 0.5 * (1.0 + math.cos(math.pi * (part - start) / (1.0 - start)))
    # Cosines of different libraries differ in their last digits; models must not.
    return round(_LAST + (1.0 - _LAST) * wave, 9)


@dataclass(frozen=True)
class Schedule:
    """Step size and shrinkage of a run.

    Attributes
    ----------
    step_size : float
        The largest step.
    shrinkage : float
    average : bool
        Average the iterates of the second half.
    name : str
        How the step changes, one of `SCHEDULES` but ``auto``.
    momentum : float
    """

    step_size: float
    shrinkage: float
    average: bool
    name: str = "linear"
    momentum: float = 0.0

    def step_at(self, part: float) -> float:
        """Step size when this part (0 to 1) of the run is done."""
        return self.step_size * relative_step(self.name, part)

    def average_from(self, first: float, last: float, batches: int) -> int:
        """First mini-batch to average of a window that runs from one part of the run to another."""
        if not self.average:
            return batches
        middle = (_AVERAGE_FROM - first) / (last - first)
        return min(max(math.ceil(middle * batches), 0), batches)
