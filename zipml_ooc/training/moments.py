"""Second moments of stored values, for the guard and for the solver that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from zipml_codecs import TILE_ROWS

from .loading import LoadedTiles
from .problem import F64, Problem

__all__ = ["second_moments"]

_BLOCK_VALUES = 1 << 21


def second_moments(loaded: LoadedTiles, problem: Problem) -> tuple[F64, F64]:
    """Sums of x x', (columns, columns), and of x, (columns,), over the rows in scaled coordinates.

    From exact sums over codes where the scales are the columns', so that they do not depend on the
    order of the rows.
    """
    d = problem.columns
    if loaded.chunks[0].lower is None:  # each row has its own scale: codes alone do not tell
        from threadpoolctl import threadpool_limits

        moments, sums = np.zeros((d, d)), np.zeros(d)
        # Dask runs tasks side by side; BLAS threads on top of that only get in the way.
        with threadpool_limits(limits=1, user_api="blas"):
            for values in _scaled_blocks(loaded, problem):
                moments += values.T @ values
                sums += values.sum(axis=0)
        return moments, sums
    moments, codes = np.empty((d, d)), np.empty(d)
    loaded.batch.gram(moments, codes)
    slope = problem.slope.astype(np.float64)
    offset = problem.offset.astype(np.float64) - problem.centre
    cross = np.outer(offset, slope * codes)
    moments *= slope[:, None]
    moments *= slope
    moments += cross + cross.T + loaded.batch.rows * np.outer(offset, offset)
    return moments, slope * codes + loaded.batch.rows * offset


def _scaled_blocks(loaded: LoadedTiles, problem: Problem) -> Iterator[F64]:
    """Decode a few tiles at a time."""
    at_once = max(1, _BLOCK_VALUES // (TILE_ROWS * problem.columns))
    for start in range(0, len(loaded.tiles), at_once):
        parts = []
        for c, t in loaded.tiles[start : start + at_once].tolist():
            chunk = loaded.chunks[c]
            parts.append(chunk.decode_rows(t, min(TILE_ROWS, chunk.header.rows - t * TILE_ROWS)))
        stored = np.concatenate(parts).astype(np.float64)
        yield np.asarray((stored - problem.column_mean) / problem.column_std)
