"""zipml-ooc: compress datasets larger than memory to low-precision Zarr, and train on the codes.

The calls behind the command line: `compress`, `open_dataset`, `train`, `load_model`. Everything is
loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Checkpoints": "training",
    "CompressOptions": "compression",
    "DataError": "errors",
    "Dataset": "dataset",
    "ExecutorError": "errors",
    "LinearModel": "model",
    "SourceOptions": "sources",
    "TrainOptions": "training",
    "TrainResult": "training",
    "UsageError": "errors",
    "ZipmlError": "errors",
    "compress": "compression",
    "describe": "description",
    "evaluate": "scoring",
    "load_model": "model",
    "open_dataset": "dataset",
    "predict": "scoring",
    "repair": "repairing",
    "synth": "synthesis",
    "train": "training",
    "verify": "verification",
}

__all__ = [
    "Checkpoints",
    "CompressOptions",
    "DataError",
    "Dataset",
    "ExecutorError",
    "LinearModel",
    "SourceOptions",
    "TrainOptions",
    "TrainResult",
    "UsageError",
    "ZipmlError",
    "__version__",
    "compress",
    "describe",
    "evaluate",
    "load_model",
    "open_dataset",
    "predict",
    "repair",
    "synth",
    "train",
    "verify",
]

if TYPE_CHECKING:
    from .compression import CompressOptions, compress
    from .dataset import Dataset, open_dataset
    from .description import describe
    from .errors import DataError, ExecutorError, UsageError, ZipmlError
    from .model import LinearModel, load_model
    from .repairing import repair
    from .scoring import evaluate, predict
    from .sources import SourceOptions
    from .synthesis import synth
    from .training import Checkpoints, TrainOptions, TrainResult, train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value
