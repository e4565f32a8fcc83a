"""Polynomials for the derivative of the logistic loss, and the choice of their degree and range.

The gradient of a polynomial can be estimated from rounded rows without bias (ZipML, section 4),
with as many independent samples as it has factors. What is left is how far the polynomial, a
truncated Chebyshev series on a symmetric range of margins, is from the derivative. A wide range
holds all rows and fits none of them well. Rows that the samples show outside of a narrow one take
the derivative itself, less what its rounding adds to first order. The range is the one at which the
mean error of both together, over some rows at the model of the moment, has the least mean square.

The slope of the hinge loss is a step, and is not chosen for by that: see `step_polynomial`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev, polynomial

__all__ = [
    "BOUND",
    "NORMAL",
    "PARTS",
    "RANGES",
    "Polynomial",
    "bend",
    "between_points",
    "choose",
    "first_polynomial",
    "fit",
    "quantiles",
]

F64 = npt.NDArray[np.float64]

RANGES = tuple(0.5 * 2.0 ** (i / 2) for i in range(17))
"""Ranges to choose from: a half to 128, in steps of the root of two."""

# An estimate of a derivative, which lies in -1..0, this far off says nothing but that the margins
# of single samples are far outside: the row takes the derivative itself.
BOUND = 8.0
_FIRST_RANGE = 4.0
_BEND = 0.0963  # bound of the second derivative of the derivative
# A lower degree has less noise. It is taken if the error is no more than this times that of the
# best one, or too small to matter.
_NEARLY, _NEGLIGIBLE = 1.1, 1e-3
# Residuals that are this far off in the end come with no model worth having: with half of it runs
# ended within 2 % of the optimum, with more than it up to 140 % above.
_UNFIT = 0.1
# The same for a hinge, of the part that acts on the model: these runs go on, and say so.
_FAR_PULL = 0.1
# Margins stand for those of all rows by so many of their quantiles.
_QUANTILES = 128
_GRID, _NODES = 2048, 4096
_SERIES_LIMIT = 2.0  # kSeriesLimit of the native core
NORMAL = np.linspace(-4.0, 4.0, 25)
"""A normal variable in so many points."""
PARTS = np.exp(-0.5 * NORMAL**2)
"""What part of it stands at each of them."""
PARTS /= PARTS.sum()


@dataclass(frozen=True)
class Polynomial:
    """A polynomial by the signed margin u: the margin, its sign turned for rows of the other class.

    Attributes
    ----------
    coefficients : tuple of float
        Of the powers of (u - centre) / range, from the lowest on.
    range : float
        It stands for the derivative where the mean margin of the other samples is within this of
        the centre.
    error : float
        Bound of its distance from the derivative there, but for the band.
    rms_error : float or None
        Root mean square over the rows that it was chosen by of what they take on average, less the
        derivative.
    outside : float or None
        Part of the samples of these rows that are seen outside of the range.
    centre : float
        0 for the logistic loss, for the hinge the margin at which its slope jumps.
    band : float or None
        For the hinge: up to so far from the centre the distance may be larger, up to 1/2.
    pull : float or None
        For the hinge: root of the squared mean of what these rows are off on average and the
        squared mean of its product with their standardised margins.
    deviation : float or None
        For the hinge: standard deviation of what they take, in the root mean square.
    """

    coefficients: tuple[float, ...]
    range: float
    error: float
    rms_error: float | None = None
    outside: float | None = None
    centre: float = 0.0
    band: float | None = None
    pull: float | None = None
    deviation: float | None = None

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return len(self.coefficients) - 1

    @property
    def fits(self) -> bool:
        """Whether it is near enough to the derivative, as far as that is known.

        To a step none is near everywhere: its range was chosen by what that does to the model.
        """
        return self.band is not None or self.rms_error is None or self.rms_error <= _UNFIT

    def weights(self, samples: int) -> npt.NDArray[np.float32]:
        """What the kernel multiplies the elementary symmetric polynomials of the samples by."""
        others = samples - 1
        found = [c / math.comb(others, j) for j, c in enumerate(self.coefficients)]
        return np.array(found + [0.0] * (samples - len(found)), np.float32)

    def for_kernel(self, samples: int) -> tuple[npt.NDArray[np.float32], float, float]:
        """Return weights, range and bound."""
        return self.weights(samples), self.range, BOUND

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; those of the hinge where it is for that."""
        kept = asdict(self) | {"coefficients": list(self.coefficients), "degree": self.degree}
        kept["suits"] = self.pull is None or self.pull <= _FAR_PULL
        if self.band is None:
            for name in ("centre", "band", "pull", "deviation", "suits"):
                del kept[name]
        return kept


def _derivative(u: F64) -> F64:
    """Of the logistic loss by the signed margin: -1/2 and an odd function."""
    tail = np.exp(-np.abs(u))
    return np.asarray(-np.where(u > 0, tail, 1.0) / (1.0 + tail))


