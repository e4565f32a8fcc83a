"""The synthetic sets of the ZipML paper at any size: generated in blocks, streamed to a file.

Every value depends only on the seed and its row, never on how the rows are cut into blocks, so
that a set can be generated again anywhere, and a shorter set is the start of a longer one. This
module is not for realistic data: columns are independent normal numbers and the truth is linear.
(Two limits: NumPy may change between versions how it turns the stream of `Philox` into normal
numbers, and the target is a matrix product, whose last bit depends on the processor.)
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.synthesis_files import (
    Shape,
    check_destination,
    find_writer,
    publish,
    remove,
    size_bytes,
)

__all__ = ["synth", "synth_blocks"]

Block = tuple[NDArray[np.float32], NDArray[np.float32]]

_KINDS = ("regression", "classification")
_GROUP_ROWS = 1024  # rows that share one random stream; part of the definition of the sets
_STEP_VALUES = 1 << 20  # values drawn at a time within a group of rows
_BLOCK_VALUES = 1 << 21  # values of a block on the way to a file: 8 MiB
_BLOCK_ROWS = 1 << 18
_WEIGHTS, _FEATURES, _NOISE = 0, 1, 2  # what a random stream is for


@dataclass(frozen=True)
class _Recipe:
    """What the values of a set depend on, apart from the row."""

    kind: str
    columns: int
    seed: int
    noise: float
    condition: float

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise UsageError(f"unknown kind {self.kind!r}; known: {', '.join(_KINDS)}")
        if self.columns < 1:
            raise UsageError(f"columns is {self.columns}; a set has 1 or more")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or above")
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise UsageError(f"noise is {self.noise}; it must be 0 or above, and finite")
        if not (self.condition >= 1 and math.isfinite(self.condition)):
            raise UsageError(f"condition is {self.condition}; it must be 1 or above, and finite")
        if self.condition > 1 and self.columns == 1:
            raise UsageError(
                f"condition is {self.condition}, but one column has condition 1; "
                "ask for more columns"
            )

    def stream(self, purpose: int, group: int) -> np.random.Generator:
        """The random numbers of one purpose and one group of rows.

        The group is the third word of Philox's counter, so that 2**128 draws separate the groups.
        """
        key = np.random.SeedSequence([purpose, self.seed]).generate_state(2, np.uint64)
        counter = np.array([0, 0, group, 0], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations of the columns: 1 at first, geometric, variances over `condition`."""
        return self.condition ** (-0.5 * np.linspace(0, 1, self.columns))

    def weights(self) -> NDArray[np.float64]:
        """The true coefficients, scaled so that ``x @ weights`` has variance 1."""
        draws = self.stream(_WEIGHTS, 0).standard_normal(self.columns)
        return np.asarray(draws / np.linalg.norm(draws * self.deviations()))


def synth_blocks(
    kind: str,
    rows: int,
    columns: int,
    *,
    seed: int = 0,
    noise: float = 0.1,
    condition: float = 1.0,
    block_rows: int = 65536,
) -> Iterator[Block]:
    """The rows of a synthetic set, block by block.

    Columns are independent and normal with mean 0; their variances fall geometrically from 1 to
    ``1 / condition``, which makes `condition` the condition number of the covariance. (A learner
    that standardises its columns undoes that.) With the signal ``m = x @ w``, scaled to variance
    1, the target is ``m + noise * normal`` for "regression", and for "classification" the label
    of a logistic model, ``P(y = 1) = 1 / (1 + exp(-m / noise))``; without noise, ``m > 0``.

    Parameters
    ----------
    kind : {"regression", "classification"}
    rows, columns : int
        At least 1. The paper has 10,000 training rows of 10, 100 and 1000 columns.
    seed : int, default 0
    noise : float, default 0.1
        Relative to the signal.
    condition : float, default 1.0
    block_rows : int, default 65536
        Rows of each block but the last. It changes the memory, never the values.

    Returns
    -------
    iterator of (x, y)
        float32 arrays of shape (block rows, columns) and (block rows,); labels are 0 and 1.

    Raises
    ------
    UsageError
        An option out of range; at once, not with the first block.
    """
    recipe = _Recipe(kind, columns, seed, noise, condition)
    for name, value in (("rows", rows), ("block_rows", block_rows)):
        if value < 1:
            raise UsageError(f"{name} is {value}; it must be 1 or more")
    return _blocks(recipe, 0, rows, block_rows)


