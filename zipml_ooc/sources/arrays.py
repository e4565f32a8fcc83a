"""Sources that are arrays: what the npy, npz, HDF5 and Zarr readers share.

A format describes each file as an `ArrayFile` and reads it in pieces; `ArraySource` splits the
columns and cuts the pieces into blocks. Rows lie along the first axis; further axes of X (images)
are flattened. The features keep the type that they are stored in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.base import (
    Array,
    Block,
    Layout,
    RowAccess,
    SourceOptions,
    check_block_rows,
    fingerprint,
    name_list,
    no_rows,
    plan_columns,
    position_names,
    reading,
    rebatch,
)

if TYPE_CHECKING:
    from zipml_ooc.sources.files import SourceFile

# A stored chunk is read whole, once, unless a read would then exceed this.
_READ_BYTES = 256 << 20


@dataclass(frozen=True)
class Rows:
    """Some consecutive rows: X of any dimension and y, if there is one."""

    x: Array
    y: Array | None

    def cut(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`, without a copy."""
        return Rows(self.x[start:stop], None if self.y is None else self.y[start:stop])


@dataclass(frozen=True)
class ArrayFile:
    """One file with the arrays X and perhaps y.

    Parameters
    ----------
    file
        Where it is.
    x_shape, x_dtype
        Of the feature array as it is stored.
    y_shape, y_dtype
        Of the target array; None without one.
    read
        read(rows, start, stop) yields the rows of a range in order, in pieces of about as many rows
        as asked for.
    grain_rows
        Rows that are read together at least; None where all rows before a range are read for it.
    names, target_names
        Names of the columns and of the outputs, None where the file has none.
    """

    file: SourceFile
    x_shape: tuple[int, ...]
    x_dtype: Any
    read: Callable[[int, int, int], Iterator[Rows]]
    y_shape: tuple[int, ...] | None = None
    y_dtype: Any = None
    names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    grain_rows: int | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.x_shape[0]

    @property
    def width(self) -> int:
        """Number of columns once further axes are flattened."""
        return math.prod(self.x_shape[1:])

    @property
    def outputs(self) -> int | None:
        """Number of columns of y, None without y."""
        return None if self.y_shape is None else math.prod(self.y_shape[1:])

    @property
    def text_labels(self) -> bool:
        """Whether y holds text."""
        return self.y_dtype is not None and self.y_dtype.kind in "USTO"


class ArraySource:
    """Blocks of arrays; see `zipml_ooc.sources.base.Source`."""

    text_columns: tuple[str, ...] = ()

    def __init__(self, files: Sequence[ArrayFile], options: SourceOptions) -> None:
        for file in files:
            _check(file, files[0], options)
        self._files = files
        self._y_name = options.y_name
        self.paths = tuple(file.file.path for file in files)
        if not any(file.rows for file in files):
            raise no_rows(self.paths)
        first = files[0]
        has_y = first.outputs is not None
        if has_y and not options.target_optional:
            allowed = {options.y_name, *_output_names(options.y_name, first)}
            wrong = [t for t in options.target if t not in allowed]
            if wrong:
                raise UsageError(
                    f"{first.file.path}: the target is the array {options.y_name!r}, so "
                    f"{wrong[0]!r} cannot be another; leave the target out, or name another "
                    "array with y_name= (--y-name)"
                )
        self._layout: Layout = plan_columns(
            first.names or position_names(first.width),
            _without_target(options) if has_y else options,
            named=first.names is not None,
            place=first.file.path,
        )
        self.columns = self._layout.columns
        self.targets = self._layout.target_names
        if first.outputs is not None:
            self.targets = _output_names(options.y_name, first)

    @property
    def row_access(self) -> RowAccess | None:
        """How ranges of rows are read."""
        grains = [file.grain_rows for file in self._files]
        known = [grain for grain in grains if grain is not None]
        if len(known) < len(grains):
            return None
        return RowAccess(sum(file.rows for file in self._files), max(known))

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Read rows, by default all; every block but the last has exactly `rows` rows."""
        check_block_rows(rows)
        return self._blocks(rows, start, stop)

    def _pieces(self, rows: int, start: int, stop: int | None) -> Iterator[Rows]:
        position = 0
        for file in self._files:
            last = file.rows if stop is None else min(file.rows, stop - position)
            if (first := max(start - position, 0)) < last:
                yield from file.read(rows, first, last)
            position += file.rows

    def _blocks(self, rows: int, start: int, stop: int | None) -> Iterator[Block]:
        first_row = start
        pieces = self._pieces(rows, start, stop)
        for held in rebatch(
            pieces, rows, length=lambda piece: len(piece.x), cut=lambda p, a, b: p.cut(a, b)
        ):
            matrices = [piece.x.reshape(len(piece.x), -1) for piece in held]
            features = _concatenate([_take(m, self._layout.features) for m in matrices])
            target: Array | None = None
            if held[0].y is not None:
                with reading(name_list(self.paths), f"text labels in {self._y_name!r}"):
                    target = _concatenate([_target_values(p.y) for p in held if p.y is not None])
            elif self._layout.targets:
                target = _concatenate(
                    [_target_values(_take(m, self._layout.targets)) for m in matrices]
                )
            yield Block(first_row, features, target)
            first_row += len(features)

    def fingerprint(self) -> dict[str, Any]:
        """Cheap provenance that fits JSON: paths, sizes and a digest of the column names."""
        return fingerprint(self.paths, [file.file.size() for file in self._files], self.columns)


def rows_per_read(rows: int, chunk_rows: int | None, row_bytes: int) -> int:
    """How many rows to read at once so that no stored chunk is decompressed twice."""
    if not chunk_rows:
        return rows
    whole_chunks = max(1, rows // chunk_rows) * chunk_rows
    if whole_chunks > rows and whole_chunks * row_bytes > _READ_BYTES:
        return max(rows, _READ_BYTES // max(1, row_bytes))
    return whole_chunks


def find_x(names: Sequence[str], options: SourceOptions, place: str) -> str:
    """The name of the feature array; a file's only array needs no name."""
    if options.x_name in names:
        return options.x_name
    if len(names) == 1 and names[0] != options.y_name:
        return names[0]
    arrays = f"its arrays are {name_list(sorted(names))}" if names else "it holds no array"
    raise UsageError(
        f"{place}: there is no array {options.x_name!r}; {arrays}; "
        "name the feature array with x_name= (--x-name)"
    )


