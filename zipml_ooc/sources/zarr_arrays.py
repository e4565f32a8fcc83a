"""Zarr arrays and groups, local, zipped or by URL, read by slices of rows.

A dataset that `compress` wrote is read in the units of its source: standardising is undone and
class codes become labels again. Other groups and single arrays have nameless columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from zipml_ooc.dataset_spec import ATTRIBUTE, DatasetSpec
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
        spec: DatasetSpec | None = None
        y: Any = None
        if isinstance(root, zarr.Array):
            x: Any = root
        else:
            arrays = _array_names(root, options)
            x = root[find_x(arrays, options, file.path)]
            y_name = find_y(arrays, options, file.path)
            y = None if y_name is None else root[y_name]
            ours = root.attrs.get(ATTRIBUTE)
            spec = None if ours is None else DatasetSpec.from_attributes(ours, file.path)
    x_dtype, x_shape = np.dtype(x.dtype), tuple(x.shape)
    check_features(x_shape, x_dtype, file.path)
    width = math.prod(x_shape[1:])
    if spec is not None and len(spec.columns) != width:
        raise DataError(
            f"{file.path}: the attributes name {len(spec.columns)} columns, "
            f"but the array has {width}"
        )
    labels = None if spec is None or spec.classes is None else np.array(spec.classes)
    if labels is not None and labels.dtype.kind == "U":
        labels = labels.astype(object)

    def read(rows: int, start: int, stop: int) -> Iterator[Rows]:
        step = rows_per_read(rows, x.chunks[0], width * x_dtype.itemsize)
        with reading(file.path, "Zarr"):
            for first in range(start, stop, step):
                part = slice(first, min(first + step, stop))
                features = np.asarray(x[part])
                target = None if y is None else np.asarray(y[part])
                if spec is not None:
                    features = features.astype(np.float64) * spec.scale + spec.mean
                if labels is not None and target is not None:
                    if not ((target >= 0) & (target < len(labels))).all():
                        raise DataError(
                            f"{file.path}: class codes are missing or damaged between rows "
                            f"{first} and {first + len(target)}"
                        )
                    target = labels[target]
                yield Rows(features, target)

    names = None if spec is None else spec.columns
    grain = (x.shards or x.chunks)[0]
    if y is None:
        return ArrayFile(file, x_shape, x_dtype, read, names=names, grain_rows=grain)
    y_dtype = y.dtype if y.dtype.kind == "T" else np.dtype(y.dtype)
    if labels is not None:
        y_dtype = labels.dtype
    targets = None if spec is None else spec.targets
    y_shape = tuple(y.shape)
    return ArrayFile(file, x_shape, x_dtype, read, y_shape, y_dtype, names, targets, grain)


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
