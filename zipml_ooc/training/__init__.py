"""Training on encoded tiles: options, plan, problem, tasks and the loop over epochs."""

from __future__ import annotations

from .loop import EpochRecord, TrainingError, TrainResult, train
from .options import TrainOptions

__all__ = ["EpochRecord", "TrainOptions", "TrainResult", "TrainingError", "train"]
