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
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from zipml_codecs import ValueRefusedError

from .chunk_encoder import ChunkEncoder, variance_sums
from .dataset_layout import DatasetLayout
from .durable import write_durably
from .errors import DataError
from .first_pass import with_variance
from .stored_pieces import check_piece
from .stores import LocalStore

if TYPE_CHECKING:
    from .partial import Partial
    from .sources import Source

__all__ = ["DatasetWriter", "Progress"]

Progress = Callable[[str, int, int | None], None]
"""Called as progress(stage, rows done, rows in all or None)."""

# Each thread holds a chunk in double precision.
_MAX_THREADS = 4


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
        self._sums: dict[int, list[npt.NDArray[Any]]] = {}

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
        layout = self._layout
        store = LocalStore(self._partial.data)

        def check(piece: int) -> list[npt.NDArray[Any]] | None:
            found = check_piece(layout, store, piece)
            return None if found.damages else found.sums

        with ThreadPoolExecutor(self._threads, thread_name_prefix="zipml-check") as pool:
            for piece, sums in enumerate(pool.map(check, range(layout.pieces))):
                if sums is not None:
                    self._sums[piece] = sums
                report("check", layout.rows_of(piece)[1], layout.spec.rows)

    def write(self, report: Progress) -> None:
        """Write what is missing and, last, the metadata that make the dataset complete."""
        rows = 0
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="zipml-encode")
        try:
            pending: deque[tuple[int, Future[list[npt.NDArray[Any]]]]] = deque()
            for chunk, block in enumerate(self._source.blocks(self._layout.spec.chunk_rows)):
                rows += block.rows
                if rows > self._layout.spec.rows:
                    raise DataError(self._changed())
                if chunk in self._sums:
                    continue
                values = self._encoder.read(block)
                pending.append((chunk, pool.submit(self._write_chunk, chunk, values)))
                if len(pending) > self._threads:
                    self._collect(pending, report)
            while pending:
                self._collect(pending, report)
        finally:
            pool.shutdown(cancel_futures=True)
        if rows != self._layout.spec.rows:
            raise DataError(self._changed())
        report("compress", rows, rows)
        self._finish()

    def _collect(
        self, pending: deque[tuple[int, Future[list[npt.NDArray[Any]]]]], report: Progress
    ) -> None:
        chunk, future = pending.popleft()
        self._sums[chunk] = future.result()
        report("compress", self._layout.rows_of(chunk)[1], self._layout.spec.rows)

    def _changed(self) -> str:
        return f"{', '.join(self._source.paths)}: changed while it was read; compress it again"

    def _write_chunk(
        self, chunk: int, values: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        sums: list[npt.NDArray[Any]] = []
        for array in reversed(self._layout.arrays):  # X last: it tells that the piece is there
            try:
                stored = self._encoder.encode(array, values[array], chunk)
            except ValueRefusedError as error:
                raise DataError(self._changed()) from error
            if array == "X":
                sums.append(variance_sums(stored))
            self._put(self._layout.key(array, chunk), stored)
        return sums

    def _put(self, key: str, data: bytes) -> None:
        write_durably(self._partial.data / key, [data], self._partial.scratch)

    def _finish(self) -> None:
        sums = [part for piece in range(self._layout.pieces) for part in self._sums[piece]]
        spec = with_variance(self._layout.spec, sums)
        for key, data in self._layout.metadata(spec.to_attributes()).items():
            self._put(key, data)
