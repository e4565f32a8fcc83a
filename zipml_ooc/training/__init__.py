"""Training on encoded tiles: options, plan, problem, tasks and the loop over epochs."""

from __future__ import annotations

from .checkpoints import Checkpoints
from .loop import train
from .options import TrainOptions
from .results import EpochRecord, PathPoint, TrainingError, TrainResult

__all__ = [
    "Checkpoints",
    "EpochRecord",
    "PathPoint",
    "TrainOptions",
    "TrainResult",
    "TrainingError",
    "train",
]
