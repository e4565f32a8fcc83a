"""Stochastic rounding of models and residuals: unbiased, and harmless to what training finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_cases import KernelCase
from zipml_codecs.reference_sgd import largest_number

DRAWS = 10_000


@pytest.mark.parametrize("arithmetic", ["int8", "int16"])
@pytest.mark.parametrize(
    ("form", "bits", "tables", "row_scales"),
    [
        ("mean", 4, None, False),
        ("mean", 8, None, True),
        ("corrected", 3, None, False),
        ("split", 4, None, False),
        ("split", 5, None, True),
        ("mean", 4, "uint8", False),
        ("split", 4, "uint8", False),
        ("mean", 3, "uint16", True),
        ("split", 3, "uint16", False),
    ],
)
def test_a_rounded_step_is_the_exact_one_on_average(
    form: str, bits: int, tables: str | None, row_scales: bool, arithmetic: str
) -> None:
    """Over many draws, for the squared loss, the mean of integer steps less float steps is zero.

    Five standard errors: a false alarm has a probability of 6e-7 for one number, and below 3e-4
    for the 28 of all 18 cases together; the draws are fixed. Draws of 16 bits lift a number by
    2^-17 of a step on average, some two thousandths of the standard error.
    """
    case = KernelCase(
        [150], 13, bits, outputs=2, samples=2, seed=bits, tables=tables, row_scales=row_scales
    )
    differences = []
    for draw in range(DRAWS):
        given: dict[str, Any] = {
            "draw": draw,
            "split": form == "split",
            "correction": 1.0 if form != "mean" else 0.0,
        }
        exact = case.run(case.options(**given))
        rounded = case.run(case.options(arithmetic=arithmetic, **given))
        differences.append(np.append(rounded[0] - exact[0], rounded[1] - exact[1]).astype("f8"))
    error = np.mean(differences, axis=0)
    deviation = np.std(differences, axis=0)
    # In single precision the float step itself is off by some 2^-23 of numbers of about one.
    assert (np.abs(error) <= 5 * deviation / np.sqrt(DRAWS) + 2e-7).all()
    # The noise has the size of the step: it is there, and no more than it should be.
    o = case.options(arithmetic=arithmetic)
    assert 1e-3 < deviation.max() * largest_number(o) < 30


def quantised(
    x: np.ndarray, bits: int, samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (sums of codes) of values in [-2, 2], and the rounding variance of each column."""
    place = (x + 2) / 4 * ((1 << bits) - 1)
    base = np.minimum(np.floor(place), (1 << bits) - 2)
    codes = sum(base + (rng.random(x.shape) < place - base) for _ in range(samples))
    fraction = place - base
    spread = (fraction * (1 - fraction)).mean(axis=0) / samples
    return codes.astype(int), spread * (4 / ((1 << bits) - 1)) ** 2


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", ["naive", "corrected", "mean", "split"])
def test_integers_find_what_floats_find(form: str, bits: int, loss: str) -> None:
    """The loss on the data, after some epochs, is within 0.5 % of that of single precision."""
    rng = np.random.default_rng(bits)
    rows, columns, epochs = 4096, 20, 8
    samples = 2 if form in ("mean", "split") else 1
    x = np.clip(rng.normal(size=(rows, columns)), -2, 2)
    signal = x @ rng.normal(0, 0.7, columns) + 0.5
    y = (
        signal + rng.normal(size=rows)
        if loss == "squared"
        else (rng.random(rows) < 1 / (1 + np.exp(-signal))).astype(float)
    )
    codes, variance = quantised(x, bits, samples, rng)
    step = 4 / ((1 << bits) - 1) / samples
    case = KernelCase([rows], columns, bits + samples - 1, samples=samples)
    case.codes, case.targets = [codes], [y[:, None].astype("f4")]
    case.slope[:], case.offset[:], case.centre[:], case.variance[:] = step, -2, 0, variance
    case.l2[:] = 0
    case.batch = case.tile_batch()

    def trained(arithmetic: str) -> float:
        case.model, case.intercept = np.zeros((1, columns), "f4"), np.zeros(1, "f4")
        first = 0.2 if loss == "squared" else 1.0
        for epoch in range(epochs):
            o = case.options(
                loss=loss,
                arithmetic=arithmetic,
                split=form == "split",
                correction=0.0 if form == "naive" else 1.0,
                batch_tiles=2,
                batch_rows=128.0,
                step_first=first * (1 - epoch / epochs),
                step_last=first * (1 - (epoch + 1) / epochs),
                draw=epoch,
            )
            case.model, case.intercept = case.run(o)[:2]
        margin = x @ case.model[0] + case.intercept[0]
        if loss == "squared":
            return float(np.mean((margin - y) ** 2 / 2))
        return float(np.mean(np.logaddexp(0, np.where(y > 0.5, -margin, margin))))

    exact = trained("float")
    start = np.var(y) / 2 if loss == "squared" else np.log(2)
    assert exact < 0.8 * start
    for arithmetic in ("int8", "int16"):
        assert abs(trained(arithmetic) / exact - 1) < 0.005
