"""Executors by the command line: what is shown, what is refused, and with which exit code."""

from __future__ import annotations

import json

import pytest
from cli_cases import strict

from zipml_ooc.executors import Capabilities, Option
from zipml_ooc.executors.reference import Reference
from zipml_ooc.executors.registry import offered


class Small(Reference):
    """The reference with an option, and few losses."""

    name = "small"

    def capabilities(self):
        return Capabilities(
            samples=(1, 2),
            levels=("uniform", "optimal"),
            options=(
                Option("colour", str, "of the lamp", "red", ("red", "blue")),
                Option("glow", float, "how bright it is", 0.5),
            ),
        )


@pytest.fixture(autouse=True)
def small():
    with offered(Small()):
        yield


def test_train_shows_the_executor_and_what_it_counted(zipml, samples):
    options = ("train", samples.dataset, "--executor", "small", "--epochs", 2)
    outcome = zipml(*options, "--executor-option", "colour=blue").must_succeed()
    assert "executor   small" in outcome.out and "2 runs, " in outcome.out
    assert "float arithmetic" in outcome.out
    assert "small does not average models: the result is the last model" in outcome.err
    facts = json.loads(zipml(*options, "--json").must_succeed().out)
    assert facts["executor"]["options"] == {"colour": "red", "glow": 0.5}
    assert facts["counters"]["runs"] == 2 and facts["counters"]["seconds"] > 0
    assert [epoch["counters"]["runs"] for epoch in facts["epochs"]] == [1, 1]
    assert "seconds" not in facts["executor"]["counters"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--l1", 1), "executor small does not take an L1 penalty: leave out --l1"),
        (("--executor-option", "colour=green"), "option colour must be red, blue; got 'green'"),
        (("--executor-option", "size=3"), "has no option 'size': it has colour, glow"),
        (("--executor-option", "glow=nan"), "option glow must be a number; got 'nan'"),
        (("--executor-option", "glow=1e999"), "option glow must be a number; got '1e999'"),
        (("--executor-option", "colour"), "--executor-option takes NAME=VALUE; got 'colour'"),
        (
            ("--executor-option", "colour=red", "--executor-option", "colour=red"),
            "colour is given twice",
        ),
        (("--executor", ""), "there is no executor ''"),
        (("--executor", "none"), "there is no executor 'none'"),
        (("--fallback", "reference"), "--fallback"),
    ],
)
def test_a_wrong_request_is_a_line_and_exit_code_2(zipml, samples, options, text):
    zipml("train", samples.dataset, "--executor", "small", *options).must_refuse(2, text)


def test_executors_lists_what_each_can_do(zipml):
    text = zipml("executors").must_succeed().out
    for name in ("native", "reference", "fpga-rtl"):
        assert f"executor    {name}" in text
    assert "resource    FPGA, which Dask workers must declare" in text
    assert "option      exponent=int: fixed point" in text
    facts = json.loads(zipml("executors", "--json").must_succeed().out)
    rtl = next(found for found in facts["executors"] if found["name"] == "fpga-rtl")
    assert rtl["capabilities"]["stored_bits"] == [1, 2, 4, 8]
    assert rtl["capabilities"]["options"][0]["kind"] == "int"


def test_executors_shows_the_live_instruction_set(zipml):
    from zipml_codecs import _native

    levels = _native.simd_levels()
    text = zipml("executors").must_succeed().out
    assert f"simd        {_native.live_simd()} (this machine runs {', '.join(levels)})" in text
    found = strict(zipml("executors", "--json").must_succeed().out)["executors"]
    assert [e["name"] for e in found][:2] == ["native", "reference"]
    assert found[0]["available"] and "int8" in found[0]["arithmetics"]
    assert found[0]["simd_levels"] == levels and levels[-1] == "scalar"
