"""Compression by several hands: the same bytes whoever does it, in threads and on workers."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from tables import tree_bytes

from zipml_ooc import (
    CompressOptions,
    DataError,
    SourceOptions,
    UsageError,
    ZipmlError,
    compress,
)
from zipml_ooc.journal import stamps_of
from zipml_ooc.parallel import SourceRecipe, _run, row_ranges
from zipml_ooc.sources import open_source
from zipml_ooc.sources.arrays import ArraySource

ROWS = 40_000  # five blocks of statistics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same table in every format."""
    h5py = pytest.importorskip("h5py")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("parallel")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 4)).round(2) * [1, 10, 0.1, 1000]
    x[rng.random(x.shape) < 0.001] = np.nan
    y = rng.standard_normal(ROWS).round(3)
    names = ["c0", "c1", "c2", "c3"]
    np.save(folder / "t.npy", np.column_stack([x, y]))
    np.savez(folder / "t.npz", X=x, y=y)
    with h5py.File(folder / "t.h5", "w") as file:
        file.create_dataset("X", data=x, chunks=(1000, 4))
        file.create_dataset("y", data=y)
    group = zarr.create_group(folder / "t.zarr")
    group.create_array("X", data=x, chunks=(1500, 4))
    group.create_array("y", data=y)
    columns = {**dict(zip(names, x.T, strict=True)), "y": y}
    parquet.write_table(pa.table(columns), folder / "t.parquet", row_group_size=1100)
    return folder


SOURCES = {"t.npy": (-1,), "t.npz": (), "t.h5": (), "t.zarr": (), "t.parquet": ("y",)}
OPTIONS = CompressOptions(bits=3, nan="mean", chunk_rows=640, shard_rows=2560)


def values_of(folder: Path) -> dict[str, bytes]:
    """All that is stored of the rows; metadata name the source."""
    return {key: data for key, data in tree_bytes(folder).items() if "/c/" in key}


def made(folder: Path, name: str, dest: Path, threads: int, **more: Any) -> dict[str, bytes]:
    options = replace(OPTIONS, threads=threads)
    target = SourceOptions(target=SOURCES[name])
    compress(folder / name, dest, options, source_options=target, **more)
    return tree_bytes(dest)


def test_every_source_and_number_of_threads_gives_the_same_bytes(
    folder: Path, tmp_path: Path
) -> None:
    made(folder, "t.npz", tmp_path / "ordered", 1)  # read in order
    for name in SOURCES:
        one = made(folder, name, tmp_path / f"{name}-1", 1)
        for threads in (2, 3, 7):
            assert made(folder, name, tmp_path / f"{name}-{threads}", threads) == one
        assert values_of(tmp_path / f"{name}-1") == values_of(tmp_path / "ordered")
        attributes = [
            dict(zarr.open_group(place, mode="r").attrs)["zipml"]
            for place in (tmp_path / f"{name}-1", tmp_path / "ordered")
        ]
        for found in attributes:
            del found["source"], found["targets"]
        assert attributes[0] == attributes[1]


@pytest.mark.parametrize("name", ["t.parquet", "t.zarr"])
def test_workers_give_the_same_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    expected = made(folder, name, tmp_path / "threads", 2)
    options = SourceOptions(target=SOURCES[name])
    compress(folder / name, tmp_path / "workers", OPTIONS, source_options=options, workers=2)
    assert tree_bytes(tmp_path / "workers") == expected


def test_a_scheduler_does_it_and_tells_what_is_wrong_with_the_data(
    folder: Path, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    expected = made(folder, "t.npy", tmp_path / "threads", 2)
    target = SourceOptions(target=(-1,))
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        compress(
            folder / "t.npy", tmp_path / "d", OPTIONS, source_options=target, scheduler=address
        )
        assert tree_bytes(tmp_path / "d") == expected
        with pytest.raises(DataError, match=r"column 'c\d' has no value \(NaN\) in row"):
            compress(
                folder / "t.npy", tmp_path / "e", replace(OPTIONS, nan="error"),
                source_options=target, scheduler=address,
            )  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "threads"]
    assert dask.config.get("scheduler", None) is None  # nobody else is sent to that cluster


