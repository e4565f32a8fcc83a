"""The streamed scores equal scikit-learn's, however the rows are cut, merged or ordered."""

from __future__ import annotations

import json
import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from zipml_ooc.errors import DataError
from zipml_ooc.metrics import ClassificationMetrics, RegressionMetrics

# Sixteenths: exact in binary, so that sums of squares cannot lose a nearly constant column.
number = st.integers(-(2**14), 2**14).map(lambda k: k / 16)
margin = number.map(lambda value: value / 128)  # up to 8: 1 - p keeps its digits


@st.composite
def regressions(draw):
    rows, outputs = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    flat = st.lists(number, min_size=rows * outputs, max_size=rows * outputs)
    target, prediction = (np.array(draw(flat)).reshape(rows, outputs) for _ in range(2))
    if draw(st.booleans()):
        target[:, 0] = 0.1  # a constant whose mean is not exact when it is summed
    if draw(st.booleans()):
        prediction[:, 0] = target[:, 0]
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    return target, prediction, cuts


def streamed(make, first, second, cuts):
    """Update once per piece, the last two pieces in accumulators of their own, then merge."""
    pieces = list(zip(np.split(first, cuts), np.split(second, cuts), strict=True))
    total = make()
    for piece in pieces[:-2]:
        total.update(*piece)
    for piece in pieces[-2:]:
        part = make()
        part.update(*piece)
        total.merge(pickle.loads(pickle.dumps(part)))  # as a worker would send it
    return total.result()


