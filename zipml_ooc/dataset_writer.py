"""The second pass of compression: rounds, packs and writes, piece by piece.

Each piece appears whole under its name, and the metadata come last of all. Pieces that a former
run left are checked and kept.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from zipml_codecs import ValueRefusedError

from .chunk_encoder import ChunkEncoder, variance_sums
from .dataset_layout import DatasetLayout
from .durable import write_durably
from .errors import DataError
from .first_pass import with_variance
from .shard_file import ObjectFile
from .stored_pieces import StoredArray
from .stores import LocalStore

if TYPE_CHECKING:
    from .partial import Partial
    from .sources import Source

__all__ = ["DatasetWriter", "PieceWriter", "Progress"]

Progress = Callable[[str, int, int | None], None]
"""Called as progress(stage, rows done, rows in all or None)."""

# Each thread holds a chunk in double precision.
_MAX_THREADS = 4


class PieceWriter:
    """Writes one piece of every array: its objects appear when it is closed.

    Parameters
    ----------
    layout : DatasetLayout
    data, scratch : Path
        Folder of the dataset, and one for what is being written.
    piece : int
    """

    def __init__(self, layout: DatasetLayout, data: Path, scratch: Path, piece: int) -> None:
        self._first = layout.chunks_of(piece).start
        self._files = {
            array: ObjectFile(data / layout.key(array, piece), scratch, layout.shard_chunks)
            for array in reversed(layout.arrays)  # X last: it tells that the piece is there
        }

    def append(self, chunk: int, encoded: Mapping[str, bytes]) -> None:
        """Write the next chunk of each array."""
        for array, file in self._files.items():
            file.append(encoded[array], chunk - self._first)

    def close(self) -> None:
        """Let the objects appear."""
        for file in self._files.values():
            file.close()


class DatasetWriter:
    """Writes the dataset that a plan describes.

    Parameters
    ----------
    partial : Partial
    source : Source
    layout : DatasetLayout
    threads : int, optional
        The bytes do not depend on it.
    """

    def __init__(
        self, partial: Partial, source: Source, layout: DatasetLayout, threads: int | None = None
    ) -> None:
        self._partial, self._source, self._layout = partial, source, layout
        self._threads = threads or min(_MAX_THREADS, os.cpu_count() or 1)
        self._encoder = ChunkEncoder(layout)
        self._sums: dict[int, npt.NDArray[Any]] = {}  # by chunk

    def require_space(self) -> None:
        """Refuse a disk that has less left than the dataset takes.

        Raises
        ------
        DataError
        """
        there = sum(f.stat().st_size for f in self._partial.data.rglob("*") if f.is_file())
        needed = self._layout.most_bytes - there
        free = shutil.disk_usage(self._partial.place.parent).free
        if needed > free:
            raise DataError(
                f"{self._partial.place} will take up to {needed:,} bytes and its disk has "
                f"{free:,} left: free some space, store fewer bits, or choose another destination"
            )

    def keep_existing(self, report: Progress) -> None:
        """Check the pieces that a former run left; what is damaged is written again."""
        layout, store = self._layout, LocalStore(self._partial.data)
        arrays = [
            StoredArray(layout, store, name, metadata, str(self._partial.data))
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
        rows, spec = 0, self._layout.spec
        kept = set(self._sums)
        with _Encoding(self._layout, self._partial, self._threads, self._encode) as encoding:
            for chunk, block in enumerate(self._source.blocks(spec.chunk_rows)):
                rows += block.rows
                if rows > spec.rows:
                    raise DataError(self._changed())
                if chunk in kept:
                    continue
                encoding.submit(chunk, self._encoder.read(block))
                self._take(encoding.done(), report)
            self._take(encoding.rest(), report)
        if rows != spec.rows:
            raise DataError(self._changed())
        report("compress", rows, rows)
        spec = with_variance(spec, [self._sums[chunk] for chunk in range(spec.chunks)])
        for key, data in self._layout.metadata(spec.to_attributes()).items():
            write_durably(self._partial.data / key, [data], self._partial.scratch)

    def _take(self, done: Mapping[int, npt.NDArray[Any]], report: Progress) -> None:
        self._sums |= done
        for chunk in done:
            rows = min((chunk + 1) * self._layout.spec.chunk_rows, self._layout.spec.rows)
            report("compress", rows, self._layout.spec.rows)

    def _changed(self) -> str:
        return f"{', '.join(self._source.paths)}: changed while it was read; compress it again"

    def _encode(
        self, chunk: int, values: Mapping[str, npt.NDArray[Any]]
    ) -> tuple[dict[str, bytes], npt.NDArray[Any]]:
        try:
            encoded = {k: self._encoder.encode(k, v, chunk) for k, v in values.items()}
        except ValueRefusedError as error:
            raise DataError(self._changed()) from error
        return encoded, variance_sums(encoded["X"])


_Encoded = tuple[dict[str, bytes], npt.NDArray[Any]]


class _Encoding:
    """Chunks on their way to the disk: encoded in threads, put into pieces in order."""

    def __init__(
        self,
        layout: DatasetLayout,
        partial: Partial,
        threads: int,
        encode: Callable[[int, Mapping[str, npt.NDArray[Any]]], _Encoded],
    ) -> None:
        self._layout, self._partial, self._encode = layout, partial, encode
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="zipml-encode")
        self._encoding: deque[tuple[int, Future[_Encoded]]] = deque()
        self._closing: deque[Future[None]] = deque()
        self._open: tuple[int, PieceWriter] | None = None

    def __enter__(self) -> _Encoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

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
            data, scratch = self._partial.data, self._partial.scratch
            self._open = piece, PieceWriter(self._layout, data, scratch, piece)
        self._open[1].append(chunk, encoded)
        if chunk + 1 == self._layout.chunks_of(piece).stop:
            self._closing.append(self._pool.submit(self._open[1].close))
        return sums
