"""The model is a function of the rows, the options and the seed: of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import classes_npz, compressed, regression_npz, tree_bytes
from threadpoolctl import threadpool_limits
from zipml_codecs import _native

from zipml_ooc import TrainOptions, train
from zipml_ooc.losses import LOSSES
from zipml_ooc.training import plan as plan_module


@pytest.fixture
def many_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small windows, so that a small table has several replicas and rounds."""
    monkeypatch.setattr(plan_module, "_WINDOW_VALUES", 1)
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 4)


def saved(tmp_path: Path, name: str, result: object) -> bytes:
    path = tmp_path / f"{name}.zipml"
    result.model.save(path)  # type: ignore[attr-defined]
    return path.read_bytes()


@pytest.mark.usefixtures("many_windows")
@pytest.mark.parametrize("form", ["mean", "split"])
@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
def test_threads_and_repetition_do_not_change_the_model(
    tmp_path: Path, form: str, arithmetic: str
) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=9000), tmp_path / "d")
    options = TrainOptions(epochs=4, validation=0.2, double_form=form, arithmetic=arithmetic)
    first = train(dataset, options, threads=1)
    assert first.model.record["replicas"] == 8
    expected = saved(tmp_path, "a", first)
    assert saved(tmp_path, "b", train(dataset, options, threads=4)) == expected
    assert saved(tmp_path, "c", train(dataset, options, threads=1)) == expected


def test_compression_threads_and_repetition_do_not_change_a_byte(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=3000)
    expected = None
    for number, threads in enumerate((1, 4, 4)):
        dest = tmp_path / f"{number}"
        compressed(source, dest, threads=threads, chunk_rows=256)
        expected = expected or tree_bytes(dest)
        assert tree_bytes(dest) == expected


@pytest.mark.usefixtures("many_windows")
@pytest.mark.parametrize("scale", ["column", "row"])
def test_chunking_changes_neither_the_codes_of_a_row_nor_the_model(
    tmp_path: Path, scale: str
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=5000)
    models, values, tiles = [], [], []
    for chunk_rows in (64, 1000, 5000):
        dataset = compressed(source, tmp_path / f"{chunk_rows}", chunk_rows=chunk_rows, scale=scale)
        chunks = [dataset.read_chunk(i) for i in range(dataset.spec.chunks)]
        tiles.append(b"".join(chunk.codes.tobytes() for chunk in chunks))
        values.append(np.concatenate([c.decode_rows(0, c.header.rows) for c in chunks]))
        result = train(dataset, TrainOptions(epochs=3, validation=0.1))
        models.append(saved(tmp_path, f"{chunk_rows}", result))
    assert tiles[0] == tiles[1] == tiles[2]
    assert np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2])
    assert models[0] == models[1] == models[2]


@pytest.mark.usefixtures("many_windows")
def test_a_cluster_gives_the_model_of_one_thread(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=5000), tmp_path / "d")
    options = TrainOptions(epochs=2)
    expected = saved(tmp_path, "a", train(dataset, options, threads=1))
    assert saved(tmp_path, "b", train(dataset, options, workers=2)) == expected


LONG = 40_000  # rows of one window, and beyond what a BLAS adds up on one thread


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "squared", "validation": 0.5},
        {"loss": "huber"},
        {"loss": "logistic"},
        {"loss": "hinge"},
        {"loss": "squared-hinge"},
        {"loss": "ls-svm"},
        {"loss": "softmax"},
    ],
    ids=lambda options: options["loss"],
)
def test_threads_of_the_blas_and_workers_do_not_change_a_byte_of_the_file(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Losses of long windows are added up in the same order everywhere."""
    make = classes_npz if LOSSES[options["loss"]].of_classes else regression_npz
    dataset = compressed(make(tmp_path / "t.npz", rows=LONG, columns=3), tmp_path / "d")
    given = TrainOptions(epochs=1, **options)
    files = set()
    for count in (1, 2, 4):
        with threadpool_limits(limits=count, user_api="blas"):
            files.add(saved(tmp_path, f"{count}", train(dataset, given, threads=1)))
    if options["loss"] == "squared":
        with threadpool_limits(limits=2, user_api="blas"):
            files.add(saved(tmp_path, "workers", train(dataset, given, workers=2)))
    assert len(files) == 1


def test_another_seed_gives_another_order(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d")
    first, second = (train(dataset, TrainOptions(epochs=1, seed=s)).model.coef for s in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
def test_the_instruction_set_does_not_change_the_model(
    tmp_path: Path, loss: str, arithmetic: str
) -> None:
    make = regression_npz if loss == "squared" else classes_npz
    live, models = _native.live_simd(), set()
    try:
        for level in _native.simd_levels():
            _native.select_simd(level)
            dataset = compressed(make(tmp_path / "t.npz"), tmp_path / level)
            options = TrainOptions(epochs=3, arithmetic=arithmetic, batch_rows=192)
            models.add(saved(tmp_path, level, train(dataset, options)))
    finally:
        _native.select_simd(live)
    assert len(models) == 1
