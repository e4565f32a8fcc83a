"""Shards that compress writes: the same chunks in fewer objects, for every reader of Zarr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from tables import compressed, regression_npz, tree_bytes, write_csv

from zipml_ooc import CompressOptions, UsageError, dataset_layout, open_dataset, train
from zipml_ooc.dataset_layout import layout_for


def weighted_csv(path: Path, rows: int = 1500) -> Path:
    rng = np.random.default_rng(0)
    columns = {f"c{j}": rng.standard_normal(rows).round(3) for j in range(5)}
    return write_csv(path, columns | {"y": rng.choice(["p", "q"], rows), "w": rng.random(rows)})


@pytest.mark.parametrize("options", [{}, {"layout": "weaved", "bits": 8}, {"scale": "row"}])
def test_a_shard_holds_the_chunks_that_would_be_files(
    tmp_path: Path, options: dict[str, object]
) -> None:
    source = weighted_csv(tmp_path / "t.csv")
    common = {"chunk_rows": 128, "weight": "w", **options}
    plain = compressed(source, tmp_path / "plain", ("y",), shard_rows=0, **common)
    dataset = compressed(source, tmp_path / "d", ("y",), shard_rows=500, **common)
    assert dataset.spec.chunks == 12 and dataset.chunks_per_shard == 4
    assert plain.chunks_per_shard is None
    ours, theirs = tree_bytes(tmp_path / "d"), tree_bytes(tmp_path / "plain")
    assert sorted(key for key in ours if "json" not in key) == [
        *(f"X/c/{i}/0" for i in range(3)), *(f"sample_weight/c/{i}" for i in range(3)),
        *(f"y/c/{i}" for i in range(3)),
    ]  # fmt: skip
    for array, tail in (("X", "/0"), ("y", ""), ("sample_weight", "")):
        for piece in range(3):
            chunks = [theirs[f"{array}/c/{i}{tail}"] for i in range(4 * piece, 4 * piece + 4)]
            shard = ours[f"{array}/c/{piece}{tail}"]
            assert shard[: sum(map(len, chunks))] == b"".join(chunks)
            assert len(shard) == sum(map(len, chunks)) + 4 * 16 + 4
    for name in ("X", "y", "sample_weight"):
        here, there = (zarr.open_group(tmp_path / p, mode="r")[name] for p in ("d", "plain"))
        assert here.shards == (512, *here.shape[1:]) and here.chunks == there.chunks
        np.testing.assert_array_equal(here[:], there[:])
        np.testing.assert_array_equal(here[700:900], there[700:900])
    assert dataset.spec.to_attributes() == plain.spec.to_attributes()
    np.testing.assert_array_equal(dataset.read_target(300, 900), plain.read_target(300, 900))
    np.testing.assert_array_equal(train(dataset).model.coef, train(plain).model.coef)


def test_the_last_shard_may_be_short(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=700)
    plain = compressed(source, tmp_path / "plain", chunk_rows=64)
    dataset = compressed(source, tmp_path / "d", chunk_rows=64, shard_rows=256)
    assert dataset.spec.chunks == 11
    np.testing.assert_array_equal(
        zarr.open_group(tmp_path / "d", mode="r")["X"][:],
        zarr.open_group(tmp_path / "plain", mode="r")["X"][:],
    )
    assert dataset.stored_bytes == plain.stored_bytes + 3 * (4 * 16 + 4)


def test_there_are_shards_where_chunks_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=64 * 65)
    assert compressed(source, tmp_path / "64", chunk_rows=128).chunks_per_shard is None
    dataset = compressed(source, tmp_path / "65", chunk_rows=64)
    assert dataset.spec.chunks == 65 and dataset.chunks_per_shard == 65
    assert compressed(source, tmp_path / "no", chunk_rows=64, shard_rows=0).chunks_per_shard is None
    v2 = compressed(source, tmp_path / "v2", chunk_rows=64, zarr_format=2)
    assert v2.chunks_per_shard is None
    # Neither X nor what lies beside it makes a shard larger than wished.
    size = layout_for(dataset.spec).chunk_bytes(0)
    monkeypatch.setattr(dataset_layout, "_SHARD_BYTES", 10 * size)
    assert layout_for(dataset.spec).shard_chunks == 10
    monkeypatch.setattr(dataset_layout, "_SHARD_BYTES", size // 2)
    assert layout_for(dataset.spec).shard_chunks is None


def test_shards_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="format 2 has no shards"):
        CompressOptions(zarr_format=2, shard_rows=100)
    with pytest.raises(UsageError, match="shard rows must not be negative, got -1"):
        CompressOptions(shard_rows=-1)
    assert CompressOptions(zarr_format=2, shard_rows=0).shard_rows == 0


def test_the_space_for_shards_is_known(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=20_000, columns=40)
    compressed(source, tmp_path / "d", chunk_rows=64, shard_rows=64 * 50)
    dataset = open_dataset(tmp_path / "d")
    taken = sum(len(data) for data in tree_bytes(tmp_path / "d").values())
    assert taken <= layout_for(dataset.spec, shard_rows=64 * 50).most_bytes < 1.5 * taken