def synth(
    dest: str | os.PathLike[str],
    *,
    kind: str = "regression",
    rows: int = 10000,
    columns: int = 100,
    seed: int = 0,
    noise: float = 0.1,
    condition: float = 1.0,
    test_rows: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a synthetic set to a file, in bounded memory, whole or not at all.

    The suffix of `dest` decides the format: ``.npz`` (arrays X and y), ``.npy`` (y is the last
    column), ``.csv``, ``.csv.gz`` and ``.parquet`` (columns x0, x1, ..., y) or ``.zarr`` (a group
    with the arrays X and y, uncompressed). Values are those of `synth_blocks`; arrays are float32,
    and tables write labels as whole numbers.

    Parameters
    ----------
    dest : path-like
        The file, or the directory of a Zarr group.
    kind, rows, columns, seed, noise, condition
        As in `synth_blocks`.
    test_rows : int, default 0
        If above 0, as many further rows of the same truth go to a second file, whose name has
        ``-test`` before the suffix.
    force : bool, default False
        Replace what is at `dest`.
    progress : callable, optional
        Called after each block with the rows done and the rows in all.

    Returns
    -------
    dict
        ``path``, ``format``, ``rows``, ``columns``, ``kind``, ``seed``, ``noise``, ``condition``,
        ``target`` (its name), ``bytes`` and, with test rows, ``test_path`` and ``test_rows``.

    Raises
    ------
    UsageError
        An unknown suffix, an option out of range, a `dest` that exists, a missing directory.
    DataError
        The disk is full or failed; nothing is left behind and `dest` is as it was.
    """
    recipe = _Recipe(kind, columns, seed, noise, condition)
    if rows < 1 or test_rows < 0:
        raise UsageError(
            f"rows is {rows} and test_rows is {test_rows}; they must be at least 1 and 0"
        )
    target = Path(dest)
    suffix, writer = find_writer(target)
    jobs = [(target, 0, rows)]
    if test_rows:
        stem = target.name[: -len(suffix)]
        jobs.append((target.with_name(f"{stem}-test{suffix}"), rows, rows + test_rows))
    for path, _, _ in jobs:
        check_destination(path, force=force)
    block_rows = max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // columns))
    staged: list[tuple[Path, Path]] = []
    try:
        for path, start, stop in jobs:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            staged.append((temporary, path))
            shape = Shape(stop - start, columns, block_rows, integer_target=kind != "regression")
            blocks = _blocks(recipe, start, stop, block_rows)
            if progress is not None:
                blocks = _reporting(blocks, start, jobs[-1][2], progress)
            writer(temporary, blocks, shape, {**asdict(recipe), "first_row": start})
        written = size_bytes(staged[0][0])
        for temporary, path in staged:
            publish(temporary, path)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror or error}; "
            "give a path in an existing directory that you may write to"
        ) from error
    except OSError as error:
        raise DataError(
            f"writing {target} failed: {error.strerror or error}; nothing was kept, "
            "free some space or ask for fewer rows"
        ) from error
    finally:  # gone already when published
        for temporary, _ in staged:
            remove(temporary)
    result = {"path": str(target), "format": suffix[1:].lower(), "rows": rows, **asdict(recipe)}
    result |= {"target": "y", "bytes": written}
    if test_rows:
        result |= {"test_path": str(jobs[1][0]), "test_rows": test_rows}
    return result


def _steps(recipe: _Recipe, start: int, stop: int) -> Iterator[Block]:
    """Rows `start` to `stop` in the small pieces in which they are drawn.

    A piece is a fixed part of a group whatever rows are asked for: the product with the weights
    then has the same shape, and the same rounding, each time.
    """
    step = _GROUP_ROWS
    while step > 1 and step * recipe.columns > _STEP_VALUES:
        step //= 2
    weights, deviations = recipe.weights(), recipe.deviations().astype(np.float32)
    for group in range(start // _GROUP_ROWS, -(-stop // _GROUP_ROWS)):
        features = recipe.stream(_FEATURES, group)
        noise = recipe.stream(_NOISE, group)
        for first in range(group * _GROUP_ROWS, (group + 1) * _GROUP_ROWS, step):
            if first >= stop:
                return
            x = features.standard_normal((step, recipe.columns), dtype=np.float32)
            x *= deviations
            signal = x.astype(np.float64) @ weights
            if recipe.kind == "regression":
                y = (signal + recipe.noise * noise.standard_normal(step)).astype(np.float32)
            else:  # the logistic model, written as a threshold on the signal and logistic noise
                y = (signal + recipe.noise * noise.logistic(size=step) > 0).astype(np.float32)
            kept = slice(max(start - first, 0), stop - first)
            yield x[kept], y[kept]


def _blocks(recipe: _Recipe, start: int, stop: int, block_rows: int) -> Iterator[Block]:
    """Rows `start` to `stop` in blocks of `block_rows`."""
    steps = _steps(recipe, start, stop)
    x_step, y_step = next(steps)
    for first in range(start, stop, block_rows):
        rows = min(block_rows, stop - first)
        x, y = np.empty((rows, recipe.columns), np.float32), np.empty(rows, np.float32)
        filled = 0
        while filled < rows:
            while not len(y_step):
                x_step, y_step = next(steps)
            taken = min(rows - filled, len(y_step))
            x[filled : filled + taken] = x_step[:taken]
            y[filled : filled + taken] = y_step[:taken]
            x_step, y_step = x_step[taken:], y_step[taken:]
            filled += taken
        yield x, y


def _reporting(
    blocks: Iterator[Block], done: int, total: int, progress: Callable[[int, int], None]
) -> Iterator[Block]:
    for block in blocks:
        yield block
        done += len(block[1])
        progress(done, total)
