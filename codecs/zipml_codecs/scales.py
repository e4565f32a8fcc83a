"""What a chunk is before it is encoded: its box, its scales, and the values that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ValueRefusedError
from .header import matrix_shape
from .quantizer import Quantizer

__all__ = [
    "AnyArray",
    "FloatArray",
    "find_scales",
    "fixed_bounds",
    "refuse_or_impute",
    "refuse_outside",
    "without_tail",
    "working_dtype",
]

FloatArray = npt.NDArray[np.floating[Any]]
AnyArray = npt.NDArray[Any]  # floats, or bytes that are stored as floats


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type that scales are kept and levels computed in."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def without_tail(values: AnyArray, *, by_row: bool) -> tuple[AnyArray, float]:
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


def refuse_or_impute(matrix: AnyArray, quantizer: Quantizer) -> tuple[FloatArray, int]:
    matrix = matrix.astype(working_dtype(matrix.dtype), copy=False)
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


def fixed_bounds(
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
    dtype = working_dtype(stored)
    low = np.ascontiguousarray(np.broadcast_to(lower, (columns,)), dtype)
    high = np.ascontiguousarray(np.broadcast_to(upper, (columns,)), dtype)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError("fixed bounds must be finite, the lower not above the upper")
    if stored.itemsize == 2:
        for bound in (low, high):
            if (bound.astype(np.float16) != bound).any():
                raise ValueError("fixed bounds of a float16 array must be float16 values")
    return low, high


def find_scales(
    matrix: AnyArray, quantizer: Quantizer, stored: np.dtype[Any]
) -> tuple[tuple[FloatArray | None, FloatArray], bool]:
    """Find the bounds of columns, or of rows, and whether all values are finite."""
    dtype = working_dtype(stored)
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


def refuse_outside(matrix: FloatArray, low: FloatArray | None, high: FloatArray) -> None:
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
