"""Mini-batch SGD on code sums in plain NumPy, slow and obvious: the oracle of the training kernels.

It works in double precision on codes that are already unpacked, so it agrees with the native
kernels to their single precision, not bit for bit. What integer arithmetic rounds, it rounds in
single precision with the same draws: then a number is rounded the other way only where the last
bits of its own single precision decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_losses import ReferenceLoss, series_part
from .rng import Purpose, rounding_draws, split_mask

__all__ = [
    "Descent",
    "ReferenceOptions",
    "ReferenceTile",
    "Sums",
    "affine_values",
    "full_gradient",
    "gradient",
    "gram",
    "largest_number",
    "margins",
    "rounded",
    "scales",
    "sgd",
    "square_norms",
    "targets",
    "unscaled",
]

GROUP_TILES, GROUP_BYTES = 4, 256 << 10

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReferenceTile:
    """Stored codes of up to 64 rows, (rows, columns); targets (rows, outputs); scales (rows,).

    Column scales have no row scales: None. Targets may be class codes, (rows, 1), for several
    outputs. Rows without weights, (rows,), count once. Where the codes of the first sample are
    stored, they need not be drawn.
    """

    codes: npt.NDArray[np.int64]
    target: F64
    row_scale: F64 | None
    number: int
    weight: F64 | None = None
    first: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ReferenceOptions:
    """The options of the native `sgd`; `offset`, `slope` and `centre` map codes to values.

    With `tables`, (columns, codes), a code stands for its entry in the table of its column. An
    `anchor` is a model, its intercept, and the mean gradients of the two over all rows. `woven` is
    the number of sample planes of the weaved layout, 0 of the packed one.
    """

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
    arithmetic: str = "float"
    stored_bits: int = 8
    tables: npt.NDArray[Any] | None = None
    l1: F64 | float = 0.0
    momentum: float = 0.0
    anchor: tuple[F64, F64, F64, F64] | None = None
    huber_delta: float = 1.345
    woven: int = 0


def levels(codes: npt.NDArray[Any], o: ReferenceOptions) -> npt.NDArray[Any]:
    """What codes stand for before the affine map: themselves, or entries of level tables.

    Twice a sample lies beyond the table if a sum has all bits set, which no writer makes.
    """
    if o.tables is None:
        return codes
    entry = np.minimum(codes, o.tables.shape[1] - 1)
    return np.asarray(o.tables[np.arange(codes.shape[1]), entry], np.int64)


def scales(tile: ReferenceTile) -> F64:
    """Row scales, a column: ones where there are none."""
    ones = np.ones(len(tile.codes))
    return (ones if tile.row_scale is None else tile.row_scale)[:, None]


def unscaled(codes: npt.NDArray[Any], o: ReferenceOptions) -> F64:
    """What codes stand for before the row scale and the centre."""
    return np.asarray(o.offset + o.slope * levels(codes, o))


def affine_values(tile: ReferenceTile, codes: npt.NDArray[Any], o: ReferenceOptions) -> F64:
    """Values behind codes: row scale times (offset + slope times level), minus centre."""
    return np.asarray(scales(tile) * unscaled(codes, o) - o.centre)


def margins(tile: ReferenceTile, o: ReferenceOptions, model: F64, intercept: F64) -> F64:
    """Margins of the rows of a tile: (rows, outputs)."""
    return np.asarray(affine_values(tile, tile.codes, o) @ model.T + intercept)


def gradient(tile: ReferenceTile, o: ReferenceOptions, residual: F64) -> F64:
    """Sum over rows of residual times value: (outputs, columns)."""
    return np.asarray(residual.T @ affine_values(tile, tile.codes, o))


def gram(tiles: Sequence[ReferenceTile], o: ReferenceOptions) -> tuple[F64, F64]:
    """Second moments, (columns, columns), and sums, (columns,), of the levels: whole numbers."""
    each = [levels(tile.codes, o) for tile in tiles]
    moments, sums = sum(z.T @ z for z in each), sum(z.sum(axis=0) for z in each)
    return np.asarray(moments, np.float64), np.asarray(sums, np.float64)


def square_norms(tile: ReferenceTile, o: ReferenceOptions) -> F64:
    """Squared length of each row of values: (rows,)."""
    return np.asarray((affine_values(tile, tile.codes, o) ** 2).sum(axis=1))


def largest_number(o: ReferenceOptions) -> int:
    """The largest whole number that the digits of an arithmetic hold.

    A digit lies within +-127, or +-64 where it meets codes or levels of eight bits; int16 has two
    of them, the second worth 2 * 127 + 1 (2 * 64 + 1) times the first.
    """
    limit = 64 if o.tables is not None or o.woven or o.stored_bits >= 8 else 127
    return limit if o.arithmetic == "int8" else limit * (2 * limit + 1) + limit


def rounded(values: npt.ArrayLike, draws: npt.NDArray[np.uint16], largest: int) -> F64:
    """Round to multiples of a step, the largest magnitude over `largest`: up with probability.

    A number between two multiples is rounded up where its draw of 16 bits is below its fraction.
    """
    exact: F32 = np.asarray(values, np.float32)
    one, top = np.float32(1), np.float32(largest)
    most = np.float32(np.abs(exact).max(initial=0))
    if not np.isfinite(most):
        return np.full(exact.shape, np.nan)
    with np.errstate(over="ignore", divide="ignore"):
        step = most / top
        inverse = one / step
    if step == 0 or inverse > 3e38:  # too small for single precision: taken for zero
        return np.zeros(exact.shape)
    x = np.clip(exact * inverse, -top, top)
    low = np.floor(x)
    up = draws.astype(np.float32) < (x - low) * np.float32(65536)
    return np.asarray(low + up, np.float64) * float(step)


def _seen_model(o: ReferenceOptions, model: F64, tile: int) -> F64:
    """The model that the codes of a mini-batch meet; `tile` is the number of its first tile."""
    if o.arithmetic == "float":
        return model
    slope: F32 = o.slope.astype(np.float32)
    blocks = -(-model.shape[1] // 64)
    seen = model.copy()
    for k, w in enumerate(model):
        draws = np.concatenate(
            [
                rounding_draws(o.seed, Purpose.MODEL, tile, k * blocks + b, o.draw)
                for b in range(blocks)
            ]
        )[: len(w)]
        factor = rounded(slope * w.astype(np.float32), draws, largest_number(o))
        # A column of one value does not pass through the codes: nothing is rounded there.
        np.divide(factor, o.slope, out=seen[k], where=o.slope != 0)
    return seen


def _seen_residuals(
    o: ReferenceOptions, tiles: Sequence[ReferenceTile], residuals: list[F64], vector: int
) -> list[F64]:
    """The residuals of a group of tiles that the codes meet: (rows, outputs) a tile.

    `vector` is 1 for the difference of two residuals in the split form, which is rounded apart.
    """
    scaled = [r * scales(tile) for tile, r in zip(tiles, residuals, strict=True)]
    if o.arithmetic == "float":
        return scaled
    ends = np.cumsum([len(r) for r in scaled])[:-1]
    together = np.concatenate(scaled)
    for k in range(together.shape[1]):
        index = 2 * k + vector if o.split else k
        draws = np.concatenate(
            [
                rounding_draws(o.seed, Purpose.RESIDUAL, t.number, index, o.draw)[: len(t.codes)]
                for t in tiles
            ]
        )
        together[:, k] = rounded(together[:, k], draws, largest_number(o))
    return np.split(together, ends)


def _groups(o: ReferenceOptions, batch: Sequence[ReferenceTile]) -> list[list[ReferenceTile]]:
    """The tiles of a mini-batch whose residuals are rounded together: as many as a cache holds."""
    bytes_each = 8 * o.stored_bits if o.tables is None else 64 * o.tables.dtype.itemsize
    if o.woven:
        bytes_each = 128 if o.woven << (o.stored_bits - o.woven) > 255 else 64
    fit = max(1, GROUP_BYTES // (bytes_each * len(o.slope)))
    size = min(GROUP_TILES, fit)
    return [list(batch[i : i + size]) for i in range(0, len(batch), size)]


def targets(o: ReferenceOptions, target: F64, outputs: int) -> F64:
    """Targets of each output: class codes become 1 for the class's output and 0 for the others."""
    if target.shape[1] == outputs or o.loss == "softmax":
        return target
    return np.asarray(target == np.arange(outputs), np.float64)