def find_y(names: Sequence[str], options: SourceOptions, place: str) -> str | None:
    """The name of the target array, None without one; one that was asked for must exist."""
    if options.y_name in names:
        return options.y_name
    if options.y_name != SourceOptions.y_name and not options.target_optional:
        raise UsageError(
            f"{place}: there is no target array {options.y_name!r}; "
            f"its arrays are {name_list(sorted(names))}"
        )
    return None


def check_features(shape: Sequence[int], dtype: Any, place: str) -> None:
    """Refuse an array that is not at least 2-D with real numbers."""
    if dtype.kind == "c":
        raise DataError(
            f"{place}: the features are complex ({dtype}); only real numbers can be used: store "
            "the real and the imaginary parts as columns of their own"
        )
    if dtype.kind not in "biuf":
        raise DataError(
            f"{place}: the features have the type {dtype}; only numbers can be used, "
            "and pickled objects are never loaded: convert the array with astype('float64')"
        )
    if len(shape) < 2:
        raise DataError(
            f"{place}: the features are a {len(shape)}-D array of shape {tuple(shape)}; rows and "
            "columns are needed: reshape a single column to (n, 1), a single row to (1, n)"
        )


def _check(file: ArrayFile, first: ArrayFile, options: SourceOptions) -> None:
    place = file.file.path
    check_features(file.x_shape, file.x_dtype, place)
    if file.width != first.width or file.names != first.names:
        raise UsageError(
            f"{place}: has {file.width} columns where {first.file.path} has {first.width}, or "
            "other names; all files need the same columns in the same order"
        )
    if (file.outputs, file.text_labels) != (first.outputs, first.text_labels):
        raise UsageError(
            f"{place}: its target array {options.y_name!r} is not like that of "
            f"{first.file.path}; all files need a target of one kind and width, or none"
        )
    if file.y_shape is None:
        return
    if file.y_dtype.kind not in "biufUSTO":
        raise DataError(
            f"{place}: the target {options.y_name!r} has the type {file.y_dtype}; "
            "only real numbers and text can be used"
        )
    if not 1 <= len(file.y_shape) <= 2 or file.outputs == 0:
        raise DataError(
            f"{place}: the target {options.y_name!r} has the shape {file.y_shape}; "
            "(rows,) or (rows, outputs) is needed"
        )
    if file.y_shape[0] != file.rows:
        raise DataError(
            f"{place}: the target {options.y_name!r} has {file.y_shape[0]} rows, "
            f"but the features have {file.rows}"
        )


def _output_names(y_name: str, file: ArrayFile) -> tuple[str, ...]:
    if file.target_names is not None:
        return file.target_names
    if file.outputs == 1:
        return (y_name,)
    return tuple(f"{y_name}{i}" for i in range(file.outputs or 0))


def _without_target(options: SourceOptions) -> SourceOptions:
    return SourceOptions(select=options.select)


def _take(matrix: Array, positions: tuple[int, ...]) -> Array:
    first, count = positions[0], len(positions)
    if positions == tuple(range(first, first + count)):
        return matrix[:, first : first + count]
    return matrix[:, list(positions)]


def _concatenate(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _target_values(y: Array) -> Array:
    """float64, bool, or object for text; a single output has one dimension."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "S":
        return np.char.decode(y, "utf-8").astype(object)
    if y.dtype.kind == "b":
        return y
    return y.astype(object if y.dtype.kind in "UTO" else np.float64)
