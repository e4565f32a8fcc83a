"""The commands that make data of their own: synth and demo."""

from __future__ import annotations

import re

import numpy as np
from cli_cases import strict


def test_synth_writes_what_was_asked_for(zipml, tmp_path):
    out = tmp_path / "s.npz"
    asked = ("--kind", "classification", "--rows", 300, "--columns", 4, "--noise", 0.5)
    more = ("--condition", 9, "--seed", 3, "--test-rows", 50)
    facts = strict(zipml("synth", out, *asked, *more, "--json").must_succeed().out)
    assert facts["path"] == str(out)
    assert facts["test_path"] == str(tmp_path / "s-test.npz")
    assert {k: facts[k] for k in ("kind", "noise", "condition", "seed", "test_rows")} == {
        "kind": "classification", "noise": 0.5, "condition": 9.0, "seed": 3, "test_rows": 50,
    }  # fmt: skip
    with np.load(out) as arrays:
        assert arrays["X"].shape == (300, 4)
        assert set(arrays["y"].tolist()) == {0.0, 1.0}
    text = zipml("synth", out, *asked, *more, "--force").must_succeed().out
    assert "300 rows x 4 columns, classification" in text
    assert "s-test.npz (50 rows)" in text


def test_demo_is_near_full_precision_and_leaves_nothing(zipml, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = zipml("demo").must_succeed().out
    assert re.search(r"^4 bits, double sampling +0\.00\d+ +0\.99", text, re.MULTILINE)
    assert re.search(r"^full precision, least squares +0\.00\d+ +0\.99", text, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_demo_keeps_its_files_where_it_is_told(zipml, tmp_path):
    folder = tmp_path / "demo"
    facts = strict(zipml("demo", "--dir", folder, "--bits", 3, "--json").must_succeed().out)
    assert facts["folder"] == str(folder)
    assert facts["bits"] == 3
    low, exact = facts["low_precision"], facts["full_precision"]
    assert exact["train_loss"] < low["train_loss"] < facts["naive"]["train_loss"]
    assert exact["test_r2"] > low["test_r2"] > 0.98
    assert 6 < facts["ratio"] < 8.1
    zipml("info", folder / "demo.zarr").must_succeed()
    zipml("evaluate", folder / "demo.zipml", folder / "demo-test.npz").must_succeed()
    zipml("demo", "--dir", folder).must_refuse(2, "exists")
    zipml("demo", "--dir", folder, "--force").must_succeed()
