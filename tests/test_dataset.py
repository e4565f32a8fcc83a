"""A dataset on disk: who can read it, what is noticed when it is damaged, and it as a source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from tables import classes_npz, compressed, regression_npz, write_csv

from zipml_ooc import (
    DataError,
    TrainOptions,
    UsageError,
    evaluate,
    open_dataset,
    train,
)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_dask_and_xarray_read_the_dataset(tmp_path: Path, zarr_format: int) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=300)
    arrays = dict(np.load(source))
    arrays["X"][:, 3] = 7.0  # constant: stored as 0, which must not read as missing
    np.savez(source, **arrays)
    compressed(source, tmp_path / "d", zarr_format=zarr_format, chunk_rows=128)
    script = f"""
import sys, warnings, dask.array, xarray, zarr
warnings.simplefilter("error", RuntimeWarning)
path = {str(tmp_path / "d")!r}
plain = zarr.open_group(path, mode="r")["X"][:]
assert plain.shape == (300, 10) and plain.dtype == "f4"
assert (dask.array.from_zarr(path, component="X").compute() == plain).all()
data = xarray.open_zarr(path)
assert data["X"].dims == ("row", "column") and data["y"].dims == ("row",)
assert data["X"].dtype == "f4" and data["y"].dtype == "f8"
assert (data["X"].values == plain).all()
assert not [m for m in sys.modules if m.split(".")[0] in ("zipml_ooc", "zipml_cli")]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_both_zarr_formats_hold_the_same_chunks(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=300)
    two, three = (compressed(source, tmp_path / f"{f}", zarr_format=f) for f in (2, 3))
    assert two.zarr_format == 2
    assert two.chunk_key(0) == "X/0.0" and three.chunk_key(0) == "X/c/0/0"
    assert two.read_chunk(0).codes.tobytes() == three.read_chunk(0).codes.tobytes()


def test_chunks_carry_their_position_and_edge_chunks_store_no_padding(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=300)
    dataset = compressed(source, tmp_path / "d", chunk_rows=100)
    assert dataset.spec.chunk_rows == 128  # whole tiles
    chunks = [dataset.read_chunk(i) for i in range(3)]
    assert [c.header.first_tile for c in chunks] == [0, 2, 4]
    assert [c.header.rows for c in chunks] == [128, 128, 44]
    assert chunks[2].header.shape == (128, 10)
    sizes = [(tmp_path / "d" / dataset.chunk_key(i)).stat().st_size for i in range(3)]
    assert sizes[2] < sizes[0]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "foreign", "empty"])
