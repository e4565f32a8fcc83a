"""The guard's arithmetic: the estimated loss is right, and the choice keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zipml_ooc.training.shrinkage import Whitened, choose, risk, whiten, whiten_products

F64 = np.ndarray


def moments(
    rows: int, condition: float, noise: float, *, deviation: float, columns: int = 6, seed: int = 0
) -> tuple[F64, F64, F64, F64, F64]:
    """Values of a made table, a target of mean square one, and the rounding variance."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    values = rng.standard_normal((rows, columns)) * np.logspace(
        0, -np.log10(condition) / 2, columns
    )
    x = values @ basis.T
    x /= x.std(axis=0)
    y = x @ rng.standard_normal(columns)
    y = y / y.std() + noise * rng.standard_normal(rows)
    y /= np.sqrt(np.mean(y**2))
    variance = deviation**2 * rng.uniform(0.5, 2, columns)
    return x, y, variance, x.T @ x / rows, x.T @ y / rows


def rounded(x: F64, y: F64, variance: F64, rng: np.random.Generator) -> tuple[F64, F64]:
    """Moments of the values with noise of that variance, and of them with the target."""
    q = x + np.sqrt(variance) * rng.standard_normal(x.shape)
    return q.T @ q / len(x), q.T @ y / len(x)


def loss(model: F64, gram: F64, cross: F64) -> float:
    """Loss on the exact values, up to that of the zero model."""
    return float(0.5 * model @ gram @ model - cross @ model)


spectra = st.builds(
    lambda values, signal, noisy: Whitened(
        np.sort(values), np.resize(signal, len(values)), np.ones(len(values)), min(values), noisy
    ),
    st.lists(st.floats(0.0, 1e4), min_size=1, max_size=8),
    st.lists(st.floats(0.0, 1e3), min_size=1, max_size=8),
    st.integers(1, 8),
)


@settings(max_examples=200)
@given(spectra, st.integers(8, 10**7), st.integers(1, 100), st.floats(0, 1e4))
def test_the_choice_stays_a_margin_away_from_singular_moments(
    whitened: Whitened, sampled: int, times: int, power: float
) -> None:
    rows = sampled * times
    tau = choose(whitened, power=power, sampled=sampled, rows=rows)
    assert 0 <= tau <= 1
    assert tau == 0 or whitened.smallest - tau >= 2 * np.sqrt(whitened.noisy / rows) - 1e-9


@settings(max_examples=100)
@given(spectra, st.integers(8, 10**6), st.floats(0, 1e4), st.floats(1e-3, 1e3))
def test_the_choice_does_not_depend_on_the_targets_unit(
    whitened: Whitened, rows: int, power: float, unit: float
) -> None:
    scaled = replace(whitened, signal=whitened.signal * unit**2)
    left_out = np.linspace(0, 1, 11)
    first = risk(whitened, left_out, power=power, sampled=rows, rows=rows) * unit**2
    second = risk(scaled, left_out, power=power * unit**2, sampled=rows, rows=rows)
    np.testing.assert_array_equal(np.isfinite(first), np.isfinite(second))
    seen = np.isfinite(first)
    scale = np.abs(first[seen]).max(initial=0.0) + power * unit**2
    np.testing.assert_allclose(first[seen], second[seen], rtol=1e-9, atol=1e-9 * scale)


def test_strong_data_are_corrected_in_full_and_pure_noise_hardly_at_all() -> None:
    strong = Whitened(np.full(5, 1e4), np.full(5, 1e3), np.ones(5), 1e4, 5)
    assert choose(strong, power=1.0, sampled=10_000, rows=10_000) > 0.95
    # Nothing but rounding: the stored values vary as much as they are rounded.
    nothing = Whitened(np.ones(5), np.full(5, 1e-4), np.ones(5), 0.99, 5)
    assert choose(nothing, power=1.0, sampled=1000, rows=1000) < 0.2
    singular = replace(nothing, smallest=0.0)
    assert choose(singular, power=1.0, sampled=1000, rows=1000) == 0.0


