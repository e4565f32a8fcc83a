"""Rounding variances weighted by the curvature of the loss are those of the original values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tables import compressed

from zipml_ooc import TrainOptions, evaluate, train
from zipml_ooc.training.curved import applies, code_variances, curved_variance
from zipml_ooc.training.plan import make_plan
from zipml_ooc.training.problem import make_problem
from zipml_ooc.training.schedules import Schedule
from zipml_ooc.training.tasks import Job

ROWS, COLUMNS = 40_000, 4


def heavy_tails(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_t(3, (ROWS, COLUMNS))
    y = rng.random(ROWS) < 1 / (1 + np.exp(-x @ rng.standard_normal(COLUMNS)))
    np.savez(path, X=x, y=y)
    return x, y


def test_two_samples_tell_the_variance_without_bias() -> None:
    """In each interval, whatever the values in it."""
    levels = np.array([0.0, 1.0, 1.5, 4.0])
    rng = np.random.default_rng(0)
    a = 4 * rng.beta(1, 3, 400_000)
    base = np.searchsorted(levels, a, side="right") - 1
    left, gap = levels[base], levels[base + 1] - levels[base]
    codes = 2 * base + (rng.random((2, len(a))) < (a - left) / gap).sum(axis=0)
    variance = (a - left) * (left + gap - a) / 2
    found = code_variances(np.array([[0, 0.5, 1, 1.25, 1.5, 2.75, 4, 4]]), samples=2)[0][codes]
    for interval in range(3):
        inside = base == interval
        assert found[inside].mean() == pytest.approx(variance[inside].mean(), rel=0.02)


@pytest.mark.parametrize("samples", [4, 8])
def test_more_samples_tell_it_too(samples: int) -> None:
    rng = np.random.default_rng(1)
    share, gaps = rng.beta(1, 3, 400_000), np.array([1.0, 0.5, 2.5, 0.0])
    for base, gap in enumerate(gaps[:-1]):
        codes = samples * base + (rng.random((samples, len(share))) < share).sum(axis=0)
        values = np.cumsum([0, *np.repeat(gaps, samples) / samples])[:-1]
        found = code_variances(values[None], samples)[0][codes]
        mean = np.mean(share * (1 - share)) * gap**2 / samples
        assert found.mean() == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize(("samples", "tolerance"), [(1, 0.3), (2, 0.04), (8, 0.04)])
def test_weighted_variance_is_that_of_the_original_rows(
    samples: int, tolerance: float, tmp_path: Path
) -> None:
    """Far below the plain ones: rows in the tails have wide steps and a flat loss."""
    x, _ = heavy_tails(tmp_path / "t.npz")
    dataset = compressed(
        tmp_path / "t.npz", tmp_path / "d", bits=5, samples=samples, levels="optimal"
    )
    options = TrainOptions()
    problem, plan = make_problem(dataset.spec, options), make_plan(dataset.spec, options)
    assert applies(problem, by_row=False)
    assert problem.tables is not None
    schedule = Schedule(step_size=1.0, shrinkage=1.0, average=True)
    job = Job(str(dataset.path), problem, plan, schedule, True, 1, 64)
    model, intercept = np.array([[2.0, -1.0, 0.5, 1.5]]), np.array([0.3])
    found = curved_variance(job, problem, model, intercept)

    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    margin = scaled @ model[0] + intercept[0]
    curvature = 1 / (2 + 2 * np.cosh(margin))
    values = problem.offset[:, None] + problem.slope[:, None] * problem.tables
    for j in range(COLUMNS):
        levels = np.unique(values[j, ::samples].astype(np.float64))
        base = np.clip(np.searchsorted(levels, scaled[:, j], side="right") - 1, 0, len(levels) - 2)
        variance = (scaled[:, j] - levels[base]) * (levels[base + 1] - scaled[:, j]) / samples
        assert problem.variance[j] == pytest.approx(variance.mean(), rel=0.01)
        true = np.mean(curvature * variance) / np.mean(curvature)
        assert true < 0.8 * variance.mean()
        assert found[j] == pytest.approx(true, rel=tolerance)


def test_a_flat_model_leaves_the_variances_as_they_are(tmp_path: Path) -> None:
    heavy_tails(tmp_path / "t.npz")
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=3)
    problem = make_problem(dataset.spec, TrainOptions())
    plan = make_plan(dataset.spec, TrainOptions())
    job = Job(str(dataset.path), problem, plan, Schedule(1.0, 1.0, True), True, 1, 64)
    found = curved_variance(job, problem, np.zeros((1, COLUMNS)), np.zeros(1))
    np.testing.assert_allclose(found, problem.variance, rtol=2**-11)


def test_it_mends_the_logistic_correction_on_heavy_tails(tmp_path: Path) -> None:
    """Excess over full precision at 4 bits and fitted levels: a third of the naive one at most."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = heavy_tails(tmp_path / "t.npz")
    peer = linear_model.LogisticRegression(C=np.inf).fit(x, y)
    best = -np.log(peer.predict_proba(x)[np.arange(ROWS), y.astype(int)]).mean()
    for samples in (1, 2):
        dest = tmp_path / f"d{samples}"
        dataset = compressed(tmp_path / "t.npz", dest, bits=4, samples=samples)
        excess = {}
        for sampling in ("auto", "naive"):
            model = train(dataset, TrainOptions(sampling=sampling, epochs=20)).model
            excess[sampling] = evaluate(model, tmp_path / "t.npz")["loss"] / best - 1
        assert excess["auto"] < 0.34 * excess["naive"], f"{samples} samples"
