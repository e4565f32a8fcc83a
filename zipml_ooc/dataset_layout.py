"""Where the parts of a dataset lie and how large they are, known before the first byte is written.

An array is cut into pieces of whole rows, the same rows in every array: a piece is one object of
each. This module names the objects, computes their sizes and makes the metadata; it writes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, ChunkHeader
from zipml_codecs.tables import table_bits_of

from .dataset_spec import ATTRIBUTE, DatasetSpec
from .shard_file import index_bytes
from .value_codec import CHECKSUM_BYTES, ValueCodec

__all__ = ["DatasetLayout", "layout_for"]

# What Zstandard adds, beside a 256th, where it finds nothing to compress.
_FRAME_BYTES = 64
_METADATA_BYTES = 4096
# Up to so many chunks are objects of their own; more of them go into shards of about this size.
_UNSHARDED_CHUNKS, _SHARD_BYTES = 64, 128 << 20


@dataclass(frozen=True)
class DatasetLayout:
    """The objects of a dataset.

    Parameters
    ----------
    spec : DatasetSpec
        Of its variances only the shapes matter here.
    zarr_format : {2, 3}
    shard_chunks : int, optional
        Chunks in a shard; without, each is an object of its own.
    """

    spec: DatasetSpec
    zarr_format: int = 3
    shard_chunks: int | None = None

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays, X first."""
        others = ("y",) * bool(self.spec.targets)
        return ("X", *others, *("sample_weight",) * (self.spec.weight is not None))

    @property
    def pieces(self) -> int:
        """Number of pieces of each array."""
        return -(-self.spec.chunks // (self.shard_chunks or 1))

    def chunks_of(self, piece: int) -> range:
        """Numbers of the chunks of a piece."""
        each = self.shard_chunks or 1
        return range(piece * each, min((piece + 1) * each, self.spec.chunks))

    def piece_of(self, chunk: int) -> int:
        """Number of the piece that a chunk is in."""
        return chunk // (self.shard_chunks or 1)

    def rows_of(self, piece: int) -> tuple[int, int]:
        """First row of a piece, and the one after its last."""
        chunks = self.chunks_of(piece)
        size = self.spec.chunk_rows
        return chunks.start * size, min(chunks.stop * size, self.spec.rows)

    def key(self, array: str, piece: int) -> str:
        """Key of the object that is a piece of an array."""
        place = [str(piece), *["0"] * len(self.row_shape(array))]
        if self.zarr_format == 2:
            return f"{array}/{'.'.join(place)}"
        return f"{array}/c/{'/'.join(place)}"

    def row_shape(self, array: str) -> tuple[int, ...]:
        """Shape of one row of an array."""
        if array == "X":
            return (len(self.spec.columns),)
        return (len(self.spec.targets),) if array == "y" and len(self.spec.targets) > 1 else ()

    def dtype(self, array: str) -> np.dtype[Any]:
        """Type of the values of an array, little-endian."""
        if array == "X":
            return np.dtype("<f4")
        return np.dtype("<i4" if array == "y" and self.spec.classes else "<f8")

    def fill_value(self, array: str) -> float | int:
        """What rows read as that are not there: a value that no row has.

        xarray masks the fill value of format 2, so that it must not be a level, such as 0, either.
        """
        return -1 if self.dtype(array).kind == "i" else np.nan

    def empty_chunk(self, array: str) -> npt.NDArray[Any]:
        """An array for a chunk, filled with what stands for rows that do not exist."""
        shape = (self.spec.chunk_rows, *self.row_shape(array))
        return np.full(shape, self.fill_value(array), self.dtype(array))

    def header(self, chunk: int) -> ChunkHeader:
        """What the header of a chunk of X says, as far as it tells sizes."""
        spec, columns = self.spec, len(self.spec.columns)
        tables = spec.level_tables
        return ChunkHeader(
            spec.quantizer,
            item_size=4,
            shape=(spec.chunk_rows, columns),
            box=(spec.rows_of_chunk(chunk), columns),
            first_tile=chunk * spec.chunk_rows // TILE_ROWS,
            table_bits=0 if tables is None else table_bits_of(tables.places),
        )

    def chunk_bytes(self, chunk: int) -> int:
        """Size of a stored chunk of X with its checksum."""
        return self.header(chunk).total_size + CHECKSUM_BYTES

    @property
    def most_bytes(self) -> int:
        """What the dataset takes at most: X to the byte, the others as if they did not compress."""
        chunks = self.spec.chunks
        total = self.chunk_bytes(0) * (chunks - 1) + self.chunk_bytes(chunks - 1)
        for name in self.arrays[1:]:
            values = self.spec.chunk_rows * int(np.prod(self.row_shape(name), dtype=np.int64))
            raw = values * self.dtype(name).itemsize
            total += chunks * (raw + raw // 256 + _FRAME_BYTES)
        if self.shard_chunks is not None:
            total += len(self.arrays) * self.pieces * index_bytes(self.shard_chunks)
        return total + _METADATA_BYTES * len(self.spec.columns)

    def metadata(self, attributes: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the group's metadata by key; the last one makes it a group.

        xarray looks for consolidated metadata first, in both formats.
        """
        import zarr
        from zarr.errors import ZarrUserWarning

        group, held = self._create_group()
        group.attrs[ATTRIBUTE] = attributes
        with warnings.catch_warnings():
            # The specification of format 3 leaves consolidated metadata open.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(group.store)
        last = "zarr.json" if self.zarr_format == 3 else ".zgroup"
        return {key: held[key].to_bytes() for key in sorted(held, key=lambda key: key == last)}

    def array_metadata(self) -> dict[str, Any]:
        """Return the metadata of each array, as Zarr has them."""
        group, _ = self._create_group()
        return {name: group[name].metadata for name in self.arrays}

    def _create_group(self) -> tuple[Any, dict[str, Any]]:
        import zarr

        held: dict[str, Any] = {}
        zarr_format = cast(Literal[2, 3], self.zarr_format)
        group = zarr.create_group(zarr.storage.MemoryStore(held), zarr_format=zarr_format)
        for name in self.arrays:
            self._create(group, name)
        return group, held

    def _create(self, group: Any, name: str) -> None:
        columns, spec = self.row_shape(name), self.spec
        axes = ["row", "column" if name == "X" else "output"][: 1 + len(columns)]
        v3 = self.zarr_format == 3
        options: dict[str, Any] = (
            {"dimension_names": axes} if v3 else {"attributes": {"_ARRAY_DIMENSIONS": axes}}
        )
        if name != "X":
            options["compressors"] = ValueCodec.usual(
                self.zarr_format, self.dtype(name)
            ).to_metadata()
        elif v3:
            configuration = spec.quantizer.to_dict()
            options["serializer"] = {"name": "zipml.quantize", "configuration": configuration}
            options["compressors"] = [{"name": "crc32c"}]
        else:
            from numcodecs.checksum32 import CRC32C
            from zipml_codecs.numcodecs_codec import Quantize

            options["filters"] = [Quantize(**spec.quantizer.to_dict())]
            options["compressors"] = CRC32C()
        if self.shard_chunks is not None:
            options["shards"] = (self.shard_chunks * spec.chunk_rows, *columns)
        group.create_array(
            name,
            shape=(spec.rows, *columns),
            chunks=(spec.chunk_rows, *columns),
            dtype=self.dtype(name),
            fill_value=self.fill_value(name),
            **options,
        )


def layout_for(
    spec: DatasetSpec, *, zarr_format: int = 3, shard_rows: int | None = None
) -> DatasetLayout:
    """Choose how a new dataset lies.

    Parameters
    ----------
    spec : DatasetSpec
    zarr_format : {2, 3}
    shard_rows : int, optional
        Rows of a shard, 0 for none; by default there are shards where chunks are many.
    """
    plain = DatasetLayout(spec, zarr_format)
    if zarr_format == 2 or shard_rows == 0:
        return plain
    if shard_rows is not None:
        chunks = min(-(-shard_rows // spec.chunk_rows), spec.chunks)
    elif spec.chunks <= _UNSHARDED_CHUNKS:
        return plain
    else:
        largest = max(
            plain.chunk_bytes(0), *(plain.empty_chunk(name).nbytes for name in plain.arrays[1:]), 1
        )
        chunks = _SHARD_BYTES // largest
        if chunks < 2:
            return plain
    return replace(plain, shard_chunks=min(chunks, spec.chunks))
