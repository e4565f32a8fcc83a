"""Rounding variances as a curved loss sees them: the rows weighted by its curvature at the model.

Rounding moves the gradient of a row by its own variance times the curvature of its loss. Where the
rows with wide steps are those whose loss is flat, as in long tails between fitted levels, the mean
of that product is far from the product of the means. What a row's variance is, given its code, is
known well enough to weight it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS

from ..losses import row_losses
from .loading import load_tiles
from .plan import Plan
from .problem import F32, F64, Problem
from .shrinkage import rounded_down
from .tasks import Job

__all__ = ["applies", "code_variances", "curved_variance", "sampled_tiles"]

_VALUES, _LEAST_ROWS, _MOST_ROWS = 1 << 23, 4096, 1 << 16
_MOST_WINDOWS = 8
_MOST_TABLE_BITS = 8
_MOST_OUTPUTS = 64
_TOP = 65535


def applies(problem: Problem, *, by_row: bool) -> bool:
    """Whether codes tell how rows differ in their variance, and rows differ in curvature."""
    return (
        problem.corrected
        and problem.loss == "logistic"
        and problem.outputs <= _MOST_OUTPUTS
        and not by_row
        and not problem.woven  # tables stand in the place of packed codes only
        and (problem.tables is not None or problem.samples >= 2)
        and problem.stored_bits <= _MOST_TABLE_BITS
        and bool(problem.variance.any())
    )


def code_variances(values: F64, samples: int) -> F64:
    """Expected rounding variance of a value, given its code: (columns, codes), up to a factor.

    Of two samples that differ, the squared half distance is it without bias; of k, of which c
    rounded up, c (k - c) / (k^2 (k - 1)) times the squared interval. A single one lies in one of
    the two intervals beside its level, g and h long. Of levels with the least variance, as many
    times g come from the one as times h from the other: the derivative by the level vanishes. So
    they come in the parts h and g of g + h, with variances as g squared and h squared: in the
    mean as g times h.

    >>> code_variances(np.array([[0.0, 1.0, 3.0]]), samples=1).tolist()
    [[1.0, 2.0, 4.0]]
    >>> code_variances(np.array([[0.0, 0.5, 1.0, 1.0]]), samples=2).tolist()
    [[0.0, 0.25, 0.0, 0.0]]
    """
    if samples > 1:
        up = np.arange(values.shape[1]) % samples
        level = np.pad(values[:, ::samples], ((0, 0), (0, 1)), "edge")
        gap = np.repeat(np.diff(level, axis=1), samples, axis=1)
        return np.asarray(gap**2 * (up * (samples - up)) / (samples**2 * (samples - 1)))
    gaps = np.diff(values, axis=1)
    none = np.zeros((len(values), 1))
    before, after = np.hstack([none, gaps]), np.hstack([gaps, none])
    longer = np.maximum(before, after)
    return np.asarray(
        longer * np.where((before > 0) & (after > 0), np.minimum(before, after), longer)
    )


def _weights(problem: Problem) -> Problem:
    """The same tiles read as variances, in units of the largest of their column / 65535."""
    codes = 1 << problem.stored_bits
    values = np.tile(np.arange(codes), (problem.columns, 1)).astype(np.float64)
    if problem.tables is not None:
        values = problem.tables.astype(np.float64)
    found = code_variances(values, problem.samples)
    largest = found.max(axis=1, keepdims=True)
    table = np.rint(found * (_TOP / np.where(largest > 0, largest, 1.0))).astype(np.uint16)
    zero, one = np.zeros(problem.columns, np.float32), np.ones(problem.columns, np.float32)
    return replace(problem, tables=table, slope=one, offset=zero, centre=zero)


def sampled_tiles(plan: Plan, columns: int) -> npt.NDArray[np.int64]:
    """Choose training tiles that stand for all of them, whatever the chunks."""
    windows = sorted(plan.window_order(-1 & 0x7FFFFFFF)[:_MOST_WINDOWS])
    rows = min(max(_VALUES // columns, _LEAST_ROWS), _MOST_ROWS)
    most = max(1, rows // (TILE_ROWS * len(windows)))
    return np.sort(np.concatenate([plan.training_tiles(w, 0)[:most] for w in windows]))


def curved_variance(job: Job, base: Problem, model: F64, intercept: F64) -> F32:
    """Rounding variance of each column, its rows weighted by the curvature of their loss.

    Parameters
    ----------
    job : Job
    base : Problem
        With the plain variances.
    model, intercept
        Where the curvature is taken.
    """
    tiles = sampled_tiles(job.plan, base.columns)
    if not len(tiles):
        return base.variance
    dataset = job.open()
    loaded = load_tiles(dataset, base, tiles)
    margin = loaded.margins(model.astype(np.float32), intercept.astype(np.float32))
    target = loaded.ordered_targets()
    # That of the logistic loss is the same for both classes: codes need not be told apart.
    curvature = row_losses(base.loss, margin.astype(np.float64), target, base.huber_delta)[1]
    weights = load_tiles(dataset, _weights(base), tiles).batch
    weighted, plain = np.empty(model.shape), np.empty(model.shape)
    weights.gradient(np.ascontiguousarray(curvature, np.float32), weighted)
    weights.gradient(np.ones(curvature.shape, np.float32), plain)
    mean = float(curvature.mean())
    seen, total = weighted.sum(axis=0), plain.sum(axis=0) * mean
    part = np.divide(seen, total, out=np.ones_like(seen), where=total > 0)
    return rounded_down(part * base.variance.astype(np.float64)).astype(np.float32)
