"""Polynomial gradients of the hinge loss: what is chosen for its step, and what it is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.polynomial import polynomial
from scipy.optimize import minimize
from tables import compressed
from zipml_codecs.reference_losses import ReferenceLoss
from zipml_codecs.reference_polynomial import ReferencePolynomial, residuals

from zipml_ooc import Dataset, LinearModel, TrainOptions, TrainResult, evaluate, train
from zipml_ooc.training import TrainingError
from zipml_ooc.training.polynomial import BOUND, RANGES, Polynomial, quantiles
from zipml_ooc.training.step_polynomial import KINK, choose_step, first_step, fit_step


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
def test_beyond_the_band_the_error_bounds_the_distance_from_the_slope(degree: int) -> None:
    rng = np.random.default_rng(0)
    for margin_range in RANGES:
        found = fit_step(degree, margin_range)
        assert found.degree == degree and found.centre == KINK and found.band is not None
        away = np.append(rng.uniform(-1, 1, 100_000), [-1, 1]) * margin_range
        value = polynomial.polyval(away / margin_range, found.coefficients)
        off = np.abs(value - np.where(away < 0, -1.0, 0.0))
        beyond = np.abs(away) >= found.band
        assert off[beyond].max() <= found.error + 1e-5  # the band has six digits
        assert found.error <= 1.01 * off[beyond].max()
        # The band is no wider than that: a tenth of a per cent nearer it is further off.
        nearer = polynomial.polyval(0.999 * found.band / margin_range, found.coefficients)
        assert abs(nearer) > found.error
        assert 0.49 < off.max() <= 0.5


def test_the_series_is_that_of_the_step() -> None:
    """Chebyshev coefficients of -1[t < 0] in closed form; the product with T_j has to be zero."""
    assert fit_step(1, 3.0).coefficients == pytest.approx((-0.5, 2 / np.pi))
    angle = (np.arange(200_000) + 0.5) * (np.pi / 200_000)
    t = np.cos(angle)
    off = polynomial.polyval(t, fit_step(7, 1.0).coefficients) - np.where(t < 0, -1.0, 0.0)
    for j in range(8):
        assert abs(np.mean(off * np.cos(j * angle))) < 1e-5
    assert abs(np.mean(off * np.cos(9 * angle))) > 0.03


def simulated(found: Polynomial, u: np.ndarray, noise: float, samples: int) -> tuple[float, ...]:
    """Mean square error, pull and deviation of estimates from normal margins, by the reference."""
    rng, draws = np.random.default_rng(7), 4000
    coefficients = np.append(found.coefficients, np.zeros(samples - 1 - found.degree))
    reference = ReferencePolynomial(coefficients, found.range, BOUND, KINK)
    margin = u + np.sqrt(noise) * rng.standard_normal((samples, draws, len(u)))
    taken = residuals(reference, ReferenceLoss("hinge"), margin, np.ones((draws, len(u))))[0]
    off = taken.mean(axis=0) - np.where(u < KINK, -1.0, 0.0)
    lean = (u - u.mean()) / u.std()
    pull = np.hypot(off.mean(), (off * lean).mean())
    return float(np.sqrt(np.mean(off**2))), float(pull), float(np.sqrt(taken.var(axis=0).mean()))


@pytest.mark.parametrize(("samples", "noise"), [(4, 0.8), (8, 0.8), (4, 6.0), (8, 20.0)])
def test_error_and_noise_are_those_of_the_estimates(samples: int, noise: float) -> None:
    """Of all that takes part in the choice: what four thousand draws for each row show.

    Their own standard error is the deviation / sqrt(4000 * 128), below 0.003; the rest of what is
    allowed is for the normal variable in 25 points, and for the bound of an estimate, which is
    taken for one of its mean square.
    """
    u = 0.6 + 1.1 * np.random.default_rng(3).standard_normal(20_000)
    seen = u + np.sqrt(noise / samples) * np.random.default_rng(4).standard_normal(len(u))
    found = choose_step(seen, np.ones(len(u)), samples=samples, noise=noise, unknowns=0.0)
    middle = quantiles(u, np.ones(len(u)))
    assert middle is not None
    assert found.rms_error is not None and found.pull is not None and found.deviation is not None
    rms, pull, deviation = simulated(found, middle, noise, samples)
    assert abs(found.pull - pull) < 0.02
    assert abs(found.rms_error - rms) < 0.02
    assert abs(found.deviation / deviation - 1) < 0.15


def test_more_noise_asks_for_wider_ranges_and_few_rows_for_less_of_it() -> None:
    rng = np.random.default_rng(0)
    one, normal = np.ones(20_000), rng.standard_normal(20_000)

    def chosen(noise: float, samples: int = 8, unknowns: float = 0.0) -> Any:
        return choose_step(
            np.sqrt(1 + noise / samples) * normal + 0.5,
            one,
            samples=samples,
            noise=noise,
            unknowns=unknowns,
        )

    assert chosen(0.05).range <= chosen(1).range <= chosen(30).range
    assert chosen(0.05).range < chosen(30).range
    for noise in (0.5, 5.0, 50.0):
        # What makes a weighted sum of two squares least has less of that whose weight grows.
        deviations = [chosen(noise, unknowns=part).deviation for part in (0.0, 0.1, 10.0)]
        assert deviations == sorted(deviations, reverse=True)
        assert deviations[0] > deviations[-1]


def test_what_is_chosen_does_not_depend_on_the_order_of_rows_and_counts_weights() -> None:
    rng = np.random.default_rng(1)
    signed, weight = 3 * rng.standard_normal(5000), rng.integers(0, 4, 5000).astype(float)
    given: dict[str, Any] = {"samples": 8, "noise": 3.0, "unknowns": 0.01}
    first = choose_step(signed, weight, **given)
    order = rng.permutation(5000)
    assert choose_step(signed[order], weight[order], **given) == first
    repeated = np.repeat(signed, weight.astype(int))
    again = choose_step(repeated, np.ones(len(repeated)), **given)
    assert again.range == first.range and again.degree == first.degree


@pytest.mark.parametrize(
    ("signed", "noise"),
    [
        ([np.nan, 1.0], 1.0),
        ([0.0, 1.0], np.inf),
        ([0.0, 1.0], np.nan),
        ([0.0, 1e37], 1.0),
        ([0.0, 1.0], 1e60),
    ],
)
def test_margins_that_say_nothing_leave_the_first_polynomial(
    signed: list[float], noise: float
) -> None:
    found = choose_step(np.array(signed), np.ones(2), samples=8, noise=noise, unknowns=0.1)
    assert found == first_step()


def test_margins_as_far_as_any_are_judged_are_no_trouble() -> None:
    signed = 0.99e15 * np.linspace(-1.0, 1.0, 200)
    for noise in (0.0, 1.0, 0.99e30):
        found = choose_step(signed, np.ones(200), samples=8, noise=noise, unknowns=0.1)
        assert found.pull is not None and np.isfinite(found.pull)


def test_margins_of_one_value_are_no_trouble() -> None:
    for value in (0.0, 1.0, 5.0):
        found = choose_step(np.full(10, value), np.ones(10), samples=4, noise=0.0, unknowns=0.1)
        assert found.pull is not None and np.isfinite(found.pull)


def hinge_npz(path: Path, signal: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Eight normal columns and the signs of classes."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 8)).astype("f4")
    w = rng.standard_normal(8)
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ (signal * w / np.linalg.norm(w))))
    np.savez(path, X=x, y=y.astype(int))
    return x, np.where(y, 1.0, -1.0)


def hinge(model: LinearModel, x: np.ndarray, sign: np.ndarray) -> float:
    margin = np.ravel(model.decision_function(x))
    return float(np.maximum(0, 1 - sign * margin).mean())


def least(x: np.ndarray, sign: np.ndarray) -> float:
    """Least mean hinge loss, from a kink that is rounded off less and less."""
    z = sign[:, None] * np.c_[x, np.ones(len(x))].astype("f8")
    w = np.zeros(z.shape[1])
    for width in (1.0, 0.3, 0.1, 0.03, 0.01):

        def smooth(w: np.ndarray, width: float = width) -> tuple[float, np.ndarray]:
            gap = 1 - z @ w
            part = np.clip(gap / width + 0.5, 0, 1)
            value = np.where(gap > width / 2, gap, width / 2 * part**2)
            return float(value.mean()), -part @ z / len(z)

        w = minimize(smooth, w, jac=True, method="L-BFGS-B").x
    return float(np.maximum(0, 1 - z @ w).mean())


def trained(dataset: Dataset, sampling: str, **options: Any) -> TrainResult:
    return train(dataset, TrainOptions(loss="hinge", sampling=sampling, epochs=20, **options))


@pytest.mark.parametrize(
    ("bits", "samples", "times"), [(1, 4, 3.0), (1, 8, 15.0), (2, 4, 5.0), (2, 8, 4.0)]
)
def test_a_polynomial_comes_far_nearer_to_the_optimum_than_naive(
    bits: int, samples: int, times: float, tmp_path: Path
) -> None:
    """By a quarter of what these three roundings show: 13, 65, 19 and 15 times in the median."""
    x, sign = hinge_npz(tmp_path / "t.npz", signal=1.0)
    best, table, ratios = least(x, sign), tmp_path / "t.npz", []
    for seed in range(3):
        dataset = compressed(
            table, tmp_path / str(seed), bits=bits, samples=samples, levels="uniform", seed=seed
        )
        own, naive = (
            hinge(trained(dataset, sampling).model, x, sign) / best - 1
            for sampling in ("chebyshev", "naive")
        )
        ratios.append(naive / max(own, 1e-6))
    assert np.median(ratios) > times


def test_where_no_polynomial_suits_the_run_goes_on_and_is_no_worse_than_naive(
    tmp_path: Path,
) -> None:
    """Margins that rounding moves by six times what they vary: the logistic loss stops there."""
    x, sign = hinge_npz(tmp_path / "t.npz", signal=2.0)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=1, samples=4)
    found = trained(dataset, "chebyshev")
    polynomial = found.model.record["polynomial"]
    assert polynomial["pull"] > 0.1 and not polynomial["suits"]
    assert hinge(found.model, x, sign) < hinge(trained(dataset, "naive").model, x, sign)


@pytest.mark.parametrize("step_size", [1e3, 1e12, 1e30])
def test_a_run_that_leaves_is_stopped_though_its_loss_is_below_zero(
    step_size: float, tmp_path: Path
) -> None:
    hinge_npz(tmp_path / "t.npz", signal=1e2, rows=2000)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=2, samples=8)
    options = TrainOptions(loss="hinge", epochs=5, sampling="chebyshev", step_size=step_size)
    with pytest.raises(TrainingError, match="training diverged with step size"):
        train(dataset, options)


def test_the_loss_that_is_reported_is_nearer_to_that_of_the_original_values(
    tmp_path: Path,
) -> None:
    x, sign = hinge_npz(tmp_path / "t.npz", signal=2.0)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=2, samples=8, levels="uniform")
    found = trained(dataset, "chebyshev", validation=0.2)
    exact = hinge(found.model, x, sign)
    stored = evaluate(found.model, dataset)["loss"]
    assert abs(found.loss - exact) < 0.5 * abs(stored - exact)
    assert found.validation_loss is not None  # of other rows: by chance 0.01 away
    assert abs(found.validation_loss - exact) < abs(found.validation_loss - stored)


def test_the_record_tells_degree_range_error_and_noise(tmp_path: Path) -> None:
    hinge_npz(tmp_path / "t.npz", signal=1.0, rows=3000)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=3, samples=8)
    record = train(dataset, TrainOptions(loss="hinge", epochs=3, sampling="chebyshev")).model.record
    found = record["polynomial"]
    assert record["sampling"] == "chebyshev" and record["shrinkage"] is None
    assert found["degree"] in (1, 3, 5, 7) and found["range"] in RANGES and found["centre"] == 1
    assert 0 < found["error"] < 0.14 and 0 < found["band"] < found["range"]
    assert 0 <= found["pull"] < found["rms_error"] < 0.5 and 0 < found["deviation"] < 2
    logistic = train(dataset, TrainOptions(epochs=3, sampling="chebyshev")).model.record
    assert found["suits"]
    assert not {"centre", "band", "pull", "deviation", "suits"} & set(logistic["polynomial"])


def test_classes_weights_and_penalties_go_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    centres = 2 * rng.standard_normal((3, 6))
    y = rng.integers(0, 3, 4000)
    x = centres[y] + rng.standard_normal((4000, 6))
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", samples=4, task="classification")
    options: dict[str, Any] = {"loss": "hinge", "epochs": 10, "l2": 1e-3, "momentum": 0.5}
    naive = train(dataset, TrainOptions(sampling="naive", **options))
    found = train(dataset, TrainOptions(sampling="chebyshev", class_weight="balanced", **options))
    right = [float((r.model.predict(x) == y).mean()) for r in (naive, found)]
    assert right[1] > right[0] - 0.02
