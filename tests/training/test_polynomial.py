"""Polynomial gradients in training: what is chosen, what it is good for, what it is refused for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.polynomial import polynomial
from tables import classes_npz, compressed, regression_npz
from zipml_codecs import _native

from zipml_ooc import Dataset, TrainOptions, train
from zipml_ooc.errors import UsageError
from zipml_ooc.training import plan as plan_module
from zipml_ooc.training.polynomial import RANGES, choose, first_polynomial, fit
from zipml_ooc.training.results import TrainingError


def derivative(u: np.ndarray) -> np.ndarray:
    return -1 / (1 + np.exp(u))


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
def test_the_error_bounds_the_distance_from_the_derivative(degree: int) -> None:
    rng = np.random.default_rng(0)
    for margin_range in RANGES:
        found = fit(degree, margin_range)
        assert found.degree == degree and len(found.coefficients) == degree + 1
        u = np.append(rng.uniform(-1, 1, 100_000), [-1, 1]) * margin_range
        value = polynomial.polyval(u / margin_range, found.coefficients)
        off = np.abs(value - derivative(u)).max()
        assert 0.99 * off - 1e-7 <= off <= found.error + 1e-6  # coefficients are floats
        assert found.error <= 1.01 * off + 1e-6


def test_a_polynomial_is_nearly_the_best_of_its_degree() -> None:
    """As interpolation at Chebyshev nodes is: within a factor of two of equal oscillation."""
    for degree, margin_range in ((3, 2.0), (7, 5.66)):
        found = fit(degree, margin_range)
        t = np.linspace(-1, 1, 20_001)
        off = polynomial.polyval(t, found.coefficients) - derivative(margin_range * t)
        peaks = np.abs(off[np.flatnonzero(np.diff(np.sign(np.diff(off)))) + 1])
        # De la Vallee Poussin: no polynomial of the degree is nearer than the smallest peak.
        assert found.error < 2 * np.append(peaks, np.abs(off[[0, -1]])).min()


def test_more_noise_asks_for_wider_ranges_and_more_samples_come_nearer() -> None:
    rng = np.random.default_rng(0)
    one = np.ones(20_000)
    normal = rng.standard_normal(20_000)

    def chosen(spread: float, noise: float, samples: int = 8) -> Any:
        return choose(spread * normal + 0.5, one, samples=samples, noise=noise)

    assert chosen(1, 0.05).range <= chosen(1, 4).range <= chosen(1, 30).range
    for noise in (0.0, 0.5, 5.0):
        assert chosen(1, noise).rms_error <= 1.2 * chosen(1, noise, samples=4).rms_error
    # Without noise the derivative itself is exact.
    assert chosen(2, 0.0).rms_error < 1e-3


def test_what_is_chosen_does_not_depend_on_the_order_of_rows_and_counts_weights() -> None:
    rng = np.random.default_rng(1)
    signed, weight = 3 * rng.standard_normal(5000), rng.integers(0, 4, 5000).astype(float)
    first = choose(signed, weight, samples=8, noise=3.0)
    order = rng.permutation(5000)
    assert choose(signed[order], weight[order], samples=8, noise=3.0) == first
    repeated = np.repeat(signed, weight.astype(int))
    again = choose(repeated, np.ones(len(repeated)), samples=8, noise=3.0)
    assert again.range == first.range and again.degree == first.degree
    nothing = choose(np.array([np.nan, 1.0]), np.ones(2), samples=4, noise=1.0)
    assert nothing == first_polynomial(4)


def logistic_npz(path: Path, signal: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 8)).astype("f4")
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ (signal * rng.standard_normal(8))))
    np.savez(path, X=x, y=y.astype(int))
    return x, y


def excess(dataset: Dataset, x: np.ndarray, y: np.ndarray, **options: Any) -> float:
    """Log loss on the original values over the least one."""
    result = train(dataset, TrainOptions(epochs=20, **options))
    z = np.c_[x, np.ones(len(x))].astype("f8")
    w = np.zeros(9)
    for _ in range(20):
        p = 1 / (1 + np.exp(-z @ w))
        w -= np.linalg.solve((z * (p * (1 - p))[:, None]).T @ z, z.T @ (p - y))

    def loss(margin: np.ndarray) -> float:
        return float(np.logaddexp(0, np.where(y, -margin, margin)).mean())

    return loss(np.ravel(result.model.decision_function(x))) / loss(z @ w) - 1


@pytest.mark.parametrize(("samples", "least"), [(4, 6.0), (8, 15.0)])
def test_a_polynomial_comes_far_nearer_to_the_optimum_than_naive(
    samples: int, least: float, tmp_path: Path
) -> None:
    x, y = logistic_npz(tmp_path / "t.npz", signal=1.0)
    dataset = compressed(
        tmp_path / "t.npz", tmp_path / "d", bits=2, samples=samples, levels="uniform"
    )
    found = excess(dataset, x, y, sampling="chebyshev")
    assert abs(found) * least < excess(dataset, x, y, sampling="naive")


def test_it_bears_more_rounding_than_a_correction_of_first_order(tmp_path: Path) -> None:
    x, y = logistic_npz(tmp_path / "t.npz", signal=0.5)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=1, samples=8)
    assert 1.5 * excess(dataset, x, y, sampling="chebyshev") < excess(
        dataset, x, y, sampling="double"
    )


def test_a_run_that_no_polynomial_suits_is_stopped_with_advice(tmp_path: Path) -> None:
    """Its model would be worse than none; the last good one comes with the error."""
    logistic_npz(tmp_path / "t.npz", signal=2.0, rows=5000)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=1, samples=4)
    with pytest.raises(TrainingError, match=r"no polynomial suits .* use more bits") as caught:
        train(dataset, TrainOptions(epochs=60, sampling="chebyshev"))
    assert "\n" not in str(caught.value) and caught.value.model is not None


def test_the_record_tells_degree_range_and_error(tmp_path: Path) -> None:
    logistic_npz(tmp_path / "t.npz", signal=1.0, rows=3000)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=3, samples=8)
    record = train(dataset, TrainOptions(epochs=3, sampling="chebyshev")).model.record
    found = record["polynomial"]
    assert record["sampling"] == "chebyshev" and record["shrinkage"] is None
    assert found["degree"] <= 7 and found["range"] in RANGES
    assert 0 < found["error"] < 0.1 and 0 <= found["outside"] <= 1
    assert "polynomial" not in train(dataset, TrainOptions(epochs=1)).model.record


def test_classes_are_trained_each_against_the_rest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = 2 * rng.standard_normal((3, 6))
    y = rng.integers(0, 3, 4000)
    x = centres[y] + rng.standard_normal((4000, 6))
    np.savez(tmp_path / "t.npz", X=x, y=y, w=rng.uniform(0.5, 2, 4000))
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", samples=4, task="classification")
    with pytest.raises(UsageError, match="use --multiclass ovr"):
        train(dataset, TrainOptions(sampling="chebyshev"))
    options = TrainOptions(epochs=10, multiclass="ovr", l2=1e-3, l1=1e-4, momentum=0.5)
    ovr = train(dataset, options)
    found = train(dataset, replace(options, sampling="chebyshev", class_weight="balanced"))
    right = [(r.model.predict(x) == y).mean() for r in (ovr, found)]
    assert right[1] > right[0] - 0.01


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("samples", [4, 8])
def test_the_model_depends_on_rows_options_and_seed_alone(
    samples: int, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, chunks and instruction sets change no bit."""
    monkeypatch.setattr(plan_module, "_WINDOW_VALUES", 1)
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 4)
    source, live, models = classes_npz(tmp_path / "t.npz", rows=4000), _native.live_simd(), set()
    options = TrainOptions(loss=loss, epochs=3, sampling="chebyshev", validation=0.1)

    def saved(dataset: Dataset, threads: int) -> bytes:
        train(dataset, options, threads=threads).model.save(tmp_path / "m.zipml")
        return (tmp_path / "m.zipml").read_bytes()

    for chunk_rows, threads in ((64, 1), (640, 4), (4096, 2)):
        dest = tmp_path / f"{chunk_rows}"
        dataset = compressed(source, dest, bits=3, samples=samples, chunk_rows=chunk_rows)
        models.add(saved(dataset, threads))
    try:
        for level in _native.simd_levels():
            _native.select_simd(level)
            models.add(saved(dataset, 1))
    finally:
        _native.select_simd(live)
    assert len(models) == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"loss": "ls-svm"}, "polynomial of degree 1, for which double sampling is exact"),
        ({"loss": "squared-hinge"}, "the logistic loss and the hinge, not of squared-hinge"),
        ({"solver": "svrg"}, "taken in steps of sgd, not by svrg"),
        ({"solver": "gram"}, "taken in steps of sgd, not by gram"),
        ({"arithmetic": "int8"}, "int8 arithmetic do not go together"),
        ({"model_bits": 16}, "int16 arithmetic do not go together"),
    ],
)
def test_what_does_not_go_with_a_polynomial_is_refused(
    given: dict[str, Any], text: str, tmp_path: Path
) -> None:
    dataset = compressed(classes_npz(tmp_path / "t.npz"), tmp_path / "d", samples=4)
    with pytest.raises(UsageError, match=text):
        train(dataset, TrainOptions(sampling="chebyshev", **given))


def test_numbers_and_too_few_samples_are_refused_with_the_remedy(tmp_path: Path) -> None:
    numbers = compressed(regression_npz(tmp_path / "n.npz"), tmp_path / "n", samples=4)
    with pytest.raises(UsageError, match="for which double sampling is exact: use --gradient dou"):
        train(numbers, TrainOptions(sampling="chebyshev"))
    two = compressed(classes_npz(tmp_path / "c.npz"), tmp_path / "c")
    with pytest.raises(UsageError, match="holds 2: compress with --samples 4"):
        train(two, TrainOptions(sampling="chebyshev"))