def test_a_damaged_chunk_is_named(tmp_path: Path, damage: str) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=300)
    dataset = compressed(source, tmp_path / "d", chunk_rows=128)
    path = tmp_path / "d" / "X" / "c" / "1" / "0"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        path.write_bytes((path.parent.parent / "0" / "0").read_bytes())
    else:
        cut = {"truncated": data[:-9], "empty": b"", "flipped": data}[damage]
        data[len(data) // 2] ^= 4
        path.write_bytes(cut)
    with pytest.raises(DataError, match=r"chunk X/c/1/0 of .*zipml repair"):
        dataset.read_chunk(1)
    dataset.read_chunk(0)


def test_what_is_no_whole_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dataset at"):
        open_dataset(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no Zarr group"):
        open_dataset(tmp_path / "folder")
    zarr.create_group(tmp_path / "plain")
    with pytest.raises(DataError, match="no dataset made by"):
        open_dataset(tmp_path / "plain")
    source = regression_npz(tmp_path / "t.npz")
    compressed(source, tmp_path / "d")
    metadata = tmp_path / "d" / "zarr.json"
    whole = json.loads(metadata.read_text())
    for change, message in (
        ({"version": "2.0"}, "update zipml-ooc"),
        ({"complete": False}, "not complete"),
        ({"rows": None}, "damaged"),
        ({"mean": [1.0]}, "lengths do not match"),
        ({"chunk_rows": 0}, "chunk rows 0"),
        ({"variance": [float("nan")] * 10}, "not finite"),
    ):
        attributes = whole["attributes"]["zipml"] | change
        metadata.write_text(json.dumps(whole | {"attributes": {"zipml": attributes}}))
        with pytest.raises(DataError, match=message):
            open_dataset(tmp_path / "d")


def test_a_compressed_dataset_is_a_source_in_its_original_units(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    first = compressed(source, tmp_path / "d", bits=8)
    again = compressed(tmp_path / "d", tmp_path / "e", bits=4)
    assert again.spec.columns == first.spec.columns
    np.testing.assert_allclose(again.spec.mean, first.spec.mean, rtol=0.01)
    np.testing.assert_allclose(again.spec.scale, first.spec.scale, rtol=0.01)
    values = da.from_zarr(str(tmp_path / "e"), component="X").compute()
    assert np.abs(values.std(axis=0) - 1).max() < 0.2
    assert evaluate(train(again).model, source)["r2"] > 0.9


def test_classes_of_a_compressed_source_keep_their_labels(tmp_path: Path) -> None:
    for name, labels in (("text", ["yes", "no"]), ("bool", [True, False]), ("int", [7, 3])):
        np.savez(tmp_path / f"{name}.npz", X=np.eye(2).repeat(50, 0), y=np.repeat(labels, 50))
        first = compressed(tmp_path / f"{name}.npz", tmp_path / name)
        again = compressed(tmp_path / name, tmp_path / f"{name}2")
        assert again.spec.classes == first.spec.classes == tuple(sorted(labels))
        assert [type(c) for c in again.spec.classes] == [type(c) for c in sorted(labels)]


def test_a_compressed_source_keeps_its_target_names_and_misses_lost_classes(tmp_path: Path) -> None:
    rows = 300
    source = write_csv(
        tmp_path / "t.csv", {"x": range(rows), "kind": ["a" if i % 7 else "b" for i in range(rows)]}
    )
    compressed(source, tmp_path / "d", ("kind",), chunk_rows=64)
    again = compressed(tmp_path / "d", tmp_path / "e")
    assert again.spec.targets == ("kind",)
    assert evaluate(train(again, TrainOptions(epochs=1)).model, source)["rows"] == rows
    (tmp_path / "d" / "y" / "c" / "2").unlink()
    with pytest.raises(DataError, match="class codes are missing or damaged"):
        compressed(tmp_path / "d", tmp_path / "f")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("array", ["y", "sample_weight"])
def test_a_flip_in_targets_or_weights_is_noticed(
    tmp_path: Path, zarr_format: int, array: str
) -> None:
    table = dict(np.load(regression_npz(tmp_path / "t.npz", rows=300)))
    table["w"] = np.random.default_rng(0).random(300)
    names = [f"x{j}" for j in range(10)]
    source = write_csv(
        tmp_path / "t.csv",
        {**dict(zip(names, table["X"].T, strict=True)), "y": table["y"], "w": table["w"]},
    )
    dataset = compressed(
        source, tmp_path / "d", ("y",), chunk_rows=128, weight="w", zarr_format=zarr_format
    )
    read = {"y": dataset.read_target, "sample_weight": dataset.read_weight}[array]
    right = read(128, 256)
    path = tmp_path / "d" / array / ("c/1" if zarr_format == 3 else "1")
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            np.testing.assert_array_equal(read(128, 256), right)
        except DataError as error:
            assert array in str(error) or "weights" in str(error)
        else:  # zstd has bits that mean nothing, such as how much memory decoding may take
            assert zarr_format == 2


def test_targets_that_went_missing_are_noticed(tmp_path: Path) -> None:
    for make in (regression_npz, classes_npz):
        dataset = compressed(make(tmp_path / "t.npz"), tmp_path / make.__name__)
        shutil.rmtree(tmp_path / make.__name__ / "y" / "c")
        with pytest.raises(DataError, match=r"chunk y/c/0 of .* is missing"):
            train(dataset)


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**40]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**70]}}},
        {"shape": [100]},
    ],
)
def test_metadata_of_targets_that_are_not_those_of_the_rows_are_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Before anything is allocated for what they claim."""
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=600), tmp_path / "d")
    assert dataset.read_target(0, 600).shape == (600, 1)
    group = json.loads((tmp_path / "d" / "zarr.json").read_text())
    group["consolidated_metadata"]["metadata"]["y"] |= change
    (tmp_path / "d" / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(DataError, match="lacks its array y or its metadata are damaged"):
        open_dataset(tmp_path / "d").read_target(0, 64)
