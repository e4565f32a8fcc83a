"""What a training run hands back: the model, its epochs, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ZipmlError
from ..executors.protocol import Counters
from ..model import LinearModel
from .executing import Lost
from .skipping import NOTHING_SKIPPED, Skipped

__all__ = ["EpochRecord", "PathPoint", "Progress", "TrainResult", "TrainingError"]


class TrainingError(ZipmlError):
    """Training did not get anywhere; the message says what to change.

    Attributes
    ----------
    model : LinearModel or None
        The last good model before the run left: that of the last epoch that passed all checks.
    """

    def __init__(self, message: str, model: LinearModel | None = None) -> None:
        super().__init__(message)
        self.model = model


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did; losses are those of the target's own units.

    `loss` is the mean loss of a row with the model as it was before the row's mini-batch;
    `validation_loss` that of the model at its end on the held-out rows (the averaged model, once
    the run has begun to average). Both have the rounding
    bias taken out, so that they estimate the loss on the unquantised data. `bits` is the precision
    that the data were read at. Where rows are read again, `refetch_rate` is their part of all, and
    `refetched_bytes` what their tiles have beyond that precision, a part of `bytes_read`.
    `counters` are those of an executor other than the native core.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    seconds: float
    bytes_read: int
    bits: int | None = None
    refetch_rate: float | None = None
    refetched_bytes: int | None = None
    counters: Counters | None = None


@dataclass(frozen=True)
class PathPoint:
    """One penalty of a ridge path, and what its model does."""

    l2: float
    loss: float
    validation_loss: float | None


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
    l2_path : tuple of PathPoint
        What each penalty of a ridge path did; empty without one.
    skipped : Skipped
        Damaged chunks that were left out.
    counters : Counters or None
        What an executor has counted over all epochs; None for the native core.
    lost : Lost or None
        Where its device was lost, if the native core went on.
    """

    model: LinearModel
    epochs: tuple[EpochRecord, ...]
    loss: float
    validation_loss: float | None
    seconds: float
    l2_path: tuple[PathPoint, ...] = ()
    skipped: Skipped = NOTHING_SKIPPED
    counters: Counters | None = None
    lost: Lost | None = None


Progress = Callable[[EpochRecord, int], None]
"""Called as progress(epoch record, epochs in all) after each epoch."""
