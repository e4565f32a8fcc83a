"""svmlight (libsvm) text files: sparse rows with their labels; needs scikit-learn.

The files are read in ranges of whole lines. A first scan over all of them finds the number of
features and whether indices count from 1: they do where the index 0 never occurs. Rows become
dense only in the blocks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.base import (
    Block,
    RowAccess,
    SourceOptions,
    check_block_rows,
    fingerprint,
    name_list,
    no_rows,
    position_names,
    reading,
    rebatch,
    trim,
)

if TYPE_CHECKING:
    from zipml_ooc.sources.files import SourceFile

CHUNK_BYTES = 4 << 20
LABEL = "label"


@dataclass(frozen=True)
class _Sparse:
    """Rows as scikit-learn parses them."""

    x: Any
    y: Any

    def cut(self, start: int, stop: int) -> _Sparse:
        return _Sparse(self.x[start:stop], self.y[start:stop])


class SvmlightSource:
    """Blocks of svmlight files; see `zipml_ooc.sources.base.Source`."""

    text_columns: tuple[str, ...] = ()
    row_access: RowAccess | None = None  # lines have to be counted from the start

    def __init__(self, files: Sequence[SourceFile], options: SourceOptions) -> None:
        self._files = files
        self.paths = tuple(file.path for file in files)
        self.targets = (LABEL,) if _label_wanted(options, self.paths[0]) else ()
        highest, one_based = self._scan()
        self._one_based = one_based
        found = highest + 1 - one_based
        self._width = found
        self.columns = position_names(found)
        if options.select is not None:
            self.columns = options.select
            self._width = self._model_width(options.select, found)
        if not self.columns:
            raise DataError(f"{self.paths[0]}: no feature occurs in any row")
        self._positions = [int(name[1:]) for name in self.columns]

    def _scan(self) -> tuple[int, bool]:
        lowest, highest, rows = 1, -1, 0
        for file in self._files:
            for chunk in _parsed(file, None, one_based=False):
                rows += len(chunk.y)
                if chunk.x.nnz:
                    lowest = min(lowest, int(chunk.x.indices.min()))
                    highest = max(highest, int(chunk.x.indices.max()))
        if rows == 0:
            raise no_rows(self.paths)
        return highest, lowest > 0 and highest > 0

    def _model_width(self, select: Sequence[str], found: int) -> int:
        strange = [name for name in select if not re.fullmatch(r"c\d+", name)]
        if strange:
            raise UsageError(
                f"{self.paths[0]}: the feature columns {name_list(strange)} are missing; "
                "svmlight features have the names c0, c1, ..."
            )
        width = 1 + max((int(name[1:]) for name in select), default=-1)
        if found > width:
            raise UsageError(
                f"{name_list(self.paths)}: {found} features where {width} are expected; "
                "the data do not fit the model"
            )
        return width

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Read rows, by default all; every block but the last has exactly `rows` rows."""
        check_block_rows(rows)
        return self._blocks(rows, start, stop)

    def _blocks(self, rows: int, start: int, stop: int | None) -> Iterator[Block]:
        every = (
            piece
            for file in self._files
            for piece in _parsed(file, self._width, one_based=self._one_based)
        )
        pieces = trim(
            every, start, stop, length=lambda p: len(p.y), cut=lambda p, a, b: p.cut(a, b)
        )
        in_order = self._positions == list(range(self._width))
        first_row = start
        for held in rebatch(
            pieces, rows, length=lambda piece: len(piece.y), cut=lambda p, a, b: p.cut(a, b)
        ):
            dense = [piece.x.toarray() for piece in held]
            features = dense[0] if len(dense) == 1 else np.concatenate(dense)
            if not in_order:
                features = features[:, self._positions]
            target = np.concatenate([piece.y for piece in held]) if self.targets else None
            yield Block(first_row, features, target)
            first_row += len(features)

    def fingerprint(self) -> dict[str, Any]:
        """Cheap provenance that fits JSON: paths, sizes and a digest of the column names."""
        return fingerprint(self.paths, [file.size() for file in self._files], self.columns)


def _label_wanted(options: SourceOptions, place: str) -> bool:
    wrong = [target for target in options.target if target != LABEL]
    if wrong and not options.target_optional:
        raise UsageError(
            f"{place}: the target of svmlight data is {LABEL!r}, so {wrong[0]!r} cannot be "
            "another; leave the target out"
        )
    return not wrong


def _parsed(file: SourceFile, width: int | None, *, one_based: bool) -> Iterator[_Sparse]:
    """The rows of a file, in ranges of whole lines."""
    lines_before = 0
    for text in _line_ranges(file):
        try:
            yield _parse(text, width, one_based=one_based, place=file.path)
        except (ValueError, OverflowError) as error:
            raise _bad_line(text, lines_before, file.path, error) from error
        lines_before += text.count(b"\n")


def _parse(text: bytes, width: int | None, *, one_based: bool, place: str) -> _Sparse:
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError as error:
        raise UsageError(
            f'{place}: reading svmlight needs scikit-learn: pip install "zipml-ooc[svmlight]"'
        ) from error
    x, y = load_svmlight_file(io.BytesIO(text), n_features=width, zero_based=not one_based)
    return _Sparse(x, y)


def _line_ranges(file: SourceFile) -> Iterator[bytes]:
    with reading(file.path, "svmlight"), closing(file.open_text()) as stream:
        rest: list[bytes] = []
        while chunk := bytes(stream.read(CHUNK_BYTES)):
            end = chunk.rfind(b"\n") + 1
            if end:
                yield b"".join([*rest, chunk[:end]])
                rest = [chunk[end:]]
            else:
                rest.append(chunk)
        if any(rest):
            yield b"".join(rest)


def _bad_line(text: bytes, lines_before: int, place: str, error: Exception) -> DataError:
    """Find the line that does not parse; only errors pay for this."""
    for i, line in enumerate(text.split(b"\n")):
        try:
            _parse(line, None, one_based=False, place=place)
        except (ValueError, OverflowError) as reason:
            shown = line[:80].decode(errors="replace")
            return DataError(
                f"{place}: line {lines_before + i + 1} is not svmlight (label index:value ...): "
                f"{reason}: {shown!r}"
            )
    return DataError(f"{place}: cannot be read as svmlight: {error}")