def test_a_worker_that_is_killed_costs_no_byte(folder: Path, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    expected = made(folder, "t.npy", tmp_path / "threads", 2)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pids = list(client.run(os.getpid).values())

        def kill(stage: str, rows: int, total: int | None) -> None:
            if stage == "compress" and pids:
                os.kill(pids.pop(), signal.SIGKILL)
                pids.clear()

        compress(
            folder / "t.npy", tmp_path / "d", OPTIONS,
            source_options=SourceOptions(target=(-1,)), scheduler=cluster.scheduler_address,
            progress=kill,
        )  # fmt: skip
    assert not pids
    assert tree_bytes(tmp_path / "d") == expected


def test_the_first_of_several_mistakes_is_told_however_many_look(
    folder: Path, tmp_path: Path
) -> None:
    x = np.ones((ROWS, 2))
    x[[39_000, 20_000, 9_000], 1] = np.inf
    np.save(tmp_path / "t.npy", x)
    for threads in (1, 2, 4):
        with pytest.raises(DataError, match="infinite in row 9000"):
            compress(tmp_path / "t.npy", tmp_path / "d", CompressOptions(threads=threads))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npy"]


def test_an_interrupted_parallel_run_is_resumed(folder: Path, tmp_path: Path) -> None:
    whole = made(folder, "t.npy", tmp_path / "whole", 2)
    threads = threading.active_count()

    def stop(stage: str, rows: int, total: int | None) -> None:
        if stage == "compress" and rows >= ROWS // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(folder, "t.npy", tmp_path / "d", 2, progress=stop)
    assert threading.active_count() == threads  # nobody is still at it
    kept = list((tmp_path / ".d.partial/dataset/X/c").iterdir())
    assert 2 <= len(kept) < 16
    assert made(folder, "t.npy", tmp_path / "d", 3, resume=True) == whole


def test_progress_reaches_the_end(folder: Path, tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {}

    def note(stage: str, rows: int, total: int | None) -> None:
        seen.setdefault(stage, []).append(rows)
        assert total in (None, ROWS)

    made(folder, "t.npy", tmp_path / "d", 2, progress=note)
    assert list(seen) == ["statistics", "compress"]
    assert all(max(rows) == rows[-1] == ROWS for rows in seen.values())


def test_classes_are_found_by_several_hands(tmp_path: Path) -> None:
    y = np.array(["a", "b"] * (ROWS // 2))
    y[ROWS - 5] = "c"
    for labels, classes in ((y, ("a", "b", "c")), ((np.arange(ROWS) > 30_000) * 2, (0, 2))):
        group = zarr.create_group(tmp_path / "t.zarr", overwrite=True)
        group.create_array("X", data=np.random.default_rng(0).random((ROWS, 2)), chunks=(2000, 2))
        data = labels.astype("U1") if labels.dtype.kind == "U" else labels.astype("f8")
        group.create_array("y", data=data)
        dataset = compress(
            tmp_path / "t.zarr", tmp_path / "d", CompressOptions(threads=3), force=True
        )
        assert dataset.spec.classes == classes


def test_ranges_are_not_smaller_than_what_a_source_reads_at_once(folder: Path) -> None:
    parquet = open_source([str(folder / "t.parquet")], SourceOptions(target=("y",)))
    assert [len(r) for r in row_ranges(parquet, 4, 64, ROWS)] == [10_048, 10_048, 10_048, 9_856]
    assert all(len(r) >= 2200 for r in row_ranges(parquet, 1000, 64, 64)[:-1])
    npy = open_source([str(folder / "t.npy")], SourceOptions(target=(-1,)))
    assert row_ranges(npy, 1, 64, 64) == [range(i, i + 64) for i in range(0, ROWS, 64)]
    assert row_ranges(npy, 1000, 64, 64) == row_ranges(npy, 1, 64, 64)
    npz = open_source([str(folder / "t.npz")])
    assert row_ranges(npz, 4, 64, 64) == []


def test_workers_and_schedulers_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    for options in ({"workers": 0}, {"workers": 2, "scheduler": "tcp://127.0.0.1:1"}):
        with pytest.raises(UsageError):
            compress(folder / "t.npz", tmp_path / "d", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_goes_away_loses_nothing(folder: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    expected = made(folder, "t.npy", tmp_path / "threads", 2)
    target = SourceOptions(target=(-1,))
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    )

    def leave(stage: str, rows: int, total: int | None) -> None:
        if stage == "compress" and rows >= 5000:
            cluster.close()

    with pytest.raises(ZipmlError, match="--resume goes on with it"):
        compress(
            folder / "t.npy", tmp_path / "d", OPTIONS, source_options=target,
            scheduler=cluster.scheduler_address, progress=leave,
        )  # fmt: skip
    compress(folder / "t.npy", tmp_path / "d", OPTIONS, source_options=target, resume=True)
    assert tree_bytes(tmp_path / "d") == expected


def test_a_worker_opens_a_source_again_that_has_changed(tmp_path: Path) -> None:
    def ask() -> float:
        source = open_source([str(tmp_path / "t.npy")])
        stamps = tuple(map(str, stamps_of(source.paths)))
        recipe = SourceRecipe((str(tmp_path / "t.npy"),), SourceOptions(), None, stamps)
        outcome = _run(_first_value, recipe, None, lambda rows: None)
        assert outcome.result is not None
        return outcome.result

    np.save(tmp_path / "t.npy", np.full((10, 2), 1.0))
    os.utime(tmp_path / "t.npy", (1, 1))
    assert ask() == 1.0
    (tmp_path / "t.npy").unlink()
    np.save(tmp_path / "t.npy", np.full((10, 2), 2.0))
    assert ask() == 2.0


def _first_value(source: Any, task: None, report: Any) -> float:
    return float(next(source.blocks(10)).features[0, 0])


def test_a_resumed_run_reads_what_is_missing_and_no_more(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(folder, "t.npy", tmp_path / "whole", 2)
    target = SourceOptions(target=(-1,))

    def stop(stage: str, rows: int, total: int | None) -> None:
        if stage == "compress" and rows == ROWS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(folder / "t.npy", tmp_path / "d", OPTIONS, source_options=target, progress=stop)
    read: list[int] = []
    real = ArraySource.blocks

    def counted(self: Any, *args: Any) -> Any:
        for block in real(self, *args):
            read.append(block.rows)
            yield block

    monkeypatch.setattr(ArraySource, "blocks", counted)
    compress(folder / "t.npy", tmp_path / "d", OPTIONS, source_options=target, resume=True)
    assert tree_bytes(tmp_path / "d") == expected
    assert sum(read) == 0
