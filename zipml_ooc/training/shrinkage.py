"""The guard: how much of the rounding variance to take out, from an estimate of what it costs.

The correction makes the second moments of the stored values right on average, and noisier: taking
out too little leaves a bias, taking out too much blows the noise up where the data hardly vary.
Both are known up to what the data themselves tell, so that the loss of a model trained with any
part of the correction can be estimated before training, without a pass for each. This module does
the arithmetic; `spectrum` measures. docs/estimators.md derives it and shows how well it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Whitened", "choose", "lanczos", "risk", "rounded_down", "whiten", "whiten_products"]

F64 = npt.NDArray[np.float64]
Operator = Callable[[F64], F64]

# Least distance of the corrected moments from singularity, in units of the spread that the
# smallest eigenvalue of a noise matrix of d columns has at n rows, sqrt(d / n).
_MARGIN = 2.0
# Parts of the correction that are left out: none, and from a ten-thousandth to all of it.
_LEFT_OUT: F64 = np.concatenate([[0.0], np.logspace(-4, 0, 81)])
# A column whose rounding variance is below this part of its own is exact. It is given this much,
# so that there is something to divide by, and a penalty that keeps it from being singular with
# others of its kind: they bear no noise, and must not count as weak directions.
_EXACT, _EXACT_PENALTY = 1e-6, 1e-3
# The same for products in single precision, whose errors are parts of the largest eigenvalue.
_EXACT_SINGLE = 1e-3
# A constant column is out of the way at this.
_CONSTANT = 1e6
_SIGNAL_STEPS, _PROBE_STEPS = 30, 60


@dataclass(frozen=True)
class Whitened:
    """Second moments G + l2 of stored values in units of their rounding variance V.

    Attributes
    ----------
    values : (k,) float64
        Eigenvalues of V^-1/2 (G + l2) V^-1/2, or points that stand for them.
    signal : (k,) float64
        Squares of the target's moments V^-1/2 b along each, summed over the outputs.
    count : (k,) float64
        How many directions each stands for.
    smallest : float
        Bound below all eigenvalues.
    noisy : int
        Columns that rounding changes.
    """

    values: F64
    signal: F64
    count: F64
    smallest: float
    noisy: int


def _floored(variance: F64, diagonal: F64, exact: float) -> tuple[F64, F64]:
    """Variances to divide by, and the penalty of exact columns."""
    constant = diagonal <= 1e-12
    own = np.where(constant, 1.0, diagonal)
    least = exact * own
    penalty = np.where(variance < least, _EXACT_PENALTY * own, 0.0)
    divisor = np.where(constant, 1.0, np.maximum(variance, least))
    return divisor, np.where(constant, _CONSTANT, penalty)


def whiten(gram: F64, cross: F64, variance: F64) -> Whitened:
    """Decompose moments that are there as a matrix.

    Parameters
    ----------
    gram : (columns, columns)
        Mean of x x' over the rows, and the l2 penalty on its diagonal.
    cross : (outputs, columns)
        Mean of y x'.
    variance : (columns,)
        Rounding variance of the stored values.
    """
    diagonal = np.diag(gram)
    divisor, penalty = _floored(variance, diagonal, _EXACT)
    inverse = 1.0 / np.sqrt(divisor)
    values, vectors = np.linalg.eigh((gram + np.diag(penalty)) * inverse[:, None] * inverse)
    signal = np.square((cross * inverse) @ vectors).sum(axis=0)
    noisy = int((variance >= _EXACT * diagonal)[diagonal > 1e-12].sum())
    return Whitened(values, signal, np.ones(len(values)), float(values[0]), noisy)


def whiten_products(
    gram: Operator, cross: F64, variance: F64, constant: npt.NDArray[np.bool_]
) -> Whitened:
    """Decompose moments that are there as a product with a vector only.

    Lanczos from the target's moments tells how they spread over the eigenvalues, Lanczos from a
    random vector how many eigenvalues there are where, and bounds the smallest.

    Parameters
    ----------
    gram : callable
        Mean of x (x'v) over the rows, and the penalty times v. Columns have a variance of one.
    cross, variance
        As for `whiten`.
    constant : (columns,) bool
        Columns that do not vary.
    """
    size = len(variance)
    divisor, penalty = _floored(variance, np.where(constant, 0.0, 1.0), _EXACT_SINGLE)
    inverse = 1.0 / np.sqrt(divisor)

    def apply(v: F64) -> F64:
        scaled = inverse * v
        return inverse * (gram(scaled) + penalty * scaled)

    start = np.random.Generator(np.random.Philox(key=1)).standard_normal(size)
    at, weight, residual = _ritz(apply, start, _PROBE_STEPS)
    values, signal, count = [at], [np.zeros(len(at))], [size * weight]
    for moments in cross * inverse:
        norm2 = float(moments @ moments)
        if norm2 > 0:
            along, share, _ = _ritz(apply, moments, _SIGNAL_STEPS)
            values.append(along)
            signal.append(norm2 * share)
            count.append(np.zeros(len(along)))
    noisy = int((variance >= _EXACT_SINGLE)[~constant].sum())
    smallest = float(at[0] - residual[0])
    joined = np.concatenate(values), np.concatenate(signal), np.concatenate(count)
    return Whitened(*joined, smallest, noisy)


def risk(whitened: Whitened, left_out: F64, *, power: float, sampled: int, rows: int) -> F64:
    """Estimate the loss of models that are trained with a part of the correction left out.

    With gamma = eigenvalue - 1 the moments without rounding, a model of the sample is
    z = signal / (gamma + rho) along each eigenvector for the part rho left out. Its corrected loss
    on the sample is too low, because it was fitted to the same noise: by the trace of the noise's
    covariance over gamma + rho. Adding that, and half of it again for the rows that the sample
    lacks, gives the loss of a model that is trained on all rows.

    Parameters
    ----------
    whitened : Whitened
    left_out : (k,) float64
        Parts rho, 0 (the full correction) to 1 (none).
    power : float
        Mean square of the targets, summed over the outputs.
    sampled, rows : int
        Rows that were measured, and rows of the training.

    Returns
    -------
    (k,) float64
        Up to the same constant; infinite where the corrected moments are not positive definite.
    """
    rho = left_out[:, None]
    gamma, signal, count = whitened.values - 1.0, whitened.signal, whitened.count
    denominator = gamma + rho
    safe = np.where(denominator > 0, denominator, 1.0)
    square = signal / safe**2
    moved = square.sum(axis=1)  # variance that rounding gives the margin: w' V w
    loss = -(square * (0.5 * gamma + rho)).sum(axis=1)
    residual = np.maximum(2.0 * loss + power, 0.0) + moved
    inside = np.maximum(gamma, 0.0)
    noise = count * (residual[:, None] + moved[:, None] * inside)  # of a row's gradient
    optimism = (noise / safe).sum(axis=1) / sampled
    excess = 0.5 * (noise * inside / safe**2).sum(axis=1)
    estimate = loss + optimism - excess * (1.0 / sampled - 1.0 / rows)
    return np.where((denominator > 0).all(axis=1), estimate, np.inf)


def choose(whitened: Whitened, *, power: float, sampled: int, rows: int) -> float:
    """Choose the part of the correction to apply, 0 to 1.

    It is the one of least estimated loss among those that keep the corrected moments a margin away
    from singularity: there the estimate, a first-order one, does not hold.
    """
    spread = whitened.noisy / rows + 2.0 * (1.0 / sampled - 1.0 / rows)
    least = min(max(_MARGIN * np.sqrt(spread) - (whitened.smallest - 1.0), 0.0), 1.0)
    left_out = np.concatenate([[least], _LEFT_OUT[least < _LEFT_OUT]])
    estimate = risk(whitened, left_out, power=power, sampled=sampled, rows=rows)
    if not np.isfinite(estimate).any():
        return 0.0
    return float(rounded_down(1.0 - left_out[np.argmin(estimate)]))


def rounded_down(values: npt.ArrayLike) -> F64:
    """Keep twelve significant bits.

    The last digits of a matrix product depend on the linear algebra library, its threads and the
    processor; what is chosen from it must not.
    """
    fraction, exponent = np.frexp(np.asarray(values, np.float64))
    return np.asarray(np.ldexp(np.floor(fraction * 4096.0) / 4096.0, exponent))


def lanczos(apply: Operator, size: int, steps: int = 80) -> tuple[float, float]:
    """Bounds of the spectrum of a symmetric operator.

    Returns
    -------
    low, high : float
        The extreme Ritz values moved outwards by their residuals.
    """
    start = np.random.Generator(np.random.Philox(key=1)).standard_normal(size)
    values, _, residual = _ritz(apply, start, steps)
    return float(values[0] - residual[0]), float(values[-1] + residual[-1])


def _ritz(apply: Operator, start: F64, steps: int) -> tuple[F64, F64, F64]:
    """Lanczos with full reorthogonalisation: Ritz values, shares of the start, residuals."""
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(start))):
        image = apply(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):
            for vector in basis:
                image = image - (vector @ image) * vector
        norm = float(np.linalg.norm(image))
        beside.append(norm)
        if norm <= 1e-12 * max(abs(d) for d in diagonal):
            break
        basis.append(image / norm)
    k = len(diagonal)
    tridiagonal = np.diag(diagonal) + np.diag(beside[: k - 1], 1) + np.diag(beside[: k - 1], -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    return values, np.square(vectors[0]), beside[k - 1] * np.abs(vectors[-1])
