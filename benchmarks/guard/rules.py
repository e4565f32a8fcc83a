"""The rules: each takes a rounded table and gives a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from zipml_ooc.training.shrinkage import Whitened, choose, risk, whiten

from .rounding import Draw

__all__ = ["ENDS", "RULES", "Problem", "models"]

Array = np.ndarray[Any, np.dtype[np.float64]]
# A column with less rounding variance than this part of its own is exact, as in the product.
_EXACT = 1e-6
_PARTS: Array = np.concatenate([[0.0], np.logspace(-4, 0, 81)])
_FOLDS = 8


class Problem:
    """A draw in the eigenbasis of V^-1/2 G V^-1/2, exact columns eliminated.

    `gamma`: eigenvalues less one. `target`: moments of the target along the eigenvectors.
    """

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.exact = draw.variance <= _EXACT * np.diag(draw.gram)
        e, v = np.flatnonzero(self.exact), np.flatnonzero(~self.exact)
        self._inverse = np.linalg.pinv(draw.gram[np.ix_(e, e)], rcond=1e-10, hermitian=True)
        self._explained = self._inverse @ draw.gram[np.ix_(e, v)]
        gram = draw.gram[np.ix_(v, v)] - draw.gram[np.ix_(v, e)] @ self._explained
        cross = draw.cross[v] - self._explained.T @ draw.cross[e]
        self._deviation = np.sqrt(draw.variance[v])
        values, self._vectors = np.linalg.eigh(gram / self._deviation[:, None] / self._deviation)
        self.gamma: Array = values - 1.0
        self.target: Array = self._vectors.T @ (cross / self._deviation)
        self.power = draw.power - float(draw.cross[e] @ self._inverse @ draw.cross[e])
        self.rows, self.noisy = draw.table.rows, len(v)
        self.smallest = float(self.gamma.min(initial=np.inf))
        self.spread = float(np.sqrt(self.noisy / self.rows))

    def model(self, along: Array) -> Array:
        """Coefficients of the columns from those along the eigenvectors."""
        out = np.zeros(len(self.exact))
        noisy = self._vectors @ along / self._deviation
        out[~self.exact] = noisy
        out[self.exact] = self._inverse @ self.draw.cross[self.exact] - self._explained @ noisy
        return out

    def left_out(self, part: float) -> Array:
        """The model with a part of the correction left out."""
        return self.model(self.target / (self.gamma + part))

    @cached_property
    def whitened(self) -> Whitened:
        """What the risk estimate needs."""
        ones = np.ones(self.noisy)
        square = np.square(self.target)
        return Whitened(self.gamma + 1, square, ones, self.smallest + 1, self.noisy)

    @cached_property
    def values(self) -> Array:
        """The stored values along the eigenvectors."""
        q = self.draw.values[:, ~self.exact]
        q = q - self.draw.values[:, self.exact] @ self._explained
        return np.asarray(q / self._deviation @ self._vectors)


def naive(p: Problem) -> Array:
    return p.left_out(1.0)


def full(p: Problem) -> Array:
    return p.left_out(0.0)


def split(p: Problem) -> Array:
    """The paper's estimator; the two samples stay what they are."""
    assert p.draw.split is not None
    return np.asarray(np.linalg.lstsq(p.draw.split, p.draw.cross, rcond=1e-12)[0])


def margin(spreads: float) -> Callable[[Problem], Array]:
    """The largest part so many spreads away from singular moments."""
    return lambda p: p.left_out(min(max(spreads * p.spread - p.smallest, 0.0), 1.0))


def seven_tenths(p: Problem) -> Array:
    """0.7 of the largest part that keeps the moments positive definite."""
    return p.left_out(1.0 - min(max(0.7 * (p.smallest + 1.0), 0.0), 1.0))


def least_risk(p: Problem) -> Array:
    """The product's rule, by the product's code."""
    draw = p.draw
    whitened = whiten(draw.gram, draw.cross[None], draw.variance)
    tau = choose(whitened, power=draw.power, sampled=p.rows, rows=p.rows)
    return p.left_out(1.0 - tau)


