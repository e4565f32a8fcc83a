"""The solver `gram`: one pass for the second moments, then the least-squares problem itself.

Products of codes are added up exactly, so that the moments do not depend on threads, chunks or
windows. The rounding variance is taken out of their diagonal, as the estimators take it out of a
gradient, and what is left is solved in double precision: by Cholesky, by eigenvalues where the
problem is singular or a whole ridge path is wanted, by coordinate descent with an L1 penalty.
LS-SVM is the squared loss of the classes' signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from .graph import Graph
from .homes import at_home, find_homes
from .loading import load_tiles
from .moments import second_moments
from .options import TrainOptions
from .problem import F32, F64, Problem
from .results import PathPoint
from .runner import Runner
from .sizes import Sized
from .tasks import Job

__all__ = [
    "MAX_COLUMNS",
    "Fitted",
    "Indefinite",
    "Moments",
    "fit",
    "mean_loss",
    "ridge_path",
    "solve",
]

MAX_COLUMNS = 4096
"""Columns up to which the moments are formed: a window's take 128 MiB there."""

# Directions whose variance is below this part of the largest are rounding of single precision.
_FLAT = 1e-10
_SWEEPS, _TOLERANCE = 10_000, 1e-9
_LEAST_SHRINKAGE = 1e-3


class Indefinite(ValueError):
    """The moments less the correction have a direction of negative variance: no minimum."""


@dataclass(frozen=True)
class Moments(Sized):
    """Sums over rows, in scaled coordinates.

    Attributes
    ----------
    rows : int
    xx : (columns, columns), x : (columns,)
    xy : (outputs, columns), y : (outputs,)
    yy : float
        Of the squares of all outputs.
    bytes_read : int
    """

    rows: int
    xx: F64
    x: F64
    xy: F64
    y: F64
    yy: float
    bytes_read: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.rows + other.rows,
            self.xx + other.xx,
            self.x + other.x,
            self.xy + other.xy,
            self.y + other.y,
            self.yy + other.yy,
            self.bytes_read + other.bytes_read,
        )


def measure(job: Job, window: int, *, held_out: bool) -> Moments:
    """Moments of a window's training rows or held-out rows."""
    problem, plan = job.problem, job.plan
    d, outputs = problem.columns, problem.outputs
    tiles = plan.held_out_tiles(window) if held_out else plan.kept_tiles(window)
    if not len(tiles):
        xx, xy = np.zeros((d, d)), np.zeros((outputs, d))
        return Moments(0, xx, np.zeros(d), xy, np.zeros(outputs), 0.0, 0)
    loaded = load_tiles(job.open(), problem, tiles)
    target = _numbers(problem, loaded.ordered_targets())
    xy = np.empty((outputs, d))
    loaded.batch.gradient(np.ascontiguousarray(target), xy)
    xx, x = second_moments(loaded, problem)
    exact = target.astype(np.float64)
    squares = float(np.square(exact).sum())
    return Moments(loaded.batch.rows, xx, x, xy, exact.sum(axis=0), squares, loaded.bytes_read)


def _numbers(problem: Problem, target: F32) -> F32:
    """Targets as the squared loss takes them: for LS-SVM, 1 for the class of an output, else -1."""
    if problem.loss == "squared":
        return target
    own = target == np.arange(problem.outputs) if problem.class_codes else target > 0.5
    return np.where(own, np.float32(1.0), np.float32(-1.0))


@dataclass(frozen=True)
class Fitted:
    """The solution, with mean losses of a row in the target's own units."""

    model: F64
    intercept: F64
    loss: float
    validation_loss: float | None
    path: tuple[PathPoint, ...]
    bytes_read: int
    shrinkage: float