@pytest.mark.parametrize("condition", [1.0, 30.0])
@pytest.mark.parametrize("part", [1, 4])
def test_the_estimated_loss_is_the_mean_loss_of_trained_models(condition: float, part: int) -> None:
    """Differences between parts of the correction, over draws of the rounding.

    The sample may be a part of the rows: then the estimate is for a model of all of them.
    """
    x, y, variance, gram, cross = moments(8000, condition, 0.7, deviation=0.3)
    left_out = np.array([0.0, 0.3, 1.0])
    rng = np.random.default_rng(1)
    estimated, true = [], []
    for _ in range(150):
        stored, right = rounded(x, y, variance, rng)
        true.append(
            [
                loss(np.linalg.solve(stored - (1 - r) * np.diag(variance), right), gram, cross)
                for r in left_out
            ]
        )
        chosen = rng.permutation(len(x))[: len(x) // part]
        stored, right = rounded(x[chosen], y[chosen], variance, rng)
        whitened = whiten(stored, right[None], variance)
        estimated.append(risk(whitened, left_out, power=1.0, sampled=len(chosen), rows=len(x)))
    gaps = [np.array(found) - np.array(found)[:, :1] for found in (estimated, true)]
    error = np.sqrt(sum(g[:, 1:].var(axis=0) for g in gaps) / 150)
    bias = np.abs(gaps[0].mean(axis=0) - gaps[1].mean(axis=0))[1:]
    # Four standard errors, and a tenth for the second order that the estimate leaves out.
    assert (bias <= 4 * error + 0.1 * np.abs(gaps[1].mean(axis=0)[1:])).all()


@settings(max_examples=15, deadline=None)
@given(
    condition=st.floats(0, 8),
    deviation=st.floats(-3, -0.5),
    noise=st.floats(-2, 1),
    rows=st.integers(60, 4000),
    seed=st.integers(0, 100),
)
def test_the_choice_is_hardly_worse_than_either_end(
    condition: float, deviation: float, noise: float, rows: int, seed: int
) -> None:
    """Mean loss over 40 draws of the rounding, beside no correction and the full one."""
    x, y, variance, gram, cross = moments(
        rows, 10**condition, 10**noise, deviation=10**deviation, seed=seed
    )
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        stored, right = rounded(x, y, variance, rng)
        tau = choose(whiten(stored, right[None], variance), power=1.0, sampled=rows, rows=rows)
        found.append(
            [
                0.5 + loss(np.linalg.solve(stored - t * np.diag(variance), right), gram, cross)
                for t in (tau, 0.0, 1.0)
            ]
        )
    table = np.array(found)
    chosen, *ends = table.mean(axis=0)
    better = table[:, 1 + int(np.argmin(ends))]
    error = 4 * np.std(table[:, 0] - better) / np.sqrt(len(table))
    assert chosen <= 1.02 * better.mean() + error


def test_exact_and_constant_columns_leave_the_choice_alone() -> None:
    """Two equal columns without rounding are singular, and none of the guard's business."""
    x, y, variance, _, _ = moments(2000, 100.0, 0.5, deviation=0.3)
    q = x + np.sqrt(variance) * np.random.default_rng(1).standard_normal(x.shape)
    exact = np.sign(np.random.default_rng(2).standard_normal(2000))
    wide = np.column_stack([q, exact, exact, np.zeros(2000)])
    taus = []
    for values, known in ((q, variance), (wide, np.concatenate([variance, np.zeros(3)]))):
        found = whiten(values.T @ values / 2000, (values.T @ y / 2000)[None], known)
        assert found.noisy == 6
        taus.append(choose(found, power=1.0, sampled=2000, rows=2000))
    assert 0.2 < taus[0] < 1
    assert taus[1] == pytest.approx(taus[0], abs=0.01)


@pytest.mark.parametrize("outputs", [1, 2])
def test_products_alone_find_the_same_risk_as_the_matrix(outputs: int) -> None:
    x, y, variance, _, _ = moments(4000, 100.0, 0.5, deviation=0.3, columns=50)
    q = x + np.sqrt(variance) * np.random.default_rng(1).standard_normal(x.shape)
    gram = q.T @ q / 4000
    cross = np.stack([q.T @ y, q.T @ np.roll(y, 1)])[:outputs] / 4000
    dense = whiten(gram, cross, variance)
    free = whiten_products(lambda v: gram @ v, cross, variance, np.zeros(50, bool))
    assert free.noisy == dense.noisy == 50
    assert free.smallest == pytest.approx(dense.smallest, rel=1e-3)
    left_out = np.linspace(0.1, 1, 5)
    both = [risk(w, left_out, power=float(outputs), sampled=4000, rows=4000) for w in (dense, free)]
    gaps = [b - b[-1] for b in both]
    # How many directions lie where is known from one random vector: to some tenths.
    np.testing.assert_allclose(gaps[1], gaps[0], rtol=0.3, atol=1e-4)


def test_more_rows_than_the_sample_narrow_the_margin() -> None:
    wide = Whitened(np.full(2000, 2.0), np.full(2000, 1e-3), np.ones(2000), 1.2, 2000)
    taus = [choose(wide, power=1.0, sampled=16_384, rows=r) for r in (16_384, 10**6, 10**8)]
    assert taus == sorted(taus)
    assert taus[0] < 0.6
    assert taus[-1] > taus[0] + 0.15