def _allowed(p: Problem, estimate: Array, spreads: float) -> float:
    least = min(max(spreads * p.spread - p.smallest, 0.0), 1.0)
    estimate = np.where(least <= _PARTS, estimate, np.inf)
    return 1.0 if not np.isfinite(estimate).any() else float(_PARTS[np.argmin(estimate)])


def measured_noise(p: Problem) -> Array:
    """Least risk, with the noise of each direction measured on the rows, where that is more."""
    first = _allowed(p, risk(p.whitened, _PARTS, power=p.power, sampled=p.rows, rows=p.rows), 2)
    z = p.target / (p.gamma + first)
    moved = float(z @ z)
    residual = max(2 * float(0.5 * z @ (p.gamma * z) - p.target @ z) + p.power, 1e-12)
    scores = p.values * (p.draw.table.y - p.values @ z)[:, None] + z
    expected = (residual + moved) * np.maximum(1 + p.gamma, 1e-3)
    excess = np.maximum(scores.var(axis=0) / expected, 1.0)
    w = Whitened(p.gamma + 1, np.square(p.target), excess, p.smallest + 1, p.noisy)
    estimate = risk(w, _PARTS, power=p.power, sampled=p.rows, rows=p.rows)
    return p.left_out(_allowed(p, estimate, 2))


def validation(p: Problem) -> Array:
    """Least loss of held-out eighths, the rounding removed."""
    q, y, n = p.values, p.draw.table.y, p.rows
    order = np.random.default_rng(0).permutation(n)
    folds = [order[k::_FOLDS] for k in range(_FOLDS)]
    grams = [q[f].T @ q[f] for f in folds]
    crosses = [q[f].T @ y[f] for f in folds]
    losses = np.zeros(len(_PARTS))
    for fold, gram, cross in zip(folds, grams, crosses, strict=True):
        others = n - len(fold)
        values, vectors = np.linalg.eigh((sum(grams) - gram) / others)
        right = vectors.T @ (sum(crosses) - cross) / others
        inside, across = vectors.T @ gram @ vectors, vectors.T @ cross
        for i, part in enumerate(_PARTS):
            denominator = values - 1 + part
            if denominator.min(initial=np.inf) <= 0:
                losses[i] = np.inf
                continue
            z = right / denominator
            losses[i] += 0.5 * z @ inside @ z - 0.5 * len(fold) * z @ z - across @ z
    return p.left_out(_allowed(p, losses, 2))


def lifted(p: Problem) -> Array:
    """Least risk; eigenvalues below the margin are lifted to it one by one."""
    floor, best, model = 2 * p.spread, np.inf, np.zeros(p.noisy)
    for part in _PARTS:
        d = np.minimum(np.maximum(p.gamma + part, floor), np.maximum(p.gamma + 1, 1e-9))
        z = p.target / d
        moved, loss = z @ z, 0.5 * z @ (p.gamma * z) - p.target @ z
        residual = max(2 * loss + p.power, 0.0) + moved
        noise = residual + moved * np.maximum(p.gamma, 0)
        if (estimate := loss + np.sum(noise / d) / p.rows) < best:
            best, model = estimate, z
    return p.model(model)


def oracle(p: Problem) -> Array:
    """The best part, by the original values."""
    parts = [part for part in _PARTS[::2] if p.smallest + part > 0] + [1.0]
    return min((p.left_out(part) for part in parts), key=p.draw.excess)


ENDS = ("naive", "full", "split")
RULES: dict[str, Callable[[Problem], Array]] = {
    "naive": naive,
    "full": full,
    "split": split,
    "0.7 of the largest": seven_tenths,
    "margin 5": margin(5.0),
    "margin 2": margin(2.0),
    "validation": validation,
    "least risk": least_risk,
    "measured noise": measured_noise,
    "lifted": lifted,
    "oracle": oracle,
}


def models(draw: Draw, names: list[str]) -> dict[str, Array]:
    """The model of each rule; rules that need two samples are left out where there is one."""
    p = Problem(draw)
    return {n: RULES[n](p) for n in names if n != "split" or draw.split is not None}
