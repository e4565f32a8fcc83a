"""Weights of rows and of classes: a weight is as many copies of a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from tables import compressed, write_csv

from zipml_ooc import DataError, TrainOptions, UsageError, evaluate, open_dataset, train

COLUMNS = ("a", "b", "c")


def table(rows: int, classes: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 3)) @ np.array([[1, 0.4, 0], [0, 1, 0.3], [0.2, 0, 1]])
    margin = x @ rng.standard_normal((3, max(classes, 1)))
    if classes:
        y = (margin + rng.gumbel(size=margin.shape) - 1.5 * np.arange(classes)).argmax(axis=1)
        target: Any = np.array([f"k{c}" for c in y])
    else:
        target = margin[:, 0] + rng.standard_normal(rows)
    weight = rng.choice([0, 1, 2, 5], rows)
    return dict(zip(COLUMNS, x.T, strict=True)) | {"y": target, "w": weight}


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "squared-hinge", "softmax"])
def test_a_weight_is_as_many_copies_of_a_row(loss: str, tmp_path: Path) -> None:
    classes = {"squared": 0, "huber": 0, "softmax": 3}.get(loss, 2)
    data = table(6000, classes)
    source = write_csv(tmp_path / "w.csv", data)
    often = np.repeat(np.arange(6000), data["w"])
    np.random.default_rng(1).shuffle(often)  # copies would fill mini-batches of their own
    copies = {name: np.asarray(data[name])[often] for name in (*COLUMNS, "y")}
    repeated = write_csv(tmp_path / "r.csv", copies)
    # Not standardised: the columns are the same in both, and so is the penalty.
    same: dict[str, Any] = {"bits": 8, "standardize": False}
    weighted = compressed(source, tmp_path / "w", ("y",), weight="w", **same)
    plain = compressed(repeated, tmp_path / "r", ("y",), **same)
    assert weighted.spec.columns == COLUMNS
    options = TrainOptions(loss=loss, l2=1e-2, huber_delta=1.0)
    one, other = train(weighted, options), train(plain, options)
    scale = np.abs(other.model.coef).max()
    # Huber's delta is in standard deviations of the rows as they are stored.
    bound = 0.02 if loss == "huber" else 0.005
    np.testing.assert_allclose(one.model.coef, other.model.coef, atol=bound * scale)
    np.testing.assert_allclose(one.model.intercept, other.model.intercept, atol=bound * scale)
    assert one.loss == pytest.approx(other.loss, rel=2 * bound)


def test_the_weighted_mean_is_what_counts_on_held_out_rows_too(tmp_path: Path) -> None:
    """Weights a million times as large change nothing."""
    data = table(3000, 2)
    data["v"] = data["w"] * 1e6
    losses = []
    for weight, other in (("w", "v"), ("v", "w")):
        chosen = {k: v for k, v in data.items() if k != other}
        source = write_csv(tmp_path / f"{weight}.csv", chosen)
        dataset = compressed(source, tmp_path / weight, ("y",), weight=weight)
        result = train(dataset, TrainOptions(validation=0.3, epochs=8))
        losses.append((result.loss, result.validation_loss, *result.model.coef[0]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_few_heavy_rows_do_not_make_training_diverge(tmp_path: Path) -> None:
    data = table(6000, 0)
    data["w"] = np.where(np.arange(6000) % 300 == 0, 300.0, 0.1)
    dataset = compressed(write_csv(tmp_path / "t.csv", data), tmp_path / "d", ("y",), weight="w",
                         bits=8)  # fmt: skip
    model = train(dataset, TrainOptions(l2=1e-3, epochs=100)).model
    x = np.column_stack([data[name] for name in COLUMNS])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    best = Ridge(alpha=1e-3 * data["w"].sum()).fit(z, data["y"], sample_weight=data["w"])
    np.testing.assert_allclose(model.coef[0], best.coef_, atol=0.05 * np.abs(best.coef_).max())


@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_classes_are_those_of_scikit_learn(classes: int, tmp_path: Path) -> None:
    data = table(8000, classes)
    del data["w"]
    dataset = compressed(write_csv(tmp_path / "t.csv", data), tmp_path / "d", ("y",), bits=8)
    model = train(dataset, TrainOptions(class_weight="balanced", l2=1e-2)).model
    x = np.column_stack([data[name] for name in COLUMNS])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    best = LogisticRegression(C=1 / (1e-2 * len(z)), class_weight="balanced", tol=1e-8)
    best.fit(z, data["y"])
    scale = np.abs(best.coef_).max()
    np.testing.assert_allclose(model.coef, best.coef_, atol=0.01 * scale)
    found = model.decision_standardised(z)
    expected = best.decision_function(z).reshape(len(z), -1)
    np.testing.assert_allclose(found, expected, atol=0.05 * scale)


@pytest.mark.parametrize(
    ("weight", "message"),
    [(-1.0, "weight 'w' is -1.0 in row 70 "), (np.nan, "weight 'w' is nan in row 70 ")],
)
def test_bad_weights_are_refused_with_their_row(
    weight: float, message: str, tmp_path: Path
) -> None:
    data = table(100, 0)
    data["w"] = data["w"].astype(float)
    data["w"][70] = weight
    source = write_csv(tmp_path / "t.csv", data)
    with pytest.raises(DataError, match=message):
        compressed(source, tmp_path / "d", ("y",), weight="w")
    assert not (tmp_path / "d").exists()


def test_weights_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "t.csv", table(100, 0) | {"w": np.zeros(100)})
    with pytest.raises(DataError, match=r"rows \(0 to 99\) add up to 0"):
        compressed(source, tmp_path / "d", ("y",), weight="w")


def test_columns_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "t.csv", table(100, 2))
    for name, message in (("nothing", "none of that name"), ("y", "it is the target")):
        with pytest.raises(UsageError, match=message):
            compressed(source, tmp_path / "d", ("y",), weight=name)
    numbers = compressed(write_csv(tmp_path / "n.csv", table(100, 0)), tmp_path / "n", ("y",))
    with pytest.raises(UsageError, match="class weights need classes"):
        train(numbers, TrainOptions(class_weight="balanced"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_weights_are_stored_as_they_are(zarr_format: int, tmp_path: Path) -> None:
    data = table(300, 0)
    source = write_csv(tmp_path / "t.csv", data)
    made = compressed(source, tmp_path / "d", ("y",), weight="w", zarr_format=zarr_format,
                      chunk_rows=64)  # fmt: skip
    assert made.spec.to_attributes()["version"] == "1.1"
    again = open_dataset(tmp_path / "d")
    assert again.spec.weight == "w"
    assert np.array_equal(again.read_weight(0, 300), data["w"])
    # A source that still has the column can be scored: it is no feature.
    model = train(again, TrainOptions(epochs=2)).model
    assert evaluate(model, source)["rows"] == 300
