"""Training on executors: as the native core does, and the same whoever runs which window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import executor_cases as cases
import numpy as np
import pytest
from model_cases import assert_same
from tables import classes_npz, compressed

from zipml_ooc import Checkpoints, Dataset, TrainOptions, UsageError, train
from zipml_ooc.errors import ExecutorError
from zipml_ooc.executors.sessions import borrowed
from zipml_ooc.training import pace
from zipml_ooc.training import plan as plan_module
from zipml_ooc.training.executing import Chosen

FRAGILE = {"executor": "fragile", "epochs": 4}


@pytest.fixture(autouse=True)
def fragile() -> Iterator[None]:
    with cases.registered(fragile="executor_cases:fragile"):
        yield
    assert not cases.OPENED


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cases.table(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of four tiles, and so several replicas in a small table."""
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 4)
    monkeypatch.setattr(plan_module, "_MAX_WINDOW_TILES", 4)


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        ({"samples": 2, "levels": "optimal"}, {"l1": 0.01}),
        ({"samples": 2}, {"double_form": "split", "batch_rows": 128}),
        ({"samples": 2, "layout": "weaved"}, {"double_form": "split"}),
        ({"bits": 8, "layout": "weaved"}, {"bits": 8, "momentum": 0.5}),
        ({"scale": "row"}, {"loss": "huber", "fit_intercept": False}),
        ({}, {"solver": "svrg", "step_size": 0.1}),
    ],
)
def test_the_reference_trains_as_the_native_core_does(
    tmp_path: Path, stored: dict[str, Any], options: dict[str, Any]
) -> None:
    dataset = cases.table(tmp_path, rows=500, **stored)
    native, reference = (
        train(dataset, TrainOptions(epochs=3, arithmetic="float", executor=name, **options))
        for name in ("native", "reference")
    )
    scale = np.abs(native.model.coef).max()
    np.testing.assert_allclose(reference.model.coef, native.model.coef, atol=1e-4 * scale)
    assert reference.loss == pytest.approx(native.loss, rel=1e-4)
    assert [e.loss for e in reference.epochs] == pytest.approx(
        [e.loss for e in native.epochs], rel=1e-3
    )
    assert native.counters is None and reference.counters.runs >= 3


@pytest.mark.usefixtures("small_windows")
def test_the_model_does_not_depend_on_threads_and_devices(data: Dataset) -> None:
    options = TrainOptions(**FRAGILE, replicas=4, validation=0.1)
    devices = replace(options, executor_options={"device": "a+b"})
    one = train(data, options, threads=1)
    assert_same(one.model, train(data, options, threads=4).model)
    two = train(data, devices, threads=4).model
    two.record.update(options=one.model.record["options"], executor=one.model.record["executor"])
    assert_same(one.model, two)


@pytest.mark.usefixtures("small_windows")
def test_a_run_that_goes_on_counts_and_ends_as_one_that_was_not_stopped(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_MOST", 1)
    options = TrainOptions(**FRAGILE, replicas=3)
    whole = train(data, options)
    other = replace(options, executor_options={"runs": 0})

    def stop(record: Any, epochs: int) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, options, progress=stop, checkpoints=Checkpoints(tmp_path), notice=print)
    with pytest.raises(UsageError, match=r"executor options \{\} there"):
        train(data, other, checkpoints=Checkpoints(tmp_path, resume=True), notice=print)
    resumed = train(data, options, checkpoints=Checkpoints(tmp_path, resume=True), notice=print)
    assert_same(whole.model, resumed.model)
    assert whole.counters.cycles == resumed.counters.cycles > 0


def test_the_record_tells_what_computed(data: Dataset) -> None:
    result = train(data, TrainOptions(**FRAGILE))
    record = result.model.record
    assert record["arithmetic"] == "fixed16" and record["executor"]["name"] == "fragile"
    counted = record["executor"]["counters"]
    tiles = -(-3000 // 64)
    assert counted["beats"] == result.counters.beats == 4 * tiles * (6 + 4)
    assert counted["bytes"] == counted["beats"] * 32
    assert counted["cycles"] > counted["beats"] and "seconds" not in counted
    assert sum(e.counters.cycles for e in result.epochs) == counted["cycles"]
    assert result.counters.seconds > 0
    native = train(data, TrainOptions(epochs=1)).model.record
    assert "executor" not in native and "executor" not in native["options"]


@pytest.mark.usefixtures("small_windows")
def test_a_lost_device_is_an_error_that_says_where_and_what_to_do(data: Dataset) -> None:
    options = TrainOptions(**FRAGILE, replicas=1, executor_options={"runs": 30})
    with pytest.raises(ExecutorError) as caught:
        train(data, options)
    text = str(caught.value)
    assert "executor fragile was lost in window" in text and "of epoch 3" in text
    assert "the cable is out" in text and "--fallback native" in text and "\n" not in text


@pytest.mark.usefixtures("small_windows")
def test_a_device_that_somebody_else_has_is_passed_over(data: Dataset) -> None:
    from zipml_ooc.gateware.formats import Format

    taken = cases.Fragile(Format(4), "a", -1)
    try:
        options = TrainOptions(**FRAGILE, executor_options={"device": "a+b"})
        assert train(data, options, threads=1).counters.runs > 0
        alone = TrainOptions(**FRAGILE, executor_options={"device": "a"})
        with pytest.raises(ExecutorError, match=r"lost in window .* a is taken"):
            train(data, alone)
    finally:
        taken.close()


def test_a_task_that_a_run_has_left_behind_opens_nothing(data: Dataset) -> None:
    seen: list[Chosen] = []
    real = Chosen.close

    def close(self: Chosen) -> None:
        seen.append(self)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chosen, "close", close)
        train(data, TrainOptions(**FRAGILE))
    (chosen,) = seen
    with pytest.raises(ExecutorError, match="the run has ended"), borrowed(chosen.key, None):
        pass  # pragma: no cover
    assert train(data, TrainOptions(**FRAGILE)).counters.runs > 0


