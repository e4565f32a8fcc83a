"""Compression: what is stored, what is refused, and that a failure leaves nothing behind."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import compressed, regression_npz, tree_bytes, write_csv
from zipml_codecs import EncodedChunk

from zipml_ooc import (
    CompressOptions,
    DataError,
    SourceOptions,
    UsageError,
    compress,
    describe,
    evaluate,
    open_dataset,
    synth,
    train,
)
from zipml_ooc.statistics import StatisticsAccumulator


def test_stored_values_are_the_standardised_values_to_within_a_step(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=500)
    dataset = compressed(source, tmp_path / "d", bits=6, samples=1)
    x = np.load(source)["X"]
    expected = (x - x.mean(axis=0)) / x.std(axis=0)
    stored = zarr.open_group(tmp_path / "d")["X"][:]
    steps = np.array([column["step"] for column in describe(dataset)["per_column"]])
    assert stored.dtype == np.float32
    assert (np.abs(stored - expected) <= steps * 1.0001).all()
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "d")["y"][:], np.load(source)["y"])


def test_variance_in_the_attributes_is_the_exact_one_of_all_rows(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=700)
    dataset = compressed(source, tmp_path / "d", bits=3, samples=1, chunk_rows=64, levels="uniform")
    x = np.load(source)["X"]
    z = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("f4").astype("f8")
    step = (z.max(axis=0) - z.min(axis=0)) / 7
    part = np.modf((z - z.min(axis=0)) / step)[0]
    np.testing.assert_allclose(
        dataset.spec.variance, (part * (1 - part)).mean(axis=0) * step**2, rtol=1e-3
    )


def test_missing_values_are_refused_or_filled_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    x[17, 1] = x[150, 1] = np.nan
    np.savez(tmp_path / "t.npz", X=x)
    with pytest.raises(
        DataError,
        match=r"column 'c1' has no value \(NaN\) in row 17 \(counted from 0\); .*--nan mean",
    ):
        compressed(tmp_path / "t.npz", tmp_path / "d")
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", nan="mean", bits=8, samples=1)
    assert dataset.spec.statistics.missing.tolist() == [0, 2, 0]
    stored = zarr.open_group(tmp_path / "d")["X"][:]
    step = describe(dataset)["per_column"][1]["step"]
    assert abs(stored[17, 1]) <= step and abs(stored[150, 1]) <= step


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_always_refused(tmp_path: Path, value: float) -> None:
    x = np.ones((100, 2))
    x[99, 0] = value
    np.savez(tmp_path / "t.npz", X=x)
    for nan in ("error", "mean"):
        with pytest.raises(DataError, match="column 'c0' is infinite in row 99"):
            compressed(tmp_path / "t.npz", tmp_path / "d", nan=nan)


@pytest.mark.parametrize(
    ("values", "standardize", "message"),
    [
        (np.full((5, 1), np.nan), True, "no value in any row"),
        (np.array([[1e300], [-1e300], [0.0]]), True, "too large"),
        (np.array([[1e39], [0.0]]), False, "too large for 32 bits"),
    ],
)
def test_columns_that_cannot_be_stored_are_refused(
    tmp_path: Path, values: np.ndarray, standardize: bool, message: str
) -> None:
    np.savez(tmp_path / "t.npz", X=values)
    with pytest.raises(DataError, match=message):
        compressed(tmp_path / "t.npz", tmp_path / "d", nan="mean", standardize=standardize)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits must lie in 1..8"),
        ({"samples": 3}, "samples must be 1, 2, 4 or 8"),
        ({"samples": 4, "bits": 7}, "take 9 stored bits, more than 8: take at most 6 bits"),
        ({"samples": 8, "scale": "row"}, "8 samples go with scale 'column' and layout 'packed'"),
        ({"samples": 4, "layout": "weaved"}, "4 samples go with scale 'column'"),
        ({"scale": "x"}, "scale must be one of"),
        ({"nan": "x"}, "nan must be one of"),
        ({"seed": -1}, "seed must lie"),
        ({"zarr_format": 4}, "Zarr format must be 2 or 3"),
        ({"chunk_rows": 0}, "chunk rows must be positive"),
        ({"threads": 0}, "threads must be positive"),
        ({"categorical": "x"}, "categorical must be"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompressOptions(**options)


def test_an_existing_destination_is_kept_unless_forced(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    compressed(source, tmp_path / "d", bits=4)
    before = tree_bytes(tmp_path / "d")
    with pytest.raises(UsageError, match="exists: choose another destination or use --force"):
        compressed(source, tmp_path / "d", bits=8)
    assert tree_bytes(tmp_path / "d") == before
    compress(source, tmp_path / "d", CompressOptions(bits=8), force=True)
    assert open_dataset(tmp_path / "d").spec.quantizer.bits == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "t.npz"]


def test_force_never_replaces_what_is_no_dataset(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="no Zarr group"):
        compress(source, tmp_path / "home", force=True)
    with pytest.raises(UsageError, match="no Zarr group"):
        compress(source, source, force=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_a_source_cannot_be_its_own_destination(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    compressed(source, tmp_path / "d")
    before = tree_bytes(tmp_path / "d")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    for name in ("d", "link"):
        with pytest.raises(UsageError, match="both source and destination"):
            compress(tmp_path / name, tmp_path / "d", force=True)
    assert tree_bytes(tmp_path / "d") == before


def test_a_source_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "t.csv", {"a": range(500), "b": range(500)})

    def grow(stage: str, rows: int, total: int | None) -> None:
        if stage == "statistics":
            write_csv(source, {"a": range(400), "b": range(400)})

    with pytest.raises(DataError, match="changed while it was read"):
        compress(source, tmp_path / "d", progress=grow)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv"]


def test_text_columns_become_one_hot_columns(tmp_path: Path) -> None:
    source = write_csv(
        tmp_path / "t.csv",
        {"colour": ["red", "blue", "red"] * 50, "size": range(150), "y": range(150)},
    )
    with pytest.raises(DataError, match=r"'colour'.*--categorical one-hot"):
        compressed(source, tmp_path / "d", ("y",))
    dataset = compressed(source, tmp_path / "d", ("y",), categorical="one-hot", standardize=False)
    assert dataset.spec.columns == ("colour=blue", "colour=red", "size")
    stored = zarr.open_group(tmp_path / "d")["X"][:3, :2]
    assert stored.tolist() == [[0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (["true", "false"] * 2, "auto", (False, True)),
        (["True", "False"] * 2, "classification", (False, True)),
        (["b", "a", "b", "c"], "auto", ("a", "b", "c")),
        ([3, 1, 3, 1], "auto", (1, 3)),
        ([0.5, 1.5, 0.5, 1.5], "auto", (0.5, 1.5)),
        ([3, 1, 2, 1], "auto", None),
        ([3, 1, 2, 1], "classification", (1, 2, 3)),
        ([0, 1, 0, 1], "regression", None),
    ],
)
def test_the_task_follows_from_the_target(
    tmp_path: Path, labels: list[Any], task: str, classes: tuple[Any, ...] | None
) -> None:
    source = write_csv(tmp_path / "t.csv", {"x": range(80), "y": labels * 20})
    dataset = compressed(source, tmp_path / "d", ("y",), task=task)
    assert dataset.spec.classes == classes
    assert classes is None or all(
        type(a) is type(b) for a, b in zip(dataset.spec.classes, classes, strict=True)
    )
    assert dataset.spec.task == ("regression" if classes is None else "classification")
    stored = zarr.open_group(tmp_path / "d")["y"][:4].tolist()
    if labels[0] in ("true", "True"):
        labels = [True, False] * 2
    assert stored == (labels if classes is None else [classes.index(label) for label in labels])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a"] * 80, {}, "one class only"),
        (["a", ""] * 40, {}, "has no value in row"),
        (["a", "b"] * 40, {"task": "regression"}, "is not numeric"),
        ([1e200, -1e200] * 40, {"task": "regression"}, "too large: rescale it"),
        (["1", ""] * 40, {}, "is nan in row"),
    ],
)
def test_targets_that_cannot_be_used_are_refused(
    tmp_path: Path, labels: list[str], options: dict[str, str], message: str
) -> None:
    source = write_csv(tmp_path / "t.csv", {"x": range(80), "y": labels})
    with pytest.raises(DataError, match=message):
        compressed(source, tmp_path / "d", ("y",), **options)


def test_every_source_of_one_table_gives_the_same_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((250, 4)).round(3)
    y = rng.standard_normal(250).round(3)
    columns = {**{f"c{j}": x[:, j] for j in range(4)}, "y": y}
    write_csv(tmp_path / "t.csv", columns)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    np.save(tmp_path / "t.npy", np.column_stack([x, y]))
    np.savez(tmp_path / "t.npz", X=x, y=y)
    group = zarr.create_group(tmp_path / "t.zarr")
    group.create_array("X", data=x)
    group.create_array("y", data=y)
    found = {}
    for name, target in (
        ("t.csv", ("y",)),
        ("t.csv.gz", ("4",)),
        ("t.npy", (-1,)),
        ("t.npz", ()),
        ("t.zarr", ()),
    ):
        dataset = compressed(tmp_path / name, tmp_path / f"{name}.out", target)
        chunk = dataset.read_chunk(0)
        assert isinstance(chunk, EncodedChunk)
        found[name] = (chunk.codes.tobytes(), dataset.read_target(0, 250).tobytes())
    assert len(set(found.values())) == 1


def test_a_target_that_is_boolean_in_one_file_only_is_a_number(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name, values in (("a", [True, False] * 50), ("b", [0, 1, 2, 1] * 25)):
        table = pa.table({"x": pa.array(range(100)), "t": pa.array(values)})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    dataset = compress(paths, tmp_path / "d", source_options=SourceOptions(target=("t",)))
    assert dataset.spec.task == "regression"
    assert dataset.spec.target_statistics.maximum.tolist() == [2.0]


def test_a_model_of_several_outputs_scores_its_own_source(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3))
    np.savez(tmp_path / "t.npz", X=x, y=x @ rng.standard_normal((3, 2)))
    model = train(compressed(tmp_path / "t.npz", tmp_path / "d")).model
    assert model.targets == ("y0", "y1")
    assert evaluate(model, tmp_path / "t.npz")["r2"] > 0.95


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """Eight times the rows: the peak grows by less than a tenth of the added raw data."""
    script = """
