"""What evaluate and predict say, in words and in JSON."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cli_cases import strict


def test_evaluate_regression_on_raw_and_on_compressed_data(zipml, samples):
    for data in (samples.table, samples.dataset):
        scores = strict(zipml("evaluate", samples.model, data, "--json").must_succeed().out)
        assert list(scores) == ["rows", "loss", "r2", "rmse", "mae"]
        assert scores["rows"] == 400
        assert scores["r2"] > 0.9
    text = zipml("evaluate", samples.model, samples.table).must_succeed().out
    assert [line.split()[0] for line in text.splitlines()] == ["rows", "R2", "RMSE", "MAE"]


def test_evaluate_classification_with_labels_as_text(zipml, samples):
    scores = strict(
        zipml("evaluate", samples.labels_model, samples.labels, "--json").must_succeed().out
    )
    assert list(scores) == ["rows", "loss", "accuracy", "log_loss", "auc"]
    assert scores["auc"] > 0.95
    text = zipml("evaluate", samples.labels_model, samples.labels_dataset).must_succeed().out
    assert re.findall(r"^(rows|accuracy|log loss|AUC)", text, re.MULTILINE) == [
        "rows", "accuracy", "log loss", "AUC",
    ]  # fmt: skip


def test_evaluate_takes_the_target_from_another_column(zipml, samples, tmp_path):
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(samples.table.read_text().replace("price", "cost", 1))
    scores = strict(
        zipml(
            "evaluate", samples.model, renamed, "--target", "cost", "--json"
        ).must_succeed().out
    )  # fmt: skip
    assert scores["r2"] > 0.9


def test_scores_that_are_undefined_are_null_in_json(zipml, samples, tmp_path):
    lines = samples.table.read_text().splitlines()
    one = tmp_path / "one.csv"
    one.write_text("\n".join(lines[:2]) + "\n")
    assert strict(zipml("evaluate", samples.model, one, "--json").must_succeed().out)["r2"] is None
    assert "R2    -" in zipml("evaluate", samples.model, one).must_succeed().out


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy"])
@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_predict_writes_a_row_for_each_row(zipml, samples, tmp_path, suffix, kind):
    from pyarrow import csv, parquet

    model, data = samples.folder / f"{kind}.zipml", samples.folder / f"{kind}.csv"
    out = tmp_path / f"p.{suffix}"
    result = strict(zipml("predict", model, data, "--out", out, "--json").must_succeed().out)
    assert result == {"rows": 400, "path": str(out)}
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    if suffix == "npy":
        values = np.load(out)
        assert len(values) == 400
        assert set(values.tolist()) == {"large", "small"} or values.dtype == np.float64
        return
    table = csv.read_csv(out) if suffix == "csv" else parquet.read_table(out)
    expected = ["price"] if kind == "numbers" else ["size", "probability_small"]
    assert table.column_names == expected
    assert table.num_rows == 400


def test_predict_needs_no_target(zipml, samples, tmp_path):
    lines = samples.table.read_text().splitlines()
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    for data, name in ((bare, "bare"), (samples.table, "full")):
        zipml(
            "predict", samples.model, data, "--out", tmp_path / f"{name}.npy", "--force"
        ).must_succeed()
    assert np.array_equal(np.load(tmp_path / "bare.npy"), np.load(tmp_path / "full.npy"))
