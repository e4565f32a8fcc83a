"""The solvers `gram` and `svrg`, momentum, and schedules."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import classes_npz, compressed, regression_npz

from zipml_ooc import Dataset, TrainOptions, UsageError, train
from zipml_ooc.training import plan as plan_module
from zipml_ooc.training.schedules import SCHEDULES, Schedule, relative_step


def decoded(dataset: Dataset) -> np.ndarray:
    chunks = [dataset.read_chunk(i) for i in range(dataset.spec.chunks)]
    return np.concatenate([c.decode_rows(0, c.header.rows) for c in chunks]).astype("f8")


def stored_model(dataset: Dataset, l2: float, tau: float, *, intercept: bool) -> np.ndarray:
    """The corrected ridge solution on the stored values, straight from its definition."""
    spec, x = dataset.spec, decoded(dataset)
    y = np.asarray(dataset.read_target(0, spec.rows))
    if intercept:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    taken = tau * spec.variance / spec.quantizer.samples
    return np.linalg.solve(x.T @ x / len(x) + np.diag(l2 - taken), x.T @ y / len(x)).T


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 8, "samples": 1},
        {"bits": 4, "samples": 2},
        {"bits": 3, "samples": 1, "levels": "optimal"},
        {"bits": 5, "scale": "row"},
        {"bits": 6, "scale": "row", "standardize": False},
        {"bits": 4, "standardize": False},
    ],
)
def test_gram_is_the_solution_on_the_stored_values(
    tmp_path: Path, options: dict[str, Any], intercept: bool
) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=3000), tmp_path / "d", **options)
    for l2, tau in ((0.0, 0.0), (0.02, 0.5)):
        wanted = TrainOptions(solver="gram", l2=l2, shrinkage=tau, fit_intercept=intercept)
        model = train(dataset, wanted).model
        expected = stored_model(dataset, l2, tau, intercept=intercept)
        size = np.abs(expected).max()
        np.testing.assert_allclose(model.coef, expected, rtol=2e-4, atol=2e-5 * size)


def test_gram_and_sgd_agree_on_the_loss(tmp_path: Path) -> None:
    """Its loss comes from the moments, that of SGD from another pass: they mean the same."""
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=6000), tmp_path / "d", bits=5)
    solved = train(dataset, TrainOptions(solver="gram", validation=0.25))
    stepped = train(dataset, TrainOptions(validation=0.25))
    assert solved.loss == pytest.approx(stepped.loss, rel=1e-3)
    assert solved.validation_loss == pytest.approx(stepped.validation_loss, rel=1e-3)
    assert solved.loss <= stepped.loss


def test_gram_solves_for_several_targets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 6))
    y = x @ rng.standard_normal((6, 3)) + [1, 2, 3] + 0.1 * rng.standard_normal((3000, 3))
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=8)
    model = train(dataset, TrainOptions(solver="gram")).model
    design = np.column_stack([x, np.ones(3000)])
    expected = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(model.decision_function(x), design @ expected, atol=0.02)


def test_a_path_gives_the_models_of_single_runs_and_keeps_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((600, 150)) * 10.0 ** rng.uniform(-1, 1, 150)
    y = x[:, :5].sum(axis=1) / np.abs(x[:, :5]).max() + rng.standard_normal(600)
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=6, standardize=False)
    strengths = (0.0, 1e-4, 1e-2, 1.0, 100.0)
    whole = train(dataset, TrainOptions(solver="gram", l2_path=strengths, validation=0.3))
    assert [point.l2 for point in whole.l2_path] == list(strengths)
    tau = whole.model.record["shrinkage"]
    for point in whole.l2_path:
        options = TrainOptions(solver="gram", l2=point.l2, validation=0.3, shrinkage=tau)
        one = train(dataset, options)
        assert one.loss == pytest.approx(point.loss, rel=1e-5)
        assert one.validation_loss == pytest.approx(point.validation_loss, rel=1e-5)
    best = min(whole.l2_path, key=lambda point: point.validation_loss)
    assert best.l2 > 0
    assert (whole.loss, whole.validation_loss) == (best.loss, best.validation_loss)


def test_columns_that_are_copies_or_constant_share_the_solution(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (2000, 4)).astype("f8")
    x = np.column_stack([x, x[:, 0], np.ones(2000)])
    y = 2 * x[:, 0] + x[:, 1] + 0.1 * rng.standard_normal(2000)
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=8)
    model = train(dataset, TrainOptions(solver="gram")).model
    found = model.coef[0] / np.where(dataset.spec.scale > 0, dataset.spec.scale, 1)
    np.testing.assert_allclose(found, [1, 1, 0, 0, 1, 0], atol=0.02)


@pytest.mark.parametrize("classes", [2, 3])
def test_gram_solves_ls_svm_on_the_signs_of_classes(tmp_path: Path, classes: int) -> None:
    """As least squares on 1 and -1, one class against the rest; its loss is what sgd reports."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, classes, 3000)
    x = (2 * rng.standard_normal((classes, 5)))[y] + rng.standard_normal((3000, 5))
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=4, task="classification")
    found = train(dataset, TrainOptions(loss="ls-svm", solver="gram", l2=0.02, shrinkage=0.5))
    stored, spec = decoded(dataset), dataset.spec
    sign = np.where(y[:, None] == (np.arange(3) if classes == 3 else [1]), 1.0, -1.0)
    centred = stored - stored.mean(axis=0)
    matrix = centred.T @ centred / 3000 + np.diag(0.02 - 0.5 * spec.variance / 2)
    expected = np.linalg.solve(matrix, centred.T @ sign / 3000).T
    size = np.abs(expected).max()
    np.testing.assert_allclose(found.model.coef, expected, rtol=2e-4, atol=2e-5 * size)
    intercept = sign.mean(axis=0) - expected @ stored.mean(axis=0)
    np.testing.assert_allclose(found.model.intercept, intercept, atol=2e-5 * size)
    stepped = train(dataset, TrainOptions(loss="ls-svm", l2=0.02, shrinkage=0.5, epochs=40))
    assert found.loss == pytest.approx(stepped.loss, rel=2e-3)
    assert found.model.predict(x[:9]).tolist() == stepped.model.predict(x[:9]).tolist()