def _second(u: F64) -> F64:
    """The second derivative of that."""
    wrong = -_derivative(u)
    return np.asarray(wrong * (1.0 - wrong) * (2.0 * wrong - 1.0))


@lru_cache(maxsize=1024)
def fit(degree: int, margin_range: float) -> Polynomial:
    """Truncate the Chebyshev series of the loss's derivative on a range of signed margins.

    >>> found = fit(3, 2.0)
    >>> [round(c, 4) for c in found.coefficients], round(found.error, 4)
    ([-0.5, 0.4872, 0.0, -0.1085], 0.0024)
    """
    angle = (np.arange(_NODES) + 0.5) * (math.pi / _NODES)
    waves = np.cos(np.arange(degree + 1)[:, None] * angle)
    terms = waves @ _derivative(margin_range * np.cos(angle)) * (2.0 / _NODES)
    terms[0], terms[2::2] = -0.5, 0.0  # exactly, rounding aside
    found = chebyshev.cheb2poly(terms)
    found = np.append(found, np.zeros(degree + 1 - len(found)))
    t = np.linspace(-1.0, 1.0, _GRID + 1)
    off = np.abs(polynomial.polyval(t, found) - _derivative(margin_range * t))
    curvature = _BEND + bend(found) / margin_range**2
    error = float(off.max()) + between_points(curvature, 2 * margin_range / _GRID)
    # Last digits may depend on the processor, and equal runs give equal files.
    return Polynomial(
        tuple(float(np.float32(c)) for c in found), margin_range, float(f"{error:.6g}")
    )


def bend(coefficients: npt.NDArray[np.floating[Any]]) -> float:
    """Bound of a polynomial's second derivative on -1..1."""
    powers = np.arange(2, len(coefficients))
    return float(np.sum(powers * (powers - 1) * np.abs(coefficients[2:])))


def between_points(curvature: float, distance: float) -> float:
    """By how much at most a function leaves its chord between two points of a grid."""
    return distance**2 / 8 * curvature


def first_polynomial(samples: int) -> Polynomial:
    """What a run begins with, before there is a model to choose by."""
    return fit(samples - 1, _FIRST_RANGE)


def choose(signed: F64, weight: F64, *, samples: int, noise: float) -> Polynomial:
    """Choose degree and range for some rows.

    Parameters
    ----------
    signed : (n,) float64
        Signed margins, of the means of the samples.
    weight : (n,) float64
        How often each counts.
    samples : int
        One more than the highest degree.
    noise : float
        Variance that rounding gives the margin of a single sample.
    """
    u = quantiles(signed, weight)
    if u is None:
        return first_polynomial(samples)
    seen = _Seen(u, noise / (samples - 1))
    best = [
        min((seen.judged(fit(degree, r)) for r in RANGES), key=_rms)
        for degree in range(1, samples, 2)
    ]
    least = min(_rms(found) for found in best)
    return next(p for p in best if _rms(p) <= max(_NEARLY * least, _NEGLIGIBLE))


def quantiles(signed: F64, weight: F64) -> F64 | None:
    """Quantiles that stand for the margins of weighted rows; None if there is nothing to see."""
    order = np.argsort(signed, kind="stable")
    below = np.cumsum(weight[order])
    if not below[-1] > 0 or not np.isfinite(signed).all():
        return None
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * below[-1]
    return np.asarray(signed[order][np.minimum(np.searchsorted(below, at), len(order) - 1)])


class _Seen:
    """Rows of some margins as their samples show them, off by a normal variable.

    Whether a row lies within the range is decided by what is seen: a polynomial is evaluated for
    rows that lie beyond it too, where it may point the wrong way.
    """

    def __init__(self, u: F64, variance: float) -> None:
        self._exact, self._deviation = _derivative(u), math.sqrt(variance)
        self._mean = u[:, None] + self._deviation * NORMAL
        plain = _derivative(self._mean)
        second = _second(self._mean)
        self._plain = plain - 0.5 * min(variance, _SERIES_LIMIT) * second

    def judged(self, found: Polynomial) -> Polynomial:
        """The same polynomial with the error of what the rows take on average."""
        r, deviation = found.range, self._deviation
        # Of x = u + e, e normal, this polynomial has the mean that `found` has at u.
        level = np.array([c / r**j for j, c in enumerate(found.coefficients)])
        low, high = np.ones_like(self._mean), self._mean
        value = np.full_like(self._mean, level[0])
        for j in range(1, len(level)):
            value += level[j] * high
            low, high = high, self._mean * high - j * deviation**2 * low
        inside = np.abs(self._mean) < r
        off = np.where(inside, value, self._plain) @ PARTS - self._exact
        rms = math.sqrt(float(np.mean(np.square(off))))
        outside = 1.0 - float(np.mean(inside @ PARTS))
        # Last digits may depend on the processor, and equal runs give equal files.
        return replace(found, rms_error=float(f"{rms:.4g}"), outside=float(f"{outside:.3f}"))


def _rms(found: Polynomial) -> float:
    assert found.rms_error is not None
    return found.rms_error
