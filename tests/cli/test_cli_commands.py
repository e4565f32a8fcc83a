"""Each command does what it says, in words and in JSON."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from zipml_cli import options as opt
from zipml_cli import train_options as fit
from zipml_cli.render import size


def strict(text: str) -> dict:
    """One JSON object and nothing else, without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


COMMANDS = (
    "compress", "info", "verify", "repair", "train", "evaluate", "predict", "synth", "demo",
    "executors", "fpga",
)  # fmt: skip


def test_help_lists_every_command_and_comes_without_arguments_too(zipml):
    for arguments in ((), ("--help",), ("-h",)):
        outcome = zipml(*arguments).must_succeed()
        assert all(f"\n  {name} " in outcome.out for name in COMMANDS)
        assert outcome.err == ""


@pytest.mark.parametrize("command", [*COMMANDS[:-1], "fpga build", "fpga report"])
def test_help_of_a_command_shows_examples_one_a_line(zipml, command):
    text = zipml(*command.split(), "--help").must_succeed().out
    examples = text.split("Examples:\n")[1].split("\n\n")[0].splitlines()
    assert len(examples) >= 2
    assert all(line.startswith(f"    zipml {command}") for line in examples)


def test_devices_are_those_of_the_library():
    from zipml_cli.fpga import Device

    from zipml_ooc.gateware.builds import DEVICES

    assert [device.value for device in Device] == list(DEVICES)


def test_version(zipml):
    assert re.fullmatch(r"zipml \d+\.\d+\.\d+\n", zipml("--version").must_succeed().out)


def test_option_names_are_those_of_the_library():
    from zipml_codecs.quantizer import NAN_POLICIES, SCALES

    from zipml_ooc.sources.files import FORMATS
    from zipml_ooc.targets import TASKS
    from zipml_ooc.training import options as train_options

    for names, known in (
        (opt.Task, TASKS),
        (opt.Scale, SCALES),
        (opt.Nan, NAN_POLICIES),
        (opt.Format, FORMATS),
        (fit.Loss, train_options.LOSS_CHOICES),
        (fit.Sampling, train_options.SAMPLINGS),
        (fit.DoubleForm, train_options.DOUBLE_FORMS),
        (fit.Arithmetic, train_options.ARITHMETICS),
        (fit.Solver, train_options.SOLVERS),
        (fit.Schedule, train_options.SCHEDULES),
        (fit.GradientNorm, train_options.GRADIENT_NORMS),
        (fit.Multiclass, train_options.MULTICLASS),
        (fit.ClassWeight, train_options.CLASS_WEIGHTS),
    ):
        assert [n.value for n in names] == list(known)


def test_defaults_are_those_of_the_library():
    import inspect
    from dataclasses import asdict

    from zipml_cli import datasets, models

    from zipml_ooc import CompressOptions, SourceOptions, TrainOptions, synth

    def check(command, known, renamed=None):
        for name, parameter in inspect.signature(command).parameters.items():
            name = (renamed or {}).get(name, name)
            if name in known and parameter.default is not inspect.Parameter.empty:
                assert parameter.default == known[name] or known[name] == (), name

    check(datasets.compress, asdict(CompressOptions()))
    check(models.train, asdict(TrainOptions()), {"intercept": "fit_intercept"})
    for command in (datasets.compress, models.evaluate, models.predict):
        check(command, asdict(SourceOptions()))
    given = inspect.signature(synth).parameters
    check(datasets.synth, {name: p.default for name, p in given.items()})


def test_compress_says_what_it_wrote(zipml, samples, tmp_path):
    outcome = zipml("compress", samples.table, tmp_path / "d.zarr", "--target", "price")
    text = outcome.must_succeed().out
    assert "400 rows x 3 columns" in text
    assert "price (regression)" in text
    assert "times smaller than float32" in text
    assert outcome.err == ""


def test_compress_json_is_the_description_without_the_columns(zipml, samples, tmp_path):
    facts = strict(
        zipml(
            "compress", samples.table, tmp_path / "d.zarr", "--target", "price", "--json"
        ).must_succeed().out
    )  # fmt: skip
    described = strict(zipml("info", tmp_path / "d.zarr", "--json").must_succeed().out)
    del described["per_column"]
    assert facts.pop("seconds") > 0
    assert facts == described


def test_compress_passes_every_option_on(zipml, samples, tmp_path):
    table = samples.table.read_text().splitlines()
    source = tmp_path / "data.txt"
    source.write_text("\n".join(line.replace(",", "\t") for line in table[1:]) + "\n")
    facts = strict(
        zipml(
            "compress", source, tmp_path / "d.zarr", "--format", "csv", "--no-header",
            "--delimiter", "tab", "--target", "-1", "--target", "0", "--task", "regression",
            "--bits", "3", "--samples", "1", "--scale", "row-l2", "--no-standardize",
            "--nan", "mean", "--categorical", "one-hot", "--chunk-rows", "100", "--seed", "7",
            "--zarr-format", "2", "--threads", "1", "--json",
        ).must_succeed().out
    )  # fmt: skip
    expected = {
        "targets": ["c3", "c0"], "task": "regression", "bits": 3, "samples": 1,
        "scale": "row-l2", "standardized": False, "nan": "mean", "chunk_rows": 128,
        "seed": 7, "zarr_format": 2, "columns": 2, "rows": 400,
    }  # fmt: skip
    assert {key: facts[key] for key in expected} == expected


