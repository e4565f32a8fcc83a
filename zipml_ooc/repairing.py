"""Making the damaged chunks of a dataset again from its source.

A chunk depends on its rows and on the attributes alone, so that it gets the bytes that it had. That
the source is the right one is checked before anything is replaced: by its fingerprint, by a whole
chunk made again beside the damaged ones, and by the rounding variances of all rows, which the
attributes hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import ValueRefusedError

from .chunk_encoder import ChunkEncoder, variance_sums
from .errors import DataError, UsageError
from .outputs import FolderOutput
from .partial import Partial
from .sources import Block, Source, SourceOptions, open_source
from .sources.weights import WeightedSource
from .stored_pieces import Damage, StoredArray
from .stores import LocalStore
from .verification import (
    Inspection,
    inspect,
    metadata_files,
    target_statistics_agree,
    variance_agrees,
)

__all__ = ["RepairResult", "repair"]

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class RepairResult:
    """What `repair` did.

    Attributes
    ----------
    path : str
    repaired : tuple of Damage
        Empty if the dataset was whole.
    chunks : int
        Chunks that were made again from the source; others were still in their damaged objects.
    """

    path: str
    repaired: tuple[Damage, ...]
    chunks: int


def repair(
    path: str | os.PathLike[str],
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    *,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    threads: int | None = None,
    progress: Progress | None = None,
) -> RepairResult:
    """Make the damaged chunks of a dataset again; whole ones are left alone.

    Parameters
    ----------
    path : path of the dataset
    sources : path, glob or URL, or several of them
        What the dataset was compressed from. Not needed where only indexes of shards or metadata
        of arrays are damaged.
    source_options : SourceOptions
        How to read them. The target is the dataset's.
    threads : int, optional
        For finding the damage.
    progress : callable, optional

    Returns
    -------
    RepairResult

    Raises
    ------
    UsageError
        There is no dataset, no source where one is needed, or another source than that of the
        dataset; nothing was changed.
    DataError
        Damage in the attributes, which a source does not tell.

    Examples
    --------
    >>> from zipml_ooc import repair
    >>> repair("cadata.zarr", "cadata.csv.gz").chunks  # doctest: +SKIP
    1
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    found = inspect(path, threads=threads, progress=progress)
    shown = str(found.dataset.path)
    if not found.damages:
        return RepairResult(shown, (), 0)
    if not isinstance(found.dataset.store, LocalStore):
        raise UsageError(f"{shown} is no folder of this machine: copy it into one to repair it")
    unknown = [name for name in found.layout.arrays if name not in found.arrays]
    if unknown or any(d.array is None and "/" not in d.key for d in found.damages):
        reasons = "; ".join(f"{d.place}: {d.reason}" for d in found.damages if d.array is None)
        raise DataError(f"the metadata of {shown} are damaged ({reasons}): compress it again")
    beside = Partial(Path(found.dataset.store.place), "repair")
    with beside.locked():
        try:
            beside.clear()
            beside.scratch.mkdir()
            work = _Repair(found, beside)
            if work.wanted:
                work.make(_open(found, given, source_options), progress)
            work.replace()
        except OSError as error:
            raise DataError(
                f"repairing {shown} failed: {error.strerror or error}; run it again"
            ) from error
        finally:
            beside.clear()
    return RepairResult(shown, tuple(found.damages), sum(map(len, work.wanted.values())))


def _open(
    found: Inspection, sources: Sequence[str | os.PathLike[str]], options: SourceOptions
) -> Source:
    spec, shown = found.layout.spec, found.dataset.path
    if not sources:
        raise UsageError(f"chunks of {shown} are lost: name what it was made from with --source")
    options = replace(options, target=spec.targets, target_optional=False, select=None)
    source = open_source([os.fspath(path) for path in sources], options)
    if spec.weight is not None:
        source = WeightedSource(source, spec.weight)
    ours, theirs = source.fingerprint(), spec.source
    if ours["columns_sha256"] != theirs.get("columns_sha256"):
        raise UsageError(
            f"{', '.join(source.paths)} has not the columns that {shown} was made from: name its "
            "source, and how it is read (--no-header, --x-name, ...)"
        )
    for mine, path, was in zip(ours["bytes"], source.paths, theirs.get("bytes", ()), strict=False):
        if mine is not None and was is not None and mine != was:
            raise UsageError(
                f"{path} has {mine:,} bytes, what {shown} was made from had {was:,}: it is another "
                "source"
            )
    if len(ours["bytes"]) != len(theirs.get("bytes", ())):
        raise UsageError(
            f"{shown} was made from {len(theirs.get('bytes', ()))} files, not {len(source.paths)}: "
            "name all of them in their order"
        )
    return source


