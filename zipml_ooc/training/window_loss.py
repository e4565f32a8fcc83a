"""The loss of some tiles under a model, with the rounding bias taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..losses import LOSSES, summed_loss
from .loading import LoadedTiles
from .problem import Problem

__all__ = ["window_loss"]

Array = npt.NDArray[np.floating[Any]]


def window_loss(problem: Problem, tiles: LoadedTiles, model: Array, intercept: Array) -> float:
    """Summed loss of the rows of loaded tiles, in scaled coordinates.

    For a loss l and a code q of a value a, E l(q.w) exceeds l(a.w) by half of the second
    derivative times the sum of variance times w squared: exactly for the squared loss, to second
    order for the logistic one.
    """
    scaled = model * problem.variance
    noise = scaled @ model.T if LOSSES[problem.loss].coupled else np.diag((scaled * model).sum(1))
    margin = tiles.margins(model.astype(np.float32), intercept.astype(np.float32))
    return summed_loss(
        problem.loss,
        margin.astype(np.float64),
        tiles.ordered_targets(),
        huber_delta=problem.huber_delta,
        noise=noise,
        weight=tiles.ordered_weights(),
    )
