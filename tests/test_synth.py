"""Synthetic sets depend on the seed alone, follow the stated law, and reach the disk whole."""

from __future__ import annotations

import gzip
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from zipml_ooc import synthesis_files
from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.synthesis import _FEATURES, _NOISE, _Recipe, synth, synth_blocks

SUFFIXES = (".npz", ".npy", ".csv", ".csv.gz", ".parquet", ".zarr")
KINDS = ("regression", "classification")


def whole(kind, rows, columns, **options):
    blocks = list(synth_blocks(kind, rows, columns, **options))
    return np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks])


def read(path: Path):
    """X and y by readers that know nothing of this project."""
    name = path.name
    if name.endswith(".npz"):
        with np.load(path, allow_pickle=False) as archive:
            return archive["X"], archive["y"]
    if name.endswith(".zarr"):
        group = zarr.open_group(path, mode="r")
        return group["X"][:], group["y"][:]
    if name.endswith(".npy"):
        table = np.load(path, allow_pickle=False)
    else:
        arrow = parquet.read_table(path) if name.endswith(".parquet") else csv.read_csv(path)
        assert arrow.column_names == [*(f"x{j}" for j in range(arrow.num_columns - 1)), "y"]
        table = np.column_stack([column.to_numpy() for column in arrow.columns])
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.float32)


# ------------------------------------------------------------------ the values


@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 2600),
    columns=st.integers(1, 4),
    block_rows=st.integers(1, 3000),
    seed=st.integers(0, 2**70),
)
@settings(max_examples=40, deadline=None)
def test_block_rows_and_later_rows_do_not_change_the_values(kind, rows, columns, block_rows, seed):
    x, y = whole(kind, rows, columns, seed=seed, block_rows=block_rows)
    assert x.shape == (rows, columns) and y.shape == (rows,)
    assert x.dtype == y.dtype == np.float32
    all_x, all_y = whole(kind, 2600, columns, seed=seed)
    np.testing.assert_array_equal(x, all_x[:rows])
    np.testing.assert_array_equal(y, all_y[:rows])


def test_every_block_but_the_last_has_block_rows():
    lengths = [len(y) for _, y in synth_blocks("regression", 2500, 2, block_rows=700)]
    assert lengths == [700, 700, 700, 400]


def test_the_values_of_a_seed_stay_what_they_were():
    x, y = whole("regression", 1025, 3, seed=7)
    expected = np.array([-0.39323690533638, -1.4528511762619019, 2.23289155960083], np.float32)
    np.testing.assert_array_equal(x[0], expected)
    expected = np.array([1.3641058206558228, 1.097356915473938, 0.886557400226593], np.float32)
    np.testing.assert_array_equal(x[1024], expected)
    np.testing.assert_allclose(y[[0, 1024]], [0.5853034257888794, -1.5472556352615356], rtol=1e-6)


def test_wide_rows_are_drawn_in_pieces_of_the_same_stream(monkeypatch):
    x, y = whole("regression", 1500, 8)
    monkeypatch.setattr("zipml_ooc.synthesis._STEP_VALUES", 100)
    pieces_x, pieces_y = whole("regression", 1500, 8)
    np.testing.assert_array_equal(pieces_x, x)
    np.testing.assert_allclose(pieces_y, y, rtol=1e-6, atol=1e-6)


def test_seeds_rows_and_purposes_have_streams_of_their_own():
    x, _ = whole("regression", 3000, 4, seed=1)
    other, _ = whole("regression", 3000, 4, seed=2)
    assert not np.intersect1d(x, other).size > 20  # float32 values meet by chance now and then
    assert len(np.unique(x)) > 0.99 * x.size
    recipe = _Recipe("regression", 4, 1, 0.1, 1.0)
    draws = [recipe.stream(p, g).random() for p in (_FEATURES, _NOISE) for g in (0, 1, 2)]
    assert len(set(draws)) == 6


def test_the_kinds_share_their_columns():
    np.testing.assert_array_equal(whole("regression", 50, 3)[0], whole("classification", 50, 3)[0])


# ------------------------------------------------------------------ the law
# Bounds are five standard errors; the seed is fixed, so a test passes always or never.


def test_columns_are_standard_normal_and_uncorrelated():
    n = 40_000
    x, _ = whole("regression", n, 5, seed=3)
    assert np.abs(x.mean(axis=0)).max() < 5 / np.sqrt(n)
    covariance = np.cov(x.T.astype(np.float64))
    assert np.abs(np.diag(covariance) - 1).max() < 5 * np.sqrt(2 / n)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 5 / np.sqrt(n)
    assert abs((x.astype(np.float64) ** 4).mean() - 3) < 5 * np.sqrt(96 / (5 * n))


