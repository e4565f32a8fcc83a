"""One chunk of an array to encoded bytes and back: the face that both codecs share.

This module finds the scales, refuses what cannot be quantised and lays out the bytes; the native
core rounds, packs and unpacks. It knows nothing of Zarr.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ChunkError, ValueRefusedError
from .header import LARGEST, ChunkHeader, matrix_shape
from .quantizer import TILE_ROWS, Quantizer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EncodedChunk", "encode_chunk"]

FloatArray = npt.NDArray[np.floating[Any]]
AnyArray = npt.NDArray[Any]  # floats, or bytes that are stored as floats


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
        box, tail = _without_tail(native, by_row=quantizer.by_row)
    matrix = np.asarray(box).reshape(matrix_shape(box.shape))
    bounds = _fixed_bounds(quantizer, stored, lower, upper, matrix.shape[1])
    imputed = 0
    if bounds is None or first_tile is None:
        # The scales and the hash are those of what is stored. Else the quantiser looks itself
        # whether values are finite and within their bounds: once over the data is enough.
        found, finite = _scales(matrix, quantizer, stored)
        if not finite:
            matrix, imputed = _refuse_or_impute(matrix, quantizer)
            found, _ = _scales(matrix, quantizer, stored)
        bounds = found if bounds is None else bounds
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
    encoded = _encode_matrix(header, matrix, *bounds)
    if encoded is None:
        matrix, imputed = _refuse_or_impute(matrix, quantizer)
        _refuse_outside(matrix, *bounds)
        encoded = _encode_matrix(replace(header, imputed=imputed), matrix, *bounds)
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


def _working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type that scales are kept and levels computed in."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


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


def _without_tail(values: AnyArray, *, by_row: bool) -> tuple[AnyArray, float]:
    """Cut off trailing planes that are all equal to the last value, where that helps.

    Zarr fills the part of an edge chunk that lies beyond the array with the fill value. Coded as
    data it would widen the bounds, and NaN could not be coded at all. The tail is cut only if it
    is NaN or lies outside of the bounds of the rest in some column (for row scales: of some row):
    the decoded rest keeps its bounds, so that encoding a decoded chunk decides alike.
    """
    if values.size == 0 or values.ndim == 0:
        return values, 0.0
    tail = values[(-1,) * values.ndim]

    def is_tail(part: AnyArray) -> npt.NDArray[np.bool_]:
        return np.isnan(part) if np.isnan(tail) else part == tail

    box = values
    for axis in range(values.ndim):
        others = tuple(a for a in range(values.ndim) if a != axis)
        length = box.shape[axis]
        last = np.take(box, [length - 1], axis=axis) if length else box
        if length and is_tail(last).all():
            keep = np.flatnonzero(~is_tail(box).all(axis=others))
            length = int(keep[-1]) + 1 if keep.size else 0
        box = box[(slice(None),) * axis + (slice(0, length),)]
    if box.size == values.size:
        return values, 0.0
    if box.size == 0:
        return values[(slice(0, 0),) * values.ndim], float(tail)
    if np.isnan(tail):
        return box, float(tail)
    matrix = box.reshape(matrix_shape(box.shape))
    if by_row:
        outside = abs(tail) > np.abs(matrix).max(axis=1)
    else:
        outside = (tail < matrix.min(axis=0)) | (tail > matrix.max(axis=0))
    # NaN among the rest makes no comparison true: such a chunk is refused or imputed later.
    return (box, float(tail)) if outside.any() else (values, 0.0)


def _refuse_or_impute(matrix: AnyArray, quantizer: Quantizer) -> tuple[FloatArray, int]:
    matrix = matrix.astype(_working_dtype(matrix.dtype), copy=False)
    if not matrix.size or (np.isfinite(matrix.min()) and np.isfinite(matrix.max())):
        return matrix, 0
    bad = ~np.isfinite(matrix) if quantizer.nan == "error" else np.isinf(matrix)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        remedy = "" if np.isinf(matrix[row, column]) else ', or use nan="mean"'
        raise ValueRefusedError(
            f"the value at row {row}, column {column} is {matrix[row, column]}: "
            f"only finite values can be quantised; remove or replace it{remedy}",
            row=row,
            column=column,
        )
    missing = np.isnan(matrix)
    present = (~missing).sum(axis=0)
    if not present.all():
        column = int(np.flatnonzero(present == 0)[0])
        raise ValueRefusedError(
            f"column {column} holds nothing but NaN in this chunk: there is no mean to impute",
            row=0,
            column=column,
        )
    # Divided before they are added, so that no sum overflows; clipped, for rounding must not
    # carry the mean beyond the values it stands for.
    mean = (np.where(missing, 0, matrix).astype(np.float64) / present).sum(axis=0)
    low = np.where(missing, np.inf, matrix).min(axis=0)
    high = np.where(missing, -np.inf, matrix).max(axis=0)
    filled = np.where(missing, np.clip(mean, low, high), matrix).astype(matrix.dtype)
    return filled, int(missing.sum())


def _fixed_bounds(
    quantizer: Quantizer,
    stored: np.dtype[Any],
    lower: FloatArray | None,
    upper: FloatArray | None,
    columns: int,
) -> tuple[FloatArray, FloatArray] | None:
    """Check the bounds that the caller gives, if any."""
    if lower is None and upper is None:
        return None
    if quantizer.by_row:
        raise ValueError("fixed bounds go with column scales only")
    if lower is None or upper is None:
        raise ValueError("fixed bounds come in pairs: give both lower and upper, or neither")
    dtype = _working_dtype(stored)
    low = np.ascontiguousarray(np.broadcast_to(lower, (columns,)), dtype)
    high = np.ascontiguousarray(np.broadcast_to(upper, (columns,)), dtype)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError("fixed bounds must be finite, the lower not above the upper")
    if stored.itemsize == 2:
        for bound in (low, high):
            if (bound.astype(np.float16) != bound).any():
                raise ValueError("fixed bounds of a float16 array must be float16 values")
    return low, high


def _scales(
    matrix: AnyArray, quantizer: Quantizer, stored: np.dtype[Any]
) -> tuple[tuple[FloatArray | None, FloatArray], bool]:
    """Find the bounds of columns, or of rows, and whether all values are finite."""
    dtype = _working_dtype(stored)
    rows, columns = matrix.shape
    low, high = np.zeros(columns, dtype), np.zeros(columns, dtype)
    if not quantizer.by_row:
        finite = not rows or _native.column_bounds(matrix, low, high)
        # Zeros of either sign are one level: without the sum, low and high would disagree on it.
        return (low + dtype.type(0), high + dtype.type(0)), finite
    largest = np.zeros(rows, dtype)
    finite = not columns or _native.row_magnitudes(matrix, largest)
    scale = largest
    if quantizer.scale == "row-l2" and finite:
        # Scaled by the largest entry, so that no square overflows or vanishes.
        unit = np.where(largest > 0, largest, 1).astype(np.float64)
        squares = np.square(np.ascontiguousarray(matrix) / unit[:, None])
        with np.errstate(over="ignore"):
            norm = unit * np.sqrt(squares.sum(axis=1))
        scale = np.minimum(norm, np.finfo(dtype).max).astype(dtype)
        scale = np.maximum(scale, largest)
    if stored.itemsize == 2:  # levels must be values of the array's type
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = np.minimum(scale.astype(np.float16), np.finfo(np.float16).max)
        scale = np.maximum(rounded.astype(np.float32), largest)
    return (None, scale), finite


def _refuse_outside(matrix: FloatArray, low: FloatArray | None, high: FloatArray) -> None:
    if low is None:
        return
    outside = (matrix.min(axis=0) < low) | (matrix.max(axis=0) > high)
    if outside.any():
        column = int(np.flatnonzero(outside)[0])
        beyond = (matrix[:, column] < low[column]) | (matrix[:, column] > high[column])
        row = int(np.flatnonzero(beyond)[0])
        raise ValueRefusedError(
            f"the value at row {row}, column {column} is {matrix[row, column]}, outside of the "
            f"bounds {low[column]} to {high[column]}",
            row=row,
            column=column,
        )


def _content_hash(matrix: AnyArray) -> int:
    """Stands for the global row where a codec does not know it (written through plain Zarr)."""
    import hashlib  # loads OpenSSL, which readers do not need

    data = np.ascontiguousarray(matrix, _working_dtype(matrix.dtype).newbyteorder("<"))
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
