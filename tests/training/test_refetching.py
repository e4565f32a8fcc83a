"""Rows of the hinge loss read again: what is fetched, what comes of it, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from tables import classes_npz, compressed
from typer.testing import CliRunner
from zipml_cli.main import app
from zipml_codecs.weave import tile_ranges

from zipml_ooc import DataError, Dataset, TrainOptions, UsageError, evaluate, open_dataset, train
from zipml_ooc.model import LinearModel
from zipml_ooc.training.refetching import WholePlanes

ROWS, COLUMNS = 3000, 8


def weaved(tmp_path: Path, **options: object) -> Dataset:
    source = classes_npz(tmp_path / "c.npz", rows=ROWS, columns=COLUMNS)
    given = {"bits": 8, "layout": "weaved", "samples": 1, "chunk_rows": 1024} | options
    return compressed(source, tmp_path / f"d{uuid4().hex}", **given)


def asked(**changes: object) -> TrainOptions:
    return TrainOptions(**({"loss": "hinge", "sampling": "refetch", "bits": 4} | changes))


def in_memory(dataset: Dataset) -> Dataset:
    files, root = fsspec.core.url_to_fs(f"memory://{uuid4().hex}")
    files.put(str(dataset.path), root, recursive=True)
    return open_dataset(f"memory:/{root}")


def test_the_model_does_not_depend_on_chunks_threads_or_the_store(tmp_path: Path) -> None:
    dataset = weaved(tmp_path, samples=2)
    options = asked(epochs=3, replicas=3, validation=0.1)
    results = [
        train(dataset, options, threads=1),
        train(weaved(tmp_path, samples=2), options, threads=3),
        train(weaved(tmp_path, samples=2, chunk_rows=320), options),
        train(in_memory(dataset), options),
    ]
    first = results[0].model.record
    assert all(0 < epoch["refetch_rate"] < 1 for epoch in first["epochs"])
    for result in results[1:]:
        np.testing.assert_array_equal(result.model.coef, results[0].model.coef)
        np.testing.assert_array_equal(result.model.intercept, results[0].model.intercept)
        assert {**result.model.record, "source": None} == {**first, "source": None}
        assert [e.refetched_bytes for e in result.epochs] == [
            e.refetched_bytes for e in results[0].epochs
        ]


def test_the_rate_is_that_of_the_rows_whose_margin_is_within_the_bound(tmp_path: Path) -> None:
    """After one full step, counted from the values themselves, in doubles."""
    bits = 5
    dataset = weaved(tmp_path, precisions=(bits,), chunk_rows=3072)
    one = asked(
        bits=bits, epochs=1, batch_rows=4096, step_size=0.5, schedule="constant", average=False,
        arithmetic="float",
    )  # fmt: skip
    model = train(dataset, one).model
    two = train(dataset, TrainOptions(**{**vars(one), "epochs": 2}))
    assert two.epochs[0].refetch_rate == 0  # the zero model decides everything
    assert two.epochs[0].refetched_bytes == 0
    spec = dataset.spec
    with np.load(tmp_path / "c.npz") as table:
        x = (table["X"] - spec.mean) / spec.scale
        sign = np.where(table["y"] == "yes", 1, -1)
    step = (spec.upper - spec.lower) / 2.0**bits
    base = np.clip(np.floor((x - spec.lower) / step), 0, 2**bits - 1)
    coef = model.coef[0]
    margin = (spec.lower + (base + 0.5) * step) @ coef + model.intercept[0]
    undecided = np.abs(1 - sign * margin) <= 0.5 * np.abs(coef) @ step
    # A value next to a level may be rounded to the other side of it: a row or two.
    assert two.epochs[1].refetch_rate == pytest.approx(undecided.mean(), abs=2 / ROWS)
    tiles = {int(row) // 64 for row in np.flatnonzero(undecided)}
    slots = sum(min(64, -(-(ROWS - 64 * tile) // 8) * 8) for tile in tiles)
    assert two.epochs[1].refetched_bytes == pytest.approx(slots * COLUMNS * 4 / 8, rel=0.03)
    assert two.epochs[1].bytes_read == dataset.bytes_at(bits) + two.epochs[1].refetched_bytes


@pytest.mark.parametrize("remote", [False, True])
def test_the_store_gives_tiles_that_are_asked_for_once(tmp_path: Path, remote: bool) -> None:
    dataset = weaved(tmp_path, chunk_rows=3072)
    if remote:
        dataset = in_memory(dataset)
    few, whole = dataset.read_chunk(0, 4), dataset.read_chunk(0, 8)
    planes = WholePlanes(dataset, 0, few)
    traffic = dataset.store.traffic
    before = traffic.fetched_bytes, traffic.requests
    run, count = 64 * COLUMNS // 8, 5  # of a tile in a plane, and planes: 4 of the base, a sample
    planes.fetch([3, 46])  # the last one has 56 rows
    last = 56 * COLUMNS // 8
    assert traffic.fetched_bytes - before[0] == count * (run + last)
    assert traffic.requests - before[1] == 2 * count
    planes.fetch([46, 3])
    assert traffic.fetched_bytes - before[0] == count * (run + last)
    assert planes.present().nonzero()[0].tolist() == [3, 46]
    size = few.header.plane_size
    for got, wanted in zip(*(p.codes.reshape(-1, size) for p in (planes, whole)), strict=True):
        for tile in (3, 46):
            part = slice(tile * run, (tile + 1) * run)
            np.testing.assert_array_equal(got[part], wanted[part])
    planes.fetch([5, 4])  # neighbours are one request in each plane
    assert traffic.requests - before[1] == 3 * count
    # From half of them on the others come along, and the checksums are looked at.
    planes.fetch(list(range(25)))
    assert traffic.fetched_bytes - before[0] == few.header.codes_offset + count * size
    assert planes.present().all()
    np.testing.assert_array_equal(planes.codes, whole.codes)


def test_a_run_fetches_no_more_than_what_it_says_and_the_rest_of_chunks(tmp_path: Path) -> None:
    dataset = weaved(tmp_path, chunk_rows=256, bits=8, precisions=(7,))
    traffic = dataset.store.traffic
    before = traffic.fetched_bytes
    result = train(dataset, asked(bits=7, epochs=4), threads=1)
    fetched = traffic.fetched_bytes - before
    planes = 2 * ROWS * COLUMNS // 8  # of the last bit of the base, and its sample
    assert all(0 < epoch.refetched_bytes <= planes for epoch in result.epochs)
    heads = sum(dataset.read_chunk(i).header.codes_offset for i in range(dataset.spec.chunks))
    assert dataset.bytes_at(7) < fetched <= dataset.bytes_at(7) + planes + heads


def test_the_loss_is_that_of_all_bits_where_naive_ends_far_off(tmp_path: Path) -> None:
    """On the original values, beside what 8 bits reach; and the loss that is reported."""
    source = classes_npz(tmp_path / "c.npz", rows=20_000, columns=COLUMNS)
    with np.load(source) as table:
        x, sign = table["X"], np.where(table["y"] == "yes", 1, -1)

    def loss(model: LinearModel) -> float:
        return float(np.maximum(0, 1 - sign * np.ravel(model.decision_function(x))).mean())

    for samples in (1, 2):
        dataset = compressed(
            source, tmp_path / f"s{samples}", bits=8, layout="weaved", samples=samples
        )
        best = loss(train(dataset, TrainOptions(loss="hinge", epochs=20)).model)
        for bits in (2, 4):
            result = train(dataset, asked(bits=bits, epochs=20))
            naive = train(dataset, asked(bits=bits, epochs=20, sampling="naive"))
            assert loss(result.model) < 1.01 * best
            assert result.loss == pytest.approx(loss(result.model), rel=0.02)
            assert loss(naive.model) > (1.05 if bits == 2 else 1.001) * best
            assert naive.loss > 1.1 * loss(naive.model)


def test_integers_weights_classes_and_penalties(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4000, 40))
    code = (x[:, :3] + 0.3 * rng.standard_normal((4000, 3))).argmax(axis=1)
    np.savez(tmp_path / "k.npz", X=x, y=code)
    dataset = compressed(
        tmp_path / "k.npz", tmp_path / "k", bits=8, layout="weaved", task="classification"
    )
    naive = train(dataset, TrainOptions(loss="hinge", bits=8, epochs=10)).model
    reach = evaluate(naive, tmp_path / "k.npz")["accuracy"]
    for changes in ({}, {"arithmetic": "int8"}, {"class_weight": "balanced"}, {"l1": 0.01}):
        result = train(dataset, asked(epochs=10, **changes))
        assert evaluate(result.model, tmp_path / "k.npz")["accuracy"] > reach - 0.02
        assert result.model.record["epochs"][-1]["refetch_rate"] > 0
    assert (result.model.coef == 0).any()  # of l1


def test_damage_is_found_where_planes_are_read_whole(tmp_path: Path) -> None:
    dataset = weaved(tmp_path, chunk_rows=3072)
    path = Path(dataset.path) / dataset.chunk_key(0)
    data = bytearray(path.read_bytes())
    header = dataset.read_chunk(0).header
    (start, length), *_ = tile_ranges(header, 4, [7])
    data[start + 3] ^= 16
    path.write_bytes(data)
    dataset = open_dataset(dataset.path)
    planes = WholePlanes(dataset, 0, dataset.read_chunk(0, 4))
    planes.fetch([7])  # a part of a plane: nobody can tell
    with pytest.raises(DataError, match=r"chunk X/c/0/0 of .*plane 4 does not match"):
        planes.fetch(list(range(40)))
    with pytest.raises(DataError, match="plane 4 does not match"):
        train(dataset, asked(epochs=2))
    path.write_bytes(bytes(data[: start + 3]))
    with pytest.raises(DataError, match="ends before byte"):
        WholePlanes(dataset, 0, dataset.read_chunk(0, 4)).fetch([7])
    assert length == 64 * COLUMNS // 8


def test_a_chunk_whose_further_planes_are_damaged_is_left_out_if_that_is_wanted(
    tmp_path: Path,
) -> None:
    dataset = weaved(tmp_path)
    path = Path(dataset.path) / dataset.chunk_key(1)
    data = bytearray(path.read_bytes())
    (start, _), *_ = tile_ranges(dataset.read_chunk(1).header, 4, [0])
    data[start] ^= 1
    path.write_bytes(data)
    options = asked(epochs=2, on_error="skip")
    result = train(open_dataset(dataset.path), options)
    assert result.model.record["skipped"] == {"chunks": 1, "rows": 1024, "numbers": [1]}
    assert result.epochs[-1].refetch_rate > 0


def test_what_does_not_go_together_is_said_with_a_remedy(tmp_path: Path) -> None:
    dataset = weaved(tmp_path)
    packed = compressed(tmp_path / "c.npz", tmp_path / "p", bits=4)
    alone = weaved(tmp_path, precisions=(8,))
    for where, changes, message in (
        (dataset, {"loss": "logistic"}, "not for the logistic loss: use --loss hinge"),
        (dataset, {"loss": "auto"}, "not for the logistic loss"),
        (dataset, {"bits": None}, r"fewer bits .* 8 that are stored: set --bits to 1, 2, 4"),
        (dataset, {"bits": 8}, "set --bits to 1, 2, 4"),
        (dataset, {"bits": "2:8"}, "set --bits to 1, 2, 4"),
        (dataset, {"bits": 3}, "stored for 1, 2, 4, 8 bits, not for 3"),
        (dataset, {"solver": "svrg"}, "goes with --solver sgd, not with svrg"),
        (alone, {"bits": 8}, "compress again with more --precisions"),
        (packed, {}, "packed at 4 bits: compress the source again with --layout weaved"),
    ):
        with pytest.raises(UsageError, match=message):
            train(where, asked(**changes))
    rising = train(dataset, asked(bits="2:4", epochs=4))
    assert [epoch.bits for epoch in rising.epochs] == [2, 2, 4, 4]
    assert rising.epochs[-1].refetch_rate < rising.epochs[1].refetch_rate


def test_the_command_line_shows_what_was_read_again(tmp_path: Path) -> None:
    dataset = str(weaved(tmp_path).path)
    words = ["train", dataset, "--loss", "hinge", "--bits", "4", "--gradient", "refetch"]
    done = CliRunner().invoke(app, [*words, "--epochs", "3"])
    assert done.exit_code == 0, done.output
    assert "refetch sampling" in done.output
    assert " % of the rows at the end" in done.output
    facts = json.loads(CliRunner().invoke(app, [*words, "--epochs", "3", "--json"]).output)
    last = facts["epochs"][-1]
    assert 0 < last["refetch_rate"] < 1 and 0 < last["refetched_bytes"] < last["bytes_read"]
    plain = CliRunner().invoke(app, ["train", dataset, "--epochs", "1", "--json"])
    assert json.loads(plain.output)["epochs"][0]["refetch_rate"] is None
    wrong = CliRunner().invoke(app, ["train", dataset, "--sampling", "refetch"])
    assert isinstance(wrong.exception, UsageError)
