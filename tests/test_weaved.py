"""Datasets of the weaved layout: read at any precision, from any store, and no more than that."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from tables import classes_npz, compressed, least_squares_loss, regression_npz, tree_bytes
from typer.testing import CliRunner
from zipml_cli.main import app

from zipml_ooc import (
    DataError,
    Dataset,
    TrainOptions,
    UsageError,
    describe,
    evaluate,
    open_dataset,
    train,
)


def weaved(tmp_path: Path, rows: int = 3000, **options: object) -> Dataset:
    source = regression_npz(tmp_path / "t.npz", rows=rows, columns=16)
    name = f"d{uuid4().hex}"
    return compressed(
        source, tmp_path / name, bits=8, layout="weaved", **{"chunk_rows": 1024, **options}
    )


def in_memory(dataset: Dataset) -> Dataset:
    files, root = fsspec.core.url_to_fs(f"memory://{uuid4().hex}")
    files.put(str(dataset.path), root, recursive=True)
    return open_dataset(f"memory:/{root}")


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("remote", [False, True])
def test_training_fetches_the_planes_of_its_precision_and_nothing_else(
    tmp_path: Path, samples: int, remote: bool
) -> None:
    dataset = weaved(tmp_path, samples=samples)
    if remote:
        dataset = in_memory(dataset)
    traffic, spec = dataset.store.traffic, dataset.spec
    fetched = {}
    for bits in (1, 2, 4, 8):
        before, asked = traffic.fetched_bytes, traffic.requests
        result = train(dataset, TrainOptions(bits=bits, epochs=2))
        fetched[bits] = traffic.fetched_bytes - before
        # The cache holds what was fetched for the first epoch.
        assert fetched[bits] == dataset.bytes_at(bits) == result.epochs[0].bytes_read
        assert traffic.requests - asked == spec.chunks * (1 if bits == 8 else 2)
    slots = sum(-(-spec.rows_of_chunk(i) // 8) * 8 for i in range(spec.chunks))
    plane = slots * len(spec.columns) // 8
    samples_of_any = samples * plane
    assert fetched[2] <= 0.52 * (fetched[4] - samples_of_any) + samples_of_any
    assert fetched[2] < 0.7 * fetched[4]


@pytest.mark.parametrize("sampling", ["naive", "corrected", "double", "split"])
def test_the_loss_is_that_of_a_packed_copy_within_the_noise_of_its_seed(
    tmp_path: Path, sampling: str
) -> None:
    """Seven copies of each at four bits: their means are compared with their own spreads.

    Weaved levels lie in 16 intervals and packed ones in 15: what rounding costs is lower by
    1 - (15 / 16)^2, an eighth of the excess loss; twice that is allowed.
    """
    samples = 1 if sampling in ("naive", "corrected") else 2
    options = TrainOptions(
        sampling="double" if samples == 2 else sampling,
        double_form="split" if sampling == "split" else "mean",
        epochs=15,
    )
    source = regression_npz(tmp_path / "t.npz", rows=4000, columns=8)
    losses: dict[str, list[float]] = {"weaved": [], "packed": []}
    for seed in range(7):
        w = compressed(
            source, tmp_path / f"w{seed}", bits=8, samples=samples, layout="weaved", seed=seed
        )
        p = compressed(
            source, tmp_path / f"p{seed}", bits=4, samples=samples, levels="uniform", seed=seed
        )
        from_weaved = train(w, TrainOptions(**{**vars(options), "bits": 4})).model
        losses["weaved"].append(evaluate(from_weaved, source)["rmse"] ** 2)
        losses["packed"].append(evaluate(train(p, options).model, source)["rmse"] ** 2)
    a, b = (np.array(losses[name]) for name in ("weaved", "packed"))
    # Six degrees of freedom each: |t| stays below 4 but for three runs in a thousand.
    noise = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 7)
    table = np.load(source)
    excess = b.mean() - 2 * least_squares_loss(table["X"], table["y"])
    assert -4 * noise - 0.25 * excess <= a.mean() - b.mean() <= 4 * noise, (a, b, excess)


def test_the_model_does_not_depend_on_chunks_threads_or_the_store(tmp_path: Path) -> None:
    options = TrainOptions(bits=2, epochs=3)
    dataset = weaved(tmp_path, samples=2)
    other = weaved(tmp_path, samples=2, chunk_rows=320)
    models = [
        train(dataset, options, threads=1).model,
        train(dataset, options, threads=2).model,
        train(other, options).model,
        train(in_memory(dataset), options).model,
    ]
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef, models[0].coef)
        np.testing.assert_array_equal(model.intercept, models[0].intercept)
    assert models[0].record["bits"] == 2
    np.testing.assert_array_equal(
        dataset.spec.precision_variance, other.spec.precision_variance
    )  # fmt: skip


def test_classes_are_learnt_at_two_bits(tmp_path: Path) -> None:
    source = classes_npz(tmp_path / "c.npz", rows=4000)
    dataset = compressed(source, tmp_path / "c", bits=8, samples=2, layout="weaved")
    accuracy = {
        bits: evaluate(train(dataset, TrainOptions(bits=bits, epochs=20)).model, source)["accuracy"]
        for bits in (2, 8)
    }
    assert accuracy[8] > 0.85 and accuracy[2] > accuracy[8] - 0.03


def test_damage_is_found_by_who_reads_the_damaged_plane(tmp_path: Path) -> None:
    dataset = weaved(tmp_path, samples=1)
    path = Path(dataset.path) / dataset.chunk_key(1)
    data = bytearray(path.read_bytes())
    header = dataset.read_chunk(1).header
    plane = 3  # of the fourth bit
    data[header.codes_offset + plane * header.plane_size + 5] ^= 16
    path.write_bytes(data)
    dataset.read_chunk(1, 2)
    dataset.read_chunk(0, 8)
    with pytest.raises(DataError, match=r"chunk X/c/1/0 of .*plane 3 does not match"):
        dataset.read_chunk(1, 4)
    with pytest.raises(DataError, match=r"chunk X/c/1/0 of .*checksum does not match"):
        dataset.read_chunk(1)
    data[20] ^= 1  # the seed
    path.write_bytes(data)
    with pytest.raises(DataError, match="checksum of its head"):
        dataset.read_chunk(1, 2)
    path.write_bytes((Path(dataset.path) / dataset.chunk_key(0)).read_bytes())
    with pytest.raises(DataError, match="another dataset"):
        dataset.read_chunk(1, 2)
    path.write_bytes(bytes(data[:300]))
    with pytest.raises(DataError, match="ends before byte"):
        dataset.read_chunk(1, 2)
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        dataset.read_chunk(1, 2)


def test_what_a_dataset_cannot_be_read_at_is_said(tmp_path: Path) -> None:
    dataset = weaved(tmp_path, samples=1, precisions=(2, 4))
    assert dataset.spec.quantizer.precisions == (2, 4, 8)
    with pytest.raises(UsageError, match="stored for 2, 4, 8 bits, not for 3"):
        train(dataset, TrainOptions(bits=3))
    packed = compressed(tmp_path / "t.npz", tmp_path / "p", bits=4)
    with pytest.raises(UsageError, match="packed at 4 bits and cannot be read at 2"):
        train(packed, TrainOptions(bits=2))
    assert train(packed, TrainOptions(bits=4, epochs=1)).model.record["bits"] == 4
    with pytest.raises(UsageError, match="levels 'uniform'"):
        compressed(tmp_path / "t.npz", tmp_path / "q", layout="weaved", levels="optimal")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_tools_read_a_weaved_dataset(tmp_path: Path, zarr_format: int) -> None:
    import xarray
    import zarr

    dataset = weaved(tmp_path, samples=2, zarr_format=zarr_format)
    plain = zarr.open_group(dataset.path, mode="r")["X"][:]
    chunk = dataset.read_chunk(0)
    np.testing.assert_array_equal(plain[:1024], chunk.decode())
    with xarray.open_zarr(dataset.path) as opened:
        np.testing.assert_array_equal(opened["X"].values, plain)
    x = np.load(tmp_path / "t.npz")["X"]
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    step = (standard.max(axis=0) - standard.min(axis=0)) / 256
    assert (np.abs(plain - standard) <= step * (1 + 1e-4)).all()


def test_the_command_line_weaves_describes_and_trains(tmp_path: Path) -> None:
    regression_npz(tmp_path / "t.npz", rows=2000)
    source, dest = str(tmp_path / "t.npz"), str(tmp_path / "w.zarr")
    runner = CliRunner()
    words = ["compress", source, dest, "--layout", "weaved", "--bits", "8", "--samples", "1"]
    done = runner.invoke(app, [*words, "--precisions", "2,4"])
    assert done.exit_code == 0, done.output
    shown = runner.invoke(app, ["info", dest]).output
    assert "8 bits, weaved, 11 stored" in shown
    assert "at 2 bits" in shown and "at 8 bits" in shown
    facts = json.loads(runner.invoke(app, ["info", dest, "--json"]).output)
    assert facts["layout"] == "weaved"
    assert [reading["bits"] for reading in facts["precisions"]] == [2, 4, 8]
    sizes = [reading["bytes"] for reading in facts["precisions"]]
    variances = [reading["variance"] for reading in facts["precisions"]]
    assert sizes == sorted(sizes) and variances == sorted(variances, reverse=True)
    trained = runner.invoke(app, ["train", dest, "--bits", "2", "--epochs", "2", "--json"])
    assert json.loads(trained.output)["epochs"][0]["bytes_read"] == sizes[0]
    wrong = runner.invoke(app, ["train", dest, "--bits", "3"])
    assert wrong.exit_code != 0
    assert describe(open_dataset(dest))["precisions"] == facts["precisions"]


def test_compressing_twice_gives_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    one = weaved(tmp_path, samples=2, threads=1)
    four = weaved(tmp_path, samples=2, threads=4)
    assert tree_bytes(Path(one.path)) == tree_bytes(Path(four.path))
