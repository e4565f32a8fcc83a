"""Which precision a run reads a weaved dataset at, and when it goes on to the next one.

Early on, steps are long against what rounding adds to them, and few bits do; later more are needed.
A schedule names precisions, lowest first. With their number fixed each gets an equal part of the
run; with ``auto`` a run starts at the lowest and goes on where the loss stalls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..dataset_spec import DatasetSpec
from ..errors import UsageError

if TYPE_CHECKING:
    from .results import EpochRecord

__all__ = ["AUTO", "Stages", "parse_bits", "precisions_of"]

AUTO = "auto"
# The loss stalls if an epoch does not bring it below this part of the best one before. Waiting
# for a second such epoch, and for 2 % instead of 5, took up to twice as many epochs.
_PROGRESS = 0.95


def parse_bits(bits: int | str | None) -> int | str | None:
    """Check the form of a precision or a schedule, and write it in one way."""
    if bits is None or bits == AUTO or (isinstance(bits, int) and not isinstance(bits, bool)):
        return bits
    parts = str(bits).split(":")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        raise UsageError(
            f"bits must be a number, several that rise such as 2:4:8, or {AUTO}; got {bits!r}"
        ) from None
    if sorted(set(numbers)) != numbers:
        raise UsageError(f"the precisions of a schedule must rise, got {bits!r}")
    return numbers[0] if len(numbers) == 1 else ":".join(map(str, numbers))


def precisions_of(spec: DatasetSpec, bits: int | str | None) -> tuple[int | None, ...]:
    """List the precisions of a run, in their order; None stands for the highest.

    Raises
    ------
    UsageError
        A schedule for a dataset that has one precision.
    """
    if bits is None or isinstance(bits, int):
        return (bits,)
    if not spec.quantizer.weaved:
        raise UsageError(
            f"bits {bits} needs several precisions and the dataset is packed at "
            f"{spec.quantizer.bits}: compress the source again with --layout weaved"
        )
    if bits == AUTO:
        return spec.quantizer.precisions
    return tuple(int(part) for part in bits.split(":"))


class Stages:
    """Counts the epochs of a run and says when the precision is raised.

    `stage` is the number of the precision that is live, `best` the smallest loss at it since the
    last stall; a run that goes on gives both.
    """

    def __init__(
        self, count: int, epochs: int, *, auto: bool, stage: int = 0, best: float = math.inf
    ) -> None:
        self._count, self._epochs, self._auto = count, epochs, auto
        self.stage, self.best = stage, best

    def next_epoch(self, epoch: int, records: Sequence[EpochRecord]) -> bool:
        """Whether the precision is raised before this epoch; `records` are those so far."""
        before = self.stage
        if not self._auto:
            self.stage = epoch * self._count // self._epochs
        elif records and self.stage + 1 < self._count:
            last = records[-1]
            loss = last.loss if last.validation_loss is None else last.validation_loss
            fell = loss < _PROGRESS * self.best
            self.best = loss if fell else math.inf
            self.stage += not fell
        return self.stage != before
