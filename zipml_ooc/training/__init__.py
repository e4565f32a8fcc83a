"""Training on encoded tiles: options, plan, problem, tasks and the loop over epochs."""

from __future__ import annotations

from .loop import train
from .options import TrainOptions
from .results import EpochRecord, PathPoint, TrainingError, TrainResult

__all__ = [
    "EpochRecord",
    "PathPoint",
    "TrainOptions",
    "TrainResult",
    "TrainingError",
    "train",
]
