"""CSV and TSV files, streamed through pyarrow.

The types come from the first block of the first file that has rows. Every numeric column is then
read as float64, so that integers may turn into fractions later on; text in such a column is an
error that names the row. An empty field is null in every column, other spellings of a missing
value ("NA", "null", ...) in the numeric ones only.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.base import (
    RowAccess,
    SourceOptions,
    no_rows,
    position_names,
    reading,
    trim,
)
from zipml_ooc.sources.files import is_tab_separated
from zipml_ooc.sources.tables import (
    NUMBER,
    TEXT,
    check_same_columns,
    check_unique,
    column_kind,
    plain_column,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from zipml_ooc.sources.files import SourceFile

# The first block decides on the types; one row must fit into a block.
BLOCK_BYTES = 4 << 20
_LARGEST_BLOCK_BYTES = 1 << 30

_BAD_VALUE = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+): (.*)", re.DOTALL
)
_BAD_ROW = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)


class CsvReader:
    """The `TableReader` of CSV files with equal columns."""

    def __init__(self, files: Sequence[SourceFile], options: SourceOptions) -> None:
        delimiter = options.delimiter
        if delimiter is not None and (
            len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'
        ):
            raise UsageError(
                f"the delimiter must be one ASCII character, not {delimiter!r}, "
                "and neither a quote nor a line end"
            )
        self.files = files
        self.named = options.header
        self._options = options
        self._block_bytes = BLOCK_BYTES
        self._targets_known = False
        self.names: tuple[str, ...] = ()
        types: dict[str, Any] = {}
        for file in files:
            schema, has_rows = self._first_block(file)
            with reading(file.path, "CSV"):
                names = tuple(schema.names)  # decoded only here
            self._check_names(names, file)
            if not self.names:
                self.names = names
            check_same_columns(names, self.names, place=file.path, first_place=files[0].path)
            if has_rows and not types:
                types = {field.name: field.type for field in schema}
        if not types:
            raise no_rows([file.path for file in files])
        self.kinds = {name: column_kind(data_type) for name, data_type in types.items()}
        for name in options.text:
            if name in self.kinds:
                self.kinds[name] = TEXT
        self._types = types
        self.booleans = frozenset(
            name
            for name, data_type in types.items()
            if self.kinds[name] == NUMBER and str(data_type) == "bool"
        )

    def _first_block(self, file: SourceFile) -> tuple[Any, bool]:
        """The schema that pyarrow infers, and whether the file has any row."""
        while True:
            try:
                with reading(file.path, "CSV"), closing(file.open_text()) as stream:
                    reader = self._open(stream, file, None, None, self._block_bytes)
                    schema = reader.schema
                    try:
                        while reader.read_next_batch().num_rows == 0:
                            pass
                    except StopIteration:
                        return schema, False
                    return schema, True
            except DataError as error:
                if not self._grow(error.__cause__, file):
                    located = self._located(error, lambda: self._read_first(file))
                    raise self._explain(located, file) from error.__cause__

    def _read_first(self, file: SourceFile) -> None:
        with reading(file.path, "CSV"), closing(file.open_text()) as stream:
            reader = self._open(stream, file, None, None, self._block_bytes, threads=False)
            with suppress(StopIteration):
                reader.read_next_batch()

    def _grow(self, error: BaseException | None, file: SourceFile) -> bool:
        """Enlarge the block after a row, or a header, that did not fit into it."""
        message = str(error)
        too_short = "straddl" in message or (
            "Empty CSV file or block" in message and not self._fits_one_block(file)
        )
        if not too_short or self._block_bytes >= _LARGEST_BLOCK_BYTES:
            return False
        self._block_bytes *= 8
        return True

    def _fits_one_block(self, file: SourceFile) -> bool:
        size = None if file.compression else file.size()
        return size is not None and size < self._block_bytes

    def _check_names(self, names: Sequence[str], file: SourceFile) -> None:
        if not self.named:
            return
        if names and all(_is_number(name) for name in names):
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise UsageError(
                f"{file.path}: the header holds only numbers ({shown}); if the first line is "
                "data, read the file with header=False (--no-header)"
            )
        check_unique(names, file.path)

    def prepare(self, targets: Sequence[str]) -> None:
        """Find out, once, whether targets that start as integers are text labels after all.

        Labels such as 1, 2, 3, A are real, and a sorted file shows A only at its end, too late
        for the blocks that went out before. Reading this column alone costs about a third of a
        pass, and only happens where there is more than the first block.
        """
        if self._targets_known:
            return
        import pyarrow.types as t

        whole_file_seen = len(self.files) == 1 and self._fits_one_block(self.files[0])
        unsure = [
            name
            for name in targets
            if self.kinds[name] == NUMBER and not t.is_floating(self._types[name])
        ]
        if not whole_file_seen:
            for name in unsure:
                try:
                    for _ in self.batches([name], 1):
                        pass
                except DataError as error:
                    if _BAD_VALUE.search(str(error.__cause__)):
                        self.kinds[name] = TEXT
                    else:
                        raise
        self._targets_known = True

    def row_access(self) -> RowAccess | None:
        """Lines have to be counted from the start."""
        return None

    def batches(
        self, columns: Sequence[str], rows: int, start: int = 0
    ) -> Iterator[pa.RecordBatch]:
        """Record batches of these columns over all files; pyarrow's blocks set their size."""
        return trim(
            self._batches(columns),
            start,
            None,
            length=lambda batch: int(batch.num_rows),
            cut=lambda batch, first, last: batch.slice(first, last - first),
        )

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        null_text = pa.scalar(None, pa.large_string())
        for file in self.files:
            for batch in self._file_batches(file, columns):
                arrays = []
                for name in columns:
                    column = plain_column(batch.column(name), self.kinds[name])
                    if self.kinds[name] == TEXT:
                        column = pc.if_else(pc.equal(column, ""), null_text, column)
                    arrays.append(column)
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _file_batches(self, file: SourceFile, columns: Sequence[str]) -> Iterator[Any]:
        delivered = 0
        while True:
            try:
                skip = delivered
                for batch in self._read(file, columns, threads=True):
                    fresh = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - fresh.num_rows
                    delivered += fresh.num_rows
                    if fresh.num_rows:
                        yield fresh
                return
            except DataError as error:
                # A row longer than a block: start again with longer blocks where we were.
                if not self._grow(error.__cause__, file):
                    located = self._located(
                        error, lambda: deque(self._read(file, columns, threads=False), maxlen=0)
                    )
                    raise self._explain(located, file) from error.__cause__

    def _located(self, error: DataError, read_again: Callable[[], object]) -> DataError:
        """The error of reading once more without threads: only then does pyarrow count rows."""
        try:
            read_again()
        except DataError as located:
            return located
        return error

    def _read(self, file: SourceFile, columns: Sequence[str], *, threads: bool) -> Iterator[Any]:
        import pyarrow as pa

        types = {
            name: pa.large_string()
            if self.kinds[name] == TEXT
            else pa.bool_()
            if pa.types.is_boolean(self._types[name])
            else pa.float64()
            for name in columns
        }
        with reading(file.path, "CSV"), closing(file.open_text()) as stream:
            reader = self._open(
                stream, file, types, list(self.names), self._block_bytes, threads=threads
            )
            yield from reader

    def _open(
        self,
        stream: Any,
        file: SourceFile,
        types: dict[str, Any] | None,
        names: list[str] | None,
        block_bytes: int,
        *,
        threads: bool = True,
    ) -> Any:
        from pyarrow import csv

        delimiter = self._options.delimiter or ("\t" if is_tab_separated(file) else ",")
        generate = not self.named and names is None
        reader = csv.open_csv(
            stream,
            read_options=csv.ReadOptions(
                block_size=block_bytes,
                use_threads=threads,
                column_names=names if not self.named else None,
                autogenerate_column_names=generate,
            ),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=None if types is None else list(types)
            ),
        )
        if generate:
            import pyarrow as pa

            schema = reader.schema
            return _Renamed(
                reader,
                pa.schema(list(zip(position_names(len(schema)), schema.types, strict=True))),
            )
        return reader

    def _explain(self, error: DataError, file: SourceFile) -> DataError:
        """Say in our words what pyarrow said."""
        message = str(error.__cause__)
        header = " (the header is row 1)" if self.named else ""
        if match := _BAD_VALUE.search(message):
            number, row, wanted, detail = match.groups()
            name = self.names[int(number)] if int(number) < len(self.names) else f"#{number}"
            where = f"row {row}{header}, " if row else ""
            if "UTF8" in detail:
                return DataError(
                    f"{file.path}: {where}column {name!r}: the text is not UTF-8; "
                    "convert the file to UTF-8"
                )
            value = detail.removeprefix("invalid value ")
            kind = "true or false" if wanted == "bool" else "a number"
            return DataError(
                f"{file.path}: {where}column {name!r}: {value} is not {kind}, which the first "
                "rows promise; correct the value, or leave the field empty if it is missing"
            )
        if match := _BAD_ROW.search(message):
            row, expected, got, text = match.groups()
            where = f"row {row}{header}" if row else "a row"
            if "\0" in text:
                return DataError(
                    f"{file.path}: {where} holds zero bytes; the file looks like UTF-16: "
                    "convert it to UTF-8"
                )
            return DataError(
                f"{file.path}: {where} has {got} fields where {expected} are expected: "
                f"{text[:80]!r}; check the delimiter and the quotes"
            )
        if "Empty CSV file" in message:
            return DataError(f"{file.path}: the file is empty")
        return error


class _Renamed:
    """A reader whose schema has our names for nameless columns."""

    def __init__(self, reader: Any, schema: Any) -> None:
        self.schema = schema
        self.read_next_batch = reader.read_next_batch


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
