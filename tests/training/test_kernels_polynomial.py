"""Polynomial gradients: the kernel does what the reference does, and what it does is unbiased."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_cases import KernelCase, assert_same_bits, on_every_level, start
from zipml_codecs import TILE_ROWS
from zipml_codecs.reference_losses import ReferenceLoss
from zipml_codecs.reference_polynomial import (
    ReferencePolynomial,
    estimates,
    polynomial_sgd,
    residuals,
    sample_codes,
    subsets,
)
from zipml_codecs.reference_sgd import (
    ReferenceOptions,
    ReferenceTile,
    affine_values,
    targets,
)

CENTRES = {"logistic": 0.0, "hinge": 1.0}
COEFFICIENTS = [-0.5, 0.9, 0.1, -0.4, 0.05, 0.2, -0.1, 0.15]


def native(
    case: KernelCase, o: ReferenceOptions, polynomial: ReferencePolynomial
) -> tuple[Any, ...]:
    model, intercept = case.model.copy(), case.intercept.copy()
    model_sum, intercept_sum = np.zeros(model.shape), np.zeros(case.outputs)
    names = "loss fit_intercept batch_tiles batch_rows step_first step_last average_from seed draw"
    loss_sum, rows, averaged = case.batch.sgd(
        model=model,
        intercept=intercept,
        model_sum=model_sum,
        intercept_sum=intercept_sum,
        arithmetic="float",
        split=False,
        correction=0.0,
        variance=o.variance.astype("f4"),
        l2=o.l2.astype("f4"),
        polynomial=(polynomial.weights.astype("f4"), polynomial.range, polynomial.bound),
        **{name: getattr(o, name) for name in names.split()},
    )
    return model, intercept, model_sum, intercept_sum, loss_sum, rows, averaged


@st.composite
def cases(draw: Any) -> tuple[KernelCase, ReferenceOptions, ReferencePolynomial]:
    samples = draw(st.sampled_from([4, 8]))
    shift = samples.bit_length() - 1
    class_codes = draw(st.booleans())
    case = KernelCase(
        draw(st.lists(st.integers(1, 150), min_size=1, max_size=3)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 8 - shift)) + shift,
        outputs=draw(st.integers(2, 6) if class_codes else st.integers(1, 3)),
        seed=draw(st.integers(0, 1000)),
        samples=samples,
        row_scales=draw(st.booleans()),
        tables=draw(st.sampled_from([None, None, "uint8", "uint16"])),
        class_codes=class_codes,
        weighted=draw(st.booleans()),
    )
    loss = draw(st.sampled_from(sorted(CENTRES)))
    o = case.options(loss=loss, fit_intercept=draw(st.booleans()))
    polynomial = ReferencePolynomial(
        np.array(COEFFICIENTS[:samples]),
        draw(st.sampled_from([0.7, 2.5, 40.0])),
        draw(st.sampled_from([0.8, 1e30])),
        CENTRES[loss],
    )
    return case, o, polynomial


def is_decided(case: KernelCase, o: ReferenceOptions, p: ReferencePolynomial) -> bool:
    """Whether no choice between polynomial and derivative depends on the last digits."""
    k, model, intercept = p.samples, *start(case)
    for tile in case.reference_tiles():
        codes = k * sample_codes(tile, o, k)
        margin = np.stack([affine_values(tile, z, o) @ model.T + intercept for z in codes])
        target = targets(o, tile.target, case.outputs)
        others = (margin.sum(axis=0) - margin) / (k - 1)
        value = estimates(p, margin, target)
        from_centre = np.where(target > 0.5, others, -others) - p.centre
        away = [np.abs(np.abs(from_centre) - p.range)]
        if o.loss == "hinge":
            away.append(np.abs(from_centre))
        away.append(np.abs(np.abs(value) - p.bound) / (1 + np.abs(value)))
        if min(d.min() for d in away) < 1e-4:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_a_mini_batch_agrees_with_the_reference(case: tuple[Any, ...]) -> None:
    assume(is_decided(*case))
    kernel_case, o, polynomial = case
    got = native(*case)
    expected = polynomial_sgd(kernel_case.reference_tiles(), o, *start(kernel_case), polynomial)
    # Single precision; estimates of high degree are sums of products that may be large.
    scale = 1 + float(np.abs(expected[0]).max())
    for a, b in zip(got[:4], expected[:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-4, atol=3e-4 * scale)
    np.testing.assert_allclose(got[4], expected[4], rtol=1e-3, atol=1e-3 * sum(kernel_case.rows))


@settings(max_examples=150, deadline=None)
@given(case=cases(), batch_tiles=st.integers(1, 4))
def test_every_instruction_set_gives_the_same_bits(case: tuple[Any, ...], batch_tiles: int) -> None:
    kernel_case, o, polynomial = case
    o = kernel_case.options(
        loss=o.loss, fit_intercept=o.fit_intercept, batch_tiles=batch_tiles, batch_rows=64.0
    )
    assert_same_bits(on_every_level(lambda: native(kernel_case, o, polynomial)))


def test_the_draws_give_every_choice_of_samples_alike() -> None:
    """Which samples rounded up, over many draws: chi squared of the sets, and the sum kept."""
    for samples in (4, 8):
        codes = np.tile(np.arange(2 * samples + 1), (TILE_ROWS, 1))
        tile = ReferenceTile(codes, np.zeros((TILE_ROWS, 1)), None, 3)
        case = KernelCase([64], 1, 2 + samples.bit_length() - 1, samples=samples)
        found = []
        for draw in range(300):
            each = sample_codes(tile, case.options(draw=draw), samples)
            assert (each.sum(axis=0) == codes).all()
            assert (np.ptp(each, axis=0) <= 1).all()
            found.append(each - codes // samples)
        ups = np.array(found)  # draws, samples, rows, codes
        for up in range(1, samples):
            bits = ups[..., up].transpose(0, 2, 1).reshape(-1, samples)
            number = bits @ (1 << np.arange(samples))
            sets = subsets(samples)[up]
            counts = np.array([(number == mask).sum() for mask in sets])
            mean = len(number) / len(sets)
            chi = float(((counts - mean) ** 2 / mean).sum())
            freedom = len(sets) - 1
            # Wilson and Hilferty's cube root: five standard deviations, for ten sets of draws.
            root = (chi / freedom) ** (1 / 3)
            spread = np.sqrt(2 / (9 * freedom))
            assert abs(root - (1 - spread**2)) < 5 * spread


def quantised(
    x: np.ndarray, bits: int, samples: int, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """Sums of codes of values in [-2, 2], drawn again and again: (repeats * rows, columns)."""
    place = np.tile((x + 2) / 4 * ((1 << bits) - 1), (repeats, 1))
    base = np.minimum(np.floor(place), (1 << bits) - 2)
    ups = [base + (rng.random(place.shape) < place - base) for _ in range(samples)]
    return np.sum(ups, axis=0).astype(int)


REPEATS = 64 * 1500


def observed_error(samples: int, loss: str, *, reuse: bool = False) -> float:
    """Deviation of mean steps from the gradient of the polynomial at the rows, in standard errors.

    A row of four columns is rounded again and again. With `reuse`, the second sample is the first
    one once more, as if two factors shared a draw.
    """
    rng = np.random.default_rng(samples)
    bits, columns = 1, 4
    x, y = rng.uniform(-1.5, 1.5, (64, columns)), (rng.random(64) < 0.5).astype("f4")
    codes = quantised(x, bits, samples, REPEATS // 64, rng)
    step = 4 / ((1 << bits) - 1)
    case = KernelCase([64], columns, bits + samples.bit_length() - 1, samples=samples)
    case.slope[:], case.offset[:], case.centre[:], case.variance[:] = step / samples, -2, 0, 0
    case.l2[:], case.model[:], case.intercept[:] = 0, rng.uniform(-0.5, 0.5, columns), 0.2
    wide = 64.0  # no row lies beyond
    coefficient = np.array(COEFFICIENTS[:samples]) * wide ** np.arange(samples)
    polynomial = ReferencePolynomial(coefficient, wide, 1e30, CENTRES[loss])
    steps = []
    for number in range(REPEATS // 64):
        case.codes = [codes[64 * number : 64 * number + 64]]
        case.targets = [y[:, None]]
        case.batch = case.tile_batch()
        o = case.options(loss=loss, batch_tiles=1, batch_rows=64.0, step_first=1.0, draw=number)
        if reuse:
            steps.append(reused(case, o, polynomial, samples))
        else:
            after = native(case, o, polynomial)
            steps.append(np.append(case.model - after[0], case.intercept - after[1]))
    margin = x @ case.model[0].astype("f8") + 0.2
    sign = np.where(y > 0.5, 1.0, -1.0)
    away = sign * margin - CENTRES[loss]
    value = sign * np.polynomial.polynomial.polyval(away, COEFFICIENTS[:samples])
    exact = np.append((value @ x) / 64, value.mean())
    error = np.mean(steps, axis=0) - exact
    return float(np.abs(error / (np.std(steps, axis=0) / np.sqrt(len(steps)))).max())


def reused(
    case: KernelCase, o: ReferenceOptions, polynomial: ReferencePolynomial, samples: int
) -> np.ndarray:
    """A step in which two factors reuse a sample, by the reference."""
    (tile,) = case.reference_tiles()
    codes = samples * sample_codes(tile, o, samples)
    codes[1] = codes[0]
    values = [affine_values(tile, z, o) for z in codes]
    margin = np.stack([v @ case.model.T.astype("f8") + case.intercept for v in values])
    found = residuals(polynomial, ReferenceLoss(o.loss), margin, tile.target) / samples
    slope = sum(r.T @ v for r, v in zip(found, values, strict=True)) / 64
    return np.append(slope, found.sum() / 64)


@pytest.mark.parametrize("loss", sorted(CENTRES))
@pytest.mark.parametrize("samples", [4, 8])
def test_a_step_is_unbiased_for_the_polynomial_at_the_rows(samples: int, loss: str) -> None:
    """Over roundings and draws: five standard errors, a false alarm once in 300,000 runs."""
    assert observed_error(samples, loss) < 5


@pytest.mark.parametrize("loss", sorted(CENTRES))
@pytest.mark.parametrize("samples", [4, 8])
def test_a_sample_used_twice_would_be_noticed(samples: int, loss: str) -> None:
    assert observed_error(samples, loss, reuse=True) > 10


def test_the_hinge_takes_its_slope_at_the_mean_of_the_others_beyond_the_range() -> None:
    """-1 or 0 for a row of its class, with nothing taken out, whatever the sample itself says."""
    polynomial = ReferencePolynomial(np.array(COEFFICIENTS[:4]), 0.5, 8.0, 1.0)
    margin = np.array([[0.2, 5.0], [0.1, 3.0], [0.3, 4.0], [9.0, -9.0]])[:, :, None]
    found = residuals(polynomial, ReferenceLoss("hinge"), margin, np.ones((2, 1)))
    assert found[3].ravel().tolist() == [-1.0, 0.0]  # 0.2 and 4 are what the others show
    other_class = residuals(polynomial, ReferenceLoss("hinge"), -margin, np.zeros((2, 1)))
    assert other_class[3].ravel().tolist() == [1.0, 0.0]


def test_symmetric_means_are_those_of_all_products() -> None:
    """The weights and the recursion stand for the mean over products of different samples."""
    rng = np.random.default_rng(0)
    margin = rng.normal(size=(4, 3, 1))
    polynomial = ReferencePolynomial(np.array(COEFFICIENTS[:4]), 1.0, 1e30)
    target = np.ones((3, 1))
    found = estimates(polynomial, margin, target)
    for i in range(4):
        others = [m for m in range(4) if m != i]
        value = sum(
            polynomial.coefficient[j]
            * np.mean(
                [np.prod(margin[list(s)], axis=0) for s in itertools.combinations(others, j)],
                axis=0,
            )
            for j in range(4)
        )
        np.testing.assert_allclose(found[i], value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"polynomial": (np.zeros(3, "f4"), 1.0, 1.0)}, "each of four or eight samples"),
        ({"polynomial": (np.zeros(4, "f4"), 0.0, 1.0)}, "must be above 0"),
        ({"loss": "squared"}, "goes with the logistic loss or the hinge"),
        ({"arithmetic": "int8"}, "goes with float arithmetic"),
        ({"correction": 0.5}, "without split and correction"),
    ],
)
def test_what_does_not_go_with_a_polynomial_is_refused(change: dict[str, Any], text: str) -> None:
    case = KernelCase([70], 5, 4, samples=4)
    arguments: dict[str, Any] = {
        "model": case.model, "intercept": case.intercept, "model_sum": np.zeros((1, 5)),
        "intercept_sum": np.zeros(1), "loss": "logistic", "arithmetic": "float", "split": False,
        "correction": 0.0, "variance": case.variance, "l2": case.l2, "fit_intercept": True,
        "batch_tiles": 1, "batch_rows": 64.0, "step_first": 0.1, "step_last": 0.1,
        "average_from": 0, "seed": 0, "draw": 0, "polynomial": (np.ones(4, "f4"), 1.0, 1.0),
    }  # fmt: skip
    case.batch.sgd(**arguments)
    with pytest.raises(ValueError, match=text):
        case.batch.sgd(**(arguments | change))
    few = KernelCase([70], 5, 2, samples=2)
    with pytest.raises(ValueError, match="no sums of so many samples"):
        few.batch.sgd(**arguments)
