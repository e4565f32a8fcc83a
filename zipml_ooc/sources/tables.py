"""Sources with named, typed columns: what the CSV and the Parquet reader share.

A `TableSource` turns Arrow record batches into blocks. In a block every numeric column is float64
and every text column large_string, whatever the file stored, so that consumers meet two types
only. Numbers of any width, booleans, decimals and dictionaries are accepted; dates, times, lists,
structs and binary columns are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.base import (
    NAMES_SHOWN,
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
    rebatch,
    trim,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from zipml_ooc.sources.files import SourceFile

NUMBER = "number"
TEXT = "text"


class TableReader(Protocol):
    """What a table format provides."""

    files: Sequence[SourceFile]
    names: tuple[str, ...]
    named: bool
    kinds: dict[str, str]
    booleans: frozenset[str]

    def prepare(self, targets: Sequence[str]) -> None:
        """Called before each pass, with the names of the target columns."""

    def batches(
        self, columns: Sequence[str], rows: int, start: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """Record batches of these columns over all files, from a row on; `rows` is a hint."""

    def row_access(self) -> RowAccess | None:
        """How ranges of rows are read; None where they are found only by reading from the start."""


class TableSource:
    """Blocks of a table; see `zipml_ooc.sources.base.Source`."""

    def __init__(self, reader: TableReader, options: SourceOptions) -> None:
        self._reader = reader
        place = reader.files[0].path
        self._layout: Layout = plan_columns(reader.names, options, named=reader.named, place=place)
        self._features = [reader.names[i] for i in self._layout.features]
        kinds = reader.kinds
        refused = [
            (name, kinds[name])
            for name in (*self._features, *self._layout.target_names)
            if kinds[name] not in (NUMBER, TEXT)
        ]
        if refused:
            more = f" and {len(refused) - NAMES_SHOWN} more" if len(refused) > NAMES_SHOWN else ""
            listed = ", ".join(f"{name!r} ({kind})" for name, kind in refused[:NAMES_SHOWN])
            raise DataError(
                f"{place}: columns of these types cannot be used: {listed}{more}; "
                "turn them into numbers or text, or remove them"
            )
        self.columns = self._layout.columns
        self.text_columns = tuple(
            column
            for column, name in zip(self.columns, self._features, strict=True)
            if kinds[name] == TEXT
        )
        self.targets = self._layout.target_names
        self._booleans = {
            column
            for column, i in zip(self.targets, self._layout.targets, strict=True)
            if reader.names[i] in reader.booleans
        }
        self.paths = tuple(file.path for file in reader.files)

    @property
    def row_access(self) -> RowAccess | None:
        """How ranges of rows are read."""
        return self._reader.row_access()

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Read rows, by default all; every block but the last has exactly `rows` rows."""
        check_block_rows(rows)
        return self._blocks(rows, start, stop)

    def _blocks(self, rows: int, start: int, stop: int | None) -> Iterator[Block]:
        import pyarrow as pa

        self._reader.prepare(self.targets)
        wanted = [*self._features, *self.targets]
        first_row = start
        batches = self._reader.batches(wanted, rows, start)
        end = None if stop is None else stop - start
        pieces = trim(batches, 0, end, length=_length, cut=_cut)
        for held in rebatch(pieces, rows, length=_length, cut=_cut):
            joined = [_join([piece.column(i) for piece in held]) for i in range(len(wanted))]
            count = len(self._features)
            features = pa.RecordBatch.from_arrays(joined[:count], names=list(self.columns))
            block = Block(first_row, features, self._target(joined[count:]))
            first_row += block.rows
            yield block
        if first_row == 0 != stop:
            raise no_rows(self.paths)

    def _target(self, columns: list[Any]) -> Array | None:
        if not columns:
            return None
        arrays: list[Array] = [np.array(c.to_numpy(zero_copy_only=False)) for c in columns]
        if len(arrays) > 1:
            return np.column_stack(arrays)
        if self.targets[0] not in self._booleans:
            return arrays[0]
        missing = np.isnan(arrays[0])
        labels: Array = arrays[0] > 0
        if missing.any():
            labels = labels.astype(object)
            labels[missing] = None
        return labels

    def fingerprint(self) -> dict[str, Any]:
        """Cheap provenance that fits JSON: paths, sizes and a digest of the column names."""
        return fingerprint(self.paths, [file.size() for file in self._reader.files], self.columns)


def _length(batch: pa.RecordBatch) -> int:
    return int(batch.num_rows)


def _cut(batch: pa.RecordBatch, start: int, stop: int) -> pa.RecordBatch:
    return batch.slice(start, stop - start)


def column_kind(data_type: Any) -> str:
    """NUMBER, TEXT, or for a type that cannot be used its name."""
    import pyarrow.types as t

    if t.is_dictionary(data_type):
        data_type = data_type.value_type
    if (
        t.is_integer(data_type)
        or t.is_floating(data_type)
        or t.is_boolean(data_type)
        or t.is_decimal(data_type)
        or t.is_null(data_type)
    ):
        return NUMBER
    if t.is_string(data_type) or t.is_large_string(data_type) or str(data_type) == "string_view":
        return TEXT
    return str(data_type)


def plain_column(column: Any, kind: str) -> Any:
    """One Arrow array as float64 or large_string."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.large_string() if kind == TEXT else pa.float64()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == wanted:
        return column
    # Integers beyond 2**53 are rounded rather than refused.
    return pc.cast(column, wanted, safe=False)


def check_unique(names: Sequence[str], place: str) -> None:
    """Refuse a table in which two columns share a name."""
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise DataError(
            f"{place}: column names occur twice: {name_list(sorted(set(twice)))}; rename them"
        )


def check_same_columns(
    names: Sequence[str], first: Sequence[str], *, place: str, first_place: str
) -> None:
    """Refuse a further file whose columns are not those of the first, in the same order."""
    if list(names) == list(first):
        return
    missing = [name for name in first if name not in set(names)]
    extra = [name for name in names if name not in set(first)]
    parts = [f"lacks {name_list(missing)}"] if missing else []
    parts += [f"adds {name_list(extra)}"] if extra else []
    if not parts:
        i = next(i for i, pair in enumerate(zip(names, first, strict=True)) if pair[0] != pair[1])
        parts = [f"has {names[i]!r} as column {i} instead of {first[i]!r}"]
    raise UsageError(
        f"{place}: {' and '.join(parts)}, unlike {first_place}; "
        "all files need the same columns in the same order"
    )


def _join(chunks: list[Any]) -> Any:
    import pyarrow as pa

    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
