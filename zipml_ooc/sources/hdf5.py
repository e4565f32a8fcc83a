"""HDF5 files, read by slices of rows; needs h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.arrays import (
    ArrayFile,
    Rows,
    check_features,
    find_x,
    find_y,
    rows_per_read,
)
from zipml_ooc.sources.base import SourceOptions, reading
from zipml_ooc.sources.files import SourceFile


def describe_hdf5(file: SourceFile, options: SourceOptions) -> ArrayFile:
    """An HDF5 file with the datasets X and perhaps y, anywhere inside the file."""
    with reading(file.path, "HDF5"), ExitStack() as stack:
        root = _open(file, stack)
        names = _dataset_names(root, options)
        x_name = find_x(names, options, file.path)
        y_name = find_y(names, options, file.path)
        x = root[x_name]
        if x.shape is None:
            raise DataError(f"{file.path}: the dataset {x_name!r} is empty")
        check_features(x.shape, x.dtype, file.path)
        x_shape, x_dtype = tuple(x.shape), x.dtype
        chunk_rows = x.chunks[0] if x.chunks else None
        row_bytes = x_dtype.itemsize * int(np.prod(x_shape[1:], dtype=np.int64))
        y_shape, y_dtype = None, None
        if y_name is not None:
            y_shape, y_dtype = _label_type(root[y_name], f"{file.path}: {y_name!r}")

    def read(rows: int, start: int, stop: int) -> Iterator[Rows]:
        step = rows_per_read(rows, chunk_rows, row_bytes)
        with reading(file.path, "HDF5"), ExitStack() as stack:
            root = _open(file, stack)
            x = root[x_name]
            y = None if y_name is None else root[y_name]
            if y is not None and y_dtype is not None and y_dtype.kind == "O":
                y = y.asstr()
            for first in range(start, stop, step):
                part = slice(first, min(first + step, stop))
                yield Rows(x[part], None if y is None else np.asarray(y[part]))

    grain = chunk_rows or 1
    return ArrayFile(file, x_shape, x_dtype, read, y_shape, y_dtype, grain_rows=grain)


def _open(file: SourceFile, stack: ExitStack) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            f'{file.path}: reading HDF5 needs h5py: pip install "zipml-ooc[hdf5]"'
        ) from error
    target = file.inner if file.local else stack.enter_context(file.open())
    return stack.enter_context(h5py.File(target, "r"))


def _dataset_names(root: Any, options: SourceOptions) -> list[str]:
    """All datasets; those that the options name also as they spell them, or through a link."""
    import h5py

    names: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    root.visititems(visit)
    asked = (options.x_name, options.y_name)
    names += [n for n in asked if n in root and isinstance(root[n], h5py.Dataset)]
    return list(dict.fromkeys(names))


def _label_type(y: Any, place: str) -> tuple[tuple[int, ...], Any]:
    import h5py

    if y.dtype.kind == "O" and h5py.check_string_dtype(y.dtype) is None:
        raise DataError(f"{place} holds objects that are not text; store numbers or text")
    if y.shape is None:
        raise DataError(f"{place} is empty")
    return tuple(y.shape), y.dtype