def test_gram_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    labels = compressed(classes_npz(tmp_path / "c.npz"), tmp_path / "c")
    with pytest.raises(UsageError, match="squared loss or ls-svm"):
        train(labels, TrainOptions(solver="gram"))
    np.savez(tmp_path / "w.npz", X=np.random.default_rng(0).random((70, 4097)), y=np.arange(70.0))
    wide = compressed(tmp_path / "w.npz", tmp_path / "w", bits=2)
    with pytest.raises(UsageError, match="up to 4096 columns"):
        train(wide, TrainOptions(solver="gram", shrinkage=0.0))


@pytest.mark.parametrize("replicas", [1, 4])
def test_svrg_converges_linearly_to_the_solution(tmp_path: Path, replicas: int) -> None:
    """Two epochs more divide the distance by at least twenty, down to single precision."""
    source = regression_npz(tmp_path / "t.npz", rows=6000)
    dataset = compressed(source, tmp_path / "d", bits=4, samples=2)
    exact = train(dataset, TrainOptions(solver="gram", shrinkage=0.8)).model.coef

    def distance(epochs: int, solver: str = "svrg") -> float:
        options = TrainOptions(solver=solver, shrinkage=0.8, epochs=epochs, replicas=replicas)
        found = train(dataset, options).model.coef
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    ends = [distance(epochs) for epochs in (1, 3, 5, 7)]
    for before, after in itertools.pairwise(ends):
        assert after <= max(before / 20, 1e-6), ends
    assert ends[-1] <= 1e-6
    assert distance(14, "sgd") >= 1000 * ends[-1]  # as many passes over the data


def test_svrg_takes_the_logistic_loss_to_a_gradient_of_zero(tmp_path: Path) -> None:
    source = classes_npz(tmp_path / "t.npz", rows=4000)
    dataset = compressed(source, tmp_path / "d", bits=8, samples=1)
    for extra in ({"sampling": "naive", "l2": 0.01}, {"l2": 0.01}):
        options = TrainOptions(solver="svrg", epochs=60, **extra)
        model = train(dataset, options).model
        x = decoded(dataset)
        y = (np.load(source)["y"] == "yes").astype("f8")
        residual = 1 / (1 + np.exp(-model.decision_function(np.load(source)["X"])[:, 0])) - y
        slope = x.T @ residual / len(x) + 0.01 * model.coef[0]
        assert np.abs(slope).max() <= 3e-3
        assert abs(residual.mean()) <= 3e-3


