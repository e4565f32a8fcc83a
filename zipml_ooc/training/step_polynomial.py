"""Polynomials for the slope of the hinge loss, and the choice of their degree and range.

The slope is a step: -1 up to the signed margin 1 and 0 beyond. No polynomial comes nearer to it
there than 1/2, so that the least error over the rows (what `polynomial` looks for) always asks for
a narrower range, on which estimates from noisy margins vary without bound. Two things tell ranges
apart. Of the error of a row only a part acts on the model: what it has in common with a constant
and with the margin itself, for errors of both signs cancel elsewhere. And the noise of the
estimates does as much as an error of its deviation would, divided by the rows that it is averaged
over. The square of the one and so much of the square of the other is what is made least.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev, polynomial

from .polynomial import (
    BOUND,
    F64,
    NORMAL,
    PARTS,
    RANGES,
    Polynomial,
    bend,
    between_points,
    quantiles,
)

__all__ = ["KINK", "choose_step", "first_step", "fit_step"]

KINK = 1.0
"""The signed margin at which the slope jumps."""

_FIRST_DEGREE, _FIRST_RANGE = 3, 4.0
# Margins that lie further off, or that noise moves further, tell no ranges up to 128 apart, and
# their powers leave double precision.
_FARTHEST = 1e15
# Steps are noisy whatever the number of rows: the noise counts for at least so much.
_LEAST_NOISE = 0.003
_GRID = 2048


@lru_cache(maxsize=1024)
def fit_step(degree: int, margin_range: float) -> Polynomial:
    """Truncate the Chebyshev series of a step in the middle of a range of signed margins.

    >>> found = fit_step(3, 2.0)
    >>> [round(c, 4) for c in found.coefficients]
    [-0.5, 1.2732, 0.0, -0.8488]
    >>> found.error, found.band
    (0.100211, 0.680664)
    """
    odd = np.arange(1, degree + 1, 2)
    terms = np.zeros(degree + 1)
    terms[0] = -0.5
    terms[odd] = (-1.0) ** (odd // 2) * (2.0 / math.pi / odd)
    found = chebyshev.cheb2poly(terms)
    # The error is odd about the step: 1/2 on it, from there down to below zero, then in waves. They
    # bound it; the band is where it is above them.
    t = np.linspace(0.0, 1.0, _GRID + 1)
    off = polynomial.polyval(t, found)
    waves = float(np.abs(off[np.argmax(off > 0) :]).max())
    band = float(t[np.argmax(off >= -waves)]) * margin_range
    waves += between_points(bend(found), 1.0 / _GRID)
    return Polynomial(
        tuple(float(np.float32(c)) for c in found),
        margin_range,
        float(f"{waves:.6g}"),
        centre=KINK,
        band=float(f"{band:.6g}"),
    )


def first_step() -> Polynomial:
    """What a run begins with, before there is a model to choose by."""
    return fit_step(_FIRST_DEGREE, _FIRST_RANGE)


def choose_step(
    signed: F64, weight: F64, *, samples: int, noise: float, unknowns: float
) -> Polynomial:
    """Choose degree and range for some rows.

    Parameters
    ----------
    signed, weight, samples, noise
        As for `polynomial.choose`.
    unknowns : float
        Coefficients of an output for each row that it is trained on.
    """
    u = quantiles(signed, weight)
    if u is None or not (np.abs(u).max() <= _FARTHEST and noise <= _FARTHEST**2):
        return first_step()
    seen = _Seen(_without_noise(u, noise / samples), noise, samples - 1)
    weight_of_noise = _LEAST_NOISE + unknowns
    judged = [seen.judged(fit_step(d, r)) for d in range(1, samples, 2) for r in RANGES]
    return min(judged, key=lambda found: _risk(found, weight_of_noise))


def _risk(found: Polynomial, weight_of_noise: float) -> float:
    assert found.pull is not None and found.deviation is not None
    return found.pull**2 + weight_of_noise * found.deviation**2


def _without_noise(u: F64, noise: float) -> F64:
    """Margins drawn together to the variance that they have without rounding."""
    mean, variance = float(u.mean()), float(u.var())
    part = 1.0 - noise / variance if variance > noise else 0.0
    return np.asarray(mean + math.sqrt(part) * (u - mean))


class _Seen:
    """Rows of some margins as their samples show them, off by normal variables.

    Given the mean of the other samples' margins, which decides about the range, the estimate has a
    mean and a mean square that are polynomials of it, whatever the row's margin is: those without
    bias for the estimate's mean and mean square at that margin.
    """

    def __init__(self, u: F64, noise: float, others: int) -> None:
        spread = float(u.std())
        self._exact = np.where(u < KINK, -1.0, 0.0)
        self._lean = (u - u.mean()) / (spread if spread > 0 else 1.0)
        self._others, self._noise = others, noise
        self._mean = (u - KINK)[:, None] + math.sqrt(noise / others) * NORMAL
        self._plain = np.where(self._mean < 0, -1.0, 0.0)
        # Of x = u + e, e normal, what has the mean u^j.
        powers = [np.ones_like(self._mean), self._mean]
        for j in range(1, 2 * others):
            powers.append(self._mean * powers[j] - j * (noise / others) * powers[j - 1])
        self._powers = np.stack(powers)

    def judged(self, found: Polynomial) -> Polynomial:
        """The same polynomial with the error and the noise of what the rows take."""
        level = np.array([c / found.range**j for j, c in enumerate(found.coefficients)])
        value = np.clip(self._polynomial(level), -BOUND, BOUND)
        square = self._polynomial(_mean_square(level, self._others, self._noise))
        square = np.maximum(np.minimum(square, BOUND**2), value**2)
        inside = np.abs(self._mean) < found.range
        mean = np.where(inside, value, self._plain) @ PARTS
        noise = np.where(inside, square, self._plain**2) @ PARTS - mean**2
        off = mean - self._exact
        pull = math.hypot(float(np.mean(off)), float(np.mean(off * self._lean)))
        # Last digits may depend on the processor, and equal runs give equal files.
        return replace(
            found,
            rms_error=float(f"{math.sqrt(float(np.mean(np.square(off)))):.4g}"),
            outside=float(f"{1.0 - float(np.mean(inside @ PARTS)):.3f}"),
            pull=float(f"{pull:.4g}"),
            deviation=float(f"{math.sqrt(max(float(np.mean(noise)), 0.0)):.4g}"),
        )

    def _polynomial(self, level: F64) -> F64:
        return np.asarray(np.tensordot(level, self._powers[: len(level)], 1))


def _mean_square(level: F64, others: int, noise: float) -> F64:
    """Powers of u of the mean square of an estimate from so many margins u + e.

    The mean products of i and of j different margins have c of them in common in a part
    ``comb(i, c) comb(others - i, j - c) / comb(others, j)`` of all pairs.
    """
    out = np.zeros(2 * len(level) - 1)
    for i, a in enumerate(level):
        for j, b in enumerate(level):
            for c in range(min(i, j) + 1):
                part = math.comb(i, c) * math.comb(others - i, j - c) / math.comb(others, j)
                for e in range(c + 1):  # of (u^2 + noise)^c
                    out[i + j - 2 * e] += a * b * part * math.comb(c, e) * noise**e
    return out
