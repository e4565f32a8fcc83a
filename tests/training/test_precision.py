"""Schedules of precision: when they go on, what they read, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tables import compressed, least_squares_loss, regression_npz

from zipml_ooc import Dataset, TrainOptions, UsageError, evaluate, train
from zipml_ooc.training.precision import Stages, parse_bits
from zipml_ooc.training.results import EpochRecord


def records(losses: list[float], validation: list[float] | None = None) -> list[EpochRecord]:
    held_out = validation or [None] * len(losses)
    return [
        EpochRecord(i + 1, loss, v, 0.0, 0)
        for i, (loss, v) in enumerate(zip(losses, held_out, strict=True))
    ]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    source = regression_npz(tmp_path / "t.npz", rows=4000)
    return compressed(source, tmp_path / "d", bits=8, samples=1, layout="weaved")


def test_a_list_of_precisions_gets_equal_parts_of_the_run() -> None:
    stages = Stages(3, 9, auto=False)
    raised = [(epoch, stages.next_epoch(epoch, []), stages.stage) for epoch in range(9)]
    assert [stage for _, _, stage in raised] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [epoch for epoch, now, _ in raised if now] == [3, 6]


def test_auto_goes_on_where_the_loss_stalls_and_stays_at_the_last() -> None:
    losses = [1.0, 0.5, 0.45, 0.44, 0.45, 0.3, 0.29, 0.1, 0.1, 0.1, 0.1]
    stages, seen = Stages(3, len(losses), auto=True), []
    for epoch in range(len(losses)):
        stages.next_epoch(epoch, records(losses[:epoch]))
        seen.append(stages.stage)
    # The fourth epoch falls by less than 5 %, and so does the seventh.
    assert seen == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    by_validation = Stages(2, 9, auto=True)
    for epoch in range(3):
        by_validation.next_epoch(epoch, records([1 / (i + 1) for i in range(epoch)], [1.0] * epoch))
    assert by_validation.stage == 1


def test_the_forms_of_bits() -> None:
    assert parse_bits("4") == 4 and parse_bits(4) == 4 and parse_bits(None) is None
    assert parse_bits("2:4:8") == "2:4:8" and parse_bits(" auto".strip()) == "auto"
    for wrong in ("x", "2:", "2-4", ""):
        with pytest.raises(UsageError, match="bits must be a number, several that rise"):
            TrainOptions(bits=wrong)
    for wrong in ("4:2", "2:2"):
        with pytest.raises(UsageError, match="must rise"):
            TrainOptions(bits=wrong)
    with pytest.raises(UsageError, match="solver gram takes no steps: leave out bits 2:4"):
        TrainOptions(bits="2:4", solver="gram")


def test_a_schedule_reads_each_precision_in_its_part_of_the_run(
    dataset: Dataset, tmp_path: Path
) -> None:
    result = train(dataset, TrainOptions(bits="2:4:8", epochs=12))
    assert [e.bits for e in result.epochs] == [2] * 4 + [4] * 4 + [8] * 4
    assert [e.bytes_read for e in result.epochs] == [
        dataset.bytes_at(e.bits) for e in result.epochs if e.bits
    ]
    assert result.model.record["bits"] == 8
    table = np.load(tmp_path / "t.npz")
    optimum = 2 * least_squares_loss(table["X"], table["y"])
    assert evaluate(result.model, tmp_path / "t.npz")["rmse"] ** 2 < 1.01 * optimum
    again = train(dataset, TrainOptions(bits="2:4:8", epochs=12), threads=2)
    np.testing.assert_array_equal(again.model.coef, result.model.coef)


def test_auto_begins_low_and_rises(dataset: Dataset) -> None:
    result = train(dataset, TrainOptions(bits="auto", epochs=20))
    bits = [e.bits for e in result.epochs]
    assert bits[0] == 1 and bits == sorted(bits) and bits[-1] > 1
    assert set(bits) <= {1, 2, 4, 8}
    held_out = train(dataset, TrainOptions(bits="auto", epochs=20, validation=0.2))
    assert [e.bits for e in held_out.epochs] == sorted(e.bits or 0 for e in held_out.epochs)


def test_a_run_that_starts_again_begins_at_the_first_precision(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zipml_ooc.training import run

    real = run.step_size
    monkeypatch.setattr(run, "step_size", lambda *a: 400 * real(*a))
    result = train(dataset, TrainOptions(bits="2:8", epochs=6, arithmetic="float"))
    assert [e.bits for e in result.epochs] == [2, 2, 2, 8, 8, 8]
    assert np.isfinite(result.loss)


def test_a_packed_dataset_has_no_schedule(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=300)
    packed = compressed(source, tmp_path / "p", bits=4)
    with pytest.raises(UsageError, match="bits 2:4 needs several precisions"):
        train(packed, TrainOptions(bits="2:4"))
