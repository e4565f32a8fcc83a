"""The losses: what is known of each by its name, and their values on margins, in double precision.

The training kernels have losses of their own, in single precision on encoded rows. These here score
models and measure what training has reached. What rounding the data does to them is in
docs/estimators.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LOSSES", "Loss", "probabilities", "row_losses", "summed_loss"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """What training and scoring need to know of a loss.

    Attributes
    ----------
    name : str
    of_classes : bool
        Whether it tells classes apart; else it takes numbers.
    coupled : bool
        Whether it takes the margins of all classes together; else each output has its own.
    probabilistic : bool
        Whether margins mean probabilities.
    curvature : float
        Bound of the second derivative. The hinge has none: it is taken as the squared loss, and its
        step is what the averaging of the second half has to make up for.
    corrected : bool
        Whether there is a second derivative to correct the rounding bias with.
    at_zero : float
        Loss of one output of the zero model; for numbers, at most, with a target of variance one.
    """

    name: str
    of_classes: bool
    coupled: bool
    probabilistic: bool
    curvature: float
    corrected: bool
    at_zero: float


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("squared", False, False, False, 1.0, True, 0.5),
        Loss("huber", False, False, False, 1.0, True, 0.5),
        Loss("logistic", True, False, True, 0.25, True, float(np.log(2.0))),
        Loss("hinge", True, False, False, 1.0, False, 1.0),
        Loss("squared-hinge", True, False, False, 2.0, True, 1.0),
        Loss("ls-svm", True, False, False, 1.0, True, 0.5),
        Loss("softmax", True, True, True, 0.5, True, float(np.log(2.0))),
    )
}


def row_losses(
    loss: str, margin: F64, target: npt.NDArray[np.floating], huber_delta: float
) -> tuple[F64, F64]:
    """Loss of each row, summed over outputs, and second derivatives by the margins, elementwise.

    Parameters
    ----------
    loss : str
        One that is not coupled.
    margin : (rows, outputs) float64
    target : (rows, outputs)
        Numbers, or 1 for the rows of the output's class and 0 for the others.
    huber_delta : float
        Where Huber's loss becomes linear.
    """
    if loss in ("squared", "huber"):
        size: F64 = np.abs(margin - target)
        if loss == "squared":
            return (0.5 * size**2).sum(axis=1), np.ones_like(margin)
        inside = size < huber_delta
        value = np.where(inside, 0.5 * size**2, huber_delta * (size - 0.5 * huber_delta))
        return value.sum(axis=1), inside.astype(np.float64)
    signed: F64 = np.where(target > 0.5, margin, -margin)
    gap = np.maximum(1.0 - signed, 0.0)
    if loss == "logistic":
        tail = np.exp(-np.abs(signed))
        value = np.log1p(tail) + np.maximum(-signed, 0.0)
        return value.sum(axis=1), tail / (1.0 + tail) ** 2
    if loss == "hinge":
        return gap.sum(axis=1), np.zeros_like(margin)
    if loss == "squared-hinge":
        return (gap**2).sum(axis=1), 2.0 * (gap > 0).astype(np.float64)
    return (0.5 * (1.0 - signed) ** 2).sum(axis=1), np.ones_like(margin)


def probabilities(loss: str, margin: F64) -> F64:
    """Probabilities of all classes from margins (rows, outputs), as scikit-learn forms them.

    One output tells the second class from the first. Softmax takes the margins of a row together;
    else those of the single classes are divided by their sum.

    Returns
    -------
    (rows, classes) float64
        Without overflow for any margin; of two, the smaller one keeps its relative accuracy.
    """
    if loss == "softmax":
        above = np.exp(margin - margin.max(axis=1, keepdims=True))
        return np.asarray(above / above.sum(axis=1, keepdims=True))
    tail = np.exp(-np.abs(margin))  # in (0, 1]: cannot overflow
    small, large = tail / (1.0 + tail), 1.0 / (1.0 + tail)
    own = np.where(margin > 0, large, small)
    if margin.shape[1] == 1:
        return np.concatenate([np.where(margin > 0, small, large), own], axis=1)
    total = own.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        # All classes may be as good as impossible: then they are equally so.
        return np.asarray(np.where(total > 0, own / total, 1.0 / margin.shape[1]))


def summed_loss(
    loss: str,
    margin: F64,
    target: npt.NDArray[np.floating],
    *,
    huber_delta: float,
    noise: F64 | None = None,
    weight: F64 | None = None,
) -> float:
    """Sum of the losses of some rows, less what noise in the margins adds to it on average.

    Rows are added up by NumPy, in a fixed order: that of a BLAS depends on its threads, of which a
    worker of Dask has others than a process without one.

    Parameters
    ----------
    loss : str
    margin : (rows, outputs) float64
    target : (rows, outputs) numbers, or (rows, 1) class codes
    huber_delta : float
    noise : (outputs, outputs) float64, optional
        Covariance of the margins: half of its product with the second derivatives is taken out,
        exact for the squared loss, of second order for the others.
    weight : (rows,) float64, optional
        How often each row counts.
    """
    weight = np.ones(len(margin)) if weight is None else weight
    outputs = margin.shape[1]
    if LOSSES[loss].coupled:
        code = target.reshape(-1).astype(np.intp)
        top = margin.max(axis=1)
        own = margin[np.arange(len(margin)), code]
        total = np.log(np.exp(margin - top[:, None]).sum(axis=1)) + top - own
        value = float(np.sum(total * weight))
        if noise is None or not noise.any():
            return value
        p = probabilities(loss, margin)
        curved = ((np.diag(noise) - p @ noise) * p).sum(axis=1)
        return value - 0.5 * float(np.sum(curved * weight))
    if target.shape[1] != outputs:
        target = np.asarray(target == np.arange(outputs), np.float64)
    rows, curvature = row_losses(loss, margin, target, huber_delta)
    value = float(np.sum(rows * weight))
    if noise is None:
        return value
    bent = (weight[:, None] * curvature).sum(axis=0)
    return value - 0.5 * float(np.sum(bent * np.diag(noise)))
