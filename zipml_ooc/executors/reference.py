"""The executor `reference`: mini-batch SGD in plain NumPy and double precision.

Slow, and obvious: what others are compared with. A model is rounded to single precision at the end
of each window, as all are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, EncodedChunk
from zipml_codecs.reference import unpack_codes
from zipml_codecs.reference_sgd import Descent, ReferenceOptions, ReferenceTile
from zipml_codecs.reference_weaved import unpack_planes

from ..errors import ExecutorError
from ..losses import LOSSES
from .counted import CountedSession
from .protocol import Capabilities, Session, Settings, Trained, Window

if TYPE_CHECKING:
    from ..training.loading import LoadedTiles
    from ..training.options import TrainOptions
    from ..training.problem import F64, Problem

__all__ = ["Reference", "executor"]

I64 = npt.NDArray[np.int64]


def _double(values: npt.ArrayLike) -> F64:
    return np.asarray(values, np.float64)


def _options(w: Window) -> ReferenceOptions:
    p, anchor = w.problem, None
    if w.anchor is not None:
        a = w.anchor
        parts = (a.model, a.intercept, a.gradient, a.intercept_gradient)
        at, at_intercept, mean, mean_intercept = map(_double, parts)
        anchor = at, at_intercept, mean, mean_intercept
    return ReferenceOptions(
        offset=_double(p.offset),
        slope=_double(p.slope),
        centre=_double(p.centre),
        loss=p.loss,
        split=p.estimator == "split",
        correction=w.shrinkage,
        variance=_double(p.variance),
        l2=_double(p.l2),
        fit_intercept=w.fit_intercept,
        batch_tiles=w.batch_tiles,
        batch_rows=w.batch_rows,
        step_first=w.step_first,
        step_last=w.step_last,
        average_from=w.average_from,
        seed=w.seed,
        draw=w.epoch,
        arithmetic=p.arithmetic,
        stored_bits=p.stored_bits,
        tables=p.tables,
        l1=0.0 if p.l1 is None else _double(p.l1),
        momentum=w.momentum,
        anchor=anchor,
        huber_delta=p.huber_delta,
        woven=p.woven,
    )


def _codes(chunk: EncodedChunk, problem: Problem) -> tuple[I64, I64 | None]:
    """Stored codes of a chunk, and those of its first samples where they are stored."""
    rows, columns = chunk.header.rows, chunk.header.columns
    if not problem.woven:
        return unpack_codes(chunk.codes, rows, columns, problem.stored_bits), None
    precision, samples = problem.precision, problem.samples
    codes = unpack_planes(chunk.codes, rows, columns, precision, samples)
    size = len(chunk.codes) // (precision + samples)
    first = unpack_planes(chunk.codes[: (precision + 1) * size], rows, columns, precision, 1)
    return codes, first


def _tiles(loaded: LoadedTiles, problem: Problem) -> list[ReferenceTile]:
    """The tiles, unpacked, in their order."""
    codes = [_codes(chunk, problem) for chunk in loaded.chunks]
    out = []
    for c, t in loaded.tiles.tolist():
        chunk, part = loaded.chunks[c], slice(t * TILE_ROWS, (t + 1) * TILE_ROWS)
        all_codes, first = codes[c]
        out.append(
            ReferenceTile(
                codes=all_codes[part],
                target=_double(loaded.targets[c][part]),
                row_scale=_double(chunk.upper[part]) if chunk.lower is None else None,
                number=chunk.header.first_tile + t,
                weight=None if loaded.weights is None else _double(loaded.weights[c][part]),
                first=None if first is None else first[part],
            )
        )
    return out


class _Session(CountedSession):
    """Runs windows on the calling thread, in as many parts as they come in."""

    def __init__(self) -> None:
        super().__init__()
        self._way: Descent | None = None

    def load(self, window: Window) -> None:
        self.counters()
        w, self._window = window, window
        way = Descent.begin(_double(w.model), _double(w.intercept), w.batches)
        if w.velocity is not None and w.intercept_velocity is not None:
            way.velocity = _double(w.velocity)
            way.intercept_velocity = _double(w.intercept_velocity)
        self._way = way

    def run(self, tiles: LoadedTiles) -> None:
        self.counters()
        if self._way is None:
            raise ExecutorError("a window is loaded before it is run")
        with self.counting(tiles):
            self._way.go(_tiles(tiles, self._window.problem), _options(self._window))

    def read(self) -> Trained:
        self.counters()
        way = self._way
        if way is None:
            raise ExecutorError("a window is loaded before its model is read")
        moving = self._window.velocity is not None
        velocities = (way.velocity, way.intercept_velocity) if moving else ()
        return Trained(
            way.model.astype(np.float32),
            way.intercept.astype(np.float32),
            way.model_sum,
            way.intercept_sum,
            way.averaged,
            way.loss_sum,
            *(velocity.astype(np.float32) for velocity in velocities),
        )

    def close(self) -> None:
        super().close()
        self._way = None


class Reference:
    """Makes sessions of the NumPy reference."""

    name = "reference"
    summary = "the arithmetic in NumPy, in double precision; slow, to compare others with"

    def capabilities(self) -> Capabilities:
        """All but polynomial gradients and rows that are read again."""
        return Capabilities(
            samples=(1, 2, 4, 8),
            layouts=("packed", "weaved"),
            levels=("uniform", "optimal"),
            scales=("column", "row"),
            losses=tuple(LOSSES),
            estimators=("mean", "split"),
            arithmetics=("float", "int16", "int8"),
            solvers=("sgd", "svrg"),
            penalties=("l1", "l2"),
            outputs=True,
            weights=True,
            momentum=True,
            averaging=True,
            splits=True,
        )

    def unavailable(self) -> str | None:
        """Never."""
        return None

    def check(self, problem: Problem, options: TrainOptions, settings: Settings) -> None:
        """There is nothing more to refuse."""

    def largest_step(self, problem: Problem, batch_rows: int, settings: Settings) -> float:
        """There is no limit."""
        return math.inf

    def devices(self, settings: Settings) -> None:
        """As many as there are threads."""

    def open(self, device: str | None, problem: Problem, settings: Settings) -> Session:
        """Begin with counters at zero."""
        return _Session()


executor = Reference
