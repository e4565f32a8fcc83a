"""Mini-batch SGD on code sums in plain NumPy, slow and obvious: the oracle of the training kernels.

It works in double precision on codes that are already unpacked, so it agrees with the native
kernels to their single precision, not bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .rng import split_mask

__all__ = ["ReferenceOptions", "ReferenceTile", "affine_values", "gradient", "margins", "sgd"]

SERIES_LIMIT = 2.0

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceTile:
    """Stored codes of up to 64 rows, (rows, columns); targets (rows, outputs); scales (rows,)."""

    codes: npt.NDArray[np.int64]
    target: F64
    row_scale: F64
    number: int


@dataclass(frozen=True)
class ReferenceOptions:
    """The options of the native `sgd`; `offset`, `slope` and `centre` map codes to values."""

    offset: F64
    slope: F64
    centre: F64
    loss: str
    split: bool
    correction: float
    variance: F64
    l2: F64
    fit_intercept: bool
    batch_tiles: int
    batch_rows: float
    step_first: float
    step_last: float
    average_from: int
    seed: int
    draw: int


def affine_values(tile: ReferenceTile, codes: npt.NDArray[Any], o: ReferenceOptions) -> F64:
    """Values behind codes: row scale times (offset + slope times code), minus centre."""
    return np.asarray(tile.row_scale[:, None] * (o.offset + o.slope * codes) - o.centre)


def margins(tile: ReferenceTile, o: ReferenceOptions, model: F64, intercept: F64) -> F64:
    """Margins of the rows of a tile: (rows, outputs)."""
    return np.asarray(affine_values(tile, tile.codes, o) @ model.T + intercept)


def gradient(tile: ReferenceTile, o: ReferenceOptions, residual: F64) -> F64:
    """Sum over rows of residual times value: (outputs, columns)."""
    return np.asarray(residual.T @ affine_values(tile, tile.codes, o))


def _loss(name: str, margin: F64, target: F64) -> tuple[F64, F64, F64, F64]:
    """Loss and its first three derivatives by the margin."""
    if name == "squared":
        return 0.5 * (margin - target) ** 2, margin - target, np.ones_like(margin), 0 * margin
    sign = np.where(target > 0.5, 1.0, -1.0)
    wrong = 1.0 / (1.0 + np.exp(sign * margin))
    second = wrong * (1.0 - wrong)
    third = -sign * second * (1.0 - 2.0 * wrong)
    return np.logaddexp(0.0, -sign * margin), -sign * wrong, second, third


def _correction(o: ReferenceOptions, margin_variance: F64) -> F64:
    """Part of the rounding bias to take out, for each output.

    The corrections of a curved loss are the start of a series in the variance that rounding gives
    the margin: where it is large, they are held to what they are at the limit.
    """
    if o.loss == "squared":
        return np.full_like(margin_variance, o.correction)
    return np.asarray(o.correction / np.maximum(1.0, margin_variance / SERIES_LIMIT))


def _residual(o: ReferenceOptions, margin: F64, target: F64, margin_variance: F64) -> F64:
    """First derivative, less what noise of this variance in the margin adds to it on average.

    To first order in the variance: half of it times the third derivative.
    """
    _, first, _, third = _loss(o.loss, margin, target)
    return np.asarray(first - 0.5 * third * margin_variance)


def _two_samples(tile: ReferenceTile, o: ReferenceOptions) -> tuple[F64, F64]:
    """The two samples behind the code sums, as values; the slope is that of the sum."""
    rows, columns = tile.codes.shape
    up = np.zeros((rows, columns), np.int64)
    for j in range(columns):
        mask = split_mask(o.seed, tile.number, j, o.draw)
        up[:, j] = [(mask >> (8 * (r % 8) + r // 8)) & 1 for r in range(rows)]
    low = tile.codes // 2
    first = low + (tile.codes % 2) * up
    return affine_values(tile, 2 * first, o), affine_values(tile, 2 * (tile.codes - first), o)


def _tile_gradient(
    tile: ReferenceTile, o: ReferenceOptions, model: F64, intercept: F64
) -> tuple[F64, F64, F64, float]:
    """Gradient (outputs, columns), row sums of residual and curvature, and summed loss."""
    mean = affine_values(tile, tile.codes, o)
    at_mean = mean @ model.T + intercept
    noise = (o.variance * model**2).sum(axis=1)
    loss, _, second, _ = _loss(o.loss, at_mean, tile.target)
    taken = _correction(o, noise) * noise
    if not o.split:
        residual = _residual(o, at_mean, tile.target, taken)
        return residual.T @ mean, residual.sum(axis=0), second.sum(axis=0), float(loss.sum())
    # ZipML, section 2.2: each sample takes the residual of the other one. A single sample has
    # twice the variance of the mean.
    q1, q2 = _two_samples(tile, o)
    r1 = _residual(o, q1 @ model.T + intercept, tile.target, 2 * taken)
    r2 = _residual(o, q2 @ model.T + intercept, tile.target, 2 * taken)
    both = 0.5 * (r2.T @ q1 + r1.T @ q2)
    return both, 0.5 * (r1 + r2).sum(axis=0), second.sum(axis=0), float(loss.sum())


def sgd(
    tiles: Sequence[ReferenceTile], o: ReferenceOptions, model: F64, intercept: F64
) -> tuple[F64, F64, F64, F64, float]:
    """Run over the tiles in order; return model, intercept, their sums, and the loss sum."""
    model, intercept = model.copy(), intercept.copy()
    model_sum, intercept_sum = np.zeros_like(model), np.zeros_like(intercept)
    loss_sum = 0.0
    starts = range(0, len(tiles), o.batch_tiles)
    for number, start in enumerate(starts):
        batch = tiles[start : start + o.batch_tiles]
        parts = [_tile_gradient(tile, o, model, intercept) for tile in batch]
        rows = o.batch_rows
        full = sum(len(tile.codes) for tile in batch) / rows
        slope = np.sum([p[0] for p in parts], axis=0) / rows
        residual = np.sum([p[1] for p in parts], axis=0) / rows
        curvature = np.sum([p[2] for p in parts], axis=0)
        rounding = (o.variance * model**2).sum(axis=1)
        loss_sum += sum(p[3] for p in parts) - 0.5 * float(curvature @ rounding)
        part = number / (len(starts) - 1) if len(starts) > 1 else 0.0
        step = o.step_first + (o.step_last - o.step_first) * part
        correction = _correction(o, rounding)
        ridge = 1.0 - correction if o.split else -correction
        slope += (ridge * curvature / rows)[:, None] * o.variance * model
        model = (model - step * slope) / (1.0 + step * full * o.l2)
        if o.fit_intercept:
            intercept = intercept - step * residual
        if number >= o.average_from:
            model_sum += model
            intercept_sum += intercept
    return model, intercept, model_sum, intercept_sum, loss_sum
