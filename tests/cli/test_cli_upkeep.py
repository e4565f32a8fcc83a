"""zipml verify and repair: exit codes, what they print, and what they leave alone."""

from __future__ import annotations

import json
import shutil


def damaged_copy(samples, folder):
    dataset = folder / "d.zarr"
    shutil.copytree(samples.dataset, dataset)
    chunk = dataset / "X/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    (dataset / "y/c/0").unlink()
    return dataset


def test_verify_says_what_it_read_and_that_it_is_whole(zipml, samples, tmp_path, keep):
    with keep(samples.folder):
        out = zipml("verify", samples.dataset).must_succeed().out
        facts = json.loads(zipml("verify", samples.dataset, "--json").must_succeed().out)
    assert "1 of X, 1 of y; 2 objects" in out
    assert "whole" in out
    assert facts["whole"] and facts["damages"] == [] and facts["chunks"] == {"X": 1, "y": 1}
    assert facts["read_bytes"] > 0 and facts["unchecked"] == []


def test_verify_names_what_is_damaged_and_ends_with_1(zipml, samples, tmp_path, keep):
    dataset = damaged_copy(samples, tmp_path)
    with keep(tmp_path):
        outcome = zipml("verify", dataset)
        assert outcome.code == 1
        assert "2 damages" in outcome.out
        for words in (("X/c/0/0", "truncated"), ("y/c/0", "missing")):
            assert any(all(word in line for word in words) for line in outcome.out.splitlines())
        (line,) = outcome.err.splitlines()
        assert line.startswith(f"zipml: error: {dataset} is damaged: zipml repair {dataset} --so")
        outcome = zipml("verify", dataset, "--json")
        assert outcome.code == 1
        facts = json.loads(outcome.out)
        assert not facts["whole"]
        assert [d["place"] for d in facts["damages"]] == ["X/c/0/0", "y/c/0"]


def test_repair_makes_again_what_verify_names(zipml, samples, tmp_path):
    dataset = damaged_copy(samples, tmp_path)
    out = zipml("repair", dataset, "--source", samples.table).must_succeed().out
    assert "2 damages repaired, 2 chunks made again from the source" in out
    for path in samples.dataset.rglob("*"):
        if path.is_file():
            assert (dataset / path.relative_to(samples.dataset)).read_bytes() == path.read_bytes()
    zipml("verify", dataset).must_succeed()
    out = zipml("repair", dataset, "--source", samples.table).must_succeed().out
    assert "nothing to repair" in out
    facts = json.loads(zipml("repair", dataset, "--json").must_succeed().out)
    assert facts["repaired"] == [] and facts["chunks"] == 0


def test_verify_and_repair_refuse_in_one_line(zipml, samples, tmp_path, keep):
    dataset = damaged_copy(samples, tmp_path)
    with keep(tmp_path):
        zipml("verify", tmp_path / "nothing").must_refuse(2, "nothing")
        zipml("verify", samples.table).must_refuse(1, "numbers.csv")
        zipml("verify", dataset, "--threads", 0).must_refuse(2, "threads", "0")
        zipml("repair", tmp_path / "nothing", "--source", samples.table).must_refuse(2, "nothing")
        zipml("repair", dataset).must_refuse(2, "--source")
        zipml("repair", dataset, "--source", tmp_path / "no.csv").must_refuse(2, "no.csv")
        zipml("repair", dataset, "--source", samples.labels).must_refuse(2, "price")
