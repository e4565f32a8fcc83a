"""Slow, obvious twins of `zipml_codecs.levels`: a quadratic dynamic programme, bins by sorting.

The native core is tested against this module; nothing else uses it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["optimal_levels", "points", "variance"]

_Doubles = npt.NDArray[np.float64]


def variance(values: npt.ArrayLike, levels: npt.ArrayLike, weights: npt.ArrayLike = 1.0) -> float:
    """Sum of ``w * (right - v) * (v - left)``: ZipML (arXiv 1611.05402), section 3."""
    v, at = np.asarray(values, np.float64), np.unique(np.asarray(levels, np.float64))
    if len(at) == 1:
        return 0.0
    right = np.clip(np.searchsorted(at, v), 1, len(at) - 1)
    return float(np.sum(np.asarray(weights) * (at[right] - v) * (v - at[right - 1])))


def optimal_levels(values: npt.ArrayLike, levels: int, weights: npt.ArrayLike = 1.0) -> _Doubles:
    """Try every last interval, for every number of levels: O(levels * n**2), and costs by sums."""
    v, where = np.unique(np.asarray(values, np.float64), return_inverse=True)
    w = np.bincount(where.ravel(), np.broadcast_to(weights, where.size), len(v))
    n = len(v)
    if n <= levels:
        return np.append(v, np.full(levels - n, v[-1]))
    cost = np.zeros((n, n))
    for j in range(n):
        for k in range(j + 2, n):
            inside = slice(j + 1, k)
            cost[j, k] = np.sum(w[inside] * (v[k] - v[inside]) * (v[inside] - v[j]))
    best = cost[0].copy()
    choices = []
    for _ in range(levels - 2):
        sums = [best[: k + 1] + cost[: k + 1, k] for k in range(n)]
        choices.append([int(np.argmin(s)) for s in sums])
        best = np.array([s.min() for s in sums])
    chosen = [n - 1]
    for choice in reversed(choices):
        chosen.append(choice[chosen[-1]])
    return v[[0, *reversed(chosen)]]


def points(values: npt.ArrayLike, bins: int) -> tuple[_Doubles, _Doubles, float]:
    """What a histogram keeps of a column: points, their weights, and the width of a bin."""
    v = np.sort(np.asarray(values, np.float64)) + 0.0
    mantissa, power = np.frexp(v)
    kept = np.ldexp(np.trunc(np.ldexp(mantissa, 27)), power - 27)
    width = 2.0 ** int(np.frexp(np.abs(v).max())[1] - 27)
    while np.floor(kept[-1] / width) - np.floor(kept[0] / width) >= bins:
        width *= 2
    place = np.floor(kept / width)
    x, w = [v[0], v[-1]], [1.0, 1.0]
    inner = slice(1, -1)  # one value at each end stands for itself
    for k in np.unique(place[inner]):
        inside = kept[inner][place[inner] == k]
        zeros = int(np.sum(inside == 0))
        if zeros:
            x.append(0.0)
            w.append(zeros)
        if len(inside) > zeros:
            middle = (k + 0.5) * width
            x.append(middle if k in (0, -1) else np.mean(inside - k * width) + k * width)
            w.append(len(inside) - zeros)
    found, where = np.unique(np.clip(np.array(x), v[0], v[-1]), return_inverse=True)
    return found, np.bincount(where.ravel(), np.array(w)).astype(np.float64), width
