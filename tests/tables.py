"""Small tables that the tests make themselves, and helpers around datasets."""

from __future__ import annotations

import gzip
import shutil
import warnings
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

from zipml_ooc import CompressOptions, Dataset, SourceOptions, compress


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    """Write columns of equal length, header first."""
    names = list(columns)
    rows = zip(*(np.asarray(columns[name]).tolist() for name in names), strict=True)
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def regression_npz(path: Path, rows: int = 2000, columns: int = 10, seed: int = 0) -> Path:
    """A table of correlated, shifted and scaled columns with a linear target."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(columns) + 0.3 * rng.standard_normal((columns, columns)) / np.sqrt(columns)
    x = rng.standard_normal((rows, columns)) @ mixing
    y = x @ rng.standard_normal(columns) + 0.5 * rng.standard_normal(rows) + 3
    scales = 10.0 ** rng.uniform(-2, 2, columns)
    np.savez(path, X=x * scales + 5 * scales, y=y)
    return path


def classes_npz(path: Path, rows: int = 2000, columns: int = 8, seed: int = 0) -> Path:
    """Two classes from a logistic model."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns))
    margin = 2 * x @ rng.standard_normal(columns) + 0.5
    y = rng.random(rows) < 1 / (1 + np.exp(-margin))
    np.savez(path, X=x, y=np.where(y, "yes", "no"))
    return path


def compressed(
    source: Path, dest: Path, target: tuple[str | int, ...] = (), **options: Any
) -> Dataset:
    """Compress with options given by name."""
    return compress(
        source, dest, CompressOptions(**options), source_options=SourceOptions(target=target)
    )


def sharded(
    dataset: Dataset, dest: Path, chunks: int, *, index: str = "end", left_out: tuple[int, ...] = ()
) -> Path:
    """Copy a dataset, its chunks of X put into shards of `chunks` each, last one first."""
    spec, place = dataset.spec, Path(dataset.path)
    shutil.copytree(place, dest)
    shutil.rmtree(dest / "X")
    group = zarr.open_group(dest, mode="r+")
    array = group.create_array(
        "X",
        shape=(spec.rows, len(spec.columns)),
        chunks=(spec.chunk_rows, len(spec.columns)),
        shards={
            "shape": (chunks * spec.chunk_rows, len(spec.columns)),
            "index_location": index,
        },
        dtype="f4",
        fill_value=np.nan,
        serializer={"name": "zipml.quantize", "configuration": spec.quantizer.to_dict()},
        compressors=[{"name": "crc32c"}],
    )
    for first in range(0, spec.chunks, chunks):
        table = np.full((chunks, 2), 2**64 - 1, "<u8")
        body, start = b"", 0 if index == "end" else table.nbytes + 4
        for number in reversed(range(first, min(first + chunks, spec.chunks))):
            if number not in left_out:
                stored = (place / dataset.chunk_key(number)).read_bytes()
                table[number - first] = start + len(body), len(stored)
                body += stored
        head = table.tobytes()
        head += google_crc32c.value(head).to_bytes(4, "little")
        path = dest / "X" / array.metadata.encode_chunk_key((first // chunks, 0))
        path.parent.mkdir(parents=True)
        path.write_bytes(body + head if index == "end" else head + body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(dest)
    return dest


def tree_bytes(path: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def least_squares_loss(x: np.ndarray, y: np.ndarray) -> float:
    """Smallest half mean squared error of a linear model with intercept."""
    centred = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    design = np.column_stack([centred, np.ones(len(x))])
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    return 0.5 * float(np.mean((design @ coefficients - y) ** 2))


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", ndim, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape.astype(int))
