"""Every mistake gets its exit code and one line, and changes nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

BAD_TABLES = {
    "text": ("a,b,y\n1,red,3\n2,blue,4\n", ("'b'", "categorical")),
    "nan": ("a,b,y\n1,2,3\n1,,4\n", ("'b'", "--nan mean")),
    "nan-target": ("a,b,y\n1,2,3\n1,2,\n", ("'y'",)),
    "infinite": ("a,b,y\n1,2,3\n1,inf,4\n", ("'b'", "infinite")),
    "ragged": ("a,b,y\n1,2,3\n1,2\n", ()),
    "empty": ("", ()),
    "header-only": ("a,b,y\n", ()),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_compress_refuses_data_that_cannot_be_used(zipml, tmp_path, keep, case):
    content, words = BAD_TABLES[case]
    source = tmp_path / "data.csv"
    source.write_text(content)
    with keep(tmp_path):
        zipml("compress", source, tmp_path / "d.zarr", "--target", "y").must_refuse(1, *words)


def test_compress_refuses_one_class_only(zipml, tmp_path, keep):
    source = tmp_path / "data.csv"
    source.write_text("a,y\n1,no\n2,no\n")
    with keep(tmp_path):
        zipml("compress", source, tmp_path / "d.zarr", "--target", "y").must_refuse(1, "one class")


WRONG_OPTIONS = {
    "scale": (("--scale", "foo"), ("foo", "column", "row", "row-l2")),
    "task": (("--task", "foo"), ("foo", "auto", "regression", "classification")),
    "nan": (("--nan", "drop"), ("drop", "error", "mean")),
    "categorical": (("--categorical", "x"), ("one-hot",)),
    "format": (("--format", "xls"), ("xls", "csv", "parquet", "zarr")),
    "bits-high": (("--bits", 9), ("bits", "9")),
    "bits-low": (("--bits", 0), ("bits", "0")),
    "bits-text": (("--bits", "four"), ("--bits",)),
    "samples": (("--samples", 3), ("samples", "3")),
    "zarr-format": (("--zarr-format", 4), ("2 or 3", "4")),
    "chunk-rows": (("--chunk-rows", 0), ("chunk rows", "0")),
    "threads": (("--threads", 0), ("threads", "0")),
    "seed": (("--seed", -1), ("seed", "-1")),
    "delimiter": (("--delimiter", "ab"), ("delimiter", "ab")),
    "unknown": (("--frobnicate",), ("--frobnicate",)),
    "target": (("--target", "prise"), ("prise", "price")),
    "target-index": (("--target", 9), ("9", "0 to 3")),
    "target-twice": (("--target", "a", "--target", "0"), ("'a'", "twice")),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_compress_refuses_wrong_options(zipml, samples, tmp_path, keep, case):
    options, words = WRONG_OPTIONS[case]
    with keep(tmp_path):
        zipml("compress", samples.table, tmp_path / "d.zarr", *options).must_refuse(2, *words)


def test_compress_refuses_missing_sources_and_places(zipml, samples, tmp_path, keep):
    dest = tmp_path / "d.zarr"
    with keep(tmp_path):
        zipml("compress", tmp_path / "no.csv", dest).must_refuse(2, "no.csv")
        zipml("compress", tmp_path / "no*.csv", dest).must_refuse(2, "no*.csv")
        zipml("compress", "nowhere://a/b.csv", dest).must_refuse(2, "nowhere")
        zipml("compress", samples.table, tmp_path / "no" / "d.zarr").must_refuse(2, "no")
        zipml("compress", samples.table, "nowhere://bucket/d.zarr").must_refuse(2, "nowhere")
        zipml("compress", samples.table, "zip://d.zip").must_refuse(2, "folder")
        zipml("compress", samples.table).must_refuse(2, "Missing argument")
        zipml("compress").must_refuse(2, "Missing argument")


def test_compress_keeps_what_is_there(zipml, samples, tmp_path, keep):
    (tmp_path / "d.zarr").mkdir()
    (tmp_path / "d.zarr" / "precious.txt").write_text("mine")
    (tmp_path / "file.zarr").write_text("mine")
    with keep(tmp_path):
        for name in ("d.zarr", "file.zarr"):
            zipml("compress", samples.table, tmp_path / name).must_refuse(2, "exists", "--force")
            zipml("compress", samples.table, tmp_path / name, "--force").must_refuse(2, name)


def test_compress_refuses_a_failed_replacement_without_harm(zipml, samples, tmp_path, keep):
    shutil.copytree(samples.dataset, tmp_path / "d.zarr")
    source = tmp_path / "bad.csv"
    source.write_text("a,b\n1,2\n1,x\n")
    with keep(tmp_path):
        zipml("compress", source, tmp_path / "d.zarr", "--force").must_refuse(1)
        zipml("compress", tmp_path / "d.zarr", tmp_path / "d.zarr", "--force").must_refuse(2)


def test_what_is_no_dataset_is_refused(zipml, samples, tmp_path, keep):
    (tmp_path / "folder").mkdir()
    import zarr

    zarr.create_group(tmp_path / "other.zarr")
    with keep(tmp_path):
        for command in ("info", "train"):
            zipml(command, tmp_path / "nothing.zarr").must_refuse(2, "nothing.zarr")
            zipml(command, tmp_path / "folder").must_refuse(1, "folder")
            zipml(command, samples.table).must_refuse(1, "numbers.csv")
            zipml(command, tmp_path / "other.zarr").must_refuse(1, "zipml compress")


def test_a_damaged_dataset_is_refused(zipml, samples, tmp_path, keep):
    dataset = tmp_path / "d.zarr"
    shutil.copytree(samples.dataset, dataset)
    chunk = next(p for p in (dataset / "X" / "c").rglob("*") if p.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-10])
    with keep(tmp_path):
        zipml("train", dataset, "--out", tmp_path / "m.zipml").must_refuse(1, "chunk", "X/c/0/0")
        zipml("evaluate", samples.model, dataset).must_refuse(1, "chunk", "X/c/0/0")
    chunk.unlink()
    with keep(tmp_path):
        zipml("train", dataset).must_refuse(1, "missing")
        zipml("info", dataset).must_refuse(1, "0/0")


def test_a_dataset_without_target_cannot_be_trained_on(zipml, samples, tmp_path, keep):
    text = zipml("compress", samples.table, tmp_path / "d.zarr").must_succeed().out
    assert "none (to train, compress with --target)" in text
    with keep(tmp_path):
        zipml("train", tmp_path / "d.zarr").must_refuse(2, "--target")


WRONG_TRAINING = {
    "loss": (("--loss", "cubic"), ("cubic", "auto", "squared", "softmax")),
    "loss-of-numbers": (("--loss", "logistic"), ()),
    "l2": (("--l2", "-1"), ("l2", "-1")),
    "l2-nan": (("--l2", "nan"), ("l2", "nan")),
    "l1": (("--l1", "-1"), ("l1", "-1")),
    "solver": (("--solver", "foo"), ("sgd", "svrg", "gram")),
    "schedule": (("--schedule", "foo"), ("constant", "1cycle")),
    "momentum": (("--momentum", 1), ("momentum", "1")),
    "model-bits": (("--model-bits", 4), ("model bits", "4", "8, 16 or 32")),
    "model-bits-and-arithmetic": (("--model-bits", 8, "--arithmetic", "int16"), ("8", "int16")),
    "gradient-bits": (("--gradient-bits", 9), ("gradient bits", "9", "2 to 8")),
    "gradient-norm": (("--gradient-norm", "l1"), ("max", "l2")),
    "replicas": (("--replicas", 0), ("replicas", "0")),
    "too-many-replicas": (("--replicas", 8), ("8 replicas", "7", "fewer")),
    "full-gradient-bits-of-sgd": (("--full-gradient-bits", 8), ("svrg",)),
    "full-gradient-bits-of-packed": (
        ("--solver", "svrg", "--full-gradient-bits", 8),
        ("--layout weaved",),
    ),
    "l2-path-of-words": (("--solver", "gram", "--l2-path", "a,b"), ("--l2-path", "a,b")),
    "l2-path-of-sgd": (("--l2-path", "0,1", "--validation", 0.2), ("--solver gram",)),
    "l2-path-without-validation": (("--solver", "gram", "--l2-path", "0,1"), ("validation",)),
    "steps-of-gram": (("--solver", "gram", "--epochs", 3), ("gram", "epochs")),
    "svrg-in-integers": (("--solver", "svrg", "--arithmetic", "int8"), ("svrg", "float")),
    "sampling": (("--sampling", "foo"), ("foo", "double", "corrected", "naive")),
    "double-form": (("--double-form", "foo"), ("mean", "split")),
    "arithmetic": (("--arithmetic", "int4"), ("int16", "int8")),
    "epochs": (("--epochs", 0), ("epochs", "0")),
    "batch-rows": (("--batch-rows", 0), ("batch rows", "0")),
    "step-size": (("--step-size", 0), ("step size", "0")),
    "shrinkage": (("--shrinkage", 2), ("shrinkage", "2")),
    "validation": (("--validation", 1), ("validation", "1")),
    "patience": (("--patience", 3), ("patience",)),
    "seed": (("--seed", -1), ("seed", "-1")),
    "threads": (("--threads", 0), ("threads", "0")),
    "workers": (("--workers", 0), ("workers", "0")),
    "scheduler": (("--scheduler", "foo:bar"), ("foo:bar", "tcp://")),
    "scheduler-scheme": (("--scheduler", "http://foo:1"), ("http://foo:1", "tcp://")),
    "scheduler-and-workers": (
        ("--scheduler", "tcp://127.0.0.1:1", "--workers", 2),
        ("--scheduler", "--workers"),
    ),
}


@pytest.mark.parametrize("case", WRONG_TRAINING)
def test_train_refuses_wrong_options(zipml, samples, tmp_path, keep, case):
    options, words = WRONG_TRAINING[case]
    with keep(tmp_path):
        zipml("train", samples.dataset, "--out", tmp_path / "m.zipml", *options).must_refuse(
            2, *words
        )


def test_train_says_that_it_diverged(zipml, samples, tmp_path, keep):
    with keep(tmp_path):
        zipml(
            "train", samples.dataset, "--step-size", 1e6, "--out", tmp_path / "m.zipml"
        ).must_refuse(1, "diverged", "smaller")


def test_a_run_that_diverges_leaves_its_last_good_model_beside(zipml, tmp_path):
    """A step that the data bear for an epoch or two, but not for long."""
    rng = np.random.default_rng(3)
    common = rng.standard_normal((500, 1))
    x = common + 0.02 * rng.standard_normal((500, 12))
    np.savez(tmp_path / "t.npz", X=x, y=common[:, 0] + 0.1 * rng.standard_normal(500))
    zipml("compress", tmp_path / "t.npz", tmp_path / "d", "--bits", 2).must_succeed()
    command = ("train", tmp_path / "d", "--shrinkage", 1, "--epochs", 2000)
    command += ("--step-size", 0.1, "--out", tmp_path / "m.zipml")
    kept = tmp_path / "m.last-good.zipml"
    zipml(*command).must_refuse(1, "diverged", "leave out --shrinkage", str(kept))
    assert not (tmp_path / "m.zipml").exists()
    good = kept.read_bytes()
    scores = json.loads(zipml("evaluate", kept, tmp_path / "t.npz", "--json").must_succeed().out)
    assert scores["r2"] > 0.9
    zipml(*command).must_refuse(1, "diverged", "exists")
    assert kept.read_bytes() == good
    zipml(*command, "--force").must_refuse(1, "diverged", str(kept))


def test_train_refuses_the_models_place_before_it_trains(
    zipml, samples, tmp_path, keep, monkeypatch
):
    def fail(*arguments, **options):
        raise AssertionError("it trained first")

    monkeypatch.setattr("zipml_ooc.training.train", fail)
    monkeypatch.setattr("zipml_ooc.train", fail, raising=False)
    (tmp_path / "m.zipml").write_text("mine")
    with keep(tmp_path):
        for options, word in (
            ((tmp_path / "m.zipml",), "--force"),
            ((tmp_path,), "folder"),
            ((tmp_path, "--force"), "folder"),
            ((tmp_path / "no" / "m.zipml",), "does not exist"),
        ):
            zipml("train", samples.dataset, "--out", *options).must_refuse(2, word)


def test_models_that_cannot_be_used_are_refused(zipml, samples, tmp_path, keep):
    whole = samples.model.read_bytes()
    broken = tmp_path / "broken.zipml"
    broken.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "p.csv"
    with keep(tmp_path):
        for command in (("evaluate",), ("predict", "--out", out)):
            name, *options = command
            call = lambda model: zipml(name, model, samples.table, *options)  # noqa: B023, E731
            call(tmp_path / "none.zipml").must_refuse(2, "none.zipml")
            call(tmp_path).must_refuse(2)
            call(broken).must_refuse(1, "broken.zipml", "truncated")
            call(samples.table).must_refuse(1, "numbers.csv")


def test_a_model_of_other_columns_is_refused(zipml, samples, tmp_path, csv, keep):
    other = csv(tmp_path / "other.csv", ["a", "z", "price"], np.arange(30.0).reshape(10, 3))
    zipml("compress", other, tmp_path / "other.zarr", "--target", "price").must_succeed()
    out = tmp_path / "p.csv"
    with keep(tmp_path):
        for data in (other, tmp_path / "other.zarr"):
            zipml("evaluate", samples.model, data).must_refuse(2)
            zipml("predict", samples.model, data, "--out", out).must_refuse(2)
        zipml("evaluate", samples.model, samples.labels_dataset).must_refuse(2, "price", "size")
        zipml("evaluate", samples.model, samples.labels).must_refuse(2, "price")
        zipml("evaluate", samples.labels_model, samples.table).must_refuse(2, "size")
        zipml("evaluate", samples.labels_model, samples.table, "--target", "price").must_refuse(
            1, "none of the 2 classes"
        )


def test_values_that_a_model_cannot_use_are_refused_with_their_place(
    zipml, samples, tmp_path, keep
):
    source = tmp_path / "data.csv"
    out = tmp_path / "p.csv"
    for row in ("1,,3,4", "1,red,3,4", "1,2", "1,inf,3,4"):
        source.write_text(f"a,b,c,price\n1,2,3,4\n{row}\n")
        with keep(tmp_path):
            zipml("evaluate", samples.model, source).must_refuse(1)
            zipml("predict", samples.model, source, "--out", out).must_refuse(1)
    source.write_text("a,b,c,price\n")
    with keep(tmp_path):
        zipml("evaluate", samples.model, source).must_refuse(1)
        zipml("predict", samples.model, source, "--out", out).must_refuse(1)


def test_predict_keeps_what_is_there(zipml, samples, tmp_path, keep):
    (tmp_path / "p.csv").write_text("mine")
    (tmp_path / "d.npy").mkdir()
    with keep(tmp_path):
        for out, words in (
            ((tmp_path / "p.csv",), ("exists", "--force")),
            ((tmp_path / "d.npy", "--force"), ("folder",)),
            ((tmp_path / "p.txt",), (".csv", ".parquet", ".npy")),
            ((tmp_path / "no" / "p.csv",), ("does not exist",)),
        ):
            zipml("predict", samples.model, samples.table, "--out", *out).must_refuse(2, *words)
        zipml("predict", samples.model, samples.table).must_refuse(2, "--out")
    zipml(
        "predict", samples.model, samples.table, "--out", tmp_path / "p.csv", "--force"
    ).must_succeed()


def test_synth_refuses_what_it_cannot_make(zipml, tmp_path, keep):
    (tmp_path / "s.csv").write_text("mine")
    with keep(tmp_path):
        for arguments, words in (
            ((tmp_path / "s.csv",), ("exists", "force")),
            ((tmp_path / "s.xyz",), (".npz", ".zarr")),
            ((tmp_path / "no" / "s.csv",), ("does not exist",)),
            ((tmp_path / "t.csv", "--kind", "foo"), ("regression", "classification")),
            ((tmp_path / "t.csv", "--rows", 0), ("rows", "0")),
            ((tmp_path / "t.csv", "--columns", 0), ("columns", "0")),
            ((tmp_path / "t.csv", "--noise", "nan"), ("noise", "nan")),
            ((tmp_path / "t.csv", "--condition", 0.5), ("condition", "0.5")),
            ((tmp_path / "t.csv", "--seed", -1), ("seed", "-1")),
            ((tmp_path / "t.csv", "--test-rows", -1), ("-1",)),
        ):
            zipml("synth", *arguments).must_refuse(2, *words)


def test_demo_refuses_what_it_cannot_do(zipml, tmp_path, keep):
    (tmp_path / "file").write_text("mine")
    with keep(tmp_path):
        zipml("demo", "--bits", 9, "--dir", tmp_path / "new").must_refuse(2, "bits", "9")
        zipml("demo", "--dir", tmp_path / "no" / "deeper").must_refuse(2, "deeper")
        zipml("demo", "--dir", tmp_path / "file").must_refuse(2, "file")


def test_unknown_commands_and_wrong_numbers_are_refused(zipml, samples):
    zipml("frobnicate").must_refuse(2, "frobnicate", "zipml --help")
    zipml("--frobnicate").must_refuse(2, "--frobnicate")
    zipml("info", samples.dataset, "--columns", -1).must_refuse(2, "--columns")
    zipml("info", samples.dataset, "extra").must_refuse(2, "extra")
    zipml("info").must_refuse(2, "DATASET", "zipml info --help")


def test_a_bug_is_one_line_and_debug_shows_where(zipml, samples, monkeypatch):
    def fail(*arguments, **options):
        raise KeyError("line one\nline two")

    monkeypatch.setattr("zipml_ooc.describe", fail, raising=False)
    zipml("info", samples.dataset).must_refuse(1, "unexpected KeyError", "--debug")
    for arguments in (("--debug", "info", samples.dataset), ("info", samples.dataset, "--debug")):
        outcome = zipml(*arguments)
        assert outcome.code == 1
        assert "Traceback" in outcome.err
        assert outcome.err.splitlines()[-1].startswith("zipml: error: unexpected KeyError")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 9 TiB"), ("out of memory", "9 TiB")),
        (OSError(5, "Input/output error", "/data/x"), ("/data/x: Input/output error",)),
        (PermissionError(13, "Permission denied", "/data/x"), ("/data/x: Permission denied",)),
    ],
)
def test_failures_of_the_machine_are_one_line(zipml, samples, monkeypatch, error, words):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("zipml_ooc.describe", fail, raising=False)
    zipml("info", samples.dataset).must_refuse(1, *words)


def test_an_interruption_is_code_130_and_a_line(zipml, samples, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("zipml_ooc.describe", interrupt, raising=False)
    outcome = zipml("info", samples.dataset)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "zipml: interrupted\n")
