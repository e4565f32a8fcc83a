"""The pieces of a dataset, checked where they lie: to verify one, to resume one, to repair one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, ChunkError, EncodedChunk

from .dataset_layout import DatasetLayout
from .dataset_spec import DatasetSpec
from .stores import Store
from .value_codec import ValueCodec, without_checksum

__all__ = ["Damage", "PieceCheck", "check_piece", "parse_whole", "require_ours"]


@dataclass(frozen=True)
class Damage:
    """What is wrong with a part of a dataset.

    Attributes
    ----------
    key : str
        Of the object.
    reason : str
    array : str or None
        None for the metadata.
    chunk : int or None
        Number of the chunk in its array; None where it is not about one.
    """

    key: str
    reason: str
    array: str | None = None
    chunk: int | None = None


@dataclass
class PieceCheck:
    """What was found in a piece.

    Attributes
    ----------
    damages : list of Damage
    sums : list of arrays
        Sums of rounding variance of its chunks of X, as far as they are whole.
    read_bytes : int
    """

    damages: list[Damage] = field(default_factory=list)
    sums: list[npt.NDArray[Any]] = field(default_factory=list)
    read_bytes: int = 0


def parse_whole(data: memoryview) -> EncodedChunk:
    """Parse a stored chunk of X once its checksum is right."""
    return EncodedChunk.parse(without_checksum(data))


def require_ours(spec: DatasetSpec, encoded: EncodedChunk, chunk: int) -> None:
    """Refuse a chunk that is not the one that a dataset has in a place."""
    header = encoded.header
    encoded.require_shape((spec.chunk_rows, len(spec.columns)), 4)
    tables = spec.level_tables
    same = (
        header.quantizer == spec.quantizer
        and header.box == (spec.rows_of_chunk(chunk), len(spec.columns))
        and header.first_tile == chunk * spec.chunk_rows // TILE_ROWS
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


def check_piece(layout: DatasetLayout, store: Store, piece: int) -> PieceCheck:
    """Read a piece of every array and check it."""
    found = PieceCheck()
    codec = ValueCodec.usual(layout.zarr_format)
    for array in layout.arrays:
        key = layout.key(array, piece)
        for chunk in layout.chunks_of(piece):
            try:
                data = store.read(key)
                found.read_bytes += len(data)
                if array == "X":
                    encoded = parse_whole(data)
                    require_ours(layout.spec, encoded, chunk)
                    found.sums.append(encoded.variance_sums)
                else:
                    values = layout.empty_chunk(array)
                    codec.decode(data, values)
                    _check_values(layout, array, values, chunk)
            except FileNotFoundError:
                found.damages.append(Damage(key, "it is missing", array, chunk))
            except OSError as error:
                reason = f"it cannot be read: {error.strerror or error}"
                found.damages.append(Damage(key, reason, array, chunk))
            except ChunkError as error:
                found.damages.append(Damage(key, str(error), array, chunk))
    return found


def _check_values(layout: DatasetLayout, array: str, values: npt.NDArray[Any], chunk: int) -> None:
    spec = layout.spec
    rows = spec.rows_of_chunk(chunk)
    stored, padding = values[:rows], values[rows:]
    fill = layout.fill_value(array)
    if not ((padding == fill) | (np.isnan(padding) if np.isnan(fill) else False)).all():
        raise ChunkError(f"it has values beyond its {rows} rows: it belongs elsewhere")
    good = np.isfinite(stored)
    if array == "sample_weight":
        good &= stored >= 0
    elif spec.classes is not None:
        good &= (stored >= 0) & (stored < len(spec.classes))
    if not good.all():
        row = chunk * spec.chunk_rows + int(np.argwhere(~good)[0][0])
        raise ChunkError(f"its value for row {row} (counted from 0) is none that is stored")