@pytest.mark.usefixtures("small_windows")
def test_with_a_fallback_the_run_goes_on_from_that_window(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    shape = dict(FRAGILE, replicas=1, fallback="native")
    options = TrainOptions(**shape, executor_options={"runs": 30})
    result = train(data, options, notice=said.append)
    assert result.lost is not None and result.lost.epoch == 2
    assert result.counters.runs == 30
    assert result.model.record["executor"]["lost"]["epoch"] == 3
    assert any("the native core goes on" in line for line in said) and len(said) == 1
    # What comes after is what a run from there gives: stopped behind it, it goes on without.
    monkeypatch.setattr(pace, "_MOST", 1)

    def stop(record: Any, epochs: int) -> None:
        if record.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, options, progress=stop, checkpoints=Checkpoints(tmp_path), notice=print)
    resumed = train(data, options, checkpoints=Checkpoints(tmp_path, resume=True), notice=print)
    assert_same(result.model, resumed.model)
    assert resumed.counters.runs == 30


@pytest.mark.parametrize(
    ("stored", "options", "text"),
    [
        ({"levels": "optimal"}, {}, "does not take optimal levels: compress the source again with "
         "--levels uniform"),
        ({"scale": "row"}, {}, "does not take scales by row"),
        ({"layout": "weaved"}, {}, "does not take the weaved layout"),
        ({"bits": 5}, {}, "does not take codes of 5 stored bits"),
        ({}, {"loss": "huber"}, "does not take the huber loss: use --loss squared or ls-svm"),
        ({}, {"l1": 0.1}, "does not take an L1 penalty: leave out --l1"),
        ({}, {"l2": 0.1}, "does not take an L2 penalty"),
        ({}, {"momentum": 0.1}, "does not take momentum"),
        ({}, {"solver": "svrg"}, "does not take --solver svrg: use --solver sgd"),
        ({}, {"solver": "gram"}, "does not take --solver gram: use --solver sgd"),
        ({}, {"arithmetic": "int8"}, "does not take int8 arithmetic: leave out --arithmetic"),
        ({"samples": 2, "bits": 3}, {"double_form": "split"}, "the split form"),
        ({}, {"batch_rows": 64 * 65}, "mini-batches of 4160 rows: use --batch-rows 4096 or less"),
        ({}, {"executor_options": {"exponent": 40}}, "exponent must be 0 to 22; got 40"),
        ({}, {"executor_options": {"exponent": "x"}}, "exponent must be a whole number; got 'x'"),
        ({}, {"executor_options": {"delayed": "yes"}}, "delayed runs take 40 columns and more"),
        ({}, {"executor_options": {"colour": 1}}, "has no option 'colour': it has exponent"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_before_data_are_read(
    tmp_path: Path, stored: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    dataset = cases.table(tmp_path, rows=200, **stored)
    for chunk in Path(dataset.path).glob("[Xy]/c/**/*"):
        chunk.unlink(missing_ok=True) if chunk.is_file() else None
    with pytest.raises(UsageError) as caught:
        train(dataset, TrainOptions(executor="fragile", **options))
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_weights_and_several_classes_are_refused_too(tmp_path: Path) -> None:
    dataset = compressed(
        classes_npz(tmp_path / "c.npz", 200), tmp_path / "c", levels="uniform", samples=1
    )
    options = {"executor": "fragile", "loss": "ls-svm"}
    with pytest.raises(UsageError, match="does not take weights of rows"):
        train(dataset, TrainOptions(**options, class_weight="balanced"))
    assert train(dataset, TrainOptions(**options, epochs=2)).counters.runs == 2


def test_the_logistic_correction_is_held_where_rounding_moves_margins_far(tmp_path: Path) -> None:
    """At two bits and a large model the whole correction would be too much, as for the kernels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 10))
    margin = 1.5 * x @ rng.standard_normal(10) + rng.logistic(size=3000)
    np.savez(tmp_path / "t.npz", X=x, y=np.where(margin > 0, "a", "b"))
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=2, samples=1, levels="uniform")
    native, found = (
        train(dataset, TrainOptions(executor=name, epochs=30)) for name in ("native", "fragile")
    )
    assert found.loss == pytest.approx(native.loss, rel=0.1)
    assert found.epochs[-1].counters.model_clipped == 0


def test_clipping_in_the_last_epoch_is_told_with_the_remedy(data: Dataset) -> None:
    said: list[str] = []
    narrow = TrainOptions(**FRAGILE, executor_options={"exponent": 17})
    result = train(data, narrow, notice=said.append)
    assert result.counters.model_clipped + result.counters.residuals_clipped > 0
    assert said and "exponent=N with a smaller N" in said[0]
    calm: list[str] = []
    train(data, TrainOptions(**FRAGILE), notice=calm.append)
    assert not calm
