"""The polynomial that suits a model: what `polynomial` chooses by, read from the tiles.

Which tiles are looked at depends on the dataset and the options alone, and so does the choice.
"""

from __future__ import annotations

import numpy as np
from zipml_codecs import TILE_ROWS

from .curved import sampled_tiles
from .loading import load_tiles
from .polynomial import Polynomial, choose
from .problem import F64, Problem
from .shrinkage import rounded_down
from .step_polynomial import choose_step
from .tasks import Job

__all__ = ["polynomial_at", "step_part"]

# What a polynomial adds to the noise of a step grows with a power of the margins' noise: steps that
# are right for the derivative let the model run off, until a wider range brings it back, and again.
_NOISE, _LEAST_STEP = 8.0, 1 / 32


def step_part(problem: Problem) -> float:
    """Part of the usual step that a polynomial bears: one without noise."""
    if problem.polynomial is None:
        return 1.0
    noise = problem.samples * float(problem.variance.astype(np.float64).mean())
    return max(float(rounded_down(1.0 / (1.0 + _NOISE * noise))), _LEAST_STEP)


def polynomial_at(job: Job, problem: Problem, model: F64, intercept: F64) -> Polynomial:
    """Choose by the margins of some training rows; all outputs together."""
    tiles = sampled_tiles(job.plan, problem.columns)
    if not len(tiles):
        assert problem.polynomial is not None
        return problem.polynomial
    loaded = load_tiles(job.open(), problem, tiles)
    margin = loaded.margins(model.astype(np.float32), intercept.astype(np.float32))
    target = loaded.ordered_targets()
    if target.shape[1] != problem.outputs:  # class codes
        target = np.asarray(target == np.arange(problem.outputs), np.float32)
    signed = np.where(target > 0.5, margin, -margin).astype(np.float64)
    weight = np.repeat(loaded.ordered_weights(), problem.outputs)
    # A single sample has as many times the variance of the mean as there are samples.
    noise = problem.samples * (np.square(model) @ problem.variance.astype(np.float64)).mean()
    seen = signed.ravel(), weight
    if problem.loss == "hinge":
        unknowns = (problem.columns + 1) / (job.plan.training_tile_count * TILE_ROWS)
        return choose_step(*seen, samples=problem.samples, noise=float(noise), unknowns=unknowns)
    return choose(*seen, samples=problem.samples, noise=float(noise))
