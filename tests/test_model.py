"""The model predicts what its parts say."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import assert_same, make

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.model import load_model


def test_decision_function_standardises_then_multiplies():
    model = make(2, 3)
    x = np.random.default_rng(1).standard_normal((7, 3))
    expected = ((x - model.mean) / model.scale) @ model.coef.T + model.intercept
    np.testing.assert_allclose(model.decision_function(x), expected, rtol=1e-14)
    z = (x - model.mean) / model.scale
    np.testing.assert_allclose(model.decision_standardised(z), expected, rtol=1e-14)


def test_large_mean_beside_small_scale_keeps_its_digits():
    # Nanosecond time stamps with a spread of a microsecond: the folded form is off by whole units.
    mean, scale = 2.0**60, 2.0**10
    model = make(1, 1, coef=[[1.0]], intercept=[0.5], mean=[mean], scale=[scale])
    x = np.array([[mean - scale], [mean], [mean + 3 * scale]])
    np.testing.assert_array_equal(model.decision_function(x)[:, 0], [-0.5, 0.5, 3.5])


def test_row_blocks_do_not_change_the_result(monkeypatch):
    model, x = make(2, 3), np.random.default_rng(2).standard_normal((50, 3)).astype(np.float32)
    whole = model.decision_function(x)
    monkeypatch.setattr("zipml_ooc.model._BLOCK_VALUES", 21)
    np.testing.assert_allclose(model.decision_function(x), whole, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4", "f8", "?"])
def test_any_real_dtype_and_memory_order_is_accepted_and_left_unchanged(dtype):
    x = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    before = x.copy()
    result = make(1, 3).decision_function(x)
    np.testing.assert_allclose(result, make(1, 3).decision_function(x.astype("f8")))
    np.testing.assert_array_equal(x, before)


def test_no_rows_give_no_predictions():
    assert make(2, 3).decision_function(np.empty((0, 3))).shape == (0, 2)
    assert make(1, 3).predict(np.empty((0, 3))).shape == (0,)


def test_regression_predict_is_flat_for_one_output_only():
    x = np.zeros((4, 3))
    assert make(1, 3).predict(x).shape == (4,)
    assert make(2, 3).predict(x).shape == (4, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3)), "X has 3 columns, but the model expects 4"),
        (np.zeros(4), "X has 1 dimensions, but the model expects 2"),
        (np.full((2, 4), "a"), "X has dtype <U1"),
        (np.zeros((2, 4), complex), "X has dtype complex128"),
        (np.array([[0, 0, 0, 0], [0, 0, np.nan, 0]]), "X has nan in row 1, column 'c2'"),
        (np.array([[0, -np.inf, 0, 0]]), "X has -inf in row 0, column 'c1'"),
    ],
)
def test_unusable_x_is_refused_with_its_place(x, message):
    with pytest.raises(DataError) as caught:
        make(1, 4).decision_function(x)
    assert message in str(caught.value)


def test_row_number_of_a_bad_value_counts_from_the_start_of_x(monkeypatch):
    monkeypatch.setattr("zipml_ooc.model._BLOCK_VALUES", 8)
    x = np.zeros((11, 4))
    x[9, 3] = np.nan
    with pytest.raises(DataError, match="row 9, column 'c3'"):
        make(1, 4, coef=[[1.0, 1.0, 1.0, 0.0]]).decision_function(x)


def test_a_prediction_beyond_float64_is_refused():
    model = make(1, 1, coef=[[1e300]], mean=[0.0], scale=[1.0])
    with pytest.raises(DataError, match="row 1 of X is too large"):
        model.decision_function(np.array([[1.0], [1e200]]))


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [
        (("no", "yes"), object),
        ((3, 7), np.int64),
        ((-1.5, 2.0), np.float64),
        ((False, True), np.bool_),
        ((0, "other"), object),
        ((0, 2**70), object),
    ],
)
def test_class_labels_keep_their_types(classes, dtype, tmp_path):
    model = make(1, 1, coef=[[1.0]], intercept=[0.0], mean=[0.0], scale=[1.0], classes=classes)
    model.save(tmp_path / "m.zipml")
    loaded = load_model(tmp_path / "m.zipml")
    assert_same(model, loaded)
    labels = loaded.predict(np.array([[-1.0], [0.0], [1.0]]))
    assert labels.dtype == dtype
    assert list(labels) == [classes[0], classes[0], classes[1]]


def test_numpy_labels_become_plain_ones():
    model = make(classes=tuple(np.array([1, 2])), loss="logistic")
    assert [type(c) for c in model.classes] == [int, int]
    assert [type(c) for c in make(classes=tuple(np.array(["a", "b"]))).classes] == [str, str]


def test_predict_proba_is_stable_for_any_margin():
    model = make(
        1, 1, loss="logistic", classes=(0, 1), coef=[[1.0]], intercept=[0], mean=[0], scale=[1]
    )
    margins = np.array([-1e6, -800, -700, -30, -1, 0, 1, 30, 700, 800, 1e6])
    with np.errstate(all="raise", under="ignore"):
        proba = model.predict_proba(margins[:, None])
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_array_equal(proba, proba[::-1, ::-1])
    np.testing.assert_allclose(proba[2:6, 1], np.exp(margins[2:6]) / (1 + np.exp(margins[2:6])))
    assert (proba[:, 1] > 0.5).tolist() == (margins > 0).tolist()


def test_squared_loss_has_no_probabilities():
    with pytest.raises(UsageError, match="squared loss has no probabilities"):
        make(classes=(0, 1)).predict_proba(np.zeros((1, 3)))


# ------------------------------------------------------------------ construction


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"loss": "cubic"}, "unknown loss 'cubic'"),
        ({"loss": "logistic"}, "classes is None"),
        ({"coef": np.zeros((1, 2))}, "coef has shape (1, 2)"),
        ({"mean": np.zeros(4)}, "mean has shape (4,)"),
        ({"coef": [[0, np.nan, 0]]}, "coef has nan at (0, 1)"),
        ({"scale": [1, 0, 1]}, "scale is 0.0 for column 'c1'"),
        ({"scale": [1, np.inf, 1]}, "scale has inf at (1,)"),
        ({"columns": ()}, "columns must be one or more strings"),
        ({"targets": (1,)}, "targets must be one or more strings"),
        ({"classes": ("a",)}, "two or more different classes"),
        ({"classes": ("a", "a")}, "two or more different classes"),
        ({"classes": ("a", None)}, "class label None of type NoneType"),
        ({"classes": (0.0, np.nan)}, "class label nan"),
        ({"encoder": {"a": np.zeros(2)}}, "encoder cannot be written as JSON"),
        ({"record": {"loss": float("nan")}}, "record cannot be written as JSON"),
        ({"record": [1]}, "record must be a dict, not list"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(DataError) as caught:
        make(1, 3, **parts)
    assert message in str(caught.value)


def test_the_model_does_not_share_the_callers_arrays():
    coef = np.ones((1, 3))
    model = make(1, 3, coef=coef)
    coef[:] = 5
    assert (model.coef == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        model.coef[0, 0] = 2
