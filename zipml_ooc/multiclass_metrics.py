"""Scores of a classifier of three and more classes: update, merge, and one result at the end.

The contract is that of `zipml_ooc.metrics`, which has those of numbers and of two classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError
from .losses import LOSSES, probabilities, summed_loss
from .metrics import finite, in_order, real_values

__all__ = ["MulticlassMetrics"]

FloatArray = NDArray[np.float64]

# Scores that are kept for the exact area under the curve: 512 MiB. Beyond it there is none.
_KEPT_SCORES = 1 << 26


class MulticlassMetrics:
    """Loss, accuracy, log loss and the mean area under the ROC curves of all classes.

    Parameters
    ----------
    classes : int
        Number of classes, three or more.
    loss : str
        The model's loss, a name of `zipml_ooc.losses.LOSSES`.

    Examples
    --------
    >>> metrics = MulticlassMetrics(3, "softmax")
    >>> metrics.update([0, 1, 2], [[2.0, 0.0, 0.0], [0.0, 1.0, 0.5], [1.0, 0.0, 0.0]])
    >>> round(metrics.result()["accuracy"], 3)
    0.667
    """

    def __init__(self, classes: int, loss: str) -> None:
        if classes < 3:
            raise DataError(f"{classes} classes: scores of several classes need three or more")
        self.classes, self.loss = classes, loss
        self._rows = self._correct = 0
        self._losses = self._log_losses = 0.0
        self._kept: list[tuple[NDArray[np.int64], FloatArray]] | None = []

    def update(self, code: ArrayLike, margin: ArrayLike) -> None:
        """Count one block.

        Parameters
        ----------
        code : array_like, shape (rows,) or (rows, 1)
            Number of each row's class.
        margin : array_like, shape (rows, classes), real
            The class with the largest one is predicted, the first of equal ones.

        Raises
        ------
        DataError
            Other codes, shapes that differ, NaN or infinity. Nothing is counted then.
        """
        numbers = real_values("label", code, 1)[:, 0]
        margins = real_values("margin", margin, self.classes)
        if len(numbers) != len(margins):
            raise DataError(f"label has {len(numbers)} rows, but margin has {len(margins)}")
        codes = numbers.astype(np.int64)
        wrong = (codes != numbers) | (codes < 0) | (codes >= self.classes)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"label is {numbers[row]:g} in row {row} of the block, "
                f"not a whole number from 0 to {self.classes - 1}"
            )
        self._rows += len(codes)
        self._correct += int(np.count_nonzero(margins.argmax(axis=1) == codes))
        self._losses += summed_loss(self.loss, margins, numbers[:, None], huber_delta=1.0)
        scores = margins
        if LOSSES[self.loss].probabilistic:
            scores = probabilities(self.loss, margins)
            own = scores[np.arange(len(codes)), codes]
            # As scikit-learn: a probability of zero costs what the smallest step from it does.
            self._log_losses -= float(np.log(np.maximum(own, np.finfo(np.float64).eps)).sum())
        self._keep([(codes, scores)])

    def merge(self, other: MulticlassMetrics) -> None:
        """Count all that `other` counted; `other` stays as it is."""
        if (self.classes, self.loss) != (other.classes, other.loss):
            raise DataError(
                f"metrics of {other.classes} classes and {other.loss} loss cannot join metrics of "
                f"{self.classes} and {self.loss}"
            )
        self._rows += other._rows
        self._correct += other._correct
        self._losses += other._losses
        self._log_losses += other._log_losses
        if other._kept is None:
            self._kept = None
        else:
            self._keep(other._kept)

    def _keep(self, blocks: list[tuple[NDArray[np.int64], FloatArray]]) -> None:
        if self._rows * self.classes > _KEPT_SCORES:
            self._kept = None
        elif self._kept is not None:
            self._kept.extend(blocks)

    def result(self) -> dict[str, int | float | None]:
        """The scores of everything counted.

        Returns
        -------
        dict
            ``rows``; ``loss``, the mean of the model's own loss, summed over classes where each
            is told from the rest; ``accuracy``; ``log_loss``, None for losses without
            probabilities; ``auc``, the mean over the classes of the area under the curve of each
            against the rest, by probability or else by margin: None unless all classes occur, and
            beyond some 67 million scores (rows times classes).
        """
        if not self._rows:
            return {"rows": 0, "loss": None, "accuracy": None, "log_loss": None, "auc": None}
        log_loss = self._log_losses / self._rows
        return {
            "rows": self._rows,
            "loss": finite(self._losses / self._rows),
            "accuracy": self._correct / self._rows,
            "log_loss": finite(log_loss) if LOSSES[self.loss].probabilistic else None,
            "auc": self._auc(),
        }

    def _auc(self) -> float | None:
        if self._kept is None:
            return None
        codes = np.concatenate([block[0] for block in self._kept])
        if len(np.unique(codes)) < self.classes:
            return None
        areas = []
        for k in range(self.classes):
            scores = np.concatenate([block[1][:, k] for block in self._kept])
            own = codes == k
            areas.append(in_order(np.sort(scores[~own]), np.sort(scores[own])))
        return float(np.mean(areas))