def test_variances_fall_geometrically_over_the_condition_number():
    n, condition = 40_000, 1e4
    x, _ = whole("regression", n, 5, condition=condition)
    expected = condition ** -np.linspace(0, 1, 5)
    measured = x.astype(np.float64).var(axis=0) / expected
    assert np.abs(measured - 1).max() < 5 * np.sqrt(2 / n)


@pytest.mark.parametrize("condition", [1.0, 100.0])
def test_regression_noise_is_relative_to_a_signal_of_variance_one(condition):
    n, noise = 40_000, 0.5
    x, y = whole("regression", n, 6, noise=noise, condition=condition)
    x, y = x.astype(np.float64), y.astype(np.float64)
    assert abs(y.var() - (1 + noise**2)) < 5 * (1 + noise**2) * np.sqrt(2 / n)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert abs(residual.var() / noise**2 - 1) < 5 * np.sqrt(2 / n)


def test_without_noise_the_target_is_linear():
    x, y = whole("regression", 500, 4, noise=0)
    residual = y - x.astype(np.float64) @ np.linalg.lstsq(x.astype(np.float64), y, rcond=None)[0]
    assert np.abs(residual).max() < 1e-6
    _, labels = whole("classification", 500, 4, noise=0)
    np.testing.assert_array_equal(labels, y > 0)  # the same truth


def test_labels_follow_the_logistic_model():
    n, noise = 40_000, 0.5
    recipe = _Recipe("classification", 6, 9, noise, 1.0)
    x, y = whole("classification", n, 6, seed=9, noise=noise)
    assert set(np.unique(y)) == {0.0, 1.0}
    p = 1 / (1 + np.exp(-(x.astype(np.float64) @ recipe.weights()) / noise))
    for low in np.arange(0, 1, 0.1):
        chosen = (p >= low) & (p < low + 0.1)
        error = np.sqrt((p * (1 - p))[chosen].sum())
        assert abs((y - p)[chosen].sum()) < 5 * error


# ------------------------------------------------------------------ the files


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_reads_back_equal(tmp_path, monkeypatch, suffix, kind):
    monkeypatch.setattr("zipml_ooc.synthesis._BLOCK_VALUES", 1500)  # several blocks
    dest = tmp_path / f"set{suffix}"
    facts = synth(dest, kind=kind, rows=1700, columns=3, seed=5, condition=9.0, test_rows=400)
    x, y = whole(kind, 2100, 3, seed=5, condition=9.0)
    for path, part in ((dest, slice(1700)), (Path(facts["test_path"]), slice(1700, None))):
        read_x, read_y = read(path)
        assert read_x.dtype == read_y.dtype == np.float32
        np.testing.assert_array_equal(read_x, x[part])
        np.testing.assert_array_equal(read_y, y[part])
    assert {p.name for p in tmp_path.iterdir()} == {f"set{suffix}", f"set-test{suffix}"}
    size = sum(f.stat().st_size for f in [dest, *dest.rglob("*")] if f.is_file())
    assert facts == {
        "path": str(dest),
        "format": suffix[1:],
        "rows": 1700,
        "columns": 3,
        "kind": kind,
        "seed": 5,
        "noise": 0.1,
        "condition": 9.0,
        "target": "y",
        "bytes": size,
        "test_path": str(tmp_path / f"set-test{suffix}"),
        "test_rows": 400,
    }


@pytest.mark.parametrize("suffix", SUFFIXES[:-1])
def test_the_same_set_is_the_same_bytes(tmp_path, suffix):
    for name in ("a", "b"):
        synth(tmp_path / f"{name}{suffix}", rows=50, columns=2)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_tables_write_labels_as_whole_numbers(tmp_path):
    synth(tmp_path / "a.csv.gz", kind="classification", rows=20, columns=1)
    lines = gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).decode().splitlines()
    assert lines[0].replace('"', "") == "x0,y"
    assert {line.split(",")[-1] for line in lines[1:]} == {"0", "1"}
    synth(tmp_path / "a.parquet", kind="classification", rows=20, columns=1)
    assert parquet.read_schema(tmp_path / "a.parquet").field("y").type == "int8"


