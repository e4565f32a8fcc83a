"""Step size and shrinkage from the spectrum of the stored data, measured on a sample of tiles.

The correction makes the second-moment matrix of the stored values unbiased, not positive
definite: where a direction of the data is weaker than the noise of estimating it, the corrected
matrix may be near singular and the solution far off. The guard therefore takes out only the part
of the rounding variance that the spectrum bears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from zipml_codecs import TILE_ROWS

from ..dataset import open_cached
from .loading import LoadedTiles, load_tiles
from .plan import Plan
from .problem import F64, Problem
from .tasks import Job

__all__ = ["Spectrum", "measure", "sample_windows", "shrinkage", "step_size"]

_DENSE_COLUMNS = 2048
_SAMPLE_WINDOWS = 8
_SAMPLE_WORK = 4e10  # multiply-adds for the second moments: a second or so
_MIN_SAMPLE_ROWS, _ROWS_PER_COLUMN = 16_384, 8
_BLOCK_VALUES = 1 << 21
# Margin between the shrunk correction and singularity, in units of the spread that the smallest
# eigenvalue of a d-column noise matrix has at n rows, sqrt(d / n).
_SAFETY = 5.0
# Variances below this part of a column's own are taken as this: such a column is exact enough.
_VARIANCE_FLOOR = 1e-9
_LANCZOS_STEPS = 80


@dataclass(frozen=True)
class Spectrum:
    """Sums over sampled rows of the stored values in scaled coordinates.

    Attributes
    ----------
    rows : int
    moments : (columns, columns) float64 or None
        Sum of x x'; None where there are too many columns for a matrix.
    norm2, norm4 : float
        Sums of the squared norm of a row, and of its square.
    smallest, largest : float or None
        Extreme eigenvalues found without a matrix: of the moments scaled by the rounding
        deviations, less what Lanczos leaves open, and of the moments.
    """

    rows: int
    moments: F64 | None
    norm2: float
    norm4: float
    smallest: float | None = None
    largest: float | None = None

    def __add__(self, other: Self) -> Spectrum:
        if self.moments is None or other.moments is None:
            # Windows are measured one by one: the extremes over all of them are on the safe side.
            parts = [s for s in (self, other) if s.rows]
            return Spectrum(
                self.rows + other.rows,
                None,
                self.norm2 + other.norm2,
                self.norm4 + other.norm4,
                min((s.smallest for s in parts if s.smallest is not None), default=None),
                max((s.largest for s in parts if s.largest is not None), default=None),
            )
        return Spectrum(
            self.rows + other.rows,
            self.moments + other.moments,
            self.norm2 + other.norm2,
            self.norm4 + other.norm4,
        )


def sample_windows(plan: Plan, problem: Problem) -> tuple[list[int], int]:
    """Which windows to look at, and at how many tiles of each."""
    d = max(problem.columns, 1)
    rows = max(_MIN_SAMPLE_ROWS, _ROWS_PER_COLUMN * d, min(1 << 16, int(_SAMPLE_WORK / d**2)))
    windows = sorted(plan.window_order(-1 & 0x7FFFFFFF)[:_SAMPLE_WINDOWS])
    return windows, max(1, -(-rows // (TILE_ROWS * len(windows))))


def measure(job: Job, window: int, max_tiles: int) -> Spectrum:
    """Measure the spectrum of some training tiles of a window."""
    problem, plan = job.problem, job.plan
    dense = problem.columns <= _DENSE_COLUMNS
    tiles = plan.training_tiles(window, 0)[:max_tiles]
    moments = np.zeros((problem.columns,) * 2) if dense else None
    if not len(tiles):
        return Spectrum(0, moments, 0.0, 0.0)
    loaded = load_tiles(open_cached(job.path), problem, np.sort(tiles))
    rows = loaded.batch.rows
    norms = np.empty(rows, np.float32)
    loaded.batch.square_norms(norms)
    squares = norms.astype(np.float64)
    norm2, norm4 = float(squares.sum()), float(np.square(squares).sum())
    if dense:
        return Spectrum(rows, _moments(loaded, problem), norm2, norm4)
    smallest, largest = _extremes(loaded, problem)
    return Spectrum(rows, None, norm2, norm4, smallest, largest)


def _moments(loaded: LoadedTiles, problem: Problem) -> F64:
    """Sum of x x' over the rows, from exact sums over codes where the scales are the columns'."""
    if loaded.chunks[0].lower is None:
        return sum(values.T @ values for values in _scaled_blocks(loaded, problem))  # type: ignore[return-value]
    d = problem.columns
    moments, sums = np.empty((d, d)), np.empty(d)
    loaded.batch.gram(moments, sums)
    slope = problem.slope.astype(np.float64)
    offset = problem.offset.astype(np.float64) - problem.centre
    cross = np.outer(offset, slope * sums)
    moments *= slope[:, None]
    moments *= slope
    moments += cross + cross.T + loaded.batch.rows * np.outer(offset, offset)
    return moments


def _scaled_blocks(loaded: LoadedTiles, problem: Problem) -> Iterator[F64]:
    """Decode a few tiles at a time, in scaled coordinates."""
    at_once = max(1, _BLOCK_VALUES // (TILE_ROWS * problem.columns))
    for start in range(0, len(loaded.tiles), at_once):
        parts = []
        for c, t in loaded.tiles[start : start + at_once].tolist():
            chunk = loaded.chunks[c]
            parts.append(chunk.decode_rows(t, min(TILE_ROWS, chunk.header.rows - t * TILE_ROWS)))
        stored = np.concatenate(parts).astype(np.float64)
        yield np.asarray((stored - problem.column_mean) / problem.column_std)


def _floored(problem: Problem, diagonal: F64 | float) -> F64:
    variance = problem.variance.astype(np.float64)
    return np.maximum(variance, _VARIANCE_FLOOR * np.maximum(diagonal, _VARIANCE_FLOOR))


def shrinkage(spectrum: Spectrum, problem: Problem) -> float:
    """Choose the part of the correction to apply: tau in 0..1.

    With G the second moments of the stored values and V the diagonal matrix of their rounding
    variances, the largest admissible tau keeps G + l2 - tau V positive semidefinite: it is the
    smallest eigenvalue of V^-1/2 (G + l2) V^-1/2. Estimating G from n rows spreads that eigenvalue
    by about sqrt(d / n), and tau stays five times that below it.
    """
    if not problem.corrected or spectrum.rows == 0:
        return 0.0
    if not problem.variance.any():
        return 1.0
    if spectrum.moments is not None:
        gram = spectrum.moments / spectrum.rows + np.diag(problem.l2.astype(np.float64))
        inverse = 1.0 / np.sqrt(_floored(problem, np.diag(gram)))
        admissible = float(np.linalg.eigvalsh(gram * inverse[:, None] * inverse)[0])
    else:
        admissible = spectrum.smallest or 0.0
    spread = np.sqrt(problem.columns / spectrum.rows)
    return _rounded_down(float(np.clip(admissible - _SAFETY * spread, 0.0, 1.0)))


def step_size(spectrum: Spectrum, problem: Problem, batch_rows: int) -> float:
    """Choose the step: half of what mini-batch SGD on a quadratic bears.

    The bound is 2 / (curvature (largest eigenvalue + R2 / batch)), R2 = E|x|^4 / E|x|^2 with the
    intercept's constant column counted in; the curvature of the logistic loss is at most 1/4.
    """
    curvature = 0.25 if problem.loss == "logistic" else 1.0
    if spectrum.rows == 0 or spectrum.norm2 == 0:
        return 1.0 / curvature / 2
    if spectrum.moments is not None:
        largest = float(np.linalg.eigvalsh(spectrum.moments / spectrum.rows)[-1])
    else:
        largest = spectrum.largest or spectrum.norm2 / spectrum.rows
    n = spectrum.rows
    with_one = (spectrum.norm4 + 2 * spectrum.norm2 + n) / (spectrum.norm2 + n)
    return _rounded_down(1.0 / (curvature * (max(largest, 1.0) + with_one / batch_rows)))


def _rounded_down(value: float) -> float:
    """Keep twelve significant bits.

    The last digits of a matrix product depend on the linear algebra library, its threads and the
    processor; what is chosen from it must not.
    """
    fraction, exponent = np.frexp(value)
    return float(np.ldexp(np.floor(fraction * 4096.0) / 4096.0, exponent))


def _extremes(loaded: LoadedTiles, problem: Problem) -> tuple[float, float]:
    """Extreme eigenvalues from products with the packed tiles alone."""
    rows = loaded.batch.rows
    inverse = 1.0 / np.sqrt(_floored(problem, 1.0))
    zero = np.zeros(problem.outputs, np.float32)

    def gram(vector: F64) -> F64:
        copies = np.repeat(vector.astype(np.float32)[None], problem.outputs, axis=0)
        out = np.empty((problem.outputs, problem.columns))
        loaded.batch.gradient(loaded.margins(copies, zero), out)
        return np.asarray(out[0] / rows + problem.l2 * vector)

    low, _ = lanczos(lambda v: inverse * gram(inverse * v), problem.columns)
    _, high = lanczos(gram, problem.columns)
    return low, high


def lanczos(
    apply: Callable[[F64], F64], size: int, steps: int = _LANCZOS_STEPS
) -> tuple[float, float]:
    """Bounds of the spectrum of a symmetric operator, with full reorthogonalisation.

    Returns
    -------
    low, high : float
        The extreme Ritz values moved outwards by their residuals.
    """
    steps = min(steps, size)
    start = np.random.Generator(np.random.Philox(key=1)).standard_normal(size)
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(steps):
        image = apply(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):
            for vector in basis:
                image = image - (vector @ image) * vector
        norm = float(np.linalg.norm(image))
        beside.append(norm)
        if norm <= 1e-12 * max(abs(d) for d in diagonal):
            break
        basis.append(image / norm)
    k = len(diagonal)
    tridiagonal = np.diag(diagonal) + np.diag(beside[: k - 1], 1) + np.diag(beside[: k - 1], -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    residual = beside[k - 1] * np.abs(vectors[-1])
    return float(values[0] - residual[0]), float(values[-1] + residual[-1])
