"""L1, L2 and both, against scikit-learn at eight bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import classes_npz, compressed

from zipml_ooc import Dataset, TrainOptions, train

linear_model = pytest.importorskip("sklearn.linear_model")


class Sparse:
    """A table of neighbouring columns that agree by half, ten of which matter."""

    def __init__(self, folder: Path, rows: int = 20_000, columns: int = 100) -> None:
        rng = np.random.default_rng(1)
        x = rng.standard_normal((rows, columns))
        for j in range(1, columns):
            x[:, j] = 0.5 * x[:, j - 1] + np.sqrt(0.75) * x[:, j]
        w = np.zeros(columns)
        chosen = rng.choice(columns, 10, replace=False)
        w[chosen] = rng.choice([-1, 1], 10) * rng.uniform(0.3, 1, 10)
        self.y = x @ w + rng.standard_normal(rows)
        np.savez(folder / "sparse.npz", X=x, y=self.y)
        self.x = (x - x.mean(axis=0)) / x.std(axis=0)
        self.dataset: Dataset = compressed(folder / "sparse.npz", folder / "sparse", bits=8)

    def objective(self, coef: np.ndarray, intercept: float, l1: float, l2: float) -> float:
        squares = 0.5 * np.mean((self.x @ coef + intercept - self.y) ** 2)
        return float(squares + l1 * np.abs(coef).sum() + 0.5 * l2 * coef @ coef)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Sparse:
    return Sparse(tmp_path_factory.mktemp("sparse"))


def reference(sparse: Sparse, l1: float, l2: float) -> Any:
    """Our objective is scikit-learn's with alpha = l1 + l2 and l1_ratio = l1 / alpha."""
    if l2 == 0:
        peer = linear_model.Lasso(alpha=l1, tol=1e-10, max_iter=100_000)
    else:
        ratio = l1 / (l1 + l2)
        peer = linear_model.ElasticNet(alpha=l1 + l2, l1_ratio=ratio, tol=1e-10, max_iter=100_000)
    return peer.fit(sparse.x, sparse.y)


@pytest.mark.parametrize(("l1", "l2"), [(0.055, 0.0), (0.22, 0.0), (0.055, 0.1)])
@pytest.mark.parametrize("solver", ["gram", "svrg"])
def test_exact_solvers_find_the_lasso_and_its_support(
    sparse: Sparse, solver: str, l1: float, l2: float
) -> None:
    peer = reference(sparse, l1, l2)
    epochs = 40 if solver == "svrg" else None
    model = train(sparse.dataset, TrainOptions(solver=solver, l1=l1, l2=l2, epochs=epochs)).model
    found = sparse.objective(model.coef[0], model.intercept[0], l1, l2)
    assert found <= (1 + 2e-6) * sparse.objective(peer.coef_, peer.intercept_, l1, l2)
    assert np.array_equal(model.coef[0] != 0, peer.coef_ != 0)


@pytest.mark.parametrize(("l1", "l2"), [(0.055, 0.0), (0.22, 0.0), (0.055, 0.1)])
def test_sgd_ends_sparse_and_close(sparse: Sparse, l1: float, l2: float) -> None:
    """At most two columns more than scikit-learn keeps, none less, and 1e-5 of the objective."""
    peer = reference(sparse, l1, l2)
    model = train(sparse.dataset, TrainOptions(l1=l1, l2=l2)).model
    found = sparse.objective(model.coef[0], model.intercept[0], l1, l2)
    assert found <= (1 + 1e-5) * sparse.objective(peer.coef_, peer.intercept_, l1, l2)
    kept, expected = model.coef[0] != 0, peer.coef_ != 0
    assert not (expected & ~kept).any()
    assert (kept & ~expected).sum() <= 2


@pytest.mark.parametrize("arithmetic", ["int16", "int8"])
def test_integers_bear_an_l1_penalty(sparse: Sparse, arithmetic: str) -> None:
    peer = reference(sparse, 0.22, 0.0)
    model = train(sparse.dataset, TrainOptions(l1=0.22, arithmetic=arithmetic)).model
    found = sparse.objective(model.coef[0], model.intercept[0], 0.22, 0.0)
    assert found <= 1.001 * sparse.objective(peer.coef_, peer.intercept_, 0.22, 0.0)


def test_real_tables_keep_the_columns_that_scikit_learn_keeps(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    for name, target in (("cadata", "medianHouseValue"), ("cpusmall", "usr")):
        source = real_data(f"{name}.csv.gz")
        table = np.genfromtxt(source, delimiter=",", skip_header=1)
        x, y = table[:, :-1], table[:, -1]
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        dataset = compressed(source, tmp_path / name, (target,), bits=8)
        l1 = 0.2 * float(np.abs(x.T @ (y - y.mean())).max()) / len(y)
        peer = linear_model.Lasso(alpha=l1, tol=1e-10, max_iter=100_000).fit(x, y)
        for options in ({}, {"solver": "gram"}, {"solver": "svrg", "epochs": 40}):
            model = train(dataset, TrainOptions(l1=l1, **options)).model
            assert np.array_equal(model.coef[0] != 0, peer.coef_ != 0), (name, options)


def test_a_penalty_beyond_all_data_leaves_the_mean(sparse: Sparse) -> None:
    for solver in ("sgd", "svrg", "gram"):
        model = train(sparse.dataset, TrainOptions(l1=1e6, solver=solver)).model
        assert not model.coef.any()
        assert model.intercept[0] == pytest.approx(sparse.y.mean(), abs=0.02)


def test_the_logistic_loss_takes_an_l1_penalty_too(tmp_path: Path) -> None:
    source = classes_npz(tmp_path / "t.npz", rows=6000, columns=12)
    loaded = np.load(source)
    x = (loaded["X"] - loaded["X"].mean(axis=0)) / loaded["X"].std(axis=0)
    l1 = 0.05
    peer = linear_model.LogisticRegression(
        l1_ratio=1.0, solver="saga", C=1 / (l1 * len(x)), tol=1e-8, max_iter=20_000,
        fit_intercept=True,
    ).fit(x, loaded["y"])  # fmt: skip
    dataset = compressed(source, tmp_path / "d", bits=8)
    for options in ({}, {"solver": "svrg", "epochs": 60}):
        model = train(dataset, TrainOptions(l1=l1, **options)).model
        np.testing.assert_allclose(model.coef[0], peer.coef_[0], atol=0.01)
        assert np.array_equal(model.coef[0] != 0, peer.coef_[0] != 0)
