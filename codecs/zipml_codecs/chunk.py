"""One chunk of an array to encoded bytes: with `EncodedChunk`, the face that both codecs share.

This module lays out the bytes; `scales.py` finds the scales and refuses what cannot be quantised,
and the native core rounds, packs and unpacks. It knows nothing of Zarr.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .encoded import EncodedChunk
from .header import ChunkHeader, matrix_shape
from .quantizer import Quantizer
from .scales import (
    AnyArray,
    FloatArray,
    find_scales,
    fixed_bounds,
    refuse_or_impute,
    refuse_outside,
    without_tail,
    working_dtype,
)
from .tables import Places, check_places, chunk_places, grid_steps, table_bits_of
from .weave import write_checksums

__all__ = ["EncodedChunk", "encode_chunk"]


def encode_chunk(
    array: npt.ArrayLike,
    quantizer: Quantizer,
    *,
    lower: FloatArray | None = None,
    upper: FloatArray | None = None,
    first_tile: int | None = None,
    chunk_shape: tuple[int, ...] | None = None,
    tail: float = 0.0,
    dtype: npt.DTypeLike | None = None,
    levels: npt.NDArray[Any] | None = None,
) -> bytearray:
    """Quantise an array and pack it.

    Parameters
    ----------
    array : array of float16, float32 or float64, any number of axes
        The last axis holds the columns; a 1-D array is one column. With ``dtype="float32"`` it
        may also be of uint8.
    quantizer : Quantizer
    lower, upper : (columns,) arrays, optional
        Fixed bounds of the levels for ``scale="column"``; by default the smallest and largest
        value of each column.
    first_tile : int, optional
        Global row of the first row, divided by 64: the draws then do not depend on chunking. By
        default a hash of the values takes its place.
    chunk_shape, tail : optional
        Shape of the whole chunk where `array` is only its leading part, and the value of all
        that lies outside. By default a tail of equal values that would widen the bounds (the
        padding of edge chunks) is found and left out.
    dtype : dtype, optional
        What the chunk decodes to, by default the array's own type. An array of uint8 is stored as
        the float32 array of the same values, without a copy as such.
    levels : (columns, 2**bits) array of uint8 or uint16, optional
        With a quantiser of optimal levels and fixed bounds: the levels to take, as places on a
        grid of K steps between the bounds, each row ascending from 0 to K (255 for uint8 and one
        sample, 127 for two; 65535 and 32767 for uint16). By default, and then without fixed
        bounds, they are those with the least rounding variance for this chunk.

    Returns
    -------
    bytearray
        The encoded chunk (docs/format.md).

    Raises
    ------
    TypeError
        Not a float array, and not uint8 to be stored as float32.
    ValueRefusedError
        A value that is not finite, or that lies outside of the fixed bounds.
    """
    values = np.asanyarray(array)
    stored = _stored_dtype(values.dtype, dtype)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if not native.flags.aligned:  # a field of a packed record
        native = native.copy(order="K")
    shape = values.shape if chunk_shape is None else chunk_shape
    box = native
    if chunk_shape is None:
        box, tail = without_tail(native, by_row=quantizer.by_row)
    matrix = np.asarray(box).reshape(matrix_shape(box.shape))
    given = fixed_bounds(quantizer, stored, lower, upper, matrix.shape[1])
    _check_levels(quantizer, levels, fixed=given is not None)
    imputed = 0
    low, high = given or (None, np.empty(0))
    if given is None or first_tile is None:
        # The scales and the hash are those of what is stored. Else the quantiser looks itself
        # whether values are finite and within their bounds: once over the data is enough.
        found, finite = find_scales(matrix, quantizer, stored)
        if not finite:
            matrix, imputed = refuse_or_impute(matrix, quantizer)
            found, _ = find_scales(matrix, quantizer, stored)
        low, high = given or found
    if first_tile is None:
        first_tile = _content_hash(matrix)
    places = None
    if quantizer.levels == "optimal":
        if levels is None:
            places = chunk_places(matrix, quantizer)
        else:
            places = check_places(levels, quantizer, matrix.shape[1])
    layout = values
    if stored != values.dtype and not (values.flags.c_contiguous or values.flags.f_contiguous):
        layout = np.empty_like(values, stored)  # as a conversion would lie
    header = ChunkHeader(
        quantizer=quantizer,
        item_size=stored.itemsize,
        shape=tuple(shape),
        box=tuple(box.shape),
        tail=float(tail),
        first_tile=first_tile % 2**64,
        imputed=imputed,
        big_endian=stored.byteorder == ">",
        fortran=bool(layout.flags.f_contiguous and not layout.flags.c_contiguous),
        table_bits=0 if places is None else table_bits_of(places),
    )
    encoded = _encode_matrix(header, matrix, low, high, places)
    if encoded is None:
        matrix, imputed = refuse_or_impute(matrix, quantizer)
        refuse_outside(matrix, low, high)
        encoded = _encode_matrix(replace(header, imputed=imputed), matrix, low, high, places)
        if encoded is None:
            raise RuntimeError("the values changed while they were encoded")
    return encoded


def _check_levels(quantizer: Quantizer, levels: Any, *, fixed: bool) -> None:
    if levels is not None and quantizer.levels != "optimal":
        raise ValueError(f"levels go with levels='optimal', the quantiser has {quantizer.levels!r}")
    if quantizer.levels == "optimal" and fixed != (levels is not None):
        raise ValueError("optimal levels are fixed together with their bounds: give both or none")


def _stored_dtype(given: np.dtype[Any], asked: npt.DTypeLike | None) -> np.dtype[Any]:
    """Type that a chunk decodes to: that of the array, or float32 for bytes."""
    stored = given if asked is None else np.dtype(asked)
    if stored.kind != "f" or stored.itemsize not in (2, 4, 8):
        raise TypeError(f"zipml.quantize stores float16, float32 and float64 arrays, got {stored}")
    if stored != given and not (given == np.uint8 and stored.itemsize == 4):
        raise TypeError(
            f"zipml.quantize stores uint8 arrays as float32, and others as what they are: got "
            f"{given} to store as {stored}"
        )
    return stored


def _encode_matrix(
    header: ChunkHeader,
    matrix: AnyArray,
    low: FloatArray | None,
    high: FloatArray,
    places: Places | None,
) -> bytearray | None:
    """Lay out the chunk; None if a value is not finite or lies outside of its bounds."""
    out = bytearray(header.total_size)
    out[: header.head_size] = header.pack()
    buffer = np.frombuffer(out, np.uint8)
    tables = high if low is None else np.concatenate([low, high])
    _write(buffer, header.tables_offset, tables)
    by_row = header.quantizer.by_row
    if header.quantizer.weaved:
        return out if _weave(header, matrix, low, high, buffer) else None
    variance: Any = np.zeros(header.columns, np.float64 if by_row else np.uint64)
    if places is not None:
        _write(buffer, header.places_offset, places.ravel())
        variance = np.zeros((header.columns, 2), np.uint64)
    if matrix.size:
        options: dict[str, Any] = {
            "values": matrix,
            "lower": low,
            "upper": high,
            "bits": header.quantizer.bits,
            "samples": header.quantizer.samples,
            "seed": header.quantizer.seed,
            "first_tile": header.first_tile,
            "codes": buffer[header.codes_offset :],
            "variance": None if by_row else variance,
        }
        name = "encode"
        if places is None:
            options["row_variance"] = variance if by_row else None
        else:
            name = "encode_table"
            options["places"] = places.astype(np.uint16, copy=False)
            options["top"] = grid_steps(header.table_bits, header.quantizer.samples)
        if matrix.dtype == np.float32:
            # Halves with imputed means: the values are floats, the levels are halves.
            options["half"] = header.item_size == 2
        kind = "u8" if matrix.dtype == np.uint8 else f"f{8 * matrix.dtype.itemsize}"
        if not getattr(_native, f"{name}_{kind}")(**options):
            return None
    _write(buffer, header.variance_offset, variance.ravel())
    return out


def _weave(
    header: ChunkHeader,
    matrix: AnyArray,
    low: FloatArray | None,
    high: FloatArray,
    buffer: npt.NDArray[np.uint8],
) -> bool:
    """Fill in planes, variances and checksums; False if a value is not within its bounds."""
    quantizer = header.quantizer
    variance = np.zeros((len(quantizer.precisions), header.columns), np.uint64)
    if matrix.size:
        options: dict[str, Any] = {
            "values": matrix,
            "lower": low,
            "upper": high,
            "bits": quantizer.bits,
            "samples": quantizer.samples,
            "precisions": sum(1 << (k - 1) for k in quantizer.precisions),
            "seed": quantizer.seed,
            "first_tile": header.first_tile,
            "codes": buffer[header.codes_offset :][: header.codes_size],
            "variance": variance,
        }
        if matrix.dtype == np.float32:
            options["half"] = header.item_size == 2
        kind = "u8" if matrix.dtype == np.uint8 else f"f{8 * matrix.dtype.itemsize}"
        if not getattr(_native, f"weave_{kind}")(**options):
            return False
    _write(buffer, header.variance_offset, variance.ravel())
    write_checksums(header, buffer)
    return True


def _write(buffer: npt.NDArray[np.uint8], offset: int, table: npt.NDArray[Any]) -> None:
    raw = table.astype(table.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    buffer[offset : offset + raw.size] = raw


def _content_hash(matrix: AnyArray) -> int:
    """Stands for the global row where a codec does not know it (written through plain Zarr)."""
    import hashlib  # loads OpenSSL, which readers do not need

    data = np.ascontiguousarray(matrix, working_dtype(matrix.dtype).newbyteorder("<"))
    digest = hashlib.blake2b(data.view(np.uint8).reshape(-1).data, digest_size=8)
    return int.from_bytes(digest.digest(), "little")
