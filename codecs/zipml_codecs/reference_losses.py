"""The losses in plain NumPy and double precision: the oracle of those of the training kernels.

A loss gives, for margins (rows, outputs) and targets, its value for each row, its slope by each
margin, its curvature by each two margins summed over the rows, and what noise in the margins adds
to the slope on average. Targets are numbers, or 1 and 0 for rows of the output's class and others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ReferenceLoss", "series_part"]

F64 = npt.NDArray[np.float64]

SERIES_LIMIT = 2.0


@dataclass(frozen=True)
class ReferenceLoss:
    """Loss terms at some margins; `weight` says how often each row counts.

    Losses with a kink have the derivatives of the side they are on, those of the flat side at the
    kink itself.
    """

    name: str
    huber_delta: float = 1.345

    def terms(self, margin: F64, target: F64) -> tuple[F64, F64, F64, F64]:
        """Value and first three derivatives by the margin, elementwise."""
        zero = 0 * margin
        if self.name == "squared":
            return 0.5 * (margin - target) ** 2, margin - target, zero + 1, zero
        if self.name == "huber":
            residual, delta = margin - target, self.huber_delta
            inside = np.abs(residual) < delta
            value = np.where(inside, 0.5 * residual**2, delta * (np.abs(residual) - 0.5 * delta))
            return value, np.clip(residual, -delta, delta), zero + inside, zero
        sign = np.where(target > 0.5, 1.0, -1.0)
        gap = 1.0 - sign * margin
        short_by, active = np.maximum(gap, 0.0), (gap > 0).astype(np.float64)
        if self.name == "ls-svm":
            return 0.5 * gap**2, -sign * gap, zero + 1, zero
        if self.name == "hinge":
            return short_by, -sign * active, zero, zero
        if self.name == "squared-hinge":
            return short_by**2, -2.0 * sign * short_by, 2.0 * active, zero
        if self.name != "logistic":
            raise ValueError(f"unknown loss {self.name!r}")
        wrong = 1.0 / (1.0 + np.exp(sign * margin))
        second = wrong * (1.0 - wrong)
        third = -sign * second * (1.0 - 2.0 * wrong)
        return np.logaddexp(0.0, -sign * margin), -sign * wrong, second, third

    def value_and_curvature(self, margin: F64, target: F64, weight: F64) -> tuple[float, F64]:
        """Sums over the rows: of the loss, and of its second derivatives (outputs, outputs)."""
        if self.name == "softmax":
            p, value = _softmax(margin, target)
            weighed = weight[:, None] * p
            return float(value @ weight), np.diag(weighed.sum(axis=0)) - weighed.T @ p
        value, _, second, _ = self.terms(margin, target)
        return float((value.sum(axis=1)) @ weight), np.diag(weight @ second)

    def slope(self, margin: F64, target: F64, noise: F64) -> F64:
        """First derivatives, less what noise of this covariance in the margins adds to them.

        To first order in it: half of the sum of the third derivatives times the covariance.
        """
        if self.name == "softmax":
            p, _ = _softmax(margin, target)
            mixed, own = p @ noise, np.diag(noise)
            both = (p * mixed).sum(axis=1, keepdims=True)
            curved = p * (own - 2 * mixed + 2 * both - (p @ own)[:, None])
            return np.asarray(p - _one_hot(target, margin.shape[1]) - 0.5 * curved)
        _, first, _, third = self.terms(margin, target)
        return np.asarray(first - 0.5 * third * np.diag(noise))


def series_part(name: str, noise: F64) -> F64:
    """Part of a correction that is applied, for each output.

    The corrections of a curved loss are the start of a series in the variance that rounding gives
    the margin: where it is large, they are held to what they are at the limit. For softmax it is
    the largest variance of a difference of two margins that counts.
    """
    own = np.diag(noise)
    if name == "softmax":
        most = float((own[:, None] + own - 2 * noise).max())
        return np.full_like(own, 1.0 / max(1.0, most / SERIES_LIMIT))
    if name == "logistic":
        return np.asarray(1.0 / np.maximum(1.0, own / SERIES_LIMIT))
    return np.ones_like(own)


def _one_hot(code: F64, outputs: int) -> F64:
    return np.asarray(code.reshape(-1, 1) == np.arange(outputs), np.float64)


def _softmax(margin: F64, code: F64) -> tuple[F64, F64]:
    """Probabilities, and the loss of each row; `code` has the class of each row."""
    above = margin - margin.max(axis=1, keepdims=True)
    total = np.exp(above).sum(axis=1)
    own = (above * _one_hot(code, margin.shape[1])).sum(axis=1)
    return np.exp(above) / total[:, None], np.log(total) - own
