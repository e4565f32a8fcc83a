"""The objects of a dataset, checked where they lie: to verify one, to resume one, to repair one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, ChunkError, EncodedChunk

from .chunk_places import ChunkPlace, ChunkPlaces, MissingChunkError
from .dataset_layout import DatasetLayout
from .dataset_spec import DatasetSpec
from .errors import DataError
from .stores import Store
from .value_codec import ValueCodec, without_checksum

__all__ = ["Damage", "ObjectCheck", "StoredArray", "first_tile", "require_ours"]

_SPARE_BYTES = 4096


@dataclass(frozen=True)
class Damage:
    """What is wrong with a part of a dataset.

    Attributes
    ----------
    key : str
        Of the object.
    reason : str
    array : str or None
        None for metadata.
    chunk : int or None
        Number of the chunk in its array; None where it is about the object.
    inner : int or None
        Number of the chunk in its shard.
    """

    key: str
    reason: str
    array: str | None = None
    chunk: int | None = None
    inner: int | None = None

    @property
    def place(self) -> str:
        """What messages call it."""
        return self.key if self.inner is None else f"{self.key} (inner chunk {self.inner})"


@dataclass
class ObjectCheck:
    """What was found in an object.

    Attributes
    ----------
    damages : list of Damage
    sums : dict
        Sums of rounding variance, by chunk, of the whole chunks of X.
    read_bytes : int
    """

    damages: list[Damage] = field(default_factory=list)
    sums: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    read_bytes: int = 0


class StoredArray:
    """One array of a dataset, in objects of one chunk or of several.

    Parameters
    ----------
    layout : DatasetLayout
    store : Store
    name : {"X", "y", "sample_weight"}
    metadata : Zarr's metadata of the array
    place : str
        Names the dataset in errors.
    """

    def __init__(
        self, layout: DatasetLayout, store: Store, name: str, metadata: Any, place: str
    ) -> None:
        self.name = name
        self.places = ChunkPlaces(store, name, metadata, place)
        self._layout, self._store = layout, store
        self.codec: ValueCodec | None = None
        if name != "X":
            self.codec = ValueCodec.from_metadata(metadata.to_dict(), self.places.codecs)

    @property
    def shard_chunks(self) -> int | None:
        """Chunks of a shard; None where each chunk is an object."""
        return None if self.places.sharding is None else self.places.sharding.chunks

    @property
    def checked(self) -> bool:
        """Whether chunks have checksums."""
        return self.name == "X" or (self.codec is not None and self.codec.checked)

    def objects(self) -> list[range]:
        """Numbers of the chunks of each object."""
        chunks, each = self._layout.spec.chunks, self.shard_chunks or 1
        return [range(first, min(first + each, chunks)) for first in range(0, chunks, each)]

    def check(self, chunks: range) -> ObjectCheck:
        """Read an object, the chunks of it that are given, and check it."""
        found = ObjectCheck()
        key = self.places.key(chunks[0])
        for chunk in chunks:
            inner = None if self.shard_chunks is None else chunk % self.shard_chunks
            try:
                data = self._read(self.places.find(chunk), chunk)
                found.read_bytes += len(data)
                encoded = self.decode(data, chunk)
                if encoded is not None:
                    found.sums[chunk] = encoded.variance_sums
            except DataError:  # the index: nothing in the shard can be found
                reason = "its index does not match its checksum: truncated or corrupted"
                found.damages.append(Damage(key, reason, self.name))
                break
            except FileNotFoundError:
                found.damages.append(Damage(key, "it is missing", self.name))
                break
            except MissingChunkError:
                found.damages.append(Damage(key, "it is missing", self.name, chunk, inner))
            except OSError as error:
                reason = f"it cannot be read: {error.strerror or error}"
                found.damages.append(Damage(key, reason, self.name, chunk, inner))
            except ChunkError as error:
                found.damages.append(Damage(key, str(error), self.name, chunk, inner))
        return found

    def recover(self, chunk: int) -> bytes | None:
        """The bytes of a chunk if they are whole, even where an index that led to them is not."""
        try:
            data = self._read(self.places.find(chunk), chunk)
            self.decode(data, chunk)
            return bytes(data)
        except (DataError, MissingChunkError, OSError, ChunkError):
            pass
        if self.name != "X" or self.shard_chunks is None:
            return None
        size = self._layout.chunk_bytes(0)  # of all but the last: where the writer put it
        part = chunk % self.shard_chunks * size, self._layout.chunk_bytes(chunk)
        place = ChunkPlace(self.places.key(chunk), part)
        try:
            data = self._read(place, chunk)
            self.decode(data, chunk)
            return bytes(data)
        except (OSError, ChunkError):
            return None

    def _read(self, place: ChunkPlace, chunk: int) -> memoryview:
        layout = self._layout
        if self.name != "X":
            most = 2 * layout.empty_chunk(self.name).nbytes + _SPARE_BYTES
            if place.length is not None and place.length > most:
                raise ChunkError(f"it has {place.length} bytes, more than its values take")
            return self._store.read(place.key, place.ranges(None))
        expected, found = layout.chunk_bytes(chunk), place.length
        if found in (None, expected):
            data = self._store.read(place.key, place.ranges(None))
            if len(data) == expected:
                return data
            found = len(data)
        raise ChunkError(f"it has {found} bytes, not {expected}: truncated, or of another dataset")

    def decode(self, data: memoryview, chunk: int) -> EncodedChunk | None:
        """Check the bytes of a chunk; of X, return what is in them.

        Raises
        ------
        ChunkError
            They are not what the dataset has there.
        """
        spec = self._layout.spec
        if self.name == "X":
            encoded = EncodedChunk.parse(without_checksum(data))
            require_ours(spec, encoded, chunk)
            return encoded
        if self.codec is not None:
            values = self._layout.empty_chunk(self.name)
            self.codec.decode(data, values)
            self._check_values(values, chunk)
        return None

    def _check_values(self, values: npt.NDArray[Any], chunk: int) -> None:
        spec, fill = self._layout.spec, self._layout.fill_value(self.name)
        rows = spec.rows_of_chunk(chunk)
        stored, padding = values[:rows], values[rows:]
        if not (np.isnan(padding) if np.isnan(fill) else padding == fill).all():
            raise ChunkError(f"it has more than {rows} rows: it belongs elsewhere")
        good = np.isfinite(stored)
        if self.name == "sample_weight":
            good &= stored >= 0
        elif spec.classes is not None:
            good &= (stored >= 0) & (stored < len(spec.classes))
        if not good.all():
            row = chunk * spec.chunk_rows + int(np.argwhere(~good)[0][0])
            raise ChunkError(f"its value for row {row} (counted from 0) is none that is stored")


def first_tile(spec: DatasetSpec, chunk: int) -> int:
    """Number of the first tile of a chunk in its dataset."""
    return chunk * spec.chunk_rows // TILE_ROWS


def require_ours(spec: DatasetSpec, encoded: EncodedChunk, chunk: int) -> None:
    """Refuse a chunk that is not the one that a dataset has in a place."""
    header = encoded.header
    encoded.require_shape((spec.chunk_rows, len(spec.columns)), 4)
    tables = spec.level_tables
    same = (
        header.quantizer == spec.quantizer
        and header.box == (spec.rows_of_chunk(chunk), len(spec.columns))
        and header.first_tile == first_tile(spec, chunk)
        and _same(encoded.lower, spec.lower)
        and (encoded.lower is None or _same(encoded.upper, spec.upper))
        and _same(encoded.places, None if tables is None else tables.places)
    )
    if not same:
        raise ChunkError("it belongs to another dataset (levels, seed or position differ)")


def _same(left: npt.NDArray[Any] | None, right: npt.NDArray[Any] | None) -> bool:
    if left is None or right is None:
        return left is right
    return np.array_equal(left, right)
