"""Where the encoded chunks of an array lie: in an object each, or inside of shards.

A shard of Zarr's codec `sharding_indexed` is one object with several chunks and an index of them.
The index is fetched once and kept, within a budget; then a chunk is one range of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from zipml_codecs.checksum import crc32c

from .cache import ByteCache, Group, Item
from .errors import REMEDY, DamagedError, DataError
from .shard_file import NOWHERE
from .stores import Range, Store
from .value_codec import CHECKSUM_BYTES

__all__ = ["ChunkPlace", "ChunkPlaces", "MissingChunkError", "Sharding"]

_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
# What the indexes of a dataset may take together: those of half a million chunks.
_INDEX_BYTES = 8 << 20
_ANY = 9876543210  # stands for the number of an object in a key
_INDEXES = Group("shards", "index")

Index = npt.NDArray[Any]


class MissingChunkError(Exception):
    """A shard does not hold the chunk."""


class ChunkPlace(NamedTuple):
    """An object and the bytes of it that are a chunk.

    Attributes
    ----------
    key : str
    part : Range, optional
        Without: the whole object.
    """

    key: str
    part: Range | None = None

    @property
    def start(self) -> int:
        """Where the chunk begins."""
        return 0 if self.part is None else self.part[0]

    @property
    def length(self) -> int | None:
        """Its bytes; None: those of the object."""
        return None if self.part is None else self.part[1]

    def ranges(self, parts: Sequence[Range] | None) -> list[Range] | None:
        """Ranges of the object for ranges of the chunk; None stands for all of either.

        Raises
        ------
        OSError
            The chunk ends before a range does.
        """
        if self.part is None:
            return None if parts is None else list(parts)
        if parts is None:
            return [self.part]
        first, whole = self.part
        end = max((start + length for start, length in parts), default=0)
        if end > whole:
            raise OSError(f"{self.key} holds {whole} of its bytes, not {end}: truncated")
        return [(first + start, length) for start, length in parts]


@dataclass(frozen=True)
class Sharding:
    """How an array puts its chunks into shards.

    Attributes
    ----------
    chunks : int
        Chunks of a shard, one below the other.
    at_end : bool
        Whether the index is the end of the shard, or its start.
    checked : bool
        Whether the index has a checksum.
    """

    chunks: int
    at_end: bool
    checked: bool

    @property
    def index_bytes(self) -> int:
        """Size of an index with its checksum."""
        return self.chunks * _ENTRY.itemsize + (CHECKSUM_BYTES if self.checked else 0)

    @property
    def index_range(self) -> Range:
        """Where the index lies."""
        return (-self.index_bytes if self.at_end else 0, self.index_bytes)

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], place: str
    ) -> tuple[Sharding | None, tuple[int, ...], Sequence[Any]]:
        """Read an array's metadata; `place` names it in errors.

        Returns
        -------
        Sharding or None
            None where chunks are objects.
        tuple of int
            Shape of a chunk.
        list
            Codecs of a chunk, as in the metadata; those of format 2 are not among them.

        Raises
        ------
        DataError
            Shards of a kind that is not read here.
        """
        if metadata["zarr_format"] == 2:
            return None, tuple(metadata["chunks"]), ()
        outer = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        codecs = list(metadata["codecs"])
        if not any(_name(codec) == "sharding_indexed" for codec in codecs):
            return None, outer, codecs
        inner = codecs[0].get("configuration", {})
        index_codecs = [_name(codec) for codec in inner.get("index_codecs", ())]
        little = inner.get("index_codecs", [{}])[0].get("configuration", {}).get("endian")
        shape = tuple(inner.get("chunk_shape", ()))
        whole = (
            len(codecs) == 1
            and index_codecs in (["bytes"], ["bytes", "crc32c"])
            and little == "little"
            and shape[1:] == outer[1:]
            and shape[0] > 0
            and outer[0] % shape[0] == 0
            and not any(_name(codec) == "sharding_indexed" for codec in inner["codecs"])
        )
        if not whole:
            raise DataError(
                f"{place} has shards of a kind that is not read here: write one level of "
                "shards of whole rows, with an index of little-endian numbers and crc32c"
            )
        at_end = inner.get("index_location", "end") == "end"
        checked = index_codecs[-1] == "crc32c"
        return cls(outer[0] // shape[0], at_end, checked), shape, list(inner["codecs"])


def _name(codec: Any) -> str:
    return codec if isinstance(codec, str) else str(codec.get("name"))


class ChunkPlaces:
    """Finds the chunks of an array whose chunks are whole rows.

    Attributes
    ----------
    shape : tuple of int
        Shape of a chunk.
    codecs : list
        Its codecs, as in the metadata of format 3.
    """

    def __init__(self, store: Store, name: str, metadata: Any, place: str) -> None:
        self._store = store
        self._sharding, self.shape, self.codecs = Sharding.from_metadata(
            metadata.to_dict(), f"array {name} of {place}"
        )
        first = (_ANY, *(0,) * (len(self.shape) - 1))
        # Whatever separates the parts of keys, the number is all that they differ in.
        self._before, self._after = f"{name}/{metadata.encode_chunk_key(first)}".split(str(_ANY))
        self._place = place
        self._indexes = ByteCache(_INDEX_BYTES)

    @property
    def sharding(self) -> Sharding | None:
        """How chunks lie in shards; None where they are objects."""
        return self._sharding

    def key(self, chunk: int) -> str:
        """Key of the object that holds a chunk."""
        number = chunk if self._sharding is None else chunk // self._sharding.chunks
        return f"{self._before}{number}{self._after}"

    def title(self, chunk: int) -> str:
        """What errors call a chunk."""
        if self._sharding is None:
            return self.key(chunk)
        return f"{self.key(chunk)} (inner chunk {chunk % self._sharding.chunks})"

    def keys(self, chunks: int) -> list[str]:
        """Keys of the objects of so many chunks."""
        return list(dict.fromkeys(self.key(chunk) for chunk in range(chunks)))

    def find(self, chunk: int) -> ChunkPlace:
        """Find a chunk; this may fetch the index of its shard.

        Raises
        ------
        DataError
            The index is damaged.
        MissingChunkError
            The shard does not hold the chunk.
        OSError
            The shard is missing or cannot be read.
        """
        key = self.key(chunk)
        if self._sharding is None:
            return ChunkPlace(key)
        shard = chunk // self._sharding.chunks
        index = self._indexes.get(
            Item(_INDEXES, shard, lambda: self._index(key, chunk), lambda found: found.nbytes)
        )
        entry = index[chunk % self._sharding.chunks]
        start, length = int(entry["offset"]), int(entry["length"])
        if start == length == NOWHERE:
            raise MissingChunkError(self.title(chunk))
        return ChunkPlace(key, (start, length))

    def _index(self, key: str, chunk: int) -> Index:
        sharding = self._sharding
        assert sharding is not None
        data = self._store.read(key, [sharding.index_range])
        body = data[: sharding.chunks * _ENTRY.itemsize]
        if sharding.checked:
            stated = int.from_bytes(data[len(body) :], "little")
            if crc32c(body) != stated:
                raise DamagedError(
                    f"chunk {self.title(chunk)} of {self._place} cannot be found: the index of "
                    f"shard {key} does not match its checksum, it is truncated or corrupted; "
                    f"{REMEDY}"
                )
        return np.frombuffer(body, _ENTRY)
