"""NumPy's own files: .npy, memory-mapped or streamed, and .npz, streamed member by member.

Nothing is ever unpickled. An array in Fortran order cannot be streamed by rows: a local .npy file
is memory-mapped all the same, but a remote one or a member of an .npz file is loaded whole.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from zipml_ooc.errors import DataError
from zipml_ooc.sources.arrays import ArrayFile, Rows, check_features, find_x, find_y
from zipml_ooc.sources.base import Array, SourceOptions, reading
from zipml_ooc.sources.files import SourceFile


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: Any


def describe_npy(file: SourceFile, options: SourceOptions) -> ArrayFile:
    """A .npy file: one array that holds the features and, by index, the targets."""
    with reading(file.path, ".npy"), file.open() as stream:
        header = _read_header(stream)
    check_features(header.shape, header.dtype, file.path)

    def read(rows: int, start: int, stop: int) -> Iterator[Rows]:
        with reading(file.path, ".npy"):
            if file.local and 0 not in header.shape:
                mapped = np.load(file.inner, mmap_mode="r", allow_pickle=False)
                for first in range(start, stop, rows):
                    yield Rows(np.asarray(mapped[first : min(first + rows, stop)]), None)
                return
            with file.open() as stream:
                for x in _stream(stream, rows, start, stop):
                    yield Rows(x, None)

    whole = header.fortran and not file.local  # loaded anew for each range
    return ArrayFile(file, header.shape, header.dtype, read, grain_rows=None if whole else 1)


def describe_npz(file: SourceFile, options: SourceOptions) -> ArrayFile:
    """A .npz file with the arrays X and perhaps y."""
    with reading(file.path, ".npz"), file.open() as raw, zipfile.ZipFile(raw) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        x_name = find_x(names, options, file.path)
        y_name = find_y(names, options, file.path)
        with archive.open(f"{x_name}.npy") as member:
            x = _read_header(member)
        y = None
        if y_name is not None:
            with archive.open(f"{y_name}.npy") as member:
                y = _read_header(member)
            if y.dtype.hasobject:
                raise DataError(
                    f"{file.path}: the array {y_name!r} holds pickled objects, which are never "
                    "loaded; store numbers or text, for example with astype(str)"
                )
    check_features(x.shape, x.dtype, file.path)

    def read(rows: int, start: int, stop: int) -> Iterator[Rows]:
        with reading(file.path, ".npz"), ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(file.open())))
            member = stack.enter_context(archive.open(f"{x_name}.npy"))
            features = _stream(member, rows, start, stop)
            if y_name is None:
                for part in features:
                    yield Rows(part, None)
                return
            member = stack.enter_context(archive.open(f"{y_name}.npy"))
            labels = _stream(member, rows, start, stop)
            for part, some_labels in zip(features, labels, strict=True):
                yield Rows(part, some_labels)

    if y is None:
        return ArrayFile(file, x.shape, x.dtype, read)
    return ArrayFile(file, x.shape, x.dtype, read, y.shape, y.dtype)


def _read_header(stream: Any) -> _Header:
    version = np.lib.format.read_magic(stream)
    # Version 3 differs from 2 only in the names of structured types, which are refused anyway.
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    return _Header(shape, fortran, dtype)


def _stream(stream: Any, rows: int, start: int, stop: int) -> Iterator[Array]:
    """A range of rows of the array in a stream that stands at its start."""
    header = _read_header(stream)
    count, tail = header.shape[0], header.shape[1:]
    row_bytes = math.prod(tail) * header.dtype.itemsize
    if header.fortran:
        data = _read_exactly(stream, count * row_bytes)
        whole = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
        for first in range(start, stop, rows):
            yield whole[first : min(first + rows, stop)]
        return
    if start:
        stream.seek(start * row_bytes, os.SEEK_CUR)
    for first in range(start, stop, rows):
        now = min(rows, stop - first)
        data = _read_exactly(stream, now * row_bytes)
        yield np.frombuffer(data, header.dtype).reshape(now, *tail)


def _read_exactly(stream: Any, size: int) -> bytes:
    parts: list[bytes] = []
    left = size
    while left:
        part: bytes = stream.read(left)
        if not part:
            raise EOFError(f"the array ends {left} bytes early; the file is truncated")
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
