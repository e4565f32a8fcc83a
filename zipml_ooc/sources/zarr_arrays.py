"""Zarr arrays and groups, local, zipped or by URL, read by slices of rows.

A group that zipml wrote carries the names of its columns in its attributes; other groups and
single arrays have nameless columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from zipml_ooc.errors import DataError
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


def describe_zarr(file: SourceFile, options: SourceOptions) -> ArrayFile:
    """A Zarr group with the arrays X and perhaps y, or a single array."""
    import zarr

    with reading(file.path, "Zarr"):
        root = _open(file)
        names: tuple[str, ...] | None = None
        y: Any = None
        if isinstance(root, zarr.Array):
            x: Any = root
        else:
            arrays = _array_names(root, options)
            x = root[find_x(arrays, options, file.path)]
            y_name = find_y(arrays, options, file.path)
            y = None if y_name is None else root[y_name]
            names = _stored_names(root, file.path)
    x_dtype, x_shape = np.dtype(x.dtype), tuple(x.shape)
    check_features(x_shape, x_dtype, file.path)
    width = math.prod(x_shape[1:])
    if names is not None and len(names) != width:
        raise DataError(
            f"{file.path}: the attributes name {len(names)} columns, but the array has {width}"
        )

    def read(rows: int) -> Iterator[Rows]:
        step = rows_per_read(rows, x.chunks[0], width * x_dtype.itemsize)
        with reading(file.path, "Zarr"):
            for start in range(0, x_shape[0], step):
                part = slice(start, start + step)
                yield Rows(np.asarray(x[part]), None if y is None else np.asarray(y[part]))

    if y is None:
        return ArrayFile(file, x_shape, x_dtype, read, names=names)
    y_dtype = y.dtype if y.dtype.kind == "T" else np.dtype(y.dtype)
    return ArrayFile(file, x_shape, x_dtype, read, tuple(y.shape), y_dtype, names)


def _open(file: SourceFile) -> Any:
    import zarr

    if not file.local:
        store: Any = zarr.storage.FsspecStore.from_url(file.path, read_only=True)
    elif file.inner.lower().endswith(".zip"):
        store = zarr.storage.ZipStore(file.inner, mode="r")
    else:
        store = file.inner
    return zarr.open(store, mode="r")


def _array_names(root: Any, options: SourceOptions) -> list[str]:
    """The arrays at the top, and those that the options name by a path inside the group."""
    import zarr

    names = [str(name) for name in root.array_keys()]
    deeper = [path for path in (options.x_name, options.y_name) if "/" in path]
    return names + [p for p in deeper if p in root and isinstance(root[p], zarr.Array)]


def _stored_names(root: Any, place: str) -> tuple[str, ...] | None:
    ours = root.attrs.get("zipml")
    names = ours.get("columns") if isinstance(ours, dict) else None
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{place}: the attribute zipml.columns is not a list of names")
    return tuple(names)
