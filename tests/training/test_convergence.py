"""Training reaches what the mathematics promises, and the correction is what gets it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tables import classes_npz, compressed, least_squares_loss, read_idx, regression_npz

from zipml_ooc import TrainOptions, evaluate, train

REAL = {"cadata": "medianHouseValue", "cpusmall": "usr"}
SEEDS = range(5)


def read_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    return table[:, :-1], table[:, -1]


def excess(
    source: Path,
    dest: Path,
    target: str,
    *,
    sampling: str,
    form: str = "mean",
    seed: int,
    **options: int,
) -> float:
    """Full-precision training loss over the closed-form optimum, as a ratio."""
    x, y = read_table(source)
    dataset = compressed(source, dest, (target,), seed=seed, **options)
    result = train(dataset, TrainOptions(sampling=sampling, double_form=form, seed=seed))
    residual = result.model.decision_function(x)[:, 0] - y
    return 0.5 * float(np.mean(residual**2)) / least_squares_loss(x, y)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("bits", "bound"), [(8, 1.002), (6, 1.002), (5, 1.002), (4, 1.005)])
def test_double_sampling_reaches_the_optimum_on_real_tables(
    name: str, bits: int, bound: float, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source = real_data(f"{name}.csv.gz")
    for seed in SEEDS:
        found = excess(
            source,
            tmp_path / f"{seed}",
            REAL[name],
            sampling="double",
            seed=seed,
            bits=bits,
            samples=2,
        )
        assert found <= bound, f"seed {seed}"


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("bits", "samples"), [(4, 1), (4, 2), (8, 1), (8, 2)])
def test_integer_arithmetic_ends_where_single_precision_does(
    name: str, bits: int, samples: int, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """The rounding of model and residuals is unbiased: it costs half a percent at most."""
    dataset = compressed(
        real_data(f"{name}.csv.gz"), tmp_path / "d", (REAL[name],), bits=bits, samples=samples
    )
    x, y = read_table(real_data(f"{name}.csv.gz"))
    for batch_rows in (64, 256):
        loss = {}
        for arithmetic in ("float", "int16", "int8"):
            options = TrainOptions(arithmetic=arithmetic, batch_rows=batch_rows)
            model = train(dataset, options).model
            loss[arithmetic] = np.mean((model.decision_function(x)[:, 0] - y) ** 2)
        assert loss["int16"] <= 1.005 * loss["float"]
        assert loss["int8"] <= 1.005 * loss["float"]


def test_the_papers_split_form_reaches_the_optimum(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    found = excess(
        real_data("cadata.csv.gz"), tmp_path / "d", REAL["cadata"],
        sampling="double", form="split", seed=0, bits=5, samples=2,
    )  # fmt: skip
    assert found <= 1.002


def test_the_correction_is_what_separates_corrected_from_naive(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """On the very same file: naive at least 5% above the optimum, corrected at most 1%, or 0.3%.

    The latter in the median: with one of these seeds no part of the correction ends below 0.49%.
    """
    source = real_data("cadata.csv.gz")
    x, y = read_table(source)
    optimum = least_squares_loss(x, y)
    corrected = []
    for seed in SEEDS:
        dataset = compressed(
            source,
            tmp_path / f"{seed}",
            (REAL["cadata"],),
            seed=seed,
            bits=4,
            samples=1,
            levels="uniform",
        )
        ratio = {}
        for sampling in ("naive", "corrected"):
            model = train(dataset, TrainOptions(sampling=sampling, seed=seed)).model
            residual = model.decision_function(x)[:, 0] - y
            ratio[sampling] = 0.5 * float(np.mean(residual**2)) / optimum
        assert ratio["naive"] >= 1.05, f"seed {seed}"
        assert ratio["corrected"] <= 1.01, f"seed {seed}"
        corrected.append(ratio["corrected"])
    assert np.median(corrected) <= 1.003


def test_the_correction_separates_the_estimators_on_a_made_table_too(tmp_path: Path) -> None:
    """Two heavy-tailed columns that nearly agree: the same contrast where no real data is."""
    rng = np.random.default_rng(5)
    common = rng.standard_t(4, 60_000)
    x = np.column_stack([common + 0.5 * rng.standard_normal(60_000), common])
    y = x[:, 0] - x[:, 1] + 0.3 * rng.standard_normal(60_000)
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=5, samples=1)
    optimum = least_squares_loss(x, y)
    ratio = {}
    for sampling in ("naive", "corrected"):
        model = train(dataset, TrainOptions(sampling=sampling)).model
        ratio[sampling] = (
            0.5 * float(np.mean((model.decision_function(x)[:, 0] - y) ** 2)) / optimum
        )
    assert ratio["naive"] >= 1.5
    assert ratio["corrected"] <= 1.006


def test_logistic_loss_separates_mnist_as_well_as_scikit_learn(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Digits 0-4 against 5-9 at 4 bits: at most half a point below LogisticRegression."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    images = read_idx(real_data("mnist-t10k-images-idx3-ubyte.gz")).reshape(-1, 784)
    digits = read_idx(real_data("mnist-t10k-labels-idx1-ubyte.gz"))
    label = digits >= 5
    np.savez(tmp_path / "train.npz", X=images[:8000], y=label[:8000])
    np.savez(tmp_path / "test.npz", X=images[8000:], y=label[8000:])
    peer = linear_model.LogisticRegression(max_iter=100)
    with pytest.warns(Warning, match="converge"):  # as it comes, on raw pixels
        peer.fit(images[:8000], label[:8000])
    dataset = compressed(tmp_path / "train.npz", tmp_path / "d", bits=4)
    result = train(dataset)
    accuracy = evaluate(result.model, tmp_path / "test.npz")["accuracy"]
    assert accuracy >= peer.score(images[8000:], label[8000:]) - 0.005


# Not raw columns with a row scale: of columns in different units it keeps only the largest.
@pytest.mark.parametrize(
    ("scale", "standardize"),
    [("column", True), ("column", False), ("row", True), ("row-l2", True)],
)
def test_every_scale_and_raw_columns_converge(
    tmp_path: Path, scale: str, standardize: bool
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=4000)
    arrays = np.load(source)
    dataset = compressed(source, tmp_path / "d", bits=8, scale=scale, standardize=standardize)
    model = train(dataset).model
    residual = model.decision_function(arrays["X"])[:, 0] - arrays["y"]
    optimum = least_squares_loss(arrays["X"], arrays["y"])
    assert 0.5 * np.mean(residual**2) <= 1.002 * optimum


def test_several_outputs_are_trained_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 6))
    y = (x @ rng.standard_normal((6, 3)) + rng.standard_normal((3000, 3))) * [1, 10, 100]
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=8)
    model = train(dataset).model
    assert model.coef.shape == (3, 6)
    predicted = model.decision_function(x)
    for k in range(3):
        loss = 0.5 * np.mean((predicted[:, k] - y[:, k]) ** 2)
        assert loss <= 1.002 * least_squares_loss(x, y[:, k])


@pytest.mark.parametrize(
    ("rows", "batch_rows"), [(4000, 64), (65, 64), (40, 64), (4000, 3000), (1000, 10_000)]
)
def test_l2_penalty_agrees_with_ridge(tmp_path: Path, rows: int, batch_rows: int) -> None:
    """Whatever part of the mini-batches is not full."""
    source = regression_npz(tmp_path / "t.npz", rows=rows)
    arrays = np.load(source)
    dataset = compressed(source, tmp_path / "d", bits=8)
    model = train(dataset, TrainOptions(l2=0.5, batch_rows=batch_rows, epochs=200)).model
    z = (arrays["X"] - arrays["X"].mean(axis=0)) / arrays["X"].std(axis=0)
    n, d = z.shape
    centred = arrays["y"] - arrays["y"].mean()
    ridge = np.linalg.solve(z.T @ z / n + 0.5 * np.eye(d), z.T @ centred / n)
    np.testing.assert_allclose(model.coef[0], ridge, atol=0.02 * np.abs(ridge).max())


def test_an_enormous_penalty_gives_the_mean(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    dataset = compressed(source, tmp_path / "d", standardize=False)
    model = train(dataset, TrainOptions(l2=1e30, epochs=20)).model
    assert not model.coef.any() or np.abs(model.coef).max() < 1e-20
    mean = np.load(source)["y"].mean()
    assert model.intercept[0] == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("scale", ["column", "row"])
def test_without_intercept_the_model_passes_through_the_origin(
    tmp_path: Path, standardize: bool, scale: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 3)) + 2
    y = x @ [1.0, 2.0, -1.0] - 12 + 0.1 * rng.standard_normal(3000)
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(
        tmp_path / "t.npz", tmp_path / "d", bits=8, standardize=standardize, scale=scale
    )
    model = train(dataset, TrainOptions(fit_intercept=False)).model
    stored = (x - dataset.spec.mean) / dataset.spec.scale
    expected = np.linalg.lstsq(stored, y, rcond=None)[0]
    assert model.intercept[0] == 0
    np.testing.assert_allclose(model.coef[0], expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("form", ["mean", "split"])
def test_the_logistic_correction_beats_naive_at_few_bits(tmp_path: Path, form: str) -> None:
    """Both first-order terms are needed: with the second derivative alone naive is better."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100_000, 8))
    y = rng.random(100_000) < 1 / (1 + np.exp(-x @ rng.standard_normal(8)))
    np.savez(tmp_path / "t.npz", X=x, y=y)
    peer = linear_model.LogisticRegression(C=np.inf).fit(x, y)
    best = -np.log(peer.predict_proba(x)[np.arange(len(y)), y.astype(int)]).mean()
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=3, levels="uniform")
    excess = {}
    for sampling in ("double", "naive"):
        model = train(dataset, TrainOptions(sampling=sampling, double_form=form, epochs=10)).model
        excess[sampling] = evaluate(model, tmp_path / "t.npz")["loss"] / best - 1
    assert excess["naive"] > 0.005
    assert excess["double"] < {"mean": 0.1, "split": 0.5}[form] * excess["naive"]


