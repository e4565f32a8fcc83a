"""Scores of predictions that arrive block by block: update, merge, and one result at the end.

The accumulators make one pass, on one machine or on many: each worker updates its own, and `merge`
joins them. They are not for choosing models or for curves: they give the few numbers that a
training report shows. Definitions follow scikit-learn; what is undefined (no rows, one class, an
overflow) is None, never NaN, so that a result can always be written as JSON.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zipml_ooc.errors import DataError
from zipml_ooc.losses import LOSSES, row_losses

__all__ = [
    "ClassificationMetrics",
    "RegressionMetrics",
    "finite",
    "in_order",
    "real_values",
]

FloatArray = NDArray[np.float64]


class RegressionMetrics:
    """Squared loss, R², RMSE and MAE in memory that does not grow with the rows.

    Parameters
    ----------
    outputs : int
        Number of target columns, at least 1.
    huber_delta : float, optional
        Where Huber's loss becomes linear, for a model that minimised that one.

    Examples
    --------
    >>> metrics = RegressionMetrics(1)
    >>> metrics.update([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    >>> metrics.result()["r2"]
    0.5
    """

    def __init__(self, outputs: int, huber_delta: float | None = None) -> None:
        if outputs < 1:
            raise DataError(f"outputs is {outputs}; a regression has 1 or more")
        self.outputs = outputs
        self.huber_delta = huber_delta
        self._huber = 0.0
        self._rows = 0
        self._mean = np.zeros(outputs)  # of the target
        self._spread = np.zeros(outputs)  # sum of (target - mean)^2
        self._squares = np.zeros(outputs)  # sum of residual^2
        self._absolutes = np.zeros(outputs)  # sum of |residual|

    def update(self, target: ArrayLike, prediction: ArrayLike) -> None:
        """Count one block.

        Parameters
        ----------
        target, prediction : array_like, shape (rows,) or (rows, outputs), real
            The flat form is for one output.

        Raises
        ------
        DataError
            Shapes that differ or do not match `outputs`; NaN or infinity. Nothing is counted then.
        """
        y = real_values("target", target, self.outputs)
        p = real_values("prediction", prediction, self.outputs)
        if len(y) != len(p):
            raise DataError(f"target has {len(y)} rows, but prediction has {len(p)}")
        if not len(y):
            return
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow ends as None
            if self.huber_delta is not None:
                self._huber += float(row_losses("huber", p, y, self.huber_delta)[0].sum())
            residual = y - p
            # Distances from the block's first row: a constant target gets a spread of exactly 0.
            shifted = y - y[0]
            mean = shifted.mean(axis=0)
            shifted -= mean
            self._add(
                len(y),
                y[0] + mean,
                np.square(shifted).sum(axis=0),
                np.square(residual).sum(axis=0),
                np.abs(residual).sum(axis=0),
            )

    def merge(self, other: RegressionMetrics) -> None:
        """Count all that `other` counted; `other` stays as it is."""
        if other.outputs != self.outputs:
            raise DataError(
                f"metrics of {other.outputs} outputs cannot join metrics of {self.outputs}"
            )
        self._huber += other._huber
        self._add(other._rows, other._mean, other._spread, other._squares, other._absolutes)

    def result(self) -> dict[str, int | float | None]:
        """The scores of everything counted.

        Returns
        -------
        dict
            ``rows``; ``loss``, the mean over rows of half the squared residual, or of Huber's loss
            of it, summed over the outputs; ``r2``, ``rmse`` and ``mae``, averaged over the
            outputs. ``r2`` needs two rows; an output with a constant target counts as 1 if every
            prediction is exact and as 0 otherwise, as in scikit-learn.
        """
        if not self._rows:
            return {"rows": 0, "loss": None, "r2": None, "rmse": None, "mae": None}
        with np.errstate(over="ignore", invalid="ignore"):
            constant = self._spread == 0
            r2 = 1 - self._squares / np.where(constant, 1, self._spread)
            r2 = np.where(constant, self._squares == 0, r2)
            r2[~np.isfinite(self._spread)] = np.nan  # overflowed: R² would read as 1
            mse = self._squares / self._rows
            loss = 0.5 * mse.sum() if self.huber_delta is None else self._huber / self._rows
            return {
                "rows": self._rows,
                "loss": finite(loss),
                "r2": finite(r2.mean()) if self._rows > 1 else None,
                "rmse": finite(np.sqrt(mse).mean()),
                "mae": finite((self._absolutes / self._rows).mean()),
            }

    def _add(
        self,
        rows: int,
        mean: FloatArray,
        spread: FloatArray,
        squares: FloatArray,
        absolutes: FloatArray,
    ) -> None:
        """Join two sets of rows by the update of Chan, Golub and LeVeque (1979)."""
        if not rows:
            return
        total = self._rows + rows
        with np.errstate(over="ignore", invalid="ignore"):
            if not self._rows:
                self._mean, self._spread = mean.copy(), spread.copy()
            else:
                delta = mean - self._mean
                self._mean = self._mean + delta * (rows / total)
                self._spread = self._spread + spread + delta**2 * (self._rows * (rows / total))
            self._squares = self._squares + squares
            self._absolutes = self._absolutes + absolutes
        self._rows = total


class ClassificationMetrics:
    """Log loss, accuracy and exact area under the ROC curve of a binary classifier.

    The exact area depends on the order of all margins, so they are kept, apart for each class: 8
    bytes a row. Everything else is a running sum.

    Parameters
    ----------
    loss : str
        The model's loss, a name of `zipml_ooc.losses.LOSSES`.

    Examples
    --------
    >>> metrics = ClassificationMetrics()
    >>> metrics.update([0, 0, 1, 1], [-2.0, 0.5, 0.5, 3.0])
    >>> metrics.result()["auc"]
    0.875
    """

    def __init__(self, loss: str = "logistic") -> None:
        self.loss = loss
        self._rows = 0
        self._correct = 0
        self._losses = 0.0
        self._margins: tuple[list[FloatArray], list[FloatArray]] = ([], [])  # of class 0, class 1

    def update(self, label01: ArrayLike, margin: ArrayLike) -> None:
        """Count one block.

        Parameters
        ----------
        label01 : array_like, shape (rows,) or (rows, 1)
            0 or False for the first class, 1 or True for the second.
        margin : array_like, shape (rows,) or (rows, 1), real
            The second class is predicted where it is above 0.

        Raises
        ------
        DataError
            Other labels, shapes that differ, NaN or infinity. Nothing is counted then.
        """
        labels = real_values("label", label01, 1)[:, 0]
        margins = real_values("margin", margin, 1)[:, 0]
        if len(labels) != len(margins):
            raise DataError(f"label has {len(labels)} rows, but margin has {len(margins)}")
        wrong = (labels != 0) & (labels != 1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"label is {labels[row]:g} in row {row} of the block, not 0 or 1")
        second = labels == 1
        self._rows += len(labels)
        self._correct += int(np.count_nonzero((margins > 0) == second))
        value, _ = row_losses(self.loss, margins[:, None], second[:, None].astype(np.float64), 1.0)
        self._losses += float(value.sum())
        for kept, chosen in zip(self._margins, (~second, second), strict=True):
            if chosen.any():
                kept.append(margins[chosen])

    def merge(self, other: ClassificationMetrics) -> None:
        """Count all that `other` counted; `other` stays as it is."""
        if self.loss != other.loss:
            raise DataError(f"metrics of {other.loss} loss cannot join metrics of {self.loss} loss")
        self._rows += other._rows
        self._correct += other._correct
        self._losses += other._losses
        for kept, more in zip(self._margins, other._margins, strict=True):
            kept.extend(list(more))

    def result(self) -> dict[str, int | float | None]:
        """The scores of everything counted.

        Returns
        -------
        dict
            ``rows``; ``loss``, the mean of the model's own loss; ``log_loss``, which is the same
            for the logistic loss, the mean of log(1 + exp(-s * margin)) with s = 1 for the second
            class and -1 for the first, and None for losses without probabilities; ``accuracy``;
            ``auc``, in which a
            pair of equal margins counts one half, None unless both classes occur.
        """
        if not self._rows:
            return {"rows": 0, "loss": None, "accuracy": None, "log_loss": None, "auc": None}
        loss = finite(self._losses / self._rows)
        return {
            "rows": self._rows,
            "loss": loss,
            "accuracy": self._correct / self._rows,
            "log_loss": loss if LOSSES[self.loss].probabilistic else None,
            "auc": self._auc(),
        }

    def _auc(self) -> float | None:
        """Share of the pairs (first class, second class) in the right order: Mann and Whitney."""
        for kept in self._margins:
            if not kept:
                return None
            kept[:] = [np.sort(np.concatenate(kept))]
        return in_order(self._margins[0][0], self._margins[1][0])


def in_order(first: FloatArray, second: FloatArray) -> float:
    """Share of the pairs of two sorted arrays whose first is the smaller one; equal ones half."""
    # Twice the number of pairs in order, in whole numbers: a tie is 1 of 2.
    below = int(np.searchsorted(first, second, side="left").sum())
    not_above = int(np.searchsorted(first, second, side="right").sum())
    return (below + not_above) / (2 * len(first) * len(second))


def real_values(name: str, values: ArrayLike, outputs: int) -> FloatArray:
    """`values` as float64 of shape (rows, outputs), all finite."""
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {array.dtype}; it must be real numbers")
    if array.ndim == 1 and outputs == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != outputs:
        raise DataError(f"{name} has shape {array.shape}; it must be (rows, {outputs})")
    numbers = array.astype(np.float64, copy=False)
    if not np.isfinite(numbers).all():
        row, output = (int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
        raise DataError(
            f"{name} is {numbers[row, output]} in row {row}, output {output} of the block; "
            "clean the data, or train with a smaller step if the training diverged"
        )
    return numbers


def finite(value: float) -> float | None:
    """The value, or None where it is not finite."""
    return float(value) if math.isfinite(value) else None
