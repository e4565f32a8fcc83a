"""Any range of rows of any source is what reading from the start gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from tables import compressed, write_csv

from zipml_ooc.sources import SourceOptions, open_source
from zipml_ooc.sources.weights import WeightedSource

ROWS = 500
RANDOM = {
    "npy",
    "fortran",
    "remote npy",
    "two npy",
    "hdf5",
    "zarr",
    "shards",
    "parquet",
    "weighted",
}
ORDERED = {"npz", "csv", "two csv", "svmlight", "remote fortran"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    h5py = pytest.importorskip("h5py")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    import fsspec

    folder = tmp_path_factory.mktemp("ranges")
    x = np.arange(ROWS * 3).reshape(ROWS, 3).astype("f8")
    y = np.arange(ROWS) * 0.5
    table = np.column_stack([x, y])
    np.save(folder / "a.npy", table)
    np.save(folder / "f.npy", np.asfortranarray(table))
    np.save(folder / "1.npy", table[:123])
    np.save(folder / "2.npy", table[123:])
    np.savez(folder / "a.npz", X=x, y=y)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "a.npy"), "/ranges/a.npy")
    memory.put(str(folder / "f.npy"), "/ranges/f.npy")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("X", data=x, chunks=(64, 3))
        file.create_dataset("y", data=y)
    group = zarr.create_group(folder / "a.zarr")
    group.create_array("X", data=x, chunks=(70, 3))
    group.create_array("y", data=y)
    columns = {"c0": x[:, 0], "c1": x[:, 1], "c2": x[:, 2], "y": y}
    write_csv(folder / "a.csv", columns)
    write_csv(folder / "1.csv", {name: column[:200] for name, column in columns.items()})
    write_csv(folder / "2.csv", {name: column[200:] for name, column in columns.items()})
    compressed(folder / "a.csv", folder / "s.zarr", ("y",), chunk_rows=64, shard_rows=128)
    parquet.write_table(pa.table(columns), folder / "a.parquet", row_group_size=90)
    lines = [f"{b} " + " ".join(f"{i + 1}:{v}" for i, v in enumerate(a)) for a, b in zip(x, y)]  # noqa: B905
    (folder / "a.svm").write_text("\n".join(lines) + "\n")
    return folder


def source(folder: Path, kind: str):  # type: ignore[no-untyped-def]
    names = {
        "npy": ["a.npy"], "fortran": ["f.npy"], "two npy": ["1.npy", "2.npy"], "hdf5": ["a.h5"],
        "zarr": ["a.zarr"], "shards": ["s.zarr"], "parquet": ["a.parquet"], "npz": ["a.npz"],
        "csv": ["a.csv"], "two csv": ["1.csv", "2.csv"], "svmlight": ["a.svm"],
        "weighted": ["a.parquet"], "remote npy": ["memory://ranges/a.npy"],
        "remote fortran": ["memory://ranges/f.npy"],
    }  # fmt: skip
    paths = [name if "://" in name else str(folder / name) for name in names[kind]]
    target: tuple[str | int, ...] = ()
    if "npy" in kind or "fortran" in kind:
        target = (-1,)
    elif "csv" in kind or kind in ("parquet", "weighted"):
        target = ("y",)
    found = open_source(paths, SourceOptions(target=target))
    return WeightedSource(found, "c1") if kind == "weighted" else found


def rows_of(blocks) -> list[tuple[int, list[float], float, float | None]]:  # type: ignore[no-untyped-def]
    out = []
    for block in blocks:
        features = block.features
        if not isinstance(features, np.ndarray):
            features = np.column_stack([c.to_numpy(zero_copy_only=False) for c in features.columns])
        for i in range(block.rows):
            weight = None if block.weight is None else float(block.weight[i])
            out.append((block.first_row + i, features[i].tolist(), float(block.target[i]), weight))
    return out


@pytest.mark.parametrize("kind", sorted(RANDOM | ORDERED))
def test_a_range_of_rows_is_a_part_of_the_whole(folder: Path, kind: str) -> None:
    opened = source(folder, kind)
    every = rows_of(opened.blocks(77))
    assert [row[0] for row in every] == list(range(ROWS))
    assert (opened.row_access is not None) == (kind in RANDOM)
    if opened.row_access is not None:
        assert opened.row_access.rows == ROWS
    for start, stop in [(0, 500), (0, 1), (499, 500), (90, 180), (89, 91), (123, 124), (200, 450),
                        (64, 300), (250, None), (500, None)]:  # fmt: skip
        for size in (50, 77, 1000):
            blocks = list(opened.blocks(size, start, stop))
            assert rows_of(blocks) == every[start:stop], (start, stop)
            assert all(block.rows == size for block in blocks[:-1])
