"""One chunk of an array to encoded bytes and back: the face that both codecs share.

This module lays out the bytes; `scales.py` finds the scales and refuses what cannot be quantised,
and the native core rounds, packs and unpacks. It knows nothing of Zarr.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ChunkError
from .header import LARGEST, ChunkHeader, matrix_shape
from .quantizer import TILE_ROWS, Quantizer
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

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
    )
    encoded = _encode_matrix(header, matrix, low, high)
    if encoded is None:
        matrix, imputed = refuse_or_impute(matrix, quantizer)
        refuse_outside(matrix, low, high)
        encoded = _encode_matrix(replace(header, imputed=imputed), matrix, low, high)
        if encoded is None:
            raise RuntimeError("the values changed while they were encoded")
    return encoded


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
    header: ChunkHeader, matrix: AnyArray, low: FloatArray | None, high: FloatArray
) -> bytearray | None:
    """Lay out the chunk; None if a value is not finite or lies outside of its bounds."""
    out = bytearray(header.total_size)
    out[: header.tables_offset] = header.pack()
    buffer = np.frombuffer(out, np.uint8)
    tables = high if low is None else np.concatenate([low, high])
    _write(buffer, header.tables_offset, tables)
    by_row = header.quantizer.by_row
    variance: Any = np.zeros(header.columns, np.float64 if by_row else np.uint64)
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
            "row_variance": variance if by_row else None,
        }
        if matrix.dtype == np.float32:
            # Halves with imputed means: the values are floats, the levels are halves.
            within = _native.encode_f32(**options, half=header.item_size == 2)
        elif matrix.dtype == np.float64:
            within = _native.encode_f64(**options)
        elif matrix.dtype == np.float16:
            within = _native.encode_f16(**options)
        else:
            within = _native.encode_u8(**options)
        if not within:
            return None
    _write(buffer, header.variance_offset, variance)
    return out


def _write(buffer: npt.NDArray[np.uint8], offset: int, table: npt.NDArray[Any]) -> None:
    raw = table.astype(table.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    buffer[offset : offset + raw.size] = raw


def _content_hash(matrix: AnyArray) -> int:
    """Stands for the global row where a codec does not know it (written through plain Zarr)."""
    import hashlib  # loads OpenSSL, which readers do not need

    data = np.ascontiguousarray(matrix, working_dtype(matrix.dtype).newbyteorder("<"))
    digest = hashlib.blake2b(data.view(np.uint8).reshape(-1).data, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True)
class EncodedChunk:
    """A checked view of encoded bytes; nothing is copied or unpacked.

    Attributes
    ----------
    header : ChunkHeader
    lower : (columns,) array or None
        Lower bounds; None for row scales.
    upper : (columns,) or (rows,) array
        Upper bounds, or the scale of each row.
    variance_table : (columns,) uint64 or float64
        Sums behind `variance`, as stored: exact integers for column scales.
    codes : uint8 array
        The packed codes.
    """

    header: ChunkHeader
    lower: FloatArray | None
    upper: FloatArray
    variance_table: npt.NDArray[Any]
    codes: npt.NDArray[np.uint8]

    @classmethod
    def parse(cls, data: Buffer) -> EncodedChunk:
        """Check encoded bytes and view their parts.

        Raises
        ------
        ChunkError
            The bytes are not a whole, valid chunk.
        """
        view = memoryview(data).cast("B")
        header = ChunkHeader.parse(view)
        raw = np.frombuffer(view, np.uint8)
        by_row = header.quantizer.by_row
        dtype = np.dtype("<f8" if header.item_size == 8 else "<f4")
        count = header.rows if by_row else 2 * header.columns
        start = header.tables_offset
        stored = raw[start : start + count * dtype.itemsize].tobytes()  # aligned copies
        tables = np.frombuffer(stored, dtype)
        start = header.variance_offset
        variance = raw[start : start + 8 * header.columns].tobytes()
        low = None if by_row else tables[: header.columns]
        high = tables if by_row else tables[header.columns :]
        ordered = (high >= 0).all() if low is None else (low <= high).all()
        if not (np.isfinite(tables).all() and ordered):
            raise ChunkError("the chunk's scales are not finite and in order")
        if tables.size and np.abs(tables).max() > LARGEST[header.item_size]:
            raise ChunkError(f"the chunk's scales are no float{8 * header.item_size}")
        return cls(
            header=header,
            lower=None if low is None else low.astype(dtype.newbyteorder("="), copy=False),
            upper=high.astype(dtype.newbyteorder("="), copy=False),
            variance_table=np.frombuffer(variance, "<f8" if by_row else "<u8"),
            codes=raw[header.codes_offset :],
        )

    @property
    def variance(self) -> npt.NDArray[np.float64]:
        """Rounding variance of one sample of each column, averaged over the stored rows.

        The mean of (right level - value) (value - left level), in squared units of the values.
        """
        rows = max(self.header.rows, 1)
        if self.lower is None:
            return np.asarray(self.variance_table, np.float64) / rows
        with np.errstate(over="ignore", invalid="ignore"):  # of float64 bounds beyond 1e154
            span = np.asarray(self.upper, np.float64) - self.lower
            step = span / self.header.quantizer.intervals
            return self.variance_table / 2.0**32 / rows * step**2

    def decode_rows(self, first_tile: int, rows: int) -> FloatArray:
        """Decode `rows` stored rows from tile `first_tile` of the chunk on: (rows, columns)."""
        header = self.header
        out = np.empty((rows, header.columns), self.upper.dtype)
        if out.size:
            decode = _native.decode_f64 if header.item_size == 8 else _native.decode_f32
            start = first_tile * TILE_ROWS
            decode(
                codes=self.codes,
                chunk_rows=header.rows,
                first_tile=first_tile,
                lower=self.lower,
                upper=self.upper if self.lower is not None else self.upper[start : start + rows],
                bits=header.quantizer.bits,
                samples=header.quantizer.samples,
                half=header.item_size == 2,
                out=out,
            )
        return out

    def decode(self) -> FloatArray:
        """Decode the whole chunk, in the shape, dtype and memory order that was encoded."""
        header = self.header
        matrix = self.decode_rows(0, header.rows)
        dtype = np.dtype(f"f{header.item_size}").newbyteorder(">" if header.big_endian else "=")
        order = "F" if header.fortran else "C"
        box = matrix.reshape(header.box)
        if header.box == header.shape:
            return np.asarray(box, dtype=dtype, order=order)  # type: ignore[call-overload,no-any-return]
        out = np.full(header.shape, header.tail, dtype, order=order)  # type: ignore[call-overload]
        out[tuple(slice(0, n) for n in header.box)] = box
        return out  # type: ignore[no-any-return]

    def require_shape(self, shape: tuple[int, ...], item_size: int) -> None:
        """Check that the chunk decodes to what its array declares.

        Raises
        ------
        ChunkError
            Another shape or precision: the chunk belongs to another array.
        """
        header = self.header
        if header.shape != tuple(shape) or header.item_size != item_size:
            raise ChunkError(
                f"the chunk holds {header.shape} of float{8 * header.item_size}, its array "
                f"declares {tuple(shape)} of float{8 * item_size}"
            )
