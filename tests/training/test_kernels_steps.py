"""What a mini-batch does to the model: penalties, momentum, anchors; and full gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernel_cases import KernelCase, assert_same_bits, on_every_level
from zipml_codecs.reference_sgd import ReferenceOptions, full_gradient, sgd

ROWS = [200, 64, 37]


def steps(case: KernelCase, o: ReferenceOptions) -> tuple[Any, ...]:
    """As `KernelCase.run`, with what this page tests."""
    model, intercept = case.model.copy(), case.intercept.copy()
    model_sum, intercept_sum = np.zeros(model.shape), np.zeros(case.outputs)
    velocity, down = np.zeros_like(model), np.zeros_like(intercept)
    l1 = np.broadcast_to(np.asarray(o.l1, "f4"), (case.columns,)).copy()
    loss_sum, _, _ = case.batch.sgd(
        model=model,
        intercept=intercept,
        model_sum=model_sum,
        intercept_sum=intercept_sum,
        loss=o.loss,
        arithmetic=o.arithmetic,
        split=o.split,
        correction=o.correction,
        variance=o.variance.astype("f4"),
        l2=o.l2.astype("f4"),
        l1=l1,
        fit_intercept=o.fit_intercept,
        batch_tiles=o.batch_tiles,
        batch_rows=o.batch_rows,
        step_first=o.step_first,
        step_last=o.step_last,
        average_from=o.average_from,
        seed=o.seed,
        draw=o.draw,
        momentum=o.momentum,
        velocity=velocity,
        intercept_velocity=down,
        anchor=None if o.anchor is None else tuple(a.astype("f4") for a in o.anchor),
    )
    return model, intercept, model_sum, intercept_sum, loss_sum, velocity, down


def small_steps(case: KernelCase, **changes: Any) -> ReferenceOptions:
    return case.options(
        batch_tiles=1, batch_rows=64.0, step_first=0.05, step_last=0.01, correction=0.7, **changes
    )


def anchor_of(case: KernelCase, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    shape = (case.outputs, case.columns)
    drawn = (rng.normal(0, 0.2, shape), rng.normal(0, 1, case.outputs),
             rng.normal(0, 0.3, shape), rng.normal(0, 1, case.outputs))  # fmt: skip
    return tuple(a.astype("f4").astype("f8") for a in drawn)


CHANGES: dict[str, dict[str, Any]] = {
    "l1": {"l1": 0.3},
    "elastic-net-logistic": {"l1": 0.1, "loss": "logistic"},
    "momentum": {"momentum": 0.9},
    "momentum-without-intercept": {"momentum": 0.5, "fit_intercept": False, "l1": 0.05},
    "anchor": {"anchor": 1},
    "anchor-logistic-momentum": {"anchor": 2, "loss": "logistic", "momentum": 0.8, "l1": 0.02},
    "anchor-split": {"anchor": 3, "split": True},
    "anchor-softmax": {"anchor": 4, "loss": "softmax"},
    "anchor-softmax-split-momentum": {
        "anchor": 5,
        "loss": "softmax",
        "split": True,
        "momentum": 0.6,
    },
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["plain", "row-scales", "tables", "outputs"])
def test_steps_equal_the_reference_on_every_instruction_set(change: str, kind: str) -> None:
    softmax = CHANGES[change].get("loss") == "softmax"
    case = KernelCase(
        ROWS,
        37,
        5,
        samples=2,
        seed=3,
        outputs=3 if softmax or kind == "outputs" else 1,
        class_codes=softmax,
        weighted=softmax and kind == "outputs",
        row_scales=kind == "row-scales",
        tables="uint16" if kind == "tables" else None,
    )
    changes = dict(CHANGES[change])
    if "anchor" in changes:
        changes["anchor"] = anchor_of(case, changes["anchor"])
    o = small_steps(case, **changes)
    got = assert_same_bits(on_every_level(lambda: steps(case, o)))
    model, intercept = case.model.astype("f8"), case.intercept.astype("f8")
    expected = sgd(case.reference_tiles(), o, model, intercept)
    for a, b in zip(got[:5], expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("arithmetic", ["int16", "int8"])
def test_penalties_and_momentum_in_integers_equal_the_reference(arithmetic: str) -> None:
    case = KernelCase(ROWS, 40, 4, seed=5)
    o = small_steps(case, l1=0.2, momentum=0.7, arithmetic=arithmetic)
    got = assert_same_bits(on_every_level(lambda: steps(case, o)))
    model, intercept = case.model.astype("f8"), case.intercept.astype("f8")
    expected = sgd(case.reference_tiles(), o, model, intercept)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-3, atol=2e-3)


def test_a_strong_l1_penalty_leaves_exact_zeros() -> None:
    case = KernelCase(ROWS, 37, 5, seed=4)
    model = steps(case, small_steps(case, l1=1e3))[0]
    assert not model.any() and not np.signbit(model).any()
    some = steps(case, small_steps(case, l1=np.where(np.arange(37) < 9, 1e3, 0.0)))[0]
    assert not some[0, :9].any() and some[0, 9:].all()


def test_no_momentum_and_no_l1_change_no_bit() -> None:
    case = KernelCase(ROWS, 37, 5, seed=6)
    o = small_steps(case)
    plain = case.run(o)
    for a, b in zip(plain[:5], steps(case, o)[:5], strict=True):
        assert np.array_equal(a, b)


def test_at_the_anchor_a_step_follows_the_mean_gradient_alone() -> None:
    """What the mini-batch says cancels: no variance is left where the anchor is."""
    case = KernelCase([64], 12, 4, seed=7)
    at, at_intercept, mean, down = anchor_of(case, 5)
    case.model, case.intercept = at.astype("f4"), at_intercept.astype("f4")
    o = small_steps(case, anchor=(at, at_intercept, mean, down), l2=np.zeros(12))
    model, intercept = steps(case, o)[:2]
    np.testing.assert_allclose(model, at - 0.05 * mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(intercept, at_intercept - 0.05 * down, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", ["plain", "row-scales", "tables", "outputs"])
def test_full_gradients_equal_the_reference(loss: str, split: bool, kind: str) -> None:
    case = KernelCase(
        ROWS,
        29,
        5,
        samples=2,
        seed=8,
        outputs=2 if loss == "softmax" or kind == "outputs" else 1,
        class_codes=loss == "softmax",
        row_scales=kind == "row-scales",
        tables="uint8" if kind == "tables" else None,
    )
    o = case.options(loss=loss, split=split, correction=0.6, batch_tiles=2, batch_rows=1.0)

    def run() -> tuple[Any, ...]:
        out, down = np.full(case.model.shape, 7.0), np.full(case.outputs, 7.0)
        loss_sum, rows = case.batch.full_gradient(
            model=case.model,
            intercept=case.intercept,
            loss=o.loss,
            arithmetic="float",
            split=o.split,
            correction=o.correction,
            variance=case.variance,
            batch_tiles=o.batch_tiles,
            seed=o.seed,
            draw=o.draw,
            out=out,
            intercept_out=down,
        )
        return out, down, loss_sum, rows

    before = case.model.copy()
    gradient, down, loss_sum, rows = assert_same_bits(on_every_level(run))
    assert np.array_equal(case.model, before)
    assert rows == sum(ROWS)
    model, intercept = case.model.astype("f8"), case.intercept.astype("f8")
    expected = full_gradient(case.reference_tiles(), o, model, intercept)
    scale = np.abs(expected[0]).max()
    np.testing.assert_allclose(gradient, expected[0], rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(down, expected[1], rtol=1e-4, atol=1e-4)
    assert loss_sum == pytest.approx(expected[2], rel=1e-5)


def test_the_anchor_needs_float_arithmetic_and_momentum_its_velocity() -> None:
    case = KernelCase(ROWS, 37, 5, seed=9)
    o = replace(small_steps(case, anchor=anchor_of(case, 1)), arithmetic="int8")
    with pytest.raises(ValueError, match="float arithmetic"):
        steps(case, o)
    with pytest.raises(ValueError, match="momentum must be"):
        steps(case, small_steps(case, momentum=1.0))
