"""Every loss in every arithmetic, estimator and form of targets, against the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    CLASS_LOSSES,
    LOSSES,
    NUMBER_LOSSES,
    KernelCase,
    agrees,
    assert_same_bits,
    on_every_level,
)
from zipml_codecs import reference_sgd as reference
from zipml_codecs.reference_losses import ReferenceLoss
from zipml_codecs.reference_sgd import ReferenceOptions

ARITHMETICS = ["float", "int16", "int8"]
# Where the slope jumps, single precision decides on which side a margin is.
JUMPS = {"hinge": 1.0}


@st.composite
def loss_cases(draw: Any) -> tuple[KernelCase, ReferenceOptions]:
    """A loss with targets that fit it, on any codes."""
    loss = draw(st.sampled_from(LOSSES))
    samples = draw(st.sampled_from([1, 2]))
    tables = draw(st.sampled_from([None, None, "uint8", "uint16"]))
    bits = draw(st.integers(1, 8)) + samples - 1
    class_codes = loss == "softmax" or (loss in CLASS_LOSSES and draw(st.booleans()))
    case = KernelCase(
        draw(st.lists(st.integers(1, 200), min_size=1, max_size=3)),
        draw(st.integers(1, 80)),
        min(bits, 8) if tables else bits,
        outputs=draw(st.integers(2, 6) if class_codes else st.integers(1, 3)),
        seed=draw(st.integers(0, 1000)),
        samples=samples,
        row_scales=draw(st.booleans()),
        tables=tables,
        class_codes=class_codes,
        weighted=draw(st.booleans()),
    )
    if loss in NUMBER_LOSSES:
        case.targets = [3 * t - 1 for t in case.targets]
        case.batch = case.tile_batch()
    o = case.options(
        loss=loss,
        split=samples == 2 and draw(st.booleans()),
        correction=draw(st.sampled_from([0.0, 0.6, 1.0])),
        arithmetic=draw(st.sampled_from(ARITHMETICS)),
        fit_intercept=draw(st.booleans()),
        huber_delta=draw(st.sampled_from([0.25, 1.5])),
    )
    return case, o


def distance_from_jumps(case: KernelCase, o: ReferenceOptions) -> float:
    """Smallest distance of the margins of the first mini-batch from where the slope jumps."""
    if o.loss not in JUMPS:
        return np.inf
    tiles = case.reference_tiles()
    seen = reference._seen_model(o, case.model.astype("f8"), tiles[0].number)
    nearest = np.inf
    for tile in tiles:
        mean = reference.affine_values(tile, tile.codes, o)
        values = [mean]
        if o.split:
            first = reference.affine_values(tile, 2 * reference._first_codes(tile, o), o)
            values = [mean, first, 2 * mean - first]
        for value in values:
            size = np.abs(value @ seen.T + case.intercept)
            nearest = min(nearest, np.abs(size - JUMPS[o.loss]).min())
    return float(nearest)


@settings(max_examples=500)
@given(case=loss_cases())
def test_a_mini_batch_of_any_loss_agrees_with_the_reference(
    case: tuple[KernelCase, ReferenceOptions],
) -> None:
    assume(distance_from_jumps(*case) > 1e-4)
    agrees(*case)


@settings(max_examples=400)
@given(case=loss_cases(), batch_tiles=st.integers(1, 6))
def test_every_instruction_set_gives_the_same_bits_for_any_loss(
    case: tuple[KernelCase, ReferenceOptions], batch_tiles: int
) -> None:
    kernel_case, o = case
    o = kernel_case.options(
        batch_tiles=batch_tiles,
        **{
            name: getattr(o, name)
            for name in [
                "loss",
                "split",
                "correction",
                "arithmetic",
                "fit_intercept",
                "huber_delta",
            ]
        },
    )
    assert_same_bits(on_every_level(lambda: kernel_case.run(o)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_weights_of_one_change_nothing(loss: str, arithmetic: str) -> None:
    outputs = 3 if loss == "softmax" else 1
    case = KernelCase([70, 200], 20, 4, outputs=outputs, seed=3, class_codes=loss == "softmax")
    o = case.options(loss=loss, arithmetic=arithmetic, correction=0.5, batch_tiles=2)
    plain = case.run(o)
    case.batch = case.tile_batch(weights=[np.ones(n, "f4") for n in case.rows])
    assert_same_bits({"plain": plain, "ones": case.run(o)})


@pytest.mark.parametrize("loss", LOSSES)
def test_margins_that_are_not_finite_stay_visible(loss: str) -> None:
    case = KernelCase([64], 4, 4, outputs=3 if loss == "softmax" else 1, class_codes=True, seed=1)
    for at in (np.nan, np.inf, -np.inf):
        case.intercept[0] = at
        for result in on_every_level(lambda: case.run(case.options(loss=loss))).values():
            assert np.isnan(result[0]).any()
            assert not np.isfinite(result[4])


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "softmax"])
def test_derivatives_of_the_reference_are_those_of_its_value(loss: str) -> None:
    """Central differences, at margins that are not near a kink."""
    margin = np.linspace(-4.03, 4.07, 23)[:, None]
    step = 1e-4
    for target in (0.0, 1.0):
        at = ReferenceLoss(loss, huber_delta=0.8)
        y = np.full_like(margin, target)
        below, here, above = (at.terms(margin + h, y) for h in (-step, 0.0, step))
        for order in range(3):
            slope = (above[order] - below[order]) / (2 * step)
            np.testing.assert_allclose(here[order + 1], slope, atol=1e-6)


def test_the_slope_of_softmax_takes_out_what_noise_adds() -> None:
    """Averaged over noise of a small covariance, the slope is that without noise."""
    rng = np.random.default_rng(0)
    margin, code = np.array([[0.3, -0.4, 1.0, 0.2]]), np.array([[2.0]])
    mixing = 0.3 * rng.standard_normal((4, 4))
    noise = mixing @ mixing.T
    loss = ReferenceLoss("softmax")
    exact = loss.slope(margin, code, np.zeros((4, 4)))[0]
    draws = rng.standard_normal((200_000, 4)) @ mixing.T
    draws = np.concatenate([draws, -draws])
    codes = np.repeat(code, len(draws), axis=0)
    noisy = margin + draws
    plain = loss.slope(noisy, codes, np.zeros((4, 4))).mean(axis=0) - exact
    taken = loss.slope(noisy, codes, noise).mean(axis=0) - exact
    # What is left is of second order in the noise, whose variances are about 0.3.
    assert np.abs(taken).max() < 0.25 * np.abs(plain).max()


@pytest.mark.parametrize(
    ("outputs", "change", "message"),
    [
        (1, {"loss": "softmax"}, "class codes"),
        (3, {"loss": "squared"}, "class codes"),
        (3, {"loss": "huber"}, "class codes"),
        (1, {"loss": "absolute"}, "unknown loss"),
        (1, {"loss": "huber", "huber_delta": 0.0}, "above 0"),
    ],
)
def test_losses_that_do_not_fit_the_targets_are_refused(
    outputs: int, change: dict[str, Any], message: str
) -> None:
    case = KernelCase([64], 4, 4, outputs=outputs, class_codes=True)
    with pytest.raises(ValueError, match=message):
        case.run(case.options(**change))


def test_weights_need_one_for_each_row() -> None:
    case = KernelCase([64], 4, 4)
    for weights, message in (([np.ones(63, "f4")], "each row"), ([np.ones(64, "f4")] * 2, "every")):
        with pytest.raises(ValueError, match=message):
            case.tile_batch(weights=weights)
