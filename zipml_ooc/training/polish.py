"""Bring an average of iterates back to exact zeros, where an L1 penalty had them.

Averaging leaves small numbers where each iterate had zeros. A few accelerated proximal steps along
full gradients, each a pass over the data without updates, set the zeros again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .problem import F32, F64, Problem
from .tasks import FullGradient

__all__ = ["polished"]

_STEPS = 10


def polished(
    estimate: tuple[F64, F64],
    problem: Problem,
    gradient: Callable[[F32, F32, int], FullGradient],
    *,
    step: float,
    fit_intercept: bool,
) -> tuple[F64, F64]:
    """Take the steps from a model.

    Parameters
    ----------
    estimate : (model, intercept)
    problem : Problem
    gradient : callable
        Full gradient at a model and an intercept; the third argument counts the steps.
    step : float
    fit_intercept : bool
    """
    l1 = 0.0 if problem.l1 is None else problem.l1.astype(np.float64)
    (model, intercept), (ahead, down) = estimate, estimate
    for number in range(_STEPS):
        full = gradient(ahead.astype(np.float32), down.astype(np.float32), number)
        before, below = model, intercept
        moved = ahead - step * full.model / full.rows
        left = np.maximum(np.abs(moved) - step * l1, 0.0)
        model = np.copysign(left, moved) / (1.0 + step * problem.l2.astype(np.float64)) + 0.0
        if fit_intercept:
            intercept = down - step * full.intercept / full.rows
        further = number / (number + 3)  # Nesterov's weights
        ahead, down = (
            model + further * (model - before),
            intercept + further * (intercept - below),
        )
    return model, intercept
