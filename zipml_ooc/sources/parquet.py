"""Parquet files, read in record batches; only the columns that are needed leave the disk.

The types come from the files' footers. Reading takes memory for a few pages of every column, but
for the needed columns of a whole row group where the file is remote. Partition
columns that exist only in directory names (``year=2024/``) are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zipml_ooc.errors import DataError
from zipml_ooc.sources.base import no_rows, reading
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
        rows = 0
        for file in files:
            with reading(file.path, "Parquet"), _open(file) as parquet:
                schema = parquet.schema_arrow
                rows += parquet.metadata.num_rows
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
        if rows == 0:
            raise no_rows([file.path for file in files])

    def prepare(self, targets: Sequence[str]) -> None:
        """The footers have said everything already."""

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Record batches of these columns over all files."""
        import pyarrow as pa

        for file in self.files:
            with reading(file.path, "Parquet"), _open(file) as parquet:
                size = min(rows, _BATCH_ROWS)
                for batch in parquet.iter_batches(batch_size=size, columns=list(columns)):
                    arrays = [plain_column(batch.column(c), self.kinds[c]) for c in columns]
                    yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _open(file: SourceFile) -> Any:
    import pyarrow.parquet as pq

    # Buffering ahead holds a whole row group, easily gigabytes; small reads of one column after
    # the other are fine on a local disk, but far too slow over a network.
    if file.local:
        return pq.ParquetFile(file.inner, pre_buffer=False, buffer_size=_COLUMN_BUFFER_BYTES)
    return pq.ParquetFile(file.open(), pre_buffer=True)
