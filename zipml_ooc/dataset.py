"""A compressed dataset on disk: its attributes, and its encoded chunks as they lie there.

Reading for training stops at the encoded bytes: a chunk is fetched, its checksum verified once,
its header compared with the dataset's attributes, and handed on without being unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, ChunkError, EncodedChunk, Quantizer
from zipml_codecs.tables import check_places, table_bits_of

from .errors import DataError, UsageError
from .statistics import ColumnStatistics
from .targets import Label

__all__ = ["ATTRIBUTE", "Dataset", "DatasetSpec", "LevelTables", "add_checksum", "open_dataset"]

ATTRIBUTE = "zipml"
"""Name of the group attribute that holds a `DatasetSpec`."""
_MAJOR = 1
VERSION, _TABLES_VERSION = "1.0", "1.1"
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class LevelTables:
    """Levels that were fitted to the columns, the same in all chunks.

    Attributes
    ----------
    places : (columns, levels) uint8 or uint16
        See `zipml_codecs.encode_chunk`.
    uniform_variance : (columns,) float64
        What `DatasetSpec.variance` would be with equally spaced levels, from the histograms that
        the levels were found in.
    """

    places: npt.NDArray[Any]
    uniform_variance: npt.NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "bits": table_bits_of(self.places),
            "places": self.places.tolist(),
            "uniform_variance": self.uniform_variance.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], quantizer: Quantizer) -> Self:
        """Build from `to_dict`'s form, and check it."""
        kind = {8: np.uint8, 16: np.uint16}[data["bits"]]
        uniform = np.asarray(data["uniform_variance"], np.float64)
        table = check_places(np.asarray(data["places"], kind), quantizer, len(uniform))
        return cls(table, uniform)