def test_progress_counts_to_the_total_over_both_files(tmp_path, monkeypatch):
    monkeypatch.setattr("zipml_ooc.synthesis._BLOCK_VALUES", 1200)
    calls = []
    synth(
        tmp_path / "a.npy",
        rows=1000,
        columns=2,
        test_rows=100,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(600, 1100), (1000, 1100), (1100, 1100)]


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".zarr"])
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix):
    peaks = []
    for rows in (4_000, 20_000):  # 16 MB and 80 MB
        tracemalloc.start()
        synth(tmp_path / f"{rows}{suffix}", rows=rows, columns=1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 48 << 20
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_existing_destination_needs_force(tmp_path, suffix):
    dest = tmp_path / f"a{suffix}"
    synth(dest, rows=10, columns=2)
    with pytest.raises(UsageError, match="exists: choose another name or use --force"):
        synth(dest, rows=20, columns=2)
    assert len(read(dest)[1]) == 10
    synth(dest, rows=20, columns=2, force=True)
    assert len(read(dest)[1]) == 20
    assert list(tmp_path.iterdir()) == [dest]


def test_an_existing_test_file_needs_force_too(tmp_path):
    (tmp_path / "a-test.npy").write_text("mine")
    with pytest.raises(UsageError, match="a-test"):
        synth(tmp_path / "a.npy", rows=10, columns=2, test_rows=5)
    assert not (tmp_path / "a.npy").exists()


@pytest.mark.parametrize("name", ["a.zarr", "a.npy"])
def test_force_never_removes_a_directory_of_other_things(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="directory of other things"):
        synth(tmp_path / name, rows=10, columns=2, force=True)
    assert (tmp_path / name / "thesis.tex").read_text() == "mine"


def test_force_lets_a_zarr_group_take_the_place_of_a_file(tmp_path):
    (tmp_path / "a.zarr").write_text("old")
    synth(tmp_path / "a.zarr", rows=10, columns=2, force=True)
    assert len(read(tmp_path / "a.zarr")[1]) == 10
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zarr"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("old", [False, True])
def test_a_disk_that_takes_no_more_leaves_the_destination_as_it_was(tmp_path, suffix, old):
    dest = tmp_path / f"a{suffix}"
    if old:
        synth(dest, rows=10, columns=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # a write beyond it fails
    try:
        with pytest.raises(DataError, match="nothing was kept"):
            synth(dest, rows=30_000, columns=2, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [dest] * old
    if old:
        assert len(read(dest)[1]) == 10


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_interruption_leaves_nothing_behind(tmp_path, suffix):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth(tmp_path / f"a{suffix}", rows=10, columns=2, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_exchange_of_directories_brings_the_old_one_back(tmp_path):
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "old.zarr" / "kept").write_text("x")
    with pytest.raises(FileNotFoundError):
        synthesis_files.publish(tmp_path / "never-written", tmp_path / "old.zarr")
    assert (tmp_path / "old.zarr" / "kept").read_text() == "x"
    assert list(tmp_path.iterdir()) == [tmp_path / "old.zarr"]


# ------------------------------------------------------------------ the requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ranking"}, "unknown kind 'ranking'; known: regression, classification"),
        ({"rows": 0}, "rows is 0"),
        ({"columns": 0}, "columns is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"condition": 0.5}, "condition is 0.5"),
        ({"condition": float("inf")}, "condition is inf"),
        ({"condition": 2.0, "columns": 1}, "one column has condition 1"),
    ],
)
def test_options_out_of_range_are_refused_at_once(tmp_path, options, message):
    request = {"kind": "regression", "rows": 10, "columns": 3} | options
    with pytest.raises(UsageError) as caught:
        synth(tmp_path / "a.npz", **request)
    assert message in str(caught.value)
    with pytest.raises(UsageError) as caught:
        synth_blocks(request.pop("kind"), request.pop("rows"), request.pop("columns"), **request)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_block_rows_and_test_rows_are_checked(tmp_path):
    with pytest.raises(UsageError, match="block_rows is 0"):
        synth_blocks("regression", 1, 1, block_rows=0)
    with pytest.raises(UsageError, match="test_rows is -1"):
        synth(tmp_path / "a.npy", test_rows=-1)


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", ".npz", "a.npz.bak"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path, name):
    with pytest.raises(UsageError, match=r"end it with one of \.npz, \.npy, \.csv, \.csv\.gz"):
        synth(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_directory_is_a_wrong_request(tmp_path, suffix):
    with pytest.raises(UsageError, match="does not exist; create it first"):
        synth(tmp_path / "none" / f"a{suffix}", rows=10, columns=2)
    assert list(tmp_path.iterdir()) == []


def test_suffixes_may_be_upper_case(tmp_path):
    facts = synth(tmp_path / "A.NPY", rows=10, columns=2, test_rows=3)
    assert facts["format"] == "npy"
    assert facts["test_path"].endswith("A-test.NPY")
