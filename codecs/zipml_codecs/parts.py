"""What lies behind the header of encoded bytes: scales, level table, variances and codes.

The header was checked before, its sizes against the bytes that there are. Tables are copied, so
that they are aligned and do not keep the chunk; codes are views. `encoded` is the face of it all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ChunkError
from .header import LARGEST, ChunkHeader
from .tables import Places, check_places
from .weave import plane_runs

__all__ = ["codes_of", "places_of", "scales_of", "variances_of"]

Bytes = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating[Any]]


def scales_of(header: ChunkHeader, raw: Bytes) -> tuple[FloatArray | None, FloatArray]:
    """Return lower and upper bounds of the columns; None and the scales of the rows.

    Raises
    ------
    ChunkError
        They are not finite, not in order, or no values of the chunk's precision.
    """
    by_row = header.quantizer.by_row
    dtype = np.dtype("<f8" if header.item_size == 8 else "<f4")
    count = header.rows if by_row else 2 * header.columns
    start = header.tables_offset
    tables = np.frombuffer(raw[start : start + count * dtype.itemsize].tobytes(), dtype)
    low = None if by_row else tables[: header.columns]
    high = tables if by_row else tables[header.columns :]
    ordered = (high >= 0).all() if low is None else (low <= high).all()
    if not (np.isfinite(tables).all() and ordered):
        raise ChunkError("the chunk's scales are not finite and in order")
    if tables.size and np.abs(tables).max() > LARGEST[header.item_size]:
        raise ChunkError(f"the chunk's scales are no float{8 * header.item_size}")
    native = dtype.newbyteorder("=")
    lower = None if low is None else low.astype(native, copy=False)
    return lower, high.astype(native, copy=False)


def places_of(header: ChunkHeader, raw: Bytes) -> Places | None:
    """Return the level table; None where levels are equally spaced.

    Raises
    ------
    ChunkError
        It is none for this quantiser.
    """
    if not header.table_bits:
        return None
    levels = header.quantizer.intervals + 1
    size, start = header.table_bits // 8, header.places_offset
    stored = raw[start : start + size * levels * header.columns].tobytes()
    table = np.frombuffer(stored, f"<u{size}").reshape(header.columns, levels)
    try:
        native = table.astype(table.dtype.newbyteorder("="), copy=False)
        return check_places(native, header.quantizer, header.columns)
    except ValueError as error:
        raise ChunkError(f"the chunk's level table is damaged: {error}") from error


def variances_of(header: ChunkHeader, raw: Bytes) -> npt.NDArray[Any]:
    """Return the sums behind the variances, as `EncodedChunk.variance_table` holds them."""
    start = header.variance_offset
    stored = raw[start : start + header.variance_size].tobytes()
    sums = np.frombuffer(stored, "<f8" if header.quantizer.by_row else "<u8")
    if header.quantizer.weaved:
        return sums.reshape(len(header.quantizer.precisions), header.columns)
    return sums.reshape(-1, 2) if header.table_bits else sums


def codes_of(header: ChunkHeader, raw: Bytes, precision: int) -> Bytes:
    """Return the codes; weaved: the planes of a precision, copied where others lie between."""
    codes = raw[header.codes_offset :][: header.codes_size]
    if not header.quantizer.weaved:
        return codes
    runs, size = plane_runs(header.quantizer, precision), header.plane_size
    (_, base), (first, samples) = runs
    if first == base:
        return codes[: (base + samples) * size]
    return np.concatenate([codes[start * size : (start + n) * size] for start, n in runs])
