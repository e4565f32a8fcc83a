"""Every format yields the same rows whatever the block size and however many files there are."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file
from source_helpers import read_all

from zipml_ooc.sources import SourceOptions, delimited, open_source, svmlight

ROWS, WIDTH = 37, 4
RNG = np.random.default_rng(7)
X = np.round(RNG.normal(size=(ROWS, WIDTH)), 3)
X[:, 0] = 1.0  # svmlight: the index 0 occurs
Y = RNG.integers(0, 3, ROWS).astype(float)


def write_csv(path, x, y):
    lines = ["a,b,c,d,target"]
    lines += [
        ",".join(map(repr, [*map(float, row), float(v)])) for row, v in zip(x, y, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path, x, y):
    columns = {name: x[:, i] for i, name in enumerate("abcd")} | {"target": y}
    pq.write_table(pa.table(columns), path, row_group_size=5)


def write_npy(path, x, y):
    np.save(path, np.column_stack([x, y]))


def write_npy_fortran(path, x, y):
    np.save(path, np.asfortranarray(np.column_stack([x, y])))


def write_npz(path, x, y):
    np.savez_compressed(path, X=x, y=y)


def write_npz_fortran(path, x, y):
    np.savez(path, X=np.asfortranarray(x), y=y)


def write_svmlight(path, x, y):
    dump_svmlight_file(x, y, str(path), zero_based=True)


def write_hdf5(path, x, y):
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=x, chunks=(min(5, len(x)), 2))
        file.create_dataset("y", data=y)


def write_zarr(path, x, y):
    group = zarr.create_group(str(path))
    group.create_array("X", data=x, chunks=(min(5, len(x)), 2))
    group.create_array("y", data=y)


FORMATS = {
    "csv": (write_csv, ".csv", ("target",)),
    "parquet": (write_parquet, ".parquet", ("target",)),
    "npy": (write_npy, ".npy", (-1,)),
    "npy-fortran": (write_npy_fortran, ".npy", ("-1",)),
    "npz": (write_npz, ".npz", ()),
    "npz-fortran": (write_npz_fortran, ".npz", ("y",)),
    "svmlight": (write_svmlight, ".svm", ()),
    "hdf5": (write_hdf5, ".h5", ()),
    "zarr": (write_zarr, ".zarr", ()),
}
each_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Per format, the data as one file and as three."""
    root = tmp_path_factory.mktemp("formats")
    made = {}
    for name, (write, suffix, target) in FORMATS.items():
        whole = root / f"{name}-all{suffix}"
        write(whole, X, Y)
        parts = []
        for i, (start, stop) in enumerate([(0, 5), (5, 6), (6, ROWS)]):
            parts.append(root / f"{name}-part{i}{suffix}")
            write(parts[-1], X[start:stop], Y[start:stop])
        made[name] = ([str(whole)], [str(p) for p in parts], SourceOptions(target=target))
    return made


@each_format
@given(rows=st.integers(1, ROWS + 5), several=st.booleans())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_block_size_and_any_split_into_files_yields_the_same_rows(files, name, rows, several):
    whole, parts, options = files[name]
    source = open_source(parts if several else whole, options)
    features, target = read_all(source, rows)
    np.testing.assert_array_equal(features, X)
    np.testing.assert_array_equal(target, Y)


@each_format
def test_a_source_can_be_read_again_and_halfway(files, name):
    source = open_source(files[name][0], files[name][2])
    next(iter(source.blocks(3)))
    first, _ = read_all(source, 10)
    again, _ = read_all(source, 11)
    np.testing.assert_array_equal(first, again)


@each_format
def test_the_fingerprint_fits_json_and_depends_on_the_columns(files, name):
    source = open_source(files[name][1], files[name][2])
    fingerprint = json.loads(json.dumps(source.fingerprint()))
    assert fingerprint["paths"] == files[name][1] == list(source.paths)
    assert all(size > 0 for size in fingerprint["bytes"])
    assert len(fingerprint["columns_sha256"]) == 64


@each_format
def test_a_url_reads_like_a_local_file(files, name):
    whole, _, options = files[name]
    remote = f"memory://formats/{whole[0].rsplit('/', 1)[-1]}"
    fsspec.filesystem("memory").put(whole[0], remote, recursive=True)
    for url in (remote, f"file://{whole[0]}"):
        features, target = read_all(open_source([url], options), 8)
        np.testing.assert_array_equal(features, X)
        np.testing.assert_array_equal(target, Y)


@each_format
def test_a_glob_takes_the_files_in_order(files, name):
    _, parts, options = files[name]
    pattern = parts[0].replace("part0", "part*")
    source = open_source([pattern], options)
    assert list(source.paths) == parts
    np.testing.assert_array_equal(read_all(source, 6)[0], X)


@pytest.mark.parametrize("name", ["csv", "svmlight"])
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("remote", [False, True])
def test_compressed_text_is_read_in_place(files, tmp_path, name, suffix, remote):
    data = Path(files[name][0][0]).read_bytes()
    packed = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda b: pa.compress(b, "zstd", asbytes=True),
    }[suffix](data)
    path = tmp_path / f"data{FORMATS[name][1]}{suffix}"
    path.write_bytes(packed)
    url = str(path)
    if remote:
        url = f"memory://compressed/{path.name}"
        fsspec.filesystem("memory").pipe(url, packed)
    features, target = read_all(open_source([url], files[name][2]), 9)
    np.testing.assert_array_equal(features, X)
    np.testing.assert_array_equal(target, Y)


@pytest.mark.parametrize("name", ["csv", "svmlight"])
def test_small_reads_change_nothing(files, name, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    monkeypatch.setattr(svmlight, "CHUNK_BYTES", 7)
    for paths in files[name][:2]:
        features, target = read_all(open_source(paths, files[name][2]), 8)
        np.testing.assert_array_equal(features, X)
        np.testing.assert_array_equal(target, Y)


def test_importing_the_package_brings_in_no_reader():
    import subprocess
    import sys

    code = (
        "import sys, zipml_ooc.sources\n"
        "heavy = {'pyarrow', 'h5py', 'sklearn', 'zarr', 'fsspec'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
