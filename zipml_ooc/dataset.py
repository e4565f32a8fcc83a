"""A compressed dataset: its attributes, and its encoded chunks as they lie in their store.

Reading for training stops at the encoded bytes: a chunk is fetched, its checksum verified once,
its header compared with the dataset's attributes, and handed on without being unpacked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import ChunkError, ChunkHeader, EncodedChunk, _native
from zipml_codecs.weave import place_tiles, plane_ranges, tile_ranges

from .chunk_places import ChunkPlace, ChunkPlaces, MissingChunkError
from .dataset_spec import ATTRIBUTE, DatasetSpec
from .errors import REMEDY, DamagedError, DataError, UsageError
from .row_arrays import RowArray
from .stored_pieces import first_tile, require_ours
from .stores import Range, Store, Traffic, open_store
from .stores.retries import UnavailableError
from .value_codec import CHECKSUM_BYTES

__all__ = ["Dataset", "open_cached", "open_dataset"]

_DAMAGES = (OSError, ValueError, KeyError, RuntimeError, TypeError)
_MISSING = (FileNotFoundError, MissingChunkError)
_METADATA = ("zarr.json", ".zattrs")


class Dataset:
    """A compressed dataset, opened for reading.

    Attributes
    ----------
    path : Path or str
        A path, or a URL.
    spec : DatasetSpec
    store : Store
        Counts what is fetched of the chunks; `store.place` opens the dataset anywhere.
    """

    def __init__(self, path: Path | str, spec: DatasetSpec, group: Any, store: Store) -> None:
        self.path = path
        self.spec = spec
        self.store = store
        self._group = group
        self._beside = copy(store)  # targets and weights are not counted as chunks of X are
        self._beside.traffic = Traffic()
        self._arrays: dict[str, RowArray] = {}
        self._like: dict[int, EncodedChunk] = {}  # by rows: one that is ours, without its codes
        self._x = group["X"]
        self._places = ChunkPlaces(store, "X", self._x.metadata, str(path))
        expected = (spec.chunk_rows, len(spec.columns))
        if self._places.shape != expected:
            raise ValueError(f"its chunks are {self._places.shape}, not {expected}")

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"Dataset({str(self.path)!r}, rows={spec.rows}, columns={len(spec.columns)}, "
            f"bits={spec.quantizer.bits}, samples={spec.quantizer.samples})"
        )

    def chunk_key(self, chunk: int) -> str:
        """Return the key, below the dataset's path, of the object that holds a chunk."""
        return self._places.key(chunk)

    @property
    def chunks_per_shard(self) -> int | None:
        """Chunks of X in a shard; None where each chunk is an object of its own."""
        sharding = self._places.sharding
        return None if sharding is None else sharding.chunks

    @cached_property
    def stamp(self) -> str:
        """Changes when the metadata do, for caches."""
        return self.store.stamp(_METADATA)

    @property
    def zarr_format(self) -> int:
        """Zarr format of the group: 2 or 3."""
        return int(self._x.metadata.zarr_format)

    @cached_property
    def stored_bytes(self) -> int:
        """Size of the objects that hold the encoded chunks of X, indexes of shards included."""
        return sum(self.store.size(key) for key in self._places.keys(self.spec.chunks))

    def bytes_at(self, precision: int) -> int:
        """Size of what reading all chunks of X at a precision of the weaved layout fetches."""
        return sum(n for i in range(self.spec.chunks) for _, n in self._ranges(i, precision))

    def read_chunk(self, chunk: int, precision: int | None = None) -> EncodedChunk:
        """Fetch a chunk's bytes and check them; nothing is unpacked.

        Parameters
        ----------
        chunk : int
        precision : int, optional
            Of a weaved chunk, fetch only what reading at so many bits takes.

        Raises
        ------
        DataError
            Missing, truncated, corrupted, or of another dataset; the message names the key.
        """
        if not self.spec.quantizer.weaved or precision is None:
            return self._checked(chunk, self._read_whole)
        parse = partial(self._parse_planes, precision=precision)
        return self._checked(chunk, self._planes(self._ranges(chunk, precision), parse))

    def read_tiles(
        self, chunk: int, few: EncodedChunk, tiles: Sequence[int], out: npt.NDArray[np.uint8]
    ) -> None:
        """Fetch of single tiles the planes that a weaved chunk lacks which was read at few bits.

        Parts of planes have no checksums: nothing is checked but that they are there.

        Parameters
        ----------
        chunk : int
        few : EncodedChunk
        tiles : sequence of int
            Ascending.
        out : (planes, bytes of a plane) uint8 array
            Where the planes go.

        Raises
        ------
        DataError
        """
        ranges = tile_ranges(few.header, few.precision, tiles)
        try:
            place = self._places.find(chunk)
            data = self.store.read(place.key, place.ranges(ranges))
        except _MISSING:
            raise self._missing(chunk) from None
        except OSError as error:
            raise self._unreadable(chunk, error) from error
        place_tiles(few.header, data, tiles, out)

    def complete_chunk(
        self, chunk: int, few: EncodedChunk, tiles: Sequence[int], out: npt.NDArray[np.uint8]
    ) -> None:
        """Fetch in the same way the last tiles that are missing, and check the whole chunk."""
        head = few.header.codes_offset
        ranges = [(0, head), *tile_ranges(few.header, few.precision, tiles)]
        base = few.codes[: few.precision * few.header.plane_size].tobytes()

        def parse(chunk: int, data: memoryview) -> EncodedChunk:
            place_tiles(few.header, data[head:], tiles, out)
            joined = b"".join((data[:head], base, out.tobytes()))
            return self._parse_planes(chunk, memoryview(joined), self.spec.quantizer.bits)

        self._checked(chunk, self._planes(ranges, parse))

    def _checked(self, chunk: int, read: Callable[[int, ChunkPlace], EncodedChunk]) -> EncodedChunk:
        for again in (True, False):
            try:
                return read(chunk, self._places.find(chunk))
            except ChunkError as error:
                if not (again and self.store.remote):  # what came need not be what is there
                    raise DamagedError(
                        f"chunk {self._places.title(chunk)} of {self.path} cannot be used: "
                        f"{error}; {REMEDY}"
                    ) from error
            except _MISSING:
                raise self._missing(chunk) from None
            except OSError as error:
                raise self._unreadable(chunk, error) from error
        raise AssertionError("the second try returns or raises")

    def _missing(self, chunk: int) -> DamagedError:
        return DamagedError(
            f"chunk {self._places.title(chunk)} of {self.path} is missing: {REMEDY}"
        )

    def _unreadable(self, chunk: int, error: OSError) -> DataError:
        kind = DataError if isinstance(error, UnavailableError) else DamagedError
        remedy = f"; {REMEDY}" if kind is DamagedError else ""
        title = self._places.title(chunk)
        return kind(f"chunk {title} of {self.path} cannot be read: {error}{remedy}")

    def _read_whole(self, chunk: int, place: ChunkPlace) -> EncodedChunk:
        rows = self.spec.rows_of_chunk(chunk)
        like = self._like.get(rows)
        expected = 0 if like is None else like.fetched + CHECKSUM_BYTES
        data = self.store.read_checked(place.key, place.part, expected)
        encoded = None if like is None else like.alike(data)
        if encoded is not None and encoded.first_tile == first_tile(self.spec, chunk):
            return encoded  # the rest is as in one that was looked at
        encoded = EncodedChunk.parse(data)
        require_ours(self.spec, encoded, chunk)
        self._like.setdefault(rows, replace(encoded, codes=encoded.codes[:0].copy()))
        return encoded

    def _planes(
        self, ranges: list[Range], parse: Callable[[int, memoryview], EncodedChunk]
    ) -> Callable[[int, ChunkPlace], EncodedChunk]:
        def read(chunk: int, place: ChunkPlace) -> EncodedChunk:
            return parse(chunk, self.store.read(place.key, place.ranges(ranges)))

        return read

    def _ranges(self, chunk: int, precision: int | None) -> list[tuple[int, int]]:
        spec = self.spec
        header = ChunkHeader(
            spec.quantizer,
            item_size=4,
            shape=(spec.chunk_rows, len(spec.columns)),
            box=(spec.rows_of_chunk(chunk), len(spec.columns)),
        )
        return plane_ranges(header, precision or spec.quantizer.bits)

    def _parse_planes(self, chunk: int, data: memoryview, precision: int) -> EncodedChunk:
        spec = self.spec
        assert spec.lower is not None and spec.upper is not None  # the layout has column scales
        encoded = EncodedChunk.parse_planes(data, precision, spec.lower, spec.upper)
        require_ours(spec, encoded, chunk)
        return encoded

    def read_target(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Read targets, or class codes, of a range of rows: (rows, outputs).

        What comes may be a view of what was read, which cannot be written to.
        """
        if not self.spec.targets:
            raise UsageError(
                f"{self.path} holds no target: compress the source again with --target"
            )
        stored = self._rows("y").read(start, stop)
        target = np.ascontiguousarray(stored, np.float64).reshape(stop - start, -1)
        whole = _native.all_finite(target)
        if not whole or (self.spec.classes is not None and target.min() < 0):
            raise DamagedError(
                f"targets y of {self.path} are missing between rows {start} and {stop}: {REMEDY}"
            )
        return target

    def read_weight(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Read the weights of a range of rows of a dataset that has them: (rows,)."""
        weight = self._rows("sample_weight").read(start, stop).astype(np.float64, copy=False)
        if weight.shape != (stop - start,) or not (np.isfinite(weight) & (weight >= 0)).all():
            raise DamagedError(
                f"the weights sample_weight of {self.path} are missing or damaged between rows "
                f"{start} and {stop}: {REMEDY}"
            )
        return weight

    def _rows(self, name: str) -> RowArray:
        if name not in self._arrays:
            try:
                array = self._group[name]
                self._require_rows(array)
            except (KeyError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
                raise DataError(
                    f"{self.path} lacks its array {name} or its metadata are damaged"
                ) from error
            self._arrays[name] = RowArray(self._beside, name, array, str(self.path))
        return self._arrays[name]

    def _require_rows(self, array: Any) -> None:
        """Refuse an array without a row for each of X, or with chunks that hold more than all."""
        spec, chunks = self.spec, array.chunks
        most = max(spec.rows, spec.chunk_rows) * max(len(spec.targets), 1)
        if array.shape[:1] != (spec.rows,) or math.prod(chunks) > most:
            raise ValueError(f"it has the shape {array.shape}, in chunks of {chunks}")


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open a dataset that `compress` made.

    Parameters
    ----------
    path : path or URL of the Zarr group
        A folder, a Zip file of one, or anything that fsspec or obstore opens, such as
        ``s3://bucket/cadata.zarr``: see `zipml_ooc.stores.open_store`.

    Raises
    ------
    UsageError
        There is nothing at the path.
    DataError
        It is no zipml dataset, of a newer format, incomplete or damaged.

    Examples
    --------
    >>> dataset = open_dataset("cadata.zarr")  # doctest: +SKIP
    >>> dataset.spec.rows  # doctest: +SKIP
    20640
    """
    import zarr  # not for `import zipml_ooc`: it takes a third of a second

    from .stores.zarr_store import ReadOnlyStore

    given = os.fspath(path)
    store = open_store(given)
    try:
        exists = store.exists()
    except OSError as error:
        raise UsageError(f"{given}: cannot be reached: {error}") from error
    if not exists:
        raise UsageError(f"there is no dataset at {given}")
    for again in (store.remote, False):
        try:
            group = zarr.open_group(ReadOnlyStore(store), mode="r")
            attributes = group.attrs.asdict().get(ATTRIBUTE)
            break
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise DataError(f"the metadata of {given} cannot be read: {error}") from error
            if again:
                continue  # what came need not be what is there
            if not (store.remote or isinstance(error, _DAMAGES)):  # file systems have their own
                raise
            raise DataError(f"{given} is no Zarr group, or its metadata are damaged") from error
    spec = DatasetSpec.from_attributes(attributes, given)
    try:
        shown = (
            given
            if store.remote or given.startswith("zip://")
            else Path(given.removeprefix("file://"))
        )
        return Dataset(shown, spec, group, store)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{given} lacks its array X or it is damaged: {error}") from error


@lru_cache(maxsize=8)
def _cached(place: str, stamp: str) -> Dataset:
    return open_dataset(place)


def open_cached(place: str, stamp: str = "") -> Dataset:
    """Open a dataset once per process: what tasks on workers use.

    Parameters
    ----------
    place : str
        That of the dataset's store.
    stamp : str, optional
        `Dataset.stamp`, where it is known: the store is not asked for it again.
    """
    return _cached(place, stamp or open_store(place).stamp(_METADATA))