def test_full_gradients_may_read_more_bits_than_the_steps(tmp_path: Path) -> None:
    """Steps at two bits, full gradients at eight: the run ends where one at eight bits ends."""
    source = regression_npz(tmp_path / "t.npz", rows=6000)
    dataset = compressed(source, tmp_path / "d", bits=8, layout="weaved", precisions=(2, 8))
    both = {"shrinkage": 0.5, "solver": "svrg", "epochs": 30}
    low = train(dataset, TrainOptions(bits=2, **both))
    high = train(dataset, TrainOptions(bits=8, **both))
    mixed = train(dataset, TrainOptions(bits=2, full_gradient_bits=8, **both))
    size = np.linalg.norm(high.model.coef)
    assert np.linalg.norm(low.model.coef - high.model.coef) >= 0.01 * size
    assert np.linalg.norm(mixed.model.coef - high.model.coef) <= 1e-5 * size
    read = [run.epochs[-1].bytes_read for run in (low, mixed, high)]
    assert read[0] < read[1] < read[2]


@pytest.fixture
def many_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_WINDOW_VALUES", 1)
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 4)


@pytest.mark.usefixtures("many_windows")
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "gram", "validation": 0.2, "l2_path": (0.0, 0.1)},
        {"solver": "gram", "l1": 0.1},
        {"solver": "svrg", "epochs": 3, "l1": 0.01},
        {"solver": "svrg", "epochs": 3, "double_form": "split", "momentum": 0.5},
        {"momentum": 0.9, "epochs": 3, "schedule": "cosine", "l1": 0.05},
        {"momentum": 0.9, "epochs": 3, "arithmetic": "int8", "schedule": "1cycle"},
    ],
)
def test_threads_and_workers_do_not_change_the_model(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=5000), tmp_path / "d", bits=4)
    models = set()
    for where in ({"threads": 1}, {"threads": 4}, {"workers": 2}):
        train(dataset, TrainOptions(**options), **where).model.save(tmp_path / "m.zipml")
        models.add((tmp_path / "m.zipml").read_bytes())
        (tmp_path / "m.zipml").unlink()
    assert len(models) == 1


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_momentum_reaches_the_solution_and_changes_the_way(tmp_path: Path, momentum: float) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=6000), tmp_path / "d", bits=8)
    plain, moved = (train(dataset, TrainOptions(momentum=m, epochs=30)) for m in (0.0, momentum))
    exact = train(dataset, TrainOptions(solver="gram"))
    assert not np.array_equal(plain.model.coef, moved.model.coef)
    assert moved.loss <= 1.002 * exact.loss


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_reaches_the_solution(tmp_path: Path, schedule: str) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=6000), tmp_path / "d", bits=8)
    exact = train(dataset, TrainOptions(solver="gram")).loss
    assert train(dataset, TrainOptions(schedule=schedule, epochs=40)).loss <= 1.002 * exact


@given(part=st.floats(0, 1), schedule=st.sampled_from(SCHEDULES[1:]))
def test_steps_stay_between_a_twentieth_and_the_whole(part: float, schedule: str) -> None:
    assert 0.05 - 1e-12 <= relative_step(schedule, part) <= 1.0


def test_steps_rise_and_fall_as_the_schedules_say() -> None:
    at = {name: [relative_step(name, i / 20) for i in range(21)] for name in SCHEDULES[1:]}
    assert set(at["constant"]) == {1.0}
    for name in ("inverse", "cosine", "linear"):
        assert at[name] == sorted(at[name], reverse=True)
        assert (at[name][0], at[name][-1]) == (1.0, pytest.approx(0.05))
    assert at["linear"][:11] == [1.0] * 11
    peak = at["1cycle"].index(1.0)
    assert peak == 6
    assert at["1cycle"][: peak + 1] == sorted(at["1cycle"][: peak + 1])
    assert at["1cycle"][peak:] == sorted(at["1cycle"][peak:], reverse=True)
    assert (at["1cycle"][0], at["1cycle"][-1]) == (pytest.approx(0.05), pytest.approx(0.05))


@given(first=st.floats(0, 0.99), length=st.floats(0.001, 1), batches=st.integers(1, 100))
def test_averaging_begins_in_the_middle(first: float, length: float, batches: int) -> None:
    last = min(first + length, 1.0)
    begins = Schedule(1.0, 0.0, average=True).average_from(first, last, batches)
    assert 0 <= begins <= batches
    if begins > 0:
        assert first + (last - first) * (begins - 1) / batches < 0.5 + 1e-9
    if begins < batches:
        assert first + (last - first) * begins / batches >= 0.5 - 1e-9
    assert Schedule(1.0, 0.0, average=False).average_from(first, last, batches) == batches