def test_compress_reads_arrays_by_name_and_several_files(zipml, tmp_path):
    for part in (0, 1):
        x = np.arange(30.0).reshape(10, 3) + part
        np.savez(tmp_path / f"part{part}.npz", data=x, goal=x[:, 0])
    names = ("--x-name", "data", "--y-name", "goal", "--json")
    facts = strict(
        zipml("compress", tmp_path / "part*.npz", tmp_path / "a.zarr", *names).must_succeed().out
    )
    both = (tmp_path / "part0.npz", tmp_path / "part1.npz")
    same = strict(zipml("compress", *both, tmp_path / "b.zarr", *names).must_succeed().out)
    assert facts["rows"] == same["rows"] == 20
    assert facts["targets"] == ["goal"]


def test_compress_force_replaces_a_dataset(zipml, samples, tmp_path):
    for bits in (4, 2):
        zipml(
            "compress", samples.table, tmp_path / "d.zarr", "--bits", bits, "--force"
        ).must_succeed()
    assert strict(zipml("info", tmp_path / "d.zarr", "--json").out)["bits"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["d.zarr"]


def test_info_json_is_what_describe_says(zipml, samples):
    from zipml_ooc import describe

    facts = strict(zipml("info", samples.dataset, "--json").must_succeed().out)
    assert facts == describe(samples.dataset)


def test_info_shows_as_many_columns_as_asked_for(zipml, samples):
    text = zipml("info", samples.dataset, "--columns", "2").must_succeed().out
    assert re.search(r"^a .*\nb .*\nand 1 more columns", text, re.MULTILINE)
    whole = zipml("info", samples.dataset).must_succeed().out
    assert "more columns" not in whole
    header = next(line for line in whole.splitlines() if line.startswith("column"))
    assert header.split()[1:] == ["min", "max", "mean", "std", "variance", "saved", "missing"]
    assert str(samples.table) in whole
    assert "\ncolumn" not in zipml("info", samples.dataset, "--columns", "0").must_succeed().out


def test_info_draws_the_levels_of_columns(zipml, samples, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "levels.svg"
    text = zipml("info", samples.dataset, "--plot", out, "--plot-columns", "b,a").must_succeed().out
    assert f"{out} (b, a)" in text
    assert out.read_text().startswith("<?xml")
    zipml("info", samples.dataset, "--plot", out, "--plot-columns", "z").must_refuse(2, "'z'")
    zipml("info", samples.dataset, "--plot-columns", "a").must_refuse(2, "--plot FILE")


def test_weights_come_from_their_column_and_are_named(zipml, tmp_path, csv):
    csv(tmp_path / "t.csv", ["a", "w", "y"], np.arange(60.0).reshape(20, 3) ** 0.5)
    arguments = [tmp_path / "t.csv", tmp_path / "d.zarr", "--target", "y", "--weight", "w"]
    assert "weights    w\n" in zipml("compress", *arguments).must_succeed().out
    facts = strict(zipml("info", tmp_path / "d.zarr", "--json").must_succeed().out)
    assert facts["weight"] == "w"
    assert [c["name"] for c in facts["per_column"]] == ["a"]
    zipml("compress", *arguments[:-1], "z", "--force").must_refuse(2, "'z'")


def test_info_shows_names_that_would_steer_a_terminal_or_a_table(zipml, tmp_path, csv):
    nasty = ["[red]x[/red]", "\x1b[31mred", "é" * 60, "y"]
    csv(tmp_path / "t.csv", nasty, np.arange(40.0).reshape(10, 4) ** 0.5)
    zipml("compress", tmp_path / "t.csv", tmp_path / "d.zarr").must_succeed()
    text = zipml("info", tmp_path / "d.zarr").must_succeed().out
    assert "[red]x[/red]" in text
    assert "é" * 60 in text
    assert "\x1b" not in text
    assert r"\x1b[31mred" in text


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


def test_sizes_read_well():
    assert [size(n) for n in (0, 999, 1000, 15_400, 1_300_000, 2 * 10**12)] == [
        "0 bytes", "999 bytes", "1.00 kB", "15.4 kB", "1.30 MB", "2.00 TB",
    ]  # fmt: skip
    assert all(size(10**n) for n in range(22))


def test_numbers_that_are_not_finite_become_null(capsys):
    from zipml_cli.render import print_json

    print_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert strict(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_executors_shows_the_live_instruction_set(zipml):
    from zipml_codecs import _native

    levels = _native.simd_levels()
    text = zipml("executors").must_succeed().out
    assert f"simd        {_native.live_simd()} (this machine runs {', '.join(levels)})" in text
    found = strict(zipml("executors", "--json").must_succeed().out)["executors"]
    assert [e["name"] for e in found][:2] == ["native", "reference"]
    assert found[0]["available"] and "int8" in found[0]["arithmetics"]
    assert found[0]["simd_levels"] == levels and levels[-1] == "scalar"


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
