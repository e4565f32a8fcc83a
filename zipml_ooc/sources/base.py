"""What every source shares: its options, its blocks, the choice of columns and exact re-batching.

This module knows nothing of file formats and reads no file. The readers beside it produce pieces
of whatever size suits their format; `rebatch` turns them into blocks of exactly the size that was
asked for, so that nothing computed from the blocks depends on a reader's habits.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from zipml_ooc.errors import DataError, UsageError, ZipmlError

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
Piece = TypeVar("Piece")

# Names listed in a message before it says "and N more".
NAMES_SHOWN = 10


@dataclass(frozen=True)
class SourceOptions:
    """How a source is to be read.

    Parameters
    ----------
    target
        Target columns by name or by index; negative indices count from the end. Digits given as
        text are an index unless a column has that name.
    target_optional
        A missing target column is fine: the source then has no target.
    select
        Keep only these feature columns, in this order.
    x_name, y_name
        Names of the arrays in npz files, HDF5 files and Zarr groups.
    header
        CSV: the first line holds the names. Without it the columns are called ``c0``, ``c1``, ...
    delimiter
        CSV: one character; by default a tab for .tsv and a comma otherwise.
    format
        One of csv, parquet, npy, npz, svmlight, hdf5 and zarr; by default from the file name.
    text
        CSV: columns to read as text although they look numeric (a model's one-hot columns).
    """

    target: tuple[str | int, ...] = ()
    target_optional: bool = False
    select: tuple[str, ...] | None = None
    x_name: str = "X"
    y_name: str = "y"
    header: bool = True
    delimiter: str | None = None
    format: str | None = None
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a source.

    Parameters
    ----------
    first_row
        Global number of the first row, counted from 0 over all files.
    features
        A (rows, columns) numeric array, or for tables a record batch of float64 and large_string
        columns in which an empty field is null.
    target
        (rows,) or (rows, outputs); float64 with NaN for a missing value, bool, or object for
        labels with None for a missing one; None without target.
    weight
        (rows,) float64; None where rows count once.
    """

    first_row: int
    features: Array | pa.RecordBatch
    target: Array | None
    weight: Array | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        features: Any = self.features
        if isinstance(features, np.ndarray):
            return int(features.shape[0])
        return int(features.num_rows)


@dataclass(frozen=True)
class RowAccess:
    """Says that rows can be read without those before them.

    Parameters
    ----------
    rows
        Number of rows of the source.
    grain_rows
        Rows that are read together at least, such as those of a row group.
    """

    rows: int
    grain_rows: int = 1


class Source(Protocol):
    """A data set that can be read any number of times as a stream of blocks."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns; ``c0``, ``c1``, ... where the source has none."""

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Those of `columns` that hold text."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target columns, empty without target."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in reading order."""

    @property
    def row_access(self) -> RowAccess | None:
        """How ranges of rows are read; None where they are found only by reading from the start."""

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Read rows, by default all; every block but the last has exactly `rows` rows."""

    def fingerprint(self) -> dict[str, Any]:
        """Cheap provenance that fits JSON: paths, sizes and a digest of the column names."""


@dataclass(frozen=True)
class Layout:
    """Which columns of a file are features and which are targets, by position."""

    columns: tuple[str, ...]
    features: tuple[int, ...]
    target_names: tuple[str, ...]
    targets: tuple[int, ...]


def name_list(names: Sequence[str]) -> str:
    """Names for a message, quoted, the first few only."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def position_names(count: int) -> tuple[str, ...]:
    """The names of nameless columns."""
    return tuple(f"c{i}" for i in range(count))


def plan_columns(
    names: Sequence[str], options: SourceOptions, *, named: bool, place: str
) -> Layout:
    """Split the columns of a file into features and targets.

    Parameters
    ----------
    names
        All columns of the file.
    named
        Whether the file itself names its columns. Where it does not, a selection of the right
        length is taken by position: the files to predict on seldom hold the target column, and
        without it the numbers in the names would be off.
    place
        The file, for messages.
    """
    select = options.select
    nameless_without_target = (
        not named
        and select is not None
        and options.target_optional
        and len(names) == len(select) > 0
    )
    found: list[int] = []
    complete = not nameless_without_target
    if complete:
        for target in options.target:
            position = _target_position(target, names, options, place)
            if position is None:
                complete = False
            elif position in found:
                raise UsageError(
                    f"{place}: target column {names[position]!r} is named twice; name it once"
                )
            else:
                found.append(position)
    taken = set(found)
    features = [i for i in range(len(names)) if i not in taken]
    columns = [names[i] for i in features]
    if select is not None and (named or len(select) != len(features)):
        features = _selected_positions(select, names, taken, place)
    if select is not None:
        columns = list(select)
    if not features:
        raise DataError(
            f"{place}: no feature column is left"
            + (" besides the target; a model needs at least one" if found else "")
        )
    targets = tuple(found) if complete else ()
    return Layout(tuple(columns), tuple(features), tuple(names[i] for i in targets), targets)


def _target_position(
    target: str | int, names: Sequence[str], options: SourceOptions, place: str
) -> int | None:
    if isinstance(target, str) and target in names:
        return names.index(target)
    if isinstance(target, int) or re.fullmatch(r"[+-]?\d+", target):
        index, count = int(target), len(names)
        if -count <= index < count:
            return index % count
        if options.target_optional:
            return None
        raise UsageError(
            f"{place}: target index {index} is out of range; "
            f"the {count} columns have the indices 0 to {count - 1} (or -{count} to -1)"
        )
    if options.target_optional:
        return None
    close = difflib.get_close_matches(target, names, n=3)
    hint = f"did you mean {name_list(close)}?" if close else f"its columns are {name_list(names)}"
    raise UsageError(f"{place}: there is no target column {target!r}; {hint}")


def _selected_positions(
    select: Sequence[str], names: Sequence[str], taken: set[int], place: str
) -> list[int]:
    where = {name: i for i, name in enumerate(names) if i not in taken}
    missing = [name for name in select if name not in where]
    if missing:
        raise UsageError(
            f"{place}: {len(missing)} of the {len(select)} feature columns needed are missing: "
            f"{name_list(missing)}; the file has {len(where)} feature columns "
            f"({name_list(list(where))})"
        )
    return [where[name] for name in select]


def rebatch(
    pieces: Iterable[Piece],
    rows: int,
    *,
    length: Callable[[Piece], int],
    cut: Callable[[Piece, int, int], Piece],
) -> Iterator[list[Piece]]:
    """Regroup pieces of any length into lists that total exactly `rows` rows, save the last."""
    held: list[Piece] = []
    held_rows = 0
    for piece in pieces:
        start, stop = 0, length(piece)
        while stop - start >= rows - held_rows:
            end = start + rows - held_rows
            held.append(cut(piece, start, end))
            yield held
            held, held_rows, start = [], 0, end
        if start < stop:
            held.append(cut(piece, start, stop))
            held_rows += stop - start
    if held:
        yield held


def trim(
    pieces: Iterable[Piece],
    start: int,
    stop: int | None,
    *,
    length: Callable[[Piece], int],
    cut: Callable[[Piece, int, int], Piece],
) -> Iterator[Piece]:
    """Leave out the rows before `start` and from `stop` on; nothing is read behind these."""
    position = 0
    for piece in pieces:
        rows = length(piece)
        first = max(start - position, 0)
        last = rows if stop is None else min(rows, stop - position)
        if first < last:
            yield piece if (first, last) == (0, rows) else cut(piece, first, last)
        position += rows
        if stop is not None and position >= stop:
            return


def check_block_rows(rows: int) -> None:
    """Refuse a block size that cannot be."""
    if rows < 1:
        raise UsageError(f"a block has at least 1 row, not {rows}")


def no_rows(paths: Sequence[str]) -> DataError:
    """The error for a source without rows."""
    return DataError(f"{name_list(paths)}: no rows to read; the data set is empty")


def fingerprint(
    paths: Sequence[str], sizes: Sequence[int | None], columns: Sequence[str]
) -> dict[str, Any]:
    """Provenance of a source, cheap to make and to compare."""
    digest = hashlib.sha256(json.dumps(list(columns)).encode()).hexdigest()
    return {"paths": list(paths), "bytes": list(sizes), "columns_sha256": digest}


@contextmanager
def reading(place: str, kind: str) -> Iterator[None]:
    """Turn whatever a reader of somebody else raises into one of our errors with the file name."""
    try:
        yield
    except (ZipmlError, MemoryError):
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise UsageError(f"{place}: cannot be opened: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: holds text that is not UTF-8 ({error}); convert it to UTF-8"
        ) from error
    except Exception as error:  # the readers' exceptions share no base class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{place}: cannot be read as {kind}: {reason}") from error
