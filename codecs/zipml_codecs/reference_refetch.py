"""Rows of the hinge loss read again at all bits, in plain NumPy: the oracle of the native core.

What `refetch.hpp` does, slow and obvious, and the rule itself: which rows a precision decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .reference_sgd import (
    F64,
    ReferenceOptions,
    ReferenceTile,
    _groups,
    _seen_model,
    _seen_residuals,
    affine_values,
    targets,
)

__all__ = ["Refetched", "WovenTile", "middles", "mini_batch", "reach"]


@dataclass(frozen=True)
class WovenTile:
    """A tile of the weaved layout, read at few bits and at all; `base` is that of few, alone."""

    few: ReferenceTile
    all: ReferenceTile
    base: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Refetched:
    """Sums over a mini-batch: gradient (outputs, columns) and residuals (outputs,), and the loss.

    `again` has, for each tile, which rows (rows, outputs) were read again.
    """

    gradient: F64
    residual: F64
    loss: float
    again: list[npt.NDArray[np.bool_]]


def middles(base: npt.NDArray[np.int64], o: ReferenceOptions) -> F64:
    """Middles of the intervals above base codes: (rows, columns)."""
    return np.asarray(o.offset + o.slope * o.woven * (base + 0.5) - o.centre)


def reach(o: ReferenceOptions, model: F64) -> F64:
    """How far a margin may be from that at the middles, for each output."""
    return np.asarray(0.5 * o.woven * (np.abs(o.slope * model)).sum(axis=1))


def mini_batch(
    tiles: Sequence[WovenTile],
    o: ReferenceOptions,
    whole_bits: int,
    model: F64,
    intercept: F64,
) -> Refetched:
    """Sums over a mini-batch; `o` is for the few bits, `whole_bits` are all that are stored."""
    few_bits = o.stored_bits - o.woven
    w = replace(o, slope=np.ldexp(o.slope, few_bits - whole_bits), stored_bits=whole_bits + o.woven)
    seen = _seen_model(o, model, tiles[0].few.number)
    gradient, residual, loss = np.zeros_like(model), np.zeros_like(intercept), 0.0
    again = []
    by_number = {tile.few.number: tile for tile in tiles}
    for group in _groups(o, [tile.few for tile in tiles]):
        coarse, fine, fine_tiles = [], [], []
        for few in group:
            tile = by_number[few.number]
            sign = np.where(targets(o, few.target, len(intercept)) > 0.5, 1.0, -1.0)
            weight = np.ones(len(sign)) if few.weight is None else few.weight
            gap = 1.0 - sign * (middles(tile.base, o) @ seen.T + intercept)
            left = ~(np.abs(gap) > reach(o, seen)) & (weight > 0)[:, None]
            exact = 1.0 - sign * (affine_values(tile.all, tile.all.codes, w) @ seen.T + intercept)
            slope = -sign * weight[:, None]
            coarse.append(np.where(~left & (gap > 0), slope, 0.0))
            again.append(left)
            if left.any():
                fine.append(np.where(left & (exact > 0), slope, 0.0))
                fine_tiles.append(tile.all)
        for options, read, residuals in ((o, group, coarse), (w, fine_tiles, fine)):
            if not read:
                continue
            met = _seen_residuals(options, read, residuals, 0)
            for part, r, plain in zip(read, met, residuals, strict=True):
                gradient += r.T @ affine_values(part, part.codes, options)
                residual += plain.sum(axis=0)
                loss += float(np.abs(plain).sum())
    loss += float(intercept @ residual + (model * gradient).sum())
    return Refetched(gradient, residual, loss, again)