@dataclass(frozen=True)
class DatasetSpec:
    """What the group's attributes say: docs/format.md, section "Dataset".

    Attributes
    ----------
    rows, chunk_rows : int
    columns, targets : tuple of str
    task : {"regression", "classification"} or None
    classes : tuple of labels, or None
    quantizer : Quantizer
    encoder : mapping
        How source columns became these columns, and how missing values were filled.
    standardized : bool
    mean, scale : (columns,) float64
        A stored value is (value - mean) / scale.
    statistics : ColumnStatistics
        Of the source's values.
    lower, upper : (columns,) float32, or None for row scales
        Outer levels of each column, the same in all chunks.
    variance : (columns,) float64
        Rounding variance of one sample, over all rows, in squared units of the stored values.
    target_statistics : ColumnStatistics or None
        Of the targets of a regression.
    source : mapping
        Where the data came from.
    level_tables : LevelTables or None
        None for equally spaced levels.
    """

    rows: int
    chunk_rows: int
    columns: tuple[str, ...]
    targets: tuple[str, ...]
    task: str | None
    classes: tuple[Label, ...] | None
    quantizer: Quantizer
    encoder: Mapping[str, Any]
    standardized: bool
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    statistics: ColumnStatistics
    lower: npt.NDArray[np.float32] | None
    upper: npt.NDArray[np.float32] | None
    variance: npt.NDArray[np.float64]
    target_statistics: ColumnStatistics | None
    source: Mapping[str, Any]
    level_tables: LevelTables | None = None

    def to_attributes(self) -> dict[str, Any]:
        """Return the JSON form."""
        version = VERSION if self.level_tables is None else _TABLES_VERSION
        out: dict[str, Any] = {"version": version, "complete": True}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "level_tables" and value is None:
                continue  # as in version 1.0
            if isinstance(value, np.ndarray):
                value = value.tolist()
            elif isinstance(value, Quantizer | ColumnStatistics | LevelTables):
                value = value.to_dict()
            elif isinstance(value, tuple):
                value = list(value)
            out[field.name] = value
        return out

    @classmethod
    def from_attributes(cls, data: Any, place: str) -> Self:
        """Read and check the JSON form; `place` names the dataset in errors."""
        if not isinstance(data, dict):
            raise DataError(f"{place} is a Zarr group, but no dataset made by `zipml compress`")
        version = str(data.get("version", ""))
        if version.partition(".")[0] != str(_MAJOR):
            raise DataError(
                f"{place} has dataset format {version!r}, this version reads {VERSION}: "
                "update zipml-ooc"
            )
        if data.get("complete") is not True:
            raise DataError(
                f"{place} is not complete: its compression was interrupted; run it again"
            )
        try:
            quantizer, tables = Quantizer.from_dict(data["quantizer"]), None
            if quantizer.levels == "optimal":
                tables = LevelTables.from_dict(data["level_tables"], quantizer)
            spec = cls(
                rows=int(data["rows"]),
                chunk_rows=int(data["chunk_rows"]),
                columns=tuple(data["columns"]),
                targets=tuple(data["targets"]),
                task=data["task"],
                classes=None if data["classes"] is None else tuple(data["classes"]),
                quantizer=quantizer,
                encoder=data["encoder"],
                standardized=bool(data["standardized"]),
                mean=np.asarray(data["mean"], np.float64),
                scale=np.asarray(data["scale"], np.float64),
                statistics=ColumnStatistics.from_dict(data["statistics"]),
                lower=None if data["lower"] is None else np.asarray(data["lower"], np.float32),
                upper=None if data["upper"] is None else np.asarray(data["upper"], np.float32),
                variance=np.asarray(data["variance"], np.float64),
                target_statistics=None
                if data["target_statistics"] is None
                else ColumnStatistics.from_dict(data["target_statistics"]),
                source=data["source"],
                level_tables=tables,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the attributes of {place} are damaged: {error!r}") from error
        if spec.chunk_rows < 1 or spec.chunk_rows % TILE_ROWS:
            raise DataError(f"the attributes of {place} are damaged: chunk rows {spec.chunk_rows}")
        arrays: list[npt.NDArray[Any]] = [
            spec.mean,
            spec.scale,
            spec.variance,
            spec.statistics.mean,
            spec.statistics.std,
        ]
        arrays += [bound for bound in (spec.lower, spec.upper) if bound is not None]
        if spec.level_tables is not None:
            arrays.append(spec.level_tables.uniform_variance)
        if any(array.shape != (len(spec.columns),) for array in arrays) or spec.rows < 1:
            raise DataError(f"the attributes of {place} are damaged: lengths do not match")
        if not all(np.isfinite(array).all() for array in arrays) or not (spec.scale > 0).all():
            raise DataError(f"the attributes of {place} are damaged: values that are not finite")
        return spec

    @property
    def stored_mean(self) -> npt.NDArray[np.float64]:
        """Mean of each column as stored (zero for standardised columns)."""
        return (self.statistics.mean - self.mean) / self.scale

    @property
    def stored_std(self) -> npt.NDArray[np.float64]:
        """Standard deviation of each column as stored; one where it is constant."""
        std = self.statistics.std / self.scale
        return np.where(std > 0, std, 1.0)

    @property
    def tiles(self) -> int:
        """Number of tiles of 64 rows."""
        return -(-self.rows // TILE_ROWS)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def rows_of_chunk(self, chunk: int) -> int:
        """Rows that a chunk stores: all but the last are full."""
        return min(self.chunk_rows, self.rows - chunk * self.chunk_rows)


def add_checksum(chunk: bytes | bytearray) -> bytes:
    """Append the CRC-32C that Zarr's `crc32c` codec expects behind a chunk."""
    return b"".join((chunk, google_crc32c.value(bytes(chunk)).to_bytes(4, "little")))


class Dataset:
    """A compressed dataset, opened for reading.

    Attributes
    ----------
    path : Path
    spec : DatasetSpec
    """

    def __init__(self, path: Path, spec: DatasetSpec, group: Any) -> None:
        self.path = path
        self.spec = spec
        self._group = group
        self._x = group["X"]

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"Dataset({str(self.path)!r}, rows={spec.rows}, columns={len(spec.columns)}, "
            f"bits={spec.quantizer.bits}, samples={spec.quantizer.samples})"
        )

    def chunk_key(self, chunk: int) -> str:
        """Return the key of a chunk below the dataset's path."""
        return f"X/{self._x.metadata.encode_chunk_key((chunk, 0))}"

    @cached_property
    def stamp(self) -> int:
        """Time of the last change of the metadata, for caches."""
        return _stamp(self.path)

    @property
    def zarr_format(self) -> int:
        """Zarr format of the group: 2 or 3."""
        return int(self._x.metadata.zarr_format)

    @cached_property
    def stored_bytes(self) -> int:
        """Size on disk of all encoded chunks of X."""
        return sum(self._chunk_path(i).stat().st_size for i in range(self.spec.chunks))

    def _chunk_path(self, chunk: int) -> Path:
        return self.path / self.chunk_key(chunk)

    def read_chunk(self, chunk: int) -> EncodedChunk:
        """Fetch a chunk's bytes and check them; nothing is unpacked.

        Raises
        ------
        DataError
            Missing, truncated, corrupted, or of another dataset; the message names the key.
        """
        key = self.chunk_key(chunk)
        try:
            data = self._chunk_path(chunk).read_bytes()
        except FileNotFoundError:
            raise DataError(
                f"chunk {key} of {self.path} is missing: compress the source again"
            ) from None
        except OSError as error:
            raise DataError(f"chunk {key} of {self.path} cannot be read: {error}") from error
        body = np.frombuffer(data, np.uint8)[:-_CHECKSUM_BYTES]
        try:
            if google_crc32c.value(body) != int.from_bytes(data[-_CHECKSUM_BYTES:], "little"):
                raise ChunkError("its checksum does not match: truncated or corrupted")
            encoded = EncodedChunk.parse(memoryview(data)[:-_CHECKSUM_BYTES])
            self._require_ours(encoded, chunk)
        except ChunkError as error:
            raise DataError(
                f"chunk {key} of {self.path} cannot be used: {error}; compress the source again"
            ) from error
        return encoded

    def _require_ours(self, encoded: EncodedChunk, chunk: int) -> None:
        spec, header = self.spec, encoded.header
        encoded.require_shape((spec.chunk_rows, len(spec.columns)), 4)
        first_tile = chunk * spec.chunk_rows // TILE_ROWS
        tables = spec.level_tables
        same = (
            header.quantizer == spec.quantizer
            and header.box == (spec.rows_of_chunk(chunk), len(spec.columns))
            and header.first_tile == first_tile
            and _same(encoded.lower, spec.lower)
            and (encoded.lower is None or _same(encoded.upper, spec.upper))
            and _same(encoded.places, None if tables is None else tables.places)
        )
        if not same:
            raise ChunkError("it belongs to another dataset (levels, seed or position differ)")

    def read_target(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Read targets, or class codes, of a range of rows: (rows, outputs)."""
        if not self.spec.targets:
            raise UsageError(
                f"{self.path} holds no target: compress the source again with --target"
            )
        try:
            target = np.asarray(self._group["y"][start:stop])
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise DataError(f"the targets y of {self.path} cannot be read: {error}") from error
        target = target.reshape(stop - start, -1).astype(np.float64)
        if not np.isfinite(target).all() or (self.spec.classes is not None and target.min() < 0):
            raise DataError(
                f"targets y of {self.path} are missing between rows {start} and {stop}: "
                "compress the source again"
            )
        return target


def _same(left: npt.NDArray[Any] | None, right: npt.NDArray[Any] | None) -> bool:
    if left is None or right is None:
        return left is right
    return np.array_equal(left, right)


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open a dataset that `compress` made.

    Parameters
    ----------
    path : path of the Zarr group

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

    place = Path(path)
    if not place.exists():
        raise UsageError(f"there is no dataset at {place}")
    try:
        group = zarr.open_group(place, mode="r")
        attributes = group.attrs.asdict().get(ATTRIBUTE)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise DataError(f"{place} is no Zarr group, or its metadata are damaged") from error
    spec = DatasetSpec.from_attributes(attributes, str(place))
    try:
        return Dataset(place, spec, group)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{place} lacks its array X or it is damaged: {error}") from error


def _stamp(path: Path) -> int:
    metadata = [path / name for name in ("zarr.json", ".zattrs")]
    return max((m.stat().st_mtime_ns for m in metadata if m.exists()), default=0)


@lru_cache(maxsize=8)
def _cached(path: str, stamp: int) -> Dataset:
    return open_dataset(path)


def open_cached(path: str) -> Dataset:
    """Open a dataset once per process: what tasks on workers use."""
    return _cached(path, _stamp(Path(path)))