def fit(job: Job, runner: Runner, options: TrainOptions) -> Fitted:
    """Gather the moments and solve for the model, or for the models of a path.

    Raises
    ------
    UsageError
        The loss is no squared one, or there are weights or too many columns.
    Indefinite
        There is no minimum.
    """
    problem = job.problem
    if problem.loss not in ("squared", "ls-svm"):
        raise UsageError(
            f"solver gram needs the squared loss or ls-svm and this run has the {problem.loss} "
            "one: use --solver sgd or svrg"
        )
    if problem.weights is not None:
        raise UsageError("solver gram takes no weights: use --solver sgd or svrg")
    kept = job.schedule.shrinkage if problem.corrected else 0.0
    moments = gather(job, runner, held_out=False)
    there = gather(job, runner, held_out=True) if job.plan.held_out else None
    strengths = options.l2_path or (options.l2,)
    while True:
        models = _solutions(moments, problem, kept, options)
        # A shrinkage that was chosen was chosen on a sample: it may be too much for all rows.
        if kept == 0 or options.shrinkage is not None or None not in models:
            break
        kept = kept / 4 if kept > _LEAST_SHRINKAGE else 0.0
    path, found = [], []
    for l2, model in zip(strengths, models, strict=True):
        if model is None:
            continue
        loss = mean_loss(moments, problem, *model) * problem.loss_unit
        validation = None
        if there is not None:
            validation = mean_loss(there, problem, *model) * problem.loss_unit
        path.append(PathPoint(l2, loss, validation))
        found.append(model)
    if not path:
        raise Indefinite
    best = min(range(len(path)), key=lambda i: (path[i].validation_loss or 0.0, i))
    read = moments.bytes_read + (there.bytes_read if there is not None else 0)
    chosen = path[best]
    points = tuple(path) if options.l2_path else ()
    return Fitted(*found[best], chosen.loss, chosen.validation_loss, points, read, kept)


def _solutions(
    moments: Moments, problem: Problem, kept: float, options: TrainOptions
) -> list[tuple[F64, F64] | None]:
    """The model of each penalty; None where there is no minimum."""
    centred = options.fit_intercept
    if options.l2_path:
        return ridge_path(moments, problem, kept, options.l2_path, fit_intercept=centred)
    try:
        return [solve(moments, problem, kept, fit_intercept=centred)]
    except Indefinite:
        return [None]


def gather(job: Job, runner: Runner, *, held_out: bool) -> Moments:
    """Moments of all windows: pairs are added, then pairs of pairs, in a fixed order."""
    if job.problem.columns > MAX_COLUMNS:
        raise UsageError(
            f"solver gram takes up to {MAX_COLUMNS} columns and the dataset has "
            f"{job.problem.columns}: use --solver sgd"
        )
    graph, shared = Graph(), runner.share("job", job)
    name = "held-out" if held_out else "kept"
    homes = find_homes(runner, job.plan, graph)
    parts = [
        graph.add(
            f"gram-{name}-window{w}",
            measure,
            shared,
            w,
            held_out=held_out,
            **at_home(homes, w, knows=False),
        )
        for w in range(job.plan.windows)
    ]
    level = 0
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [
            graph.add(f"gram-{name}-sum{level}-{i}", _add, *pair) if len(pair) == 2 else pair[0]
            for i, pair in enumerate(pairs)
        ]
        level += 1
    return runner.compute(graph, parts[0])  # type: ignore[no-any-return]


def _add(a: Moments, b: Moments) -> Moments:
    return a + b


@dataclass(frozen=True)
class _System:
    """Half w'Aw - c'w, for each output the same A; and the means that give the intercept."""

    matrix: F64
    right: F64  # outputs x columns
    mean: F64
    target_mean: F64

    def intercept(self, model: F64) -> F64:
        return np.asarray(self.target_mean - model @ self.mean)


def _system(moments: Moments, problem: Problem, kept: float, *, fit_intercept: bool) -> _System:
    n = moments.rows
    mean, target_mean = moments.x / n, moments.y / n
    if not fit_intercept:
        mean, target_mean = np.zeros_like(mean), np.zeros_like(target_mean)
    matrix = moments.xx / n - np.outer(mean, mean)
    matrix[np.diag_indices(len(mean))] -= kept * problem.variance.astype(np.float64)
    return _System(matrix, moments.xy / n - np.outer(target_mean, mean), mean, target_mean)


def solve(
    moments: Moments, problem: Problem, kept: float, *, fit_intercept: bool
) -> tuple[F64, F64]:
    """Model and intercept of least penalised loss, with the part `kept` of the correction.

    Raises
    ------
    Indefinite
        There is no minimum.
    """
    from threadpoolctl import threadpool_limits

    system = _system(moments, problem, kept, fit_intercept=fit_intercept)
    l2 = problem.l2.astype(np.float64)
    with threadpool_limits(limits=1, user_api="blas"):  # the same digits on any number of cores
        if problem.l1 is None:
            model = _ridge(system, l2)
        else:
            model = _elastic_net(system, problem.l1.astype(np.float64), l2)
    return _single(model), system.intercept(_single(model))


