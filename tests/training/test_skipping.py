"""Damaged chunks: an error with their key, or left out, counted, and the same on every machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tables import compressed, regression_npz, write_csv
from typer.testing import CliRunner
from zipml_cli.main import app

from zipml_ooc import DataError, TrainOptions, UsageError, open_dataset, train
from zipml_ooc.stores import retries
from zipml_ooc.training import skipping
from zipml_ooc.training.plan import make_plan

CHUNK = 256
OPTIONS = TrainOptions(epochs=3, replicas=2, validation=0.2, on_error="skip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve chunks, the last one short, of which four are damaged in four ways."""
    table = np.load(regression_npz(tmp_path / "t.npz", rows=12 * CHUNK - 100))
    columns = {f"x{j}": table["X"][:, j] for j in range(10)}
    source = write_csv(
        tmp_path / "t.csv", columns | {"y": table["y"], "w": np.ones(len(table["y"]))}
    )
    compressed(source, tmp_path / "d", ("y",), chunk_rows=CHUNK, weight="w")
    place = tmp_path / "d"
    (place / "X/c/1/0").unlink()
    path = place / "X/c/4/0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (place / "y/c/7").write_bytes((place / "y/c/7").read_bytes()[:-3])
    (place / "sample_weight/c/11").unlink()
    return place


ROWS = 3 * CHUNK + CHUNK - 100


def test_without_a_word_the_first_damaged_chunk_ends_the_run(folder: Path) -> None:
    with pytest.raises(DataError, match=r"chunk (X/c/1/0|X/c/4/0|y/c/7|sample_weight/c/11) of "):
        train(str(folder))


def test_damaged_chunks_are_left_out_and_told(folder: Path) -> None:
    results = [
        train(str(folder), OPTIONS, threads=threads, workers=workers, memory=memory)
        for threads, workers, memory in ((1, None, None), (3, None, "0"), (None, 2, "1MB"))
    ]
    first = results[0]
    assert first.skipped.chunks == (1, 4, 7, 11) and first.skipped.rows == ROWS
    assert first.model.record["skipped"] == {"chunks": 4, "rows": ROWS, "numbers": [1, 4, 7, 11]}
    for reason, key in zip(
        first.skipped.reasons, ("X/c/1/0", "X/c/4/0", "y/c/7", "sample_weight/c/11"), strict=True
    ):
        assert f"chunk {key} of {folder}" in reason
    for other in results[1:]:
        np.testing.assert_array_equal(other.model.coef, first.model.coef)
        assert other.model.record == first.model.record


def test_what_is_left_out_has_no_part_in_the_model(folder: Path, tmp_path: Path) -> None:
    """Whatever else stands in the chunks that are left out, the model is the same."""
    shutil.copytree(folder, tmp_path / "e")
    for number in (1, 4, 7, 11):
        (tmp_path / "e" / f"X/c/{number}/0").unlink(missing_ok=True)
    here, there = train(str(folder), OPTIONS), train(str(tmp_path / "e"), OPTIONS)
    np.testing.assert_array_equal(here.model.coef, there.model.coef)
    assert here.validation_loss == there.validation_loss
    plan = make_plan(
        open_dataset(folder).spec, OPTIONS, here.skipped.tiles(open_dataset(folder).spec)
    )
    visited = [plan.training_tiles(w, 0) for w in range(plan.windows)]
    visited += [plan.held_out_tiles(w) for w in range(plan.windows)]
    tiles = CHUNK // 64
    left = {t for n in here.skipped.chunks for t in range(n * tiles, (n + 1) * tiles)}
    assert sorted(np.concatenate(visited).tolist()) == sorted(set(range(plan.tiles)) - left)
    assert plan.training_tile_count + plan.validation_tiles == plan.tiles - len(
        left & set(range(plan.tiles))
    )


def test_a_whole_dataset_gives_the_model_that_it_gives_without_the_option(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d", chunk_rows=CHUNK)
    plain, skipping_ = (
        train(dataset, TrainOptions(epochs=2, on_error=choice)) for choice in ("raise", "skip")
    )
    np.testing.assert_array_equal(plain.model.coef, skipping_.model.coef)
    assert not skipping_.skipped.chunks and "skipped" not in skipping_.model.record


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d", chunk_rows=CHUNK)
    shutil.rmtree(tmp_path / "d/X/c")
    with pytest.raises(
        DataError, match=r"no chunk of .* can be used; the first one: chunk X/c/0/0"
    ):
        train(str(tmp_path / "d"), OPTIONS)
    with pytest.raises(UsageError, match="on error must be one of raise, skip"):
        TrainOptions(on_error="ignore")


def test_a_store_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d", chunk_rows=CHUNK)

    def gone(*_: object) -> memoryview:
        raise retries.UnavailableError("no answer (6 attempts in 6.1 s)")

    skipping.set_budget(0)
    monkeypatch.setattr(type(dataset.store), "read_checked", gone)
    with pytest.raises(DataError, match=r"chunk X/c/\d/0 of .* cannot be read: no answer"):
        train(str(tmp_path / "d"), OPTIONS, threads=1, memory=0)


def test_weaved_planes_that_the_run_does_not_read_do_not_matter(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=1000)
    dataset = compressed(
        source, tmp_path / "d", bits=8, samples=1, layout="weaved", chunk_rows=CHUNK
    )
    header = dataset.read_chunk(1).header
    path = tmp_path / "d" / dataset.chunk_key(1)
    data = bytearray(path.read_bytes())
    data[header.codes_offset + 5 * header.plane_size + 3] ^= 1  # of the sixth bit
    path.write_bytes(data)
    for bits, left_out in ((2, ()), (8, (1,)), ("2:8", (1,))):
        result = train(str(tmp_path / "d"), TrainOptions(bits=bits, epochs=2, on_error="skip"))
        assert result.skipped.chunks == left_out


def test_the_command_line_tells_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    words = ["train", str(folder), "--epochs", "2", "--on-error", "skip"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"4 damaged chunk(s) with {ROWS} rows" in done.output
    assert "X/c/1/0" in done.output
    printed = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert printed["skipped"] == {"chunks": 4, "rows": ROWS, "numbers": [1, 4, 7, 11]}