class _Repair:
    """Makes chunks in a scratch folder, and puts them in place when all are known to be right."""

    def __init__(self, found: Inspection, beside: Partial) -> None:
        self._found, self._beside = found, beside
        self._layout = found.layout
        codecs = {name: array.codec for name, array in found.arrays.items() if name != "X"}
        for name in {d.array for d in found.damages} & {n for n in codecs if codecs[n] is None}:
            raise DataError(
                f"{name} of {found.dataset.path} is damaged and stored with codecs that are not "
                "known here: compress it again"
            )
        for array in found.arrays.values():
            if (sharding := array.places.sharding) and not (sharding.at_end and sharding.checked):
                raise UsageError(
                    f"the shards of {found.dataset.path} have their index at the start or without "
                    "a checksum, as other programs write them: repair them with these"
                )
        self._encoder = ChunkEncoder(found.layout, codecs)
        # Each damaged object, and what of it is still whole.
        self._objects: list[tuple[StoredArray, range]] = []
        self.wanted: dict[int, set[str]] = {}  # arrays to make again, by chunk
        for array in found.arrays.values():
            damaged = {d.key for d in found.damages if d.array == array.name}
            for chunks in array.objects():
                if array.places.key(chunks[0]) in damaged:
                    self._objects.append((array, chunks))
        for array, chunks in self._objects:
            for chunk in chunks:
                if array.recover(chunk) is None:
                    self.wanted.setdefault(chunk, set()).add(array.name)

    def make(self, source: Source, progress: Progress | None) -> None:
        """Encode what is wanted, and check that the source is the right one."""
        spec, x = self._layout.spec, self._found.arrays["X"]
        compared = self._compared()
        sums = dict(self._found.sums)
        needed = sorted(compared | self.wanted.keys())
        for done, (chunk, block) in enumerate(self._blocks(source, needed)):
            if progress is not None:
                progress("repair", done * spec.chunk_rows, len(needed) * spec.chunk_rows)
            names = self.wanted.get(chunk, set()) | ({"X"} if chunk in compared else set())
            if block.rows != spec.rows_of_chunk(chunk):
                raise self._wrong(source, f"it ends within chunk {chunk}")
            values = self._encoder.read(block)
            for name in names:
                try:
                    data = self._encoder.encode(name, values[name], chunk)
                except ValueRefusedError as error:
                    raise self._wrong(source, f"values of chunk {chunk} differ") from error
                if chunk in compared and name == "X" and data != x.recover(chunk):
                    raise self._wrong(source, f"it does not give chunk {chunk}, which is whole")
                if name in self.wanted.get(chunk, set()):
                    self._keep(name, chunk, data)
                    if name == "X":
                        sums[chunk] = variance_sums(data)
        for array, chunks in self._objects:  # what was still in a damaged object
            if array.name == "X":
                for chunk in chunks:
                    if chunk not in sums and (rest := array.recover(chunk)) is not None:
                        sums[chunk] = variance_sums(rest)
        if len(sums) == spec.chunks and not variance_agrees(self._found, sums):
            raise self._wrong(source, "its values have other rounding variances")
        self._check_targets(source)

    def _blocks(self, source: Source, needed: Sequence[int]) -> Iterator[tuple[int, Block]]:
        """The rows of chunks; of a source that is read in order, up to the last of them."""
        rows, wanted = self._layout.spec.chunk_rows, set(needed)
        given = 0
        if source.row_access is None:
            for chunk, block in enumerate(source.blocks(rows, 0, (needed[-1] + 1) * rows)):
                if chunk in wanted:
                    given += 1
                    yield chunk, block
        else:
            for chunk in needed:
                for block in source.blocks(rows, chunk * rows, (chunk + 1) * rows):
                    given += 1
                    yield chunk, block
        if given < len(needed):
            raise self._wrong(source, f"it has no rows for chunk {needed[given]}")

    def _compared(self) -> set[int]:
        """Whole chunks of X that the source must give, too: beside each run of damaged ones."""
        lost = {chunk for chunk, names in self.wanted.items() if "X" in names}
        whole = [c for c in range(self._layout.spec.chunks) if c not in lost]
        out = {chunk for chunk in self.wanted if chunk not in lost}
        if lost and whole:
            out.add(min(whole, key=lambda chunk: abs(chunk - min(lost))))
        return out

    def _check_targets(self, source: Source) -> None:
        if not any("y" in names for names in self.wanted.values()):
            return
        spec, array = self._layout.spec, self._found.arrays["y"]

        @lru_cache(maxsize=2)
        def chunk_values(chunk: int) -> npt.NDArray[Any]:
            data = self._made("y", chunk) or array.recover(chunk)
            values = self._layout.empty_chunk("y")
            assert data is not None and array.codec is not None
            array.codec.decode(memoryview(data), values)
            return values[: spec.rows_of_chunk(chunk)].reshape(-1, len(spec.targets))

        def read(start: int, stop: int) -> npt.NDArray[np.float64]:
            first, rows = start // spec.chunk_rows, spec.chunk_rows
            parts = [chunk_values(c) for c in range(first, -(-stop // rows))]
            return np.concatenate(parts)[start - first * rows : stop - first * rows]

        if not target_statistics_agree(self._found, read):
            raise self._wrong(source, "its targets have other statistics")

    def _wrong(self, source: Source, reason: str) -> UsageError:
        return UsageError(
            f"{', '.join(source.paths)} is not what {self._found.dataset.path} was made from: "
            f"{reason}; nothing was changed"
        )

    def _path(self, name: str, chunk: int) -> Path:
        return self._beside.scratch / f"{name}-{chunk}"

    def _keep(self, name: str, chunk: int, data: bytes) -> None:
        self._path(name, chunk).write_bytes(data)

    def _made(self, name: str, chunk: int) -> bytes | None:
        path = self._path(name, chunk)
        return path.read_bytes() if path.exists() else None

    def replace(self) -> None:
        """Put every object in place, whole."""
        output = FolderOutput(self._beside.place, self._beside.scratch)
        for array, chunks in self._objects:
            file = output.open(array.places.key(chunks[0]), array.shard_chunks)
            for chunk in chunks:
                stored = self._made(array.name, chunk) or array.recover(chunk)
                assert stored is not None  # made, if it could not be recovered
                file.append(stored, chunk - chunks[0])
            file.close()
        for name, metadata in self._found.metadata.items():
            damaged = {d.key for d in self._found.damages if d.array is None}
            files: Mapping[str, bytes] = metadata_files(metadata)
            for file_name, content in files.items():
                if any(key.startswith(f"{name}/") for key in damaged):
                    output.write(f"{name}/{file_name}", content)