def _first_codes(tile: ReferenceTile, o: ReferenceOptions) -> npt.NDArray[np.int64]:
    """The first of the two samples behind each code sum."""
    if tile.first is not None:
        return tile.first
    rows, columns = tile.codes.shape
    row = np.arange(rows)
    up = np.zeros((rows, columns), np.int64)
    for j in range(columns):
        mask = np.uint64(split_mask(o.seed, tile.number, j, o.draw))
        up[:, j] = (mask >> (8 * (row % 8) + row // 8).astype(np.uint64)) & np.uint64(1)
    return np.asarray(tile.codes // 2 + (tile.codes % 2) * up)


@dataclass
class Sums:
    """What some tiles add to a mini-batch."""

    gradient: F64  # outputs x columns
    residual: F64  # of each output
    curvature: F64  # outputs x outputs
    loss: float


def _group_sums(
    tiles: Sequence[ReferenceTile], o: ReferenceOptions, model: F64, seen: F64, intercept: F64
) -> Sums:
    """Sums over a group; `seen` is the model that the codes meet."""
    loss = ReferenceLoss(o.loss, o.huber_delta)
    noise = (o.variance * model) @ model.T
    taken = o.correction * series_part(o.loss, noise)[:, None] * noise
    firsts, seconds, values, samples = [], [], [], []
    total = Sums(np.zeros_like(model), np.zeros_like(intercept), np.zeros_like(noise), 0.0)
    for tile in tiles:
        mean = affine_values(tile, tile.codes, o)
        at_mean = mean @ seen.T + intercept
        target = targets(o, tile.target, len(intercept))
        weight = np.ones(len(target)) if tile.weight is None else tile.weight
        lost, curvature = loss.value_and_curvature(at_mean, target, weight)
        total.loss += lost
        total.curvature += curvature
        values.append(unscaled(tile.codes, o))
        if not o.split:
            firsts.append(weight[:, None] * loss.slope(at_mean, target, taken))
            total.residual += firsts[-1].sum(axis=0)
            continue
        # The slope is that of the sum: a single sample counts twice. It has twice the variance.
        sample = 2 * _first_codes(tile, o)
        q1 = affine_values(tile, sample, o)
        q2 = 2 * mean - q1
        r1 = weight[:, None] * loss.slope(q1 @ seen.T + intercept, target, 2 * taken)
        r2 = weight[:, None] * loss.slope(q2 @ seen.T + intercept, target, 2 * taken)
        firsts.append(r1)
        seconds.append(r2 - r1)
        samples.append(unscaled(sample, o))
        total.residual += 0.5 * (r1 + r2).sum(axis=0)
    # ZipML, section 2.2: each sample takes the residual of the other one, and
    # (r2 q1 + r1 q2) / 2 = r1 (q1 + q2) / 2 + (r2 - r1) q1 / 2.
    terms = [(1.0, firsts, values), (0.5, seconds, samples)][: 2 if o.split else 1]
    for vector, (factor, residuals, met) in enumerate(terms):
        rounded_ones = _seen_residuals(o, tiles, residuals, vector)
        for tile, r, exact, value in zip(tiles, rounded_ones, residuals, met, strict=True):
            centred = r if tile.row_scale is None else exact  # centres know no row scale
            total.gradient += factor * (r.T @ value - centred.sum(axis=0)[:, None] * o.centre)
    return total


def _mini_batch(
    batch: Sequence[ReferenceTile], o: ReferenceOptions, model: F64, intercept: F64
) -> Sums:
    """Sums over a mini-batch, rounding bias removed from the gradient and from the loss."""
    seen = _seen_model(o, model, batch[0].number)
    parts = [_group_sums(group, o, model, seen, intercept) for group in _groups(o, batch)]
    curvature = np.sum([p.curvature for p in parts], axis=0)
    noise = (o.variance * model) @ model.T
    correction = o.correction * series_part(o.loss, noise)
    ridge = 1.0 - correction if o.split else -correction
    slope = np.sum([p.gradient for p in parts], axis=0)
    return Sums(
        slope + ridge[:, None] * (curvature @ model) * o.variance,
        np.sum([p.residual for p in parts], axis=0),
        curvature,
        sum(p.loss for p in parts) - 0.5 * float((curvature * noise).sum()),
    )


MiniBatch = Callable[[Sequence[ReferenceTile], ReferenceOptions, F64, F64], Sums]


def full_gradient(
    tiles: Sequence[ReferenceTile], o: ReferenceOptions, model: F64, intercept: F64
) -> tuple[F64, F64, float]:
    """Sums of the gradient of the model and of the intercept, and of the loss, over all rows."""
    starts = range(0, len(tiles), o.batch_tiles)
    parts = [_mini_batch(tiles[i : i + o.batch_tiles], o, model, intercept) for i in starts]
    return (
        np.sum([p.gradient for p in parts], axis=0),
        np.sum([p.residual for p in parts], axis=0),
        sum(p.loss for p in parts),
    )


def proximal(model: F64, l1: F64 | float, l2: F64, strength: float) -> F64:
    """The model that the penalties draw this one to: soft thresholds, then the ridge."""
    left = np.maximum(np.abs(model) - strength * l1, 0.0)
    return np.asarray(np.where(model < 0, -left, left) / (1.0 + strength * l2))


@dataclass
class Descent:
    """A model on its way: what steps change. Sums are those of the averaged models.

    `batches` says how many mini-batches are behind, `total` how many there are in all: the step
    falls in a straight line from the first to the last of them.
    """

    model: F64
    intercept: F64
    velocity: F64
    intercept_velocity: F64
    model_sum: F64
    intercept_sum: F64
    total: int
    batches: int = 0
    averaged: int = 0
    loss_sum: float = 0.0

    @classmethod
    def begin(cls, model: F64, intercept: F64, total: int) -> Descent:
        """At rest."""
        like, one = np.zeros_like(model), np.zeros_like(intercept)
        return cls(model.copy(), intercept.copy(), like, one, like.copy(), one.copy(), total)

    def go(
        self,
        tiles: Sequence[ReferenceTile],
        o: ReferenceOptions,
        mini_batch: MiniBatch = _mini_batch,
    ) -> None:
        """Run over the next tiles in order."""
        for start in range(0, len(tiles), o.batch_tiles):
            batch = tiles[start : start + o.batch_tiles]
            sums = mini_batch(batch, o, self.model, self.intercept)
            self.loss_sum += sums.loss
            full = sum(len(tile.codes) for tile in batch) / o.batch_rows
            slope, residual = sums.gradient / o.batch_rows, sums.residual / o.batch_rows
            if o.anchor is not None:
                at, at_intercept, mean, mean_residual = o.anchor
                there = mini_batch(batch, o, at, at_intercept)
                slope = slope - there.gradient / o.batch_rows + full * mean
                residual = residual - there.residual / o.batch_rows + full * mean_residual
            kept = 1.0 - o.momentum
            self.velocity = o.momentum * self.velocity + kept * slope
            self.intercept_velocity = o.momentum * self.intercept_velocity + kept * residual
            part = self.batches / (self.total - 1) if self.total > 1 else 0.0
            step = o.step_first + (o.step_last - o.step_first) * part
            self.model = proximal(self.model - step * self.velocity, o.l1, o.l2, step * full)
            if o.fit_intercept:
                self.intercept = self.intercept - step * self.intercept_velocity
            if self.batches >= o.average_from:
                self.model_sum += self.model
                self.intercept_sum += self.intercept
                self.averaged += 1
            self.batches += 1


def sgd(
    tiles: Sequence[ReferenceTile],
    o: ReferenceOptions,
    model: F64,
    intercept: F64,
    *,
    mini_batch: MiniBatch = _mini_batch,
) -> tuple[F64, F64, F64, F64, float]:
    """Run over the tiles in order; return model, intercept, their sums, and the loss sum."""
    way = Descent.begin(model, intercept, -(-len(tiles) // o.batch_tiles))
    way.go(tiles, o, mini_batch)
    return way.model, way.intercept, way.model_sum, way.intercept_sum, way.loss_sum
