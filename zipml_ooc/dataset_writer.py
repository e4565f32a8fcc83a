"""The second pass of compression: rounds, packs and writes, piece by piece.

Each piece appears whole under its name, and the metadata come last of all. Pieces that a former
run left are checked and kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from zipml_codecs import ValueRefusedError

from .chunk_encoder import ChunkEncoder, variance_sums
from .dataset_layout import DatasetLayout
from .errors import DataError
from .first_pass import with_variance
from .parallel import Workforce, row_ranges
from .stored_pieces import StoredArray

if TYPE_CHECKING:
    from .outputs import Output
    from .sources import Source

__all__ = ["DatasetWriter", "PieceWriter", "Progress"]

Progress = Callable[[str, int, int | None], None]
"""Called as progress(stage, rows done, rows in all or None)."""

# Ranges for each worker, at least: progress, and what a worker that is lost takes with it.
_TASKS = 4


class PieceWriter:
    """Writes one piece of every array: its objects appear when it is closed.

    Parameters
    ----------
    layout : DatasetLayout
    output : Output
    piece : int
    """

    def __init__(self, layout: DatasetLayout, output: Output, piece: int) -> None:
        self._first = layout.chunks_of(piece).start
        self._files = {
            array: output.open(layout.key(array, piece), layout.shard_chunks)
            for array in reversed(layout.arrays)  # X last: it tells that the piece is there
        }

    def append(self, chunk: int, encoded: Mapping[str, bytes]) -> None:
        """Write the next chunk of each array."""
        for array, file in self._files.items():
            file.append(encoded[array], chunk - self._first)

    def close(self) -> None:
        """Let the objects appear."""
        while self._files:
            file = self._files.pop(next(iter(self._files)))
            file.close()

    def abandon(self) -> None:
        """Write no more of what is not closed."""
        while self._files:
            self._files.popitem()[1].abandon()


class DatasetWriter:
    """Writes the dataset that a plan describes.

    Parameters
    ----------
    output : Output
    source : Source
    layout : DatasetLayout
    workforce : Workforce
        The bytes do not depend on it.
    threads : int
        Of this process, for what workers do not do.
    """

    def __init__(
        self,
        output: Output,
        source: Source,
        layout: DatasetLayout,
        workforce: Workforce,
        threads: int,
    ) -> None:
        self._output, self._source, self._layout = output, source, layout
        self._workforce, self._threads = workforce, threads
        self._encoder = ChunkEncoder(layout)
        self._sums: dict[int, npt.NDArray[Any]] = {}  # by chunk

    def keep_existing(self, report: Progress) -> None:
        """Check the pieces that a former run left; what is damaged is written again."""
        layout, store = self._layout, self._output.store()
        arrays = [
            StoredArray(layout, store, name, metadata, "what is written")
            for name, metadata in layout.array_metadata().items()
        ]

        def check(piece: int) -> dict[int, npt.NDArray[Any]]:
            found = [array.check(layout.chunks_of(piece)) for array in arrays]
            return {} if any(f.damages for f in found) else found[0].sums

        with ThreadPoolExecutor(self._threads, thread_name_prefix="zipml-check") as pool:
            for piece, sums in enumerate(pool.map(check, range(layout.pieces))):
                self._sums |= sums
                report("check", layout.rows_of(piece)[1], layout.spec.rows)

    def write(self, report: Progress) -> None:
        """Write what is missing and, last, the metadata that make the dataset complete."""
        spec, access = self._layout.spec, self._source.row_access
        if access is not None and access.rows != spec.rows:
            raise DataError(_changed(self._source))
        tasks = self._tasks()
        # What an earlier run left may be all but one piece, for which nobody reads the others.
        if len(tasks) > 1 or (access is not None and self._sums):
            there = sum(spec.rows_of_chunk(chunk) for chunk in self._sums)

            def show(done: int) -> None:
                report("compress", there + done, spec.rows)

            done = 0
            for sums in self._workforce.map("compress", _write_range, tasks, show):
                self._sums |= sums
                done += sum(spec.rows_of_chunk(chunk) for chunk in sums)
                show(done)
        else:
            self._write_in_order(report)
        report("compress", spec.rows, spec.rows)
        spec = with_variance(spec, [self._sums[chunk] for chunk in range(spec.chunks)])
        for key, data in self._layout.metadata(spec.to_attributes()).items():
            self._output.write(key, data)

    def _tasks(self) -> list[_Range]:
        """Ranges of missing pieces for workers; none where the source is read in order."""
        layout = self._layout
        piece_rows = layout.spec.chunk_rows * (layout.shard_chunks or 1)
        ranges = row_ranges(self._source, _TASKS * self._workforce.slots, piece_rows, piece_rows)
        tasks: list[_Range] = []
        for rows in ranges:
            pieces = range(rows.start // piece_rows, -(-rows.stop // piece_rows))
            missing = [p for p in pieces if layout.chunks_of(p).start not in self._sums]
            tasks += [_Range(layout, self._output, run) for run in _runs(missing)]
        return tasks

    def _write_in_order(self, report: Progress) -> None:
        rows, spec = 0, self._layout.spec
        kept = set(self._sums)
        with _Encoding(self._layout, self._output, self._threads, self._encode) as encoding:
            for chunk, block in enumerate(self._source.blocks(spec.chunk_rows)):
                rows += block.rows
                if rows > spec.rows:
                    raise DataError(_changed(self._source))
                if chunk in kept:
                    continue
                encoding.submit(chunk, self._encoder.read(block))
                self._take(encoding.done(), report)
            self._take(encoding.rest(), report)
        if rows != spec.rows:
            raise DataError(_changed(self._source))

    def _take(self, done: Mapping[int, npt.NDArray[Any]], report: Progress) -> None:
        self._sums |= done
        for chunk in done:
            rows = min((chunk + 1) * self._layout.spec.chunk_rows, self._layout.spec.rows)
            report("compress", rows, self._layout.spec.rows)

    def _encode(self, chunk: int, values: Mapping[str, npt.NDArray[Any]]) -> _Encoded:
        return _encode(self._encoder, self._source, chunk, values)


_Encoded = tuple[dict[str, bytes], npt.NDArray[Any]]


def _changed(source: Source) -> str:
    return f"{', '.join(source.paths)}: changed while it was read; compress it again"


def _encode(
    encoder: ChunkEncoder, source: Source, chunk: int, values: Mapping[str, npt.NDArray[Any]]
) -> _Encoded:
    try:
        encoded = {k: encoder.encode(k, v, chunk) for k, v in values.items()}
    except ValueRefusedError as error:
        raise DataError(_changed(source)) from error
    return encoded, variance_sums(encoded["X"])


@dataclass(frozen=True)
class _Range:
    """Pieces that follow one another, for one worker."""

    layout: DatasetLayout
    output: Output
    pieces: range


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """The runs of numbers that follow one another."""
    first = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield range(numbers[first], numbers[i - 1] + 1)
            first = i


def _write_range(
    source: Source, task: _Range, report: Callable[[int], None]
) -> dict[int, npt.NDArray[Any]]:
    """Write some pieces, and return the sums of rounding variance of their chunks."""
    layout, spec = task.layout, task.layout.spec
    encoder = ChunkEncoder(layout)
    start, stop = layout.rows_of(task.pieces[0])[0], layout.rows_of(task.pieces[-1])[1]
    sums: dict[int, npt.NDArray[Any]] = {}
    chunk, writer = start // spec.chunk_rows, None
    try:
        for block in source.blocks(spec.chunk_rows, start, stop):
            if block.rows != spec.rows_of_chunk(chunk):
                raise DataError(_changed(source))
            encoded, sums[chunk] = _encode(encoder, source, chunk, encoder.read(block))
            piece = layout.piece_of(chunk)
            if writer is None:
                writer = PieceWriter(layout, task.output, piece)
            writer.append(chunk, encoded)
            chunk += 1
            if chunk == layout.chunks_of(piece).stop:
                writer.close()
                writer = None
            report(block.rows)
    finally:
        if writer is not None:
            writer.abandon()
    if chunk * spec.chunk_rows < stop:
        raise DataError(_changed(source))
    return sums


class _Encoding:
    """Chunks on their way to the disk: encoded in threads, put into pieces in order."""

    def __init__(
        self,
        layout: DatasetLayout,
        output: Output,
        threads: int,
        encode: Callable[[int, Mapping[str, npt.NDArray[Any]]], _Encoded],
    ) -> None:
        self._layout, self._output, self._encode = layout, output, encode
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="zipml-encode")
        self._encoding: deque[tuple[int, Future[_Encoded]]] = deque()
        self._closing: deque[Future[None]] = deque()
        self._open: tuple[int, PieceWriter] | None = None

    def __enter__(self) -> _Encoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._open is not None:
            self._open[1].abandon()

    def submit(self, chunk: int, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Start to encode a chunk."""
        self._encoding.append((chunk, self._pool.submit(self._encode, chunk, values)))

    def done(self) -> dict[int, npt.NDArray[Any]]:
        """Wait until there is room for one more, and return the sums of what was written."""
        out: dict[int, npt.NDArray[Any]] = {}
        while len(self._encoding) > self._threads:
            chunk, future = self._encoding.popleft()
            out[chunk] = self._append(chunk, *future.result())
        while self._closing and (self._closing[0].done() or len(self._closing) > self._threads):
            self._closing.popleft().result()
        return out

    def rest(self) -> dict[int, npt.NDArray[Any]]:
        """Wait for everything."""
        out = {}
        while self._encoding:
            chunk, future = self._encoding.popleft()
            out[chunk] = self._append(chunk, *future.result())
        while self._closing:
            self._closing.popleft().result()
        return out

    def _append(
        self, chunk: int, encoded: Mapping[str, bytes], sums: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        piece = self._layout.piece_of(chunk)
        if self._open is None or self._open[0] != piece:
            self._open = piece, PieceWriter(self._layout, self._output, piece)
        self._open[1].append(chunk, encoded)
        if chunk + 1 == self._layout.chunks_of(piece).stop:
            self._closing.append(self._pool.submit(self._open[1].close))
        return sums
