"""Polynomial gradients in plain NumPy, slow and obvious: the oracle of the native kernel.

A stored code is the sum of the codes of k samples that share a base, of which c rounded up. Which
of them did is drawn: each choice of c out of k is as likely as any other, and so the samples have
the distribution that they had when they were rounded. A power of the margin of a row is then the
mean, over all products of as many different samples' margins; the sample that a polynomial is
multiplied by takes no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from .reference_losses import SERIES_LIMIT, ReferenceLoss
from .reference_sgd import (
    F64,
    ReferenceOptions,
    ReferenceTile,
    Sums,
    affine_values,
    scales,
    sgd,
    targets,
    unscaled,
)
from .rng import Purpose, rounding_draws

__all__ = [
    "ReferencePolynomial",
    "estimates",
    "polynomial_sgd",
    "residuals",
    "sample_codes",
    "subsets",
]

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ReferencePolynomial:
    """A polynomial that stands for the derivative of a loss by the signed margin u.

    Its value at `u` is ``sum(coefficient[j] t**j)`` with ``t = (u - centre) / range``; as many
    coefficients as samples, so that the highest degree leaves one sample out. The centre is 0 for
    the logistic loss and 1 for the hinge. Where `t` at the mean margin of the other samples lies
    outside of ``-1..1``, or an estimate outside of ``-bound..bound``, the derivative itself is
    taken at that mean, less what the variance that they show adds to it: to first order, which is
    nothing for the hinge.
    """

    coefficient: F64
    range: float
    bound: float
    centre: float = 0.0

    @property
    def samples(self) -> int:
        """Samples of a stored code."""
        return len(self.coefficient)

    @property
    def weights(self) -> F64:
        """What the elementary symmetric polynomials of the other samples are multiplied by."""
        others = self.samples - 1
        ways = np.cumprod([1.0, *((others - j) / (j + 1) for j in range(others))])
        return np.asarray(self.coefficient / ways)


@lru_cache(maxsize=4)
def subsets(samples: int) -> tuple[tuple[int, ...], ...]:
    """For each number of samples that rounded up, which ones they may be: bits, ascending.

    >>> subsets(4)[3]
    (7, 11, 13, 14)
    """
    every = range(1 << samples)
    return tuple(tuple(m for m in every if m.bit_count() == up) for up in range(samples))


def sample_codes(tile: ReferenceTile, o: ReferenceOptions, samples: int) -> npt.NDArray[np.int64]:
    """The codes of the samples behind each code sum: (samples, rows, columns)."""
    rows, columns = tile.codes.shape
    top = (1 << o.stored_bits) // samples - 1
    out = np.empty((samples, rows, columns), np.int64)
    for j in range(columns):
        draws = rounding_draws(o.seed, Purpose.SUBSET, tile.number, j, o.draw)[:rows].tolist()
        for r, (code, draw) in enumerate(zip(tile.codes[:, j].tolist(), draws, strict=True)):
            base, up = divmod(code, samples)
            choices = subsets(samples)[up]
            mask = choices[draw * len(choices) >> 16]
            for i in range(samples):
                out[i, r, j] = min(base + (mask >> i & 1), top)
    return out


def estimates(polynomial: ReferencePolynomial, margin: F64, target: F64) -> F64:
    """The polynomial by the margin, without bias, from all samples but one: (samples, ...)."""
    k = polynomial.samples
    sign = np.where(target > 0.5, 1.0, -1.0)
    t = (sign * margin - polynomial.centre) / polynomial.range
    none = np.zeros(target.shape)
    out = np.empty_like(margin)
    for i in range(k):
        symmetric = [none + 1.0]
        for other in [t[m] for m in range(k) if m != i]:
            symmetric = [
                a + b
                for a, b in zip(
                    [*symmetric, none], [none, *(other * s for s in symmetric)], strict=True
                )
            ]
        out[i] = sign * sum(w * e for w, e in zip(polynomial.weights, symmetric, strict=True))
    return out


def residuals(
    polynomial: ReferencePolynomial, loss: ReferenceLoss, margin: F64, target: F64
) -> F64:
    """Residuals of the samples from their margins: (samples, rows, outputs)."""
    k, total = polynomial.samples, margin.sum(axis=0)
    value = estimates(polynomial, margin, target)
    others = (total - margin) / (k - 1)
    sign = np.where(target > 0.5, 1.0, -1.0)
    inside = np.abs(sign * others - polynomial.centre) < polynomial.range
    spread = (margin**2).sum(axis=0) - margin**2 - (k - 1) * others**2
    noise = np.minimum(spread / ((k - 1) * (k - 2)), SERIES_LIMIT)
    terms = [loss.terms(m, target) for m in others]
    plain = np.stack(
        [first - 0.5 * s * third for (_, first, _, third), s in zip(terms, noise, strict=True)]
    )
    return np.where(inside & (np.abs(value) < polynomial.bound), value, plain)


def _mini_batch(
    batch: Sequence[ReferenceTile],
    o: ReferenceOptions,
    model: F64,
    intercept: F64,
    *,
    polynomial: ReferencePolynomial,
) -> Sums:
    """Sums over a mini-batch."""
    loss, k = ReferenceLoss(o.loss, o.huber_delta), polynomial.samples
    noise = (o.variance * model) @ model.T
    out = Sums(np.zeros_like(model), np.zeros_like(intercept), np.zeros_like(noise), 0.0)
    for tile in batch:
        # The slope is that of the sum: a single sample counts k times.
        codes = k * sample_codes(tile, o, k)
        margin = np.stack([affine_values(tile, z, o) @ model.T + intercept for z in codes])
        target = targets(o, tile.target, len(intercept))
        weight = np.ones(len(target)) if tile.weight is None else tile.weight
        found = residuals(polynomial, loss, margin, target)
        if o.loss == "hinge":  # is its slope times u - 1, and u has no part in the slope
            sign = np.where(target > 0.5, 1.0, -1.0)
            out.loss += float(weight @ (found * (margin - sign)).mean(axis=0).sum(axis=1))
        else:
            lost, curvature = loss.value_and_curvature(margin.mean(axis=0), target, weight)
            out.loss += lost
            out.curvature += curvature
        for z, residual in zip(codes, found, strict=True):
            weighed = weight[:, None] * residual / k
            out.residual += weighed.sum(axis=0)
            out.gradient += (weighed * scales(tile)).T @ unscaled(z, o)
            out.gradient -= weighed.sum(axis=0)[:, None] * o.centre
    out.loss -= 0.5 * float((out.curvature * noise).sum())
    return out


def polynomial_sgd(
    tiles: Sequence[ReferenceTile],
    o: ReferenceOptions,
    model: F64,
    intercept: F64,
    polynomial: ReferencePolynomial,
) -> tuple[F64, F64, F64, F64, float]:
    """Run over the tiles in order; return model, intercept, their sums, and the loss sum."""
    step = partial(_mini_batch, polynomial=polynomial)
    return sgd(tiles, o, model, intercept, mini_batch=step)
