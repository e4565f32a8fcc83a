"""npy, npz, HDF5 and Zarr: names, types, shapes, labels and what a user may get wrong."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from source_helpers import read_all

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources import SourceOptions, open_source
from zipml_ooc.sources.arrays import rows_per_read

X = np.arange(12.0).reshape(4, 3)
LABELS = np.array(["cat", "dog", "cat", "é"])


def write_npz(path, **arrays):
    np.savez(path, **arrays)


def write_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, data in arrays.items():
            if data.dtype.kind == "U":
                data = data.astype(object)
            file.create_dataset(name, data=data)


def write_zarr(path, **arrays):
    group = zarr.create_group(str(path))
    for name, data in arrays.items():
        group.create_array(name, data=data)


CONTAINERS = {".npz": write_npz, ".h5": write_hdf5, ".zarr": write_zarr}


@pytest.fixture(params=CONTAINERS)
def container(request, tmp_path):
    """Write named arrays in each format that holds several."""

    def write(stem="data", **arrays):
        path = tmp_path / f"{stem}{request.param}"
        CONTAINERS[request.param](path, **arrays)
        return str(path)

    return write


@pytest.fixture
def npy(tmp_path):
    def write(array, stem="data", **options):
        path = tmp_path / f"{stem}.npy"
        np.save(path, array, **options)
        return str(path)

    return write


def refuse(error, path, **options):
    with pytest.raises(error) as caught:
        paths = [path] if isinstance(path, str) else path
        list(open_source(paths, SourceOptions(**options)).blocks(3))
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["u1", "i8", "?", "f2", ">f4", "<f8", "u8"])
def test_real_numbers_of_every_type_are_read(npy, container, dtype):
    x = (X > 3).astype(dtype)
    for path in (npy(x), container(X=x)):
        np.testing.assert_array_equal(read_all(open_source([path]), 3)[0], x)


def test_big_integers_are_converted(npy):
    path = npy(np.array([[2**63 + 1, 2**53 + 1]], np.uint64))
    _, target = read_all(open_source([path], SourceOptions(target=(1,))), 1)
    assert target.tolist() == [2.0**53]


def test_npy_columns_keep_their_original_numbers(npy):
    source = open_source([npy(X)], SourceOptions(target=(0,)))
    assert (source.columns, source.targets) == (("c1", "c2"), ("c0",))
    source = open_source([npy(X)], SourceOptions(target=("-1", "c0")))
    assert (source.columns, source.targets) == (("c1",), ("c2", "c0"))
    features, target = read_all(source, 3)
    np.testing.assert_array_equal(features, X[:, [1]])
    np.testing.assert_array_equal(target, X[:, [2, 0]])
    source = open_source([npy(X)], SourceOptions(target=(1,)))
    np.testing.assert_array_equal(read_all(source, 3)[0], X[:, [0, 2]])


def test_npy_targets_out_of_range_are_refused(npy):
    assert "index 3 is out of range; the 3 columns" in refuse(UsageError, npy(X), target=(3,))
    assert "index -4" in refuse(UsageError, npy(X), target=("-4",))
    assert "no target column 'price'" in refuse(UsageError, npy(X), target=("price",))


def test_one_dimension_is_refused_with_a_remedy(npy, container):
    for path in (npy(X[0]), container(X=X[0])):
        assert "1-D array of shape (3,)" in refuse(DataError, path)
        assert "reshape a single column to (n, 1)" in refuse(DataError, path)


def test_complex_text_and_objects_are_refused(npy, container):
    for path in (npy(X.astype(complex)), container(X=X.astype(complex))):
        assert "complex" in refuse(DataError, path)
    for path in (npy(X.astype("U8")), container("text", X=X.astype("U8"))):
        assert "only numbers can be used" in refuse(DataError, path)
    assert "pickled objects are never loaded" in refuse(
        DataError, npy(X.astype(object), allow_pickle=True)
    )


def test_pickled_labels_are_never_loaded(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=X, y=LABELS.astype(object), allow_pickle=True)
    assert "never" in refuse(DataError, str(path))


def test_empty_arrays_are_refused(npy, container):
    for path in (npy(X[:0]), container(X=X[:0])):
        assert "no rows" in refuse(DataError, path)
    for path in (npy(X[:, :0]), container("narrow", X=X[:, :0])):
        assert "no feature column" in refuse(DataError, path)
    assert "besides the target" in refuse(DataError, npy(X[:, :1]), target=(0,))


def test_images_are_flattened(container):
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    source = open_source([container(X=images)])
    assert source.columns == tuple(f"c{i}" for i in range(6))
    np.testing.assert_array_equal(read_all(source, 3)[0], images.reshape(4, 6))


def test_text_labels_are_objects(container):
    source = open_source([container(X=X, y=LABELS)])
    assert source.targets == ("y",)
    _, target = read_all(source, 3)
    assert target.dtype == object
    assert target.tolist() == LABELS.tolist()
    assert all(type(value) is str for value in target)


def test_bytes_labels_are_decoded(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=X, y=np.array([b"a", b"b", b"a", "é".encode()]))
    assert read_all(open_source([str(path)]), 3)[1].tolist() == ["a", "b", "a", "é"]


def test_labels_in_another_encoding_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=X, y=np.array([b"a", b"b", b"a", b"\xff"]))
    assert "not UTF-8" in refuse(DataError, str(path))


def test_several_outputs_and_a_single_column_of_one(container):
    source = open_source([container("two", X=X, y=X[:, :2].astype("i4"))])
    assert source.targets == ("y0", "y1")
    np.testing.assert_array_equal(read_all(source, 3)[1], X[:, :2])
    source = open_source([container("one", X=X, y=X[:, :1])])
    assert source.targets == ("y",)
    np.testing.assert_array_equal(read_all(source, 3)[1], X[:, 0])


def test_arrays_go_by_other_names(container):
    path = container(images=X, labels=X[:, 0], spare=X)
    options = SourceOptions(x_name="images", y_name="labels", target=("labels",))
    source = open_source([path], options)
    assert source.targets == ("labels",)
    message = refuse(UsageError, path)
    assert "no array 'X'; its arrays are 'images', 'labels', 'spare'" in message
    message = refuse(UsageError, path, x_name="images", y_name="lables")
    assert "no target array 'lables'" in message


def test_the_only_array_needs_no_name(container):
    source = open_source([container(arr_0=X)])
    assert source.targets == ()
    np.testing.assert_array_equal(read_all(source, 3)[0], X)
    assert "no array 'X'" in refuse(UsageError, container("labels", y=X))


def test_a_target_array_leaves_no_other_target(container):
    path = container(X=X, y=X[:, 0])
    assert open_source([path], SourceOptions(target=("y",))).targets == ("y",)
    message = refuse(UsageError, path, target=(0,))
    assert "the target is the array 'y', so 0 cannot be another" in message
    options = SourceOptions(target=("price",), target_optional=True)
    assert open_source([path], options).targets == ("y",)


def test_without_target_array_a_column_may_be_the_target(container):
    path = container(X=X)
    assert open_source([path], SourceOptions(target=(0,))).columns == ("c1", "c2")
    assert "no target column 'y'" in refuse(UsageError, path, target=("y",))
    options = SourceOptions(target=("y",), y_name="y", target_optional=True)
    assert open_source([path], options).targets == ()


def test_targets_that_do_not_fit_are_refused(container):
    assert "has 3 rows, but the features have 4" in refuse(DataError, container(X=X, y=X[:3, 0]))
    assert "has the shape (4, 3, 1)" in refuse(DataError, container("d3", X=X, y=X[:, :, None]))
    assert "complex" in refuse(DataError, container("cx", X=X, y=X[:, 0].astype(complex)))


def test_unlike_files_are_refused(container):
    first = container("a", X=X, y=X[:, 0])
    other = [container("b", X=X[:, :2], y=X[:, 0]), container("c", X=X), container("d", X=X, y=X)]
    text = container("e", X=X, y=LABELS)
    assert "has 2 columns where" in refuse(UsageError, [first, other[0]])
    for path in (*other[1:], text):
        assert "its target array 'y' is not like that of" in refuse(UsageError, [first, path])


def test_a_model_takes_nameless_columns_by_position(npy):
    options = {"select": ("c1", "c2"), "target": (0,), "target_optional": True}
    source = open_source([npy(X[:, 1:])], SourceOptions(**options))
    assert (source.columns, source.targets) == (("c1", "c2"), ())
    np.testing.assert_array_equal(read_all(source, 3)[0], X[:, 1:])
    source = open_source([npy(X)], SourceOptions(**options))
    assert (source.columns, source.targets) == (("c1", "c2"), ("c0",))
    source = open_source([npy(X)], SourceOptions(select=("c2", "c0")))
    np.testing.assert_array_equal(read_all(source, 3)[0], X[:, [2, 0]])
    source = open_source([npy(X)], SourceOptions(select=("size", "age", "price")))
    assert source.columns == ("size", "age", "price")
    message = refuse(UsageError, npy(X), select=("c0", "c7"))
    assert "1 of the 2 feature columns needed are missing: 'c7'" in message


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_damaged_files_are_data_errors(tmp_path, suffix):
    path = tmp_path / f"bad{suffix}"
    for data in (b"", b"not such a file at all"):
        path.write_bytes(data)
        assert f"bad{suffix}: cannot be read as" in refuse(DataError, str(path))


def test_truncated_files_are_data_errors(tmp_path, npy):
    import fsspec

    path = npy(X)
    data = Path(path).read_bytes()[:-8]
    Path(path).write_bytes(data)
    assert "data.npy: cannot be read as" in refuse(DataError, path)
    fsspec.filesystem("memory").pipe("/cut/data.npy", data)
    assert "ends 8 bytes early" in refuse(DataError, "memory://cut/data.npy")


def test_damaged_zarr_is_a_data_error(tmp_path):
    path = tmp_path / "bad.zarr"
    path.mkdir()
    assert "bad.zarr: cannot be opened: No group found" in refuse(UsageError, str(path))
    (path / "zarr.json").write_text("{broken")
    assert "bad.zarr: cannot be read as Zarr" in refuse(DataError, str(path))


def test_hdf5_paths_reach_into_the_file(tmp_path):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["train/X"], file["train/y"] = X, np.array([b"a", b"b", b"c", b"d"])
        file["empty"] = h5py.Empty("f8")
    for x_name, y_name in [("train/X", "train/y"), ("/train/X", "/train/y")]:
        source = open_source([str(path)], SourceOptions(x_name=x_name, y_name=y_name))
        features, target = read_all(source, 3)
        np.testing.assert_array_equal(features, X)
        assert target.tolist() == ["a", "b", "c", "d"]
    assert "'train/X', 'train/y'" in refuse(UsageError, str(path), x_name="train")
    assert "'empty' is empty" in refuse(DataError, str(path), x_name="empty")


def test_zarr_single_arrays_zip_files_and_nested_groups(tmp_path):
    single = tmp_path / "single.zarr"
    zarr.create_array(str(single), data=X, chunks=(3, 2))
    np.testing.assert_array_equal(read_all(open_source([str(single)]), 2)[0], X)
    packed = tmp_path / "packed.zarr.zip"
    with zarr.storage.ZipStore(packed, mode="w") as store:
        zarr.create_group(store).create_array("X", data=X)
    np.testing.assert_array_equal(read_all(open_source([str(packed)]), 2)[0], X)
    nested = tmp_path / "plain-directory"
    zarr.create_group(str(nested)).create_group("train").create_array("X", data=X)
    source = open_source([str(nested)], SourceOptions(x_name="train/X"))
    np.testing.assert_array_equal(read_all(source, 2)[0], X)


def test_zarr_groups_with_damaged_attributes_of_ours_are_refused(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "d.zarr"))
    group.create_array("X", data=np.ones((4, 3)))
    for damaged in ({"columns": ["a", "b", "c"]}, {"version": "1.0", "complete": True}, "abc"):
        group.attrs["zipml"] = damaged
        assert "d.zarr" in refuse(DataError, str(tmp_path / "d.zarr"))


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "d.h5"
    write_hdf5(path, X=X)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert 'pip install "zipml-ooc[hdf5]"' in refuse(UsageError, str(path))


def test_reads_follow_the_stored_chunks_within_reason():
    assert rows_per_read(1000, None, 8) == 1000
    assert rows_per_read(1000, 300, 8) == 900
    assert rows_per_read(10, 300, 8) == 300
    assert rows_per_read(10, 10**9, 2**20) == 256
