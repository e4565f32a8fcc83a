"""Step size and shrinkage follow from the spectrum; Lanczos finds it without a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import compressed, regression_npz

from zipml_ooc import TrainOptions, train
from zipml_ooc.training import spectrum as spectrum_module
from zipml_ooc.training.shrinkage import lanczos


@settings(max_examples=40)
@given(size=st.integers(1, 60), seed=st.integers(0, 1000), spread=st.floats(0, 6))
def test_lanczos_bounds_the_spectrum(size: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = 10 ** rng.uniform(-spread, 0, size)
    matrix = basis * values @ basis.T
    low, high = lanczos(lambda v: matrix @ v, size)
    assert low <= values.min() + 1e-9
    assert high >= values.max() - 1e-9
    assert low >= values.min() - 1e-6  # exact when there are as many steps as dimensions
    assert high <= values.max() + 1e-6


def test_few_lanczos_steps_err_on_the_safe_side() -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(1, 100, 400)
    basis = np.linalg.qr(rng.standard_normal((400, 400)))[0]
    matrix = basis * values @ basis.T
    low, high = lanczos(lambda v: matrix @ v, 400, steps=30)
    assert low <= 1.0
    assert high >= 100.0


@pytest.mark.parametrize("samples", [1, 2])
def test_the_matrix_free_guard_agrees_with_the_dense_one(
    tmp_path: Path, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=5000, columns=30)
    dataset = compressed(source, tmp_path / "d", bits=3, samples=samples)
    options = TrainOptions(epochs=1)
    dense = train(dataset, options).model.record
    monkeypatch.setattr(spectrum_module, "_DENSE_COLUMNS", 10)
    free = train(dataset, options).model.record
    assert 0.2 < dense["shrinkage"] <= 1
    assert free["shrinkage"] == pytest.approx(dense["shrinkage"], abs=0.02)
    assert free["step_size"] == pytest.approx(dense["step_size"], rel=0.02)


def test_exact_data_need_no_shrinkage(tmp_path: Path) -> None:
    """Columns of two values lie on the levels: nothing is rounded, nothing is corrected."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (1000, 5)).astype(float)
    np.savez(tmp_path / "t.npz", X=x, y=x.sum(axis=1) + 0.1 * rng.standard_normal(1000))
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=1, samples=1)
    assert not dataset.spec.variance.any()
    assert train(dataset, TrainOptions(epochs=1)).model.record["shrinkage"] == 1.0


def test_constant_columns_are_harmless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 4))
    x[:, 2] = 7.0
    np.savez(tmp_path / "t.npz", X=x, y=x[:, 0] + 0.1 * rng.standard_normal(1000))
    model = train(compressed(tmp_path / "t.npz", tmp_path / "d", bits=8)).model
    assert model.coef[0, 2] == 0
    assert np.abs(model.coef[0] - [x[:, 0].std(), 0, 0, 0]).max() < 0.02
