"""From a training problem to the accelerator's fixed point and back.

The accelerator trains on ``x = slope * (code - centre)``, in the scaled coordinates of a `Problem`,
whose model it holds as ``slope * model``: what meets the codes. A unit of the model is
``2**-exponent``, one of targets and residuals ``2**margin_shift`` times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, UsageError
from ..losses import LOSSES
from ..training.problem import Problem
from .formats import (
    BATCH_TILES_LIMIT,
    LARGEST_SHIFT,
    LEAST_EXPONENT,
    LOGISTIC_BITS,
    MODEL_BITS,
    NO_ROW,
    STEP_BITS,
    TABLE_BITS,
    Loss,
    intercept_code,
    margin_shift,
)
from .reference import I64, Program

__all__ = ["Scaling"]

F64 = npt.NDArray[np.float64]
_TOP = (1 << TABLE_BITS) - 1
_EXPONENTS = range(32)  # the largest holds models up to 2**-16: finer is of no use
_LOSSES = {
    "squared": Loss.SQUARED,
    "ls-svm": Loss.SQUARED,
    "logistic": Loss.LOGISTIC,
    "squared-hinge": Loss.SQUARED_HINGE,
}


def _dot(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """A product whose last digit does not depend on the machine."""
    return math.fsum((a * b).tolist())


@dataclass(frozen=True)
class Scaling:
    """Fixed point for a problem.

    Attributes
    ----------
    problem : Problem
        Squared, logistic, squared hinge or LS-SVM loss, one output, packed codes with equally
        spaced levels and column scales, the mean form.
    exponent : int
        What meets the codes is held as multiples of ``2**-exponent``, up to ``2**(15 - exponent)``.
        By default 13, or more for more than 4 stored bits: ``stored bits + 9``. That lets residuals
        reach 64 times the target's standard deviation, and the intercept 4. The logistic loss
        takes two less, one less, the default, or one more.
    """

    problem: Problem
    exponent: int = -1

    def __post_init__(self) -> None:
        p = self.problem
        if self.exponent == -1:
            object.__setattr__(self, "exponent", self._least_exponent + 2)
        wrong = [
            what
            for what, bad in (
                (f"the {p.loss} loss", p.loss not in _LOSSES),
                (f"{p.outputs} outputs", p.outputs != 1),
                ("the split form", p.estimator != "mean"),
                ("level tables", p.tables is not None),
                ("weaved codes", p.woven > 0),
                ("weights", p.weights is not None),
                ("penalties", bool((p.l2 != 0).any()) or p.l1 is not None),
                ("scales by row", bool((p.centre != 0).any())),
                (f"codes of {p.stored_bits} bits", p.stored_bits not in (1, 2, 4, 8, 16)),
            )
            if bad
        ]
        for name in ("slope", "offset", "variance"):
            if not np.isfinite(getattr(p, name)).all():
                raise UsageError(f"the {name} of the accelerator's problem has values not finite")
        if wrong:
            raise UsageError(
                f"the accelerator does not take {', '.join(wrong)}: it has the squared, logistic, "
                "squared-hinge and ls-svm losses of packed codes of 1, 2, 4 or 8 stored bits with "
                "equally spaced levels"
            )
        if self.exponent not in _EXPONENTS:
            raise UsageError(
                f"accelerator: an exponent of {self.exponent}; choose 0 to {_EXPONENTS.stop - 1}"
            )
        least = self._least_exponent
        if self.loss == Loss.LOGISTIC and not least <= self.exponent <= least + 3:
            raise UsageError(
                f"accelerator: an exponent of {self.exponent} for the logistic loss of "
                f"{p.stored_bits} stored bits; choose {least} to {least + 3}"
            )

    @property
    def loss(self) -> Loss:
        """What the register LOSS chooses."""
        return _LOSSES[self.problem.loss]

    @property
    def _least_exponent(self) -> int:
        """The least exponent of the logistic loss."""
        return LEAST_EXPONENT + max(0, self.problem.stored_bits - 4)

    @property
    def _target_exponent(self) -> int:
        """That of a unit of targets, and of residuals but for the logistic loss."""
        return self.exponent - margin_shift(self.problem.stored_bits)

    @property
    def _fraction(self) -> int:
        """Bits of a centre behind the point."""
        return TABLE_BITS - self.problem.stored_bits

    @property
    def _slope(self) -> F64:
        """Of the entries: the intercept's value is 1."""
        own = 1.0 / intercept_code(self.problem.stored_bits)
        return np.concatenate([[own], self.problem.slope.astype(np.float64)])

    @property
    def holds_zero(self) -> bool:
        """Whether the mean codes lie among the codes: then the intercept stands for itself."""
        p = self.problem
        offset, slope = p.offset.astype(np.float64), p.slope.astype(np.float64)
        return bool(((offset <= 0) & (offset + slope * ((1 << p.stored_bits) - 1) >= 0)).all())

    def centres(self) -> I64:
        """The mean code of each entry in fixed point, as near as its range allows."""
        p = self.problem
        offset, slope = p.offset.astype(np.float64), p.slope.astype(np.float64)
        mean = np.divide(-offset, slope, out=np.zeros_like(offset), where=slope != 0)
        fixed = np.clip(np.rint(mean * (1 << self._fraction)), 0, _TOP)
        return np.concatenate([[0], fixed.astype(np.int64)])

    def _wanted(self, step_size: float, rows: int, most: float) -> float:
        """What the step register has to hold, before its shift, for the largest squared slope."""
        # A change is pace * step * 2**-(16 + shift) times the gradient, in 2**-16 of a unit.
        logistic = self.loss == Loss.LOGISTIC
        residual_exponent = LOGISTIC_BITS if logistic else self._target_exponent
        wanted = step_size / rows * most
        wanted *= 2.0 ** (TABLE_BITS + self.exponent - residual_exponent + STEP_BITS) / _TOP
        # The derivatives of the squared hinge are twice what is computed.
        return wanted * 2.0 if self.loss == Loss.SQUARED_HINGE else wanted

    def largest_step(self, rows: int) -> float:
        """The largest step size that the registers hold, for mini-batches of so many rows."""
        one = self._wanted(1.0, rows, float((self._slope**2).max()))
        return (1 << STEP_BITS) / one * (1.0 - 2.0**-STEP_BITS)

    def program(
        self,
        step_size: float,
        *,
        batch_tiles: int = 1,
        lanes: int = 64,
        shrinkage: float = 1.0,
        fit_intercept: bool = True,
        delayed: bool = False,
    ) -> Program:
        """The registers and tables for a run with one step size.

        Parameters
        ----------
        step_size : float
            As `TrainOptions.step_size`: a step is that times the mean gradient of the rows.
        batch_tiles : int
        lanes : int
            Rows of a tile.
        shrinkage : float
            The part of the correction that is applied, 0 to 1.
        fit_intercept, delayed : bool
        """
        if not 1 <= batch_tiles <= BATCH_TILES_LIMIT:
            raise UsageError(
                f"accelerator: a mini-batch of {batch_tiles} tiles; choose 1 to {BATCH_TILES_LIMIT}"
            )
        if not 0 <= shrinkage <= 1:
            raise UsageError(f"accelerator: a shrinkage of {shrinkage}; choose 0 to 1")
        square = self._slope**2
        if not fit_intercept:
            square[0] = 0.0
        most = float(square.max())
        logistic = self.loss == Loss.LOGISTIC
        wanted = self._wanted(step_size, batch_tiles * lanes, most)
        if not 0 < wanted < 1 << STEP_BITS:
            raise UsageError(
                f"accelerator: a step size of {step_size:.3g} is outside of what its registers "
                f"hold; choose one up to {self.largest_step(batch_tiles * lanes):.3g}, or use more "
                "rows in a mini-batch, or more bits"
            )
        shift = min(max(STEP_BITS - 1 - math.floor(math.log2(wanted)), 0), LARGEST_SHIFT)
        step = min(round(wanted * 2.0**shift), (1 << STEP_BITS) - 1)
        p = self.problem
        variance = np.divide(
            p.variance, p.slope**2, out=np.zeros(p.columns), where=p.slope != 0, casting="unsafe"
        )
        fixed = np.rint(variance * shrinkage * p.corrected * (1 << TABLE_BITS))
        return Program(
            bits=p.stored_bits,
            batch_tiles=batch_tiles,
            step=step,
            shift=shift,
            centre=self.centres(),
            pace=np.rint(square / most * _TOP).astype(np.int64),
            variance=np.concatenate([[0], np.minimum(fixed, _TOP).astype(np.int64)]),
            delayed=delayed,
            loss=self.loss,
            exponent=self.exponent if logistic else LEAST_EXPONENT,
        )

    def targets(self, scaled: npt.ArrayLike) -> I64:
        """Targets in fixed point, clipped to its range; scaled as `Problem.scale_target` does."""
        real = np.asarray(scaled, np.float64)
        if np.isnan(real).any():
            raise DataError("a target is not a number")
        if self.loss == Loss.LOGISTIC:
            return np.where(real > 0.5, 0, -1).astype(np.int64)
        if LOSSES[self.problem.loss].of_classes:
            real = np.where(real > 0.5, 1.0, -1.0)
        fixed = np.rint(real * 2.0**self._target_exponent)
        return np.clip(fixed, NO_ROW + 1, -NO_ROW - 1).astype(np.int64)

    def to_model(self, entries: I64) -> tuple[F64, F64]:
        """Model, (1, columns), and intercept, (1,), in the coordinates of the problem."""
        p = self.problem
        offset, slope = p.offset.astype(np.float64), p.slope.astype(np.float64)
        real = entries * 2.0**-self.exponent
        own = real[0] * intercept_code(p.stored_bits)
        model = np.divide(real[1:], slope, out=np.zeros(p.columns), where=slope != 0)
        centre = self.centres()[1:] * 2.0**-self._fraction
        intercept = own - _dot(real[1:], centre) - _dot(model, offset)
        return model[None], np.array([intercept])

    def to_entries(self, model: npt.ArrayLike, intercept: npt.ArrayLike) -> I64:
        """The nearest entries to a model, (1, columns), and an intercept, (1,), within their range.

        Entries that `to_model` gave, also in single precision, come back as they were.

        Raises
        ------
        UsageError
            An entry is not a number.
        """
        p = self.problem
        w, at_zero = np.asarray(model, np.float64)[0], float(np.asarray(intercept)[0])
        real = np.empty(p.columns + 1)
        real[1:] = w * p.slope.astype(np.float64)
        centre = self.centres()[1:] * 2.0**-self._fraction
        real[0] = at_zero + _dot(real[1:], centre) + _dot(w, p.offset.astype(np.float64))
        real[0] /= intercept_code(p.stored_bits)
        if np.isnan(real).any():
            raise UsageError("accelerator: a model has entries that are not numbers")
        fixed = np.rint(real * 2.0**self.exponent)
        most = 1 << (MODEL_BITS - 1)
        return np.clip(fixed, -most, most - 1).astype(np.int64)