def ridge_path(
    moments: Moments,
    problem: Problem,
    kept: float,
    strengths: Sequence[float],
    *,
    fit_intercept: bool,
) -> list[tuple[F64, F64] | None]:
    """Models for many strengths of the L2 penalty from one decomposition; None: no minimum."""
    from threadpoolctl import threadpool_limits

    system = _system(moments, problem, kept, fit_intercept=fit_intercept)
    scale = problem.column_std  # in these units the penalty is the same for every column
    with threadpool_limits(limits=1, user_api="blas"):
        values, vectors = np.linalg.eigh(system.matrix * scale[:, None] * scale)
        right = (system.right * scale) @ vectors
        out: list[tuple[F64, F64] | None] = []
        for l2 in strengths:
            try:
                model = _single(_divide(right, values + l2) @ vectors.T * scale)
            except Indefinite:
                out.append(None)
            else:
                out.append((model, system.intercept(model)))
    return out


def mean_loss(moments: Moments, problem: Problem, model: F64, intercept: F64) -> float:
    """Mean loss of a row, the rounding bias removed, in scaled coordinates."""
    n = max(moments.rows, 1)
    fitted = ((model @ moments.xx) * model).sum() + 2 * intercept @ (model @ moments.x)
    fitted += moments.rows * intercept @ intercept
    cross = (model * moments.xy).sum() + intercept @ moments.y
    rounding = (problem.variance.astype(np.float64) * np.square(model)).sum()
    return float(0.5 * (moments.yy - 2 * cross + fitted) / n - 0.5 * rounding)


def _single(model: F64) -> F64:
    """In single precision, like all models: it hides the last digits of the linear algebra."""
    return model.astype(np.float32).astype(np.float64)


def _ridge(system: _System, l2: F64) -> F64:
    matrix = system.matrix + np.diag(l2)
    largest = float(np.diag(matrix).max(initial=0.0))
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        lower = np.zeros((0, 0))
    if len(lower) and float(np.diag(lower).min()) ** 2 > _FLAT * largest:
        return np.asarray(np.linalg.solve(matrix, system.right.T).T)
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(_divide(system.right @ vectors, values) @ vectors.T)


def _divide(right: F64, values: F64) -> F64:
    """Solve in the basis of eigenvectors; what hardly varies has no part in the solution."""
    floor = _FLAT * max(float(values[-1]), 0.0)
    if values[0] < -floor:
        raise Indefinite
    varies = values > floor
    return np.asarray(np.where(varies, right / np.where(varies, values, 1.0), 0.0))


def _elastic_net(system: _System, l1: F64, l2: F64) -> F64:
    """Coordinate descent, one output after the other."""
    diagonal = np.diag(system.matrix) + l2
    slack = _FLAT * max(float(diagonal.max(initial=0.0)), 1e-300) * len(l2)
    try:
        np.linalg.cholesky(system.matrix + np.diag(l2 + slack))
    except np.linalg.LinAlgError as error:
        raise Indefinite from error
    return np.stack([_descend(system.matrix, c, diagonal, l1, l2) for c in system.right])


def _descend(matrix: F64, right: F64, diagonal: F64, l1: F64, l2: F64) -> F64:
    """Minimise half w'(A + l2)w - c'w + l1 |w|: over all columns, then over those in use."""
    model, slope = np.zeros_like(right), right.copy()  # slope: c - A w
    moving = np.flatnonzero(diagonal > 0)
    bound = _TOLERANCE * float(np.abs(right).max(initial=0.0))
    columns = moving
    for _ in range(_SWEEPS):
        largest = 0.0
        for j in columns.tolist():
            old = model[j]
            pull = slope[j] + (diagonal[j] - l2[j]) * old
            new = np.sign(pull) * max(abs(pull) - l1[j], 0.0) / diagonal[j]
            if new != old:
                model[j] = new
                slope -= matrix[j] * (new - old)
                largest = max(largest, abs(new - old) * diagonal[j])
        if largest <= bound and columns is moving:
            break
        columns = moving if largest <= bound else np.flatnonzero(model)
    return model
