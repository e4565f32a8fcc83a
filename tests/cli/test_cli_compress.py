"""What compress writes and info shows, in words and in JSON."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cli_cases import strict


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