import resource, sys
from zipml_ooc import CompressOptions, compress
compress(sys.argv[1], sys.argv[2], CompressOptions(chunk_rows=4096, threads=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for rows in (50_000, 400_000):
        source = tmp_path / f"{rows}.npz"
        synth(source, rows=rows, columns=100)
        done = subprocess.run(
            [sys.executable, "-c", script, str(source), str(tmp_path / f"{rows}.out")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        peaks.append(int(done.stdout) * 1024)
    added = 350_000 * 100 * 4
    assert peaks[1] - peaks[0] < 0.1 * added


@settings(max_examples=50)
@given(
    rows=st.integers(1, 300),
    block=st.integers(1, 300),
    seed=st.integers(0, 100),
    gaps=st.booleans(),
)
def test_statistics_agree_with_numpy_for_any_blocks(
    rows: int, block: int, seed: int, gaps: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 3)) * [1, 1e6, 1e-6] + [0, 1e6, 5]
    if gaps:
        values[rng.random(values.shape) < 0.3] = np.nan
        values[0] = 1.0
    accumulator = StatisticsAccumulator(3)
    for start in range(0, rows, block):
        accumulator.update(values[start : start + block])
    found = accumulator.result()
    np.testing.assert_allclose(found.mean, np.nanmean(values, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.nanstd(values, axis=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(found.minimum, np.nanmin(values, axis=0))
    np.testing.assert_array_equal(found.maximum, np.nanmax(values, axis=0))
    np.testing.assert_array_equal(found.missing, np.isnan(values).sum(axis=0))


def test_source_options_name_the_target(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "t.csv", {"alpha": range(90), "beta": range(90)})
    with pytest.raises(UsageError, match="betta"):
        compress(source, tmp_path / "d", source_options=SourceOptions(target=("betta",)))
