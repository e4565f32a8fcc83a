"""How often each row counts in training: the dataset's weights, times those of its class.

Weights are scaled so that their mean over all rows is one: a loss is a weighted mean, and a step
means what it means without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import DataError, UsageError
from ..losses import LOSSES
from .options import TrainOptions
from .problem import F32, F64, Problem, RowWeights

__all__ = ["chunk_weights", "row_weights"]


@dataclass
class _Totals:
    """Sums over all rows for each class (for numbers there is one)."""

    rows: F64
    weight: F64
    power: float = 0.0


def chunk_weights(dataset: Dataset, weights: RowWeights, number: int) -> F32:
    """Weights of the rows of a chunk."""
    start = number * dataset.spec.chunk_rows
    stop = start + dataset.spec.rows_of_chunk(number)
    out = np.full(stop - start, weights.unit)
    if weights.stored:
        out *= dataset.read_weight(start, stop)
    if weights.by_class is not None:
        code = dataset.read_target(start, stop)[:, 0].astype(np.intp)
        out *= np.asarray(weights.by_class)[code]
    return out.astype(np.float32)


def row_weights(
    problem: Problem, dataset: Dataset, options: TrainOptions, left_out: Sequence[int] = ()
) -> RowWeights | None:
    """Settle how often rows count, in one pass over weights and targets; None: all once.

    Rows of the chunks that are left out do not count.

    Raises
    ------
    UsageError
        Class weights for a target that is a number.
    DataError
        All weights are zero.
    """
    spec, balanced = dataset.spec, options.class_weight == "balanced"
    if balanced and spec.classes is None:
        raise UsageError(
            f"class weights need classes and target {spec.targets[0]!r} holds numbers: "
            "leave out --class-weight"
        )
    if spec.weight is None and not balanced:
        return None
    totals = _totals(problem, dataset, left_out)
    by_class = None
    if balanced:
        rows = np.maximum(totals.rows, 1)
        by_class = totals.rows.sum() / (len(rows) * rows)
        totals.weight *= by_class
    total = float(totals.weight.sum())
    if total <= 0:
        raise DataError(f"all weights of {dataset.path} are zero: no row counts")
    unit = float(totals.rows.sum()) / total
    at_zero = max(1.0, totals.power / total / problem.outputs)
    return RowWeights(
        stored=spec.weight is not None,
        by_class=None if by_class is None else tuple(by_class.tolist()),
        unit=unit,
        at_zero=1.0 if LOSSES[problem.loss].of_classes else at_zero,
    )


def _totals(problem: Problem, dataset: Dataset, left_out: Sequence[int]) -> _Totals:
    spec = dataset.spec
    classes = len(spec.classes or (None,))
    totals = _Totals(np.zeros(classes), np.zeros(classes))
    for number in sorted(set(range(spec.chunks)).difference(left_out)):
        start = number * spec.chunk_rows
        stop = start + spec.rows_of_chunk(number)
        target = dataset.read_target(start, stop)
        code: npt.NDArray[np.intp] = np.zeros(len(target), np.intp)
        weight = np.ones(len(target)) if spec.weight is None else dataset.read_weight(start, stop)
        if spec.classes is not None:
            code = target[:, 0].astype(np.intp)
        else:
            scaled = problem.scale_target(target).astype(np.float64)
            totals.power += float(weight @ np.square(scaled).sum(axis=1))
        totals.rows += np.bincount(code, minlength=classes)
        totals.weight += np.bincount(code, weight, minlength=classes)
    return totals
