"""Parquet files, read in record batches; only the columns that are needed leave the disk.

The types come from the files' footers. Reading takes memory for a few pages of every column, but
for the needed columns of a whole row group where the file is remote. Partition
columns that exist only in directory names (``year=2024/``) are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zipml_ooc.errors import DataError
from zipml_ooc.sources.base import RowAccess, no_rows, reading
from zipml_ooc.sources.tables import (
    check_same_columns,
    check_unique,
    column_kind,
    plain_column,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from zipml_ooc.sources.files import SourceFile

# More rows per batch than this gains no speed.
_BATCH_ROWS = 65536
_COLUMN_BUFFER_BYTES = 256 << 10


class ParquetReader:
    """The `TableReader` of Parquet files with equal columns."""

    named = True

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self.files = files
        self.names: tuple[str, ...] = ()
        self.kinds: dict[str, str] = {}
        self.booleans: frozenset[str] = frozenset()
        # Rows of each row group of each file.
        self._groups: list[list[int]] = []
        for file in files:
            with reading(file.path, "Parquet"), _open(file) as parquet:
                schema = parquet.schema_arrow
                footer = parquet.metadata
                groups = range(footer.num_row_groups)
                self._groups.append([footer.row_group(i).num_rows for i in groups])
            check_unique(schema.names, file.path)
            kinds = {field.name: column_kind(field.type) for field in schema}
            if file is files[0]:
                self.names, self.kinds = tuple(schema.names), kinds
            booleans = frozenset(f.name for f in schema if str(f.type) == "bool")
            # A column that is boolean in one file and a number in another is a number.
            self.booleans = booleans if file is files[0] else self.booleans & booleans
            check_same_columns(schema.names, self.names, place=file.path, first_place=files[0].path)
            for name, kind in kinds.items():
                if kind != self.kinds[name]:
                    raise DataError(
                        f"{file.path}: column {name!r} holds {kind}, but {self.kinds[name]} in "
                        f"{files[0].path}; store it with one type"
                    )
        if not sum(map(sum, self._groups)):
            raise no_rows([file.path for file in files])

    def prepare(self, targets: Sequence[str]) -> None:
        """The footers have said everything already."""

    def row_access(self) -> RowAccess | None:
        """By row groups."""
        rows = [count for groups in self._groups for count in groups]
        return RowAccess(sum(rows), max(rows))

    def batches(
        self, columns: Sequence[str], rows: int, start: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """Record batches of these columns over all files, from a row on."""
        import pyarrow as pa

        for file, counts in zip(self.files, self._groups, strict=True):
            if start >= sum(counts):
                start -= sum(counts)
                continue
            first = 0
            while start >= counts[first]:
                start -= counts[first]
                first += 1
            groups = list(range(first, len(counts)))
            with reading(file.path, "Parquet"), _open(file) as parquet:
                size = min(rows, _BATCH_ROWS)
                for batch in parquet.iter_batches(size, row_groups=groups, columns=list(columns)):
                    skipped = min(start, batch.num_rows)
                    start -= skipped
                    if skipped == batch.num_rows:
                        continue
                    kept = batch.slice(skipped)
                    arrays = [plain_column(kept.column(c), self.kinds[c]) for c in columns]
                    yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _open(file: SourceFile) -> Any:
    import pyarrow.parquet as pq

    # Buffering ahead holds a whole row group, easily gigabytes; small reads of one column after
    # the other are fine on a local disk, but far too slow over a network.
    if file.local:
        return pq.ParquetFile(file.inner, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES)
    return pq.ParquetFile(file.open(), pre_buffer=True)
