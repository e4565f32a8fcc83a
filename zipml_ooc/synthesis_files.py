"""Files for blocks of (x, y) rows whose number is known beforehand: one small writer per format.

Each writer streams blocks to a temporary name in bounded memory; `publish` then gives the finished
file or directory its real name. This module is not for reading and not for other people's tables:
the columns are always x0, x1, ... and y.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zipml_ooc.errors import UsageError

__all__ = ["Shape", "check_destination", "find_writer", "publish", "remove", "size_bytes"]

Blocks = Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Shape:
    """What a writer has to know before the first block."""

    rows: int
    columns: int
    block_rows: int
    integer_target: bool  # tables write y as whole numbers


Writer = Callable[[Path, Blocks, Shape, dict[str, Any]], None]


def find_writer(dest: Path) -> tuple[str, Writer]:
    """The suffix of `dest`, as it is spelled there, and the writer for it."""
    name = dest.name.lower()
    for suffix, writer in _WRITERS.items():
        if name.endswith(suffix) and name != suffix:
            return dest.name[-len(suffix) :], writer
    raise UsageError(
        f"the name {dest.name!r} says no known format; end it with one of {', '.join(_WRITERS)}"
    )


def check_destination(path: Path, *, force: bool) -> None:
    """Refuse a place that cannot be written, or that holds something to be kept."""
    if not path.parent.is_dir():
        raise UsageError(f"the directory {path.parent} does not exist; create it first")
    if not os.path.lexists(path):
        return
    if not force:
        raise UsageError(f"{path} exists: choose another name or use --force")
    if path.is_dir():
        zarr = any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
        if path.suffix.lower() != ".zarr" or not (zarr or not any(path.iterdir())):
            raise UsageError(f"{path} is a directory of other things; choose another name")


def publish(temporary: Path, path: Path) -> None:
    """Give what is finished its name. A directory cannot be replaced: the old one steps aside."""
    if not os.path.lexists(path) or not (temporary.is_dir() or path.is_dir()):
        temporary.replace(path)
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    path.replace(aside)
    try:
        temporary.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    files = (f for f in path.rglob("*") if f.is_file()) if path.is_dir() else iter([path])
    return sum(f.stat().st_size for f in files)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file whose bytes are on the disk when the block ends."""
    with open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write_npy_header(file: IO[bytes], *shape: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _bytes(array: NDArray[np.float32]) -> bytes:
    return array.astype("<f4", copy=False).tobytes()


def _write_npy(path: Path, blocks: Blocks, shape: Shape, facts: dict[str, Any]) -> None:
    with _new_file(path) as file:
        _write_npy_header(file, shape.rows, shape.columns + 1)
        for x, y in blocks:
            file.write(_bytes(np.column_stack([x, y])))


def _write_npz(path: Path, blocks: Blocks, shape: Shape, facts: dict[str, Any]) -> None:
    """X goes straight into the archive; y, which comes with it, waits in an unnamed file."""

    def member(name: str) -> IO[bytes]:
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.create_system = 3  # Unix on every system: the same set, the same bytes
        info.external_attr = 0o644 << 16
        return archive.open(info, "w", force_zip64=True)

    with (
        _new_file(path) as file,
        tempfile.TemporaryFile(dir=path.parent) as target,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        with member("X.npy") as out:
            _write_npy_header(out, shape.rows, shape.columns)
            for x, y in blocks:
                out.write(_bytes(x))
                target.write(_bytes(y))
        target.seek(0)
        with member("y.npy") as out:
            _write_npy_header(out, shape.rows)
            shutil.copyfileobj(target, out)


def _arrow_schema(shape: Shape) -> Any:
    import pyarrow as pa

    fields = [pa.field(f"x{j}", pa.float32()) for j in range(shape.columns)]
    target = pa.int8() if shape.integer_target else pa.float32()
    return pa.schema([*fields, pa.field("y", target)])


def _arrow_batches(blocks: Blocks, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    for x, y in blocks:
        arrays = [pa.array(column) for column in np.ascontiguousarray(x.T)]
        arrays.append(pa.array(y).cast(schema.field("y").type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write_csv_to(file: IO[bytes] | gzip.GzipFile, blocks: Blocks, shape: Shape) -> None:
    from pyarrow import csv

    schema = _arrow_schema(shape)
    options = csv.WriteOptions(quoting_style="needed")
    with csv.CSVWriter(file, schema, write_options=options) as writer:
        for batch in _arrow_batches(blocks, schema):
            writer.write_batch(batch)


def _write_csv(path: Path, blocks: Blocks, shape: Shape, facts: dict[str, Any]) -> None:
    with _new_file(path) as file:
        _write_csv_to(file, blocks, shape)


def _write_csv_gz(path: Path, blocks: Blocks, shape: Shape, facts: dict[str, Any]) -> None:
    with (
        _new_file(path) as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        _write_csv_to(packed, blocks, shape)


def _write_parquet(path: Path, blocks: Blocks, shape: Shape, facts: dict[str, Any]) -> None:
    from pyarrow import parquet

    schema = _arrow_schema(shape)
    with (
        _new_file(path) as file,
        parquet.ParquetWriter(file, schema, use_dictionary=False) as writer,
    ):
        for batch in _arrow_batches(blocks, schema):
            writer.write_batch(batch)


def _write_zarr(path: Path, blocks: Blocks, shape: Shape, facts: dict[str, Any]) -> None:
    """Chunks are whole blocks, so that each is written once."""
    import zarr

    group = zarr.create_group(store=str(path), attributes={"zipml_synth": facts})
    length = min(shape.block_rows, shape.rows)
    common: dict[str, Any] = {
        "dtype": "float32",
        "compressors": None,
        "config": {"write_empty_chunks": True},  # a missing chunk always means damage
    }
    x_array = group.create_array(
        "X",
        shape=(shape.rows, shape.columns),
        chunks=(length, shape.columns),
        dimension_names=("row", "column"),
        **common,
    )
    y_array = group.create_array(
        "y", shape=(shape.rows,), chunks=(length,), dimension_names=("row",), **common
    )
    first = 0
    for x, y in blocks:
        x_array[first : first + len(y)] = x
        y_array[first : first + len(y)] = y
        first += len(y)


_WRITERS: dict[str, Writer] = {
    ".npz": _write_npz,
    ".npy": _write_npy,
    ".csv": _write_csv,
    ".csv.gz": _write_csv_gz,
    ".parquet": _write_parquet,
    ".zarr": _write_zarr,
}
