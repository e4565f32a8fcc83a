"""Step size and shrinkage from the spectrum of the stored data, measured on a sample of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from zipml_codecs import TILE_ROWS

from ..losses import LOSSES
from .loading import LoadedTiles, load_tiles
from .moments import second_moments
from .plan import Plan
from .problem import F32, F64, Problem
from .shrinkage import Whitened, choose, lanczos, rounded_down, whiten, whiten_products
from .tasks import Job

__all__ = ["Spectrum", "measure", "sample_windows", "shrinkage", "step_size"]

_DENSE_COLUMNS = 2048
_SAMPLE_WINDOWS = 8
_SAMPLE_WORK = 4e10  # multiply-adds for the second moments: a second or so
_MIN_SAMPLE_ROWS, _ROWS_PER_COLUMN = 16_384, 8
# Stored bytes of a sample that is held at once, because there is no matrix to add up.
_SAMPLE_BYTES = 256 << 20
_LARGEST_STEPS = 30


@dataclass(frozen=True)
class Spectrum:
    """Sums over sampled rows of the stored values in scaled coordinates.

    Attributes
    ----------
    rows, training_rows : int
        Rows of the sample, and of the whole training.
    moments : (columns, columns) float64 or None
        Sum of x x'; None where there are too many columns for a matrix.
    cross : (outputs, columns) float64
        Sum of y x', for classes with y = -1 or 1.
    power : float
        Sum of the squares of all targets about their mean.
    norm2, norm4 : float
        Sums of the squared norm of a row, and of its square.
    whitened : Whitened or None
        What the guard needs where there is no matrix.
    largest : float or None
        Bound above the eigenvalues of the mean of x x', likewise.
    raised : float
        How many times the curvature and the noise that a step has to bear are, at most, what they
        would be if every row counted once.
    """

    rows: int
    training_rows: int
    moments: F64 | None
    cross: F64
    power: float
    norm2: float
    norm4: float
    whitened: Whitened | None = None
    largest: float | None = None
    raised: float = 1.0

    def __add__(self, other: Self) -> Spectrum:
        if self.moments is None or other.moments is None:
            raise ValueError("a sample without a matrix is measured in one piece")
        return Spectrum(
            self.rows + other.rows,
            max(self.training_rows, other.training_rows),
            self.moments + other.moments,
            self.cross + other.cross,
            self.power + other.power,
            self.norm2 + other.norm2,
            self.norm4 + other.norm4,
            raised=max(self.raised, other.raised),
        )


def sample_windows(plan: Plan, problem: Problem) -> tuple[list[tuple[int, ...]], int]:
    """Which windows to look at, those of a group at once, and at how many tiles of each."""
    d = max(problem.columns, 1)
    rows = max(_MIN_SAMPLE_ROWS, _ROWS_PER_COLUMN * d, min(1 << 16, int(_SAMPLE_WORK / d**2)))
    windows = sorted(plan.window_order(-1 & 0x7FFFFFFF)[:_SAMPLE_WINDOWS])
    groups: list[tuple[int, ...]] = [(window,) for window in windows]
    if d > _DENSE_COLUMNS:
        rows = min(rows, 8 * _SAMPLE_BYTES // (d * problem.stored_bits))
        groups = [tuple(windows)]
    return groups, max(1, -(-rows // (TILE_ROWS * len(windows))))


def measure(job: Job, windows: tuple[int, ...], max_tiles: int) -> Spectrum:
    """Measure the spectrum of some training tiles of each of these windows."""
    problem, plan = job.problem, job.plan
    dense = problem.columns <= _DENSE_COLUMNS
    tiles = np.concatenate([plan.training_tiles(w, 0)[:max_tiles] for w in windows])
    moments = np.zeros((problem.columns,) * 2) if dense else None
    cross = np.zeros((problem.outputs, problem.columns))
    if not len(tiles):
        return Spectrum(0, 1, moments, cross, 0.0, 0.0, 0.0)
    # Several classes are looked at one by one: targets for all of them at once would be many.
    single = replace(problem, outputs=1) if problem.class_codes else problem
    loaded = load_tiles(job.open(), single, np.sort(tiles))
    rows = loaded.batch.rows
    training = max(rows, plan.training_tile_count * TILE_ROWS)
    if len(tiles) == plan.training_tile_count:
        training = rows  # the last tile need not be full
    norms = np.empty(rows, np.float32)
    loaded.batch.square_norms(norms)
    squares = norms.astype(np.float64)
    norm2, norm4 = float(squares.sum()), float(np.square(squares).sum())
    power = 0.0
    for outputs, target in _targets(loaded, problem):
        loaded.batch.gradient(target, cross[outputs])
        power += float(np.square(target - target.mean(axis=0, dtype=np.float64)).sum())
    sums = (
        rows,
        training,
        second_moments(loaded, problem)[0] if dense else None,
        cross,
        power,
        norm2,
        norm4,
    )
    found = Spectrum(*sums) if dense else Spectrum(*sums, *_free(loaded, single, cross / rows))
    if problem.weights is None:
        return found
    return replace(found, raised=_raised(loaded, squares + 1.0, single))


def _targets(loaded: LoadedTiles, problem: Problem) -> Iterator[tuple[slice, F32]]:
    """Numbers, or -1 and 1 for classes, of as many outputs at a time as `loaded` has."""
    target = loaded.ordered_targets()
    if not LOSSES[problem.loss].of_classes:
        yield slice(None), target
        return
    for k in range(problem.outputs):
        own = target == (k if problem.class_codes else 1)
        yield slice(k, k + 1), np.where(own, np.float32(1), np.float32(-1))


def shrinkage(spectrum: Spectrum, problem: Problem) -> float:
    """Choose the part of the correction to apply, tau in 0..1: `zipml_ooc.training.shrinkage`."""
    if not problem.corrected or spectrum.rows == 0:
        return 0.0
    if not problem.variance.any():
        return 1.0
    n, whitened = spectrum.rows, spectrum.whitened
    if whitened is None:
        assert spectrum.moments is not None  # it is the one or the other
        gram = spectrum.moments / n + np.diag(problem.l2.astype(np.float64))
        whitened = whiten(gram, spectrum.cross / n, problem.variance.astype(np.float64))
    return choose(whitened, power=spectrum.power / n, sampled=n, rows=spectrum.training_rows)


def step_size(spectrum: Spectrum, problem: Problem, batch_rows: int) -> float:
    """Choose the step: half of what mini-batch SGD on a quadratic bears.

    The bound is 2 / (curvature (largest eigenvalue + R2 / batch)), R2 = E|x|^4 / E|x|^2 with the
    intercept's constant column counted in; the curvature is the largest of the loss.
    """
    curvature = LOSSES[problem.loss].curvature
    if spectrum.rows == 0 or spectrum.norm2 == 0:
        return 1.0 / curvature / 2
    if spectrum.moments is not None:
        largest = float(np.linalg.eigvalsh(spectrum.moments / spectrum.rows)[-1])
    else:
        largest = spectrum.largest or spectrum.norm2 / spectrum.rows
    n = spectrum.rows
    with_one = (spectrum.norm4 + 2 * spectrum.norm2 + n) / (spectrum.norm2 + n)
    bound = curvature * (max(largest, 1.0) + with_one / batch_rows) * spectrum.raised
    return float(rounded_down(1.0 / bound))


def _raised(loaded: LoadedTiles, squares: F64, problem: Problem) -> float:
    """What weights do to the largest eigenvalue, the constant column included, and to the noise."""
    weight = loaded.ordered_weights()
    if not weight.any():
        return 1.0

    def largest(weights: F64) -> float:
        def gram(vector: F64) -> F64:
            model = np.repeat(vector[None, :-1].astype(np.float32), problem.outputs, axis=0)
            down = np.full(problem.outputs, vector[-1], np.float32)
            residual = loaded.margins(model, down) * weights[:, None].astype(np.float32)
            out = np.empty(model.shape)
            loaded.batch.gradient(residual, out)
            return np.append(out[0], residual[:, 0].sum(dtype=np.float64)) / len(weights)

        return lanczos(gram, problem.columns + 1, _LARGEST_STEPS)[1]

    noise = float(weight**2 @ squares**2) / float(weight @ squares)
    plain = float((squares**2).sum() / squares.sum())
    return max(1.0, largest(weight) / largest(np.ones_like(weight)), noise / plain)


def _free(loaded: LoadedTiles, problem: Problem, cross: F64) -> tuple[Whitened, float]:
    """What there is to know from products with the packed tiles alone."""
    rows = loaded.batch.rows
    zero = np.zeros(problem.outputs, np.float32)

    def gram(vector: F64) -> F64:
        copies = np.repeat(vector.astype(np.float32)[None], problem.outputs, axis=0)
        out = np.empty((problem.outputs, problem.columns))
        loaded.batch.gradient(loaded.margins(copies, zero), out)
        return np.asarray(out[0] / rows)

    whitened = whiten_products(
        lambda v: gram(v) + problem.l2 * v,
        cross,
        problem.variance.astype(np.float64),
        problem.slope == 0,
    )
    return whitened, lanczos(gram, problem.columns, _LARGEST_STEPS)[1]