def test_text_classes_are_predicted_as_they_came(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    source = classes_npz(tmp_path / "t.npz")
    dataset = compressed(source, tmp_path / "d", bits=8)
    assert dataset.spec.classes == ("no", "yes")
    result = train(dataset)
    arrays = np.load(source)
    assert set(result.model.predict(arrays["X"])) == {"no", "yes"}
    peer = linear_model.LogisticRegression(C=np.inf).fit(arrays["X"], arrays["y"] == "yes")
    score = evaluate(result.model, source)
    assert score["accuracy"] >= peer.score(arrays["X"], arrays["y"] == "yes") - 0.005
    assert result.loss == pytest.approx(score["loss"], rel=0.01)


def test_reported_loss_is_that_of_the_unquantised_data(tmp_path: Path) -> None:
    """The rounding bias, 20% of the loss here, is taken out of what training reports."""
    source = regression_npz(tmp_path / "t.npz", rows=20_000)
    dataset = compressed(source, tmp_path / "d", bits=4, samples=1)
    result = train(dataset)
    true = evaluate(result.model, source)["loss"]
    as_stored = evaluate(result.model, dataset)["loss"]
    assert as_stored > 1.05 * true
    assert result.loss == pytest.approx(true, rel=0.02)
    assert result.epochs[-1].loss == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("levels", ["uniform", "optimal"])
def test_logistic_correction_does_not_run_away_on_heavy_tails(
    tmp_path: Path, samples: int, levels: str
) -> None:
    """Equally spaced, rounding moves margins by far more than one: the series is held."""
    rng = np.random.default_rng(1)
    x = rng.standard_t(3, (20_000, 8))
    y = rng.random(20_000) < 1 / (1 + np.exp(-x @ rng.standard_normal(8)))
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=4, samples=samples, levels=levels)
    found = {}
    for sampling in ("auto", "naive"):
        result = train(dataset, TrainOptions(sampling=sampling, epochs=10))
        found[sampling] = evaluate(result.model, tmp_path / "t.npz")["loss"]
        assert result.loss == pytest.approx(found[sampling], rel=0.15)
    assert found["naive"] < np.log(2)
    assert found["auto"] < found["naive"]


def test_runs_with_and_without_intercept_do_not_share_targets(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    dataset = compressed(source, tmp_path / "d", bits=8)
    train(dataset, TrainOptions(fit_intercept=False, epochs=1))
    assert evaluate(train(dataset).model, source)["r2"] > 0.9