@given(regressions())
@settings(max_examples=100, deadline=None)
def test_regression_scores_equal_scikit_learn_for_any_cut(case):
    target, prediction, cuts = case
    result = streamed(lambda: RegressionMetrics(target.shape[1]), target, prediction, cuts)
    assert result["rows"] == len(target)
    residual = target - prediction
    assert result["loss"] == pytest.approx(np.mean(0.5 * (residual**2).sum(axis=1)), rel=1e-12)
    rmse = sk.root_mean_squared_error(target, prediction)
    assert result["rmse"] == pytest.approx(rmse, rel=1e-12)
    assert result["mae"] == pytest.approx(sk.mean_absolute_error(target, prediction), rel=1e-12)
    shifted = target - target[0]  # scikit-learn sees rounding as variance in a column of 0.1
    expected = sk.r2_score(shifted, prediction - target[0])
    assert result["r2"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("blocks", [1, 7])
@pytest.mark.parametrize("value", [0.1, 1e9 + 1 / 3, 0.0])
def test_constant_target_scores_one_if_exact_and_zero_otherwise(value, blocks):
    for error, expected in ((0.0, 1.0), (0.5, 0.0)):
        metrics = RegressionMetrics(1)
        for size in range(1, blocks + 1):
            metrics.update(np.full(size + 1, value), np.full(size + 1, value) + error)
        assert metrics.result()["r2"] == expected


def test_r2_keeps_its_digits_beside_a_large_mean():
    rng = np.random.default_rng(0)
    noise, error = rng.standard_normal((2, 40_000))
    metrics = RegressionMetrics(1)
    for i in range(0, 40_000, 999):
        y = noise[i : i + 999] + 1e8
        metrics.update(y, y + 0.5 * error[i : i + 999])
    expected = 1 - 0.25 * (error**2).sum() / ((noise - noise.mean()) ** 2).sum()
    assert metrics.result()["r2"] == pytest.approx(expected, abs=1e-6)


def test_float32_blocks_are_summed_in_float64():
    y = np.full(1000, 0.1, np.float32)
    metrics = RegressionMetrics(1)
    metrics.update(y, np.zeros(1000, np.float32))
    assert metrics.result()["mae"] == pytest.approx(float(np.float32(0.1)), rel=1e-14)


def test_undefined_scores_are_none_and_results_are_json():
    assert set(RegressionMetrics(2).result().values()) == {0, None}
    assert set(ClassificationMetrics().result().values()) == {0, None}
    one = RegressionMetrics(1)
    one.update([1.0], [2.0])
    assert one.result() == {"rows": 1, "loss": 0.5, "r2": None, "rmse": 1.0, "mae": 1.0}
    huge = RegressionMetrics(1)
    huge.update([1e308, -1e308], [-1e308, 1e308])
    huge.update([1e200, 0.0], [0.0, 0.0])
    spread = RegressionMetrics(1)
    spread.update([1e200, 0.0], [1e200, 1.0])
    assert huge.result()["loss"] is None
    assert huge.result()["r2"] is None and spread.result()["r2"] is None
    for metrics in (one, huge, spread):
        json.dumps(metrics.result(), allow_nan=False)
        assert {type(v) for v in metrics.result().values()} <= {int, float, type(None)}


def test_an_empty_block_changes_nothing():
    metrics = RegressionMetrics(2)
    metrics.update(np.empty((0, 2)), np.empty((0, 2)))
    metrics.merge(RegressionMetrics(2))
    assert metrics.result()["rows"] == 0
    classifier = ClassificationMetrics()
    classifier.update([], [])
    assert classifier.result()["rows"] == 0


@st.composite
def classifications(draw):
    rows = draw(st.integers(1, 20))
    labels = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    few = st.lists(margin, min_size=1, max_size=4).flatmap(st.sampled_from)  # many ties
    margins = draw(st.lists(margin | few, min_size=rows, max_size=rows))
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    return np.array(labels), np.array(margins), cuts


@given(classifications())
@example((np.array([0, 1, 0, 1]), np.array([0.0, -0.0, 1.0, 1.0]), [2]))
@settings(max_examples=100, deadline=None)
def test_classification_scores_equal_scikit_learn_for_any_cut(case):
    labels, margins, cuts = case
    result = streamed(ClassificationMetrics, labels, margins, cuts)
    assert result["rows"] == len(labels)
    assert result["accuracy"] == sk.accuracy_score(labels, margins > 0)
    losses = [
        math.log1p(math.exp(-abs(m))) + max(0, m * (1 - 2 * y))
        for y, m in zip(labels, margins, strict=True)
    ]
    assert result["loss"] == result["log_loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    proba = 1 / (1 + np.exp(-margins))
    assert result["loss"] == pytest.approx(sk.log_loss(labels, proba, labels=[0, 1]), abs=1e-9)
    if len(set(labels.tolist())) == 2:
        assert result["auc"] == pytest.approx(sk.roc_auc_score(labels, margins), abs=1e-12)
    else:
        assert result["auc"] is None


def test_log_loss_is_finite_and_linear_for_extreme_margins():
    metrics = ClassificationMetrics()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.update([1, 0, 1, 0], [-1e300, 1e6, 1e300, -1e6])
    assert metrics.result()["loss"] == pytest.approx(2.5e299)
    assert metrics.result()["accuracy"] == 0.5


def test_scores_can_be_read_between_updates():
    rng = np.random.default_rng(3)
    labels, margins = rng.integers(0, 2, 300), rng.integers(-5, 6, 300) / 2
    metrics = ClassificationMetrics()
    for end in range(100, 301, 100):
        metrics.update(labels[end - 100 : end].astype(bool), margins[end - 100 : end, None])
        expected = sk.roc_auc_score(labels[:end], margins[:end])
        assert metrics.result()["auc"] == pytest.approx(expected, abs=1e-12)
        assert metrics.result() == metrics.result()


def test_merge_leaves_the_other_as_it_was():
    a, b = ClassificationMetrics(), ClassificationMetrics()
    a.update([0, 1], [0.0, 1.0])
    b.update([1, 0], [2.0, 3.0])
    before = b.result()
    a.merge(b)
    a.update([1], [9.0])
    assert a.result()["rows"] == 5 and b.result() == before
    c, d = RegressionMetrics(1), RegressionMetrics(1)
    d.update([1.0, 2.0], [1.0, 1.0])
    before = d.result()
    c.merge(d)
    c.update([5.0], [6.0])
    assert c.result()["rows"] == 3 and d.result() == before


def test_accumulators_keep_no_reference_to_the_callers_arrays():
    metrics = ClassificationMetrics()
    labels, margins = np.ones(2), np.array([1.0, 2.0])
    metrics.update(labels, margins)
    metrics.update([0], [0.0])
    margins[:] = -5
    assert metrics.result()["auc"] == 1.0
    regression = RegressionMetrics(1)
    y = np.array([[7.0]])
    regression.update(y, y)
    y[:] = 0
    regression.update([7.0], [7.0])
    assert regression.result()["r2"] == 1.0


def test_regression_state_does_not_grow():
    metrics = RegressionMetrics(2)
    metrics.update(np.ones((3, 2)), np.ones((3, 2)))
    size = len(pickle.dumps(metrics))
    for _ in range(50):
        metrics.update(np.ones((100, 2)), np.ones((100, 2)))
    assert len(pickle.dumps(metrics)) <= size + 16


@pytest.mark.parametrize(
    ("metrics", "first", "second", "message"),
    [
        (RegressionMetrics(1), [1.0, 2.0], [1.0], "target has 2 rows, but prediction has 1"),
        (RegressionMetrics(2), [1.0], [1.0], "target has shape (1,); it must be (rows, 2)"),
        (RegressionMetrics(1), [1.0], [[1.0, 2.0]], "prediction has shape (1, 2)"),
        (RegressionMetrics(1), [1.0, np.nan], [1.0, 1.0], "target is nan in row 1, output 0"),
        (RegressionMetrics(1), [1.0], [np.inf], "prediction is inf in row 0"),
        (RegressionMetrics(1), ["a"], [1.0], "target has dtype <U1"),
        (ClassificationMetrics(), [0, 2], [1.0, 1.0], "label is 2 in row 1 of the block"),
        (ClassificationMetrics(), [0, -1], [1.0, 1.0], "label is -1 in row 1 of the block"),
        (ClassificationMetrics(), [0, 1], [1.0], "label has 2 rows, but margin has 1"),
        (ClassificationMetrics(), [0], [np.nan], "margin is nan in row 0"),
    ],
)
def test_unusable_blocks_are_refused_and_not_counted(metrics, first, second, message):
    with pytest.raises(DataError) as caught:
        metrics.update(first, second)
    assert message in str(caught.value)
    assert metrics.result()["rows"] == 0


def test_metrics_of_other_widths_do_not_merge():
    with pytest.raises(DataError, match="2 outputs cannot join metrics of 1"):
        RegressionMetrics(1).merge(RegressionMetrics(2))
    with pytest.raises(DataError, match="outputs is 0"):
        RegressionMetrics(0)
