"""Files of predictions, written row block by row block and renamed when they are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import DataError, UsageError
from .losses import probabilities
from .model import LinearModel
from .umask import masked

__all__ = ["FORMATS", "open_writer"]

FORMATS = (".csv", ".parquet", ".npy")
Write = Callable[[npt.NDArray[np.float64]], None]
"""Takes raw columns (rows, d) and writes the predictions of these rows."""


@contextmanager
def open_writer(path: Path, model: LinearModel, *, force: bool) -> Iterator[Write]:
    """Open a file for predictions; it appears under its name only if the block ends well.

    Raises
    ------
    UsageError
        Unknown suffix, or the file exists.
    DataError
        It cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"predictions go to {', '.join(FORMATS)} files, got {str(path)!r}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: choose another name or use --force")
    if path.is_dir():
        raise UsageError(f"{path} is a folder")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder {path.absolute().parent} does not exist")
    opener = _open_npy if path.suffix == ".npy" else _open_table
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        with os.fdopen(handle, "wb") as file, opener(file, path.suffix, model) as write:
            yield write
        Path(temporary).chmod(masked(0o666))
        Path(temporary).replace(path)
    except OSError as error:
        raise DataError(
            f"writing {path} failed: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@contextmanager
def _open_npy(file: BinaryIO, suffix: str, model: LinearModel) -> Iterator[Write]:
    outputs = len(model.targets)  # of a classifier there is one
    # NumPy pads the header so that the number of rows can grow in place.
    empty = model.predict(np.zeros((1, len(model.columns))))[:0]
    if model.classes is not None:
        empty = np.array(list(model.classes))[:0]
    shape = (outputs,) if outputs > 1 else ()
    _write_npy_header(file, empty.dtype, (0, *shape))
    start, rows = file.tell(), 0

    def write(values: npt.NDArray[np.float64]) -> None:
        nonlocal rows
        predicted = np.ascontiguousarray(model.predict(values).astype(empty.dtype))
        file.write(predicted.data)
        rows += len(predicted)

    yield write
    file.seek(0)
    _write_npy_header(file, empty.dtype, (rows, *shape))
    assert file.tell() == start


def _write_npy_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        file, {"descr": description, "fortran_order": False, "shape": shape}
    )


@contextmanager
def _open_table(file: BinaryIO, suffix: str, model: LinearModel) -> Iterator[Write]:
    import pyarrow as pa

    def table(values: npt.NDArray[np.float64]) -> pa.Table:
        margins = model.decision_function(values)
        predicted = model.from_margins(margins)
        if model.classes is None:
            parts = predicted.reshape(len(values), -1)
            columns = {name: pa.array(parts[:, i]) for i, name in enumerate(model.targets)}
        else:
            columns = {model.targets[0]: pa.array(predicted.tolist())}
            if model.probabilistic:
                shares = probabilities(model.loss, margins)
                first = 1 if len(model.classes) == 2 else 0
                for k, label in enumerate(model.classes[first:], first):
                    columns[f"probability_{label}"] = pa.array(shares[:, k])
        return pa.table(columns)

    schema = table(np.zeros((1, len(model.columns)))).schema
    writer: Any
    if suffix == ".csv":
        import pyarrow.csv

        writer = pyarrow.csv.CSVWriter(file, schema)
    else:
        import pyarrow.parquet

        writer = pyarrow.parquet.ParquetWriter(file, schema)
    with writer:
        yield lambda values: writer.write_table(table(values).cast(schema))
