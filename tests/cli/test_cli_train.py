"""What train says, in words and in JSON, and that options get through."""

from __future__ import annotations

import re

from cli_cases import strict


def test_train_json_tells_every_epoch(zipml, samples, tmp_path):
    out = tmp_path / "m.zipml"
    facts = strict(
        zipml(
            "train", samples.dataset, "--out", out, "--epochs", 3, "--validation", 0.2, "--json"
        ).must_succeed().out
    )  # fmt: skip
    assert set(facts) == {
        "epochs", "loss", "validation_loss", "seconds", "model", "rows", "columns",
        "step_size", "shrinkage", "sampling", "arithmetic", "solver", "l2_path", "skipped",
    }  # fmt: skip
    assert [e["epoch"] for e in facts["epochs"]] == [1, 2, 3]
    for epoch in facts["epochs"]:
        assert set(epoch) == {
            "epoch", "loss", "validation_loss", "seconds", "bytes_read", "bits",
            "refetch_rate", "refetched_bytes",
        }  # fmt: skip
        assert epoch["bytes_read"] > 0
    assert (facts["rows"], facts["columns"], facts["sampling"]) == (400, 3, "double")
    assert facts["model"] == str(out)
    assert out.is_file()


def test_train_without_out_saves_nothing_and_says_so(zipml, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = zipml("train", samples.dataset, "--epochs", 2).must_succeed()
    assert "not saved" in outcome.out
    facts = strict(zipml("train", samples.dataset, "--epochs", 2, "--json").must_succeed().out)
    assert facts["model"] is None
    assert facts["validation_loss"] is None
    assert list(tmp_path.iterdir()) == []


def test_train_passes_every_option_on(zipml, samples, tmp_path):
    from zipml_ooc import load_model

    out = tmp_path / "m.zipml"
    out.write_text("old")
    zipml(
        "train", samples.dataset, "--out", out, "--loss", "huber", "--l2", "0.5",
        "--multiclass", "ovr", "--huber-delta", "0.75", "--class-weight", "none",
        "--sampling", "double", "--double-form", "split",
        "--arithmetic", "int16", "--epochs", "4", "--batch-rows", "128",
        "--step-size", "0.01", "--shrinkage", "0.5", "--no-average", "--validation", "0.25",
        "--patience", "2", "--no-intercept", "--seed", "9", "--threads", "1", "--force",
        "--l1", "0.125", "--solver", "sgd", "--schedule", "cosine", "--momentum", "0.5",
        "--model-bits", "16", "--gradient-bits", "8", "--gradient-norm", "l2", "--replicas", "2",
        "--bits", "4", "--on-error", "skip",
    ).must_succeed()  # fmt: skip
    model = load_model(out)
    assert model.record["options"] == {
        "loss": "huber", "multiclass": "ovr", "huber_delta": 0.75,
        "class_weight": "none", "l2": 0.5, "on_error": "skip",
        "sampling": "double", "double_form": "split", "arithmetic": "int16", "epochs": 4,
        "batch_rows": 128, "step_size": 0.01, "shrinkage": 0.5, "average": False,
        "validation": 0.25, "patience": 2, "fit_intercept": False, "seed": 9,
        "l1": 0.125, "solver": "sgd", "l2_path": [], "full_gradient_bits": None,
        "schedule": "cosine", "momentum": 0.5,
        "model_bits": 16, "gradient_bits": 8, "gradient_norm": "l2", "replicas": 2,
        "bits": 4,
    }  # fmt: skip


def test_train_gram_shows_its_path_and_keeps_the_best(zipml, samples, tmp_path):
    out = tmp_path / "m.zipml"
    command = (
        "train", samples.dataset, "--out", out, "--force", "--solver", "gram",
        "--l2-path", "0,1e-3,10", "--validation", 0.2,
    )  # fmt: skip
    facts = strict(zipml(*command, "--json").must_succeed().out)
    assert [point["l2"] for point in facts["l2_path"]] == [0, 1e-3, 10]
    assert facts["validation_loss"] == min(p["validation_loss"] for p in facts["l2_path"])
    text = zipml(*command).must_succeed().out
    assert "solved from second moments" in text
    assert re.search(r"^l2 0.001 +loss \S+, validation \S+$", text, re.MULTILINE)


def test_a_polynomial_gradient_tells_how_near_it_is(zipml, samples, tmp_path):
    zipml(
        "compress", samples.labels, tmp_path / "d", "--target", "size", "--samples", 4
    ).must_succeed()
    options = ("train", tmp_path / "d", "--epochs", 2, "--gradient", "chebyshev")
    shown = zipml(*options).must_succeed().out
    assert "chebyshev sampling" in shown
    assert re.search(r"polynomial +degree [13] on margins of \+-[\d.]+, off by at most", shown)
    facts = strict(zipml(*options, "--json").must_succeed().out)
    assert facts["polynomial"]["degree"] in (1, 3) and facts["polynomial"]["error"] > 0
    shown = zipml(*options, "--loss", "hinge").must_succeed().out
    number = r"[\d.e-]+"
    assert re.search(
        rf"polynomial +degree [13] on margins of 1 \+-{number}, off by at most {number} beyond "
        rf"{number} of the kink; rows {number} where it matters, {number} of noise",
        re.sub(r"\s+", " ", shown),
    )
